"""``geosam coarse``: the first guess of water, as a raster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geosam.cli import shared
from geosam.errors import OutputError

if TYPE_CHECKING:
    from geosam.coarse import CoarseMask

_SUFFIXES = (".tif", ".tiff")


@click.command(short_help="The first guess of water, as a raster.")
@click.argument("scene")
@click.option("--out", required=True, metavar="M.tif", help="The GeoTIFF to be: 0 dry, 1 water, 255 unknown.")
@shared.stage_option(
    "--method",
    "--coarse",
    key="coarse.method",
    metavar="METHOD|FILE",
    help="auto, mndwi, awei, awei-sh, ndwi-ndvi, ndwi, rgb, exg, dark, hsv, "
    "or a raster or vector file that holds a mask.",
)
@shared.threshold_option("coarse")
@shared.area_options("coarse")
@shared.scene_options
@shared.config_option
@shared.style_option
@shared.overwrite_option
def command(scene: str, out: str, style: bool, overwrite: bool) -> None:
    """Guess where the water of SCENE is, write the guess as a raster, and say how it was made.

    \b
      geosam coarse ortho.tif --out coarse.tif
      geosam coarse naip.tif --bands naip --out coarse.tif --method ndwi --threshold 0.1
      geosam coarse drone.tif --out coarse.tif --min-area 5 --max-hole 2

    This is what geosam segment starts from: it decides which tiles the model sees, and where the prompts lie.

    \b
      mndwi      green and SWIR1; for turbid rivers and towns the best
      awei       green, NIR, SWIR1, SWIR2; awei-sh adds blue, for mountains and their shadows
      ndwi       green and NIR; ndwi-ndvi adds red and leaves out vegetation
      rgb        plain colour: what is dark and smooth, and of the scene's own water colour
      exg        plain colour: what is not green (clear rivers in forest)
      dark       plain colour: what is dark (no shadows)
      hsv        plain colour: blue to cyan, or black
      auto       the first of mndwi, awei, awei-sh, ndwi-ndvi and ndwi that the bands allow and whose
                 histogram has two modes; rgb where there is no infrared band
      FILE       a raster (not zero is water) or polygons, in any CRS

    --threshold is in units of the index; water lies above it (exg: of minus excess green; rgb: log-odds). auto fits it
    to the whole scene. Water smaller than --min-area is dropped and holes smaller than --max-hole are filled, also in a
    mask from a FILE: 0 leaves it as it is. Holes at the border or beside unknown pixels are not filled.
    """
    from geosam.coarse import coarse_mask
    from geosam.pipeline import at_working_gsd
    from geosam.scene import Scene
    from geosam.vector.shades import MASK
    from geosam.vector.style import write_style

    started = time.perf_counter()
    options = shared.segment_options()
    target = _checked(out, overwrite)
    working = at_working_gsd(Scene.open(scene, options.scene), options.scene)
    with shared.progress("coarse mask") as progress:
        mask = coarse_mask(working, options.coarse, path=target, progress=progress)
    if style:
        write_style(target, MASK)
    for warning in mask.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_summary(mask))
    click.echo(f"{out} ({time.perf_counter() - started:.1f} s)")


def _checked(out: str, overwrite: bool) -> Path:
    """The output path, refused before any work is done."""
    target = Path(out)
    if target.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{out} is not named as a GeoTIFF. Give --out a path that ends in .tif.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise OutputError(f"{out} exists. Give --overwrite to replace it, or another --out.")
    if not target.parent.is_dir():
        raise OutputError(f"The folder {target.parent} does not exist. Make it, or give another --out.")
    return target


def _summary(mask: CoarseMask) -> str:
    return (
        f"method {mask.method}, threshold {mask.threshold:.4g}, water {mask.water_fraction:.2%} of the scene\n"
        f"{mask.reason}"
    )
