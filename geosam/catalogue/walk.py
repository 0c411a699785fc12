"""Every item under a STAC document, and every item that a search finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from geosam.catalogue.addresses import beside, text_at, unread
from geosam.errors import OptionsError, SceneError

Item = Mapping[str, Any]
"""A STAC item as it stands in its JSON."""
_ASKED = ("collections", "ids", "bbox", "datetime", "intersects", "query", "filter", "sortby", "limit")


def items(url: str) -> Iterator[tuple[Item, str]]:
    """Every item under a STAC document, with the address of the document that it stands in.

    Args:
        url: An item, collection, catalogue or page of a search result; followed down and to its next pages.

    Raises:
        SceneError: A document cannot be read, or is no STAC.
    """
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


def is_search(url: str) -> bool:
    """Whether an address asks a STAC API: ``https://host/search?collections=...&bbox=...``."""
    return "://" in url and urlsplit(url).path.rstrip("/").endswith("/search")


def searched(url: str) -> Iterator[tuple[Item, str]]:
    """Every item that a search finds, page by page, with the address of the search.

    Args:
        url: Search endpoint of a STAC API with its parameters: collections, ids, bbox, datetime, ...; ``limit`` is the
            size of a page, as in the API, and not the end.

    Raises:
        OptionsError: A parameter is not one of the API's, or nothing narrows the search.
        SceneError: The API cannot be asked, or pystac-client is not installed.
    """
    try:
        from pystac_client import ItemSearch
    except ImportError:
        raise SceneError(
            f"{url} is a search, which needs pystac-client. Install it: pip install 'geosam-rivers[stac]'."
        ) from None
    asked: dict[str, Any] = dict(parse_qsl(urlsplit(url).query))
    unknown = sorted(set(asked) - set(_ASKED))
    if unknown or not set(asked) - {"limit", "sortby"}:
        wrong = f"has an unknown parameter {unknown[0]}" if unknown else "would find everything"
        raise OptionsError(f"{url} {wrong}. Narrow it with {', '.join(_ASKED[:4])}.")
    if "limit" in asked:
        asked["limit"] = int(asked["limit"])
    try:
        search = ItemSearch(url=url.split("?")[0], method="GET", **asked)
        for page in search.pages_as_dicts():
            yield from ((item, url) for item in page.get("features", []))
    except Exception as error:  # pystac-client, requests and JSON each raise their own.
        raise SceneError(unread(url, error)) from None


def _followed(document: Mapping[str, Any], kind: object) -> list[str]:
    """Links that lead on to items: down a catalogue, or to the next page of a search."""
    links = [link for link in document.get("links", []) if isinstance(link, dict) and "href" in link]
    rels = {str(link.get("rel")) for link in links}
    wanted = {"next"} if kind == "FeatureCollection" else {"child", "item"} & rels or {"items"}
    return [str(link["href"]) for link in links if link.get("rel") in wanted and link.get("method", "GET") == "GET"]


def _document(url: str) -> Mapping[str, Any]:
    text = text_at(url)
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SceneError(f"{url} is not JSON that can be read ({error}). Give a STAC document.") from None
    if not isinstance(document, dict):
        raise SceneError(f"{url} is JSON, but no STAC item, collection or catalogue.")
    return document
