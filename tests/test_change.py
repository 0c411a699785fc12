"""Two dates of made rivers: areas, migration and cut-offs that are known."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.features import rasterize
from test_rivers import PX, SIZE, course, inside, on_map, ribbon, water

import geosam
from geosam.changes import change
from geosam.changes.cutoffs import _stretches
from geosam.changes.matching import aligned
from geosam.errors import SceneError
from geosam.options import ChangeOptions

TRUE_AREA = PX**2 / 0.9996**2
"""Ground area of a pixel on the central meridian of a UTM zone."""
XY, _ = course()
RIVER = ribbon(XY, 10.0)


def truly_moved(shift):
    """How far the course moved square to itself, on average, in pixels."""
    along = np.gradient(XY, axis=0)
    along /= np.hypot(*along.T)[:, None]
    both = inside(XY) & inside(XY + shift)
    return float(np.abs(along[:, 0] * shift[1] - along[:, 1] * shift[0])[both].mean())


def moved(shape, shift):
    return shapely.affinity.translate(shape, *shift)


@pytest.fixture(scope="module")
def north():
    """The river, and the same one 6 px further north, two years later."""
    return change(water(RIVER), water(moved(RIVER, (0, -6))), ChangeOptions(years=2.0))


@pytest.mark.parametrize("shift", [(0, 1.5), (9, 4), (-5, -14)])
def test_a_river_that_moved_as_a_whole_migrated_by_as_much(shift):
    found = change(water(RIVER), water(moved(RIVER, shift)))
    assert set(found.migration["state"]) == {"moved"}
    assert found.report["migration"]["migration_mean_m"] / PX == pytest.approx(truly_moved(shift), abs=0.3)
    assert len(found.cutoffs) == 0


def test_a_river_that_did_not_move_did_not_migrate():
    found = change(water(RIVER), water(RIVER))
    assert found.migration["migration_m"].max() < 0.2 * PX
    assert len(found.eroded) == len(found.accreted) == 0
    assert found.report["registration"]["east_m"] == pytest.approx(0, abs=0.05 * PX)


def test_every_station_moved_square_to_the_course(north):
    lines = shapely.get_coordinates(north.displacements.geometry).reshape(-1, 2, 2)
    assert len(lines) > 50
    step = lines[:, 1] - lines[:, 0]
    assert np.median(np.hypot(*step.T)) >= np.median(np.abs(north.displacements["right_m"]))
    assert (np.hypot(*step.T) < 6.8 * PX).mean() > 0.95


def test_north_is_left_of_a_river_that_flows_east(north):
    lines = shapely.get_coordinates(north.courses.geometry.iloc[0])
    eastward = lines[-1, 0] > lines[0, 0]
    reaches = north.migration
    left, right = ("left_m", "right_m") if eastward else ("right_m", "left_m")
    assert (reaches[left] > 20 * reaches[right]).all()
    assert np.allclose(reaches["net_m"], reaches["right_m"] - reaches["left_m"])
    assert np.allclose(reaches["migration_m"], reaches["right_m"] + reaches["left_m"])


@pytest.mark.parametrize(("downstream", "side"), [("east", "left_mean_m"), ("west", "right_mean_m")])
def test_the_way_downstream_can_be_told(downstream, side):
    found = change(water(RIVER), water(moved(RIVER, (0, -6))), ChangeOptions(downstream=downstream))
    moves = found.report["largest_river"]
    assert moves[side] == pytest.approx(moves["migration_mean_m"], rel=0.05)
    assert moves[side] > 4 * PX


def test_rates_are_metres_over_years(north):
    reaches = north.migration
    assert np.allclose(reaches["migration_m_per_year"] * 2, reaches["migration_m"])
    assert np.allclose(north.displacements["right_m_per_year"] * 2, north.displacements["right_m"])
    dated = ChangeOptions.model_validate({"early_date": "2000-01-01", "late_date": "2002-01-01"}, strict=False)
    assert dated.years_between == pytest.approx(2.0, abs=0.002)
    assert change(water(RIVER), water(RIVER)).migration["migration_m_per_year"].isna().all()


def masks(*shapes):
    return [rasterize([shape], (SIZE, SIZE)).astype(bool) for shape in shapes]


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3857"])
def test_areas_are_those_of_the_pixels_in_every_crs(crs):
    late = shapely.union_all([moved(RIVER, (3, 8)), shapely.Point(80, 520).buffer(40)])
    before, after = masks(RIVER, late)
    found = change(water(RIVER), water(late).to_crs(crs))
    for table, oracle in (
        (found.eroded, after & ~before),
        (found.accreted, before & ~after),
        (found.stable, before & after),
    ):
        assert table["area_m2"].sum() == pytest.approx(oracle.sum() * TRUE_AREA, rel=1e-3)
        assert table.crs == "EPSG:32632"
        assert table["area_m2"].is_monotonic_decreasing
        assert shapely.area(table.geometry).sum() == pytest.approx(oracle.sum() * PX**2, rel=1e-3)


def test_dates_the_other_way_round_swap_erosion_and_accretion(north):
    back = change(water(moved(RIVER, (0, -6))), water(RIVER))
    assert back.report["areas"]["eroded_m2"] == pytest.approx(north.report["areas"]["accreted_m2"], rel=1e-6)
    assert back.report["areas"]["accreted_m2"] == pytest.approx(north.report["areas"]["eroded_m2"], rel=1e-6)


def loop(radius=90.0, neck=0.5, half=9.0):
    """A straight river with one loop, and its course, in pixels."""
    turn = np.linspace(neck, 2 * np.pi - neck, 400)
    ring = np.stack([300 - radius * np.sin(turn), 330 + radius * np.cos(turn)], 1)
    start, end = ring[0], ring[-1]
    line = shapely.LineString([(-60, start[1]), *ring.tolist(), (SIZE + 60, end[1])])
    return line, line.buffer(half, cap_style="flat")


@pytest.fixture(scope="module")
def cut():
    """A loop that was cut off, of which a lake is left."""
    line, river = loop()
    level = line.coords[0][1]
    straight = shapely.LineString([(-60, level), (SIZE + 60, level)]).buffer(9.0, cap_style="flat")
    lake = river.difference(shapely.box(-100, level - 40, SIZE + 100, level + 40))
    return line, change(water(river), water(straight, lake), ChangeOptions(years=10.0))


def test_a_cut_off_bend_is_a_cut_off_and_no_migration(cut):
    line, found = cut
    assert len(found.cutoffs) == 1
    bend = found.cutoffs.iloc[0]
    ring = line.length - (SIZE + 120 - 2 * 90 * np.sin(0.5))
    assert bend["length_m"] == pytest.approx(ring * PX, rel=0.2)
    assert bend["late_m"] < 0.4 * bend["length_m"]
    assert bend["shorter_m"] == pytest.approx(bend["length_m"] - bend["late_m"])
    assert 0.5 < bend["water_left"] < 1
    assert shapely.transform(line, on_map).buffer(6 * PX).contains(bend.geometry)
    assert "cut off" in set(found.migration["state"])
    assert found.migration["migration_m"].max() < 5 * PX
    assert found.migration.loc[found.migration["state"] != "moved", "migration_m"].isna().all()


def test_a_bend_that_grew_is_no_cut_off():
    line, river = loop()
    level = line.coords[0][1]
    straight = shapely.LineString([(-60, level), (SIZE + 60, level)]).buffer(9.0, cap_style="flat")
    assert len(change(water(straight), water(river)).cutoffs) == 0


def test_a_river_that_took_its_other_channel_did_not_migrate():
    island = shapely.affinity.scale(shapely.Point(300, 300).buffer(1), 180, 60)
    wide, narrow = 26, 14
    upper, lower = (shapely.box(0, 0, SIZE, 300), shapely.box(0, 300, SIZE, SIZE))
    ends = shapely.box(-5, 285, SIZE + 5, 315)

    def river(above, below):
        parts = [island.buffer(size).intersection(half) for size, half in ((above, upper), (below, lower))]
        return shapely.union_all([ends, *parts]).difference(island)

    found = change(water(river(wide, narrow)), water(river(narrow, wide)))
    assert "other channel" in set(found.migration["state"])
    assert not found.migration["migration_m"].max() > 20 * PX


def test_small_water_can_be_left_out():
    pond = shapely.Point(500, 80).buffer(6)
    everything = change(water(RIVER), water(RIVER, pond))
    large = change(water(RIVER), water(RIVER, pond), ChangeOptions(min_area_m2=1000.0))
    assert everything.report["areas"]["eroded_m2"] == pytest.approx(pond.area * TRUE_AREA, rel=0.1)
    assert large.report["areas"]["eroded_m2"] == 0


def test_the_file_has_every_layer_and_python_and_the_package_agree(tmp_path, north):
    assert geosam.change is change
    change(water(RIVER), water(moved(RIVER, (0, -6))), ChangeOptions(years=2.0), out=tmp_path / "change.gpkg")
    names = {name for name, _ in pyogrio.list_layers(tmp_path / "change.gpkg")}
    assert names == {*north.layers(), "layer_styles"}
    for name, table in north.layers().items():
        layer = gpd.read_file(tmp_path / "change.gpkg", layer=name)
        assert len(layer) == len(table)
        assert layer.crs == table.crs
    styles = pyogrio.read_dataframe(tmp_path / "change.gpkg", layer="layer_styles")
    assert set(styles["f_table_name"]) == set(north.layers())  # QGIS shows each of them in colours of its own


def test_the_picture_names_what_it_shows(cut, tmp_path):
    _, found = cut
    figure = geosam.plot.migration(found)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert {text.split(":")[0] for text in texts} >= {"stable water", "eroded, now water", "1 cut-off", "late courses"}
    assert "m a year" in figure.axes[0].get_title()
    assert any(axes.get_ylabel() == "movement of the course, m a year" for axes in figure.axes[0].child_axes)
    lakes = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632")
    lakes.to_file(tmp_path / "lakes.gpkg", layer="lakes")
    with pytest.raises(SceneError, match="has no layer accreted"):
        geosam.plot.migration(tmp_path / "lakes.gpkg")


def test_alignment_walks_both_lines_from_end_to_end():
    line = np.stack([np.arange(50.0), np.zeros(50)], 1)
    assert np.allclose(aligned(line, line, line[:, 0]), line[:, 0])
    detour = np.concatenate([line[:25], np.stack([np.full(40, 24.0), np.arange(40.0)], 1), line[25:]])
    found = aligned(detour, line, line[:, 0])
    assert (np.diff(found) >= 0).all()
    assert np.ptp(found[25:60]) < 26
    assert found[0] == 0
    assert found[-1] == 49


def test_stretches_of_greatest_sum_are_parted_by_a_fall():
    scores = np.array([-1, 2, 3, -1, 4, -9, -9, 5, 1, -1.0])
    assert _stretches(scores, 6.0) == [(1, 5), (7, 9)]
    assert _stretches(-np.ones(5), 1.0) == []
