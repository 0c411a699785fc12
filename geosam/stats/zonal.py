"""Statistics of a raster under polygons, weighted by the exact share of each pixel that they cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geosam.errors import OptionsError
from geosam.scene.header import Box
from geosam.stats.layers import Floats, Values
from geosam.stats.pieces import Geometries, Longs, pieces
from geosam.stats.spread import Spread

Tell = Callable[[int, int], None]

WHOLE = 1 - 1e-6
"""A polygon of which so much lies on the raster is not said to be partly outside: reprojected corners differ."""

LEAST_SHARE = 1e-6
"""A pixel of which less is covered is none: where outlines run along pixels, rounding reaches over the edge."""


@dataclass(frozen=True)
class Zonal:
    """What lies under each polygon."""

    columns: dict[str, Floats]
    """``mean``, ``std``, ``min``, ``max`` and ``p50`` and its like, each (n, bands); NaN where there is no data."""
    covered: Floats
    """Share of the polygon's area that has data, (n, bands)."""
    inside: Floats
    """Share of it that lies on the raster, data or not, (n,)."""

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Polygons of which nothing lies on the raster, (n,)."""
        return np.asarray(self.inside == 0)

    @property
    def partly(self) -> NDArray[np.bool_]:
        """Polygons that the raster's edge cuts, (n,)."""
        return (self.inside > 0) & (self.inside < WHOLE)


def zonal(shapes: Geometries, values: Values, percents: tuple[float, ...], tell: Tell | None = None) -> Zonal:
    """Statistics under polygons.

    The raster is read by windows, once, and only where there are polygons. A polygon is done with as soon as the last
    of its windows is, so that memory follows the polygons that one row of windows meets, not their number.

    Args:
        shapes: Valid, in pixels as :func:`~geosam.stats.pieces.on_grid` gives them, shape (n,).
        values: The raster.
        percents: Percentiles wanted, 0 to 100.
        tell: Told the rows done and all rows.

    Raises:
        OptionsError: exactextract is not installed.
        RunError: The raster cannot be read.
    """
    count, bands = len(shapes), len(values.bands)
    names = ["mean", "std", "min", *(percent_name(percent) for percent in percents), "max"]
    table = np.full((len(names), count, bands), np.nan)
    covered, inside = np.zeros((count, bands)), np.zeros(count)
    south = shapely.bounds(shapes)[:, 1]
    spreads: dict[int, list[Spread]] = {}

    def close(upto: float) -> None:
        for at in [at for at in spreads if -south[at] <= upto]:
            for band, spread in enumerate(spreads.pop(at)):
                facts = [spread.mean, spread.std, spread.low, *spread.percentiles(percents), spread.high]
                table[:, at, band] = facts if spread.weight > 0 else np.nan
                covered[at, band] = spread.weight

    for piece in pieces(shapes, values.shape, values.window):
        close(piece.box.row)
        pixels = values.read(piece.box).reshape(bands, -1)
        for at, cells, shares in covers(piece.box, piece.index, piece.shapes):
            inside[at] += shares.sum()
            for spread, some in zip(spreads.setdefault(at, [Spread() for _ in range(bands)]), pixels, strict=True):
                found = some[cells]
                good = np.isfinite(found)
                spread.add(found[good], shares[good])
        if tell is not None:
            tell(piece.box.row + piece.box.height, values.shape[0])
    close(np.inf)
    area = np.maximum(shapely.area(shapes), np.finfo(float).tiny)
    shares = np.minimum(covered / area[:, None], 1.0)
    return Zonal(dict(zip(names, table, strict=True)), shares, np.minimum(inside / area, 1.0))


def percent_name(percent: float) -> str:
    """Name of a column: p50, p2_5."""
    return f"p{percent:g}".replace(".", "_")


def covers(box: Box, index: Longs, shapes: Geometries) -> Iterator[tuple[int, Longs, Floats]]:
    """Pixels of a window under each polygon: its index, the pixels (row times width plus column), their shares."""
    exact_extract, raster, features = _exactextract()
    grid = raster(
        # Zeros: what is asked for is which pixels, and how much of each; one array serves any number of bands.
        np.broadcast_to(np.zeros(1, np.uint8), (box.height, box.width)),
        box.col, -(box.row + box.height), box.col + box.width, -box.row,
    )  # fmt: skip
    asked = ["cell_id", "coverage"]
    found = exact_extract(grid, features(index, shapes), asked, include_cols=["id"], max_cells_in_memory=2**31)
    for feature in found:
        facts = feature["properties"]
        shares = np.asarray(facts["coverage"], np.float64)
        some = shares > LEAST_SHARE
        yield int(feature["id"]), np.asarray(facts["cell_id"], np.int64)[some], shares[some]


def _exactextract() -> tuple[Any, Any, Any]:
    """The function, its raster of numpy arrays, and a source of polygons that hands over WKB, not GeoJSON."""
    try:
        from exactextract import exact_extract
        from exactextract.feature import FeatureSource, JSONFeature
        from exactextract.raster import NumPyRasterSource
    except ImportError:
        raise OptionsError(
            "statistics under polygons need exactextract, which is not installed. "
            "Run: pip install 'geosam-rivers[stats]'"
        ) from None

    class Feature(JSONFeature):  # type: ignore[misc]
        def geometry(self) -> Any:
            return self.feature["geometry"]

    class Features(FeatureSource):  # type: ignore[misc]
        def __init__(self, index: Longs, shapes: Geometries) -> None:
            super().__init__()
            self.pairs = list(zip(index.tolist(), shapely.to_wkb(shapes), strict=True))

        def count(self) -> int:
            return len(self.pairs)

        def __iter__(self) -> Iterator[Any]:
            return (Feature({"id": at, "geometry": wkb, "properties": {}}) for at, wkb in self.pairs)

        def srs_wkt(self) -> None:
            return None

    return exact_extract, NumPyRasterSource, Features
