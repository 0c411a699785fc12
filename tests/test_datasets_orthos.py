"""Orthoimages and polygons of water become chips on the ortho's own grid."""

import pickle

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from rasterio.windows import Window

from geosam.datasets import DataOptions, open_labelled
from geosam.errors import DatasetError
from geosam.scene import Scene

LEFT, TOP, CRS = 450_000.0, 5_300_000.0, "EPSG:32610"


def ortho(path, width=320, height=160, hole=None, dtype=np.uint8, left=LEFT, step=2.0):
    """Noise, with a river in columns 40 to 59, 2 m a pixel; no data (0) in the columns of ``hole``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    top = 255 if dtype == np.uint8 else 9000
    bands = rng.integers(top // 4, top, (3, height, width)).astype(dtype)
    bands[:, :, 40:60] //= 4
    if hole is not None:
        bands[:, :, hole] = 0
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": bands.dtype.name, "nodata": 0}
    with rasterio.open(path, "w", transform=from_origin(left, TOP, step, step), crs=CRS, **profile) as out:
        out.write(bands)
    return path


def river(path, crs=CRS, first=40, last=60, height=160):
    """The river's polygon, from pixel column ``first`` up to ``last``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = shapely.box(LEFT + first * 2, TOP - height * 2, LEFT + last * 2, TOP)
    gpd.GeoDataFrame(geometry=[box], crs=CRS).to_crs(crs).to_file(path)
    return path


def everything(data):
    return {tile.name: tile for tiles in data.splits.values() for tile in tiles}


OPTIONS = DataOptions(chip_px=64)


@pytest.mark.parametrize(("name", "crs"), [("a.gpkg", CRS), ("a.geojson", "EPSG:4326"), ("a.gpkg", "EPSG:3857")])
def test_polygons_in_any_crs_are_burnt_onto_the_ortho(tmp_path, name, crs):
    ortho(tmp_path / "a.tif")
    river(tmp_path / name, crs)
    tiles = everything(open_labelled(tmp_path, OPTIONS))
    _, label = tiles["a_0_0"].read()
    assert label.shape == (64, 64)
    assert (label[:, 41:59] == 255).all()
    assert not label[:, :39].any()
    assert not label[:, 61:].any()
    wet = (label == 255).sum(axis=1)
    assert (abs(wet - 20) <= 1).all()
    assert not tiles["a_0_128"].read()[1].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_chip_looks_as_segment_would_see_it(tmp_path, dtype):
    river(tmp_path / "a.gpkg")
    scene = Scene.open(ortho(tmp_path / "a.tif", dtype=dtype))
    tile = everything(open_labelled(tmp_path, OPTIONS))["a_64_0"]
    expected, _ = scene.read_rgb(Window(0, 64, 64, 64))
    assert (tile.read()[0] == expected).all()
    assert tile.gsd_m == pytest.approx(2, rel=0.01)
    again = pickle.loads(pickle.dumps(tile))
    assert (again.read()[0] == expected).all()


def test_chips_cover_the_ortho_and_lie_flush_with_its_border(tmp_path):
    ortho(tmp_path / "a.tif", width=100, height=70)
    river(tmp_path / "a.gpkg", height=70)
    tiles = everything(open_labelled(tmp_path, DataOptions(chip_px=64, group_by="name")))
    assert set(tiles) == {"a_0_0", "a_0_36", "a_6_0", "a_6_36"}
    whole = np.zeros((70, 100), int)
    for tile in tiles.values():
        whole[tile.source.window.toslices()] += 1
        assert tile.read()[0].shape == (64, 64, 3)
    assert whole.min() == 1
    one = everything(open_labelled(tmp_path, DataOptions(chip_px=512)))
    assert [tile.read()[1].shape for tile in one.values()] == [(70, 100)]


def test_no_data_is_ignored_and_filled_and_empty_chips_are_left_out(tmp_path):
    ortho(tmp_path / "a.tif", hole=slice(90, 320))
    river(tmp_path / "a.gpkg", first=40, last=100)
    tiles = everything(open_labelled(tmp_path, OPTIONS))
    assert {name.split("_")[2] for name in tiles} == {"0", "64"}
    image, label = tiles["a_0_64"].read()
    assert (label[:, 26:] == 128).all()
    assert (label[:, :26] == 255).all()
    assert abs(image[0, 40].astype(int) - image[:, :26].mean(axis=(0, 1))).max() < 1


def test_one_file_may_hold_the_labels_of_all(tmp_path):
    ortho(tmp_path / "data" / "a.tif")
    ortho(tmp_path / "data" / "b.tif", left=LEFT + 5000)
    labels = river(tmp_path / "all.gpkg")
    data = open_labelled(tmp_path / "data", DataOptions(chip_px=64, labels=str(labels)))
    tiles = everything(data)
    assert (tiles["a_0_0"].read()[1] == 255).any()
    assert not tiles["b_0_0"].read()[1].any()
    groups = [{tile.group for tile in tiles} for tiles in data.splits.values()]
    assert sorted(map(sorted, groups)) == [["a"], ["b"]]


