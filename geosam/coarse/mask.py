"""The coarse mask: a raster of the whole scene, made strip by strip."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geosam.coarse.choose import Choice, choose_rule
from geosam.coarse.clean import Limits, LocalStrip, Seams, resolve_strip
from geosam.coarse.given import open_given
from geosam.coarse.opened import opened
from geosam.coarse.rules import known_methods
from geosam.coarse.runs import UNKNOWN, WATER
from geosam.errors import OutputError
from geosam.options import CoarseOptions
from geosam.scene.cache import ONCE_BYTES, bounded_cache, cache_bytes

if TYPE_CHECKING:
    import xarray

    from geosam.scene import Scene

Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")

TILE_PX = 512
"""Side of the mask's own blocks; strips are a whole number of them high, so that each is written once."""
_STRIP_PX = 2**23
"""Pixels of a strip, where blocks are not too high for that, and of a part that is labelled at once.

A strip is a byte a pixel, but labelling speckled water takes up to 15: at 50,000 px across, where strips are
26 Mpx, labelling whole ones took 400 MB a thread."""
_TALLEST_PX = 2**26
"""Pixels of a strip that the blocks of a source may ask for."""
_CHUNK_PX = 2**20
"""Pixels classified at once by a thread: 4 MB a float32 band, which a few bands of stay in the cache."""
LEAST_WATER_PX, LEAST_HOLE_PX = 40.0, 20.0
"""Components and holes under so many pixels are dropped and filled where no area is given: in pixels, since a
first guess errs by its texture, whether a pixel is 2 cm or 10 m."""
_LEAST_SHARE, _GREATEST_SHARE = 0.001, 0.8
"""Shares of water beyond which the mask warns."""


@dataclass(frozen=True)
class CoarseMask:
    """The first guess of water, on disk; small, picklable, and safe to read from several threads."""

    path: Path
    """Tiled uint8 GeoTIFF on the scene's working grid: 0 dry, 1 water, 255 unknown."""
    geobox: GeoBox
    """Grid of the raster."""
    method: str
    """The rule that was used, such as ``ndwi-ndvi``, or the path of the mask that was given."""
    threshold: float
    """Index value above which a pixel was taken for water."""
    reason: str
    """A sentence for the report: what was chosen, and why."""
    water_fraction: float
    """Share of water among the known pixels; 0 where none is known."""
    warnings: tuple[str, ...]
    """What a person should look at before trusting the mask, a sentence or two each."""
    trust: float = 0.0
    """Log-odds that a pixel is as the mask says, from bands that the model does not see; 0: a hint and no more.

    Above 0 for a band index that parts two modes. A run adds it to the model's own log-odds.
    """

    def read(self, window: Window) -> tuple[Bool, Bool]:
        """Read a part of the mask.

        Args:
            window: In pixels of the scene's working grid; outside the scene nothing is valid.

        Returns:
            Water and valid, both of shape (h, w); water is False where not valid.
        """
        height, width = (int(side) for side in self.geobox.shape)
        top, left = max(int(window.row_off), 0), max(int(window.col_off), 0)
        bottom = min(int(window.row_off + window.height), height)
        right = min(int(window.col_off + window.width), width)
        classes = np.full((int(window.height), int(window.width)), UNKNOWN, np.uint8)
        if top < bottom and left < right:
            row, col = top - int(window.row_off), left - int(window.col_off)
            # Opening costs a millisecond, and a handle kept per thread would outlive the file.
            with opened(self.path) as source:
                inner = source.read(1, window=Window(left, top, right - left, bottom - top))
            classes[row : row + bottom - top, col : col + right - left] = inner
        return classes == WATER, classes != UNKNOWN

    def to_xarray(self) -> xarray.DataArray:
        """The whole mask in memory: uint8 with dimensions (y, x), georeferenced by rioxarray."""
        import rioxarray

        with opened(self.path) as source:
            mask: Any = rioxarray.open_rasterio(source).squeeze("band", drop=True).load()  # type: ignore[union-attr]
        about = {"method": self.method, "threshold": self.threshold, "reason": self.reason}
        named: xarray.DataArray = mask.rename("water").assign_attrs(about)
        return named


class _Classifier(Protocol):
    def classify(self, scene: Scene, window: Window, threshold: float) -> UInt8: ...


def _in_pixels(area_m2: float | None, scene: Scene, default_px: float) -> float:
    return default_px if area_m2 is None else area_m2 / scene.pixel_area_m2


