"""Where to look when the whole scene is too much: an overview, or blocks spread over it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rasterio.windows import Window

if TYPE_CHECKING:
    from geosam.scene.ortho import Scene

GENEROUS = 4
"""A look may decode this many times the pixels that it returns; beyond that, blocks are taken."""
LEAST_BLOCKS = 64
"""Blocks are made smaller until there are this many: 16 of 353 px saw 0.03 % of water in a scene of 20,000 px
with 2.6 %, too little for a threshold, which then parted land from land."""
GOLDEN = 0.6180339887
"""Shifts each row of blocks against the last, so that no north-south river falls between all of them."""


def plan_sample(scene: Scene, max_px: int) -> tuple[Scene, list[Window]]:
    """A scene and windows of it, all of one width, that show all of it and decode O(max_px) pixels.

    A decimated look at a file without overviews decodes every pixel, so there a stratified set
    of blocks is read instead.
    """
    height, width = scene.shape
    shrink = math.sqrt(max(height * width / max_px, 1.0))
    look = scene.in_shape((max(int(height / shrink), 1), max(int(width / shrink), 1)))
    if look.decoded_px() <= GENEROUS * max_px:
        return look, [Window(0, 0, look.shape[1], look.shape[0])]
    return scene, _blocks(scene, max_px)


def _blocks(scene: Scene, max_px: int) -> list[Window]:
    height, width = scene.shape
    rows, cols = _block_shape(scene, max_px)
    own, _ = scene.block_px()
    cost = rows * cols * max(scene.decoded_px() / (height * width), 1.0)
    count = max(4, min(max_px // (rows * cols), int(GENEROUS * max_px / cost)))
    down = min(max(1, round(math.sqrt(count * (height / rows) / (width / cols)))), count, math.ceil(height / rows))
    across = max(1, min(count // down, width // cols))
    return [
        Window(
            _place((j + (0.5 + i * GOLDEN) % 1) / across, width, cols, own[1] if width >= across * own[1] else cols),
            _place((i + 0.5) / down, height, rows, own[0] if height >= down * own[0] else rows),
            cols,
            rows,
        )
        for i in range(down)
        for j in range(across)
    ]


def _block_shape(scene: Scene, max_px: int) -> tuple[int, int]:
    """(rows, cols) of a block in working pixels: the file's own blocks, or whole rows of a file in strips."""
    height, width = scene.shape
    (block_rows, block_cols), striped = scene.block_px()
    if striped:
        return max(1, min(max(block_rows, 8), height, max_px // (4 * width))), width
    fair = math.isqrt(max_px // LEAST_BLOCKS)
    return min(height, _side(block_rows, fair)), min(width, _side(block_cols, fair))


def _side(block: int, fair: int) -> int:
    """The file's block, or down to a quarter of it (which decodes 16 times what it returns) for more places."""
    return max(32, min(block, 512, max(block // 4, fair)))


def _place(share: float, size: int, side: int, step: int) -> int:
    """First pixel of the block at a share of an axis, on a multiple of ``step``: the file's own block edges if few."""
    return min(int(share * size / step) * step, size - side)
