"""``geosam stats``: values of rasters under polygons, against a plain loop over pixels."""

from __future__ import annotations

import json
import re
import sys
import warnings
from itertools import pairwise
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from geosam.cli import main
from geosam.errors import OptionsError, OutputError, SceneError
from geosam.stats import layers as layers_room
from geosam.stats import river_stats
from geosam.stats import spread as spread_room
from geosam.stats.layers import RasterLayer, window_of
from geosam.stats.pieces import pieces
from geosam.stats.spread import Spread

WEST, NORTH, PX = 500_000.0, 5_300_000.0, 2.0
UTM = "EPSG:32632"
GRID = from_origin(WEST, NORTH, PX, PX)


def save(path, bands, transform=GRID, crs=UTM, **profile):
    bands = bands[None] if bands.ndim == 2 else bands
    count, height, width = bands.shape
    known = {"driver": "GTiff", "dtype": str(bands.dtype), "count": count, "height": height, "width": width}
    with rasterio.open(path, "w", **known, transform=transform, crs=crs, **profile) as raster:
        raster.write(bands)
    return path


def noise(shape=(40, 60), seed=0):
    return np.random.default_rng(seed).normal(15, 3, shape).astype(np.float32)


def world(shape, transform=GRID):
    """A shape drawn in pixels (column, row) in the CRS of the raster."""
    return shapely.transform(shape, lambda xy: np.stack(transform @ (xy[:, 0], xy[:, 1]), axis=1))


def layer_of(*shapes, transform=GRID, crs=UTM, **columns):
    return gpd.GeoDataFrame(columns, geometry=[world(shape, transform) for shape in shapes], crs=crs)


def plainly(shape, values):
    """Values and shares of the pixels under a shape in pixels, one pixel after the other."""
    found = [
        (values[row, col], share)
        for row in range(values.shape[0])
        for col in range(values.shape[1])
        if (share := shape.intersection(shapely.box(col, row, col + 1, row + 1)).area) > 0
        and values[row, col] == values[row, col]
    ]
    return np.array(found, float).reshape(-1, 2).T


BLOBS = [
    shapely.Point(20.3, 17.9).buffer(9.4),
    shapely.Polygon([(2.2, 1.1), (50.5, 4.9), (30.2, 36.6)], [[(20, 8), (32, 9), (28, 15)]]),
    shapely.MultiPolygon([shapely.box(1.5, 30.25, 4.75, 33), shapely.box(40, 2, 40.5, 30)]),
    shapely.box(33.1, 20.1, 33.6, 20.4),
]


@pytest.mark.parametrize("window", [(40, 60), (7, 9), (1, 60)])
def test_statistics_are_those_of_a_plain_loop_over_pixels(window, tmp_path, monkeypatch):
    values = noise()
    values[10:14, 18:25] = np.nan
    path = save(tmp_path / "t.tif", values)
    monkeypatch.setattr(RasterLayer, "window", property(lambda self: window))
    found = river_stats(layer_of(*BLOBS), [path]).polygons
    for at, blob in enumerate(BLOBS):
        value, share = plainly(blob, values)
        row = found.iloc[at]
        mean = np.average(value, weights=share)
        assert row.t_mean == pytest.approx(mean, rel=1e-6)
        assert row.t_std == pytest.approx(np.sqrt(np.average((value - mean) ** 2, weights=share)), rel=1e-5, abs=1e-5)
        assert (row.t_min, row.t_max) == (value.min(), value.max())
        assert row.t_area_m2 == pytest.approx(share.sum() * PX**2, rel=1e-3)
        assert row.t_covered == pytest.approx(share.sum() / blob.area, rel=1e-6)
        for percent in (10, 50, 90):
            # Shares are single precision: a value whose neighbours' weights meet the percentile to seven digits.
            around = np.quantile(
                value, [(percent - 1e-4) / 100, (percent + 1e-4) / 100], weights=share, method="inverted_cdf"
            )
            assert around[0] <= row[f"t_p{percent}"] <= around[1]


