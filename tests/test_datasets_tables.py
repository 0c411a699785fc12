"""Labelled tiles from tables: parquet, save_to_disk, image folders and the hub, made here by ``datasets`` itself."""

import io
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geosam.cli import main
from geosam.datasets import DataOptions, Tile, open_labelled
from geosam.errors import DatasetError


@pytest.fixture(autouse=True)
def hf(tmp_path, monkeypatch):
    """The ``datasets`` library, offline and with a cache that goes with the test."""
    import datasets
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return datasets


def picture(number):
    image = np.full((20, 30, 3), number, np.uint8)
    label = np.zeros((20, 30), np.uint8)
    label[:, :10] = 255
    return Image.fromarray(image), Image.fromarray(label)


def rows(first, count, **more):
    pairs = [picture(number) for number in range(first, first + count)]
    return {
        "image": [pair[0] for pair in pairs],
        "label": [pair[1] for pair in pairs],
        "name": [f"t{number}" for number in range(first, first + count)],
        **more,
    }


def table(hf, first, count, **more):
    values = rows(first, count, **more)
    kinds = {name: hf.Image() for name in ("image", "label")}
    others = {name: hf.Value("string") for name in values if name not in kinds}
    return hf.Dataset.from_dict(values, features=hf.Features({**kinds, **others}))


def names(tiles):
    return [tile.name for tile in tiles]


def check(tile, number):
    assert isinstance(tile, Tile)
    image, label = tile.read()
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (20, 30, 3)
    assert (image == number).all()
    assert (label[:, :10] == 255).all()
    assert not label[:, 10:].any()


def test_a_saved_dictionary_keeps_its_splits_and_dev_is_validation(hf, tmp_path):
    parts = {"train": table(hf, 0, 3), "dev": table(hf, 3, 2), "test": table(hf, 5, 1)}
    hf.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    data = open_labelled(tmp_path / "saved")
    assert {split: names(tiles) for split, tiles in data.splits.items()} == {
        "train": ["t0", "t1", "t2"], "validation": ["t3", "t4"], "test": ["t5"],
    }  # fmt: skip
    check(data.splits["validation"][1], 4)
    assert data.splits["validation"][0].split == "validation"
    assert "3 train, 2 validation, 1 test" in data.describe()


def test_a_saved_table_is_split(hf, tmp_path):
    table(hf, 0, 20).save_to_disk(tmp_path / "saved")
    data = open_labelled(tmp_path / "saved")
    assert len(data.splits["validation"]) == 3
    assert sorted(names(data.splits["train"]) + names(data.splits["validation"])) == sorted(f"t{n}" for n in range(20))
    again, other = open_labelled(tmp_path / "saved"), open_labelled(tmp_path / "saved", DataOptions(seed=1))
    assert names(again.splits["validation"]) == names(data.splits["validation"])
    assert names(other.splits["validation"]) != names(data.splits["validation"])


def test_a_parquet_file_and_a_folder_of_them(hf, tmp_path):
    (tmp_path / "data").mkdir()
    one = tmp_path / "data" / "train-00000-of-00001.parquet"
    table(hf, 0, 4).to_parquet(one)
    table(hf, 4, 2).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    data = open_labelled(tmp_path / "data")
    assert {split: len(tiles) for split, tiles in data.splits.items()} == {"train": 4, "validation": 2}
    check(data.splits["train"][2], 2)
    alone = open_labelled(str(one))
    assert sum(len(tiles) for tiles in alone.splits.values()) == 4
    check(pickle.loads(pickle.dumps(alone.splits["train"][0])), int(alone.splits["train"][0].name[1:]))
    before = data.signature
    shutil.copy(one, tmp_path / "data" / "train-00001-of-00002.parquet")
    assert open_labelled(tmp_path / "data").signature != before


