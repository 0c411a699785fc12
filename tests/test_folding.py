"""Folding changes the time of an answer, and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from geosam.models.folding import Folded, folded
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
