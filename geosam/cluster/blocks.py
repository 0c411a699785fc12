"""A block: some strips of one scene's mosaic, as one worker makes them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rasterio.windows import Window

from geosam import predict
from geosam.cluster.card import ModelCard, model_here
from geosam.cluster.storage import Sign, Storage, Watch, absolute
from geosam.coarse import CoarseMask
from geosam.errors import OutputError, RunError, SceneError
from geosam.mosaic import Mosaic
from geosam.mosaic.store import StripStore, disk_faults, is_whole
from geosam.options import SegmentOptions
from geosam.scene import Scene
from geosam.scene.cache import bounded_cache, cache_bytes
from geosam.scene.files import FileReader, is_local
from geosam.scene.stack import StackReader
from geosam.tiling import TilePlan

LEAST_ROWS = 4
"""Strips of a block, where the scene has enough: the tile row above is computed anew for every block."""
_COARSE = "coarse.tif"


@dataclass(frozen=True)
class SceneWork:
    """What all blocks of a scene have in common. Paths are absolute."""

    scene: Scene
    coarse: predict.CoarseSource
    plan: TilePlan
    options: SegmentOptions
    how: dict[str, Any]
    """Further arguments of :func:`geosam.predict.run`."""
    card: ModelCard
    folder: Path
    """Strips of the run, as the process that asks sees it."""
    mail: Storage | None
    """Where strips and coarse mask go instead, for workers that do not see the folder."""
    sign: Sign


@dataclass(frozen=True)
class Block:
    """Some strips, one behind the other."""

    work: SceneWork
    strips: range


@dataclass(frozen=True)
class BlockDone:
    """What a worker tells of a block; the strips themselves are on the storage."""

    strips: range
    seconds: dict[str, float]
    batch_size: int


def cut(missing: Sequence[int], hands: int) -> list[range]:
    """Missing strips as blocks: large ones first, so that few rows are computed twice, then small ones to end evenly.

    Args:
        missing: Strips, rising.
        hands: Workers that share them.
    """
    blocks, left = [], len(missing)
    for run in _runs(missing):
        while run:
            size = min(-(-len(missing) // hands), max(LEAST_ROWS, -(-left // (2 * hands))))
            blocks.append(run[:size])
            left -= len(run[:size])
            run = run[size:]
    return blocks


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Stretches without a gap."""
    first = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield range(numbers[first], numbers[at - 1] + 1)
            first = at


def anywhere(scene: Scene) -> Scene:
    """The scene as it can be sent to another process.

    Raises:
        SceneError: It is an array in memory.
    """
    reader = scene.decoder.reader
    if isinstance(reader, StackReader):
        return scene
    if not isinstance(reader, FileReader):
        raise SceneError(f"{scene.source} is an array in memory. Write it to a file that the workers can read.")
    placed = replace(reader, source=absolute(reader.source))
    return replace(scene, decoder=replace(scene.decoder, reader=placed))


def compute(block: Block, tries: int) -> BlockDone:
    """Make the strips of a block that are not there yet.

    Args:
        block: The block.
        tries: How often it has been tried elsewhere. At first a tile that fails is the worker's fault, and
            nothing is written; after that it is the tile's, and becomes nodata as on one machine.

    Raises:
        GeosamError: This worker does not see what it needs, cannot write, or is not wanted any longer.
    """
    work = block.work
    work.sign.check()
    _check_scene(work.scene)
    model = model_here(work.options.model, work.card)
    store = _BlockStore(work, strict=tries == 0)
    strips = block.strips
    while strips and store.is_sound(strips[0]):  # A worker that died had come so far.
        strips = strips[1:]
    if not strips:
        return BlockDone(block.strips, {}, predict.batch_size(model, work.options))
    mosaic = Mosaic.part(store, work.plan, work.scene.geobox, strips)
    with bounded_cache(cache_bytes(work.scene.decoder.header)):
        report = predict.run(
            work.scene, _coarse_here(work), work.plan, model, work.options, mosaic, progress=Watch(work.sign),
            **work.how,
        )  # fmt: skip
    return BlockDone(block.strips, report.seconds, report.batch_size)


