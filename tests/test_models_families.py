"""Every family of transformers behind one protocol: what it computes, over tiles, and how it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from families import CONFIGS, random_network, saved
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.windows import Window

import geosam
from geosam.cli import main
from geosam.errors import ModelError
from geosam.finetune import TuneOptions, finetune
from geosam.models import PromptableModel, load_model
from geosam.models.families import FAMILIES
from geosam.models.protocol import DRY_LOGIT
from geosam.models.segment_anything import CHUNK
from geosam.mosaic import Mosaic
from geosam.options import ModelOptions, SegmentOptions
from geosam.predict import run
from geosam.prompts import PAD, Prompts, no_prompts
from geosam.tiling import plan_tiles

pytestmark = pytest.mark.usefixtures("one_thread")

EMPTY = Prompts(np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.int64))


@pytest.fixture(scope="module", params=list(CONFIGS))
def family(request, tmp_path_factory):
    """A tiny random network, the folder it is saved in, and the adapter that is loaded from there."""
    network = random_network(request.param)
    folder = saved(network, tmp_path_factory.mktemp(request.param))
    return SimpleNamespace(name=request.param, network=network, folder=folder, model=loaded(folder))


def loaded(folder: Path, dtype: str = "float32") -> PromptableModel:
    return load_model(ModelOptions(name=str(folder), device="cpu", dtype=dtype))


def images(model, count=3):
    size = (count, 3, model.tile_px, model.tile_px)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def body(*points, labels=None, box=None, mask=None, many=False):
    """One water body; points as (x, y)."""
    labels = [1] * len(points) if labels is None else labels
    boxes = None if box is None else np.array([box], np.float32)
    xy = np.array(points, np.float32).reshape(1, -1, 2)
    return Prompts(xy, np.array([labels], np.int64).reshape(1, -1), boxes, mask, multimask=many)


ONE = body((10.5, 20.5), (40.0, 50.0), labels=[1, 0])
TWO = body((33.0, 8.5), (50.5, 50.0), (5.0, 5.0))


def several(*rows):
    """The bodies of one tile as one Prompts, padded."""
    widest = max(row.labels.shape[1] for row in rows)
    points, labels = np.zeros((len(rows), widest, 2), np.float32), np.full((len(rows), widest), PAD)
    for i, row in enumerate(rows):
        points[i, : row.labels.shape[1]], labels[i, : row.labels.shape[1]] = row.points[0], row.labels[0]
    return Prompts(points, labels)


def plain(family, image, *, many=False, **prompt):
    """The family's own forward pass, of several masks the one of highest predicted IoU, at the tile's size.

    Normalised as the family's image processor does: by ImageNet's statistics, SAM 3 to -1 to 1.
    """
    mean, std = ([0.5] * 3, [0.5] * 3) if family.name == "sam3" else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    pixels = (image.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        out = family.network(pixel_values=pixels[None], multimask_output=many, **prompt)
    low = out.pred_masks[0, 0, out.iou_scores[0, 0].argmax()]
    return torch.nn.functional.interpolate(low[None, None], image.shape[1:], mode="bilinear")[0, 0]


def close(found, expected, tolerance=1e-4):
    """Equal to the tolerance, or to as much of the spread of logits, where that is wide."""
    torch.testing.assert_close(found, expected, atol=tolerance * max(1.0, float(expected.std())), rtol=tolerance)


# What the adapter computes -------------------------------------------------------------------------------------------


def test_it_is_a_promptable_model(family):
    model = family.model
    assert isinstance(model, PromptableModel)
    assert model.tile_px == (56 if family.name == "sam3" else 64)
    assert (model.threshold, model.understands, model.step_px) == (0.5, frozenset({"points", "boxes"}), None)
    assert model.name == family.folder.name


def test_the_random_model_answers_to_its_prompts_and_image(family):
    """Guards the other tests: masks that are all alike would make them pass for nothing."""
    first, second = (family.model.decode(family.model.embed(images(family.model, 2)), [p] * 2) for p in (ONE, TWO))
    assert first.std() > 0.05
    assert (first - second).abs().max() > 0.05
    assert (first[0] - first[1]).abs().max() > 0.05


POINTS = {"input_points": torch.tensor([[[[10.0, 20.0], [39.5, 49.5]]]]), "input_labels": torch.tensor([[[1, 0]]])}
BOX = {"input_boxes": torch.tensor([[[3.5, 7.5, 43.5, 49.5]]])}
QUESTIONS = {
    "points": (ONE, POINTS),
    "box": (body(box=(4, 8, 44, 50)), BOX),
    "points and box": (body((10.5, 20.5), (40.0, 50.0), labels=[1, 0], box=(4, 8, 44, 50)), {**POINTS, **BOX}),
    "three masks": (replace(ONE, multimask=True), {**POINTS, "many": True}),
}


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_it_gives_what_the_familys_own_forward_pass_gives(family, question):
    asked, prompt = QUESTIONS[question]
    image = images(family.model, 1)
    close(family.model.decode(family.model.embed(image), [asked])[0], plain(family, image[0], **prompt))


@pytest.mark.parametrize("question", ["mask", "none"])
def test_what_it_was_taught_is_asked_as_the_family_asks_it(family, question, tmp_path):
    side = family.model.tile_px
    taught = saved(family.network, tmp_path)
    (taught / "geosam.json").write_text('{"threshold": 0.4, "understands": ["points", "mask", "none"]}')
    model, image = loaded(taught), images(family.model, 1)
    assert model.threshold == 0.4
    if question == "none":
        close(model.decode(model.embed(image), [no_prompts()])[0], plain(family, image[0]))
        return
    mask = np.zeros((side, side), bool)
    mask[:, : side // 2] = True
    cells = 16
    logits = torch.where(torch.arange(cells) < cells // 2, 6.0, -6.0).expand(1, 1, cells, cells)
    hinted = model.decode(model.embed(image), [body((10.5, 20.5), (40.0, 50.0), labels=[1, 0], mask=mask)])[0]
    close(hinted, plain(family, image[0], input_masks=logits, **POINTS))


def test_stock_weights_are_not_asked_without_a_prompt_and_told_who_is(family):
    with pytest.raises(ModelError, match=r"understands boxes, points.*--model river-tiny") as caught:
        family.model.decode(family.model.embed(images(family.model, 1)), [no_prompts()])
    assert "\n" not in str(caught.value)


def test_a_batch_gives_what_its_tiles_give_alone(family):
    model, tiles = family.model, images(family.model)
    prompts = [several(ONE, TWO), EMPTY, TWO]
    together = model.decode(model.embed(tiles), prompts)
    assert together.dtype == torch.float32
    assert (together[1] == DRY_LOGIT).all()
    for i, prompt in enumerate(prompts):
        close(together[i], model.decode(model.embed(tiles[i : i + 1]), [prompt])[0])


def test_bodies_are_joined_by_their_maximum_however_many(family):
    model = family.model
    embedded = model.embed(images(model, 1))
    rows = [body(*np.random.default_rng(n).uniform(0, model.tile_px, (2, 2))) for n in range(CHUNK["cpu"] + 3)]
    expected = torch.stack([model.decode(embedded, [row]) for row in rows]).amax(0)
    close(model.decode(embedded, [several(*rows)]), expected)


def test_embedding_is_done_once_for_any_number_of_questions(family, monkeypatch):
    model = family.model
    embedded = model.embed(images(model, 2))
    monkeypatch.setattr(type(model), "_features", None)  # Whoever encodes again fails.
    assert not torch.equal(model.decode(embedded, [ONE, TWO]), model.decode(embedded, [TWO, ONE]))


def test_bfloat16_is_close_to_float32(family):
    rough = loaded(family.folder, "bfloat16")
    prompts = [several(ONE, TWO), TWO]
    exact, low = (m.decode(m.embed(images(m, 2)), prompts) for m in (family.model, rough))
    assert low.dtype == torch.float32
    # A random network's own steps are steep; what must not happen is another mask.
    assert 0 < (low - exact).abs().mean() < 0.2 * exact.std()


def test_kept_embeddings_are_embeddings(family):
    model = family.model
    embedded = model.embed(images(model, 2))
    again = model.unpack(model.pack(embedded))
    assert torch.equal(model.decode(again, [ONE, TWO]), model.decode(embedded, [ONE, TWO]))


def test_tiles_of_another_size_are_a_programmers_error(family):
    with pytest.raises(ValueError, match="tiles must be uint8"):
        family.model.embed(torch.zeros((1, 3, 32, 32), dtype=torch.uint8))


# Over tiles ----------------------------------------------------------------------------------------------------------


class Ground:
    """A scene and its coarse mask in one, out of an array."""

    def __init__(self, rgb):
        self.rgb, self.shape, self.source, self.stretch = rgb, rgb.shape[:2], "ground.tif", None
        self.geobox = GeoBox(self.shape, rasterio.Affine(1, 0, 500_000, 0, -1, 5_300_000), "EPSG:32610")

    def _cut(self, array, window: Window):
        return array[int(window.row_off) :, int(window.col_off) :][: int(window.height), : int(window.width)]

    def read_rgb(self, window: Window):
        return self._cut(self.rgb, window), np.ones((int(window.height), int(window.width)), bool)

    def read(self, window: Window):
        known = np.ones((int(window.height), int(window.width)), bool)
        return known, known


@pytest.mark.parametrize("batch", [1, 4])
def test_a_scene_of_tiles_is_what_the_model_gives_tile_by_tile(family, batch, tmp_path):
    model, side = family.model, family.model.tile_px
    ground = Ground(np.random.default_rng(0).integers(1, 256, (2 * side, 3 * side, 3), np.uint8))
    plan = plan_tiles(ground.shape, side, 0)
    mosaic = Mosaic.open(tmp_path / "o.work", plan, ground.geobox)
    options = SegmentOptions.model_validate({"model": {"batch_size": batch}})
    report = run(ground, ground, plan, model, options, mosaic, sampler=lambda *_: several(ONE, TWO))
    assert (report.run, report.failed) == (6, 0)
    for row in (0, side):
        for col in (0, side, 2 * side):
            tile = torch.from_numpy(ground.rgb[row : row + side, col : col + side].transpose(2, 0, 1).copy())[None]
            expected = model.decode(model.embed(tile), [several(ONE, TWO)])[0].sigmoid().numpy()
            found = mosaic.read(Window(col, row, side, side))
            np.testing.assert_allclose(found, expected, atol=0.5 / 250)


def test_segment_runs_it_by_the_folders_name(family, river_tif, tmp_path):
    settings = {"name": str(family.folder), "device": "cpu", "dtype": "float32"}
    options = SegmentOptions.model_validate({"model": settings})
    geosam.segment(river_tif, options, out=tmp_path / "r.geojson", report=tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model"]["sha256"] == family.model.sha256
    assert report["tiles"]["failed"] == 0
    assert report["tiles"]["run"] > 0
    assert (tmp_path / "r.geojson").is_file()


def test_a_run_without_prompts_is_refused_before_it_starts_and_told_who_could(family, river_tif, tmp_path, capsys):
    call = ["segment", str(river_tif), "--model", str(family.folder), "--prompts", "none", "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main([*call, "--out", str(tmp_path / "r.geojson")])
    text = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert "cannot find water without a prompt" in text
    assert "choose --model river-tiny" in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ponds(tmp_path_factory):
    """Dark discs on speckled ground, and their labels."""
    folder = tmp_path_factory.mktemp("ponds")
    y, x = np.mgrid[:56, :56]
    for split, count in (("train", 6), ("validation", 3)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for n in range(count):
            rng = np.random.default_rng(n + 100 * len(split))
            water = (x - rng.uniform(16, 40)) ** 2 + (y - rng.uniform(16, 40)) ** 2 < rng.uniform(9, 14) ** 2
            image = rng.integers(90, 150, (56, 56, 3)).astype(np.uint8)
            image[water] = (30, 50, 90)
            Image.fromarray(image).save(folder / split / "images" / f"{split}{n}.png")
            Image.fromarray(np.where(water, 255, 0).astype(np.uint8)).save(folder / split / "masks" / f"{split}{n}.png")
    return folder


def test_its_decoder_learns_and_the_rest_stays(family, ponds, tmp_path):
    settings = ModelOptions(name=str(family.folder), device="cpu", dtype="float32")
    options = {
        "epochs": 6,
        "batch": 3,
        "learning_rate": 3e-3,
        "patience": 99,
        "train": "decoder",
        "none": 0,
        "dense": 0,
    }
    tuned = finetune(ponds, settings, tmp_path / "run", TuneOptions.of(options))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    before = family.model.module.state_dict()
    after = loaded(tuned.folder).module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("mask_decoder.") for name in moved)


def test_its_encoder_learns_where_it_is_to(family, ponds, tmp_path):
    train = "all" if family.name == "sam2" else "lora"
    settings = ModelOptions(name=str(family.folder), device="cpu", dtype="float32")
    tuned = finetune(ponds, settings, tmp_path / "run", TuneOptions.of({"epochs": 1, "batch": 3, "train": train}))
    before = family.model.module.state_dict()
    after = loaded(tuned.folder).module.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"vision_encoder", "mask_decoder"} <= moved


def test_every_family_is_tested():
    assert set(CONFIGS) == set(FAMILIES)
