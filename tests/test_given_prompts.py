"""A person's prompts: from any file to the tiles they lie in, and a result that follows them."""

import json
import pickle

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy import ndimage

from geosam.cli import main
from geosam.errors import ModelError, OptionsError, OutputError
from geosam.models import load_model
from geosam.models.protocol import DRY_LOGIT
from geosam.options import ModelOptions, PromptOptions, SegmentOptions
from geosam.pipeline import segment
from geosam.prompts import DRY, PAD, WATER, Prompts, sample_prompts
from geosam.prompts.given import NOBODY, GivenPrompts, way_of
from geosam.prompts.opening import read_given
from geosam.scene import Scene
from geosam.tiling import plan_tiles

LEFT, RIGHT = slice(40, 56), slice(136, 152)
"""Columns of two rivers from top to bottom of a scene of 200 x 160 px."""
WEST, NORTH, STEP = 450_000, 5_300_000, 2.0


class Obeys:
    """A model that does as it is told: the dark component under a water point unless a dry point lies in it, the dark
    ground of a box, the dark ground of the mask; all dark ground where it is asked nothing."""

    name, tile_px, sha256, threshold = "obeys", 64, "0" * 64, 0.5
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, *understands):
        self.understands = frozenset(understands or ("points", "boxes", "mask", "none"))
        self.asked = []

    def embed(self, images):
        return images

    def decode(self, images, prompts):
        self.asked += prompts
        return torch.stack([self._tile(image, one) for image, one in zip(images, prompts, strict=True)])

    def _tile(self, image, prompts):
        dark = image.float().mean(dim=0).numpy() < 100
        found = np.zeros_like(dark)
        for body in range(len(prompts)):
            found |= self._body(dark, prompts, body)
        return torch.from_numpy(np.where(found, 8.0, -8.0))

    def _body(self, dark, prompts, body):
        labels, points = prompts.labels[body], prompts.points[body]
        if (labels == PAD).all() and prompts.box(body) is None:
            return dark & prompts.mask if prompts.with_mask()[body] else dark
        found = np.zeros_like(dark)
        if prompts.box(body) is not None:
            x0, y0, x1, y1 = prompts.box(body).astype(int)
            found[y0:y1, x0:x1] = dark[y0:y1, x0:x1]
        components = ndimage.label(dark)[0]
        at = components[points[:, 1].astype(int), points[:, 0].astype(int)]
        found |= np.isin(components, at[labels == WATER]) & dark
        return found & ~(np.isin(components, at[labels == DRY]) & dark)


def rivers(folder, *, crs="EPSG:32610", infrared=(), name="scene.tif"):
    """Two dark rivers on bright land; the near infrared sees the columns ``infrared``."""
    bands = np.full((4, 160, 200), 150, np.uint8) + np.random.default_rng(0).integers(0, 9, (4, 160, 200), np.uint8)
    for columns in (LEFT, RIGHT):
        bands[:3, :, columns] = 50
    bands[3] = 220
    for columns in infrared:
        bands[1, :, columns], bands[3, :, columns] = 80, 10
    count = 4 if infrared else 3
    profile = {"driver": "GTiff", "width": 200, "height": 160, "count": count, "dtype": "uint8", "crs": crs}
    where = {"transform": from_origin(WEST, NORTH, STEP, STEP)} if crs else {}
    path = folder / name
    with rasterio.open(path, "w", **profile, **where) as out:
        out.write(bands[:count])
        out.descriptions = ("red", "green", "blue", "nir")[:count]
    return path


@pytest.fixture(scope="module")
def scene_tif(tmp_path_factory):
    return rivers(tmp_path_factory.mktemp("rivers"))


def ground(x, y):
    """Map coordinates of a pixel coordinate."""
    return WEST + STEP * x, NORTH - STEP * y


def points(folder, *xy, name="points.gpkg", crs=32610, **columns):
    """A file of points at pixel coordinates (x, y) of the scene."""
    geometry = [shapely.Point(*ground(x, y)) for x, y in xy]
    layer = gpd.GeoDataFrame({key: list(values) for key, values in columns.items()}, geometry=geometry, crs=32610)
    return written(layer.to_crs(crs), folder / name)


