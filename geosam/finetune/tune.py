"""Tuning a model that exists: to be read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geosam.datasets import LabelledData
from geosam.errors import DatasetError, RunError
from geosam.finetune.lessons import Lesson, Lessons
from geosam.finetune.memory import halved
from geosam.finetune.options import TuneOptions
from geosam.finetune.outcome import Tuned, chosen_by
from geosam.finetune.ranks import Ranks
from geosam.finetune.scoring import masks, score
from geosam.finetune.sheet import spread, write_sheet
from geosam.finetune.store import Store, drawn, open_store
from geosam.finetune.suited import suited
from geosam.finetune.tuned import (
    TUNED_CHOOSES,
    choose_weights,
    learned_state,
    load_state,
    merged,
    save_state,
    save_tuned,
    written,
)

StageProgress = Callable[[str, int, int], None]

_STATE = ("average", "epoch", "best", "best_epoch", "best_weights", "stale", "before", "after")
"""What a run knows besides weights and optimizer."""


@dataclass(frozen=True)
class Batch:
    """The tiles of one step: how many there are over all processes, and those of this one."""

    whole: int
    mine: Sequence[Future[Lesson]]


class Tuner:
    """One run: its model, data and state."""

    def __init__(
        self, data: LabelledData, model: Any, base: str, options: TuneOptions, out: Path, ranks: Ranks, cache: Path
    ) -> None:
        self.data, self.model, self.base, self.out, self.ranks = data, model, base, out, ranks
        self.options, self.suits, filled_in = suited(options, model)
        self.base_sha256 = str(model.sha256)
        self.cache = cache
        self.micro = options.batch
        self.epoch, self.best, self.best_epoch, self.stale = 0, -math.inf, 0, 0
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.notes: list[str] = []
        self.chose = bool(getattr(model, "chooses", False))
        self.warn: Callable[[str], object] = lambda line: None
        self.also_log: Callable[[dict[str, Any]], object] = lambda row: None
        self.filled_in = filled_in

    def note(self, line: str) -> None:
        """Keep a word for the report, and say it now."""
        self.notes.append(line)
        if self.ranks.rank == 0:
            self.warn(line)

    def run(self, *, resume: bool, progress: StageProgress) -> Tuned:
        """All epochs, from the first or from where an earlier run was cut off."""
        begun = time.monotonic()
        for line in (self.data.describe(), *self.data.warnings, *([self.filled_in] if self.filled_in else [])):
            self.note(line)
        self._open(progress)
        if resume and (self.out / "state.pt").exists():
            self._resume()
        self._cut_log()
        self.train_numbers = self.store.of_split("train")
        self.weights = [self.data.splits["train"][self.store.chips[n].tile].weight for n in self.train_numbers]
        self.checked = self.store.of_split("validation")
        self._look_at_labels()
        if not self.before:
            self._choose(True)
            self.before = self.after = self._score(self.checked, progress)
        while self.epoch < self.options.epochs and self.stale < self.options.patience:
            self._one_epoch(progress)
        tuned = Tuned(self.out / "best", self.before, self.after, self.best_epoch, self.epoch, time.monotonic() - begun)
        tuned.notes, tuned.speaks = self.notes, self.ranks.rank == 0
        self._finish(tuned, progress)
        return tuned

    def _open(self, progress: StageProgress) -> None:
        """Chips and weights, ready to learn."""
        pixels = self.options.train in ("lora", "all")
        self.store: Store = open_store(
            self.data, self.model, self.cache, views=self.suits.views, pixels=pixels, ranks=self.ranks,
            progress=lambda done, total: progress("tiles encoded" if not pixels else "tiles cut", done, total),
        )  # fmt: skip
        for line in self.store.notes:
            self.note(line)
        choose_weights(self.model.module, self.options.train, self.options.lora_rank)
        more = {"none": self.options.learn_none, "mask": self.options.learn_dense}
        self.understood = self.model.understands
        self.taught = frozenset({*self.understood, *(kind for kind, yes in more.items() if yes)})
        self.lessons = Lessons(self.model, self.store, self.options, self.suits, self.ranks.threads)
        self.untouched = deepcopy(learned_state(self.model.module))
        self.average = deepcopy(self.untouched) if self.options.ema else None
        wanted = [weight for weight in self.model.module.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(wanted, lr=self.suits.learning_rate, weight_decay=self.options.weight_decay)

    def _one_epoch(self, progress: StageProgress) -> None:
        begun, figures = time.monotonic(), []
        self._choose(False)
        steps = self.steps_an_epoch
        asked: Batch | None = self._asked(0)
        for step in range(steps):
            # While this batch is learned from, the next one is asked about.
            batch, asked = asked, self._asked(step + 1) if step + 1 < steps else None
            figures.append(self._step(step, batch))
            progress(f"epoch {self.epoch + 1}", step + 1, steps)
        self.epoch += 1
        with self._averaged():
            rows = self._score(self.checked, progress)
            better = chosen_by(rows) > self.best
            if better:
                self.best, self.best_epoch, self.stale, self.after = chosen_by(rows), self.epoch, 0, rows
                self.best_weights = deepcopy(learned_state(self.model.module))
                self._save("best", rows)
            else:
                self.stale += 1
            self._save("last", rows)
        means = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
        spent = {"seconds": time.monotonic() - begun, "processes": self.ranks.world}
        self._log({**means, **vars(self.suits), **spent, "rows": rows})
        self._keep_state()

    def _look_at_labels(self) -> None:
        """Stop where the labels say nothing, and tell where they say that there is no water at all."""
        labels = self.store.labels
        for split, numbers in (("training", self.train_numbers), ("validation", self.checked)):
            if not numbers:
                raise DatasetError(f"none of the {split} images can be read. Mend them, or give others.")
            if all((labels[n] == 128).all() for n in numbers):
                raise DatasetError(
                    f"the labels of the {split} tiles say nothing: every pixel is to be ignored. Check --ignore-value, "
                    "and that the labels are those of these images."
                )
        if not any((labels[n] == 255).any() for n in self.train_numbers):
            self.note("no training tile has any water. Check --water-ids, and that 255, or 1, is water in the labels")

    def _choose(self, untouched: bool) -> None:
        """Have the model asked, and answer points, as it will once it is loaded: river-tiny has two ways."""
        self.model.understands = self.understood if untouched else self.taught
        if hasattr(self.model, "chooses"):
            self.model.chooses = self.chose and (untouched or TUNED_CHOOSES)

    @property
    def steps_an_epoch(self) -> int:
        """Batches that an epoch is made of."""
        return -(-len(self.train_numbers) // self.options.batch)

    def _asked(self, step: int) -> Batch:
        """The step's tiles, of which this process asks about its share."""
        o = self.options
        order = drawn(self.train_numbers, self.weights, np.random.default_rng([o.seed, self.epoch]))
        batch = [int(n) for n in order[step * o.batch : (step + 1) * o.batch]]
        mine = batch[self.ranks.rank :: self.ranks.world]
        return Batch(len(batch), self.lessons.ask(mine, self.epoch, step))

    def _step(self, step: int, batch: Batch | None = None) -> dict[str, float]:
        """One update on one batch, shared by the processes."""
        batch = self._asked(step) if batch is None else batch
        rate = self._set_rate(self.epoch * self.steps_an_epoch + step)
        sums = self._gradients([lesson.result() for lesson in batch.mine], batch.whole)
        self.ranks.sum_gradients(self.model.module)
        sums = self.ranks.sum(sums)
        if not torch.isfinite(sums).all():
            best = f"The best weights so far are kept in {self.out / 'best'}" if self.best_epoch else "None were kept"
            raise RunError(
                f"the loss is not a number in epoch {self.epoch + 1}. {best}; give a smaller --learning-rate."
            )
        wanted = [weight for weight in self.model.module.parameters() if weight.requires_grad]
        nn.utils.clip_grad_norm_(wanted, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._update_average()
        names = ("loss", "mask", "iou_head")
        return {**dict(zip(names, (sums / batch.whole).tolist(), strict=True)), "rate": rate}

    def _gradients(self, lessons: Sequence[Lesson], whole: int) -> Tensor:
        """Gradients of some tiles, added up over parts that fit into memory; the sums of the figures."""
        while True:
            try:
                sums = torch.zeros(3, device=self.model.device)
                for start in range(0, len(lessons), self.micro):
                    parts = self.lessons.loss(lessons[start : start + self.micro])
                    (parts[0].sum() / whole).backward()  # type: ignore[no-untyped-call]
                    sums += torch.stack([part.detach().sum() for part in parts])
                return sums
            except torch.OutOfMemoryError:
                pass  # As long as the error is handled, it holds the tensors.
            self.optimizer.zero_grad(set_to_none=True)
            self.micro = halved(self.micro)
            self.note(f"out of memory: went on with {self.micro} tiles at once, the batch being the same")

    def _set_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a hundredth, or a constant."""
        o, steps = self.options, self.options.epochs * self.steps_an_epoch
        rise = max(o.warmup * steps, 1)
        fall = 1.0 if o.constant else 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
        rate = self.suits.learning_rate * fall * min(1.0, (step + 1) / rise)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    # Moving average ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None:
            for name, value in learned_state(self.model.module).items():
                self.average[name].lerp_(value, 1 - self.options.ema)

    def _averaged(self) -> _Swapped:
        """While this lasts the model has the averaged weights, if there are any."""
        return _Swapped(self.model.module, self.average)

    # What is written --------------------------------------------------------------------------------------------------

    def _score(self, numbers: Sequence[int], progress: StageProgress) -> dict[str, float]:
        rows = score(
            self.model, self.store, numbers, self.ranks, progress=lambda done, total: progress("scored", done, total)
        )
        return rows or {"auto": 0.0, "oracle": 0.0}

    def _save(self, name: str, rows: dict[str, float]) -> None:
        if self.ranks.rank > 0:
            return
        notes = {
            "base": self.base, "base_sha256": self.base_sha256, "threshold": self.model.threshold,
            "understands": sorted(self.model.understands), "plain": bool(getattr(self.model, "plain", False)),
            "chooses": self.chose and TUNED_CHOOSES,
            "options": self.options.model_dump(mode="json"),
            "data": {"signature": self.data.signature, "what": self.data.describe()},
            "epoch": self.epoch, "validation": rows, "validation_of_base": self.before,
        }  # fmt: skip
        save_tuned(self.out / name, merged(self.model.module, learned_state(self.model.module)), notes)

    def _log(self, row: dict[str, Any]) -> None:
        if self.ranks.rank == 0:
            row = {"epoch": self.epoch, **row}
            with written(self.out / "log.jsonl"), (self.out / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            self.also_log(row)

    def _cut_log(self) -> None:
        """Take out what a run that was killed wrote after the state that is gone on from."""
        path = self.out / "log.jsonl"
        if self.ranks.rank == 0 and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if self.before else []
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= self.epoch]
            path.write_text("".join(kept), encoding="utf-8")
            for line in kept:
                self.also_log(json.loads(line))

    def _keep_state(self) -> None:
        if self.ranks.rank == 0:
            kept = {name: getattr(self, name) for name in _STATE}
            weights = learned_state(self.model.module)
            state = {
                **kept,
                "signature": self._signature(),
                "weights": weights,
                "optimizer": self.optimizer.state_dict(),
            }
            save_state(self.out / "state.pt", state)
        self.ranks.wait()

    def _signature(self) -> str:
        """What must be the same for a run to go on."""
        return json.dumps([self.data.signature, self.base_sha256, self.options.model_dump(mode="json")])

    def _differs(self, signature: str) -> str:
        """What another run had that this one has not."""
        (data, base, before), (mine, own, now) = json.loads(signature), json.loads(self._signature())
        told = [f"{name} {before.get(name)}, not {value}" for name, value in now.items() if before.get(name) != value]
        told += ["other data"] * (data != mine) + ["another base model"] * (base != own)
        return "; ".join(told)

    def _resume(self) -> None:
        state = load_state(self.out / "state.pt")
        if state["signature"] != self._signature():
            raise RunError(
                f"{self.out} is of a run with {self._differs(state['signature'])}, so it cannot go on. "
                "Give the same as before, or another --out."
            )
        self.model.module.load_state_dict(state["weights"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        for name in _STATE:
            setattr(self, name, state[name])

    def _finish(self, tuned: Tuned, progress: StageProgress) -> None:
        """Scores on the test split, which chose nothing, and the contact sheet."""
        test, shown = self.store.of_split("test"), spread(self.checked)
        with _Swapped(self.model.module, self.untouched):
            self._choose(True)
            tuned.test_before = self._score(test, progress) if test else {}
            before = masks(self.model, self.store, shown)["auto"]
        with _Swapped(self.model.module, self.best_weights):
            self._choose(False)
            tuned.test_after = self._score(test, progress) if test else {}
            after = masks(self.model, self.store, shown)["auto"]
        if self.ranks.rank == 0:
            with written(self.out / "validation.png"):
                write_sheet(self.out / "validation.png", self.data, self.store, shown, before, after)


class _Swapped:
    """Other weights for a while."""

    def __init__(self, module: nn.Module, weights: dict[str, Tensor] | None) -> None:
        self.module, self.weights = module, weights

    def __enter__(self) -> None:
        if self.weights is not None:
            self.own = deepcopy(learned_state(self.module))
            self.module.load_state_dict(self.weights, strict=False)

    def __exit__(self, *_: object) -> None:
        if self.weights is not None:
            self.module.load_state_dict(self.own, strict=False)
