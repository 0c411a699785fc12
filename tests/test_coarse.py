"""The coarse mask: exact cleaning in strips, and honest reports."""

from __future__ import annotations

import pickle
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from scipy import ndimage
from shapely.geometry import box

from geosam.coarse import CoarseMask, coarse_mask, guess_water
from geosam.coarse import mask as mask_module
from geosam.coarse.clean import Limits, Seams, resolve_strip
from geosam.coarse.rgb import HALO_PX, fit_look, rgb_score
from geosam.errors import OptionsError, OutputError
from geosam.options import CoarseOptions, SceneOptions
from geosam.scene import Scene

UTM = "EPSG:32633"
NO_CLEANING = {"min_area_m2": 0.0, "max_hole_m2": 0.0}


# Cleaning, against one pass over the whole raster ---------------------------------------------------------------------


def cleaned_in_one_pass(classes: np.ndarray, min_water: float, max_hole: float) -> np.ndarray:
    """The oracle: scipy labels the whole raster, water by edges and corners, land by edges."""
    unknown = classes == 255
    bodies, count = ndimage.label(classes == 1, np.ones((3, 3)))
    keep = np.bincount(bodies.ravel(), minlength=count + 1) >= min_water
    keep[0] = False
    water = keep[bodies]
    grounds, count = ndimage.label(~water & ~unknown)
    hole = np.bincount(grounds.ravel(), minlength=count + 1) < max_hole
    hole[0] = False
    beside_unknown = ndimage.binary_dilation(unknown)
    for edge in (grounds[0], grounds[-1], grounds[:, 0], grounds[:, -1], grounds[beside_unknown]):
        hole[edge] = False
    return np.where(unknown, 255, water | hole[grounds]).astype(np.uint8)


def cleaned_in_strips(classes: np.ndarray, min_water: float, max_hole: float, cuts: list[int]) -> np.ndarray:
    limits = Limits(min_water, max_hole)
    seams, strips = Seams(limits), []
    edges = [0, *cuts, len(classes)]
    for top, bottom in pairwise(edges):
        strip = resolve_strip(classes[top:bottom], limits, top == 0, bottom == len(classes))
        strips.append((strip, seams.add(strip)))
    classes_of, rows = seams.decide(), []
    for strip, shift in strips:
        values = classes_of[np.where(strip.codes >= 3, strip.codes + shift, strip.codes)]
        lengths = np.diff(strip.starts, append=strip.height * strip.width)
        rows.append(np.repeat(values, lengths).reshape(strip.height, strip.width))
    return np.concatenate(rows)


@st.composite
def cut_masks(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Random masks, speckled or blobby, with or without unknown pixels, and where to cut them."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = ndimage.gaussian_filter(rng.random((height, width)), draw(st.sampled_from([0.0, 0.6, 1.2])))
    classes = (noise <= np.quantile(noise, draw(st.floats(0.05, 0.95)))).astype(np.uint8)
    classes[rng.random((height, width)) < draw(st.sampled_from([0.0, 0.02, 0.1]))] = 255
    cuts = draw(st.sets(st.integers(1, height - 1))) if height > 1 else set()
    return classes, sorted(cuts)


@settings(max_examples=300, deadline=None)
@given(cut_masks(), st.sampled_from([0, 1, 2, 3.5, 9, 40, 1e6]), st.sampled_from([0, 1, 2, 3.5, 9, 40, 1e6]))
def test_strips_are_cleaned_as_in_one_pass(mask: tuple[np.ndarray, list[int]], least: float, hole: float) -> None:
    classes, cuts = mask
    expected = cleaned_in_one_pass(classes, least, hole)
    np.testing.assert_array_equal(cleaned_in_strips(classes, least, hole, cuts), expected)


def picture(*rows: str) -> np.ndarray:
    return np.array([[{".": 0, "#": 1, "?": 255}[sign] for sign in row] for row in rows], np.uint8)


def test_a_hole_is_filled_but_not_beside_the_unknown_or_the_border() -> None:
    classes = picture("#####.#", "#.###.#", "#####.#", "###?.##", "#######")
    expected = picture("#####.#", "#####.#", "#####.#", "###?.##", "#######")
    for cuts in ([], [1], [2, 3], [1, 2, 3, 4]):
        np.testing.assert_array_equal(cleaned_in_strips(classes, 0, 10, cuts), expected)


def test_a_speck_in_a_hole_counts_to_the_hole() -> None:
    """Seen the other way round the speck would survive, or leave a hole of its own."""
    classes = picture("#######", "#.....#", "#..#..#", "#.....#", "#######")
    assert cleaned_in_strips(classes, 2, 16, [2]).all()
    assert cleaned_in_strips(classes, 2, 15, [2])[2].tolist() == [1, 0, 0, 0, 0, 0, 1]


def test_a_diagonal_creek_is_one_water_body() -> None:
    classes = np.eye(9, dtype=np.uint8)
    np.testing.assert_array_equal(cleaned_in_strips(classes, 9, 5, [3, 4]), classes)
    assert not cleaned_in_strips(classes, 10, 0, [3, 4]).any()


# Scenes ---------------------------------------------------------------------------------------------------------------

LAND = {"blue": 60, "green": 80, "red": 70, "nir": 170, "swir1": 150, "swir2": 120}
RIVER = {"blue": 70, "green": 75, "red": 60, "nir": 30, "swir1": 15, "swir2": 10}


def river_truth(height: int = 300, width: int = 260) -> np.ndarray:
    """A winding river with an island and a pond."""
    row, col = np.mgrid[:height, :width]
    truth = np.abs(col - width / 2 - 40 * np.sin(row / 40)) < 14
    truth &= np.hypot(row - 100, col - width / 2 - 40 * np.sin(2.5)) > 7
    return truth | (np.hypot(row - 50, col - 30) < 12)


def write(path: Path, bands: dict[str, np.ndarray], **settings: Any) -> str:
    stack = np.stack(list(bands.values()))
    profile = {"crs": UTM, "transform": Affine(2, 0, 5e5, 0, -2, 5e6), "nodata": None, **settings}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(stack),
        height=stack.shape[1],
        width=stack.shape[2],
        dtype=stack.dtype,
        **profile,
    ) as raster:
        raster.write(stack)
        raster.descriptions = tuple(bands)
    return str(path)


