"""Labelled tiles from files that belong together by their names, and what is refused."""

import pickle

import numpy as np
import pytest
import rasterio
from PIL import Image
from pydantic import ValidationError

from geosam.datasets import DataOptions, open_labelled, readable
from geosam.errors import DatasetError


def write(image_path, label_path, number=0, values=(0, 255), size=(20, 30)):
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), number, np.uint8)).save(image_path)
    label = np.full(size, values[0], np.uint8)
    label[:, :10] = values[-1]
    Image.fromarray(label).save(label_path)


@pytest.fixture
def folder(tmp_path):
    """Ten tiles of five places, without an index."""
    for n in range(10):
        write(tmp_path / "images" / f"t{n}.png", tmp_path / "masks" / f"t{n}.png", n)
    return tmp_path


def names(tiles):
    return [tile.name for tile in tiles]


def everything(data):
    return sorted((tile for tiles in data.splits.values() for tile in tiles), key=lambda tile: tile.name)


def test_images_and_masks_need_no_option(folder):
    (folder / "negatives").mkdir()
    Image.fromarray(np.full((20, 30, 3), 77, np.uint8)).save(folder / "negatives" / "dry.png")
    data = open_labelled(folder)
    tiles = everything(data)
    assert names(tiles) == ["dry", *(f"t{n}" for n in range(10))]
    image, label = tiles[4].read()
    assert (image == 3).all()
    assert (label[:, :10] == 255).all()
    assert not label[:, 10:].any()
    assert not tiles[0].read()[1].any()
    assert len(data.splits["validation"]) == 2
    assert pickle.loads(pickle.dumps(tiles[4])).read()[0].shape == (20, 30, 3)


def test_labels_instead_of_masks_and_any_name_on_request(folder):
    (folder / "masks").rename(folder / "labels")
    assert len(everything(open_labelled(folder))) == 10
    (folder / "labels").rename(folder / "truth")
    with pytest.raises(DatasetError, match=r"no masks/ or labels/.*--masks"):
        open_labelled(folder)
    assert len(everything(open_labelled(folder, DataOptions(masks="truth")))) == 10


def test_an_index_tells_group_split_and_weight(folder):
    rows = [f"t{n},P{n // 2},{('train', 'train', 'dev', 'test', 'other')[n // 2]},{n}" for n in range(10)]
    (folder / "index.csv").write_text("\n".join(["file,group,proposed_split,weight", *rows]))
    data = open_labelled(folder)
    assert {split: names(tiles) for split, tiles in data.splits.items()} == {
        "train": ["t0", "t1", "t2", "t3"], "validation": ["t4", "t5"], "test": ["t6", "t7"],
    }  # fmt: skip
    assert (data.splits["train"][3].group, data.splits["train"][3].weight) == ("P1", 3.0)
    assert any("other (2)" in line for line in data.warnings)


def test_a_weight_that_is_none_is_refused(folder):
    (folder / "index.csv").write_text("file,weight\nt0,heavy\n")
    with pytest.raises(DatasetError, match="t0: the weight is 'heavy'"):
        open_labelled(folder)


def test_groups_stay_whole_in_a_made_split(folder):
    rows = [f"t{n},P{n // 2},{n % 3}" for n in range(10)]
    (folder / "index.csv").write_text("\n".join(["file,group,day", *rows]))
    for options in (DataOptions(), DataOptions(group_by="day"), DataOptions(seed=5)):
        data = open_labelled(folder, options)
        groups = [{tile.group for tile in tiles} for tiles in data.splits.values()]
        assert groups[0]
        assert groups[1]
        assert not groups[0] & groups[1]
        assert not data.warnings
    loose = [open_labelled(folder, DataOptions(group_by="name", seed=seed)) for seed in range(6)]
    assert any(any("t0" in names(d.splits[s]) and "t1" not in names(d.splits[s]) for s in d.splits) for d in loose)
    with pytest.raises(DatasetError, match="no column flight; columns are day, file, group"):
        open_labelled(folder, DataOptions(group_by="flight"))


