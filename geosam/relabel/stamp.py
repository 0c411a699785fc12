"""What tells a scene from one that was changed since, and where a queue finds it again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

PIECES, PIECE = 64, 1 << 16
"""So many pieces of so many bytes, spread over a file, are looked at: a terabyte costs no more than a photograph."""


def fingerprint(source: str) -> str:
    """sha256 in hex of a file's size and of pieces spread over it; empty for what is no file on this machine."""
    path = Path(source)
    if not path.is_file():
        return ""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for piece in range(PIECES):
            file.seek(max(size - PIECE, 0) * piece // (PIECES - 1))
            digest.update(file.read(PIECE))
    return digest.hexdigest()


def relative(source: str, queue: Path) -> str:
    """Path of a scene seen from the folder of the queue, so that both may move together; URLs stay as they are."""
    path = Path(source)
    return os.path.relpath(path.resolve(), queue.resolve().parent) if path.is_file() else source


def found(source: str, queue: Path) -> str | None:
    """Where a scene is now; None: it is gone."""
    if "://" in source or source.startswith("/vsi"):
        return source
    path = queue.resolve().parent / source
    return str(path) if path.is_file() else None
