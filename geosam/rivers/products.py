"""From water polygons to the products of a river, and to files."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
import pyproj
import shapely

from geosam.errors import OptionsError, OutputError
from geosam.options import RiverOptions
from geosam.rivers.layers import Layers, Progress, layers_of, least_m2
from geosam.rivers.mask import mask_grid, write_mask
from geosam.rivers.source import Source, read_source
from geosam.rivers.styles import STYLES
from geosam.vector import check_path
from geosam.vector.style import STYLES_LAYER, Style, styles_table
from geosam.vector.write import _faults, _whole_or_not

_TRUE = 0.01
"""A map whose areas are true to this is good for a mask; Web Mercator is not."""


@dataclass(frozen=True)
class RiverProducts:
    """The products of the rivers in a layer, in the layer's CRS; lengths and areas in metres and m²."""

    layers: Layers
    report: dict[str, Any]
    """What was found and done; plain JSON values."""


def river_products(
    water: str | Path | gpd.GeoDataFrame,
    options: RiverOptions | None = None,
    *,
    out: str | Path | None = None,
    mask: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RiverProducts:
    """Centrelines, widths, reaches and islands of the rivers in a layer of water.

    Args:
        water: Polygons as a file or a table, or a mask raster; in any CRS. Without one, lengths are in its units.
        options: What to do.
        out: GeoPackage with the layers water, centrelines, widths, reaches, islands and bridges.
        mask: GeoTIFF of the water body with the largest network: one component, 1 water, 0 dry, no nodata.
        overwrite: Replace files that exist.
        progress: Told the stage, the work done and the work in all.

    Returns:
        The layers and a report. No water, or no river in it, gives empty layers.

    Raises:
        SceneError: The water cannot be read, or is noise.
        OptionsError: ``out`` is no GeoPackage.
        OutputError: An output cannot be written; nothing existing was touched.
    """
    options = RiverOptions() if options is None else options
    paths = _checked(out, mask, overwrite)
    source = read_source(water, options.gsd_m)
    layers = layers_of(source, options, progress)
    if paths[0] is not None:
        write_layers(dict(layers), paths[0], {"centrelines", "widths", "reaches"}, STYLES)
    masked = 0 if paths[1] is None else _write_mask(layers, source, paths[1])
    report = {**_report(layers, source, options), "mask": None if mask is None else str(mask), "mask_pixels": masked}
    return RiverProducts(layers, report)


def check_network(path: str | Path, overwrite: bool = False) -> Path:
    """Refuse a GeoPackage of several layers that could not be written, before the work.

    Raises:
        OptionsError: It is no GeoPackage.
        OutputError: The folder is missing or cannot be written, or the file exists.
    """
    path = Path(path)
    if path.suffix.lower() != ".gpkg":
        raise OptionsError(f"{path} ends in {path.suffix!r}, and the products are several layers. Use .gpkg.")
    return check_path(path, overwrite)


def _checked(out: str | Path | None, mask: str | Path | None, overwrite: bool) -> tuple[Path | None, Path | None]:
    return (
        None if out is None else check_network(out, overwrite),
        None if mask is None else check_path(Path(mask), overwrite),
    )


def write_layers(
    layers: Mapping[str, gpd.GeoDataFrame], path: Path, lines: Collection[str], styles: Mapping[str, Style]
) -> None:
    """Write tables as layers of one GeoPackage with the styles that QGIS shows them in, whole or not at all.

    Args:
        layers: Tables by the name of their layer.
        path: The file to be, replaced only once the new one is whole.
        lines: Layers of lines; the others are polygons.
        styles: Of some of the layers, by name.

    Raises:
        OutputError: The folder is missing or the disk is full.
    """
    with _faults(path), _whole_or_not(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        for name, table in layers.items():
            kind = "LineString" if name in lines else "Polygon"
            pyogrio.write_dataframe(table, part, driver="GPKG", layer=name, geometry_type=kind, append=part.exists())
            found = pyogrio.read_info(part, layer=name, force_feature_count=True)["features"]
            if found != len(table):
                raise OutputError(f"{path} cannot be written: {found} of {len(table)} rows arrived. Is the disk full?")
        pyogrio.write_dataframe(styles_table(styles), part, driver="GPKG", layer=STYLES_LAYER, append=True)


def _write_mask(layers: Layers, source: Source, path: Path) -> int:
    """Mask of the river with the largest network; nothing where there is none. Returns its pixels."""
    rivers = layers.water[layers.water["kind"] == "river"]
    if len(rivers) == 0:
        return 0
    largest = rivers.iloc[:1]
    if source.grid is not None:
        return write_mask(largest.geometry.iloc[0], source.grid, path)
    if not _is_true(largest):
        largest = largest.to_crs(largest.estimate_utm_crs())
    polygon = largest.geometry.iloc[0]
    return write_mask(polygon, mask_grid(polygon, largest.crs, source.pixel_m), path)


def _is_true(largest: gpd.GeoDataFrame) -> bool:
    """Whether a layer's coordinates are metres on the ground, or there is no CRS."""
    crs: pyproj.CRS | None = largest.crs
    if crs is None or crs.geodetic_crs is None:
        return True
    return bool(abs(shapely.area(largest.geometry.iloc[0]) / largest["area_m2"].iloc[0] - 1) < _TRUE)


def _report(layers: Layers, source: Source, options: RiverOptions) -> dict[str, Any]:
    kinds = layers.water["kind"].value_counts().to_dict() if len(layers.water) else {}
    main = layers.centrelines[layers.centrelines["role"] == "main"] if len(layers.centrelines) else layers.centrelines
    return {
        "source": source.name,
        "pixel_m": source.pixel_m,
        "polygons": len(source.polygons),
        "bodies": {kind: int(kinds.get(kind, 0)) for kind in ("river", "lake", "pond")},
        "bridges": len(layers.bridges),
        "bridged_m": float(layers.bridges["gap_m"].sum()),
        "centrelines": len(layers.centrelines),
        "main_m": float(main["length_m"].sum()) if len(main) else 0.0,
        "sections": len(layers.widths),
        "reaches": len(layers.reaches),
        "islands": len(layers.islands),
        "options": options.model_dump(mode="json"),
        "notices": list(_notices(layers, source, options)),
    }


def _notices(layers: Layers, source: Source, options: RiverOptions) -> Iterator[str]:
    """What a person should know of the input, a line each."""
    if source.plane.crs is None and len(source.polygons):
        unit = "pixels" if source.grid is not None else "units of its coordinates"
        yield f"{source.name} has no CRS, so lengths and areas are in {unit}, not in metres"
    if source.mended:
        yield f"{source.name}: {source.mended:,} shapes crossed themselves and were mended"
    if len(layers.water) == 0 and len(source.polygons):
        least = least_m2(options, source.pixel_m)
        yield f"all {len(source.polygons):,} water bodies are smaller than {least:g} m2. Give a smaller --min-area"
    elif len(layers.water) and not (layers.water["kind"] == "river").any():
        yield "there is no river, only lakes or ponds, so there are no centrelines, widths or reaches"
