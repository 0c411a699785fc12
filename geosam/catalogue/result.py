"""A STAC item that describes the result of a run: where, when, by what, and its files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyproj
import shapely
from affine import Affine
from shapely.geometry import mapping

from geosam.errors import OutputError
from geosam.vector import check_path

VERSION = "1.1.0"
EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
_KINDS = {
    ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3",
    ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
    ".tif": "image/tiff; application=geotiff",
    ".json": "application/json",
}
_WHAT = {
    "rivers": ("River polygons", ["data"]),
    "probability": ("Probability of water, 0 to 1", ["data"]),
    "mask": ("Water mask: 1 water, 0 dry, 255 nodata", ["data"]),
    "products": ("Centrelines, widths, reaches and islands", ["data"]),
    "report": ("Report of the run", ["metadata"]),
}
"""Assets in the order of the item: title and roles."""
_EDGE_POINTS = 21
"""Points along each side of a footprint: straight in one CRS is bent in another."""

Report = Mapping[str, Any]


def item_path(result: Path) -> Path:
    """Where the item of a result stands: ``rivers.stac.json`` beside ``rivers.gpkg``."""
    return result.with_suffix(".stac.json")


def check_item(result: Path, overwrite: bool = False) -> Path:
    """Refuse an item that could not be written, before a run.

    Raises:
        OutputError: It exists, or its folder cannot be written.
    """
    return check_path(item_path(result), overwrite)


def write_item(result: Path, reports: Sequence[Report], assets: Mapping[str, Path], overwrite: bool = False) -> Path:
    """Write the item of a result beside it; it appears whole or not at all. Returns its path.

    Args:
        result: The polygons' file.
        reports: Reports of the scenes in it.
        assets: Files of the result besides, by the names probability, mask, products and report.
        overwrite: Replace an existing item.

    Raises:
        OutputError: The item exists, or cannot be written.
    """
    path = check_item(result, overwrite)
    item = result_item(result.stem, reports, {"rivers": result, **assets}, path.parent)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(item, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror or error}). Make room.") from None
    return path


def result_item(name: str, reports: Sequence[Report], assets: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """The item of a result as plain JSON values: STAC 1.1 with the projection and processing extensions.

    Its ``datetime`` is that of the run, since few images say when they were taken. Without a CRS it has no geometry.

    Args:
        name: Its id.
        reports: Reports of the scenes that were run.
        assets: Files by name.
        folder: Where the item will stand, which addresses are relative to.
    """
    footprint = shapely.union_all([area for report in reports if (area := _footprint(report)) is not None])
    placed = not footprint.is_empty
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "geometry": mapping(footprint) if placed else None,
        **({"bbox": [round(value, 7) for value in footprint.bounds]} if placed else {}),
        "properties": _properties(reports),
        "links": _links(reports, folder),
        "assets": {key: _asset(key, assets[key], folder, reports) for key in _WHAT if key in assets},
    }


def _properties(reports: Sequence[Report]) -> dict[str, Any]:
    first = reports[0]
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    gsd = [report["gsd_m"] for report in reports if report["gsd_m"] is not None]
    model, coarse = first["model"], first["coarse"]
    bodies, area = sum(report["polygons"] for report in reports), sum(report["area_m2"] for report in reports)
    return {
        "datetime": now,
        "created": now,
        "title": f"Water polygons from {_called(reports)}",
        **({"gsd": min(gsd)} if gsd and min(gsd) > 0 else {}),
        "proj:code": _code(reports),
        **({} if _code(reports) else _wkt(reports)),
        "processing:software": {"geosam": str(first["geosam"])},
        "processing:datetime": now,
        "processing:lineage": (
            f"geosam segment: first guess of water by {coarse['method']}, model {model['name']}, "
            f"probability above {first['threshold']:g} is water."
        ),
        "geosam:model": dict(model),
        "geosam:water_bodies": bodies,
        "geosam:area_m2": round(float(area), 3),
    }


def _called(reports: Sequence[Report]) -> str:
    return Path(str(reports[0]["scene"])).name if len(reports) == 1 else f"{len(reports)} scenes"


def _code(reports: Sequence[Report]) -> str | None:
    """The authority's code of the CRS, where all scenes share one."""
    systems = {report["crs"] for report in reports}
    crs = next(iter(systems)) if len(systems) == 1 else None
    authority = pyproj.CRS(crs).to_authority() if crs else None
    return ":".join(authority) if authority else None


def _wkt(reports: Sequence[Report]) -> dict[str, Any]:
    systems = {report["crs"] for report in reports}
    crs = next(iter(systems)) if len(systems) == 1 else None
    return {"proj:wkt2": pyproj.CRS(crs).to_wkt()} if crs else {}


def _links(reports: Sequence[Report], folder: Path) -> list[dict[str, Any]]:
    """What the result was made from, where that is a file or an address."""
    scenes = [str(report["scene"]) for report in reports]
    return [
        {"rel": "derived_from", "href": _href(scene, folder), "title": "Orthoimage"}
        for scene in scenes
        if "://" in scene or Path(scene).is_file()
    ]


def _asset(key: str, path: Path, folder: Path, reports: Sequence[Report]) -> dict[str, Any]:
    title, roles = _WHAT[key]
    kind = _KINDS.get(path.suffix.lower())
    grid: dict[str, Any] = {}
    if key in ("probability", "mask") and len(reports) == 1:
        width, height = reports[0]["size_px"]
        grid = {"proj:shape": [height, width], "proj:transform": list(reports[0]["transform"])}
    if key == "rivers" and path.suffix.lower() == ".geojson":
        grid = {"proj:code": "EPSG:4326"}
    return {
        "href": _href(str(path), folder),
        "title": title,
        **({"type": kind} if kind else {}),
        "roles": roles,
        **grid,
    }


def _href(path: str, folder: Path) -> str:
    """Relative where that leads there; an address of the web as it is."""
    if "://" in path or path.startswith("/vsi"):
        return path
    relative = os.path.relpath(Path(path).expanduser().resolve(), folder.resolve())
    return Path(relative).as_posix() if relative.startswith("..") else f"./{Path(relative).as_posix()}"


def _footprint(report: Report) -> shapely.Polygon | None:
    """The scene's frame in longitude and latitude, counter-clockwise."""
    if report["crs"] is None:
        return None
    (width, height), grid = report["size_px"], Affine(*report["transform"])
    steps = [index / (_EDGE_POINTS - 1) for index in range(_EDGE_POINTS - 1)]
    corners = [(0, 0), (0, height), (width, height), (width, 0)]
    ring = [
        (x0 + (x1 - x0) * step, y0 + (y1 - y0) * step)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True)
        for step in steps
    ]
    to_lonlat = pyproj.Transformer.from_crs(report["crs"], "EPSG:4326", always_xy=True)
    lonlat = [to_lonlat.transform(*(grid @ xy)) for xy in ring]
    if not all(math.isfinite(value) for pair in lonlat for value in pair):
        return None
    polygon = shapely.Polygon([(round(lon, 7), round(lat, 7)) for lon, lat in lonlat]).simplify(1e-7)
    return shapely.geometry.polygon.orient(polygon)
