"""A person's prompts as they lie in a file: any vector format, any CRS, brought to the pixels of a scene."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from geosam.errors import OptionsError
from geosam.prompts import DRY, WATER

if TYPE_CHECKING:
    from geosam.scene import Scene

POINTS, POLYGONS = ("Point", "MultiPoint"), ("Polygon", "MultiPolygon")
LABELS = {
    **dict.fromkeys(("water", "1", "true", "positive"), WATER),
    **dict.fromkeys(("dry", "0", "false", "negative"), DRY),
}
"""What a label may say, whatever its case."""

NAMED = 5
"""Features outside the scene that are named; the rest are counted."""

TABLES = (".csv", ".tsv")
"""Files of rows, whose places are numbers in columns or well-known text."""
DEGREES = (("lon", "lat"), ("longitude", "latitude"))
"""Columns of WGS 84."""
COORDINATES = (("x", "y"), ("easting", "northing"))
"""Columns in the CRS of a ``.prj`` beside the file, else in that of the scene: a table has none of its own."""

_EDGE_PARTS = 64
"""An edge is cut into this many parts of the file's extent before it is reprojected: straight lines bend."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The features of one file that have a geometry; of a MultiPoint each point."""

    option: str
    """What the file was given as, for messages: ``--points``."""
    path: str
    shapes: NDArray[Any]
    """shapely geometries in pixels (col, row) of the scene's working grid, (0, 0) the outer corner; shape (n,)."""
    places: NDArray[np.float64]
    """The first vertex of each feature in the file's own coordinates, shape (n, 2)."""
    numbers: NDArray[np.int64]
    """Of each feature in the file, from 1; shape (n,)."""
    table: Any
    """Attributes, a pandas.DataFrame of n rows."""

    def column(self, name: str) -> list[Any] | None:
        """Values of an attribute, None for NULL; None if there is no such attribute, whatever its case."""
        found = [column for column in self.table.columns if str(column).lower() == name]
        if not found:
            return None
        values = self.table[found[0]]
        return [None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)]

    def outside(self, inside: NDArray[np.bool_], what: str, source: str) -> str | None:
        """A sentence on the features that lie outside the scene, bool (n,); None where there is none."""
        lost = np.flatnonzero(~inside)
        if len(lost) == 0:
            return None
        named = ", ".join(f"{self.numbers[i]} at ({_numbers(self.places[i])})" for i in lost[:NAMED])
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        return f"{len(lost)} of {len(inside)} {what} of {self.path} lie outside {source}: feature {named}{more}."


def read_layer(option: str, path: str, kinds: Sequence[str], scene: Scene) -> Layer:
    """Read a vector file and place it on a scene.

    Args:
        option: What the file was given as, named in messages.
        path: Any vector file that GDAL opens, or GeoParquet, in any CRS; of several layers the first that holds
            such geometries. Without a CRS only for a scene without one: then coordinates are pixels of the raster,
            x to the right and y down. A table (.csv) has columns ``lon`` and ``lat``, or ``x`` and ``y`` (or well-known
            text) in the CRS of the scene if no .prj is beside it.
        kinds: :data:`POINTS` or :data:`POLYGONS`.
        scene: Gives the grid.

    Raises:
        OptionsError: The file is missing or unreadable, has no CRS, or holds nothing or something else.
    """
    from geopandas import GeoDataFrame

    frame = _frame(option, path, kinds, scene)
    if not isinstance(frame, GeoDataFrame) or frame.active_geometry_name is None:
        mend = f"Give a vector file with {_plural(kinds)}."
        if is_table(path):
            mend = "Name its columns lon and lat, or x and y if they are in the CRS of the scene."
        raise OptionsError(f"{option} {path} holds no geometry. {mend}")
    frame.index = np.arange(1, len(frame) + 1)
    placed = frame.geometry.notna() & ~frame.geometry.is_empty
    if is_table(path):
        _check_rows(option, path, frame, placed)
    frame = frame[placed]
    if len(frame) == 0:
        raise OptionsError(f"{option} {path} holds no feature. Give a vector file with {_plural(kinds)}.")
    _check_kinds(option, path, frame.geometry, kinds)
    if kinds == POINTS:
        frame = frame.explode(index_parts=False)
    first = np.array([shapely.get_coordinates(shape)[0] for shape in frame.geometry])
    table = frame.drop(columns=frame.geometry.name)
    return Layer(option, path, _in_pixels(option, path, frame.geometry, scene), first, frame.index.to_numpy(), table)


def _check_rows(option: str, path: str, frame: Any, placed: Any) -> None:
    """Refuse a row that says something, but not where: were it left out, a dry point would be lost unseen."""
    said = frame.drop(columns=frame.geometry.name)
    lost = frame.index[(said.notna() & (said != "")).any(axis=1) & ~placed]
    if len(lost):
        raise OptionsError(
            f"{option} {path}: feature {lost[0]} has no place that can be read ({len(lost)} of {len(frame)} rows). "
            "Give it both coordinates as numbers, or take its row out."
        )


