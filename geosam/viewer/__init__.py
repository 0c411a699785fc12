"""A page on this machine to look at a result and to edit it: click on water, and the model draws it.

>>> page = geosam.view("ortho.tif", "rivers.geojson", out="edited.geojson")
>>> page.stop()

The model embeds tiles ahead as the view moves, so that a click costs a decoding only, and its answer is that of a
run with the same prompts. The server listens on 127.0.0.1 alone and answers nobody without the token in its address;
the page needs no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.errors import OptionsError
from geosam.options import SegmentOptions

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray

    from geosam.models import PromptableModel
    from geosam.pipeline import Rivers
    from geosam.scene import Scene
    from geosam.viewer.serving import Viewer

__all__ = ["view"]

NEEDS = {"fastapi", "starlette", "uvicorn", "titiler", "rio_tiler"}
"""What the extra brings."""


def view(
    scene: str | Path | xarray.DataArray | Scene,
    rivers: str | Path | gpd.GeoDataFrame | Rivers | None = None,
    *,
    compare: str | Path | gpd.GeoDataFrame | Rivers | None = None,
    out: str | Path | None = None,
    options: SegmentOptions | None = None,
    model: PromptableModel | None = None,
    probability: str | Path | None = None,
    points_only: bool = False,
    background: str | None = None,
    port: int = 0,
    overwrite: bool = False,
    height_px: int = 640,
) -> Viewer:
    """Serve a page that shows a scene and its rivers, and edits them.

    Args:
        scene: Path, URL or GDAL name of a raster, an xarray.DataArray, or an open scene.
        rivers: Result to begin with: a vector file, a mask raster, a table, or the result of a run; None: nothing.
        compare: A second result, shown beside the first by a swipe.
        out: Where edits are saved; None: ``<scene>-edited.geojson`` in the working folder (without CRS .gpkg).
        options: As of a run: they say how the scene is read, which model answers, and what becomes a polygon.
        model: A loaded model; None: loaded as ``options.model`` says.
        probability: Raster of ``geosam segment --probability`` to be shown.
        points_only: Answer by the prompts alone, as a run with ``--points`` does; by default a model that finds water
            unasked starts from that.
        background: URL of a background map, with {z}, {x} and {y}; None: none, and no network is used.
        port: Of 127.0.0.1; 0: a free one.
        overwrite: ``out`` may be replaced.
        height_px: Of the page in a notebook's cell.

    Returns:
        The page's handle: ``.url``, ``.stop()``; the last value of a notebook's cell shows the page there.

    Raises:
        OptionsError: The extra is not installed, the port is taken, or polygons have no CRS.
        SceneError: The raster cannot be used as it is.
        OutputError: ``out`` exists, or its folder is missing.
    """
    try:
        from geosam.viewer.opening import Given, open_page
        from geosam.viewer.serving import Viewer
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in NEEDS:
            raise
        raise OptionsError(
            f'geosam view needs {error.name}, which is not installed. Run: pip install "geosam-rivers[view]"'
        ) from None
    given = Given(_table(rivers), _table(compare), out, probability, background, points_only, overwrite)
    return Viewer(open_page(scene, given, options or SegmentOptions(), model), port, height_px)


def _table(found: Any) -> Any:
    """The polygons of a run's result; other things as they are."""
    return getattr(found, "polygons", found)
