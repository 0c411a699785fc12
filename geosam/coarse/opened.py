"""Rasters opened without rasterio's warning about those that have no place: with ``--allow-no-crs`` that is known."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning


@contextmanager
def opened(path: Path, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """A rasterio dataset, closed at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path, mode, **profile)
    with dataset:
        yield dataset
