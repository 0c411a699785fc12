"""One run at a time on one output: a file beside it that says who is at work."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from geosam.errors import OutputError
from geosam.mosaic.store import disk_faults


@dataclass(frozen=True)
class Owner:
    """A run, by the process that was started for it; what other machines do for it they do in its name."""

    host: str
    pid: int
    started: str | None
    """When the process began, as its kernel counts; None where that is not told. Process numbers are used again."""
    run: str
    """Tells two runs of one process apart."""

    @classmethod
    def new(cls) -> Owner:
        """A run of this process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), secrets.token_hex(8))

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is gone; of other machines that cannot be told."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return self.started != _started(self.pid)


@contextmanager
def locked(output: Path, owner: Owner) -> Iterator[None]:
    """Keep other runs off an output, on this machine and on others that share its folder.

    What a killed process of this machine left is put aside without a word, and so is what the same run left.

    Args:
        output: File that the run will write; the lock is a hidden file beside it.
        owner: The run.

    Raises:
        OutputError: Another run is at work, or may be, or the folder cannot be written.
    """
    path = output.with_name(f".{output.name}.lock")
    with disk_faults(path):
        while not _made(path, owner):
            _put_aside(path, output, owner)
    try:
        yield
    finally:
        if _read(path) == owner:
            path.unlink(missing_ok=True)


def _made(path: Path, owner: Owner) -> bool:
    """Make the lock, if there is none: the one step that only one of two runs can do."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            json.dump(asdict(owner), file)
    except BaseException:  # On a full disk an empty lock would keep the next run off, too.
        path.unlink(missing_ok=True)
        raise
    return True


def _put_aside(path: Path, output: Path, owner: Owner) -> None:
    """Remove a lock that nobody holds.

    Raises:
        OutputError: Somebody does, or may.
    """
    found = _read(path)
    if found is not None and (found.run == owner.run or found.is_dead):
        path.unlink(missing_ok=True)
    elif path.exists():
        who = "an unknown process" if found is None else f"process {found.pid} on {found.host}"
        raise OutputError(
            f"another run is at work on {output} ({who}). "
            f"Wait for it or choose another --out; if it is gone for certain, remove {path}."
        )


def _read(path: Path) -> Owner | None:
    """Who holds a lock; None where there is none, or it does not say."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _started(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
