"""A SAM of a published size with random weights, the same for the same seed: speed needs no others.

python benchmarks/random_sam.py sam-vit-base --out runs/weights/sam-vit-base
python benchmarks/random_sam.py sam-vit-base --out vit_b.pth --layout original

Weights are drawn as wide as their inputs are many, so that activations keep their size from layer to layer as in a
trained model, masks depend on image and points, and what half precision loses shows as it would there.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

SIZES = {
    "sam-vit-base": {},
    "sam-vit-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                      "global_attn_indexes": [5, 11, 17, 23]},
    "sam-vit-huge": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
                     "global_attn_indexes": [7, 15, 23, 31]},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 256,
             "window_size": 6, "global_attn_indexes": [1], "mlp_dim": 128},
}  # fmt: skip
"""Vision encoders: after the configurations of facebook/sam-vit-*, and one for rehearsals."""

LOGITS = 20
"""Makes logits as large as a trained model's, 5 or so: of smaller ones, geosam's levels of 1/256 would lose some."""


def random_sam(name: str, seed: int = 0, **changes: Any) -> Any:
    """transformers' ``SamModel`` on the CPU, in float32."""
    from transformers import SamConfig, SamModel

    vision = {**SIZES[name], **changes}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=_same(vision))).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for key, weight in model.named_parameters():
        if key.endswith("positional_embedding"):
            weight.normal_(0, 1, generator=generator)
        elif weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
    for head in model.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.mul_(LOGITS)
    return model


def _same(vision: dict[str, Any]) -> dict[str, Any]:
    return {"image_size": vision["image_size"]} if "image_size" in vision else {}


def saved(name: str, folder: Path, seed: int = 0) -> Path:
    """The folder of such a model, made once."""
    if not (folder / "model.safetensors").exists():
        random_sam(name, seed).save_pretrained(folder)
    return folder


# From transformers' names to those of the first release, segment_anything; more of it is alike than is not.
_RENAMED = [
    (r"^vision_encoder\.", "image_encoder."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"^image_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^image_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^image_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^image_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding",
     "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"(mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(mlps\.\d+|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"(mlps\.\d+|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
]  # fmt: skip


def original_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of transformers' ``SamModel`` under the names of segment_anything."""
    kept = {key: value for key, value in tensors.items() if not key.startswith("shared_image_embedding.")}
    return {_renamed(key): value for key, value in kept.items()}


def _renamed(key: str) -> str:
    for old, new in _RENAMED:
        key = re.sub(old, new, key)
    return key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("--out", required=True, help="folder; with --layout original a file")
    parser.add_argument("--layout", choices=["transformers", "original"], default="transformers")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.layout == "transformers":
        saved(asked.name, Path(asked.out), asked.seed)
    else:
        torch.save(original_layout(random_sam(asked.name, asked.seed).state_dict()), asked.out)


if __name__ == "__main__":
    main()
