"""``geosam view``: a page to look at rivers and to edit them."""

from __future__ import annotations

import time

import click

from geosam.cli import shared


@click.command(short_help="A page to look at rivers and to edit them by clicks.")
@click.argument("scene")
@click.argument("rivers", required=False)
@click.option("--compare", metavar="FILE", help="A second result, to be held against RIVERS with a swipe.")
@click.option(
    "--out",
    metavar="PATH",
    help="Where edits are saved: .geojson, .gpkg, .fgb or .parquet.  [default: <SCENE's name>-edited.geojson, here]",
)
@click.option("--probability", metavar="P.tif", help="Also show this raster of geosam segment --probability.")
@click.option(
    "--points-only", is_flag=True, help="Answer by your prompts alone, as geosam segment --points does; by default "
    "river-tiny starts from the water that it sees unasked."
)  # fmt: skip
@click.option("--background", metavar="URL", help="Map tiles under the scene: https://HOST/{z}/{x}/{y}.png.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Port of 127.0.0.1; 0: a free one."
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@shared.model_options
@shared.coarse_option
@shared.threshold_option("vector")
@shared.scene_options
@shared.area_options("vector")
@shared.simplify_option
@shared.config_option
@shared.overwrite_option
def command(
    scene: str,
    rivers: str | None,
    compare: str | None,
    out: str | None,
    probability: str | None,
    points_only: bool,
    background: str | None,
    port: int,
    no_browser: bool,
    overwrite: bool,
) -> None:
    """Show SCENE, and RIVERS over it, on a page in the browser, and edit them there.

    A click says that there is water and a shift-click that there is none; the model draws the water body, and you
    accept it, undo it or add points. Saving writes the polygons as geosam segment does, and beside them a history of
    the prompts. RIVERS is a vector file in any CRS, or a mask raster; without it you begin with nothing.

    \b
      geosam view ortho.tif
      geosam view ortho.tif rivers.geojson --out edited.geojson
      geosam view ortho.tif rivers.geojson --compare surveyed.gpkg
      geosam view ortho.tif --model river-tiny --port 8765 --no-browser

    The page is served by this machine to this machine alone (127.0.0.1), under an address that nobody can guess, and
    needs no network. Ctrl-C ends it; edits that were not saved are then kept beside --out.
    """
    from geosam.viewer import view

    page = view(
        scene, rivers, compare=compare, out=out, options=shared.segment_options(), probability=probability,
        points_only=points_only, background=background, port=port, overwrite=overwrite,
    )  # fmt: skip
    click.echo(page.url)
    click.echo("geosam: Ctrl-C ends the page.", err=True)
    if not no_browser:
        click.launch(page.url)
    try:
        while page.is_running:
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    kept = page.stop()
    if kept is not None:
        click.echo(f"geosam: edits that were not saved are in {kept}.", err=True)
