"""``geosam change`` as a user meets it: files, registration, notices, and what it refuses."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from test_rivers import NORTH, PX, WEST, course, ribbon, water

from geosam.changes.pair import read_pair
from geosam.changes.shift import shift_between
from geosam.cli import main
from geosam.options import ChangeOptions

XY, _ = course()
RIVER = ribbon(XY, 10.0)


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["change", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


def moved(shape, shift):
    return shapely.affinity.translate(shape, *shift)


@pytest.fixture
def dates(tmp_path):
    """Files of an early and a late river, the late one 3 px further east and 4 px further south."""
    paths = tmp_path / "early.gpkg", tmp_path / "late.geojson"
    water(RIVER).to_file(paths[0])
    water(moved(RIVER, (3, 4))).to_crs("EPSG:4326").to_file(paths[1])
    return paths


def test_the_verb_writes_layers_a_figure_and_a_report(dates, tmp_path, capsys):
    out, figure, report = (tmp_path / name for name in ("change.gpkg", "change.png", "r.json"))
    more = ("--early-date", "2000", "--late-date", "2010-07-01", "--figure", figure, "--report", report)
    code, text, error = run(capsys, *dates, "--out", out, *more)
    assert code == 0
    assert "of the largest river moved by" in text
    assert "m a year" in text
    assert error.splitlines() == [f"geosam: {dates[1]} was brought into the CRS of {dates[0]}."]
    assert figure.read_bytes().startswith(b"\x89PNG")
    found = json.loads(report.read_text())
    assert found["years"] == pytest.approx(10, abs=0.01)
    assert found["registration"]["east_m"] == pytest.approx(3 * PX, abs=0.3 * PX)
    assert found["registration"]["north_m"] == pytest.approx(-4 * PX, abs=0.3 * PX)
    assert found["registration"]["taken_back_m"] == [0, 0]
    assert len(gpd.read_file(out, layer="migration")) == sum(found["migration"]["reaches"].values())


@pytest.mark.parametrize("register", ["auto", f"{3 * PX},{-4 * PX}"])
def test_a_shift_is_taken_back_on_request(register, dates, tmp_path, capsys):
    code, text, _ = run(
        capsys, *dates, "--out", tmp_path / "c.gpkg", "--register", register, "--report", tmp_path / "r.json"
    )
    assert code == 0
    assert "taken back by 6" in text
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["areas"]["eroded_m2"] < 0.03 * found["areas"]["stable_m2"]
    assert found["migration"]["migration_mean_m"] < 0.3 * PX
    assert gpd.read_file(tmp_path / "c.gpkg", layer="stable").crs == "EPSG:32632"


def migrated(height, width=(100, 280)):
    """The river with part of its course moved aside."""
    part = (XY[:, 0] > width[0]) & (XY[:, 0] < width[1])
    aside = np.where(part, height * np.sin((XY[:, 0] - width[0]) / (width[1] - width[0]) * np.pi), 0)
    return ribbon(XY + np.stack([np.zeros(len(XY)), aside], 1), 10.0)


@pytest.mark.parametrize("shift", [(0, 0), (1.3, -0.7), (12, -8), (-30, 25)])
@pytest.mark.parametrize("height", [0, 9])
def test_the_shift_is_found_though_a_third_of_the_banks_moved(shift, height):
    late = moved(migrated(height), shift)
    found = shift_between(*read_pair(water(RIVER), water(late), ChangeOptions()).sources)
    assert found.east_m / PX == pytest.approx(shift[0], abs=0.3)
    assert found.north_m / PX == pytest.approx(-shift[1], abs=0.3)
    assert abs(found.outward_m) < 0.1 * PX
    assert 0.01 * PX < found.error_m < 0.3 * PX
    assert found.banks > (0.95 if height == 0 else 0.5)


def test_high_water_is_no_shift():
    found = shift_between(*read_pair(water(RIVER), water(ribbon(XY, 12.0)), ChangeOptions()).sources)
    assert abs(found.east_m) < 0.1 * PX
    assert abs(found.north_m) < 0.1 * PX
    assert found.outward_m == pytest.approx(2 * PX, abs=0.15 * PX)


def test_a_straight_river_tells_no_shift_along_it(tmp_path, capsys):
    straight = shapely.box(-5, 290, 605, 310)
    paths = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    for path, shape in zip(paths, (straight, moved(straight, (0, 3))), strict=True):
        water(shape).to_file(path)
    more = ("--register", "auto", "--report", tmp_path / "r.json")
    code, _, error = run(capsys, *paths, "--out", tmp_path / "c.gpkg", *more)
    assert code == 0
    assert "was not taken back" in error
    found = json.loads((tmp_path / "r.json").read_text())["registration"]
    assert found["east_error_m"] is None or found["east_error_m"] > PX
    assert found["north_m"] == pytest.approx(-3 * PX, abs=0.3 * PX)
    assert found["taken_back_m"] == [0, 0]


def save_mask(path, mask, crs="EPSG:32632", west=WEST, north=NORTH):
    height, width = mask.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", transform=from_origin(west, north, PX, PX), **profile) as raster:
        raster.write(mask.astype(np.uint8), 1)
    return path


def test_of_two_masks_only_what_both_show_is_compared(tmp_path, capsys):
    ground = np.zeros((400, 500), bool)
    ground[150:180] = True
    ground[300:380, 20:60] = True  # a lake that the late scene does not show
    early = save_mask(tmp_path / "early.tif", ground)
    ground[178:186] = True
    late = save_mask(tmp_path / "late.tif", ground[:280, 50:], west=WEST + 50 * PX)
    code, _, error = run(capsys, early, late, "--out", tmp_path / "c.gpkg", "--report", tmp_path / "r.json")
    assert code == 0
    assert "the scenes are not the same" in error
    areas = json.loads((tmp_path / "r.json").read_text())["areas"]
    assert areas["accreted_m2"] == 0
    assert areas["eroded_m2"] == pytest.approx(6 * 450 * PX**2, rel=2e-3)
    assert areas["stable_m2"] == pytest.approx(30 * 450 * PX**2, rel=2e-3)


def test_a_lake_has_areas_and_no_migration(tmp_path, capsys):
    paths = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    for path, radius in zip(paths, (60, 70), strict=True):
        water(shapely.Point(300, 300).buffer(radius)).to_file(path)
    more = ("--figure", tmp_path / "c.png", "--report", tmp_path / "r.json")
    code, text, error = run(capsys, *paths, "--out", tmp_path / "c.gpkg", *more)
    assert code == 0
    assert "there is no river in the early water, so there is no migration" in error
    assert text.startswith("eroded 16")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["migration"]["migration_mean_m"] is None
    for layer in ("migration", "displacements", "cutoffs", "courses"):
        assert len(gpd.read_file(tmp_path / "c.gpkg", layer=layer)) == 0


def test_shapes_that_cross_themselves_are_mended_and_counted(tmp_path, capsys):
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    crossed = gpd.GeoDataFrame(geometry=[shapely.affinity.translate(bow, WEST, NORTH - 300)], crs="EPSG:32632")
    paths = tmp_path / "a.gpkg", tmp_path / "b.gpkg"
    for path in paths:
        crossed.to_file(path)
    code, _, error = run(capsys, *paths, "--out", tmp_path / "c.gpkg", "--report", tmp_path / "r.json")
    assert code == 0
    assert error.count("1 shapes crossed themselves and were mended") == 2
    assert json.loads((tmp_path / "r.json").read_text())["areas"]["stable_m2"] == pytest.approx(5000, rel=2e-3)


def bad_inputs(folder):
    """Every kind of input that cannot be used, and a word that the message must hold."""
    good = folder / "good.gpkg"
    water(RIVER).to_file(good)
    (folder / "nothing.gpkg").write_bytes(b"")
    water(RIVER).set_crs(None, allow_override=True).to_file(folder / "nocrs.shp")
    water(RIVER).iloc[:0].to_file(folder / "norows.gpkg")
    water(RIVER).set_geometry(water(RIVER).centroid).to_file(folder / "points.gpkg")
    rng = np.random.default_rng(0)
    return {
        "missing": (good, folder / "nowhere.gpkg", "does not exist"),
        "empty file": (folder / "nothing.gpkg", good, "neither a raster nor a vector file"),
        "no rows": (good, folder / "norows.gpkg", "holds no water"),
        "points": (good, folder / "points.gpkg", "holds no polygon"),
        "no CRS": (folder / "nocrs.shp", good, "has no CRS"),
        "mask without CRS": (good, save_mask(folder / "m.tif", np.eye(200) > 0, crs=None), "has no CRS"),
        "dry mask": (save_mask(folder / "dry.tif", np.zeros((200, 200))), good, "holds no water"),
        "noise": (good, save_mask(folder / "noise.tif", rng.random((300, 300)) < 0.5), "looks like noise"),
        "specks": (save_mask(folder / "specks.tif", rng.random((300, 300)) < 0.05), good, "looks like noise"),
        "apart": (good, save_mask(folder / "apart.tif", np.ones((90, 90)), west=WEST + 90_000), "do not overlap"),
    }


KINDS = [
    "missing", "empty file", "no rows", "points", "no CRS", "mask without CRS", "dry mask", "noise", "specks", "apart"
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:'crs' was not provided", "ignore:Column names longer", "ignore:Normalized/launder")
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_bad_input_is_one_line_and_exit_2(kind, tmp_path, capsys):
    early, late, word = bad_inputs(tmp_path)[kind]
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, error = run(capsys, early, late, "--out", tmp_path / "change.gpkg", "--figure", tmp_path / "c.png")
    assert code == 2
    assert error.count("\n") == 1
    assert error.startswith("geosam: ")
    assert word in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


BAD_OPTIONS = [
    (("--early-date", "2020", "--late-date", "1985"), "is not after 2020-07-01"),
    (("--early-date", "2020"), "Give both, or years"),
    (("--early-date", "1985", "--late-date", "2020", "--years", "35"), "the one or the other"),
    (("--early-date", "yesterday", "--late-date", "2020"), "is no date"),
    (("--years", "-3"), "years"),
    (("--register", "12"), "neither none, auto nor two lengths"),
    (("--register", "nan,2"), "register"),
    (("--figure", "change.txt"), "does not end like a picture"),
]


@pytest.mark.parametrize(("options", "word"), BAD_OPTIONS, ids=[" ".join(options) for options, _ in BAD_OPTIONS])
def test_bad_options_are_refused(options, word, dates, tmp_path, capsys):
    code, _, error = run(capsys, *dates, "--out", tmp_path / "change.gpkg", *options)
    assert code == 2
    assert word in error
    assert not (tmp_path / "change.gpkg").exists()


@pytest.mark.parametrize("name", ["--out", "--figure", "--report"])
def test_outputs_that_exist_are_not_touched(name, dates, tmp_path, capsys):
    paths = {"--out": tmp_path / "c.gpkg", "--figure": tmp_path / "c.png", "--report": tmp_path / "c.json"}
    paths[name].write_text("mine")
    given = [word for pair in paths.items() for word in pair]
    code, _, error = run(capsys, *dates, *given)
    assert code == 2
    assert "--overwrite" in error
    assert paths[name].read_text() == "mine"
    assert [path for path in paths.values() if path.exists()] == [paths[name]]


def test_outputs_that_exist_are_replaced_on_request(dates, tmp_path, capsys):
    paths = {"--out": tmp_path / "c.gpkg", "--figure": tmp_path / "c.svg", "--report": tmp_path / "c.json"}
    for path in paths.values():
        path.write_text("mine")
    code, _, _ = run(capsys, *dates, *[word for pair in paths.items() for word in pair], "--overwrite")
    assert code == 0
    assert "<svg" in paths["--figure"].read_text()
    assert gpd.read_file(paths["--out"], layer="stable").crs == "EPSG:32632"
    assert json.loads(paths["--report"].read_text())["years"] is None


def test_the_file_is_no_geopackage(dates, tmp_path, capsys):
    code, _, error = run(capsys, *dates, "--out", tmp_path / "change.geojson")
    assert code == 2
    assert "several layers" in error
