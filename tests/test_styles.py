"""Styles for QGIS: what a file of one says, and that every verb that writes a layer leaves one."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geosam.cli import main
from geosam.vector.shades import PROBABILITY, Palette, Shades
from geosam.vector.style import POINTS, WATER, Ranges, Symbol, qml, style_path, write_style


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.split("\n", 1)[1])


def renderer_of(path: Path, kind: str = "raster") -> ElementTree.Element:
    found = parsed(path.read_text()).find("pipe/rasterrenderer" if kind == "raster" else "renderer-v2")
    assert found is not None
    return found


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return int(stop.value.code or 0)


# The file -------------------------------------------------------------------------------------------------------------


def test_a_probability_has_shades_from_its_least_to_its_most() -> None:
    renderer = parsed(qml(Shades(((0.0, (255, 0, 16, 0)), (0.5, (1, 2, 3, 128)), (2.0, (0, 0, 255, 255)))))).find(
        "pipe/rasterrenderer"
    )
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("singlebandpseudocolor", "1")
    assert (renderer.get("classificationMin"), renderer.get("classificationMax")) == ("0", "2")
    shader = renderer.find("rastershader/colorrampshader")
    assert shader is not None
    assert shader.get("colorRampType") == "INTERPOLATED"
    items = [(item.get("value"), item.get("color"), item.get("alpha")) for item in shader.findall("item")]
    assert items == [("0", "#ff0010", "0"), ("0.5", "#010203", "128"), ("2", "#0000ff", "255")]


def test_a_mask_has_a_colour_for_water_and_none_for_land() -> None:
    root = parsed(qml(Palette({1: ("water & ice", (0, 16, 255, 140))})))
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"
    [entry] = renderer.findall("colorPalette/paletteEntry")
    assert entry.attrib == {"value": "1", "label": "water & ice", "color": "#0010ff", "alpha": "140"}
    assert root.find("renderer-v2") is None
    assert root.find("layerGeometryType") is None  # It is that of a vector layer.


def test_ranges_hold_the_least_and_the_most_value_to_the_last_digit() -> None:
    least, middle, most = 11.123456789, 12.0, 1e7 / 3
    symbols = {(least, middle): Symbol("fill", (1, 2, 3, 255)), (middle, most): Symbol("fill", (9, 8, 7, 255))}
    renderer = parsed(qml(Ranges("thermal_mean", symbols))).find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", "thermal_mean")
    ranges = renderer.findall("ranges/range")
    assert [(float(one.get("lower", "")), float(one.get("upper", ""))) for one in ranges] == list(symbols)
    assert ranges[0].get("label") == "11.12 to 12"
    drawn = {one.get("name") for one in renderer.findall("symbols/symbol")}
    assert {one.get("symbol") for one in ranges} == drawn == {"0", "1"}


def test_files_of_one_name_share_a_style_that_holds_both(tmp_path: Path) -> None:
    written = write_style(tmp_path / "rivers.tif", WATER, PROBABILITY)
    assert written == tmp_path / "rivers.qml" == style_path(tmp_path / "rivers.geojson")
    assert renderer_of(written).get("type") == "singlebandpseudocolor"
    assert renderer_of(written, "vector").get("type") == "singleSymbol"


# The verbs ------------------------------------------------------------------------------------------------------------


def test_rasters_of_a_run_get_a_style_each(river_tif: Path, tiny_weights: Path, tmp_path: Path) -> None:
    words = ["segment", river_tif, "--model", tiny_weights, "--out", tmp_path / "rivers.geojson"]
    outputs = ["--probability", tmp_path / "p.tif", "--mask", tmp_path / "rivers.tif"]
    assert run(*words, *outputs) == 0
    assert {path.name for path in tmp_path.glob("*.qml")} == {"rivers.qml", "p.qml"}
    assert renderer_of(tmp_path / "p.qml").get("type") == "singlebandpseudocolor"
    assert renderer_of(tmp_path / "rivers.qml").get("type") == "paletted"
    assert renderer_of(tmp_path / "rivers.qml", "vector").get("type") == "singleSymbol"
    for path in tmp_path.glob("*.qml"):
        path.unlink()
    assert run(*words, *outputs, "--overwrite", "--no-style") == 0
    assert not list(tmp_path.glob("*.qml"))


def test_of_many_scenes_in_one_file_each_raster_gets_a_style(
    river_tif: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second.tif"
    second.write_bytes(river_tif.read_bytes())
    words = ["--model", tiny_weights, "--out", tmp_path / "all.geojson", "--probability", tmp_path / "p"]
    assert run("segment", river_tif, second, *words) == 0
    assert {path.name for path in tmp_path.rglob("*.qml")} == {"all.qml", "river.qml", "second.qml"}
    assert not (tmp_path / "second.qml").exists()  # An ortho that is not ours is left alone.


def test_a_coarse_mask_gets_a_style(river_tif: Path, tmp_path: Path) -> None:
    assert run("coarse", river_tif, "--out", tmp_path / "m.tif") == 0
    assert renderer_of(tmp_path / "m.qml").get("type") == "paletted"
    assert run("coarse", river_tif, "--out", tmp_path / "n.tif", "--no-style") == 0
    assert not (tmp_path / "n.qml").exists()


def test_the_mask_of_a_network_gets_a_style_if_there_is_one(tmp_path: Path) -> None:
    for name, wet in (("river", slice(40, 50)), ("dry", slice(0, 0))):
        mask = np.zeros((90, 300), np.uint8)
        mask[wet] = 1
        profile = {"driver": "GTiff", "count": 1, "height": 90, "width": 300, "dtype": "uint8", "crs": "EPSG:32632"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", transform=from_origin(5e5, 5e6, 2, 2), **profile) as raster:
            raster.write(mask, 1)
        out = ["--out", tmp_path / f"{name}.gpkg", "--mask", tmp_path / f"{name}_largest.tif"]
        assert run("rivers", tmp_path / f"{name}.tif", *out) == 0
    assert [path.name for path in tmp_path.glob("*.qml")] == ["river_largest.qml"]
    assert renderer_of(tmp_path / "river_largest.qml").get("type") == "paletted"


@pytest.mark.parametrize("name", ["p.geojson", "p.gpkg"])
def test_points_have_the_colour_of_their_label(name: str, river_tif: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    words = ["prompts", river_tif, "--model", tiny_weights, "--out", out]
    assert run(*words) == 0
    renderer = renderer_of(tmp_path / "p.qml", "vector")
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "label")
    assert {one.get("value") for one in renderer.findall("categories/category")} == set(POINTS.symbols)
    (tmp_path / "p.qml").unlink()
    assert run(*words, "--overwrite", "--no-style") == 0
    assert not (tmp_path / "p.qml").exists()
