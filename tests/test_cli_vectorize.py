"""``geosam vectorize`` on rasters of every kind it takes, and on those it must refuse."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from geojson_pydantic import FeatureCollection

from geosam.cli import main
from geosam.errors import SceneError
from geosam.options import VectorOptions
from geosam.vector import polygonize_raster
from geosam.vector import raster as raster_room

WATER = np.zeros((60, 50), bool)
WATER[10:50, 20:30] = True
WATER[5:8, 40:45] = True
AREA_M2 = WATER.sum() * 100


def save(path, values, nodata=None, crs="EPSG:32632", scale=None, **profile):
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, nodata=nodata,
        crs=crs, transform=transform, **profile,
    ) as raster:  # fmt: skip
        raster.write(values)
        if scale is not None:
            raster.scales = (scale,) * count
    return path


def probability(dtype=np.float32):
    values = np.where(WATER, 0.9, 0.2).astype(dtype)
    values[0, :] = np.nan
    return values


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["vectorize", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


def mask_with_alpha():
    return np.stack([np.ones(WATER.shape, np.uint8), np.where(WATER, 255, 0).astype(np.uint8)])


RASTERS = {
    "mask 0 and 1": lambda path: save(path, WATER.astype(np.uint8)),
    "mask 0 and 255": lambda path: save(path, WATER.astype(np.uint8) * 255),
    "mask with 255 for unknown": lambda path: save(path, np.where(WATER, 1, 255).astype(np.uint8), nodata=255),
    "mask with 0 for nodata": lambda path: save(path, WATER.astype(np.uint8), nodata=0),
    "mask of int16": lambda path: save(path, np.where(WATER, 1, -9999).astype(np.int16), nodata=-9999),
    "mask with alpha": lambda path: save(path, mask_with_alpha(), photometric="minisblack", alpha="yes"),
    "probability": lambda path: save(path, probability(), nodata=np.nan),
    "probability with NaN untold": lambda path: save(path, probability()),
    "probability of 64 bits": lambda path: save(path, probability(np.float64)),
    "probability with -1 for nodata": lambda path: save(path, np.where(WATER, 0.9, -1).astype(np.float32), nodata=-1),
    "scaled probability": lambda path: save(path, np.where(WATER, 230, 3).astype(np.uint8), scale=1 / 255),
    "tiles": lambda path: save(path, WATER.astype(np.uint8), tiled=True, blockxsize=16, blockysize=16),
}


@pytest.mark.parametrize("strip_px", [1, 900, 10**7])
@pytest.mark.parametrize("kind", RASTERS)
def test_masks_and_probabilities_of_every_kind_give_the_same_polygons(kind, strip_px, tmp_path, monkeypatch):
    monkeypatch.setattr(raster_room, "STRIP_PX", strip_px)
    rivers = polygonize_raster(RASTERS[kind](tmp_path / "r.tif"))
    assert list(rivers.area) == [40_000, 1_500]
    assert rivers.total_bounds.tolist() == [500_200, 4_999_500, 500_450, 4_999_950]
    assert set(rivers["scene"]) == {"r"}
    expected = pytest.approx(0.9, abs=0.003) if "robability" in kind else pytest.approx(np.nan, nan_ok=True)
    assert rivers["probability"][0] == expected


def test_the_threshold_is_that_of_the_options_before_that_of_the_caller(tmp_path):
    path = save(tmp_path / "p.tif", probability())
    assert len(polygonize_raster(path)) == 2
    assert len(polygonize_raster(path, threshold=0.95)) == 0
    assert polygonize_raster(path, VectorOptions(threshold=0.1), threshold=0.95).area[0] == 59 * 50 * 100


def test_the_command_writes_valid_geojson_and_says_what(capsys, tmp_path):
    out = tmp_path / "rivers.geojson"
    code, said, errors = run(capsys, save(tmp_path / "m.tif", WATER.astype(np.uint8)), "--out", out)
    assert (code, errors) == (0, "")
    assert "2 polygons, 41,5" in said
    assert str(out) in said
    assert len(FeatureCollection.model_validate_json(out.read_text()).features) == 2


def test_options_reach_the_polygons(capsys, tmp_path):
    mask, out = save(tmp_path / "m.tif", WATER.astype(np.uint8)), tmp_path / "rivers.gpkg"
    code, said, _ = run(capsys, mask, "--out", out, "--min-area", "2000", "--simplify", "5", "--threshold", "auto")
    assert code == 0
    assert "1 polygon," in said
    assert gpd.read_file(out).area.tolist() == [40_000]


def test_no_water_is_an_empty_layer_and_a_line_that_says_so(capsys, tmp_path):
    out = tmp_path / "rivers.geojson"
    code, said, _ = run(capsys, save(tmp_path / "m.tif", np.zeros((9, 9), np.uint8)), "--out", out)
    assert code == 0
    assert "no water: wrote an empty layer" in said
    assert len(gpd.read_file(out)) == 0


def test_a_raster_without_crs_gives_pixels_when_allowed(capsys, tmp_path):
    mask = save(tmp_path / "m.tif", WATER.astype(np.uint8), crs=None)
    out = tmp_path / "rivers.fgb"
    code, _, error = run(capsys, mask, "--out", out)
    assert code == 2
    assert "--allow-no-crs" in error
    code, _, error = run(capsys, mask, "--out", tmp_path / "rivers.geojson", "--allow-no-crs")
    assert code == 2
    assert ".gpkg" in error
    code, said, _ = run(capsys, mask, "--out", out, "--allow-no-crs")
    assert code == 0
    assert f"{WATER.sum()} px" in said
    assert gpd.read_file(out).total_bounds.tolist() == [20, 5, 45, 50]


def truncated(path):
    save(path, np.random.default_rng(0).integers(0, 2, (300, 300)).astype(np.uint8), compress="deflate")
    path.write_bytes(path.read_bytes()[:3000])
    return path


def not_a_raster(path):
    path.write_text("not a raster")
    return path


BAD = {
    "missing": (lambda path: path, "does not exist"),
    "no raster": (not_a_raster, "cannot be read as a raster"),
    "truncated": (truncated, "cannot be read as a raster"),
    "an image": (lambda path: save(path, np.zeros((3, 9, 9), np.uint8), photometric="rgb"), "has 3 bands"),
    "labels": (lambda path: save(path, np.arange(81, dtype=np.uint8).reshape(9, 9)), "such as 2"),
    "an index": (lambda path: save(path, np.full((9, 9), -0.4, np.float32)), "from -0.4 to"),
    "per cent": (lambda path: save(path, np.full((9, 9), 90, np.float32)), "to 90"),
    "complex numbers": (lambda path: save(path, np.zeros((9, 9), np.complex64)), "complex64"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", BAD)
def test_rasters_that_cannot_be_used_get_one_line_and_touch_nothing(kind, capsys, tmp_path):
    make, words = BAD[kind]
    out = tmp_path / "rivers.geojson"
    out.write_text("old")
    code, said, error = run(capsys, make(tmp_path / "bad.tif"), "--out", out, "--overwrite")
    assert code == 2
    assert said == ""
    assert words in error
    assert error.startswith("geosam: ")
    assert error.count("\n") == 1
    assert out.read_text() == "old"


def test_outputs_are_refused_before_the_raster_is_read(capsys, tmp_path):
    missing = tmp_path / "missing.tif"
    for name, words in (
        ("rivers.shp", ".gpkg"),
        ("nowhere/rivers.gpkg", "does not exist"),
        ("old.gpkg", "--overwrite"),
    ):
        (tmp_path / "old.gpkg").write_text("old")
        code, _, error = run(capsys, missing, "--out", tmp_path / name)
        assert code == 2
        assert words in error
        assert "missing.tif" not in error
    assert (tmp_path / "old.gpkg").read_text() == "old"


def test_the_library_names_its_error(tmp_path):
    with pytest.raises(SceneError):
        polygonize_raster(tmp_path / "missing.tif")
