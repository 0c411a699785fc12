"""``geosam segment --products``: the network of the rivers in the same run."""

from __future__ import annotations

import json
import shutil

import geopandas as gpd
import pyogrio
import pytest
from pandas.testing import assert_frame_equal

from geosam.cli import main
from geosam.errors import SceneError


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


@pytest.fixture
def segment(tiny_weights):
    return lambda *args: run("segment", *args, "--model", tiny_weights, "--threshold", 0.3, "--min-area", 0)


def layers(path):
    return {name: gpd.read_file(path, layer=name) for name, kind in pyogrio.list_layers(path) if kind}


def numbers(layer):
    bounds = layer.geometry.bounds
    return layer.drop(columns="geometry").join(bounds)


def test_the_network_is_that_of_the_polygons_written(segment, river_tif, tmp_path):
    rivers, products, report = (tmp_path / name for name in ("rivers.gpkg", "products.gpkg", "r.json"))
    assert segment(river_tif, "--out", rivers, "--products", products, "--report", report) == 0
    assert run("rivers", rivers, "--out", tmp_path / "network.gpkg", "--gsd", 2) == 0
    found, wanted = layers(products), layers(tmp_path / "network.gpkg")
    assert set(found) == set(wanted)
    assert len(found["water"]) > 0
    for name in wanted:
        assert_frame_equal(numbers(found[name]), numbers(wanted[name]), rtol=1e-5)
        assert found[name].crs == wanted[name].crs
    assert json.loads(report.read_text())["seconds"]["products"] > 0


def test_products_that_could_not_be_written_are_refused_before_the_run(segment, river_tif, tmp_path, capsys):
    there = tmp_path / "there.gpkg"
    there.write_text("mine")
    for path, word in (
        (there, "--overwrite"),
        (tmp_path / "products.geojson", "several layers"),
        (tmp_path / "nowhere" / "products.gpkg", "does not exist"),
        (tmp_path / "rivers.gpkg", "same path"),
    ):
        assert segment(river_tif, "--out", tmp_path / "rivers.gpkg", "--products", path) == 2
        assert word in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.gpkg"]
    assert there.read_text() == "mine"
    assert segment(river_tif, "--out", tmp_path / "rivers.gpkg", "--products", there, "--overwrite") == 0
    assert "water" in layers(there)


def test_of_noise_there_are_polygons_and_a_line_that_there_is_no_network(
    segment, river_tif, tmp_path, capsys, monkeypatch
):
    """An hours-long run keeps what it has found."""
    monkeypatch.setattr("geosam.rivers.noise._NOISE_WIDTH_PX", 1e9)
    monkeypatch.setattr("geosam.rivers.noise._NOISE_PX", 1e9)
    rivers, products, report = (tmp_path / name for name in ("rivers.gpkg", "n.gpkg", "r.json"))
    assert segment(river_tif, "--out", rivers, "--products", products, "--report", report) == 1
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert f"{products} was not made, but the polygons were: the water looks like noise" in line
    assert "earlier run" not in line
    assert "water bod" in said.out
    assert len(gpd.read_file(rivers)) > 0
    assert json.loads(report.read_text())["products_unmade"] in line
    assert {path.name for path in tmp_path.iterdir()} == {"rivers.gpkg", "rivers.qml", "r.json"}
    products.write_text("of yesterday")
    assert segment(river_tif, "--out", rivers, "--products", products, "--overwrite") == 1
    assert "is still that of an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["out/", "all.gpkg"])
def test_one_noisy_scene_of_many_does_not_stop_the_others(out, segment, river_tif, tmp_path, capsys, monkeypatch):
    second = tmp_path / "second.tif"
    shutil.copy(river_tif, second)
    refused = []

    def refuse(source):
        refused.append(source)
        if len(refused) == 1:
            raise SceneError("the table looks like noise.")

    monkeypatch.setattr("geosam.rivers.layers.refuse_noise", refuse)
    report = tmp_path / "r.json"
    products = tmp_path / ("products" if out.endswith("/") else "products.gpkg")
    assert segment(river_tif, second, "--out", f"{tmp_path}/{out}", "--products", products, "--report", report) == 1
    assert "was not made, but the polygons were: the water looks like noise." in capsys.readouterr().err
    assert len(json.loads(report.read_text())["products_unmade"]) == 1
    if out.endswith("/"):
        assert [path.name for path in products.iterdir()] == ["second.gpkg"]
        assert {path.name for path in (tmp_path / "out").glob("*.geojson")} == {"river.geojson", "second.geojson"}
    else:
        assert (tmp_path / out).exists()
        assert not products.exists()


def test_of_many_scenes_each_has_its_products_or_all_have_one_file(segment, river_tif, tmp_path, capsys):
    second = tmp_path / "second.tif"
    shutil.copy(river_tif, second)
    folder, products = tmp_path / "out", tmp_path / "products"
    folder.mkdir()
    assert segment(river_tif, second, "--out", folder, "--products", products) == 0
    assert sorted(path.name for path in products.iterdir()) == ["river.gpkg", "second.gpkg"]
    (products / "second.gpkg").unlink()
    assert segment(river_tif, second, "--out", folder, "--products", products) == 2
    assert "river.gpkg exists" in capsys.readouterr().err
    assert segment(river_tif, second, "--out", folder, "--products", products, "--resume") == 0
    assert len(layers(products / "second.gpkg")["water"]) == len(layers(products / "river.gpkg")["water"]) > 0
    both = tmp_path / "both.gpkg"
    assert segment(river_tif, second, "--out", tmp_path / "rivers.gpkg", "--products", both) == 0
    assert "centrelines" in layers(both)
