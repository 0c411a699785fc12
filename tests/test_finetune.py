"""Training: samples ask for what their prompts say, losses are right, runs repeat and go on."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from geosam.errors import DatasetError, OutputError
from geosam.finetune import loop
from geosam.finetune.augment import _bands, crop, turn, weather
from geosam.finetune.batches import Batches, collate
from geosam.finetune.loop import train
from geosam.finetune.losses import binary_cross_entropy, dice, intersection_over_union, iou_head
from geosam.finetune.recipe import Recipe
from geosam.finetune.samples import coarse_with_mistakes, dense_prompt, make_sample
from geosam.models import load_model
from geosam.models.network import TinySam, TinySamConfig
from geosam.options import ModelOptions

SIDE = 64


def two_ponds():
    image = np.full((SIDE, SIDE, 3), 150, np.uint8)
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[5:25, 5:25] = label[40:60, 36:60] = 255
    image[label == 255] = (60, 80, 70)
    return image, label


def samples(count=200):
    rng = np.random.default_rng(0)
    return [make_sample(*two_ponds(), rng) for _ in range(count)]


def test_no_prompt_and_the_dense_hint_ask_for_all_water():
    _, label = two_ponds()
    for sample in samples():
        if sample.mask is not None or (len(sample.points) == 0 and sample.box is None):
            assert np.array_equal(sample.label, label)


def test_points_alone_ask_for_the_ponds_they_lie_in_and_no_other():
    alone = [s for s in samples() if s.mask is None and len(s.points) and s.box is None]
    assert len(alone) > 20
    for sample in alone:
        wet = sample.points[sample.labels == 1].astype(int)
        for pond in (np.s_[5:25, 5:25], np.s_[40:60, 36:60]):
            inside = [pond[0].start <= y < pond[0].stop and pond[1].start <= x < pond[1].stop for x, y in wet]
            assert (sample.label[pond] == 255).all() == any(inside)


def test_points_on_dry_ground_ask_for_nothing():
    rng = np.random.default_rng(1)
    image = np.full((SIDE, SIDE, 3), 150, np.uint8)
    drawn = [make_sample(image, np.zeros((SIDE, SIDE), np.uint8), rng) for _ in range(60)]
    assert any(len(sample.points) for sample in drawn)
    assert all(not sample.label.any() for sample in drawn)


def test_the_spoilt_coarse_mask_is_like_the_truth_but_not_it(monkeypatch):
    image, label = two_ponds()
    rng = np.random.default_rng(2)
    monkeypatch.setattr("geosam.finetune.samples.guess_water", lambda rgb, valid: label == 255)
    overlaps = [(coarse_with_mistakes(image, label, rng) == (label == 255)).mean() for _ in range(40)]
    assert np.median(overlaps) > 0.85
    assert min(overlaps) < 0.97


def test_the_dense_prompt_is_the_share_of_water():
    water = np.zeros((8, 8), bool)
    water[:4, :2] = True
    assert dense_prompt(water).tolist() == [[0, -1], [-1, -1]]


def test_cropping_and_turning_keep_image_and_label_together():
    image = np.zeros((50, 70, 3), np.uint8)
    label = np.zeros((50, 70), np.uint8)
    label[10:30, 20:50], image[10:30, 20:50] = 255, 255
    rng = np.random.default_rng(3)
    for _ in range(30):
        picture, truth = turn(*crop(image, label, 32, (1.0, 1.0), rng), rng)
        known = truth != 128
        assert picture.shape == (32, 32, 3)
        assert ((picture[..., 0] > 127) == (truth == 255))[known].all()


def test_what_lies_beyond_an_image_is_ignored():
    image, label = np.zeros((40, 90, 3), np.uint8), np.full((40, 90), 255, np.uint8)
    picture, truth = crop(image, label, 64, (1.0, 1.0), np.random.default_rng(0))
    assert picture.shape == (64, 64, 3)
    assert (truth == 128).any()


def test_weather_changes_the_light_and_keeps_the_size():
    image, _ = two_ponds()
    changed = [weather(image, np.random.default_rng(seed)) for seed in range(10)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert len({c.tobytes() for c in changed}) == 10


def masks(values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_losses_by_hand():
    logits, target, known = masks([0.0, 0.0, 9.0]), masks([1.0, 0.0, 0.0]), masks([1.0, 1.0, 0.0])
    assert binary_cross_entropy(logits, target, known).item() == pytest.approx(math.log(2))
    # Overlap 0.5, sizes 1 and 1: one minus (2 * 0.5 + s) / (2 + s).
    assert dice(logits, target, known, smooth=1.0).item() == pytest.approx(1 - 2 / 3)
    assert intersection_over_union(masks([3.0, 3.0, -3.0]), masks([1.0, 0.0, 0.0]), masks([1, 1, 1])).item() == 0.5
    assert iou_head(torch.tensor([[0.75]]), logits + 1, target, known).item() == pytest.approx(0.0625)


def test_ignored_pixels_do_not_count():
    target, known = masks([1.0, 0.0]), masks([1.0, 0.0])
    for loss in (binary_cross_entropy, dice):
        assert loss(masks([2.0, 50.0]), target, known).item() == loss(masks([2.0, -50.0]), target, known).item()


def test_empty_against_empty_is_a_full_score():
    assert intersection_over_union(masks([-3.0]), masks([0.0]), masks([1.0])).item() == 1


@pytest.fixture
def recipe(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "ponds" / name).mkdir(parents=True)
    for n in range(3):
        image, label = two_ponds()
        Image.fromarray(image).save(tmp_path / "ponds" / "images" / f"{n}.png")
        Image.fromarray(label).save(tmp_path / "ponds" / "masks" / f"{n}.png")
    return Recipe.model_validate({
        "schedule": {"minutes": 60, "steps": 4, "warmup_steps": 2, "stages": [
            {"until": 0.5, "side": 32, "batch": 4, "large_every": 2, "prompts": False}, {"side": 32, "batch": 3}]},
        "model": {"image_size": 64},
        "data": [{"folder": "ponds", "weight": 1}, {"folder": "synth", "weight": 0.2, "scenes": 2}],
    })  # fmt: skip


def test_the_nth_batch_is_always_the_same(recipe, tmp_path):
    first, again = (Batches(recipe, tmp_path, tmp_path / "cache") for _ in range(2))
    for n in range(4):
        assert torch.equal(first[n].images, again[n].images)
        assert torch.equal(first[n].points, again[n].points)


def test_stages_follow_the_steps_or_the_clock(recipe, tmp_path):
    batches = Batches(recipe, tmp_path, tmp_path / "cache")
    assert [tuple(batches[n].images.shape) for n in range(4)] == [
        (4, 3, 32, 32), (1, 3, 64, 64), (3, 3, 32, 32), (3, 3, 32, 32)]  # fmt: skip
    assert [batches[n].prompts for n in range(4)] == [False, False, True, True]
    batches.reach(0.6)
    assert batches[0].prompts


def test_padding_is_marked_and_rounded_up(recipe, tmp_path):
    batch = collate(samples(8), (0.0, 0.0))
    assert batch.points.shape[1] % 8 == 0
    assert (batch.labels == -1).any()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_run_that_was_cut_off_goes_on_with_the_same_curve(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    train(recipe, tmp_path, tmp_path / "runs" / "whole")
    calls = []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*args)

    step = loop._step
    monkeypatch.setattr(loop, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, tmp_path / "runs" / "cut")
    train(recipe, tmp_path, tmp_path / "runs" / "cut", resume=True)
    whole, cut = (torch.load(tmp_path / "runs" / n / "state.pt", weights_only=True) for n in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 4
    # Adam makes a whole step of a rounding error's sign, so single weights may differ; a batch that
    # was skipped or learned twice moves all of them.
    moved = [(value.float() - cut["model"][name].float()).abs().mean() for name, value in whole["model"].items()]
    assert max(moved) < 2e-4
    log = (tmp_path / "runs" / "whole" / "log.jsonl").read_text().splitlines()
    assert math.isfinite(json.loads(log[0])["water_bce"])
    weights = tmp_path / "runs" / "whole" / "model.safetensors"
    assert load_model(ModelOptions(name=str(weights))).tile_px == 64


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_training_does_not_overwrite_a_run_unasked(recipe, tmp_path):
    out = tmp_path / "runs" / "earlier"
    out.mkdir(parents=True)
    files = [out / name for name in ("state.pt", "log.jsonl")]
    for path in files:
        path.write_text("earlier")
    with pytest.raises(OutputError, match=r"holds a run already\. Give --resume to go on, --overwrite to begin again"):
        train(recipe, tmp_path, out)
    with pytest.raises(DatasetError, match="has no subfolder images"):  # A fault of the data costs no earlier run.
        train(recipe, tmp_path / "nowhere", out, overwrite=True)
    assert [path.read_text() for path in files] == ["earlier", "earlier"]
    assert [path.name for path in out.parent.iterdir()] == ["earlier"]  # Nor does it leave a folder behind.
    short = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"steps": 1})})
    train(short, tmp_path, out, overwrite=True)
    assert torch.load(files[0], weights_only=True)["step"] == 1
    assert [json.loads(line)["step"] for line in files[1].read_text().splitlines()] == [0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_part_may_end_before_its_budget_at_the_rate_that_it_has(recipe, tmp_path):
    short = recipe.schedule.model_copy(update={"steps": 4, "stages": recipe.schedule.stages[:1]})
    steps, rates = [], []
    for ends in (1.0, 0.5):
        out = tmp_path / "runs" / f"{ends}"
        schedule = short.model_copy(update={"ends": ends})
        train(recipe.model_copy(update={"schedule": schedule}), tmp_path, out)
        state = torch.load(out / "state.pt", weights_only=True)
        steps.append(state["step"])
        rates.append(state["optimizer"]["param_groups"][0]["lr"])
    assert steps == [4, 2]
    assert rates[1] > rates[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_frozen_parts_stay_as_they_are_and_the_backbone_learns_at_its_own_rate(recipe, tmp_path):
    changes = {"frozen": 2, "backbone_rate": 0.25, "steps": 2, "stages": recipe.schedule.stages[:1]}
    schedule = recipe.schedule.model_copy(update=changes)
    slow = recipe.model_copy(
        update={"schedule": schedule, "model": {"image_size": 64, "backbone": "efficientnet_lite0"}}
    )
    torch.manual_seed(schedule.seed)
    before = TinySam(TinySamConfig(**slow.model)).state_dict()
    train(slow, tmp_path, tmp_path / "runs" / "slow")
    state = torch.load(tmp_path / "runs" / "slow" / "state.pt", weights_only=True)
    changed = {name for name, value in state["model"].items() if not torch.equal(value, before[name])}
    backbone = {name.split("backbone.")[1] for name in changed if "backbone." in name}
    assert {name[: len("stages.n")] for name in backbone} == {"stages.1", "stages.2", "stages.3"}
    rates = {group["share"]: group["lr"] for group in state["optimizer"]["param_groups"]}
    assert rates[0.25] == pytest.approx(rates[1.0] / 4)


def test_some_pictures_lose_their_colour_or_their_blue_band():
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    seen = [_bands(image, np.random.default_rng(seed)) for seed in range(300)]
    grey = [x for x in seen if (x[..., 0] == x[..., 1]).all() and (x[..., 1] == x[..., 2]).all()]
    same = [x for x in seen if np.array_equal(x, image)]
    borrowed = [x for x in seen if any(np.array_equal(x, image[..., [0, 1, band]]) for band in (0, 1))]
    assert len(grey) + len(same) + len(borrowed) == 300
    assert min(len(grey), len(borrowed)) > 3
    assert len(same) > 250
