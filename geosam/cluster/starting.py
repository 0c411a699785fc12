"""How to come by workers: those of a scheduler, or processes of this machine."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.errors import OptionsError

if TYPE_CHECKING:
    from geosam.cluster.workers import Workers

_CONNECT_S = 5.0
"""Seconds that a scheduler may take to answer."""
_START_S = 120.0
"""Seconds that local workers may take to start; a busy disk is slow to give them their modules."""
_ALONE = {
    "threads_per_worker": 1,
    "processes": True,
    "host": "127.0.0.1",
    "dashboard_address": None,
    "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # The health page, which a scheduler always has.
    "memory_limit": 0,  # dask would pause and kill workers by a share of the memory that a model does not keep to.
    "silence_logs": logging.CRITICAL,
}
"""Settings of local workers: one task at a time, nothing that another machine can reach."""

Tell = Callable[[str], None]


@contextmanager
def machines(
    dask: str | None, workers: int | None, storage: str | None = None, *, device: str = "auto", tell: Tell = print
) -> Iterator[Workers | None]:
    """Workers as ``--dask``, ``--workers`` and ``--storage`` say; None where neither of the first two is given.

    Raises:
        OptionsError: They contradict each other, dask is not installed, or no scheduler answers.
    """
    if dask is not None and workers is not None:
        raise OptionsError("--dask and --workers are two ways to say who computes. Give one of them.")
    if dask is not None:
        with connected(dask, storage, tell=tell) as found:
            yield found
    elif workers is not None:
        with local(workers, storage, device=device, tell=tell) as found:
            yield found
    elif storage is not None:
        raise OptionsError("--storage is for workers. Give --dask or --workers with it.")
    else:
        yield None


@contextmanager
def connected(address: str, storage: str | None = None, *, tell: Tell = print) -> Iterator[Workers]:
    """Workers of a scheduler that runs.

    Args:
        address: Such as ``tcp://10.0.0.1:8786``, or the path of a scheduler file.
        storage: fsspec URL that all workers and this process can write; None: workers see the folder of the output.
        tell: Given a line for every worker that goes or cannot do its work.

    Raises:
        OptionsError: No scheduler answers there.
    """
    make = _workers()
    from distributed import Client

    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    with _quiet():
        try:
            if "scheduler_file" in where and not Path(address).is_file():
                raise OSError("there is no such file")
            client = Client(**where, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise OptionsError(_no_answer(address, error)) from None
        with client:
            yield make(client, storage, tell)


@contextmanager
def local(count: int, storage: str | None = None, *, device: str = "auto", tell: Tell = print) -> Iterator[Workers]:
    """Worker processes of this machine, which end with the block whatever ends it.

    They listen on this machine only, without a dashboard. They share its processors, and its GPUs if it has any.
    In a script this has to stand below ``if __name__ == "__main__":``, since workers import the script.

    Args:
        count: Processes; one that dies is started anew.
        storage: As for :func:`connected`.
        device: ``options.model.device``; ``cpu`` leaves the GPUs alone.
        tell: As for :func:`connected`.

    Raises:
        OptionsError: The count is not above 0, or dask is not installed.
    """
    if count < 1:
        raise OptionsError(f"--workers must be at least 1, got {count}.")
    make = _workers()
    import dask
    from distributed import Client, LocalCluster

    gpus = [] if device == "cpu" else _gpus()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(dask.config.set(_environment(count)))
        cluster = stack.enter_context(LocalCluster(n_workers=count, resources={"GPU": 1} if gpus else {}, **_ALONE))
        client = stack.enter_context(Client(cluster, timeout=_START_S, set_as_default=False))
        client.register_worker_callbacks(partial(_place, gpus))
        yield make(client, storage, tell, grows=False)


def _workers() -> type[Workers]:
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise OptionsError(
            "--dask and --workers need dask, which is not installed. Run: pip install 'geosam-rivers[cluster]'"
        ) from None
    from geosam.cluster.workers import Workers

    return Workers


def _environment(count: int) -> dict[str, Any]:
    """Threads of the arithmetic: the processors shared out, unless the user has said how many."""
    share = str(max(1, len(os.sched_getaffinity(0)) // count)) if hasattr(os, "sched_getaffinity") else "1"
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {f"distributed.nanny.pre-spawn-environ.{name}": os.environ.get(name, share) for name in names}


def _gpus() -> list[str]:
    """GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip()]
    return [str(at) for at, _ in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*")))]


def _place(gpus: list[str], dask_worker: Any) -> None:
    """Give a worker its GPU, before torch looks for one, and leave Ctrl-C to this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(dask_worker.name) % len(gpus)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without dask's own log: what a user has to know is told in one line."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]
    levels = {log: log.level for log in map(logging.getLogger, names)}
    for log in levels:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)


def _no_answer(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"no dask scheduler answers at {address} ({reason}). Start one with `dask scheduler`, or check --dask."
