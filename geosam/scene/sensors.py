"""How the bands of common sensors are named and ordered."""

from __future__ import annotations

Roles = tuple[str, ...]
"""The role of each band in file order; an empty string: a band that geosam has no use for."""

ROLES: Roles = (
    "red", "green", "blue", "nir", "swir1", "swir2", "alpha",
    "coastal", "green_i", "yellow", "rededge", "rededge1", "rededge2", "rededge3",
    "nir_narrow", "water_vapour", "cirrus", "pan", "thermal", "thermal2",
)  # fmt: skip
"""Every role a band can have. The first six are the ones that water is found by."""

ALIASES = {"r": "red", "g": "green", "b": "blue", "n": "nir", "a": "alpha"}

_RGB: Roles = ("red", "green", "blue")
_RGBN: Roles = (*_RGB, "nir")
_BGRN: Roles = ("blue", "green", "red", "nir")
_S2_EDGES: Roles = ("rededge1", "rededge2", "rededge3", "nir", "nir_narrow")
_L8: Roles = ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")

PRESETS: dict[str, dict[int, Roles]] = {
    "naip": {3: _RGB, 4: _RGBN},
    "sentinel2": {
        3: _RGB,
        4: _BGRN,
        10: ("blue", "green", "red", *_S2_EDGES, "swir1", "swir2"),
        12: ("coastal", "blue", "green", "red", *_S2_EDGES, "water_vapour", "swir1", "swir2"),
        13: ("coastal", "blue", "green", "red", *_S2_EDGES, "water_vapour", "cirrus", "swir1", "swir2"),
    },
    "landsat8": {
        6: _L8[1:],
        7: _L8,
        8: (*_L8, ""),
        9: (*_L8, "pan", "cirrus"),
        10: (*_L8, "cirrus", "thermal", "thermal2"),
        11: (*_L8, "pan", "cirrus", "thermal", "thermal2"),
    },
    "planetscope": {
        4: _BGRN,
        5: (*_BGRN, ""),
        8: ("coastal", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
    },
    "drone-rgb": {3: _RGB},
}
"""Preset name to band count to roles. Orders are those of the agencies' own stacks."""

CODES: dict[str, dict[str, str]] = {
    "sentinel2": {
        "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge1", "6": "rededge2", "7": "rededge3",
        "8": "nir", "8a": "nir_narrow", "9": "water_vapour", "10": "cirrus", "11": "swir1", "12": "swir2",
    },
    "landsat8": {
        "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir1", "7": "swir2",
        "9": "cirrus", "10": "thermal", "11": "thermal2",
    },
    "landsat5": {"1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir1", "6": "thermal", "7": "swir2"},
}  # fmt: skip
"""Sensor to band code (B04 is "4") to role. Landsat's 15 m B8 is left out: it is never stacked with the others."""

HINTS: dict[str, tuple[str, ...]] = {
    "sentinel2": ("sentinel-2", "sentinel2", "s2a", "s2b", "s2c", "hls.s30", "s2_sr", "msil1c", "msil2a"),
    "landsat8": ("lc08", "lc09", "landsat-8", "landsat_8", "landsat8", "landsat-9", "landsat_9", "landsat9", "hls.l30"),
    "landsat5": ("lt05", "le07", "lt04", "landsat-5", "landsat_5", "landsat5", "landsat-7", "landsat_7", "landsat7"),
}
"""Words in file names and tags that give the sensor away."""

WAVELENGTHS: dict[str, tuple[float, float, float]] = {
    "coastal": (0.42, 0.443, 0.452),
    "blue": (0.452, 0.485, 0.518),
    "green": (0.518, 0.560, 0.590),
    "red": (0.62, 0.660, 0.69),
    "rededge": (0.69, 0.710, 0.755),
    "nir": (0.755, 0.840, 0.92),
    "swir1": (1.53, 1.610, 1.75),
    "swir2": (2.05, 2.200, 2.38),
}
"""Role to (from, best, to) in micrometres; of several bands in a range the one nearest to the best is taken."""
