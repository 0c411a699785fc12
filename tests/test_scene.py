from __future__ import annotations

import math
import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from geosam.errors import SceneError
from geosam.options import SceneOptions
from geosam.scene import Scene, Stretch
from geosam.scene.bands import word_role
from geosam.scene.files import FileReader
from geosam.scene.resample import Axis, resample
from geosam.scene.stretch import IDENTITY

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SHAPE = (130, 170)


def write(path: Path, pixels: np.ndarray, *, names: tuple[str, ...] = (), colors: Any = None, **profile: Any) -> str:
    """A GeoTIFF of pixels (bands, h, w); returns its path as text."""
    profile = {"crs": "EPSG:32632", "transform": UTM, "tiled": True, "blockxsize": 64, "blockysize": 64, **profile}
    if not profile["tiled"]:
        profile = {key: value for key, value in profile.items() if key != "blockxsize"}
    scales, offsets = profile.pop("scales", None), profile.pop("offsets", None)
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        file.write(pixels)
        for band, name in enumerate(names, 1):
            file.set_band_description(band, name)
        if colors is not None:
            file.colorinterp = colors
        if scales is not None:
            file.scales, file.offsets = scales, offsets
    return str(path)


def picture(count: int = 3, dtype: str = "uint8", shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Random pixels without zeros, spread over what the dtype likes."""
    high = {"uint8": 255, "int16": 3000}.get(dtype, 10_000)
    return np.random.default_rng(seed).integers(1, high, (count, *shape)).astype(dtype)


def options(**values: Any) -> SceneOptions:
    return SceneOptions(**values)


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, int] = SHAPE, overhang: int = 40) -> Window:
    row, col = (draw(st.integers(-overhang, size + overhang)) for size in shape)
    return Window(col, row, draw(st.integers(1, 120)), draw(st.integers(1, 120)))


def padded(whole: np.ndarray, window: Window, pad: int = 300) -> np.ndarray:
    """Window of an array whose last two axes are (h, w), zero outside: a plain-numpy oracle."""
    wide = np.pad(whole, [(0, 0)] * (whole.ndim - 2) + [(pad, pad), (pad, pad)])
    row, col = window.row_off + pad, window.col_off + pad
    return wide[..., row : row + window.height, col : col + window.width]


def whole(scene: Scene) -> Window:
    return Window(0, 0, scene.shape[1], scene.shape[0])


# Windows ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ortho(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A uint16 scene with nodata 0 over part of it, in blocks, with overviews."""
    pixels = picture(4, "uint16")
    pixels[:, 100:, :20] = 0
    path = tmp_path_factory.mktemp("scene") / "ortho.tif"
    write(path, pixels, nodata=0, names=("red", "green", "blue", "nir"))
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    return str(path)


@settings(max_examples=60, deadline=None)
@given(window=windows())
def test_a_window_equals_rasterio_s_own_read_and_is_empty_outside(ortho: str, window: Window) -> None:
    scene = Scene.open(ortho)
    with rasterio.open(ortho) as file:
        expected, mask = file.read([4, 2]), file.dataset_mask() > 0
    block = scene.read(window, ["nir", "green"])
    assert block.values.dtype == np.float32
    np.testing.assert_array_equal(block.values, padded(expected, window))
    np.testing.assert_array_equal(block.valid, padded(mask, window))


@settings(max_examples=40, deadline=None)
@given(window=windows((47, 61), 20), finer=st.sampled_from([1 / 2.77, 1 / 2, 1.0, 1.37]))
def test_a_resampled_window_equals_the_same_pixels_of_the_whole(ortho: str, window: Window, finer: float) -> None:
    scene = Scene.open(ortho).in_shape((round(130 * finer), round(170 * finer)))
    everything, part = scene.read(whole(scene), ["red", "nir"]), scene.read(window, ["red", "nir"])
    np.testing.assert_array_equal(part.values, padded(everything.values, window))
    np.testing.assert_array_equal(part.valid, padded(everything.valid, window))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_read_rgb_and_read_valid_agree_with_read(tmp_path: Path, dtype: str) -> None:
    pixels = picture(3, dtype)
    pixels[:, :30, :40] = 0
    scene = Scene.open(write(tmp_path / "a.tif", pixels, nodata=0))
    window = Window(-10, -5, 80, 70)
    block, (rgb, valid) = scene.read(window, ["red", "green", "blue"]), scene.read_rgb(window)
    expected = scene.stretch.apply(block.values)
    expected[~block.valid] = 0
    np.testing.assert_array_equal(rgb, expected)
    np.testing.assert_array_equal(valid, block.valid)
    np.testing.assert_array_equal(scene.read_valid(window), valid)


def test_coarser_pixels_are_means_of_the_valid_ones(tmp_path: Path) -> None:
    pixels = picture(3, "float32", (64, 96))
    pixels[:, :4, :4] = np.nan
    pixels[:, 5, 5] = np.inf
    coarse = Scene.open(write(tmp_path / "a.tif", pixels)).at_gsd(1.0)
    assert coarse.shape == (32, 48)
    block = coarse.read(whole(coarse), ["red"])
    good = (
        np.where(np.isfinite(pixels[0]), pixels[0], np.nan)
        .reshape(32, 2, 48, 2)
        .transpose(0, 2, 1, 3)
        .reshape(32, 48, 4)
    )
    assert not block.valid[:2, :2].any()
    assert block.valid[2, 2], "three of four pixels are data"
    np.testing.assert_allclose(block.values[0][block.valid], np.nanmean(good[block.valid], axis=1), rtol=1e-5)


def test_finer_pixels_keep_a_ramp_a_ramp(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(1, 65, dtype=np.float32), (3, 48, 64)).copy()
    fine = Scene.open(write(tmp_path / "a.tif", ramp)).at_gsd(0.25)
    assert fine.shape == (96, 128)
    inner = fine.read(whole(fine), ["red"]).values[0][:, 1:-1]
    np.testing.assert_allclose(inner, np.broadcast_to(1 + (np.arange(1, 127) - 0.5) / 2, inner.shape), rtol=1e-5)


@given(size=st.integers(1, 90), out=st.integers(1, 120), data=st.data())
def test_resampling_weights_sum_to_one_and_keep_a_constant(size: int, out: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, out - 1))
    axis = Axis(0.0, size / out, size)
    taps = axis.taps(first, out - first)
    np.testing.assert_allclose(taps.weight.sum(axis=0), 1, rtol=1e-5)
    begin, end = axis.span(first, out - first)
    values = np.full((2, end - begin, end - begin), 7, np.float32)
    found, valid = resample(values, np.ones(values.shape[1:], bool), taps, taps)
    assert valid.all()
    np.testing.assert_allclose(found, 7, rtol=1e-5)


