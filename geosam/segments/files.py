"""The segments file: a GeoPackage that is written as segments are found, and says which scene they are of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyogrio

from geosam.errors import OptionsError, OutputError
from geosam.segments.identity import Identity
from geosam.segments.styles import STYLES
from geosam.vector import check_path
from geosam.vector.style import STYLES_LAYER, styles_table
from geosam.vector.write import _faults, _whole_or_not

LAYER = "segments"
_SCENE, _RUN = "geosam_scene", "geosam_run"
"""Keys of the layer's metadata: the scene's identity, and what was run on it, both JSON."""
_DATE, _WHEN = "OGR_CURRENT_DATE", "2000-01-01T00:00:00.000Z"


def check_segments(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse a segments file that could not be written.

    Raises:
        OptionsError: It is no GeoPackage.
        OutputError: The folder is missing or cannot be written, or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() != ".gpkg":
        raise OptionsError(f"{path} ends in {path.suffix!r}, and segments are kept in a GeoPackage. Use .gpkg.")
    return check_path(path, overwrite)


@dataclass
class Writer:
    """Adds tables of segments to a file that is not there yet for others."""

    path: Path
    notes: Mapping[str, str]
    rows: int = field(default=0, init=False)

    def add(self, table: gpd.GeoDataFrame) -> None:
        """Add rows; the first table, which may be empty, decides on the columns."""
        first = not self.path.exists()
        if not first and len(table) == 0:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            with _undated():
                pyogrio.write_dataframe(
                    table, self.path, driver="GPKG", layer=LAYER, geometry_type="MultiPolygon", append=not first,
                    layer_metadata=dict(self.notes) if first else None,
                )  # fmt: skip
        self.rows += len(table)

    def add_styles(self) -> None:
        """Add how QGIS shows the layer, after the last row."""
        with _undated():
            table = styles_table(STYLES).assign(update_time=pd.Timestamp(_WHEN))
            pyogrio.write_dataframe(table, self.path, driver="GPKG", layer=STYLES_LAYER, append=True)

    def check(self) -> None:
        """Refuse a file that lacks rows: GDAL has been seen to end without an error on a full disk.

        Raises:
            OutputError: Rows are missing.
        """
        found = pyogrio.read_info(self.path, layer=LAYER, force_feature_count=True)["features"]
        if found != self.rows:
            raise OutputError(f"{self.path.name}: {found} of {self.rows} rows arrived. Is the disk full?")


@contextmanager
def _undated() -> Iterator[None]:
    """Have GDAL write the same bytes whenever it is: a GeoPackage says when it was last changed."""
    before = pyogrio.get_gdal_config_option(_DATE)
    pyogrio.set_gdal_config_options({_DATE: _WHEN})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({_DATE: before})


@contextmanager
def writing(path: Path, identity: Identity, run: str) -> Iterator[Writer]:
    """A writer of a segments file that appears whole or not at all.

    Args:
        path: The file to be; an existing one is replaced.
        identity: Of the scene.
        run: JSON of what is run.

    Raises:
        OutputError: It cannot be written.
    """
    with _faults(path), _whole_or_not(path) as part:
        writer = Writer(part, {_SCENE: identity.to_json(), _RUN: run})
        yield writer
        writer.add_styles()
        writer.check()


@dataclass(frozen=True)
class Segments:
    """A segments file, read."""

    table: gpd.GeoDataFrame
    """One segment a row, in the scene's CRS: see :func:`geosam.everything`."""
    identity: Identity
    path: Path


def read_segments(path: str | Path) -> Segments:
    """Read what ``geosam everything`` wrote.

    Raises:
        OptionsError: The file is missing, is no GeoPackage, or has no layer of segments.
    """
    path = Path(path)
    if not path.is_file():
        raise OptionsError(f"{path} does not exist. Make it with geosam everything SCENE --out {path.name}.")
    try:
        layers = [str(name) for name, _ in pyogrio.list_layers(path)]
    except Exception as error:  # pyogrio and GDAL each raise their own
        reason = " ".join(str(error).split()).rstrip(".")[:160]
        raise OptionsError(f"{path} is no GeoPackage that can be read ({reason}). {_ADVICE}") from None
    notes: dict[str, Any] = {}
    if LAYER in layers:
        notes = pyogrio.read_info(path, layer=LAYER).get("layer_metadata") or {}
    if _SCENE not in notes:
        what = f"layers: {', '.join(layers[:4])}" if layers else "no layer"
        raise OptionsError(f"{path} has no layer of segments with their scene ({what}). {_ADVICE}")
    try:
        identity = Identity.from_json(str(notes[_SCENE]))
    except (ValueError, TypeError) as error:
        raise OptionsError(f"{path}: what it says of its scene cannot be read ({error}). {_ADVICE}") from None
    return Segments(pyogrio.read_dataframe(path, layer=LAYER), identity, path)


_ADVICE = "Give what geosam everything wrote."
