"""``geosam prompts``: the control points, to be looked at in a GIS."""

from __future__ import annotations

import click

from geosam.cli import shared


@click.command(name="prompts", short_help="The control points a model would be given, as a vector layer.")
@click.argument("scene", metavar="INPUT")
@click.option("--out", required=True, metavar="P.geojson", help="Points: .geojson, .gpkg, .fgb or .parquet.")
@shared.coarse_option
@shared.scene_options
@shared.model_options
@shared.seed_option
@shared.config_option
@shared.style_option
@shared.overwrite_option
def command(scene: str, out: str, style: bool, overwrite: bool) -> None:
    """Write the points that a run of geosam segment on INPUT would prompt the model with.

    Each is a point with the attributes label (water or dry), tile and body. Load them over the
    image in QGIS to see what the model is told: a water point on dry ground is where to look first
    when a result is wrong. Move, add or delete points there and hand the file back with --points: a
    point whose tile and body are left empty is for every tile it lies in.

    \b
      geosam prompts ortho.tif --out prompts.gpkg
      geosam segment ortho.tif --points prompts.gpkg --out rivers.gpkg

    Unchanged, the points give what a run without them gives. A model that is also shown the first guess
    as a mask, as river-tiny is, needs that too: --prompt-mask with what geosam coarse writes.
    """
    from pathlib import Path

    from geosam.pipeline.points import write_prompts
    from geosam.vector.style import POINTS, write_style

    options = shared.segment_options()
    with shared.stage_progress() as progress:
        count, bodies = write_prompts(scene, options, out, overwrite=overwrite, progress=progress)
    if style:
        write_style(Path(out), POINTS)
    if count == 0:
        click.echo(f"{out}: no coarse water found, so there is no point")
    else:
        click.echo(f"{out}: {count} points for {bodies} water bodies")
