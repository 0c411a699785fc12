"""``geosam segment``: the whole way from orthoimages to river polygons."""

from __future__ import annotations

import click

from geosam.cli import shared
from geosam.errors import OptionsError, RunError
from geosam.options import SegmentOptions


@click.command(name="segment", short_help="River polygons from an orthoimage: the whole way.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--out", required=True, metavar="PATH",
    help="Polygons: .geojson, .gpkg, .fgb or .parquet. For several inputs: a folder, or one file with a column scene.",
)  # fmt: skip
@shared.model_options
@shared.coarse_option
@shared.prompt_options
@shared.threshold_option("vector")
@shared.scene_options
@shared.tile_options
@shared.area_options("vector")
@shared.simplify_option
@click.option("--probability", metavar="P.tif", help="Also write the probability of water, 0 to 1, NaN nodata.")
@click.option("--mask", metavar="M.tif", help="Also write the water mask: 1 water, 0 dry, 255 nodata.")
@click.option(
    "--products", metavar="NETWORK.gpkg",
    help="Also write centrelines, widths, reaches and islands, as geosam rivers does. If there can be none, since the "
    "polygons are noise, these are written all the same, and the exit code is 1.",
)  # fmt: skip
@click.option("--report", metavar="R.json", help="Also write what was done: tiles, seconds, memory, model, warnings.")
@click.option("--stac", is_flag=True, help="Also write a STAC item of the result: rivers.stac.json beside rivers.gpkg.")
@shared.style_option
@click.option(
    "--text", metavar="WORDS",
    help="Take what these words, such as river, mean to --model sam3; with another model, what CLIP finds to be like "
    "them of all segments that it finds. For a first look, not for serious pipelines; known to be wrong often.",
)  # fmt: skip
@click.option("--clip", metavar="NAME", help="CLIP for --text: a hub id or a folder.  [openai/clip-vit-base-patch32]")
@click.option("--asset", metavar="NAME", help="Asset of STAC items that is the image.  [default: see below]")
@click.option("--dask", metavar="ADDRESS", help="Compute on the workers of this dask scheduler: tcp://HOST:8786.")
@click.option("--workers", type=int, metavar="N", help="Compute in so many processes of this machine.")
@click.option(
    "--storage",
    metavar="URL",
    help="For workers that do not see the folder of --out: where they leave what they finish, s3://... or the like.",
)
@shared.config_option
@shared.seed_option
@click.option("--resume", is_flag=True, help="Go on from what a killed run with the same --out had finished.")
@shared.overwrite_option
def command(
    inputs: tuple[str, ...],
    out: str,
    probability: str | None,
    mask: str | None,
    products: str | None,
    report: str | None,
    stac: bool,
    style: bool,
    text: str | None,
    clip: str | None,
    asset: str | None,
    dask: str | None,
    workers: int | None,
    storage: str | None,
    resume: bool,
    overwrite: bool,
) -> int:
    """Find rivers and other water in INPUT, an orthoimage, and write them as polygons.

    INPUT is any raster that GDAL opens: a path, a URL or a /vsi path. It is read by windows, so its
    size does not matter. A coarse mask (a spectral index where there is near infrared, else a look
    with the model) shows where water may be; points inside it prompt the model tile by tile; tiles
    without water are skipped. GeoJSON is in longitude and latitude, the other formats in the CRS of
    INPUT; areas are in square metres whatever the CRS.

    Prompts of your own replace the automatic ones, or join them with --prompts both. A prompt reaches
    as far as the tiles it lies in: along a long river give a point every few hundred pixels. Those
    outside INPUT are named and counted.

    \b
      geosam segment ortho.tif --out rivers.geojson
      geosam segment naip.tif --bands naip --out rivers.gpkg --probability p.tif
      geosam segment flights/*.tif --out rivers/ --min-area 50
      geosam segment ortho.tif --points clicks.gpkg --prompts both --out rivers.geojson

    INPUT may also be a folder of rasters, a list of them (.txt, one a line) or a STAC item, collection
    or catalogue (.json), of which --asset is run, or the first GeoTIFF of three bands or more. With stac:
    before it, an address of any name, or a search; then red, green, blue and near infrared are found by
    the common names of bands, and put on one grid where they are in several files:

    \b
      geosam segment stac:item.json --stac --out rivers.geojson
      geosam segment 'stac:https://host/search?collections=naip&bbox=-123.6,47.9,-123.5,48.0' --out rivers/

    On many machines (docs/cluster.md) the result has the same bytes:

    \b
      geosam segment ortho.tif --dask tcp://10.0.0.1:8786 --out /shared/rivers.gpkg
      geosam segment catalog.json --asset visual --workers 4 --resume --out rivers.gpkg

    Exit codes: 0 done, also where no water was found; 1 some tiles or inputs failed, or --products; 2 bad input.
    """
    from geosam import cluster
    from geosam.pipeline.beside import check_items, put_items, put_styles
    from geosam.pipeline.many import segment_many

    options = shared.segment_options()
    if text is not None:
        from geosam.segments.words import asks_by_words, told

        asked = asks_by_words(options, clip)
        options = told(options, text) if asked else options
    if text is not None and not asked:
        others = {"probability": probability, "mask": mask, "products": products, "report": report, "asset": asset}
        ways = {"stac": stac, "dask": dask, "workers": workers, "resume": resume}
        given = [f"--{name}" for name, value in (*others.items(), *ways.items()) if value]
        return _by_text(inputs, text, clip, out, options, overwrite, style, given)
    if stac:
        check_items(out, overwrite)
    computing = cluster.machines(dask, workers, storage, device=options.model.device, tell=_tell)
    try:
        with computing as machines, shared.stage_progress() as progress:
            batch = segment_many(
                inputs,
                options,
                out=out,
                probability=probability,
                mask=mask,
                products=products,
                report=report,
                asset=asset,
                overwrite=overwrite,
                resume=resume,
                progress=progress,
                tell=_tell,
                machines=machines,
            )
    except KeyboardInterrupt:
        raise RunError("stopped by the user. Run again with --resume to go on.") from None
    if style:
        put_styles(batch)
    if stac:
        put_items(
            batch, probability=probability, mask=mask, products=products, report=report, overwrite=overwrite or resume
        )
    for line in batch.lines():
        click.echo(line)
    return 1 if batch.failed else 0


def _tell(message: str) -> None:
    click.echo(f"geosam: {' '.join(message.split())}", err=True)


def _by_text(
    inputs: tuple[str, ...],
    text: str,
    clip: str | None,
    out: str,
    options: SegmentOptions,
    overwrite: bool,
    style: bool,
    others: list[str],
) -> int:
    """The way by words: of one input, and with fewer outputs."""
    from pathlib import Path

    from geosam.segments import segment_by_text
    from geosam.vector.style import write_style

    if len(inputs) > 1 or others:
        what = others[0] if others else f"{len(inputs)} inputs"
        raise OptionsError(f"--text takes one INPUT and gives polygons alone, and was given {what}. Leave that out.")
    with shared.stage_progress() as progress:
        found = segment_by_text(inputs[0], text, options, out=out, clip=clip, overwrite=overwrite, progress=progress)
    if style:
        write_style(Path(out))
    for warning in found.warnings:
        _tell(warning)
    count = len(found.polygons)
    bodies = "nothing was like the words, so the layer is empty" if not count else f"{count} polygons"
    click.echo(f"{out}: {bodies} ({found.segments} segments like {text!r})")
    return 0
