"""Vector files: which of their layers is read where none is named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyogrio

POLYGONS = ("Polygon", "Surface", "Collection", "Unknown")
"""Words in what GDAL calls the geometries of layers that may hold polygons: MultiPolygon, CurvePolygon, Polygon Z."""
ANY = ("",)
"""Any geometry will do."""
WATER_LAYER = "water"
"""What geosam's own files of several layers call the water."""
_PARQUET = (".parquet", ".geoparquet")
_OF_ONE_LAYER = (".geojson", ".json", ".geojsonl", ".fgb", ".shp")
"""Not asked for their layers: a GeoJSON would be read to its end for that, and then once more."""
_log = logging.getLogger("geosam")


def read_vector(path: str | Path, wanted: Sequence[str] = POLYGONS, named: str | None = WATER_LAYER) -> Any:
    """A layer of a vector file, as :func:`layer_of` chooses it.

    Args:
        path: Anything that GDAL opens, or GeoParquet.
        wanted: As for :func:`layer_of`, and so ``named``.

    Returns:
        geopandas.GeoDataFrame whose geometry is called so, or a pandas.DataFrame where there is none.

    Raises:
        Exception: It cannot be read. pyogrio, pyarrow and the drivers under them have no common base.
    """
    import geopandas

    if Path(path).suffix.lower() in _PARQUET:
        table = geopandas.read_parquet(path)
        has_name = table.active_geometry_name is None or "geometry" in table
        return table if has_name else table.rename_geometry("geometry")
    return geopandas.read_file(path, layer=layer_of(path, wanted, named))


def layer_of(path: str | Path, wanted: Sequence[str] = POLYGONS, named: str | None = WATER_LAYER) -> str | None:
    """The layer of a vector file to be read where none is asked for.

    Of the layers with such geometries the one of the name that means it, else the first; where there are several, a
    line of the log says so. Tables without geometry, such as the styles for QGIS in geosam's own files, do not count.

    Args:
        path: The file.
        wanted: Words of the kinds of geometry that are looked for; where no layer is of these kinds, any will do.
        named: What the layer is called where there is no doubt; None: it has no name of its own.

    Returns:
        Its name; None: the file has one layer at most, or cannot be opened, which reading it will tell.
    """
    if Path(path).suffix.lower() in _OF_ONE_LAYER:
        return None
    try:
        layers = [(str(name), str(kind)) for name, kind in pyogrio.list_layers(path) if kind]
    except (pyogrio.errors.DataSourceError, OSError):
        return None
    fitting = [name for name, kind in layers if any(word in kind for word in wanted)] or [name for name, _ in layers]
    if named in fitting:
        return named
    chosen = next(iter(fitting), None)
    if len(fitting) > 1:
        _log.warning(
            "geosam: %s has the layers %s, and %s is read. To have another, save it in a file of its own.",
            path, ", ".join(fitting), chosen,
        )  # fmt: skip
    return chosen
