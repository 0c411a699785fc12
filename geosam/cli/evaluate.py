"""``geosam evaluate``: a model on labelled images, or a result against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geosam.cli import labelled, shared, values
from geosam.errors import OptionsError, OutputError

if TYPE_CHECKING:
    from geosam.evaluate import DataSet

_PICTURES = (".png", ".jpg", ".jpeg")
_DATASET_ONLY = ("csv_path", "worst", "split", *labelled.FIELDS)
_OWN = ("images", "masks", "image_suffix", "names", "groups", "columns", "bands", "limit")
"""Of a folder of pairs these are a :class:`DataSet`'s own."""


_dataset_options = shared.join(
    click.option(
        "--dataset", metavar="DATA",
        help="Labelled images: a folder with images/ and masks/, parquet, orthos with polygons, or a hub id ORG/NAME.",
    ),
    labelled.labelled_options,
    click.option("--split", multiple=True, metavar="NAME", help="Only this split; may be repeated; all: every one."),
    click.option(
        "--image-gsd", type=click.FloatRange(min=0, min_open=True), metavar="METRES",
        help="Pixel size of the images, so that areas and --gsd mean something; of two vector files: of the grid.",
    ),
    click.option("--rows", default="coarse,auto,oracle,none", show_default=True, metavar="LIST", help="What to run."),
)  # fmt: skip

_score_options = shared.join(
    click.option(
        "--tolerance", type=click.FloatRange(min=0), default=3.0, show_default=True, metavar="PX",
        help="Boundaries match up to this distance, in pixels.",
    ),
    click.option(
        "--tolerance-m", type=click.FloatRange(min=0), metavar="METRES", help="A second boundary score, in metres."
    ),
    click.option(
        "--thin", type=click.IntRange(min=2), default=11, show_default=True, metavar="PX",
        help="Water narrower than this is a thin channel.",
    ),
    click.option("--json", "json_path", metavar="R.json", help="Write all numbers."),
    click.option("--csv", "csv_path", metavar="T.csv", help="Write a line for every image and row."),
    click.option("--worst", metavar="W.png", help="Draw the worst images: image, truth, prediction."),
)  # fmt: skip


@click.command(name="evaluate", short_help="Score a model on labelled tiles, or a result against a reference.")
@click.argument("files", nargs=-1, metavar="[PREDICTION REFERENCE]")
@_dataset_options
@shared.model_options
@shared.coarse_option
@shared.threshold_option("vector")
@shared.stage_option(
    "--gsd", key="scene.gsd", type=values.gsd, metavar="native|auto|METRES", help="Pixel size to work at."
)
@_score_options
@shared.config_option
@shared.seed_option
@shared.overwrite_option
def command(files: tuple[str, ...], **given: Any) -> int:
    """Score a model on labelled images, or PREDICTION against REFERENCE.

    \b
      geosam evaluate --dataset tiles/ --model river-tiny --json r.json --csv r.csv --worst worst.png
      geosam evaluate --dataset tiles/ --split dev --image-gsd 0.3 --rows auto,oracle
      geosam evaluate --dataset org/rivers --model river-tiny
      geosam evaluate rivers.geojson surveyed.gpkg --tolerance-m 2
      geosam evaluate probability.tif truth.tif --json r.json

    \b
    Rows of a data set:
      coarse   the coarse mask alone
      auto     end to end, exactly as geosam segment: coarse mask, prompts, model; from red, green and blue
      oracle   prompts sampled from the truth by the same sampler, points only, as a person would click
      none     no prompt at all, where the model was trained for it

    A folder of images/ and masks/ is scored whole, other data on their test split, or else on validation.
    Labels are 255 water, 0 dry, 128 not known; 0 and 1 do as well. What is not known is never counted. Where
    there is no water and none was found, IoU is 1. failures is the share of images with an IoU under 0.7.

    PREDICTION and REFERENCE are each a mask, a raster of probabilities, or polygons, in any CRS and of any size.
    They are compared on the grid of the reference raster, or else of the prediction's; two vector files by
    their exact areas. Where a prediction is nodata it is not counted; how much that is, is said.

    Exit codes: 0 done, 1 some tiles failed, 2 bad input.
    """
    dataset = given["dataset"]
    if (dataset is None) == (not files) or (files and len(files) != 2):
        raise click.UsageError("Give either --dataset DATA, or PREDICTION and REFERENCE.")
    _check_outputs(given["json_path"], given["csv_path"], given["worst"], given["overwrite"])
    return _score_model(given) if dataset is not None else _score_files(files, given)


