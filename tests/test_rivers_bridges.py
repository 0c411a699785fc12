"""Bridging: rivers that bridges and trees cut are one river, and nothing else is joined."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from test_rivers import PX, course, distances, inside, main_of, on_map, ribbon, water

from geosam.options import RiverOptions
from geosam.rivers import river_products


def deck(at, width, angle=90.0, length=200.0):
    """A bridge across x = ``at``, in pixels."""
    line = shapely.box(at - width / 2, 300 - length, at + width / 2, 300 + length)
    return shapely.affinity.rotate(line, angle - 90, origin=(at, 300))


@pytest.mark.parametrize("angle", [90, 60, 45])
def test_a_bridge_is_crossed_where_the_river_goes_on(angle):
    xy, _ = course(0.0)
    river = ribbon(xy, 15.0)
    table = water(river.difference(deck(300, 8, angle)))
    apart = river_products(table)
    joined = river_products(table, RiverOptions(bridge_m=40.0, every_m=6.0))
    assert list(apart.layers.water["kind"]) == ["river", "river"]
    assert apart.report["bridges"] == 0
    assert list(joined.layers.water["kind"]) == ["river"]
    assert joined.report["bridges"] == len(joined.layers.bridges) == 1
    assert joined.layers.bridges["gap_m"].iloc[0] == pytest.approx(8 * PX / np.sin(np.radians(angle) - 0.15), rel=0.15)
    assert list(joined.layers.centrelines["role"]) == ["main"]
    assert (distances(main_of(joined), xy[inside(xy)]) <= 1.5).mean() >= 0.98
    assert joined.layers.widths["width_m"].min() > 26 * PX


@pytest.mark.parametrize(("swing", "at"), [(0.6, 180), (0.6, 210), (0.6, 390), (0.9, 150), (0.9, 330), (1.2, 330)])
def test_a_bend_is_joined_under_a_bridge(swing, at):
    xy, _ = course(swing)
    joined = river_products(water(ribbon(xy, 12.0).difference(deck(at, 6, length=600))), RiverOptions(bridge_m=24.0))
    assert list(joined.layers.water["kind"]) == ["river"]
    assert joined.layers.bridges["gap_m"].iloc[0] < 20.0
    assert (distances(main_of(joined), xy[inside(xy)]) <= 2.5).mean() >= 0.97


def test_a_gap_wider_than_allowed_stays():
    xy, _ = course(0.0)
    table = water(ribbon(xy, 15.0).difference(deck(300, 20)))
    assert len(river_products(table, RiverOptions(bridge_m=30.0)).layers.bridges) == 0
    assert len(river_products(table, RiverOptions(bridge_m=50.0)).layers.bridges) == 1


def test_a_creek_under_trees_is_put_together_piece_by_piece():
    xy, _ = course(0.6, 260.0)
    gaps = [shapely.Point(xy[k]).buffer(9) for k in range(250, 1300, 150)]
    table = water(ribbon(xy, 3.0).difference(shapely.union_all(gaps)))
    joined = river_products(table, RiverOptions(bridge_m=50.0))
    assert list(joined.layers.water["kind"]) == ["river"]
    assert len(joined.layers.bridges) >= 6
    assert (distances(main_of(joined), xy[inside(xy)]) <= 1.5).mean() >= 0.95


def test_a_canal_beside_a_river_stays_apart():
    river, canal = shapely.box(-5, 280, 605, 310), shapely.box(-5, 318, 605, 324)
    layers = river_products(water(river, canal), RiverOptions(bridge_m=60.0)).layers
    assert len(layers.bridges) == 0
    assert len(layers.water) == 2


def test_ends_that_point_past_each_other_stay_apart():
    east, north = shapely.box(-5, 290, 280, 310), shapely.box(290, 320, 310, 605)
    aside = shapely.box(300, 200, 605, 220)
    layers = river_products(water(east, north, aside), RiverOptions(bridge_m=80.0)).layers
    assert len(layers.bridges) == 0
    assert len(layers.water) == 3


def test_a_trickle_is_not_joined_to_a_river():
    layers = river_products(
        water(shapely.box(-5, 280, 280, 320), shapely.box(290, 297, 605, 303)), RiverOptions(bridge_m=60.0)
    ).layers
    assert len(layers.bridges) == 0


def test_a_stream_that_joins_behind_a_bridge_does_not_keep_the_river_apart():
    river, stream = shapely.box(-5, 280, 605, 320), shapely.box(318, 100, 330, 300)
    table = water(shapely.union_all([river, stream]).difference(shapely.box(300, 0, 306, 600)))
    layers = river_products(table, RiverOptions(bridge_m=20.0)).layers
    assert len(layers.bridges) == 1
    assert list(layers.centrelines["role"]) == ["main", "branch"]
    assert layers.centrelines["length_m"].iloc[0] == pytest.approx(600 * PX, rel=0.01)


def test_a_stream_cut_from_the_side_of_a_river_is_not_led_across_it():
    river, stream = shapely.box(-5, 280, 605, 320), shapely.box(318, 60, 330, 270)
    layers = river_products(water(river, stream), RiverOptions(bridge_m=40.0)).layers
    assert len(layers.bridges) == 0


def test_a_bridge_hides_no_water_on_the_map():
    xy, _ = course(0.0)
    river = ribbon(xy, 15.0)
    layers = river_products(water(river.difference(deck(300, 8))), RiverOptions(bridge_m=40.0)).layers
    truth = shapely.transform(river.intersection(shapely.box(260, 200, 340, 400)), on_map)
    assert layers.water.geometry[0].intersection(truth).area == pytest.approx(truth.area, rel=0.02)
