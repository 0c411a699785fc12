"""``geosam relabel``: a whole turn of predict, correct, retrain, and each of its steps."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
import warnings
from contextlib import closing
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
import torch
from PIL import Image
from rasterio.features import shapes
from rasterio.transform import from_origin
from rasterio.windows import Window

from geosam import relabel
from geosam.cli import main
from geosam.datasets import open_labelled
from geosam.errors import OutputError, SceneError
from geosam.options import CoarseOptions, ModelOptions, SegmentOptions, TileOptions
from geosam.relabel import predicting
from geosam.relabel.queue import read_queue, update_scenes
from geosam.relabel.scores import Scores
from geosam.relabel.styles import STATUSES
from geosam.scene import Scene
from geosam.synth import make_tile

SIDE, UTM = 64, "EPSG:32632"
EVERYWHERE = SegmentOptions(coarse=CoarseOptions(method="hsv"), tiles=TileOptions(which="all"))


def grid(number):
    return from_origin(500_000 + 100 * number, 5_300_000, 1.0, 1.0)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Ten small scenes of wide blue rivers, s0.tif to s9.tif, and the water in each by name."""
    root, water = tmp_path_factory.mktemp("scenes"), {}
    for number in range(10):
        look = {"scene": "wide", "water": "blue", "season": "summer", "glint": 0.0, "whitewater": 0.0}
        tile = make_tile(number, SIDE, 1.0, **look)
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": SIDE, "width": SIDE, "crs": UTM}
        with rasterio.open(root / f"s{number}.tif", "w", transform=grid(number), **profile) as raster:
            raster.write(np.moveaxis(tile.rgb, -1, 0))
        water[f"s{number}"] = tile.water
    return root, water


def polygons(mask, number):
    found = shapes(mask.astype(np.uint8), mask=mask, transform=grid(number))
    return [shapely.geometry.shape(shape) for shape, _ in found]


def scenes(truth, *numbers):
    return [truth[0] / f"s{number}.tif" for number in numbers]


