"""Tiny random models of every family, as ``save_pretrained`` writes them: their own classes, seeded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers.utils import logging

DECODER = {"hidden_size": 64, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
VIT = {
    "hidden_size": 32, "output_channels": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64,
    "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 32, "mlp_dim": 64,
}  # fmt: skip
PYRAMID = {"fpn_hidden_size": 64, "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
HIERA = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [64, 64], "num_attention_heads": 1,
    "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [16, 32, 64, 128], "global_attention_blocks": [3],
    "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 2, 2],
    "window_positional_embedding_background_size": [4, 4],
}  # fmt: skip
RESNET = {
    "model_type": "timm_wrapper", "architecture": "resnet10t", "num_classes": 2,
    "model_args": {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]},
}  # fmt: skip
PLAIN_VIT = {
    "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 56, "pretrain_image_size": 28, "window_size": 2,
    "global_attn_indexes": [1],
}  # fmt: skip

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sam": ("SamModel", "SamConfig", {
        "vision_config": VIT, "prompt_encoder_config": {"hidden_size": 64, "image_size": 64},
        "mask_decoder_config": DECODER,
    }),
    "sam-hq": ("SamHQModel", "SamHQConfig", {
        "vision_config": VIT, "prompt_encoder_config": {"hidden_size": 64, "image_size": 64},
        "mask_decoder_config": {**DECODER, "vit_dim": 32},
    }),
    "sam2": ("Sam2Model", "Sam2Config", {
        "vision_config": {**PYRAMID, "backbone_config": HIERA, "backbone_channel_list": [128, 64, 32, 16]},
        "prompt_encoder_config": {"hidden_size": 64, "image_size": 64}, "mask_decoder_config": DECODER,
    }),
    "edgetam": ("EdgeTamModel", "EdgeTamConfig", {
        "vision_config": {**PYRAMID, "backbone_config": RESNET, "backbone_channel_list": [512, 256, 128, 64],
                          "model_type": "edgetam_vision_model"},
        "prompt_encoder_config": {"hidden_size": 64, "image_size": 64}, "mask_decoder_config": DECODER,
    }),
    "sam3": ("Sam3TrackerModel", "Sam3TrackerConfig", {
        "vision_config": {**PYRAMID, "backbone_config": PLAIN_VIT, "scale_factors": [4.0, 2.0, 1.0],
                          "model_type": "sam3_vision_model"},
        "prompt_encoder_config": {"hidden_size": 64, "image_size": 56}, "mask_decoder_config": DECODER,
    }),
}  # fmt: skip
"""Network, configuration and its values, by family; each with tiles of 64 px, or 56 for SAM 3."""


MEMORY = {
    "memory_attention_hidden_size": 64, "memory_attention_num_layers": 1, "memory_attention_num_attention_heads": 1,
    "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 64,
    "memory_encoder_output_channels": 16, "mask_downsampler_embed_dim": 64, "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": 64, "memory_fuser_intermediate_dim": 32, "image_size": 64,
}  # fmt: skip
PLAIN = {"hidden_size": 64, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VIDEO_CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sam2": ("Sam2VideoModel", "Sam2VideoConfig", {**CONFIGS["sam2"][2], **MEMORY}),
    "edgetam": ("EdgeTamVideoModel", "EdgeTamVideoConfig", {**CONFIGS["edgetam"][2], **MEMORY}),
    "sam3": ("Sam3VideoModel", "Sam3VideoConfig", {
        "tracker_config": {**CONFIGS["sam3"][2], **MEMORY, "image_size": 56},
        "detector_config": {
            "vision_config": CONFIGS["sam3"][2]["vision_config"], "geometry_encoder_config": PLAIN,
            "text_config": {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                            "num_attention_heads": 2, "projection_dim": 32, "max_position_embeddings": 8},
            "detr_encoder_config": PLAIN, "detr_decoder_config": {**PLAIN, "num_queries": 4},
            "mask_decoder_config": {"hidden_size": 64, "num_attention_heads": 2},
        },
    }),
}  # fmt: skip
"""The video models whose checkpoints the hub has for three families."""


def random_network(family: str, configs: dict[str, tuple[str, str, dict[str, Any]]] = CONFIGS) -> Any:
    """A network whose weights are wide enough that its masks depend on prompts and image."""
    network, configuration, values = configs[family]
    torch.manual_seed(0)
    model = getattr(transformers, network)(getattr(transformers, configuration)(**values)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("positional_embedding"):
                weight.normal_(0, 1, generator=generator)
            elif weight.ndim > 1 and isinstance(weight, torch.nn.Parameter):
                weight.normal_(0, 1.5 / weight[0].numel() ** 0.5, generator=generator)
    shared = getattr(model, "shared_image_embedding", None)
    if shared is not None:  # One tensor under two names in every checkpoint.
        model.prompt_encoder.shared_embedding.positional_embedding.data.copy_(shared.positional_embedding.data)
    return model


def saved(model: Any, folder: Path) -> Path:
    """Write a network as the hub has it."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()
    return folder


def saved_by_its_names(model: Any, folder: Path) -> Path:
    """Write a network under its own tensor names, as the hub has SAM 3.

    ``save_pretrained`` of transformers 5.23 writes a name that it does not read again.
    """
    folder.mkdir(exist_ok=True)
    model.config.save_pretrained(folder)
    save_file({name: value.clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder
