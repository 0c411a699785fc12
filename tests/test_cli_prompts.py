"""``geosam prompts``: the points of a run as a layer."""

import geopandas as gpd
import numpy as np
import pytest

from geosam.cli import main


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


def test_points_lie_where_their_label_says(river_tif, tiny_weights, tmp_path, capsys):
    out = tmp_path / "prompts.gpkg"
    assert run("prompts", river_tif, "--model", tiny_weights, "--out", out) == 0
    layer = gpd.read_file(out)
    assert set(layer["label"]) == {"water", "dry"}
    inside = (layer.geometry.x > 450_120) & (layer.geometry.x < 450_168)
    assert np.array_equal(inside, layer["label"] == "water")
    assert str(len(layer)) in capsys.readouterr().out


def test_the_same_seed_gives_the_same_points(river_tif, tiny_weights, tmp_path):
    for name in ("a.gpkg", "b.gpkg"):
        assert run("prompts", river_tif, "--model", tiny_weights, "--out", tmp_path / name, "--seed", "5") == 0
    first, again = (gpd.read_file(tmp_path / name) for name in ("a.gpkg", "b.gpkg"))
    assert first.geometry.geom_equals(again.geometry).all()


def test_no_coarse_water_is_an_empty_layer_and_a_word(river_tif, tiny_weights, tmp_path, capsys):
    config = tmp_path / "dry.toml"
    config.write_text('[coarse]\nmethod = "ndwi"\nthreshold = 0.99\n')
    out = tmp_path / "prompts.geojson"
    assert run("prompts", river_tif, "--model", tiny_weights, "--out", out, "--config", config) == 0
    assert "no coarse water" in capsys.readouterr().out
    assert len(gpd.read_file(out)) == 0


def test_an_existing_layer_is_not_touched(river_tif, tiny_weights, tmp_path):
    out = tmp_path / "prompts.geojson"
    out.write_text("precious")
    assert run("prompts", river_tif, "--model", tiny_weights, "--out", out) == 2
    assert out.read_text() == "precious"