class _BlockStore(StripStore):
    """Takes the strips of a block for the run."""

    def __init__(self, work: SceneWork, strict: bool) -> None:
        super().__init__(work.folder, len(work.plan.tops))
        self._mail, self._sign, self._strict = work.mail, work.sign, strict

    def pass_over(self, row: int, record: dict[str, Any]) -> None:
        if self._strict and record["failed"]:
            raise RunError(f"{record['failed']} tiles failed. First: {record['failures'][0]}")

    def write(self, row: int, cells: list[bytes], record: dict[str, Any]) -> None:
        self.pass_over(row, record)
        self._sign.check()
        super().write(row, cells, record)

    def put(self, row: int, data: bytes) -> None:
        if self._mail is None:
            super().put(row, data)
        else:
            self._mail.put(strip_name(row), data)

    def is_sound(self, row: int) -> bool:
        return super().is_sound(row) if self._mail is None else is_whole(self._mail.get(strip_name(row)))


def send_coarse(coarse: predict.CoarseSource, mail: Storage | None) -> predict.CoarseSource:
    """The coarse mask as workers can open it: on the folder that they see, or sent to the storage."""
    if not isinstance(coarse, CoarseMask):
        return coarse
    if mail is not None:
        mail.put(_COARSE, coarse.path.read_bytes())
    return replace(coarse, path=coarse.path.absolute())


def _coarse_here(work: SceneWork) -> predict.CoarseSource:
    """The coarse mask, fetched into this worker's own folder where it came by the storage."""
    coarse = work.coarse
    if not isinstance(coarse, CoarseMask):
        return coarse
    if work.mail is not None:
        coarse = replace(coarse, path=_fetched(work.mail))
    try:
        coarse.read(Window(0, 0, 1, 1))
    except Exception:
        raise RunError(
            f"{coarse.path} cannot be read on {socket.gethostname()}. "
            "Put --out on storage that all machines share under one path, or give --storage a URL."
        ) from None
    return coarse


def _fetched(mail: Storage) -> Path:
    from distributed import get_worker

    kept = Path(get_worker().local_directory) / f"{Path(mail.url).name}.tif"
    if not kept.exists():
        data = mail.get(_COARSE)
        if data is None:
            raise RunError(f"{mail.url} has no coarse mask. Was it removed while the run was on?")
        _keep(kept, data)
    return kept


def _keep(path: Path, data: bytes) -> None:
    """Write a file of this worker's own, whole or not at all, in place of those of earlier runs.

    Raises:
        OutputError: This machine's disk is full; it says which machine, since the path is nobody else's.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with disk_faults(path, len(data)):
            for old in path.parent.glob("geosam-*.tif*"):
                old.unlink()
            part.write_bytes(data)
            os.replace(part, path)
    except OutputError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{socket.gethostname()}: {error}") from None


def _check_scene(scene: Scene) -> None:
    """Raise unless this machine reads the very file: its tiles would else be nodata.

    Raises:
        SceneError: The file is not there, or another one is.
        RunError: It cannot be read.
    """
    reader = scene.decoder.reader
    if isinstance(reader, FileReader) and is_local(reader.source):
        host = socket.gethostname()
        try:
            size = os.stat(reader.source).st_size
        except OSError as error:
            raise SceneError(
                f"{reader.source} cannot be read on {host} ({error.strerror}). Put it where all machines see it."
            ) from None
        if size != reader.stamp[0]:
            raise SceneError(
                f"{reader.source} on {host} is another file than here: {size} bytes, not {reader.stamp[0]}."
            )
    scene.read_rgb(Window(0, 0, 1, 1))


def strip_name(row: int) -> str:
    """Of a strip's file on the storage."""
    return f"strip-{row:05d}"
