"""A result against a reference: rasters or polygons, in any CRS, by strips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from shapely.geometry import box

from geosam.errors import DatasetError, OptionsError
from geosam.evaluate.layers import Layer, RasterFile, VectorFile, gsd_of, open_file
from geosam.evaluate.tally import Columns, Tally
from geosam.evaluate.truth import Ruler, Truth

Progress = Callable[[int, int], None]

STRIP_PX = 4_000_000
"""Pixels of a strip without its halo: about 300 MB at work."""
_DRAWN_PX = 16_000_000
"""Pixels of the grid on which two vector files are drawn, unless a pixel size is given."""
_MOST_PX = 10**10
_CACHE_MB = 64
_MOST_HALO_PX = 2000


@dataclass(frozen=True)
class Areas:
    """Exact areas of two sets of polygons on an equal-area plane, m²; without CRS in the files' own units."""

    both: float
    found: float
    true: float

    def scores(self) -> dict[str, float | None]:
        """Scores that need no dry ground; 1 if neither has any area."""
        union = self.found + self.true - self.both
        if union == 0:
            return dict.fromkeys(("iou", "f1", "precision", "recall"), 1.0)
        return {
            "iou": self.both / union,
            "f1": 2 * self.both / (self.found + self.true),
            "precision": self.both / self.found if self.found else None,
            "recall": self.both / self.true if self.true else None,
        }


@dataclass(frozen=True)
class Comparison:
    """The scores of one result against one reference."""

    prediction: Path
    reference: Path
    grid: GeoBox
    threshold: float
    ruler: Ruler
    tally: Tally
    column_weighted_f1: float
    not_predicted: float
    """Share of the reference's known pixels of which the prediction says nothing; they are not counted."""
    areas: Areas | None = None
    """Of two vector files: IoU, F1, precision and recall are made of these."""
    warnings: tuple[str, ...] = field(default=())

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        scores: dict[str, Any] = {**self.tally.scores(), **self.tally.counts()}
        if self.areas is not None:
            # The frame that two vector files are drawn in is ours, so dry ground means nothing.
            scores |= {**dict.fromkeys(("accuracy", "false_water", "water_share")), **self.areas.scores()}
            scores["areas_m2"] = {"both": self.areas.both, "prediction": self.areas.found, "reference": self.areas.true}
        crs = self.grid.crs
        return {
            "prediction": str(self.prediction),
            "reference": str(self.reference),
            "grid": {
                "width": self.grid.shape[1],
                "height": self.grid.shape[0],
                "gsd_m": gsd_of(self.grid),
                "crs": None if crs is None else f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.to_string()),
            },
            "threshold": self.threshold,
            "tolerance_px": self.ruler.tolerance_px,
            "tolerance_m": self.ruler.tolerance_m,
            "thin_px": self.ruler.thin_px,
            "not_predicted": self.not_predicted,
            **scores,
            "column_weighted_f1_of_ancestor": self.column_weighted_f1,
            "warnings": list(self.warnings),
        }