class Stub:
    """A model that calls water what is bluer than red by so much, in every view alike but for a bias."""

    name, tile_px, step_px, sha256, threshold = "stub", SIDE, None, "f" * 64, 0.5
    device, dtype, understands = torch.device("cpu"), torch.float32, frozenset({"points", "none"})

    def __init__(self, edge=0.0, iou=0.95, fickle=False):
        self.edge, self.iou, self.fickle, self.calls = edge, iou, fickle, 0

    def embed(self, images):
        self.calls += 1
        return images.float()

    def decode(self, embeddings, prompts):
        logits = (embeddings[:, 2] - embeddings[:, 0] - self.edge) / 2
        if self.fickle:  # Knows up from down: the lower half of what it sees is dry.
            logits[:, SIDE // 2 :] = -9
        return logits

    def ask(self, embeddings, prompts):
        return torch.zeros(len(prompts), 1, 4, 4), torch.full((len(prompts), 1), self.iou)


def predict(truth, out, *numbers, model=None, **settings):
    return relabel.predict(scenes(truth, *numbers), out, EVERYWHERE, model=model or Stub(), **settings)


@pytest.fixture(scope="module")
def predicted(truth, tmp_path_factory):
    """A queue of four scenes beside copies of them, to be copied by tests that change it."""
    folder = tmp_path_factory.mktemp("queue")
    for path in scenes(truth, 0, 1, 2, 3):
        shutil.copy(path, folder)
    found = relabel.predict([folder], folder / "queue.gpkg", EVERYWHERE, model=Stub(), views=2, accept_above=0.0)
    assert not found.failed
    assert len(gpd.read_file(folder / "queue.gpkg", layer="water")) >= 4
    return folder


@pytest.fixture
def queue(predicted, tmp_path):
    shutil.copytree(predicted, tmp_path / "work")
    return tmp_path / "work" / "queue.gpkg"


def rewrite(queue, **tables):
    """Replace layers, as a person's editing does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        for name, table in tables.items():
            pyogrio.write_dataframe(table, queue, layer=name, driver="GPKG", geometry_type="Unknown")


def correct(queue, truth, names):
    """What a person does in QGIS: the truth in place of the polygons."""
    water = gpd.read_file(queue, layer="water")
    kept = water[~water["scene"].isin(names)][["scene", "geometry"]]
    drawn = [(name, shape) for name in names for shape in polygons(truth[1][name], int(name[1:]))]
    new = gpd.GeoDataFrame({"scene": [name for name, _ in drawn]}, geometry=[shape for _, shape in drawn], crs=UTM)
    rewrite(queue, water=gpd.GeoDataFrame(pd.concat([kept, new], ignore_index=True), crs=UTM))


def set_status(queue, status, *names):
    update_scenes(queue, {name: {"status": status} for name in names})


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def picture(path):
    with Image.open(path) as image:
        return np.array(image)


def index(folder):
    with (folder / "index.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["relabel", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


# The whole turn -------------------------------------------------------------------------------------------------------


def test_a_whole_turn_makes_a_model_that_is_better_on_scenes_it_has_not_seen(truth, tiny_weights, tmp_path):
    from geosam.finetune import TuneOptions, finetune
    from geosam.models import load_model
    from geosam.pipeline import segment

    first = ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32")
    queue, names = tmp_path / "queue.gpkg", [f"s{number}" for number in range(8)]
    asked = EVERYWHERE.model_copy(update={"model": first})
    found = relabel.predict(scenes(truth, *range(8)), queue, asked, views=1, accept_above=0.99)
    assert found.accepted == 0
    correct(queue, truth, names)
    set_status(queue, "corrected", *names)
    relabel.export(queue, tmp_path / "tiles", person="Ada")
    how = {"epochs": 10, "batch": 4, "learning_rate": 3e-3, "none": 0, "dense": 0, "patience": 99}
    tuned = finetune(tmp_path / "tiles", first, tmp_path / "run", TuneOptions.of(how))
    second = first.model_copy(update={"name": str(tuned.folder)})
    scores = {}
    for step, model in (("first", first), ("second", second)):
        mask, found = tmp_path / f"{step}.tif", []
        for number in (8, 9):
            segment(scenes(truth, number)[0], asked.model_copy(update={"model": model}), mask=mask, overwrite=True)
            with rasterio.open(mask) as raster:
                found.append(iou(raster.read(1) == 1, truth[1][f"s{number}"]))
        scores[step] = np.mean(found)
    assert scores["second"] > scores["first"] + 0.2, scores
    again = relabel.predict(scenes(truth, 8, 9), tmp_path / "second.gpkg", asked.model_copy(update={"model": second}))
    assert set(again.scenes["model_sha256"]) == {load_model(second).sha256}


# Predict --------------------------------------------------------------------------------------------------------------


def test_the_queue_has_the_worst_first_and_all_that_qgis_needs(predicted):
    queue = predicted / "queue.gpkg"
    assert set(pyogrio.list_layers(queue)[:, 0]) == {"scenes", "water", "predicted", "layer_styles"}
    found = gpd.read_file(queue, layer="scenes")
    assert found["confidence"].is_monotonic_increasing
    assert found["rank"].tolist() == [1, 2, 3, 4]
    assert found.crs == UTM
    for row in found.itertuples():
        left, bottom, right, top = row.geometry.bounds
        assert (right - left, top - bottom, left) == (SIDE, SIDE, grid(int(row.scene[1:])).c)
        assert (row.model, row.model_sha256) == ("stub", "f" * 64)
    styles = pyogrio.read_dataframe(queue, layer="layer_styles", read_geometry=False)
    assert dict(zip(styles["f_table_name"], styles["useAsDefault"], strict=True)) == {"scenes": True, "water": True}
    tree = ElementTree.fromstring(styles["styleQML"][styles["f_table_name"] == "scenes"].iloc[0])
    widget = tree.find("fieldConfiguration/field[@name='status']/editWidget")
    assert widget.get("type") == "ValueMap"
    assert [option.get("value") for option in widget.iter("Option") if option.get("value")] == list(STATUSES)
    assert [category.get("value") for category in tree.iter("category")] == list(STATUSES)


def test_polygons_are_the_water_that_the_model_finds(predicted, truth):
    read = read_queue(predicted / "queue.gpkg")
    for row in read.scenes.itertuples():
        with rasterio.open(predicted / row.source) as raster:
            bands = raster.read().astype(int)
        found = rasterio.features.rasterize(
            list(read.of_scene("water", row, read.water.crs)), (SIDE, SIDE), transform=grid(int(row.scene[1:]))
        )
        assert iou(found == 1, bands[2] > bands[0]) > 0.9
        assert row.water == pytest.approx((bands[2] > bands[0]).mean(), abs=0.02)
    assert read.water.geometry.geom_equals(read.predicted.geometry).all()


def test_confident_scenes_are_accepted_and_the_rest_is_to_be_checked(truth, tmp_path):
    found = predict(truth, tmp_path / "q.gpkg", 0, 1, views=1, accept_above=0.0).scenes
    middle = float(found["confidence"].median())
    some = predict(truth, tmp_path / "r.gpkg", 0, 1, views=1, accept_above=middle)
    assert some.scenes["status"].tolist() == ["to_check", "accepted"]
    assert some.accepted == 1
    assert set(found["status"]) == {"accepted"}


@pytest.mark.parametrize(
    ("part", "worse"), [("predicted_iou", Stub(iou=0.3)), ("views_iou", Stub(fickle=True)), ("coarse_iou", Stub(-40.0))]
)
def test_every_part_of_the_confidence_falls_where_it_should(part, worse, truth, tmp_path):
    good = predict(truth, tmp_path / "g.gpkg", 0, views=3).scenes
    bad = predict(truth, tmp_path / "b.gpkg", 0, views=3, model=worse).scenes
    assert (bad[part] < good[part] - 0.1).all()
    assert (bad["confidence"] < good["confidence"]).all()


def test_stability_is_the_iou_of_moved_thresholds(truth, tmp_path):
    row = predict(truth, tmp_path / "q.gpkg", 0, views=1).scenes.iloc[0]
    with rasterio.open(scenes(truth, 0)[0]) as raster:
        bands = raster.read().astype(float)
    logits = (bands[2] - bands[0]) / 2
    assert row.stability == pytest.approx((logits > 1).sum() / (logits > -1).sum(), abs=0.02)
    assert np.isnan(row.views_iou)


def test_one_part_near_zero_is_enough_to_doubt_and_parts_that_are_missing_do_not_count():
    nan = float("nan")
    assert Scores(0.9, 0.9, 0.9, 0.9, 0.5).confidence == pytest.approx(0.9)
    assert Scores(nan, 0.9, nan, nan, 0.5).confidence == pytest.approx(0.9)
    assert Scores(1.0, 1.0, 0.01, 1.0, 0.5).confidence < 0.2


def test_every_view_costs_one_look(truth, tmp_path):
    model = Stub()
    predict(truth, tmp_path / "q.gpkg", 0, model=model, views=4)
    assert model.calls == 4


def test_a_scene_that_cannot_be_used_is_named_and_the_others_go_on(truth, tmp_path, monkeypatch, capsys):
    (tmp_path / "torn.tif").write_bytes(b"II*\x00")
    monkeypatch.setattr(predicting, "load_model", lambda options: Stub())
    code, out, err = run(
        capsys, "predict", *scenes(truth, 0), tmp_path / "torn.tif", "--coarse", "hsv", "--out", tmp_path / "q.gpkg"
    )
    assert code == 1
    assert "torn.tif is not a raster" in err
    assert re.search(r"q.gpkg: 1 scene, \d accepted, \d to check \(confidence 0\.\d\d to 0\.\d\d", out)
    with pytest.raises(SceneError, match=r"no scene of 1 can be used. First: .*torn"):
        relabel.predict([tmp_path / "torn.tif"], tmp_path / "r.gpkg", model=Stub())
    assert not (tmp_path / "r.gpkg").exists()


def test_scenes_of_one_name_are_told_apart(truth, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(scenes(truth, 1)[0], tmp_path / "other" / "s0.tif")
    found = relabel.predict(
        [*scenes(truth, 0), tmp_path / "other" / "s0.tif"], tmp_path / "q.gpkg", EVERYWHERE, model=Stub(), views=1
    )
    assert sorted(found.scenes["scene"]) == ["s0", "s0_2"]


def test_an_existing_queue_is_refused_and_untouched(truth, tmp_path):
    (tmp_path / "q.gpkg").write_text("hours of work")
    with pytest.raises(OutputError, match="exists already"):
        predict(truth, tmp_path / "q.gpkg", 0)
    assert (tmp_path / "q.gpkg").read_text() == "hours of work"
    predict(truth, tmp_path / "q.gpkg", 0, overwrite=True)
    assert len(read_queue(tmp_path / "q.gpkg").scenes) == 1


# Export ---------------------------------------------------------------------------------------------------------------


def test_masks_are_what_the_person_left_and_the_index_says_whose_they_are(queue, truth, tmp_path):
    correct(queue, truth, ["s0", "s1"])
    update_scenes(queue, {"s0": {"status": "corrected", "person": "Ada", "edited": "2026-01-02"}})
    set_status(queue, "corrected", "s1")
    set_status(queue, "rejected", "s3")
    done = relabel.export(queue, tmp_path / "tiles", person="Bo")
    assert (done.tiles, done.by, done.left) == (3, {"person": 2, "model": 1}, {"rejected": 1})
    for name in ("s0", "s1"):
        mask = picture(tmp_path / "tiles" / "masks" / f"{name}.png")
        assert np.array_equal(mask == 255, truth[1][name])
        seen, _ = Scene.open(str(truth[0] / f"{name}.tif")).read_rgb(Window(0, 0, SIDE, SIDE))
        assert np.array_equal(picture(tmp_path / "tiles" / "images" / f"{name}.png"), seen)
    rows = index(tmp_path / "tiles")
    assert set(rows) == {"s0.png", "s1.png", "s2.png"}
    assert (rows["s0.png"]["source"], rows["s0.png"]["date"], rows["s0.png"]["weight"]) == ("Ada", "2026-01-02", "1.0")
    assert rows["s1.png"]["source"] == "Bo"
    assert rows["s2.png"]["source"] == f"stub {'f' * 64}"
    assert rows["s2.png"]["weight"] == rows["s2.png"]["confidence"] != "1.0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rows["s2.png"]["date"])


def test_finetune_understands_what_was_exported(queue, tmp_path):
    relabel.export(queue, tmp_path / "tiles", chip_px=32)
    data = open_labelled(tmp_path / "tiles")
    tiles = [tile for split in data.splits.values() for tile in split]
    assert len(tiles) == 16
    assert {tile.group for tile in tiles} == {"s0", "s1", "s2", "s3"}
    assert all(0 < tile.weight < 1 for tile in tiles)
    image, label = tiles[0].read()
    assert (image.shape, set(np.unique(label)) <= {0, 255}) == ((32, 32, 3), True)


def test_polygons_that_were_moved_are_a_persons_whatever_the_status_says(queue, truth, tmp_path):
    correct(queue, truth, ["s2"])
    relabel.export(queue, tmp_path / "tiles", person="Ada")
    sources = {name: row["source"] for name, row in index(tmp_path / "tiles").items()}
    assert [name for name, source in sources.items() if source == "Ada"] == ["s2.png"]


def test_a_polygon_without_a_scene_belongs_where_it_lies(queue, tmp_path):
    nothing = gpd.read_file(queue, layer="water").iloc[:0]
    west = grid(1).c
    drawn = gpd.GeoDataFrame(
        {"scene": [None]}, geometry=[shapely.box(west + 4, 5_299_950, west + 14, 5_299_960)], crs=UTM
    )
    rewrite(queue, water=gpd.GeoDataFrame(pd.concat([nothing.astype({"scene": object}), drawn]), crs=UTM))
    set_status(queue, "corrected", "s0", "s1")
    relabel.export(queue, tmp_path / "tiles")
    masks = {name: picture(tmp_path / "tiles" / "masks" / f"{name}.png") for name in ("s0", "s1")}
    assert ((masks["s0"] == 255).sum(), (masks["s1"] == 255).sum()) == (0, 100)
    assert (masks["s1"][40:50, 4:14] == 255).all()


def test_a_layer_saved_in_another_crs_gives_the_same_masks(queue, truth, tmp_path):
    correct(queue, truth, ["s0"])
    set_status(queue, "corrected", "s0")
    rewrite(queue, water=gpd.read_file(queue, layer="water").to_crs("EPSG:4326"))
    relabel.export(queue, tmp_path / "tiles")
    mask = picture(tmp_path / "tiles" / "masks" / "s0.png")
    assert np.array_equal(mask == 255, truth[1]["s0"])


def test_scenes_of_several_crs_go_into_one_queue(truth, tmp_path):
    shutil.copy(scenes(truth, 0)[0], tmp_path / "utm.tif")
    with rasterio.open(tmp_path / "utm.tif") as raster:
        bands, profile = raster.read(), raster.profile
    with rasterio.open(tmp_path / "other.tif", "w", **{**profile, "crs": "EPSG:32633"}) as raster:
        raster.write(bands)
    relabel.predict(
        [tmp_path / "utm.tif", tmp_path / "other.tif"],
        tmp_path / "q.gpkg",
        EVERYWHERE,
        model=Stub(),
        views=1,
        accept_above=0,
    )
    assert gpd.read_file(tmp_path / "q.gpkg", layer="scenes").crs == "EPSG:4326"
    done = relabel.export(tmp_path / "q.gpkg", tmp_path / "tiles")
    assert done.by == {"model": 2}
    one, other = (picture(tmp_path / "tiles" / "masks" / f"{name}.png") for name in ("utm", "other"))
    assert np.array_equal(one, other)
    assert one.any()


def test_pixels_without_data_are_not_known(truth, tmp_path):
    with rasterio.open(scenes(truth, 0)[0]) as raster:
        bands, profile = raster.read(), raster.profile
    bands[:, :, :10] = 0
    with rasterio.open(tmp_path / "cut.tif", "w", **{**profile, "nodata": 0}) as raster:
        raster.write(bands)
    relabel.predict([tmp_path / "cut.tif"], tmp_path / "q.gpkg", EVERYWHERE, model=Stub(), views=1, accept_above=0)
    relabel.export(tmp_path / "q.gpkg", tmp_path / "tiles")
    mask = picture(tmp_path / "tiles" / "masks" / "cut.png")
    assert (mask[:, :10] == 128).all()
    assert set(np.unique(mask[:, 10:])) == {0, 255}


def test_an_existing_data_set_is_refused_and_something_else_never_replaced(queue, tmp_path):
    relabel.export(queue, tmp_path / "tiles")
    before = sorted(path.name for path in (tmp_path / "tiles" / "images").iterdir())
    with pytest.raises(OutputError, match="exists already"):
        relabel.export(queue, tmp_path / "tiles")
    set_status(queue, "rejected", "s0")
    relabel.export(queue, tmp_path / "tiles", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "tiles" / "images").iterdir()) == before[1:]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").touch()
    with pytest.raises(OutputError, match="something else"):
        relabel.export(queue, tmp_path / "thesis", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis", "tiles", "work"]


# Audit ----------------------------------------------------------------------------------------------------------------


def test_an_audit_draws_by_its_seed_and_a_larger_one_draws_more_to_it(queue):
    first = relabel.audit(queue, 2, seed=3)
    assert (len(first.sample), first.waiting, len(first.ious)) == (2, 2, 0)
    table = gpd.read_file(queue, layer="scenes").set_index("scene")
    assert set(table.index[table["audit"] == 1]) == set(first.sample)
    assert set(table["status"][table["audit"] == 1]) == {"to_check"}
    assert set(table["status"][table["audit"] == 0]) == {"accepted"}
    assert relabel.audit(queue, 2, seed=3).sample == first.sample
    assert set(first.sample) < set(relabel.audit(queue, 3, seed=3).sample)


def test_an_audit_draws_without_regard_to_confidence(queue, tmp_path):
    shutil.copytree(queue.parent, tmp_path / "again")
    drawn = set()
    for seed in range(5):
        shutil.copy(queue, tmp_path / "again" / "queue.gpkg")
        drawn |= set(relabel.audit(tmp_path / "again" / "queue.gpkg", 1, seed=seed).sample)
    assert len(drawn) >= 2


def test_the_shares_are_of_the_iou_between_prediction_and_correction(queue, capsys):
    relabel.audit(queue, 4)
    names = ["s0", "s1", "s2", "s3"]
    square = {"s0": 20, "s1": 16, "s2": 4}
    boxes = {name: shapely.box(c := grid(int(name[1:])).c, 5_299_980, c + 20, 5_300_000) for name in names}
    left = {
        name: shapely.box(*boxes[name].bounds[:2], boxes[name].bounds[0] + square[name], 5_300_000) for name in square
    }
    for layer, some in (("predicted", boxes), ("water", left)):
        rewrite(queue, **{layer: gpd.GeoDataFrame({"scene": list(some)}, geometry=list(some.values()), crs=UTM)})
    set_status(queue, "corrected", "s0", "s1", "s2")
    set_status(queue, "rejected", "s3")
    found = relabel.audit(queue)
    assert found.ious == pytest.approx({"s0": 1.0, "s1": 0.8, "s2": 0.2})
    assert (found.good, found.fair, found.rejected, found.waiting) == (pytest.approx(1 / 3), pytest.approx(2 / 3), 1, 0)
    code, out, _ = run(capsys, "audit", queue)
    assert code == 0
    assert out == "4 scenes drawn, 3 corrected, 1 rejected, 0 waiting\nIoU over 0.9: 33.3%; over 0.75: 66.7%\n"


def test_one_scene_is_not_one_scenes(queue, tmp_path, capsys):
    set_status(queue, "corrected", "s0")
    set_status(queue, "rejected", "s1", "s2", "s3")
    assert ": 1 tile of 1 scene, 1 by the person" in run(capsys, "export", queue, "--out", tmp_path / "tiles")[1]
    assert run(capsys, "audit", queue, "--audit", "1")[1].startswith("1 scene drawn, ")


def test_two_empty_masks_agree(queue):
    nothing = gpd.read_file(queue, layer="water").iloc[:0]
    relabel.audit(queue, 4)
    rewrite(queue, water=nothing, predicted=nothing.drop(columns="edited"))
    set_status(queue, "corrected", "s0")
    assert relabel.audit(queue).ious == {"s0": 1.0}


def test_drawing_leaves_a_persons_styles_and_polygons_alone(queue):
    with closing(sqlite3.connect(queue)) as database, database:
        database.execute("UPDATE layer_styles SET styleQML = 'mine'")
    before = gpd.read_file(queue, layer="water")
    relabel.audit(queue, 2)
    styles = pyogrio.read_dataframe(queue, layer="layer_styles", read_geometry=False)
    assert set(styles["styleQML"]) == {"mine"}
    assert before.equals(gpd.read_file(queue, layer="water"))


# Bad input ------------------------------------------------------------------------------------------------------------


def gone(queue):
    (queue.parent / "s1.tif").rename(queue.parent / "moved.tif")


def changed(queue):
    with rasterio.open(queue.parent / "s1.tif", "r+") as raster:
        raster.write(255 - raster.read())


def unknown_status(queue):
    set_status(queue, "Corrected ", "s2")


def no_status(queue):
    set_status(queue, None, "s2")


def no_crs(queue):
    rewrite(queue, water=gpd.read_file(queue, layer="water").set_crs(None, allow_override=True))


def nothing_accepted(queue):
    set_status(queue, "to_check", "s0", "s1", "s2", "s3")


def no_queue(queue):
    queue.unlink()
    rewrite(queue, rivers=gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM))


def torn(queue):
    queue.write_bytes(queue.read_bytes()[:1000])


def missing(queue):
    queue.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (gone, "out of date for 1 of 4 scenes: s1 is not at s1.tif"),
        (changed, r"out of date for 1 of 4 scenes: s1 was changed since \d{4}"),
        (unknown_status, "the scene s2 has the status 'Corrected '. Accepted are accepted, to_check"),
        (no_status, "the scene s2 has the status NULL"),
        (no_crs, "the polygons of the layer water have no CRS"),
        (nothing_accepted, "nothing to learn from: no scene of 4 is accepted"),
        (no_queue, "is no queue: it has no scenes"),
        (torn, "is not a GeoPackage that can be read"),
        (missing, "does not exist"),
    ],
)
def test_a_queue_that_cannot_be_used_is_one_line(spoil, message, queue, tmp_path, capsys):
    spoil(queue)
    code, _, err = run(capsys, "export", queue, "--out", tmp_path / "tiles")
    assert code == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("predict", "s0.tif", "--out", "q.gpkg", "--accept-above", "90"), "between 0 and 1, got 90"),
        (("predict", "s0.tif", "--out", "q.geojson"), "Use .gpkg"),
        (("audit", "queue.gpkg"), "no sample of queue.gpkg was drawn yet"),
        (("audit", "queue.gpkg", "--audit", "0"), "above 0, got 0"),
        (("export", "queue.gpkg", "--out", "t", "--chip", "8"), "at least 32 pixels, got 8"),
    ],
)
def test_options_out_of_range_are_one_line(args, message, queue, capsys, monkeypatch):
    monkeypatch.chdir(queue.parent)
    code, _, err = run(capsys, *args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_scene_without_crs_cannot_be_corrected_on_a_map(truth, tmp_path):
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "photo.png")
    options = EVERYWHERE.model_copy(update={"scene": EVERYWHERE.scene.model_copy(update={"allow_no_crs": True})})
    with pytest.raises(SceneError, match=r"photo.png has no CRS"):
        relabel.predict([tmp_path / "photo.png"], tmp_path / "q.gpkg", options, model=Stub())


def test_a_queue_and_its_scenes_may_move_together(queue, tmp_path):
    queue.parent.rename(tmp_path / "elsewhere")
    assert relabel.export(tmp_path / "elsewhere" / "queue.gpkg", tmp_path / "tiles").tiles == 4


def test_the_options_of_a_scene_are_those_of_its_prediction(truth, tmp_path):
    options = EVERYWHERE.model_copy(update={"scene": EVERYWHERE.scene.model_copy(update={"gsd": 2.0})})
    found = relabel.predict(scenes(truth, 0), tmp_path / "q.gpkg", options, model=Stub(), views=1, accept_above=0)
    assert json.loads(found.scenes["options"].iloc[0])["gsd"] == 2.0
    relabel.export(tmp_path / "q.gpkg", tmp_path / "tiles")
    assert picture(tmp_path / "tiles" / "masks" / "s0.png").shape == (SIDE // 2, SIDE // 2)
