"""Vector files of several layers: which one is read where none is named, and what is said of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window

from geosam.coarse.given import VectorMask
from geosam.datasets.polygons import polygons_on
from geosam.errors import OptionsError
from geosam.evaluate.layers import VectorFile, open_file
from geosam.options import RiverOptions, SceneOptions
from geosam.plot.layers import _read_vector as read_for_plot
from geosam.rivers import river_products
from geosam.rivers.source import read_drawn
from geosam.scene import Scene
from geosam.scene.vectors import ANY, layer_of, read_vector
from geosam.viewer import table

CRS = "EPSG:32632"
WEST, NORTH, SIDE = 500_000.0, 5_000_000.0, 64
HALF = shapely.box(WEST, NORTH - SIDE, WEST + SIDE / 2, NORTH)
LINE = shapely.LineString([(WEST, NORTH), (WEST + 9, NORTH - 9)])
CORNER = shapely.box(WEST, NORTH - 8, WEST + 8, NORTH)


def package(path: Path, **layers: Any) -> Path:
    """A GeoPackage of layers by name, in order; a frame without geometry as a table."""
    for name, found in layers.items():
        frame = found if isinstance(found, pd.DataFrame) else gpd.GeoDataFrame(geometry=[found], crs=CRS)
        pyogrio.write_dataframe(frame, path, layer=name, driver="GPKG", append=path.exists())
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """What geosam itself writes: lines before the polygons, and the styles that QGIS shows them in."""
    styles = pd.DataFrame({"f_table_name": ["water"], "styleQML": ["<qgis/>"]})
    return package(tmp_path / "own.gpkg", layer_styles=styles, centrelines=LINE, water=HALF)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    grid = {"crs": CRS, "transform": Affine(1, 0, WEST, 0, -1, NORTH), "width": SIDE, "height": SIDE}
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", count=3, dtype="uint8", **grid) as file:
        file.write(np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE), dtype=np.uint8))
    return Scene.open(str(tmp_path / "s.tif"))


def test_every_verb_reads_the_polygons_of_a_file_of_several_layers(own, scene, tmp_path, caplog):
    """Without a word and without a warning, which the tests take for an error."""
    window = Window(0, 0, SIDE, SIDE)
    wet = np.arange(SIDE) < SIDE / 2
    aoi = Scene.open(str(tmp_path / "s.tif"), options=SceneOptions(aoi=str(own)))
    assert aoi.shape == (SIDE, SIDE // 2)
    assert (VectorMask.of(own, scene).classify(scene, window, 0.5) == wet).all()
    assert shapely.union_all(polygons_on(scene.geobox, own)).equals(shapely.box(0, 0, SIDE // 2, SIDE))
    reference = open_file(own)
    assert isinstance(reference, VectorFile)
    with reference.on(scene.geobox, 0.5) as layer:
        assert (layer.read(window).water == wet).all()
    assert shapely.area(read_drawn(own).polygons).sum() == HALF.area
    assert table.read_table("RIVERS", own, scene).geometry.area.tolist() == [HALF.area]
    assert caplog.text == ""


def test_a_network_of_geosam_is_read_back_by_every_verb(scene, tmp_path, caplog):
    water = gpd.GeoDataFrame(geometry=[HALF], crs=CRS)
    river_products(water, RiverOptions(gsd_m=1.0), out=tmp_path / "network.gpkg")
    for found in (
        read_vector(tmp_path / "network.gpkg"),
        read_for_plot(tmp_path / "network.gpkg"),
        table.read_table("RIVERS", tmp_path / "network.gpkg", scene),
    ):
        assert found.geometry.area.sum() == pytest.approx(HALF.area)
    assert caplog.text == ""


def test_of_several_layers_of_polygons_one_line_says_which_is_read(tmp_path, caplog):
    path = package(tmp_path / "change.gpkg", lines=LINE, eroded=CORNER, stable=HALF)
    assert read_vector(path).geometry.iloc[0].equals(CORNER)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"geosam: {path} has the layers eroded, stable, and eroded is read. "
        "To have another, save it in a file of its own."
    )


def test_the_layer_called_water_goes_before_the_first(tmp_path, caplog):
    path = package(tmp_path / "queue.gpkg", scenes=CORNER, water=HALF)
    assert read_vector(path).geometry.iloc[0].equals(HALF)
    assert caplog.text == ""
    assert layer_of(path, named=None) == "scenes"  # an area of interest may be any of them
    assert "scenes, water, and scenes is read" in caplog.text


def test_a_picture_takes_the_first_layer_with_any_geometry(tmp_path):
    path = package(tmp_path / "p.gpkg", table=pd.DataFrame({"a": [1]}), lines=LINE, polygons=HALF)
    assert layer_of(path, ANY) == "lines"
    assert layer_of(path) == "polygons"
    assert read_for_plot(path).geometry.iloc[0].equals(LINE)


def test_where_no_layer_has_polygons_the_first_is_read_so_that_the_verb_can_say_what_it_holds(tmp_path):
    path = package(tmp_path / "p.gpkg", one=LINE, other=LINE)
    assert layer_of(path) == "one"
    assert layer_of(tmp_path / "none.gpkg") is None


@pytest.mark.parametrize("column", ["geometry", "geom"])
def test_geoparquet_is_a_vector_file_for_every_verb(column, scene, tmp_path):
    gpd.GeoDataFrame({column: [HALF]}, geometry=column, crs=CRS).to_parquet(tmp_path / "w.parquet")
    assert Scene.open(scene.source, options=SceneOptions(aoi=str(tmp_path / "w.parquet"))).shape == (SIDE, SIDE // 2)
    assert len(polygons_on(scene.geobox, tmp_path / "w.parquet")) == 1
    assert len(VectorMask.of(tmp_path / "w.parquet", scene).polygons) == 1
    assert isinstance(open_file(tmp_path / "w.parquet"), VectorFile)


def test_a_plain_table_is_no_mask(scene, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OptionsError, match="holds no geometry"):
        VectorMask.of(tmp_path / "t.csv", scene)