def boxes(folder, *xyxy, name="boxes.gpkg", crs=32610, **columns):
    geometry = [shapely.box(*ground(x0, y1), *ground(x1, y0)) for x0, y0, x1, y1 in xyxy]
    layer = gpd.GeoDataFrame({key: list(values) for key, values in columns.items()}, geometry=geometry, crs=32610)
    return written(layer.to_crs(crs), folder / name)


def written(layer, path):
    layer.to_parquet(path) if path.suffix == ".parquet" else layer.to_file(path)
    return str(path)


def options(which=None, **stages):
    prompts = {"which": which, **stages.pop("prompts", {})}
    return SegmentOptions.from_mapping({"prompts": prompts, "coarse": {"method": "rgb"}, **stages})


def found(scene, model=None, **how):
    """Where water was found, float (h, w): 1, 0, and NaN where nobody looked; and the report."""
    with rasterio.open(scene) as file:
        path = f"{scene}.probability.tif"
        shape = file.shape
    result = segment(scene, options(**how), probability=path, model=model or Obeys(), overwrite=True)
    with rasterio.open(path) as file:
        values = file.read(1)
    assert values.shape == shape
    return np.where(np.isnan(values), np.nan, values > 0.5), result.report


def given_of(scene, **files):
    return read_given(PromptOptions(**files), Scene.open(scene))


def columns_of(water):
    return sorted(set(np.nonzero(np.nan_to_num(water))[1].tolist()))


# The result follows the prompts --------------------------------------------------------------------------------------


def test_the_polygon_is_where_the_point_is_and_moves_with_it(scene_tif, tmp_path):
    for river in (LEFT, RIGHT):
        path = points(tmp_path, *[(river.start + 8, y) for y in (30, 80, 130)])
        water, report = found(scene_tif, prompts={"points_file": path})
        assert columns_of(water) == list(range(river.start, river.stop))
        assert (water[:, river] == 1).all()
        assert report["prompts"]["which"] == "given"


def test_only_tiles_with_a_given_prompt_run_and_nothing_is_claimed_elsewhere(scene_tif, tmp_path):
    model = Obeys()
    path = points(tmp_path, (42, 20))
    water, report = found(scene_tif, model, prompts={"points_file": path}, tiles={"overlap_px": 0})
    assert report["tiles"]["run"] == len(model.asked) == 1
    assert report["tiles"]["dry"] == 0
    assert report["coarse"]["method"] == "none"
    assert np.isfinite(water).sum() == 64 * 64
    assert (water[:64, LEFT] == 1).all()


def test_a_dry_point_takes_water_away(scene_tif, tmp_path):
    path = points(tmp_path, (48, 20), (50, 30), (144, 20), label=["water", "dry", "water"])
    water, _ = found(scene_tif, prompts={"points_file": path})
    assert columns_of(water) == list(range(RIGHT.start, RIGHT.stop))


def test_dry_points_alone_ask_for_nothing(scene_tif, tmp_path):
    path = points(tmp_path, (48, 20), label=["dry"])
    water, report = found(scene_tif, prompts={"points_file": path})
    assert report["tiles"]["run"] == 0
    assert np.isnan(water).all()


def test_a_box_gives_the_water_inside_it_over_as_many_tiles_as_it_needs(scene_tif, tmp_path):
    path = boxes(tmp_path, (30, 10, 60, 150))
    water, _ = found(scene_tif, prompts={"boxes_file": path})
    expected = np.zeros((160, 200), bool)
    expected[10:150, LEFT] = True
    assert np.array_equal(np.nan_to_num(water) == 1, expected)


def test_both_adds_a_persons_water_to_that_of_the_first_guess(scene_tif, tmp_path):
    """The first guess, from a file, knows the left river alone."""
    guess = boxes(tmp_path, (40, 0, 56, 160), name="guess.gpkg")
    path = points(tmp_path, *[(144, y) for y in (30, 80, 130)])
    both, _ = found(scene_tif, which="both", prompts={"points_file": path}, coarse={"method": guess})
    auto, _ = found(scene_tif, coarse={"method": guess})
    assert columns_of(auto) == list(range(LEFT.start, LEFT.stop))
    assert columns_of(both) == [*range(LEFT.start, LEFT.stop), *range(RIGHT.start, RIGHT.stop)]
    assert np.isfinite(both).all()


