"""Noise on one global lattice: any window of it can be made alone and fits its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

_TEXTURE_SIZES = {"grain": 960, "fine": 1008, "clump": 1080, "cloud": 1120, "streak": 1024, "ripple": 896}


def lattice(seed: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> F32:
    """Uniform random numbers that belong to lattice cells, whoever asks for them.

    Args:
        seed: Stream; other seeds give unrelated numbers.
        rows: Cell rows, shape (h,), any sign.
        cols: Cell columns, shape (w,), any sign.

    Returns:
        float32 in [0, 1), shape (h, w).

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
    """
    with np.errstate(over="ignore"):
        key = (rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))[:, None]
        key = key + (cols.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))[None, :]
        key ^= np.uint64((seed * 0xA24BAED4963EE407 + 0x9FB21C651E98DF25) & 0xFFFFFFFFFFFFFFFF)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        key ^= key >> np.uint64(31)
    numbers: F32 = (key >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return numbers


def _spline(start: float, step: float, count: int) -> tuple[int, int, F32]:
    """First cell, number of cells and the cubic B-spline weights (count, cells) of positions start + i * step."""
    whole = int(np.floor(start))
    first, cells, matrix = _spline_weights(start - whole, step, count)
    return first + whole, cells, matrix


@lru_cache(maxsize=512)
def _spline_weights(start: float, step: float, count: int) -> tuple[int, int, F32]:
    at = start + step * np.arange(count)
    base = np.floor(at).astype(np.int64)
    t = at - base
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    first = int(base[0]) - 1
    cells = int(base[-1]) + 3 - first
    matrix = np.zeros((count, cells), np.float32)
    for k in range(4):
        matrix[np.arange(count), base - 1 + k - first] = weights[:, k]
    return first, cells, matrix


def smooth(seed: int, cell_px: float, origin: tuple[int, int], shape: tuple[int, int], step: int = 1) -> F32:
    """Smooth noise of one scale, zero mean and about unit variance.

    Args:
        seed: Stream.
        cell_px: Distance of the lattice points in pixels; features are about twice as large.
        origin: (row, col) of the window's first pixel.
        shape: (rows, columns) of the result.
        step: Pixels from one sample to the next; samples sit at the centres of step x step cells.

    Returns:
        float32, shape ``shape``.
    """
    centre = (step - 1) / 2
    row0, rows, a = _spline((origin[0] + centre) / cell_px, step / cell_px, shape[0])
    col0, cols, b = _spline((origin[1] + centre) / cell_px, step / cell_px, shape[1])
    values = lattice(seed, np.arange(row0, row0 + rows), np.arange(col0, col0 + cols)) - np.float32(0.5)
    made: F32 = (a @ (values / np.float32(0.138))) @ b.T
    return made


def fbm(
    seed: int, cell_px: float, origin: tuple[int, int], shape: tuple[int, int], step: int = 1, octaves: int = 4
) -> F32:
    """Noise of several octaves below ``cell_px``, zero mean, about unit variance; arguments as in :func:`smooth`."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for k in range(octaves):
        cell = cell_px / 2**k
        if cell < 1.5 * step:
            break
        total += np.float32(0.55**k) * smooth(seed * 31 + k, cell, origin, shape, step)
        power += 0.55 ** (2 * k)
    total /= np.float32(max(power, 1.0) ** 0.5)
    return total


