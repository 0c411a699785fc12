"""From water polygons and rasters to tables of statistics, and to files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely

from geosam.errors import OptionsError, OutputError, SceneError
from geosam.options import StatsOptions
from geosam.rivers.plane import plane_of
from geosam.rivers.source import _crs, _table
from geosam.stats.along import reach_waters
from geosam.stats.cold import cold_patches
from geosam.stats.layers import Floats, RasterLayer, open_layers
from geosam.stats.pieces import areal, on_grid
from geosam.stats.styles import styles_of
from geosam.stats.zonal import Zonal, percent_name, zonal
from geosam.vector import check_path
from geosam.vector.style import STYLES_LAYER, styles_table
from geosam.vector.write import _faults, _whole_or_not

Progress = Callable[[str, int, int], None]

MEDIAN = 50.0


@dataclass(frozen=True)
class RiverStats:
    """What lies under the water. Columns of a layer begin with its name: ``thermal_mean``, ``dem_b2_p50``."""

    polygons: gpd.GeoDataFrame
    """The polygons as they were given, with ``mean``, ``std``, ``min``, percentiles, ``max``, ``area_m2`` (of the part
    that has data) and ``covered`` (its share of the polygon) of every layer and band."""
    along: gpd.GeoDataFrame
    """The same for the water of each reach of the rivers; empty where it was not asked for."""
    cold: gpd.GeoDataFrame
    """Cold-water patches in the CRS of their raster; empty where they were not asked for."""
    report: dict[str, Any]
    """What was found and done; plain JSON values."""

    def rows(self) -> pd.DataFrame:
        """All statistics as one long table: a row for each polygon or reach, layer and band."""
        tables = [("polygon", self.polygons, "id"), ("reach", self.along, "reach")]
        found = [_long(kind, table, key, self.report["layers"]) for kind, table, key in tables if len(table)]
        return pd.concat(found, ignore_index=True)


def river_stats(
    water: str | Path | gpd.GeoDataFrame,
    layers: Sequence[str | Path],
    options: StatsOptions | None = None,
    *,
    out: str | Path | None = None,
    csv: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RiverStats:
    """Statistics of rasters under water polygons, along the rivers in them, and patches of cold water.

    Args:
        water: Polygons as a file or a table, in any CRS; a mask raster too.
        layers: Rasters, each in its own grid and CRS.
        options: What to do.
        out: GeoPackage with the layer polygons, and along and cold where they are asked for.
        csv: The same statistics as one long table.
        overwrite: Replace files that exist.
        progress: Told the stage, the work done and the work in all.

    Raises:
        SceneError: The water or a raster cannot be read, has no CRS, or no polygon lies on any raster.
        OptionsError: ``out`` is no GeoPackage, a layer is unknown, or exactextract is not installed.
        OutputError: An output cannot be written; nothing existing was touched.
    """
    options = StatsOptions() if options is None else options
    paths = _checked(out, csv, overwrite)
    rasters = open_layers(layers)
    cold_in = _cold_layer(rasters, options)
    table = _polygons(water)
    work = _Work(rasters, options, progress or (lambda stage, done, total: None))
    polygons, facts = work.under(table, "polygons", options.percentiles)
    if all(fact["outside"] == len(table) for fact in facts):
        raise SceneError(
            f"none of the {len(table)} polygons lies on {_named(rasters)}. Check the CRS of both, and whether x and y "
            "are swapped."
        )
    along, cold = work.along(table, cold_in)
    report = {"polygons": len(table), "reaches": len(along), "patches": len(cold), "layers": facts}
    stats = RiverStats(polygons, along, cold, {**report, "options": options.model_dump(mode="json")})
    _write(stats, options, *paths)
    return stats


@dataclass(frozen=True)
class _Work:
    layers: list[RasterLayer]
    options: StatsOptions
    tell: Progress

    def under(
        self, table: gpd.GeoDataFrame, what: str, percents: tuple[float, ...]
    ) -> tuple[gpd.GeoDataFrame, list[dict[str, Any]]]:
        """The table with the columns of all layers, and what was found of each layer."""
        columns: dict[str, Floats] = {}
        facts = []
        area = plane_of(_filled(table), table.crs).to_metres(_filled(table)) if len(table) else np.empty(0, object)
        for layer in self.layers:
            found = zonal(
                on_grid(table.geometry, layer.geobox), layer, percents,
                partial(self.tell, f"{layer.name} under {what}"),
            )  # fmt: skip
            columns |= _columns(layer, found, shapely.area(area))
            facts.append(_facts(layer, found))
        return table.assign(**columns), facts

    def along(self, table: gpd.GeoDataFrame, cold_in: tuple[int, int]) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
        """The reaches with their statistics, and the cold patches."""
        options, nothing = self.options, gpd.GeoDataFrame(geometry=gpd.GeoSeries([], crs=table.crs))
        if options.along_m is None and options.colder_than is None:
            return nothing, nothing
        reaches, still = reach_waters(table, options.along_m)
        percents = tuple(dict.fromkeys([*options.percentiles, MEDIAN]))
        along, _ = self.under(reaches, "reaches", options.percentiles)
        if options.colder_than is None:
            return along, nothing
        zones = pd.concat([reaches, still])[["reach", "water", "geometry"]].reset_index(drop=True)
        layer, band = self.layers[cold_in[0]], cold_in[1]
        medians = _Work([layer], options, self.tell).under(zones, "reaches", percents)[0]
        cold = cold_patches(
            layer, band, zones, medians[_prefix(layer, band) + percent_name(MEDIAN)].to_numpy(float),
            options.colder_than, options.min_patch_m2,
            partial(self.tell, "cold patches"),
        )  # fmt: skip
        return along, cold


def _filled(table: gpd.GeoDataFrame) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    return np.asarray(table.geometry.to_numpy(), object)


def _prefix(layer: RasterLayer, band: int) -> str:
    return "_".join(part for part in (layer.name, layer.bands[band]) if part) + "_"


def _columns(layer: RasterLayer, found: Zonal, area_m2: Floats) -> dict[str, Floats]:
    columns: dict[str, Floats] = {}
    for band in range(len(layer.bands)):
        named = {name: values[:, band] for name, values in found.columns.items()}
        named |= {"area_m2": found.covered[:, band] * area_m2, "covered": found.covered[:, band]}
        columns |= {_prefix(layer, band) + name: values for name, values in named.items()}
    return columns


def _facts(layer: RasterLayer, found: Zonal) -> dict[str, Any]:
    """What is said about a layer."""
    outside, partly = found.outside, found.partly
    empty = ~outside & (found.covered == 0).all(axis=1)
    return {
        "name": layer.name,
        "path": layer.reader.source,
        "bands": list(layer.bands),
        "prefixes": [_prefix(layer, band) for band in range(len(layer.bands))],
        "statistics": [*found.columns, "area_m2", "covered"],
        "outside": int(outside.sum()),
        "partly_outside": int(partly.sum()),
        "without_data": int(empty.sum()),
    }


# What comes in --------------------------------------------------------------------------------------------------------


def _checked(out: str | Path | None, csv: str | Path | None, overwrite: bool) -> tuple[Path | None, Path | None]:
    paths = None if out is None else Path(out), None if csv is None else Path(csv)
    if paths[0] is not None and paths[0].suffix.lower() != ".gpkg":
        raise OptionsError(f"{out} ends in {paths[0].suffix!r}, and the statistics are several layers. Use .gpkg.")
    for path in paths:
        if path is not None:
            check_path(path, overwrite)
    return paths


def _polygons(water: str | Path | gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The rows as they are, with areas where they have one."""
    table, _, name = _table(water)
    if _crs(table) is None:
        raise SceneError(f"{name} has no CRS, so its place on the rasters is unknown. Save it with its CRS.")
    empty = table.geometry.isna() | table.geometry.is_empty
    shapes = areal(np.where(empty, shapely.Polygon(), table.geometry.to_numpy()))
    found = shapely.area(shapes) > 0
    if not found.any():
        raise SceneError(f"{name} holds no polygon ({len(table)} features). Give water polygons, or a mask raster.")
    kept = gpd.GeoDataFrame(table.drop(columns=table.geometry.name), geometry=list(shapes), crs=table.crs)
    return kept[found].reset_index(drop=True)


