"""The whole way from an orthoimage to river polygons; the only room that knows the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geosam.errors import SceneError
from geosam.mosaic import Mosaic
from geosam.options import RiverOptions, SegmentOptions, VectorOptions
from geosam.pipeline.guess import at_working_gsd, check_asked, first_guess, guess_needed
from geosam.pipeline.machines import Here, Machines
from geosam.pipeline.outputs import Outputs, work_folder, write_json
from geosam.pipeline.report import Clock, Progress, report_of
from geosam.prompts.given import GivenPrompts, way_of
from geosam.prompts.opening import read_given
from geosam.scene import Scene
from geosam.scene.cache import bounded_cache, cache_bytes
from geosam.tiling import plan_tiles
from geosam.vector import Strip, polygonize, write_rivers

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray

    from geosam.models import PromptableModel

SPECK_PX = 25
"""Polygons and islands under so many working pixels are dropped and filled where no area is given."""

__all__ = ["Machines", "Outputs", "Progress", "Rivers", "at_working_gsd", "first_guess", "segment", "write_network"]


@dataclass(frozen=True)
class Rivers:
    """The result of a run."""

    polygons: gpd.GeoDataFrame
    """One water body a row in the scene's CRS: id, area_m2, perimeter_m, probability, scene, model."""
    report: dict[str, Any]
    """Tiles, seconds a stage, device, memory, model, coarse mask, warnings, options; plain JSON values. Where products
    could not be made of the polygons, ``products_unmade`` says why."""

    @property
    def failed_tiles(self) -> int:
        """Tiles that raised; they are nodata in the result."""
        return int(self.report["tiles"]["failed"])


def segment(
    scene: str | Path | xarray.DataArray | Scene,
    options: SegmentOptions | None = None,
    *,
    out: str | Path | None = None,
    probability: str | Path | None = None,
    mask: str | Path | None = None,
    report: str | Path | None = None,
    products: str | Path | None = None,
    model: PromptableModel | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    machines: Machines | None = None,
) -> Rivers:
    """River polygons from an orthoimage.

    Args:
        scene: Path, URL or GDAL name of a raster, an xarray.DataArray with a georeference, or an open scene.
        options: Every stage's options.
        out: Polygons: .geojson (lon/lat by RFC 7946), .gpkg, .fgb or .parquet (in the scene's CRS).
        probability: GeoTIFF of the probability of water.
        mask: GeoTIFF of the water mask.
        report: JSON report of the run.
        products: GeoPackage of centrelines, widths, reaches and islands: see :func:`geosam.rivers.river_products`.
        model: A loaded model, so that many scenes share it; None: loaded as ``options.model`` says.
        overwrite: Replace outputs that exist.
        resume: Go on from the strips that a killed run with the same ``out`` finished.
        progress: Told the stage, the work done and the work in all.
        machines: Compute the tiles, from :mod:`geosam.cluster`; None: this process does.

    Returns:
        Polygons and report. Nothing found is an empty table, not an error.

    Raises:
        SceneError: The raster cannot be used as it is.
        ModelError: The model cannot be loaded.
        OptionsError: Options contradict each other.
        OutputError: An output cannot be written; nothing existing was touched.
        RunError: Every tile failed.
    """
    options = SegmentOptions() if options is None else options
    outputs = Outputs(*(None if path is None else Path(path) for path in (out, probability, mask, report, products)))
    outputs.check(overwrite)
    way = way_of(options)
    machines = Here() if machines is None else machines
    clock = Clock(progress)
    with clock.stage("open"):
        opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
        outputs.check(overwrite, opened.has_crs)
        working = at_working_gsd(opened, options.scene)
        given = read_given(options.prompts, working) if way in ("given", "both") else None
        loaded = machines.model(options.model) if model is None else model
        check_asked(loaded, options, given)
    cache = bounded_cache(cache_bytes(working.decoder.header))
    with work_folder(outputs, resume, machines.owner) as folder, cache:
        return _run(working, loaded, options, given, outputs, folder, clock, overwrite, resume, machines)


