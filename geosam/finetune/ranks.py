"""The processes that train together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from geosam.errors import OptionsError
from geosam.models.device import choose_device

if TYPE_CHECKING:
    from accelerate import Accelerator


_MOST_THREADS = 16


@dataclass(frozen=True)
class Ranks:
    """One process among those that ``accelerate launch -m geosam finetune`` (or torchrun) started, or the only one."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    """This process's own device, as torch names it."""
    accelerator: Any = None

    @property
    def threads(self) -> int:
        """Threads for what the CPU does beside the model, of which every process has its share."""
        return max(min((os.cpu_count() or 1) // self.world, _MOST_THREADS), 1)

    @classmethod
    def join(cls, device: str = "auto") -> Ranks:
        """Meet the other processes, if there are any.

        Raises:
            OptionsError: There are, and accelerate is not installed.
            ModelError: The device is not on this machine.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=str(choose_device(device)))
        accelerator = _accelerator(device)
        return cls(accelerator.process_index, accelerator.num_processes, str(accelerator.device), accelerator)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes, the same in all of them."""
        if self.world == 1:
            return value
        summed: Tensor = self.accelerator.reduce(value, reduction="sum")
        return summed

    def agree(self, value: float) -> float:
        """The first process's value, for all: clocks differ, and one must not stop before the others."""
        return float(self.sum(torch.tensor(value if self.rank == 0 else 0.0, device=self.device)))

    def sum_gradients(self, module: nn.Module) -> None:
        """Replace every gradient by its sum over the processes.

        Not DistributedDataParallel: which weights a question touches depends on its prompts, and
        one flat sum serves them all.
        """
        if self.world == 1:
            return
        wanted = [p for p in module.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in wanted])
        parts = torch.split(self.sum(flat), [p.numel() for p in wanted])
        for parameter, part in zip(wanted, parts, strict=True):
            parameter.grad = part.view_as(parameter)


def _accelerator(device: str) -> Accelerator:
    try:
        from accelerate import Accelerator
    except ImportError:
        raise OptionsError(
            "several processes need accelerate, which is not installed. Install it: pip install 'geosam-rivers[train]'"
        ) from None
    # Told so by name: on a machine without a GPU it would otherwise take every process for the only one.
    return Accelerator(cpu=choose_device(device).type == "cpu")
