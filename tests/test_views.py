"""Views of a tile: turned images and prompts still belong together, and the answers are turned back."""

import numpy as np
import pytest
import torch

from geosam.models import load_model
from geosam.options import ModelOptions, PromptOptions
from geosam.predict.views import VIEWS, mean_logits, turned, turned_back, turned_prompts, turned_tensor
from geosam.prompts import Prompts, sample_prompts

SHAPE = (32, 64)


def tile_with_prompts() -> tuple[np.ndarray, Prompts]:
    """A picture that is bright exactly where its water points and the corner pixels of its box are."""
    points = np.array([[[3.5, 10.5], [60.5, 30.5]]], np.float32)
    box = np.array([[4, 12, 9, 20]], np.float32)
    mask = np.zeros((64, 64), bool)
    mask[2:20, 1:50] = True
    return points, Prompts(points, np.ones((1, 2), np.int64), box, mask)


@pytest.mark.parametrize("view", range(VIEWS))
def test_points_boxes_and_masks_turn_with_the_picture(view):
    points, prompts = tile_with_prompts()
    picture = np.zeros(SHAPE, int)
    picture[12:20, 4:9] = 1
    for x, y in points[0]:
        picture[int(y), int(x)] = 2
    seen, asked = turned(picture, view), turned_prompts(prompts, view, SHAPE)
    assert [seen[int(y), int(x)] for x, y in asked.points[0]] == [2, 2]
    x0, y0, x1, y1 = asked.boxes[0].astype(int)
    assert (seen[y0:y1, x0:x1] == 1).all()
    assert (seen == 1).sum() == (y1 - y0) * (x1 - x0)
    np.testing.assert_array_equal(asked.mask, turned(prompts.mask[:32], view))


@pytest.mark.parametrize("view", range(VIEWS))
def test_what_is_turned_is_turned_back(view):
    planes = torch.arange(2 * 32 * 64).reshape(2, 32, 64)
    np.testing.assert_array_equal(turned_tensor(planes, view).numpy(), turned(planes.numpy(), view))
    torch.testing.assert_close(turned_back(turned_tensor(planes, view), view), planes)


def test_the_mean_over_all_views_turns_with_the_tile(tiny_weights):
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 255, (1, 3, 64, 64), np.uint8))
    water = np.zeros((64, 64), bool)
    water[10:40, 20:36] = True
    prompts = sample_prompts(water, np.ones_like(water), PromptOptions(dense=False))
    plain = mean_logits(model, image, [prompts], VIEWS)
    for view in (1, 6):
        asked = turned_prompts(prompts, view, (64, 64))
        other = mean_logits(model, turned_tensor(image, view).contiguous(), [asked], VIEWS)
        torch.testing.assert_close(turned_back(other, view), plain, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(model.decode(model.embed(image), [prompts]), plain, atol=1e-2)
