"""``geosam segment``: the whole way from orthoimages to river polygons."""

from __future__ import annotations

import click

from geosam.cli import shared
from geosam.errors import RunError


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
@click.option("--report", metavar="R.json", help="Also write what was done: tiles, seconds, memory, model, warnings.")
@click.option("--asset", metavar="NAME", help="Asset of STAC items that is the image.  [default: the first GeoTIFF]")
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
    report: str | None,
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
    or catalogue (.json). On many machines (docs/cluster.md) the result has the same bytes:

    \b
      geosam segment ortho.tif --dask tcp://10.0.0.1:8786 --out /shared/rivers.gpkg
      geosam segment catalog.json --asset visual --workers 4 --resume --out rivers.gpkg

    Exit codes: 0 done, also where no water was found; 1 some tiles or inputs failed; 2 bad input.
    """
    from geosam import cluster
    from geosam.pipeline.many import segment_many

    options = shared.segment_options()
    computing = cluster.machines(dask, workers, storage, device=options.model.device, tell=_tell)
    try:
        with computing as machines, shared.stage_progress() as progress:
            batch = segment_many(
                inputs,
                options,
                out=out,
                probability=probability,
                mask=mask,
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
    for line in batch.lines():
        click.echo(line)
    return 1 if batch.failed else 0


def _tell(message: str) -> None:
    click.echo(f"geosam: {' '.join(message.split())}", err=True)
