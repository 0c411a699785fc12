"""Rivers out of segments: six ways to say which are meant, and files that no longer match."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from geopandas import GeoDataFrame
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rasterio.windows import Window

import geosam
from geosam.cli import main
from geosam.errors import ModelError, OptionsError, OutputError
from geosam.options import SceneOptions
from geosam.scene import Scene
from geosam.segments import select
from geosam.segments.files import read_segments, writing
from geosam.segments.identity import Identity
from geosam.segments.joining import Segment
from geosam.segments.making import _table
from geosam.segments.runs import Runs
from geosam.vector.ground import ground_of
from geosam.vector.ordered import crew
from geosam.vector.style import WATER, qml

SHAPE = (120, 160)
GSD = 2.0
WEST, NORTH = 450_000, 5_300_000


def squares():
    """Segments by name: a river, the same with its island, the island, a lake, a field that holds the lake, a road."""
    names = ("river", "whole", "island", "lake", "field", "road")
    masks = {name: np.zeros(SHAPE, bool) for name in names}
    masks["whole"][10:110, 20:50] = True
    masks["island"][40:60, 28:40] = True
    masks["river"] = masks["whole"] & ~masks["island"]
    masks["lake"][60:80, 100:130] = True
    masks["field"][20:100, 80:150] = True
    masks["road"][112:116, :] = True
    return masks


def write_scene(path, shift=0.0, height=120):
    rng = np.random.default_rng(0)
    masks = squares()
    wet = masks["river"] | masks["lake"]
    bands = np.full((4, *SHAPE), 90, np.uint8) + rng.integers(0, 9, (4, *SHAPE)).astype(np.uint8)
    bands[3] = np.where(wet, 12, 200)
    profile = {"driver": "GTiff", "height": height, "width": 160, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
    with rasterio.open(path, "w", transform=from_origin(WEST + shift, NORTH, GSD, GSD), **profile) as out:
        out.write(bands[:, :height])
        out.descriptions = ("red", "green", "blue", "nir")
    return path


def write_segments(path, scene, masks):
    opened = Scene.open(scene, SceneOptions())
    found = [Segment(Runs.of(mask), 0.9, 0.95, 0.8 + n / 100, 1) for n, mask in enumerate(masks.values())]
    with writing(path, Identity.of(opened), "{}") as writer, crew(1) as hands:
        writer.add(_table(found, opened, ground_of(opened.geobox), hands, "model", 1))
    return path


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif")


@pytest.fixture(scope="module")
def segments(tmp_path_factory, scene):
    return write_segments(tmp_path_factory.mktemp("segments") / "segments.gpkg", scene, squares())


@pytest.fixture
def clicks(tmp_path):
    """Writes points of (row, col, label) in pixels."""

    def write(*points, name="clicks.gpkg", crs="EPSG:32610", target="EPSG:4326"):
        shapes = [shapely.Point(WEST + GSD * (col + 0.5), NORTH - GSD * (row + 0.5)) for row, col, _ in points]
        layer = GeoDataFrame({"label": [label for *_, label in points]}, geometry=shapes, crs=crs)
        path = tmp_path / name
        (layer if crs is None else layer.to_crs(target)).to_file(path)
        return str(path)

    return write


def burnt(polygons):
    """Polygons as a mask of the scene."""
    if not len(polygons):
        return np.zeros(SHAPE, bool)
    return geometry_mask(polygons.geometry, SHAPE, from_origin(WEST, NORTH, GSD, GSD), invert=True)


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


# The six ways ---------------------------------------------------------------------------------------------------------


def test_water_points_take_what_they_hit(segments, clicks):
    found = select(segments, points=clicks((20, 30, "water"), (70, 110, "water")))
    masks = squares()
    assert (burnt(found.polygons) == (masks["whole"] | masks["field"])).all()
    assert found.segments == 4


def test_dry_points_take_away_what_only_they_hit(segments, clicks):
    """A dry point on an island takes the island off its river, though the river's segment lies under it."""
    found = select(segments, points=clicks((20, 30, "water"), (50, 33, "dry")))
    assert (burnt(found.polygons) == squares()["river"]).all()
    assert not found.warnings


def test_a_segment_that_both_hit_is_left_out_and_told(segments, clicks):
    """On the field a dry point; the lake inside it is hit by water alone."""
    found = select(segments, points=clicks((70, 110, "water"), (25, 140, "dry")))
    assert (burnt(found.polygons) == squares()["lake"]).all()
    assert "dry points hit them too" in found.warnings[0]


