"""``geosam info``: look at a raster before an hours-long run."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from geosam.cli import shared

if TYPE_CHECKING:
    from geosam.estimate import Estimate
    from geosam.scene import Scene


@click.command(short_help="Look at a raster before an hours-long run.")
@click.argument("raster", metavar="INPUT")
@shared.model_options
@shared.coarse_option
@shared.scene_options
@shared.tile_options
@shared.config_option
@click.option("--calibrate", is_flag=True, help="Measure this machine anew, say after it was busy the first time.")
@shared.json_option
def command(raster: str, calibrate: bool, as_json: bool) -> None:
    """Say what geosam makes of INPUT: bands, resolution, nodata, stretch, tiles, memory and time.

    \b
      geosam info ortho.tif
      geosam info sentinel.tif --bands sentinel2 --aoi reach.gpkg --json

    INPUT is any raster that GDAL opens: a path, a URL or a /vsi path. Only its header and samples
    of its pixels are read, so this takes a second or two for a raster of any size. Options mean
    what they mean for geosam segment, so that its answer is the one that a run would start from.

    Time and memory are those of geosam segment with the same options, to within a factor of two, on
    this machine, in one process, with nothing else at work. How fast it runs the model is measured
    the first time, which takes some ten seconds, and kept; measured anew for another model or
    version, or with --calibrate. How many tiles are wet, and so will run, is counted where the scene
    is small, else sampled: then a range stands beside the number. Rasters asked for with
    --probability or --mask come on top.

    \b
    JSON keys of the estimate; seconds are wall-clock, MB are 2^20 bytes:
      seconds, seconds_low, seconds_high   of the whole run; the range is that of wet_tiles
      seconds_by_stage                     start, open, coarse, predict, vectorize
      seconds_dry, seconds_all_tiles       of the whole run if no tile, or every tile, were to run
      memory_mb                            peak of the process
      tiles, wet_tiles, wet_tiles_low, wet_tiles_high, tiles_seen
      assumed_model_mpx_per_s, assumed_scene_mpx_per_s   as measured: tiles, and all else
      calibration                          what was measured of the machine, and when

    A raster that geosam cannot use gets one line that says why and what to do, and exit code 2.
    """
    from geosam.estimate import estimate_run
    from geosam.pipeline import at_working_gsd
    from geosam.scene import Scene

    options = shared.segment_options()
    begun = time.perf_counter()
    scene = at_working_gsd(Scene.open(raster, options.scene), options.scene)
    opened_in_s = time.perf_counter() - begun
    estimate = estimate_run(scene, options, opened_in_s=opened_in_s, anew=calibrate, tell=_tell)
    facts = describe(scene, estimate)
    click.echo(json.dumps(facts, indent=2, allow_nan=False) if as_json else _table(facts))


def _tell(message: str) -> None:
    click.echo(f"geosam: {message}", err=True)


def describe(scene: Scene, estimate: Estimate) -> dict[str, Any]:
    """What ``geosam info --json`` prints; every value is plain JSON, None where there is none.

    Args:
        scene: At the resolution it is to be run at.
        estimate: Of a run on it.
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
        **_cost(scene, estimate),
        "warnings": list(scene.warnings),
    }


def _cost(scene: Scene, estimate: Estimate) -> dict[str, Any]:
    look, seconds = estimate.look, estimate.seconds
    besides = seconds["coarse"] + seconds["vectorize"]
    return {
        "tiles": look.tiles,
        "wet_tiles": round(look.wet),
        "wet_tiles_low": math.floor(look.wet_low),
        "wet_tiles_high": math.ceil(look.wet_high),
        "tiles_seen": look.seen,
        "memory_mb": estimate.memory_mb,
        "seconds": round(estimate.total_s, 1),
        "seconds_low": round(estimate.low_s, 1),
        "seconds_high": round(estimate.high_s, 1),
        "seconds_by_stage": {stage: round(spent, 2) for stage, spent in seconds.items()},
        "seconds_dry": round(estimate.dry_s, 1),
        "seconds_all_tiles": round(estimate.all_s, 1),
        "assumed_model_mpx_per_s": _short(estimate.calibration.model_mpx_s),
        "assumed_scene_mpx_per_s": _short(math.prod(scene.shape) / 1e6 / besides) if besides else None,
        "calibration": asdict(estimate.calibration),
    }


def _short(number: float) -> float:
    """Three digits."""
    return float(f"{number:.3g}")


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
        ("tiles", _tiles(facts)),
        ("memory", f"about {facts['memory_mb'] / 1024:.1f} GB"),
        ("time", _time(facts)),
        ("measured", _measured(facts)),
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


def _tiles(facts: dict[str, Any]) -> str:
    text = f"{facts['tiles']:,} of {facts['calibration']['tile_px']} px, {facts['wet_tiles']:,} of them wet"
    if facts["wet_tiles_low"] == facts["wet_tiles_high"]:
        return text
    return f"{text} ({facts['wet_tiles_low']:,} to {facts['wet_tiles_high']:,}: {facts['tiles_seen']:,} were looked at)"


def _time(facts: dict[str, Any]) -> str:
    low, high = _duration(facts["seconds_low"]), _duration(facts["seconds_high"])
    between = f" ({low} to {high})" if low != high else ""
    dry, all_tiles = _duration(facts["seconds_dry"]), _duration(facts["seconds_all_tiles"])
    return f"about {_duration(facts['seconds'])}{between}; {dry} if all were dry, {all_tiles} if all tiles ran"


def _measured(facts: dict[str, Any]) -> str:
    found = facts["calibration"]
    return (
        f"{found['model']} at {facts['assumed_model_mpx_per_s']:g} Mpx/s ({found['device']}, {found['dtype']}), "
        f"on {found['machine']}, {found['day']}"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
