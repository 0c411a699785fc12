"""Tiles in other colours: water and land are told apart still, what is drawn on them stays, shadows stay land."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geosam.finetune import batches
from geosam.finetune.batches import Batches
from geosam.finetune.recipe import DataSource, Recipe, Schedule, Stage
from geosam.finetune.repainting import APART, repainted, shaded

SIDE = 96
UInt8 = NDArray[np.uint8]


def river(rng: np.random.Generator) -> tuple[UInt8, UInt8]:
    """A dark river with a bright boat, through rough forest."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    label[:, 40:60] = 255
    forest = rng.normal(90, 12, (SIDE, SIDE, 1)) * np.array([0.8, 1.1, 0.7])
    image = np.where(label[..., None] == 255, np.array([40.0, 50.0, 52.0]), forest)
    image[20:26, 46:52] = 220
    return image.clip(0, 255).astype(np.uint8), label


def means(image: UInt8, label: UInt8) -> NDArray[np.float64]:
    return np.stack([image[label == 255].mean(axis=0), image[label == 0].mean(axis=0)]) / 255


def test_the_two_get_colours_of_their_own_and_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    image, label = river(rng)
    before = means(image, label)
    after = np.stack([means(repainted(image, label, rng), label) for _ in range(200)])
    moved = np.abs(after - before).max(axis=2) > 0.05  # (200, 2): water, land.
    assert (moved.mean(axis=0) > 0.4).all()
    assert (~moved).any(axis=0).all()  # At times one of the two stays as it was.
    assert (np.abs(after[:, 0] - after[:, 1]).max(axis=1) > 0.6 * APART).all()  # The bank is blurred, the means nearer.
    brighter = (after[:, 0].mean(axis=1) > after[:, 1].mean(axis=1)).mean()
    assert 0.25 < brighter < 0.75  # Dark land with bright water is as common as the other way round.


def test_what_is_drawn_on_water_and_land_stays() -> None:
    rng = np.random.default_rng(1)
    image, label = river(rng)
    inner = np.zeros((SIDE, SIDE), bool)
    inner[:, 70:] = True  # Away from the blurred bank.
    for _ in range(30):
        new = repainted(image, label, rng).astype(float).mean(axis=2)
        assert new[21:25, 47:51].mean() > new[40:, 46:54].mean()  # The boat on the river.
        if new[inner].min() > 0 and new[inner].max() < 255:
            assert np.corrcoef(new[inner], image.astype(float).mean(axis=2)[inner])[0, 1] > 0.9


@pytest.mark.parametrize("value", [0, 255, 128])
def test_a_tile_of_one_kind_gets_one_colour(value: int) -> None:
    rng = np.random.default_rng(2)
    image, _ = river(rng)
    label = np.full((SIDE, SIDE), value, np.uint8)
    new = np.stack([repainted(image, label, rng).mean() for _ in range(20)])
    assert new.std() > 10


def test_wide_water_is_no_lighter_than_a_beach() -> None:
    rng = np.random.default_rng(4)
    image, label = river(rng)
    label[:] = 255
    for limits, least, most in (((0.6, 0.6), 0.4, 0.7), ((0.6, 0.2), 0.1, 0.26)):
        lightest = max(float(repainted(image, label, rng, limits).mean()) for _ in range(100)) / 255
        assert least < lightest < most


def test_shadows_darken_a_part_and_lighten_nothing() -> None:
    rng = np.random.default_rng(3)
    image = np.full((SIDE, SIDE, 3), 160, np.uint8)
    for _ in range(30):
        darker = 160 - shaded(image, np.zeros((SIDE, SIDE), np.uint8), rng).astype(int)
        assert darker.min() >= 0
        assert 0.03 < (darker[..., 0] > 40).mean() < 0.7


def test_a_recipe_has_its_share_of_them(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {"repainted": 0, "shaded": 0}

    def counted(name: str):
        def change(image: UInt8, label: UInt8, rng: np.random.Generator, *how: object) -> UInt8:
            seen[name] += 1
            return 255 - image

        return change

    for name in seen:
        monkeypatch.setattr(batches, name, counted(name))

    def batch(**shares: float):
        stage = Stage(side=64, batch=24, weather=0.0, **shares)
        schedule = Schedule(minutes=1, steps=2, stages=(stage,))
        source = DataSource(folder="synth", weight=1.0, scenes=1)
        return Batches(Recipe(schedule=schedule, data=(source,)), tmp_path, tmp_path / "synth")[0]

    plain = batch()
    assert seen == {"repainted": 0, "shaded": 0}
    batch(repainted=0.5)
    assert 6 <= seen["repainted"] <= 18
    changed = batch(shaded=1.0)
    assert seen["shaded"] == 24
    assert (plain.images != changed.images).any()
