"""The oracle for polygons is one pass of GDAL over the whole raster; for areas, GeographicLib's geodesics."""

from __future__ import annotations

import sys
import threading

import geopandas as gpd
import geopandas.testing
import hypothesis.extra.numpy as hnp
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.features
import scipy.ndimage
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geosam.cli import main
from geosam.errors import SceneError
from geosam.options import VectorOptions
from geosam.vector import Strip, polygonize, polygonize_raster
from geosam.vector import assemble as assemble_room
from geosam.vector import corners as corners_room
from geosam.vector import ground as ground_room
from geosam.vector import raster as raster_room
from geosam.vector import rings as rings_room
from geosam.vector.ordered import crew

NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
EXACT = VectorOptions()


def pixel_grid(shape):
    return GeoBox(shape, Affine.identity(), None)


def utm(shape):
    return GeoBox(shape, NORTH_UP, "EPSG:32632")


def cut(water, heights, probability=None):
    """Strips of these heights, over and over."""
    row, turn = 0, 0
    while row < len(water):
        height = heights[turn % len(heights)]
        part = slice(row, row + height)
        yield Strip(row, water[part], None if probability is None else probability[part])
        row, turn = row + height, turn + 1


def one_pass(water):
    """GDAL over the whole raster, as a sorted list of normalized WKB."""
    shapes = rasterio.features.shapes(water.astype(np.uint8), mask=water, connectivity=4)
    return same_form([shapely.geometry.shape(shape) for shape, _ in shapes])


def same_form(polygons):
    return sorted(shapely.to_wkb(shapely.normalize(np.asarray(polygons, dtype=object))))


def blobs(seed, shape=(120, 100), smooth=2.0, share=0.45):
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), smooth)
    return noise > np.quantile(noise, 1 - share)