def test_strips_cover_every_row_once(ortho: str) -> None:
    strips = list(Scene.open(ortho).strips(48))
    assert [(w.row_off, w.height) for w in strips] == [(0, 48), (48, 48), (96, 34)]
    assert all((w.col_off, w.width) == (0, 170) for w in strips)


def test_reading_from_threads_equals_reading_in_turn(ortho: str) -> None:
    scene = Scene.open(ortho)
    tasks = [Window(col, row, 40, 40) for row in range(-20, 140, 13) for col in range(-20, 170, 29)]
    alone = [scene.read(window, ["red", "nir"]).values for window in tasks]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda window: scene.read(window, ["red", "nir"]).values, tasks))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_scene_pickles_and_reads_the_same(ortho: str) -> None:
    scene = Scene.open(ortho).decimated(60)
    assert scene.gsd_m > 0
    again = pickle.loads(pickle.dumps(scene))
    assert (again.shape, again.bands, again.stretch, again.geobox) == (
        scene.shape,
        scene.bands,
        scene.stretch,
        scene.geobox,
    )
    np.testing.assert_array_equal(again.read_rgb(whole(again))[0], scene.read_rgb(whole(scene))[0])


def test_a_file_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for seed in (1, 2):
        pixels = picture(seed=seed)
        write(path, pixels)
        os.utime(path, ns=(seed, seed))
        np.testing.assert_array_equal(Scene.open(path).read(Window(0, 0, 170, 130), ["red"]).values[0], pixels[0])


# What must simply work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_real_dtype_reads_its_values(tmp_path: Path, dtype: str) -> None:
    pixels = picture(3, dtype)
    scene = Scene.open(write(tmp_path / "a.tif", pixels))
    assert scene.dtype == dtype
    block = scene.read(whole(scene), ["blue"])
    np.testing.assert_array_equal(block.values[0], pixels[2].astype(np.float32))
    rgb, valid = scene.read_rgb(whole(scene))
    assert valid.all()
    assert rgb.std() > 40, "the stretch uses the eight bits"


def test_scale_and_offset_tags_are_applied(tmp_path: Path) -> None:
    pixels = picture(3, "uint16")
    path = write(tmp_path / "a.tif", pixels, nodata=0, scales=(1e-4,) * 3, offsets=(-0.1,) * 3)
    scene = Scene.open(path)
    np.testing.assert_allclose(
        scene.read(whole(scene), ["red"]).values[0], pixels[0] * 1e-4 - 0.1, rtol=1e-4, atol=1e-6
    )
    assert -0.4 < min(scene.stretch.low) < max(scene.stretch.high) < 1.0


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 500_000, 0, 0.5, 5_000_000),
        Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5),
    ],
    ids=["south-up", "rotated"],
)
def test_grids_that_are_not_north_up_keep_their_place_and_size(tmp_path: Path, transform: Affine) -> None:
    scene = Scene.open(write(tmp_path / "a.tif", picture(), transform=transform))
    assert scene.geobox.transform.almost_equals(transform)
    assert scene.gsd_m == pytest.approx(0.5, rel=1e-3)
    half = scene.at_gsd(1.0)
    assert half.shape == (65, 85)
    assert half.geobox.transform @ (85, 65) == pytest.approx(transform @ (170, 130))