def labels_of(layer: Layer) -> NDArray[np.int64]:
    """Water or dry for each feature, int64 (n,): its attribute ``label``; without that attribute all are water.

    Raises:
        OptionsError: A label is none of :data:`LABELS`.
    """
    values = layer.column("label")
    if values is None:
        return np.full(len(layer.shapes), WATER, np.int64)
    read = [LABELS.get(plain(value)) for value in values]
    for number, value, label in zip(layer.numbers, values, read, strict=True):
        if label is None:
            raise OptionsError(
                f"{layer.option} {layer.path}: feature {number} has the label {'NULL' if value is None else value!r}. "
                f"Accepted are {', '.join(name for name in LABELS)}."
            )
    return np.array(read, np.int64)


def plain(value: Any) -> str:
    """An attribute as text, so that 1, 1.0 and "1" are the same, and so are Water and water."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().strip('"').lower()


def _frame(option: str, path: str, kinds: Sequence[str], scene: Scene) -> Any:
    """geopandas.GeoDataFrame of the file, or a pandas.DataFrame where it has no geometry."""
    import geopandas

    if not os.path.exists(path) and "://" not in path and not path.startswith("/vsi"):
        raise OptionsError(f"{option} {path} does not exist. Give a vector file with {_plural(kinds)}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of mixed types in a column, which are looked at below.
            if Path(path).suffix.lower() in (".parquet", ".geoparquet"):
                return geopandas.read_parquet(path)
            if is_table(path):
                return _table(path, scene)
            return geopandas.read_file(path, layer=_layer(path, kinds))
    except Exception as error:  # pyogrio, pyarrow and GDAL each raise their own
        reason = " ".join(str(error).split()).split("; It might help")[0].rstrip(".")[:200]
        raise OptionsError(f"{option} {path} is not a vector file that can be read ({reason}).") from None


def is_table(path: str) -> bool:
    """Whether a file is one of :data:`TABLES`."""
    return Path(path).suffix.lower() in TABLES


def _table(path: str, scene: Scene) -> Any:
    """geopandas.GeoDataFrame of a table, or a pandas.DataFrame where its columns are no places."""
    import geopandas

    columns = {str(name).lower(): str(name) for name in pyogrio.read_info(path)["fields"]}
    pairs = [pair for pair in (*DEGREES, *COORDINATES) if set(pair) <= set(columns)]
    names = {} if not pairs else {"X_POSSIBLE_NAMES": columns[pairs[0][0]], "Y_POSSIBLE_NAMES": columns[pairs[0][1]]}
    frame = geopandas.read_file(path, **names)
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.crs is not None:
        return frame
    if pairs and pairs[0] in DEGREES:
        return frame.set_crs("EPSG:4326")
    crs = scene.geobox.crs if scene.has_crs else None
    return frame if crs is None else frame.set_crs(crs.proj)


def _layer(path: str, kinds: Sequence[str]) -> str | None:
    """The first layer of such geometries, else the file's first."""
    layers = pyogrio.list_layers(path)
    fitting = [name for name, kind in layers if str(kind).split(" ")[0] in kinds]
    return str(next(iter(fitting), layers[0][0])) if len(layers) else None


def _check_kinds(option: str, path: str, geometry: Any, kinds: Sequence[str]) -> None:
    for number, kind in geometry.geom_type.items():
        if kind not in kinds:
            raise OptionsError(
                f"{option} {path}: feature {number} is a {kind}. Give a vector file with nothing but {_plural(kinds)}."
            )


def _in_pixels(option: str, path: str, geometry: Any, scene: Scene) -> NDArray[Any]:
    """shapely geometries (n,) in pixels of the working grid; infinite where the CRS does not reach."""
    known = geometry.crs is not None and "Undefined" not in str(geometry.crs.name)  # What a GeoPackage calls none.
    if known and not scene.has_crs:
        raise OptionsError(
            f"{option} {path} has a CRS ({geometry.crs.name}) and {scene.source} has none. Give pixel coordinates, x "
            "to the right and y down, in a file without CRS: .gpkg, .fgb, .shp or .parquet (GeoJSON always has one)."
        )
    if scene.geobox.crs is not None and scene.has_crs:
        if not known:
            raise OptionsError(
                f"{option} {path} has no CRS, so its place in {scene.source} is unknown. Save it with its CRS."
            )
        if geometry.crs != scene.geobox.crs.proj:
            geometry = _dense(geometry).to_crs(scene.geobox.crs.proj)
    to_pixels = ~scene.geobox.affine
    with np.errstate(invalid="ignore"):  # Infinity times zero: no place, and said so later.
        placed: NDArray[Any] = shapely.transform(
            shapely.force_2d(geometry.to_numpy()), lambda xy: np.stack(to_pixels @ (xy[:, 0], xy[:, 1]), axis=1)
        )
    return placed


def _dense(geometry: Any) -> Any:
    left, bottom, right, top = geometry.total_bounds
    step = max(right - left, top - bottom) / _EDGE_PARTS
    return geometry.segmentize(step) if step > 0 else geometry


def _plural(kinds: Sequence[str]) -> str:
    return f"{kinds[0].lower()}s"


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.8g}" for value in values)
