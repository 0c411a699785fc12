"""The SAM encoder computes what transformers' own computes, whatever the attention, the blocks and the compiler."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import SamConfig, SamModel

from geosam.models import attention, load_model, loading
from geosam.models.attention import FirstThatWorks, by_blocks, by_channels, encode, flex, fused, plain_encode
from geosam.models.device import autocast, to_device
from geosam.options import ModelOptions

CPU = torch.device("cpu")
GRID = 5
"""Tokens a side; windows of 3 hang over it."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_encoder(implementation="eager", **changes):
    vision = {
        "hidden_size": 32, "output_channels": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_dim": 64,
        "image_size": 16 * GRID, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 8, **changes,
    }  # fmt: skip
    encoder = SamModel(SamConfig(vision_config=vision, attn_implementation=implementation)).vision_encoder.eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.parameters():
            # Wide: position terms and the bias of filled-up windows must matter to the result.
            weight.normal_(0, 1.5 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 0.5, generator=generator)
    return encoder.requires_grad_(False)


@pytest.fixture(scope="module")
def encoder():
    return random_encoder()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, 16 * GRID, 16 * GRID, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected(encoder, pixels):
    """What transformers computes, with every score of a layer in memory."""
    return encoder(pixels).last_hidden_state


def assert_same(found, expected):
    assert expected.std() > 0.1  # Else all would pass for nothing.
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# Attention -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attend", [by_blocks, by_channels, fused, flex])
def test_any_attention_gives_what_transformers_gives(attend, encoder, pixels, expected):
    assert_same(encode(encoder, pixels, attend), expected)


def test_every_part_of_the_encoder_counts(encoder, pixels, expected):
    """Guards the test above: a term that is left out must show in the result."""
    for name in ("layers.0.attn.rel_pos_h", "layers.1.attn.rel_pos_w", "layers.0.attn.qkv.bias", "pos_embed"):
        without = random_encoder()
        without.get_parameter(name).zero_()
        assert (encode(without, pixels, by_blocks) - expected).abs().max() > 0.01, name


