"""How a scene looks: palettes, season, sun, water; drawn at random or for a named water."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Rng = np.random.Generator
Colour = tuple[float, float, float, float]
"""Red, green, blue, near infrared as displayed, 0 to 1."""

WATERS: dict[str, tuple[Colour, ...]] = {
    "brown": ((0.40, 0.35, 0.31, 0.10), (0.50, 0.43, 0.33, 0.12), (0.34, 0.29, 0.23, 0.08), (0.56, 0.47, 0.36, 0.14)),
    "grey": ((0.42, 0.43, 0.42, 0.09), (0.34, 0.35, 0.35, 0.07), (0.52, 0.54, 0.53, 0.10), (0.46, 0.45, 0.47, 0.09)),
    "green": ((0.33, 0.39, 0.31, 0.07), (0.20, 0.26, 0.22, 0.05), (0.42, 0.46, 0.35, 0.09), (0.17, 0.30, 0.25, 0.05)),
    "clear": ((0.12, 0.20, 0.21, 0.04), (0.10, 0.24, 0.28, 0.04), (0.14, 0.17, 0.15, 0.04), (0.18, 0.36, 0.38, 0.05)),
    "black": ((0.09, 0.10, 0.10, 0.03), (0.14, 0.13, 0.12, 0.04), (0.11, 0.15, 0.17, 0.04), (0.17, 0.19, 0.19, 0.05)),
    "milky": ((0.52, 0.60, 0.58, 0.12), (0.44, 0.58, 0.60, 0.10), (0.60, 0.62, 0.56, 0.14)),
    "blue": ((0.18, 0.28, 0.36, 0.05), (0.25, 0.36, 0.44, 0.06), (0.12, 0.22, 0.34, 0.04)),
}
"""Deep water colours by name."""

# fmt: off
SEASONS: dict[str, dict[str, tuple[Colour, ...]]] = {
    "summer": {
        "leaf": ((0.24, 0.36, 0.20, 0.75), (0.32, 0.44, 0.26, 0.80), (0.18, 0.30, 0.18, 0.68), (0.30, 0.46, 0.34, 0.8)),
        "grass": (
            (0.40, 0.48, 0.30, 0.70),
            (0.32, 0.44, 0.26, 0.72),
            (0.47, 0.50, 0.34, 0.62),
            (0.36, 0.46, 0.34, 0.70),
        ),
        "soil": ((0.52, 0.46, 0.38, 0.65), (0.44, 0.38, 0.31, 0.55)),
    },
    "dry": {
        "leaf": ((0.30, 0.33, 0.24, 0.55), (0.24, 0.27, 0.20, 0.50), (0.36, 0.36, 0.28, 0.58)),
        "grass": (
            (0.60, 0.52, 0.44, 0.81),
            (0.56, 0.50, 0.38, 0.76),
            (0.52, 0.43, 0.40, 0.70),
            (0.66, 0.58, 0.44, 0.89),
        ),
        "soil": ((0.62, 0.54, 0.45, 0.78), (0.54, 0.44, 0.36, 0.68), (0.70, 0.62, 0.52, 0.88)),
    },
    "autumn": {
        "leaf": (
            (0.44, 0.38, 0.22, 0.60),
            (0.52, 0.42, 0.22, 0.62),
            (0.34, 0.36, 0.22, 0.60),
            (0.46, 0.32, 0.22, 0.56),
        ),
        "grass": ((0.46, 0.46, 0.32, 0.64), (0.52, 0.47, 0.36, 0.73)),
        "soil": ((0.42, 0.35, 0.28, 0.53), (0.48, 0.42, 0.35, 0.60)),
    },
    "bare": {
        "leaf": (
            (0.44, 0.42, 0.39, 0.55),
            (0.38, 0.36, 0.33, 0.47),
            (0.48, 0.44, 0.40, 0.60),
            (0.34, 0.36, 0.30, 0.43),
        ),
        "grass": ((0.44, 0.43, 0.35, 0.62), (0.50, 0.45, 0.40, 0.70), (0.40, 0.43, 0.33, 0.56)),
        "soil": ((0.42, 0.37, 0.33, 0.53), (0.50, 0.46, 0.42, 0.62), (0.34, 0.30, 0.26, 0.43)),
    },
    "conifer": {
        "leaf": ((0.15, 0.23, 0.17, 0.48), (0.20, 0.27, 0.20, 0.52), (0.12, 0.19, 0.16, 0.44)),
        "grass": ((0.40, 0.44, 0.32, 0.55), (0.46, 0.44, 0.36, 0.50)),
        "soil": ((0.46, 0.42, 0.37, 0.58), (0.54, 0.50, 0.45, 0.68)),
    },
}

# fmt: on
GRAVELS: tuple[Colour, ...] = (
    (0.62, 0.60, 0.57, 0.60),
    (0.52, 0.51, 0.50, 0.50),
    (0.70, 0.66, 0.60, 0.68),
    (0.60, 0.53, 0.44, 0.56),
    (0.44, 0.43, 0.42, 0.42),
    (0.76, 0.73, 0.68, 0.72),
)  # fmt: skip
ROADS: tuple[Colour, ...] = (
    (0.34, 0.34, 0.35, 0.30), (0.55, 0.54, 0.53, 0.50), (0.20, 0.20, 0.21, 0.20), (0.70, 0.66, 0.58, 0.66),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = (
    (0.15, 0.15, 0.17, 0.15), (0.24, 0.23, 0.23, 0.24), (0.45, 0.30, 0.25, 0.42), (0.80, 0.80, 0.80, 0.75),
    (0.27, 0.35, 0.46, 0.30), (0.30, 0.40, 0.42, 0.30), (0.55, 0.54, 0.53, 0.52), (0.10, 0.11, 0.12, 0.10),
    (0.42, 0.39, 0.36, 0.40), (0.36, 0.34, 0.33, 0.34), (0.62, 0.58, 0.53, 0.56), (0.50, 0.38, 0.32, 0.45),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """Everything the painter needs besides the vectors; lengths in metres unless named otherwise."""

    gsd_m: float
    sun: tuple[float, float]
    """Unit vector (row, col) in which shadows fall."""
    sun_slope: float
    """Tangent of the sun's elevation."""
    shadow: Colour
    """What is left of each band in shadow."""
    leaf: tuple[Colour, ...]
    grass: tuple[Colour, ...]
    soil: tuple[Colour, ...]
    gravel: Colour
    deep: Colour
    """Water where it is deep."""
    turbid: Colour
    """Water of another turbidity, mixed in along and across the flow."""
    forest: float
    """Share of the land under trees, 0 to 1."""
    riparian: float
    """Chance of trees along the banks, 0 to 1."""
    riparian_m: float
    crown_m: float
    """Crown radius."""
    tree_m: float
    """Tree height."""
    conifer: float
    """0: rounded crowns; 1: cones."""
    bare: float
    """Leaflessness: 0 summer, 1 winter."""
    gravel_m: float
    """Width of bare gravel along inner banks."""
    fields: float
    """Share of open land under fields, 0 to 1."""
    parcel_m: float
    row_m: float
    """Distance of plough and mowing lines."""
    depth_m: float
    """Distance from the bank at which the bed is out of sight."""
    streak: float
    ripple: float
    glint: float
    whitewater: float
    patchy: float
    """Strength of turbidity patches, 0 to 1."""
    roofs: float
    """Houses a hectare."""
    road: Colour
    road_m: float
    snow: float
    haze: float
    haze_colour: Colour
    gain: Colour
    vivid: float
    """Saturation: 1 as the palettes have it."""
    lift: float
    """How far dark tones are lifted, 0 to 1."""
    ground: float
    """Roughness of grass and soil."""
    speckle: float
    """Roughness of gravel."""
    contrast: float
    noise: float
    soft_px: float
    """Width of the bank's blur."""
    overhang: bool = True
    """Crowns may lean over the water (and hide it from the truth)."""