def bands_of(truth: np.ndarray, roles: str = "red green blue nir", dtype: str = "uint8") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    noise = {role: rng.normal(0, 5, truth.shape) for role in roles.split()}
    # Land is rough in the way of tree crowns, 3 px across; water is not.
    crowns = ndimage.gaussian_filter(rng.normal(0, 1, truth.shape), 1.2) * 60
    return {
        role: np.where(truth, RIVER[role] + noise[role] / 3, LAND[role] + crowns + noise[role])
        .clip(1, 255)
        .astype(dtype)
        for role in roles.split()
    }


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def whole(mask: CoarseMask) -> tuple[np.ndarray, np.ndarray]:
    return mask.read(Window(0, 0, mask.geobox.shape[1], mask.geobox.shape[0]))


@pytest.mark.parametrize(
    ("roles", "method"),
    [
        ("red green blue nir swir1 swir2", "mndwi"),
        ("red green blue nir", "ndwi-ndvi"),
        ("green nir", "ndwi"),
        ("red green blue", "rgb"),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_auto_takes_the_best_index_that_the_bands_allow(tmp_path: Path, roles: str, method: str, dtype: str) -> None:
    truth = river_truth()
    scene = Scene.open(write(tmp_path / "s.tif", bands_of(truth, roles, dtype)))
    mask = coarse_mask(scene, path=tmp_path / "m.tif")
    water, valid = whole(mask)
    assert mask.method == method
    assert valid.all()
    assert iou(water, truth) > (0.75 if method == "rgb" else 0.95)
    assert mask.water_fraction == pytest.approx(water.mean())
    assert mask.warnings == ()
    assert "two modes, separability 0." in mask.reason


@pytest.mark.parametrize("method", ["awei", "awei-sh", "mndwi", "ndwi", "ndwi-ndvi"])
def test_every_index_finds_the_river(tmp_path: Path, method: str) -> None:
    truth = river_truth()
    scene = Scene.open(write(tmp_path / "s.tif", bands_of(truth, "blue green red nir swir1 swir2")))
    mask = coarse_mask(scene, CoarseOptions(method=method), path=tmp_path / "m.tif")
    assert mask.method == method
    assert iou(whole(mask)[0], truth) > 0.9


def test_the_raster_is_a_tiled_geotiff_on_the_scene_grid(tmp_path: Path) -> None:
    scene = Scene.open(write(tmp_path / "s.tif", bands_of(river_truth())))
    mask = coarse_mask(scene, path=tmp_path / "m.tif")
    with rasterio.open(mask.path) as raster:
        assert raster.dtypes == ("uint8",)
        assert raster.nodata == 255
        assert raster.transform == scene.geobox.affine
        assert raster.crs == rasterio.CRS.from_string(UTM)
        assert raster.profile["tiled"]
        assert raster.profile["compress"] == "deflate"
    assert list(tmp_path.glob(".*")) == []


def test_the_mask_does_not_depend_on_strips_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the RGB look, which needs a halo around each chunk."""
    for roles in ("red green blue", "red green blue nir"):
        scene = Scene.open(write(tmp_path / "s.tif", bands_of(river_truth(), roles)))
        once = whole(coarse_mask(scene, path=tmp_path / "m.tif"))
        with monkeypatch.context() as patch:
            patch.setattr(mask_module, "_strip_rows", lambda width: 37)
            patch.setattr(mask_module, "_chunk_shape", lambda scene, strip: (13, 71))
            pieced = whole(coarse_mask(scene, path=tmp_path / "m.tif"))
        np.testing.assert_array_equal(pieced, once)


def test_a_score_depends_on_no_more_than_its_halo() -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 255, (120, 120, 3), np.uint8)
    look = fit_look(rgb, np.ones((120, 120), bool))
    inner = rgb_score(rgb[30:90, 30:90], look)[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
    np.testing.assert_allclose(inner, rgb_score(rgb, look)[30:90, 30:90][HALO_PX:-HALO_PX, HALO_PX:-HALO_PX], atol=2e-3)


def test_a_scene_without_water_is_not_halved(tmp_path: Path) -> None:
    dry = bands_of(np.zeros((300, 260), bool))
    mask = coarse_mask(Scene.open(write(tmp_path / "s.tif", dry)), path=tmp_path / "m.tif")
    assert mask.water_fraction < 0.001
    assert "one mode" in mask.reason
    assert any("one mode" in warning for warning in mask.warnings)
    assert any("little or no water" in warning for warning in mask.warnings)


def test_a_scene_of_water_warns(tmp_path: Path) -> None:
    wet = bands_of(np.ones((300, 260), bool))
    mask = coarse_mask(Scene.open(write(tmp_path / "s.tif", wet)), path=tmp_path / "m.tif")
    assert mask.water_fraction > 0.99
    assert any("land may have been taken for water" in warning for warning in mask.warnings)


def test_unknown_is_neither_water_nor_land(tmp_path: Path) -> None:
    truth = river_truth()
    bands = bands_of(truth, dtype="float32")
    for values in bands.values():
        values[:, :40] = -9999
        values[60:70, 50:60] = np.nan
    scene = Scene.open(write(tmp_path / "s.tif", bands, nodata=-9999))
    mask = coarse_mask(scene, path=tmp_path / "m.tif")
    water, valid = whole(mask)
    assert not valid[:, :40].any()
    assert not valid[60:70, 50:60].any()
    assert not water[~valid].any()
    assert mask.water_fraction == pytest.approx(water.sum() / valid.sum())


def test_a_scene_without_any_data_under_the_index_gives_an_empty_mask(tmp_path: Path) -> None:
    """Zeros in both bands: 0 / 0 says nothing."""
    zeros = {role: np.zeros((40, 50), np.uint8) for role in ("green", "nir")}
    zeros["green"][:2] = 9
    zeros["nir"][:1] = 3
    mask = coarse_mask(Scene.open(write(tmp_path / "s.tif", zeros)), path=tmp_path / "m.tif")
    assert not whole(mask)[1][2:].any()


def test_areas_are_square_metres_in_degrees_too(tmp_path: Path) -> None:
    """Ponds of 5 x 5 px, a pixel 1e-4 degrees across at 60 degrees north: 5.57 m by 11.1 m, 62 m2."""
    truth = np.zeros((100, 100), bool)
    truth[20:25, 20:25] = truth[60:80, 60:80] = True
    bands = bands_of(truth)
    scene = Scene.open(write(tmp_path / "s.tif", bands, crs="EPSG:4326", transform=Affine(1e-4, 0, 10, 0, -1e-4, 60)))
    assert scene.pixel_area_m2 == pytest.approx(62, rel=0.02)
    for least, there in ((1500.0, True), (1600.0, False)):
        options = CoarseOptions(method="ndwi", min_area_m2=least)
        assert whole(coarse_mask(scene, options, path=tmp_path / "m.tif"))[0][20:25, 20:25].any() == there


def test_areas_below_a_pixel_change_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    bands = bands_of(rng.random((64, 64)) < 0.3, "green nir")
    scene = Scene.open(write(tmp_path / "s.tif", bands, transform=Affine(30, 0, 5e5, 0, -30, 5e6)))
    kept = coarse_mask(scene, CoarseOptions(min_area_m2=899.0, max_hole_m2=899.0), path=tmp_path / "a.tif")
    raw = coarse_mask(scene, CoarseOptions(**NO_CLEANING), path=tmp_path / "b.tif")
    np.testing.assert_array_equal(whole(kept), whole(raw))


def test_a_given_threshold_stands(tmp_path: Path) -> None:
    truth = river_truth()
    bands = bands_of(truth)
    scene = Scene.open(write(tmp_path / "s.tif", bands))
    options = CoarseOptions(method="ndwi", threshold=0.45, **NO_CLEANING)
    mask = coarse_mask(scene, options, path=tmp_path / "m.tif")
    green, nir = bands["green"].astype(float), bands["nir"].astype(float)
    np.testing.assert_array_equal(whole(mask)[0], (green - nir) / (green + nir) > 0.45)
    assert mask.threshold == 0.45
    assert "threshold as given" in mask.reason


# Masks that are given -------------------------------------------------------------------------------------------------


def test_a_given_raster_in_another_crs_is_brought_to_the_scene(tmp_path: Path) -> None:
    truth = river_truth()
    scene = Scene.open(write(tmp_path / "s.tif", bands_of(truth)))
    west, south, east, north = rasterio.warp.transform_bounds(UTM, "EPSG:4326", *scene.geobox.boundingbox.bbox)
    reference = np.full((1, 900, 900), 7, np.uint8)
    rasterio.warp.reproject(
        truth.astype(np.uint8) * 200,
        reference,
        src_transform=scene.geobox.affine,
        src_crs=UTM,
        dst_transform=(to_lonlat := rasterio.transform.from_bounds(west, south, east, north, 900, 900)),
        dst_crs="EPSG:4326",
    )
    given = write(tmp_path / "given.tif", {"mask": reference[0, :, :450]}, crs="EPSG:4326", transform=to_lonlat)
    mask = coarse_mask(scene, CoarseOptions(method=given, **NO_CLEANING), path=tmp_path / "m.tif")
    water, valid = whole(mask)
    assert 0.48 < valid.mean() < 0.52, "what lies outside the given raster is unknown"
    assert iou(water[:, :125], truth[:, :125]) > 0.93
    assert mask.method == given


def test_given_polygons_in_another_crs_are_burnt_where_the_scene_has_data(tmp_path: Path) -> None:
    bands = bands_of(river_truth())
    for values in bands.values():
        values[:, -30:] = 0
    scene = Scene.open(write(tmp_path / "s.tif", bands, nodata=0))
    lake = box(5e5 + 2 * 50, 5e6 - 2 * 200, 5e5 + 2 * 300, 5e6 - 2 * 100)
    given = tmp_path / "lake.geojson"
    geopandas.GeoSeries([lake], crs=UTM).to_crs("EPSG:4326").to_file(given)
    water, valid = whole(coarse_mask(scene, CoarseOptions(method=str(given)), path=tmp_path / "m.tif"))
    assert water[100:200, 50:230].all()
    assert water.sum() == 100 * 180
    assert not valid[:, -30:].any()


def test_a_scene_without_crs_takes_a_mask_of_its_own_size(tmp_path: Path) -> None:
    truth = river_truth()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "s.tif", bands_of(truth), crs=None, transform=Affine.identity())
    given = write(tmp_path / "g.tif", {"mask": truth.astype(np.uint8)})
    scene = Scene.open(path, SceneOptions(allow_no_crs=True))
    options = CoarseOptions(method=given, **NO_CLEANING)
    np.testing.assert_array_equal(whole(coarse_mask(scene, options, path=tmp_path / "m.tif"))[0], truth)
    small = write(tmp_path / "small.tif", {"mask": truth[:50].astype(np.uint8)})
    with pytest.raises(OptionsError, match="Give a mask of the scene's size"):
        coarse_mask(scene, CoarseOptions(method=small), path=tmp_path / "m.tif")


# Faults ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rgb_scene(tmp_path: Path) -> Scene:
    return Scene.open(write(tmp_path / "s.tif", bands_of(river_truth(), "red green blue")))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ndwi", r"needs nir.*red, green, blue.*--bands"),
        ("wetness", r"Unknown coarse method 'wetness'.*auto, mndwi"),
        ("learned", r"segment --coarse learned"),
    ],
)
def test_a_method_that_cannot_be_used_is_refused(rgb_scene: Scene, tmp_path: Path, method: str, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        coarse_mask(rgb_scene, CoarseOptions(method=method), path=tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()


def test_a_file_that_is_no_mask_is_refused(rgb_scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a mask")
    with pytest.raises(OptionsError, match="neither a raster nor a vector file"):
        coarse_mask(rgb_scene, CoarseOptions(method=str(tmp_path / "notes.txt")), path=tmp_path / "m.tif")


def test_a_failed_run_leaves_the_old_file(rgb_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.tif").write_text("old")

    def break_off(seams: Seams) -> np.ndarray:
        raise OSError("disk full")

    monkeypatch.setattr(Seams, "decide", break_off)
    with pytest.raises(OutputError, match="disk full"):
        coarse_mask(rgb_scene, path=tmp_path / "m.tif")
    assert (tmp_path / "m.tif").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.tif", "s.tif"]


def test_a_missing_folder_is_refused(rgb_scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        coarse_mask(rgb_scene, path=tmp_path / "nowhere" / "m.tif")


# The mask in hand -----------------------------------------------------------------------------------------------------


def test_reading_may_overhang_and_travels_by_pickle(rgb_scene: Scene, tmp_path: Path) -> None:
    mask = pickle.loads(pickle.dumps(coarse_mask(rgb_scene, path=tmp_path / "m.tif")))
    water, valid = whole(mask)
    wide_water, wide_valid = mask.read(Window(-20, -30, 260 + 50, 300 + 70))
    np.testing.assert_array_equal(wide_water[30:330, 20:280], water)
    np.testing.assert_array_equal(wide_valid[30:330, 20:280], valid)
    assert wide_valid.sum() == valid.sum()
    assert not mask.read(Window(5000, 5000, 8, 9))[1].any()


def test_the_mask_is_an_xarray_with_its_georeference(rgb_scene: Scene) -> None:
    mask = coarse_mask(rgb_scene)
    try:
        array = mask.to_xarray()
    finally:
        mask.path.unlink()
    assert array.rio.crs == rasterio.CRS.from_string(UTM)
    assert array.rio.transform() == rgb_scene.geobox.affine
    assert array.dims == ("y", "x")
    assert set(np.unique(array)) <= {0, 1, 255}
    assert array.attrs["method"] == "rgb"


def test_work_is_handed_on_in_order_and_never_far_ahead() -> None:
    taken, lock, lead = 0, threading.Lock(), []

    def work(item: int) -> int:
        with lock:
            lead.append(item - taken)
        time.sleep(0.001 * (item % 3))
        return item

    got = []
    for item in mask_module._ordered(work, range(60)):
        got.append(item)
        taken += 1
    assert got == list(range(60))
    assert max(lead) <= 2 * 8


def test_progress_reaches_its_total(rgb_scene: Scene, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    coarse_mask(rgb_scene, path=tmp_path / "m.tif", progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(steps)


# One tile -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [(95, 80, 60), (90, 92, 90), (25, 28, 26), (60, 85, 75)])
def test_a_brown_grey_black_or_green_river_in_forest_is_found(colour: tuple[int, int, int]) -> None:
    truth = river_truth(256, 256)
    rng = np.random.default_rng(4)
    crowns = ndimage.gaussian_filter(rng.normal(0, 1, truth.shape), 1.5) * 120
    forest = np.array([70, 90, 55]) + crowns[..., None]
    rgb = np.where(truth[..., None], np.array(colour), forest) + rng.normal(0, 2, (256, 256, 3))
    water = guess_water(rgb.clip(0, 255).astype(np.uint8), np.ones_like(truth))
    assert iou(water, truth) > 0.7


@pytest.mark.parametrize("method", ["auto", "rgb", "exg", "dark", "hsv"])
def test_a_guess_keeps_to_the_valid_pixels(method: str) -> None:
    rng = np.random.default_rng(6)
    rgb = rng.integers(0, 255, (50, 70, 3), np.uint8)
    valid = rng.random((50, 70)) < 0.5
    assert not guess_water(rgb, valid, method)[~valid].any()
    assert not guess_water(rgb, np.zeros((50, 70), bool), method).any()


def test_a_guess_by_an_index_of_infrared_is_refused() -> None:
    with pytest.raises(OptionsError, match="no rule of plain RGB"):
        guess_water(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool), "ndwi")
