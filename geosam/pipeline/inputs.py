"""From what a user names to scenes: rasters as they are, folders, lists and STAC catalogues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from geosam.catalogue.addresses import beside, text_at, unread
from geosam.catalogue.assets import picture
from geosam.catalogue.stack import stacked
from geosam.catalogue.walk import Item, is_search, items, searched
from geosam.errors import SceneError

__all__ = ["Source", "beside", "sources"]

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
"""Endings of the files that are taken from a folder."""
STAC = "stac:"
"""Before the address of a STAC document or search, whatever that ends in."""


@dataclass(frozen=True)
class Source:
    """A raster to run."""

    path: str
    """Path, URL or GDAL name; for bands of an item in several files the text of a stack."""
    name: str | None = None
    """The id of its STAC item; None: it is called as its file is."""


def sources(inputs: Sequence[str], asset: str | None = None) -> list[Source]:
    """The rasters that inputs stand for, in the order given.

    Args:
        inputs: Each a raster; a folder of rasters, by path or by a URL that ends in ``/``; a list of inputs
            (``.txt``, one a line, relative to the list, ``#`` begins a comment); or a STAC item, collection,
            catalogue or search result (``.json``), by path or URL. With ``stac:`` before it, such a document by any
            name, or a search of a STAC API, and bands are chosen by their roles.
        asset: Which asset of a STAC item. None: with ``stac:`` red, green, blue and near infrared by the common names
            of bands, from one asset or several; without, the first GeoTIFF with the role data or visual that does not
            say that it has fewer than three bands, and bands by their roles only where there is none.

    Raises:
        SceneError: A folder, list or catalogue cannot be read or holds nothing; an item lacks the asset.
    """
    return [source for one in inputs for source in _sources(one, asset)]


def _sources(one: str, asset: str | None) -> list[Source]:
    if one.startswith(STAC):
        address = one.removeprefix(STAC)
        found = searched(address) if is_search(address) else items(address)
        return _of_items(found, address, asset, by_role=True)
    suffix = Path(urlsplit(one).path if "://" in one else one).suffix.lower()
    if suffix == ".txt":
        return sources([_beside(one, line) for line in _lines(one)], asset)
    if suffix in (".json", ".geojson"):
        return _of_items(items(one), one, asset, by_role=False)
    if one.endswith("/") and "://" in one:
        return _something([Source(path) for path in _remote_folder(one)], one, "rasters")
    return [Source(path) for path in _folder(one)] or [Source(one)]


def _beside(base: str, line: str) -> str:
    return STAC + beside(base, line.removeprefix(STAC)) if line.startswith(STAC) else beside(base, line)


def _of_items(found: Iterator[tuple[Item, str]], where: str, asset: str | None, *, by_role: bool) -> list[Source]:
    listed = [Source(_image(item, base, asset, by_role), str(item.get("id", "item"))) for item, base in found]
    return _something(listed, where, "STAC items")


def _image(item: Item, base: str, asset: str | None, by_role: bool) -> str:
    """The raster of an item.

    Raises:
        SceneError: It has none.
    """
    whole = None if by_role and asset is None else picture(item, base, asset)
    return stacked(item, base) if whole is None else whole


def _something(found: list[Source], where: str, what: str) -> list[Source]:
    if not found:
        raise SceneError(f"{where} holds no {what}. Check the path; rasters end in {', '.join(RASTERS)}.")
    return found


def _folder(one: str) -> list[str]:
    """Rasters of a folder on this machine; none where it is a raster itself, as some formats are."""
    folder = Path(one).expanduser()
    if "://" in one or not folder.is_dir():
        return []
    return sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in RASTERS and path.name[0] != ".")


def _remote_folder(url: str) -> list[str]:
    import fsspec

    try:
        system, root = fsspec.url_to_fs(url)
        names = system.ls(root, detail=False)
        return sorted(str(system.unstrip_protocol(name)) for name in names if Path(name).suffix.lower() in RASTERS)
    except Exception as error:  # Every kind of storage raises its own.
        raise SceneError(unread(url, error)) from None


def _lines(path: str) -> list[str]:
    lines = [line.strip() for line in text_at(path).splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise SceneError(f"{path} names no scene. Write one path or URL a line.")
    return named
