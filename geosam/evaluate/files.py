"""Scores for other programs and for people: CSV, and lines of text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geosam.errors import OutputError

_SHOWN = ("n", "iou_mean", "iou_median", "f1_mean", "boundary_f1", "failures", "false_water", "thin_recall")


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header; empty where a score is undefined. Written under another name, then renamed.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(lines[0]) if lines else [])
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in line.items()} for line in lines)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror or error}).") from None


def rows_table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for the terminal: one a row."""
    lines = ["row     " + "".join(f"{name:>13}" for name in _SHOWN)]
    for row, numbers in rows.items():
        lines.append(f"{row:<8}" + "".join(f"{format_score(numbers[name]):>13}" for name in _SHOWN))
    return lines


_COMPARED = (
    "iou", "f1", "precision", "recall", "accuracy", "boundary_f1", "boundary_f1_m", "thin_recall", "false_water", "ece"
)  # fmt: skip


def scores_table(report: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: one a score that is defined."""
    return [f"{name:<14} {format_score(report[name])}" for name in _COMPARED if report[name] is not None]


def format_score(value: float | int | None) -> str:
    """A score to three places, a count as it is, a dash for what is undefined."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
