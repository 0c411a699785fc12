"""``geosam depth``: relative depth of a lone photograph, beside its water."""

from __future__ import annotations

import click

from geosam.cli import shared


@click.command(name="depth", short_help="Relative depth of a photograph, beside its water.")
@click.argument("photo")
@click.argument("water", required=False)
@click.option(
    "--model", required=True, metavar="HUB-ID|FOLDER",
    help="Depth model of transformers (DPT and its kin), by hub id or as a folder.",
)  # fmt: skip
@click.option("--out", required=True, metavar="PICTURE", help="Picture to write: .png, .jpg, .pdf or .svg.")
@shared.stage_option("--device", key="model.device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="Where.")
@click.option("--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Fineness of the picture.")
@shared.overwrite_option
def command(photo: str, water: str | None, model: str, out: str, dpi: int, overwrite: bool) -> None:
    """Draw PHOTO with its water and, beside it, how near everything in it is.

    PHOTO is a photograph without georeference, from a bank or a bridge. WATER is polygons or a mask, as
    geosam segment --allow-no-crs writes them; without it the bundled model finds the water.

    \b
      geosam depth bank.jpg --model Intel/dpt-large --out depth.png
      geosam depth bank.jpg water.gpkg --model models/dpt --out depth.png

    Depth is relative: from 0, the farthest, to 1, the nearest of this photograph. It has no unit, and two
    photographs cannot be compared. Weights are fetched from the hub once; pickled ones are refused.
    """
    from pathlib import Path

    from rasterio.windows import Window

    from geosam import plot
    from geosam.models.depth import relative_depth
    from geosam.pipeline import segment
    from geosam.plot.canvas import look
    from geosam.plot.depths import depth
    from geosam.scene import Scene
    from geosam.vector import check_path

    check_path(Path(out), overwrite)
    options = shared.segment_options()
    asked = options.model_copy(update={"scene": options.scene.model_copy(update={"allow_no_crs": True})})
    scene = Scene.open(photo, asked.scene)
    small = look(scene)
    rgb, _ = small.read_rgb(Window(0, 0, small.shape[1], small.shape[0]))
    near = relative_depth(rgb, model, options.model.device)
    rivers = water if water is not None else segment(scene, asked).polygons
    click.echo(str(plot.save(depth(scene, near, rivers), out, overwrite=overwrite, dpi=dpi)))