def _cold_layer(rasters: list[RasterLayer], options: StatsOptions) -> tuple[int, int]:
    """Index of the layer that cold patches are looked for in, and of its band."""
    if options.cold_layer is None:
        return 0, 0
    name, _, band = options.cold_layer.partition(":")
    for at, layer in enumerate(rasters):
        if name == layer.name and (not band or band in layer.bands):
            return at, layer.bands.index(band) if band else 0
        if name == layer.name and band.isdigit() and 1 <= int(band) <= len(layer.bands):
            return at, int(band) - 1
    known = ", ".join(f"{layer.name}:{band}" if band else layer.name for layer in rasters for band in layer.bands)
    raise OptionsError(f"there is no layer {options.cold_layer!r} to look for cold water in. There are {known}.")


def _named(rasters: list[RasterLayer]) -> str:
    return " or ".join(layer.reader.source for layer in rasters)


# What goes out --------------------------------------------------------------------------------------------------------


def _write(stats: RiverStats, options: StatsOptions, out: Path | None, csv: Path | None) -> None:
    """The GeoPackage and the long table, each whole or not at all."""
    if out is not None:
        with _faults(out), _whole_or_not(out) as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            for name, table in _asked(stats, options):
                many = bool((table.geom_type == "MultiPolygon").any())
                pyogrio.write_dataframe(
                    table, part, driver="GPKG", layer=name, append=part.exists(), promote_to_multi=many,
                    geometry_type="MultiPolygon" if many else "Polygon",
                )  # fmt: skip
                found = pyogrio.read_info(part, layer=name, force_feature_count=True)["features"]
                if found != len(table):
                    raise OutputError(f"{out} cannot be written: {found} of {len(table)} rows arrived.")
            styles = styles_of(dict(_asked(stats, options)), stats.report["layers"][0]["prefixes"][0] + "mean")
            pyogrio.write_dataframe(styles_table(styles), part, driver="GPKG", layer=STYLES_LAYER, append=True)
    if csv is not None:
        with _faults(csv), _whole_or_not(csv) as part:
            stats.rows().to_csv(part, index=False, float_format="%.10g")


def _asked(stats: RiverStats, options: StatsOptions) -> Iterator[tuple[str, gpd.GeoDataFrame]]:
    yield "polygons", stats.polygons
    if options.along_m is not None or options.colder_than is not None:
        yield "along", stats.along
    if options.colder_than is not None:
        yield "cold", stats.cold


def _long(kind: str, table: gpd.GeoDataFrame, key: str, layers: list[dict[str, Any]]) -> pd.DataFrame:
    """A row for each row, layer and band."""
    number = table[key].to_numpy() if key in table.columns else np.arange(1, len(table) + 1)
    parts = []
    for layer in layers:
        for band, prefix in zip(layer["bands"], layer["prefixes"], strict=True):
            values = {name: table[prefix + name].to_numpy() for name in layer["statistics"]}
            parts.append(pd.DataFrame({"of": kind, "id": number, "layer": layer["name"], "band": band, **values}))
    return pd.concat(parts, ignore_index=True)
