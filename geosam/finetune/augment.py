"""What a photograph may have gone through: scale, turn, light, haze, noise, blur, JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

UInt8 = NDArray[np.uint8]


def crop(
    image: UInt8, label: UInt8, side: int, zoom: tuple[float, float], rng: np.random.Generator, ignore: int = 128
) -> tuple[UInt8, UInt8]:
    """A random square at a random scale.

    Args:
        image: uint8 (h, w, 3).
        label: uint8 (h, w).
        side: Side of the result in pixels.
        zoom: Least and greatest magnification; drawn evenly in its logarithm.
        rng: Draws scale and place.
        ignore: Label of what lies beyond the image.

    Returns:
        Image uint8 (side, side, 3) and label uint8 (side, side).
    """
    height, width = label.shape
    factor = float(np.exp(rng.uniform(*np.log(zoom))))
    factor = max(factor, side / (1.35 * min(height, width)))  # At most a quarter of a side is padding.
    span = min(round(side / factor), max(height, width))
    top, left = _corner(height, span, rng), _corner(width, span, rng)
    rows, cols = slice(top, top + span), slice(left, left + span)
    picture, truth = image[rows, cols], label[rows, cols]
    missing = ((0, span - truth.shape[0]), (0, span - truth.shape[1]))
    if missing != ((0, 0), (0, 0)):
        picture = np.pad(
            picture, (*missing, (0, 0)), mode="reflect" if min(truth.shape) > max(map(max, missing)) else "edge"
        )
        truth = np.pad(truth, missing, constant_values=ignore)
    return _resize(picture, truth, side)


def turn(image: UInt8, label: UInt8, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    """One of the eight views of a square (the group D4)."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def weather(image: UInt8, rng: np.random.Generator) -> UInt8:
    """Change light, colour and sharpness as other cameras, hours and seasons would.

    Args:
        image: uint8 (h, w, 3).
        rng: Draws what happens and how strongly.

    Returns:
        uint8 (h, w, 3).
    """
    x = _light(_bands(image, rng).astype(np.float32) / np.float32(255), rng)
    if rng.random() < 0.25:
        x = _uneven(x, rng)
    if rng.random() < 0.2:
        x = np.asarray(ndimage.gaussian_filter(x, (s := float(rng.uniform(0.4, 1.4)), s, 0)), np.float32)
    if rng.random() < 0.35:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    result = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    return _jpeg(result, int(rng.integers(35, 92))) if rng.random() < 0.3 else result


def _bands(image: UInt8, rng: np.random.Generator) -> UInt8:
    """At times a picture without colour, or without a blue band of its own, as of older satellites."""
    odds = rng.random()
    if odds < 0.04:
        return np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    if odds < 0.10:
        return image[..., [0, 1, int(rng.integers(2))]]
    return image


def _light(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Gamma, exposure, contrast, colour cast, saturation and haze."""
    x = x ** np.float32(np.exp(rng.normal(0, 0.22)))
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * np.float32(np.clip(rng.normal(1.0, 0.3), 0.1, 2.2))
    cast = np.exp(rng.normal(0, 0.09, 3)).astype(np.float32)
    middle = x.mean()
    x = (x - middle) * np.float32(np.exp(rng.normal(0, 0.2))) + middle * np.float32(np.exp(rng.normal(0, 0.15)))
    if rng.random() < 0.15:
        x = x * np.float32(rng.uniform(0.2, 0.75))  # Forest from space is often darker than water is elsewhere.
    if rng.random() < 0.2:
        haze = np.float32(rng.uniform(0.05, 0.35))
        x = x * (1 - haze) + haze * rng.uniform(0.6, 1.0, 3).astype(np.float32)
    return np.asarray(x * cast, np.float32)


def _uneven(x: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light that falls off towards one side or the corners."""
    side = x.shape[0]
    y, c = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    if rng.random() < 0.5:
        field = 1 - np.float32(rng.uniform(0.1, 0.5)) * (y * y + c * c) / 2
    else:
        angle, strength = rng.uniform(0, 2 * np.pi), np.float32(rng.uniform(0.1, 0.4))
        field = 1 + strength * (np.float32(np.cos(angle)) * c + np.float32(np.sin(angle)) * y)
    return np.asarray(x * field[..., None], np.float32)


def _jpeg(image: UInt8, quality: int) -> UInt8:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def _corner(length: int, span: int, rng: np.random.Generator) -> int:
    return int(rng.integers(length - span + 1)) if length > span else 0


def _resize(image: UInt8, label: UInt8, side: int) -> tuple[UInt8, UInt8]:
    if label.shape == (side, side):
        return image, label
    filters = Image.Resampling.BOX if label.shape[0] > side * 1.5 else Image.Resampling.BILINEAR
    return (
        np.asarray(Image.fromarray(image).resize((side, side), filters)),
        np.asarray(Image.fromarray(label).resize((side, side), Image.Resampling.NEAREST)),
    )