def test_both_is_auto_where_nothing_is_given_and_where_the_same_is_given(scene_tif, tiny_sam_folder, tmp_path):
    model = load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))
    layer = written(prompts_of(scene_tif, tiny_sam_folder, tmp_path), tmp_path / "same.gpkg")
    auto = probability(scene_tif, model, tmp_path)
    assert np.array_equal(probability(scene_tif, model, tmp_path, which="both", points_file=layer), auto)


@pytest.mark.parametrize("tiles", ["auto", "water"])
def test_none_asks_nothing_in_every_tile_or_in_the_wet_ones(scene_tif, tmp_path, tiles):
    guess, model = boxes(tmp_path, (40, 0, 56, 160), name="guess.gpkg"), Obeys()
    water, report = found(scene_tif, model, which="none", coarse={"method": guess}, tiles={"which": tiles})
    assert all(one.points.shape == (1, 0, 2) and one.mask is None for one in model.asked)
    everywhere = tiles == "auto"
    assert (report["tiles"]["run"] == report["tiles"]["total"]) == everywhere
    assert report["coarse"]["method"] == ("none" if everywhere else guess)
    assert set(range(RIGHT.start, RIGHT.stop)) <= set(columns_of(water)) or not everywhere


def test_a_model_that_needs_prompts_refuses_none(scene_tif):
    with pytest.raises(ModelError, match="without a prompt"):
        found(scene_tif, Obeys("points"), which="none")


@pytest.mark.parametrize("kind", ["polygons", "raster", "raster in degrees"])
def test_a_mask_is_handed_to_the_model_as_it_is(scene_tif, tmp_path, kind):
    model, expected = Obeys(), np.zeros((160, 200), bool)
    expected[20:140, 30:50] = True
    path = boxes(tmp_path, (30, 20, 50, 140), name="mask.gpkg", crs=4326 if kind == "polygons" else 32610)
    if kind != "polygons":
        path = mask_raster(tmp_path, expected, kind)
    water, report = found(scene_tif, model, prompts={"mask_file": path})
    seen = np.nan_to_num(water) == 1
    assert (seen == expected & (np.arange(200) >= 40) & (np.arange(200) < 56)).mean() > 0.999
    assert report["prompts"]["mask"]["file"] == path
    assert all(len(one) == 1 and (one.labels == PAD).all() for one in model.asked)


def mask_raster(folder, water, kind):
    path = folder / "mask.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32610", "nodata": 255}
    transform, values = from_origin(WEST, NORTH, STEP, STEP), water.astype(np.uint8)
    values[:, RIGHT] = 255  # Nodata is not water.
    if kind == "raster in degrees":
        crs = "EPSG:4326"
        right, bottom = ground(200, 160)
        shape = (600, 900)
        transform, width, height = rasterio.warp.calculate_default_transform(
            "EPSG:32610", crs, 200, 160, WEST, bottom, right, NORTH, dst_width=shape[1], dst_height=shape[0]
        )
        warped = np.full((height, width), 255, np.uint8)
        rasterio.warp.reproject(
            values, warped, src_transform=from_origin(WEST, NORTH, STEP, STEP), src_crs="EPSG:32610",
            dst_transform=transform, dst_crs=crs, src_nodata=255, dst_nodata=255,
        )  # fmt: skip
        values, profile["crs"] = warped, crs
    with rasterio.open(path, "w", width=values.shape[1], height=values.shape[0], transform=transform, **profile) as out:
        out.write(values, 1)
    return str(path)


def test_a_mask_is_refused_for_a_model_that_does_not_know_masks(scene_tif, tmp_path):
    path = boxes(tmp_path, (30, 20, 50, 140))
    with pytest.raises(ModelError, match="does not understand mask"):
        found(scene_tif, Obeys("points"), prompts={"mask_file": path})


def test_a_person_outranks_infrared(tmp_path):
    """The index sees the left river alone, and is trusted; a person says that it is dry, and the other one water."""
    scene = rivers(tmp_path, infrared=[LEFT])
    auto, report = found(scene, coarse={"method": "auto"})
    assert report["coarse"]["trust"] > 0
    assert columns_of(auto) == list(range(LEFT.start, LEFT.stop))
    path = points(tmp_path, *[(144, y) for y in (30, 80, 130)], (48, 81), label=["water"] * 3 + ["dry"])
    water, _ = found(scene, which="both", prompts={"points_file": path}, coarse={"method": "auto"})
    assert (water[:, RIGHT] == 1).all()
    assert not water[78:85, 46:51].any()
    assert water[:20, LEFT].all()


