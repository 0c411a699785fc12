"""``geosam everything``: every thing in a scene as a segment, to select rivers from."""

from __future__ import annotations

from typing import Any

import click

from geosam.cli import shared
from geosam.errors import RunError


@click.command(name="everything", short_help="Every thing in a scene as a segment, to select from.")
@click.argument("scene", metavar="INPUT")
@click.option("--out", required=True, metavar="SEGMENTS.gpkg", help="The GeoPackage to be.")
@shared.model_options
@click.option("--points-per-side", type=int, metavar="N", help="Points a side of the grid in each tile.  [default: 32]")
@click.option("--points-per-batch", type=int, metavar="N", help="Points decoded at once.  [default: by the device]")
@click.option(
    "--crops", type=int, metavar="N",
    help="Also look at layers of zoomed crops of each tile, for small things: 2 x 2 in the first, 4 x 4 in the "
    "second; each crop costs as much as a tile.  [default: 0]",
)  # fmt: skip
@click.option(
    "--predicted-iou", type=float, metavar="IOU",
    help="Drop masks of which the model expects no more.  [default: 0.88; 0 for a model that gives one mask a point]",
)  # fmt: skip
@click.option(
    "--stability", type=float, metavar="IOU",
    help="Drop masks that change more where their threshold moves by --stability-offset.  [default: 0.95; 0 likewise]",
)  # fmt: skip
@click.option("--stability-offset", type=float, metavar="LOGITS", help="See --stability.  [default: 1]")
@click.option(
    "--nms", "nms_iou", type=float, metavar="IOU",
    help="Of masks of a tile whose boxes overlap more, keep the best.  [default: 0.7]",
)  # fmt: skip
@click.option(
    "--join", "join_iou", type=float, metavar="IOU",
    help="Segments of neighbouring tiles that agree so well where both look are one.  [default: 0.5]",
)  # fmt: skip
@click.option(
    "--min-area", "min_area_m2", type=float, metavar="M2",
    help="Drop segments smaller than this, in square metres.  [default: 25 pixels]",
)  # fmt: skip
@shared.scene_options
@click.option("--report", metavar="R.json", help="Also write what was done: tiles, seconds, memory, model.")
@shared.stage_option(
    "--overlap", key="tiles.overlap_px", type=int, metavar="PX", help="Overlap of neighbouring tiles in pixels."
)
@shared.config_option
@click.option("--resume", is_flag=True, help="Go on from the tiles that a killed run with the same --out had finished.")
@shared.overwrite_option
def command(scene: str, out: str, report: str | None, resume: bool, overwrite: bool, **given: Any) -> int:
    """Find every thing in INPUT, whatever it is: a grid of points asks the model about each tile.

    Segments have scores, areas, mean colours and a mean index; those of neighbouring tiles that are one thing are
    joined. They may lie one over another: a thing, and its parts. geosam select then picks rivers, as often as
    you like, without running the model again. river-tiny knows nothing but water: for all things take a SAM.

    \b
      geosam everything ortho.tif --out segments.gpkg --model sam-vit-base
      geosam everything ortho.tif --out segments.gpkg --model sam-vit-base --crops 1 --points-per-side 16
      geosam select segments.gpkg --index ndwi --out rivers.geojson
    """
    from geosam.segments import everything

    options = shared.segment_options()
    given = {name: value for name, value in given.items() if value is not None}
    more: dict[str, Any] = {"report": report, "overwrite": overwrite, "resume": resume}
    try:
        with shared.stage_progress() as progress:
            done = everything(scene, out, options=options, progress=progress, **more, **given)
    except KeyboardInterrupt:
        raise RunError("stopped by the user. Run again with --resume to go on.") from None
    for warning in done.report["warnings"]:
        click.echo(f"geosam: {' '.join(warning.split())}", err=True)
    tiles = done.report["tiles"]
    if tiles["failed"]:
        click.echo(f"geosam: {tiles['failed']} tiles failed. First: {done.report['first_failure']}", err=True)
    found = f"{done.segments:,} segments" if done.segments else "nothing passed the filters, so the layer is empty"
    work = f"{tiles['run']} of {tiles['total']} tiles run, {done.report['seconds']:.1f} s"
    click.echo(f"{out}: {found} ({work})")
    return 1 if tiles["failed"] else 0
