"""``geosam plot``: a picture of a scene and its rivers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from geosam.cli import shared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geosam.scene import Scene

NEEDS: dict[str, tuple[str, ...]] = {
    "overlay": ("SCENE",),
    "probability": ("SCENE", "--probability"),
    "error": ("SCENE", "RIVERS", "--truth"),
    "prompts": ("SCENE", "POINTS"),
    "before-after": ("SCENE", "--before", "RIVERS"),
    "width": ("NETWORK",),
    "change": ("CHANGE",),
}
"""Every kind of picture and what it cannot be drawn without, in the order of the command line."""
MAY_HAVE: dict[str, str] = {"overlay": "RIVERS", "width": "SCENE", "change": "SCENE"}
"""What a kind may have besides: rivers last, a scene first."""


@click.command(short_help="A picture of a scene and its rivers.")
@click.argument("inputs", nargs=-1, required=True, metavar="[KIND] INPUT...")
@click.option("--out", required=True, metavar="PICTURE", help="Picture to write: .png, .jpg, .pdf or .svg.")
@click.option(
    "--kind",
    type=click.Choice(tuple(NEEDS)),
    help="What to draw, where it is not the first word.  [default: error with --truth, probability with "
    "--probability, before-after with --before, else overlay]",
)
@click.option("--truth", metavar="FILE", help="Reference polygons or mask to hold RIVERS against.")
@click.option("--probability", metavar="P.tif", help="Probability raster of geosam segment --probability.")
@click.option("--before", metavar="FILE", help="Polygons or mask to draw on the left of RIVERS.")
@click.option(
    "--river", type=click.IntRange(1), default=1, show_default=True, metavar="ID",
    help="Which river a picture of widths is of: an id of the layer water; 1 has the largest network.",
)  # fmt: skip
@click.option(
    "--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Fineness: the picture is 9 inches."
)
@shared.scene_options
@shared.overwrite_option
def command(
    inputs: tuple[str, ...],
    out: str,
    kind: str | None,
    truth: str | None,
    probability: str | None,
    before: str | None,
    river: int,
    dpi: int,
    overwrite: bool,
) -> None:
    """Draw a map of KIND, with a scale bar, a north arrow and a legend with units.

    \b
      geosam plot overlay ortho.tif rivers.geojson --out overlay.png
      geosam plot prompts ortho.tif points.geojson --out prompts.png
      geosam plot probability ortho.tif probability.tif --out probability.png
      geosam plot error ortho.tif rivers.geojson surveyed.gpkg --out error.png
      geosam plot before-after ortho.tif coarse.tif rivers.geojson --out both.png
      geosam plot width network.gpkg --out width.png
      geosam plot change change.gpkg --out change.png

    Rivers are a vector file in any CRS, or a mask raster; points come from geosam prompts; the network of a picture
    of widths from geosam rivers (of polygons it is made on the way); changes are the layers eroded, accreted and
    stable of geosam change. Widths and changes are drawn on blank paper, or on an ortho that is named before them.
    A picture of a large scene reads no more of it than a screen shows.

    Without KIND it is an overlay, or what an option says:

    \b
      geosam plot ortho.tif rivers.geojson --out overlay.png
      geosam plot ortho.tif rivers.geojson --truth surveyed.gpkg --out error.png
      geosam plot ortho.tif rivers.geojson --before coarse.tif --out both.png
    """
    options = {"--truth": truth, "--probability": probability, "--before": before}
    kind, files = _kind_of(inputs, kind, options)
    named = _by_place(kind, files, options)
    figure = _draw(kind, named, river)
    from geosam import plot

    click.echo(str(plot.save(figure, out, overwrite=overwrite, dpi=dpi)))


def _kind_of(inputs: tuple[str, ...], kind: str | None, options: dict[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """The kind of picture and the files: the first word names the kind, unless there is a file of that name.

    Raises:
        click.UsageError: It is a word that is neither.
    """
    if inputs[0] in NEEDS and kind in (None, inputs[0]) and not os.path.exists(inputs[0]):
        return inputs[0], inputs[1:]
    if kind is None and inputs[0].replace("-", "").isalpha() and not os.path.exists(inputs[0]):
        raise click.UsageError(
            f"{inputs[0]} is neither a file nor a kind of picture. The kinds are {', '.join(NEEDS)}."
        )
    implied = {"--truth": "error", "--probability": "probability", "--before": "before-after"}
    said = [implied[name] for name, value in options.items() if value is not None]
    return kind or (said[0] if said else "overlay"), inputs


def _by_place(kind: str, files: tuple[str, ...], options: dict[str, str | None]) -> dict[str, str]:
    """Files by what they are: the places of a kind in order, less those that an option fills.

    Raises:
        click.UsageError: One is missing, or there are too many.
    """
    named = {name: value for name, value in options.items() if value is not None and name in NEEDS[kind]}
    open_places = [name for name in NEEDS[kind] if name not in named]
    more = MAY_HAVE.get(kind)
    if more is not None and len(files) > len(open_places):
        open_places.insert(0 if more == "SCENE" else len(open_places), more)
    if len(files) < len(open_places):
        raise click.UsageError(f"A picture of kind {kind} needs {open_places[len(files)]}.")
    if len(files) > len(open_places):
        raise click.UsageError(f"A picture of kind {kind} takes {' '.join(open_places)}, and {files[-1]} is one more.")
    return {**named, **dict(zip(open_places, files, strict=True))}


def _draw(kind: str, files: dict[str, str], river: int) -> Figure:
    from geosam import plot

    scene = _opened(files.get("SCENE"))
    draw: dict[str, Callable[[], Figure]] = {
        "width": lambda: plot.width(files["NETWORK"], scene, river=river),
        "change": lambda: plot.change(files["CHANGE"], scene),
    }
    if scene is not None:
        draw |= {
            "overlay": lambda: plot.overlay(scene, files.get("RIVERS")),
            "probability": lambda: plot.probability(scene, files["--probability"]),
            "error": lambda: plot.error(scene, files["RIVERS"], files["--truth"]),
            "prompts": lambda: plot.prompts(scene, files["POINTS"]),
            "before-after": lambda: plot.before_after(scene, files["--before"], files["RIVERS"]),
        }
    return draw[kind]()


def _opened(path: str | None) -> Scene | None:
    from geosam.scene import Scene

    return None if path is None else Scene.open(path, shared.segment_options().scene)
