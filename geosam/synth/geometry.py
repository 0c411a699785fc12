"""Rivers as vectors in pixel coordinates (x right, y down): centrelines with widths, bars, lakes, roads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Channel:
    """A centreline and its banks, in pixels."""

    xy: F64
    """Stations, shape (n, 2)."""
    along: F64
    """Distance along the centreline, shape (n,)."""
    left: F64
    """Half width to the left of the flow, shape (n,)."""
    right: F64
    """Half width to the right of the flow, shape (n,)."""

    @property
    def heading(self) -> F64:
        """Unit vectors of the flow, shape (n, 2)."""
        step = np.gradient(self.xy, axis=0)
        unit: F64 = step / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
        return unit

    def bank(self, offset: F64) -> F64:
        """Points ``offset`` px to the left (negative: right) of each station, shape (n, 2)."""
        dx, dy = self.heading.T
        return self.xy + np.stack([dy, -dx], 1) * offset[:, None]

    def polygon(self) -> shapely.Geometry:
        """The water surface; valid where offset banks would cross themselves in tight bends."""
        a, b = self.bank(self.left), self.bank(-self.right)
        quads = np.stack([a[:-1], a[1:], b[1:], b[:-1]], 1)
        ring = shapely.polygons(np.concatenate([a, b[::-1]]))
        if ring.is_valid:
            return ring
        # A bent quad can be a bow tie: its hull is the honest reading of it.
        return shapely.union_all(shapely.convex_hull(shapely.multipoints(quads)))


def wander(rng: Rng, along: F64, wavelength: float) -> F64:
    """A smooth random function of ``along``, zero mean, about unit variance, shape of ``along``."""
    knots = rng.standard_normal(int((along[-1] - along[0]) / wavelength * 2) + 6)
    at = (along - along[0]) / wavelength * 2 + 1
    base = np.floor(at).astype(int)
    t = at - base
    w = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    total = sum(w[k] * knots[base - 1 + k] for k in range(4))
    return np.asarray(total) / 0.692


def widths(rng: Rng, along: F64, half: float, rough: float) -> F64:
    """Half widths around ``half``: slow swelling, and bank roughness down to the scale of a tree."""
    swell = 1 + 0.16 * np.tanh(wander(rng, along, 7 * half + 8))
    bumps = sum(a * wander(rng, along, max(half * f, 5.0)) for a, f in ((1.0, 2.2), (0.6, 0.9), (0.35, 0.4)))
    nicks = min(0.06 * half, 1.3) * wander(rng, along, 22.0) + min(0.04 * half, 0.6) * wander(rng, along, 9.0)
    return np.maximum(half * swell * (1 + rough * np.asarray(bumps)) + nicks, 0.45 * half)


def meander(rng: Rng, start: F64, end: F64, half: float, swing: float, rough: float = 0.06) -> Channel:
    """A river between two points that bends as rivers do.

    The direction is a sine-generated curve whose phase and swing wander; the course is then
    turned and stretched so that it ends where it should.

    Args:
        rng: Randomness.
        start: First point, x y in px.
        end: Last point.
        half: Mean half width in px.
        swing: Largest angle to the valley, radians; above about 2 loops touch.
        rough: Bank roughness as a fraction of the half width.

    Source: Langbein and Leopold (1966), sine-generated curve; wavelength of about 11 widths.
    """
    distance = float(np.hypot(*(end - start)))
    step = float(np.clip(min(half / 2.5, distance / 40), 1.5, 5.0))
    along = np.arange(0, distance * (1.15 + 0.55 * swing) + 4 * step, step)
    wavelength = 22 * half * rng.uniform(0.75, 1.4)
    phase = 2 * np.pi * (along / wavelength + rng.uniform()) + 0.9 * wander(rng, along, 2 * wavelength)
    angle = swing * (0.75 + 0.25 * np.tanh(wander(rng, along, 3 * wavelength))) * np.sin(phase)
    angle += 0.18 * wander(rng, along, 1.5 * wavelength) + 0.05 * wander(rng, along, 5 * half)
    xy = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1) * step, axis=0)
    return _channel(rng, _pin(xy, start, end), half, rough)


def _pin(xy: F64, start: F64, end: F64) -> F64:
    """Cut the course where it has gone far enough, then turn and stretch it onto start and end."""
    distance = float(np.hypot(*(end - start)))
    far = np.flatnonzero(xy[:, 0] >= distance)
    course = xy[: far[0] + 1] if len(far) else xy
    a, b = complex(*course[0]), complex(*course[-1])
    turn = (complex(*end) - complex(*start)) / (b - a)
    moved = (course[:, 0] + 1j * course[:, 1] - a) * turn + complex(*start)
    return np.stack([moved.real, moved.imag], 1)


def _channel(rng: Rng, xy: F64, half: float, rough: float) -> Channel:
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    return Channel(xy, along, widths(rng, along, half, rough), widths(rng, along, half, rough))


def swollen(channel: Channel, first: float, last: float, factor: float) -> Channel:
    """The same channel, ``factor`` times as wide between two fractions of its length."""
    at = channel.along / channel.along[-1]
    ramp = np.clip(np.minimum(at - first, last - at) / (0.22 * (last - first)), 0, 1)
    gain = 1 + (factor - 1) * ramp * ramp * (3 - 2 * ramp)
    return Channel(channel.xy, channel.along, channel.left * gain, channel.right * gain)


def bars(rng: Rng, channel: Channel, first: float, last: float, count: int) -> list[shapely.Geometry]:
    """Islands shaped by the flow, between two fractions of the channel's length."""
    made: list[shapely.Geometry] = []
    for _ in range(count * 3):
        bar = _bar(rng, channel, rng.uniform(first, last), rng.uniform(-0.62, 0.62))
        gap = 0.12 * float(channel.left.mean())
        if bar is not None and not any(bar.dwithin(other, gap) for other in made):
            made.append(bar)
        if len(made) >= count:
            break
    return made


