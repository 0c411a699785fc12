"""The SAM adapter does what SAM does, one body or many, and bad models are refused in one line."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from geosam.cli import cli
from geosam.errors import ModelError
from geosam.models import MODELS, PromptableModel, load_model
from geosam.models.device import choose_dtype
from geosam.models.protocol import DRY_LOGIT
from geosam.models.registry import tensor_sizes
from geosam.models.sam import CHUNK, MEAN, STD, to_sam_xy
from geosam.options import ModelOptions
from geosam.prompts import PAD, Prompts, no_prompts

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64


@pytest.fixture(scope="module")
def sam(tiny_sam_folder):
    return load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def body(*points, labels=None, box=None, mask=None):
    """One water body; points as (x, y)."""
    labels = [1] * len(points) if labels is None else labels
    xy = np.array(points, np.float32).reshape(1, -1, 2)
    boxes = None if box is None else np.array([box], np.float32)
    return Prompts(xy, np.array([labels], np.int64), boxes, mask)


def several(*rows):
    """The bodies of one tile as one Prompts, padded."""
    widest = max(row.labels.shape[1] for row in rows)
    points, labels = np.zeros((len(rows), widest, 2), np.float32), np.full((len(rows), widest), PAD)
    for i, row in enumerate(rows):
        points[i, : row.labels.shape[1]], labels[i, : row.labels.shape[1]] = row.points[0], row.labels[0]
    return Prompts(points, labels)


EMPTY = Prompts(np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.int64))
ONE = body((10.5, 20.5), (40.0, 50.0), labels=[1, 0])
TWO = body((33.0, 8.5), (50.5, 60.0), (5.0, 5.0))


def plain_sam(folder, image, **prompt):
    """Low-resolution logits of transformers' own forward pass, upsampled."""
    from transformers import SamModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = SamModel.from_pretrained(folder).eval()
    pixels = (image.float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        low = model(pixel_values=pixels[None], multimask_output=False, **prompt).pred_masks[0, 0]
    return torch.nn.functional.interpolate(low[None], (SIDE, SIDE), mode="bilinear")[0, 0]


# What the adapter computes -------------------------------------------------------------------------------------------


def test_the_adapter_is_a_promptable_model(sam):
    assert isinstance(sam, PromptableModel)
    assert (sam.tile_px, sam.threshold, sam.understands) == (SIDE, 0.5, frozenset({"points", "boxes"}))


def test_the_random_sam_answers_to_its_prompts(sam, images):
    """Guards the other tests: masks that are all alike would make them pass for nothing."""
    embedded = sam.embed(images[:1])
    first, second = sam.decode(embedded, [ONE]), sam.decode(embedded, [TWO])
    assert first.std() > 0.05
    assert (first - second).abs().max() > 0.05


def test_points_give_what_the_familys_own_forward_pass_gives(sam, images, tiny_sam_folder):
    expected = plain_sam(
        tiny_sam_folder, images[0],
        input_points=torch.tensor([[[[10.0, 20.0], [39.5, 49.5]]]]), input_labels=torch.tensor([[[1, 0]]]),
    )  # fmt: skip
    torch.testing.assert_close(sam.decode(sam.embed(images[:1]), [ONE])[0], expected, atol=1e-4, rtol=1e-4)


def test_points_and_a_box_give_what_the_familys_own_forward_pass_gives(sam, images, tiny_sam_folder):
    expected = plain_sam(
        tiny_sam_folder, images[0], input_points=torch.tensor([[[[10.0, 20.0]]]]),
        input_labels=torch.tensor([[[1]]]), input_boxes=torch.tensor([[[3.5, 7.5, 43.5, 59.5]]]),
    )  # fmt: skip
    found = sam.decode(sam.embed(images[:1]), [body((10.5, 20.5), box=(4, 8, 44, 60))])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_box_alone_is_a_prompt(sam, images, tiny_sam_folder):
    expected = plain_sam(tiny_sam_folder, images[0], input_boxes=torch.tensor([[[3.5, 7.5, 43.5, 59.5]]]))
    found = sam.decode(sam.embed(images[:1]), [body(box=(4, 8, 44, 60))])[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_batch_gives_what_its_tiles_give_alone(sam, images):
    prompts = [several(ONE, TWO), EMPTY, TWO]
    together = sam.decode(sam.embed(images), prompts)
    for i, prompt in enumerate(prompts):
        alone = sam.decode(sam.embed(images[i : i + 1]), [prompt])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)


def test_padding_does_not_change_a_mask(sam, images):
    """The tile's second body has fewer points than its first; its mask is the one it would have alone."""
    embedded = sam.embed(images[:1])
    padded = several(ONE, TWO)
    short = Prompts(padded.points[:1], padded.labels[:1])
    assert (short.labels == PAD).any()
    torch.testing.assert_close(sam.decode(embedded, [short]), sam.decode(embedded, [ONE]), atol=1e-6, rtol=0)


def test_the_points_of_a_body_are_one_prompt_not_several(sam, images):
    embedded = sam.embed(images[:1])
    joint = sam.decode(embedded, [body((10, 20), (40, 50))])
    apart = sam.decode(embedded, [several(body((10, 20)), body((40, 50)))])
    assert (joint - apart).abs().max() > 0.01


def test_two_bodies_are_joined_by_their_maximum(sam, images):
    embedded = sam.embed(images[:1])
    expected = torch.maximum(sam.decode(embedded, [ONE]), sam.decode(embedded, [TWO]))
    torch.testing.assert_close(sam.decode(embedded, [several(ONE, TWO)]), expected, atol=1e-5, rtol=1e-5)


def test_more_bodies_than_are_decoded_at_once_make_no_difference(sam, images):
    embedded = sam.embed(images[:1])
    rng = np.random.default_rng(0)
    rows = [body(*rng.uniform(0, SIDE, (2, 2))) for _ in range(CHUNK["cpu"] + 5)]
    expected = torch.stack([sam.decode(embedded, [row]) for row in rows]).amax(0)
    torch.testing.assert_close(sam.decode(embedded, [several(*rows)]), expected, atol=1e-5, rtol=1e-5)


def test_a_tile_without_bodies_is_dry(sam, images):
    logits = sam.decode(sam.embed(images[:2]), [EMPTY, ONE])
    assert (logits[0] == DRY_LOGIT).all()
    assert logits[1].isfinite().all()
    assert logits.dtype == torch.float32


def test_sams_point_coordinates_are_pixel_indices():
    assert to_sam_xy(np.array([[0.5, 0.5], [0, 64]], np.float32)).tolist() == [[0, 0], [-0.5, 63.5]]
    assert to_sam_xy(np.array([[0, 1, 2, 3]], np.float32)).tolist() == [[-0.5, 0.5, 1.5, 2.5]]


def test_bfloat16_is_close_to_float32(sam, images, tiny_sam_folder):
    low = load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="bfloat16"))
    prompts = [several(ONE, TWO), TWO]
    exact, rough = (model.decode(model.embed(images[:2]), prompts) for model in (sam, low))
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.std()