def test_columns_are_facts_and_tell_group_split_and_weight(hf, tmp_path):
    more = {"place": ["a", "a", "b", "b"], "split": ["train", "train", "val", "test"], "weight": ["2", "", "0.5", "1"]}
    table(hf, 0, 4, **more).save_to_disk(tmp_path / "saved")
    data = open_labelled(tmp_path / "saved", DataOptions(group_by="place"))
    assert {split: names(tiles) for split, tiles in data.splits.items()} == {
        "train": ["t0", "t1"], "validation": ["t2"], "test": ["t3"],
    }  # fmt: skip
    first = data.splits["train"][0]
    assert (first.group, first.weight, first.facts["place"]) == ("a", 2.0, "a")
    assert any("share 1 groups" in line and "b" in line for line in data.warnings)


def test_other_column_names_are_told(hf, tmp_path):
    table(hf, 0, 4).rename_columns({"image": "photo", "label": "river"}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DatasetError, match=r"no column image; columns are photo, river, name.*--image-column"):
        open_labelled(tmp_path / "saved")
    with pytest.raises(DatasetError, match="--label-column"):
        open_labelled(tmp_path / "saved", DataOptions(image_column="photo"))
    with pytest.raises(DatasetError, match="column name holds string, no images"):
        open_labelled(tmp_path / "saved", DataOptions(image_column="photo", label_column="name"))
    with pytest.raises(DatasetError, match="--name-column"):
        open_labelled(tmp_path / "saved", DataOptions(image_column="photo", label_column="river", name_column="id"))
    data = open_labelled(tmp_path / "saved", DataOptions(image_column="photo", label_column="river"))
    check(data.splits["train"][0], int(data.splits["train"][0].name[1:]))


def test_a_part_of_the_width_of_a_table(hf, tmp_path):
    table(hf, 0, 4).save_to_disk(tmp_path / "saved")
    image, label = open_labelled(tmp_path / "saved", DataOptions(columns=(0.5, 1.0))).splits["train"][0].read()
    assert (image.shape, label.shape) == ((20, 15, 3), (20, 15))
    assert not label.any()


