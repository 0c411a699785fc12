"""``geosam evaluate`` as a user meets it: valid JSON, a table, a picture, and one line of error."""

import csv
import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from geosam.cli import main


def run(*args):
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *(str(arg) for arg in args)])
    return stop.value.code


def refused(capsys, *args):
    """The one line that bad input is answered with."""
    assert run(*args) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def tiles(tmp_path):
    """Three labelled pictures of 48 px with a dark river, the last without; group B is the last."""
    folder = tmp_path / "tiles"
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        rgb = rng.integers(100, 140, (48, 48, 3), dtype=np.uint8)
        label = np.zeros((48, 48), np.uint8)
        if number < 2:
            rgb[:, 16:30] //= 3
            label[:, 16:30], label[:, 14:16] = 255, 128
        Image.fromarray(rgb).save(folder / "images" / f"t{number}.png")
        Image.fromarray(label).save(folder / "masks" / f"t{number}.png")
    (folder / "index.csv").write_text("file,group,split\nt0,A,dev\nt1,A,dev\nt2,B,dev\n")
    return folder


def read(path):
    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_data_set_gives_rows_a_table_and_a_picture(tiles, tiny_weights, tmp_path, capsys):
    paths = [tmp_path / name for name in ("r.json", "r.csv", "w.png")]
    given = ("--json", paths[0], "--csv", paths[1], "--worst", paths[2])
    assert run("--dataset", tiles, "--model", tiny_weights, "--image-gsd", 0.5, "--tolerance-m", 2, *given) == 0
    rows = read(paths[0])["rows"]
    assert list(rows) == ["coarse", "auto", "oracle", "none"]
    for row in rows.values():
        assert row["n"] == 3
        for name in ("iou_mean", "iou_median", "f1_mean", "failures", "boundary_f1", "boundary_f1_m", "false_water"):
            assert 0 <= row[name] <= 1
        assert row["pooled"]["tp"] + row["pooled"]["fn"] == 2 * 48 * 14
        assert (row["wet"]["n"], row["dry"]["n"]) == (2, 1)
    assert sum(rows["coarse"]["methods"].values()) == 3
    with paths[1].open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 3 * 4
    assert {line["name"] for line in lines} == {"t0", "t1", "t2"}
    assert "column_weighted_f1_of_ancestor" in lines[0]
    with Image.open(paths[2]) as picture:
        assert picture.width > 300
    assert "oracle" in capsys.readouterr().out


def test_rows_groups_and_the_coarse_rule_can_be_chosen(tiles, tiny_weights, tmp_path):
    out = tmp_path / "r.json"
    given = ("--rows", "coarse", "--coarse", "dark", "--group", "A", "--json", out)
    assert run("--dataset", tiles, "--model", tiny_weights, *given) == 0
    rows = read(out)["rows"]
    assert list(rows) == ["coarse"]
    assert rows["coarse"]["n"] == 2
    assert rows["coarse"]["methods"] == {"dark": 2}
    assert rows["coarse"]["iou_mean"] > 0.7


def mask(path, left):
    water = np.zeros((1, 60, 60), np.uint8)
    water[:, :, left : left + 20] = 1
    profile = {"driver": "GTiff", "count": 1, "height": 60, "width": 60, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=from_origin(500_000, 5_000_000, 1, 1), **profile) as out:
        out.write(water)
    return path


def test_a_prediction_against_a_reference(tmp_path, capsys):
    out = tmp_path / "r.json"
    assert run(mask(tmp_path / "p.tif", 10), mask(tmp_path / "r.tif", 15), "--json", out, "--tolerance-m", 5) == 0
    report = read(out)
    assert report["iou"] == pytest.approx(15 / 25)
    assert report["boundary_f1"] == 0
    assert report["grid"]["crs"] == "EPSG:32631"
    assert report["thin_px"] == 11
    assert report["boundary_f1_m"] == 1
    assert "iou" in capsys.readouterr().out


def test_bad_input_is_answered_with_one_line(tiles, tmp_path, capsys):
    assert "does not exist" in refused(capsys, "--dataset", tmp_path / "nowhere")
    assert "'best'" in refused(capsys, "--dataset", tiles, "--rows", "auto,best")
    assert "--masks" in refused(capsys, "--dataset", tiles, "--masks", "labels")
    assert "no labelled tile" in refused(capsys, "--dataset", tiles, "--split", "test")
    assert "Give one of .png" in refused(capsys, "--dataset", tiles, "--worst", tmp_path / "w.txt")
    assert "nowhere/none" in refused(capsys, "--dataset", tiles, "--model", "nowhere/none")
    (tiles / "masks" / "t1.png").unlink()
    assert "t1" in refused(capsys, "--dataset", tiles)
    assert "does not exist" in refused(capsys, tmp_path / "p.tif", tmp_path / "r.tif")
    one = mask(tmp_path / "p.tif", 10)
    assert "--worst" in refused(capsys, one, one, "--worst", tmp_path / "w.png")
    assert "--overwrite" in refused(capsys, one, one, "--json", one)


@pytest.mark.parametrize(
    "given",
    [(), ("one.tif",), ("a.tif", "b.tif", "--dataset", "x"), ("--dataset", "x", "--columns", "1:0"),
     ("--dataset", "x", "--image-bands", "1,2"), ("--dataset", "x", "--image-gsd", "0")],
)  # fmt: skip
def test_wrong_usage_is_refused(given):
    assert run(*given) == 2