def test_the_dense_mask_counts_only_where_the_model_was_trained_for_it(sam, images, tiny_sam_folder, tmp_path):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, :24] = True
    hinted = body((10.5, 20.5), mask=mask)
    bare = sam.decode(sam.embed(images[:1]), [body((10.5, 20.5))])
    assert torch.equal(sam.decode(sam.embed(images[:1]), [hinted]), bare)
    tuned = _copy(tiny_sam_folder, tmp_path)
    (tuned / "geosam.json").write_text('{"threshold": 0.4, "understands": ["points", "mask", "none"]}')
    model = load_model(ModelOptions(name=str(tuned), device="cpu", dtype="float32"))
    assert model.threshold == 0.4
    logits = torch.where(torch.arange(16) < 6, 6.0, -6.0).expand(1, 1, 16, 16)
    expected = plain_sam(
        tiny_sam_folder, images[0], input_points=torch.tensor([[[[10.0, 20.0]]]]),
        input_labels=torch.tensor([[[1]]]), input_masks=logits,
    )  # fmt: skip
    torch.testing.assert_close(model.decode(model.embed(images[:1]), [hinted])[0], expected, atol=1e-4, rtol=1e-4)
    assert model.decode(model.embed(images[:1]), [no_prompts()]).isfinite().all()


