from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geosam.cli import main

UTM = Affine(2, 0, 500_000, 0, -2, 5_000_000)


@pytest.fixture
def ortho(tmp_path: Path) -> str:
    """Four untagged uint16 bands of 1200 x 900 px, a quarter of them nodata."""
    pixels = np.random.default_rng(0).integers(200, 3000, (4, 900, 1200)).astype(np.uint16)
    pixels[:, :, :300] = 0
    return write(tmp_path / "ortho.tif", pixels, nodata=0)


def write(path: Path, pixels: np.ndarray, **profile: Any) -> str:
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    profile = {"crs": "EPSG:32632", "transform": UTM, **profile}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, **shape, **profile) as file:
        file.write(pixels)
    return str(path)


def info(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of geosam info."""
    with pytest.raises(SystemExit) as done:
        main(["info", *args])
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out, captured.err


def facts(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    code, out, err = info(capsys, *args, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_json_says_what_a_run_would_start_from(ortho: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, ortho, "--bands", "naip", "--gsd", "native")
    assert found["bands"] == {"red": 1, "green": 2, "blue": 3, "nir": 4}
    assert (found["width"], found["height"], found["dtype"], found["crs"]) == (1200, 900, "uint16", "EPSG:32632")
    assert found["gsd_m"] == pytest.approx(2, rel=1e-3)
    assert found["area_m2"] == pytest.approx(1200 * 900 * 4, rel=2e-3)
    assert found["nodata"] == [0]
    assert found["valid_fraction"] == pytest.approx(0.75, abs=0.01)
    assert found["tiles"] == 6
    assert found["seconds_all_tiles"] > found["seconds_dry"] > 0
    assert found["memory_mb"] > 0
    assert found["warnings"] == []


def test_options_mean_what_they_mean_for_a_run(ortho: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, ortho, "--gsd", "4")
    assert (found["width"], found["height"], found["native_width"], found["tiles"]) == (600, 450, 1200, 2)
    assert "--bands" in found["warnings"][0]


def test_the_table_reads_well(ortho: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = info(capsys, ortho, "--gsd", "4")
    assert code == 0
    for text in (
        "red=1, green=2, blue=3 (of 4)",
        "600 x 450 px of 4 m",
        "1,200 x 900 px of 2 m",
        "EPSG:32632",
        "Mpx/s",
    ):
        assert text in out
    assert max(map(len, out.splitlines()[:-1])) < 130


def test_a_raster_without_crs_has_no_metres(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.tif", np.full((3, 40, 50), 7.0, np.float32), crs=None, nodata=float("nan"))
    found = facts(capsys, path, "--allow-no-crs")
    assert (found["gsd_m"], found["crs"], found["area_m2"], found["nodata"]) == (None, None, None, ["nan"])
    assert "pixel coordinates" in info(capsys, path, "--allow-no-crs")[1]


@pytest.mark.parametrize("args", [["none.tif"], ["ORTHO", "--bands", "red=9"], ["ORTHO", "--aoi", "none.gpkg"], []])
def test_bad_input_is_one_line_and_exit_code_2(ortho: str, capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, out, err = info(capsys, *[ortho if arg == "ORTHO" else arg for arg in args])
    assert (code, out) == (2, "")
    if args:
        assert err.startswith("geosam: ")
        assert err.count("\n") == 1
