"""The small SAM: batches, prompts and files behave, whatever its weights."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geosam.errors import ModelError
from geosam.models import load_model
from geosam.models.network import TinySam, TinySamConfig
from geosam.models.protocol import DRY_LOGIT
from geosam.models.tiny import TinyModel, load_tiny
from geosam.options import ModelOptions, PromptOptions
from geosam.prompts import Prompts, no_prompts, sample_prompts

SIDE = 64


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = TinySam(TinySamConfig(image_size=SIDE))
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "model.safetensors"
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, metadata={"config": json.dumps(network.config.to_dict())})
    return path


@pytest.fixture(scope="module")
def model(weights):
    return load_tiny(weights, name="tiny", device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 255, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def pond(top, left, size=16):
    water = np.zeros((SIDE, SIDE), bool)
    water[top : top + size, left : left + size] = True
    return water


def sampled(water, **options):
    return sample_prompts(water, np.ones_like(water), PromptOptions(**options))


def test_loading_and_summing_branches_keeps_the_encoding(network, model, images):
    with torch.no_grad():
        plain = network.encode(images).embedding
    assert torch.allclose(model.embed(images).embedding, plain, atol=5e-3 * plain.abs().max().item())


def test_a_batch_gives_what_each_tile_gives_alone(model, images):
    both = pond(4, 4) | pond(40, 40)
    prompts = [sampled(both), no_prompts(), sampled(both, dense=False, boxes=True, points=12)]
    together = model.decode(model.embed(images), prompts)
    for n, prompt in enumerate(prompts):
        alone = model.decode(model.embed(images[n : n + 1]), [prompt])[0]
        assert torch.allclose(together[n], alone, atol=1e-4)


def test_bodies_are_joined_by_their_maximum(model, images):
    left, right = (sampled(pond(24, at), dense=False, dry_points=0) for at in (4, 44))
    both = Prompts(np.concatenate([left.points, right.points]), np.concatenate([left.labels, right.labels]))
    features = model.embed(images[:1])
    one, other, joint = (model.decode(features, [prompt]) for prompt in (left, right, both))
    assert torch.allclose(joint, torch.maximum(one, other), atol=1e-4)


def test_every_kind_of_prompt_changes_the_mask(model, images):
    features = model.embed(images[:1])
    water = pond(8, 8)
    asked = [
        no_prompts(), sampled(water), sampled(water, dense=False), sampled(water, dense=False, boxes=True),
        sampled(pond(40, 40), dense=False),
    ]  # fmt: skip
    masks = [model.decode(features, [prompt]) for prompt in asked]
    for n, mask in enumerate(masks):
        assert all(not torch.allclose(mask, other, atol=1e-6) for other in masks[n + 1 :])


def test_a_tile_without_a_body_is_dry(model, images):
    found = model.decode(model.embed(images[:1]), [sampled(np.zeros((SIDE, SIDE), bool))])
    assert (found == DRY_LOGIT).all()


def test_positions_mean_the_same_at_every_tile_size(network):
    """A tile placed inside a larger one by ``origin`` sees its points where the larger one has them."""
    points, labels = torch.tensor([[[5.0, 9.0]]]), torch.ones(1, 1, dtype=torch.int64)
    moved = network.prompt_encoder.points(points + torch.tensor([16.0, 32.0]), labels)
    assert torch.allclose(moved, network.prompt_encoder.points(torch.tensor([[[21.0, 41.0]]]), labels))
    small = network.prompt_encoder.grid_positions((2, 2), origin=(16.0, 32.0))
    whole = network.prompt_encoder.grid_positions((4, 4))
    assert torch.allclose(small, whole[:, :, 2:4, 1:3], atol=1e-5)


def test_bfloat16_is_close_to_float32(weights, model, images):
    low = load_tiny(weights, name="tiny", device=torch.device("cpu"), dtype=torch.bfloat16)
    prompts = [sampled(pond(8, 8))] * 3
    exact, rough = (m.decode(m.embed(images), prompts).sigmoid() for m in (model, low))
    assert (exact - rough).abs().mean() < 0.02


def test_what_a_model_was_not_trained_for_is_refused(network):
    stock = TinySam(TinySamConfig(image_size=SIDE, no_prompt=False, dense_prompt=False))
    model = TinyModel(stock, name="stock", sha256="", device=torch.device("cpu"), dtype=torch.float32)
    assert model.understands == {"points", "boxes"}
    features = model.embed(torch.zeros((1, 3, SIDE, SIDE), dtype=torch.uint8))
    with pytest.raises(ModelError, match="without a prompt"):
        model.decode(features, [no_prompts()])


def test_weights_without_a_configuration_are_refused(network, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match="no configuration"):
        load_tiny(tmp_path / "bare.safetensors", name="bare", device=torch.device("cpu"), dtype=torch.float32)


def test_what_is_asked_nothing_is_answered_by_the_way_down_alone(model, images):
    features = model.embed(images)
    wanted = torch.nn.functional.interpolate(features.water, (SIDE, SIDE), mode="bilinear")[:, 0]
    torch.testing.assert_close(model.decode(features, [no_prompts()] * 3), wanted)
    mixed = model.decode(features, [sampled(pond(8, 8)), no_prompts(), sampled(pond(30, 30), dense=False)])
    torch.testing.assert_close(mixed[1], wanted[1])
    model.plain = False
    assert not torch.allclose(model.decode(features, [no_prompts()] * 3), wanted)
    model.plain = True


def test_points_choose_among_the_water_unless_the_decoder_was_tuned(model, images):
    features, asked = model.embed(images), [sampled(pond(8, 8), dense=False)] * 3
    chosen = model.decode(features, asked)
    model.chooses = False
    decoded = model.decode(features, asked)
    model.chooses = True
    assert not torch.allclose(chosen, decoded)
    hinted = [sampled(pond(8, 8))] * 3
    model.chooses = False
    by_decoder = model.decode(features, hinted)
    model.chooses = True
    torch.testing.assert_close(model.decode(features, hinted), by_decoder)


def test_bodies_are_told_apart_at_the_models_own_threshold(model, images, monkeypatch):
    embeddings = model.embed(images)
    low = torch.full_like(embeddings.water, -3.0)
    low[..., 1:3, 1:12] = -0.2  # One body at 0.4, none at 0.5.
    low[..., 1:3, 1:4] = low[..., 1:3, 8:12] = 0.5
    seen = replace(embeddings, water=low)
    ask = Prompts(np.array([[[8.0, 8.0]]], np.float32), np.array([[1]]))
    found = {}
    for threshold in (0.4, 0.5):
        monkeypatch.setattr(model, "threshold", threshold)
        level = math.log(threshold / (1 - threshold))
        found[threshold] = (model.decode(seen, [ask] * len(images))[0] > level).numpy()
    assert found[0.4][8, 40]
    assert not found[0.5][8, 40]
    assert found[0.5][8, 8]


def test_smaller_tiles_are_taken_by_steps_of_the_coarsest_stride(model, images):
    small = images[:, :, :32, :]
    for prompts in (no_prompts(), sampled(pond(8, 8)), sampled(pond(8, 8), dense=False)):
        assert model.decode(model.embed(small), [prompts] * 3).shape == (3, 32, SIDE)
    for wrong in (images[:, :, :40], torch.zeros(1, 3, 2 * SIDE, SIDE, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="tiles must be"):
            model.embed(wrong)


def test_far_sight_changes_nothing_until_it_has_learnt(images):
    torch.manual_seed(0)
    near = TinySam(TinySamConfig(image_size=SIDE)).eval()
    far = TinySam(TinySamConfig(image_size=SIDE, far_sight=True)).eval()
    far.load_state_dict(near.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(far.encode(images).water, near.encode(images).water)
        far.image_encoder.far_sight.out.weight.normal_(0, 0.1)
        assert not torch.allclose(far.encode(images).water, near.encode(images).water)


@pytest.mark.parametrize("times", [2, 4])
def test_a_magnified_tile_is_asked_as_an_enlarged_one_is(network, weights, times):
    small = SIDE // times
    image = torch.randint(0, 255, (1, 3, small, small), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    water = np.zeros((small, small), bool)
    water[4:12, 2:10] = True
    asked = load_model(ModelOptions(name=str(weights), device="cpu", dtype="float32", magnify=times))
    plain = load_model(ModelOptions(name=str(weights), device="cpu", dtype="float32"))
    assert (asked.tile_px, plain.tile_px) == (small, SIDE)
    larger = torch.nn.functional.interpolate(image.float(), scale_factor=times, mode="bilinear")
    features, wanted = asked.embed(image), network.encode(larger)
    torch.testing.assert_close(features.water, wanted.water, rtol=1e-3, atol=1e-3)
    for dense in (False, True):
        prompts = sampled(water, dense=dense)
        mask = np.kron(water, np.ones((times, times), bool)) if dense else None
        found, _ = asked.ask(features, [prompts])
        same, _ = plain.ask(features, [Prompts(prompts.points * times, prompts.labels, mask=mask)])
        torch.testing.assert_close(found, same)
        assert asked.decode(features, [prompts]).shape == (1, small, small)


def test_magnifying_is_refused_for_a_model_of_one_tile_size(tiny_sam_folder):
    with pytest.raises(ModelError, match="--magnify is for models that take tiles of any size"):
        load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", magnify=2))
