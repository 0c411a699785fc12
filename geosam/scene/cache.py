"""GDAL's block cache, bounded: it belongs to the whole process, and hardly a block here is wanted twice."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import rasterio

from geosam.scene.header import Header

CACHE_BYTES = 128 * 2**20
"""Three rows of 512 px blocks of four bytes a pixel, 20,000 px wide: what windows with a halo come back to.

GDAL's default, 5 % of the machine, grows with the machine and fills up with what is written, too: a
mask of 50,000 px a side would lie in memory to a half.
"""
ONCE_BYTES = 32 * 2**20
"""Where every block is read or written once, and whole."""
MOST_BYTES = 256 * 2**20
"""For files whose single blocks are huge."""
_BLOCKS_AT_ONCE = 4
"""Blocks that must fit: readers side by side, each in the middle of one, would else throw out each other's."""


@contextmanager
def bounded_cache(size: int) -> Iterator[None]:
    """GDAL with a cache of ``size`` bytes, for a whole stage with all its threads.

    rasterio puts the limit back that it found. Were it set for each read alone, it would be off between
    reads, and threads that come and go at once would leave each other's limits behind.
    """
    with rasterio.Env(**cache_option(size)):
        yield


def cache_bytes(header: Header) -> int:
    """Bytes of cache for windows of a raster."""
    block = math.prod(header.block) * header.count * np.dtype(header.dtype).itemsize
    return min(max(CACHE_BYTES, _BLOCKS_AT_ONCE * block), MOST_BYTES)


def cache_option(size: int) -> dict[str, Any]:
    """GDAL's option for the size of the cache; none where the user has set it."""
    return {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": size}
