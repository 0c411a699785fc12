"""The first guess on squares of a tile's size, spread over a scene too large to be guessed at in full.

The decimated look that the threshold is fitted to would be cheaper, but a stream of five pixels is gone at a tenth
of the resolution, and its tiles run all the same. Squares begin where the file's own blocks do, so that what they
take to read is, pixel for pixel, what the coarse mask takes, which reads every block once.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.coarse.choose import choose_rule
from geosam.coarse.clean import Limits, resolve_strip
from geosam.coarse.given import open_given
from geosam.coarse.mask import LEAST_HOLE_PX, LEAST_WATER_PX
from geosam.coarse.rules import known_methods
from geosam.coarse.runs import WATER
from geosam.options import CoarseOptions

if TYPE_CHECKING:
    from geosam.scene import Scene

SAMPLE_PX = 48 * 10**6
"""Pixels of the source that are decoded: 183 squares of 512 px. Where one tile in twenty is wet, that is nine of
them, give or take three."""
LEAST_PIECES = 4
"""Pieces read however large the blocks of the file are."""
LONGEST_S = 5.0
"""A file that comes slowly, over a network say, is not asked for more after this, once it gave :data:`FEWEST`."""
FEWEST = 32
"""Pieces that are read however slowly they come."""
_CHUNK_PX = 2**20
"""Pixels classified at once, as by the coarse mask."""
_STEPS = (0.7548776662, 0.5698402910)
"""From one place to the next, as shares of height and width: the additive recurrence that the plastic number gives,
of which every beginning is spread evenly (Roberts 2018, The Unreasonable Effectiveness of Quasirandom Sequences)."""


@dataclass(frozen=True)
class Sample:
    """What was found on the squares of a scene."""

    wet: NDArray[np.int64]
    """Squares with water of each piece that was read, shape (pieces,)."""
    squares: NDArray[np.int64]
    """Squares of each piece, shape (pieces,)."""
    of_all: float
    """Share of the scene that was read."""
    places: tuple[Window, ...]
    """Squares with water."""
    coarse_s: float
    """Seconds that the coarse mask of the whole scene will take."""

    @property
    def seen(self) -> int:
        """Squares in all."""
        return int(self.squares.sum())

    @property
    def share(self) -> float:
        """Share of the squares that have water."""
        return float(self.wet.sum() / self.seen)

    def share_range(self) -> tuple[float, float]:
        """Between which shares that of all tiles lies, about nineteen times in twenty.

        Squares of one piece are alike, so the spread is that between pieces: the variance of a ratio estimator
        (Cochran 1977, Sampling Techniques, section 2.11) with its correction for a finite scene. To both sides is
        added what may be there where nothing was seen: three in as many as were looked at.
        """
        share, pieces, rest = self.share, len(self.squares), 1 - min(self.of_all, 1.0)
        off = self.wet - share * self.squares
        error = math.sqrt(rest * float(off @ off) * pieces / max(pieces - 1, 1)) / self.seen
        unseen = 3 * rest / self.seen
        return max(share - 2 * error - unseen * share, 0.0), min(share + 2 * error + unseen * (1 - share), 1.0)


def sample(scene: Scene, options: CoarseOptions, tile_px: int) -> Sample:
    """Guess at squares spread over a scene, in as many threads as the coarse mask uses.

    Args:
        scene: At the resolution it is to be run at.
        options: Of the coarse mask; any method but ``learned``.
        tile_px: Side of a square.

    Raises:
        OptionsError: The method does not suit the scene.
        RunError: The scene could not be read.
    """
    begun = time.perf_counter()
    guess = _Guess.of(scene, options, tile_px)
    fitted = time.perf_counter()
    pieces = spread(scene, tile_px)
    found = _until(fitted + LONGEST_S, guess, pieces)
    seconds = time.perf_counter() - fitted
    of_all = sum(int(piece.height * piece.width) for piece in pieces[: len(found)]) / math.prod(scene.shape)
    return Sample(
        np.array([sum(wet for _, wet in squares) for squares in found], np.int64),
        np.array([len(squares) for squares in found], np.int64),
        of_all,
        tuple(square for squares in found for square, wet in squares if wet),
        fitted - begun + seconds / of_all,
    )


def _until(end: float, guess: _Guess, pieces: list[Window]) -> list[list[tuple[Window, bool]]]:
    """Squares of the pieces, and whether they are wet; if time is up of the first pieces alone."""
    threads = min(8, os.cpu_count() or 1)
    found: list[list[tuple[Window, bool]]] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="look") as pool:
        while len(found) < len(pieces) and (len(found) < FEWEST or time.perf_counter() < end):
            found += pool.map(guess.squares, pieces[len(found) : len(found) + 4 * threads])
    return found


def spread(scene: Scene, tile_px: int) -> list[Window]:
    """Pieces of whole blocks of the file, no two alike, and none over the scene's border.

    They are spread evenly over the scene, and so are the first of them, however few.
    """
    height, width = scene.shape
    rows, cols = _piece_shape(scene, tile_px)
    down, across = height // rows, width // cols
    cost = rows * cols * max(scene.decoded_px() / (height * width), 1.0)
    count = min(max(int(SAMPLE_PX / cost), LEAST_PIECES), down * across)
    shares = ((i * step % 1 for step in _STEPS) for i in range(1, count + 1))
    places = dict.fromkeys((int(south * down), int(east * across)) for south, east in shares)
    return [Window(col * cols, row * rows, cols, rows) for row, col in places]


def _piece_shape(scene: Scene, tile_px: int) -> tuple[int, int]:
    """(rows, cols): the fewest blocks of the file that hold a tile; of a file stored by rows, whole rows."""
    (block_rows, block_cols), striped = scene.block_px()
    rows = min(-(-tile_px // block_rows) * block_rows, scene.shape[0])
    cols = scene.shape[1] if striped else min(-(-tile_px // block_cols) * block_cols, scene.shape[1])
    return rows, cols


@dataclass(frozen=True)
class _Guess:
    """The first guess, fitted to the scene as the coarse mask is."""

    scene: Scene
    classifier: Any
    """With ``classify(scene, window, threshold)``."""
    threshold: float
    limits: Limits
    tile_px: int

    @classmethod
    def of(cls, scene: Scene, options: CoarseOptions, tile_px: int) -> _Guess:
        least = [
            default if area is None else area / scene.pixel_area_m2
            for area, default in ((options.min_area_m2, LEAST_WATER_PX), (options.max_hole_m2, LEAST_HOLE_PX))
        ]
        file = Path(options.method)
        if options.method not in known_methods() and file.exists():
            return cls(scene, open_given(file, scene), 0.0, Limits(*least), tile_px)
        choice = choose_rule(scene, options)
        return cls(scene, choice.rule, choice.threshold, Limits(*least), tile_px)

    def squares(self, piece: Window) -> list[tuple[Window, bool]]:
        """Squares of a piece, and whether they have water that is not too small."""
        classes = self._classes(piece)
        zlib.compress(classes.data, 1)  # The mask is written, too: a tenth of the time.
        side = self.tile_px
        corners = [
            (row, col)
            for row in range(0, max(piece.height - side, 0) + 1, side)
            for col in range(0, max(piece.width - side, 0) + 1, side)
        ]
        return [
            (
                Window(piece.col_off + col, piece.row_off + row, side, side),
                self._is_wet(classes[row : row + side, col : col + side]),
            )
            for row, col in corners
        ]

    def _classes(self, piece: Window) -> NDArray[np.uint8]:
        rows = max(1, _CHUNK_PX // piece.width)
        return np.concatenate(
            [
                self.classifier.classify(
                    self.scene,
                    Window(piece.col_off, piece.row_off + row, piece.width, min(rows, piece.height - row)),
                    self.threshold,
                )
                for row in range(0, piece.height, rows)
            ]
        )

    def _is_wet(self, classes: NDArray[np.uint8]) -> bool:
        return bool((resolve_strip(np.ascontiguousarray(classes), self.limits, True, True).codes == WATER).any())
