"""How QGIS shows the layers of a river network."""

from __future__ import annotations

from geosam.vector.shades import Colour
from geosam.vector.style import WATER, Categories, Style, Symbol

_NAVY: Colour = (8, 48, 107, 255)
_STILL: Colour = (0, 94, 168, 255)
_ORANGE: Colour = (230, 85, 13, 255)

STYLES: dict[str, Style] = {
    "water": Categories(
        "kind",
        {
            "river": WATER,
            "lake": Symbol("fill", (116, 196, 180, 110), _STILL),
            "pond": Symbol("fill", (168, 221, 181, 110), _STILL),
        },
    ),
    "centrelines": Categories(
        "role",
        {
            "main": Symbol("line", _NAVY, width_mm=0.7),
            "channel": Symbol("line", (66, 117, 181, 255), width_mm=0.4),
            "branch": Symbol("line", (107, 142, 189, 255), width_mm=0.3),
        },
    ),
    "widths": Symbol("line", (*_ORANGE[:3], 170), width_mm=0.15),
    # Wide and faint, so that the centreline under it is seen: reaches end where the colour breaks.
    "reaches": Symbol("line", (106, 81, 163, 60), width_mm=1.1),
    "islands": Symbol("fill", (217, 201, 140, 150), (140, 120, 60, 255)),
    "bridges": Symbol("fill", (*_ORANGE[:3], 130), _ORANGE),
}
