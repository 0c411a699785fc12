"""How QGIS shows statistics: polygons in the colour of their mean, from blue for the least to red for the most."""

from __future__ import annotations

from collections.abc import Mapping

import geopandas as gpd
import numpy as np

from geosam.vector.shades import Colour
from geosam.vector.style import WATER, Ranges, Style, Symbol

_COLOURS: tuple[tuple[int, int, int], ...] = (
    (44, 123, 182), (171, 217, 233), (255, 255, 191), (253, 174, 97), (215, 25, 28)
)  # fmt: skip
_RIM: Colour = (90, 90, 90, 255)
COLD = Symbol("fill", (94, 60, 153, 170), (45, 0, 75, 255), width_mm=0.4)
"""Cold patches lie on polygons in blue, which they have to stand out from."""


def styles_of(layers: Mapping[str, gpd.GeoDataFrame], column: str) -> dict[str, Style]:
    """A style for each layer: ranges of a column, and for cold patches one symbol.

    Args:
        layers: By name.
        column: The mean of the first raster's first band.
    """
    return {name: COLD if name == "cold" else _ranges(table, column) for name, table in layers.items()}


def _ranges(table: gpd.GeoDataFrame, column: str) -> Style:
    """As many polygons in each colour: beside one very warm one the others are not all the same blue."""
    values = table[column].to_numpy(float) if column in table else np.empty(0)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return WATER
    ends = np.unique(np.quantile(values, np.linspace(0, 1, len(_COLOURS) + 1)))
    if len(ends) == 1:
        return Ranges(column, {(float(ends[0]), float(ends[0])): _symbol(len(_COLOURS) // 2)})
    colours = np.linspace(0, len(_COLOURS) - 1, len(ends) - 1).round().astype(int)
    pairs = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    return Ranges(column, {pair: _symbol(colour) for pair, colour in zip(pairs, colours.tolist(), strict=True)})


def _symbol(colour: int) -> Symbol:
    return Symbol("fill", (*_COLOURS[colour], 220), _RIM, width_mm=0.15)
