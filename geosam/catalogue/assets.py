"""Which assets of an item are its image: one picture, or bands by their roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from geosam.catalogue.addresses import beside
from geosam.catalogue.walk import Item
from geosam.errors import SceneError
from geosam.scene.stack import BandSource

Asset = Mapping[str, Any]
_PICTURES = {"data", "visual"}
_ASIDE = {"thumbnail", "overview", "metadata"}
_LEAST_BANDS = 3
"""Assets that say they have fewer are no picture: the single bands of a satellite's item."""
_COLOURS = ("red", "green", "blue")
_ROLES = {**{role: role for role in (*_COLOURS, "nir")}, "nir08": "nir"}
"""STAC's common name to role; Landsat's near infrared is called nir08."""
_KINDS = (".tif", ".tiff", ".jp2", ".vrt", ".img")


def picture(item: Item, base: str, asset: str | None = None) -> str | None:
    """Path or URL of the asset that is a whole image, or None.

    Args:
        item: The item.
        base: Address of the document it stands in.
        asset: Its key; None: the first GeoTIFF with the role data or visual that does not say that it has fewer than
            three bands.

    Raises:
        SceneError: There is no asset of that name.
    """
    assets = _assets(item)
    if asset is not None:
        if "href" not in assets.get(asset, {}):
            raise missing(item, base, f"no asset {asset}")
        return beside(base, str(assets[asset]["href"]))
    key = next((key for key, value in assets.items() if _is_picture(value)), None)
    return None if key is None else beside(base, str(assets[key]["href"]))


def missing(item: Item, base: str, wrong: str) -> SceneError:
    """The error that an item lacks its image."""
    there = ", ".join(_assets(item)) or "no assets"
    return SceneError(
        f"the STAC item {item.get('id', '?')} of {base} has {wrong}; it has {there}. Name one with --asset."
    )


def bands_by_role(item: Item, base: str) -> list[BandSource]:
    """Where red, green, blue and, if there is one, near infrared of an item are, in this order.

    One asset that has them all is taken before single bands, a GeoTIFF before other formats, fine pixels before
    coarse ones; pictures made for looking at (role visual) only where nothing else has the colours.

    Raises:
        SceneError: A colour is in no asset.
    """
    usable = {key: asset for key, asset in _assets(item).items() if _is_raster(asset)}
    data = {key: asset for key, asset in usable.items() if "visual" not in _roles(asset)}
    for pool in (data, usable):
        found = [source for key, asset in pool.items() for source in _bands(item, key, asset, base)]
        if set(_COLOURS) <= {source.role for _, source in found}:
            return _chosen(found)
    wrong = "no GeoTIFF with the role data or visual, and no red, green and blue by their common names"
    raise missing(item, base, wrong)


_Rank = tuple[bool, float]


def _chosen(found: list[tuple[_Rank, BandSource]]) -> list[BandSource]:
    roles = [role for role in (*_COLOURS, "nir") if role in {source.role for _, source in found}]
    by_file: dict[str, set[str]] = {}
    for _, source in found:
        by_file.setdefault(source.href, set()).add(source.role)
    whole = next((href for href, held in by_file.items() if held >= set(roles)), None)
    ranked = sorted((pair for pair in found if whole in (None, pair[1].href)), key=lambda pair: pair[0])
    return [next(source for _, source in ranked if source.role == role) for role in roles]


def _bands(item: Item, key: str, asset: Asset, base: str) -> list[tuple[_Rank, BandSource]]:
    """The bands of an asset that have a role, with how well the asset would do."""
    facts = _band_facts(key, asset)
    shifted = bool(item.get("properties", {}).get("earthsearch:boa_offset_applied"))
    found = []
    for number, band in enumerate(facts, 1):
        role = _ROLES.get(str(band.get("eo:common_name") or band.get("common_name") or "").lower())
        if role is None:
            continue
        scale = band.get("raster:scale", band.get("scale"))
        offset = None if shifted else band.get("raster:offset", band.get("offset"))
        gsd = float(asset.get("gsd") or band.get("gsd") or 0.0)
        # nir08 stands behind nir where an item has both.
        second = role == "nir" and "08" in str(band.get("eo:common_name") or band.get("common_name"))
        source = BandSource(role, beside(base, str(asset["href"])), number, scale, offset)
        found.append(((not _is_geotiff(asset) or second, gsd), source))
    return found


def _band_facts(key: str, asset: Asset) -> list[dict[str, Any]]:
    """What an asset says of each of its bands, of STAC 1.0 (eo:bands, raster:bands) and 1.1 (bands) alike."""
    lists = [asset.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")]
    facts: list[dict[str, Any]] = [{} for _ in range(max(1, *map(len, lists)))]
    for named in lists:
        for band, said in zip(facts, named, strict=False):
            band.update(said)
    if len(facts) == 1:  # Facts of a single band may stand at its asset, and its key may be all that names it.
        own = {name: asset[name] for name in ("eo:common_name", "raster:scale", "raster:offset") if name in asset}
        facts[0] = {"common_name": key, **own, **facts[0]}
    return facts


def _assets(item: Item) -> Mapping[str, Asset]:
    return item.get("assets") or {}


def _roles(asset: Asset) -> set[str]:
    return set(asset.get("roles") or ())


def _is_geotiff(asset: Asset) -> bool:
    return "geotiff" in str(asset.get("type", "")).lower() or _path(asset).endswith((".tif", ".tiff"))


def _is_raster(asset: Asset) -> bool:
    said = str(asset.get("type", "")).lower()
    kind = said.startswith("image/tiff") or "jp2" in said or _path(asset).endswith(_KINDS)
    return "href" in asset and kind and not _roles(asset) & _ASIDE


def _is_picture(asset: Asset) -> bool:
    bands = next((asset[key] for key in ("bands", "eo:bands", "raster:bands") if asset.get(key)), None)
    enough = bands is None or len(bands) >= _LEAST_BANDS
    return "href" in asset and _is_geotiff(asset) and bool(_PICTURES & _roles(asset)) and enough


def _path(asset: Asset) -> str:
    return urlsplit(str(asset.get("href", ""))).path.lower()
