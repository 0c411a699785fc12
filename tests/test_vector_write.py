"""Files are judged by readers that are not ours: geojson-pydantic, pyogrio, geopandas."""

from __future__ import annotations

import errno
import json
import resource

import geopandas as gpd
import geopandas.testing
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from geojson_pydantic import FeatureCollection
from odc.geo.geobox import GeoBox

from geosam.errors import OptionsError, OutputError
from geosam.vector import check_output, polygonize, write_rivers
from geosam.vector import write as write_room

SUFFIXES = (".geojson", ".gpkg", ".fgb", ".parquet")
UTM = "EPSG:32632"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def rivers_on(affine=NORTH_UP, crs=UTM, shape=(40, 30), seed=0):
    rng = np.random.default_rng(seed)
    water = rng.random(shape) < 0.6
    water[10:20, 5:25], water[13:17, 9:15] = True, False
    probability = rng.random(shape, dtype=np.float32)
    return polygonize([(0, water, probability)], GeoBox(shape, affine, crs), scene="Ombla", model="river-tiny")


def no_rivers():
    return polygonize([(0, np.zeros((4, 4), bool), None)], GeoBox((4, 4), Affine(10, 0, 5e5, 0, -10, 5e6), UTM))


def read(path):
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


def features(path):
    """The features of a file that geojson-pydantic accepts, with all positions on the globe and no crs member."""
    text = path.read_text(encoding="utf-8")
    collection = FeatureCollection.model_validate_json(text)
    assert "crs" not in json.loads(text)
    return collection.features


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_other_formats_come_back_as_they_went(suffix, tmp_path):
    rivers = rivers_on()
    write_rivers(rivers, tmp_path / f"rivers{suffix}")
    back = read(tmp_path / f"rivers{suffix}").sort_values("id", ignore_index=True)
    geopandas.testing.assert_geodataframe_equal(back, rivers, check_dtype=False)
    assert back.crs == rivers.crs


def test_geojson_holds_the_same_bodies_in_lon_lat(tmp_path):
    rivers = rivers_on()
    write_rivers(rivers, tmp_path / "rivers.geojson")
    back = gpd.read_file(tmp_path / "rivers.geojson")
    assert back.crs == "EPSG:4326"
    assert list(back.drop(columns="geometry")) == list(rivers.drop(columns="geometry"))
    astray = shapely.hausdorff_distance(back.to_crs(UTM).geometry.to_numpy(), rivers.geometry.to_numpy())
    assert astray.max() < 0.02


def winding(ring):
    """Twice the signed area: positive for counter-clockwise."""
    x, y = np.array([(position[0], position[1]) for position in ring]).T
    x, y = x - x[0], y - y[0]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))


@pytest.mark.parametrize(
    ("affine", "crs"),
    [
        (NORTH_UP, UTM),
        (Affine(10, 0, 500_000, 0, 10, 5_000_000), UTM),
        (Affine(1e-4, 0, 8, 0, -1e-4, 45), "EPSG:4326"),
        (Affine(3, 0, 950_000, 0, -3, 200_000), "EPSG:2263"),
    ],
)
def test_geojson_obeys_rfc_7946(affine, crs, tmp_path):
    write_rivers(rivers_on(affine, crs), tmp_path / "rivers.geojson")
    found = features(tmp_path / "rivers.geojson")
    assert found
    for feature in found:
        assert feature.geometry.type == "Polygon"
        outer, *holes = feature.geometry.coordinates
        assert winding(outer) > 0
        assert all(winding(hole) < 0 for hole in holes)
        assert all(abs(p[0]) <= 180 and abs(p[1]) <= 90 for p in outer)
        assert all(number == round(number, 7) for position in outer for number in position)
        assert shapely.geometry.shape(feature.geometry.model_dump()).is_valid


def test_islands_are_holes_in_every_format(tmp_path):
    water = np.ones((9, 9), bool)
    water[3:6, 3:6] = False
    rivers = polygonize([(0, water, None)], GeoBox((9, 9), Affine(10, 0, 5e5, 0, -10, 5e6), UTM))
    for suffix in SUFFIXES:
        write_rivers(rivers, tmp_path / f"r{suffix}")
        assert len(read(tmp_path / f"r{suffix}").geometry[0].interiors) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_water_is_an_empty_valid_file_with_the_columns(suffix, tmp_path):
    path = tmp_path / f"rivers{suffix}"
    write_rivers(no_rivers(), path)
    back = read(path)
    assert len(back) == 0
    if suffix == ".geojson":
        assert features(path) == []
    else:
        assert list(back.columns) == list(no_rivers().columns)
        assert back.crs == UTM


