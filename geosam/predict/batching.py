"""The main thread: batches of one tile row through the model, and what becomes of every tile."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geosam.errors import RunError
from geosam.mosaic import Mosaic
from geosam.predict.blending import Blender, Laid
from geosam.predict.flight import StageClock, works_ahead
from geosam.predict.reading import Fate, Look, Ready
from geosam.predict.views import mean_logits
from geosam.prompts import Prompts
from geosam.tiling import Tile

if TYPE_CHECKING:
    from geosam.models import PromptableModel


_MOST_WAITING = 64
"""Steps that wait for their turn beside a device that works ahead; rows of a long dry stretch want to be written."""


@dataclass(frozen=True)
class TileReport:
    """What became of the tiles of a run."""

    total: int
    nodata: int
    """Tiles without a valid pixel; never run."""
    dry: int
    """Tiles without coarse water; not run."""
    run: int
    failed: int
    """Tiles that raised; nodata in the output."""
    failures: tuple[str, ...]
    """A line for each failed tile: where it is and why it failed."""
    seconds: dict[str, float]
    """``wait`` (of the main thread for readers and device), ``embed``, ``decode``, ``mosaic``; a GPU embeds and decodes
    while the main thread does the rest, so there they may add up to more than the run took."""
    batch_size: int
    """Tiles a batch at the end; smaller than asked for where memory ran out."""


class Tally:
    """Counts by tile row; a row's own go with its strip, so that a resumed run can add them up."""

    def __init__(self, records: Sequence[dict[str, Any]]) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.seconds: dict[str, float] = dict.fromkeys(("wait", "embed", "decode", "mosaic"), 0.0)
        for record in records:
            self._add(record)
        self._begin()

    def _begin(self) -> None:
        self.row: dict[str, Any] = {"nodata": 0, "dry": 0, "run": 0, "failed": 0, "failures": []}

    def _add(self, record: dict[str, Any]) -> None:
        self.counts.update({key: record[key] for key in ("nodata", "dry", "run", "failed")})
        self.failures += record["failures"]

    @property
    def done(self) -> int:
        """Tiles whose fate is settled."""
        return self.counts.total() + sum(int(self.row[fate]) for fate in ("nodata", "dry", "run", "failed"))

    def end_row(self) -> dict[str, Any]:
        """Close the row and return its record."""
        record = self.row
        self._add(record)
        self._begin()
        return record

    def report(self, total: int, limit: int) -> TileReport:
        """The counts so far."""
        nodata, dry, ran, failed = (self.counts[key] for key in ("nodata", "dry", "run", "failed"))
        seconds = {stage: round(spent, 3) for stage, spent in self.seconds.items()}
        return TileReport(total, nodata, dry, ran, failed, tuple(self.failures), seconds, limit)


