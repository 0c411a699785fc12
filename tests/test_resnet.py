from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from torch import Tensor, nn

from geosam.models.image_encoder import ImageEncoder
from geosam.models.resnet import ResNet18


def pair(widths: tuple[int, ...] | None) -> tuple[nn.Module, nn.Module]:
    """timm's and ours, made from the same seed."""
    more = {} if widths is None else {"channels": widths}
    torch.manual_seed(3)
    theirs = timm.create_model("resnet18", pretrained=False, num_classes=0, **more)
    torch.manual_seed(3)
    return theirs, ResNet18(widths)


@pytest.mark.parametrize("widths", [None, (16, 24, 32, 40)])
def test_names_and_first_values_are_those_of_timm(widths: tuple[int, ...] | None) -> None:
    theirs, ours = (model.state_dict() for model in pair(widths))
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_answers_and_gradients_are_those_of_timm() -> None:
    encoders, tile = [ImageEncoder("resnet18", widths=(16, 24, 32, 40)) for _ in range(2)], torch.randn(2, 3, 96, 64)
    found: list[list[Tensor]] = []
    for encoder, backbone in zip(encoders, pair((16, 24, 32, 40)), strict=True):
        encoder.backbone = backbone
        torch.manual_seed(5)
        for weight in backbone.parameters():  # Else the last norms are zero, and half of it is not asked.
            weight.data.normal_(0, 0.1)
        stages = encoder.stages(tile)
        sum(stage.square().mean() for stage in stages).backward()  # type: ignore[union-attr]
        found.append([*stages, backbone.conv1.weight.grad, backbone.layer4[1].conv2.weight.grad])
    # Gradients of both ways around a block are added in another order.
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-7)


def test_river_tiny_loads_without_timm_torchvision_and_transformers() -> None:
    code = "import sys; from geosam.models import load_model; load_model()\n"
    code += "print(sorted({'timm', 'torchvision', 'transformers', 'huggingface_hub', 'sympy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