def test_an_image_folder_with_metadata(hf, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(3):
        image, label = picture(number)
        image.save(folder / f"p{number}.png")
        label.save(folder / f"p{number}_label.png")
        lines.append(
            f'{{"file_name": "p{number}.png", "label_file_name": "p{number}_label.png", "group": "g{number}"}}'
        )
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data = open_labelled(folder)
    tiles = [*data.splits["train"], *data.splits["validation"]]
    assert sorted(names(tiles)) == ["p0", "p1", "p2"]
    for tile in tiles:
        check(tile, int(tile.name[1:]))
        assert tile.group == f"g{tile.name[1:]}"


def test_rows_without_a_label_are_named(hf, tmp_path):
    values = rows(0, 3)
    values["label"][1] = None
    features = hf.Features({"image": hf.Image(), "label": hf.Image(), "name": hf.Value("string")})
    hf.Dataset.from_dict(values, features=features).save_to_disk(tmp_path / "saved")
    with pytest.raises(DatasetError, match="1 of 3 rows have no label: t1"):
        open_labelled(tmp_path / "saved")


def test_a_damaged_picture_spoils_only_its_own_tile(hf, tmp_path):
    def encoded(image):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    images = [{"bytes": encoded(picture(n)[0]), "path": f"t{n}.png"} for n in range(2)]
    images[1]["bytes"] = images[1]["bytes"][:60]
    labels = [{"bytes": encoded(picture(n)[1]), "path": None} for n in range(2)]
    features = hf.Features({"image": hf.Image(), "label": hf.Image()})
    hf.Dataset.from_dict({"image": images, "label": labels}, features=features).save_to_disk(tmp_path / "saved")
    data = open_labelled(tmp_path / "saved")
    tiles = {tile.name: tile for split in data.splits.values() for tile in split}
    check(tiles["t0"], 0)
    with pytest.raises(DatasetError, match=r"image of t1 \(t1.png\) cannot be read"):
        tiles["t1"].read()


def one_line(source):
    with pytest.raises(DatasetError) as caught:
        open_labelled(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_damaged_table_is_answered_with_one_line_and_no_log(hf, tmp_path):
    logged = []
    listener = logging.Handler()
    listener.emit = logged.append
    logging.getLogger("datasets").addHandler(listener)
    level = logging.getLogger("datasets").level
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    try:
        assert "broken.parquet cannot be read" in one_line(tmp_path / "broken.parquet")
    finally:
        logging.getLogger("datasets").removeHandler(listener)
    assert logged == []
    assert logging.getLogger("datasets").level == level


def test_the_hub_offline_is_answered_with_one_line(hf):
    message = one_line("nobody/rivers-that-are-nowhere")
    assert "nobody/rivers-that-are-nowhere" in message
    assert "HF_HUB_OFFLINE" in message


def test_an_interrupted_download_is_answered_with_one_line(hf, monkeypatch):
    def broken(*_args, **_kwargs):
        try:
            raise ConnectionError("peer closed connection: 17 of 400 bytes\nand a long tail")
        except ConnectionError as error:
            raise RuntimeError("something failed") from error

    monkeypatch.setattr(hf, "load_dataset", broken)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    message = one_line("org/rivers")
    assert "17 of 400 bytes" in message
    assert "try again" in message


def test_a_data_set_of_the_hub_is_asked_for_by_its_name(hf, monkeypatch):
    asked = []

    def load(name, subset, revision):
        asked.append((name, subset, revision))
        return hf.DatasetDict({"train": table(hf, 0, 4), "validation": table(hf, 4, 1)})

    monkeypatch.setattr(hf, "load_dataset", load)
    data = open_labelled("org/rivers", DataOptions(subset="small", revision="v1"))
    assert asked == [("org/rivers", "small", "v1")]
    assert names(data.splits["validation"]) == ["t4"]
    other = hf.DatasetDict({"train": table(hf, 1, 4), "validation": table(hf, 5, 1)})
    monkeypatch.setattr(hf, "load_dataset", lambda *_args, **_kwargs: other)
    changed = open_labelled("org/rivers", DataOptions(subset="small", revision="v1"))
    assert changed.signature != data.signature
    assert open_labelled("org/rivers", DataOptions(subset="small", revision="v1")).signature == changed.signature


@pytest.mark.parametrize("recipe", ["elwha", "elwha-best"])
def test_the_recipes_for_the_elwha_river_keep_its_flights_apart(hf, tmp_path, monkeypatch, recipe):
    """On a table of the columns, names and splits of stodoran/elwha-segmentation-v1, each flight in both splits."""
    dates = [f"201{year}0{month}07" for year in range(2, 8) for month in (4, 8)]

    def part(count, column):
        places = [f"Elwha_{('LR', 'MR')[n % 2]}_{date}_{n:03}_{column:03}" for date in dates for n in range(count)]
        return table(hf, 0, len(places)).remove_columns("name").add_column("name", places)

    hf.DatasetDict({"train": part(5, 1), "validation": part(1, 2)}).save_to_disk(tmp_path / "saved")
    seen = {}

    def stop(dataset, model, out, options, *, data, **rest):
        seen.update(options=options, model=model, data=open_labelled(dataset, data))
        raise DatasetError("that is all")

    monkeypatch.setattr("geosam.finetune.finetune", stop)
    config = Path(__file__).parent.parent / "configs" / "finetune" / f"{recipe}.toml"
    with pytest.raises(SystemExit) as stopped:
        main(
            ["finetune", "--config", str(config), "--dataset", str(tmp_path / "saved"), "--out", str(tmp_path / "run")]
        )
    assert stopped.value.code == 2
    assert (seen["model"].name, seen["options"].train) == ("sam-vit-base", "decoder")
    splits = seen["data"].splits
    flights = [{tile.name.split("_")[2] for tile in tiles} for tiles in splits.values()]
    assert list(map(len, flights)) == [8, 2, 2]
    assert sum(map(len, splits.values())) == 72
    assert set.union(*flights) == set(dates)
    assert not seen["data"].warnings