# Files, formats, CRS -------------------------------------------------------------------------------------------------

FORMATS = [("p.geojson", 4326), ("p.gpkg", 3857), ("p.fgb", 4326), ("p.shp", 32611), ("p.parquet", 32610)]


@pytest.mark.parametrize(("name", "crs"), FORMATS)
def test_any_format_in_any_crs_gives_the_same_points(scene_tif, tmp_path, name, crs):
    xy = np.array([(48.5, 20.25), (144.5, 100.5), (0.0, 0.0), (199.5, 159.5)])
    path = points(tmp_path, *xy, name=name, crs=crs, label=["water", "dry", "water", "dry"], order=range(4))
    made = given_of(scene_tif, points_file=path)
    order = np.lexsort(made.points.T)
    expected = np.lexsort(xy.T)
    assert np.array_equal(made.points[order], xy[expected])
    assert np.array_equal(made.labels[order], np.array([1, 0, 1, 0])[expected])


@pytest.mark.parametrize("crs", [4326, 32611])
def test_boxes_of_another_crs_hold_what_they_held(scene_tif, tmp_path, crs):
    made = given_of(scene_tif, boxes_file=boxes(tmp_path, (30, 10, 60, 150), crs=crs)).boxes[0]
    assert (made[:2] < (30.001, 10.001)).all()
    assert (made[2:] > (59.999, 149.999)).all()
    assert np.abs(made - (30, 10, 60, 150)).max() < 12  # Meridians lean by less than three degrees here.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["water", "dry"], [1, 0]), (["Water", " DRY "], [1, 0]), ([1, 0], [1, 0]), ([1.0, 0.0], [1, 0]),
        ([True, False], [1, 0]), (["true", "FALSE"], [1, 0]), (["positive", "negative"], [1, 0]), (["1", "0"], [1, 0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["label", "LABEL"])
def test_labels_are_understood(scene_tif, tmp_path, values, expected, column):
    path = points(tmp_path, (10, 10), (20, 20), **{column: values})
    assert given_of(scene_tif, points_file=path).labels.tolist() == expected


def test_without_labels_all_points_are_water(scene_tif, tmp_path):
    assert given_of(scene_tif, points_file=points(tmp_path, (10, 10), (20, 20))).labels.tolist() == [1, 1]


def test_the_points_of_a_multipoint_are_points(scene_tif, tmp_path):
    geometry = [shapely.MultiPoint([ground(10, 10), ground(500, 20)]), shapely.Point(ground(30, 30))]
    layer = gpd.GeoDataFrame({"label": ["dry", "water"]}, geometry=geometry, crs=32610)
    made = given_of(scene_tif, points_file=written(layer, tmp_path / "multi.gpkg"))
    assert made.points.tolist() == [[10, 10], [30, 30]]
    assert made.labels.tolist() == [0, 1]
    assert "1 of 3 points" in made.warnings[0]


def test_points_and_boxes_may_be_layers_of_one_file(scene_tif, tmp_path):
    path = boxes(tmp_path, (30, 10, 60, 150), name="all.gpkg")
    layer = gpd.GeoDataFrame(geometry=[shapely.Point(ground(10, 10))], crs=32610)
    layer.to_file(path, layer="clicks")
    made = given_of(scene_tif, points_file=path, boxes_file=path)
    assert (len(made.points), len(made.boxes)) == (1, 1)


def geojson(*features):
    parts = [
        {"type": "Feature", "properties": {"label": label}, "geometry": {"type": kind, "coordinates": place}}
        for label, kind, place in features
    ]
    return json.dumps({"type": "FeatureCollection", "features": parts})


BAD_FILES = {
    "wrong label": (geojson(("water", "Point", [-123, 47]), ("wet", "Point", [-123, 47])), "feature 2", "'wet'", "dry"),
    "no label": (geojson(("water", "Point", [-123, 47]), (None, "Point", [-123, 47])), "NULL", "water"),
    "empty": (geojson(), "no feature"),
    "no file": ("", "not a vector file"),
    "text": ("x,y\n1,2\n", "not a vector file"),
    "lines": (geojson(("water", "LineString", [[1, 2], [3, 4]])), "LineString", "points"),
    "far away": (geojson(("water", "Point", [10.0, 50.0])), "no prompt lies in", "(10, 50)", "CRS"),
    "off the earth": (geojson(("water", "Point", [1e9, 95.0])), "no prompt lies in"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_exit_2(kind, scene_tif, tiny_sam_folder, tmp_path, capfd):
    text, *words = BAD_FILES[kind]
    path, out = tmp_path / "bad.geojson", tmp_path / "out.gpkg"
    path.write_text(text)
    before = sorted(tmp_path.iterdir())
    args = ("segment", scene_tif, "--model", tiny_sam_folder, "--points", path, "--out", out)
    assert run(*args) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in ("bad.geojson", *words))
    assert sorted(tmp_path.iterdir()) == before


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


@pytest.mark.parametrize("option", ["--points", "--boxes", "--prompt-mask"])
def test_a_missing_file_is_named_by_its_option(option, scene_tif, tmp_path, capfd):
    assert run("segment", scene_tif, option, "nowhere.gpkg", "--out", tmp_path / "o.gpkg") == 2
    assert f"{option} nowhere.gpkg does not exist" in capfd.readouterr().err


def test_a_file_without_crs_is_refused_where_the_scene_has_one(scene_tif, tmp_path):
    layer = gpd.GeoDataFrame(geometry=[shapely.Point(10, 10)])
    with pytest.raises(OptionsError, match="has no CRS"):
        given_of(scene_tif, points_file=written(layer, tmp_path / "bare.parquet"))


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform", "ignore:'crs' was not provided")
def test_without_any_crs_coordinates_are_pixels(tmp_path):
    scene = Scene.open(rivers(tmp_path, crs=None), options(scene={"allow_no_crs": True}).scene)
    layer = gpd.GeoDataFrame(geometry=[shapely.Point(48.5, 20.5)])
    made = read_given(PromptOptions(points_file=written(layer, tmp_path / "bare.gpkg")), scene)
    assert made.points.tolist() == [[48.5, 20.5]]
    with pytest.raises(OptionsError, match=r"has a CRS .* x to the right and y down"):
        read_given(PromptOptions(points_file=points(tmp_path, (48, 20))), scene)


def test_prompts_outside_the_scene_are_counted_and_named(scene_tif, tiny_sam_folder, tmp_path, capsys):
    path = points(tmp_path, (48, 20), *[(-10 - i, 20) for i in range(7)], label=["water"] * 8)
    args = ("--model", tiny_sam_folder, "--points", path, "--report", tmp_path / "r.json", "--out", tmp_path / "o.gpkg")
    assert run("segment", scene_tif, *args) == 0
    said = capsys.readouterr().err
    assert "7 of 8 points of" in said
    assert "feature 2 at (449980, 5299960), 3 at" in said
    assert "and 2 more" in said
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["prompts"]["points"] == {"file": path, "water": 8, "dry": 0, "outside": 7}
    assert any("7 of 8" in line for line in report["warnings"])


@pytest.mark.parametrize("which", ["given", "both"])
def test_all_prompts_outside_is_an_error(scene_tif, tmp_path, which):
    path, far = points(tmp_path, (-50, 20)), boxes(tmp_path, (300, 0, 310, 20))
    with pytest.raises(
        OptionsError, match=r"no prompt lies in .* 1 of 1 points .* 1 of 1 boxes .* bounds in EPSG:32610"
    ):
        found(scene_tif, which=which, prompts={"points_file": path, "boxes_file": far})


@pytest.mark.parametrize(
    ("stages", "word"),
    [
        ({"which": "given"}, "needs prompts"), ({"which": "both"}, "needs prompts"),
        ({"which": "auto", "prompts": {"points_file": "p.gpkg"}}, "p.gpkg unused"),
        ({"which": "none", "prompts": {"boxes_file": "b.gpkg"}}, "b.gpkg unused"),
        ({"prompts": {"points_file": "p.gpkg"}, "tiles": {"which": "all"}}, "--prompts both"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(stages, word):
    with pytest.raises(OptionsError, match=word):
        way_of(options(**stages))


def test_a_file_alone_means_given_and_no_file_auto():
    assert way_of(options()) == "auto"
    assert way_of(options(prompts={"mask_file": "m.tif"})) == "given"


# What geosam prompts writes ------------------------------------------------------------------------------------------


def prompts_of(scene, model, folder, name="p.gpkg"):
    """What ``geosam prompts`` writes, as a table."""
    path = folder / name
    assert run("prompts", scene, "--model", model, "--coarse", "rgb", "--out", path, "--overwrite") == 0
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


def probability(scene, model, folder, **prompts):
    path = folder / "probability.tif"
    segment(scene, options(prompts=prompts), probability=path, model=model, overwrite=True)
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize("name", ["p.geojson", "p.gpkg", "p.parquet"])
def test_what_geosam_prompts_writes_gives_the_result_of_a_run_without_it(scene_tif, tiny_sam_folder, tmp_path, name):
    """To the last bit, where tiles ran; the other ground is nobody's."""
    prompts_of(scene_tif, tiny_sam_folder, tmp_path, name)
    model = load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))
    auto = probability(scene_tif, model, tmp_path)
    again = probability(scene_tif, model, tmp_path, points_file=str(tmp_path / name))
    ran = np.isfinite(again)
    assert ran.mean() > 0.5
    assert np.array_equal(auto[ran], again[ran])
    assert (auto[~ran] == 0).all()


def test_with_the_coarse_mask_it_gives_the_result_of_a_model_that_knows_masks(scene_tif, tiny_weights, tmp_path):
    prompts_of(scene_tif, tiny_weights, tmp_path)
    mask = tmp_path / "coarse.tif"
    assert run("coarse", scene_tif, "--method", "rgb", "--out", mask) == 0
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))
    auto = probability(scene_tif, model, tmp_path)
    again = probability(scene_tif, model, tmp_path, points_file=str(tmp_path / "p.gpkg"), mask_file=str(mask))
    ran = np.isfinite(again)
    assert np.array_equal(auto[ran], again[ran])
    assert not np.array_equal(auto[ran], probability(scene_tif, model, tmp_path, mask_file=str(mask))[ran])


# Tile by tile --------------------------------------------------------------------------------------------------------


def made_of(xy, labels=None, bodies=None, tiles=None, boxes=(), box_bodies=None, mask=None):
    count = len(xy)
    return GivenPrompts(
        np.array(xy, float).reshape(-1, 2),
        np.array([WATER] * count if labels is None else labels, np.int64),
        np.array([NOBODY] * count if bodies is None else bodies, np.int64),
        np.array([NOBODY] * count if tiles is None else tiles, np.int64),
        np.array(boxes, float).reshape(-1, 4),
        np.array([NOBODY] * len(boxes) if box_bodies is None else box_bodies, np.int64),
        mask,
    )


SIDE = 64
TILE = Window(0, 0, SIDE, SIDE)
DRY_GROUND = np.zeros((SIDE, SIDE), bool)


def bodies_of(prompts):
    """Each body as a set of (x, y, label)."""
    return [
        {(*xy, label) for xy, label in zip(points.tolist(), labels.tolist(), strict=True) if label != PAD}
        for points, labels in zip(prompts.points, prompts.labels, strict=True)
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1599), st.integers(0, 1199), st.booleans()), max_size=30), st.integers(0, 60))
def test_every_point_reaches_the_tiles_it_lies_in_at_its_place(points, overlap):
    xy, labels = [(x / 8, y / 8) for x, y, _ in points], [int(wet) for *_, wet in points]
    prompts, plan = made_of(xy, labels), plan_tiles((150, 200), SIDE, overlap)
    for tile in plan.tiles:
        left, top = tile.window.col_off, tile.window.row_off
        here = [(x - left, y - top, k) for (x, y), k in zip(xy, labels, strict=True)]
        here = {(x, y, k) for x, y, k in here if 0 <= x < SIDE and 0 <= y < SIDE}
        wet, dry = ({point for point in here if point[2] == kind} for kind in (WATER, DRY))
        made = bodies_of(prompts.prompts(tile.window, tile.index, DRY_GROUND))
        assert prompts.asks(tile.window, tile.index) == bool(wet)
        assert set().union(*made) == (here if wet else set())
        assert all(dry <= body for body in made)


