"""Fixtures that several rooms' tests share. Heavy imports stay inside the fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: for tiny models several only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random SAM of 0.3 M weights and 64 px tiles, as ``save_pretrained`` writes it.

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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a random small SAM with 64 px tiles, as ``geosam finetune`` writes them."""
    import torch

    from geosam.finetune.loop import save_weights
    from geosam.models.network import TinySam, TinySamConfig

    torch.manual_seed(0)
    network = TinySam(TinySamConfig(image_size=64))
    path = tmp_path_factory.mktemp("tiny-weights") / "tiny.safetensors"
    save_weights(network.state_dict(), network.config, path)
    return path


@pytest.fixture(scope="session")
def river_tif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 200 x 150 px RGB+NIR raster in UTM: a dark river 24 px wide from top to bottom, on bright land.

    Its near infrared is low in the water, so that NDWI finds exactly columns 60 to 83.
    """
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    bands = np.full((4, 150, 200), 120, np.uint8) + rng.integers(0, 9, (4, 150, 200), dtype=np.uint8)
    bands[:3, :, 60:84] = 60 + rng.integers(0, 5, (3, 150, 24), dtype=np.uint8)
    bands[1, :, 60:84] += 20
    bands[3] = 200
    bands[3, :, 60:84] = 15
    path = tmp_path_factory.mktemp("river") / "river.tif"
    profile = {"driver": "GTiff", "width": 200, "height": 150, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
    with rasterio.open(path, "w", transform=from_origin(450_000, 5_300_000, 2.0, 2.0), **profile) as out:
        out.write(bands)
        out.descriptions = ("red", "green", "blue", "nir")
    return path
