"""Rasters and options that cannot be used: one line that names them, says what is wrong and what to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geosam.errors import RunError, SceneError
from geosam.options import SceneOptions
from geosam.scene import Scene

UTM = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)


def write(path: Path, pixels: np.ndarray, colors: Any = None, **profile: Any) -> str:
    """A GeoTIFF of pixels (bands, h, w); returns its path as text."""
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    profile = {"crs": "EPSG:32632", "transform": UTM, **shape, **profile}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        if colors is not None:
            file.colorinterp = colors
        file.write(pixels)
    return str(path)


def picture(count: int = 3, shape: tuple[int, int] = (60, 80), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (count, *shape)).astype(dtype)


def refusal(source: Any, **options: Any) -> str:
    """The message with which a source is refused; one line."""
    with pytest.raises(SceneError) as caught:
        Scene.open(source, SceneOptions(**options))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")"))
    return message


# Files ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.tif'} does not exist" in refusal(tmp_path / "none.tif")


def test_a_file_that_is_no_raster_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("not a raster")
    message = refusal(path)
    assert f"{path} is not a raster" in message
    assert message.count(str(path)) <= 2


def test_an_empty_file_and_a_folder_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    assert "empty" in refusal(tmp_path / "empty.tif")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 64, "blockysize": 64},
        {"compress": "deflate"},
        {"compress": "lzw", "interleave": "pixel", "BIGTIFF": "YES"},
    ],
    ids=["tiled", "strips", "bigtiff"],
)
def test_a_file_that_is_cut_off_is_found_on_opening(tmp_path: Path, share: float, layout: dict[str, Any]) -> None:
    path = tmp_path / "cut.tif"
    write(path, picture(shape=(256, 256)), **layout)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "cut" in refusal(path)


def test_a_lost_block_that_is_neither_first_nor_last_is_found_from_the_index(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    write(path, np.ones((3, 512, 512), np.uint8), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with rasterio.open(path, "r+") as file:  # noise takes more room than ones: the block moves to the end of the file
        file.write(picture(shape=(64, 64)), window=Window(5 * 64, 2 * 64, 64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert f"is cut off: it is {len(whole) - 10} bytes long" in refusal(path)


def test_a_block_damaged_later_fails_the_run_and_names_file_and_window(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    write(path, picture(shape=(512, 512)), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    scene = Scene.open(path)
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_5_2", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 256)
    window = Window(5 * 64, 2 * 64, 64, 64)
    where = r"damaged\.tif cannot be read at rows 128-191, columns 320-383"
    with ThreadPoolExecutor(1) as pool, pytest.raises(RunError, match=where):  # another thread has no block in cache
        pool.submit(scene.read, window, ["red"]).result()
    with pytest.raises(SceneError, match="damaged"):
        Scene.open(path)


def test_no_bands_at_all(tmp_path: Path) -> None:
    path = tmp_path / "none.vrt"
    path.write_text('<VRTDataset rasterXSize="10" rasterYSize="10"></VRTDataset>')
    assert "bands" in refusal(path)
    assert "0 bands" in refusal(xr.DataArray(np.ones((0, 4, 5)), dims=("band", "y", "x")))
    assert "0 x 4 px" in refusal(xr.DataArray(np.ones((3, 4, 0)), dims=("band", "y", "x")))


def test_a_container_of_rasters_asks_for_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "two.nc"
    grid = (("y", "x"), np.ones((4, 5), np.float32))
    xr.Dataset({"red": grid, "green": grid}).to_netcdf(path, engine="scipy", format="NETCDF3_CLASSIC")
    message = refusal(path)
    assert "holds 2 rasters" in message
    assert ":red" in message


# Bands ------------------------------------------------------------------------------------------------------------


def test_one_plain_band_is_refused_with_the_remedy_which_works(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.tif", picture(1))
    assert "--bands red=1,green=1,blue=1" in refusal(path)
    rgb, _ = Scene.open(path, SceneOptions(bands="red=1,green=1,blue=1")).read_rgb(Window(0, 0, 80, 60))
    assert (rgb[..., 0] == rgb[..., 2]).all()


def test_one_plain_band_beside_alpha_is_one_band(tmp_path: Path) -> None:
    path = write(tmp_path / "grey.tif", picture(2), colors=(ColorInterp.gray, ColorInterp.alpha))
    assert "one band" in refusal(path)


@pytest.mark.parametrize("count", [2, 5, 11, 16])
def test_bands_that_nothing_names_are_refused_with_the_remedy(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "many.tif", picture(count), photometric="minisblack")
    message = refusal(path)
    assert f"{count} bands" in message
    assert "--bands red=1,green=2,blue=3,nir=4" in message


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused(tmp_path: Path, dtype: str) -> None:
    assert dtype in refusal(write(tmp_path / "slc.tif", picture(3, dtype=dtype)))


@pytest.mark.parametrize(
    ("bands", "word"),
    [
        ("red=1,green=2,blue=3,nir=4", "nir=4"),
        ("red=0,green=2", "red=0"),
        ("red=1,purple=2", "purple"),
        ("red=one,green=2", "red=one"),
        ("red=1;green=2", "red=1;green=2"),
        ("red=1,red=2,green=3", "red twice"),
        ("nir=1", "neither red nor green"),
        ("sentinel9", "sentinel9"),
        ("", "''"),
        ("landsat8", "landsat8"),
        ("red=-1,green=2", "red=-1"),
    ],
)
def test_a_bad_bands_option_is_named_and_mended(tmp_path: Path, bands: str, word: str) -> None:
    message = refusal(write(tmp_path / "a.tif", picture()), bands=bands)
    assert "--bands" in message
    assert word in message


# Place ------------------------------------------------------------------------------------------------------------


def test_no_crs_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "--allow-no-crs" in refusal(write(tmp_path / "a.tif", picture(), crs=None))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_crs_without_a_place_is_no_georeference(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(), transform=Affine.identity())
    assert "--allow-no-crs" in refusal(path)
    assert not Scene.open(path, SceneOptions(allow_no_crs=True)).has_crs


def test_one_pixel_is_refused(tmp_path: Path) -> None:
    assert "1 x 1 px" in refusal(write(tmp_path / "a.tif", picture(shape=(1, 1))))


@pytest.mark.parametrize("gsd", [1000.0, 0.001])
def test_an_absurd_resolution_is_refused(tmp_path: Path, gsd: float) -> None:
    message = refusal(write(tmp_path / "a.tif", picture()), gsd=gsd)
    assert "--gsd" in message
    assert "0.5 m" in message


# Data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "nodata"),
    [(0, "uint8", 0), (-9999, "int16", -9999), (np.nan, "float32", None), (np.inf, "float64", None)],
)
def test_a_scene_without_a_valid_pixel_is_refused(
    tmp_path: Path, value: float, dtype: str, nodata: float | None
) -> None:
    path = write(tmp_path / "a.tif", np.full((3, 300, 300), value, dtype), nodata=nodata)
    assert "no pixel with data" in refusal(path)


def test_a_transparent_scene_is_refused(tmp_path: Path) -> None:
    pixels = picture(4)
    pixels[3] = 0
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    assert "no pixel with data" in refusal(write(tmp_path / "a.tif", pixels, colors=colors))


def test_one_valid_corner_that_no_sample_sees_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    shape = {"height": 8000, "width": 5000, "count": 3, "dtype": "uint8", "nodata": 0}
    layout = {"tiled": True, "SPARSE_OK": True, "crs": "EPSG:32632", "transform": UTM}
    with rasterio.open(path, "w", driver="GTiff", **shape, **layout) as file:
        file.write(picture(shape=(40, 40)), window=Window(4950, 7950, 40, 40))
    scene = Scene.open(path)
    assert scene.valid_fraction < 0.01
    assert scene.read_valid(Window(4950, 7950, 40, 40)).all()


# Area of interest -------------------------------------------------------------------------------------------------


def aoi(path: Path, *shapes: Any, crs: str | None = "EPSG:32632") -> str:
    gpd.GeoDataFrame(geometry=list(shapes), crs=crs).to_file(path)
    return str(path)


def test_a_bad_aoi_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture())
    assert "does not exist" in refusal(path, aoi=str(tmp_path / "none.gpkg"))
    (tmp_path / "text.geojson").write_text("hello")
    assert "cannot" in refusal(path, aoi=str(tmp_path / "text.geojson")) or "not a vector file" in refusal(
        path, aoi=str(tmp_path / "text.geojson")
    )
    line = aoi(tmp_path / "line.gpkg", shapely.LineString([(500_000, 5_000_000), (500_010, 4_999_990)]))
    assert "no polygon" in refusal(path, aoi=line)


def test_an_aoi_elsewhere_is_refused_with_both_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture())
    message = refusal(path, aoi=aoi(tmp_path / "far.gpkg", shapely.box(600_000, 5_000_000, 600_100, 5_000_100)))
    assert "lies outside" in message
    assert "600000" in message
    assert "500000" in message


def test_an_aoi_that_only_touches_the_scene_is_outside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture())
    assert "lies outside" in refusal(
        path, aoi=aoi(tmp_path / "next.gpkg", shapely.box(499_900, 4_999_980, 500_000, 5_000_000))
    )


def test_an_aoi_without_data_says_so(tmp_path: Path) -> None:
    pixels = picture()
    pixels[:, :, :40] = 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    corner = aoi(tmp_path / "left.gpkg", shapely.box(500_001, 4_999_980, 500_010, 4_999_990))
    assert "--aoi" in refusal(path, aoi=corner)


def test_an_aoi_on_a_scene_without_crs_is_in_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(), crs=None)
    inside = shapely.box(10, 20, 30, 50)
    assert "without CRS" in refusal(path, allow_no_crs=True, aoi=aoi(tmp_path / "utm.gpkg", inside))
    plain = tmp_path / "pixels.shp"
    with pytest.warns(UserWarning, match="crs"):
        aoi(plain, inside, crs=None)
    assert Scene.open(path, SceneOptions(allow_no_crs=True, aoi=str(plain))).shape == (30, 20)


# Arrays -----------------------------------------------------------------------------------------------------------


def test_arrays_of_the_wrong_kind_are_refused() -> None:
    flat = xr.DataArray(np.ones((3, 4)), dims=("y", "x"))
    assert "one band" in refusal(flat, allow_no_crs=True)
    assert "--allow-no-crs" in refusal(xr.DataArray(picture(), dims=("band", "y", "x")))
    assert "(band, y, x)" in refusal(xr.DataArray(picture(), dims=("a", "b", "c")))
    assert "time" in refusal(xr.DataArray(np.ones((2, 3, 4, 5)), dims=("time", "band", "y", "x")))
    assert "to_dataarray" in refusal(xr.Dataset())
    assert "complex" in refusal(xr.DataArray(picture(dtype="complex64"), dims=("band", "y", "x")))


def test_unevenly_spaced_coordinates_are_refused() -> None:
    x = np.arange(80.0)
    x[40:] += 5
    array = xr.DataArray(
        picture(), dims=("band", "y", "x"), coords={"x": x, "y": np.arange(60.0)}, attrs={"crs": "EPSG:4326"}
    )
    assert "unevenly" in refusal(array)