def test_no_dry_point_is_ever_in_the_result(segments, tmp_path):
    rng = np.random.default_rng(3)
    for _ in range(10):
        places = rng.integers((1, 1), (119, 159), (8, 2))
        labels = rng.choice(["water", "dry"], 8)
        shapes = [shapely.Point(WEST + GSD * (col + 0.5), NORTH - GSD * (row + 0.5)) for row, col in places]
        path = tmp_path / "p.gpkg"
        GeoDataFrame({"label": labels}, geometry=shapes, crs="EPSG:32610").to_file(path)
        mask = burnt(select(segments, points=str(path)).polygons)
        assert not any(mask[row, col] for (row, col), label in zip(places, labels, strict=True) if label == "dry")


def test_a_box_takes_the_segment_that_fits_it_best(segments, tmp_path):
    x0, x1, y0, y1 = WEST + GSD * 99, WEST + GSD * 131, NORTH - GSD * 81, NORTH - GSD * 59
    found = select(segments, box=f"{x0},{y0},{x1},{y1}")
    assert (burnt(found.polygons) == squares()["lake"]).all()
    boxes = GeoDataFrame(
        geometry=[shapely.box(x0, y0, x1, y1), shapely.box(WEST, NORTH - 232, WEST + 320, NORTH - 224)]
    )
    boxes.set_crs("EPSG:32610").to_crs("EPSG:4326").to_file(tmp_path / "boxes.gpkg")
    found = select(segments, boxes=str(tmp_path / "boxes.gpkg"))
    assert (burnt(found.polygons) == (squares()["lake"] | squares()["road"])).all()


def test_an_index_takes_what_is_wet_by_a_threshold_of_its_own_or_a_given_one(segments):
    masks = squares()
    wet = masks["river"] | masks["lake"]
    found = select(segments, index="ndwi")
    assert (burnt(found.polygons) == (wet | masks["whole"])).all()  # The river with its island is mostly wet.
    strict = select(segments, index="ndwi", above=0.7)
    assert (burnt(strict.polygons) == wet).all()
    assert strict.facts == {"by": "index", "index": "ndwi", "above": 0.7}


def test_a_line_takes_what_it_touches(segments, tmp_path):
    line = shapely.LineString([(WEST + 2 * 105, NORTH - 2 * 0), (WEST + 2 * 105, NORTH - 2 * 21)])
    GeoDataFrame(geometry=[line], crs="EPSG:32610").to_crs("EPSG:4326").to_file(tmp_path / "line.gpkg")
    found = select(segments, touching=str(tmp_path / "line.gpkg"))
    assert (burnt(found.polygons) == squares()["field"]).all()


def test_features_off_the_scene_are_named_and_if_all_are_it_is_an_error(segments, tmp_path):
    ways = [[(WEST + 2 * x, NORTH), (WEST + 2 * x, NORTH - 42)] for x in (105, 9_000)]
    lines = GeoDataFrame(geometry=[shapely.LineString(way) for way in ways], crs="EPSG:32610")
    lines.to_file(tmp_path / "lines.gpkg")
    lines[1:].to_file(tmp_path / "far.gpkg")
    found = select(segments, touching=str(tmp_path / "lines.gpkg"))
    assert (burnt(found.polygons) == squares()["field"]).all()
    assert len(found.warnings) == 1
    assert "1 of 2 features of" in found.warnings[0]
    with pytest.raises(OptionsError, match=r"1 of 1 features .* lie outside scene.* bounds in EPSG:32610 .* CRS"):
        select(segments, touching=str(tmp_path / "far.gpkg"))


# The result -----------------------------------------------------------------------------------------------------------


def test_the_result_is_written_and_described_as_a_run_of_segment_would(segments, tmp_path, capsys):
    out = tmp_path / "rivers.geojson"
    assert run("select", segments, "--index", "ndwi", "--above", "0.7", "--out", out) == 0
    assert "2 water bodies of 2 segments" in capsys.readouterr().out
    assert out.with_suffix(".qml").read_text() == qml(WATER)
    features = json.loads(out.read_text())["features"]
    names = ["id", "area_m2", "perimeter_m", "probability", "scene", "model"]
    assert [list(one["properties"]) for one in features] == [names, names]
    river, lake = (one["properties"] for one in features)
    table = read_segments(segments).table.set_index("id")
    assert river["area_m2"] == pytest.approx(table.area_m2[1], abs=1e-4)
    assert river["perimeter_m"] == pytest.approx(table.perimeter_m[1], abs=1e-4)
    assert (lake["probability"], lake["scene"], lake["model"]) == (0.83, "scene", "model")
    assert len(features[0]["geometry"]["coordinates"]) == 2  # The island is a hole.


def test_small_bodies_are_dropped_and_small_islands_filled(segments):
    found = select(segments, index="ndwi", above=0.7, min_area_m2=5000.0, max_hole_m2=2000.0)
    assert (burnt(found.polygons) == squares()["whole"]).all()
    assert found.polygons.area_m2.iloc[0] == pytest.approx(100 * 30 * 4, rel=2e-3)