@pytest.mark.parametrize("shape", [(1, 40), (3, 2), (17, 400)])
def test_small_and_narrow_scenes_read_like_any_other(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = picture(shape=shape)
    scene = Scene.open(write(tmp_path / "a.tif", pixels))
    rgb, valid = scene.read_rgb(Window(0, 0, 512, 512))
    assert valid.sum() == shape[0] * shape[1]
    np.testing.assert_array_equal(rgb[: shape[0], : shape[1]], pixels.transpose(1, 2, 0))


@pytest.mark.parametrize(
    "layout", [{"tiled": False}, {"interleave": "pixel"}, {"compress": "deflate"}, {"BIGTIFF": "YES"}]
)
def test_block_layout_makes_no_difference(tmp_path: Path, layout: dict[str, Any]) -> None:
    pixels = picture()
    profile = {"tiled": True, **layout}
    scene = Scene.open(write(tmp_path / "a.tif", pixels, **profile))
    np.testing.assert_array_equal(scene.read(Window(31, 17, 90, 80), ["green"]).values[0], pixels[1, 17:97, 31:121])


def test_nan_and_inf_pixels_are_not_valid_and_read_as_zero(tmp_path: Path) -> None:
    pixels = picture(4, "float64")
    pixels[0, 3, 4], pixels[3, 5, 6], pixels[1, 7, 8] = np.nan, np.nan, -np.inf
    scene = Scene.open(write(tmp_path / "a.tif", pixels, names=("red", "green", "blue", "nir")))
    rgb, valid = scene.read_rgb(whole(scene))
    assert {tuple(at) for at in np.argwhere(~valid)} == {(3, 4), (7, 8)}
    assert (rgb[~valid] == 0).all()
    nir = scene.read(whole(scene), ["nir"])
    assert {tuple(at) for at in np.argwhere(~nir.valid)} == {(5, 6)}
    assert np.isfinite(nir.values).all()


def test_dark_pixels_with_one_zero_band_are_data_where_nodata_is_zero(tmp_path: Path) -> None:
    pixels = picture(4)
    pixels[0, 10, 10] = 0
    pixels[3, 11, 11] = 0
    pixels[:, 12, 12] = 0
    scene = Scene.open(write(tmp_path / "a.tif", pixels, nodata=0), options(bands="naip"))
    for roles in (["red"], ["nir"], ["green", "nir"], ["red", "green", "blue"]):
        assert {tuple(at) for at in np.argwhere(~scene.read(whole(scene), roles).valid)} == {(12, 12)}


def test_zero_is_data_unless_the_file_says_so(tmp_path: Path) -> None:
    pixels = picture()
    pixels[:, :50] = 0
    assert Scene.open(write(tmp_path / "a.tif", pixels)).read_valid(Window(0, 0, 170, 130)).all()


@pytest.mark.parametrize("nodata", [-9999.0, -3.4028234663852886e38, math.nan])
def test_a_nodata_value_in_any_band_that_is_asked_for_counts(tmp_path: Path, nodata: float) -> None:
    pixels = picture(3, "float32")
    pixels[1, 20, 30] = nodata
    scene = Scene.open(write(tmp_path / "a.tif", pixels, nodata=nodata))
    assert {tuple(at) for at in np.argwhere(~scene.read_valid(whole(scene)))} == {(20, 30)}
    assert scene.read(whole(scene), ["red"]).valid.all()


def test_a_nodata_tag_that_the_dtype_cannot_hold_hides_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(3, "uint8"))
    scene = Scene.open(path)
    header = scene.decoder.header
    odd = replace(scene.decoder, reader=replace(scene.decoder.reader, header=replace(header, nodata=(-9999.0,) * 3)))
    assert replace(scene, decoder=odd).read_valid(whole(scene)).all()


def test_an_alpha_band_hides_its_zeros(tmp_path: Path) -> None:
    pixels = picture(4)
    pixels[3] = 255
    pixels[3, :10] = 0
    pixels[3, 10, 0] = 1
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    scene = Scene.open(write(tmp_path / "a.tif", pixels, colors=colors))
    assert dict(scene.bands) == {"red": 1, "green": 2, "blue": 3}
    np.testing.assert_array_equal(scene.read_valid(whole(scene)), pixels[3] > 0)
    assert scene.warnings == ()