def test_groups_may_stand_in_the_names(folder):
    for kind in ("images", "masks"):
        for path in (folder / kind).iterdir():
            number = int(path.stem[1:])
            path.rename(path.with_name(f"Elwha_LR_2012{number // 2:04}_{number}_7{path.suffix}"))
    data = open_labelled(folder, DataOptions(group_by=r"name:_(\d{8})_"))
    groups = [{tile.group for tile in tiles} for tiles in data.splits.values()]
    assert groups[0] | groups[1] == {f"2012{number:04}" for number in range(5)}
    assert not groups[0] & groups[1]
    whole = open_labelled(folder, DataOptions(group_by=r"name:2012\d+"))
    assert {tile.group for tile in whole.splits["train"]} == groups[0]
    with pytest.raises(DatasetError, match=r"name:1912 is in no name; names are such as Elwha_LR_20120000_0_7"):
        open_labelled(folder, DataOptions(group_by="name:1912"))
    with pytest.raises(DatasetError, match="no regular expression"):
        open_labelled(folder, DataOptions(group_by="name:(1912"))


def test_splits_that_the_data_have_share_no_group_where_groups_are_asked_for(folder):
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    rows = [f"t{n},{split},{'AABBCCADBE'[n]}" for n, split in enumerate(splits)]
    (folder / "index.csv").write_text("\n".join(["file,split,day", *rows]))
    assert len(open_labelled(folder).splits["train"]) == 6
    data = open_labelled(folder, DataOptions(group_by="day"))
    assert names(data.splits["train"]) == ["t4", "t5"]
    assert (names(data.splits["validation"]), names(data.splits["test"])) == (["t6", "t7"], ["t8", "t9"])
    assert data.warnings == ("4 training tiles are left out, of groups that validation or test hold too: A, B",)
    (folder / "index.csv").write_text("\n".join(["file,split,day", *(row[:-1] + "A" for row in rows)]))
    with pytest.raises(DatasetError, match="every training tile is of a group that validation or test hold too: A"):
        open_labelled(folder, DataOptions(group_by="day"))


def test_splits_can_be_made_anew_where_those_of_the_data_share_every_group(folder):
    """As of the Elwha river, whose own validation tiles are of the same flights as the training ones."""
    rows = [f"t{n},{'train' if n % 2 else 'validation'},{n // 2}" for n in range(10)]
    (folder / "index.csv").write_text("\n".join(["file,split,day", *rows]))
    with pytest.raises(DatasetError, match="every training tile is of a group that validation or test hold too"):
        open_labelled(folder, DataOptions(group_by="day"))
    data = open_labelled(folder, DataOptions(group_by="day", resplit=True, validation=0.2))
    assert {split: len(tiles) for split, tiles in data.splits.items()} == {"train": 6, "validation": 2, "test": 2}
    days = [{tile.group for tile in tiles} for tiles in data.splits.values()]
    assert sum(map(len, days)) == len(set.union(*days)) == 5
    assert all(tile.split == split for split, tiles in data.splits.items() for tile in tiles)
    assert not data.warnings
    assert data.signature != open_labelled(folder).signature
    with pytest.raises(ValidationError, match="resplit takes validation twice"):
        DataOptions(resplit=True, validation=0.5)


def test_the_share_of_validation_is_as_asked(folder):
    assert len(open_labelled(folder, DataOptions(validation=0.4)).splits["validation"]) == 4


def test_one_place_alone_is_split_with_a_warning(folder):
    (folder / "index.csv").write_text("\n".join(["file,group", *(f"t{n},P" for n in range(10))]))
    data = open_labelled(folder)
    assert data.splits["validation"]
    assert any("group P" in line for line in data.warnings)


def test_validation_is_never_taken_from_the_test_split(folder):
    (folder / "index.csv").write_text("\n".join(["file,split", *(f"t{n},test" for n in range(4))]))
    data = open_labelled(folder, DataOptions(validation=0.5))
    assert names(data.splits["test"]) == ["t0", "t1", "t2", "t3"]
    assert len(data.splits["validation"]) == 3


