"""``geosam depth``: relative depth of a photograph, by a tiny random DPT made by its own configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from geosam.cli import main
from geosam.errors import ModelError
from geosam.models.depth import relative_depth
from geosam.plot.depths import depth


@pytest.fixture(scope="module")
def tiny_dpt(tmp_path_factory):
    """A folder as ``save_pretrained`` writes it, of random weights."""
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation
    from transformers.utils import logging

    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dpt")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model = DPTForDepthEstimation(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
        model.head.head[4].bias.fill_(5.0)
    model.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    rng = np.random.default_rng(0)
    rgb = np.clip(rng.normal(120, 30, (90, 140, 3)) + np.linspace(-60, 60, 90)[:, None, None], 0, 255).astype(np.uint8)
    rgb[50:80] //= 4
    path = tmp_path_factory.mktemp("photo") / "bank.png"
    Image.fromarray(rgb).save(path)
    return path


def rgb_of(photo):
    return np.array(Image.open(photo))


def test_depth_is_scaled_to_the_photograph(tiny_dpt, photo):
    found = relative_depth(rgb_of(photo), str(tiny_dpt), "cpu")
    assert (found.shape, found.dtype) == ((90, 140), np.float32)
    assert (found.min(), found.max()) == (0.0, 1.0)
    assert len(np.unique(found)) > 100
    dim = relative_depth(rgb_of(photo) // 2 + 20, str(tiny_dpt), "cpu")
    assert (dim.min(), dim.max()) == (0.0, 1.0)


def test_it_is_what_transformers_gives_but_for_the_scale(tiny_dpt, photo):
    import torch
    from transformers import DPTForDepthEstimation, DPTImageProcessor

    pixels = DPTImageProcessor(size={"height": 64, "width": 64})(images=rgb_of(photo), return_tensors="pt").pixel_values
    with torch.inference_mode():
        raw = DPTForDepthEstimation.from_pretrained(tiny_dpt).eval()(pixels).predicted_depth
    raw = torch.nn.functional.interpolate(raw[:, None], (90, 140), mode="bicubic")[0, 0].numpy()
    ours = relative_depth(rgb_of(photo), str(tiny_dpt), "cpu")
    assert np.corrcoef(raw.ravel(), ours.ravel())[0, 1] == pytest.approx(1.0, abs=1e-5)


def test_a_model_that_counts_metres_is_turned_round(tiny_dpt, photo, monkeypatch):
    from transformers import DPTConfig

    inverse = relative_depth(rgb_of(photo), str(tiny_dpt), "cpu")
    monkeypatch.setattr(DPTConfig, "depth_estimation_type", "metric", raising=False)
    assert relative_depth(rgb_of(photo), str(tiny_dpt), "cpu") == pytest.approx(1 - inverse, abs=1e-5)


def run(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        main(["depth", *map(str, args)])
    streams = capsys.readouterr()
    return ended.value.code, streams.out, streams.err


def test_the_verb_draws_the_water_and_the_depth_side_by_side(tiny_dpt, photo, tmp_path, capsys, monkeypatch):
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "geosam.plot.depths.Picture.savefig",
        lambda self, path, **_: (drawn.append(self), Path(path).write_bytes(b"x")),
        raising=False,
    )
    code, out, err = run(capsys, photo, "--model", tiny_dpt, "--out", tmp_path / "d.png", "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.strip() == str(tmp_path / "d.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[:2] == ["bank", "relative depth"]
    assert "relative" in drawn[0].axes[2].get_ylabel()
    assert [label.get_text() for label in drawn[0].axes[2].get_yticklabels()] == ["far", "near"]


def test_the_picture_is_twice_as_wide_as_one_photograph(photo, tmp_path):
    from geosam.options import SceneOptions
    from geosam.plot import save
    from geosam.scene import Scene

    mask = np.zeros((90, 140), np.float32)
    scene = Scene.open(str(photo), SceneOptions(allow_no_crs=True))
    with Image.open(save(depth(scene, mask), tmp_path / "d.png", dpi=50)) as picture:
        assert picture.width > 1.8 * picture.height


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "neither a folder nor a hub id"),
        ("empty", "no config.json"),
        ("sam", "model_type 'sam', which estimates no depth"),
        ("torn", "cannot be loaded as a depth model"),
    ],
)
def test_a_model_that_cannot_be_used_is_one_line(model, message, tiny_dpt, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "sam", "torn"):
        Path(name).mkdir()
    Path("sam/config.json").write_text('{"model_type": "sam"}')
    Path("torn/config.json").write_bytes((tiny_dpt / "config.json").read_bytes())
    Path("torn/model.safetensors").write_bytes(b"\x00" * 20)
    name = model if model == "nowhere" else f"./{model}"
    code, _, err = run(capsys, photo, "--model", name, "--out", "d.png")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not Path("d.png").exists()


def test_weights_that_lack_a_part_are_refused(tiny_dpt, photo, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_dpt / "model.safetensors")
    tensors.pop(next(name for name in tensors if name.startswith("head.")))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((tiny_dpt / "config.json").read_bytes())
    with pytest.raises(ModelError, match="1 tensors are missing, such as head"):
        relative_depth(rgb_of(photo), str(tmp_path), "cpu")


def test_weights_that_are_pickled_are_refused(tiny_dpt, photo, tmp_path):
    import torch

    (tmp_path / "config.json").write_bytes((tiny_dpt / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        relative_depth(rgb_of(photo), str(tmp_path), "cpu")
