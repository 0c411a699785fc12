"""Which band is which: from ``--bands``, a preset, band names, wavelengths or colour interpretation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geosam.errors import SceneError
from geosam.scene.header import Header
from geosam.scene.sensors import ALIASES, CODES, HINTS, PRESETS, ROLES, WAVELENGTHS

__all__ = ["PRESETS", "ROLES", "BandRoles", "band_roles"]

EXAMPLE = "--bands red=1,green=2,blue=3,nir=4"
COLORS = {"red": "red", "green": "green", "blue": "blue", "nir": "nir", "coastal": "coastal", "rededge": "rededge"}
"""GDAL's colour interpretation to role; its plain "swir" does not say which of the two."""

_WORDS: tuple[tuple[str, str], ...] = (
    (r"red[ _-]?edge", "rededge"),
    (r"swir[ _-]?(1|16|1600|1610)|(short[ _-]?wave)[ _-]?(infra[ _-]?red|ir)[ _-]?(1|\(swir ?1\))", "swir1"),
    (r"swir[ _-]?(2|22|2200)|(short[ _-]?wave)[ _-]?(infra[ _-]?red|ir)[ _-]?(2|\(swir ?2\))", "swir2"),
    (r"nir0?9|water[ _-]?vapou?r", "water_vapour"),
    (r"narrow[ _-]?nir|nir[ _-]?narrow|nir[ _-]?2|nir08a", "nir_narrow"),
    (r"nir[ _-]?(08|1)?|near[ _-]?infra[ _-]?red|infra[ _-]?red|vnir", "nir"),
    (r"coastal|aerosol|ultra[ _-]?blue", "coastal"),
    (r"green[ _-]?i", "green_i"),
    (r"yellow", "yellow"),
    (r"red", "red"),
    (r"green", "green"),
    (r"blue", "blue"),
    (r"pan|panchromatic", "pan"),
    (r"cirrus", "cirrus"),
    (r"alpha", "alpha"),
    (r"^r$", "red"),
    (r"^g$", "green"),
    (r"^b$", "blue"),
)
"""Patterns of words in band names, tried in order; each must stand alone."""
_GENERIC = re.compile(r"((band|layer|b)[ _-]*\d*)?", re.IGNORECASE)
_OTHER_INFRARED = re.compile(r"(short|mid|long|thermal)[a-z]*[ _-]*(wave[ _-]*)?infra")


@dataclass(frozen=True)
class BandRoles:
    """The answer, and what the user should know about it."""

    roles: dict[str, int]
    """Role to 1-based band; ``alpha`` is not among them."""
    alpha: int | None
    """Band that is 0 where there is no data."""
    warnings: tuple[str, ...] = ()


def band_roles(header: Header, source: str, bands: str | None) -> BandRoles:
    """Find the role of each band.

    Args:
        header: The raster.
        source: Named in messages.
        bands: The ``--bands`` option: ``role=number`` pairs, a preset, or None to ask the file.

    Raises:
        SceneError: The option is malformed or out of range, or the file does not say enough.
    """
    alpha = header.colors.index("alpha") + 1 if "alpha" in header.colors else None
    if bands is not None:
        roles = _from_option(header, source, bands)
        if alpha in roles.values():
            alpha = None  # the user knows better: NAIP's near infrared is often tagged alpha
        return BandRoles(roles, roles.pop("alpha", alpha), _without_color(roles, source))
    return _from_file(header, source, alpha)


def display_bands(roles: Mapping[str, int]) -> tuple[int, int, int]:
    """Bands shown as red, green and blue; a missing colour is lent by its neighbour in the spectrum."""
    red = roles.get("red") or roles.get("green") or roles.get("blue") or 1
    green = roles.get("green") or red
    return red, green, roles.get("blue") or green


def _from_option(header: Header, source: str, bands: str) -> dict[str, int]:
    text = bands.strip().lower()
    roles = _parse(text) if "=" in text else _preset(header, source, text)
    for role, band in roles.items():
        if not 1 <= band <= header.count:
            raise SceneError(f"--bands says {role}={band}, but {source} has {header.count} (the first is 1).")
    if not {"red", "green"} & roles.keys():
        raise SceneError(f"--bands {bands!r} names neither red nor green. Name at least one, for example {EXAMPLE}.")
    return roles


