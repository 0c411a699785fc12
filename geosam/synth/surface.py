"""The look of water: depth, turbidity, streaks, foam, glint, soft banks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from geosam.synth.ground import Ground
from geosam.synth.noise import F32, mix, smoothstep, texture, textured
from geosam.synth.style import Colour


@dataclass(frozen=True)
class _Patterns:
    """What varies over the water of a core, each of shape (h, w), zero mean unless said otherwise."""

    patches: F32
    """Large and soft."""
    streak: F32
    """Drawn out along the flow."""
    cloud: F32
    ripple: F32
    along: F32
    """Distance along the flow, px."""
    across: F32
    """Distance from the centreline, px, left above 0."""


def with_water(ground: Ground, shade: F32, land: F32) -> F32:
    """The water surface laid over the land, with soft banks.

    Args:
        ground: The window.
        shade: Cast shadow, 0 to 1, shape (h, w); glint is dim in it.
        land: Bands of the dry land, shape (4, h, w).
    """
    style, core = ground.plan.style, ground.area.core
    like = _patterns(ground)
    turbid = np.float32(style.patchy) * smoothstep(like.patches + 0.35 * like.streak + 0.2 * like.cloud, -1.0, 1.4)
    waves = 1 + np.float32(style.streak) * like.streak + np.float32(style.ripple) * like.ripple
    waves += np.float32(0.012) * like.cloud
    bed, shoal = _bed(ground, like)
    white = _whitewater(ground, like) if style.whitewater and ground.plan.flow is not None else None
    glint = _glint(ground, like) * (1 - np.float32(0.7) * shade) if style.glint else None
    bodies, alpha = _bodies(ground), _alpha(ground)
    out = np.empty_like(land)
    for b in range(4):
        deep, other = np.full(core, style.deep[b], np.float32), np.full(core, style.turbid[b], np.float32)
        for share, body_deep, body_turbid in bodies:
            deep, other = mix(deep, body_deep[b], share), mix(other, body_turbid[b], share)
        # Infrared does not come back from the bed: water is black to it at a hand's depth.
        bottom = (np.float32(0.55 * style.gravel[b]) + np.float32(0.25) * other) * bed
        colour = mix(mix(deep, other, turbid), bottom, shoal * np.float32(0.85 if b < 3 else 0.3)) * waves
        if white is not None:
            colour = mix(colour, 0.88, white)
        if glint is not None:
            colour += glint
        out[b] = mix(land[b], colour, alpha)
    return out


def _patterns(ground: Ground) -> _Patterns:
    s, area = ground.plan.seed, ground.area
    at = (area.row, area.col)
    along, across = ground.over_core(ground.along), ground.over_core(ground.across)
    return _Patterns(
        patches=ground.patches(s + 71, max(90 / ground.plan.style.gsd_m, 64.0), 4),
        streak=_streaks(s + 72, along, across),
        cloud=textured("cloud", s + 73, at, area.core),
        ripple=textured("ripple", s + 74, at, area.core),
        along=along,
        across=across,
    )


def _alpha(ground: Ground) -> F32:
    """Share of water in a pixel: the mask with soft banks."""
    m = ground.margin - 8
    mask = ground.water[m:-m, m:-m].astype(np.float32)
    soft: F32 = gaussian_filter(mask, ground.plan.style.soft_px, truncate=3)[8:-8, 8:-8]
    return soft


def _bed(ground: Ground, like: _Patterns) -> tuple[F32, F32]:
    """Brightness of the bed, and how much of it is seen: all at the bank, none where it is deep."""
    style, area = ground.plan.style, ground.area
    depth = np.maximum(-ground.bank_px(), 0) * np.float32(style.gsd_m)
    shoal = np.exp(-depth / np.float32(ground.near_m(style.depth_m))) * (1 + 0.25 * like.patches + 0.2 * like.cloud)
    clump = textured("clump", ground.plan.seed + 76, (area.row, area.col), area.core)
    return 1 + np.float32(0.06) * clump, np.clip(shoal, 0, 1)


def _bodies(ground: Ground) -> list[tuple[F32, Colour, Colour]]:
    """Water bodies of their own colour in the core; the soft weight makes a plume where one joins another."""
    area, found = ground.area, []
    for edges, deep, turbid in ground.plan.tinted:
        mask = edges.fill(area.row - 24, area.col - 24, area.height + 48, area.width + 48)
        if mask.any():
            share = gaussian_filter(mask.astype(np.float32), 6.0, truncate=3)[24:-24, 24:-24]
            found.append((smoothstep(share, 0.05, 0.5), deep, turbid))
    return found


def _streaks(seed: int, along: F32, across: F32) -> F32:
    """A texture drawn out along the flow, zero mean, unit variance."""
    block = texture("streak")
    n = len(block)
    i = (across + (seed * 131) % n).astype(np.int32) % n
    j = along.astype(np.int32) % n
    streaked: F32 = block[i, j]
    return streaked


def _whitewater(ground: Ground, like: _Patterns) -> F32:
    """Share of foam: ragged, short streaks within some reaches of the river."""
    area, s = ground.area, ground.plan.seed
    grain = textured("grain", s + 77, (area.row, area.col), area.core)
    short = _streaks(s + 79, 3.5 * like.along, 1.5 * like.across)
    zone = 0.8 * like.patches + np.float32(1.6 * ground.plan.style.whitewater - 1.2)
    foam = 0.6 * short + 0.3 * like.streak + 0.45 * like.ripple + 0.35 * grain + zone
    aside = np.abs(like.across) / np.maximum(ground.over_core(ground.half), 1)
    in_flow = 1 - smoothstep(aside.astype(np.float32, copy=False), 1.1, 1.6)
    return np.float32(0.9) * in_flow * smoothstep(foam, 0.8, 2.0)


def _glint(ground: Ground, like: _Patterns) -> F32:
    """Sun mirrored by wavelets: a veil with sparkles, in patches."""
    area = ground.area
    grain = textured("grain", ground.plan.seed + 78, (area.row, area.col), area.core)
    zone = smoothstep(like.patches, -0.8, 1.2) * np.float32(ground.plan.style.glint)
    sparkle = smoothstep(0.7 * like.ripple + 0.7 * grain, 0.6, 2.4)
    return zone * (np.float32(0.28) + np.float32(0.5) * sparkle)