def compare(
    prediction: str | Path,
    reference: str | Path,
    *,
    threshold: float = 0.5,
    ruler: Ruler | None = None,
    pixel_m: float | None = None,
    strip_px: int = STRIP_PX,
    progress: Progress | None = None,
) -> Comparison:
    """Score a result against a reference.

    The grid is that of the reference raster; of the prediction if the reference is polygons. Two vector
    files are compared by their exact areas, and drawn on a grid for the boundary and the thin channels.

    Args:
        prediction: Mask or probability raster, or polygons, in any CRS.
        reference: The same.
        threshold: Probability above which a pixel is water.
        ruler: Tolerances.
        pixel_m: Pixel size of the grid for two vector files, metres; None: 16 million pixels.
        strip_px: Pixels held at once, without the halo.
        progress: Called with strips done and strips in all.

    Raises:
        DatasetError: A file is neither raster nor polygons, or the two cannot be brought together.
        OptionsError: A tolerance or pixel size is absurd for the grid.
    """
    ruler = Ruler() if ruler is None else ruler
    found, true = open_file(prediction), open_file(reference)
    _check_places(found, true)
    areas = None
    if isinstance(found, VectorFile) and isinstance(true, VectorFile):
        found, true, grid = _drawn(found, true, pixel_m, ruler)
        areas = _areas(found, true)
    else:
        grid = true.geobox if isinstance(true, RasterFile) else _geobox(found)
    # GDAL's own default is a twentieth of all memory.
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB), found.on(grid, threshold) as one, true.on(grid, threshold) as other:
        counted = _by_strips(one, other, grid, ruler, strip_px, progress or (lambda done, total: None))
    if counted.tally.known == 0:
        raise DatasetError(f"{reference} says nothing on the ground of {prediction}: do the two overlap?")
    missing = 1 - counted.tally.known / counted.reference_px
    return Comparison(
        Path(prediction), Path(reference), grid, threshold, ruler, counted.tally, counted.columns.f1, missing, areas,
        (*_elsewhere(found, true, grid), *_doubts(prediction, missing)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Counted:
    tally: Tally
    columns: Columns
    reference_px: int
    """Pixels that the reference knows."""


def _by_strips(found: Layer, true: Layer, grid: GeoBox, ruler: Ruler, strip_px: int, progress: Progress) -> _Counted:
    height, width = (int(side) for side in grid.shape)
    gsd = gsd_of(grid)
    halo = ruler.halo_px(gsd)
    if halo > _MOST_HALO_PX:
        raise OptionsError(f"a tolerance of {halo} px is more than the grid bears. Give a smaller --tolerance-m.")
    rows = max(1, strip_px // width)
    tally, reference_px, columns = Tally(), 0, Columns(*(np.zeros(width, np.int64) for _ in range(3)))
    for top in range(0, height, rows):
        bottom, first = min(top + rows, height), max(0, top - halo)
        window = Window(0, first, width, min(height, bottom + halo) - first)
        said, label = found.read(window), true.read(window)
        inner = slice(top - first, bottom - first)
        truth = Truth(label.water, label.known & said.known, ruler, gsd)
        tally += truth.measure(said.water, said.probability, inner)
        reference_px += int(label.known[inner].sum())
        known = truth.known[inner]
        columns += Columns.of(truth.water[inner] & known, said.water[inner] & known)
        progress(bottom, height)
    return _Counted(tally, columns, reference_px)


def _geobox(file: RasterFile | VectorFile) -> GeoBox:
    if isinstance(file, VectorFile):  # Two vector files have a grid of their own.
        raise TypeError(file)
    return file.geobox


def _check_places(found: RasterFile | VectorFile, true: RasterFile | VectorFile) -> None:
    """Two rasters without CRS may be compared pixel by pixel; polygons must be somewhere."""
    if isinstance(found, RasterFile) and isinstance(true, RasterFile):
        return
    if found.has_crs != true.has_crs:
        bare = true.path if found.has_crs else found.path
        raise DatasetError(f"{bare} has no CRS, so its place is not known. Give both a CRS.")


def _elsewhere(found: RasterFile | VectorFile, true: RasterFile | VectorFile, grid: GeoBox) -> tuple[str, ...]:
    """A word where polygons lie on none of the ground of their counterpart: most often one of two CRSs is wrong."""
    grounds = [_ground(file, grid) for file in (found, true)]
    if any(ground is None for ground in grounds) or grounds[0].intersects(grounds[1]):
        return ()
    file, other = (found, true) if isinstance(found, VectorFile) else (true, found)
    return (f"no polygon of {file.path} lies on the ground of {other.path}. Check the CRS of both.",)


def _ground(file: RasterFile | VectorFile, grid: GeoBox) -> Any:
    """The box of a file in the CRS of the grid; None for no polygons. Of two files one is a raster on that grid."""
    if isinstance(file, RasterFile):
        return box(*grid.boundingbox.bbox)
    if file.shapes.empty:
        return None
    shapes = file.shapes if grid.crs is None else file.shapes.to_crs(grid.crs.to_wkt())
    return box(*shapes.total_bounds)


def _doubts(prediction: str | Path, missing: float) -> tuple[str, ...]:
    if missing <= 0.01:
        return ()
    return (f"{prediction} says nothing about {missing:.0%} of the reference; that part is not counted.",)


def _drawn(
    found: VectorFile, true: VectorFile, pixel_m: float | None, ruler: Ruler
) -> tuple[VectorFile, VectorFile, GeoBox]:
    """Both on one equal-area plane, and a grid that holds them with a margin."""
    if found.has_crs:
        plane = _equal_area(found, true)
        found, true = (replace(file, shapes=file.shapes.to_crs(plane)) for file in (found, true))
    left, bottom, right, top = _bounds(found, true)
    step = pixel_m or max(math.sqrt((right - left) * (top - bottom) / _DRAWN_PX), 0.01)
    margin = 2 * ruler.tolerance_px * step
    shape = math.ceil((top - bottom + 2 * margin) / step), math.ceil((right - left + 2 * margin) / step)
    if math.prod(shape) > _MOST_PX:
        raise OptionsError(f"--image-gsd {step:g} makes a grid of {shape[1]} x {shape[0]} px. Give a larger pixel.")
    down = found.has_crs
    affine = Affine(step, 0, left - margin, 0, -step if down else step, top + margin if down else bottom - margin)
    return found, true, GeoBox(shape, affine, found.shapes.crs)


def _equal_area(found: VectorFile, true: VectorFile) -> str:
    lonlat = [file.shapes.to_crs("EPSG:4326") for file in (found, true) if not file.shapes.empty]
    if not lonlat:
        return "+proj=laea +lat_0=0 +lon_0=0 +datum=WGS84 +units=m"
    bounds = np.array([shapes.total_bounds for shapes in lonlat])
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    lon, lat = (low + high) / 2
    return f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m"


def _bounds(*files: VectorFile) -> tuple[float, float, float, float]:
    bounds = np.array([file.shapes.total_bounds for file in files if not file.shapes.empty])
    if not len(bounds):
        return 0.0, 0.0, 1.0, 1.0
    low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _areas(found: VectorFile, true: VectorFile) -> Areas:
    one, other = found.shapes.union_all(), true.shapes.union_all()
    return Areas(float(one.intersection(other).area), float(one.area), float(other.area))
