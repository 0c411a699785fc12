"""A model on a data set: every image through every row, one loaded model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.datasets import UnreadableError
from geosam.datasets.tile import MOST_BAD
from geosam.errors import DatasetError
from geosam.evaluate.picture import Case, Worst
from geosam.evaluate.rows import ROWS, Found, Row, Runner
from geosam.evaluate.samples import DataSet, Sample
from geosam.evaluate.summary import Scored, summary
from geosam.evaluate.tally import column_weighted_f1
from geosam.evaluate.truth import Ruler, Truth
from geosam.options import SegmentOptions

if TYPE_CHECKING:
    from geosam.models import PromptableModel

Progress = Callable[[int, int], None]


@dataclass
class Evaluation:
    """The scores of a model on a data set."""

    dataset: str
    model: str
    sha256: str
    threshold: float
    ruler: Ruler
    images: list[Scored] = field(default_factory=list)
    """Every image in every row."""
    worst: Worst = field(default_factory=Worst)
    """The worst images, to be looked at."""
    skipped: list[str] = field(default_factory=list)
    """Images that cannot be read, a line each; they count in no row."""
    seconds: float = 0.0

    def of(self, row: Row) -> list[Scored]:
        """The images of one row."""
        return [image for image in self.images if image.row == row]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The numbers of every row that was run."""
        present = [row for row in ROWS if self.of(row)]
        return {row: summary(self.of(row), self.ruler.failure_iou) for row in present}

    @property
    def failed_tiles(self) -> int:
        """Tiles that raised, over all rows."""
        return sum(image.failed for image in self.images)

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "dataset": self.dataset,
            "model": {"name": self.model, "sha256": self.sha256, "threshold": self.threshold},
            "tolerance_px": self.ruler.tolerance_px,
            "tolerance_m": self.ruler.tolerance_m,
            "thin_px": self.ruler.thin_px,
            "failure_iou": self.ruler.failure_iou,
            "seconds": round(self.seconds, 1),
            "skipped": self.skipped,
            "rows": self.rows,
        }


def evaluate_model(
    dataset: DataSet,
    model: PromptableModel,
    options: SegmentOptions | None = None,
    *,
    rows: Sequence[Row] = ROWS,
    ruler: Ruler | None = None,
    root: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on a data set.

    Args:
        dataset: Which images.
        model: A loaded model.
        options: As ``geosam segment`` would be given them; of ``scene`` only ``gsd`` is heeded.
        rows: What to run; ``none`` is left out where the model needs prompts.
        ruler: Tolerances.
        root: Folder under which the data set lies.
        progress: Called with images done and images in all.

    Raises:
        DatasetError: The data set cannot be used as it is, or more than one image in twenty cannot be read.
        OptionsError: Options contradict each other.
    """
    ruler = Ruler() if ruler is None else ruler
    items = dataset.open(root)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="geosam-evaluate-") as folder:
        runner = Runner.of(model, SegmentOptions() if options is None else options, Path(folder))
        result = Evaluation(dataset.title, model.name, model.sha256, runner.threshold, ruler)
        for done, item in enumerate(items, start=1):
            try:
                sample = dataset.read(item)
            except UnreadableError as error:
                _skip(result, str(error), len(items))
            else:
                _score(result, sample, runner.rows(sample, rows))
            if progress is not None:
                progress(done, len(items))
    result.seconds = time.perf_counter() - begun
    return result


def _skip(result: Evaluation, fault: str, count: int) -> None:
    result.skipped.append(fault)
    if len(result.skipped) > MOST_BAD * count:
        raise DatasetError(
            f"{len(result.skipped)} of {count} images cannot be read, more than {MOST_BAD:.0%}. The first: "
            f"{result.skipped[0]}"
        )


def _score(result: Evaluation, sample: Sample, found: dict[Row, Found]) -> None:
    truth = Truth(sample.water, sample.known, result.ruler, sample.gsd_m)
    scored = {row: _scored(sample, truth, row, one) for row, one in found.items()}
    result.images += scored.values()
    shown = "auto" if "auto" in found else next(iter(found), None)
    if shown is not None:
        iou = scored[shown].tally.iou
        result.worst.see(iou, lambda: Case.of(sample, found[shown].water, f"{sample.name}  {shown} IoU {iou:.3f}"))


def _scored(sample: Sample, truth: Truth, row: Row, found: Found) -> Scored:
    ancestor = column_weighted_f1(truth.water, found.water & truth.known)
    tally = truth.measure(found.water, found.probability)
    return Scored(sample.name, sample.group, row, tally, ancestor, found.method, found.failed)
