"""``geosam relabel``: predict, correct, retrain."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import click

from geosam.cli import shared

if TYPE_CHECKING:
    from geosam.relabel import Audit


@click.group(name="relabel", short_help="Predict, correct, retrain: labels by model and person in turn.")
def command() -> None:
    """Label new scenes by a model and a person in turn: predict, correct in QGIS, tune, and again.

    \b
      geosam relabel predict scenes/ --out queue.gpkg --accept-above 0.9
      geosam relabel audit queue.gpkg --audit 50
      geosam relabel export queue.gpkg --out tiles
      geosam finetune --dataset tiles --out runs/second
      geosam relabel predict more/ --model runs/second/best --out queue2.gpkg
    """


@command.command("predict", short_help="Predict over unlabelled scenes, and queue what a person should check.")
@click.argument("scenes", nargs=-1, required=True)
@click.option("--out", required=True, metavar="QUEUE.gpkg", help="The GeoPackage to be.")
@click.option(
    "--accept-above", type=float, default=0.9, show_default=True, metavar="CONFIDENCE",
    help="Scenes of a higher confidence, 0 to 1, are accepted unseen.",
)  # fmt: skip
@shared.model_options
@shared.coarse_option
@shared.prompt_options
@shared.threshold_option("vector")
@shared.scene_options
@shared.area_options("vector")
@shared.simplify_option
@shared.config_option
@shared.seed_option
@shared.overwrite_option
def predict_command(scenes: tuple[str, ...], out: str, accept_above: float, overwrite: bool) -> int:
    """Predict the water of SCENES and write a queue for QGIS, the least confident first.

    \b
      geosam relabel predict scenes/*.tif --out queue.gpkg
      geosam relabel predict scenes/ --model runs/mine/best --views 8 --accept-above 0.95 --out queue.gpkg

    \b
    Layers of QUEUE.gpkg:
      scenes     footprints with confidence, its parts, and status: accepted, to_check, corrected, rejected
      water      the polygons, for you to correct
      predicted  the same polygons, for you to leave alone

    The confidence is a geometric mean of the IoU that the model predicts of its masks, their stability under
    another threshold, the agreement of turned and mirrored views (--views, here 4 if not given), and the agreement
    with the coarse mask. In QGIS correct the polygons of a scene and set its status to corrected; rejected scenes
    are left out of everything.
    """
    from geosam.relabel import predict
    from geosam.relabel.predicting import VIEWS

    started = time.perf_counter()
    options = shared.segment_options()
    views = options.model.views if shared.was_given("model.views") or options.model.views > 1 else VIEWS
    with shared.stage_progress() as progress:
        found = predict(
            scenes, out, options, accept_above=accept_above, views=views, overwrite=overwrite, progress=progress
        )
    for line in found.failed:
        click.echo(f"geosam: {line}", err=True)
    least, most = found.scenes["confidence"].min(), found.scenes["confidence"].max()
    count, check = len(found.scenes), len(found.scenes) - found.accepted
    click.echo(
        f"{out}: {_counted(count, 'scene')}, {found.accepted} accepted, {check} to check "
        f"(confidence {least:.2f} to {most:.2f}, {time.perf_counter() - started:.1f} s)"
    )
    return 1 if found.failed else 0


@command.command("export", short_help="The accepted and the corrected as a data set for geosam finetune.")
@click.argument("queue")
@click.option("--out", required=True, metavar="DATASET", help="Folder to make: images/, masks/ and index.csv.")
@click.option(
    "--person", default="person", show_default=True, metavar="NAME",
    help="Who corrected, where the column person of the queue does not say.",
)  # fmt: skip
@click.option("--split", default="", metavar="NAME", help="Split of all tiles.  [default: finetune splits by scene]")
@click.option(
    "--chip", "chip_px", type=int, default=1024, show_default=True, metavar="PX",
    help="Scenes are cut into tiles of at most this side.",
)  # fmt: skip
@shared.overwrite_option
def export_command(queue: str, out: str, person: str, split: str, chip_px: int, overwrite: bool) -> None:
    """Write what is accepted or corrected in QUEUE as tiles that geosam finetune learns from.

    \b
      geosam relabel export queue.gpkg --out tiles
      geosam relabel export queue.gpkg --out tiles --person Ada --split train

    index.csv has the columns file, group (the scene), split, weight (1 for a person's masks, the confidence for
    the model's), source (the model and its sha256, or the person), date, scene and confidence.
    """
    from geosam.relabel import export

    with shared.stage_progress() as progress:
        done = export(queue, out, person=person, split=split, chip_px=chip_px, overwrite=overwrite, progress=progress)
    made = " and ".join(f"{count} by the {who}" for who, count in sorted(done.by.items()))
    left = ", ".join(f"{count} {status}" for status, count in done.left.items())
    click.echo(
        f"{out}: {_counted(done.tiles, 'tile')} of {_counted(sum(done.by.values()), 'scene')}, "
        f"{made}{f'; left out: {left}' * bool(left)}"
    )


@command.command("audit", short_help="A sample to correct, and how good the predictions were.")
@click.argument("queue")
@click.option("--audit", "number", type=int, metavar="N", help="Draw so many scenes.  [default: report what was drawn]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
def audit_command(queue: str, number: int | None, seed: int) -> None:
    """Draw a sample of QUEUE to correct, or say how far predictions and corrections agree.

    \b
      geosam relabel audit queue.gpkg --audit 50
      geosam relabel audit queue.gpkg

    Scenes drawn have audit = 1 and the status to_check. Correct each in QGIS and set it to corrected, also where
    there is nothing to correct.
    """
    from geosam.relabel import audit

    for line in _audit_lines(audit(queue, number, seed=seed)):
        click.echo(line)


def _counted(count: int, what: str) -> str:
    """``1 scene``, ``2 scenes``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _audit_lines(found: Audit) -> list[str]:
    rejected = f", {found.rejected} rejected" if found.rejected else ""
    drawn = f"{_counted(len(found.sample), 'scene')} drawn"
    lines = [f"{drawn}, {len(found.ious)} corrected{rejected}, {found.waiting} waiting"]
    if not math.isnan(found.good):
        lines.append(f"IoU over 0.9: {found.good:.1%}; over 0.75: {found.fair:.1%}")
    return lines
