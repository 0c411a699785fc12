"""What machines share: a folder by path or by fsspec URL, and the sign that a run still wants its results."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geosam.errors import OutputError, RunError
from geosam.mosaic.store import is_full

_SIGN_S = 5.0
"""Seconds between two looks at the sign: the longest that a worker computes for nobody."""


@dataclass(frozen=True)
class Storage:
    """A folder that every machine sees under one address."""

    url: str
    """A path, or a URL that fsspec opens: s3://bucket/folder, sftp://host/folder, ..."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file.

        Raises:
            OutputError: The storage cannot be written.
        """
        try:
            system, root = _opened(self.url)
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{name}", data)
        except Exception as error:  # Every kind of storage raises its own.
            raise OutputError(_trouble(self.url, "written", error)) from None

    def get(self, name: str) -> bytes | None:
        """Read a file; None where there is none.

        Raises:
            OutputError: The storage cannot be read.
        """
        try:
            system, root = _opened(self.url)
            return bytes(system.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(_trouble(self.url, "read", error)) from None

    def remove(self, name: str = "") -> None:
        """Remove a file, or the whole folder; what cannot be removed stays."""
        try:
            system, root = _opened(self.url)
            system.rm(f"{root}/{name}".rstrip("/"), recursive=not name)
        except Exception:
            return

    def below(self, name: str) -> Storage:
        """A folder in the folder."""
        return Storage(f"{self.url.rstrip('/')}/{name}")


@dataclass(frozen=True)
class Sign:
    """A file that is there as long as a run wants its results, so that no worker goes on for a run that ended."""

    storage: Storage
    run: str
    """Name of the run."""
    name: str = ".wanted"
    """Of the file."""

    def set(self) -> None:
        """Begin to want results; an earlier run's results are then wanted no longer."""
        self.storage.put(self.name, self.run.encode())

    def clear(self) -> None:
        """Want them no longer."""
        self.storage.remove(self.name)

    def check(self) -> None:
        """Raise unless the results are wanted.

        Raises:
            RunError: The run has ended, or this machine does not see its storage.
        """
        if self.storage.get(self.name) != self.run.encode():
            raise RunError(
                f"{self.storage.url} as seen from {socket.gethostname()} is not that of the run. "
                "Put --out on storage that all machines share under one path, or give --storage a URL."
            )


class Watch:
    """Looks at a sign now and then; called with tiles done and tiles in all, as progress is."""

    def __init__(self, sign: Sign) -> None:
        self._sign, self._last = sign, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Raise where the run has ended."""
        if time.monotonic() - self._last > _SIGN_S:
            self._sign.check()
            self._last = time.monotonic()


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    # What another machine wrote a moment ago has to be seen.
    system, root = fsspec.url_to_fs(url, use_listings_cache=False)
    return system, str(root).rstrip("/")


def absolute(path: str) -> str:
    """A path as it is from any working folder; a URL, GDAL name, or what is no path here stays as it is."""
    # Links stay: what a home folder is a link to may differ from machine to machine.
    return str(Path(path).expanduser().absolute()) if os.path.exists(os.path.expanduser(path)) else path


def _trouble(url: str, done: str, error: Exception) -> str:
    if isinstance(error, OSError) and is_full(error):
        return f"{url} is full, as {socket.gethostname()} sees it. Make room there, then run again with --resume."
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{url} cannot be {done} from {socket.gethostname()} ({reason}). Check --storage, and the room there."
