"""``geosam info``: look at a raster before an hours-long run."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from geosam.cli import shared

if TYPE_CHECKING:
    from geosam.scene import Scene

TILE_PX = 512
"""Side of a tile of river-tiny."""
MODEL_MPX_S = 0.8
"""Megapixels a second through river-tiny on two CPU cores."""
SCENE_MPX_S = 15.0
"""Megapixels a second of all the rest: reading, coarse mask, blending, polygons."""
BASE_MB = 900
"""Memory of the program itself with the model loaded."""
BYTES_PER_PX = 24
"""Memory a pixel of one row of tiles: picture, coarse mask, probability and its weights."""


@click.command(short_help="Look at a raster before an hours-long run.")
@click.argument("raster", metavar="INPUT")
@shared.scene_options
@shared.config_option
@shared.json_option
def command(raster: str, as_json: bool) -> None:
    """Say what geosam makes of INPUT: bands, resolution, nodata, stretch, tiles, memory and time.

    \b
      geosam info ortho.tif
      geosam info sentinel.tif --bands sentinel2 --aoi reach.gpkg --json

    INPUT is any raster that GDAL opens: a path, a URL or a /vsi path. Only its header and a sample
    of its pixels are read, so this takes about a second for a raster of any size. Options mean
    what they mean for geosam segment, so that its answer is the one that a run would start from.

    Valid share and stretch are those of the sample. Tiles are all there are at 512 px; a run skips
    the dry ones, so it takes between the two times given. Times are estimates for two CPU cores.

    A raster that geosam cannot use gets one line that says why and what to do, and exit code 2.
    """
    from geosam.pipeline import at_working_gsd
    from geosam.scene import Scene

    options = shared.segment_options()
    scene = at_working_gsd(Scene.open(raster, options.scene), options.scene)
    facts = describe(scene, options.tiles.overlap_px)
    click.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else _table(facts))


def describe(scene: Scene, overlap_px: int | None = None) -> dict[str, Any]:
    """What ``geosam info --json`` prints; every value is plain JSON, None where there is none.

    Args:
        scene: At the resolution it is to be run at.
        overlap_px: Overlap of neighbouring tiles; None: an eighth of a tile.
    """
    header = scene.decoder.header
    height, width = scene.shape
    return {
        "source": scene.source,
        "bands": dict(scene.bands),
        "count": scene.count,
        "dtype": scene.dtype,
        "crs": _crs(scene),
        "width": width,
        "height": height,
        "gsd_m": _finite(scene.gsd_m),
        "native_width": header.shape[1],
        "native_height": header.shape[0],
        "native_gsd_m": _finite(scene.native_gsd_m),
        "area_m2": height * width * scene.pixel_area_m2 if scene.has_crs else None,
        "nodata": sorted({_number(value) for value in header.nodata if value is not None}, key=str),
        "mask": _mask(scene),
        "valid_fraction": scene.valid_fraction,
        "stretch": {"low": list(scene.stretch.low), "high": list(scene.stretch.high)},
        "block": {"width": header.block[1], "height": header.block[0]},
        "overviews": len(header.levels) - 1,
        **_cost(scene, overlap_px),
        "warnings": list(scene.warnings),
    }


def _cost(scene: Scene, overlap_px: int | None) -> dict[str, Any]:
    from geosam.tiling import plan_tiles

    plan = plan_tiles(scene.shape, TILE_PX, overlap_px)
    mpx = math.prod(scene.shape) / 1e6
    without_model = mpx / SCENE_MPX_S
    return {
        "tiles": len(plan),
        "memory_mb": round(BASE_MB + scene.shape[1] * TILE_PX * BYTES_PER_PX / 2**20),
        "seconds_dry": round(without_model, 1),
        "seconds_all_tiles": round(without_model + len(plan) * TILE_PX**2 / 1e6 / MODEL_MPX_S, 1),
        "assumed_model_mpx_per_s": MODEL_MPX_S,
        "assumed_scene_mpx_per_s": SCENE_MPX_S,
    }


def _crs(scene: Scene) -> str | None:
    crs = scene.geobox.crs
    if crs is None:
        return None
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def _mask(scene: Scene) -> str | None:
    if scene.decoder.header.palette is not None:
        return "palette"
    if scene.decoder.alpha is not None:
        return f"alpha band {scene.decoder.alpha}"
    return "mask band" if scene.decoder.header.gdal_mask else None


def _number(value: float) -> float | str:
    """Nodata as JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(facts: dict[str, Any]) -> str:
    rows = [
        ("bands", ", ".join(f"{role}={band}" for role, band in facts["bands"].items()) + f" (of {facts['count']})"),
        ("values", f"{facts['dtype']}, shown from {_triple(facts, 'low')} to {_triple(facts, 'high')}"),
        ("size", f"{facts['width']:,} x {facts['height']:,} px{_ground(facts)}"),
        ("CRS", facts["crs"] or "none: the result is in pixel coordinates"),
        ("nodata", _nodata(facts)),
        ("valid", f"{facts['valid_fraction']:.1%} of a sample"),
        ("stored in", f"blocks of {facts['block']['width']} x {facts['block']['height']} px, {_overviews(facts)}"),
        ("tiles", f"{facts['tiles']:,} of {TILE_PX} px, if all of them hold water"),
        ("memory", f"about {facts['memory_mb'] / 1024:.1f} GB"),
        (
            "time",
            f"{_duration(facts['seconds_dry'])} if all is dry, "
            f"{_duration(facts['seconds_all_tiles'])} if all tiles run (at {SCENE_MPX_S:g} and {MODEL_MPX_S:g} Mpx/s)",
        ),
        *(("warning", text) for text in facts["warnings"]),
    ]
    return "\n".join([facts["source"], *(f"  {name:<10} {text}" for name, text in rows)])


def _triple(facts: dict[str, Any], end: str) -> str:
    values = [f"{value:.4g}" for value in facts["stretch"][end]]
    return values[0] if len(set(values)) == 1 else "/".join(values)


def _ground(facts: dict[str, Any]) -> str:
    if facts["gsd_m"] is None:
        return ""
    text = f" of {facts['gsd_m']:.3g} m, {facts['area_m2'] / 1e6:,.3g} km²"
    native = facts["native_width"], facts["native_height"]
    if native == (facts["width"], facts["height"]):
        return text
    return f"{text} (the file: {native[0]:,} x {native[1]:,} px of {facts['native_gsd_m']:.3g} m)"


def _nodata(facts: dict[str, Any]) -> str:
    found = [*(f"{value:g}" if isinstance(value, float) else value for value in facts["nodata"])]
    return ", ".join([*found, *([facts["mask"]] if facts["mask"] else [])]) or "none"


def _overviews(facts: dict[str, Any]) -> str:
    count = facts["overviews"]
    return f"{count} overview{'s' * (count != 1)}" if count else "no overviews"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
