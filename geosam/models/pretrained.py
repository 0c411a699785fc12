"""From a folder as ``save_pretrained`` writes it to an adapter: tensors only, and nothing left out in silence."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.utils import logging as _hf_logging

from geosam.errors import ModelError
from geosam.models.checkpoint import misfit, read_json, read_tensors, sha256_of, weight_files
from geosam.models.families import FAMILIES, WORDS, Family
from geosam.models.segment_anything import SegmentAnything

if TYPE_CHECKING:
    from geosam.models.concepts import ConceptModel

hf_logging: Any = _hf_logging


def load_pretrained(
    folder: Path, family_name: str, *, name: str, device: torch.device, dtype: torch.dtype
) -> SegmentAnything:
    """A model of one of transformers' families, stock or fine-tuned.

    A file ``geosam.json`` beside it may say ``{"threshold": 0.45, "understands": ["points", "mask"]}``.

    Args:
        folder: Holds ``config.json`` and ``model.safetensors``, its shards, or ``pytorch_model.bin``.
        family_name: Key of :data:`~geosam.models.families.FAMILIES`.
        name: As the user named it.
        device: Where to run.
        dtype: Precision of its arithmetic.

    Raises:
        ModelError: A file is missing or unreadable, holds pickled code, or does not fit its config; or transformers
            is too old for the family.
    """
    family = FAMILIES[family_name]
    model, sha256 = _network(folder, family)
    extra = {**_extra(folder / "geosam.json"), **_normalisation(folder)}
    module, _, adapter_name = family.adapter.partition(":")
    adapter: type[SegmentAnything] = getattr(importlib.import_module(f"geosam.models.{module}"), adapter_name)
    return adapter(model, name=name, sha256=sha256, device=device, dtype=dtype, **extra)


def load_concepts(
    folder: Path, text: str, least: float, *, name: str, device: torch.device, dtype: torch.dtype
) -> ConceptModel:
    """A SAM 3 that finds what words mean.

    Args:
        folder: Holds ``config.json``, weights and a tokenizer.
        text: What is wanted.
        least: Instances of a lower score are passed over.
        name: As the user named it.
        device: Where to run.
        dtype: Precision of its arithmetic.

    Raises:
        ModelError: As of :func:`load_pretrained`; or the tokenizer is missing.
        OptionsError: No words, or too many.
    """
    from geosam.models.concepts import ConceptModel, tokens_of

    model, sha256 = _network(folder, WORDS)
    words = tokens_of(folder, text, int(model.config.text_config.max_position_embeddings))
    facts: dict[str, Any] = {"name": name, "sha256": sha256, "device": device, "dtype": dtype, "least": least}
    return ConceptModel(model, words, **{**facts, **_normalisation(folder)})


def _network(folder: Path, family: Family) -> tuple[Any, str]:
    """A family's network with a folder's weights, and their SHA-256 in hex."""
    network, configuration = _classes(family)
    files = weight_files(folder)
    config = _config(folder / "config.json", configuration, family)
    tensors = {key: value for file in files for key, value in read_tensors(file).items()}
    model, report = _build(network, config, tensors, folder / "config.json", family)
    misshapen = [f"{key} {tuple(got)} instead of {tuple(want)}" for key, got, want in report["mismatched_keys"]]
    misfit(str(folder), report["missing_keys"], report["unexpected_keys"], misshapen)
    return model, sha256_of(files)


def _classes(family: Family) -> tuple[Any, Any]:
    """The family's network and configuration in the transformers that is installed."""
    try:
        return getattr(transformers, family.network), getattr(transformers, family.config)
    except AttributeError:
        raise ModelError(
            f"{family.title} needs transformers >= {family.since}, and {transformers.__version__} is installed. "
            f"Install it with: pip install 'transformers>={family.since}'"
        ) from None


def _config(file: Path, configuration: Any, family: Family) -> Any:
    values = read_json(file)
    try:
        with _quiet_transformers():
            # Not from_dict, which in 4.57 looks up defaults on the hub.
            config = configuration(**values)
    except Exception as error:  # The config's own checks raise what they like.
        raise _wrong_config(file, family, error) from None
    size = getattr(config.vision_config, "image_size", None)
    if isinstance(size, list | tuple) and len(set(size)) > 1:
        raise ModelError(f"{file} wants tiles of {size}; only square tiles are run.")
    return config


def _build(network: Any, config: Any, tensors: dict[str, torch.Tensor], file: Path, family: Family) -> tuple[Any, Any]:
    """The network with its weights, and what was missing, left over or of another shape."""
    try:
        with _quiet_transformers():
            # from_pretrained rather than load_state_dict: it knows the names of older checkpoints and tied weights.
            built: tuple[Any, Any] = network.from_pretrained(
                None, config=config, state_dict=tensors, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except Exception as error:  # Weights that do not fit are in the report; what raises is a network of no sense.
        raise _wrong_config(file, family, error) from None
    return built


def _wrong_config(file: Path, family: Family, error: Exception) -> ModelError:
    article = "an" if family.title[0] in "AEIO" else "a"
    return ModelError(f"{file} does not describe {article} {family.title} ({' '.join(str(error).split())[:160]}).")


def _extra(file: Path) -> dict[str, Any]:
    """What geosam's own file beside the weights says of threshold and prompts."""
    values = read_json(file) if file.is_file() else {}
    threshold, understands = values.get("threshold", 0.5), values.get("understands", ["points", "boxes"])
    kinds = {"points", "boxes", "mask", "none"}
    if not isinstance(threshold, float) or not 0 < threshold < 1:
        raise ModelError(f"{file}: threshold must be between 0 and 1, got {threshold!r}.")
    if not isinstance(understands, list) or not kinds.issuperset(map(str, understands)):
        raise ModelError(f"{file}: understands must be a list of {', '.join(sorted(kinds))}, got {understands!r}.")
    return {"threshold": threshold, "understands": frozenset(map(str, understands))}


def _normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of 8-bit RGB that the checkpoint was trained by, where its files say so."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        values = read_json(folder / name) if (folder / name).is_file() else {}
        inner = values.get("image_processor", values)
        found = {key: inner.get(f"image_{key}") for key in ("mean", "std")} if isinstance(inner, dict) else {}
        if found and all(_is_rgb(value) for value in found.values()):
            return {key: tuple(255.0 * float(v) for v in value) for key, value in found.items() if value}
    return {}


def _is_rgb(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep progress bars and load reports off stderr: what is wrong is said in one line of ours."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
