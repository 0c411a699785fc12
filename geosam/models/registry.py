"""The models geosam knows by name. Reading it needs neither torch nor a network."""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geosam.errors import ModelError

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights inside the package lie."""


@dataclass(frozen=True)
class ModelSpec:
    """One line of ``geosam models``.

    Attributes:
        name: What ``--model`` is given.
        family: Which adapter runs it.
        source: Hub id; or the file's name, in the package (``tiny``) or to be given by the user (``mobile-sam``).
        licence: SPDX name of the weights' licence.
        tile_px: Side of its tiles in pixels.
        parameters: Number of weights; 0: to be read from the file.
        download_mb: Size of the download in MB (10^6 bytes); 0 where nothing is fetched.
        understands: Kinds of prompt that mean something to it.
        about: A few words for a person who chooses.
    """

    name: str
    family: Literal["tiny", "sam", "mobile-sam"]
    source: str
    licence: str
    tile_px: int
    parameters: int
    download_mb: int
    understands: tuple[str, ...]
    about: str

    def parameter_count(self) -> int:
        """Number of weights, from the bundled file where the table does not say; 0 if that is missing."""
        file = WEIGHTS / self.source
        return self.parameters or (tensor_sizes(file) if file.is_file() else 0)

    def is_here(self) -> bool:
        """Whether the weights are on this machine; for a hub model, in the hub's cache."""
        if self.family == "sam":
            return in_hub_cache(self.source)
        return self.family == "tiny" and (WEIGHTS / self.source).is_file()


_STOCK = ("points", "boxes")

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "river-tiny", "tiny", "river-tiny.safetensors", "Apache-2.0", 256, 0, 0,
            ("points", "boxes", "mask", "none"), "tuned on rivers, inside the package, made for CPUs",
        ),
        ModelSpec(
            "sam-vit-base", "sam", "facebook/sam-vit-base", "Apache-2.0", 1024, 93_735_472, 375, _STOCK,
            "Segment Anything, the smallest",
        ),
        ModelSpec(
            "sam-vit-large", "sam", "facebook/sam-vit-large", "Apache-2.0", 1024, 312_342_832, 1250, _STOCK,
            "Segment Anything, the middle one",
        ),
        ModelSpec(
            "sam-vit-huge", "sam", "facebook/sam-vit-huge", "Apache-2.0", 1024, 641_090_608, 2564, _STOCK,
            "Segment Anything, the largest; wants a GPU",
        ),
        ModelSpec(
            "mobile-sam", "mobile-sam", "mobile_sam.pt", "Apache-2.0", 1024, 9_808_452, 41, _STOCK,
            "give the path of its published file mobile_sam.pt",
        ),
    )
}  # fmt: skip
"""Every model with a name, by that name, in the order in which they are listed."""


def unknown(name: str) -> ModelError:
    """The error for a name that is neither in the table nor on disk, with the names nearest to it."""
    near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known names: {', '.join(MODELS)}."
    return ModelError(
        f"there is no model {name!r}. {hint} Or give --model a hub id (owner/name), a folder with config.json and "
        f"model.safetensors, or a weights file."
    )


def hub_cache() -> Path:
    """Folder in which the hub's client keeps downloads, by the same environment variables."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def in_hub_cache(hub_id: str) -> bool:
    """Whether a hub model's weights are in the cache."""
    # The layout is the client's own, and public. Asking the client costs 0.5 s of imports.
    snapshots = hub_cache() / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return any(snapshots.glob("*/*.safetensors")) or any(snapshots.glob("*/*.bin"))


def tensor_sizes(file: Path) -> int:
    """Number of values in a safetensors file, from its header alone.

    Source: the safetensors format: 8 bytes little-endian length, then JSON of names, dtypes and shapes.
    """
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