def test_nothing_selected_is_an_empty_layer_exit_0_and_a_notice(segments, tmp_path, capsys):
    out = tmp_path / "rivers.gpkg"
    assert run("select", segments, "--index", "ndwi", "--above", "0.99", "--out", out) == 0
    assert "nothing was selected" in capsys.readouterr().out
    assert len(pyogrio.read_dataframe(out)) == 0


def test_python_and_the_command_line_give_the_same(segments, tmp_path):
    geosam.select(segments, tmp_path / "a.gpkg", index="ndwi")
    assert run("select", segments, "--index", "ndwi", "--out", tmp_path / "b.gpkg") == 0
    one, other = (pyogrio.read_dataframe(tmp_path / f"{name}.gpkg") for name in "ab")
    assert one.equals(other)


# Files that no longer match -------------------------------------------------------------------------------------------


def test_segments_of_a_scene_that_has_changed_are_refused(tmp_path, capfd):
    path = write_scene(tmp_path / "scene.tif")
    made = write_segments(tmp_path / "segments.gpkg", path, squares())
    out = tmp_path / "rivers.gpkg"
    args = ("select", made, "--index", "ndwi", "--out", out)
    assert run(*args) == 0
    out.unlink()
    write_scene(path, shift=4.0)
    assert run(*args) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "out of date" in error
    assert not out.exists()
    path.unlink()
    assert run(*args) == 0  # Without the scene there is nothing to compare, and nothing needed.


def test_a_moved_scene_is_the_same_scene_and_another_one_is_not(segments, scene, tmp_path):
    copy = tmp_path / "elsewhere.tif"
    copy.write_bytes(scene.read_bytes())
    assert len(select(segments, index="ndwi", scene=copy).polygons) == 2
    other = write_scene(tmp_path / "other.tif", height=100)
    with pytest.raises(OptionsError, match="out of date"):
        select(segments, index="ndwi", scene=other)


def bad_input(kind, segments, clicks, folder):
    """Arguments that cannot be used, and a word that the message must hold."""
    if kind == "points without CRS":
        return segments, ("--points", clicks((20, 30, "water"), crs=None)), "no CRS"
    if kind == "a label that is neither":
        return segments, ("--points", clicks((20, 30, "wet-ish"))), "wet-ish"
    if kind == "no points":
        empty = GeoDataFrame({"label": []}, geometry=[], crs="EPSG:32610")
        empty.to_file(folder / "none.gpkg", engine="pyogrio")
        return segments, ("--points", folder / "none.gpkg"), "no feature"
    if kind == "points elsewhere":
        return segments, ("--points", clicks((-5000, 30, "water"))), "no prompt lies in"
    if kind == "no segments layer":
        other = GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32610")
        other.to_file(folder / "other.gpkg", layer="rivers")
        return folder / "other.gpkg", ("--index", "ndwi"), "no layer of segments"
    if kind == "no GeoPackage":
        (folder / "text.gpkg").write_text("nothing")
        return folder / "text.gpkg", ("--index", "ndwi"), "no GeoPackage"
    return {
        "missing segments": (folder / "nowhere.gpkg", ("--index", "ndwi"), "does not exist"),
        "unknown index": (segments, ("--index", "magic"), "ndwi"),
        "an index it lacks": (segments, ("--index", "exg"), "ndwi"),
        "no way": (segments, (), "none"),
        "two ways": (segments, ("--index", "ndwi", "--box", "1,2,3,4"), "--box and --index"),
        "a box of three": (segments, ("--box", "1,2,3"), "x0,y0,x1,y1"),
        "a box elsewhere": (segments, ("--box", "1,2,3,4"), "outside"),
        "missing points": (segments, ("--points", folder / "nowhere.gpkg"), "does not exist"),
        "text without a CLIP": (segments, ("--text", "river", "--clip", "nowhere"), "--clip nowhere"),
    }[kind]


