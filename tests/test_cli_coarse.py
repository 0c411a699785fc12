"""``geosam coarse``: what it prints, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geosam.cli import main


@pytest.fixture
def scene(tmp_path: Path) -> str:
    """A straight river, 20 px wide, in four bands without names."""
    rng = np.random.default_rng(0)
    river = np.abs(np.arange(120) - 60) < 10
    levels = {"red": (60, 70), "green": (75, 80), "blue": (70, 60), "nir": (30, 170)}
    stack = np.stack([np.where(river, wet, dry) + rng.normal(0, 4, (100, 120)) for wet, dry in levels.values()])
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=4,
        height=100,
        width=120,
        dtype="uint8",
        crs="EPSG:32633",
        transform=Affine(2, 0, 5e5, 0, -2, 5e6),
    ) as raster:
        raster.write(stack.clip(1, 255).astype(np.uint8))
    return str(path)


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["coarse", *args])
    return int(stop.value.code or 0)


def test_it_says_what_it_chose_and_writes_the_mask(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.tif"
    assert run(scene, "--out", str(out), "--bands", "naip") == 0
    printed = capsys.readouterr().out
    assert "method ndwi-ndvi, threshold" in printed
    assert "water 15.83% of the scene" in printed
    assert "two modes" in printed
    assert str(out) in printed
    with rasterio.open(out) as raster:
        assert raster.read(1)[:, 51:70].all()
        assert raster.read(1).sum() == 100 * 19


def test_options_reach_the_mask(scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.tif"
    assert run(scene, "--out", str(out), "--bands", "naip", "--method", "ndwi", "--min-area", "8000") == 0
    assert "method ndwi," in capsys.readouterr().out
    with rasterio.open(out) as raster:
        assert not raster.read(1).any(), "the river is 7,600 m2"


def test_warnings_go_to_stderr(scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(scene, "--out", str(tmp_path / "m.tif"), "--bands", "naip", "--threshold", "0.95") == 0
    printed = capsys.readouterr()
    assert "warning: The mask covers 0.00% of the scene" in printed.err
    assert "warning:" not in printed.out


def test_a_coarser_grid_is_worked_on_when_asked(scene: str, tmp_path: Path) -> None:
    assert run(scene, "--out", str(tmp_path / "m.tif"), "--bands", "naip", "--gsd", "4") == 0
    with rasterio.open(tmp_path / "m.tif") as raster:
        assert raster.shape == (50, 60)


def test_an_existing_file_is_replaced_only_when_told(
    scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.tif"
    out.write_text("old")
    assert run(scene, "--out", str(out), "--bands", "naip") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "old"
    assert run(scene, "--out", str(out), "--bands", "naip", "--overwrite") == 0
    with rasterio.open(out) as raster:
        assert raster.read(1).any()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--out", "m.png"), "ends in .tif"),
        (("--out", "nowhere/m.tif"), "does not exist"),
        (("--out", "m.tif", "--bands", "red=1,green=2,blue=3", "--method", "mndwi"), "needs swir1"),
        (("--out", "m.tif", "--bands", "naip", "--method", "guess"), "Unknown coarse method 'guess'"),
        (("--out", "m.tif", "--bands", "naip", "--min-area", "-1"), "--min-area"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(
    scene: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(scene, *args) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]