def test_subfolders_are_splits(tmp_path):
    for split, numbers in {"train": (0, 1), "val": (2,), "test": (3,)}.items():
        for n in numbers:
            write(tmp_path / split / "images" / f"t{n}.png", tmp_path / split / "masks" / f"t{n}.png", n)
    data = open_labelled(tmp_path)
    assert {split: names(tiles) for split, tiles in data.splits.items()} == {
        "train": ["t0", "t1"], "validation": ["t2"], "test": ["t3"],
    }  # fmt: skip


def test_splits_below_images_and_labels(tmp_path):
    for split, n in {"train": 0, "dev": 1}.items():
        write(tmp_path / "images" / split / f"t{n}.png", tmp_path / "labels" / split / f"t{n}.png", n)
    data = open_labelled(tmp_path)
    assert {split: names(tiles) for split, tiles in data.splits.items()} == {"train": ["t0"], "validation": ["t1"]}


@pytest.mark.parametrize("places", [("", ""), ("photos", "truth"), ("train/x", "train/y")])
@pytest.mark.parametrize("ends", [("_rgb.png", "_mask.png"), ("*_rgb.png", "*_mask.png"), ("_rgb", "")])
def test_suffixes_pair_files_wherever_they_lie(tmp_path, places, ends):
    mask_end = "_mask" if "_mask" in ends[1] else ""
    for n in range(4):
        write(tmp_path / places[0] / f"a{n}_rgb.png", tmp_path / places[1] / f"a{n}{mask_end}.png", n)
    data = open_labelled(tmp_path, DataOptions(image_suffix=ends[0], label_suffix=ends[1]))
    tiles = everything(data)
    assert names(tiles) == ["a0", "a1", "a2", "a3"]
    assert (tiles[2].read()[0] == 2).all()
    assert (tiles[2].read()[1] == 255).sum() == 200


def test_suffixes_that_find_nothing_are_told(tmp_path):
    write(tmp_path / "a_rgb.png", tmp_path / "a_mask.png")
    with pytest.raises(DatasetError, match=r"no image whose name ends in _nir.png"):
        open_labelled(tmp_path, DataOptions(image_suffix="_nir.png", label_suffix="_mask.png"))
    (tmp_path / "a_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 1 images have no label.*a_rgb.png"):
        open_labelled(tmp_path, DataOptions(image_suffix="_rgb.png", label_suffix="_mask.png"))


def test_class_ids_become_water(folder):
    label = np.zeros((20, 30), np.uint8)
    label[0], label[1], label[2], label[3] = 3, 4, 255, 128
    Image.fromarray(label).save(folder / "masks" / "t0.png")
    found = everything(open_labelled(folder, DataOptions(water_ids=(3, 4), ignore_value=255)))[0].read()[1]
    assert [np.unique(found[row]).tolist() for row in range(5)] == [[255], [255], [128], [0], [0]]


def test_a_part_of_the_tiles_and_of_their_width(folder):
    rows = [f"t{n},P{n // 2}" for n in range(10)]
    (folder / "index.csv").write_text("\n".join(["file,group", *rows]))
    options = DataOptions(names="t[0-7]", groups=("P0", "P1", "P2"), limit=4, columns=(0.0, 0.5))
    tiles = everything(open_labelled(folder, options))
    assert names(tiles) == ["t0", "t1", "t3", "t4"]
    image, label = tiles[0].read()
    assert image.shape == (20, 15, 3)
    assert (label[:, :10] == 255).all()
    assert label.shape == (20, 15)
    with pytest.raises(DatasetError, match=r"no tile is left of groups P9 and names '\*'; .* t0, .* groups P0, P1"):
        open_labelled(folder, DataOptions(groups=("P9",)))
    with pytest.raises(ValueError, match="columns must be a part of the width"):
        DataOptions(columns=(0.5, 0.5))