def test_water_points_are_bodies_of_their_own_unless_they_share_known_water_or_a_name():
    water = DRY_GROUND.copy()
    water[:, 10:20] = True
    xy = [(12, 5), (18, 60), (30, 30), (40, 40), (50, 50), (55, 20)]
    made = made_of(xy, bodies=[-1, -1, -1, -1, 7, 7]).prompts(TILE, 0, water)
    places = [{point[:2] for point in body} for body in bodies_of(made)]
    assert places == [{(12, 5), (18, 60)}, {(30, 30)}, {(40, 40)}, {(50, 50), (55, 20)}]


def test_a_dry_point_goes_to_the_body_it_names_or_to_all():
    prompts = made_of([(5, 5), (9, 9), (30, 30), (33, 33)], [WATER, DRY, WATER, DRY], [1, 1, 2, -1])
    assert bodies_of(prompts.prompts(TILE, 0, DRY_GROUND)) == [
        {(5, 5, WATER), (9, 9, DRY), (33, 33, DRY)}, {(30, 30, WATER), (33, 33, DRY)},
    ]  # fmt: skip


def test_given_points_join_the_automatic_body_in_whose_water_they_lie():
    water = DRY_GROUND.copy()
    water[:, 10:20] = water[:, 40:50] = True
    automatic = sample_prompts(water, np.ones_like(water), PromptOptions(dry_points=0))
    joined = made_of([(45, 1), (30, 30)]).prompts(TILE, 0, water, automatic)
    before, after = bodies_of(automatic), bodies_of(joined)
    assert len(after) == 3
    grown = [new - old for old, new in zip(before, after, strict=False)]
    assert sorted(map(len, grown)) == [0, 1]
    assert joined.with_mask().tolist() == [True, True, False]
    assert np.array_equal(joined.mask, automatic.mask)