def test_imagery_tagged_alpha_gets_a_word_and_can_be_named_near_infrared(tmp_path: Path) -> None:
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    pixels = picture(4)
    pixels[3, :10] = 0
    path = write(tmp_path / "a.tif", pixels, colors=colors)
    assert "nir=4" in " ".join(Scene.open(path).warnings)
    scene = Scene.open(path, options(bands="naip"))
    assert scene.bands["nir"] == 4
    assert scene.read(whole(scene), ["nir"]).valid.all()


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_band_or_file_hides_what_it_masks(tmp_path: Path, internal: bool) -> None:
    path = tmp_path / "a.tif"
    mask = np.full(SHAPE, 255, np.uint8)
    mask[:, 100:] = 0
    write(path, picture())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    scene = Scene.open(path)
    np.testing.assert_array_equal(scene.read_valid(whole(scene)), mask > 0)


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    indices = np.random.default_rng(0).integers(0, 3, (1, *SHAPE)).astype(np.uint8)
    colors = {0: (10, 20, 30, 255), 1: (200, 150, 100, 255), 2: (0, 0, 0, 255)}
    write(path, indices, photometric="palette", nodata=2)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colors)
    scene = Scene.open(path)
    rgb, valid = scene.read_rgb(whole(scene))
    np.testing.assert_array_equal(valid, indices[0] != 2)
    table = np.array([colors[index][:3] for index in range(3)], np.uint8)
    np.testing.assert_array_equal(rgb[valid], scene.stretch.apply(table[indices[0]].transpose(2, 0, 1))[valid])


def test_without_crs_lengths_are_pixels_and_y_runs_down(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(), crs=None)
    scene = Scene.open(path, options(allow_no_crs=True))
    assert not scene.has_crs
    assert math.isnan(scene.gsd_m)
    assert scene.pixel_area_m2 == 1.0
    assert scene.geobox.transform == Affine.identity()
    assert "no CRS" in repr(scene)
    with pytest.raises(SceneError, match="--gsd"):
        scene.at_gsd(1.0)


# Band roles -------------------------------------------------------------------------------------------------------


S2_NAMES = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
RGB_COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Blue", "Green", "Red", "Near Infrared"), {"blue": 1, "green": 2, "red": 3, "nir": 4}),
        (("swir16", "nir08", "red", "green"), {"swir1": 1, "nir": 2, "red": 3, "green": 4}),
        (("coastal", "blue", "green", "red", "rededge", "nir", "swir 1", "SWIR 2"),
         {"coastal": 1, "blue": 2, "green": 3, "red": 4, "rededge": 5, "nir": 6, "swir1": 7, "swir2": 8}),
        (S2_NAMES, {"blue": 1, "green": 2, "red": 3, "nir": 4, "nir_narrow": 5, "swir1": 6, "swir2": 7}),
        (("B2", "B3", "B4", "B8"), {"blue": 1, "green": 2, "red": 3, "nir": 4}),
        (("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"),
         {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir1": 5, "swir2": 6}),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"),
         {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir1": 5, "swir2": 6}),
        (("B2", "B3", "B4", "B5"), {"blue": 1, "green": 2, "red": 3}),
        (("b1", "b2", "b3"), {"red": 1, "green": 2, "blue": 3}),
        (("VV", "red", "VH", "green"), {"red": 2, "green": 4}),
        (("R", "G", "B", "NIR"), {"red": 1, "green": 2, "blue": 3, "nir": 4}),
    ],
)  # fmt: skip
def test_band_names_give_the_roles(tmp_path: Path, names: tuple[str, ...], expected: dict[str, int]) -> None:
    scene = Scene.open(write(tmp_path / "a.tif", picture(len(names)), names=names))
    assert dict(scene.bands) == expected


def test_the_file_name_tells_landsat_from_sentinel(tmp_path: Path) -> None:
    names = ("B2", "B3", "B4", "B5")
    pixels = picture(4)
    assert Scene.open(write(tmp_path / "LC08_L2SP_a.tif", pixels, names=names)).bands["nir"] == 4
    assert Scene.open(write(tmp_path / "LT05_a.tif", pixels, names=names)).bands["swir1"] == 4
    assert Scene.open(write(tmp_path / "S2A_MSIL2A_a.tif", pixels, names=names)).bands["rededge1"] == 4


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("shortwave infrared 1", "swir1"), ("Short Wave Infrared 2", "swir2"), ("thermal infrared", None),
        ("short wave infra red", None), ("Red Edge 2", "rededge"), ("infrared", "nir"), ("blurred", None),
        ("sr_red", "red"), ("near-infrared", "nir"), ("NDVI", None), ("", None),
    ],
)  # fmt: skip
def test_words_of_band_names_stand_alone(name: str, role: str | None) -> None:
    assert word_role(name) == role


