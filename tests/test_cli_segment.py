"""``geosam segment`` as a user meets it: exit codes, one line of error, nothing touched."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geosam.cli import main


def run(*args):
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


@pytest.fixture
def segment(tiny_weights, tmp_path):
    """``geosam segment`` with a tiny model and an output in a fresh folder."""
    return lambda *args: run("segment", *args, "--model", tiny_weights, "--out", tmp_path / "out.geojson")


def raster(path, values, crs="EPSG:32610", nodata=None, **more):
    values = np.asarray(values)
    profile = {"driver": "GTiff", "count": values.shape[0], "height": values.shape[1], "width": values.shape[2]}
    profile |= {"dtype": values.dtype.name, "crs": crs, "nodata": nodata, **more}
    with rasterio.open(path, "w", transform=from_origin(450_000, 5_300_000, 1, 1), **profile) as out:
        out.write(values)
    return path


def noise(bands=3, size=80, dtype=np.uint8):
    return np.random.default_rng(0).integers(1, 200, (bands, size, size)).astype(dtype)


def test_a_good_raster_gives_a_file_and_a_line(segment, river_tif, tmp_path, capsys):
    assert segment(river_tif, "--report", tmp_path / "r.json") == 0
    said = capsys.readouterr()
    assert "out.geojson" in said.out
    assert said.err == ""
    assert json.loads((tmp_path / "r.json").read_text())["tiles"]["total"] > 0


def bad_inputs(folder):
    """Every kind of input that cannot be used, and a word that the message must hold."""
    (folder / "text.tif").write_text("not a raster")
    good = raster(folder / "good.tif", noise(size=300)).read_bytes()
    (folder / "cut.tif").write_bytes(good[: len(good) // 2])
    flat = np.full((3, 80, 80), np.nan, np.float32)
    return {
        "missing": (folder / "nowhere.tif", "nowhere.tif"),
        "not a raster": (folder / "text.tif", "text.tif"),
        "truncated": (folder / "cut.tif", "cut.tif"),
        "one band": (raster(folder / "one.tif", noise(1)), "band"),
        "complex": (raster(folder / "complex.tif", noise(3).astype(np.complex64)), "complex"),
        "no CRS": (raster(folder / "nocrs.tif", noise(3), crs=None), "--allow-no-crs"),
        "all nodata": (raster(folder / "nodata.tif", np.zeros((3, 80, 80), np.uint8), nodata=0), "no pixel with data"),
        "all NaN": (raster(folder / "nan.tif", flat), "no pixel with data"),
        "one pixel": (raster(folder / "pixel.tif", noise(3, 1)), "1 x 1"),
    }


KINDS = ["missing", "not a raster", "truncated", "one band", "complex", "no CRS", "all nodata", "all NaN", "one pixel"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_bad_input_is_one_line_and_exit_2(kind, segment, tmp_path, capfd):
    path, word = bad_inputs(tmp_path)[kind]
    before = sorted(tmp_path.iterdir())
    assert segment(path) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("geosam: ")
    assert word in error
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--bands", "red=1,green=2,blue=9"], "9"),
        (["--bands", "rouge=1"], "rouge"),
        (["--aoi", "nowhere.gpkg"], "nowhere.gpkg"),
        (["--coarse", "magic"], "magic"),
        (["--gsd", "-1"], "--gsd"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--threshold", "7"], "threshold"),
        (["--probability", "nowhere/p.tif"], "nowhere"),
    ],
)
def test_bad_options_are_named_and_exit_2(args, word, segment, river_tif, tmp_path, capfd):
    assert segment(river_tif, *args) == 2
    assert word in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sam-vit-bse", "./nowhere", "someone/nothing-of-this-name"])
def test_an_unknown_model_is_refused(name, river_tif, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run("segment", river_tif, "--model", name, "--out", tmp_path / "o.geojson") == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_not_touched(segment, river_tif, tmp_path, capsys):
    (tmp_path / "out.geojson").write_text("precious")
    assert segment(river_tif) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.geojson").read_text() == "precious"


def test_an_output_folder_that_is_missing_is_named(river_tif, tiny_weights, tmp_path, capsys):
    out = tmp_path / "no" / "where.geojson"
    assert run("segment", river_tif, "--model", tiny_weights, "--out", out) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(segment, river_tif, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geosam.vector.write.os.replace", full)
    assert segment(river_tif) == 2
    assert "space" in capsys.readouterr().err.lower()
    assert not (tmp_path / "out.geojson").exists()


def odd_inputs(folder):
    """Rasters that are odd and must simply work."""
    holes = noise(3, 80, np.float32)
    holes[:, 5:9, 5:9], holes[0, 20, 20] = np.nan, np.inf
    palette = raster(folder / "palette.tif", noise(1) % 4, photometric="palette")
    with rasterio.open(palette, "r+") as out:
        out.write_colormap(1, {0: (9, 9, 9), 1: (200, 0, 0), 2: (0, 200, 0), 3: (0, 0, 200)})
    sixteen = raster(folder / "sixteen.tif", noise(16))
    south_up = folder / "south_up.tif"
    profile = {"driver": "GTiff", "count": 3, "height": 80, "width": 120, "dtype": "uint8", "crs": "EPSG:32610"}
    with rasterio.open(south_up, "w", transform=rasterio.Affine(1, 0, 450_000, 0, 1, 5_300_000), **profile) as out:
        out.write(noise(3, 120)[:, :80])
    turned = folder / "turned.tif"
    affine = from_origin(450_000, 5_300_000, 1, 1) * rasterio.Affine.rotation(30)
    with rasterio.open(turned, "w", transform=affine, **profile) as out:
        out.write(noise(3, 120)[:, :80])
    return {
        "NaN and inf": (raster(folder / "holes.tif", holes), []),
        "palette": (palette, []),
        "16 bands": (sixteen, ["--bands", "red=4,green=3,blue=2,nir=8"]),
        "south up": (south_up, []),
        "turned": (turned, []),
        "smaller than a tile": (raster(folder / "small.tif", noise(3, 20)), []),
        "64-bit floats": (raster(folder / "float64.tif", noise(3, 80, np.float64) / 200), []),
    }


@pytest.mark.parametrize(
    "kind", ["NaN and inf", "palette", "16 bands", "south up", "turned", "smaller than a tile", "64-bit floats"]
)
def test_odd_rasters_simply_work(kind, tiny_weights, tmp_path):
    path, args = odd_inputs(tmp_path)[kind]
    out = tmp_path / "o.geojson"
    assert run("segment", path, "--model", tiny_weights, "--out", out, "--tiles", "all", *args) == 0
    assert json.loads(out.read_text())["type"] == "FeatureCollection"


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_without_crs_the_result_is_in_pixels_and_not_geojson(segment, tiny_weights, tmp_path, capsys):
    path = raster(tmp_path / "nocrs.tif", noise(3), crs=None)
    assert segment(path, "--allow-no-crs") == 2
    assert ".gpkg" in capsys.readouterr().err
    out = tmp_path / "o.gpkg"
    assert run("segment", path, "--allow-no-crs", "--model", tiny_weights, "--out", out) == 0
    assert out.exists()
