"""``geosam stats --along`` and ``--colder-than``: reaches of a river, and cold patches of known place and depth."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from test_stats import GRID, PX, UTM, layer_of, noise, run, save, world

from geosam.options import RiverOptions, StatsOptions
from geosam.rivers import river_products
from geosam.stats import river_stats
from geosam.stats.layers import RasterLayer

RIVER = shapely.LineString([(10, 60), (290, 60)]).buffer(14, cap_style="flat")
"""280 x 28 px of 2 m: 560 x 56 m."""
SHAPE = (120, 300)


def water():
    return layer_of(RIVER)


def thermal(*patches, base=None):
    """A river that warms downstream in steps of 1 degree by reaches of 140 m, with colder patches (pixels, depth)."""
    values = np.full(SHAPE, 30, np.float32)
    values[46:74, 10:290] = 15 + np.arange(280) // 70 if base is None else base
    for shape, depth in patches:
        mask = rasterio.features.geometry_mask([shape], SHAPE, rasterio.Affine.identity(), invert=True)
        values[mask] -= depth
    return values


def test_reaches_take_the_water_that_is_nearest_and_share_all_of_it(tmp_path):
    path = save(tmp_path / "t.tif", thermal())
    found = river_stats(water(), [path], StatsOptions(along_m=140.0))
    along = found.along
    assert len(along) == 4
    # Which end a centreline begins at is up to the room that draws it.
    assert sorted(along.t_mean) == pytest.approx([15, 16, 17, 18], abs=0.05)
    assert sorted(along.t_p50) == [15, 16, 17, 18]
    assert abs(along.t_p50.diff().iloc[1:]).tolist() == [1, 1, 1]
    assert along.area_m2.sum() == pytest.approx(RIVER.area * PX**2, rel=1e-3)
    assert shapely.area(shapely.union_all(along.geometry.to_numpy())) == pytest.approx(RIVER.area * PX**2, rel=1e-6)
    assert (along.to_m - along.from_m).tolist() == pytest.approx([140] * 4, rel=0.05)
    assert along.from_m.iloc[1:].tolist() == pytest.approx(along.to_m.iloc[:-1].tolist())
    lines = river_products(water(), RiverOptions(reach_m=140.0)).layers.reaches
    for line, polygon in zip(lines.geometry, along.geometry, strict=True):
        assert line.within(polygon.buffer(PX))
    assert found.rows().query("of == 'reach'")["mean"].tolist() == along.t_mean.tolist()


def test_reaches_cut_a_bent_river_across(tmp_path):
    x = np.linspace(20, 280, 400)
    bend = shapely.LineString(np.stack([x, 60 + 35 * np.sin(x / 40)], axis=1)).buffer(8, cap_style="flat")
    values = np.tile(np.arange(300, dtype=np.float32), (120, 1))
    along = river_stats(layer_of(bend), [save(tmp_path / "x.tif", values)], StatsOptions(along_m=100.0)).along
    assert len(along) >= 5
    assert len(set(np.sign(np.diff(along.x_mean)))) == 1
    assert along.area_m2.sum() == pytest.approx(bend.area * PX**2, rel=2e-3)
    overlaps = shapely.area(shapely.intersection(along.geometry.to_numpy()[1:], along.geometry.to_numpy()[:-1]))
    assert overlaps.max() < 1e-3


PATCHES = [
    (shapely.box(30, 50, 40, 56), 2.0),
    (shapely.box(200, 65, 206, 70), 3.5),
    (shapely.box(250, 50, 254, 54), 0.8),
]


@pytest.mark.parametrize("window", [(120, 300), (13, 37)])
def test_cold_patches_are_those_that_were_made(window, tmp_path, monkeypatch):
    monkeypatch.setattr(RasterLayer, "window", property(lambda self: window))
    path = save(tmp_path / "t.tif", thermal(*PATCHES))
    found = river_stats(water(), [path], StatsOptions(along_m=140.0, colder_than=1.0))
    cold = found.cold
    assert cold.crs == UTM
    assert [shape.equals(world(patch)) for shape, (patch, _) in zip(cold.geometry, PATCHES[:2], strict=True)] == [
        True
    ] * 2
    assert cold.area_m2.tolist() == pytest.approx([60 * PX**2, 30 * PX**2], rel=1e-3)
    assert cold.depth_mean.tolist() == pytest.approx([2.0, 3.5])
    assert cold.depth_max.tolist() == pytest.approx([2.0, 3.5])
    assert cold["mean"].tolist() == pytest.approx([13.0, 13.5])
    assert cold.reach_median.tolist() == [15.0, 17.0]
    assert found.along.set_index("reach").t_p50[cold.reach].tolist() == [15.0, 17.0]


def test_the_median_is_that_of_the_reach_and_not_of_the_river(tmp_path):
    path = save(tmp_path / "t.tif", thermal())
    by_reach = river_stats(water(), [path], StatsOptions(along_m=140.0, colder_than=0.9)).cold
    whole = river_stats(water(), [path], StatsOptions(along_m=5000.0, colder_than=0.9)).cold
    assert len(by_reach) == 0
    assert whole.area_m2.sum() > 0.2 * RIVER.area * PX**2


def test_land_and_nodata_are_no_cold_water_and_small_patches_are_left_out(tmp_path):
    values = thermal((shapely.box(100, 20, 130, 30), 29.0), (shapely.box(60, 50, 61, 53), 5.0))
    values[60:66, 240:250] = -9999
    path = save(tmp_path / "t.tif", values, nodata=-9999)
    options = StatsOptions(along_m=140.0, colder_than=1.0)
    assert len(river_stats(water(), [path], options).cold) == 0
    assert len(river_stats(water(), [path], options.model_copy(update={"min_patch_m2": 3 * PX**2})).cold) == 1


def test_a_lake_is_measured_against_its_own_median(tmp_path):
    values = np.full(SHAPE, 12, np.float32)
    values[50:55, 100:108] = 9
    lake = shapely.Point(100, 55).buffer(30)
    found = river_stats(layer_of(lake), [save(tmp_path / "t.tif", values)], StatsOptions(colder_than=2.0))
    assert len(found.along) == 0
    assert found.cold.depth_mean.tolist() == [3.0]
    assert found.cold.reach.isna().all()


def test_the_cold_layer_may_be_any_band(tmp_path):
    path = save(tmp_path / "both.tif", np.stack([noise(SHAPE), thermal(*PATCHES)]))
    options = StatsOptions(along_m=140.0, colder_than=1.0, cold_layer="both:2")
    assert len(river_stats(water(), [path], options).cold) == 2


def test_the_verb_writes_all_layers_whatever_the_crs_of_the_water(tmp_path, capsys):
    path = save(tmp_path / "thermal.tif", thermal(*PATCHES))
    water().to_crs("EPSG:4326").to_file(tmp_path / "w.geojson", engine="pyogrio")
    out = tmp_path / "s.gpkg"
    args = (tmp_path / "w.geojson", "--layer", path, "--out", out, "--along", 140, "--colder-than", 1)
    code, text, _ = run(capsys, *args)
    assert code == 0
    assert "4 reaches" in text
    assert "2 patches 1 or more below their reach's median" in text
    assert pyogrio.list_layers(out)[:, 0].tolist() == ["polygons", "along", "cold", "layer_styles"]
    assert set(pyogrio.read_dataframe(out, layer="layer_styles")["f_table_name"]) == {"polygons", "along", "cold"}
    layers = {name: gpd.read_file(out, layer=name) for name in ("along", "cold")}
    assert (layers["along"].crs, layers["cold"].crs) == ("EPSG:4326", UTM)
    assert layers["cold"].depth_mean.tolist() == pytest.approx([2.0, 3.5])
    assert GRID.a == PX
