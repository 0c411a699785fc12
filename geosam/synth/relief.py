"""What stands up and throws shadows: tree crowns and houses as a height field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geosam.synth.noise import F32, enlarge, lattice, smooth, textured
from geosam.synth.style import Style

Lookup = Callable[[NDArray[np.float64], NDArray[np.float64]], F32]
"""From rows and columns (scene pixels) to a value there."""


@dataclass(frozen=True)
class Area:
    """A window of the scene: the core that is wanted and the border whose objects reach into it."""

    row: int
    col: int
    height: int
    width: int
    pad: int

    @property
    def origin(self) -> tuple[int, int]:
        """First pixel of the padded window."""
        return self.row - self.pad, self.col - self.pad

    @property
    def padded(self) -> tuple[int, int]:
        """Shape of the padded window."""
        return self.height + 2 * self.pad, self.width + 2 * self.pad

    @property
    def core(self) -> tuple[int, int]:
        """Shape of the core."""
        return self.height, self.width


@dataclass(frozen=True)
class Relief:
    """The upright things of an area's core; every array has the core's shape."""

    leaves: F32
    """Share of the pixel under a crown, 0 to 1."""
    tone: F32
    """Which tree: -1 to 1, one value a crown."""
    light: F32
    """Sun on the crown: about 1, above on the sunny side."""
    shade: F32
    """0 in sun, 1 in cast shadow."""
    roof: NDArray[np.uint8]
    """0 no roof, else 1 + index of its colour."""
    roof_light: F32
    """Sun on the roof's side."""


def shadow_reach(style: Style) -> int:
    """Border in pixels (a multiple of 32) that holds everything whose shadow or crown reaches the core."""
    reach = (style.tree_m / style.sun_slope + 3 * style.crown_m) / style.gsd_m
    return int(np.clip(32 * np.ceil(reach / 32), 32, 160))


def crown_grid(style: Style) -> tuple[int, int]:
    """Pixels a relief cell, and relief cells a crown's lattice cell."""
    size = style.crown_m * 1.35 / style.gsd_m
    factor = 1 if size <= 18 else 2 if size <= 40 else 4
    return factor, int(max(3, round(size / factor)))