def test_points_that_are_automatic_anyway_change_nothing():
    water = DRY_GROUND.copy()
    water[:, 10:20] = water[:, 40:50] = True
    automatic = sample_prompts(water, np.ones_like(water))
    keep = automatic.labels != PAD
    same = made_of(automatic.points[keep], automatic.labels[keep]).prompts(TILE, 0, water, automatic)
    assert np.array_equal(same.points, automatic.points)
    assert np.array_equal(same.labels, automatic.labels)


def test_a_box_is_cut_at_the_tile_and_has_the_points_of_its_body():
    prompts = made_of(
        [(70, 10), (100, 20)], bodies=[3, -1], boxes=[(-20, 5, 90, 300), (0, 0, 65, 10)], box_bodies=[3, -1]
    )
    made = prompts.prompts(Window(64, 0, SIDE, SIDE), 1, DRY_GROUND)
    assert bodies_of(made) == [{(6, 10, WATER)}, {(36, 20, WATER)}]
    assert made.box(0).tolist() == [0, 5, 26, 64]
    assert made.box(1) is None
    assert len(prompts.prompts(TILE, 0, DRY_GROUND)) == 2


def test_a_point_is_for_the_tile_it_names_only_if_it_lies_in_it():
    plan = plan_tiles((64, 112), SIDE, 16)  # Two tiles that share columns 48 to 63.
    prompts = made_of([(50, 5), (50, 9), (50, 13), (50, 17)], tiles=[0, 1, 7, -1]).pinned(plan.lefts, plan.tops, SIDE)
    rows = [sorted(int(point[1]) for body in bodies_of(
        prompts.prompts(tile.window, tile.index, DRY_GROUND)) for point in body) for tile in plan.tiles]  # fmt: skip
    assert rows == [[5, 13, 17], [9, 13, 17]]


