"""Control points lie where they say, keep off the banks, and repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geosam.options import PromptOptions
from geosam.prompts import DRY, PAD, WATER, Prompts, joined, no_prompts, sample_prompts

SIDE = 96


def blobs(seed: int, share: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 5)
    return noise > np.quantile(noise, 1 - share)


def points_of(prompts, label):
    return prompts.points[prompts.labels == label]


def at(mask, xy):
    return mask[xy[:, 1].astype(int), xy[:, 0].astype(int)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.02, 0.9), st.integers(1, 6), st.integers(0, 4), st.integers(1, 5))
def test_water_points_lie_in_water_and_dry_points_on_known_dry_ground(seed, share, wet, dry, bodies):
    water, valid = blobs(seed, share), blobs(seed + 1, 0.8)
    prompts = sample_prompts(
        water, valid, PromptOptions(points=wet, dry_points=dry, max_bodies=bodies), np.random.default_rng(seed)
    )
    assert at(water & valid, points_of(prompts, WATER)).all()
    assert at(~water & valid, points_of(prompts, DRY)).all()
    assert len(prompts) <= bodies


def test_every_body_gets_its_own_points():
    water = np.zeros((SIDE, SIDE), bool)
    water[10:30, 10:30] = water[50:80, 20:40] = water[10:20, 60:90] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(points=3))
    labels, _ = ndimage.label(water)
    own = [set(at(labels, row[kinds == WATER])) for row, kinds in zip(prompts.points, prompts.labels, strict=True)]
    assert len(own) == 3
    assert all(len(one) == 1 for one in own)
    assert len(set.union(*own)) == 3


def test_a_channel_one_pixel_wide_still_gets_its_points():
    water = np.zeros((SIDE, SIDE), bool)
    water[48, :] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(points=3))
    assert (prompts.labels == WATER).sum() == 3


def test_points_of_a_wide_river_keep_off_its_banks():
    water = np.zeros((SIDE, SIDE), bool)
    water[:, 30:70] = True
    xy = points_of(sample_prompts(water, np.ones_like(water), PromptOptions(points=5)), WATER)
    assert (np.abs(xy[:, 0] - 50) < 18).all()


def test_points_are_spread_along_a_river():
    water = np.zeros((SIDE, SIDE), bool)
    water[:, 44:52] = True
    xy = points_of(sample_prompts(water, np.ones_like(water), PromptOptions(points=3)), WATER)
    assert np.ptp(xy[:, 1]) > SIDE / 2


def test_dry_points_stay_near_the_bank_but_clear_of_it():
    water = np.zeros((SIDE, SIDE), bool)
    water[:, 40:56] = True
    xy = points_of(sample_prompts(water, np.ones_like(water), PromptOptions(dry_points=4)), DRY)
    off = np.maximum(40 - xy[:, 0], xy[:, 0] - 56)
    assert ((off > 1) & (off < 32)).all()


def test_points_keep_off_the_tile_border():
    water = np.zeros((SIDE, SIDE), bool)
    water[:, : SIDE // 2] = True
    xy = points_of(sample_prompts(water, np.ones_like(water), PromptOptions(points=4)), WATER)
    assert (xy > 3).all()


def test_the_same_seed_gives_the_same_points():
    water, valid = blobs(3, 0.4), np.ones((SIDE, SIDE), bool)
    first, again = (sample_prompts(water, valid, rng=np.random.default_rng([0, 7])) for _ in range(2))
    assert np.array_equal(first.points, again.points)
    assert np.array_equal(first.labels, again.labels)


def test_bodies_beyond_the_most_share_the_last_prompt():
    water = np.zeros((SIDE, SIDE), bool)
    water[::12, ::12] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(max_bodies=4, points=8))
    assert len(prompts) == 4
    assert (prompts.labels[-1] == WATER).sum() == 8


def test_no_water_gives_no_body():
    prompts = sample_prompts(np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool))
    assert len(prompts) == 0


def test_a_tile_all_water_gets_water_points_and_no_dry_one():
    prompts = sample_prompts(np.ones((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool))
    assert (prompts.labels == WATER).sum() == 3
    assert (prompts.labels == DRY).sum() == 0


def test_boxes_are_the_outer_edges_of_the_bodies():
    water = np.zeros((SIDE, SIDE), bool)
    water[10:30, 40:45] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(boxes=True))
    assert prompts.boxes is not None
    assert prompts.boxes.tolist() == [[40, 10, 45, 30]]


@pytest.mark.parametrize("dense", [True, False])
def test_the_dense_prompt_is_the_known_coarse_water(dense):
    water, valid = blobs(5, 0.3), blobs(6, 0.7)
    mask = sample_prompts(water, valid, PromptOptions(dense=dense)).mask
    assert (mask is None) != dense
    assert mask is None or np.array_equal(mask, water & valid)


def test_joining_bodies_keeps_every_point_and_drops_the_padding():
    water = np.zeros((SIDE, SIDE), bool)
    water[5, 5] = water[40:80, 40:80] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(points=4))
    one = joined(prompts)
    assert len(one) == 1
    assert (one.labels != PAD).all()
    assert (one.labels == WATER).sum() == (prompts.labels == WATER).sum()


def test_the_no_prompt_mode_is_one_body_without_points():
    prompts = no_prompts()
    assert prompts.points.shape == (1, 0, 2)
    assert prompts.mask is None


def test_a_body_without_a_box_has_nan_and_says_none():
    boxes = np.array([[np.nan] * 4, [1, 2, 3, 4]], np.float32)
    prompts = Prompts(np.zeros((2, 1, 2), np.float32), np.ones((2, 1), np.int64), boxes)
    assert prompts.box(0) is None
    assert prompts.box(1).tolist() == [1, 2, 3, 4]
    assert prompts.rows(np.array([False, True])).boxes.tolist() == [[1, 2, 3, 4]]
    assert no_prompts().box(0) is None


def test_all_bodies_have_the_mask_unless_it_is_said_which():
    points, labels = np.zeros((2, 1, 2), np.float32), np.ones((2, 1), np.int64)
    mask, some = np.ones((SIDE, SIDE), bool), np.array([False, True])
    assert Prompts(points, labels).with_mask().tolist() == [False, False]
    assert Prompts(points, labels, None, mask).with_mask().tolist() == [True, True]
    only = Prompts(points, labels, None, mask, some, multimask=True)
    assert only.with_mask().tolist() == [False, True]
    assert only.rows(some).with_mask().tolist() == [True]
    assert joined(only.rows(some)).multimask
