"""Score a model on every data set that it was never trained on: one table in Markdown, and JSON.

    python benchmarks/dev_scores.py --model river-tiny --out runs/dev
    python benchmarks/dev_scores.py --model runs/mine/model.safetensors --limit 4 --rows auto,none

The data lie under the environment variable GEOSAM_DATA; sets that are not there are left out, and said so.
Writes card.md (for the model card), scores.md, scores.json, images.csv and a picture of the worst images of each set
under --out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from geosam.errors import DatasetError
from geosam.evaluate import DataSet, Evaluation, check_rows, evaluate_model, load_list
from geosam.evaluate.files import format_score, write_csv
from geosam.models import load_model
from geosam.options import SegmentOptions
from geosam.pipeline.outputs import write_json

COLUMNS = {
    "n": "n", "iou mean": "iou_mean", "iou median": "iou_median", "wet iou": "wet.iou_mean", "F1": "f1_mean",
    "failures": "failures", "boundary F1": "boundary_f1", "thin recall": "thin_recall",
    "pooled iou": "pooled.iou", "precision": "pooled.precision", "recall": "pooled.recall",
    "false water": "false_water", "ECE": "ece",
}  # fmt: skip
"""Columns of the table, and where in a row their number is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="river-tiny", help="name, folder or weights file")
    parser.add_argument("--sets", default="configs/evaluate/dev.toml", help="list of data sets")
    parser.add_argument("--only", help="only sets whose name holds this")
    parser.add_argument("--data-root", default=os.environ.get("GEOSAM_DATA"))
    parser.add_argument("--rows", default="coarse,auto,oracle,none")
    parser.add_argument("--coarse", default="auto", help="rule of the coarse mask")
    parser.add_argument("--limit", type=int, help="at most so many images a set")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="runs/dev", help="folder to write to")
    asked = parser.parse_args()
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    table = {"model": {"name": asked.model, "device": asked.device}, "coarse": {"method": asked.coarse}}
    options = SegmentOptions.from_mapping(table)
    model = load_model(options.model)
    done = []
    for dataset in chosen(asked):
        result = scored(dataset, model, options, asked)
        if result is not None:
            done.append(result)
            write(done, asked.model, out)  # What is done is on disk, should the rest not get there.
            result.worst.write(out / f"worst-{slug(result.dataset)}.png")
    print((out / "scores.md").read_text(encoding="utf-8") if done else "no data set was found")


def chosen(asked: argparse.Namespace) -> list[DataSet]:
    sets = [dataset for dataset in load_list(asked.sets) if not asked.only or asked.only in dataset.title]
    return [dataset.model_copy(update={"limit": asked.limit or dataset.limit}) for dataset in sets]


def scored(dataset: DataSet, model: Any, options: SegmentOptions, asked: argparse.Namespace) -> Evaluation | None:
    rows = check_rows(asked.rows.split(","))
    try:
        result = evaluate_model(dataset, model, options, rows=rows, root=asked.data_root or ".")
    except DatasetError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    print(f"{dataset.title}: {len(result.images)} scores in {result.seconds:.0f} s", file=sys.stderr)
    return result


def write(done: list[Evaluation], name: str, out: Path) -> None:
    write_json(out / "scores.json", {"model": name, "sets": {result.dataset: result.report() for result in done}})
    (out / "scores.md").write_text(f"Model: {name}\n\n{markdown(done)}\n", encoding="utf-8")
    (out / "card.md").write_text(card(done) + "\n", encoding="utf-8")
    write_csv(out / "images.csv", [{"dataset": r.dataset, **image.line()} for r in done for image in r.images])


def markdown(done: list[Evaluation]) -> str:
    lines = [f"| set | row | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for result in done:
        for row, numbers in result.rows.items():
            shown = " | ".join(format_score(number(numbers, key)) for key in COLUMNS.values())
            methods = ", ".join(numbers.get("methods", {}))
            lines.append(f"| {result.dataset} | {row}{f' ({methods})' if methods else ''} | {shown} |")
    return "\n".join(lines)


def card(done: list[Evaluation]) -> str:
    """Mean IoU a row of each set, and of the automatic row what else the model card tells."""
    rows = ("coarse", "auto", "oracle", "none")
    told = (
        "images",
        "coarse alone",
        "**automatic**",
        "oracle",
        "no prompt",
        "F1 pooled",
        "under 0.7",
        "dry called wet",
    )
    lines = [f"| set | {' | '.join(told)} |", f"|---|{'---|' * len(told)}"]
    for result in done:
        ious = [format_score(result.rows[row]["iou_mean"]) if row in result.rows else "-" for row in rows]
        auto = result.rows.get("auto", next(iter(result.rows.values())))
        extra = [format_score(number(auto, key)) for key in ("pooled.f1", "failures", "false_water")]
        lines.append(f"| {result.dataset} | {auto['n']} | {' | '.join(ious)} | {' | '.join(extra)} |")
    return "\n".join(lines)


def number(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


if __name__ == "__main__":
    main()
