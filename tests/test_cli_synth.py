"""``geosam synth`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rasterio

from geosam.cli import main


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["synth", *args])
    return int(stopped.value.code or 0)


def test_help_is_a_manual_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert "geosam synth --out demo" in text
    assert "a bridge is not" in " ".join(text.split())


def test_a_scene_is_made_and_what_was_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made"
    options = "--height 90 --width 120 --gsd 2 --seed 4 --water green --bands rgbn --dtype uint16 --crs lonlat"
    assert run("--out", str(out), *options.split(), "--rotate", "12", "--collar", "4", "--without", "lake") == 0
    told = capsys.readouterr()
    assert "90 x 120 px at 2 m" in told.out
    assert "polygons" in told.out
    assert told.err == ""
    kept = json.loads((out / "scene.json").read_text())
    assert (kept["water"], kept["lake"], kept["rotation_deg"]) == ("green", False, 12.0)
    with rasterio.open(out / "scene.tif") as file:
        assert (file.shape, file.count, file.dtypes[0], file.crs.to_epsg()) == ((90, 120), 4, "uint16", 4326)


def test_size_stands_for_both_sides(tmp_path: Path) -> None:
    assert run("--out", str(tmp_path), "--size", "64", "--plain") == 0
    with rasterio.open(tmp_path / "truth.tif") as file:
        assert file.shape == (64, 64)


def test_existing_output_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", str(tmp_path), "--size", "32", "--plain") == 0
    capsys.readouterr()
    assert run("--out", str(tmp_path), "--size", "32", "--plain") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run("--out", str(tmp_path), "--size", "32", "--plain", "--overwrite") == 0


@pytest.mark.parametrize(("option", "value"), [("--size", "3"), ("--gsd", "-1"), ("--collar", "40"), ("--gsd", "nan")])
def test_values_out_of_range_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    out = tmp_path / "none"
    assert run("--out", str(out), "--size", "64", option, value) == 2
    message = capsys.readouterr().err
    assert value in message
    assert message.count("\n") == 1
    assert not out.exists()
