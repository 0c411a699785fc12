"""Two places in one training tile: every label stays with the picture that it belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geosam.finetune import mixing
from geosam.finetune.batches import Batches
from geosam.finetune.mixing import Place, two_places
from geosam.finetune.recipe import DataSource, Recipe, Schedule, Stage
from geosam.finetune.samples import make_sample

SIDE = 64


def place(rng: np.random.Generator, light: int, wet: bool) -> Place:
    """A tile of one grey, its water twenty steps darker than its ground."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    if wet:
        top, left = rng.integers(8, 40, 2)
        label[top : top + 16, left : left + 12] = 255
    grey = np.where(label == 255, light - 20, light).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), label


@pytest.mark.parametrize("seed", range(30))
def test_every_label_is_that_of_the_place_seen_there(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_lit_alike", lambda image, model, share: image)  # Light tells the places apart.
    rng = np.random.default_rng(seed)
    here, there = place(rng, 80, bool(rng.integers(2))), place(rng, 200, bool(rng.integers(2)))
    image, label = two_places(here, there, rng)
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((SIDE, SIDE, 3), np.uint8, (SIDE, SIDE), np.uint8)
    # Labels that only one of them has tell which is seen there.
    only_there, only_here = (label == there[1]) & (label != here[1]), (label == here[1]) & (label != there[1])
    assert ((label == here[1]) | (label == there[1])).all()
    if only_here.any() and only_there.any():
        assert np.median(image[only_here]) < np.median(image[only_there])


def test_water_comes_with_its_banks_and_both_places_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_lit_alike", lambda image, model, share: image)
    shares, kept = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        dry, wet = place(rng, 80, False), place(rng, 200, True)
        image, label = two_places(dry, wet, rng)
        shares.append(float((image[..., 0] > 140).mean()))
        kept += bool((label == wet[1]).all())
    assert kept > 30  # Parted along water, or by a line that leaves it whole.
    assert 0.05 < np.mean(shares) < 0.7


def test_light_is_matched_by_a_share_of_the_difference() -> None:
    rng = np.random.default_rng(0)
    dark, bright = place(rng, 80, False)[0], place(rng, 200, False)[0]
    assert [int(mixing._lit_alike(bright, dark, share).mean()) for share in (0.0, 0.5, 1.0)] == [200, 140, 80]


def test_ignored_ground_stays_ignored() -> None:
    rng = np.random.default_rng(1)
    (image, label), other = place(rng, 80, True), place(rng, 200, True)
    label[:4] = 128
    found = two_places((image, label), other, rng)[1]
    assert ((found[:4] == 128) | (found[:4] == other[1][:4])).all()


def batches(folder: Path, **odds: float) -> Batches:
    stage = Stage(side=64, batch=4, prompts=False, weather=0.0, **odds)
    data = (DataSource(folder="synth", weight=1.0, scenes=2),)
    return Batches(Recipe(schedule=Schedule(stages=(stage,), steps=4), data=data), folder, folder / "synth")


def test_a_recipe_mixes_as_often_as_it_says(tmp_path: Path) -> None:
    plain, mixed = batches(tmp_path)[0], batches(tmp_path, mixed=1.0, mixed_dry=1.0)[0]
    assert (plain.images != mixed.images).any()


def test_a_recipe_that_does_not_mix_draws_what_it_drew_before(tmp_path: Path) -> None:
    made = batches(tmp_path)
    rng, wanted = np.random.default_rng([made.schedule.seed, 0]), []
    for _ in range(4):
        image, label = made._place(64, rng)
        rng.random()  # Whether there is weather.
        wanted.append(make_sample(image, label, rng, (1.0, 0.0, 0.0)).image)
    assert (np.asarray(made[0].images) == np.stack(wanted)).all()
