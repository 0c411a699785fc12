"""The main thread: batches of one tile row through the model, and what becomes of every tile."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geosam.errors import RunError
from geosam.mosaic import Mosaic
from geosam.predict.flight import Flight, StageClock, launched, works_ahead
from geosam.predict.reading import Fate, Look, Ready
from geosam.predict.views import mean_logits
from geosam.prompts import Prompts
from geosam.tiling import Tile

if TYPE_CHECKING:
    from geosam.models import PromptableModel


MODEL_SAY = 4.0
"""Greatest log-odds of a model beside a trusted index: it is over-confident on ground unlike its training's."""


_MOST_WAITING = 64
"""Tiles that wait for the mosaic keep their masks in memory."""


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

    Beside a device that works ahead, a batch is computed while what came before it is laid into the mosaic,
    in the same order as elsewhere, rows' ends and tiles that do not run included.
    """

    model: PromptableModel
    limit: int
    mosaic: Mosaic
    tally: Tally
    views: int = 1
    """Views of each tile whose logits are averaged."""
    batch: list[tuple[Tile, Ready]] = field(default_factory=list)
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    """What is to be done for the mosaic, in order."""

    def __post_init__(self) -> None:
        self.clock = StageClock(self.model.device, self.tally.seconds)
        self.ahead = works_ahead(self.model.device)

    def take(self, look: Look, future: Future[Ready] | None) -> None:
        """Settle a tile at once, or put it into the batch."""
        if future is None:
            self._do(lambda: self._settle(look.tile, look.fate, look.valid))
            return
        try:
            with self.clock.host("wait"):
                ready = future.result()
        except Exception as error:
            fault = _Fault.of(error)
            self._do(lambda: self._failed(look.tile, fault))
            return
        if ready.fate != "run":
            self._do(lambda: self._settle(look.tile, ready.fate, ready.valid))
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

    def _do(self, action: Callable[[], None]) -> None:
        """Something for the mosaic: at once, or once the device has its next batch."""
        self.waiting.append(action)
        if not self.ahead or len(self.waiting) > _MOST_WAITING:
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
                self._send(part, outcome)
            elif outcome.out_of_memory and len(part) > 1:
                # Half of what was tried, not of what was asked for; and for the rest of the run.
                self.limit = len(part) // 2
                todo = part + todo
            else:
                self.finish()
                self._one_by_one(part, outcome)

    def _send(self, part: list[tuple[Tile, Ready]], flight: Flight) -> None:
        """Do what was waiting, now that the device has this batch to compute."""
        self.finish()
        self._do(lambda: self._land(part, flight))

    def _land(self, part: list[tuple[Tile, Ready]], flight: Flight) -> None:
        """Lay a batch into the mosaic: one by one where a tile spoilt it."""
        values = self._landed(flight)
        if isinstance(values, _Fault):
            self._one_by_one(part, values)
        else:
            self._blend(part, values)

    def _one_by_one(self, part: list[tuple[Tile, Ready]], fault: _Fault) -> None:
        """Find the tile that spoils its batch: the others must not fail with it."""
        if len(part) == 1:
            self._failed(part[0][0], fault)
            return
        for one in part:
            outcome = self._try([one])
            values = outcome if isinstance(outcome, _Fault) else self._landed(outcome)
            if isinstance(values, _Fault):
                self._failed(one[0], values)
            else:
                self._blend([one], values)

    def _landed(self, flight: Flight) -> NDArray[np.float32] | _Fault:
        """Probabilities of a batch, float32 (B, tile_px, tile_px)."""
        try:
            with self.clock.host("wait"):
                values = flight.landed()
        except FloatingPointError:
            return _Fault(
                f"RunError: model {self.model.name} gave NaN as {self.model.dtype}; try --dtype float32.", False
            )
        except Exception as error:
            return _Fault.of(error)
        self.clock.settle()
        return np.pad(values, [(0, 0), *((0, self.model.tile_px - side) for side in values.shape[1:])])

    def _try(self, part: list[tuple[Tile, Ready]]) -> Flight | _Fault:
        try:
            return self._compute([ready for _, ready in part])
        except Exception as error:  # Ctrl-C passes: it is no Exception.
            fault = _Fault.of(error)
        # Outside the except clause, where the traceback no longer keeps the batch's tensors alive.
        if fault.out_of_memory and self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return fault

    @torch.inference_mode()
    def _compute(self, part: list[Ready]) -> Flight:
        """Probabilities of a batch, (B, h, w), on their way."""
        images = torch.from_numpy(np.stack([ready.image for ready in part if ready.image is not None]))
        prompts = [ready.prompts for ready in part if ready.prompts is not None]
        logits = self._logits(images, prompts)
        with self.clock.computing("decode"):
            for row, ready in enumerate(part):
                if ready.prior is not None:
                    prior = torch.from_numpy(ready.prior)[: logits.shape[1], : logits.shape[2]].to(logits.device)
                    logits[row] = logits[row].clamp(-MODEL_SAY, MODEL_SAY) + prior
            flight = launched(logits)
        wanted = (len(part), *images.shape[2:])
        if tuple(flight.values.shape) != wanted:
            found = tuple(flight.values.shape)
            raise RunError(f"model {self.model.name} gave logits of shape {found} instead of {wanted}.")
        return flight

    def _logits(self, images: torch.Tensor, prompts: Sequence[Prompts]) -> torch.Tensor:
        """Logits of water, float32 (B, h, w) of tiles uint8 (B, 3, h, w); the model takes them to its device."""
        if self.views > 1:
            with self.clock.computing("embed"):
                return mean_logits(self.model, images.to(self.model.device), prompts, self.views)
        with self.clock.computing("embed"):
            embeddings = self.model.embed(images)
        with self.clock.computing("decode"):
            return self.model.decode(embeddings, prompts)

    def _blend(self, part: list[tuple[Tile, Ready]], probability: NDArray[np.float32]) -> None:
        with self.clock.host("mosaic"):
            for (tile, ready), values in zip(part, probability, strict=True):
                self.mosaic.add(tile, values, ready.valid)
        self.tally.row["run"] += len(part)

    def _settle(self, tile: Tile, fate: Fate, valid: NDArray[np.bool_] | bool) -> None:
        """Note a tile that will not run."""
        with self.clock.host("mosaic"):
            if fate == "dry":
                self.mosaic.add_dry(tile, valid)
            else:
                self.mosaic.add_nothing(tile)
        self.tally.row[fate] += 1

    def _failed(self, tile: Tile, fault: _Fault) -> None:
        self.tally.row["failures"].append(f"tile row {tile.row}, column {tile.col}: {fault.reason}")
        self._settle(tile, "failed", False)


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
