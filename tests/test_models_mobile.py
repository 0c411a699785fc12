"""The published MobileSAM checkpoint's layout: every tensor arrives in its place, and the network is SAM's."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from geosam.errors import ModelError
from geosam.models import PromptableModel, load_model
from geosam.models.image_encoder import Features
from geosam.models.mobile import is_mobile_sam, mobile_sam_network, our_key
from geosam.models.network import MOBILE_SAM, TinySam
from geosam.models.tiny import TinyModel
from geosam.options import ModelOptions
from geosam.prompts import Prompts

pytestmark = pytest.mark.usefixtures("one_thread")

DEPTHS, DIMS, HEADS, WINDOWS = (2, 2, 6, 2), (64, 128, 160, 320), (2, 4, 5, 10), (7, 7, 14, 7)
CPU = torch.device("cpu")


def conv_bn(name, out, per_group, side):
    """A convolution without bias and its batch norm, by MobileSAM's names."""
    norm = {f"{name}.bn.{part}": (out,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {f"{name}.c.weight": (out, per_group, side, side), **norm, f"{name}.bn.num_batches_tracked": ()}


def linear(name, out, inner):
    return {f"{name}.weight": (out, inner), f"{name}.bias": (out,)}


def norm(name, dim):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def encoder_shapes():
    """TinyViT-5M as MobileSAM publishes it: the downsampling is at the end of a layer."""
    shapes = conv_bn("patch_embed.seq.0", 32, 3, 3) | conv_bn("patch_embed.seq.2", 64, 32, 3)
    for block in range(DEPTHS[0]):
        name = f"layers.0.blocks.{block}"
        shapes |= conv_bn(f"{name}.conv1", 256, 64, 1) | conv_bn(f"{name}.conv2", 256, 1, 3)
        shapes |= conv_bn(f"{name}.conv3", 64, 256, 1)
    for layer in (1, 2, 3):
        dim = DIMS[layer]
        for block in range(DEPTHS[layer]):
            name = f"layers.{layer}.blocks.{block}"
            shapes |= {f"{name}.attn.attention_biases": (HEADS[layer], WINDOWS[layer] ** 2)}
            shapes |= norm(f"{name}.attn.norm", dim) | linear(f"{name}.attn.qkv", 3 * dim, dim)
            shapes |= linear(f"{name}.attn.proj", dim, dim) | norm(f"{name}.mlp.norm", dim)
            shapes |= linear(f"{name}.mlp.fc1", 4 * dim, dim) | linear(f"{name}.mlp.fc2", dim, 4 * dim)
            shapes |= conv_bn(f"{name}.local_conv", dim, 1, 3)
    for layer in (0, 1, 2):
        dim, out, name = DIMS[layer], DIMS[layer + 1], f"layers.{layer}.downsample"
        shapes |= conv_bn(f"{name}.conv1", out, dim, 1) | conv_bn(f"{name}.conv2", out, 1, 3)
        shapes |= conv_bn(f"{name}.conv3", out, out, 1)
    shapes |= norm("norm_head", 320) | linear("head", 1000, 320)
    shapes |= {"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return shapes | norm("neck.1", 256) | norm("neck.3", 256)


def prompt_encoder_shapes():
    shapes = {"pe_layer.positional_encoding_gaussian_matrix": (2, 128)}
    shapes |= {f"point_embeddings.{i}.weight": (1, 256) for i in range(4)}
    shapes |= {"not_a_point_embed.weight": (1, 256), "no_mask_embed.weight": (1, 256)}
    convolutions = {0: (4, 1, 2, 2), 3: (16, 4, 2, 2), 6: (256, 16, 1, 1)}
    for i, shape in convolutions.items():
        shapes |= {f"mask_downscaling.{i}.weight": shape, f"mask_downscaling.{i}.bias": shape[:1]}
    return shapes | norm("mask_downscaling.1", 4) | norm("mask_downscaling.4", 16)


def attention(name, inner):
    shapes = linear(f"{name}.out_proj", 256, inner)
    for part in ("q_proj", "k_proj", "v_proj"):
        shapes |= linear(f"{name}.{part}", inner, 256)
    return shapes


def mask_decoder_shapes():
    shapes = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)}
    for layer in (0, 1):
        name = f"transformer.layers.{layer}"
        shapes |= attention(f"{name}.self_attn", 256) | attention(f"{name}.cross_attn_token_to_image", 128)
        shapes |= attention(f"{name}.cross_attn_image_to_token", 128)
        shapes |= linear(f"{name}.mlp.lin1", 2048, 256) | linear(f"{name}.mlp.lin2", 256, 2048)
        for i in range(1, 5):
            shapes |= norm(f"{name}.norm{i}", 256)
    shapes |= attention("transformer.final_attn_token_to_image", 128) | norm("transformer.norm_final_attn", 256)
    shapes |= {"output_upscaling.0.weight": (256, 64, 2, 2), "output_upscaling.0.bias": (64,)}
    shapes |= {"output_upscaling.3.weight": (64, 32, 2, 2), "output_upscaling.3.bias": (32,)}
    shapes |= norm("output_upscaling.1", 64)
    for head in [f"output_hypernetworks_mlps.{i}" for i in range(4)] + ["iou_prediction_head"]:
        out = 4 if head == "iou_prediction_head" else 32
        shapes |= linear(f"{head}.layers.0", 256, 256) | linear(f"{head}.layers.1", 256, 256)
        shapes |= linear(f"{head}.layers.2", out, 256)
    return shapes


def published_shapes():
    rooms = {
        "image_encoder": encoder_shapes(),
        "prompt_encoder": prompt_encoder_shapes(),
        "mask_decoder": mask_decoder_shapes(),
    }
    return {f"{room}.{name}": shape for room, shapes in rooms.items() for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def published():
    """A state dict of the published layout; tensor number i begins with the value i, the rest is noise."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, (key, shape) in enumerate(published_shapes().items()):
        noise = torch.randn(shape, generator=generator) * 0.02
        tensors[key] = (noise + 1).abs() if key.endswith((".running_var", "norm.weight")) else noise
        tensors[key].view(-1)[0] = number
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(number)
    return tensors


@pytest.fixture(scope="module")
def network(published):
    return mobile_sam_network(published, "mobile_sam.pt").eval()


def test_every_tensor_arrives_in_its_place(published, network):
    """By unique values: the network holds each published tensor once, under the name the layout gives it."""
    arrived = network.state_dict()
    names = {key: our_key(key) for key in published}
    dropped = {key for key, name in names.items() if name is None}
    assert dropped == {f"image_encoder.{part}" for part in (*norm("norm_head", 1), *linear("head", 1, 1))}
    for key in names.keys() - dropped:
        assert torch.equal(arrived[names[key]], published[key]), key
    assert sorted(name for name in names.values() if name) == sorted(arrived)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("patch_embed.seq.2.bn.running_mean", "patch_embed.conv2.bn.running_mean"),
        ("layers.0.blocks.1.conv3.c.weight", "stages.0.blocks.1.conv3.conv.weight"),
        ("layers.2.downsample.conv2.c.weight", "stages.3.downsample.conv2.conv.weight"),
        ("layers.2.blocks.5.attn.attention_biases", "stages.2.blocks.5.attn.attention_biases"),
    ],
)
def test_the_encoders_names_are_timms(theirs, ours):
    assert our_key(f"image_encoder.{theirs}") == f"image_encoder.backbone.{ours}"
    assert our_key(f"module.image_encoder.{theirs}") == f"image_encoder.backbone.{ours}"


def test_missing_and_left_over_tensors_are_named(published):
    wrong = {key: value for key, value in published.items() if "final_attn_token_to_image.q_proj" not in key}
    wrong["mask_decoder.hf_token.weight"] = torch.zeros(1, 256)
    wrong["image_encoder.neck.0.weight"] = torch.zeros(256, 448, 1, 1)
    with pytest.raises(ModelError) as caught:
        mobile_sam_network(wrong, "other.pt")
    message = str(caught.value)
    assert "2 missing: mask_decoder.transformer.final_attn_token_to_image.q_proj.bias" in message
    assert "1 unexpected: mask_decoder.hf_token.weight" in message
    assert "(256, 448, 1, 1) instead of (256, 320, 1, 1)" in message


def test_old_files_without_batch_counters_load(published):
    mobile_sam_network({key: value for key, value in published.items() if "num_batches" not in key}, "old.pt")


def test_the_layout_is_told_from_sams(published):
    assert is_mobile_sam(published)
    assert not is_mobile_sam({"image_encoder.blocks.0.norm1.weight": torch.zeros(1)})


def test_the_published_file_is_a_model(published, tmp_path):
    file = tmp_path / "mobile_sam.pt"
    torch.save(published, file)
    model = load_model(ModelOptions(name=str(file), device="cpu", dtype="float32"))
    assert isinstance(model, PromptableModel)
    assert (model.name, model.tile_px, model.understands) == ("mobile_sam", 1024, frozenset({"points", "boxes"}))
    assert len(model.sha256) == 64


@pytest.fixture
def small():
    """A random network of MobileSAM's structure on tiles of 128 px, with norms that do something."""
    torch.manual_seed(0)
    network = TinySam(replace(MOBILE_SAM, image_size=128)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def test_the_adapter_gives_what_the_network_gives_at_stride_16(small):
    """Folding the norms into the convolutions must not undo the last stage's stride."""
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = small.encode(images).embedding
    assert expected.shape == (2, 256, 8, 8)
    assert expected.std() > 0.1
    model = TinyModel(small, name="m", sha256="", device=CPU, dtype=torch.float32)
    torch.testing.assert_close(model.embed(images).embedding, expected, atol=1e-4, rtol=1e-4)


# Transformers' SAM is the oracle of the prompt encoder and the mask decoder -------------------------------------------

_RENAMED = {
    r"pe_layer\.positional_encoding_gaussian_matrix": "shared_embedding.positional_embedding",
    r"point_embeddings": "point_embed",
    r"mask_downscaling\.[036]\.": lambda m: f"mask_embed.conv{int(m[0][-2]) // 3 + 1}.",
    r"mask_downscaling\.[14]\.": lambda m: f"mask_embed.layer_norm{int(m[0][-2]) // 3 + 1}.",
    r"\.norm": ".layer_norm",
    r"output_upscaling\.1": "upscale_layer_norm",
    r"output_upscaling\.[03]\.": lambda m: f"upscale_conv{int(m[0][-2]) // 3 + 1}.",
    r"(mlps\.\d\.|head\.)layers\.([012])\.": lambda m: m[1] + ("proj_in.", "layers.0.", "proj_out.")[int(m[2])],
}


def theirs(tensors):
    """Prompt encoder and mask decoder by transformers' names, with the encoder left out."""
    renamed = {}
    for key, value in tensors.items():
        if not key.startswith("image_encoder."):
            for old, new in _RENAMED.items():
                key = re.sub(old, new, key)
            renamed[key] = value
    return renamed


@pytest.fixture
def oracle(small):
    """Transformers' SAM with the prompt encoder and mask decoder of ``small``."""
    from transformers import SamConfig, SamModel

    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 128, "mlp_dim": 32}
    sam = SamModel(SamConfig(vision_config=vision, prompt_encoder_config={"image_size": 128})).eval()
    report = sam.load_state_dict(theirs(small.state_dict()), strict=False)
    assert not report.unexpected_keys
    assert all(key.startswith(("vision_encoder.", "shared_image_embedding.")) for key in report.missing_keys)
    return sam


@pytest.mark.parametrize("with_box", [False, True])
def test_masks_are_those_of_transformers_sam(with_box, small, oracle):
    embedding = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(2))
    points = np.array([[[20.5, 30.0], [100.0, 64.0]]], np.float32)
    boxes = np.array([[8, 16, 90, 120]], np.float32) if with_box else None
    model = TinyModel(small, name="m", sha256="", device=CPU, dtype=torch.float32)
    found = model.decode(Features(embedding), [Prompts(points, np.array([[1, 0]]), boxes)])
    prompt = {"input_points": torch.from_numpy(points)[None] - 0.5, "input_labels": torch.tensor([[[1, 0]]])}
    if boxes is not None:
        prompt["input_boxes"] = torch.from_numpy(boxes)[None] - 0.5
    with torch.inference_mode():
        low = oracle(image_embeddings=embedding, multimask_output=False, **prompt).pred_masks[0]
    expected = torch.nn.functional.interpolate(low, (128, 128), mode="bilinear")[0]
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
