"""River products on rivers whose centreline, width and islands are known."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from scipy.spatial import cKDTree

from geosam.options import RiverOptions
from geosam.rivers import RiverProducts, river_products
from geosam.rivers.banks import banks_of
from geosam.rivers.triangles import areas_of, circles_of, wet_triangles
from geosam.synth.layout import lay_out
from geosam.synth.options import SynthOptions
from geosam.vector import polygonize

PX = 2.0
WEST, NORTH = 500_000.0, 5_000_000.0
SIZE = 600


def on_map(xy):
    """From pixels, y down, to the CRS."""
    return np.stack([WEST + PX * xy[:, 0], NORTH - PX * xy[:, 1]], 1)


def water(*shapes, size=SIZE):
    """Polygons of the pixels whose centre lies in shapes given in pixels, y down."""
    mask = rasterize(shapes, (size, size)).astype(bool)
    geobox = GeoBox((size, size), Affine(PX, 0, WEST, 0, -PX, NORTH), "EPSG:32632")
    return polygonize([(0, mask, None)], geobox)


def course(swing=1.0, wavelength=220.0, start=(-60.0, 250.0), length=1600.0):
    """A sine-generated curve, half a pixel a step, in pixels (Langbein and Leopold 1966)."""
    along = np.arange(0, length, 0.5)
    angle = swing * np.sin(2 * np.pi * along / wavelength) + 0.15
    return np.cumsum(np.stack([np.cos(angle), np.sin(angle)], 1) * 0.5, axis=0) + start, along


def ribbon(xy, half):
    """Everything within ``half`` (a number, or one for each point) of a line."""
    return shapely.union_all(shapely.buffer(shapely.points(xy), half))


def inside(xy, size=SIZE):
    return ((xy > 0) & (xy < size)).all(axis=1)


def main_of(products: RiverProducts):
    lines = products.layers.centrelines
    return lines[lines["role"] == "main"].geometry.iloc[0]


def distances(line, xy):
    """Distance of a true centreline, in pixels, to one that was found, in pixels."""
    return shapely.distance(line, shapely.points(on_map(xy))) / PX


def width_errors(products, xy, width):
    """Error of every width on the main course, in pixels, against the width at the nearest true point."""
    found = products.layers.widths
    found = found[(found["role"] == "main") & ~found["at_mouth"]]
    middle = shapely.get_coordinates(main_of(products).interpolate(found["distance_m"].to_numpy()))
    tree = shapely.STRtree(shapely.points(on_map(xy)))
    nearest = tree.nearest(shapely.points(middle))
    return found["width_m"].to_numpy() / PX - width[nearest]


RIVERS = {
    "narrow, even": (0.8, 120.0, lambda along: np.full(len(along), 3.0)),
    "even": (1.2, 220.0, lambda along: np.full(len(along), 10.0)),
    "straight": (0.0, 220.0, lambda along: np.full(len(along), 14.5)),
    "wide and narrow in turn": (1.0, 300.0, lambda along: 12 + 5 * np.sin(along / 60)),
    "ever wider": (0.5, 400.0, lambda along: 4 + along / 90),
}


@pytest.mark.parametrize("kind", RIVERS)
def test_centreline_and_widths_are_true_to_the_pixel(kind):
    swing, wavelength, half_of = RIVERS[kind]
    xy, along = course(swing, wavelength)
    half = half_of(along)
    products = river_products(water(ribbon(xy, half)), RiverOptions(every_m=10.0))
    assert list(products.layers.centrelines["role"]) == ["main"]
    assert (distances(main_of(products), xy[inside(xy)]) <= 1.5).mean() >= 0.98
    errors = width_errors(products, xy, 2 * half)
    assert len(errors) > 30
    assert np.median(np.abs(errors)) < 0.5
    assert abs(errors.mean()) < 0.3


@pytest.mark.parametrize("seed", [0, 3])
def test_rough_banks_move_neither_centreline_nor_widths_by_much(seed):
    options = SynthOptions(
        height=900, width=900, gsd_m=PX, seed=seed, roads=False, braided=False, tributary=False, lake=False, oxbow=False
    )
    (river,) = lay_out(options).channels
    middle = (river.bank(river.left) + river.bank(-river.right)) / 2
    products = river_products(water(river.polygon(), size=900), RiverOptions(every_m=10.0))
    assert list(products.layers.centrelines["role"]) == ["main"]
    assert (distances(main_of(products), middle[inside(middle, 900)]) <= 1.5).mean() >= 0.98
    assert np.median(np.abs(width_errors(products, middle, river.left + river.right))) < 1.0


def test_centrelines_end_at_the_edge_of_the_scene_and_measure_nothing_there():
    xy, _ = course(0.0, start=(-60.0, 120.0))
    slanting = shapely.affinity.rotate(shapely.LineString(xy).buffer(20), 35, origin=(300, 300))
    products = river_products(water(slanting), RiverOptions(every_m=10.0))
    line = main_of(products)
    bounds = shapely.box(*products.layers.water.total_bounds).exterior
    ends = shapely.points(shapely.get_coordinates(line)[[0, -1]])
    assert (shapely.distance(bounds, ends) < 2 * PX).all()
    assert list(products.layers.centrelines["role"]) == ["main"]
    assert np.abs(products.layers.widths["width_m"] / PX - 40).max() < 2.0


def test_an_island_is_a_way_on_either_side_and_no_stub():
    xy, _ = course(0.0, length=1400.0)
    wide = ribbon(xy, 30.0)
    islands = [shapely.affinity.scale(shapely.Point(xy[k]).buffer(1), 60, 12) for k in (480, 900)]
    products = river_products(water(shapely.difference(wide, shapely.union_all(islands))), RiverOptions(every_m=8.0))
    lines = products.layers.centrelines
    assert sorted(lines["role"]) == ["channel", "channel", "main"]
    assert len(products.layers.islands) == 2
    assert products.layers.islands["length_m"].to_numpy() == pytest.approx([120 * PX] * 2, rel=0.05)
    found = products.layers.widths[products.layers.widths["role"] == "main"]
    assert found["total_m"].median() == pytest.approx(60 * PX, abs=PX)
    beside = found[found["channels"] == 2]
    assert beside["wetted_m"].min() == pytest.approx((60 - 24) * PX, abs=3 * PX)
    assert (beside["width_m"] < 0.6 * beside["total_m"]).all()
    assert set(found["channels"]) == {1.0, 2.0}


def test_a_boat_does_not_part_the_river_but_is_not_water():
    xy, _ = course(0.0)
    boat = shapely.affinity.scale(shapely.Point(xy[800]).buffer(1), 6, 3)
    products = river_products(water(shapely.difference(ribbon(xy, 30.0), boat)), RiverOptions(every_m=2.0))
    assert list(products.layers.centrelines["role"]) == ["main"]
    assert len(products.layers.islands) == 1
    found = products.layers.widths
    assert found["channels"].max() == 1
    assert found["width_m"].min() == pytest.approx((60 - 6) * PX, abs=2 * PX)
    assert found["total_m"].min() > 58 * PX


def test_a_confluence_is_a_main_course_and_a_branch_that_meets_it():
    river, _ = course(0.3, 500.0)
    foot = river[np.argmin(np.abs(river[:, 0] - 300))]
    stream = np.stack([np.full(400, foot[0]), np.linspace(-20, foot[1], 400)], 1)
    products = river_products(water(ribbon(river, 20.0), ribbon(stream, 5.0)), RiverOptions(every_m=10.0))
    lines = products.layers.centrelines
    assert list(lines["role"]) == ["main", "branch"]
    assert (distances(lines.geometry[0], river[inside(river)]) <= 1.5).mean() >= 0.98
    end = shapely.points(shapely.get_coordinates(lines.geometry[1])[-1])
    assert shapely.distance(end, lines.geometry[0]) < 0.5 * PX
    widths = products.layers.widths
    assert widths[widths["role"] == "branch"]["width_m"].median() == pytest.approx(10 * PX, abs=PX)
    assert widths[widths["role"] == "branch"]["width_m"].max() < 14 * PX


def test_bays_and_rough_corners_get_no_line():
    xy, _ = course(0.0)
    bays = [shapely.Point(xy[k] - [0, 30]).buffer(16) for k in (400, 600, 900)]
    products = river_products(water(ribbon(xy, 25.0), *bays))
    assert list(products.layers.centrelines["role"]) == ["main"]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (shapely.box(20, 300, 580, 320), "river"),
        (shapely.Point(300, 300).buffer(150), "lake"),
        (shapely.affinity.scale(shapely.Point(300, 300).buffer(1), 240, 80), "lake"),
        (shapely.Point(300, 300).buffer(20), "pond"),
        (shapely.box(100, 100, 400, 400).difference(shapely.box(220, 220, 280, 280)), "lake"),
    ],
)
def test_water_is_river_lake_or_pond_by_its_shape(shape, kind):
    layers = river_products(water(shape)).layers
    assert list(layers.water["kind"]) == [kind]
    assert (len(layers.centrelines) > 0) == (kind == "river")


def test_a_short_reach_of_a_wide_river_that_crosses_the_scene_is_a_river():
    products = river_products(water(shapely.box(-10, 200, 700, 390)))
    assert list(products.layers.water["kind"]) == ["river"]
    assert main_of(products).length == pytest.approx(SIZE * PX, rel=0.01)


def test_a_lake_on_a_river_is_apart_from_it():
    lake = shapely.Point(300, 300).buffer(110)
    products = river_products(water(lake, shapely.box(-5, 290, 605, 310)))
    layers = products.layers
    assert sorted(layers.water["kind"]) == ["lake", "river", "river"]
    lakes = layers.water[layers.water["kind"] == "lake"]
    assert lakes["area_m2"].iloc[0] == pytest.approx(np.pi * 110**2 * PX**2, rel=0.03)
    assert layers.centrelines["length_m"].to_numpy() == pytest.approx([190 * PX] * 2, rel=0.05)
    assert layers.widths["width_m"].max() < 26 * PX
    assert layers.water["area_m2"].sum() == pytest.approx(
        water(lake, shapely.box(-5, 290, 605, 310)).area.sum(), rel=1e-3
    )


def test_reaches_add_up_to_their_river():
    xy, _ = course(1.0, 220.0)
    islands = shapely.affinity.scale(shapely.Point(xy[900]).buffer(1), 40, 6)
    products = river_products(water(shapely.difference(ribbon(xy, 22.0), islands)), RiverOptions(reach_m=300.0))
    layers = products.layers
    assert len(layers.reaches) > 3
    assert layers.reaches["area_m2"].sum() == pytest.approx(layers.water["area_m2"].sum(), rel=2e-3)
    by_line = layers.reaches.groupby("line")["length_m"].sum()
    assert by_line.to_numpy() == pytest.approx(layers.centrelines["length_m"].to_numpy())
    assert layers.reaches.length.to_numpy() == pytest.approx(layers.reaches["length_m"].to_numpy(), rel=5e-3)
    main = layers.reaches[layers.reaches["role"] == "main"]
    assert (main["width_p10_m"] <= main["width_p50_m"]).all()
    assert (main["width_p50_m"] <= main["width_p90_m"]).all()
    assert (main["sinuosity"] >= 1).all()


def test_the_reach_table_of_a_straight_river_is_exact():
    products = river_products(water(shapely.box(-5, 200, 605, 240)), RiverOptions(reach_m=300 * PX))
    reaches = products.layers.reaches
    assert reaches["length_m"].to_numpy() == pytest.approx([300 * PX] * 2, rel=0.005)
    assert reaches["width_mean_m"].to_numpy() == pytest.approx([40 * PX] * 2, abs=0.1)
    assert reaches["sinuosity"].to_numpy() == pytest.approx([1, 1], abs=1e-3)
    assert reaches["braiding"].tolist() == [1, 1]
    assert reaches["area_m2"].to_numpy() == pytest.approx([300 * 40 * PX**2] * 2, rel=0.01)
    assert reaches["bank_m"].to_numpy() == pytest.approx([600 * PX] * 2, rel=0.02), "the scene's edge is no bank"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2056", "EPSG:32633", "EPSG:2263"])
def test_lengths_are_metres_on_the_ground_in_every_crs(crs):
    xy, _ = course(0.9, 220.0)
    table = water(ribbon(xy, 10.0))
    if crs == "EPSG:2263":  # New York, in feet
        table = gpd.GeoDataFrame(table, geometry=table.translate(90_000, -490_000)).set_crs(32618, allow_override=True)
    options = RiverOptions(every_m=20.0, gsd_m=PX)
    here, there = (river_products(some, options).layers for some in (table, table.to_crs(crs)))
    assert there.water.crs == crs
    assert there.water["area_m2"].sum() == pytest.approx(here.water["area_m2"].sum(), rel=1e-3)
    assert there.widths["width_m"].median() == pytest.approx(here.widths["width_m"].median(), rel=5e-3)
    # At its two ends a line may differ, where the scene's edge is guessed from bounds in another CRS.
    assert there.centrelines["length_m"].sum() == pytest.approx(here.centrelines["length_m"].sum(), rel=0.025)
    points = here.centrelines.geometry[0].interpolate(np.linspace(0, 1, 500), normalized=True)
    away = shapely.distance(there.centrelines.to_crs(table.crs).geometry[0], points)
    assert (away < 0.5 * PX).mean() > 0.95


def test_without_a_crs_lengths_are_in_the_layers_own_units():
    table = water(shapely.box(-5, 200, 605, 240)).set_crs(None, allow_override=True)
    layers = river_products(table).layers
    assert layers.water.crs is None
    assert layers.widths["width_m"].median() == pytest.approx(40 * PX, abs=0.1)


@pytest.mark.parametrize("turn", ["rot90", "flip", "transpose"])
def test_turning_the_map_changes_no_length(turn):
    xy, _ = course(1.1, 260.0)
    side = np.stack([np.linspace(200, 420, 300), np.linspace(-20, 330, 300)], 1)
    shape = shapely.union_all([ribbon(xy, 12.0), ribbon(side, 5.0)])
    turned = {
        "rot90": lambda p: np.stack([p[:, 1], SIZE - p[:, 0]], 1),
        "flip": lambda p: np.stack([SIZE - p[:, 0], p[:, 1]], 1),
        "transpose": lambda p: p[:, ::-1],
    }[turn]
    ours, theirs = (river_products(water(some)).layers for some in (shape, shapely.transform(shape, turned)))
    assert sorted(ours.centrelines["role"]) == sorted(theirs.centrelines["role"])
    assert theirs.centrelines["length_m"].sum() == pytest.approx(ours.centrelines["length_m"].sum(), rel=0.01)
    assert theirs.widths["width_m"].mean() == pytest.approx(ours.widths["width_m"].mean(), rel=0.01)


def test_the_same_water_gives_the_same_products():
    xy, _ = course(1.0)
    one, other = (river_products(water(ribbon(xy, 15.0))).layers for _ in range(2))
    for (_, ours), (_, theirs) in zip(one, other, strict=True):
        assert ours.equals(theirs)


def test_pixels_that_meet_at_corners_are_one_creek():
    steps = [shapely.box(100 + 4 * k, 100 + 4 * k, 104 + 4 * k, 104 + 4 * k) for k in range(60)]
    products = river_products(water(*steps))
    assert list(products.layers.water["kind"]) == ["river"]
    assert main_of(products).length == pytest.approx(60 * 4 * np.sqrt(2) * PX, rel=0.03)


@pytest.mark.parametrize(
    "table",
    [
        gpd.GeoDataFrame({"geometry": []}, geometry="geometry", crs="EPSG:32632"),
        gpd.GeoDataFrame(geometry=[shapely.Point(9, 47).buffer(1e-6)], crs="EPSG:4326"),
    ],
)
def test_no_river_gives_empty_layers(table):
    products = river_products(table, RiverOptions(gsd_m=1.0))
    assert len(products.layers.centrelines) == len(products.layers.widths) == len(products.layers.reaches) == 0
    assert products.report["bodies"]["river"] == 0


def test_land_too_large_for_an_island_ends_the_total_width():
    xy, _ = course(0.0, length=1400.0)
    far = shapely.box(150, 60, 450, 80).union(shapely.box(150, 60, 160, 300)).union(shapely.box(440, 60, 450, 320))
    table = water(ribbon(xy, 20.0), far)
    every, small = (river_products(table, RiverOptions(max_island_m2=most)).layers.widths for most in (None, 50_000.0))
    assert every["total_m"].max() > 150 * PX
    assert small["total_m"].max() < 100 * PX


def test_a_section_that_runs_along_another_channel_measures_its_own_channel_alone():
    """Behind a slip of land, a side channel leaves the river at a right angle: a line across goes down it."""
    river = shapely.box(0, 190, 600, 210)
    side = shapely.union_all([
        shapely.box(275, 176, 325, 190), shapely.box(295, 20, 305, 186), shapely.box(295, 20, 500, 30),
        shapely.box(490, 20, 500, 190),
    ])  # fmt: skip
    slip = shapely.box(285, 184, 315, 190)
    body = shapely.difference(shapely.union_all([river, side]), slip)
    products = river_products(water(body), RiverOptions(every_m=4 * PX))
    found = products.layers.widths
    main = found[found["role"] == "main"]
    middle = shapely.get_coordinates(main_of(products).interpolate(main["distance_m"].to_numpy()))
    column = (middle[:, 0] - WEST) / PX
    beside = main[(column > 297) & (column < 303)]
    assert len(beside) > 0
    assert beside["wetted_m"].isna().all()
    assert beside["total_m"].isna().all()
    assert beside["width_m"].to_numpy() == pytest.approx(20 * PX, abs=2 * PX)
    assert beside.length.max() < 30 * PX
    around = main[(column > 340) & (column < 480) | (column < 260)]
    assert around["wetted_m"].notna().mean() > 0.9
    reaches = products.layers.reaches
    assert reaches[reaches["role"] == "main"]["total_mean_m"].notna().all()


@pytest.mark.parametrize("seed", [0, 1])
def test_wet_triangles_cover_the_water_and_nothing_else(seed):
    layout = lay_out(SynthOptions(width=SIZE, height=SIZE, gsd_m=2.0, seed=seed))
    largest = max((body for _, body in layout.truth), key=lambda body: body.length)
    banks = banks_of(largest, 1.0)
    corners = wet_triangles(banks)
    assert areas_of(banks.xy, corners).sum() == pytest.approx(banks.polygon.area, rel=1e-3)
    centre, radius = circles_of(banks.xy, corners)
    nearest = cKDTree(banks.xy).query(centre)[0]
    assert np.allclose(nearest, radius, rtol=1e-6)  # No point lies in a circle: Delaunay's own rule.
