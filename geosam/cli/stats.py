"""``geosam stats``: a second layer under the water, such as temperature or height."""

from __future__ import annotations

import time
from typing import Any

import click

from geosam.cli import shared
from geosam.options import StatsOptions, checked


def _percentiles(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers, such as 10,50,90.") from None


@click.command(name="stats", short_help="Temperature or height under the water and along it.")
@click.argument("water")
@click.option(
    "--layer", "layers", multiple=True, required=True, metavar="RASTER",
    help="Raster whose values are wanted, in any grid and CRS, all its bands. Give it several times for several.",
)  # fmt: skip
@click.option("--out", required=True, metavar="STATS.gpkg", help="The GeoPackage to be, with a layer for each table.")
@click.option("--csv", metavar="STATS.csv", help="Also write all statistics as one long table.")
@click.option(
    "--percentiles", callback=_percentiles, metavar="P,P,...", help="Percentiles of the values.  [default: 10,50,90]"
)
@click.option(
    "--along", "along_m", type=float, metavar="M",
    help="Also along the rivers, by reaches of so many metres, about.  [default: not; for cold patches ten widths]",
)  # fmt: skip
@click.option(
    "--colder-than", type=float, metavar="DEGREES",
    help="Also find patches of water that lie so many degrees, or units of the raster, below their reach's median.",
)  # fmt: skip
@click.option(
    "--cold-layer", metavar="NAME[:BAND]", help="Layer to look for cold water in.  [default: the first band given]"
)
@click.option(
    "--min-patch", "min_patch_m2", type=float, metavar="M2",
    help="Leave out cold patches smaller than this, in square metres.  [default: 4 pixels]",
)  # fmt: skip
@click.option("--report", metavar="R.json", help="Also write what was found, as JSON.")
@shared.overwrite_option
def command(
    water: str, layers: tuple[str, ...], out: str, csv: str | None, report: str | None, overwrite: bool, **given: Any
) -> None:
    """Mean, spread, percentiles and area of RASTER under WATER: polygons in any format and CRS, or a mask raster.

    \b
      geosam stats rivers.geojson --layer thermal.tif --layer dem.tif --out stats.gpkg --csv stats.csv
      geosam stats rivers.gpkg --layer thermal.tif --along 200 --out stats.gpkg
      geosam stats rivers.gpkg --layer thermal.tif --along 500 --colder-than 1.5 --out stats.gpkg

    \b
    Layers of STATS.gpkg:
      polygons  WATER as it was, with the columns of every layer
      along     with --along: the water of each reach of a river, as geosam rivers cuts its centrelines
      cold      with --colder-than: patches colder than their reach's median, in the CRS of the raster

    Columns begin with the raster's name, and the band's if it has several: thermal_mean, thermal_std, thermal_min,
    thermal_p10, ..., thermal_max, thermal_area_m2 (of the part that has data), thermal_covered (its share). A pixel
    counts by the share of it that a polygon covers. Polygons go to the raster's CRS and its pixels stay as they are;
    scale and offset of the file are applied, nodata counts as nothing.

    Needs exactextract: pip install 'geosam-rivers[stats]'.
    """
    from pathlib import Path

    from geosam.pipeline.outputs import write_json
    from geosam.stats import river_stats
    from geosam.vector import check_path

    started = time.perf_counter()
    values = {name: value for name, value in given.items() if value is not None}
    options = checked(StatsOptions, values, "geosam stats")
    if report is not None:
        check_path(Path(report), overwrite)
    with shared.stage_progress() as progress:
        stats = river_stats(water, layers, options, out=out, csv=csv, overwrite=overwrite, progress=progress)
    if report is not None:
        write_json(Path(report), stats.report)
    for line in _summary(stats.report):
        click.echo(line)
    click.echo(f"{out} ({time.perf_counter() - started:.1f} s)")


def _summary(report: dict[str, Any]) -> list[str]:
    return [*(_layer_line(layer, report["polygons"]) for layer in report["layers"]), *_found(report)]


def _layer_line(layer: dict[str, Any], polygons: int) -> str:
    missed = [
        f"{layer[key]:,} {what}"
        for key, what in (
            ("outside", "outside it"), ("partly_outside", "partly outside"), ("without_data", "without data"),
        )
        if layer[key]
    ]  # fmt: skip
    bands = len(layer["bands"])
    some = f"{polygons:,} polygon{'' if polygons == 1 else 's'}{f' in {bands} bands' if bands > 1 else ''}"
    return f"{layer['name']}: {some}{' (' + ', '.join(missed) + ')' if missed else ''}"


def _found(report: dict[str, Any]) -> list[str]:
    options, lines = report["options"], []
    if options["along_m"] is not None or options["colder_than"] is not None:
        lines.append(
            f"{report['reaches']:,} reach{'' if report['reaches'] == 1 else 'es'}"
            if report["reaches"]
            else "no river to go along"
        )
    if options["colder_than"] is not None:
        one = report["patches"] == 1
        lines.append(
            f"{report['patches']:,} {'patch' if one else 'patches'} {options['colder_than']:g} or more below "
            f"{'its' if one else 'their'} reach's median"
        )
    return lines