def test_missing_probability_is_null_in_geojson(tmp_path):
    rivers = rivers_on().assign(probability=np.nan)
    write_rivers(rivers, tmp_path / "rivers.geojson")
    assert {feature.properties["probability"] for feature in features(tmp_path / "rivers.geojson")} == {None}


def test_a_body_across_the_antimeridian_is_cut_there(tmp_path):
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True)
    x, y = to_utm.transform(-180.0, -17.0)
    grid = GeoBox((10, 20), Affine(100, 0, x - 1000, 0, -100, y), "EPSG:32601")
    rivers = polygonize([(0, np.ones((10, 20), bool), None)], grid)
    write_rivers(rivers, tmp_path / "rivers.geojson")
    (feature,) = features(tmp_path / "rivers.geojson")
    assert feature.geometry.type == "MultiPolygon"
    back = gpd.read_file(tmp_path / "rivers.geojson")
    assert back.to_crs(6933).area[0] == pytest.approx(rivers["area_m2"][0], rel=1e-4)
    assert back.explode().bounds.eval("maxx - minx").max() < 0.02


def test_pixels_of_millimetres_stay_valid_in_geojson(tmp_path):
    write_rivers(rivers_on(Affine(0.004, 0, 5e5, 0, -0.004, 5e6)), tmp_path / "rivers.geojson")
    assert all(shapely.geometry.shape(f.geometry.model_dump()).is_valid for f in features(tmp_path / "rivers.geojson"))


def test_text_that_json_must_escape_survives(tmp_path):
    rivers = rivers_on().assign(scene='Río "Ñandú"\\1\n')
    write_rivers(rivers, tmp_path / "rivers.geojson")
    assert {f.properties["scene"] for f in features(tmp_path / "rivers.geojson")} == {'Río "Ñandú"\\1\n'}


def test_without_crs_geojson_is_refused_and_the_others_are_written(tmp_path):
    rivers = rivers_on(Affine.identity(), None)
    with pytest.raises(OptionsError, match=r"no CRS.*\.gpkg"):
        write_rivers(rivers, tmp_path / "rivers.geojson")
    for suffix in (".gpkg", ".fgb", ".parquet"):
        write_rivers(rivers, tmp_path / f"r{suffix}")
        assert read(tmp_path / f"r{suffix}").area.sum() == rivers["area_m2"].sum()


# Refusals -------------------------------------------------------------------------------------------------------------


def test_outputs_that_could_not_be_written_are_refused_early(tmp_path):
    (tmp_path / "old.gpkg").write_text("mine")
    (tmp_path / "folder.fgb").mkdir()
    for name, kind, word in (
        ("rivers.shp", OptionsError, "'.shp'"),
        ("rivers", OptionsError, ".geojson"),
        ("missing/rivers.gpkg", OutputError, "does not exist"),
        ("old.gpkg", OutputError, "--overwrite"),
        ("folder.fgb", OutputError, "is a folder"),
    ):
        with pytest.raises(kind, match=word) as refusal:
            check_output(tmp_path / name)
        assert "\n" not in str(refusal.value)
    check_output(tmp_path / "old.gpkg", overwrite=True)
    assert (tmp_path / "old.gpkg").read_text() == "mine"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_overwriting_replaces_the_file(suffix, tmp_path):
    path = tmp_path / f"rivers{suffix}"
    write_rivers(rivers_on(), path)
    with pytest.raises(OutputError, match="--overwrite"):
        write_rivers(no_rivers(), path)
    write_rivers(no_rivers(), path, overwrite=True)
    assert len(read(path)) == 0
    assert list(tmp_path.iterdir()) == [path]


# Whole or not at all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_breaks_off_leaves_the_old_file_and_nothing_else(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"rivers{suffix}"
    path.write_text("old")

    def breaks_off(rivers, part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(write_room._WRITERS, suffix, breaks_off)
    with pytest.raises(OutputError, match="disk is full") as fault:
        write_rivers(rivers_on(), path, overwrite=True)
    assert "\n" not in str(fault.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(rivers, part):
        part.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(write_room._WRITERS, ".gpkg", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_rivers(rivers_on(), tmp_path / "rivers.gpkg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_the_system_cuts_short_is_an_output_error(suffix, tmp_path):
    """The real writers against a real limit: no file may grow beyond 20 kB."""
    rivers = rivers_on(shape=(150, 150))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written") as fault:
            write_rivers(rivers, tmp_path / f"rivers{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(fault.value)
    assert list(tmp_path.iterdir()) == []