@dataclass
class Batcher:
    """The main thread: gathers tiles of one row, computes, hands on to the mosaic.

    A device that works ahead blends a batch itself, and is given the next one before the host waits for what
    it found; rows then end, and tiles are counted, one batch later, in the same order as elsewhere.
    """

    model: PromptableModel
    limit: int
    mosaic: Mosaic
    tally: Tally
    views: int = 1
    """Views of each tile whose logits are averaged."""
    batch: list[tuple[Tile, Ready]] = field(default_factory=list)
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    """What is to be done in turn."""

    def __post_init__(self) -> None:
        self.clock = StageClock(self.model.device, self.tally.seconds)
        ahead = works_ahead(self.model.device)
        self.there = Blender(self.mosaic, self.model.device) if ahead else None

    def take(self, look: Look, future: Future[Ready] | None) -> None:
        """Settle a tile at once, or put it into the batch."""
        if future is None:
            self._settle(look.tile, look.fate, look.valid)
            return
        try:
            with self.clock.host("wait"):
                ready = future.result()
        except Exception as error:
            self._settle(look.tile, "failed", False, _Fault.of(error).reason)
            return
        if ready.fate != "run":
            self._settle(look.tile, ready.fate, ready.valid)
            return
        self.batch.append((look.tile, ready))
        if len(self.batch) >= self.limit:
            self._flush()

    def finish_row(self, row: int) -> None:
        """Compute what is left of a tile row and write its strip."""
        self._flush()
        self._do(lambda: self._end_row(row))

    def finish(self) -> None:
        """Do what is still waiting."""
        while self.waiting:
            self.waiting.popleft()()

    def close(self) -> None:
        """End what works beside the main thread."""
        if self.there is not None:
            self.there.close()

    def _do(self, action: Callable[[], None]) -> None:
        """Something that has its turn at once, or once the device has its next batch."""
        self.waiting.append(action)
        if self.there is None or len(self.waiting) > _MOST_WAITING:
            self.finish()

    def _end_row(self, row: int) -> None:
        with self.clock.host("mosaic"):
            self.mosaic.finish_row(row, self.tally.end_row())

    def _flush(self) -> None:
        """Compute the batch: by halves where memory runs out, one by one where a tile raises."""
        todo, self.batch = self.batch, []
        while todo:
            part, todo = todo[: self.limit], todo[self.limit :]
            outcome = self._try(part)
            if not isinstance(outcome, _Fault):
                # What was waiting is done now that the device has this batch to compute.
                self.finish()
                self._do(partial(self._land, part, outcome))
            elif outcome.out_of_memory and len(part) > 1:
                # Half of what was tried, not of what was asked for; and for the rest of the run.
                self.limit = len(part) // 2
                todo = part + todo
            else:
                self.finish()
                self._one_by_one(part, outcome)

    def _one_by_one(self, part: list[tuple[Tile, Ready]], fault: _Fault) -> None:
        """Find the tile that spoils its batch: the others must not fail with it."""
        if len(part) == 1:
            self._give_up(part[0][0], fault.reason)
            return
        for one in part:
            outcome = self._try([one])
            if isinstance(outcome, _Fault):
                self._give_up(one[0], outcome.reason)
            else:
                self._land([one], outcome)

    def _land(self, part: list[tuple[Tile, Ready]], outcome: Tensor | Laid) -> None:
        """See what became of a batch, and lay it into the mosaic where it is not there yet."""
        if isinstance(outcome, Laid):
            with self.clock.host("wait"):
                spoilt = outcome.spoilt.landed().tolist()
            self.clock.settle()
            for (tile, _), is_spoilt in zip(part, spoilt, strict=True):
                self._count(tile, "failed" if is_spoilt else "run", self._nan if is_spoilt else "")
        elif bool(outcome.isnan().any()):
            self._one_by_one(part, _Fault(self._nan, False))
        else:
            self._blend(part, outcome.numpy())

    @property
    def _nan(self) -> str:
        return f"RunError: model {self.model.name} gave NaN as {self.model.dtype}; try --dtype float32."

    def _try(self, part: list[tuple[Tile, Ready]]) -> Tensor | Laid | _Fault:
        """Compute a batch; where it is blended on the device, count it off in the mosaic."""
        outcome: Tensor | Laid | _Fault
        try:
            outcome = self._compute(part)
        except Exception as error:  # Ctrl-C passes: it is no Exception.
            outcome = _Fault.of(error)
        # Outside the except clause, where the traceback no longer keeps the batch's tensors alive.
        if isinstance(outcome, _Fault) and outcome.out_of_memory and self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if isinstance(outcome, Laid):
            for tile, _ in part:
                self.mosaic.report(tile)
        return outcome

    @torch.inference_mode()
    def _compute(self, part: list[tuple[Tile, Ready]]) -> Tensor | Laid:
        """Probabilities of a batch on the host, float32 (B, h, w), or the batch in the mosaic."""
        images = torch.from_numpy(np.stack([ready.image for _, ready in part if ready.image is not None]))
        prompts = [ready.prompts for _, ready in part if ready.prompts is not None]
        logits = self._logits(images, prompts)
        wanted = (len(part), *images.shape[2:])
        if tuple(logits.shape) != wanted:
            found = tuple(logits.shape)
            raise RunError(f"model {self.model.name} gave logits of shape {found} instead of {wanted}.")
        with self.clock.computing("decode"):
            for row, (_, ready) in enumerate(part):
                if ready.hint is not None:
                    logits[row] = ready.hint.added_to(logits[row])
            if self.there is None:
                return logits.float().sigmoid().cpu()
        with self.clock.computing("mosaic"):
            return self.there.lay([tile for tile, _ in part], logits, [ready.valid for _, ready in part])

    def _logits(self, images: Tensor, prompts: Sequence[Prompts]) -> Tensor:
        """Logits of water, float32 (B, h, w) of tiles uint8 (B, 3, h, w); the model takes them to its device."""
        if self.views > 1:
            with self.clock.computing("embed"):
                return mean_logits(self.model, images.to(self.model.device), prompts, self.views)
        with self.clock.computing("embed"):
            embeddings = self.model.embed(images)
        with self.clock.computing("decode"):
            return self.model.decode(embeddings, prompts)

    def _blend(self, part: list[tuple[Tile, Ready]], probability: NDArray[np.float32]) -> None:
        """Lay tiles, float32 (B, h, w), into the mosaic; h and w are those of the scene where it is smaller."""
        over = [(0, 0), *((0, self.model.tile_px - side) for side in probability.shape[1:])]
        with self.clock.host("mosaic"):
            for (tile, ready), values in zip(part, np.pad(probability, over), strict=True):
                self.mosaic.add(tile, values, ready.valid)
        for tile, _ in part:
            self._count(tile, "run")

    def _settle(self, tile: Tile, fate: Fate, valid: NDArray[np.bool_] | bool, reason: str = "") -> None:
        """Note a tile that will not run, and count it in its turn."""
        self._note(tile, fate, valid)
        self._do(partial(self._count, tile, fate, reason))

    def _give_up(self, tile: Tile, reason: str) -> None:
        """Note and count a tile that failed."""
        self._note(tile, "failed", False)
        self._count(tile, "failed", reason)

    def _note(self, tile: Tile, fate: Fate, valid: NDArray[np.bool_] | bool) -> None:
        with self.clock.host("mosaic"):
            if fate == "dry":
                self.mosaic.add_dry(tile, valid)
            else:
                self.mosaic.add_nothing(tile)

    def _count(self, tile: Tile, fate: Fate, reason: str = "") -> None:
        self.tally.row[fate] += 1
        if reason:
            self.tally.row["failures"].append(f"tile row {tile.row}, column {tile.col}: {reason}")


@dataclass(frozen=True)
class _Fault:
    """Why a batch could not be computed, without its traceback."""

    reason: str
    out_of_memory: bool

    @classmethod
    def of(cls, error: Exception) -> _Fault:
        text = " ".join(str(error).split())[:300]
        # CUDA raises its own kind, MPS and the CPU allocator a bare RuntimeError with these words.
        words = "out of memory" in text.lower() or "can't allocate memory" in text.lower()
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and words)
        return cls(f"{type(error).__name__}: {text}" if text else type(error).__name__, full)
