"""Bands that lie in several files as one source of pixels, named by one line of text that any machine can be sent.

A VRT would do the same, but GDAL 3.10 gives arbitrary values without an error where a file of a VRT cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from affine import Affine

from geosam.errors import SceneError
from geosam.scene.files import FileReader
from geosam.scene.header import Box, Header, Mask, Pixels

PREFIX = "stack:"
_SLACK_PX = 1.0
"""Pixels of the coarser file by which its edge may fall short of the grid's."""


@dataclass(frozen=True)
class BandSource:
    """One band of an image, somewhere in its files."""

    role: str
    """red, green, blue, nir, ..."""
    href: str
    """Path, URL or GDAL name of its raster."""
    band: int
    """1-based band in that raster."""
    scale: float | None = None
    """From stored to true values, where the file does not say; None: 1."""
    offset: float | None = None
    """As scale; None: 0."""


def stack_text(title: str, bands: Sequence[BandSource]) -> str:
    """The bands as text that :meth:`Scene.open` takes for a source."""
    return PREFIX + json.dumps({"title": title, "bands": [asdict(band) for band in bands]})


def stack_title(source: str) -> str:
    """A source as messages name it: the title of a stack, any other as it is."""
    return str(json.loads(source.removeprefix(PREFIX))["title"]) if source.startswith(PREFIX) else source


