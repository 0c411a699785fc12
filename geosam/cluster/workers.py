"""The workers of a dask scheduler, as a run asks them."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from distributed import Client

from geosam import predict
from geosam.cluster.blocks import Block, BlockDone, SceneWork, compute, cut, send_coarse, strip_name
from geosam.cluster.blocks import anywhere as scene_anywhere
from geosam.cluster.card import ModelCard
from geosam.cluster.farm import Farm
from geosam.cluster.parcel import Fault
from geosam.cluster.storage import Sign, Storage
from geosam.cluster.tasks import SceneTask, anywhere, card, options_anywhere, run_task
from geosam.errors import GeosamError, RunError
from geosam.models import PromptableModel
from geosam.mosaic import Mosaic
from geosam.mosaic.store import is_whole
from geosam.options import ModelOptions, SegmentOptions
from geosam.pipeline import Progress, Rivers
from geosam.pipeline.lock import Owner, locked
from geosam.pipeline.machines import SceneJob
from geosam.pipeline.many import one_after_another
from geosam.pipeline.outputs import Outputs, work_path
from geosam.scene import Scene
from geosam.tiling import TilePlan

_HANDS = 8
"""Workers that blocks are cut for, at least, where more may come: from a batch system they come one by one."""
_SETTLE_S = (0.0, 1.0, 3.0, 10.0)
"""Waits before a strip that a worker has written is taken to be missing: shared disks show it a moment later."""
_MAIL = ".mail"


@dataclass
class Workers:
    """Machines for :func:`geosam.segment`: the workers of a dask scheduler.

    One model a worker, one task at a time in each. Where workers declare the resource ``GPU``, only those are asked.
    """

    client: Client
    storage: str | None = None
    """fsspec URL over which strips and coarse mask go; None: workers see the folder of the output itself."""
    tell: Callable[[str], None] = print
    """Given a line for every worker that goes or cannot do its work."""
    grows: bool = True
    """Whether more workers may come."""
    owner: Owner = field(default_factory=Owner.new)
    """The run, for its locks."""

    def __post_init__(self) -> None:
        self._farm = Farm(self.client, self.tell)

    def model(self, options: ModelOptions) -> PromptableModel:
        """The model of the first worker that answers; all others have to have the same.

        Raises:
            ModelError: It cannot be loaded there.
            RunError: The scheduler is gone.
        """
        self._meet(options)
        found: list[ModelCard | GeosamError] = list(self._all(card, [_named(options)], "model"))
        if isinstance(found[0], GeosamError):
            raise found[0]
        return found[0].as_model()

    def _meet(self, options: ModelOptions) -> None:
        """Wait for the first worker, and see whether there are GPUs to ask for."""
        there = self._farm.wait()
        self._farm.gpu = options.device != "cpu" and any("GPU" in worker["resources"] for worker in there.values())

    def run(
        self, scene: Scene, coarse: predict.CoarseSource, plan: TilePlan, model: PromptableModel,
        options: SegmentOptions, mosaic: Mosaic, *, progress: predict.Progress | None = None, **how: Any,
    ) -> predict.TileReport:  # fmt: skip
        """What :func:`geosam.predict.run` does, by blocks on the workers.

        Raises:
            GeosamError: A block failed on several workers; finished strips stay for ``--resume``.
        """
        mail = None if self.storage is None else _mail(Storage(self.storage), mosaic)
        folder = mosaic.store.folder.absolute()
        sign = Sign(mail or Storage(str(folder)), self.owner.run)
        wide = options.model_copy(update={"model": _named(options.model)})
        work = SceneWork(
            scene_anywhere(scene), send_coarse(coarse, mail), plan, wide, how, _card(model), folder, mail, sign
        )
        self._meet(options.model)
        with _wanted(sign), _emptied(mail, mosaic):
            blocks = list(self._blocks(work, mosaic, progress))
        # Every strip is there, so this only counts.
        report = predict.run(scene, coarse, plan, model, options, mosaic, **how)
        seconds = {stage: sum(done.seconds.get(stage, 0.0) for done in blocks) for stage in report.seconds}
        limit = min([report.batch_size, *(done.batch_size for done in blocks)])
        return replace(report, seconds={stage: round(spent, 3) for stage, spent in seconds.items()}, batch_size=limit)

    def _blocks(self, work: SceneWork, mosaic: Mosaic, progress: predict.Progress | None) -> Iterator[BlockDone]:
        """Blocks as they are done, until the mosaic is finished."""
        missing = mosaic.store.missing()
        if work.mail is not None:
            missing = _fetch(work.mail, mosaic, missing)
        hands = len(self._farm.workers())
        blocks = [Block(work, strips) for strips in cut(missing, max(1, hands, _HANDS if self.grows else 0))]
        left = len(missing)
        for done in self._all(compute, blocks, "block"):
            if work.mail is not None:
                _fetch(work.mail, mosaic, done.strips)
            left -= len(done.strips)
            if progress is not None:
                progress((len(work.plan.tops) - left) * len(work.plan.lefts), len(work.plan))
            yield done
        _settle(mosaic)

    def _all(self, work: Callable[[Any, int], Any], jobs: Sequence[Any], label: str) -> Iterator[Any]:
        """Results as they come in; the first fault ends it.

        Raises:
            GeosamError: A task failed wherever it was tried.
        """
        for _, outcome in self._farm.each(work, jobs, label):
            if isinstance(outcome, Fault):
                raise outcome.error
            yield outcome

    def scenes(
        self, jobs: Sequence[SceneJob], options: SegmentOptions, progress: Progress | None = None
    ) -> Iterator[Rivers | GeosamError]:
        """Scenes side by side, one a worker, where there are enough of them; else one after another by blocks.

        Results are in the order of the jobs.
        """
        if len(jobs) < max(2, len(self._farm.wait())):
            return one_after_another(self, jobs, options, progress)
        return self._side_by_side(jobs, options, progress)

    def _side_by_side(
        self, jobs: Sequence[SceneJob], options: SegmentOptions, progress: Progress | None
    ) -> Iterator[Rivers | GeosamError]:
        model, placed = _card(self.model(options.model)), options_anywhere(options)
        sign = Sign(Storage(str(jobs[0].out.parent.absolute())), self.owner.run, f".geosam-{self.owner.run}")
        outcomes: dict[int, Rivers | GeosamError] = {}
        tasks, places = [], []
        for place, job in enumerate(jobs):
            try:
                free = self._freed(anywhere(job))
            except GeosamError as error:
                outcomes[place] = error
                continue
            tasks.append(SceneTask(free, placed, model, self.owner, sign, os.path.exists(free.source)))
            places.append(place)
        with _wanted(sign):
            results = self._farm.each(run_task, tasks, "scene")
            done = len(outcomes)
            if progress is not None:  # Before the first one ends, which may take hours.
                progress("scenes", done, len(jobs))
            for place in range(len(jobs)):
                while place not in outcomes:
                    index, outcome = next(results)
                    outcomes[places[index]] = outcome.error if isinstance(outcome, Fault) else outcome
                    done += 1
                    if progress is not None:
                        progress("scenes", done, len(jobs))
                yield outcomes.pop(place)

    def _freed(self, job: SceneJob) -> SceneJob:
        """The job as any worker may begin it or go on with it: checks that only a first one can make are made here.

        Raises:
            GeosamError: An output is there already, or another run is at work on it.
        """
        Outputs(job.out, job.probability, job.mask, job.report).check(job.overwrite)
        with locked(job.out, self.owner):
            if not job.resume:
                shutil.rmtree(work_path(job.out), ignore_errors=True)
        return replace(job, overwrite=True, resume=True)


def _named(options: ModelOptions) -> ModelOptions:
    return options_anywhere(SegmentOptions(model=options)).model


def _card(model: PromptableModel) -> ModelCard:
    return model if isinstance(model, ModelCard) else ModelCard.of(model)


@contextmanager
def _wanted(sign: Sign) -> Iterator[None]:
    """Workers go on only in here."""
    try:
        sign.set()  # Inside: a full disk leaves an empty sign behind.
        yield
    finally:
        sign.clear()


def _mail(storage: Storage, mosaic: Mosaic) -> Storage:
    """The run's own folder on the storage, the same when it is resumed."""
    note = mosaic.store.folder / _MAIL
    if not note.exists():
        note.write_text(f"geosam-{secrets.token_hex(8)}", encoding="utf-8")
    return storage.below(note.read_text(encoding="utf-8"))


@contextmanager
def _emptied(mail: Storage | None, mosaic: Mosaic) -> Iterator[None]:
    """At the end, however it comes, the strips are here and nothing is left on the storage."""
    try:
        yield
    finally:
        if mail is not None:
            _fetch(mail, mosaic, mosaic.store.missing())  # Without room here they stay there, for --resume.
            mail.remove()


def _fetch(mail: Storage, mosaic: Mosaic, strips: Sequence[int]) -> list[int]:
    """Bring strips from the storage to the mosaic; returns those that are not there."""
    missing = []
    for row in strips:
        data = mail.get(strip_name(row))
        if data is not None and is_whole(data):
            mosaic.store.put(row, data)
        else:
            missing.append(row)
    return missing


def _settle(mosaic: Mosaic) -> None:
    """Wait until the strips that workers have written can be seen.

    Raises:
        RunError: Some cannot.
    """
    for pause in _SETTLE_S:
        time.sleep(pause)
        mosaic.refresh()
        if mosaic.finished:
            return
    gone = mosaic.store.missing()
    raise RunError(
        f"{len(gone)} strips that workers have written are not in {mosaic.store.folder}. "
        "Look whether its disk is shared and whole, and run again with --resume."
    )