def coarse_mask(
    scene: Scene,
    options: CoarseOptions | None = None,
    *,
    path: Path | None = None,
    progress: Progress | None = None,
) -> CoarseMask:
    """Guess where the water of a scene is, and write the guess as a raster.

    The scene is read once, in strips; water bodies smaller than ``options.min_area_m2`` are then
    dropped and holes smaller than ``options.max_hole_m2`` filled, exactly, whatever the strips. A
    hole that touches the scene's border or unknown pixels is not filled. Unknown is neither water nor land.

    Args:
        scene: The scene.
        options: Method, threshold and areas. ``method`` may be the path of a mask, to which the
            areas apply as well.
        path: Where the raster is written, whole or not at all; an existing file is replaced. None:
            a new temporary file, which the caller may delete.
        progress: Called with (steps done, steps in all), from the calling thread.

    Returns:
        The mask, with what was chosen and why.

    Raises:
        OptionsError: The method is unknown, needs a band that is not there, or is a file that is no mask.
        OutputError: The raster cannot be written.
    """
    options = options or CoarseOptions()
    classifier, choice = _choose(scene, options)
    target = _new_file() if path is None else Path(path)
    limits = Limits(
        _in_pixels(options.min_area_m2, scene, LEAST_WATER_PX), _in_pixels(options.max_hole_m2, scene, LEAST_HOLE_PX)
    )
    water, known = _make(scene, classifier, choice.threshold, limits, target, progress or (lambda done, total: None))
    share = water / known if known else 0.0
    warnings = choice.warnings + _share_warnings(share, known)
    return CoarseMask(
        target, scene.geobox, choice.method, choice.threshold, choice.reason, share, warnings, choice.trust
    )


@dataclass(frozen=True)
class _Chosen:
    method: str
    threshold: float
    reason: str
    warnings: tuple[str, ...]
    trust: float = 0.0


def _choose(scene: Scene, options: CoarseOptions) -> tuple[_Classifier, _Chosen]:
    file = Path(options.method)
    if options.method not in known_methods() and file.exists():
        return open_given(file, scene), _Chosen(options.method, 0.0, f"Mask as given by {file.name}.", ())
    choice: Choice = choose_rule(scene, options)
    return choice.rule, _Chosen(choice.rule.method, choice.threshold, choice.reason, choice.warnings, choice.trust)


def _share_warnings(share: float, known: int) -> tuple[str, ...]:
    if known == 0:
        return ("The scene has no known pixel, so there is no mask.",)
    if share < _LEAST_SHARE:
        remedy = "little or no water was seen. Look at it, or try another --method."
        return (f"The mask covers {share:.2%} of the scene: {remedy}",)
    if share > _GREATEST_SHARE:
        remedy = "land may have been taken for water. Look at it, or set --threshold."
        return (f"The mask covers {share:.0%} of the scene: {remedy}",)
    return ()


# From scene to raster: classify and label the strips, decide at the seams, write the strips ------------------------


def _make(
    scene: Scene, classifier: _Classifier, threshold: float, limits: Limits, target: Path, progress: Progress
) -> tuple[int, int]:
    """Write the raster; returns the pixels of water and the known pixels."""
    windows = list(scene.strips(_strip_rows(scene)))
    total = 2 * len(windows)

    def label(window: Window) -> list[LocalStrip]:
        classes = _classified(scene, classifier, window, threshold)
        ends = window.row_off == 0, window.row_off + window.height == scene.shape[0]
        return _labelled(classes, limits, *ends)

    with _whole_or_nothing(target) as partial, _Spool(target.parent) as spool:
        seams = Seams(limits)
        with bounded_cache(cache_bytes(scene.decoder.header)):
            for done, parts in enumerate(_ordered(label, windows), start=1):
                spool.append(parts, [seams.add(part) for part in parts])
                progress(done, total)
        classes_of = seams.decide()
        counts = np.zeros(256, np.int64)
        with bounded_cache(ONCE_BYTES), opened(partial, "w", **_profile(scene)) as raster:
            # One ahead: strips are laid out faster than they are packed, and would pile up.
            strips = _ordered(lambda at: spool.classes(at, classes_of), range(len(windows)), most=1)
            for done, (window, (classes, count)) in enumerate(
                zip(windows, strips, strict=True), start=len(windows) + 1
            ):
                raster.write(classes, 1, window=window)
                counts += count
                progress(done, total)
    return int(counts[WATER]), int(counts.sum() - counts[UNKNOWN])


