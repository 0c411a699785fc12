"""Work done side by side by threads, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8
"""Threads where no number is asked for: a fifth of the work holds the interpreter's lock, so more would wait for it."""


class Crew:
    """Threads that share the work of one raster; see :func:`crew`.

    Threads, not processes: numpy, PROJ and GEOS let go of the interpreter's lock in their loops, nothing is
    copied from one memory to another, and a caller's script needs no guard round its main part.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, threads: int) -> None:
        self._pool = pool
        self.threads = threads

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, taken from ``items`` only as fast as results are taken.

        Args:
            work: Called in any thread; must not wait for other work of this crew.
            items: Iterated over in the caller's thread.

        Yields:
            ``work(item)`` of each item.
        """
        if self._pool is None:
            yield from map(work, items)
            return
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(self._pool.submit(work, item))
                if len(ahead) > 2 * self.threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def crew(threads: int | None = None) -> Iterator[Crew]:
    """A crew of so many threads; 1: the caller's own; None: one a processor, up to :data:`MOST_THREADS`.

    Raises:
        ValueError: ``threads`` is below 1.
    """
    if threads is None:
        threads = min(processors(), MOST_THREADS)
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")
    if threads == 1:
        yield Crew(None, 1)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="geosam-vector") as pool:
        yield Crew(pool, threads)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
