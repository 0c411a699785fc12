"""Thresholds that know a mode from a slope, a river from a field, and a brook in a large scene."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geosam.coarse.choose import INDEX_TRUST, choose_rule
from geosam.coarse.threshold import fit_threshold
from geosam.options import CoarseOptions
from geosam.scene import Scene


def modes(*parts: tuple[float, float, float], count: int = 400_000) -> np.ndarray:
    """Scores of normal modes, each of a mean, a spread and a share."""
    rng = np.random.default_rng(2)
    return np.concatenate([rng.normal(mean, spread, round(count * share)) for mean, spread, share in parts])


@settings(max_examples=60, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(0.02, 0.3), st.integers(0, 1000), st.sampled_from([2_000, 60_000]))
def test_one_mode_is_never_parted(centre: float, spread: float, seed: int, count: int) -> None:
    """Otsu would halve it; the index's default stands."""
    scores = np.random.default_rng(seed).normal(centre, spread, count)
    fit = fit_threshold(scores, 0.0, -0.3, 0.5)
    assert not fit.bimodal
    assert fit.threshold == 0.0


@pytest.mark.parametrize("share", [0.004, 0.02, 0.2, 0.5, 0.9])
def test_two_modes_are_parted_however_rare_the_water(share: float) -> None:
    rng = np.random.default_rng(5)
    land, water = rng.normal(-0.3, 0.1, int(4e5 * (1 - share))), rng.normal(0.35, 0.1, int(4e5 * share))
    fit = fit_threshold(np.concatenate([land, water]), 0.0, -0.3, 0.5)
    assert fit.bimodal
    assert (land > fit.threshold).mean() < 0.01
    assert (water > fit.threshold).mean() > 0.95


def test_forest_and_fields_are_not_taken_for_land_and_water() -> None:
    """Three modes, the river the smallest: Otsu parts forest from fields."""
    rng = np.random.default_rng(2)
    forest, fields, river = (rng.normal(m, 0.03, n) for m, n in ((-0.4, 90_000), (-0.1, 90_000), (0.3, 9_000)))
    fit = fit_threshold(np.concatenate([forest, fields, river]), 0.0, -0.3, 0.5)
    assert 0 < fit.threshold < 0.25


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60))
def test_a_threshold_is_always_plausible(scores: list[float]) -> None:
    fit = fit_threshold(np.array(scores, np.float32), 0.0, -0.3, 0.5)
    assert -0.3 <= fit.threshold <= 0.5
    assert 0 <= fit.separability <= 1


def test_a_brook_in_a_large_scene_of_forest_and_fields_is_found() -> None:
    fit = fit_threshold(modes((-0.35, 0.03, 0.6), (-0.1, 0.03, 0.4), (0.3, 0.03, 0.0007)), 0.0, -0.3, 0.5)
    assert 0 < fit.threshold < 0.25
    assert fit.belief < 0.5  # It may be a few roofs.


@pytest.mark.parametrize(("river", "roofs"), [(0.05, 0.0005), (0.2, 0.0003)])
def test_a_few_blue_roofs_do_not_hide_a_turbid_river(river: float, roofs: float) -> None:
    fit = fit_threshold(modes((-0.4, 0.06, 1 - river), (-0.05, 0.05, river), (0.3, 0.04, roofs)), 0.0, -0.3, 0.5)
    assert -0.3 < fit.threshold < -0.1


def four_bands(path: str, ndwi_ndvi: np.ndarray) -> Scene:
    """A scene whose red, green and NIR give these indices, float (2, h, w)."""
    ndwi, ndvi = ndwi_ndvi
    nir = np.full(ndwi.shape, 120.0)
    green, red = nir * (1 + ndwi) / (1 - ndwi), nir * (1 - ndvi) / (1 + ndvi)
    stack = np.stack([red, green, green, nir]).clip(1, 255).astype(np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=ndwi.shape[0], width=ndwi.shape[1], dtype="uint8",
        crs="EPSG:32633", transform=Affine(2, 0, 5e5, 0, -2, 5e6),
    ) as raster:  # fmt: skip
        raster.write(stack)
        raster.descriptions = ("red", "green", "blue", "nir")
    return Scene.open(path)


def halves(left: float, right: float, spread: float = 0.02) -> np.ndarray:
    side = np.where(np.arange(200) < 120, left, right)
    return np.asarray(side + np.random.default_rng(1).normal(0, spread, (200, 200)))


def test_forest_beside_crops_is_one_kind_of_land(tmp_path) -> None:
    """Both are leaves by their NDVI, whose valley in NDWI is no bank; the default stands."""
    scene = four_bands(f"{tmp_path}/dry.tif", np.stack([halves(-0.4, -0.12), halves(0.6, 0.3)]))
    choice = choose_rule(scene, CoarseOptions())
    assert (choice.rule.method, choice.threshold, choice.trust) == ("ndwi-ndvi", 0.0, 0.0)


def test_a_threshold_between_forest_and_soil_leaves_the_model_its_say(tmp_path) -> None:
    """Bare soil and mud in water look alike to the index, so what the model sees counts."""
    muddy = four_bands(f"{tmp_path}/soil.tif", np.stack([halves(-0.5, -0.12), halves(0.6, 0.1)]))
    clear = four_bands(f"{tmp_path}/lake.tif", np.stack([halves(-0.5, 0.3), halves(0.6, -0.3)]))
    doubtful, sure = (choose_rule(scene, CoarseOptions()).trust for scene in (muddy, clear))
    assert 0 < doubtful < 4 < sure == INDEX_TRUST
