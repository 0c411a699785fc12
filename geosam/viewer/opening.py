"""From what a person gives to a page: every check is here, before anything is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geosam.errors import OptionsError
from geosam.models import load_model
from geosam.options import SegmentOptions
from geosam.pipeline import at_working_gsd
from geosam.scene import Scene
from geosam.viewer.asking import Asker
from geosam.viewer.embedded import EmbeddedTiles
from geosam.viewer.layers import Layers
from geosam.viewer.place import Place
from geosam.viewer.probability import ProbabilityLayer
from geosam.viewer.rasters import FileLayer
from geosam.viewer.routes import Page
from geosam.viewer.session import Session, check_out
from geosam.viewer.table import read_table
from geosam.viewer.watch import Watch

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray

    from geosam.models import PromptableModel


@dataclass(frozen=True)
class Given:
    """What is shown besides the scene, and where edits go; as of :func:`geosam.viewer.view`."""

    rivers: str | Path | gpd.GeoDataFrame | None = None
    compare: str | Path | gpd.GeoDataFrame | None = None
    out: str | Path | None = None
    probability: str | Path | None = None
    background: str | None = None
    points_only: bool = False
    overwrite: bool = False


def open_page(
    scene: str | Path | xarray.DataArray | Scene,
    given: Given,
    options: SegmentOptions,
    model: PromptableModel | None = None,
) -> Page:
    """Open everything and put it on one page.

    Raises:
        SceneError: The raster cannot be used as it is.
        ModelError: The model cannot be loaded, or understands no points.
        OptionsError: Polygons cannot be read or placed.
        OutputError: The output exists, or its folder is missing.
    """
    _check_background(given.background)
    opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
    working = at_working_gsd(opened, options.scene)
    out = _out(given, working)
    place = Place.of(working)
    empty = _nothing(working)
    rivers = empty if given.rivers is None else read_table("RIVERS", given.rivers, working)
    compare = None if given.compare is None else read_table("--compare", given.compare, working)
    probability = None
    if given.probability is not None:
        probability = FileLayer(given.probability, working, place, option="--probability", is_mask=False)
    loaded = load_model(options.model) if model is None else model
    asker = Asker(working, loaded, options, EmbeddedTiles(working, loaded, options), not given.points_only)
    session = Session(asker, place, rivers, out, Watch(working.source))
    shown = ProbabilityLayer(place, probability, lambda: session.seen)
    layers = Layers(working, place, loaded, options, shown, compare)
    return Page(session, layers, given.background)


def _out(given: Given, scene: Scene) -> Path:
    suffix = ".geojson" if scene.has_crs else ".gpkg"
    out = Path(f"{scene.name}-edited{suffix}") if given.out is None else Path(given.out)
    check_out(out, scene.has_crs, given.overwrite)
    return out


def _nothing(scene: Scene) -> gpd.GeoDataFrame:
    """A result without polygons."""
    import geopandas as gpd

    crs = scene.geobox.crs.proj if scene.has_crs and scene.geobox.crs is not None else None
    return read_table("RIVERS", gpd.GeoDataFrame({"geometry": []}, geometry="geometry", crs=crs), scene)


def _check_background(template: str | None) -> None:
    if template is None:
        return
    lacking = [part for part in ("{z}", "{x}", "{y}") if part not in template]
    if lacking or not template.startswith(("http://", "https://")):
        raise OptionsError(
            f"--background {template} is no address of map tiles. Give one like https://HOST/{{z}}/{{x}}/{{y}}.png."
        )