def test_whole_pixels_give_what_numpy_gives_of_them(tmp_path):
    values = noise()
    row = river_stats(layer_of(shapely.box(3, 5, 20, 30)), [save(tmp_path / "t.tif", values)]).polygons.iloc[0]
    inside = values[5:30, 3:20].astype(float)
    assert row.t_mean == pytest.approx(inside.mean(), rel=1e-12)
    assert [row.t_min, row.t_max, row.t_covered] == [inside.min(), inside.max(), 1.0]
    expected = np.quantile(inside, [0.1, 0.5, 0.9], method="inverted_cdf")
    assert [row.t_p10, row.t_p50, row.t_p90] == expected.tolist()


def test_the_engine_agrees_with_exactextract_on_the_raster_itself(tmp_path):
    from exactextract import exact_extract

    path = save(tmp_path / "t.tif", noise())
    table = layer_of(*BLOBS)
    theirs = exact_extract(str(path), table, ["mean", "min", "max", "count"], output="pandas")
    ours = river_stats(table, [path]).polygons
    assert ours.t_mean.to_numpy() == pytest.approx(theirs["mean"].to_numpy(), rel=1e-6)
    assert ours.t_min.tolist() == theirs["min"].tolist()
    assert ours.t_area_m2.to_numpy() == pytest.approx(theirs["count"].to_numpy() * PX**2, rel=1e-3)


@given(seed=st.integers(0, 1000), window=st.tuples(st.integers(1, 20), st.integers(1, 20)), turn=st.integers(0, 359))
@settings(max_examples=25, deadline=None)
def test_pieces_of_all_windows_are_the_whole_polygon(seed, window, turn):
    rng = np.random.default_rng(seed)
    star = shapely.Polygon([(9, -5), (30, -12), (8, -14), (25, -30), (6, -20)])
    shapes = np.array([shapely.affinity.rotate(shapely.affinity.scale(star, *rng.uniform(0.3, 2, 2)), turn)], object)
    whole = shapely.intersection(shapes[0], shapely.box(0, -40, 60, 0))
    parts = list(pieces(shapes, (40, 60), window))
    assert sum(shapely.area(part.shapes).sum() for part in parts) == pytest.approx(whole.area)
    assert [(part.box.row, part.box.col) for part in parts] == sorted((part.box.row, part.box.col) for part in parts)
    for part in parts:
        box = part.box
        frame = shapely.box(box.col, -box.row - box.height, box.col + box.width, -box.row)
        assert frame.buffer(1e-9).covers(part.shapes[0])


# Values and nodata ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodata", [-9999.0, 0.0, float("nan"), -3.4028234663852886e38])
def test_nodata_counts_as_nothing(nodata, tmp_path):
    values = np.full((20, 20), 5, np.float32)
    values[:, 10:] = 7
    values[:, 15:] = nodata
    path = save(tmp_path / "t.tif", values, nodata=nodata)
    row = river_stats(layer_of(shapely.box(8, 2, 18, 12)), [path]).polygons.iloc[0]
    assert row.t_mean == pytest.approx((2 * 5 + 5 * 7) / 7)
    assert row.t_covered == pytest.approx(0.7)
    assert row.t_area_m2 == pytest.approx(70 * PX**2, rel=1e-3)


def test_nothing_is_nodata_that_the_file_does_not_call_so(tmp_path):
    path = save(tmp_path / "t.tif", np.zeros((20, 20), np.uint8))
    row = river_stats(layer_of(shapely.box(2, 2, 8, 8)), [path]).polygons.iloc[0]
    assert (row.t_mean, row.t_covered) == (0.0, 1.0)


