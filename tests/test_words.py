"""Words asked of SAM 3 itself: what its detector says, over tiles and scenes, and what else may be said to words."""

from __future__ import annotations

import json
import shutil

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from families import VIDEO_CONFIGS, random_network, saved, saved_by_its_names

import geosam
from geosam.cli import main
from geosam.errors import ModelError
from geosam.models import load_model
from geosam.models.protocol import DRY_LOGIT
from geosam.options import ModelOptions, SegmentOptions
from geosam.prompts import no_prompts
from geosam.scene import Scene
from geosam.segments import segment_by_text
from geosam.segments.text import told_shares
from geosam.segments.words import told as as_told

pytestmark = pytest.mark.usefixtures("one_thread")

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def write_tokenizer(folder):
    """CLIP's tokenizer with a vocabulary of single letters, at most 58 tokens."""
    from transformers import CLIPTokenizer

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


@pytest.fixture(scope="module")
def video():
    """A tiny random SAM 3 as the hub has it: detector and tracker."""
    network, configuration, values = VIDEO_CONFIGS["sam3"]
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    detector = {**values["detector_config"], "text_config": {**values["detector_config"]["text_config"], **ends}}
    return random_network("sam3", {"sam3": (network, configuration, {**values, "detector_config": detector})})


@pytest.fixture(scope="module")
def folder(video, tmp_path_factory):
    folder = saved_by_its_names(video, tmp_path_factory.mktemp("words") / "sam3")
    write_tokenizer(folder)
    return folder


def told(folder, text="lake", **more):
    return load_model(ModelOptions(name=str(folder), device="cpu", dtype="float32", text=text, **more))


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


def images(model, count=3):
    size = (count, 3, model.tile_px, model.tile_px)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def close(found, expected, tolerance=1e-4):
    """Equal to the tolerance, or to as much of the spread of logits, where that is wide."""
    torch.testing.assert_close(found, expected, atol=tolerance * max(1.0, float(expected.std())), rtol=tolerance)


def plain(video, folder, image, text):
    """The detector's own forward pass: logits of every instance, and scores as its image processor has them."""
    from transformers import CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(folder)(text, padding="max_length", max_length=8, return_tensors="pt")
    with torch.no_grad():
        out = video.detector_model(pixel_values=image[None].float() / 127.5 - 1, **words)
    return out.pred_masks[0], out.pred_logits[0].sigmoid() * out.presence_logits[0].sigmoid()


# What the model computes ---------------------------------------------------------------------------------------------


def test_instances_are_those_of_the_detectors_own_forward_pass(video, folder):
    model = told(folder)
    masks, scores = model.instances(model.embed(images(model)))
    for image, mask, score in zip(images(model), masks, scores, strict=True):
        theirs, theirs_score = plain(video, folder, image, "lake")
        close(mask, theirs)
        close(score, theirs_score)


def test_the_answer_is_the_greatest_of_the_instances_it_is_sure_of(video, folder):
    image = images(told(folder), 1)[0]
    theirs, scores = plain(video, folder, image, "lake")
    least = float(scores.sort().values[1:3].mean())
    model = told(folder, text_score=least)
    found = model.decode(model.embed(image[None]), [no_prompts()])[0]
    best = theirs[scores > least].amax(dim=0).clamp(min=DRY_LOGIT)
    assert 0 < int((scores > least).sum()) < len(scores)
    expected = torch.nn.functional.interpolate(best[None, None], image.shape[1:], mode="bilinear")[0, 0]
    close(found, expected)


def test_a_tile_without_the_concept_is_dry(folder):
    model = told(folder, text_score=1.0)
    found = model.decode(model.embed(images(model)), [no_prompts()] * 3)
    close(found, torch.full_like(found, DRY_LOGIT))


def test_words_and_image_matter_and_a_batch_is_its_tiles(folder):
    model, other = told(folder, text_score=0.0), told(folder, "road", text_score=0.0)
    together = model.decode(model.embed(images(model)), [no_prompts()] * 3)
    for n, image in enumerate(images(model)):
        alone = model.decode(model.embed(image[None]), [no_prompts()])[0]
        close(together[n], alone)
    assert (together[0] - together[1]).abs().max() > 1e-3
    assert (together - other.decode(other.embed(images(model)), [no_prompts()] * 3)).abs().max() > 1e-3


def test_bfloat16_is_close_to_float32(folder):
    half = load_model(ModelOptions(name=str(folder), device="cpu", dtype="bfloat16", text="lake", text_score=0.0))
    model = told(folder, text_score=0.0)
    ours, exact = (m.decode(m.embed(images(m)), [no_prompts()] * 3) for m in (half, model))
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().median() < 0.1 * exact.std()


def test_a_detector_without_its_tracker_will_do(video, folder, tmp_path):
    alone = saved(video.detector_model, tmp_path / "detector")
    write_tokenizer(alone)
    model, whole = told(alone), told(folder)
    found, expected = (m.instances(m.embed(images(m)))[0] for m in (model, whole))
    close(found, expected)


# Scenes --------------------------------------------------------------------------------------------------------------


