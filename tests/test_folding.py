"""Folding changes the time of an answer, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geosam.models import fused
from geosam.models.efficientnet import Block
from geosam.models.folding import Folded, folded
from geosam.models.fused import FusedConv
from geosam.models.image_encoder import ImageEncoder


def encoder() -> ImageEncoder:
    torch.manual_seed(2)
    made = ImageEncoder("efficientnet_lite0", far_sight=True)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return made.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_the_folded_copy_answers_the_same_without_a_norm() -> None:
    network, tile = encoder(), torch.randn(2, 3, 64, 96)
    copy = folded(network)
    with torch.no_grad():
        found, wanted = copy(tile), network(tile)
    torch.testing.assert_close(found.water, wanted.water, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.embedding, wanted.embedding, rtol=1e-4, atol=1e-4)
    assert norms(copy) == 0
    assert norms(network) > 40  # The network itself can still be trained.


def test_the_copy_is_kept_until_weights_change() -> None:
    network = encoder()
    fast = Folded(network)
    first = fast()
    assert fast() is first
    tile = torch.randn(1, 3, 64, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(tile).water.mean().backward()
    optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(fast()(tile).water, network(tile).water, rtol=1e-4, atol=1e-4)
    assert fast() is not first
    network.load_state_dict(encoder().state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fast()(tile).water, first(tile).water)


def test_no_clamp_is_left_behind_a_convolution() -> None:
    kinds = {type(module) for module in folded(encoder()).modules()}
    assert FusedConv in kinds
    assert not {nn.ReLU, nn.ReLU6} & kinds


@pytest.mark.parametrize("in_one_pass", [True, False])
@pytest.mark.parametrize("shape", [(64, 96), (50, 34)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_a_fused_convolution_pads_and_clamps_as_its_parts_do(
    kernel: int, stride: int, shape: tuple[int, int], in_one_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_one_pass:
        monkeypatch.setattr(fused, "_fuses", lambda x: False)
    torch.manual_seed(kernel * stride)
    block = Block(8, 8, kernel, stride, 1).eval()
    x = 8 * torch.randn(2, 8, *shape)
    with torch.no_grad():
        found, wanted = folded(block.depthwise)(x), block.depthwise(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found.min(), found.max()) == (0, 6)


def test_a_fused_convolution_heeds_autocast_and_a_plain_relu() -> None:
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = 9 * torch.randn(1, 4, 8, 8)
    fast = folded(parts)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), parts(x), rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = fast(x)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), parts(x), rtol=0.05, atol=0.1)
    assert fast(x).max() > 6