def test_scale_and_offset_of_the_file_are_applied(tmp_path):
    path = save(tmp_path / "t.tif", np.full((20, 20), 1523, np.int16), nodata=-1)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.01,), (-5.0,)
    row = river_stats(layer_of(shapely.box(2, 2, 8, 8)), [path]).polygons.iloc[0]
    assert row.t_mean == pytest.approx(10.23)


def test_several_bands_are_named_and_transparency_is_none(tmp_path):
    values = np.stack([np.full((20, 20), value, np.uint8) for value in (3, 4, 255)])
    values[2, :, 5:] = 0
    path = save(tmp_path / "Two Bands.tif", values)
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = ("Surface temp.", None, None)
        raster.colorinterp = [rasterio.enums.ColorInterp[name] for name in ("gray", "undefined", "alpha")]
    row = river_stats(layer_of(shapely.box(0, 0, 10, 10)), [path, path]).polygons.iloc[0]
    assert (row.two_bands_surface_temp_mean, row.two_bands_b2_mean, row.two_bands_2_b2_mean) == (3, 4, 4)
    assert row.two_bands_b2_covered == 0.5
    assert not [name for name in row.index if "b3" in name]


# Places ---------------------------------------------------------------------------------------------------------------


def test_polygons_go_to_the_crs_of_the_raster(tmp_path):
    path = save(tmp_path / "t.tif", noise())
    table = layer_of(*BLOBS[:2])
    here = river_stats(table, [path]).polygons
    there = river_stats(table.to_crs("EPSG:4326"), [path]).polygons
    assert there.crs == "EPSG:4326"
    for name in ("t_mean", "t_p50", "t_std", "t_area_m2"):
        assert there[name].to_numpy() == pytest.approx(here[name].to_numpy(), rel=1e-4)


@pytest.mark.parametrize("turn", [0, 30, 200])
def test_a_raster_may_lie_turned_or_upside_down(turn, tmp_path):
    grid = GRID @ Affine.rotation(turn) @ Affine.scale(1, -1 if turn else 1)
    values = noise()
    row = river_stats(layer_of(BLOBS[0], transform=grid), [save(tmp_path / "t.tif", values, grid)]).polygons.iloc[0]
    value, share = plainly(BLOBS[0], values)
    assert row.t_mean == pytest.approx(np.average(value, weights=share), rel=1e-6)


def test_what_lies_outside_is_counted_and_said(tmp_path, capsys):
    values = noise()
    values[:, :10] = np.nan
    first, second = save(tmp_path / "a.tif", values), save(tmp_path / "b.tif", values, from_origin(9_000, 9_000, 1, 1))
    table = layer_of(
        shapely.box(20, 20, 30, 30), shapely.box(50, 30, 70, 35), shapely.box(80, 0, 90, 9), shapely.box(2, 2, 8, 8)
    )
    table.to_file(tmp_path / "w.gpkg")
    code, text, _ = run(capsys, tmp_path / "w.gpkg", "--layer", first, "--layer", second, "--out", tmp_path / "s.gpkg")
    assert code == 0
    assert "a: 4 polygons (1 outside it, 1 partly outside, 1 without data)" in text
    assert "b: 4 polygons (4 outside it)" in text
    found = gpd.read_file(tmp_path / "s.gpkg", layer="polygons")
    assert found.a_covered.tolist() == pytest.approx([1, 0.5, 0, 0])
    assert found.a_mean.isna().tolist() == [False, False, True, True]
    assert found.b_mean.isna().all()


def test_polygons_that_lie_on_no_raster_are_refused(tmp_path):
    path = save(tmp_path / "b.tif", noise(), from_origin(9_000, 9_000, 1, 1))
    with pytest.raises(SceneError, match=r"none of the 1 polygons lies on .*b.tif"):
        river_stats(layer_of(shapely.box(0, 0, 9, 9)), [path])


# Bounded memory -------------------------------------------------------------------------------------------------------