def test_wavelength_tags_give_the_roles(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, picture(8))
    with rasterio.open(path, "r+") as file:
        for band, nanometres in enumerate((1610, 840, 790, 665, 560, 490, 443, 2200), 1):
            file.update_tags(band, wavelength=f"{nanometres}", wavelength_units="Nanometers")
    assert dict(Scene.open(path).bands) == {
        "coastal": 7, "blue": 6, "green": 5, "red": 4, "nir": 2, "swir1": 1, "swir2": 8,
    }  # fmt: skip


def test_colour_interpretation_gives_the_roles_and_the_fourth_band_a_hint(tmp_path: Path) -> None:
    colors = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    scene = Scene.open(write(tmp_path / "a.tif", picture(4), colors=colors))
    assert dict(scene.bands) == {"blue": 1, "green": 2, "red": 3}
    assert "nir=4" in scene.warnings[0]


def test_three_untagged_bands_are_red_green_blue_and_four_say_how_to_name_near_infrared(tmp_path: Path) -> None:
    rgb = {"red": 1, "green": 2, "blue": 3}
    three = Scene.open(write(tmp_path / "a.tif", picture(3), photometric="minisblack"))
    assert (dict(three.bands), three.warnings) == (rgb, ())
    four = Scene.open(write(tmp_path / "b.tif", picture(4), photometric="minisblack"))
    assert dict(four.bands) == rgb
    assert "--bands red=1,green=2,blue=3,nir=4" in four.warnings[0]
    with pytest.raises(SceneError, match="nir=N"):
        four.read(Window(0, 0, 4, 4), ["nir"])


@pytest.mark.parametrize(
    ("preset", "count", "expected"),
    [
        ("naip", 4, {"red": 1, "green": 2, "blue": 3, "nir": 4}),
        ("sentinel2", 4, {"blue": 1, "green": 2, "red": 3, "nir": 4}),
        ("sentinel2", 10, {"blue": 1, "green": 2, "red": 3, "nir": 7, "swir1": 9, "swir2": 10}),
        ("sentinel2", 12, {"blue": 2, "green": 3, "red": 4, "nir": 8, "swir1": 11, "swir2": 12}),
        ("sentinel2", 13, {"blue": 2, "green": 3, "red": 4, "nir": 8, "swir1": 12, "swir2": 13}),
        ("landsat8", 7, {"blue": 2, "green": 3, "red": 4, "nir": 5, "swir1": 6, "swir2": 7}),
        ("planetscope", 4, {"blue": 1, "green": 2, "red": 3, "nir": 4}),
        ("planetscope", 8, {"blue": 2, "green": 4, "red": 6, "nir": 8}),
        ("drone-rgb", 3, {"red": 1, "green": 2, "blue": 3}),
    ],
)
def test_presets_know_their_sensor_s_stack(tmp_path: Path, preset: str, count: int, expected: dict[str, int]) -> None:
    scene = Scene.open(write(tmp_path / "a.tif", picture(count, shape=(20, 20))), options(bands=preset))
    assert {role: scene.bands[role] for role in expected} == expected


def test_sixteen_bands_by_number_and_one_band_in_two_roles(tmp_path: Path) -> None:
    pixels = picture(16, "uint16")
    bands = "Red=3, green=4,BLUE=4,nir=16"
    scene = Scene.open(write(tmp_path / "a.tif", pixels), options(bands=bands))
    np.testing.assert_array_equal(
        scene.read(whole(scene), ["green", "blue", "nir"]).values, pixels[[3, 3, 15]].astype(np.float32)
    )


def test_a_missing_colour_is_lent_by_its_neighbour(tmp_path: Path) -> None:
    pixels = picture(4)
    scene = Scene.open(write(tmp_path / "a.tif", pixels), options(bands="swir1=1,nir=2,red=3,green=4"))
    rgb, _ = scene.read_rgb(whole(scene))
    np.testing.assert_array_equal(rgb, pixels[[2, 3, 3]].transpose(1, 2, 0))
    assert "no blue" in scene.warnings[0]


# Stretch and sample -----------------------------------------------------------------------------------------------


def test_the_stretch_is_one_for_the_scene(tmp_path: Path) -> None:
    """The same value becomes the same grey in a dark window and in a bright one."""
    pixels = picture(3, "uint16")
    pixels[:, :, :85] //= 8
    pixels[:, 0, 0] = pixels[:, 129, 169] = 777
    scene = Scene.open(write(tmp_path / "a.tif", pixels))
    dark, bright = scene.read_rgb(Window(0, 0, 20, 20))[0], scene.read_rgb(Window(150, 110, 20, 20))[0]
    np.testing.assert_array_equal(dark[0, 0], bright[19, 19])
    assert scene.at_gsd(2.0).stretch == scene.stretch