def test_segment_finds_what_the_words_mean_over_the_whole_scene(folder, river_tif, tmp_path, capsys):
    out = tmp_path / "rivers.gpkg"
    options = SegmentOptions(model=ModelOptions(name=str(folder), text_score=0.0, device="cpu"))
    found = segment_by_text(str(river_tif), "river", options, out=out)
    assert found.facts == {"by": "text", "text": "river"}
    assert len(gpd.read_file(out)) == len(found.polygons)
    assert run("segment", river_tif, "--text", "river", "--model", folder, "--out", tmp_path / "b.gpkg") == 0
    assert "b.gpkg" in capsys.readouterr().out


def test_every_tile_is_looked_at_and_blended_as_any_models(folder, river_tif, tmp_path):
    """The polygons are those of a run of ``segment`` whose model is told the words."""
    options = SegmentOptions(model=ModelOptions(name=str(folder), text_score=0.0, device="cpu"))
    rivers = geosam.segment(str(river_tif), as_told(options, "river"))
    found = segment_by_text(str(river_tif), "river", options)
    assert rivers.report["tiles"]["run"] == rivers.report["tiles"]["total"] > 4
    assert found.polygons.geometry.geom_equals(rivers.polygons.geometry).all()
    assert rivers.report["options"]["model"]["text"] == "river"


# What is refused -----------------------------------------------------------------------------------------------------


def test_a_model_that_understands_no_words_says_which_does(tiny_weights):
    with pytest.raises(ModelError, match="does not understand words; sam3 does") as caught:
        load_model(ModelOptions(name=str(tiny_weights), text="river"))
    assert "\n" not in str(caught.value)


def test_a_detector_alone_is_not_asked_by_points(video, tmp_path, river_tif, capsys):
    alone = saved(video.detector_model, tmp_path / "detector")
    assert run("segment", river_tif, "--model", alone, "--out", tmp_path / "a.gpkg") == 2
    err = capsys.readouterr().err
    assert "asked by words alone" in err
    assert len(err.strip().splitlines()) == 1


def bad_input(kind, folder, river_tif, tmp_path):
    mute = tmp_path / "mute"
    if kind == "no tokenizer":
        shutil.copytree(folder, mute)
        for file in [*mute.glob("*token*"), *mute.glob("*vocab*"), *mute.glob("merges*")]:
            file.unlink()
    points = tmp_path / "points.geojson"
    gpd.GeoDataFrame(geometry=gpd.points_from_xy([500000.0], [5000000.0]), crs=32610).to_file(points)
    return {
        "no words": (folder, ("--text", "  "), "--text is empty"),
        "too many words": (folder, ("--text", "a b c d e f g"), "reads 8"),
        "no tokenizer": (mute, ("--text", "river"), "no tokenizer"),
        "points too": (folder, ("--text", "river", "--points", str(points)), "all that SAM 3 is asked"),
        "automatic prompts too": (folder, ("--text", "river", "--prompts", "auto"), "all that SAM 3 is asked"),
    }[kind]


@pytest.mark.parametrize("kind", ["no words", "too many words", "no tokenizer", "points too", "automatic prompts too"])
def test_bad_input_is_one_line_and_exit_2(kind, folder, river_tif, tmp_path, capsys):
    model, args, part = bad_input(kind, folder, river_tif, tmp_path)
    assert run("segment", river_tif, "--model", model, "--out", tmp_path / "rivers.gpkg", *args) == 2
    err = capsys.readouterr().err
    assert part in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "rivers.gpkg").exists()


# Selecting -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sure(monkeypatch):
    """A detector that is sure of all it finds: a random one never is."""
    from geosam.models.concepts import ConceptModel

    found = ConceptModel.instances

    def surer(self, seen):
        masks, scores = found(self, seen)
        return masks, scores + 0.5

    monkeypatch.setattr(ConceptModel, "instances", surer)


def test_the_share_of_a_segment_is_the_mean_probability_in_it(folder, river_tif, sure, tmp_path, monkeypatch):
    scene = Scene.open(str(river_tif))
    options = SegmentOptions.from_mapping({"scene": {"gsd": "native"}, "model": {"name": str(folder)}})
    geosam.segment(scene, as_told(options, "river"), probability=tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as file:
        seen = file.read(1)
    boxes = [(0, 0, 9, 9), (20, 30, 61, 47), (2, 2, seen.shape[1] - 2, 90)]
    expected = [np.nanmean(seen[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes]
    shapes = shapely.box(*np.array(boxes).T)
    found = told_shares(str(folder), scene, shapes, "river")
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 0.01
    monkeypatch.setattr("geosam.segments.text.LOOK_PX", 20)  # A coarser look at what is large.
    assert told_shares(str(folder), scene, shapes, "river") == pytest.approx(expected, abs=0.03)


def test_select_tells_a_model_the_words_in_place_of_clip(folder, river_tif, sure, tmp_path, tiny_weights, capsys):
    made = tmp_path / "segments.gpkg"
    run("everything", river_tif, "--out", made, "--model", tiny_weights, "--points-per-side", 4, "--gsd", "native")
    args = ("select", made, "--text", "river", "--scene", river_tif, "--out", tmp_path / "r.gpkg")
    assert run(*args, "--model", folder, "--above", 0) == 0
    capsys.readouterr()
    assert run(*args, "--model", tiny_weights, "--overwrite") == 2
    assert "does not understand words; sam3 does" in capsys.readouterr().err
