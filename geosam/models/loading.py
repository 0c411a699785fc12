"""From a name, a hub id, a folder or a file to a model that runs."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from geosam.errors import ModelError
from geosam.models.checkpoint import (
    PICKLED,
    SAFE,
    TUNED_FILE,
    TUNED_NOTES,
    read_json,
    read_metadata,
    read_tensors,
    sha256_of,
    some,
)
from geosam.models.device import choose_device, choose_dtype
from geosam.models.protocol import PromptableModel
from geosam.models.registry import MODELS, WEIGHTS, hub_cache, unknown
from geosam.options import ModelOptions

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SAFE_FILES = ["config.json", "geosam.json", "*.safetensors", "*.safetensors.index.json"]
_TORCH_FILES = ["config.json", "geosam.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"]


def load_model(options: ModelOptions | None = None) -> PromptableModel:
    """Load the model that the options name, ready to run on the device they name.

    Args:
        options: ``name`` is a name of the registry, a folder, a weights file, or a hub id.

    Raises:
        ModelError: No such model, device not there, hub not reachable, weights that do not fit or
            hold pickled code.
    """
    options = ModelOptions() if options is None else options
    device = choose_device(options.device)
    model = _load(options.name, device, choose_dtype(options.dtype, device))
    if options.compile:
        _compile(model)
    if options.magnify is not None:
        _magnify(model, options.magnify)
    return model


def _magnify(model: Any, times: int) -> None:
    """Enlarge the tiles of a model that takes tiles of any size."""
    if getattr(model, "step_px", None) is None:
        raise ModelError(f"--magnify is for models that take tiles of any size, such as river-tiny, not {model.name}.")
    model.magnify = times


def _compile(model: Any) -> None:
    """Compile what can be; a model without a way to runs as it is, and a RuntimeWarning says so."""
    if hasattr(model, "compile"):
        model.compile()
    else:
        warnings.warn(f"--compile: {model.name} is not compiled, only SAM is", RuntimeWarning, stacklevel=3)


def _load(name: str, device: torch.device, dtype: torch.dtype) -> PromptableModel:
    if name in MODELS:
        return _from_folder(_known(name), name, device, dtype)
    path = Path(name).expanduser()
    if path.exists():
        return _from_folder(path, path.stem if path.is_file() else path.resolve().name, device, dtype)
    if path.suffix in (SAFE, *PICKLED) or name.startswith((".", "~", "/")):
        raise ModelError(f"{name} does not exist. Give --model an existing folder or file, or a name of geosam models.")
    if not _HUB_ID.fullmatch(name):
        raise unknown(name)
    return _from_folder(from_hub(name), name, device, dtype)


def _known(name: str) -> Path:
    """The file or folder of a registered model, fetched if need be."""
    spec = MODELS[name]
    if spec.family == "sam":
        return from_hub(spec.source)
    if spec.family == "mobile-sam":
        raise ModelError(
            f"{name} is not fetched by geosam. Download {spec.source} from github.com/ChaoningZhang/MobileSAM "
            f"(folder weights), then give --model path/to/{spec.source}."
        )
    if not (WEIGHTS / spec.source).is_file():
        raise ModelError(f"{WEIGHTS / spec.source} is missing from the installed package. Install geosam-rivers again.")
    return WEIGHTS / spec.source


def _from_folder(path: Path, name: str, device: torch.device, dtype: torch.dtype) -> PromptableModel:
    """Choose the adapter by what the file or folder holds; only the one that is needed is imported."""
    if path.is_file():
        return _from_file(path, name, device, dtype)
    if (path / TUNED_FILE).is_file():
        return _on_its_base(path, name, device, dtype)
    config = path / "config.json"
    if not config.is_file():
        raise ModelError(f"{path} has no config.json. Give a folder with config.json and model.safetensors.")
    kind = read_json(config).get("model_type")
    if kind == "sam":
        from geosam.models.sam import load_sam

        return load_sam(path, name=name, device=device, dtype=dtype)
    if kind == "geosam-tiny":
        from geosam.models.tiny import load_tiny

        return load_tiny(path / f"model{SAFE}", name=name, device=device, dtype=dtype)
    raise ModelError(f"{config} has model_type {kind!r}; geosam runs sam and geosam-tiny.")


def _on_its_base(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> PromptableModel:
    """Learned weights on the base model that they were learned on."""
    notes = read_json(folder / TUNED_NOTES)
    base = str(notes.get("base", ""))
    try:
        model: Any = _load(base, device, dtype)
    except ModelError as error:
        raise ModelError(f"{folder} was tuned on {base or 'no model that it names'}, and {error}") from None
    if model.sha256 != notes.get("base_sha256"):
        raise ModelError(
            f"{folder} was tuned on another {base} than the one that is here (its weights differ). "
            "Tune it again, or bring back the base model it was tuned on."
        )
    learned, weights = read_tensors(folder / TUNED_FILE), model.module.state_dict()
    strange = sorted(key for key, value in learned.items() if key not in weights or weights[key].shape != value.shape)
    if strange:
        raise ModelError(f"{folder / TUNED_FILE} does not fit {base}: {some(strange)}. Tune it again.")
    model.module.load_state_dict(learned, strict=False)
    model.name, model.sha256 = name, sha256_of([folder / TUNED_FILE])
    model.threshold = float(notes.get("threshold", model.threshold))  # type: ignore[arg-type]
    model.understands = frozenset(map(str, notes.get("understands", model.understands)))  # type: ignore[call-overload]
    if hasattr(model, "plain"):
        model.plain = bool(notes.get("plain", False))
    tuned: PromptableModel = model
    return tuned


def _from_file(file: Path, name: str, device: torch.device, dtype: torch.dtype) -> PromptableModel:
    if file.suffix not in (SAFE, *PICKLED):
        raise ModelError(f"{file} is not a weights file. Give a {SAFE} or .pt file, or a folder with config.json.")
    if file.suffix == SAFE and "config" in read_metadata(file):
        from geosam.models.tiny import load_tiny

        return load_tiny(file, name=name, device=device, dtype=dtype)
    tensors = read_tensors(file)
    from geosam.models.mobile import is_mobile_sam, load_mobile_sam

    if is_mobile_sam(tensors):
        return load_mobile_sam(tensors, file, name=name, device=device, dtype=dtype)
    raise ModelError(f"{file} is not in MobileSAM's layout. {_advice(tensors)}")


def _advice(keys: object) -> str:
    """What to do with tensors that are of another model."""
    names = [str(key) for key in keys] if isinstance(keys, dict) else []
    if any(name.startswith("image_encoder.blocks.") for name in names):
        return "It is the original SAM: give --model sam-vit-base, sam-vit-large or sam-vit-huge instead."
    if any(name.startswith("vision_encoder.") for name in names):
        return "Give the folder that holds it and its config.json instead."
    return f"Its first tensor is {names[0] if names else 'missing'}. Give a folder with config.json instead."


def from_hub(hub_id: str) -> Path:
    """The folder in the cache that holds a hub model, downloaded if it is not there yet.

    A model that is in the cache is used without a word to the network, so that a run offline
    and a run online are the same run.

    Raises:
        ModelError: The hub cannot be reached or has no such model; says where the cache is.
    """
    for cached_only in (True, False):
        for patterns in (_SAFE_FILES, _TORCH_FILES):
            folder = _snapshot(hub_id, patterns, cached_only)
            if folder is not None and _is_complete(folder):
                return folder
    raise ModelError(f"the hub's {hub_id} has no config.json and model.safetensors. Give the id of a SAM.")


def _snapshot(hub_id: str, patterns: list[str], cached_only: bool) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=cached_only))
    except Exception as error:  # The client raises OSError, ValueError and its HTTP library's own.
        if cached_only:
            return None
        raise ModelError(_hub_trouble(hub_id, error)) from error


def _hub_trouble(hub_id: str, error: Exception) -> str:
    if type(error).__name__ in ("RepositoryNotFoundError", "HFValidationError", "GatedRepoError"):
        return f"the hub has no model {hub_id!r} that may be read, and there is no such folder here. Check the id."
    return (
        f"{hub_id} is not in the cache ({hub_cache()}), and the hub cannot be reached ({type(error).__name__}). "
        f"Where there is a network, run `hf download {hub_id}` and copy that cache, or give --model a folder."
    )


def _is_complete(folder: Path) -> bool:
    weights = [*folder.glob(f"*{SAFE}"), *folder.glob("pytorch_model*.bin")]
    return (folder / "config.json").is_file() and bool(weights)
