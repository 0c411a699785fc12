"""Arithmetic on bands: the spectral indices of water and vegetation, and colour for plain RGB.

Every function takes numpy arrays, :class:`xarray.DataArray` or torch tensors and returns the same
kind (anything else is turned into a numpy array). Integers and booleans are widened first, because
``uint8(10) - uint8(20)`` is 246; float16 is widened to float32, because squares and sums of
reflectances overflow it; float64 stays. A quotient whose denominator is zero is NaN, without a warning.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array")
"""numpy.ndarray, xarray.DataArray or torch.Tensor; the same kind for every argument of one call."""

__all__ = [
    "awei_nsh",
    "awei_sh",
    "darkness",
    "excess_green",
    "hsv",
    "mndwi",
    "ndvi",
    "ndwi",
]


def ndwi(green: Array, nir: Array) -> Array:
    """Normalized Difference Water Index of McFeeters (1996).

    Open water reflects green light and absorbs near infrared, so it scores above zero.
    Built-up land can too: prefer MNDWI where a SWIR band exists.

    Args:
        green: Green reflectance, shape (h, w), any unit; integers are widened first.
        nir: Near-infrared reflectance, same shape and unit as ``green``.

    Returns:
        Index in [-1, 1], shape (h, w); NaN where both bands are zero.

    Source:
        McFeeters, S. K. (1996). The use of the Normalized Difference Water Index (NDWI) in the
        delineation of open water features. Int. J. Remote Sensing 17(7), 1425-1432.
    """
    return _normalized_difference(green, nir)


def mndwi(green: Array, swir1: Array) -> Array:
    """Modified Normalized Difference Water Index of Xu (2006).

    Short-wave infrared is absorbed by water more strongly than near infrared, sediment and
    shallow beds included, and built-up land reflects it, so turbid rivers and towns are told apart
    better than by NDWI.

    Args:
        green: Green reflectance, shape (h, w), any unit; integers are widened first.
        swir1: Short-wave infrared near 1.6 µm, same shape and unit as ``green``.

    Returns:
        Index in [-1, 1], shape (h, w); NaN where both bands are zero.

    Source:
        Xu, H. (2006). Modification of normalised difference water index (NDWI) to enhance open
        water features in remotely sensed imagery. Int. J. Remote Sensing 27(14), 3025-3033.
    """
    return _normalized_difference(green, swir1)


def ndvi(red: Array, nir: Array) -> Array:
    """Normalized Difference Vegetation Index of Tucker (1979), after Rouse et al. (1974).

    Leaves absorb red light and reflect near infrared, so vegetation scores well above zero and
    open water below. It guards NDWI against bright green crops and floating plants.

    Args:
        red: Red reflectance, shape (h, w), any unit; integers are widened first.
        nir: Near-infrared reflectance, same shape and unit as ``red``.

    Returns:
        Index in [-1, 1], shape (h, w); NaN where both bands are zero.

    Source:
        Tucker, C. J. (1979). Red and photographic infrared linear combinations for monitoring
        vegetation. Remote Sensing of Environment 8(2), 127-150.
    """
    return _normalized_difference(nir, red)


def awei_nsh(green: Array, nir: Array, swir1: Array, swir2: Array) -> Array:
    """Automated Water Extraction Index without shadows, of Feyisa et al. (2014).

    ``4 (green - swir1) - (0.25 nir + 2.75 swir2)``: above zero is water where no terrain or
    building shadow is mistaken for it. Its zero is a reflectance, not a ratio: bands in another
    unit (digital numbers) keep the sign of the sum only when they have no offset.

    Args:
        green: Green reflectance, shape (h, w); integers are widened first.
        nir: Near-infrared reflectance, same shape and unit.
        swir1: Short-wave infrared near 1.6 µm, same shape and unit.
        swir2: Short-wave infrared near 2.2 µm, same shape and unit.

    Returns:
        Index in the bands' unit, shape (h, w), within [-7, 4] for reflectances in [0, 1].

    Source:
        Feyisa, G. L., Meilby, H., Fensholt, R., Proud, S. R. (2014). Automated Water Extraction
        Index: A new technique for surface water mapping using Landsat imagery. Remote Sensing of
        Environment 140, 23-35.
    """
    g, n, s1, s2 = _widened(green, nir, swir1, swir2)
    result: Array = 4.0 * (g - s1) - (0.25 * n + 2.75 * s2)
    return result


def awei_sh(blue: Array, green: Array, nir: Array, swir1: Array, swir2: Array) -> Array:
    """Automated Water Extraction Index for scenes with shadows, of Feyisa et al. (2014).

    ``blue + 2.5 green - 1.5 (nir + swir1) - 0.25 swir2``: shadow stays below zero, which the
    plain form lets through; bright surfaces (snow, white roofs) may score as water instead.

    Args:
        blue: Blue reflectance, shape (h, w); integers are widened first.
        green: Green reflectance, same shape and unit.
        nir: Near-infrared reflectance, same shape and unit.
        swir1: Short-wave infrared near 1.6 µm, same shape and unit.
        swir2: Short-wave infrared near 2.2 µm, same shape and unit.

    Returns:
        Index in the bands' unit, shape (h, w), within [-3.25, 3.5] for reflectances in [0, 1].

    Source:
        Feyisa et al. (2014), see :func:`awei_nsh`.
    """
    b, g, n, s1, s2 = _widened(blue, green, nir, swir1, swir2)
    result: Array = b + 2.5 * g - 1.5 * (n + s1) - 0.25 * s2
    return result


def excess_green(red: Array, green: Array, blue: Array) -> Array:
    """Excess green of the chromatic coordinates, of Woebbecke et al. (1995).

    ``(2 green - red - blue) / (red + green + blue)``: lit leaves score high, soil and water low.
    Low is therefore *not vegetation*, not *water*: roads, roofs and gravel score low as well.

    Args:
        red: Red, shape (h, w), any unit; integers are widened first.
        green: Green, same shape and unit.
        blue: Blue, same shape and unit.

    Returns:
        Index in [-1, 2], shape (h, w); NaN where all three bands are zero.

    Source:
        Woebbecke, D. M., Meyer, G. E., Von Bargen, K., Mortensen, D. A. (1995). Color indices for
        weed identification under various soil, residue, and lighting conditions. Transactions of
        the ASAE 38(1), 259-269.
    """
    r, g, b = _widened(red, green, blue)
    result: Array = _ratio(2.0 * g - r - b, r + g + b)
    return result


def darkness(red: Array, green: Array, blue: Array) -> Array:
    """How far the brightest of the three bands is below white: one minus the V of HSV.

    Deep or clear water seen from above sends little light back; so do shadows and asphalt.

    Args:
        red: Red, shape (h, w); integers are divided by the largest value of their type, floats
            are taken to be in [0, 1].
        green: Green, same shape and type.
        blue: Blue, same shape and type.

    Returns:
        In [0, 1], shape (h, w): 0 white, 1 black.

    Source:
        V as defined by Smith, A. R. (1978), see :func:`hsv`.
    """
    planes = _unit(red, green, blue)
    result: Array = 1.0 - _maximum(*planes)
    return result


def hsv(red: Array, green: Array, blue: Array) -> tuple[Array, Array, Array]:
    """Hue, saturation and value of the hexcone model, of Smith (1978).

    Args:
        red: Red, shape (h, w); integers are divided by the largest value of their type, floats
            are taken to be in [0, 1].
        green: Green, same shape and type.
        blue: Blue, same shape and type.

    Returns:
        Hue in [0, 1) (0 red, 1/3 green, 2/3 blue), saturation in [0, 1], value in [0, 1], each of
        shape (h, w). Grey has no hue and black no saturation: both are 0 there, as in
        :func:`colorsys.rgb_to_hsv`.

    Source:
        Smith, A. R. (1978). Color gamut transform pairs. Computer Graphics 12(3), 12-19.
    """
    r, g, b = _unit(red, green, blue)
    value = _maximum(r, g, b)
    chroma = value + _maximum(-r, -g, -b)
    safe = chroma + (chroma == 0)
    is_red = value == r
    is_green = (value == g) & ~is_red
    is_blue = ~(is_red | is_green)
    sector = is_red * ((g - b) / safe) + is_green * ((b - r) / safe + 2.0) + is_blue * ((r - g) / safe + 4.0)
    # The remainder of a hue just below zero can round up to 1, which is red again: 0.
    hue = (sector / 6.0) % 1.0
    hue = hue * (hue < 1.0)
    saturation = chroma / (value + (value == 0))
    return hue, saturation, value


def _normalized_difference(first: Array, second: Array) -> Array:
    a, b = _widened(first, second)
    result: Array = _ratio(a - b, a + b)
    return result


def _ratio(top: Any, bottom: Any) -> Any:
    """``top / bottom``, NaN where ``bottom`` is zero.

    Division by a mended denominator, not ``numpy.errstate``: that would miss arrays that dask
    computes later, and it would leave 1 / 0 as infinity.
    """
    nowhere = bottom == 0
    quotient = top / (bottom + nowhere)
    if hasattr(quotient, "masked_fill"):
        return quotient.masked_fill(nowhere, float("nan"))
    if hasattr(quotient, "where"):
        return quotient.where(~nowhere)
    return np.where(nowhere, quotient.dtype.type(np.nan), quotient)


def _widened(*bands: Any) -> list[Any]:
    """The bands as float32, or as float64 where 24 bits do not hold their values (int32, int64, float64)."""
    return [_widened_one(band) for band in bands]


def _widened_one(band: Any) -> Any:
    if _is_torch(band):
        return band.double() if band.element_size() >= 4 and str(band.dtype) != "torch.float32" else band.float()
    if not hasattr(band, "astype"):
        band = np.asarray(band)
    return band.astype(np.result_type(band.dtype, np.float32), copy=False)


def _unit(*bands: Any) -> list[Any]:
    """The bands widened, integers divided by the largest value of their type."""
    return [wide / _full_scale(band) for wide, band in zip(_widened(*bands), bands, strict=True)]


def _full_scale(band: Any) -> float:
    # numpy knows the ranges of torch's integers too: they bear the same names.
    kind = np.dtype(str(band.dtype).removeprefix("torch.")) if hasattr(band, "dtype") and not _is_brain(band) else None
    return float(np.iinfo(kind).max) if kind is not None and kind.kind in "ui" else 1.0


def _is_brain(band: Any) -> bool:
    return "bfloat16" in str(band.dtype)


def _is_torch(band: Any) -> bool:
    return hasattr(band, "masked_fill")


def _maximum(first: Any, *others: Any) -> Any:
    """The largest of several arrays, by operators that numpy, xarray and torch share."""
    if _is_torch(first):
        for other in others:
            first = first.maximum(other)
        return first
    for other in others:
        first = np.maximum(first, other)
    return first
