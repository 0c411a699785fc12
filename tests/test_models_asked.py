"""Points and boxes choose among the water that a model sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from geosam.models.asked import LOWEST, bodies_asked
from geosam.models.loading import load_model
from geosam.options import ModelOptions
from geosam.prompts import Prompts

STRIDE = 2.0
LEFT, RIGHT = np.s_[10:30, 8:24], np.s_[12:28, 40:60]


def lakes(right: float = 3.0) -> np.ndarray:
    """Logits of two lakes, cells (64, 64)."""
    water = np.full((64, 64), -6.0, np.float32)
    water[LEFT], water[RIGHT] = 4.0, right
    return water


def asked(water: np.ndarray, *wet: tuple[float, float], dry: tuple = (), box: tuple | None = None) -> np.ndarray:
    """The mask for points given as (column, row) of cells."""
    points = (np.array([*wet, *dry], np.float32).reshape(-1, 2) + 0.5) * STRIDE
    labels = np.array([1] * len(wet) + [0] * len(dry), np.int64)
    corners = None if box is None else np.array(box, np.float32) * STRIDE
    return bodies_asked(water, points, labels, STRIDE, corners) > 0


def only(*places: tuple) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    for place in places:
        mask[place] = True
    return mask


def test_moving_the_point_to_another_body_moves_the_mask():
    np.testing.assert_array_equal(asked(lakes(), (16, 20)), only(LEFT))
    np.testing.assert_array_equal(asked(lakes(), (50, 20)), only(RIGHT))
    np.testing.assert_array_equal(asked(lakes(), (16, 20), (50, 20)), only(LEFT, RIGHT))


def test_a_point_at_the_bank_means_the_water_beside_it():
    np.testing.assert_array_equal(asked(lakes(), (7, 20)), only(LEFT))


def test_the_bar_is_lowered_where_the_model_hesitates_and_nowhere_else():
    np.testing.assert_array_equal(asked(lakes(right=-1.0), (50, 20)), only(RIGHT))
    assert not asked(lakes(right=-1.0)).any()
    np.testing.assert_array_equal(asked(lakes(right=-1.0), (16, 20)), only(LEFT))


def test_a_wrong_point_on_a_roof_paints_nothing():
    assert not asked(lakes(), (32, 50), dry=((28, 50), (36, 50))).any()
    assert not asked(lakes(right=LOWEST - 0.1), (50, 20)).any()


def test_dry_points_cut_at_the_shallows():
    water = lakes()
    water[18:22, 24:40] = 0.5  # a shallow neck joins the lakes
    both = asked(water, (16, 20))
    assert both[LEFT].all()
    assert both[RIGHT].all()
    cut = asked(water, (16, 20), dry=((50, 20),))
    assert cut[LEFT].all()
    assert not cut[RIGHT].any()


def test_dry_points_alone_ask_for_nothing():
    assert not asked(lakes(), dry=((16, 20),)).any()


def test_a_box_takes_the_bodies_that_lie_in_it_for_the_most():
    np.testing.assert_array_equal(asked(lakes(), box=(0, 0, 32, 64)), only(LEFT))
    np.testing.assert_array_equal(asked(lakes(), box=(0, 0, 44, 64)), only(LEFT))
    np.testing.assert_array_equal(asked(lakes(), (50, 20), box=(38, 0, 50, 64)), only(np.s_[12:28, 40:50]))


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_asked_lies_in_bodies_that_were_pointed_at(seed):
    rng = np.random.default_rng(seed)
    water = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 3).astype(np.float32) * 20
    wet = [(int(x), int(y)) for x, y in rng.integers(2, 62, (4, 2))]
    bodies, _ = ndimage.label(water > 0, np.ones((3, 3)))
    pointed = {bodies[y, x] for x, y in wet if water[y, x] > 0}
    found = asked(water, *wet)
    assert all(found[bodies == body].all() for body in pointed)
    again, count = ndimage.label(found, np.ones((3, 3)))
    near = [again[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] for x, y in wet]
    assert all(any((part == body).any() for part in near) for body in range(1, count + 1))


def test_the_bundled_model_heeds_its_points():
    model = load_model(ModelOptions())
    side = model.tile_px
    features = model.embed(torch.full((2, 3, side, side), 90, dtype=torch.uint8))
    water = torch.full_like(features.water, -6.0)
    cells = water.shape[-1]
    water[:, :, : cells // 4], water[:, :, -cells // 4 :] = 4.0, 4.0  # two rivers, above and below
    features = replace(features, water=water)
    above, below = (
        Prompts(points=np.array([[[side / 2, y]]], np.float32), labels=np.ones((1, 1), np.int64))
        for y in (side / 8, side * 7 / 8)
    )
    found = model.decode(features, [above, below]) > 0
    assert found[0, : side // 4 - 4].all()
    assert not found[0, side // 2 :].any()
    assert found[1, -side // 4 + 4 :].all()
    assert not found[1, : side // 2].any()


def test_a_box_on_a_reach_takes_the_reach_of_a_river_that_goes_on():
    river = np.full((64, 64), -3.0, np.float32)
    river[28:36, :] = 3.0
    river[10:12, 30:32] = 3.0  # A puddle beside it, wholly in the box, does not stand for the river.
    found = asked(river, box=(20, 0, 40, 64))
    assert found[28:36, 20:40].all()
    assert found[10:12, 30:32].all()
    assert found.sum() == 8 * 20 + 4
    assert not asked(river, box=(20, 44, 40, 64)).any()
