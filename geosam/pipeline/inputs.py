"""From what a user names to scenes: rasters as they are, folders, lists and STAC catalogues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from geosam.errors import SceneError

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
"""Endings of the files that are taken from a folder."""
_ROLES = {"data", "visual"}
_LEAST_BANDS = 3
"""Assets that say they have fewer are passed over: the single bands of a satellite's item."""


@dataclass(frozen=True)
class Source:
    """A raster to run."""

    path: str
    """Path, URL or GDAL name."""
    name: str | None = None
    """The id of its STAC item; None: it is called as its file is."""


def sources(inputs: Sequence[str], asset: str | None = None) -> list[Source]:
    """The rasters that inputs stand for, in the order given.

    Args:
        inputs: Each a raster; a folder of rasters, by path or by a URL that ends in ``/``; a list of inputs
            (``.txt``, one a line, relative to the list, ``#`` begins a comment); or a STAC item, collection,
            catalogue or search result (``.json``), by path or URL.
        asset: Which asset of a STAC item; None: the first GeoTIFF with the role data or visual that does not say
            that it has fewer than three bands.

    Raises:
        SceneError: A folder, list or catalogue cannot be read or holds nothing; an item lacks the asset.
    """
    return [source for one in inputs for source in _sources(one, asset)]


def _sources(one: str, asset: str | None) -> list[Source]:
    suffix = Path(urlsplit(one).path if "://" in one else one).suffix.lower()
    if suffix == ".txt":
        return sources([beside(one, line) for line in _lines(one)], asset)
    if suffix in (".json", ".geojson"):
        found = [Source(_href(item, base, asset), str(item.get("id", "item"))) for item, base in _items(one)]
        return _something(found, one, "STAC items")
    if one.endswith("/") and "://" in one:
        return _something([Source(path) for path in _remote_folder(one)], one, "rasters")
    return [Source(path) for path in _folder(one)] or [Source(one)]


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
        raise SceneError(_unread(url, error)) from None


def _lines(path: str) -> list[str]:
    lines = [line.strip() for line in _text(path).splitlines()]
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise SceneError(f"{path} names no scene. Write one path or URL a line.")
    return named


# STAC -----------------------------------------------------------------------------------------------------------------


def _items(url: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every item under a STAC document, with the address of the document that it stands in."""
    waiting, seen = [url], {url}
    while waiting:
        at = waiting.pop(0)
        document = _document(at)
        kind = document.get("type")
        if kind == "Feature":
            yield document, at
        elif kind == "FeatureCollection":
            yield from ((item, at) for item in document.get("features", []))
        elif kind not in ("Catalog", "Collection") and "links" not in document:
            raise SceneError(f"{at} is JSON, but no STAC item, collection or catalogue (its type is {kind!r}).")
        if kind != "Feature":
            new = [beside(at, href) for href in _followed(document, kind)]
            waiting += [link for link in dict.fromkeys(new) if link not in seen]
            seen.update(new)


def _followed(document: Mapping[str, Any], kind: object) -> list[str]:
    """Links that lead on to items: down a catalogue, or to the next page of a search."""
    links = [link for link in document.get("links", []) if isinstance(link, dict) and "href" in link]
    rels = {str(link.get("rel")) for link in links}
    wanted = {"next"} if kind == "FeatureCollection" else {"child", "item"} & rels or {"items"}
    return [str(link["href"]) for link in links if link.get("rel") in wanted and link.get("method", "GET") == "GET"]


def _href(item: Mapping[str, Any], base: str, asset: str | None) -> str:
    assets: Mapping[str, Any] = item.get("assets") or {}
    key = asset if asset is not None else next((key for key, value in assets.items() if _is_picture(value)), None)
    if key is None or "href" not in assets.get(key, {}):
        wrong = f"no asset {asset}" if asset is not None else "no GeoTIFF with the role data or visual"
        raise SceneError(
            f"the STAC item {item.get('id', '?')} of {base} has {wrong}; it has {', '.join(assets) or 'no assets'}. "
            "Name one with --asset."
        )
    return beside(base, str(assets[key]["href"]))


def _is_picture(asset: Mapping[str, Any]) -> bool:
    path = urlsplit(str(asset.get("href", ""))).path.lower()
    geotiff = "geotiff" in str(asset.get("type", "")).lower() or path.endswith((".tif", ".tiff"))
    bands = next((asset[key] for key in ("bands", "eo:bands", "raster:bands") if asset.get(key)), None)
    return geotiff and bool(_ROLES & set(asset.get("roles") or ())) and (bands is None or len(bands) >= _LEAST_BANDS)


def _document(url: str) -> Mapping[str, Any]:
    text = _text(url)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SceneError(f"{url} is not JSON that can be read ({error}). Give a STAC document.") from None
    if not isinstance(document, dict):
        raise SceneError(f"{url} is JSON, but no STAC item, collection or catalogue.")
    return document


# Paths and URLs -------------------------------------------------------------------------------------------------------


def beside(base: str, href: str) -> str:
    """A path or URL as it is meant in the document at ``base``."""
    if href.startswith("file://"):
        return urlsplit(href).path
    rooted = Path(href).is_absolute() and "://" not in base
    if "://" in href or href.startswith(("/vsi", "~")) or rooted:
        return href
    if "://" not in base:
        return os.path.normpath(Path(base).expanduser().parent / href)
    # urljoin knows only the protocols of the web; the others are told to it as one of them.
    protocol, rest = base.split("://", 1)
    return urljoin(f"http://{rest}", href).replace("http://", f"{protocol}://", 1)


def _text(url: str) -> str:
    try:
        if "://" not in url:
            return Path(url).expanduser().read_text(encoding="utf-8")
        import fsspec

        with fsspec.open(url, "rt", encoding="utf-8") as file:
            return str(file.read())
    except Exception as error:  # Every kind of storage raises its own.
        raise SceneError(_unread(url, error)) from None


def _unread(url: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{url} does not exist. Check the path."
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{url} cannot be read ({reason}). Check the address and the network."