def _strip_rows(scene: Scene) -> int:
    """Rows of a strip: whole blocks of the mask, and of the source, so that none is decoded for two strips."""
    width, ((block, _), striped) = scene.shape[1], scene.block_px()
    fits = block % TILE_PX == 0 and block * width <= _TALLEST_PX and not striped
    unit = block if fits else TILE_PX
    return unit * max(1, min(8 * TILE_PX // unit, _STRIP_PX // (width * unit)))


def _labelled(classes: UInt8, limits: Limits, first: bool, last: bool) -> list[LocalStrip]:
    """A strip labelled in parts of :data:`_STRIP_PX`, from top to bottom."""
    height, width = classes.shape
    rows = max(1, _STRIP_PX // width)
    return [
        resolve_strip(classes[top : top + rows], limits, first and top == 0, last and top + rows >= height)
        for top in range(0, height, rows)
    ]


def _classified(scene: Scene, classifier: _Classifier, strip: Window, threshold: float) -> UInt8:
    """A strip classified in chunks that fit the cache; shape (h, w)."""
    classes = np.empty((strip.height, strip.width), np.uint8)
    rows, cols = _chunk_shape(scene, strip)
    # Down before across, so that blocks higher than a chunk are still at hand.
    for col in range(0, strip.width, cols):
        for row in range(0, strip.height, rows):
            height, width = min(rows, strip.height - row), min(cols, strip.width - col)
            chunk = Window(col, strip.row_off + row, width, height)
            classes[row : row + height, col : col + width] = classifier.classify(scene, chunk, threshold)
    return classes


def _chunk_shape(scene: Scene, strip: Window) -> tuple[int, int]:
    _, striped = scene.block_px()
    if striped:
        # A file stored by rows decodes a whole row for every piece of it.
        return max(1, _CHUNK_PX // strip.width), strip.width
    return TILE_PX, max(TILE_PX, _CHUNK_PX // TILE_PX)


def _profile(scene: Scene) -> dict[str, Any]:
    height, width = scene.shape
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": height,
        "width": width,
        "crs": scene.geobox.crs.to_wkt() if scene.geobox.crs is not None else None,
        "transform": scene.geobox.affine if scene.has_crs else None,
        "nodata": UNKNOWN,
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "zlevel": 1,
        "num_threads": "all_cpus",
        "bigtiff": "if_safer",
    }


class _Spool:
    """Labelled strips between the two passes: on disk, since memory must not grow with the scene."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: list[list[_Part]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> _Spool:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, parts: list[LocalStrip], shifts: list[int]) -> None:
        """Put a strip behind the others; ``shifts`` are added to waiting codes when they are taken out."""
        self._index.append([])
        for part, shift in zip(parts, shifts, strict=True):
            runs = np.stack([part.starts, part.codes]).astype(np.int32)
            self._index[-1].append(_Part(self._file.tell(), runs.shape[1], shift, part.height, part.width))
            self._file.write(runs.tobytes())

    def classes(self, at: int, classes_of: UInt8) -> tuple[UInt8, NDArray[np.int64]]:
        """The final classes of a strip, shape (h, w), and the pixels of each class, shape (256,)."""
        parts = self._index[at]
        classes = np.empty((sum(part.height for part in parts), parts[0].width), np.uint8)
        pixels, top = np.zeros(256, np.int64), 0
        for part in parts:
            starts, codes = self._runs(part)
            values = classes_of[np.where(codes >= 3, codes + part.shift, codes)]
            lengths = np.diff(starts, append=np.int32(part.height * part.width))
            pixels += np.bincount(values, weights=lengths, minlength=256).astype(np.int64)
            classes[top : top + part.height].reshape(-1)[:] = np.repeat(values, lengths)
            top += part.height
        return classes, pixels

    def _runs(self, part: _Part) -> NDArray[np.int32]:
        """Starts and codes of the runs, shape (2, runs)."""
        with self._lock:
            self._file.seek(part.offset)
            data = self._file.read(8 * part.size)
        return np.frombuffer(data, np.int32).reshape(2, part.size)


class _Part(NamedTuple):
    """Where a part of a strip lies in the spool."""

    offset: int
    size: int
    """Runs."""
    shift: int
    """What is added to its codes of waiting pieces."""
    height: int
    width: int


def _ordered(work: Callable[[Item], Result], items: Iterable[Item], most: int = 8) -> Iterator[Result]:
    """Results in the order of the items, up to ``most`` worked on at once and none far ahead of the reader."""
    threads = min(most, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="coarse") as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def _whole_or_nothing(target: Path) -> Iterator[Path]:
    """A name beside ``target`` to write to, renamed when done and removed when not."""
    if not target.parent.is_dir():
        raise OutputError(f"The folder {target.parent} does not exist. Make it, or give another path.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, target)
    except (RasterioError, OSError) as error:
        raise OutputError(f"{target} cannot be written: {error}. Give a path in a folder with room.") from error
    finally:
        partial.unlink(missing_ok=True)


def _new_file() -> Path:
    handle, name = tempfile.mkstemp(prefix="geosam-coarse-", suffix=".tif")
    os.close(handle)
    return Path(name)