def test_windows_hold_so_many_values_in_whole_blocks():
    assert window_of((512, 512), (40_000, 100_000), 1 << 22) == (512, 8192)
    assert window_of((1, 100_000), (40_000, 100_000), 1 << 22) == (41, 100_000)
    assert window_of((256, 256), (300, 200), 1 << 22) == (300, 200)
    assert window_of((20_000, 1), (20_000, 20_000), 1 << 22) == (20_000, 209)


def test_a_raster_is_read_once_and_only_where_polygons_are(tmp_path, monkeypatch):
    path = save(tmp_path / "t.tif", noise((160, 160)), tiled=True, blockxsize=16, blockysize=16)
    monkeypatch.setattr(layers_room, "WINDOW_VALUES", 256)
    read, seen = RasterLayer.read, []
    monkeypatch.setattr(RasterLayer, "read", lambda self, box: (seen.append(box), read(self, box))[1])
    river_stats(layer_of(shapely.LineString([(5, 5), (150, 150)]).buffer(3), shapely.box(6, 6, 9, 9)), [path])
    assert len(seen) == len(set(seen)) < 30
    assert all(box.height * box.width <= 256 for box in seen)


def test_percentiles_of_more_values_than_are_kept_are_right_to_a_bin(monkeypatch):
    monkeypatch.setattr(spread_room, "MOST_VALUES", 256)
    rng = np.random.default_rng(0)
    values, weights = rng.gamma(2, 3, 50_000) + 270, rng.uniform(0.1, 1, 50_000)
    spread = Spread()
    for part in np.array_split(np.arange(50_000), 97):
        spread.add(values[part], weights[part])
    assert spread._held <= 3 * 256 + 600
    exact = np.quantile(values, [0.05, 0.5, 0.95], weights=weights, method="inverted_cdf")
    assert 0 < spread.step <= np.ptp(values) / 64
    assert np.abs(np.array(spread.percentiles((5.0, 50.0, 95.0))) - exact).max() <= spread.step / 2
    assert spread.mean == pytest.approx(np.average(values, weights=weights), rel=1e-12)


def test_small_deviations_of_large_values_do_not_drown():
    spread = Spread()
    spread.add(np.array([3e6, 3e6 + 0.001, 3e6 + 0.002]), np.ones(3))
    assert spread.std == pytest.approx(0.001 * np.sqrt(2 / 3), rel=1e-3)


# The verb -------------------------------------------------------------------------------------------------------------


def ranges_of(path, layer):
    """Column and ends of the ranges that QGIS colours a layer by."""
    styles = pyogrio.read_dataframe(path, layer="layer_styles").set_index("f_table_name")["styleQML"]
    renderer = ElementTree.fromstring(styles[layer].split("\n", 1)[1]).find("renderer-v2")
    return renderer.get("attr"), [(float(one.get("lower")), float(one.get("upper"))) for one in renderer.iter("range")]


@pytest.mark.parametrize("count", [1, 2, 20])
def test_qgis_colours_polygons_by_the_mean_of_the_first_raster(count, tmp_path):
    first, second = save(tmp_path / "a.tif", noise()), save(tmp_path / "b.tif", noise(seed=1))
    shapes = [shapely.box(2 * at, 2, 2 * at + 2, 30) for at in range(count)]
    found = river_stats(layer_of(*shapes), [first, second], out=tmp_path / "s.gpkg").polygons["a_mean"]
    column, ranges = ranges_of(tmp_path / "s.gpkg", "polygons")
    assert column == "a_mean"
    assert (ranges[0][0], ranges[-1][1]) == (found.min(), found.max())  # Not one polygon is left out.
    assert all(one[1] == other[0] for one, other in pairwise(ranges))
    inside = [((found >= low) & (found <= high)).sum() for low, high in ranges]
    assert min(inside) >= count // 5


