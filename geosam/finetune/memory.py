"""Work on tiles in parts that fit into the memory of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from geosam.errors import RunError


def in_parts(numbers: Sequence[int], most: int, work: Callable[[Sequence[int]], None]) -> None:
    """Do the work for all numbers, at most so many at once, and half as many wherever memory does not suffice.

    Args:
        numbers: Of tiles.
        most: How many at once at first.
        work: Done for a part; where it raises for want of memory it is done again, so it must change nothing before.

    Raises:
        RunError: Memory does not suffice for one.
    """
    start = 0
    while start < len(numbers):
        try:
            work(numbers[start : start + most])
            start += most
            continue
        except torch.OutOfMemoryError:
            pass  # What is done about it is done below: as long as the error is handled, it holds the tensors.
        most = halved(most)


def halved(most: int) -> int:
    """Half as many tiles at once, after giving back what the GPU has kept.

    Raises:
        RunError: It was one.
    """
    if most == 1:
        raise RunError("memory is too small for one tile. Give a smaller model, or --device cpu.")
    torch.cuda.empty_cache()
    return most // 2
