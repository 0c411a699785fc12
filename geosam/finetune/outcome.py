"""What a tuning run came to, as figures and as lines for a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tuned:
    """What a tuning run came to.

    Attributes:
        folder: Give it to ``--model``.
        before, after: Mean IoU by row on the validation tiles, of the untouched model and of the best epoch.
        test_before, test_after: The same on the test split; empty if the data have none.
        best_epoch: From 1.
        epochs: How many were run.
        notes: What a person should know.
    """

    folder: Path
    before: dict[str, float]
    after: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    test_before: dict[str, float] = field(default_factory=dict)
    test_after: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    speaks: bool = True
    """Whether this process, of several, is the one that reports."""

    def report(self, notes: bool = True) -> list[str]:
        """Lines for a person: both models' scores, and ``notes`` of what was chosen and what went otherwise."""
        lines = [f"note: {note}" for note in self.notes] if notes else []
        splits = ("validation", self.before, self.after), ("test", self.test_before, self.test_after)
        for split, before, after in splits:
            lines += [_line(split, row, before.get(row), after[row]) for row in after if row != "coarse"]
        lines.append(f"{self.folder}: best of {self.epochs} epochs was {self.best_epoch}; {self.seconds:.0f} s in all")
        return [*lines, *(f"note: {doubt}" for split in splits for doubt in _doubts(*split))]

    @property
    def worse(self) -> bool:
        """Whether the tuned model scores below the untouched one."""
        return chosen_by(self.after) < chosen_by(self.before)


def chosen_by(rows: dict[str, float]) -> float:
    """The figure that chooses an epoch: the mean of automatic and oracle prompts."""
    return (rows["auto"] + rows["oracle"]) / 2


_FELL = 0.005
"""Mean IoU that a row may lose without a word: less is chance."""


def _doubts(split: str, before: dict[str, float], after: dict[str, float]) -> list[str]:
    """What got worse on a split; of a split that is not there nothing did."""
    if not after or not before:
        return []
    if chosen_by(after) < chosen_by(before):
        return [f"the tuned model is worse than the untouched one on the {split} tiles; keep the old one"]
    fell = [row for row in before if row != "coarse" and after.get(row, 0.0) < before[row] - _FELL]
    return [f"mean IoU of {' and '.join(fell)} fell on the {split} tiles; look before you use it"] if fell else []


def _line(split: str, row: str, before: float | None, after: float) -> str:
    if before is None:  # --learn-none taught it what it could not do.
        return f"{split}  {row:<7} mean IoU {after:.3f} tuned; the untouched model cannot be asked so"
    return f"{split}  {row:<7} mean IoU {before:.3f} untouched, {after:.3f} tuned ({after - before:+.3f})"
