"""What tiles gave, kept on disk until the run is over, so that a run that was broken off can go on."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geosam.mosaic.store import StripStore
from geosam.options import SegmentOptions
from geosam.pipeline.lock import Owner
from geosam.pipeline.outputs import Outputs, work_folder
from geosam.predict import signature
from geosam.predict.reading import NoCoarse
from geosam.segments.joining import Piece
from geosam.segments.runs import Box, Runs
from geosam.tiling import TilePlan

if TYPE_CHECKING:
    from geosam.scene import Scene
    from geosam.segments.generate import Generator

_AFTER = {"min_area_m2", "join_iou"}
"""Options that matter only once tiles are done: others may be tried on the same tiles."""


class Kept:
    """Pieces of finished tiles, by the tiles' numbers in the order of their rows."""

    def __init__(self, store: StripStore) -> None:
        self._store = store

    def has(self, number: int) -> bool:
        """Whether a tile is finished."""
        return self._store.is_sound(number)

    def pieces(self, number: int, tile: Box) -> list[Piece] | None:
        """What a finished tile gave, to the bit; None where it had no data."""
        record = self._store.header(number)["record"]
        if record["nodata"]:
            return None
        begin, end = (np.frombuffer(zlib.decompress(self._store.cell(number, n)), np.int64) for n in (0, 1))
        ends = np.cumsum(record["runs"])[:-1]
        runs = map(Runs, np.split(begin, ends), np.split(end, ends)) if record["runs"] else ()
        return [
            Piece(mask, values[0], values[1], values[2], tile, whole)
            for mask, values, whole in zip(runs, record["values"], record["whole"], strict=True)
        ]

    def keep(self, number: int, pieces: list[Piece] | None) -> None:
        """Put what a tile gave on disk.

        Raises:
            OutputError: The disk is full or the folder is gone.
        """
        some = pieces or []
        record = {
            "nodata": pieces is None,
            "runs": [len(piece.runs.begin) for piece in some],
            "values": [[piece.predicted_iou, piece.stability, piece.probability] for piece in some],
            "whole": [piece.whole for piece in some],
        }
        nothing = np.zeros(0, np.int64)
        cells = [
            zlib.compress(np.concatenate([nothing, *(getattr(piece.runs, side) for piece in some)]).tobytes(), 1)
            for side in ("begin", "end")
        ]
        self._store.write(number, cells, record)


@contextmanager
def keeping(
    out: Path, scene: Scene, generator: Generator, plan: TilePlan, options: SegmentOptions, resume: bool
) -> Iterator[Kept]:
    """A place for finished tiles beside the output, which goes when the run is over.

    Raises:
        OutputError: It cannot be written, another run is at work on the output, or ``resume`` finds the tiles of a
            run of another kind.
    """
    grid = {"shape": list(plan.shape), "tops": list(plan.tops), "lefts": list(plan.lefts)}
    known = {
        **signature(scene, NoCoarse(), generator.model, options),
        "set of limits": generator.options.model_dump(mode="json", exclude=_AFTER),
        "tile grid": grid,
    }
    with work_folder(Outputs(out), resume, Owner.new()) as folder:
        yield Kept(StripStore.open(folder / "strips", known, len(plan), resume))
