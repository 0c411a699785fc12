"""How QGIS shows the layers of a change, in the colours of the figure."""

from __future__ import annotations

from geosam.vector.style import Categories, Style, Symbol

STYLES: dict[str, Style] = {
    "eroded": Symbol("fill", (213, 94, 0, 200), (150, 60, 0, 255), width_mm=0.1),
    "accreted": Symbol("fill", (232, 197, 71, 200), (150, 120, 20, 255), width_mm=0.1),
    "stable": Symbol("fill", (90, 165, 214, 150), (0, 94, 168, 255), width_mm=0.1),
    "migration": Symbol("line", (40, 40, 40, 255), width_mm=0.5),
    "displacements": Symbol("line", (40, 40, 40, 120), width_mm=0.15),
    "cutoffs": Symbol("line", (204, 121, 167, 255), width_mm=1.0),
    "courses": Categories(
        "date",
        {
            "early": Symbol("line", (120, 120, 120, 255), width_mm=0.4),
            "late": Symbol("line", (8, 48, 107, 255), width_mm=0.4),
        },
    ),
}
