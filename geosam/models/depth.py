"""Relative depth of a single photograph, by a depth estimation model of transformers such as DPT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch.nn.functional import interpolate

from geosam.errors import ModelError
from geosam.models.checkpoint import read_json
from geosam.models.device import choose_device
from geosam.models.hub import from_hub, is_hub_id


def relative_depth(rgb: NDArray[np.uint8], model: str, device: str = "auto") -> NDArray[np.float32]:
    """How near everything in a photograph is, from 0 (the farthest) to 1 (the nearest).

    Relative: scaled to the photograph's own range, without unit, not to be compared between photographs. Models of
    this kind know inverse depth up to an unknown scale and shift (Ranftl et al. 2020, doi:10.1109/TPAMI.2020.3019967).

    Args:
        rgb: uint8 (h, w, 3).
        model: A hub id or a folder with config.json and model.safetensors.
        device: auto, cpu, cuda or mps.

    Returns:
        float32 (h, w); 0 everywhere where the model sees no difference.

    Raises:
        ModelError: The model cannot be loaded, or is none that estimates depth.
    """
    where = choose_device(device)
    network, pixels = _load(model, rgb)
    network.to(where)
    with torch.inference_mode():
        found = network(pixel_values=pixels.to(where)).predicted_depth.float()
    depth = interpolate(found[:, None], rgb.shape[:2], mode="bicubic", align_corners=False)[0, 0].cpu().numpy()
    if not np.isfinite(depth).all():
        raise ModelError(f"{model} gives no finite depth for this photograph. Give --model another one.")
    # What gives metres counts away from the camera; inverse depth, the default, counts towards it.
    if getattr(network.config, "depth_estimation_type", "relative") == "metric":
        depth = -depth
    low, high = float(depth.min()), float(depth.max())
    return np.asarray((depth - low) / (high - low) if high > low else np.zeros_like(depth), np.float32)


def _load(model: str, rgb: NDArray[np.uint8]) -> tuple[Any, torch.Tensor]:
    """The network, and the photograph as it takes it: float32 (1, 3, h, w)."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation, DPTImageProcessor
    from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES as KINDS

    folder = _folder(model)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in KINDS:
        raise ModelError(
            f"{model} has model_type {kind!r}, which estimates no depth. Give one such as Intel/dpt-large."
        )
    try:
        with _quietly():
            network, facts = AutoModelForDepthEstimation.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        if facts["missing_keys"]:
            raise KeyError(f"{len(facts['missing_keys'])} tensors are missing, such as {min(facts['missing_keys'])}")
        if (folder / "preprocessor_config.json").is_file():
            processors: Any = AutoImageProcessor
            prepare = processors.from_pretrained(folder, local_files_only=True)
        else:
            side = int(getattr(network.config, "image_size", 384))
            prepare = DPTImageProcessor(size={"height": side, "width": side})
        pixels: torch.Tensor = prepare(images=rgb, return_tensors="pt", input_data_format="channels_last").pixel_values
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(f"{model} cannot be loaded as a depth model ({reason}). Check the folder or the id.") from None
    return network.eval(), pixels


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bar and the tables that transformers shows while it loads."""
    import transformers

    logging: Any = transformers.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _folder(model: str) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json. Give a folder with config.json and model.safetensors.")
        return path
    if path.exists() or not is_hub_id(model):
        raise ModelError(f"{model} is neither a folder nor a hub id. Give --model such as Intel/dpt-large.")
    return from_hub(model)
