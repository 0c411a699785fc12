"""Paints a window of a planned scene: ground, gravel, trees and shadows, water, light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from geosam.synth.fields import Parcels
from geosam.synth.ground import Ground, Mask, Plan
from geosam.synth.noise import F32, mix, smoothstep, textured
from geosam.synth.relief import Area, Relief, shadow_reach, stand
from geosam.synth.style import ROOFS, Style
from geosam.synth.surface import with_water

_GRAINS = ("fine", "cloud", "clump")


@dataclass(frozen=True)
class Painted:
    """A painted window."""

    bands: F32
    """Red, green, blue, near infrared, shape (4, h, w), as displayed, 0 to 1."""
    water: Mask
    """Wet surface that is seen from above, shape (h, w)."""


def paint(plan: Plan, row: int, col: int, height: int, width: int) -> Painted:
    """Paint one window; height and width must be multiples of 8."""
    style = plan.style
    area = Area(row, col, height, width, shadow_reach(style))
    ground = Ground(plan, area)
    relief = stand(plan.seed, area, style, ground.tree_chance, ground.house_chance, len(ROOFS))
    wet = ground.water_core
    leaves = np.clip(relief.leaves * 1.6 - 0.3, 0, 1)
    if not style.overhang:
        leaves *= ~wet
        relief.roof[wet] = 0
    bands = _land(ground, relief, plan.roads.fill(row, col, height, width))
    if wet.any():
        bands = with_water(ground, relief.shade, bands)
    _shade(bands, relief.shade * (1 - 0.45 * leaves), style)
    if leaves.any():
        bands = _with_trees(plan, area, relief, leaves, bands)
    seen = wet & ~(leaves > 0.5) & (relief.roof == 0)
    return Painted(_light(plan, area, bands), seen)


@dataclass(frozen=True)
class _Layer:
    """Something that covers a share of what lies below it."""

    colour: Callable[[int], F32 | float]
    """Colour of a band, a number or of shape (h, w)."""
    share: F32
    """0 to 1, shape (h, w)."""


def _laid(base: F32, layers: list[_Layer], band: int) -> F32:
    for layer in layers:
        base = mix(base, layer.colour(band), layer.share)
    return base


def _land(ground: Ground, relief: Relief, road: Mask) -> F32:
    """Ground, fields, gravel, roads, roofs and snow, shape (4, h, w)."""
    s, style, area = ground.plan.seed, ground.plan.style, ground.area
    fine, cloud, clump = (textured(k, s + i, (area.row, area.col), area.core) for i, k in enumerate(_GRAINS, 1))
    away = ground.bank_px() * np.float32(style.gsd_m)
    patches = ground.patches(s + 4, max(25 / style.gsd_m, 24.0), 3)
    soil, rough = _soil(ground, patches, cloud, away)
    rough = rough + np.float32(style.ground) * (fine + np.float32(0.8) * clump + np.float32(0.8) * cloud)
    pebbles = 1 + np.float32(style.speckle) * (
        fine + np.float32(0.5) * textured("grain", s + 6, (area.row, area.col), area.core)
    )
    pebbles += np.float32(0.06) * cloud + np.float32(0.05) * patches
    gravel = _Layer(lambda b: style.gravel[b] * pebbles, _gravel_share(ground, away, cloud, clump))
    damp = 1 - np.float32(0.38) * np.exp(-np.maximum(away, 0) / np.float32(0.25 * style.gravel_m + 0.6))
    built = _built(ground, relief, road, patches, cloud, fine)
    out = np.empty((4, *area.core), np.float32)
    for b in range(4):
        base = _laid(np.full(area.core, style.grass[0][b], np.float32), soil, b)
        base *= rough
        base = _laid(base, [gravel], b)
        base *= damp
        out[b] = _laid(base, built, b)
    return out


def _soil(ground: Ground, patches: F32, cloud: F32, away: F32) -> tuple[list[_Layer], F32]:
    """Other grass, bare soil, fields and forest floor, and the brightness that varies slowly."""
    style = ground.plan.style
    forest = ground.forest(ground.over_core(ground.wood))
    layers = [
        _Layer(lambda b: style.grass[1][b], smoothstep(patches * 0.6 + cloud * 0.5, -1.2, 1.2)),
        _Layer(lambda b: style.soil[0][b], smoothstep(patches + 0.5 * cloud - forest, 0.7, 1.6)),
    ]
    if style.fields > 0:
        parcels = Parcels(ground, forest, away)
        layers.append(_Layer(parcels.colour, parcels.share))
    layers.append(_Layer(lambda b: 0.55 * style.soil[1][b], np.float32(0.65) * forest))
    return layers, 1 + np.float32(0.05) * patches


def _built(ground: Ground, relief: Relief, road: Mask, patches: F32, cloud: F32, fine: F32) -> list[_Layer]:
    """Snow, roads and roofs, as far as there are any."""
    style, layers = ground.plan.style, []
    if style.snow:
        snow = smoothstep(patches + 0.4 * cloud + np.float32(2.5 * (style.snow - 0.5)), -0.2, 0.3)
        layers.append(_Layer(lambda b: 0.9 + 0.02 * cloud, snow))
    if road.any():
        worn = 1 + np.float32(0.05) * cloud + np.float32(0.035) * fine
        layers.append(_Layer(lambda b: np.float32(style.road[b]) * worn, gaussian_filter(road.astype(np.float32), 0.7)))
    if relief.roof.any():
        colours = np.array([(0.0,) * 4, *ROOFS], np.float32)
        lit = relief.roof_light * (1 + np.float32(0.02) * fine)
        layers.append(_Layer(lambda b: colours[relief.roof, b] * lit, (relief.roof > 0).astype(np.float32)))
    return layers


def _gravel_share(ground: Ground, away: F32, cloud: F32, clump: F32) -> F32:
    """Share of bare gravel: a belt along the bank with a ragged edge; a thin damp line where there is none."""
    if ground.plan.style.gravel_m <= 0:
        return smoothstep(0.3 * cloud - away, -1.0, -0.2) * np.float32(0.5)
    belt = ground.over_core(ground.gravel_m)
    wide = np.float32(0.3) + belt
    return 1 - smoothstep((away - belt) / wide + np.float32(0.3) * cloud + np.float32(0.14) * clump, -0.25, 0.25)


def _shade(bands: F32, shade: F32, style: Style) -> None:
    """Darken the bands where shadow falls, in place."""
    for b in range(4):
        bands[b] *= 1 - shade * np.float32(1 - style.shadow[b])


def _with_trees(plan: Plan, area: Area, relief: Relief, leaves: F32, bands: F32) -> F32:
    """Crowns laid over everything else."""
    s, style, at, core = plan.seed, plan.style, (area.row, area.col), area.core
    clump = textured("clump", s + 31, at, core)
    fine = textured("fine", s + 32, at, core)
    strength = 0.14 + 0.12 * style.bare
    light = relief.light * (1 + np.float32(strength) * clump + np.float32(0.09) * fine)
    light *= 1 - relief.shade * np.float32(0.5 - 0.2 * style.bare)
    thin = leaves * np.float32(1 - 0.25 * style.bare)
    if style.bare:
        thin = thin * np.clip(0.75 + 0.35 * clump + 0.2 * fine, 0, 1)
    other = np.clip(relief.tone, 0, 1)
    third = np.clip(-relief.tone, 0, 1)
    for b in range(4):
        a, o, t = (style.leaf[k][b] for k in range(3))
        colour = (a + (o - a) * other + (t - a) * third) * light
        bands[b] = mix(bands[b], colour, thin)
    return bands


def _light(plan: Plan, area: Area, bands: F32) -> F32:
    """Contrast, colour cast, haze and the sensor's noise."""
    style, s = plan.style, plan.seed
    grain = textured("grain", s + 91, (area.row, area.col), area.core)
    grey = (bands[0] + bands[1] + bands[2]) * np.float32(1 / 3)
    for b in range(4):
        x = bands[b]
        if b < 3:
            x = grey + (x - grey) * np.float32(style.vivid)
        x = np.clip(x, 0.004, 1.2)
        if style.lift:
            x = mix(x, np.sqrt(x), style.lift)
        # All linear steps in one: contrast about middle grey, cast, haze.
        slope = style.contrast * style.gain[b] * (1 - style.haze)
        shift = 0.4 * (1 - style.contrast) * style.gain[b] * (1 - style.haze) + style.haze * style.haze_colour[b]
        x *= np.float32(slope)
        x += np.float32(style.noise) * np.roll(grain, 17 * b, axis=1) + np.float32(shift)
        bands[b] = np.clip(x, 0, 1)
    return bands