def test_ordinary_eight_bit_imagery_stays_as_it_is_and_dim_imagery_does_not(tmp_path: Path) -> None:
    pixels = picture()
    assert Scene.open(write(tmp_path / "a.tif", pixels)).stretch == IDENTITY
    dim = Scene.open(write(tmp_path / "b.tif", pixels // 4 + 1))
    rgb, _ = dim.read_rgb(whole(dim))
    assert rgb.max() > 240
    plain = Scene.open(write(tmp_path / "c.tif", pixels // 64 + 40))
    assert plain.stretch.high[0] - plain.stretch.low[0] >= 64, "noise over plain water is not blown up"


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("float32", 1e6), ("float32", -3.0)]
)
def test_a_constant_scene_divides_by_no_zero(tmp_path: Path, dtype: str, value: float) -> None:
    scene = Scene.open(write(tmp_path / "a.tif", np.full((3, 40, 40), value, dtype)))
    rgb, valid = scene.read_rgb(whole(scene))
    assert valid.all()
    assert rgb.min() == rgb.max()
    assert all(high > low for low, high in zip(scene.stretch.low, scene.stretch.high, strict=True))


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-2, 1e5))
def test_a_stretch_is_monotone_and_ends_at_black_and_white(low: float, span: float) -> None:
    stretch = Stretch((low,) * 3, (low + span,) * 3)
    ramp = np.broadcast_to(np.linspace(low - span, low + 2 * span, 64, dtype=np.float32), (3, 1, 64))
    grey = stretch.apply(ramp)[0, :, 0].astype(int)
    assert (np.diff(grey) >= 0).all()
    assert (grey[0], grey[-1]) == (0, 255)
    assert stretch.apply(np.full((3, 1, 1), np.nan, np.float32)).max() == 0


