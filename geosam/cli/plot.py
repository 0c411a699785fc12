"""``geosam plot``: a picture of a scene and its rivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from geosam.cli import shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

NEEDS: dict[str, tuple[str, ...]] = {
    "overlay": (),
    "probability": ("--probability",),
    "error": ("RIVERS", "--truth"),
    "prompts": ("RIVERS",),
    "before-after": ("RIVERS", "--before"),
}
"""Every kind of picture and what it cannot be drawn without."""


@click.command(short_help="A picture of a scene and its rivers.")
@click.argument("scene")
@click.argument("rivers", required=False)
@click.option("--out", required=True, metavar="PICTURE", help="Picture to write: .png, .jpg, .pdf or .svg.")
@click.option(
    "--kind",
    type=click.Choice(tuple(NEEDS)),
    help="What to draw.  [default: error with --truth, probability with --probability, before-after with --before, "
    "else overlay]",
)
@click.option("--truth", metavar="FILE", help="Reference polygons or mask to hold RIVERS against.")
@click.option("--probability", metavar="P.tif", help="Probability raster of geosam segment --probability.")
@click.option("--before", metavar="FILE", help="Polygons or mask to draw on the left of RIVERS.")
@click.option(
    "--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Fineness: the picture is 9 inches."
)
@shared.scene_options
@shared.overwrite_option
def command(
    scene: str,
    rivers: str | None,
    out: str,
    kind: str | None,
    truth: str | None,
    probability: str | None,
    before: str | None,
    dpi: int,
    overwrite: bool,
) -> None:
    """Draw SCENE, and RIVERS over it, with a scale bar, a north arrow and a legend.

    RIVERS is a vector file in any CRS, or a mask raster; for --kind prompts, the points of geosam prompts. A
    picture of a large scene reads no more of it than a screen shows.

    \b
      geosam plot ortho.tif rivers.geojson --out overlay.png
      geosam plot ortho.tif rivers.geojson --truth surveyed.gpkg --out error.png
      geosam plot ortho.tif --probability probability.tif --out probability.png
      geosam plot ortho.tif points.geojson --kind prompts --out prompts.png
      geosam plot ortho.tif rivers.geojson --before coarse.tif --out both.png
    """
    kind = kind or _kind_of(truth, probability, before)
    _check(kind, {"RIVERS": rivers, "--truth": truth, "--probability": probability, "--before": before})
    from geosam import plot
    from geosam.scene import Scene

    opened = Scene.open(scene, shared.segment_options().scene)
    draw: dict[str, Callable[[], Figure]] = {
        "overlay": lambda: plot.overlay(opened, rivers),
        "probability": lambda: plot.probability(opened, probability or ""),
        "error": lambda: plot.error(opened, rivers or "", truth or ""),
        "prompts": lambda: plot.prompts(opened, rivers or ""),
        "before-after": lambda: plot.before_after(opened, before or "", rivers or ""),
    }
    click.echo(str(plot.save(draw[kind](), out, overwrite=overwrite, dpi=dpi)))


def _kind_of(truth: str | None, probability: str | None, before: str | None) -> str:
    if truth is not None:
        return "error"
    if probability is not None:
        return "probability"
    return "before-after" if before is not None else "overlay"


def _check(kind: str, given: dict[str, str | None]) -> None:
    for name in NEEDS[kind]:
        if given[name] is None:
            raise click.UsageError(f"A picture of kind {kind} needs {name}.")
