"""What is loaded and fetched under which name: checkpoints of every layout, the registry, the hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from families import CONFIGS, VIDEO_CONFIGS, random_network, saved, saved_by_its_names
from safetensors.torch import load_file, save_file

from geosam.cli import main
from geosam.errors import ModelError
from geosam.models import MODELS, load_model
from geosam.models.families import FAMILIES
from geosam.models.registry import that_understand
from geosam.options import ModelOptions

pytestmark = pytest.mark.usefixtures("one_thread")


def loaded(name):
    return load_model(ModelOptions(name=str(name), device="cpu", dtype="float32"))


def refusal(name):
    """The message with which a model is refused, checked to be one line."""
    with pytest.raises(ModelError) as caught:
        loaded(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    return saved(random_network("sam2"), tmp_path_factory.mktemp("sam2"))


# Checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(VIDEO_CONFIGS))
def test_a_checkpoint_of_the_video_model_holds_the_image_model(family, tmp_path):
    video = random_network(family, VIDEO_CONFIGS)
    model = loaded(saved_by_its_names(video, tmp_path / "video"))
    theirs, ours = video.state_dict(), model.module.state_dict()
    places = {
        "sam3": (
            ("vision_encoder.neck.", "tracker_neck."),
            ("vision_encoder.backbone.", "detector_model.vision_encoder.backbone."),
            ("", "tracker_model."),
        )
    }
    for name, value in ours.items():
        start, place = next(pair for pair in places.get(family, [("", "")]) if name.startswith(pair[0]))
        assert torch.equal(value, theirs[place + name.removeprefix(start)]), name
    assert len(ours) < len(theirs)


def test_the_weights_of_another_family_are_refused_in_one_line(sam2, tmp_path):
    folder = shutil.copytree(sam2, tmp_path / "mixed")
    (folder / "config.json").write_text((saved(random_network("sam-hq"), tmp_path / "hq") / "config.json").read_text())
    message = refusal(folder)
    assert "do not fit the model" in message
    assert "mask_decoder." in message
    assert len(message) < 700


def test_a_folder_of_no_family_is_told_which_there_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    message = refusal(tmp_path)
    assert all(kind in message for family in FAMILIES.values() for kind in family.model_types)


@pytest.mark.parametrize(
    ("tensor", "names"),
    [
        ("mask_decoder.hf_token.weight", "sam-hq-vit-base or sam-hq-vit-large"),
        ("sam_mask_decoder.conv_s0.weight", "sam2.1-hiera-tiny or sam2.1-hiera-small"),
        ("spatial_perceiver.latents", "edgetam"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "sam3"),
    ],
)
def test_published_files_of_other_layouts_are_told_by_their_tensors(tensor, names, tmp_path):
    torch.save({"model": {tensor: torch.zeros(1), "image_encoder.blocks.0.norm1.weight": torch.zeros(1)}},
               tmp_path / "w.pt")  # fmt: skip
    assert f"--model {names}" in refusal(tmp_path / "w.pt")


def test_a_config_that_makes_no_sense_is_named(sam2, tmp_path):
    folder = shutil.copytree(sam2, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["backbone_config"]["hidden_act"] = "nothing"
    (folder / "config.json").write_text(json.dumps(config))
    assert "does not describe a SAM 2" in refusal(folder)
    (folder / "config.json").write_text(json.dumps({**config, "vision_config": {"fpn_hidden_size": "wide"}}))
    assert "does not describe a SAM 2" in refusal(folder)


def test_a_transformers_that_lacks_the_family_is_told_what_it_needs(sam2, monkeypatch):
    monkeypatch.setitem(FAMILIES, "sam2", replace(FAMILIES["sam2"], network="Sam2FutureModel", since="9.1"))
    message = refusal(sam2)
    assert "SAM 2 needs transformers >= 9.1" in message
    assert transformers.__version__ in message


def test_the_checkpoints_own_normalisation_is_used(sam2, tmp_path):
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    own = shutil.copytree(sam2, tmp_path / "own")
    (own / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}')
    model, other = loaded(own), loaded(sam2)
    with torch.no_grad():
        wanted = other._features((image.float() / 255 - 0.5) / 0.25).image
    torch.testing.assert_close(model.embed(image).image, wanted, atol=1e-4, rtol=1e-4)
    nested = shutil.copytree(sam2, tmp_path / "nested")
    (nested / "processor_config.json").write_text(
        '{"image_processor": {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}}'
    )
    assert torch.equal(loaded(nested).embed(image).image, model.embed(image).image)


def test_torch_files_and_shards_load_too(sam2, tmp_path):
    tensors = load_file(sam2 / "model.safetensors")
    plain = shutil.copytree(sam2, tmp_path / "plain")
    (plain / "model.safetensors").unlink()
    torch.save(tensors, plain / "pytorch_model.bin")
    shards = shutil.copytree(sam2, tmp_path / "shards")
    (shards / "model.safetensors").unlink()
    names = sorted(tensors)
    for file, keys in {"a.safetensors": names[::2], "b.safetensors": names[1::2]}.items():
        save_file({key: tensors[key] for key in keys}, shards / file)
    where = {key: "ab"[n % 2] + ".safetensors" for n, key in enumerate(names)}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    for folder in (plain, shards):
        assert all(torch.equal(value, tensors[key]) for key, value in loaded(folder).module.state_dict().items())


# The registry --------------------------------------------------------------------------------------------------------

BUILT = {
    "sam-hq-vit-base": ("SamHQModel", "SamHQConfig", {}),
    "sam2.1-hiera-tiny": ("Sam2Model", "Sam2Config", {}),
    "sam3": ("Sam3TrackerModel", "Sam3TrackerConfig", {}),
    "edgetam": ("EdgeTamModel", "EdgeTamConfig", {"vision_config": {"backbone_config": {
        "model_type": "timm_wrapper", "architecture": "repvit_m1.dist_in1k", "num_classes": 2,
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}}}}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BUILT))
def test_parameters_and_tiles_are_those_of_the_network(name):
    network, configuration, values = BUILT[name]
    with torch.device("meta"):
        model = getattr(transformers, network)(getattr(transformers, configuration)(**values))
    assert sum(weight.numel() for weight in model.parameters()) == MODELS[name].parameters
    assert model.prompt_encoder.input_image_size == MODELS[name].tile_px


def test_every_family_has_a_model_and_every_hub_model_a_family():
    assert {spec.family for spec in MODELS.values()} == set(FAMILIES) | {"tiny", "mobile-sam"}
    assert all("/" in spec.source for spec in MODELS.values() if spec.on_hub)
    assert that_understand("none") == "river-tiny"
    assert set(CONFIGS) == set(FAMILIES)


# The hub -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, hub_id, folder):
    repo = cache / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(folder, repo / "snapshots" / "0123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123")
    return repo / "snapshots" / "0123"


def said(capsys, *words):
    """Exit code and the one line that a call of ``geosam`` says."""
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    out, err = capsys.readouterr()
    text = (out + err).strip()
    assert "\n" not in text
    return stopped.value.code, text


def test_pull_without_a_network_says_how_and_where(cache, capsys):
    code, text = said(capsys, "models", "pull", "sam2.1-hiera-tiny")
    assert code == 2
    assert f"facebook/sam2.1-hiera-tiny is not in the cache ({cache})" in text
    assert "geosam models pull sam2.1-hiera-tiny" in text


def test_pull_of_what_is_here_needs_no_network(cache, sam2, capsys):
    folder = put(cache, "facebook/sam2.1-hiera-tiny", sam2)
    code, text = said(capsys, "models", "pull", "sam2.1-hiera-tiny")
    assert code == 0
    assert str(folder) in text
    model = loaded("sam2.1-hiera-tiny")
    assert model.name == "sam2.1-hiera-tiny"


def test_pull_of_the_bundled_model_fetches_nothing(cache, capsys):
    code, text = said(capsys, "models", "pull", "river-tiny")
    assert code == 0
    assert "nothing to fetch" in text
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "part"),
    [("sam2.1-hiera-tyny", "Did you mean sam2.1-hiera-tiny"), ("mobile-sam", "is not fetched by geosam"),
     ("some/one", "some/one is not in the cache")],
)  # fmt: skip
def test_pull_of_what_cannot_be_had_is_one_line(name, part, cache, capsys):
    code, text = said(capsys, "models", "pull", name)
    assert code == 2
    assert part in text


@pytest.mark.parametrize(
    ("kind", "part"),
    [("GatedRepoError", "facebook/sam3 is gated: ask for access"), ("RepositoryNotFoundError", "Check the id"),
     ("ConnectError", "cannot be reached (ConnectError)")],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_line(kind, part, cache, capsys, monkeypatch):
    def refuse(*_, **__):
        raise type(kind, (Exception,), {})("two\nlines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    code, text = said(capsys, "models", "pull", "sam3")
    assert code == 2
    assert part in text


def test_only_what_is_needed_is_fetched_and_a_torn_download_is_finished(cache, sam2, monkeypatch):
    from geosam.models.hub import pull

    folder = put(cache, "facebook/sam2.1-hiera-tiny", sam2)
    whole = (folder / "model.safetensors").rename(folder / "a.safetensors")
    where = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(where))
    asked = []

    def download(hub_id, allow_patterns, local_files_only):
        asked.append((hub_id, local_files_only))
        if not local_files_only:
            shutil.copy(whole, folder / "b.safetensors")
            assert not {"*.pt", "*.bin", "*"} & set(allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert pull("sam2.1-hiera-tiny") == folder
    assert asked[-1] == ("facebook/sam2.1-hiera-tiny", False)
    asked.clear()
    assert pull("sam2.1-hiera-tiny") == folder
    assert asked == [("facebook/sam2.1-hiera-tiny", True)]


def test_the_list_tells_licence_gate_and_what_transformers_it_needs(cache, sam2, capsys):
    put(cache, "facebook/sam2.1-hiera-tiny", sam2)
    with pytest.raises(SystemExit):
        main(["models", "--json"])
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(entries) == list(MODELS)
    assert [name for name, entry in entries.items() if entry["gated"]] == ["sam3"]
    assert entries["sam3"]["transformers"] == "5.0"
    assert entries["river-tiny"]["transformers"] is None
    here = {name for name, entry in entries.items() if entry["here"]}
    assert here == {"river-tiny", "sam2.1-hiera-tiny"}


def test_pull_works_in_a_process_of_its_own():
    """Nothing else has imported the hub's client there."""
    words = [sys.executable, "-m", "geosam", "models", "pull", "river-tiny"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