@pytest.mark.parametrize("seed", range(4))
def test_of_a_single_ortho_one_end_is_for_validation(tmp_path, seed):
    ortho(tmp_path / "a.tif", width=640, height=64)
    river(tmp_path / "a.gpkg", height=64)
    data = open_labelled(tmp_path / "a.tif", DataOptions(chip_px=64, stride_px=32, seed=seed))
    spans = {
        split: [(t.source.window.col_off, t.source.window.col_off + t.source.window.width) for t in tiles]
        for split, tiles in data.splits.items()
    }
    assert len(spans["train"]) >= 12
    assert 2 <= len(spans["validation"]) <= 4
    after = min(s for s, _ in spans["validation"]) >= max(e for _, e in spans["train"])
    before = max(e for _, e in spans["validation"]) <= min(s for s, _ in spans["train"])
    assert after or before


def test_folders_of_orthos_and_labels_and_splits(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        ortho(tmp_path / split / "images" / f"{name}.tif")
        river(tmp_path / split / "labels" / f"{name}.geojson", "EPSG:4326")
    data = open_labelled(tmp_path, OPTIONS)
    assert {tile.group for tile in data.splits["train"]} == {"a"}
    assert {tile.group for tile in data.splits["validation"]} == {"b"}


def test_a_coarser_grid_on_request(tmp_path):
    ortho(tmp_path / "a.tif")
    river(tmp_path / "a.gpkg")
    tile = everything(open_labelled(tmp_path, DataOptions(chip_px=64, gsd=4.0, group_by="name")))["a_0_0"]
    assert tile.gsd_m == pytest.approx(4, rel=0.01)
    assert abs((tile.read()[1] == 255).sum(axis=1) - 10).max() <= 1


def test_a_fine_ortho_is_read_as_a_run_would_work_on_it(tmp_path):
    from geosam.pipeline import at_working_gsd

    ortho(tmp_path / "a.tif", width=1200, height=1100, step=0.1)
    river(tmp_path / "a.gpkg", first=2, last=3, height=55)  # Of 2 m: columns 40 to 59.
    tile = everything(open_labelled(tmp_path, OPTIONS, at_working_gsd))["a_0_0"]
    assert tile.gsd_m == pytest.approx(0.1 * 1100 / 512, rel=0.02)
    assert abs((tile.read()[1] == 255).sum(axis=1) - 20 * 512 / 1100).max() <= 1
    native = everything(open_labelled(tmp_path, DataOptions(chip_px=64, gsd="native"), at_working_gsd))
    assert native["a_0_0"].gsd_m == pytest.approx(0.1, rel=0.01)
    signatures = {open_labelled(tmp_path, OPTIONS, working).signature for working in (None, at_working_gsd)}
    assert len(signatures) == 2


def test_a_part_of_the_width_is_one_of_the_ortho_and_bands_are_chosen(tmp_path):
    ortho(tmp_path / "a.tif")
    river(tmp_path / "a.gpkg")
    half = everything(open_labelled(tmp_path, DataOptions(chip_px=64, columns=(0.5, 1.0), group_by="name")))
    assert {tile.source.window.col_off for tile in half.values()} == {160, 224, 256}
    plain, other = (
        everything(open_labelled(tmp_path, DataOptions(chip_px=64, bands=bands)))["a_0_0"].read()[0]
        for bands in (None, (3, 2, 2))
    )
    assert np.array_equal(other, plain[..., [2, 1, 1]])


def test_what_is_wrong_with_the_files_is_named(tmp_path):
    ortho(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match="neither parquet nor"):
        open_labelled(tmp_path / "a.tif")
    river(tmp_path / "a.gpkg", first=9000, last=9900)
    with pytest.raises(DatasetError, match=r"a.gpkg lie outside the orthoimages"):
        open_labelled(tmp_path, OPTIONS)
    ortho(tmp_path / "b.tif")
    with pytest.raises(DatasetError, match=r"1 of 2 images have no label.*b.tif"):
        open_labelled(tmp_path, OPTIONS)
    with pytest.raises(DatasetError, match="does not exist"):
        open_labelled(tmp_path, DataOptions(labels=str(tmp_path / "none.gpkg")))
    (tmp_path / "b.geojson").write_text("no json")
    with pytest.raises(DatasetError, match=r"b.geojson is not a vector file"):
        open_labelled(tmp_path, OPTIONS)
    line = gpd.GeoDataFrame(geometry=[shapely.LineString([(LEFT, TOP), (LEFT + 9, TOP - 9)])], crs=CRS)
    (tmp_path / "b.geojson").unlink()
    line.to_file(tmp_path / "b.gpkg")
    with pytest.raises(DatasetError, match=r"b.gpkg holds no polygon"):
        open_labelled(tmp_path, OPTIONS)


def test_labels_in_metres_that_are_called_degrees_are_refused(tmp_path):
    ortho(tmp_path / "a.tif")
    box = shapely.box(LEFT + 80, TOP - 320, LEFT + 120, TOP)
    gpd.GeoDataFrame(geometry=[box], crs="EPSG:4326").to_file(tmp_path / "a.geojson")
    with pytest.raises(DatasetError, match=r"a.geojson is said to be in degrees"):
        open_labelled(tmp_path, OPTIONS)


def test_a_truncated_ortho_is_named(tmp_path):
    path = ortho(tmp_path / "a.tif")
    river(tmp_path / "a.gpkg")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DatasetError, match=r"a\.tif"):
        [tile.read() for tile in everything(open_labelled(tmp_path, OPTIONS)).values()]
