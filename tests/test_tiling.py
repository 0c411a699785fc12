"""The tile grid: it covers the scene, keeps its overlap, and its weights share every pixel out whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geosam.errors import OptionsError
from geosam.tiling import TilePlan, plan_tiles


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    tile_px = draw(st.integers(1, 40))
    shape = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    return plan_tiles(shape, tile_px, draw(st.integers(0, tile_px - 1)))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_weights_are_positive_and_sum_to_one_at_every_pixel(plan):
    height, width = plan.shape
    total = np.zeros((height + plan.tile_px, width + plan.tile_px))
    for tile in plan.tiles:
        weights = plan.weights(tile)
        assert weights.dtype == np.float32
        assert weights.min() > 0
        total[tile.window.toslices()] += weights
    np.testing.assert_allclose(total[:height, :width], 1, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(plans())
def test_tiles_stay_inside_keep_their_overlap_and_are_as_few_as_can_be(plan):
    for starts, length in ((plan.tops, plan.shape[0]), (plan.lefts, plan.shape[1])):
        assert starts[0] == 0
        assert starts[-1] == max(length - plan.tile_px, 0)
        steps = np.diff(starts)
        assert (steps >= 1).all()
        assert (steps <= plan.tile_px - plan.overlap_px).all()
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
        assert len(starts) == 1 or (len(starts) - 2) * (plan.tile_px - plan.overlap_px) + plan.tile_px < length


def test_tiles_are_numbered_row_by_row():
    plan = plan_tiles((100, 170), 64, 8)
    assert [tile.index for tile in plan.tiles] == list(range(len(plan)))
    assert [[tile.row for tile in row] for row in plan.rows()] == [[0, 0, 0], [1, 1, 1]]
    assert plan.tile(1, 2).window == plan.tiles[5].window


def test_a_scene_smaller_than_a_tile_is_one_overhanging_tile():
    plan = plan_tiles((20, 30), 64)
    (tile,) = plan.tiles
    assert tile.window.flatten() == (0, 0, 64, 64)
    assert (plan.weights(tile)[:20, :30] == 1).all()


def test_the_default_overlap_is_an_eighth_of_the_tile():
    assert plan_tiles((5000, 5000), 512).overlap_px == 64


@pytest.mark.parametrize("overlap", [-1, 64, 100])
def test_an_overlap_that_leaves_no_progress_is_refused_by_the_option_that_mends_it(overlap):
    with pytest.raises(OptionsError, match="--overlap"):
        plan_tiles((100, 100), 64, overlap)
