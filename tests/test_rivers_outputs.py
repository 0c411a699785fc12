"""``geosam rivers``: the files it writes, the mask for river tools, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from scipy import ndimage
from test_rivers import NORTH, PX, WEST, course, ribbon, water

from geosam.cli import main
from geosam.errors import OptionsError, OutputError, SceneError
from geosam.plot.layers import shapes
from geosam.plot.sheet import sheet
from geosam.rivers import mask as mask_room
from geosam.rivers import products as products_room
from geosam.rivers import river_products
from geosam.rivers.styles import STYLES
from geosam.vector.style import Categories

LAYERS = {"water", "centrelines", "widths", "reaches", "islands", "bridges"}


@pytest.fixture(scope="module")
def rivers():
    """A river with an island, a pond, and a second, shorter river."""
    xy, _ = course(0.8, 260.0)
    island = shapely.affinity.scale(shapely.Point(xy[1040]).buffer(1), 24, 6)
    return water(ribbon(xy, 16.0).difference(island), shapely.Point(100, 520).buffer(30), shapely.box(-5, 40, 300, 50))


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["rivers", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


def test_the_verb_writes_every_layer_a_mask_and_a_report(rivers, tmp_path, capsys):
    rivers.to_file(tmp_path / "rivers.gpkg")
    out, mask, report = (tmp_path / name for name in ("network.gpkg", "mask.tif", "r.json"))
    code, text, _ = run(
        capsys,
        tmp_path / "rivers.gpkg",
        "--out",
        out,
        "--mask",
        mask,
        "--report",
        report,
        "--every",
        20,
        "--reach",
        400,
    )
    assert code == 0
    assert "2 rivers, 1 pond" in text
    assert {name for name, kind in pyogrio.list_layers(out) if kind} == LAYERS
    layers = {name: gpd.read_file(out, layer=name) for name in LAYERS}
    assert all(layer.crs == "EPSG:32632" for layer in layers.values())
    found = json.loads(report.read_text())
    assert found["reaches"] == len(layers["reaches"]) > 2
    assert found["options"]["every_m"] == 20
    assert set(layers["widths"]["water"]) == set(layers["water"][layers["water"]["kind"] == "river"]["id"])
    assert layers["centrelines"].geom_type.unique().tolist() == ["LineString"]
    assert layers["water"]["network_m"].dropna().is_monotonic_decreasing


def test_a_geojson_in_degrees_gives_metres(rivers, tmp_path, capsys):
    from geosam.vector import write_rivers

    write_rivers(rivers, tmp_path / "rivers.geojson")
    code, _, _ = run(capsys, tmp_path / "rivers.geojson", "--out", tmp_path / "n.gpkg", "--mask", tmp_path / "m.tif")
    assert code == 0
    widths = gpd.read_file(tmp_path / "n.gpkg", layer="widths")
    assert widths.crs == "EPSG:4326"
    assert widths[widths["line"] == 1]["total_m"].median() == pytest.approx(32 * PX, rel=0.03)
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert mask.crs.is_projected
        assert mask.res == pytest.approx((PX, PX))


def components(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize("strip_px", [1, 10**9])
def test_the_mask_is_one_component_as_river_tools_take_it(strip_px, rivers, tmp_path, monkeypatch):
    monkeypatch.setattr(mask_room, "STRIP_PX", strip_px)
    products = river_products(rivers, mask=tmp_path / "mask.tif")
    with rasterio.open(tmp_path / "mask.tif") as raster:
        mask = raster.read(1)
        assert (raster.count, raster.dtypes[0], raster.nodata, raster.crs.to_epsg()) == (1, "uint8", None, 32632)
        largest = products.layers.water.iloc[0]
        assert raster.transform.a == PX
        assert (raster.bounds.left - WEST) % PX == (NORTH - raster.bounds.top) % PX == 0
    assert set(np.unique(mask)) == {0, 1}
    assert components(mask) == 1
    assert components(1 - np.pad(mask, 1)) >= 2, "the island is dry"
    assert mask.sum() * PX**2 == pytest.approx(largest["area_m2"], rel=1e-3)
    assert products.report["mask_pixels"] == mask.sum()


def test_a_polygon_that_falls_apart_on_the_grid_leaves_its_largest_part(tmp_path):
    neck = shapely.union_all([shapely.box(0, 0, 30, 10), shapely.box(30, 4.6, 60, 4.7), shapely.box(60, 0, 100, 10)])
    grid = mask_room.mask_grid(neck, None, 1.0)
    count = mask_room.write_mask(neck, grid, tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as raster:
        mask = raster.read(1)
    assert count == mask.sum() == 400
    assert components(mask) == 1


def save_mask(path, shape=(300, 400), crs="EPSG:32632", **profile):
    mask = np.zeros(shape, np.uint8)
    mask[100:120] = 1
    mask[100:105, 200:220] = 0
    mask[200:220, 50:70] = 1
    transform = Affine(PX, 0, WEST, 0, -PX, NORTH)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="uint8", crs=crs,
        transform=transform, **profile,
    ) as raster:  # fmt: skip
        raster.write(mask, 1)
    return mask


def test_a_mask_raster_is_water_too_and_keeps_its_grid(tmp_path, capsys):
    mask = save_mask(tmp_path / "mask.tif")
    code, _, _ = run(capsys, tmp_path / "mask.tif", "--out", tmp_path / "n.gpkg", "--mask", tmp_path / "m.tif")
    assert code == 0
    with rasterio.open(tmp_path / "m.tif") as raster:
        assert raster.shape == mask.shape
        assert raster.transform == Affine(PX, 0, WEST, 0, -PX, NORTH)
        assert np.array_equal(raster.read(1), np.where(np.arange(300)[:, None] < 150, mask, 0))
    lines = gpd.read_file(tmp_path / "n.gpkg", layer="centrelines")
    assert lines["length_m"].tolist() == pytest.approx([400 * PX], rel=0.01)
    assert gpd.read_file(tmp_path / "n.gpkg", layer="widths")["width_m"].median() == pytest.approx(20 * PX, abs=0.1)


def test_a_file_of_several_layers_is_read_without_a_word(rivers, tmp_path):
    """Of a network the water, whose layer is the first; geopandas would warn of the styles and of the others."""
    first = river_products(rivers, out=tmp_path / "n.gpkg")
    again = river_products(tmp_path / "n.gpkg")
    assert again.report["polygons"] == len(first.layers.water)
    ground = sheet("", [first.layers.water])
    assert len(shapes(ground, tmp_path / "n.gpkg")) == len(first.layers.water)


def test_qgis_finds_a_style_for_every_layer(rivers, tmp_path):
    """In the table that it looks into, by the name of the layer and of its column of geometries."""
    out = tmp_path / "n.gpkg"
    river_products(rivers, out=out)
    styles = pyogrio.read_dataframe(out, layer="layer_styles")
    assert styles["useAsDefault"].all()
    assert styles["f_table_name"].tolist() == list(STYLES)
    assert set(styles["f_table_name"]) == LAYERS
    with sqlite3.connect(out) as database:
        columns = dict(database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns"))
        [kind] = database.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'").fetchone()
    database.close()
    assert kind == "attributes"  # else QGIS does not see the table
    for name, column, text in zip(styles["f_table_name"], styles["f_geometry_column"], styles["styleQML"], strict=True):
        assert columns[name] == column
        kinds = {symbol.get("type") for symbol in ElementTree.fromstring(text.split("\n", 1)[1]).iter("symbol")}
        assert kinds == {"line" if name in ("centrelines", "widths", "reaches") else "fill"}
    values = {name: set(style.symbols) for name, style in STYLES.items() if isinstance(style, Categories)}
    assert values == {"water": {"river", "lake", "pond"}, "centrelines": {"main", "channel", "branch"}}


def test_no_water_gives_empty_layers_and_no_mask(tmp_path, capsys):
    gpd.GeoDataFrame({"id": []}, geometry=[], crs="EPSG:32632").to_file(tmp_path / "none.gpkg", engine="pyogrio")
    code, out, _ = run(capsys, tmp_path / "none.gpkg", "--out", tmp_path / "n.gpkg", "--mask", tmp_path / "m.tif")
    assert code == 0
    assert "no water" in out
    assert {name for name, kind in pyogrio.list_layers(tmp_path / "n.gpkg") if kind} == LAYERS
    assert all(len(gpd.read_file(tmp_path / "n.gpkg", layer=name)) == 0 for name in LAYERS)
    assert not (tmp_path / "m.tif").exists()


def lines_file(folder):
    path = folder / "lines.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="EPSG:32632").to_file(path)
    return path


def text_file(folder):
    (folder / "text.geojson").write_text("no map")
    return folder / "text.geojson"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda folder: folder / "none.gpkg", "does not exist"),
        (lines_file, "holds no polygon"),
        (text_file, "neither a raster nor a vector file"),
    ],
)
def test_what_is_no_water_is_refused_in_one_line(made, message, tmp_path, capsys):
    code, _, err = run(capsys, made(tmp_path), "--out", tmp_path / "n.gpkg")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "n.gpkg").exists()
    with pytest.raises(SceneError, match=message):
        river_products(made(tmp_path))


def crossed(folder):
    """A canal, and a shape that crosses itself."""
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    shapes = [
        shapely.affinity.translate(bow, WEST, NORTH - 900),
        shapely.box(WEST, NORTH - 500, WEST + 900, NORTH - 480),
    ]
    gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32632").to_file(folder / "crossed.gpkg")
    return folder / "crossed.gpkg"


def without_crs(folder):
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 900, 20)], crs=None).to_file(folder / "bare.shp")
    return folder / "bare.shp"


def lake(folder):
    water(shapely.Point(300, 300).buffer(60)).to_file(folder / "lake.gpkg")
    return folder / "lake.gpkg"


def specks(folder):
    water(shapely.box(10, 10, 12, 12), shapely.box(20, 20, 23, 22)).to_file(folder / "specks.gpkg")
    return folder / "specks.gpkg"


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize(
    ("made", "notice", "more", "rivers"),
    [
        (crossed, "1 shapes crossed themselves and were mended", (), 1),
        (
            without_crs,
            "bare.shp has no CRS, so lengths and areas are in units of its coordinates",
            (),
            1,
        ),
        (lake, "there is no river, only lakes or ponds", (), 0),
        (specks, "all 2 water bodies are smaller than", ("--gsd", PX), 0),
    ],
)
def test_what_is_odd_about_the_water_is_one_line_and_the_products_are_written(
    made, notice, more, rivers, tmp_path, capsys
):
    out, report = tmp_path / "n.gpkg", tmp_path / "r.json"
    code, _, err = run(capsys, made(tmp_path), "--out", out, "--report", report, *more)
    assert code == 0
    assert len(err.strip().splitlines()) == 1
    assert notice in err
    assert json.loads(report.read_text())["bodies"]["river"] == rivers
    assert out.exists()


@pytest.mark.parametrize("share", [0.5, 0.65])
def test_a_mask_of_noise_is_refused_in_one_line(share, tmp_path, capsys):
    noise = np.random.default_rng(0).random((300, 300)) < share
    with rasterio.open(
        tmp_path / "noise.tif", "w", driver="GTiff", width=300, height=300, count=1, dtype="uint8", crs="EPSG:32632",
        transform=Affine(PX, 0, WEST, 0, -PX, NORTH),
    ) as file:  # fmt: skip
        file.write(noise.astype(np.uint8), 1)
    code, _, err = run(capsys, tmp_path / "noise.tif", "--out", tmp_path / "n.gpkg")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "looks like noise" in err
    assert not (tmp_path / "n.gpkg").exists()


def test_outputs_are_refused_before_any_work(rivers, tmp_path, capsys):
    (tmp_path / "n.gpkg").write_text("mine")
    rivers.to_file(tmp_path / "rivers.gpkg")
    code, _, err = run(capsys, tmp_path / "rivers.gpkg", "--out", tmp_path / "n.gpkg")
    assert (code, "--overwrite" in err) == (2, True)
    assert (tmp_path / "n.gpkg").read_text() == "mine"
    with pytest.raises(OptionsError, match=r"\.gpkg"):
        river_products(rivers, out=tmp_path / "n.geojson")
    with pytest.raises(OutputError, match="folder"):
        river_products(rivers, out=tmp_path / "nowhere" / "n.gpkg")
    code, _, err = run(capsys, tmp_path / "rivers.gpkg", "--out", tmp_path / "o.gpkg", "--bridge", -3)
    assert (code, "bridge_m" in err) == (2, True)


def test_a_failed_write_leaves_what_was_there(rivers, tmp_path, monkeypatch):
    (tmp_path / "n.gpkg").write_text("mine")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(products_room.pyogrio, "write_dataframe", full)
    with pytest.raises(OutputError, match="disk is full"):
        river_products(rivers, out=tmp_path / "n.gpkg", overwrite=True)
    assert (tmp_path / "n.gpkg").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["n.gpkg"]


def test_overwrite_replaces_the_file(rivers, tmp_path):
    for _ in range(2):
        river_products(rivers, out=tmp_path / "n.gpkg", overwrite=True)
    assert len(gpd.read_file(tmp_path / "n.gpkg", layer="water")) == 3