def test_the_identity_stretch_changes_no_value() -> None:
    values = np.broadcast_to(np.arange(256, dtype=np.float32), (3, 1, 256))
    np.testing.assert_array_equal(IDENTITY.apply(values)[0, :, 1], np.arange(256))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of every window handed over by GDAL, one entry a read."""
    counts: list[int] = []
    original = FileReader.read

    def counting(self: FileReader, bands: Any, box: Any, level: int = 0) -> Any:
        counts.append(box.height * box.width)
        return original(self, bands, box, level)

    monkeypatch.setattr(FileReader, "read", counting)
    return counts


@pytest.mark.parametrize("layout", [{}, {"tiled": False, "blockysize": 1}])
def test_a_sample_costs_the_same_however_large_the_scene(
    tmp_path: Path, decoded: list[int], layout: dict[str, Any]
) -> None:
    path = tmp_path / "large.tif"
    shape = {"height": 6_000, "width": 4_000, "count": 3, "dtype": "uint8", "transform": UTM, "crs": "EPSG:32632"}
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, **layout}
    if not blocks["tiled"]:
        del blocks["blockxsize"]
    with rasterio.open(path, "w", driver="GTiff", SPARSE_OK=True, **shape, **blocks) as file:
        file.write(np.full((3, 6_000, 300), 200, np.uint8), window=Window(1500, 0, 300, 6_000))
    scene = Scene.open(path)
    decoded.clear()
    block = scene.sample(["red", "green"], max_px=200_000)
    assert sum(decoded) < 900_000
    assert block.values.shape == (2, *block.valid.shape)
    assert block.valid.size < 300_000
    assert (block.values == 200).any(), "a strip from top to bottom is seen"


def test_a_sample_of_a_small_scene_sees_all_of_it(ortho: str) -> None:
    scene = Scene.open(ortho)
    block = scene.sample(["red"])
    np.testing.assert_array_equal(block.values, scene.read(whole(scene), ["red"]).values)


def test_overviews_are_used_where_they_are_fine_enough(ortho: str, decoded: list[int]) -> None:
    scene = Scene.open(ortho)
    decoded.clear()
    coarse = scene.in_shape((32, 42))
    coarse.read(whole(coarse), ["red"])
    assert sum(decoded) == 33 * 43


def test_opening_reads_windows_only(tmp_path: Path, decoded: list[int]) -> None:
    path = tmp_path / "large.tif"
    shape = {"height": 20_000, "width": 20_000, "count": 3, "dtype": "uint8", "transform": UTM, "crs": "EPSG:32632"}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, SPARSE_OK=True, **shape) as file:
        file.write(picture(3, shape=(512, 512)), window=Window(0, 0, 512, 512))
    Scene.open(path)
    assert sum(decoded) < 3_000_000


# Metres -----------------------------------------------------------------------------------------------------------


def test_degrees_become_metres_on_the_ground(tmp_path: Path) -> None:
    """At 60 degrees north a degree of longitude is half as long: 55.8 km by 111.4 km (WGS84)."""
    transform = Affine(1e-4, 0, 10, 0, -1e-4, 60 + 65e-4)
    scene = Scene.open(write(tmp_path / "a.tif", picture(), crs="EPSG:4326", transform=transform))
    across, down = scene.pixel_size_m
    assert across == pytest.approx(5.580, rel=1e-3)
    assert down == pytest.approx(11.141, rel=1e-3)
    assert scene.pixel_area_m2 == pytest.approx(across * down)
    assert scene.gsd_m == scene.native_gsd_m == pytest.approx(math.sqrt(across * down))
    assert scene.at_gsd(22.0).pixel_size_m == pytest.approx((22, 22), rel=0.03)


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", UTM, 0.5),
        ("EPSG:2264", Affine(1, 0, 2_000_000, 0, -1, 700_000), 0.3048),
        ("EPSG:3857", Affine(1, 0, 1_113_195, 0, -1, 8_399_737), 0.5),
        ("EPSG:3031", Affine(10, 0, 100, 0, -10, 1_200_000), 10 / 0.985),
    ],
    ids=["UTM", "US feet", "Web Mercator at 60 N", "Antarctic"],
)
def test_any_projection_gives_metres_on_the_ground(tmp_path: Path, crs: str, transform: Affine, metres: float) -> None:
    scene = Scene.open(write(tmp_path / "a.tif", picture(), crs=crs, transform=transform))
    assert scene.gsd_m == pytest.approx(metres, rel=0.015)


def test_a_working_grid_covers_the_same_ground(ortho: str) -> None:
    scene = Scene.open(ortho)
    for other in (scene.at_gsd(1.3), scene.decimated(50), scene.at_gsd(1.3).at_gsd(0.5)):
        assert tuple(other.geobox.boundingbox) == pytest.approx(tuple(scene.geobox.boundingbox))
    assert scene.decimated(50).shape == (38, 50)
    assert scene.at_gsd(0.502) is scene
    assert scene.decimated(500) is scene
    assert Scene.open(ortho, options(gsd=1.0)).shape == (65, 85)


# Area of interest -------------------------------------------------------------------------------------------------


def aoi(path: Path, polygon: Any, crs: str | None = "EPSG:32632", to: str | None = None) -> str:
    frame = gpd.GeoDataFrame(geometry=[polygon], crs=crs)
    (frame.to_crs(to) if to else frame).to_file(path)
    return str(path)


@pytest.mark.parametrize("to", [None, "EPSG:4326"])
def test_an_aoi_crops_to_its_bounds_and_hides_what_is_outside(tmp_path: Path, ortho: str, to: str | None) -> None:
    triangle = shapely.Polygon([(500_010.1, 4_999_990.2), (500_050.3, 4_999_990.2), (500_010.1, 4_999_950.4)])
    scene = Scene.open(ortho, options(aoi=aoi(tmp_path / "aoi.gpkg", triangle, to=to)))
    assert scene.shape == (81, 81)
    assert scene.geobox.transform @ (0, 0) == (500_010, 4_999_990.5)
    valid, full = scene.read_valid(whole(scene)), Scene.open(ortho)
    inside = shapely.contains_xy(
        triangle, *np.meshgrid(500_010.25 + 0.5 * np.arange(81), 4_999_990.25 - 0.5 * np.arange(81))
    )
    assert (valid != inside).sum() <= 3, "GDAL's rasteriser may round at an edge"
    np.testing.assert_array_equal(
        scene.read(Window(0, 0, 20, 20), ["red"]).values,
        full.read(Window(20, 19, 20, 20), ["red"]).values * valid[:20, :20],
    )
    half = scene.at_gsd(1.0)
    rgb, coarse_valid = half.read_rgb(whole(half))
    assert coarse_valid.mean() == pytest.approx(0.5, abs=0.03)
    assert (rgb[~coarse_valid] == 0).all()


def test_an_aoi_works_on_a_rotated_eight_bit_scene(tmp_path: Path) -> None:
    transform = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    path = write(tmp_path / "a.tif", picture(), transform=transform)
    corners = [transform @ xy for xy in ((20, 30), (60, 30), (60, 50), (20, 50))]
    scene = Scene.open(path, options(aoi=aoi(tmp_path / "aoi.geojson", shapely.Polygon(corners), to="EPSG:4326")))
    assert scene.shape == pytest.approx((20, 40), abs=1)
    assert scene.read_rgb(whole(scene))[1].mean() > 0.9


# xarray -----------------------------------------------------------------------------------------------------------


def array(pixels: np.ndarray, dims: tuple[str, ...] = ("band", "y", "x"), **attrs: Any) -> xr.DataArray:
    """Georeferenced as rioxarray and odc-geo do it, by a spatial_ref coordinate."""
    height, width = (pixels.shape[dims.index(dim)] for dim in ("y", "x"))
    coords = {
        "x": 500_000 + 0.5 * (np.arange(width) + 0.5),
        "y": 5_000_000 - 0.5 * (np.arange(height) + 0.5),
        "spatial_ref": xr.Variable((), 0, {"crs_wkt": rasterio.crs.CRS.from_epsg(32632).to_wkt()}),
    }
    return xr.DataArray(pixels, dims=dims, coords=coords, attrs=attrs)


@pytest.mark.parametrize("gsd", [0.5, 1.1])
def test_an_array_reads_like_the_file_with_the_same_pixels(tmp_path: Path, gsd: float) -> None:
    pixels = picture(3, "uint16")
    pixels[:, :9] = 0
    from_file = Scene.open(write(tmp_path / "a.tif", pixels, nodata=0), options(gsd=gsd))
    from_array = Scene.open(array(pixels, _FillValue=0), options(gsd=gsd))
    assert from_array.geobox == from_file.geobox
    assert from_array.source == "memory"
    for window in (whole(from_file), Window(-5, 20, 50, 90)):
        for one, other in zip(from_file.read_rgb(window), from_array.read_rgb(window), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_array_may_have_its_bands_last_and_names_from_labels(tmp_path: Path) -> None:
    pixels = picture(4, "float32")
    last = array(np.moveaxis(pixels, 0, -1), ("y", "x", "band")).assign_coords(band=["nir", "red", "green", "blue"])
    scene = Scene.open(last.rename("reach"))
    assert (scene.name, dict(scene.bands)) == ("reach", {"nir": 1, "red": 2, "green": 3, "blue": 4})
    np.testing.assert_array_equal(scene.read(Window(3, 4, 5, 6), ["nir"]).values[0], pixels[0, 4:10, 3:8])


def test_an_array_opened_by_rioxarray_works(ortho: str) -> None:
    import rioxarray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # rioxarray's own use of affine
        opened = rioxarray.open_rasterio(ortho)
    scene, file = Scene.open(opened), Scene.open(ortho)
    assert dict(scene.bands) == dict(file.bands)
    assert scene.geobox == file.geobox
    np.testing.assert_array_equal(scene.read_rgb(whole(scene))[0], file.read_rgb(whole(file))[0])


def test_a_scene_reads_well_in_a_notebook(ortho: str) -> None:
    assert repr(Scene.open(ortho)) == (
        "Scene(ortho: 170 x 130 px of 0.5 m, EPSG:32632, uint16, red=1 green=2 blue=3 nir=4)"
    )


# Real rasters -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif("GEOSAM_DATA" not in os.environ, reason="GEOSAM_DATA does not name a folder of real rasters")
def test_real_rasters_open_and_look_natural() -> None:
    folder = Path(os.environ["GEOSAM_DATA"])
    cases = {
        "naip_potholes_4band/scenes/m_4709963_se_14_1_20150926.tif": ("naip", 5.0),
        "landsat_ucayali_4band/scenes/pucallpa_1985_swir_nir_r_g.tif": ("swir1=1,nir=2,red=3,green=4", 89.2),
        "geo_samples/s2_dollard_bgrn/cog.tif": ("sentinel2", 7.73),
        "geo_samples/riverseg/irrawaddy_s1s2_11band.tif": ("blue=3,green=4,red=5,nir=9,swir1=10", 9.73),
        "geo_samples/rasterio/RGB.byte.tif": (None, 300.0),
    }
    for path, (bands, gsd) in cases.items():
        scene = Scene.open(folder / path, options(bands=bands))
        assert scene.gsd_m == pytest.approx(gsd, rel=0.01)
        rgb, valid = scene.read_rgb(whole(scene))
        seen = rgb[valid]
        assert 40 < seen.mean() < 200
        assert seen.std() > 20


def test_a_black_border_is_spoken_of_and_left_out_when_asked(tmp_path):
    pixels = picture()
    wedge = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])) < 90
    pixels[:, wedge] = 0
    path = write(tmp_path / "turned.tif", pixels)
    plain = Scene.open(path)
    assert [text for text in plain.warnings if "top left corner" in text and "--nodata 0" in text]
    assert plain.read_valid(Window(0, 0, *SHAPE[::-1])).all()
    told = Scene.open(path, SceneOptions(nodata=0.0))
    np.testing.assert_array_equal(told.read_valid(Window(0, 0, *SHAPE[::-1])), ~wedge)
    assert told.warnings == ()
    array = xr.DataArray(pixels, dims=("band", "y", "x"), attrs={"crs": "EPSG:32632", "transform": tuple(UTM)[:6]})
    in_memory = Scene.open(array, SceneOptions(nodata=0.0, allow_no_crs=True))
    np.testing.assert_array_equal(in_memory.read_valid(Window(0, 0, *SHAPE[::-1])), ~wedge)
    assert Scene.open(write(tmp_path / "whole.tif", picture())).warnings == ()
