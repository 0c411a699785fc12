"""Scenes made from a seed: exact truth, the same bytes however they are cut, readable by everyone."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt

from geosam.errors import OutputError
from geosam.synth import RiverScene, SynthOptions, make_tile, write_scene
from geosam.synth.geometry import meander
from geosam.synth.noise import lattice, smooth
from geosam.synth.raster import Edges


@pytest.fixture(scope="module")
def scene() -> RiverScene:
    return RiverScene(SynthOptions(seed=3, height=600, width=700, bands="rgbn"))


@pytest.fixture(scope="module")
def whole(scene: RiverScene) -> np.ndarray:
    return scene.render(Window(0, 0, 700, 600))


def stripes(scene: RiverScene, height: int) -> np.ndarray:
    rows, width = scene.shape
    return np.concatenate(
        [scene.render(Window(0, r, width, min(height, rows - r))) for r in range(0, rows, height)], axis=1
    )


class TestRaster:
    @given(seed=st.integers(0, 10_000), row=st.integers(-40, 90), col=st.integers(-40, 90))
    @settings(max_examples=40, deadline=None)
    def test_fill_equals_gdal_and_any_window_equals_the_whole(self, seed: int, row: int, col: int) -> None:
        rng = np.random.default_rng(seed)
        blobs = [shapely.Point(*rng.uniform(0, 100, 2)).buffer(rng.uniform(1, 30), 3) for _ in range(4)]
        shape = shapely.union_all(blobs[:3]).difference(blobs[3])
        edges = Edges.of(shape)
        expected = np.zeros((100, 100), bool)
        if not shape.is_empty:
            expected = rasterize([shape], out_shape=(100, 100)).astype(bool)
        made = edges.fill(0, 0, 100, 100)
        np.testing.assert_array_equal(made, expected)
        window = edges.fill(row, col, 37, 53)
        r, c = max(row, 0), max(col, 0)
        inside = window[r - row : 100 - row, c - col : 100 - col]
        np.testing.assert_array_equal(inside, made[r : max(row + 37, 0), c : max(col + 53, 0)])

    def test_empty_geometry_fills_nothing(self) -> None:
        assert not Edges.of(shapely.Polygon()).fill(0, 0, 8, 9).any()


class TestNoise:
    def test_windows_of_a_noise_field_fit_each_other_across_zero(self) -> None:
        whole = smooth(5, 13.0, (-64, -64), (128, 128))
        part = smooth(5, 13.0, (-20, 30), (40, 20))
        np.testing.assert_allclose(part, whole[44:84, 94:114], atol=1e-4)

    def test_coarse_samples_sit_at_the_centres_of_their_cells(self) -> None:
        fine = smooth(5, 64.0, (0, 0), (64, 64))
        coarse = smooth(5, 64.0, (0, 0), (8, 8), step=8)
        np.testing.assert_allclose(coarse, fine.reshape(8, 8, 8, 8).mean((1, 3)), atol=0.02)

    def test_lattice_is_uniform_and_its_streams_are_unrelated(self) -> None:
        a, b = lattice(1, np.arange(-100, 100), np.arange(200)), lattice(2, np.arange(-100, 100), np.arange(200))
        assert abs(a.mean() - 0.5) < 0.01
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


class TestGeometry:
    def test_a_meander_starts_and_ends_where_it_should_and_is_valid(self) -> None:
        start, end = np.array([-10.0, 40.0]), np.array([900.0, 300.0])
        for seed in range(8):
            river = meander(np.random.default_rng(seed), start, end, 12.0, 1.5)
            np.testing.assert_allclose(river.xy[[0, -1]], [start, end], atol=1e-6)
            assert river.polygon().is_valid
            assert river.along[-1] > np.hypot(*(end - start))


class TestScene:
    @pytest.mark.parametrize("height", [256, 333, 512])
    def test_strips_of_any_height_equal_the_whole(self, scene: RiverScene, whole: np.ndarray, height: int) -> None:
        np.testing.assert_array_equal(stripes(scene, height), whole)

    def test_a_second_scene_of_the_same_options_has_the_same_bytes(self, scene: RiverScene, whole: np.ndarray) -> None:
        window = Window(100, 50, 80, 60)
        again = RiverScene(scene.options).render(window)
        np.testing.assert_array_equal(again, whole[:, 50:110, 100:180])

    def test_another_seed_is_another_river(self, scene: RiverScene) -> None:
        other = RiverScene(scene.options.model_copy(update={"seed": 4}))
        window = Window(0, 0, 700, 600)
        assert (other.water(window) != scene.water(window)).mean() > 0.02

    def test_squares_meet_without_a_seam(self, whole: np.ndarray) -> None:
        """Neighbours across the edge of two painted squares differ no more than neighbours elsewhere."""
        steps = np.abs(np.diff(whole[0].astype(float), axis=1)).mean(0)
        assert steps[511] < 1.3 * np.median(steps[480:544])

    @pytest.mark.parametrize("crs", ["utm", "lonlat", "none"])
    @pytest.mark.parametrize(("rotation", "collar"), [(0.0, 0), (33.0, 17)])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_rasterised_truth_equals_the_water_class(self, crs: str, rotation: float, collar: int, seed: int) -> None:
        options = {"seed": seed, "height": 500, "width": 430, "gsd_m": 1.0, "crs": crs}
        scene = RiverScene(SynthOptions.model_validate({**options, "rotation_deg": rotation, "collar_px": collar}))
        water = scene.water(Window(0, 0, 430, 500))
        polygons = rasterize(scene.truth.geometry, out_shape=scene.shape, transform=scene.transform)
        np.testing.assert_array_equal(polygons == 1, water == 1)
        assert scene.truth.is_valid.all()
        assert (water == 1).any()

    def test_truth_polygons_are_disjoint(self, scene: RiverScene) -> None:
        shapes = scene.truth.geometry
        assert shapely.union_all(shapes).area == pytest.approx(shapes.area.sum())

    def test_every_water_body_and_islands_are_there(self) -> None:
        scene = RiverScene(SynthOptions(seed=3, height=1024, width=1024))
        assert set(scene.truth["kind"]) == {"river", "tributary", "lake", "oxbow"}
        river = scene.truth[scene.truth["kind"] == "river"].geometry
        assert sum(len(p.interiors) for p in river) >= 2

    @pytest.mark.parametrize("size", [512, 1500])
    def test_the_tributary_is_narrower_than_ten_pixels(self, size: int) -> None:
        scene = RiverScene(SynthOptions(seed=1, height=size, width=size))
        streams = [shape for kind, shape in scene.layout.bodies if kind == "tributary"]
        mask = np.logical_or.reduce([Edges.of(s).fill(0, 0, size, size) for s in streams])
        assert mask.any()
        assert 2 * distance_transform_edt(mask).max() < 10

    def test_water_reflects_less_infrared_than_land(self, scene: RiverScene, whole: np.ndarray) -> None:
        water = scene.water(Window(0, 0, 700, 600)) == 1
        assert np.median(whole[3][water]) < 0.5 * np.median(whole[3][~water])

    def test_features_can_be_left_out(self) -> None:
        off = dict.fromkeys(("river", "lake", "oxbow"), False)
        assert RiverScene(SynthOptions.model_validate({"height": 128, "width": 128, **off})).truth.empty
        bridged = RiverScene(SynthOptions(seed=3, lake=False, oxbow=False, tributary=False))
        plain = RiverScene(bridged.options.model_copy(update={"roads": False}))
        assert len(bridged.truth) > len(plain.truth) == 1

    @pytest.mark.parametrize("gsd", [0.05, 5.0, 30.0])
    def test_any_gsd_shows_texture_and_water(self, gsd: float) -> None:
        scene = RiverScene(SynthOptions(gsd_m=gsd, height=256, width=256, bands="rgbn"))
        window = Window(0, 0, 256, 256)
        pixels, water = scene.render(window).astype(float), scene.water(window) == 1
        assert water.any()
        assert pixels[:3].std((1, 2)).min() > 8

    def test_plain_scenes_have_the_truth_of_full_ones(self, scene: RiverScene) -> None:
        plain = RiverScene(scene.options.model_copy(update={"detail": "plain"}))
        window = Window(30, 500, 200, 60)
        np.testing.assert_array_equal(plain.water(window), scene.water(window))
        assert plain.render(window).shape == (4, 60, 200)

    def test_memory_follows_the_window_and_not_the_scene(self) -> None:
        """A far corner of 50,000 x 50,000 px is painted alone; the vectors are all that grows with the scene."""
        options = SynthOptions(height=50_000, width=50_000, gsd_m=0.3, tributary=False, lake=False, oxbow=False)
        scene = RiverScene(options)
        assert scene.render(Window(49_990, 49_990, 10, 10)).shape == (3, 10, 10)
        assert shapely.get_num_coordinates(scene.truth.geometry).sum() < 300_000


class TestOptions:
    def test_unknown_keys_and_collars_without_data_are_refused(self) -> None:
        with pytest.raises(ValueError, match="colour"):
            SynthOptions.model_validate({"colour": "blue"})
        with pytest.raises(ValueError, match="leaves no pixel"):
            SynthOptions(height=64, width=64, collar_px=32)


class TestWrite:
    @pytest.mark.parametrize(
        ("dtype", "crs", "rotation", "bands"),
        [("uint8", "utm", 0.0, "rgb"), ("uint16", "lonlat", 0.0, "rgbn"), ("float32", "utm", -40.0, "rgbn"),
         ("uint8", "none", 0.0, "rgb"), ("uint16", "lonlat", 15.0, "rgb")],
    )  # fmt: skip
    def test_every_kind_of_scene_opens_in_its_place(
        self, tmp_path: Path, dtype: str, crs: str, rotation: float, bands: str
    ) -> None:
        given = {"height": 100, "width": 130, "collar_px": 9, "gsd_m": 2.0, "seed": 2}
        options = SynthOptions.model_validate(
            {**given, "dtype": dtype, "crs": crs, "rotation_deg": rotation, "bands": bands}
        )
        write_scene(options, tmp_path / "made")
        scene = RiverScene(options)
        with rasterio.open(tmp_path / "made" / "scene.tif") as file:
            assert file.dtypes == (dtype,) * len(bands)
            assert file.crs == (scene.crs and rasterio.CRS.from_string(scene.crs))
            assert file.transform.almost_equals(scene.transform, 1e-12)
            assert file.descriptions == ("red", "green", "blue", "nir")[: len(bands)]
            valid = file.dataset_mask() > 0
            pixels = file.read()
        np.testing.assert_array_equal(valid, scene.valid(Window(0, 0, 130, 100)))
        np.testing.assert_array_equal(pixels, scene.render(Window(0, 0, 130, 100)))
        self.check_truth(tmp_path / "made", valid)

    @staticmethod
    def check_truth(folder: Path, valid: np.ndarray) -> None:
        frame = geopandas.read_file(folder / "truth.gpkg")
        with rasterio.open(folder / "truth.tif") as file:
            truth = file.read(1)
            polygons = rasterize(frame.geometry, out_shape=file.shape, transform=file.transform)
        np.testing.assert_array_equal(truth == 255, ~valid)
        np.testing.assert_array_equal(truth == 1, polygons == 1)

    def test_ground_sampling_distance_holds_in_degrees(self) -> None:
        from pyproj import Geod

        scene = RiverScene(SynthOptions(crs="lonlat", gsd_m=1.0, rotation_deg=25.0))
        t = scene.transform
        at = [(t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f) for x, y in ((0, 0), (100, 0), (0, 100))]
        for far in at[1:]:
            assert Geod(ellps="WGS84").inv(*at[0], *far)[2] == pytest.approx(100, abs=0.1)

    def test_options_are_kept_beside_the_scene_and_make_it_again(self, tmp_path: Path) -> None:
        options = SynthOptions(height=64, width=64, seed=5)
        made = write_scene(options, tmp_path)
        assert SynthOptions.model_validate(json.loads((tmp_path / "scene.json").read_text())) == options
        with rasterio.open(tmp_path / "truth.tif") as file:
            assert made.water_fraction == pytest.approx((file.read(1) == 1).mean())

    def test_an_existing_scene_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "truth.tif").write_text("mine")
        options = SynthOptions(height=64, width=64)
        with pytest.raises(OutputError, match="--overwrite"):
            write_scene(options, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["truth.tif"]
        assert (tmp_path / "truth.tif").read_text() == "mine"
        write_scene(options, tmp_path, overwrite=True)
        assert len(list(tmp_path.iterdir())) == 4

    def test_a_folder_without_parent_or_a_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="does not exist"):
            write_scene(SynthOptions(height=64, width=64), tmp_path / "no" / "where")
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="is a file"):
            write_scene(SynthOptions(height=64, width=64), tmp_path / "file")

    def test_a_run_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            raise OSError("disk full")

        with pytest.raises(OutputError, match="disk full"):
            write_scene(SynthOptions(height=64, width=64), tmp_path / "made", progress=stop)
        assert not (tmp_path / "made").exists()

    def test_progress_ends_at_the_total(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        write_scene(
            SynthOptions(height=520, width=64, detail="plain"),
            tmp_path,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(1, 2), (2, 2)]


class TestTile:
    def test_a_tile_is_the_same_for_the_same_seed(self) -> None:
        a, b = make_tile(7, 128), make_tile(7, 128)
        np.testing.assert_array_equal(a.rgb, b.rgb)
        np.testing.assert_array_equal(a.nir, b.nir)
        np.testing.assert_array_equal(a.water, b.water)

    def test_tiles_vary_in_colour_and_in_their_share_of_water(self) -> None:
        tiles = [make_tile(seed, 64) for seed in range(60)]
        share = np.array([t.water.mean() for t in tiles])
        assert 0.05 < (share == 0).mean() < 0.45
        assert share.max() > 0.4
        means = np.array([t.rgb.reshape(-1, 3).mean(0) for t in tiles])
        assert means.std(0).min() > 15
        assert len({t.rgb.tobytes() for t in tiles}) == 60

    @pytest.mark.parametrize("size", [64, 100, 256])
    def test_any_size_has_the_promised_shapes(self, size: int) -> None:
        tile = make_tile(1, size, scene="river", water="brown")
        assert tile.rgb.shape == (size, size, 3)
        assert tile.nir.shape == tile.water.shape == (size, size)
        assert (tile.rgb.dtype, tile.nir.dtype, tile.water.dtype) == (np.uint8, np.uint8, bool)

    def test_the_named_scene_and_style_are_obeyed(self) -> None:
        assert not any(make_tile(seed, 64, scene="dry").water.any() for seed in range(5))
        wide = [make_tile(seed, 64, scene="wide", forest=0.0, riparian=0.0).water.mean() for seed in range(5)]
        assert np.mean(wide) > 0.2

    def test_water_under_crowns_is_not_in_the_truth(self) -> None:
        look = {"scene": "river", "gsd_m": 0.4, "riparian": 1.0, "forest": 0.95, "crown_m": 5.0, "gravel_m": 0.0}
        leaning = [make_tile(seed, 128, **look).water.sum() for seed in range(4)]
        upright = [make_tile(seed, 128, **look, overhang=False).water.sum() for seed in range(4)]
        assert sum(leaning) < 0.97 * sum(upright)
