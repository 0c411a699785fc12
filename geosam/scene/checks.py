"""What makes a raster unusable, found on opening and not an hour later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice, product

import numpy as np

from geosam.errors import RunError, SceneError
from geosam.scene.files import FileReader, is_local, is_remote, tiff_block_end
from geosam.scene.header import Box, Header, Reader
from geosam.scene.stack import StackReader

BLOCKS_LOOKED_UP = 20_000
"""Block offsets compared with the size of a TIFF; a larger one is looked up at even steps."""
BIG_BLOCK_BYTES = 128 * 2**20
"""A file that decodes more than this for one pixel is slow to read by windows."""


def check_header(header: Header, source: str, allow_no_crs: bool) -> None:
    """Refuse what no pixel can mend.

    Raises:
        SceneError: No pixels, complex numbers, 1 x 1 px, or no CRS.
    """
    if header.count == 0 or 0 in header.shape:
        size = f"{header.count} bands of {header.shape[1]} x {header.shape[0]} px"
        raise SceneError(f"{source} has {size}: no pixels. Give a raster with at least red, green and blue.")
    if np.dtype(header.dtype).kind not in "uif":
        raise SceneError(f"{source} holds {header.dtype} values. Give real numbers, for example the amplitude.")
    if header.shape == (1, 1):
        raise SceneError(f"{source} is 1 x 1 px: there is nothing to outline. Check that it is the right file.")
    if header.crs is None and not allow_no_crs:
        raise SceneError(
            f"{source} has no CRS or no geotransform. Assign them, for example with gdal_edit.py -a_srs EPSG:32633 "
            "-a_ullr ..., or say --allow-no-crs for pixel coordinates."
        )


def check_whole(reader: Reader, source: str) -> None:
    """Read the first, middle and last block, and see that a TIFF is as long as its own index says.

    Raises:
        SceneError: The file is cut off or damaged.
    """
    if isinstance(reader, StackReader):
        for file in dict.fromkeys(reader.files):
            check_whole(file, file.source)
    if not isinstance(reader, FileReader):
        return
    _check_length(reader, source)
    bands = sorted({1, reader.header.count})
    for box in _probes(reader.header, is_remote(source)):
        try:
            reader.read(bands, box)
        except RunError as error:
            raise SceneError(str(error)) from None


def _check_length(reader: FileReader, source: str) -> None:
    if not is_local(source) or not os.path.isfile(source):
        return
    size = os.path.getsize(source)
    header = reader.header
    blocks = [-(-side // step) for side, step in zip(header.shape, header.block, strict=True)]
    step = max(1, blocks[0] * blocks[1] // BLOCKS_LOOKED_UP)
    places = islice(product(range(blocks[0]), range(blocks[1])), 0, None, step)
    end = max((tiff_block_end(reader, row, col) for row, col in places), default=0)
    if end > size:
        raise SceneError(
            f"{source} is cut off: it is {size} bytes long and its index points to byte {end}. Get it again."
        )


def _probes(header: Header, remote: bool) -> Iterator[Box]:
    (height, width), (rows, cols) = header.shape, header.block
    rows, cols = min(rows, 64), min(cols, 4096)  # one pixel decodes the block; few need to be handed over
    places = ((0, 0), (height - rows, width - cols)) if remote else ((0, 0), (height // 2, width // 2), (height, width))
    for row, col in places:
        yield Box(max(0, min(row, height - rows)), max(0, min(col, width - cols)), min(rows, height), min(cols, width))


def layout_warnings(header: Header, source: str) -> tuple[str, ...]:
    """A word about files whose blocks are so large that every window decodes much of the file."""
    size = header.block[0] * header.block[1] * np.dtype(header.dtype).itemsize
    if size <= BIG_BLOCK_BYTES:
        return ()
    return (
        f"{source} is stored in blocks of {header.block[1]} x {header.block[0]} px, so that every window decodes "
        f"{size // 2**20} MB. Convert it first: gdal_translate -of COG.",
    )
