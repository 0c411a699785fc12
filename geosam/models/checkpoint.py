"""Reading weights safely: tensors only, never code, and nothing left out or left over in silence."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from geosam.errors import ModelError

TUNED_FILE, TUNED_NOTES = "tuned.safetensors", "geosam.json"
"""What a folder holds that is to be loaded on a base model: learned weights alone, and which model they belong to."""

SAFE, PICKLED = ".safetensors", (".pt", ".pth", ".bin")
_NAMED = 3  # Keys that a message names; the rest are counted.


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a weights file, on the CPU.

    Args:
        file: ``.safetensors``, or a torch file that holds nothing but tensors; a state dict one
            level down, under ``model`` or ``state_dict``, is found too.

    Raises:
        ModelError: The file cannot be read, holds pickled code, or holds no tensors.
    """
    try:
        found = load_file(file) if file.suffix == SAFE else _load_torch(file)
    except pickle.UnpicklingError as error:
        raise (refused(file) if _is_pickle(file) else _unreadable(file, error)) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        if "TorchScript" in str(error):
            raise refused(file) from None
        raise _unreadable(file, error) from None
    return _state_dict(found, file)


def _load_torch(file: Path) -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")  # Refused in one line of ours instead.
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_pickle(file: Path) -> bool:
    """Whether a file is a torch archive or a bare pickle at all, rather than rubbish."""
    with file.open("rb") as stream:
        return stream.read(1) == pickle.PROTO or zipfile.is_zipfile(file)


def _unreadable(file: Path, error: Exception) -> ModelError:
    return ModelError(f"{file} cannot be read as weights ({_first_line(error)}). Fetch or copy it again.")


def refused(file: Path) -> ModelError:
    """The error for a checkpoint that would run code when it is opened."""
    return ModelError(
        f"{file} was refused: it holds pickled code; only safetensors files, or torch files that load with "
        f"weights_only=True, are read. Save its state_dict() again with safetensors."
    )


def _state_dict(found: object, file: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = found if isinstance(found, Mapping) else {}
    tensors = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError(f"{file} holds no tensors by name. Give a file that holds a model's state_dict().")
    return tensors


def read_metadata(file: Path) -> dict[str, str]:
    """The text entries of a safetensors file's header.

    Raises:
        ModelError: The file is not safetensors.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def read_json(file: Path) -> dict[str, object]:
    """A JSON object from a file.

    Raises:
        ModelError: The file is not JSON, or not an object.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is not a JSON file that can be read ({_first_line(error)}).") from None
    if not isinstance(values, dict):
        raise ModelError(f"{file} must hold a JSON object, got {type(values).__name__}.")
    return values


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, safetensors before torch files, one or several shards.

    Raises:
        ModelError: There are none, or a shard is missing.
    """
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = folder / f"{stem}{suffix}.index.json"
        if (folder / f"{stem}{suffix}").is_file():
            return [folder / f"{stem}{suffix}"]
        if index.is_file():
            return _shards(index)
    raise ModelError(f"{folder} has no model.safetensors. Give a folder with config.json and model.safetensors.")


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelError(f"{index} has no weight_map from tensors to files. Fetch or copy it again.")
    files = [index.parent / Path(name).name for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{index.parent} lacks {some(missing)}. Fetch or copy it again.")
    return files


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 of a weights file, in hex; of several, that of their digests in the order given."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def check_fit(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    """Check that weights fit a network: every key, no other key, every shape.

    Raises:
        ModelError: Names the first few keys at fault.
    """
    both = given.keys() & wanted.keys()
    misfit(
        source,
        missing=wanted.keys() - given.keys(),
        unexpected=given.keys() - wanted.keys(),
        misshapen=[
            f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in both
            if given[key].shape != wanted[key].shape
        ],
    )


def misfit(source: str, missing: Iterable[str], unexpected: Iterable[str], misshapen: Iterable[str]) -> None:
    """Raise if any of the three is not empty.

    Raises:
        ModelError: Names the first few keys at fault.
    """
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(misshapen)}
    faults = [f"{len(keys)} {kind}: {some(keys)}" for kind, keys in kinds.items() if keys]
    if faults:
        raise ModelError(f"the weights in {source} do not fit the model ({'; '.join(faults)}). Give a matching pair.")


def some(names: Collection[str]) -> str:
    """The first few of some names, and how many there are besides."""
    named = ", ".join(list(names)[:_NAMED])
    return f"{named} and {len(names) - _NAMED} more" if len(names) > _NAMED else named


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
