"""Fixtures that several rooms' tests share. Heavy imports stay inside the fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random SAM of 0.4 M weights and 64 px tiles, as ``save_pretrained`` writes it.

    Its weights are drawn wide enough for logits of order one that depend on the prompts, so that
    a test of equal masks cannot pass because all masks are zero.
    """
    import torch
    from transformers import SamConfig, SamModel
    from transformers.utils import logging

    config = SamConfig(
        vision_config={
            "hidden_size": 64, "output_channels": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 32, "mlp_dim": 128,
        },
        prompt_encoder_config={"hidden_size": 64, "image_size": 64},
        mask_decoder_config={
            "hidden_size": 64, "mlp_dim": 128, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
        },
    )  # fmt: skip
    model = SamModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("positional_embedding"):
                weight.normal_(0, 1, generator=generator)
            elif weight.ndim > 1:
                weight.normal_(0, 1.5 / weight[0].numel() ** 0.5, generator=generator)
    folder = tmp_path_factory.mktemp("tiny-sam")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()
    return folder