def _parse(text: str) -> dict[str, int]:
    roles: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z][a-z0-9_ -]*?)\s*=\s*(\d+)\s*", part)
        if match is None:
            raise SceneError(
                f"--bands cannot be read at {part.strip()!r}. Write role=number pairs, for example {EXAMPLE}."
            )
        role = ALIASES.get(match[1], match[1].replace("-", "_").replace(" ", "_"))
        if role not in ROLES:
            raise SceneError(f"--bands names an unknown role {match[1]!r}. Roles are {', '.join(ROLES)}.")
        if role in roles:
            raise SceneError(f"--bands names {role} twice. Give each role one band.")
        roles[role] = int(match[2])
    return roles


def _preset(header: Header, source: str, name: str) -> dict[str, int]:
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise SceneError(f"--bands {name!r} is no preset ({known}) and no list of role=number pairs like {EXAMPLE}.")
    orders = PRESETS[name]
    count = header.count
    if count not in orders and count - header.colors.count("alpha") in orders:
        count -= header.colors.count("alpha")
    if count not in orders and name in ("naip", "drone-rgb") and count > max(orders):
        count = max(orders)
    if count not in orders:
        counts = ", ".join(map(str, orders))
        raise SceneError(
            f"--bands {name} knows stacks of {counts} bands, and {source} has {header.count}. "
            f"Say which is which, for example {EXAMPLE}."
        )
    return {role: band for band, role in enumerate(orders[count], 1) if role}


def _without_color(roles: Mapping[str, int], source: str) -> tuple[str, ...]:
    missing = [role for role in ("red", "green", "blue") if role not in roles]
    if not missing:
        return ()
    lent = "green" if "green" in roles else "red"
    return (f"{source} has no {' or '.join(missing)} band; its picture shows {lent} there instead.",)


def _from_file(header: Header, source: str, alpha: int | None) -> BandRoles:
    plain = [band for band in range(1, header.count + 1) if band != alpha]
    if len(plain) == 1:
        raise SceneError(
            f"{source} has one band, and geosam needs colour. Give an RGB or multispectral raster, "
            "or say --bands red=1,green=1,blue=1 if grey must do."
        )
    roles, notes = _from_names(header)
    for look in (_from_wavelengths, _from_colors):
        if (
            not {"red", "green", "blue"} & roles.keys()
        ):  # names know better: any four bands may be tagged red, green, ...
            for role, band in look(header).items():
                roles.setdefault(role, band)
    named_alpha = roles.pop("alpha", None)
    if {"red", "green"} & roles.keys():
        return BandRoles(
            roles,
            alpha or named_alpha,
            (*notes, *_untagged(header, source, roles, plain), *_without_color(roles, source)),
        )
    return _from_position(source, plain, alpha)


def _from_position(source: str, plain: Sequence[int], alpha: int | None) -> BandRoles:
    """Nothing is tagged. Three bands are red, green, blue for everybody; four very probably start so."""
    if len(plain) not in (3, 4):
        raise SceneError(
            f"{source} has {len(plain)} bands, and none is tagged with its colour. "
            f"Say which is which, for example {EXAMPLE} or --bands sentinel2 (presets: {', '.join(PRESETS)})."
        )
    roles = dict(zip(("red", "green", "blue"), plain, strict=False))
    note = (
        f"{source} has 4 bands, and none is tagged: 1, 2, 3 are taken for red, green, blue, and near infrared is not "
        f"used. Say which is which, for example {EXAMPLE} (that is --bands naip), or --bands sentinel2 for "
        "blue, green, red, nir."
    )
    return BandRoles(roles, alpha, (note,) if len(plain) == 4 else ())


