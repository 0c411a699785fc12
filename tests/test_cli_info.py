from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geosam.cli import main
from geosam.estimate import machine
from geosam.options import SegmentOptions

FIGURES: dict[str, Any] = {
    "model": "river-tiny", "sha256": "ab", "device": "cpu", "dtype": "float32", "tile_px": 512, "batch_size": 4,
    "strip_threads": 2, "start_s": 3.0, "tile_s": 0.5, "dry_tile_s": 0.01, "row_s": 0.01, "vector_tile_s": 0.001,
    "vector_s_mpx": 0.002, "memory_mb": 1000, "read_mb": 0,
}  # fmt: skip
UTM = Affine(2, 0, 500_000, 0, -2, 5_000_000)


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SegmentOptions]:
    """The machine was measured before, with made-up figures; what is measured from now on is noted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    anew: list[SegmentOptions] = []
    monkeypatch.setattr(machine, "_probe", lambda options: anew.append(options) or FIGURES)
    machine.calibration(SegmentOptions())
    anew.clear()
    return anew


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
    assert found["seconds_all_tiles"] >= found["seconds"] >= found["seconds_dry"] > 3
    assert found["seconds"] == pytest.approx(sum(found["seconds_by_stage"].values()), abs=0.1)
    assert found["memory_mb"] > 1000
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
        "tiles      2 of 512 px",
        "about 1.0 GB",
        "if all tiles ran",
        "river-tiny at 0.524 Mpx/s (cpu, float32)",
    ):
        assert text in out
    assert max(map(len, out.splitlines()[:-1])) < 130


def test_the_keys_of_the_estimate_are_those_of_the_help(ortho: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = info(capsys, "--help")
    assert code == 0
    keys = {name for name in facts(capsys, ortho) if name.startswith(("seconds", "memory", "tiles", "wet", "assumed"))}
    assert len(keys) == 14
    assert all(f" {key}" in text for key in keys | {"calibration"})


def test_a_river_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(-8, 9, (4, 600, 3000)) + np.array([60, 80, 60, 150])[:, None, None]
    dry = facts(capsys, write(tmp_path / "dry.tif", pixels.astype(np.uint8)), "--bands", "naip")
    pixels[:, 200:250, :900] = np.array([50, 70, 60, 20])[:, None, None]
    path = write(tmp_path / "wet.tif", pixels.astype(np.uint8))
    wet = facts(capsys, path, "--bands", "naip")
    assert (dry["tiles"], dry["wet_tiles"], wet["tiles"]) == (14, 0, 14)
    assert wet["wet_tiles"] == wet["wet_tiles_low"] == wet["wet_tiles_high"] == 6
    assert wet["seconds_by_stage"]["predict"] >= 6 * 0.5 > 1 > dry["seconds_by_stage"]["predict"]
    assert facts(capsys, path, "--bands", "naip", "--tiles", "all")["wet_tiles"] == 14
    assert facts(capsys, path, "--bands", "naip", "--overlap", "200")["tiles"] > 14
    assert "14 of 512 px" in info(capsys, path, "--bands", "naip")[1]


def test_the_machine_is_measured_where_it_was_not_or_on_request(
    ortho: str, capsys: pytest.CaptureFixture[str], measured: list[SegmentOptions]
) -> None:
    assert info(capsys, ortho)[2] == ""
    code, out, err = info(capsys, ortho, "--calibrate", "--json")
    assert (code, len(measured), err.count("\n")) == (0, 1, 1)
    assert err.startswith("geosam: measuring how fast river-tiny runs")
    assert json.loads(out)["calibration"]["tile_s"] == 0.5
    assert "measuring" in info(capsys, ortho, "--batch-size", "2")[2]
    assert [options.model.batch_size for options in measured] == [None, 2]


def test_a_model_that_is_not_here_is_one_line(
    ortho: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    code, out, err = info(capsys, ortho, "--model", "sam-vit-huge")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("geosam: sam-vit-huge is not on this machine")


def test_a_look_does_not_wait_for_torch(ortho: str) -> None:
    code = (
        "import sys; from geosam.cli import main\n"
        f"try: main(['info', {ortho!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


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