KINDS = [
    "points without CRS", "a label that is neither", "no points", "points elsewhere", "no segments layer",
    "no GeoPackage", "missing segments", "unknown index", "an index it lacks", "no way", "two ways", "a box of three",
    "a box elsewhere", "missing points", "text without a CLIP",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_line_and_exit_2(kind, segments, clicks, tmp_path, capfd):
    path, args, word = bad_input(kind, segments, clicks, tmp_path)
    before = sorted(tmp_path.iterdir())
    assert run("select", path, *args, "--out", tmp_path / "rivers.gpkg") == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("geosam: ")
    assert word in error
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_output_is_not_touched(segments, tmp_path):
    (tmp_path / "rivers.gpkg").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        select(segments, tmp_path / "rivers.gpkg", index="ndwi")
    assert (tmp_path / "rivers.gpkg").read_text() == "precious"


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random CLIP of a few thousand weights, with a vocabulary of single letters."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(words), "max_position_embeddings": 64},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_the_share_of_the_words_is_that_of_transformers(clip_folder):
    import torch
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    from geosam.segments.text import Clip

    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    captions = ["river", "fields", "trees"]
    ours = Clip(str(clip_folder)).share(pictures, captions)
    tokenizer, model = CLIPTokenizer.from_pretrained(clip_folder), CLIPModel.from_pretrained(clip_folder).eval()
    shown = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_rescale": False}
    seen = CLIPImageProcessor(**shown)(list(pictures), return_tensors="pt")
    with torch.no_grad():
        theirs = model(**tokenizer(captions, padding=True, return_tensors="pt"), **seen).logits_per_image.softmax(1)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert ours.std(dim=0).max() > 1e-5


def test_words_take_what_clip_says(segments, scene, clip_folder, monkeypatch):
    """With a CLIP that calls dark near infrared a river: it is shown each segment by itself."""
    from geosam.segments import text

    def share(self, pictures, captions):
        assert captions[0] == "an aerial photograph of river"
        import torch

        seen = [bool(one.std() > 0) for one in pictures]
        assert all(seen)
        return torch.tensor([[0.9, 0.1]] + [[0.2, 0.8]] * (len(pictures) - 1))

    monkeypatch.setattr(text.Clip, "share", share)
    found = select(segments, text="river", clip=str(clip_folder), scene=scene)
    assert (burnt(found.polygons) == squares()["river"]).all()
    assert found.facts["best"] == 0.9


def test_text_runs_through_on_a_random_clip(segments, clip_folder):
    assert select(segments, text="river", clip=str(clip_folder), above=0.0).segments == 6


def test_a_segment_is_shown_with_nothing_around_it(scene):
    from geosam.segments.text import MEAN, picture

    opened = Scene.open(scene)
    rgb, _ = opened.read_rgb(Window(100, 60, 30, 20))
    shown = picture(opened, shapely.box(100, 60, 130, 80), 32)
    assert tuple(shown.shape) == (3, 32, 32)
    assert shown[:, 0, 0].tolist() == pytest.approx(MEAN, abs=1e-6)
    assert float(shown[0, 12:20, 12:20].mean()) == pytest.approx(rgb[..., 0].mean() / 255, abs=0.05)


def test_a_hub_that_cannot_be_reached_is_one_line(segments, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="cannot be reached"):
        select(segments, text="river", clip="someone/nothing-of-this-name")


def test_text_without_its_scene_is_refused(tmp_path, clip_folder):
    path = write_scene(tmp_path / "scene.tif")
    made = write_segments(tmp_path / "segments.gpkg", path, squares())
    path.unlink()
    with pytest.raises(OptionsError, match="--scene"):
        select(made, text="river", clip=str(clip_folder))


def test_segments_of_a_part_at_another_resolution_find_their_scene_again(scene, tmp_path):
    """For text the scene is read where the segments are, whatever area and pixel size they were made with."""
    from geosam.segments.selecting import matching_scene

    aoi = GeoDataFrame(geometry=[shapely.box(WEST + 40, NORTH - 200, WEST + 240, NORTH - 40)], crs="EPSG:32610")
    aoi.to_file(tmp_path / "aoi.gpkg")
    part = Scene.open(scene, SceneOptions(aoi=str(tmp_path / "aoi.gpkg"), gsd=4.0))
    with writing(tmp_path / "s.gpkg", Identity.of(part), "{}") as writer, crew(1) as hands:
        writer.add(_table([], part, ground_of(part.geobox), hands, "model", 1))
    again = matching_scene(read_segments(tmp_path / "s.gpkg"), None, needed=True)
    assert again.shape == part.shape
    window = Window(3, 3, 20, 10)
    assert (again.read_rgb(window)[0] == part.read_rgb(window)[0]).mean() > 0.99


def test_segment_by_words_runs_from_the_scene_to_the_file(scene, clip_folder, tiny_weights, tmp_path, capfd):
    """Every segment is shown to CLIP; what the words do not go with is refused."""
    out = tmp_path / "rivers.gpkg"
    args = ("segment", scene, "--text", "river", "--clip", clip_folder, "--model", tiny_weights, "--out", out)
    assert run(*args, "--gsd", "native") == 0
    assert list(pyogrio.read_dataframe(out).columns) == [
        "id", "area_m2", "perimeter_m", "probability", "scene", "model", "geometry",
    ]  # fmt: skip
    assert out.with_suffix(".qml").read_text() == qml(WATER)
    out.with_suffix(".qml").unlink()
    out.unlink()
    capfd.readouterr()
    for more, word in ((("--probability", "p.tif"), "--probability"), (("--clip", "nowhere"), "--clip nowhere")):
        assert run(*args, *more) == 2
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        assert word in error
    assert list(tmp_path.iterdir()) == []
