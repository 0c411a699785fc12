"""The models geosam knows by name. Reading it needs neither torch nor a network."""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

from geosam.errors import ModelError
from geosam.models.families import FAMILIES

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights inside the package lie."""


@dataclass(frozen=True)
class ModelSpec:
    """One line of ``geosam models``.

    Attributes:
        name: What ``--model`` is given.
        family: Which adapter runs it: ``tiny``, ``mobile-sam``, or a key of :data:`~geosam.models.families.FAMILIES`.
        source: Hub id; or the file's name, in the package (``tiny``) or to be given by the user (``mobile-sam``).
        licence: SPDX name of the weights' licence, or its title where it has none.
        tile_px: Side of its tiles in pixels.
        parameters: Number of weights that run; 0: to be read from the file.
        download_mb: Size of the download in MB (10^6 bytes); 0 where nothing is fetched, None: not known.
        understands: Kinds of prompt that mean something to it.
        about: A few words for a person who chooses.
        gated: The hub hands the weights to people whose request its owner has granted.
    """

    name: str
    family: str
    source: str
    licence: str
    tile_px: int
    parameters: int
    download_mb: int | None
    understands: tuple[str, ...]
    about: str
    gated: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether the weights are fetched from the hub."""
        return self.family in FAMILIES

    def parameter_count(self) -> int:
        """Number of weights, from the bundled file where the table does not say; 0 if that is missing."""
        file = WEIGHTS / self.source
        return self.parameters or (tensor_sizes(file) if file.is_file() else 0)

    def is_here(self) -> bool:
        """Whether the weights are on this machine; for a hub model, in the hub's cache."""
        if self.on_hub:
            return in_hub_cache(self.source)
        return self.family == "tiny" and (WEIGHTS / self.source).is_file()


_STOCK = ("points", "boxes")
_OPEN = "Apache-2.0"

# Parameters are counted on networks built from each size's published configuration, without the memory that the video
# models have besides. Downloads are as large as the hub shows; EdgeTAM's size was not to be found.
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("river-tiny", "tiny", "river-tiny.safetensors", _OPEN, 256, 0, 0,
                  ("points", "boxes", "mask", "none"), "tuned on rivers, inside the package, made for CPUs"),
        ModelSpec("sam-vit-base", "sam", "facebook/sam-vit-base", _OPEN, 1024, 93_735_472, 375, _STOCK,
                  "Segment Anything, the smallest"),
        ModelSpec("sam-vit-large", "sam", "facebook/sam-vit-large", _OPEN, 1024, 312_342_832, 1250, _STOCK,
                  "Segment Anything, the middle one"),
        ModelSpec("sam-vit-huge", "sam", "facebook/sam-vit-huge", _OPEN, 1024, 641_090_608, 2564, _STOCK,
                  "Segment Anything, the largest; wants a GPU"),
        ModelSpec("sam-hq-vit-base", "sam-hq", "syscv-community/sam-hq-vit-base", _OPEN, 1024, 94_806_832, 379,
                  _STOCK, "SAM-HQ: SAM with crisper masks, the smallest"),
        ModelSpec("sam-hq-vit-large", "sam-hq", "syscv-community/sam-hq-vit-large", _OPEN, 1024, 313_676_336, 1250,
                  _STOCK, "SAM-HQ, the middle one"),
        ModelSpec("sam-hq-vit-huge", "sam-hq", "syscv-community/sam-hq-vit-huge", _OPEN, 1024, 642_686_256, 2570,
                  _STOCK, "SAM-HQ, the largest; wants a GPU"),
        ModelSpec("sam2.1-hiera-tiny", "sam2", "facebook/sam2.1-hiera-tiny", _OPEN, 1024, 31_440_721, 156, _STOCK,
                  "SAM 2.1 on single images, the smallest"),
        ModelSpec("sam2.1-hiera-small", "sam2", "facebook/sam2.1-hiera-small", _OPEN, 1024, 38_538_577, 184, _STOCK,
                  "SAM 2.1, the second smallest"),
        ModelSpec("sam2.1-hiera-base-plus", "sam2", "facebook/sam2.1-hiera-base-plus", _OPEN, 1024, 73_328_401, 323,
                  _STOCK, "SAM 2.1, the second largest"),
        ModelSpec("sam2.1-hiera-large", "sam2", "facebook/sam2.1-hiera-large", _OPEN, 1024, 216_924_865, 898, _STOCK,
                  "SAM 2.1, the largest"),
        ModelSpec("edgetam", "edgetam", "yonigozlan/EdgeTAM-hf", _OPEN, 1024, 9_120_641, None, _STOCK,
                  "EdgeTAM: SAM 2 for small devices"),
        ModelSpec("sam3", "sam3", "facebook/sam3", "SAM License", 1008, 458_260_369, 3440, (*_STOCK, "text"),
                  "SAM 3 by points, boxes or words; gated: ask for access on its hub page", gated=True),
        ModelSpec("mobile-sam", "mobile-sam", "mobile_sam.pt", _OPEN, 1024, 9_808_452, 41, _STOCK,
                  "give the path of its published file mobile_sam.pt"),
    )
}  # fmt: skip
"""Every model with a name, by that name, in the order in which they are listed."""


def that_understand(kind: str) -> str:
    """The names of the models that a kind of prompt means something to, for a message."""
    return " or ".join(spec.name for spec in MODELS.values() if kind in spec.understands)


def unknown(name: str) -> ModelError:
    """The error for a name that is neither in the table nor on disk, with the names nearest to it."""
    near = difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.65)
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
