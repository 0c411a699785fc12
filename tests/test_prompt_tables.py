"""A person's prompts in tables of numbers: which columns are places, and in which CRS they are."""

import geopandas as gpd
import numpy as np
import pytest

from geosam.cli import main
from geosam.errors import OptionsError
from geosam.options import PromptOptions
from geosam.prompts.opening import read_given
from geosam.scene import Scene

XY = np.array([(70.5, 20.25), (150.5, 100.5), (61.0, 140.0)])
EAST, NORTH = 450_000 + 2 * XY[:, 0], 5_300_000 - 2 * XY[:, 1]
LABELS = ["water", "dry", "1"]


def table(path, names, x, y, separator=","):
    rows = [separator.join(str(value) for value in (*names, "label"))]
    rows += [separator.join([repr(float(a)), repr(float(b)), label]) for a, b, label in zip(x, y, LABELS, strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def found(scene, path, **more):
    return read_given(PromptOptions(points_file=path, **more), Scene.open(scene))


def degrees():
    places = gpd.GeoSeries(gpd.points_from_xy(EAST, NORTH), crs="EPSG:32610").to_crs("EPSG:4326")
    return places.x, places.y


@pytest.mark.parametrize(
    ("names", "separator"), [(("x", "y"), ","), (("X", "Y"), ";"), (("easting", "northing"), "\t")]
)
def test_x_and_y_are_in_the_crs_of_the_scene(names, separator, river_tif, tmp_path):
    made = found(river_tif, table(tmp_path / "clicks.csv", names, EAST, NORTH, separator))
    assert np.array_equal(made.points, XY)
    assert made.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("names", [("lon", "lat"), ("Longitude", "Latitude")])
def test_lon_and_lat_are_degrees(names, river_tif, tmp_path):
    made = found(river_tif, table(tmp_path / "clicks.csv", names, *degrees()))
    assert np.array_equal(made.points, XY)


def test_a_prj_beside_the_table_says_its_crs(river_tif, tmp_path):
    places = gpd.GeoSeries(gpd.points_from_xy(EAST, NORTH), crs="EPSG:32610").to_crs("EPSG:3857")
    path = table(tmp_path / "clicks.csv", ("x", "y"), places.x, places.y)
    (tmp_path / "clicks.prj").write_text(places.crs.to_wkt("WKT1_ESRI"))
    assert np.array_equal(found(river_tif, path).points, XY)


def test_well_known_text_is_in_the_crs_of_the_scene(river_tif, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        'WKT\n"POLYGON ((450120 5299900, 450160 5299900, 450160 5299800, 450120 5299800, 450120 5299900))"\n'
    )
    made = read_given(PromptOptions(boxes_file=str(path)), Scene.open(river_tif))
    assert made.boxes.tolist() == [[60, 50, 80, 100]]


def test_degrees_called_x_and_y_are_told_what_to_be_called(river_tif, tmp_path):
    with pytest.raises(OptionsError, match=r"no prompt lies in .* called lon and lat are degrees, x and y"):
        found(river_tif, table(tmp_path / "clicks.csv", ("x", "y"), *degrees()))


def test_metres_called_lon_and_lat_are_told_what_to_be_called(river_tif, tmp_path):
    with pytest.raises(OptionsError, match=r"no prompt lies in .* x and y are in the CRS of the scene"):
        found(river_tif, table(tmp_path / "clicks.csv", ("lon", "lat"), EAST, NORTH))


def test_blank_rows_of_a_spreadsheet_are_no_prompts(river_tif, tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("x,y,label\n450140,5299900,water\n,,\n,,\n")
    assert found(river_tif, str(path)).labels.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,label\n1,2,water\n", "holds no geometry. Name its columns lon and lat, or x and y"),
        ("x,y,label\n", "holds no feature"),
        ("", "is not a vector file that can be read"),
        ("x,y,label\n450140,5299900,wet\n", "feature 1 has the label 'wet'"),
        ("x,y,label\n450140,5299900,water\nabc,5299900,dry\n", "feature 2 has no place that can be read (1 of 2 rows)"),
        ("x,y,label\n450140,5299900,water\n,,dry\n", "feature 2 has no place that can be read (1 of 2 rows)"),
    ],
)
def test_a_bad_table_is_one_line_and_exit_2(text, words, river_tif, tmp_path, capfd):
    path = tmp_path / "clicks.csv"
    path.write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["segment", str(river_tif), "--points", str(path), "--out", str(tmp_path / "out.gpkg")])
    said = capfd.readouterr().err
    assert stop.value.code == 2
    assert words in said
    assert said.count("\n") == 1
    assert "It might help" not in said
    assert not (tmp_path / "out.gpkg").exists()


def test_a_mask_that_is_not_there_may_have_been_a_raster(river_tif, tmp_path):
    with pytest.raises(OptionsError, match=r"nowhere\.tif does not exist\. Give a raster, or a vector file"):
        read_given(PromptOptions(mask_file=str(tmp_path / "nowhere.tif")), Scene.open(river_tif))