def _bar(rng: Rng, channel: Channel, at: float, side: float) -> shapely.Geometry | None:
    total = channel.along[-1]
    k = int(np.searchsorted(channel.along, at * total))
    half = float(min(channel.left[min(k, len(channel.left) - 1)], channel.right[min(k, len(channel.right) - 1)]))
    length, breadth = half * rng.uniform(0.9, 3.4), half * rng.uniform(0.1, 0.3) * (1 - 0.4 * abs(side))
    s = np.linspace(at * total - length / 2, at * total + length / 2, 60)
    if s[0] < 0 or s[-1] > total or breadth < 0.9:
        return None
    t = np.linspace(0, 1, 60)
    shape = breadth * np.sin(np.pi * t**0.8) ** 0.8
    xy = np.stack([np.interp(s, channel.along, channel.xy[:, i]) for i in (0, 1)], 1)
    local = Channel(xy, s - s[0], shape, shape)
    centre = side * half + 0.12 * half * wander(rng, s, length)
    upper = centre + shape * (1 + 0.22 * wander(rng, s, length / 4))
    lower = centre - shape * (1 + 0.22 * wander(rng, s, length / 4))
    ring = shapely.polygons(np.concatenate([local.bank(upper), local.bank(lower)[::-1]]))
    return ring if ring.is_valid else ring.buffer(0)


def lake(rng: Rng, centre: F64, radius: float) -> shapely.Geometry:
    """A rounded, lobed water body around ``centre`` with about ``radius`` px."""
    turn = np.linspace(0, 2 * np.pi, max(int(2 * np.pi * radius / 3), 24), endpoint=False)
    r = np.ones_like(turn)
    for k in range(2, 14):
        r += rng.normal(0, 0.26 / k) * np.cos(k * turn + rng.uniform(0, 6.3))
    r = radius * np.maximum(r, 0.3)
    stretch, tilt = rng.uniform(0.55, 1.0), rng.uniform(0, np.pi)
    z = (r * np.cos(turn) + 1j * stretch * r * np.sin(turn)) * np.exp(1j * tilt)
    ring = shapely.polygons(np.stack([z.real, z.imag], 1) + centre)
    return ring if ring.is_valid else ring.buffer(0)


def oxbow(rng: Rng, centre: F64, radius: float, half: float) -> Channel:
    """A cut-off bend: a horseshoe that narrows to its two ends."""
    turn = np.linspace(0, rng.uniform(3.6, 4.9), max(int(5 * radius / max(half / 2, 1.5)), 30)) + rng.uniform(0, 6.3)
    r = radius * (1 + 0.12 * wander(rng, turn - turn[0], 1.5))
    xy = centre + np.stack([r * np.cos(turn), 0.8 * r * np.sin(turn)], 1)
    made = _channel(rng, xy, half, 0.07)
    taper = np.sqrt(np.clip(np.sin(np.linspace(0, np.pi, len(xy))), 0.002, 1))
    return Channel(made.xy, made.along, made.left * taper, made.right * taper)