def _pick(rng: Rng, choices: tuple[Colour, ...], spread: float = 0.05) -> Colour:
    base = np.array(choices[rng.integers(len(choices))])
    base = base * rng.uniform(1 - 2 * spread, 1 + 2 * spread) + rng.normal(0, spread / 3, 4)
    r, g, b, n = np.clip(base, 0.03, 0.95)
    return float(r), float(g), float(b), float(n)


def draw_water(rng: Rng, water: str | None) -> tuple[Colour, Colour]:
    """Deep and turbid colours of a named water, or of any."""
    names = tuple(WATERS)
    name = names[rng.choice(len(names), p=[0.22, 0.16, 0.2, 0.13, 0.15, 0.06, 0.08])] if water is None else water
    other = name if rng.random() < 0.7 else names[rng.integers(len(names))]
    deep, turbid = _pick(rng, WATERS[name]), _pick(rng, WATERS[other])
    return deep, turbid


def _shadow(rng: Rng) -> Colour:
    left, blue = rng.uniform(0.22, 0.6), rng.uniform(0.0, 0.10)
    return left * (1 - blue), left, left * (1 + 1.6 * blue), left * 0.8


def draw_style(rng: Rng, gsd_m: float, water: str | None = None, season: str | None = None, **fixed: Any) -> Style:
    """A random look.

    Args:
        rng: Randomness.
        gsd_m: Metres a pixel.
        water: A key of :data:`WATERS`; None: any.
        season: A key of :data:`SEASONS`; None: any.
        fixed: Fields of :class:`Style` to set instead of drawing.
    """
    names = tuple(SEASONS)
    season = names[rng.choice(len(names), p=[0.42, 0.17, 0.1, 0.19, 0.12])] if season is None else season
    palette = SEASONS[season]
    azimuth = rng.uniform(0, 2 * np.pi)
    deep, turbid = draw_water(rng, water)
    gravel = _pick(rng, GRAVELS)
    if water is None and rng.random() < 0.1:
        # Grey water over grey gravel: the bank is a change of texture more than of colour.
        deep = _pick(rng, (gravel,), 0.03)
        deep = (0.72 * deep[0], 0.73 * deep[1], 0.74 * deep[2], 0.12)
    conifer = 1.0 if season == "conifer" else float(rng.random() < 0.12)
    crown = float(np.exp(rng.uniform(np.log(1.3), np.log(5.5)))) * (0.6 if conifer else 1.0)
    cast = np.clip(rng.normal(1, 0.05, 4), 0.85, 1.15) * rng.uniform(0.82, 1.22)
    style = Style(
        gsd_m=gsd_m,
        sun=(float(np.sin(azimuth)), float(np.cos(azimuth))),
        sun_slope=float(np.tan(np.radians(rng.uniform(24, 68)))),
        shadow=_shadow(rng),
        leaf=tuple(_pick(rng, palette["leaf"]) for _ in range(3)),
        grass=tuple(_pick(rng, palette["grass"]) for _ in range(2)),
        soil=tuple(_pick(rng, palette["soil"]) for _ in range(2)),
        gravel=gravel,
        deep=deep,
        turbid=turbid,
        forest=float(rng.choice([0.03, 0.25, 0.55, 0.95], p=[0.25, 0.25, 0.25, 0.25])),
        riparian=float(rng.choice([0.0, 0.35, 0.9], p=[0.2, 0.3, 0.5])),
        riparian_m=float(rng.uniform(4, 25)),
        crown_m=crown,
        tree_m=crown * float(rng.uniform(1.6, 4.2)),
        conifer=conifer,
        bare=float(rng.uniform(0.5, 1)) if season == "bare" else 0.0,
        gravel_m=float(rng.choice([0.0, 2.0, 8.0, 30.0], p=[0.25, 0.25, 0.25, 0.25]) * rng.uniform(0.5, 1.5)),
        fields=float(rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.35, 0.25])),
        parcel_m=float(np.exp(rng.uniform(np.log(40), np.log(250)))),
        row_m=float(rng.uniform(0.5, 4)),
        depth_m=float(np.exp(rng.uniform(np.log(0.6), np.log(12)))),
        streak=float(rng.uniform(0, 0.03)),
        ripple=float(rng.choice([0.0, 0.02, 0.06], p=[0.4, 0.4, 0.2])),
        glint=float(rng.uniform(0.2, 1)) if rng.random() < 0.16 else 0.0,
        whitewater=float(rng.uniform(0.2, 1)) if rng.random() < 0.22 else 0.0,
        patchy=float(rng.uniform(0, 0.9)),
        roofs=float(rng.choice([0.0, 1.5, 5.0], p=[0.55, 0.27, 0.18])),
        road=_pick(rng, ROADS),
        road_m=float(rng.uniform(2.5, 9)),
        snow=float(rng.uniform(0.2, 0.9)) if rng.random() < 0.05 else 0.0,
        haze=float(rng.uniform(0.05, 0.35)) if rng.random() < 0.35 else 0.0,
        haze_colour=_pick(rng, ((0.62, 0.65, 0.70, 0.5), (0.7, 0.7, 0.7, 0.5), (0.55, 0.56, 0.66, 0.5))),
        gain=(float(cast[0]), float(cast[1]), float(cast[2]), 1.0),
        vivid=float(rng.uniform(0.35, 1.05)),
        lift=float(rng.uniform(0.0, 0.45)) if rng.random() < 0.6 else 0.0,
        ground=float(rng.uniform(0.02, 0.09)),
        speckle=float(rng.uniform(0.03, 0.14)),
        contrast=float(rng.uniform(0.75, 1.25)),
        noise=float(rng.uniform(0.003, 0.022)),
        soft_px=float(rng.uniform(0.5, 1.8)),
    )  # fmt: skip
    return replace(style, **fixed)