def _run(
    scene: Scene,
    model: PromptableModel,
    options: SegmentOptions,
    given: GivenPrompts | None,
    outputs: Outputs,
    folder: Path,
    clock: Clock,
    overwrite: bool,
    resume: bool,
    machines: Machines,
) -> Rivers:
    """Coarse mask, tiles, polygons, files: in this order."""
    from geosam import predict

    with clock.stage("coarse") as tell:
        coarse = guess_needed(options) or first_guess(scene, model, options, folder, tell, machines.run)
    with clock.stage("predict") as tell:
        plan = plan_tiles(scene.shape, model.tile_px, options.tiles.overlap_px)
        given = given and given.pinned(plan.lefts, plan.tops, plan.tile_px)
        signature = {**predict.signature(scene, coarse, model, options), "given prompts": given and given.digest()}
        mosaic = Mosaic.open(folder / "strips", plan, scene.geobox, signature, resume=resume)
        tiles = machines.run(scene, coarse, plan, model, options, mosaic, given=given, progress=tell)
    threshold = model.threshold if options.vector.threshold is None else options.vector.threshold
    with clock.stage("vectorize"):
        rivers = polygonize(
            _water(mosaic, threshold), scene.geobox, without_specks(options.vector, scene),
            scene=scene.name, model=model.name, has_crs=scene.has_crs,
        )  # fmt: skip
    with clock.stage("write"):
        _write_rasters(mosaic, outputs, threshold)
        if outputs.vector is not None:
            write_rivers(rivers, outputs.vector, overwrite)
    unmade = None
    if outputs.products is not None:
        with clock.stage("products"):
            unmade = write_network(rivers, outputs.products, overwrite, scene.gsd_m)
    facts = {
        **report_of(scene, model, coarse, given, tiles, rivers, options, threshold, clock), "products_unmade": unmade
    }  # fmt: skip
    if outputs.report is not None:
        write_json(outputs.report, facts)
    return Rivers(rivers, facts)


def write_network(
    water: gpd.GeoDataFrame | Path, path: Path, overwrite: bool = False, gsd_m: float | None = None
) -> str | None:
    """Write centrelines, widths, reaches and islands of polygons that a run found, if they can be made of these.

    The polygons are what a run was for, and may have taken hours: they stand, whatever becomes of the products.

    Args:
        water: The polygons, or the file that holds them.
        path: The GeoPackage to be.
        overwrite: Replace an existing file.
        gsd_m: Size of the pixels that they were traced from, since simplified outlines do not tell; None or NaN:
            read from the outlines.

    Returns:
        None, or in one line why there are none: the water is noise.

    Raises:
        OutputError: The file cannot be written.
    """
    from geosam.rivers import river_products

    known = gsd_m if gsd_m is not None and np.isfinite(gsd_m) else None
    try:
        river_products(water, RiverOptions(gsd_m=known), out=path, overwrite=overwrite)
    except SceneError as error:
        earlier = f" {path} is still that of an earlier run." if path.exists() else ""
        reason = str(error).replace("the table", "the water", 1)
        return f"{path} was not made, but the polygons were: {reason}{earlier}"
    return None


def without_specks(options: VectorOptions, scene: Scene) -> VectorOptions:
    """The options with areas of :data:`SPECK_PX` pixels where none are given: less is noise of the model."""
    speck_m2 = SPECK_PX * scene.pixel_area_m2
    unset = {name: speck_m2 for name in ("min_area_m2", "max_hole_m2") if getattr(options, name) is None}
    return options.model_copy(update=unset)


def _water(mosaic: Mosaic, threshold: float) -> Iterator[Strip]:
    for row_off, values in mosaic.strips(skip_constant=True):
        yield Strip(row_off, values > np.float32(threshold), values)  # NaN compares False: nodata is not water.


def _write_rasters(mosaic: Mosaic, outputs: Outputs, threshold: float) -> None:
    if outputs.probability is not None:
        mosaic.write_probability(outputs.probability)
    if outputs.mask is not None:
        mosaic.write_mask(outputs.mask, threshold)
