"""Polygons to files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import pyogrio
import pyogrio.errors

from geosam.errors import OptionsError, OutputError
from geosam.vector.geojson import write_geojson


def check_output(path: str | Path, overwrite: bool = False, *, has_crs: bool = True) -> Path:
    """Refuse an output that could not be written, before an hours-long run.

    Args:
        path: The file to be; its suffix says the format.
        overwrite: An existing file may be replaced.
        has_crs: The polygons will have a CRS, which GeoJSON cannot do without.

    Raises:
        OptionsError: Unknown suffix, or GeoJSON without CRS.
        OutputError: The folder is missing or cannot be written, or the file exists.
    """
    path = Path(path)
    known = ", ".join(_WRITERS)
    if path.suffix.lower() not in _WRITERS:
        raise OptionsError(f"{path} ends in {path.suffix!r}, which is no format known here. Use one of {known}.")
    if path.suffix.lower() == ".geojson" and not has_crs:
        raise OptionsError(
            f"{path} would be GeoJSON, which is in lon/lat, and there is no CRS. Use .gpkg, .fgb or .parquet."
        )
    return check_path(path, overwrite)


def check_path(path: Path, overwrite: bool = False) -> Path:
    """Refuse a file of any format that could not be written.

    Raises:
        OutputError: The folder is missing or cannot be written, or the file exists.
    """
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist. Make it, or choose another path for {path.name}.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give the path of a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already. Give --overwrite to replace it, or choose another path.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path.parent} cannot be written. Choose another path for {path.name}.")
    return path


def write_rivers(rivers: gpd.GeoDataFrame, path: str | Path, overwrite: bool = False) -> None:
    """Write polygons as GeoJSON (.geojson), GeoPackage (.gpkg), FlatGeobuf (.fgb) or GeoParquet (.parquet).

    GeoJSON follows RFC 7946: longitude and latitude (WGS 84), outer rings counter-clockwise, 7
    decimals, cut at the antimeridian. The other formats keep the CRS. No row is an empty, valid
    file with the same columns. The file is written in a hidden folder beside ``path`` and renamed
    when it is whole and on the disk.

    Args:
        rivers: Polygons, as :func:`geosam.vector.polygonize` gives them, or several such tables joined.
        path: The file to be.
        overwrite: Replace an existing file.

    Raises:
        OptionsError: Unknown suffix, or GeoJSON without CRS.
        OutputError: The folder is missing or cannot be written, the file exists, or the disk is full.
    """
    path = check_output(path, overwrite, has_crs=rivers.crs is not None)
    with _faults(path), _whole_or_not(path) as part:
        _WRITERS[path.suffix.lower()](rivers, part)


@contextmanager
def _whole_or_not(path: Path) -> Iterator[Path]:
    """A path to write to; the file there is renamed to ``path`` on success and removed otherwise.

    A folder, not a file under another name: what a driver leaves beside its file (a SQLite
    journal) goes with it, and the file's own name, which drivers look at, is right.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        part = folder / path.name
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn faults of writing into one line.

    Raises:
        OutputError: In place of OSError and of GDAL's errors.
    """
    try:
        yield
    except OutputError:
        raise
    except _FAULTS as error:
        raise OutputError(_line(path, error)) from error


_FAULTS = (
    OSError,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.FeatureError,
    pyogrio.errors.FieldError,
)


def _line(path: Path, error: Exception) -> str:
    # GDAL does not say why a write failed, so the room left on the disk goes into the message.
    free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    what = "the disk is full" if full else f"{why}"
    return f"{path} cannot be written: {what} ({free / 1e6:,.1f} MB free). Make room or choose another path."


def _gpkg(rivers: gpd.GeoDataFrame, path: Path) -> None:
    _ogr(rivers, path, "GPKG", layer=path.stem)


def _fgb(rivers: gpd.GeoDataFrame, path: Path) -> None:
    _ogr(rivers, path, "FlatGeobuf", layer=path.stem)


def _ogr(rivers: gpd.GeoDataFrame, path: Path, driver: str, **options: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_dataframe(rivers, path, driver=driver, geometry_type=_geometry_type(rivers), **options)
    # GDAL has been seen to end without an error on a full disk: count what is really there.
    found = pyogrio.read_info(path, force_feature_count=True)["features"]
    if found != len(rivers):
        raise OutputError(f"{path.name} cannot be written: {found} of {len(rivers)} rows arrived. Is the disk full?")


def _geometry_type(layer: gpd.GeoDataFrame) -> str:
    """Of the layer's rows; an empty one is a layer of polygons, so that it can take what a next run finds."""
    kinds = set(layer.geom_type)
    return str(kinds.pop()) if len(kinds) == 1 else "Polygon"


def _parquet(rivers: gpd.GeoDataFrame, path: Path) -> None:
    rivers.to_parquet(path, index=False)


_WRITERS: dict[str, Callable[[gpd.GeoDataFrame, Path], None]] = {
    ".geojson": write_geojson,
    ".gpkg": _gpkg,
    ".fgb": _fgb,
    ".parquet": _parquet,
}