@dataclass(frozen=True)
class StackReader:
    """Reads bands from several files onto the grid of the finest; holds no handle itself, so it pickles."""

    header: Header
    files: tuple[FileReader, ...]
    """The file of each band."""
    bands: tuple[int, ...]
    """1-based band of each in its file."""

    @classmethod
    def open(cls, text: str) -> StackReader:
        """Read the headers.

        Args:
            text: From :func:`stack_text`.

        Raises:
            SceneError: A file cannot be opened, lacks the band, or lies on another grid.
        """
        stack = json.loads(text.removeprefix(PREFIX))
        sources = [BandSource(**band) for band in stack["bands"]]
        opened = {href: FileReader.open(href) for href in dict.fromkeys(source.href for source in sources)}
        files = tuple(opened[source.href] for source in sources)
        alike = [file.header for file in files if file.header.crs == files[0].header.crs]
        grid = min(alike, key=lambda header: abs(header.transform.determinant))
        for source, file in zip(sources, files, strict=True):
            _check(source, file.header, grid)
        return cls(_header(stack["title"], sources, files, grid), files, tuple(source.band for source in sources))

    def read(self, bands: Sequence[int], box: Box, level: int = 0) -> Pixels:
        """Raw values, shape (bands, h, w); of a coarser file the pixel that each centre lies in.

        Raises:
            RunError: A file could not be read there.
        """
        planes: dict[int, Pixels] = {}
        for href in dict.fromkeys(self.files[band - 1].source for band in bands):
            here = [band for band in bands if self.files[band - 1].source == href]
            found = self._from_file(self.files[here[0] - 1], [self.bands[band - 1] for band in here], box, level)
            planes.update(zip(here, found, strict=True))
        return np.stack([planes[band] for band in bands]).astype(self.header.dtype, copy=False)

    def read_mask(self, box: Box, level: int = 0) -> Mask:
        """Where every file that has a mask has data."""
        valid = np.ones((box.height, box.width), bool)
        for file in dict.fromkeys(self.files):
            if file.header.gdal_mask:
                at, inside, rows, cols = self._where(file.header, box, level)
                valid &= file.read_mask(inside, at)[np.ix_(rows, cols)]
        return valid

    def _from_file(self, file: FileReader, bands: Sequence[int], box: Box, level: int) -> Pixels:
        at, inside, rows, cols = self._where(file.header, box, level)
        found = file.read(bands, inside, at)
        same = found.shape[1:] == (box.height, box.width) and np.array_equal(rows, np.arange(box.height))
        if same and np.array_equal(cols, np.arange(box.width)):
            return found
        return np.asarray(found[:, rows[:, None], cols])

    def _where(self, file: Header, box: Box, level: int) -> tuple[int, Box, Any, Any]:
        """Level and window of a file that hold a window of the stack, and for its rows and columns those in it."""
        wanted = self.header.levels[level]
        fits = [at for at, shape in enumerate(file.levels) if at == 0 or _not_coarser(file, at, self.header, wanted)]
        at = max(fits, key=lambda one: -file.levels[one][0] * file.levels[one][1])
        onto = _onto(file, self.header.transform)
        rows = _indices(box.row, box.height, wanted[0], self.header.shape[0], onto.e, onto.f, file, at, 0)
        cols = _indices(box.col, box.width, wanted[1], self.header.shape[1], onto.a, onto.c, file, at, 1)
        inside = Box(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
        return at, inside, rows - rows[0], cols - cols[0]


def _onto(file: Header, grid: Affine) -> Affine:
    """From pixels of the grid to pixels of a file."""
    onto: Affine = ~file.transform @ grid
    return onto


def _not_coarser(file: Header, at: int, stack: Header, wanted: tuple[int, int]) -> bool:
    """Whether pixels of a level of a file are no larger on the ground than those that are asked for."""
    coarseness = abs(_onto(file, stack.transform).determinant) ** 0.5
    factor = (file.shape[0] / file.levels[at][0]) / coarseness
    return bool(factor <= stack.shape[0] / wanted[0] * 1.01)


def _indices(
    first: int, count: int, level_side: int, side: int, step: float, shift: float, file: Header, at: int, axis: int
) -> Any:
    """For pixels of a level of the stack, along one axis, the pixels of a level of a file their centres lie in."""
    centres = (np.arange(first, first + count) + 0.5) * side / level_side
    in_file = (centres * step + shift) * file.levels[at][axis] / file.shape[axis]
    return np.clip(np.floor(in_file + 1e-6).astype(int), 0, file.levels[at][axis] - 1)


def _check(source: BandSource, file: Header, grid: Header) -> None:
    if not 1 <= source.band <= file.count:
        raise SceneError(f"{source.href} has no band {source.band} for {source.role}. Check the bands of the item.")
    onto = _onto(file, grid.transform)
    turned = max(abs(onto.b), abs(onto.d)) > 1e-6 or min(onto.a, onto.e) <= 0
    ends = onto @ (0.0, 0.0), onto @ (float(grid.shape[1]), float(grid.shape[0]))
    corners = (ends[0][0], ends[0][1], ends[1][0] - file.shape[1], ends[1][1] - file.shape[0])
    if file.crs != grid.crs or turned or max(map(abs, corners)) > _SLACK_PX:
        raise SceneError(
            f"{source.href} ({source.role}) differs in grid from the other bands: CRS, direction or extent. "
            "Warp them onto one grid first, for example with rio warp --like."
        )


def _header(title: str, sources: Sequence[BandSource], files: Sequence[FileReader], grid: Header) -> Header:
    pairs = [(source, file.header, source.band - 1) for source, file in zip(sources, files, strict=True)]
    return Header(
        shape=grid.shape,
        count=len(sources),
        dtype=str(np.result_type(*(file.dtype for _, file, _ in pairs))),
        crs=grid.crs,
        transform=grid.transform,
        nodata=tuple(file.nodata[at] for _, file, at in pairs),
        scales=tuple(file.scales[at] if file.scales[at] != 1 else source.scale or 1.0 for source, file, at in pairs),
        offsets=tuple(file.offsets[at] or source.offset or 0.0 for source, file, at in pairs),
        names=tuple(source.role for source in sources),
        wavelengths=(None,) * len(sources),
        colors=("undefined",) * len(sources),
        hint=title.lower(),
        block=grid.block,
        levels=grid.levels,
        gdal_mask=any(file.gdal_mask for _, file, _ in pairs),
    )