def _untagged(header: Header, source: str, roles: Mapping[str, int], plain: Sequence[int]) -> tuple[str, ...]:
    """Red, green and blue are tagged, and one band more is not: near infrared, probably, but only the user knows."""
    rest = [band for band in plain if band not in roles.values()]
    if len(rest) != 1 or "nir" in roles or not _GENERIC.fullmatch(header.names[rest[0] - 1]):
        return ()
    named = ",".join(f"{role}={band}" for role, band in roles.items())
    return (
        f"{source} does not say what band {rest[0]} is. If it is near infrared, say --bands {named},nir={rest[0]}.",
    )


def _from_colors(header: Header) -> dict[str, int]:
    roles: dict[str, int] = {}
    for band, color in enumerate(header.colors, 1):
        if color in COLORS:
            roles.setdefault(COLORS[color], band)
    return roles


def _from_wavelengths(header: Header) -> dict[str, int]:
    roles: dict[str, int] = {}
    for role, (low, best, high) in WAVELENGTHS.items():
        inside = [
            (abs(wave - best), band) for band, wave in enumerate(header.wavelengths, 1) if wave and low <= wave < high
        ]
        if inside:
            roles[role] = min(inside)[1]
    return roles


def _from_names(header: Header) -> tuple[dict[str, int], tuple[str, ...]]:
    roles: dict[str, int] = {}
    coded: dict[int, str] = {}
    for band, name in enumerate(header.names, 1):
        role, code = word_role(name), band_code(name)
        if role is not None:
            roles.setdefault(role, band)
        elif code is not None:
            coded[band] = code
    by_code, notes = _from_codes(header, coded)
    for role, band in by_code.items():
        roles.setdefault(role, band)
    return roles, notes


def word_role(name: str) -> str | None:
    """The role that the words of a band's name say, or None."""
    text = name.lower().strip()
    for pattern, role in _WORDS:
        if re.search(rf"(?<![a-z])(?:{pattern})(?![a-z0-9])", text) is None:
            continue
        return None if role == "nir" and _OTHER_INFRARED.search(text) else role
    return None


def band_code(name: str) -> str | None:
    """The sensor's band code in a name: "4" of B04, SR_B4 or B4_reflectance, "8a" of B8A; else None.

    Plain lower-case b1, b2, b3 are what Earth Engine calls bands of unknown kind: no code.
    """
    match = re.search(r"(?<![A-Za-z])(?:(?:[Ss][Rr]_)?B0?|(?:sr_b|b0))(\d{1,2}[Aa]?)(?![A-Za-z0-9])", name)
    return match[1].lower() if match else None


def _from_codes(header: Header, coded: Mapping[int, str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Roles on which every sensor that the codes fit agrees."""
    if not coded:
        return {}, ()
    sensors = _sensors(header, set(coded.values()))
    readings = [{CODES[sensor][code]: band for band, code in coded.items()} for sensor in sensors]
    agreed = (
        {role: band for role, band in readings[0].items() if all(r.get(role) == band for r in readings)}
        if readings
        else {}
    )
    if len(readings) > 1 and len(agreed) < len(coded):
        return agreed, (
            f"The band names fit {' and '.join(sensors)}, which agree only on {', '.join(agreed) or 'nothing'}; "
            "say --bands sentinel2 or landsat8, or role=number pairs, for the others.",
        )
    return agreed, ()


def _sensors(header: Header, codes: set[str]) -> list[str]:
    fits = [sensor for sensor, table in CODES.items() if codes <= table.keys()]
    hinted = [sensor for sensor in fits if any(word in header.hint for word in HINTS[sensor])]
    if hinted:
        return hinted
    text = " ".join(header.names).lower()
    if "sr_b" in text or "st_b" in text:
        # Collection 2 names are the same for Landsat 4-7 and 8-9; the older ones have a 7 and no optical 6.
        return ["landsat5"] if "7" in codes and "6" not in codes else ["landsat8"]
    if re.search(r"(?<![a-z])b0\d", text):
        return [sensor for sensor in fits if sensor == "sentinel2"]
    # Landsat 5 and 7 only where the file says so: their B2, B3, B4 are everybody else's green, red and near infrared.
    return [sensor for sensor in fits if sensor != "landsat5"]
