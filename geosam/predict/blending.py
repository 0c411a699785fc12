"""Tiles blended on the device that computed them, beside a host that reads, compresses and writes.

What leaves the device is the finished mosaic, a byte a pixel: neither the overlaps of tiles nor what they say
of pixels without data. The same additions in the same order as in :mod:`geosam.mosaic`, so that only the rounding
to a byte tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geosam.models.device import to_device
from geosam.mosaic import Mosaic
from geosam.mosaic.cells import NODATA, UNIT, packed, packed_without_votes
from geosam.predict.flight import Sent, sent
from geosam.tiling import Tile, TilePlan

STEPS = 254
"""Steps of a probability that comes off a device: half a step is 0.002."""
NOTHING = 255
"""The byte of a pixel without probability."""
_LEVEL_OF = np.rint(np.arange(NOTHING + 1) * (UNIT / STEPS)).astype(np.uint16)
_LEVEL_OF[NOTHING] = NODATA
_PACKERS = 2
"""Threads that compress finished cells; zlib lets go of the interpreter while it does."""


@dataclass(frozen=True)
class Laid:
    """A batch that is in the mosaic as soon as the device has come to it."""

    spoilt: Sent
    """Bool (B,): tiles of which the model gave NaN anywhere; they have no say."""


class Blender:
    """Lays batches into a mosaic on a device."""

    def __init__(self, mosaic: Mosaic, device: torch.device) -> None:
        self._mosaic, self._device = mosaic, device
        self._pool = ThreadPoolExecutor(_PACKERS, thread_name_prefix="geosam-pack")
        mosaic.new_cell = partial(DeviceCell, device, self._pool)

    def lay(self, tiles: Sequence[Tile], logits: Tensor, valid: Sequence[NDArray[np.bool_]]) -> Laid:
        """Blend a batch in; it is then to be counted off in the mosaic, whatever becomes of it.

        Args:
            tiles: B of them.
            logits: Of water, float (B, h, w), on the device.
            valid: B times bool (tile_px, tile_px).

        Raises:
            torch.OutOfMemoryError: Nothing was blended.
        """
        probability = logits.float().sigmoid()
        spoilt = probability.isnan().flatten(1).any(dim=1)
        weight = self._weights(tiles, valid, probability.shape[1:]) * ~spoilt[:, None, None]
        votes = weight * probability.nan_to_num(0)
        for tile in tiles:  # All room first: a batch that is tried again must not have voted.
            self._mosaic.reserve(tile)
        for tile, its_votes, its_weight in zip(tiles, votes, weight, strict=True):
            self._mosaic.gather(tile, its_votes, its_weight)
        return Laid(sent(spoilt))

    def _weights(self, tiles: Sequence[Tile], valid: Sequence[NDArray[np.bool_]], shape: Sequence[int]) -> Tensor:
        """Weights of tiles of this shape, float32 (B, h, w); 0 where there is no data."""
        rows, cols = (to_device(torch.from_numpy(axis), self._device) for axis in _profiles(self._mosaic.plan, tiles))
        has_data = to_device(torch.from_numpy(np.stack(valid)), self._device)
        height, width = shape
        return rows[:, :height, None] * cols[:, None, :width] * has_data[:, :height, :width]

    def close(self) -> None:
        """End the threads, once they have done what they were given."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _profiles(plan: TilePlan, tiles: Sequence[Tile]) -> list[NDArray[np.float32]]:
    """Profiles by row and by column, each (B, tile_px)."""
    return [np.stack(axis) for axis in zip(*map(plan.profiles, tiles), strict=True)]


class DeviceCell:
    """Votes on one cell as in :class:`geosam.mosaic.cells.Cell`, on a device."""

    def __init__(self, device: torch.device, pool: ThreadPoolExecutor, shape: tuple[int, int], waiting: int) -> None:
        self.shape, self.waiting = shape, waiting
        self.dry: NDArray[np.bool_] | bool = False
        self._pool = pool
        self._votes = torch.zeros((0, shape[1]), device=device)
        self._weight = torch.zeros((0, shape[1]), device=device)

    @property
    def held_px(self) -> int:
        """Pixels held uncompressed."""
        return self._votes.numel()

    def grow(self, rows: int) -> None:
        """Make room for the votes on the first ``rows`` rows."""
        more = max(0, rows - len(self._votes))
        if more:
            votes, weight = (F.pad(held, (0, 0, 0, more)) for held in (self._votes, self._weight))
            self._votes, self._weight = votes, weight

    def vote(self, place: tuple[slice, slice], votes: Tensor, weight: Tensor) -> None:
        """Add a tile's weighted probabilities and their weights, (h, w), at a place for which there is room."""
        self._votes[place] += votes
        self._weight[place] += weight

    def encode(self) -> bytes | Future[bytes]:
        """The finished cell as stored; compressed by another thread, once its bytes have come off the device."""
        if not len(self._votes):
            return packed_without_votes(self.dry, self.shape)
        return self._pool.submit(_packed, sent(self._bytes()))

    @torch.inference_mode()
    def _bytes(self) -> Tensor:
        """The blended probability in steps, uint8 of the cell's shape; :data:`NOTHING` where nothing is known."""
        self.grow(self.shape[0])
        ran = self._weight > 0
        mean = torch.where(ran, self._votes / self._weight, 0.0).clamp(0, 1)
        dry = self.dry
        known = ran | (dry if isinstance(dry, bool) else to_device(torch.from_numpy(dry.copy()), ran.device))
        return (mean * STEPS).round().to(torch.uint8).masked_fill_(~known, NOTHING)


def _packed(found: Sent) -> bytes:
    return packed(_LEVEL_OF[found.landed().numpy()])