@lru_cache(maxsize=64)
def _linear(count: int, factor: int, margin: int) -> F32:
    """Weights (count, cells) that carry samples at the centres of factor-px cells to ``count`` pixels."""
    at = (np.arange(count) + 0.5) / factor - 0.5 + margin
    base = np.clip(np.floor(at).astype(np.int64), 0, None)
    t = (at - base).astype(np.float32)
    cells = -(-count // factor) + 2 * margin
    matrix = np.zeros((count, cells), np.float32)
    matrix[np.arange(count), np.minimum(base, cells - 1)] += 1 - t
    matrix[np.arange(count), np.minimum(base + 1, cells - 1)] += t
    return matrix


def enlarge(coarse: F32, factor: int, shape: tuple[int, int], margin: int = 0) -> F32:
    """Bilinear enlargement of a coarse field.

    Args:
        coarse: float32, cells of ``factor`` px, with ``margin`` more cells on each side than ``shape`` needs.
        factor: Pixels a cell.
        shape: (rows, columns) wanted.
        margin: Extra cells on each side.

    Returns:
        float32, shape ``shape``.
    """
    if factor == 1:
        same: F32 = np.ascontiguousarray(coarse[margin : margin + shape[0], margin : margin + shape[1]])
        return same
    enlarged = (_linear(shape[0], factor, margin) @ coarse) @ _linear(shape[1], factor, margin).T
    return np.asarray(enlarged, np.float32)


@lru_cache(maxsize=8)
def texture(kind: str) -> F32:
    """A periodic texture, zero mean and unit variance, made once a process.

    Args:
        kind: ``grain`` (white), ``fine`` (1-2 px), ``clump`` (blobs of 3-6 px), ``cloud`` (all scales),
            ``streak`` (long along columns), ``ripple`` (wavelets).

    Returns:
        float32, shape (n, n); n differs between kinds, so that their sums do not repeat visibly.
    """
    n = _TEXTURE_SIZES[kind]
    rng = np.random.default_rng(sum(map(ord, kind)))
    if kind == "grain":
        return rng.standard_normal((n, n)).astype(np.float32)
    fy, fx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]
    f = np.hypot(fy, fx) + 1e-9
    gain = {
        "fine": np.exp(-((f / 0.28) ** 2)),
        "clump": np.exp(-(((f - 0.12) / 0.07) ** 2)) + 0.3 * np.exp(-((f / 0.3) ** 2)),
        "cloud": np.minimum(f, 1.0) ** -1.3 * (f > 1.5 / n) * np.exp(-((f / 0.35) ** 2)),
        "streak": np.exp(-((fx / 0.012) ** 2)) * np.exp(-((fy / 0.22) ** 2)) * (0.03 + np.abs(fy)) ** -0.6,
        "ripple": np.exp(-(((f - 0.16) / 0.06) ** 2)) * (0.3 + np.abs(fx) / f),
    }[kind]
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) * gain, s=(n, n))
    made: F32 = (noise / noise.std()).astype(np.float32)
    return made


def textured(kind: str, seed: int, origin: tuple[int, int], shape: tuple[int, int]) -> F32:
    """A window of a periodic texture, shifted by the seed; shape (rows, columns)."""
    block = texture(kind)
    n = len(block)
    shift = np.random.default_rng([seed & 0xFFFFFFFF, 77]).integers(0, n, 2)
    out = np.empty(shape, np.float32)
    for y, height, row in _pieces((origin[0] + int(shift[0])) % n, shape[0], n):
        for x, width, col in _pieces((origin[1] + int(shift[1])) % n, shape[1], n):
            out[y : y + height, x : x + width] = block[row : row + height, col : col + width]
    return out


def _pieces(start: int, length: int, period: int) -> Iterator[tuple[int, int, int]]:
    """Runs of a periodic axis: (offset in the result, length, offset in the period)."""
    done = 0
    while done < length:
        at = (start + done) % period
        size = min(period - at, length - done)
        yield done, size, at
        done += size


def smoothstep(x: F32, low: float, high: float) -> F32:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = x - np.float32(low)
    t *= np.float32(1 / (high - low))
    np.clip(t, 0, 1, out=t)
    eased: F32 = t * t * (3 - 2 * t)
    return eased


def mix(a: F32, b: F32 | float, weight: F32 | float) -> F32:
    """``a`` where ``weight`` is 0, ``b`` where it is 1."""
    t = np.subtract(b, a, dtype=np.float32)
    t *= np.asarray(weight, np.float32)
    t += a
    return t