def test_bands_stand_for_the_three_colours(folder):
    (folder / "images" / "t0.png").unlink()
    bands = np.stack([np.full((20, 30), value, np.uint8) for value in (10, 20, 30, 40)])
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": 4, "dtype": "uint8"}
    transform = rasterio.transform.from_origin(450_000, 5_300_000, 1, 1)
    with rasterio.open(folder / "images" / "t0.tif", "w", transform=transform, crs="EPSG:32610", **profile) as out:
        out.write(bands)
    assert first(folder).read()[0][0, 0].tolist() == [10, 20, 30]
    assert first(folder, bands=(4, 1, 1)).read()[0][0, 0].tolist() == [40, 10, 10]
    with pytest.raises(DatasetError, match=r"t0.tif has 4 bands.*--image-bands"):
        first(folder, bands=(5, 1, 1)).read()
    assert everything(open_labelled(folder, DataOptions(bands=(3, 2, 1))))[3].read()[0][0, 0].tolist() == [3, 3, 3]


def test_indices_of_a_palette_are_class_ids(folder):
    label = Image.new("P", (30, 20), 4)
    label.putpalette([200, 10, 10] * 256)
    label.save(folder / "masks" / "t0.png")
    found = everything(open_labelled(folder, DataOptions(water_ids=(4,))))[0].read()[1]
    assert (found == 255).all()


def test_zero_and_one_with_a_value_to_ignore(folder):
    label = np.zeros((20, 30), np.uint8)
    label[0], label[1] = 1, 255
    Image.fromarray(label).save(folder / "masks" / "t0.png")
    with pytest.raises(DatasetError, match=r"values 0, 1, 255;.*--ignore-value"):
        everything(open_labelled(folder))[0].read()
    found = everything(open_labelled(folder, DataOptions(ignore_value=255)))[0].read()[1]
    assert [np.unique(found[row]).tolist() for row in range(3)] == [[255], [128], [0]]


def test_a_list_of_ids_from_toml_is_understood():
    assert DataOptions.model_validate({"water_ids": [3, 4]}).water_ids == (3, 4)


def test_cityscapes(tmp_path):
    for split, city, n in (("train", "ulm", 0), ("train", "bonn", 1), ("val", "bern", 2)):
        stem = f"{city}_{n}"
        image = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        write(image, tmp_path / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", n, values=(7, 23))
    data = open_labelled(tmp_path, DataOptions(layout="cityscapes", water_ids=(23,)))
    assert names(data.splits["train"]) == ["bonn_1", "ulm_0"]
    assert names(data.splits["validation"]) == ["bern_2"]
    assert data.splits["train"][0].group == "bonn"
    image, label = data.splits["validation"][0].read()
    assert (image == 2).all()
    assert (label == 255).sum() == 200
    with pytest.raises(DatasetError, match="--water-ids"):
        open_labelled(tmp_path, DataOptions(layout="cityscapes"))
    with pytest.raises(DatasetError, match="not laid out as Cityscapes"):
        open_labelled(tmp_path / "gtFine", DataOptions(layout="cityscapes", water_ids=(23,)))


def test_a_changed_file_changes_the_signature(folder):
    before = open_labelled(folder).signature
    assert open_labelled(folder).signature == before
    write(folder / "images" / "t0.png", folder / "masks" / "t0.png", 99)
    after = open_labelled(folder).signature
    assert after != before
    assert open_labelled(folder, DataOptions(water_ids=(1,))).signature != after


# What is wrong with the data ------------------------------------------------------------------------------------------


def first(folder, **options):
    return everything(open_labelled(folder, DataOptions(**options)))[0]


def test_a_label_of_another_size_is_named(folder):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(folder / "masks" / "t0.png")
    with pytest.raises(DatasetError, match=r"t0.png: the label is 6 x 5 px and its image 30 x 20 px"):
        first(folder).read()


def test_a_third_value_is_named(folder):
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(folder / "masks" / "t0.png")
    with pytest.raises(DatasetError, match=r"t0.png has the label values 77; expected 255"):
        first(folder).read()


def test_an_empty_mask_is_a_negative(folder):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "masks" / "t0.png")
    assert first(folder).name == "t0"
    assert not first(folder).read()[1].any()


def test_images_without_labels_are_named(folder):
    for n in (3, 5):
        (folder / "masks" / f"t{n}.png").unlink()
    with pytest.raises(DatasetError, match=r"2 of 10 images have no label .*: t3.png, t5.png\."):
        open_labelled(folder)


