"""``geosam.select``: from a file of segments to rivers, without running the model again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geosam.errors import OptionsError, SceneError
from geosam.options import SceneOptions, SelectOptions, VectorOptions, checked
from geosam.scene import Scene
from geosam.scene.header import Box
from geosam.segments.choosing import Choice, choose, in_pixels
from geosam.segments.files import Segments, read_segments
from geosam.segments.identity import Identity, header_digest
from geosam.vector import check_output, write_rivers
from geosam.vector.ground import Ground, ground_of
from geosam.vector.ordered import crew
from geosam.vector.rings import Rings

if TYPE_CHECKING:
    import xarray

Shapes = NDArray[np.object_]


@dataclass(frozen=True)
class Selected:
    """The result of a selection."""

    polygons: gpd.GeoDataFrame
    """One water body a row, as :func:`geosam.segment` gives them."""
    segments: int
    """Segments that were taken."""
    facts: dict[str, Any]
    """The way, and what it went by, such as the fitted threshold."""
    warnings: tuple[str, ...]


def select(
    segments: str | Path,
    out: str | Path | None = None,
    *,
    scene: str | Path | xarray.DataArray | Scene | None = None,
    min_area_m2: float | None = None,
    max_hole_m2: float | None = None,
    overwrite: bool = False,
    **given: Any,
) -> Selected:
    """Rivers from some of a scene's segments; no model runs, but for ``text``.

    >>> geosam.select("segments.gpkg", "rivers.geojson", index="ndwi")

    Segments that lie one over another become one water body.

    Args:
        segments: What :func:`geosam.everything` wrote.
        out: Polygons: .geojson, .gpkg, .fgb or .parquet.
        scene: The scene, which ``text`` needs. None: where it is given in the file, if it is there.
        min_area_m2: Water bodies smaller than this are dropped; None: none is.
        max_hole_m2: Islands smaller than this are filled; None: none is.
        overwrite: Replace an output that exists.
        **given: Fields of :class:`~geosam.options.SelectOptions`: one of ``points``, ``box``, ``boxes``, ``text``,
            ``index`` and ``touching``, with ``above``, ``clip`` and ``model``.

    Raises:
        OptionsError: No way or several, a file that cannot be used, or segments of another scene.
        SceneError: The scene cannot be read.
        OutputError: ``out`` cannot be written; nothing existing was touched.
    """
    options = checked(SelectOptions, given, "select")
    limits = checked(VectorOptions, {"min_area_m2": min_area_m2, "max_hole_m2": max_hole_m2}, "select")
    way = options.way
    if out is not None:
        check_output(out, overwrite)
    read = read_segments(segments)
    if out is not None:
        check_output(out, overwrite, has_crs=read.identity.has_crs)
    opened = matching_scene(read, scene, needed=way == "text")
    shapes = in_pixels(read)
    choice = _by_text(read, opened, options) if way == "text" else choose(read, shapes, options)
    polygons = _bodies(read, shapes, choice, limits)
    if out is not None:
        write_rivers(polygons, out, overwrite)
    return Selected(polygons, int(choice.taken.sum()), {"by": way, **choice.facts}, choice.warnings)


def matching_scene(segments: Segments, scene: Any, *, needed: bool) -> Scene | None:
    """The scene that segments are of, at their resolution; None where it is not there, and not needed.

    Raises:
        OptionsError: The scene is another one than the segments are of, or is needed and not there.
    """
    known = segments.identity
    if scene is None and not Path(known.source).is_file():
        if needed:
            raise OptionsError(f"--text looks at the scene, and {known.source} is not there. Say where with --scene.")
        return None
    named = known.source if scene is None else scene
    opened = named if isinstance(named, Scene) else _opened(named, known)
    fault = _difference(opened, known)
    if fault is not None:
        raise OptionsError(
            f"{segments.path} is out of date: {opened.source} is not the scene that it was made of ({fault}). "
            "Run geosam everything again, or give the right --scene."
        )
    return _on_grid(opened, known)


def _on_grid(scene: Scene, known: Identity) -> Scene:
    """The scene on the grid of the segments, which may be a coarser one of a part of it."""
    if scene.shape == known.shape and scene.geobox.affine.almost_equals(known.geobox.affine):
        return scene
    to_pixels = ~scene.geobox.affine
    (left, top), (right, bottom) = (
        to_pixels @ (known.geobox.affine @ corner) for corner in ((0, 0), (known.width, known.height))
    )
    crop = Box(round(top), round(left), round(bottom - top), round(right - left))
    return replace(scene, geobox=known.geobox, crop=crop, aoi=None)


def _opened(source: Any, known: Identity) -> Scene:
    options = SceneOptions(bands=known.bands, allow_no_crs=not known.has_crs)
    try:
        return Scene.open(source, options)
    except SceneError as error:
        # Another raster may lack those bands; it is out of date then, whatever its bands.
        try:
            return Scene.open(source, options.model_copy(update={"bands": None}))
        except SceneError:
            raise error from None


def _difference(scene: Scene, known: Identity) -> str | None:
    """What sets a scene apart from the one that segments are of; None: nothing does."""
    if header_digest(scene.decoder.header) == known.header:
        return None
    height, width = scene.decoder.header.shape
    now = Identity.of(scene)
    if now.crs != known.crs:
        return "its CRS differs"
    return f"its header differs; it is now {width} x {height} px at ({now.affine[2]:.8g}, {now.affine[5]:.8g})"


def _by_text(segments: Segments, scene: Scene | None, options: SelectOptions) -> Choice:
    from geosam.segments.text import by_text

    assert scene is not None
    return by_text(segments, scene, options)


def _bodies(segments: Segments, shapes: Shapes, choice: Choice, limits: VectorOptions) -> gpd.GeoDataFrame:
    """What is taken as water bodies with the attributes of ``geosam segment``, the largest first."""
    known, table = segments.identity, segments.table
    ground = ground_of(known.geobox, known.has_crs)
    water = shapely.union_all(shapes[choice.taken])
    if choice.removed.any():
        water = shapely.difference(water, shapely.union_all(shapes[choice.removed]))
    bodies = np.array([part for part in shapely.get_parts(water) if part.geom_type == "Polygon"], object)
    bodies, area, perimeter = _measured(bodies, ground, limits)
    order = np.argsort(-area, kind="stable")
    model = str(table["model"].iloc[0]) if len(table) else ""
    columns = {
        "id": np.arange(1, len(order) + 1),
        "area_m2": area[order].round(6),
        "perimeter_m": perimeter[order].round(6),
        "probability": _probability(bodies[order], shapes[choice.taken], table[choice.taken]).round(4),
        "scene": pd.Series([known.name] * len(order), dtype="str"),
        "model": pd.Series([model] * len(order), dtype="str"),
    }
    world: Shapes = shapely.transform(bodies[order], ground.world)
    return gpd.GeoDataFrame(columns, geometry=shapely.orient_polygons(world), crs=ground.crs)


def _measured(
    bodies: Shapes, ground: Ground, limits: VectorOptions
) -> tuple[Shapes, NDArray[np.float64], NDArray[np.float64]]:
    """Bodies that are large enough, small islands filled, with their areas and perimeters."""
    if limits.max_hole_m2:
        least = limits.max_hole_m2
        bodies = np.array([_without_small(body, ground, least) for body in bodies.tolist()], object)
    area, perimeter = _sizes(bodies, ground)
    large = area >= (limits.min_area_m2 or 0.0)
    return bodies[large], area[large], perimeter[large]


def _without_small(body: shapely.Polygon, ground: Ground, least: float) -> shapely.Polygon:
    holes = np.array([shapely.Polygon(ring) for ring in body.interiors], object)
    sizes, _ = _sizes(holes, ground)
    return shapely.Polygon(body.exterior, [hole.exterior for hole in holes[sizes >= least]])


def _sizes(bodies: Shapes, ground: Ground) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area in m2, holes taken off, and perimeter in m, holes added, of polygons in pixels."""
    if not len(bodies):
        return np.zeros(0), np.zeros(0)
    # One polygon after the other, its outer ring first: the order that Rings asks for.
    _, xy, offsets = shapely.to_ragged_array(bodies)
    body = np.repeat(np.arange(len(bodies)), np.diff(offsets[1]))
    rings = Rings(xy, offsets[0].astype(np.int64), body)
    with crew(1) as hands:
        area, length = ground.measure(rings, hands)
    sign = np.where(rings.outer(), 1.0, -1.0)
    return np.bincount(body, sign * area).astype(np.float64), np.bincount(body, length).astype(np.float64)


def _probability(bodies: Shapes, taken: Shapes, table: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Mean of the segments that a body is made of, by their areas in it."""
    if not len(bodies):
        return np.zeros(0)
    body, segment = shapely.STRtree(taken).query(bodies, predicate="intersects")
    shared = shapely.area(shapely.intersection(bodies[body], taken[segment]))
    total = np.bincount(body, shared * table["probability"].to_numpy(float)[segment], len(bodies))
    return np.asarray(total / np.maximum(np.bincount(body, shared, len(bodies)), 1e-9))
