"""Checkpoints of a tuning run: a small file beside its base model, or a whole model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from geosam.errors import OutputError
from geosam.models.checkpoint import TUNED_FILE, TUNED_NOTES

_DECODER = ("mask_decoder.", "image_encoder.way_down.")
PARTS = {"decoder": _DECODER, "decoder+prompt": (*_DECODER, "prompt_encoder.")}
"""What learns by itself, by the names that SAM's parts have in every family. river-tiny's way down decodes too, though
it stands in the encoder: it answers where nothing is asked, and no SAM has one."""


TUNED_CHOOSES = True
"""Whether points choose among the water that a tuned river-tiny sees, as of the untouched one, or ask its decoder;
:mod:`geosam.models.loading` loads it so."""


def choose_weights(module: nn.Module, train: str, rank: int) -> None:
    """Let learn what is to learn, and nothing else; for LoRA, put adapters into the encoder first.

    Running statistics of batch norms never move, with ``all`` neither. A run has few tiles, and a batch of them is
    cut into parts by processes and by memory: statistics of parts would differ from those of the whole, so the same
    run would end elsewhere on two GPUs. Scale and shift of the norms do learn. SAMs have no such norms at all.

    Raises:
        OptionsError: peft is not installed.
    """
    module.requires_grad_(False)
    if train == "lora":
        add_lora(module, rank)
    for name, weight in module.named_parameters():
        own = name.startswith(PARTS.get(train, _DECODER)) or train == "all" or "lora_" in name
        weight.requires_grad_(own and weight.is_floating_point())


_ATTENTION = (".attn.qkv", ".attention.q_proj", ".attention.v_proj")
"""How projections of attention are named in the encoders: of one product in SAM, SAM-HQ and SAM 2, apart in SAM 3."""


def add_lora(module: nn.Module, rank: int) -> None:
    """Low-rank adapters (Hu et al. 2021) on the encoder's attention, or on its convolutions where it has none."""
    from geosam.errors import OptionsError

    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise OptionsError(
            "--train lora needs peft, which is not installed. Install it with: pip install 'geosam-rivers[train]'"
        ) from None
    encoder = encoder_of(module)
    names = [name for name, part in encoder.named_modules() if name.endswith(_ATTENTION)]
    plain = [name for name, part in encoder.named_modules() if _is_plain_convolution(part)]
    names = names or [name for name in plain if not name.startswith("way_down.")]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names), encoder)


def _is_plain_convolution(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d) and part.groups == 1 and part.kernel_size[0] > 1


def encoder_of(module: nn.Module) -> nn.Module:
    """The image encoder, by either family's name."""
    found: nn.Module = getattr(module, "vision_encoder", None) or module.get_submodule("image_encoder")
    return found


def merged(module: nn.Module, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Learned weights under the names of the untouched model, adapters folded into what they adapt."""
    found: dict[str, Tensor] = {}
    adapted = {name for name, part in module.named_modules() if hasattr(part, "get_delta_weight")}
    for name in adapted:
        layer: Any = module.get_submodule(name)
        found[f"{name}.weight"] = (layer.base_layer.weight + layer.get_delta_weight("default")).detach()
    plain = {name: value for name, value in learned.items() if ".lora_" not in name}
    return {**{name.replace(".base_layer", ""): value for name, value in plain.items()}, **found}


def learned_state(module: nn.Module) -> dict[str, Tensor]:
    """The weights that learn, by name."""
    wanted = {name for name, weight in module.named_parameters() if weight.requires_grad}
    return {name: value.detach() for name, value in module.state_dict(keep_vars=True).items() if name in wanted}


def save_tuned(folder: Path, weights: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Path:
    """Write a checkpoint that loads on its base model: ``geosam segment --model FOLDER``.

    Args:
        folder: Made if missing; its files appear whole or not at all.
        weights: Learned weights, by the names of the base model.
        notes: base, base_sha256, threshold, understands, options, metrics, data.

    Raises:
        OutputError: They cannot be written.
    """
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{TUNED_FILE}.part"
        save_file({name: value.contiguous().float().cpu() for name, value in weights.items()}, part)
        part.replace(folder / TUNED_FILE)
        part = folder / f"{TUNED_NOTES}.part"
        part.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        part.replace(folder / TUNED_NOTES)
    return folder


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to go on: whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_suffix(".part")
    with written(path):
        torch.save(state, part)
        part.replace(path)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """A disk that is full, or any other fault of writing a file or into a folder, as one line.

    Raises:
        OutputError: It cannot be written; half-written files are taken away.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have writers of their own.
        for part in (*path.parent.glob(f"{path.stem}.part*"), *path.glob("*.part")):
            part.unlink(missing_ok=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        raise OutputError(f"{path} cannot be written ({reason}). Free space and go on with --resume.") from None


def load_state(path: Path) -> dict[str, Any]:
    """Read it again, as tensors and plain values only."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