def test_stock_sam_is_not_asked_without_a_prompt(sam, images):
    with pytest.raises(ModelError, match="cannot find water without a prompt"):
        sam.decode(sam.embed(images[:1]), [no_prompts()])


def test_tiles_of_another_size_or_type_are_a_programmers_error(sam, images):
    with pytest.raises(ValueError, match="tiles must be uint8"):
        sam.embed(images[:, :, :32, :32])
    with pytest.raises(ValueError, match="tiles must be uint8"):
        sam.embed(images.float())
    with pytest.raises(ValueError, match="one Prompts a tile"):
        sam.decode(sam.embed(images), [ONE])


# Loading -------------------------------------------------------------------------------------------------------------


def _copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def refusal(name, **options):
    """The message with which a model is refused, checked to be one line."""
    with pytest.raises(ModelError) as caught:
        load_model(ModelOptions(name=str(name), **{"device": "cpu", **options}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_reports_hash_is_that_of_the_weights_file(sam, tiny_sam_folder):
    import hashlib

    assert sam.sha256 == hashlib.sha256((tiny_sam_folder / "model.safetensors").read_bytes()).hexdigest()
    assert sam.name == tiny_sam_folder.name


def test_a_folder_of_shards_loads_as_the_whole(sam, images, tiny_sam_folder, tmp_path):
    folder = _copy(tiny_sam_folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    model = load_model(ModelOptions(name=str(folder), device="cpu", dtype="float32"))
    assert torch.equal(model.decode(model.embed(images), [ONE] * 3), sam.decode(sam.embed(images), [ONE] * 3))
    (folder / "b.safetensors").unlink()
    assert "lacks b.safetensors" in refusal(folder)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_torch_file_of_tensors_loads(wrapped, sam, images, tiny_sam_folder, tmp_path):
    folder = _copy(tiny_sam_folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    torch.save({"state_dict": tensors} if wrapped else tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = load_model(ModelOptions(name=str(folder), device="cpu", dtype="float32"))
    assert torch.equal(model.decode(model.embed(images), [ONE] * 3), sam.decode(sam.embed(images), [ONE] * 3))


class _Trap:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["weights.pt", "folder"])
def test_pickled_code_is_refused_and_not_run(name, tiny_sam_folder, tmp_path):
    file = tmp_path / "weights.pt"
    if name == "folder":
        folder = _copy(tiny_sam_folder, tmp_path)
        (folder / "model.safetensors").unlink()
        file = folder / "pytorch_model.bin"
    torch.save({"weight": torch.zeros(1), "trap": _Trap(tmp_path / "ran")}, file)
    message = refusal(file.parent if name == "folder" else file)
    assert "refused: it holds pickled code" in message
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(_Trap(tmp_path / "ran")))
    assert "refused: it holds pickled code" in refusal(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_broken_file_is_named(suffix, tmp_path):
    (tmp_path / f"w{suffix}").write_bytes(b"not weights at all" * 9)
    message = refusal(tmp_path / f"w{suffix}")
    assert f"w{suffix} cannot be read as weights" in message


def test_weights_that_do_not_fit_are_named(tiny_sam_folder, tmp_path):
    folder = _copy(tiny_sam_folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["extra.weight"] = torch.zeros(1)
    tensors["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    for key in ("vision_encoder.pos_embed", "vision_encoder.neck.conv1.weight"):
        del tensors[key]
    save_file(tensors, folder / "model.safetensors")
    message = refusal(folder)
    assert "2 missing: vision_encoder.neck.conv1.weight, vision_encoder.pos_embed" in message
    assert "1 unexpected: extra.weight" in message
    assert "mask_decoder.iou_token.weight (1, 7) instead of (1, 64)" in message


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "Did you mean river-tiny?" in refusal("river-tinny")
    assert "sam-vit-base" in refusal("sam-vit-bse")
    assert "Known names: river-tiny" in refusal("!!!")


def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nothing")
    assert "does not exist" in refusal("models/mine.safetensors")


def test_a_folder_without_a_model_says_what_it_lacks(tiny_sam_folder, tmp_path):
    assert "no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert'" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "not a JSON file" in refusal(tmp_path)
    shutil.copy(tiny_sam_folder / "config.json", tmp_path)
    assert "no model.safetensors" in refusal(tmp_path)


def test_a_config_that_is_wrong_is_named(tiny_sam_folder, tmp_path):
    folder = _copy(tiny_sam_folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vision_config": {"image_size": "large"}}))
    assert "does not describe a SAM" in refusal(folder)


@pytest.mark.parametrize("text", ['{"threshold": 2.0}', '{"threshold": "high"}', '{"understands": ["clicks"]}', "[]"])
def test_a_wrong_geosam_json_is_named(text, tiny_sam_folder, tmp_path):
    folder = _copy(tiny_sam_folder, tmp_path)
    (folder / "geosam.json").write_text(text)
    assert "geosam.json" in refusal(folder)


def test_weights_without_their_config_are_told_from_other_layouts(tiny_sam_folder, tmp_path):
    assert "folder that holds it and its config.json" in refusal(tiny_sam_folder / "model.safetensors")
    save_file({"image_encoder.blocks.0.norm1.weight": torch.zeros(1)}, tmp_path / "vit_b.safetensors")
    assert "--model sam-vit-base" in refusal(tmp_path / "vit_b.safetensors")
    (tmp_path / "notes.txt").write_text("x")
    assert "not a weights file" in refusal(tmp_path / "notes.txt")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The hub's client as it is without a network, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def _put_in_cache(cache: Path, hub_id: str, folder: Path) -> None:
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / "0123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123")


@pytest.mark.parametrize("name", ["sam-vit-base", "somebody/rivers"])
def test_without_a_network_the_message_says_where_the_cache_is(name, offline):
    message = refusal(name)
    assert str(offline) in message
    assert f"geosam models pull {name}" in message


def test_a_cached_hub_model_needs_no_network(offline, sam, tiny_sam_folder):
    _put_in_cache(offline, "somebody/rivers", tiny_sam_folder)
    model = load_model(ModelOptions(name="somebody/rivers", device="cpu"))
    assert (model.name, model.sha256) == ("somebody/rivers", sam.sha256)


def test_mobile_sam_by_name_says_where_its_file_is():
    assert "mobile_sam.pt" in refusal("mobile-sam")


# Device and precision ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused(tiny_sam_folder):
    assert "--device cuda is not available" in refusal(tiny_sam_folder, device="cuda")


def test_precision_follows_the_device_unless_it_is_given(monkeypatch):
    cpu = torch.device("cpu")
    assert choose_dtype("float16", cpu) == torch.float16
    for has_it, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("geosam.models.device.cpu_has_bfloat16", lambda has_it=has_it: has_it)
        assert choose_dtype("auto", cpu) == expected
    assert choose_dtype("auto", torch.device("mps")) == torch.float32


# The registry and its verb -------------------------------------------------------------------------------------------


def test_parameters_are_counted_from_a_files_header(tiny_sam_folder):
    file = tiny_sam_folder / "model.safetensors"
    assert tensor_sizes(file) == sum(tensor.numel() for tensor in load_file(file).values())


def test_the_verb_lists_every_model_and_what_is_cached(offline, tiny_sam_folder):
    _put_in_cache(offline, "facebook/sam-vit-base", tiny_sam_folder)
    text = CliRunner().invoke(cli, ["models"]).output
    entries = json.loads(CliRunner().invoke(cli, ["models", "--json"]).output)
    assert [entry["name"] for entry in entries] == list(MODELS)
    assert all(name in text for name in MODELS)
    here = {entry["name"]: entry["here"] for entry in entries}
    assert here["sam-vit-base"]
    assert not here["sam-vit-huge"]


def test_the_verb_does_not_wait_for_torch():
    code = "import sys; from geosam.cli import main\ntry: main(['models'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'transformers', 'timm', 'huggingface_hub'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
