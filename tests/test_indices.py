"""The indices: formulas against exact arithmetic, the kinds of array, and the classical faults."""

from __future__ import annotations

import colorsys
import inspect
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geosam import indices

EXACT: dict[str, Callable[..., Fraction | None]] = {
    "ndwi": lambda green, nir: _quotient(green - nir, green + nir),
    "mndwi": lambda green, swir1: _quotient(green - swir1, green + swir1),
    "ndvi": lambda red, nir: _quotient(nir - red, nir + red),
    "awei_nsh": lambda green, nir, swir1, swir2: 4 * (green - swir1) - (nir / 4 + 11 * swir2 / 4),
    "awei_sh": lambda blue, green, nir, swir1, swir2: blue + 5 * green / 2 - 3 * (nir + swir1) / 2 - swir2 / 4,
    "excess_green": lambda red, green, blue: _quotient(2 * green - red - blue, red + green + blue),
}
NAMES = [*EXACT, "darkness", "hsv"]


def _quotient(top: Fraction, bottom: Fraction) -> Fraction | None:
    return top / bottom if bottom else None


def _bands(name: str, dtype: str = "float64", shape: tuple[int, int] = (5, 4)) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    count = len(inspect.signature(getattr(indices, name)).parameters)
    if np.dtype(dtype).kind in "ui":
        return [rng.integers(1, 120, shape).astype(dtype) for _ in range(count)]
    return [rng.uniform(0.02, 0.98, shape).astype(dtype) for _ in range(count)]


def _flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
def test_unsigned_bytes_give_what_exact_fractions_give(name: str, data: st.DataObject) -> None:
    """Unsigned subtraction wraps (10 - 20 is 246); the oracle is arithmetic on fractions."""
    count = len(inspect.signature(getattr(indices, name)).parameters)
    bands = [data.draw(hnp.arrays(np.uint8, (2, 3))) for _ in range(count)]
    got = getattr(indices, name)(*bands)
    assert got.dtype == np.float32
    for at in np.ndindex(2, 3):
        expected = EXACT[name](*(Fraction(int(band[at])) for band in bands))
        if expected is None:
            assert np.isnan(got[at])
        else:
            assert got[at] == pytest.approx(float(expected), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float16", "float32", "float64"])
def test_numpy_xarray_and_torch_agree_and_give_their_own_kind(name: str, dtype: str) -> None:
    function, bands = getattr(indices, name), _bands(name, dtype)
    plain = _flat(function(*bands))
    labelled = _flat(function(*(xr.DataArray(band, dims=("y", "x")) for band in bands)))
    tensors = _flat(function(*(torch.from_numpy(band) for band in bands)))
    for array, data_array, tensor in zip(plain, labelled, tensors, strict=True):
        assert type(array) is np.ndarray
        assert isinstance(data_array, xr.DataArray)
        assert data_array.dims == ("y", "x")
        assert isinstance(tensor, torch.Tensor)
        assert array.dtype == data_array.dtype == tensor.numpy().dtype
        np.testing.assert_allclose(data_array.values, array, rtol=1e-6)
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "wide"), [("uint16", "float32"), ("float16", "float32"), ("int64", "float64")])
def test_narrow_types_are_widened(name: str, dtype: str, wide: str) -> None:
    for result in _flat(getattr(indices, name)(*_bands(name, dtype))):
        assert result.dtype == np.dtype(wide)


def test_large_half_floats_do_not_overflow() -> None:
    big = np.full((2, 2), 60000, np.float16)
    assert np.all(indices.ndwi(big, big) == 0)
    assert np.isfinite(indices.awei_nsh(big, big, big, big)).all()


def test_brain_floats_are_taken_as_reflectance() -> None:
    half = torch.full((2, 2), 0.5, dtype=torch.bfloat16)
    assert indices.darkness(half, half, half).tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("name", ["ndwi", "mndwi", "ndvi", "excess_green"])
@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy, lambda band: xr.DataArray(band, dims=("y", "x"))])
def test_zero_over_zero_is_nan_without_a_warning(name: str, wrap: Callable[[np.ndarray], Any]) -> None:
    """Warnings are errors in this test run, so a RuntimeWarning would fail it."""
    bands = _bands(name, "uint8")
    for band in bands:
        band[0, 0] = 0
    result = np.asarray(getattr(indices, name)(*map(wrap, bands)))
    assert np.isnan(result[0, 0])
    assert np.isfinite(result.ravel()[1:]).all()


def test_opposite_bands_are_nan_and_not_infinite() -> None:
    assert np.isnan(indices.ndwi(np.array([[0.5]]), np.array([[-0.5]]))).all()


@given(hnp.arrays(np.uint8, (3, 2, 2)))
def test_hsv_is_that_of_the_standard_library(rgb: np.ndarray) -> None:
    got = np.stack(indices.hsv(*rgb))
    for at in np.ndindex(2, 2):
        expected = colorsys.rgb_to_hsv(*(rgb[(slice(None), *at)] / 255))
        np.testing.assert_allclose(got[(slice(None), *at)], expected, atol=1e-5)


@given(hnp.arrays(np.float32, (3, 2, 2), elements=st.floats(0, 1, width=32)))
def test_hue_stays_below_one(rgb: np.ndarray) -> None:
    hue, saturation, value = indices.hsv(*rgb)
    assert ((hue >= 0) & (hue < 1)).all()
    assert ((saturation >= 0) & (saturation <= 1)).all()
    np.testing.assert_allclose(indices.darkness(*rgb), 1 - value)


def test_water_scores_above_land() -> None:
    """Reflectances of a clear river and of a meadow, typical of Sentinel-2."""
    blue, green, red = np.array([0.05, 0.04]), np.array([0.06, 0.08]), np.array([0.04, 0.05])
    nir, swir1, swir2 = np.array([0.02, 0.35]), np.array([0.01, 0.20]), np.array([0.01, 0.10])
    for index in (
        indices.ndwi(green, nir),
        indices.mndwi(green, swir1),
        indices.awei_nsh(green, nir, swir1, swir2),
        indices.awei_sh(blue, green, nir, swir1, swir2),
        -indices.ndvi(red, nir),
    ):
        assert index[0] > 0 > index[1]


def test_the_bands_are_left_as_they_were() -> None:
    for name in NAMES:
        bands = _bands(name, "float32")
        before = [band.copy() for band in bands]
        getattr(indices, name)(*bands)
        assert all(np.array_equal(band, old) for band, old in zip(bands, before, strict=True))


def test_importing_the_indices_does_not_import_torch() -> None:
    code = "import sys, geosam.indices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
