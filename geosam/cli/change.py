"""``geosam change``: what rivers did between two dates."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import click

from geosam.cli import shared
from geosam.options import ChangeOptions, checked

_PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def _register(_ctx: click.Context, _param: click.Parameter, text: str) -> str | tuple[float, float]:
    if text in ("none", "auto"):
        return text
    parts = text.split(",")
    try:
        east, north = (float(part) for part in parts)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither none, auto nor two lengths in metres, such as 12.5,-3."
        ) from None
    return east, north


def _date(_ctx: click.Context, _param: click.Parameter, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(f"{text}-07-01" if len(text) == 4 else text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no date. Write 2020-08-31, or 2020 for the middle of the year."
        ) from None


@click.command(name="change", short_help="What rivers did between two dates: erosion, migration, cut-offs.")
@click.argument("early")
@click.argument("late")
@click.option("--out", metavar="CHANGE.gpkg", required=True, help="The GeoPackage to be, with a layer for each table.")
@click.option("--figure", metavar="PICTURE", help="Also draw it: .png, .jpg, .pdf or .svg.")
@click.option("--years", type=float, metavar="N", help="Years between the dates, for rates.")
@click.option("--early-date", callback=_date, metavar="DATE", help="Or the date of EARLY, 1985-07-20 or 1985 ...")
@click.option("--late-date", callback=_date, metavar="DATE", help="... and that of LATE.")
@click.option(
    "--register", "register_by", callback=_register, default="none", show_default=True, metavar="none|auto|DX,DY",
    help="LATE may lie beside EARLY by an error of position, which is estimated and told. auto: take it back. DX,DY: "
    "LATE lies so many metres east and north, take that back.",
)  # fmt: skip
@click.option(
    "--downstream", type=click.Choice(["auto", "north", "east", "south", "west"]), default="auto", show_default=True,
    help="Where the rivers flow, by and large; auto: from their narrower to their wider end.",
)  # fmt: skip
@click.option(
    "--bridge", "bridge_m", type=float, metavar="M",
    help="Follow rivers over gaps of up to so many metres, as in geosam rivers.  [default: none]",
)  # fmt: skip
@click.option(
    "--reach", "reach_m", type=float, metavar="M",
    help="Length of a reach in metres, about.  [default: ten times the river's width]",
)  # fmt: skip
@click.option(
    "--min-area", "min_area_m2", type=float, metavar="M2",
    help="Leave out water bodies smaller than this, in square metres.  [default: none]",
)  # fmt: skip
@click.option(
    "--gsd", "gsd_m", type=float, metavar="M",
    help="Size of the pixels that the outlines come from, in metres.  [default: read from the data]",
)  # fmt: skip
@click.option("--report", metavar="R.json", help="Also write areas, shift, migration and cut-offs, as JSON.")
@shared.overwrite_option
def command(
    early: str, late: str, out: str, figure: str | None, report: str | None, overwrite: bool, **given: Any
) -> None:
    """What rivers did between EARLY and LATE: water polygons in any format and CRS, or mask rasters.

    \b
      geosam change 1985.gpkg 2020.gpkg --years 35 --out change.gpkg --figure change.png
      geosam change before.tif after.tif --early-date 2019-08-01 --late-date 2024-08-15 --out change.gpkg
      geosam change flight1.geojson flight2.geojson --register auto --out change.gpkg

    \b
    Layers of CHANGE.gpkg, in the CRS of EARLY, with lengths in metres and areas in square metres:
      eroded         land that became water
      accreted       water that became land
      stable         water at both dates
      migration      reaches of the early main courses: how far they moved, to the left, to the right, a year
      displacements  lines from the early course to where it went
      cutoffs        loops of the early course that the late one leaves out; these are no migration
      courses        main courses of both dates

    Migration is the area that the centreline swept, over its length. Left and right are as seen downstream. A river
    that moved as a whole cannot be told from a scene that lies wrong: before --register auto, think which it is. Of two
    rasters only what both show is compared; of polygons all is.
    """
    from pathlib import Path

    from geosam.changes import change
    from geosam.pipeline.outputs import write_json
    from geosam.vector import check_path

    started = time.perf_counter()
    options = checked(
        ChangeOptions, {name: value for name, value in given.items() if value is not None}, "geosam change"
    )
    for path in (report, figure):
        if path is not None:
            check_path(Path(path), overwrite)
    if figure is not None and Path(figure).suffix.lower() not in _PICTURES:
        raise click.UsageError(f"{figure} does not end like a picture. Use one of {', '.join(_PICTURES)}.")
    with shared.stage_progress() as progress:
        changed = change(early, late, options, out=out, overwrite=overwrite, progress=progress)
    if report is not None:
        write_json(Path(report), changed.report)
    if figure is not None:
        _draw(changed, figure, overwrite)
    for notice in changed.report["notices"]:
        click.echo(f"geosam: {notice}.", err=True)
    for line in _summary(changed.report):
        click.echo(line)
    click.echo(f"{out} ({time.perf_counter() - started:.1f} s)")


def _draw(changed: Any, figure: str, overwrite: bool) -> None:
    from geosam.plot import migration, save

    save(migration(changed), figure, overwrite=overwrite)


def _summary(report: dict[str, Any]) -> list[str]:
    areas, moved, years = report["areas"], report["largest_river"], report["years"]
    lines = [", ".join(f"{name} {_area(areas[f'{name}_m2'])}" for name in ("eroded", "accreted", "stable"))]
    if moved["migration_mean_m"] is not None:
        rate = f", {moved['migration_mean_m_per_year']:.3g} m a year" if years else ""
        lines.append(
            f"{moved['measured_m'] / 1000:,.2f} km of the largest river moved by {moved['migration_mean_m']:.0f} m on "
            f"average{rate}: {moved['left_mean_m']:.0f} m to the left, {moved['right_mean_m']:.0f} m to the right"
        )
    for loop in report["cutoffs"]:
        lines.append(f"cut off: {loop['length_m'] / 1000:.3g} km became {loop['late_m'] / 1000:.3g} km")
    return [*lines, _shift(report["registration"])]


def _shift(found: dict[str, Any]) -> str:
    east, north = (_with_error(found[f"{way}_m"], found[f"{way}_error_m"]) for way in ("east", "north"))
    taken = found["taken_back_m"]
    done = f"taken back by {taken[0]:.3g}, {taken[1]:.3g} m" if any(taken) else "not taken back"
    return f"the banks of LATE lie {east} east and {north} north of those of EARLY ({done})"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3g} ± {error:.2g} m" if error is not None else "an unknown distance"


def _area(square_metres: float) -> str:
    return f"{square_metres / 1e6:.4g} km2" if square_metres >= 1e5 else f"{square_metres:.0f} m2"
