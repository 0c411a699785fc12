"""How QGIS shows segments."""

from __future__ import annotations

from geosam.vector.shades import Colour
from geosam.vector.style import Categories, Style, Symbol

# Told apart without seeing red and green (Wong 2011, doi:10.1038/nmeth.1618), and a grey.
_HUES: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (120, 120, 120),
)  # fmt: skip


def _symbol(hue: tuple[int, int, int]) -> Symbol:
    """Faint, for segments lie one over another, and the ortho under them."""
    fill: Colour = (*hue, 70)
    return Symbol("fill", fill, (*hue, 255), width_mm=0.4)


# Neighbours get different colours, since numbers follow the place; what the colour is means nothing.
STYLES: dict[str, Style] = {
    "segments": Categories(f'"id" % {len(_HUES)}', {str(number): _symbol(hue) for number, hue in enumerate(_HUES)})
}