def test_polygons_without_data_have_the_colour_of_water(tmp_path):
    empty = save(tmp_path / "a.tif", np.full((40, 60), -1, np.float32), nodata=-1)
    river_stats(layer_of(BLOBS[0]), [empty], out=tmp_path / "s.gpkg")
    assert ranges_of(tmp_path / "s.gpkg", "polygons") == (None, [])


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["stats", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


def test_the_verb_keeps_the_rows_and_writes_a_long_table(tmp_path, capsys):
    thermal, dem = (
        save(tmp_path / "thermal.tif", noise()),
        save(tmp_path / "dem.tif", noise(seed=1), from_origin(WEST, NORTH, 5, 5)),
    )
    layer_of(*BLOBS[:2], id=[7, 9], name=["Inn", None]).to_file(tmp_path / "w.geojson", engine="pyogrio")
    out, csv, report = (tmp_path / name for name in ("s.gpkg", "s.csv", "r.json"))
    code, _, err = run(
        capsys, tmp_path / "w.geojson", "--layer", thermal, "--layer", dem, "--out", out, "--csv", csv,
        "--report", report, "--percentiles", "2.5,50",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert pyogrio.list_layers(out)[:, 0].tolist() == ["polygons", "layer_styles"]
    found = gpd.read_file(out, layer="polygons")
    assert found.name.fillna("").tolist() == ["Inn", ""]
    assert {"thermal_p2_5", "dem_p50", "dem_area_m2"} <= set(found.columns)
    rows = pd.read_csv(csv)
    assert rows[["of", "id", "layer"]].to_numpy().tolist() == [
        ["polygon", 7, "thermal"], ["polygon", 9, "thermal"], ["polygon", 7, "dem"], ["polygon", 9, "dem"],
    ]  # fmt: skip
    assert rows["mean"].tolist() == pytest.approx([*found.thermal_mean, *found.dem_mean])
    assert json.loads(report.read_text())["layers"][1]["name"] == "dem"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["w.gpkg", "--layer", "nocrs.tif"], "nocrs.tif has no CRS"),
        (["w.gpkg", "--layer", "absent.tif"], "absent.tif does not exist"),
        (["w.gpkg", "--layer", "w.gpkg"], "is not a raster"),
        (["bare.gpkg", "--layer", "t.tif"], "bare.gpkg has no CRS"),
        (["points.gpkg", "--layer", "t.tif"], "points.gpkg holds no polygon"),
        (["absent.gpkg", "--layer", "t.tif"], "absent.gpkg does not exist"),
        (["w.gpkg", "--layer", "t.tif", "--percentiles", "50,101"], "stats: percentiles .* 100, got 101\n"),
        (["w.gpkg", "--layer", "t.tif", "--along", "-5"], "along_m"),
        (["w.gpkg", "--layer", "t.tif", "--colder-than", "2", "--cold-layer", "dem"], "no layer 'dem'.*There are t"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(args, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("t.tif", noise())
    save("nocrs.tif", noise(), crs=None)
    table = layer_of(shapely.box(0, 0, 9, 9))
    table.to_file("w.gpkg")
    gpd.GeoDataFrame(geometry=table.centroid, crs=UTM).to_file("points.gpkg")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.write_dataframe(table.set_crs(None, allow_override=True), "bare.gpkg")
    code, _, err = run(capsys, *args, "--out", "s.gpkg")
    assert code == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "s.gpkg").exists()


def test_an_existing_output_is_refused_and_untouched(tmp_path):
    path, out = save(tmp_path / "t.tif", noise()), tmp_path / "s.gpkg"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        river_stats(layer_of(BLOBS[0]), [path], out=out)
    assert out.read_text() == "mine"
    river_stats(layer_of(BLOBS[0]), [path], out=out, overwrite=True)
    assert len(gpd.read_file(out, layer="polygons")) == 1


def test_without_exactextract_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "t.tif", noise())
    monkeypatch.setitem(sys.modules, "exactextract", None)
    with pytest.raises(OptionsError, match=r"pip install 'geosam-rivers\[stats\]'"):
        river_stats(layer_of(BLOBS[0]), [path])