def test_labels_without_an_image_are_told(folder):
    (folder / "images" / "t3.png").unlink()
    assert any("t3.png" in line for line in open_labelled(folder).warnings)


def test_a_grey_image_becomes_three_equal_bands(folder):
    ramp = np.tile(np.arange(30, dtype=np.uint8), (20, 1))
    Image.fromarray(ramp).save(folder / "images" / "t0.png")
    assert (first(folder).read()[0] == ramp[..., None]).all()


def sixteen_bits(path, bands):
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": len(bands), "dtype": "uint16"}
    transform = rasterio.transform.from_origin(450_000, 5_300_000, 1, 1)
    with rasterio.open(path, "w", transform=transform, crs="EPSG:32610", **profile) as out:
        out.write(bands)


@pytest.mark.parametrize("count", [1, 3])
def test_sixteen_bits_are_stretched_and_it_is_said(folder, count):
    (folder / "images" / "t0.png").unlink()
    ramp = np.linspace(1000, 3000, 600).reshape(20, 30).astype(np.uint16)
    sixteen_bits(folder / "images" / "t0.tif", np.stack([ramp] * count))
    data = open_labelled(folder)
    assert any("t0.tif" in line and "percentiles 2 and 98" in line for line in data.warnings)
    image = everything(data)[0].read()[0]
    assert image.shape == (20, 30, 3)
    assert (image[0, 0] == 0).all()
    assert (image[-1, -1] == 255).all()
    assert abs(int(image[10, 0, 0]) - 128) < 4


def test_sixteen_bit_png_is_no_black_square(folder):
    ramp = np.linspace(1000, 3000, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "images" / "t0.png")
    assert open_labelled(folder).warnings
    assert abs(int(first(folder).read()[0][10, 0, 0]) - 128) < 4


def test_a_palette_of_a_tiff_is_looked_up(folder):
    (folder / "images" / "t0.png").unlink()
    indices = Image.new("P", (30, 20), 3)
    indices.putpalette([0, 0, 0] * 3 + [200, 100, 50] + [0, 0, 0] * 252)
    indices.save(folder / "images" / "t0.tif")
    assert (first(folder).read()[0] == (200, 100, 50)).all()


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_damaged_file_is_named(folder, kind):
    path = folder / kind / "t0.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DatasetError, match=rf"{kind}/t0.png cannot be read") as error:
        first(folder).read()
    assert "\n" not in str(error.value)


def test_a_few_damaged_files_are_left_out_and_named(folder):
    (folder / "images" / "t3.png").write_bytes(b"\x89PNG and no more")
    tiles = everything(open_labelled(folder))
    said = []
    kept = [tile.name for tile, _, _ in readable(tiles, most_bad=0.1, warn=said.append)]
    assert kept == [f"t{n}" for n in range(10) if n != 3]
    assert len(said) == 1
    assert "t3.png" in said[0]
    with pytest.raises(DatasetError, match="1 of 10 tiles cannot be read, more than 5%"):
        list(readable(tiles))


def test_a_wrong_label_is_no_damaged_file(folder):
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(folder / "masks" / "t3.png")
    with pytest.raises(DatasetError, match="77"):
        list(readable(everything(open_labelled(folder)), most_bad=0.5, warn=lambda _: None))


@pytest.mark.parametrize("source", ["nowhere", "no/where/at/all", "./org/name"])
def test_a_source_that_does_not_exist_is_told_without_the_network(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        open_labelled(source)


def test_a_folder_of_nothing_is_told_what_is_looked_for(tmp_path):
    with pytest.raises(DatasetError, match=r"no labelled tiles.*--image-suffix"):
        open_labelled(tmp_path)
    (tmp_path / "text.txt").write_text("no data")
    with pytest.raises(DatasetError, match="neither parquet nor an orthoimage"):
        open_labelled(tmp_path / "text.txt")


def test_one_tile_cannot_be_split(tmp_path):
    write(tmp_path / "images" / "t0.png", tmp_path / "masks" / "t0.png")
    data = open_labelled(tmp_path)
    assert (len(data.splits["train"]), len(data.splits["validation"])) == (1, 0)
    assert data.warnings
