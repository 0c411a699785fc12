"""Tasks on workers, and what becomes of a task whose worker fails."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from distributed import Client, Future

from geosam.cluster.parcel import Fault, Job, Result, lost, opened, packed, unpacker

MOST_TRIES = 3
"""Times that a task may raise on workers that have done others."""
_LOOK_S = 2.0
"""Seconds between two looks at who is there."""
_WAIT_S = 10.0
"""Seconds without a worker before that is told."""


@dataclass
class Farm:
    """The workers of a client, as long as one run uses them."""

    client: Client
    tell: Callable[[str], None]
    gpu: bool = False
    """Whether tasks ask for the resource ``GPU``."""
    there: set[str] = field(default_factory=set)
    """Workers at the last look."""
    proven: set[str] = field(default_factory=set)
    """Workers that have done a task."""
    shunned: set[str] = field(default_factory=set)
    """Workers on which a task raised: no task is tried again there, as long as there are others."""
    _looked: float = 0.0
    _lonely_since: float | None = None

    def workers(self) -> dict[str, Any]:
        """Workers that can take tasks, by address.

        Raises:
            RunError: The scheduler is gone.
        """
        try:
            # Not client.scheduler_info(): the client looks there by itself every other second, for no worker at all,
            # and where that answer comes in between, everybody seems to be gone.
            found = self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"]
        except Exception as error:
            raise lost(error) from None
        able = {address: worker for address, worker in found.items() if worker["resources"].get("GPU", 0) >= self.gpu}
        self._compare(set(able))
        return able

    def wait(self) -> dict[str, Any]:
        """Workers, as soon as there is one."""
        while not (found := self.workers()):
            time.sleep(_LOOK_S / 10)
        return found

    def each(
        self, work: Callable[[Job, int], Result], jobs: Sequence[Job], label: str
    ) -> Iterator[tuple[int, Result | Fault]]:
        """Results of ``work(job, tries)`` with the place of each job, as they come in.

        A worker that dies costs the tasks it had, which are done elsewhere. A task that raises is tried on other
        workers; where none is left, or :data:`MOST_TRIES` had nothing to do with the worker, its fault is the
        result. What is still under way when the caller stops is cancelled.

        Raises:
            RunError: The scheduler is gone.
        """
        tasks = _Tasks(self, work, label)
        try:
            for index, job in enumerate(jobs):
                tasks.begin(_Try(index, job))
            while tasks.under_way:
                self._look(tasks)
                for one, worker, outcome in tasks.ended():
                    if not isinstance(outcome, Fault):
                        self.proven.add(worker)
                        yield one.index, outcome
                    elif (again := self._again(one, outcome)) is not None:
                        tasks.begin(again)
                    else:
                        yield one.index, outcome
        finally:
            tasks.cancel()

    def _again(self, one: _Try[Job], fault: Fault) -> _Try[Job] | None:
        """How to try once more; None: not any more.

        A worker that has done nothing yet may be at fault itself, and would, being always free, eat up every try
        of every task; so only faults of proven workers count, until there is nobody else to ask.
        """
        if not fault.worker:
            return None
        is_news = fault.worker not in self.shunned
        self.shunned.add(fault.worker)
        tries, counted = one.tries + 1, one.counted + (fault.worker in self.proven)
        others = frozenset(self.there - self.shunned)
        if counted >= MOST_TRIES or tries >= MOST_TRIES + (len(self.shunned) if others else 0):
            return None
        if is_news and others:  # Where there are none, the fault itself ends the run, and is told once.
            self.tell(f"worker {fault.worker} cannot go on, and its work goes to others: {fault.error}")
        return replace(one, tries=tries, counted=counted, where=others)

    def _look(self, tasks: _Tasks[Any, Any]) -> None:
        """Notice workers that came or went; now and then, since it asks the scheduler."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self.workers()
        tasks.set_free(self.there)
        self._looked = time.monotonic()

    def _compare(self, there: set[str]) -> None:
        for gone in sorted(self.there - there):
            self.tell(f"worker {gone} is gone; what it had not finished goes to others.")
        self.there = there
        if there:
            self._lonely_since = None
            return
        now = time.monotonic()
        if self._lonely_since is None:
            self._lonely_since = now
        elif now - self._lonely_since > _WAIT_S:
            self.tell(f"no worker {'with a GPU ' if self.gpu else ''}at the scheduler: waiting for one; Ctrl-C stops.")
            self._lonely_since = float("inf")


@dataclass(frozen=True)
class _Try(Generic[Job]):
    index: int
    job: Job
    tries: int = 0
    """How often it was tried before."""
    counted: int = 0
    """Tries that count against the job."""
    where: frozenset[str] = frozenset()
    """The only workers that may have it; empty: any."""


class _Tasks(Generic[Job, Result]):
    """Tasks that were sent and have not ended."""

    def __init__(self, farm: Farm, work: Callable[[Job, int], Result], label: str) -> None:
        self.under_way: dict[Future, _Try[Job]] = {}
        self._farm, self._work, self._label = farm, work, label
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def begin(self, one: _Try[Job]) -> None:
        future = self._farm.client.submit(
            unpacker(), packed(self._work, one.job, one.tries),
            key=f"geosam-{self._label}-{one.index}-{one.tries}-{time.monotonic_ns():x}",
            pure=False, resources={"GPU": 1} if self._farm.gpu else None, workers=sorted(one.where) or None,
        )  # fmt: skip
        self.under_way[future] = one
        future.add_done_callback(self._ended.put)

    def ended(self) -> Iterator[tuple[_Try[Job], str, Any]]:
        """A task that ended, who did it, and how; none if none ends for a while."""
        try:
            future = self._ended.get(timeout=_LOOK_S)
        except queue.Empty:
            return
        one = self.under_way.pop(future, None)
        if one is not None:
            yield one, *opened(future)

    def set_free(self, there: set[str]) -> None:
        """Let tasks go anywhere whose workers have all gone."""
        for future, one in list(self.under_way.items()):
            if one.where and not one.where & there:
                del self.under_way[future]
                self._farm.client.cancel([future], force=True)
                self.begin(replace(one, where=frozenset()))

    def cancel(self) -> None:
        """Give up what has not ended."""
        if self.under_way and self._farm.client.status == "running":
            self._farm.client.cancel(list(self.under_way), force=True)