def from_text(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
heights = st.lists(st.integers(1, 5), min_size=1, max_size=4)


# The same as one pass ------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(masks, heights, st.sampled_from([2, 12, 10**6]))
def test_strips_give_the_polygons_of_one_pass_over_the_whole_raster(water, heights, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings_room, "BATCH_CORNERS", batch)  # 2: every strip is walked along by itself
        rivers = polygonize(cut(water, heights), pixel_grid(water.shape))
    assert same_form(rivers.geometry) == one_pass(water)
    assert rivers.is_valid.all()


@pytest.mark.parametrize("seed", range(3))
def test_large_bodies_cut_often_and_traced_in_batches_are_those_of_one_pass(seed, monkeypatch):
    monkeypatch.setattr(corners_room, "CHUNK_PX", 1000)
    monkeypatch.setattr(rings_room, "BATCH_CORNERS", 200)
    water = blobs(seed, (400, 300), smooth=(0.7, 1.5, 3.0)[seed], share=0.55)
    rivers = polygonize(cut(water, [37, 1, 64]), pixel_grid(water.shape))
    assert same_form(rivers.geometry) == one_pass(water)
    assert rivers.is_valid.all()


SEAMS = {
    "a U whose arms meet only in the last strip": from_text("#.#", "#.#", "#.#", "###"),
    "a cap whose arms meet only in the first strip": from_text("###", "#.#", "#.#", "#.#"),
    "a hole across seams": from_text("####", "#..#", "#..#", "####"),
    "an island in a lake on an island": from_text(
        "#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"
    ),
    "two bodies that touch at a corner": from_text("##..", "##..", "..##", "..##"),
    "a body that touches itself at a corner": from_text("####", "#.##", "##.#", "####"),
    "a ring that is closed by a corner": from_text(".##", "#.#", "###"),
    "spirals": from_text("######", ".....#", "####.#", "#..#.#", "#.##.#", "#....#", "######"),
    "all water": np.ones((4, 3), bool),
    "one pixel": np.ones((1, 1), bool),
}


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize("name", SEAMS)
def test_shapes_that_cross_seams_are_joined(name, height):
    water = SEAMS[name]
    rivers = polygonize(cut(water, [height]), pixel_grid(water.shape))
    assert same_form(rivers.geometry) == one_pass(water)
    assert rivers.is_valid.all()


def noise(share):
    return np.random.default_rng(0).random((90, 70)) < share


def nested(depth):
    """Islands with lakes on them with islands, 2 px wide each, the outermost water."""
    row, col = np.indices((4 * depth, 4 * depth))
    ring = np.minimum(np.minimum(row, col), 4 * depth - 1 - np.maximum(row, col)) // 2
    return ring % 2 == 0


def spiral(turns, gap=1):
    """One channel that winds inward, ``gap`` px of dry land between its turns."""
    side = 2 * turns * (gap + 1) + 1
    water, row, col, length = np.zeros((side, side), bool), 0, 0, side
    water[0] = True
    col = side - 1
    for turn in range(4 * turns - 2):
        length -= (gap + 1) * (turn % 2 == 1) if turn else 1
        down, right = ((1, 0), (0, -1), (-1, 0), (0, 1))[turn % 4]
        for _ in range(length):
            row, col = row + down, col + right
            water[row, col] = True
    return water


HARD = {
    **{f"noise, {share:.0%} water": noise(share) for share in (0.4, 0.5, 0.59, 0.6)},
    "a checkerboard": np.indices((30, 31)).sum(axis=0) % 2 == 0,
    "diagonal channels": np.indices((30, 31)).sum(axis=0) // 2 % 2 == 0,
    "a grid of channels": (np.indices((40, 50)) % 4 == 0).any(axis=0),
    "its islands": (np.indices((40, 50)) % 4 != 0).all(axis=0),
    "a spiral": spiral(6),
    "the land beside a spiral": ~spiral(6),
    "lakes on islands in lakes, 5 deep": nested(10),
    "5 deep, seen from the land": ~nested(10),
    "all diagonals": np.eye(40, dtype=bool) | np.eye(40, dtype=bool)[::-1],
}


@pytest.mark.parametrize("batch", [2, 200, 10**6])
@pytest.mark.parametrize("height", [1, 7, 10**6])
@pytest.mark.parametrize("name", HARD)
def test_hard_masks_are_those_of_one_pass_whatever_the_strips(name, height, batch, monkeypatch):
    monkeypatch.setattr(rings_room, "BATCH_CORNERS", batch)
    water = HARD[name]
    rivers = polygonize(cut(water, [height]), pixel_grid(water.shape))
    assert same_form(rivers.geometry) == one_pass(water)
    assert rivers.is_valid.all()
    assert rivers["area_m2"].sum() == water.sum()


def test_hard_masks_are_what_they_are_called():
    counts = {name: (len(found := one_pass(HARD[name])), sum(map(islands, found))) for name in HARD}
    assert counts["a spiral"] == counts["the land beside a spiral"] == (1, 0)
    assert counts["lakes on islands in lakes, 5 deep"] == (5, 5)
    assert counts["a checkerboard"][0] == 465
    assert counts["a grid of channels"] == (1, 9 * 12)


def islands(wkb):
    return shapely.get_num_interior_rings(shapely.from_wkb(wkb))


# Side by side ---------------------------------------------------------------------------------------------------------


def bytes_of(rivers):
    columns = [rivers[name].to_numpy().tobytes() for name in ("id", "area_m2", "perimeter_m", "probability")]
    return shapely.to_wkb(rivers.geometry.to_numpy()).tolist(), columns


SMALL = ((corners_room, "CHUNK_PX"), (rings_room, "BATCH_CORNERS"), (ground_room, "_CHUNK"), (assemble_room, "_CHUNK"))


@pytest.mark.parametrize("options", [EXACT, VectorOptions(min_area_m2=300.0, max_hole_m2=900.0, simplify_m=8.0)])
@pytest.mark.parametrize("name", ["noise, 59% water", "blobs", "lakes on islands in lakes, 5 deep"])
def test_threads_and_strips_change_no_byte(name, options, monkeypatch):
    for room, what in SMALL:
        monkeypatch.setattr(room, what, 300)
    water = blobs(5) if name == "blobs" else HARD[name]
    probability = np.random.default_rng(5).random(water.shape, dtype=np.float32)
    results = [
        bytes_of(polygonize(cut(water, heights, probability), utm(water.shape), options, threads=threads))
        for threads, heights in ((1, [10**6]), (1, [3]), (2, [10**6]), (5, [7, 1]), (None, [64]))
    ]
    assert all(result == results[0] for result in results)


def write_mask(path, water):
    grid = {"transform": NORTH_UP, "crs": "EPSG:32632", "height": len(water), "width": water.shape[1]}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint8", blockysize=4, **grid) as file:
        file.write(water.astype(np.uint8), 1)
    return path


@pytest.mark.parametrize("tallest", [1, 1 << 25])  # bytes: strips of 7 rows across blocks of 4, strips of whole blocks
def test_a_file_gives_the_same_bytes_with_any_number_of_threads(tallest, tmp_path, monkeypatch):
    monkeypatch.setattr(raster_room, "_TALLEST_BYTES", tallest)
    monkeypatch.setattr(raster_room, "STRIP_PX", 490)
    monkeypatch.setattr(raster_room, "_PART_PX", 150)
    path = write_mask(tmp_path / "m.tif", noise(0.59))
    one, several = (bytes_of(polygonize_raster(path, threads=threads)) for threads in (1, 3))
    assert one == several == bytes_of(polygonize(cut(noise(0.59), [90]), utm((90, 70))))


def test_the_command_takes_a_number_of_threads(tmp_path, monkeypatch, capsys):
    asked = []
    spied = lambda *args, threads, **more: asked.append(threads) or polygonize_raster(*args, threads=threads, **more)  # noqa: E731
    monkeypatch.setattr("geosam.vector.polygonize_raster", spied)
    path = str(write_mask(tmp_path / "m.tif", noise(0.4)))
    for code, number in ((0, "2"), (2, "0")):
        with pytest.raises(SystemExit) as end:
            main(["vectorize", path, "--out", str(tmp_path / f"{number}.gpkg"), "--threads", number])
        assert end.value.code == code
    assert asked == [2]
    assert "--threads" in capsys.readouterr().err


def test_a_value_that_is_no_mask_ends_all_threads_before_the_file_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(raster_room, "STRIP_PX", 280)
    water = noise(0.5).astype(np.uint8)
    water[30, 30] = 7
    path, before = write_mask(tmp_path / "m.tif", water), threading.active_count()
    with pytest.raises(SceneError, match="such as 7") as fault:
        polygonize_raster(path, threads=3)
    assert threading.active_count() <= before, fault  # which holds all that the error came through


@pytest.mark.parametrize("threads", [1, 3])
def test_a_crew_keeps_the_order_and_runs_ahead_only_a_little(threads):
    taken = []

    def items():
        for item in range(200):
            taken.append(item)
            yield item

    with crew(threads) as hands:
        results = hands.map(lambda item: item * item, items())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert len(taken) <= 5 + 2 * threads
        assert list(results) == [item * item for item in range(5, 200)]


def test_a_crew_hands_on_what_went_wrong_and_none_is_refused():
    with crew(2) as hands, pytest.raises(ZeroDivisionError):
        list(hands.map(lambda item: 1 // item, [1, 0, 1]))
    with pytest.raises(ValueError, match="1 or more, got 0"):
        polygonize([], pixel_grid((3, 3)), threads=0)


@pytest.mark.parametrize("options", [EXACT, VectorOptions(min_area_m2=2.0, max_hole_m2=2.0)])
def test_no_step_in_python_is_done_polygon_by_polygon(options):
    """As many calls for 7,200 ponds as for 72."""

    def calls(squares):
        water = np.tile(from_text("###.", "#.#.", "###.", "....", "##..", "...."), (squares, squares))
        count = [0]

        def counted(frame, event, arg):
            count[0] += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            rivers = polygonize([(0, water, None)], pixel_grid(water.shape), options, threads=1)
        finally:
            sys.setprofile(None)
        assert len(rivers) == 2 * squares**2
        return count[0]

    assert calls(60) < 1.2 * calls(6)


def test_nothing_depends_on_the_strips():
    water = blobs(5)
    probability = np.random.default_rng(5).random(water.shape, dtype=np.float32)
    options = VectorOptions(min_area_m2=500.0, max_hole_m2=900.0, simplify_m=8.0)
    whole, cut_up = (
        polygonize(cut(water, heights, probability), utm(water.shape), options, scene="a", model="b")
        for heights in ([len(water)], [7, 1, 13])
    )
    geopandas.testing.assert_geodataframe_equal(whole, cut_up)
    assert list(whole["id"]) == list(range(1, len(whole) + 1))
    assert whole["area_m2"].is_monotonic_decreasing


def test_rows_left_out_are_dry():
    water = np.ones((2, 4), bool)
    rivers = polygonize([(1, water, None), (6, water, None)], pixel_grid((10, 4)))
    assert sorted(rivers.bounds["miny"]) == [1, 6]
    assert list(rivers["area_m2"]) == [8, 8]


@pytest.mark.parametrize(
    ("strips", "word"),
    [([(0, np.ones((2, 3), bool), None)], "must be"), ([(2, np.ones((2, 4), bool), None)] * 2, "top to bottom")],
)
def test_strips_that_do_not_fit_are_refused(strips, word):
    with pytest.raises(ValueError, match=word):
        polygonize(strips, pixel_grid((4, 4)))


def test_no_water_gives_an_empty_table_with_all_columns():
    rivers = polygonize([(0, np.zeros((5, 4), bool), None)], utm((5, 4)), VectorOptions(simplify_m=3.0))
    full = polygonize([(0, np.ones((5, 4), bool), None)], utm((5, 4)))
    assert len(rivers) == 0
    assert rivers.crs == full.crs
    assert list(rivers.dtypes) == list(full.dtypes)


# Attributes -----------------------------------------------------------------------------------------------------------

GRIDS = {
    "UTM": GeoBox((120, 100), NORTH_UP, "EPSG:32632"),
    "UTM, 5 cm": GeoBox((120, 100), Affine(0.05, 0, 310_000, 0, -0.05, 7_000_000), "EPSG:32632"),
    "UTM, beyond the antimeridian": GeoBox((120, 100), Affine(30, 0, 803_000, 0, -30, 4_000_000), "EPSG:32660"),
    "Web Mercator": GeoBox((120, 100), Affine(10, 0, 1e6, 0, -10, 8_000_000), "EPSG:3857"),
    "degrees": GeoBox((120, 100), Affine(1e-4, 0, 8, 0, -1e-4, 61), "EPSG:4326"),
    "degrees, coarse": GeoBox((120, 100), Affine(0.1, 0, 8, 0, -0.1, 61), "EPSG:4326"),
    "US survey feet": GeoBox((120, 100), Affine(3, 0, 950_000, 0, -3, 200_000), "EPSG:2263"),
    "south up": GeoBox((120, 100), Affine(10, 0, 500_000, 0, 10, -5_000_000), "EPSG:32733"),
    "rotated": GeoBox((120, 100), Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(8, -9), 32632),
    "polar": GeoBox((120, 100), Affine(30, 0, 2e5, 0, -30, -1.5e6), "EPSG:3413"),
}


def on_the_ellipsoid(rivers):
    """Area in an equal-area plane and length by GeographicLib, of outlines with many vertices, in their datum."""
    geod = rivers.crs.get_geod()
    to_lonlat = pyproj.Transformer.from_crs(rivers.crs, rivers.crs.geodetic_crs, always_xy=True)
    fine = shapely.segmentize(rivers.geometry.to_numpy(), np.ptp(rivers.total_bounds[[0, 2]]) / 400)
    lonlat = shapely.transform(fine, lambda xy: np.stack(to_lonlat.transform(*xy.T), axis=1))
    lon, lat = shapely.get_coordinates(lonlat)[0]
    plane = pyproj.Proj(proj="laea", lon_0=lon, lat_0=lat, a=geod.a, b=geod.b)
    area = shapely.area(shapely.transform(lonlat, lambda xy: np.stack(plane(*xy.T), axis=1)))
    return area, np.array([geod.geometry_length(polygon.boundary) for polygon in lonlat])


@pytest.mark.parametrize("name", GRIDS)
def test_area_and_perimeter_are_those_on_the_ellipsoid_whatever_the_crs(name):
    water = blobs(1)
    rivers = polygonize(cut(water, [50]), GRIDS[name])
    area, perimeter = on_the_ellipsoid(rivers)
    np.testing.assert_allclose(rivers["area_m2"], area, rtol=3e-5, atol=1e-6)
    np.testing.assert_allclose(rivers["perimeter_m"], perimeter, rtol=3e-5, atol=1e-6)


def test_long_straight_banks_are_measured_along_the_crs_not_along_geodesics():
    """A raster of 600 km that is all water: the sum of its pixels' areas, not a polygon of four corners."""
    whole = polygonize([(0, np.ones((200, 200), bool), None)], GeoBox((200, 200), NORTH_UP @ Affine.scale(300), 32632))
    parts = polygonize(
        [(0, np.indices((200, 200)).sum(axis=0) % 2 == 0, None)],
        GeoBox((200, 200), NORTH_UP @ Affine.scale(300), 32632),
    )
    assert whole["area_m2"][0] == pytest.approx(2 * parts["area_m2"].sum(), rel=1e-4)


def test_a_zone_in_degrees_has_the_area_of_the_equal_area_projection():
    rivers = polygonize([(0, np.ones((30, 60), bool), None)], GeoBox((30, 60), Affine(1, 0, -20, 0, -1, 60), 4326))
    assert rivers["area_m2"][0] == pytest.approx(rivers.to_crs(6933).area[0], rel=1e-9)


def test_without_crs_everything_is_in_pixels():
    water = blobs(2)
    grid = utm(water.shape)
    for rivers in (
        polygonize(cut(water, [50]), grid, has_crs=False),
        polygonize(cut(water, [50]), pixel_grid(water.shape)),
    ):
        assert rivers.crs is None
        assert rivers["area_m2"].sum() == water.sum()
        np.testing.assert_allclose(rivers["perimeter_m"], rivers.length)
        assert same_form(rivers.geometry) == one_pass(water)


@pytest.mark.parametrize("name", GRIDS)
def test_outer_rings_run_counter_clockwise(name):
    rivers = polygonize(cut(blobs(3), [50]), GRIDS[name])
    assert shapely.is_ccw(rivers.exterior.to_numpy()).all()


def test_probability_is_the_mean_over_the_pixels_of_each_body():
    water = blobs(4)
    probability = np.where(water, np.random.default_rng(0).random(water.shape), np.nan).astype(np.float32)
    rivers = polygonize(cut(water, [9], probability), pixel_grid(water.shape), scene="reach", model="river-tiny")
    labels, count = scipy.ndimage.label(water)
    expected = scipy.ndimage.mean(probability.astype(float), labels, np.arange(1, count + 1))
    np.testing.assert_allclose(sorted(rivers["probability"]), sorted(expected), atol=1e-4)
    assert set(rivers["scene"]) == {"reach"}
    assert set(rivers["model"]) == {"river-tiny"}


def test_probability_is_missing_where_none_was_given():
    assert polygonize(cut(blobs(4), [9]), utm((120, 100)))["probability"].isna().all()


# Options in metres ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRIDS)
def test_bodies_below_the_least_area_are_dropped(name):
    exact = polygonize(cut(blobs(6), [50]), GRIDS[name])
    least = float(exact["area_m2"].median()) + 1e-3
    kept = polygonize(cut(blobs(6), [50]), GRIDS[name], VectorOptions(min_area_m2=least))
    assert same_form(kept.geometry) == same_form(exact.geometry[exact["area_m2"] >= least])


def test_small_islands_are_filled_with_the_ponds_on_them():
    water = np.ones((30, 30), bool)
    water[2:12, 2:12] = False  # a large island
    water[5:7, 5:7] = True  # with a pond
    water[20:24, 20:24] = False  # a small one
    water[21, 21] = True  # with a pond
    rivers = polygonize(cut(water, [4]), pixel_grid(water.shape), VectorOptions(max_hole_m2=50.0))
    assert sorted(rivers["area_m2"]) == [4, 30 * 30 - 10 * 10]
    assert rivers["perimeter_m"][0] == 4 * 30 + 4 * 10


def test_filled_islands_leave_bodies_that_lie_elsewhere():
    water = blobs(7, share=0.6)
    filled = polygonize(cut(water, [50]), pixel_grid(water.shape), VectorOptions(max_hole_m2=20.0))
    solid = [
        shapely.Polygon(p.exterior, [h for h in p.interiors if shapely.Polygon(h).area >= 20]) for p in exact_of(water)
    ]
    assert shapely.union_all(filled.geometry.to_numpy()).equals(shapely.union_all(solid))
    assert filled.area.sum() == pytest.approx(shapely.union_all(solid).area)


def exact_of(water):
    return polygonize(cut(water, [50]), pixel_grid(water.shape)).geometry


@settings(max_examples=40, deadline=None)
@given(masks, st.sampled_from([0.6, 1.1, 2.5, 6.0]))
def test_simplified_outlines_are_valid_apart_and_none_is_lost(water, tolerance):
    exact = polygonize(cut(water, [4]), pixel_grid(water.shape))
    simple = polygonize(cut(water, [4]), pixel_grid(water.shape), VectorOptions(simplify_m=tolerance))
    assert simple.is_valid.all()
    assert len(simple) == len(exact)
    assert shapely.get_num_interior_rings(simple.geometry).sum() == shapely.get_num_interior_rings(exact.geometry).sum()
    shapes = simple.geometry.to_numpy()
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    assert shapely.area(shapely.intersection(shapes[one], shapes[other]))[one != other].sum() < 1e-9


@pytest.mark.parametrize("name", ["UTM", "degrees", "US survey feet", "rotated", "Web Mercator"])
def test_simplified_outlines_stay_within_the_tolerance_in_metres(name):
    grid = GRIDS[name]
    pixel_m = polygonize([(0, np.ones((1, 1), bool), None)], GeoBox((1, 1), grid.affine, grid.crs))["area_m2"][0] ** 0.5
    exact = polygonize(cut(blobs(8), [50]), grid)
    simple = polygonize(cut(blobs(8), [50]), grid, VectorOptions(simplify_m=2 * pixel_m))
    plane = f"+proj=laea +lon_0={exact.to_crs(4326).total_bounds[0]} +lat_0={exact.to_crs(4326).total_bounds[1]}"
    banks = simple.to_crs(plane).boundary.union_all()
    corners = shapely.points(shapely.get_coordinates(exact.to_crs(plane).geometry))
    assert shapely.distance(corners, banks).max() < 2 * pixel_m * 1.01
    assert shapely.get_num_coordinates(simple.geometry).sum() < 0.4 * shapely.get_num_coordinates(exact.geometry).sum()
    assert simple.is_valid.all()
    area, _ = on_the_ellipsoid(simple)
    np.testing.assert_allclose(sorted(simple["area_m2"]), sorted(area), rtol=1e-4)


def test_result_is_a_geodataframe_of_single_polygons():
    rivers = polygonize(cut(blobs(9), [50]), utm((120, 100)))
    assert isinstance(rivers, gpd.GeoDataFrame)
    assert set(rivers.geom_type) == {"Polygon"}
    assert list(rivers.columns) == ["id", "area_m2", "perimeter_m", "probability", "scene", "model", "geometry"]