def _score_model(given: dict[str, Any]) -> int:
    from geosam.evaluate import check_rows, evaluate_model
    from geosam.evaluate.files import rows_table, write_csv
    from geosam.models import load_model
    from geosam.pipeline.outputs import write_json

    options = shared.segment_options()
    rows = check_rows([name.strip() for name in given["rows"].split(",") if name.strip()])
    dataset = _dataset(given)
    # A fault of the data is told before the model is loaded.
    dataset.open(warn=lambda line: click.echo(f"note: {line}", err=True))
    model = load_model(options.model)
    with shared.progress("images") as progress:
        result = evaluate_model(dataset, model, options, rows=rows, ruler=_ruler(given), progress=progress)
    for fault in result.skipped:
        click.echo(f"note: skipped: {fault}", err=True)
    if given["json_path"]:
        write_json(Path(given["json_path"]), {**result.report(), "options": options.model_dump(mode="json")})
    if given["csv_path"]:
        write_csv(Path(given["csv_path"]), [image.line() for image in result.images])
    if given["worst"]:
        result.worst.write(Path(given["worst"]))
    for line in rows_table(result.rows):
        click.echo(line)
    return 1 if result.failed_tiles else 0


def _dataset(given: dict[str, Any]) -> DataSet:
    from geosam.datasets import DataOptions
    from geosam.evaluate import DataSet
    from geosam.options import checked

    typed = labelled.typed(given)
    own = {name: typed.pop(name) for name in _OWN if name in typed}
    data = checked(DataOptions, {**typed, "gsd": shared.segment_options().scene.gsd}, "evaluate")
    return DataSet(
        folder=given["dataset"], splits=given["split"] or None, gsd_m=given["image_gsd"], data=data, **own
    )  # fmt: skip


def _score_files(files: tuple[str, ...], given: dict[str, Any]) -> int:
    from geosam.evaluate.compare import compare
    from geosam.evaluate.files import scores_table
    from geosam.pipeline.outputs import write_json

    useless = [name for name in _DATASET_ONLY if given[name]]
    if useless:
        option = labelled.option_of(useless[0])
        raise OptionsError(f"{option} is for a data set. Leave it away, or give --dataset.")
    threshold = shared.segment_options().vector.threshold
    with shared.progress("strips") as progress:
        result = compare(
            *files,
            threshold=0.5 if threshold is None else threshold,
            ruler=_ruler(given),
            pixel_m=given["image_gsd"],
            progress=progress,
        )
    report = result.report()
    if given["json_path"]:
        write_json(Path(given["json_path"]), report)
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    for line in scores_table(report):
        click.echo(line)
    return 0


def _ruler(given: dict[str, Any]) -> Any:
    from geosam.evaluate import Ruler

    return Ruler(given["tolerance"], given["tolerance_m"], given["thin"])


def _check_outputs(json_path: str | None, csv_path: str | None, worst: str | None, overwrite: bool) -> None:
    """Refuse outputs before any work is done."""
    if worst is not None and Path(worst).suffix.lower() not in _PICTURES:
        raise OutputError(f"--worst {worst} does not end as a picture. Give one of {', '.join(_PICTURES)}.")
    for path in (Path(path) for path in (json_path, csv_path, worst) if path):
        if not path.parent.is_dir():
            raise OutputError(
                f"the folder {path.parent} does not exist. Make it, or give another path for {path.name}."
            )
        if path.is_dir() or (path.exists() and not overwrite):
            raise OutputError(f"{path} exists already. Give --overwrite to replace it, or choose another path.")
