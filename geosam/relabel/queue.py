"""The queue: a GeoPackage with the scenes, the polygons that a person corrects, and those that were predicted."""

from __future__ import annotations

import datetime
import shutil
import sqlite3
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely

from geosam.errors import DatasetError, OptionsError, OutputError
from geosam.relabel.stamp import fingerprint, found
from geosam.relabel.styles import CORRECTED, STATUSES, scenes_style, water_style
from geosam.vector.write import _faults, _whole_or_not

LAYERS = ("scenes", "water", "predicted")
"""Footprints with scores and status; polygons to be corrected; the same polygons as they were predicted."""
_NEEDED = {
    "scene", "status", "confidence", "audit", "person", "edited", "source", "fingerprint", "width", "height", "options",
    "model", "model_sha256", "predicted",
}  # fmt: skip


@dataclass(frozen=True)
class Queue:
    """A queue as it was read."""

    path: Path
    scenes: gpd.GeoDataFrame
    water: gpd.GeoDataFrame
    predicted: gpd.GeoDataFrame

    def of_scene(self, layer: str, row: Any, crs: pyproj.CRS) -> gpd.GeoSeries:
        """Polygons of a scene, in a CRS; those that a person drew and gave no scene belong where they lie.

        Args:
            layer: ``water`` or ``predicted``.
            row: Of ``scenes``.
            crs: Of the result.
        """
        table: gpd.GeoDataFrame = getattr(self, layer)
        nameless = table["scene"].isna() | (table["scene"] == "")
        mine = (table["scene"] == row.scene) | (nameless & table.intersects(row.geometry))
        return table.geometry[mine].to_crs(crs)

    def where(self, row: Any) -> str:
        """Path of a scene."""
        return found(row.source, self.path) or ""


def check_queue_path(out: Path) -> None:
    """Refuse a queue that is no GeoPackage.

    Raises:
        OptionsError: Another suffix.
    """
    if out.suffix.lower() != ".gpkg":
        raise OptionsError(f"{out} ends in {out.suffix!r}, and a queue has several layers. Use .gpkg.")


def write_queue(path: Path, tables: Mapping[str, gpd.GeoDataFrame]) -> None:
    """All layers and their styles in one GeoPackage, whole or not at all.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    with _faults(path), _whole_or_not(path) as part:
        for name in LAYERS:
            pyogrio.write_dataframe(
                tables[name], part, driver="GPKG", layer=name, geometry_type="Polygon", append=part.exists()
            )
            arrived = pyogrio.read_info(part, layer=name, force_feature_count=True)["features"]
            if arrived != len(tables[name]):
                raise OutputError(f"{path} cannot be written: {arrived} of {len(tables[name])} rows arrived.")
        pyogrio.write_dataframe(_styles(), part, driver="GPKG", layer="layer_styles", append=True)


def _styles() -> pd.DataFrame:
    """The table that QGIS looks for styles in."""
    rows = [("scenes", scenes_style()), ("water", water_style())]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return pd.DataFrame(
        {
            "f_table_catalog": "", "f_table_schema": "", "f_table_name": [name for name, _ in rows],
            "f_geometry_column": "geom", "styleName": "geosam", "styleQML": [qml for _, qml in rows], "styleSLD": "",
            "useAsDefault": True, "description": "", "owner": "", "ui": "", "update_time": now,
        }
    )  # fmt: skip


def read_queue(path: str | Path) -> Queue:
    """Read a queue and check that it can be used.

    Raises:
        DatasetError: The file is missing or no queue, a status is unknown, a layer has no CRS, or scenes are gone or
            were changed since they were predicted.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path} does not exist. Give the GeoPackage that geosam relabel predict wrote.")
    try:
        layers = {str(name) for name, _ in pyogrio.list_layers(path)}
        missing = [name for name in LAYERS if name not in layers]
        tables = {} if missing else {name: _layer(path, name) for name in LAYERS}
    except Exception as error:  # pyogrio's errors have no common base with those of the drivers under it
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise DatasetError(f"{path} is not a GeoPackage that can be read ({reason}).") from None
    lacking = missing or sorted(_NEEDED - set(tables["scenes"].columns))
    if lacking or any("scene" not in tables[name] for name in LAYERS):
        what = lacking[0] if lacking else "scene"
        raise DatasetError(f"{path} is no queue: it has no {what}. Give one that geosam relabel predict wrote.")
    queue = Queue(path, **tables)
    _check_status(queue)
    _check_crs(queue)
    _check_scenes(queue)
    return queue


def _layer(path: Path, name: str) -> gpd.GeoDataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = gpd.read_file(path, layer=name)
    return table[table.geometry.notna() & ~table.geometry.is_empty].reset_index(drop=True)


def _check_status(queue: Queue) -> None:
    known = queue.scenes["status"].isin(STATUSES)
    if not known.all():
        row = queue.scenes[~known].iloc[0]
        value = "NULL" if pd.isna(row.status) else repr(row.status)
        raise DatasetError(
            f"{queue.path}: the scene {row.scene} has the status {value}. Accepted are {', '.join(STATUSES)}."
        )


def _check_crs(queue: Queue) -> None:
    for name in LAYERS:
        crs = getattr(queue, name).crs
        if crs is None or any(word in crs.name for word in ("Undefined", "Unknown")):
            raise DatasetError(
                f"{queue.path}: the polygons of the layer {name} have no CRS, so their place is unknown. "
                f"Set it to the one they were drawn in (Layer > Set CRS in QGIS, then save)."
            )


def _check_scenes(queue: Queue) -> None:
    wrong = []
    for row in queue.scenes.itertuples():
        where = found(row.source, queue.path)
        if where is None:
            wrong.append(f"{row.scene} is not at {row.source}")
        elif row.fingerprint and fingerprint(where) != row.fingerprint:
            wrong.append(f"{row.scene} was changed since {row.predicted}")
    if wrong:
        which = "the only scene" if len(queue.scenes) == 1 else f"{len(wrong)} of {len(queue.scenes)} scenes"
        raise DatasetError(
            f"{queue.path} is out of date for {which}: {wrong[0]}. "
            "Put the scenes back where they were, or predict again."
        )


def update_scenes(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change columns of some scenes and leave everything else in the file as it is, styles of a person's own too.

    Args:
        path: The queue.
        changes: New values by column, by scene.

    Raises:
        OutputError: The file cannot be written, for example because another program has it open.
    """
    with _faults(path), _whole_or_not(path) as part:
        shutil.copyfile(path, part)
        try:
            with closing(sqlite3.connect(part)) as database, database:
                # Triggers of the spatial index name these functions; they are not called unless geometry changes.
                for name, count in (("ST_IsEmpty", 1), ("ST_MinX", 1), ("ST_MaxX", 1), ("ST_MinY", 1), ("ST_MaxY", 1)):
                    database.create_function(name, count, lambda _: 0)
                for scene, values in changes.items():
                    names = ", ".join(f'"{name}" = ?' for name in values)
                    database.execute(f"UPDATE scenes SET {names} WHERE scene = ?", (*values.values(), scene))
        except sqlite3.Error as error:
            raise OutputError(f"{path} cannot be written ({error}). Close it in QGIS and try again.") from None


def polygons_of(geometry: gpd.GeoSeries) -> list[Any]:
    """Valid polygons of what a person drew: rings that cross are mended, lines and points dropped."""
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(np.asarray(geometry.to_numpy(), object))))
    return list(parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)])


def is_by_a_person(status: str) -> bool:
    """Whether a status says that a person has drawn the water."""
    return status == CORRECTED