def stand(seed: int, area: Area, style: Style, trees: Lookup, houses: Lookup, roof_kinds: int) -> Relief:
    """Plant trees and houses and light them.

    Args:
        seed: Scene seed.
        area: Window.
        style: Look.
        trees: Chance of a tree at a place, 0 to 1.
        houses: Chance of a house at a place, 0 to 1.
        roof_kinds: Number of roof colours.
    """
    factor, cell = crown_grid(style)
    top, tone = _crowns(seed, area, style, trees, factor, cell)
    origin = (area.origin[0] // factor, area.origin[1] // factor)
    ragged = textured("clump", seed + 5, origin, top.shape)
    if cell >= 10:
        # Boughs: without them a crown is a ball.
        ragged = np.float32(0.7) * ragged + np.float32(0.8) * smooth(seed + 6, cell / 3.5, origin, top.shape)
    base = np.float32(0.35 * style.tree_m / style.gsd_m)
    top += ragged * np.float32(0.2 * base)
    height = np.where(top > base, top, np.float32(0))
    roof, side, house_top = _houses(seed, area, style, houses, roof_kinds)
    height = np.maximum(height, house_top[::factor, ::factor])
    shade = _shadows(height, style, factor)
    light = _lit(height, style, factor)
    leaves = (height > 0).astype(np.float32) * (house_top[::factor, ::factor] == 0)
    grow = _core(area, factor)
    p = area.pad
    inner = (slice(p, p + area.height), slice(p, p + area.width))
    return Relief(grow(leaves), grow(tone), grow(light), grow(shade), roof[inner], side[inner])


def _core(area: Area, factor: int) -> Callable[[F32], F32]:
    """Cut the core from a padded coarse field and enlarge it to pixels."""
    m = area.pad // factor - 2
    return lambda field: enlarge(np.ascontiguousarray(field[m:-m, m:-m]), factor, area.core, 2)


def _crowns(seed: int, area: Area, style: Style, trees: Lookup, factor: int, cell: int) -> tuple[F32, F32]:
    """Height in pixels and tone of the highest crown over each relief cell of the padded window."""
    r0, c0 = area.origin[0] // factor, area.origin[1] // factor
    h, w = area.padded[0] // factor, area.padded[1] // factor
    i0, i1, j0, j1 = r0 // cell, -(-(r0 + h) // cell), c0 // cell, -(-(c0 + w) // cell)
    rows, cols = np.arange(i0 - 1, i1 + 1), np.arange(j0 - 1, j1 + 1)
    cy = (rows[:, None] + 0.12 + 0.76 * lattice(seed + 11, rows, cols)).astype(np.float64) * cell
    cx = (cols[None, :] + 0.12 + 0.76 * lattice(seed + 12, rows, cols)).astype(np.float64) * cell
    size = 0.45 + 0.8 * lattice(seed + 13, rows, cols)
    there = lattice(seed + 14, rows, cols) < trees(cy * factor, cx * factor)
    peak = np.where(there, size * (style.tree_m / style.gsd_m), -1e4).astype(np.float32)
    # A crown of the mean size is as wide as its lattice cell, so that a full forest closes.
    steep = (0.65 * style.tree_m / style.gsd_m / (0.85 * cell) ** 2 / size**1.2).astype(np.float32)
    hue = 2 * lattice(seed + 15, rows, cols) - 1
    return _highest(
        cy - i0 * cell, cx - j0 * cell, peak, steep, hue, cell, style.conifer, (r0 - i0 * cell, c0 - j0 * cell, h, w)
    )


def _highest(
    cy: NDArray[np.float64], cx: NDArray[np.float64], peak: F32, steep: F32, hue: F32, cell: int, cone: float,
    crop: tuple[int, int, int, int],
) -> tuple[F32, F32]:  # fmt: skip
    """The upper envelope of crowns: each pixel looks at the 3 x 3 lattice cells around it."""
    ni, nj = len(cy) - 2, cy.shape[1] - 2
    x = np.arange(nj * cell, dtype=np.float32)[None, :] + 0.5
    y = (np.arange(cell, dtype=np.float32) + 0.5)[None, :, None] + (np.arange(ni, dtype=np.float32) * cell)[
        :, None, None
    ]
    best = np.full((ni, cell, nj * cell), -1e4, np.float32)
    tone = np.zeros_like(best)
    for di in range(3):
        for dj in range(3):
            part = (slice(di, di + ni), slice(dj, dj + nj))
            if not (peak[part] > 0).any():
                continue
            wide = [np.repeat(a[part].astype(np.float32), cell, axis=1) for a in (cy, cx, peak, steep, hue)]
            across = (x - wide[1]) ** 2
            away = y - wide[0][:, None, :]
            away *= away
            away += across[:, None, :]
            if cone:
                np.sqrt(away, out=away)
                away *= np.float32(0.85 * cell)
            away *= -wide[3][:, None, :]
            away += wide[2][:, None, :]
            above = away > best
            np.copyto(best, away, where=above)
            np.copyto(tone, np.broadcast_to(wide[4][:, None, :], tone.shape), where=above)
    r, c, h, w = crop
    cut = (slice(r, r + h), slice(c, c + w))
    return best.reshape(ni * cell, -1)[cut], tone.reshape(ni * cell, -1)[cut]


def _houses(seed: int, area: Area, style: Style, houses: Lookup, kinds: int) -> tuple[NDArray[np.uint8], F32, F32]:
    """Roof colour index, light on the roof and height in pixels, each of the padded shape."""
    h, w = area.padded
    roof, side, top = np.zeros((h, w), np.uint8), np.ones((h, w), np.float32), np.zeros((h, w), np.float32)
    cell = max(int(26 / style.gsd_m), 14)
    if style.roofs <= 0 or style.gsd_m > 2.5:
        return roof, side, top
    r0, c0 = area.origin
    rows, cols = np.arange(r0 // cell - 1, (r0 + h) // cell + 2), np.arange(c0 // cell - 1, (c0 + w) // cell + 2)
    u = [lattice(seed + 40 + k, rows, cols) for k in range(7)]
    cy, cx = (rows[:, None] + 0.2 + 0.6 * u[0]) * cell, (cols[None, :] + 0.2 + 0.6 * u[1]) * cell
    chance = style.roofs * (26 / 100) ** 2 * houses(cy, cx)
    block = smooth(seed + 47, 8, (int(rows[0]), int(cols[0])), (len(rows), len(cols)))
    for i, j in np.argwhere((u[2] < chance * 2) & (block > -0.3)):
        tilt = 1.2 * float(smooth(seed + 48, 16, (int(rows[i]), int(cols[j])), (1, 1))[0, 0])
        _house((roof, side, top), (cy[i, j] - r0, cx[i, j] - c0), tilt, [float(a[i, j]) for a in u], style, kinds)
    return roof, side, top


def _house(
    out: tuple[NDArray[np.uint8], F32, F32],
    at: tuple[float, float],
    tilt: float,
    u: list[float],
    style: Style,
    kinds: int,
) -> None:
    """Stamp one house: a turned rectangle with a ridge."""
    roof, side, top = out
    a, b = (5 + 6 * u[3]) / style.gsd_m, (3.2 + 3.5 * u[4]) / style.gsd_m
    reach = int(np.hypot(a, b)) + 1
    r, c = int(at[0]), int(at[1])
    rows = slice(max(r - reach, 0), max(min(r + reach, roof.shape[0]), 0))
    cols = slice(max(c - reach, 0), max(min(c + reach, roof.shape[1]), 0))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return
    y = (np.arange(rows.start, rows.stop) + 0.5 - at[0])[:, None]
    x = (np.arange(cols.start, cols.stop) + 0.5 - at[1])[None, :]
    p, q = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
    inside = (np.abs(p) < a) & (np.abs(q) < b)
    ridge = 0.12 * np.sign(q) * np.sign(np.cos(tilt) * style.sun[0] - np.sin(tilt) * style.sun[1])
    roof[rows, cols][inside] = 1 + int(u[5] * kinds) % kinds
    side[rows, cols][inside] = (1 - ridge)[inside]
    top[rows, cols][inside] = (3 + 4 * u[6]) / style.gsd_m


def _shadows(height: F32, style: Style, factor: int) -> F32:
    """0 in sun to 1 in shadow.

    The height field is dilated along the sun's rays by doubling steps, so that a shadow of
    2**n cells costs n passes instead of 2**n.
    """
    reach = min(float(height.max(initial=0)) / style.sun_slope / factor, 160 / factor)
    drop = style.sun_slope * factor
    front, step = height, 1.0
    while step < reach * 1.01 and step < 200:
        dr, dc = round(style.sun[0] * step), round(style.sun[1] * step)
        front = np.maximum(front, _shift(front, dr, dc) - np.float32(np.hypot(dr, dc) * drop))
        step *= 2
    soft = np.float32(0.6 * drop + 0.04 * style.tree_m / style.gsd_m)
    shade: F32 = np.clip((front - height) / soft - np.float32(0.25), 0, 1)
    return shade


def _shift(field: F32, dr: int, dc: int) -> F32:
    """The field moved by (dr, dc); cells that come from outside are 0."""
    moved = np.zeros_like(field)
    h, w = field.shape
    if abs(dr) < h and abs(dc) < w:
        moved[max(dr, 0) : h + min(dr, 0), max(dc, 0) : w + min(dc, 0)] = field[
            max(-dr, 0) : h + min(-dr, 0), max(-dc, 0) : w + min(-dc, 0)
        ]
    return moved


def _lit(height: F32, style: Style, factor: int) -> F32:
    """Light on slopes: above 1 where the crown faces the sun, below where it turns away."""
    dr, dc = round(style.sun[0] * 1.4), round(style.sun[1] * 1.4)
    rise = (height - _shift(height, dr, dc)) / np.float32(factor * 1.4)
    # Squashed, or the rims of all crowns would be black or white.
    slope = rise / np.sqrt(1 + rise * rise)
    light: F32 = np.float32(1) + np.float32(0.36 * (1 - 0.4 * style.bare)) * slope
    return light
