"""The work folder of a run: what it depends on, and one file for each finished strip.

Every file is written under another name, synced and renamed, so a killed run leaves whole strips only.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geosam.errors import OutputError

_STATE = "state.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KEPT = 4
"""Strip files kept in memory while reading; a block of the output meets at most three."""


@dataclass
class StripStore:
    """Strips of compressed cells in a folder."""

    folder: Path
    total: int
    done: int = 0
    """Finished strips, counted from the top."""
    _kept: dict[int, tuple[dict[str, Any], list[bytes]]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, signature: Mapping[str, Any], total: int, resume: bool) -> StripStore:
        """Find the finished strips of an earlier run, or start with an empty folder.

        Raises:
            OutputError: The folder cannot be written, or was made with another signature.
        """
        store = cls(folder, total)
        wanted = json.loads(json.dumps(signature, default=str))
        found = _state(folder) if resume else None
        if found is not None:
            _same(folder, found, wanted)
            store.count()
            return store
        store.discard()
        with disk_faults(folder):
            folder.mkdir(parents=False)
            _write(folder / _STATE, json.dumps(wanted, indent=1).encode())
        return store

    def write(self, row: int, cells: list[bytes], record: dict[str, Any]) -> None:
        """Put a finished strip on disk.

        Raises:
            OutputError: The disk is full or the folder is gone.
        """
        self.put(row, pack(cells, record))
        self.done = row + 1

    def put(self, row: int, data: bytes) -> None:
        """Put a strip on disk that was packed already.

        Raises:
            OutputError: The disk is full or the folder is gone.
        """
        with disk_faults(self.folder, (self.bytes_used() + len(data)) * (self.total - row) // (row + 1)):
            _write(self._path(row), data)
        self._kept.pop(row, None)

    def pass_over(self, row: int, record: dict[str, Any]) -> None:
        """Hear of a tile row that ran only for the strips below it."""

    def count(self) -> None:
        """Look on the disk for how many strips from the top are finished."""
        self.done = next((row for row in range(self.total) if not self.is_sound(row)), self.total)

    def missing(self) -> list[int]:
        """Strips that are not on disk, also below finished ones: several machines finish them in any order."""
        return [row for row in range(self.done, self.total) if not self.is_sound(row)]

    def header(self, row: int) -> dict[str, Any]:
        """Header of a finished strip: ``sizes``, ``crc`` and the run's own ``record``."""
        return self._strip(row)[0]

    def cell(self, row: int, col: int) -> bytes:
        """A finished cell, as it was encoded."""
        return self._strip(row)[1][col]

    def bytes_used(self) -> int:
        """Bytes of all strips on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("strip-*"))

    def discard(self) -> None:
        """Remove the folder, if it is a work folder."""
        self._kept.clear()
        if self.folder.is_dir() and ((self.folder / _STATE).exists() or not any(self.folder.iterdir())):
            shutil.rmtree(self.folder)

    def _strip(self, row: int) -> tuple[dict[str, Any], list[bytes]]:
        if row not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[row] = self._load(row)
        return self._kept[row]

    def is_sound(self, row: int) -> bool:
        """True if the strip is on disk, whole and unchanged."""
        try:
            return is_whole(self._path(row).read_bytes())
        except OSError:
            return False

    def _load(self, row: int) -> tuple[dict[str, Any], list[bytes]]:
        return _unpack(self._path(row).read_bytes())

    def _path(self, row: int) -> Path:
        return self.folder / f"strip-{row:05d}"


def pack(cells: list[bytes], record: dict[str, Any]) -> bytes:
    """A strip as it is stored: a line of JSON (``sizes``, ``crc``, ``record``), then the cells."""
    body = b"".join(cells)
    header = {"sizes": [len(cell) for cell in cells], "crc": zlib.crc32(body), "record": record}
    return json.dumps(header).encode() + b"\n" + body


def is_whole(data: bytes | None) -> bool:
    """True if a strip as it is stored is whole and unchanged."""
    try:
        header, cells = _unpack(data or b"")
        return bool(header["crc"] == zlib.crc32(b"".join(cells)))
    except (ValueError, KeyError, TypeError):
        return False


def _unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    line, _, body = data.partition(b"\n")
    header: dict[str, Any] = json.loads(line)
    ends = [sum(header["sizes"][: i + 1]) for i in range(len(header["sizes"]))]
    return header, [body[end - size : end] for end, size in zip(ends, header["sizes"], strict=True)]


@contextmanager
def disk_faults(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full disk and other faults of writing into one line.

    Args:
        path: What is being written.
        needed: Bytes still needed, as far as can be told.

    Raises:
        OutputError: In place of any OSError.
    """
    try:
        yield
    except OutputError:
        raise
    except FileExistsError:
        raise OutputError(
            f"{path} exists and is not a work folder of geosam. Move it or choose another --out."
        ) from None
    except OSError as error:
        if is_full(error):
            raise OutputError(full_message(path, needed, "the disk is full")) from error
        raise OutputError(f"{path} cannot be written: {error.strerror or error}. Check the folder of --out.") from error


def is_full(error: OSError) -> bool:
    """Whether what could not be written had no room: on the disk, in a quota, or as large a file as is allowed."""
    return error.errno in _FULL or "no space" in str(error).lower()


def full_message(path: Path, needed: int | None, fault: str) -> str:
    """One line for a disk that has no room: what is free, what is needed, what to do."""
    try:
        free = f"{shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free"
    except OSError:
        free = "free space unknown"
    need = "" if needed is None else f", at most about {max(needed / 1e6, 1):.0f} MB more are needed"
    return f"{path} cannot be written, {fault}: {free}{need}. Make room, then run again with --resume."


def _state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to mix strips of two different runs."""
    changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if changed:
        raise OutputError(
            f"{folder} was begun with another {', another '.join(changed)}. "
            "Run with the same input and options, or leave out --resume to start again."
        )


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: another name, synced, renamed, and the folder synced."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # Its own: two machines may write one strip.
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
