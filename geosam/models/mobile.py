"""The published MobileSAM checkpoint (Zhang et al. 2023, Faster Segment Anything) on :class:`TinySam`.

The checkpoint has segment-anything's names for the prompt encoder and mask decoder, which the
network shares, and TinyViT's first names for the encoder, which timm has since changed. Source of
the names: the modules of github.com/ChaoningZhang/MobileSAM, mobile_sam/modeling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from geosam.models.checkpoint import check_fit, sha256_of
from geosam.models.network import MOBILE_SAM, TinySam
from geosam.models.tiny import TinyModel

_UNUSED = re.compile(
    r"pixel_(mean|std)"
    r"|image_encoder\.(norm_head|head)\..*"  # the classifier it was distilled without
    r"|.*\.attention_bias_idxs"  # follows from the window size
)


def is_mobile_sam(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has MobileSAM's layout, complete or not."""
    return any(re.match(r"(module\.)?image_encoder\.(layers\.\d|patch_embed\.seq\.)", key) for key in tensors)


def our_key(key: str) -> str | None:
    """The name in :class:`TinySam` of a MobileSAM tensor; None for one that is not needed.

    Where the names differ, it is in the encoder: ``patch_embed.seq.{0,2}`` are ``conv1`` and
    ``conv2``; ``layers`` are ``stages``; a convolution and its norm are ``c`` and ``bn``; and the
    downsampling at the end of layer N is, in timm, at the start of stage N + 1.
    """
    key = key.removeprefix("module.")
    if _UNUSED.fullmatch(key):
        return None
    if not key.startswith("image_encoder.") or key.startswith("image_encoder.neck."):
        return key
    inner = key.removeprefix("image_encoder.")
    inner = re.sub(r"^patch_embed\.seq\.(\d+)\.", lambda m: f"patch_embed.conv{int(m[1]) // 2 + 1}.", inner)
    inner = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", inner)
    inner = re.sub(r"^layers\.(\d+)\.", r"stages.\1.", inner)
    return "image_encoder.backbone." + re.sub(r"\.c\.weight$", ".conv.weight", inner)


def mobile_sam_network(tensors: Mapping[str, Tensor], source: str) -> TinySam:
    """A network with the weights of a state dict in MobileSAM's layout.

    Args:
        tensors: By MobileSAM's names.
        source: Named in the error.

    Raises:
        ModelError: Tensors are missing, left over or of another shape.
    """
    network = TinySam(MOBILE_SAM)
    wanted = network.state_dict()
    # Counters of batches seen in training: old files lack them, and nothing reads them.
    given = {key: value for key, value in wanted.items() if key.endswith(".num_batches_tracked")}
    given |= {name: value for key, value in tensors.items() if (name := our_key(key)) is not None}
    check_fit(given, wanted, source)
    network.load_state_dict(given)
    return network


def load_mobile_sam(
    tensors: Mapping[str, Tensor], file: Path, *, name: str, device: torch.device, dtype: torch.dtype
) -> TinyModel:
    """MobileSAM, from its published file.

    Raises:
        ModelError: The weights do not fit.
    """
    network = mobile_sam_network(tensors, str(file))
    return TinyModel(network, name=name, sha256=sha256_of([file]), device=device, dtype=dtype)