def test_where_a_person_contradicts_the_first_guess_its_word_does_not_count():
    water = DRY_GROUND.copy()
    water[:, :32] = True
    prompts = made_of([(60, 32), (5, 32), (10, 60)], [WATER, DRY, WATER])
    every = prompts.prompts(TILE, 0, water)
    released = prompts.overruled(TILE, 0, water, every)
    row, col = np.mgrid[:SIDE, :SIDE]
    wet, dry, agreed = (np.hypot(col - x, row - y) for x, y in ((60, 32), (5, 32), (10, 60)))
    assert np.array_equal(released[:, :32], (dry < np.minimum(wet, agreed))[:, :32])
    assert np.array_equal(released[:, 32:], (wet < np.minimum(dry, agreed))[:, 32:])
    assert not made_of([(5, 32)]).overruled(TILE, 0, water, every).any()
    box = made_of([], boxes=[(20, 20, 50, 50)])
    expected = DRY_GROUND.copy()
    expected[20:50, 32:50] = True
    assert np.array_equal(box.overruled(TILE, 0, water, every), expected)


def test_other_prompts_are_another_run(scene_tif, tmp_path):
    first, moved = (given_of(scene_tif, points_file=points(tmp_path, (x, 20))) for x in (48, 49))
    assert first.asks(TILE, 0)
    assert pickle.loads(pickle.dumps(first)).digest() == first.digest() != moved.digest()
    path = points(tmp_path, (48, 20), (48, 100))
    out = tmp_path / "o.gpkg"
    with pytest.raises(KeyboardInterrupt):
        segment(scene_tif, options(prompts={"points_file": path}), out=out, model=Stops())
    points(tmp_path, (144, 20), (144, 100))
    with pytest.raises(OutputError, match="given prompts"):
        segment(scene_tif, options(prompts={"points_file": path}), out=out, model=Obeys(), resume=True)


