"""What travels between the process that asks and a worker: a task out, a result or a fault back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import cloudpickle
from distributed import Future

from geosam.errors import GeosamError, RunError

Job = TypeVar("Job")
Result = TypeVar("Result")

_one_task = threading.Lock()


@dataclass(frozen=True)
class Fault:
    """Why a task could not be done."""

    worker: str
    """Address; empty where the worker did not live to tell."""
    error: GeosamError


@dataclass(frozen=True)
class Raised:
    """What a task raised, where a result would be."""

    error: GeosamError


def packed(work: Callable[[Job, int], Result], job: Job, tries: int) -> bytes:
    """A task as bytes, for :func:`unpacker`."""
    parcel: bytes = cloudpickle.dumps((attempt, work, job, tries))
    return parcel


def unpacker() -> Callable[[bytes], tuple[str, Any]]:
    """What a worker is really sent: a function that travels whole, and so also runs where geosam cannot be imported.

    A worker that met geosam's names while it read a message, and did not know them, would drop the connection.
    """

    def unpack(parcel: bytes) -> tuple[str, Any]:
        import pickle

        from distributed import get_worker

        address = get_worker().address
        try:
            function, *arguments = pickle.loads(parcel)
        except Exception as error:
            return address, f"{type(error).__name__}: {error}"
        return address, function(*arguments)

    return unpack


def attempt(work: Callable[[Job, int], Result], job: Job, tries: int) -> Result | Raised:
    """Do a task on a worker; one at a time in each, since it has one model and takes the whole machine."""
    with _one_task:
        try:
            return work(job, tries)
        except GeosamError as error:
            return Raised(error)
        except Exception as error:
            return Raised(RunError(f"{type(error).__name__}: {error}"))


def opened(future: Future) -> tuple[str, Any]:
    """Who did a task that ended, and its result or :class:`Fault`.

    Raises:
        RunError: The scheduler is gone.
    """
    if future.status == "error":
        why = future.exception()
        if type(why).__name__ == "KilledWorker":
            error = RunError("its worker died, and so did those that took it over: out of memory, perhaps.")
            return "", Fault("", error)
        return "", Fault("", RunError(f"dask could not run it ({type(why).__name__}: {why})."))
    try:
        address, result = future.result()
    except Exception as error:
        raise lost(error) from None
    if isinstance(result, str):
        refusal = RunError(f"it cannot run geosam ({result}). Give all workers the same geosam as here.")
        return address, Fault(address, refusal)
    return address, Fault(address, result.error) if isinstance(result, Raised) else result


def lost(error: object) -> RunError:
    """What to say where the scheduler is gone."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return RunError(f"the dask scheduler is gone ({reason}). Start it and run again with --resume to go on.")
