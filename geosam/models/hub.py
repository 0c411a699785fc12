"""Weights from the hub by way of its cache: what is there is used without a word to the network. No torch here."""

from __future__ import annotations

import json
import re
from pathlib import Path

from geosam.errors import ModelError
from geosam.models.registry import MODELS, hub_cache, unknown

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"]
_FACTS = ["config.json", "preprocessor_config.json", "processor_config.json", "geosam.json", *_TOKENIZER]
_SAFE_FILES = [*_FACTS, "*.safetensors", "*.safetensors.index.json"]
_TORCH_FILES = [*_FACTS, "pytorch_model*.bin", "pytorch_model.bin.index.json"]
_WEIGHTS = (("model", ".safetensors"), ("pytorch_model", ".bin"), ("tuned", ".safetensors"))


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name."""
    return _HUB_ID.fullmatch(name) is not None


def pull(name: str) -> Path | None:
    """Fetch a model for use without a network.

    Args:
        name: A name of the registry, or a hub id.

    Returns:
        The folder in the cache; None for a model inside the package.

    Raises:
        ModelError: There is no such model, it is not geosam's to fetch, the hub cannot be reached or refuses.
    """
    spec = MODELS.get(name)
    if spec is None and not is_hub_id(name):
        raise unknown(name)
    if spec is None or spec.on_hub:
        return from_hub(name, words=spec is not None and "text" in spec.understands)
    if spec.family == "mobile-sam":
        raise not_fetched(name)
    return None


def from_hub(name: str, words: bool = False) -> Path:
    """The folder in the cache that holds a model, downloaded if it is not there yet.

    A model that is in the cache is used without a word to the network, so that a run offline
    and a run online are the same run.

    Args:
        name: A registered name of a hub model, or a hub id.
        words: What the cache holds has to have a tokenizer too.

    Raises:
        ModelError: The hub cannot be reached or has no such model; says where the cache is.
    """
    hub_id = MODELS[name].source if name in MODELS else name
    for cached_only in (True, False):
        for patterns in (_SAFE_FILES, _TORCH_FILES):
            folder = _snapshot(name, hub_id, patterns, cached_only)
            if folder is not None and is_complete(folder) and (has_tokenizer(folder) or not words):
                return folder
    what = "config.json, model.safetensors and tokenizer.json" if words else "config.json and model.safetensors"
    raise ModelError(f"the hub's {hub_id} has no {what}. Give the id of a model that has.")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer; one that was fetched for points alone does not."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def not_fetched(name: str) -> ModelError:
    """The error for a model whose file the user has to bring."""
    source = MODELS[name].source
    return ModelError(
        f"{name} is not fetched by geosam. Download {source} from github.com/ChaoningZhang/MobileSAM "
        f"(folder weights), then give --model path/to/{source}."
    )


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a configuration and weights, with every shard that their index names."""
    if not any((folder / name).is_file() for name in ("config.json", "geosam.json")):
        return False
    for stem, suffix in _WEIGHTS:
        index = folder / f"{stem}{suffix}.index.json"
        if (folder / f"{stem}{suffix}").is_file() or (index.is_file() and _has_shards(index)):
            return True
    return False


def _has_shards(index: Path) -> bool:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return all((index.parent / Path(name).name).is_file() for name in names)


def _snapshot(name: str, hub_id: str, patterns: list[str], cached_only: bool) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=cached_only))
    except Exception as error:  # The client raises OSError, ValueError and its HTTP library's own.
        if cached_only:
            return None
        raise ModelError(_trouble(name, hub_id, error)) from error


def _trouble(name: str, hub_id: str, error: Exception) -> str:
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return (
            f"{hub_id} is gated: ask for access and accept its licence on its page of the hub, then log in here "
            f"with `hf auth login`, and run `geosam models pull {name}`."
        )
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return f"the hub has no model {hub_id!r} that may be read, and there is no such folder here. Check the id."
    return (
        f"{hub_id} is not in the cache ({hub_cache()}), and the hub cannot be reached ({kind}). Where there is a "
        f"network, run `geosam models pull {name}` and copy that cache, or give --model a folder."
    )