class Stops(Obeys):
    """Is killed at the second batch."""

    def embed(self, images):
        self.asked.append(None)
        if len(self.asked) > 2:
            raise KeyboardInterrupt
        return images


# Models --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 255, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=["sam", "tiny"])
def model(request, tiny_sam_folder, tiny_weights):
    name = tiny_sam_folder if request.param == "sam" else tiny_weights
    return load_model(ModelOptions(name=str(name), device="cpu", dtype="float32"))


def test_bodies_with_and_without_box_are_each_what_they_are_alone(model, images):
    xy, labels = np.array([[[9, 9]], [[40, 40]]], np.float32), np.ones((2, 1), np.int64)
    box = np.array([[np.nan] * 4, [30, 30, 60, 60]], np.float32)
    features = model.embed(images[:1])
    together = model.decode(features, [Prompts(xy, labels, box)])
    apart = [model.decode(features, [Prompts(xy[i : i + 1], labels[:1], one)]) for i, one in ((0, None), (1, box[1:]))]
    torch.testing.assert_close(together, torch.maximum(*apart), atol=1e-4, rtol=1e-4)


def test_only_bodies_that_are_asked_for_with_the_mask_have_it(tiny_weights, images):
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))
    mask = DRY_GROUND.copy()
    mask[:, 30:] = True
    xy, labels = np.array([[[9, 9]], [[40, 40]]], np.float32), np.ones((2, 1), np.int64)
    features = model.embed(images[:1])
    together = model.decode(features, [Prompts(xy, labels, None, mask, np.array([False, True]))])
    apart = [Prompts(xy[:1], labels[:1]), Prompts(xy[1:], labels[1:], None, mask)]
    found = [model.decode(features, [one]) for one in apart]
    torch.testing.assert_close(together, torch.maximum(*found), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, model.decode(features, [Prompts(xy, labels, None, mask)]))


def test_of_three_masks_the_one_of_highest_predicted_iou_is_kept(tiny_sam_folder, images):
    sam = load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))
    ways = [
        Prompts(np.array([[xy]], np.float32), np.ones((1, 1), np.int64), multimask=True) for xy in ((9, 9), (50, 33))
    ]
    features = sam.embed(images)
    low, iou = sam.ask(features, ways, many=True)
    best = low[torch.arange(2), iou.argmax(dim=1)][:, None]
    expected = torch.nn.functional.interpolate(best, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(sam.decode(features, ways), expected, atol=1e-4, rtol=1e-4)
    single = [Prompts(one.points, one.labels) for one in ways]
    assert not torch.allclose(sam.decode(features, single), expected)


def test_multimask_changes_the_result_and_a_model_without_three_masks_refuses(
    scene_tif, tiny_sam_folder, tiny_weights, tmp_path, capfd
):
    model = load_model(ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))
    single, many = (probability(scene_tif, model, tmp_path, multimask=many) for many in (False, True))
    assert not np.array_equal(single, many)
    args = ("segment", scene_tif, "--multimask", "--out", tmp_path / "o.gpkg", "--model")
    assert run(*args, tiny_weights) == 2
    assert "one mask a body" in capfd.readouterr().err


def test_a_tile_without_a_body_is_dry_with_every_option(model, images):
    nothing = made_of([]).prompts(TILE, 0, DRY_GROUND)
    assert len(nothing) == 0
    assert (model.decode(model.embed(images[:1]), [nothing]) == DRY_LOGIT).all()
