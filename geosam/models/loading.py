"""From a name, a hub id, a folder or a file to a model that runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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
from geosam.models.families import WORDS, family_of, model_types
from geosam.models.hub import from_hub, is_hub_id, not_fetched
from geosam.models.protocol import PromptableModel
from geosam.models.registry import MODELS, WEIGHTS, that_understand, unknown
from geosam.options import ModelOptions


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
    if options.text is not None:
        return _asked_by_words(options, options.text, device)
    model = _load(options.name, device, choose_dtype(options.dtype, device))
    if options.compile:
        _compile(model)
    if options.magnify is not None:
        _magnify(model, options.magnify)
    return model


def understands_words(name: str) -> bool:
    """Whether a model is asked by words itself; reads no weights, but fetches those of a hub id that are not here.

    Args:
        name: A name of the registry, a folder, a weights file, or a hub id.

    Raises:
        ModelError: A hub id cannot be fetched, or a folder's configuration cannot be read.
    """
    if name in MODELS:
        return "text" in MODELS[name].understands
    path = Path(name).expanduser()
    if not path.exists() and is_hub_id(name):
        path = from_hub(name)
    config = path / "config.json"
    return config.is_file() and read_json(config).get("model_type") in WORDS.model_types


def _asked_by_words(options: ModelOptions, text: str, device: torch.device) -> PromptableModel:
    name = options.name
    if not understands_words(name):
        raise ModelError(
            f"{name} does not understand words; {that_understand('text')} does. Choose that, or have CLIP choose among "
            "all segments: geosam everything, then geosam select --text."
        )
    from geosam.models.pretrained import load_concepts

    path = Path(name).expanduser()
    folder = path if path.exists() and name not in MODELS else from_hub(name, words=True)
    shown = path.resolve().name if folder == path else name
    dtype = choose_dtype(options.dtype, device)
    return load_concepts(folder, text, options.text_score, name=shown, device=device, dtype=dtype)


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
        told = f"--compile: {model.name} is not compiled, only SAM, SAM-HQ and river-tiny are"
        warnings.warn(told, RuntimeWarning, stacklevel=3)


def _load(name: str, device: torch.device, dtype: torch.dtype) -> PromptableModel:
    if name in MODELS:
        return _from_folder(_known(name), name, device, dtype)
    path = Path(name).expanduser()
    if path.exists():
        return _from_folder(path, path.stem if path.is_file() else path.resolve().name, device, dtype)
    if path.suffix in (SAFE, *PICKLED) or name.startswith((".", "~", "/")):
        raise ModelError(f"{name} does not exist. Give --model an existing folder or file, or a name of geosam models.")
    if not is_hub_id(name):
        raise unknown(name)
    return _from_folder(from_hub(name), name, device, dtype)


def _known(name: str) -> Path:
    """The file or folder of a registered model, fetched if need be."""
    spec = MODELS[name]
    if spec.on_hub:
        return from_hub(name)
    if spec.family == "mobile-sam":
        raise not_fetched(name)
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
    family = family_of(kind)
    if family is not None:
        from geosam.models.pretrained import load_pretrained

        return load_pretrained(path, family, name=name, device=device, dtype=dtype)
    if kind == "geosam-tiny":
        from geosam.models.tiny import load_tiny

        return load_tiny(path / f"model{SAFE}", name=name, device=device, dtype=dtype)
    if kind in WORDS.model_types:
        raise ModelError(
            f"{path} is a SAM 3 without its tracker, which is asked by words alone. Say what is wanted with --text, "
            "or give a checkpoint that holds the tracker too (model_type sam3_video)."
        )
    raise ModelError(f"{config} has model_type {kind!r}; geosam runs {', '.join(model_types())} and geosam-tiny.")


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
        model.plain, model.chooses = bool(notes.get("plain", False)), bool(notes.get("chooses", False))
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


_LAYOUTS = (
    ("mask_decoder.hf_", "the original SAM-HQ", "sam-hq"),
    ("spatial_perceiver.", "the original EdgeTAM", "edgetam"),
    ("sam_mask_decoder.", "the original SAM 2", "sam2"),
    ("detector.backbone.", "the original SAM 3", "sam3"),
    ("image_encoder.blocks.", "the original SAM", "sam"),
)
"""How the tensors of published files begin that geosam reads in transformers' layout instead."""


def _advice(tensors: Mapping[str, object]) -> str:
    """What to do with tensors that are of another model."""
    names = list(tensors)
    for start, what, family in _LAYOUTS:
        if any(name.startswith(start) for name in names):
            known = " or ".join(spec.name for spec in MODELS.values() if spec.family == family)
            return f"It is {what}: give --model {known} instead."
    if any(name.startswith("vision_encoder.") for name in names):
        return "Give the folder that holds it and its config.json instead."
    return f"Its first tensor is {names[0] if names else 'missing'}. Give a folder with config.json instead."