@pytest.mark.parametrize("most", [1, 30, 700, 5000])
def test_blocks_of_any_size_give_the_same(most, encoder, pixels, expected, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES_A_THREAD", most)
    monkeypatch.setattr(attention, "_BIAS_MOST", most)
    for attend in (by_blocks, fused):
        assert_same(encode(encoder, pixels, attend), expected)


def test_blocks_cover_every_head_and_query_once():
    for heads, tokens, most in ((3, 10, 1), (3, 10, 35), (3, 10, 250), (3, 10, 10_000)):
        seen = torch.zeros(heads, tokens)
        for some, rows in attention._blocks(heads, tokens, most):
            seen[some, rows] += 1
            assert seen[some, rows].numel() * tokens <= max(most, tokens)
        assert (seen == 1).all()


@pytest.mark.parametrize("changes", [{"use_rel_pos": False}, {"use_abs_pos": False}, {"qkv_bias": False}])
def test_encoders_that_lack_a_part_are_encoders_too(changes, pixels):
    encoder = random_encoder(**changes)
    for attend in (by_blocks, by_channels, fused):
        assert_same(encode(encoder, pixels, attend), encoder(pixels).last_hidden_state)


def test_windows_come_apart_and_together():
    x = torch.arange(2 * 5 * 7 * 3.0).view(2, 5, 7, 3)
    cut = attention._into_windows(x, torch.full((3,), -1.0), 4)
    assert cut.shape == (2 * 2 * 2, 4, 4, 3)
    assert (cut == -1).sum() == 2 * (8 * 8 - 5 * 7) * 3
    assert torch.equal(cut[0], x[0, :4, :4])
    assert torch.equal(attention._out_of_windows(cut, 5, 7), x)


@pytest.mark.parametrize("attend", [by_blocks, by_channels])
def test_in_bfloat16_a_cpu_loses_no_more_than_by_fused_attention(attend, encoder, pixels, expected):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, whole = (encode(encoder, pixels, way).float() for way in (attend, fused))
    lost = [(found - expected).pow(2).mean().sqrt() / expected.std() for found in (ours, whole)]
    assert 0 < lost[0] < 1.5 * lost[1] < 0.1


@pytest.mark.parametrize(("dtype", "amx", "way"), [
    (torch.bfloat16, True, "by_channels"), (torch.bfloat16, False, "by_blocks"), (torch.float32, True, "by_blocks"),
])  # fmt: skip
def test_a_cpu_takes_what_suits_its_units(dtype, amx, way, encoder, pixels, monkeypatch):
    taken = []
    for name in ("by_channels", "by_blocks"):
        monkeypatch.setattr(attention, name, lambda *parts, name=name: taken.append(name) or fused(*parts))
    monkeypatch.setattr(attention, "has_amx", lambda: amx)
    with autocast(CPU, dtype):
        plain_encode(CPU)(encoder, pixels)
    assert taken == [way] * len(encoder.layers)


def test_channels_that_fill_up_change_nothing(monkeypatch, encoder, pixels, expected):
    for multiple in (1, 7, 64):
        monkeypatch.setattr(attention, "_CHANNELS", multiple)
        assert_same(encode(encoder, pixels, by_channels), expected)


def test_adapters_in_the_encoder_are_heeded(pixels):
    encoder = random_encoder()

    class Adapted(torch.nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.more = torch.nn.Linear(base.in_features, base.out_features, bias=False)

        def forward(self, x):
            return self.base(x) + self.more(x)

    encoder.layers[0].attn.qkv = Adapted(encoder.layers[0].attn.qkv)
    assert_same(encode(encoder, pixels, by_blocks), encoder(pixels).last_hidden_state)


@pytest.mark.parametrize("attend", [by_blocks, by_channels])
def test_gradients_are_those_of_transformers(attend, pixels):
    gradients = []
    for way in (partial(encode, attend=attend), lambda encoder, pixels: encoder(pixels).last_hidden_state):
        encoder = random_encoder().requires_grad_(True)
        way(encoder, pixels).square().mean().backward()
        gradients.append({name: weight.grad for name, weight in encoder.named_parameters()})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, atol=1e-4, rtol=1e-3)


# The compiler --------------------------------------------------------------------------------------------------------


def failing(encoder, pixels):
    raise RuntimeError("no compiler here\nand a long story")


def test_a_way_that_fails_is_told_once_and_gone_round(encoder, pixels, expected):
    ways = FirstThatWorks([failing, plain_encode(CPU)])
    with pytest.warns(RuntimeWarning, match="--compile: no compiler here; going on") as told:
        assert_same(ways(encoder, pixels), expected)
    assert len(told) == 1
    assert_same(ways(encoder, pixels), expected)  # Warnings are errors: it is silent now.


def test_the_last_way_raises_what_it_raises(encoder, pixels):
    with pytest.raises(RuntimeError, match="no compiler here"):
        FirstThatWorks([failing])(encoder, pixels)


def test_too_little_memory_is_no_reason_for_another_way(encoder, pixels):
    def too_large(encoder, pixels):
        raise torch.OutOfMemoryError("so large")

    ways = FirstThatWorks([too_large, plain_encode(CPU)])
    with pytest.raises(torch.OutOfMemoryError):
        ways(encoder, pixels)
    assert len(ways.ways) == 2


def test_a_layer_is_one_graph_for_the_compiler_and_all_alike_share_it(encoder, pixels, expected):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    layer = torch.compile(attention._layer, backend=backend, fullgraph=True)
    with torch.inference_mode():
        assert_same(encode(encoder, pixels, fused, layer), expected)
        assert len(graphs) == 2  # One with windows, one without, for three layers.
        assert_same(encode(encoder, pixels, fused, layer), expected)
    assert len(graphs) == 2


@pytest.fixture
def without_code_generation(monkeypatch):
    """The compiler as far as its graphs, which it then runs as they are: what follows takes it a minute."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def test_a_compiled_model_gives_what_it_gave(without_code_generation, tiny_sam_folder):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    options = {"name": str(tiny_sam_folder), "device": "cpu", "dtype": "float32"}
    plain, compiled = (load_model(ModelOptions(**options, compile=how)) for how in (False, True))
    assert_same(compiled.embed(images).image, plain.embed(images).image)
    assert len(compiled._encode.ways) == 2  # Nothing failed.


def test_a_compiled_small_sam_gives_what_it_gave(without_code_generation, tiny_weights):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    options = {"name": str(tiny_weights), "device": "cpu", "dtype": "float32"}
    plain, compiled = (load_model(ModelOptions(**options, compile=how)) for how in (False, True))
    seen = [m.embed(images[..., : m.tile_px, : m.tile_px]) for m in (plain, compiled)]
    assert_same(seen[1].embedding, seen[0].embedding)
    torch.testing.assert_close(seen[1].water, seen[0].water)
    assert len(compiled._run.ways) == 2  # Nothing failed.


def test_a_small_sam_goes_on_where_the_compiler_fails(monkeypatch, tiny_weights):
    monkeypatch.setattr(torch, "compile", lambda _: failing)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    options = {"name": str(tiny_weights), "device": "cpu", "dtype": "float32"}
    plain, compiled = (load_model(ModelOptions(**options, compile=how)) for how in (False, True))
    with pytest.warns(RuntimeWarning, match="--compile: no compiler here; going on"):
        seen = compiled.embed(images)
    assert_same(seen.embedding, plain.embed(images).embedding)


def test_a_model_that_cannot_be_compiled_says_so():
    with pytest.warns(RuntimeWarning, match="--compile: other is not compiled"):
        loading._compile(SimpleNamespace(name="other"))


# Copies --------------------------------------------------------------------------------------------------------------


def test_images_on_the_right_device_are_not_copied():
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert to_device(images, CPU) is images


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_images_reach_a_gpu_whole():
    images = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8)
    assert torch.equal(to_device(images, torch.device("cuda")).cpu(), images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(compiled, tiny_sam_folder):
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    options = {"name": str(tiny_sam_folder), "dtype": "float32"}
    here = load_model(ModelOptions(**options, device="cpu"))
    there = load_model(ModelOptions(**options, device="cuda", compile=compiled))
    torch.testing.assert_close(there.embed(images).image.cpu(), here.embed(images).image, atol=1e-3, rtol=1e-3)
