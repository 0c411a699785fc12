"""Labelled folders: what is taken, what is left out, what is refused."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from geosam.datasets import load_folder
from geosam.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """Four tiles in two groups, an index, and one image without water."""
    for name in ("images", "masks", "negatives"):
        (tmp_path / name).mkdir()
    for n in range(4):
        Image.fromarray(np.full((20, 30, 3), n, np.uint8)).save(tmp_path / "images" / f"t{n}.png")
        label = np.zeros((20, 30), np.uint8)
        label[:, :10], label[0] = 255, 128
        Image.fromarray(label).save(tmp_path / "masks" / f"t{n}.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "negatives" / "dry.png")
    rows = ["file,group,split,tier", "images/t0.png,A,train,A", "t1,A,train,B", "t2,E,dev,A", "t3,E,dev,A"]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    return tmp_path


def names(pairs):
    return [pair.name for pair in pairs]


def test_everything_is_listed_by_default(folder):
    assert names(load_folder(folder)) == ["t0", "t1", "t2", "t3", "dry"]


def test_the_index_is_understood(folder):
    pair = load_folder(folder)[1]
    assert (pair.group, pair.split, pair.facts["tier"]) == ("A", "train", "B")


def test_held_out_groups_and_splits_do_not_come(folder):
    assert names(load_folder(folder, except_groups=["E"], negatives=False)) == ["t0", "t1"]
    assert names(load_folder(folder, splits=["dev"], negatives=False)) == ["t2", "t3"]
    assert names(load_folder(folder, names="t[0-1]", negatives=False)) == ["t0", "t1"]


def test_half_of_an_image_is_half_of_its_label(folder):
    image, label = load_folder(folder, columns=(0.5, 1.0))[0].read()
    assert image.shape == (20, 15, 3)
    assert not (label == 255).any()


def test_a_negative_is_dry_all_over(folder):
    image, label = load_folder(folder)[-1].read()
    assert image.shape[:2] == label.shape
    assert not label.any()


def test_labels_of_zero_and_one_are_understood(folder):
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(folder / "masks" / "t0.png")
    _, label = load_folder(folder)[0].read()
    assert (label == 255).sum() == 20


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: Image.fromarray(np.zeros((5, 5), np.uint8)).save(f / "masks" / "t0.png"), "grid"),
        (lambda f: Image.fromarray(np.full((20, 30), 77, np.uint8)).save(f / "masks" / "t0.png"), "77"),
        (lambda f: (f / "masks" / "t0.png").unlink(), "no label"),
        (lambda f: (f / "images" / "t0.png").write_text("no image"), "cannot be read"),
    ],
)
def test_bad_data_is_named(folder, spoil, word):
    spoil(folder)
    with pytest.raises(DatasetError, match=word):
        load_folder(folder)[0].read()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="images"):
        load_folder(tmp_path)


def test_sixteen_bit_images_are_stretched_rather_than_wrapped(folder):
    (folder / "images" / "t0.png").unlink()
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": 3, "dtype": "uint16", "crs": "EPSG:32610"}
    transform = rasterio.transform.from_origin(450_000, 5_300_000, 1, 1)
    with rasterio.open(folder / "images" / "t0.tif", "w", transform=transform, **profile) as out:
        out.write(np.tile(np.linspace(1000, 3000, 30).astype(np.uint16), (3, 20, 1)))
    image, _ = load_folder(folder)[0].read()
    assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()
    assert (image[:, 0] == 0).all()
    assert (image[:, -1] == 255).all()
