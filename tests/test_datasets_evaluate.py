"""What ``geosam evaluate --dataset`` takes besides folders of pairs."""

import json

import numpy as np
import pytest
from PIL import Image

from geosam.cli import main
from geosam.datasets import DataOptions, open_labelled
from geosam.errors import DatasetError
from geosam.evaluate import DataSet


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A saved data set of four training tiles, two for validation and three for the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def table(first, count):
        pictures = [Image.fromarray(np.full((20, 30, 3), n, np.uint8)) for n in range(first, first + count)]
        label = np.zeros((20, 30), np.uint8)
        label[:, :10] = 1
        kinds = {"image": datasets.Image(), "label": datasets.Image(), "group": datasets.Value("string")}
        groups = [f"g{n % 2}" for n in range(first, first + count)]
        values = {"image": pictures, "label": [Image.fromarray(label)] * count, "group": groups}
        return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))

    parts = {"train": table(0, 4), "validation": table(4, 2), "test": table(6, 3)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": parts["train"], "dev": parts["validation"]}).save_to_disk(tmp_path / "two")
    return tmp_path


def taken(folder, **options):
    dataset = DataSet(folder=str(folder), **options)
    return [int(dataset.read(item).rgb[0, 0, 0]) for item in dataset.open()]


def test_the_test_split_is_scored_or_else_validation_or_what_is_asked_for(saved):
    assert taken(saved / "saved") == [6, 7, 8]
    assert taken(saved / "two") == [4, 5]
    assert taken(saved / "saved", splits=("dev",)) == [4, 5]
    assert taken(saved / "saved", splits=("all",)) == list(range(9))
    assert taken(saved / "saved", groups=("g1",)) == [7]
    assert taken(saved / "saved", limit=2) == [6, 7]


def test_a_tile_becomes_a_sample(saved):
    dataset = DataSet(folder=str(saved / "saved"), columns=(0.0, 0.5), gsd_m=0.5)
    one = dataset.read(dataset.open()[0])
    assert one.rgb.shape == (20, 15, 3)
    assert one.water.sum() == 200
    assert (one.group, one.gsd_m) == ("g0", 0.5)


def test_what_is_taken_is_told(saved):
    said = []
    DataSet(folder=str(saved / "saved")).open(warn=said.append)
    assert any("taken: 3 of test" in line for line in said)


def test_a_root_never_leads_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        DataSet(folder="org/name").open(".")


def test_a_split_that_is_not_there_is_told(saved):
    with pytest.raises(DatasetError, match=r"4 train, 2 validation.*left of split test"):
        DataSet(folder=str(saved / "two"), splits=("test",)).open()


def test_bands_of_a_table_and_splits_of_a_folder_without_any(saved, tmp_path):
    one = DataSet(folder=str(saved / "two"), bands=(3, 2, 1))
    assert (one.read(one.open()[0]).rgb == 4).all()
    for n in range(6):
        pair(tmp_path / "pairs", "masks", np.full((4, 4), 255 * (n % 2), np.uint8), f"t{n}")
    whole = DataSet(folder=str(tmp_path / "pairs"))
    held = whole.model_copy(update={"splits": ("validation",), "data": DataOptions(validation=0.4)})
    made = open_labelled(tmp_path / "pairs", DataOptions(validation=0.4)).splits["validation"]
    assert len(whole.open()) == 6
    assert [item.name for item in held.open()] == [tile.name for tile in made]
    assert len(made) == 2
    (tmp_path / "pairs" / "index.csv").write_text("\n".join(["file,split", *(f"t{n},test" for n in range(6))]))
    anew = DataOptions(resplit=True, validation=0.4)
    made = open_labelled(tmp_path / "pairs", anew).splits["test"]
    assert [item.name for item in whole.model_copy(update={"data": anew}).open()] == [tile.name for tile in made]
    assert len(made) == 2


def test_a_damaged_image_is_skipped_and_counted(tmp_path, tiny_weights, capsys):
    for n in range(21):
        pair(tmp_path / "pairs", "masks", np.full((16, 16), 255 * (n % 2), np.uint8), f"t{n}")
    (tmp_path / "pairs" / "images" / "t3.png").write_bytes(b"no image")
    call = ["evaluate", "--dataset", str(tmp_path / "pairs"), "--model", str(tiny_weights), "--rows", "coarse"]
    with pytest.raises(SystemExit) as stop:
        main([*call, "--json", str(tmp_path / "r.json")])
    assert stop.value.code == 0
    assert "t3.png" in capsys.readouterr().err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["rows"]["coarse"]["n"] == 20
    assert len(report["skipped"]) == 1
    (tmp_path / "pairs" / "images" / "t4.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as stop:
        main(call)
    assert stop.value.code == 2
    assert "2 of 21 images cannot be read, more than 5%" in capsys.readouterr().err


def pair(folder, masks, label, name="t0"):
    for place in ("images", masks):
        (folder / place).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*label.shape, 3), np.uint8)).save(folder / "images" / f"{name}.png")
    Image.fromarray(label).save(folder / masks / f"{name}.png")


def test_class_ids_and_labels_folders_of_pairs(tmp_path):
    label = np.tile(np.array([0, 3, 4, 255], np.uint8), (4, 1))
    pair(tmp_path, "labels", label)
    dataset = DataSet(folder=str(tmp_path), data=DataOptions(water_ids=(3, 4), ignore_value=255))
    one = dataset.read(dataset.open()[0])
    assert one.water[0].tolist() == [False, True, True, False]
    assert one.known[0].tolist() == [True, True, True, False]


def test_the_command_line_hands_its_options_on(tmp_path, monkeypatch):
    pair(tmp_path, "masks", np.full((4, 4), 9, np.uint8))
    seen = []

    def stop(dataset, *_args, **_kwargs):
        seen.append(dataset)
        raise DatasetError("that is all")

    monkeypatch.setattr(DataSet, "open", stop)
    with pytest.raises(SystemExit):
        main(["evaluate", "--dataset", str(tmp_path), "--water-ids", "3,4", "--ignore-value", "255",
              "--image-column", "photo", "--label-column", "river", "--layout", "cityscapes", "--gsd", "native",
              "--subset", "small", "--group-by", "place", "--columns", "0:0.5", "--group", "A"])  # fmt: skip
    options = seen[0].data
    assert (options.gsd, options.subset, options.group_by) == ("native", "small", "place")
    assert (seen[0].columns, seen[0].groups, seen[0].images) == ((0, 0.5), ("A",), "images")
    assert (options.water_ids, options.ignore_value, options.layout) == ((3, 4), 255, "cityscapes")
    assert (options.image_column, options.label_column) == ("photo", "river")


def test_bad_data_is_one_line_and_exit_code_2(saved, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--dataset", str(saved / "two"), "--image-column", "photo"])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "no column photo" in lines[0]
