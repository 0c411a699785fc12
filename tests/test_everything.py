"""Every thing as a segment: masks equal to transformers' own, seams that do not show, files that say of what."""

import json
import tracemalloc
from dataclasses import dataclass, field
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin
from scipy import ndimage

import geosam
from geosam.cli import main
from geosam.errors import ModelError, OptionsError, OutputError
from geosam.models import load_model
from geosam.models.clicks import _asked_by, clicks_of
from geosam.models.points import PointDecoder
from geosam.options import EverythingOptions, ModelOptions, SegmentOptions, VectorOptions
from geosam.segments import everything
from geosam.segments.cells import extent
from geosam.segments.generate import Generator
from geosam.segments.grid import grid, views
from geosam.segments.joining import Joiner, Piece, is_whole
from geosam.segments.masks import candidates
from geosam.segments.outlines import outlines
from geosam.segments.runs import Runs, iou, union
from geosam.vector import Strip, polygonize
from geosam.vector.ground import ground_of
from geosam.vector.ordered import crew


def run(*args):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    return stop.value.code


# Runs -----------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 18), st.integers(1, 18))
@settings(max_examples=40, deadline=None)
def test_runs_do_what_arrays_do(seed, height, width):
    rng = np.random.default_rng(seed)
    one, other = (rng.random((height, width)) < rng.random() for _ in range(2))
    a, b = Runs.of(one, 5, 7), Runs.of(other, 5, 7)
    box = (7, 5, 7 + width, 5 + height)
    assert (a.mask(box) == one).all()
    assert a.area == one.sum()
    assert a.overlap(b) == b.overlap(a) == (one & other).sum()
    assert (union([a, b]).mask(box) == (one | other)).all()
    assert union([a, b]).area == (one | other).sum()
    assert len([part for part in a.parts() if part.area]) == ndimage.label(one)[1]
    assert (union(a.parts()).mask(box) == one).all()
    inner = (9, 6, 14, 11)
    window = np.zeros((height + 30, width + 30), bool)
    window[5 : 5 + height, 7 : 7 + width] = one
    assert (a.cut(inner).mask(inner) == window[6:11, 9:14]).all()


def test_outlines_are_those_of_polygonize_though_masks_overlap():
    rng = np.random.default_rng(0)
    geobox = GeoBox((90, 120), Affine(2, 0, 450_000, 0, -2, 5_300_000), "EPSG:32610")
    dense = []
    for _ in range(20):
        (row, col), (height, width) = rng.integers(0, 60, 2), rng.integers(1, 30, 2)
        mask = np.zeros((90, 120), bool)
        mask[row : row + height, col : col + width] = rng.random((height, width)) < 0.7
        mask[row, col] = True
        dense.append(mask)
    with crew(1) as hands:
        drawn = outlines([Runs.of(mask) for mask in dense], ground_of(geobox), hands)
    for mask, shape, area, perimeter in zip(dense, drawn.shapes, drawn.area_m2, drawn.perimeter_m, strict=True):
        truth = polygonize([Strip(0, mask, None)], geobox, VectorOptions())
        assert area == pytest.approx(truth.area_m2.sum(), abs=1e-4)
        assert perimeter == pytest.approx(truth.perimeter_m.sum(), abs=1e-4)
        assert shape.equals(truth.union_all())


# Joining across tiles -------------------------------------------------------------------------------------------------


def cut_into_pieces(things, tiles, shape):
    """What a perfect model would find: every component of every thing, tile by tile."""
    rows = {}
    for box in tiles:
        left, top, right, bottom = box
        pieces = [
            Piece(part, 0.9, 0.95, 0.9, box, is_whole(part, box, shape))
            for thing in things
            for part in Runs.of(thing[top:bottom, left:right], top, left).parts()
            if part.area
        ]
        rows.setdefault(top, []).append((box, pieces))
    return [rows[top] for top in sorted(rows)]


def joined(rows, shape):
    joiner = Joiner(shape, 0.5)
    found = [segment for row in rows for segment in joiner.row(row)]
    return [*found, *joiner.finish()]


def tiles_of(shape, tile, overlap):
    plan = geosam.tiling.plan_tiles(shape, tile, overlap)
    return [
        (int(t.window.col_off), int(t.window.row_off), int(t.window.col_off) + tile, int(t.window.row_off) + tile)
        for t in plan.tiles
    ]


@given(st.integers(0, 10_000), st.integers(8, 24))
@settings(max_examples=25, deadline=None)
def test_a_perfect_model_gives_the_same_segments_by_tiles_as_in_one_look(seed, overlap):
    """Blobs of any size and shape, some larger than a tile, that leave tiles and come back."""
    shape, tile = (120, 150), 48
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    labels, count = ndimage.label(noise > np.quantile(noise, 0.6))
    things = [labels == n for n in range(1, count + 1) if (labels == n).sum() > 12]
    found = joined(cut_into_pieces(things, tiles_of(shape, tile, overlap), shape), shape)
    box = (0, 0, shape[1], shape[0])
    seen = sorted(segment.runs.mask(box).tobytes() for segment in found)
    assert seen == sorted(thing.tobytes() for thing in things)


def test_an_arm_that_leaves_a_tile_and_comes_back_is_one_segment():
    shape = (60, 100)
    bend = np.zeros(shape, bool)
    bend[10:16, :70], bend[40:46, :70], bend[10:46, 64:70] = True, True, True
    found = joined(cut_into_pieces([bend], [(0, 0, 60, 60), (40, 0, 100, 60)], shape), shape)
    assert len(found) == 1
    assert (found[0].runs.mask((0, 0, 100, 60)) == bend).all()
    assert found[0].tiles == 2


def test_a_whole_and_its_part_that_look_alike_in_the_overlap_stay_two():
    shape, left, right = (40, 100), (0, 0, 60, 40), (40, 0, 100, 40)
    whole, part = np.zeros(shape, bool), np.zeros(shape, bool)
    whole[10:20, 5:95], part[10:20, 30:95] = True, True
    found = joined(cut_into_pieces([whole, part], [left, right], shape), shape)
    assert sorted(segment.runs.area for segment in found) == sorted([int(whole.sum()), int(part.sum())])


def test_a_thing_that_two_tiles_draw_differently_is_the_better_drawing():
    shape, left, right = (40, 100), (0, 0, 60, 40), (40, 0, 100, 40)
    one, other = np.zeros(shape, bool), np.zeros(shape, bool)
    one[10:20, 45:55], other[10:21, 45:56] = True, True
    rows = [[
        (left, [Piece(Runs.of(one), 0.90, 0.95, 0.9, left, True)]),
        (right, [Piece(Runs.of(other), 0.97, 0.95, 0.9, right, True)]),
    ]]  # fmt: skip
    (found,) = joined(rows, shape)
    assert iou(found.runs, Runs.of(other)) == 1
    assert found.predicted_iou == 0.97


def test_segments_are_handed_on_as_soon_as_no_row_can_reach_them():
    """Memory is that of two tile rows: what lies above them has left."""
    shape, tile = (48 * 40, 48), 48
    things = []
    for top in range(4, shape[0] - 12, 24):
        thing = np.zeros(shape, bool)
        thing[top : top + 10, 10:30] = True
        things.append(thing)
    joiner, most = Joiner(shape, 0.5), 0
    for row in cut_into_pieces(things, tiles_of(shape, tile, 12), shape):
        list(joiner.row(row))
        most = max(most, len(joiner._pieces))
    assert most <= 8
    assert len(things) > 60


def test_memory_does_not_grow_with_the_height_of_the_scene(tmp_path):
    peaks = []
    for height in (496, 2032):
        red = np.zeros((height, 64), np.uint8)
        red[4:-4, 4:12] = 99  # A river as long as the scene, and fields beside it.
        for top in range(8, height - 24, 32):
            red[top : top + 16, 24:48] = 120
        path = tmp_path / f"{height}.tif"
        profile = {"driver": "GTiff", "height": height, "width": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:32610"}
        with rasterio.open(path, "w", transform=from_origin(450_000, 5_300_000, 2.0, 2.0), **profile) as out:
            out.write(np.stack([red, red // 2 + 20, red // 3 + 30]))
        tracemalloc.start()
        done = everything(path, tmp_path / f"{height}.gpkg", model=Oracle(64), options=NATIVE, points_per_side=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.segments == len(range(8, height - 24, 32)) + 2  # The river, and all that is around.
    assert peaks[1] < 1.5 * peaks[0]


# A model that knows the truth -----------------------------------------------------------------------------------------


@dataclass
class Oracle:
    """Answers a point by the connected things of one colour that it lies in, at a quarter of the resolution.

    The scene's red says which thing a pixel is of; 0 is none. Things lie on a grid of 4 px, so that nothing is lost.
    """

    tile_px: int = 64
    name: str = "oracle"
    sha256: str = "0" * 64
    step_px: int | None = None
    threshold: float = 0.5
    multimask: bool = False
    understands: frozenset[str] = frozenset({"points"})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def embed(self, images):
        return images

    def decode(self, embeddings, prompts):
        raise NotImplementedError

    def clicks(self, embeddings, points):
        seen = embeddings[0, 0, 2::4, 2::4].numpy()
        low = np.full((len(points), 1, *seen.shape), -40.0, np.float32)
        for n, (x, y) in enumerate(points):
            value = seen[min(int(y / 4), seen.shape[0] - 1), min(int(x / 4), seen.shape[1] - 1)]
            labels, _ = ndimage.label(seen == value)
            at = labels[min(int(y / 4), seen.shape[0] - 1), min(int(x / 4), seen.shape[1] - 1)]
            if value:
                low[n, 0][labels == at] = 40.0
        return torch.from_numpy(low), torch.full((len(points), 1), 0.9)


@pytest.fixture(scope="module")
def things_tif(tmp_path_factory):
    """160 x 208 px in UTM with things of 4 px blocks, some across several tiles of 64 px; their truth by colour."""
    coarse = np.zeros((40, 52), np.uint8)
    coarse[2:38, 20:24] = 100  # a river from top to bottom, through three tile rows
    coarse[14:18, 2:48] = 100  # and across: one thing, larger than any tile
    coarse[22:30, 30:38] = 150
    coarse[4:8, 28:33] = 200
    coarse[30:36, 4:12] = 250
    red = np.kron(coarse, np.ones((4, 4), np.uint8))
    rng = np.random.default_rng(0)
    bands = np.stack([red, rng.integers(20, 90, red.shape), rng.integers(20, 90, red.shape), red // 2 + 10])
    path = tmp_path_factory.mktemp("things") / "things.tif"
    profile = {"driver": "GTiff", "height": 160, "width": 208, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
    with rasterio.open(path, "w", transform=from_origin(450_000, 5_300_000, 2.0, 2.0), **profile) as out:
        out.write(bands.astype(np.uint8))
        out.descriptions = ("red", "green", "blue", "nir")
    return path


NATIVE = SegmentOptions.from_mapping({"scene": {"gsd": "native"}, "tiles": {"overlap_px": 16}})


@pytest.fixture(scope="module")
def made(things_tif, tmp_path_factory):
    """The segments of the scene by tiles, and in one look."""
    folder = tmp_path_factory.mktemp("made")
    for name, side in (("tiled", 64), ("whole", 208)):
        out = folder / f"{name}.gpkg"
        done = everything(things_tif, out, model=Oracle(side), options=NATIVE, points_per_side=side // 4)
        assert done.report["tiles"]["failed"] == 0, done.report["first_failure"]
    return folder


def table(path):
    return pyogrio.read_dataframe(path, layer="segments")


def test_a_run_by_tiles_gives_the_segments_of_one_look(made):
    tiled, whole = (table(made / f"{name}.gpkg").sort_values("area_m2") for name in ("tiled", "whole"))
    assert len(tiled) == len(whole) == 4
    for one, other in zip(tiled.itertuples(), whole.itertuples(), strict=True):
        assert one.geometry.equals(other.geometry)
        assert one.mean_nir == pytest.approx(other.mean_nir)
    assert tiled.tiles.max() > 4
    assert (whole.tiles == 1).all()


def test_qgis_finds_a_colour_for_every_segment(made):
    styles = pyogrio.read_dataframe(made / "tiled.gpkg", layer="layer_styles")
    assert styles["f_table_name"].tolist() == ["segments"]
    assert styles["useAsDefault"].all()
    renderer = ElementTree.fromstring(styles["styleQML"][0].split("\n", 1)[1]).find("renderer-v2")
    assert renderer.get("attr") == '"id" % 8'
    assert {one.get("value") for one in renderer.iter("category")} == {str(number) for number in range(8)}


def test_attributes_are_what_arrays_say(made, things_tif):
    found = table(made / "tiled.gpkg")
    with rasterio.open(things_tif) as scene:
        bands, transform = scene.read().astype(float), scene.transform
    red, green, blue, nir = bands
    for row in found.itertuples():
        inside = rasterio.features.geometry_mask([row.geometry], red.shape, transform, invert=True)
        assert row.area_m2 == pytest.approx(inside.sum() * 4, rel=2e-3)  # UTM's scale is not one.
        for name, band in (("red", red), ("green", green), ("blue", blue), ("nir", nir)):
            assert getattr(row, f"mean_{name}") == pytest.approx(band[inside].mean(), abs=1e-3)
        assert row.ndwi == pytest.approx(((green - nir) / (green + nir))[inside].mean(), abs=1e-3)
        assert (row.predicted_iou, row.stability, row.scene, row.model) == (0.9, 1.0, "things", "oracle")
    assert "exg" not in found.columns
    assert found.id.tolist() == [1, 2, 3, 4]
    assert found.geometry.is_valid.all()


def test_a_scene_without_infrared_has_an_index_of_colour(things_tif, tmp_path):
    options = SegmentOptions.from_mapping({"scene": {"gsd": "native", "bands": "red=1,green=2,blue=3"}})
    everything(things_tif, tmp_path / "s.gpkg", model=Oracle(208), options=options, points_per_side=26)
    found = table(tmp_path / "s.gpkg")
    assert "exg" in found.columns
    assert "ndwi" not in found.columns


def test_points_and_masks_keep_off_ground_without_data(things_tif, tmp_path):
    aoi = tmp_path / "aoi.geojson"
    east, north = 450_000 + 2 * np.array([0, 100]), 5_300_000 - 2 * np.array([0, 160])
    box = shapely.box(east[0], north[1], east[1], north[0])
    geosam.segments.making.gpd.GeoDataFrame(geometry=[box], crs="EPSG:32610").to_crs(4326).to_file(aoi)
    options = SegmentOptions.from_mapping({"scene": {"gsd": "native", "aoi": str(aoi)}})
    everything(things_tif, tmp_path / "s.gpkg", model=Oracle(64), options=options, points_per_side=16)
    assert table(tmp_path / "s.gpkg").union_all().within(box.buffer(2.1))


def test_crops_find_what_the_grid_of_the_tile_misses(tmp_path):
    """One thing of 8 px between the points of a coarse grid, found by the points of the zoomed crops."""
    image = np.zeros((3, 64, 64), np.uint8)
    image[0, 19:27, 19:27] = 200
    few = EverythingOptions(points_per_side=2, stability=0.5)
    assert Generator(Oracle(64), few).tile(image) == []
    found = Generator(Oracle(64), few.model_copy(update={"crops": 2})).tile(image)
    assert max(iou(one.runs, Runs.of(image[0] > 0)) for one in found) > 0.6


def test_views_cover_the_tile_and_crops_of_a_layer_are_of_one_size():
    for layers in (0, 1, 2):
        found = views(64, 96, layers)
        assert len(found) == sum(4**n for n in range(layers + 1))
        for layer in range(layers + 1):
            seen = np.zeros((64, 96), bool)
            for view in (one for one in found if one.layer == layer):
                seen[view.top : view.top + view.height, view.left : view.left + view.width] = True
            assert seen.all()
            assert len({(view.height, view.width) for view in found if view.layer == layer}) == 1


# The same masks as transformers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sam(tiny_sam_folder):
    model = load_model(ModelOptions(name=str(tiny_sam_folder), dtype="float32", device="cpu"))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.model.named_parameters():
        if name.endswith("bias"):  # As saved they are zero, and one left out would not show.
            weight.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture(scope="module")
def uneven(tiny_sam_folder):
    """A SAM of whose weights none is zero or one throughout, as it is saved: what is left out shows."""
    model = load_model(ModelOptions(name=str(tiny_sam_folder), dtype="float32", device="cpu"))
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.model.named_parameters():
        if name.endswith("bias") or "layer_norm" in name:
            weight.normal_(float(weight.mean()), 0.3 if name.endswith("bias") else 0.2, generator=generator)
    return model


@pytest.fixture(scope="module")
def tile():
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 64, 64)), (0, 5, 5))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def theirs(sam, image, limits, a_side):
    """Masks and scores of transformers' own pipeline."""
    from PIL import Image
    from transformers import SamImageProcessor, pipeline

    side = image.shape[1]
    processor = SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    found = pipeline("mask-generation", model=sam.model, image_processor=processor, device="cpu")(
        Image.fromarray(image.transpose(1, 2, 0)),
        points_per_crop=a_side,
        points_per_batch=7,
        pred_iou_thresh=limits.predicted_iou,
        stability_score_thresh=limits.stability,
        stability_score_offset=limits.stability_offset,
        crops_nms_thresh=limits.nms_iou,
    )
    return [np.asarray(mask) for mask in found["masks"]], np.asarray(found["scores"])


@pytest.mark.parametrize("nms_iou", [0.9, 1.0])
def test_masks_are_those_of_transformers_own_generator(sam, tile, nms_iou):
    _, predicted = clicks_of(sam)(sam.embed(torch.from_numpy(tile)[None]), grid(64, 8), 0.0)
    limit = float(predicted.quantile(0.4).clamp(0.001, 1))
    limits = EverythingOptions(
        points_per_side=8, points_per_batch=20, predicted_iou=limit, stability=0.5, stability_offset=0.2,
        nms_iou=nms_iou,
    )  # fmt: skip
    masks, scores = theirs(sam, tile, limits, 8)
    found = Generator(sam, limits).tile(tile)
    assert len(masks) > (20 if nms_iou == 1 else 1), "the settings let nothing pass, so that nothing is compared"
    assert len(found) == len(masks)
    for one, mask, score in zip(found, masks, scores, strict=True):
        assert one.predicted_iou == pytest.approx(float(score), abs=1e-5)
        assert (one.runs.mask((0, 0, 64, 64)) != mask).sum() <= 2
    assert nms_iou < 1 or len({mask.tobytes() for mask in masks}) > 10


def test_the_decoder_of_many_points_gives_what_transformers_decoder_gives(uneven, tile):
    """Masks of each point by itself, in float32 to rounding, in any number at once, and only those that pass."""
    sam = uneven
    embeddings, points = sam.embed(torch.from_numpy(tile)[None]), grid(64, 5)
    ours = clicks_of(sam)
    assert isinstance(ours, PointDecoder)
    logits, predicted = ours(embeddings, points, 0.0)
    wanted, expected = _asked_by(sam)(embeddings, points)
    assert torch.allclose(logits, wanted.flatten(0, 1), atol=1e-4)
    assert torch.allclose(predicted, expected.flatten(), atol=1e-5)
    assert wanted.std() > 0.1
    single, _ = ours(embeddings, points[7:8], 0.0)
    assert torch.allclose(single, logits[21:24], atol=1e-4)
    ordered = expected[expected > 0].sort().values
    middle = len(ordered) // 3 + int(ordered.diff()[len(ordered) // 3 : -2].argmax())
    least = float(ordered[middle : middle + 2].mean())  # In a gap, so that rounding does not decide.
    some, scores = ours(embeddings, points, least)
    assert torch.allclose(some, wanted[expected > least], atol=1e-4)
    assert 0 < len(scores) < expected.numel()
    other = sam.embed(torch.from_numpy(tile[:, ::-1].copy())[None])
    assert not torch.allclose(ours(other, points, 0.0)[0], logits, atol=1e-2)


@pytest.mark.parametrize(("together", "tokens"), [(0, 0), (4, 4), (1, 8)])
def test_points_and_rows_worked_on_at_once_do_not_matter(together, tokens, uneven, tile, monkeypatch):
    """As on other devices, and on tiles that are larger than a cache."""
    sam = uneven
    embeddings, points = sam.embed(torch.from_numpy(tile)[None]), grid(64, 3)
    monkeypatch.setattr("geosam.models.points.TOGETHER", {"cpu": together})
    monkeypatch.setattr("geosam.models.points.TOKENS", {"cpu": tokens})
    logits, predicted = PointDecoder(sam)(embeddings, points, 0.0)
    wanted, expected = _asked_by(sam)(embeddings, points)
    assert torch.allclose(logits, wanted.flatten(0, 1), atol=1e-4)
    assert torch.allclose(predicted, expected.flatten(), atol=1e-5)
    best = expected.amax(dim=1).sort().values  # Some points have no mask that passes.
    middle = 2 + int(best.diff()[2:-2].argmax())
    least = float(best[middle : middle + 2].mean().clamp(min=1e-3))
    some, _ = PointDecoder(sam)(embeddings, points, least)
    assert 0 < len(some) < len(wanted.flatten(0, 1))
    assert torch.allclose(some, wanted[expected > least], atol=1e-4)


@pytest.mark.parametrize("ragged", [True, False])
def test_ragged_masks_are_measured_as_smooth_ones_are(ragged, monkeypatch):
    """All of a ragged mask is enlarged, of a smooth one only the outline: with the same result."""
    rows, cols = np.mgrid[:64, :64]
    noise, disc = np.random.default_rng(1).normal(size=(64, 64)), 20 - np.hypot(rows - 30, cols - 25)
    low = (20 * noise if ragged else 2 * disc).astype(np.float32)
    assert (extent(low, (0, 0), 4, 0.2) is None) == ragged
    logits, view = torch.from_numpy(low)[None], views(256, 256, 0)[0]
    found = []
    for share in (0, 1):
        monkeypatch.setattr("geosam.segments.masks.extent", partial(extent, ragged=share))
        limits = EverythingOptions(stability=0.01, stability_offset=0.2)
        (one,) = candidates(logits, torch.ones(1), view, (256, 256), limits)
        found.append(one)
    assert found[0].box == found[1].box
    assert found[0].stability == pytest.approx(found[1].stability, abs=1e-4)
    assert 0.1 < found[0].stability < 1
    monkeypatch.undo()
    for more, passes in ((-1e-3, 1), (1e-3, 0)):
        strict = limits.model_copy(update={"stability": found[0].stability + more})
        assert len(list(candidates(logits, torch.ones(1), view, (256, 256), strict))) == passes


@given(st.integers(0, 10_000), st.sampled_from([2, 4]), st.integers(1, 9), st.integers(1, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_areas_and_boxes_are_those_of_the_enlarged_mask(seed, times, height, width, inner):
    """At the picture's edges, and of a window whose rim is nowhere above the lower level."""
    rng = np.random.default_rng(seed)
    low = (rng.normal(size=(height, width)) * rng.choice([0.3, 1, 4])).astype(np.float32)
    low = np.pad(low, 2, constant_values=-9.0) if inner else low
    full = torch.nn.functional.interpolate(torch.from_numpy(low)[None, None], scale_factor=times, mode="bilinear")[0, 0]
    found = extent(low, (3, 5), times, 0.5, ragged=1)
    near = int((full.abs() - 0.5).abs().lt(1e-5).sum())  # Rounding decides of those.
    assert abs(found.inner - int((full > 0.5).sum())) <= near
    assert abs(found.outer - int((full > -0.5).sum())) <= near
    rows, cols = np.nonzero((full > 0).numpy())
    if not len(rows):
        assert found.box is None
        return
    ends = np.array([cols.min() + 5 * times, rows.min() + 3 * times, cols.max() + 5 * times, rows.max() + 3 * times])
    assert found.box == tuple(ends)


def test_bfloat16_gives_nearly_the_same_masks(tiny_sam_folder, tile):
    low = load_model(ModelOptions(name=str(tiny_sam_folder), dtype="bfloat16", device="cpu"))
    full = load_model(ModelOptions(name=str(tiny_sam_folder), dtype="float32", device="cpu"))
    found = [clicks_of(sam)(sam.embed(torch.from_numpy(tile)[None]), grid(64, 4), 0.0)[0] > 0 for sam in (low, full)]
    assert float((found[0] & found[1]).sum() / (found[0] | found[1]).sum()) > 0.95


def test_a_model_that_finds_all_water_at_once_gives_the_bodies_that_points_lie_in():
    water = torch.full((64, 64), -8.0)
    water[8:24, 4:60], water[40:56, 30:50] = 8.0, 6.0
    water[60:62, 2:4] = 7.0  # Between the points.

    @dataclass
    class River(Oracle):
        understands: frozenset[str] = frozenset({"points", "none"})
        clicks: None = None

        def decode(self, embeddings, prompts):
            assert len(prompts) == 1
            assert prompts[0].points.shape == (1, 0, 2)
            return water[None]

    found = Generator(River(64), EverythingOptions(points_per_side=6)).tile(np.zeros((3, 64, 64), np.uint8))
    assert sorted(one.runs.area for one in found) == [16 * 20, 16 * 56]
    assert found[0].predicted_iou == pytest.approx(1 / (1 + np.exp(-8)))


def test_river_tiny_and_its_kin_answer_points_too(tiny_weights, things_tif, tmp_path):
    done = everything(
        things_tif, tmp_path / "s.gpkg", model=str(tiny_weights), options=NATIVE, points_per_side=2, crops=1
    )
    assert done.report["tiles"]["failed"] == 0, done.report["first_failure"]


# Refusals -------------------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_understand_points_is_refused(things_tif, tmp_path):
    blind = Oracle(64, understands=frozenset({"boxes", "none"}))
    with pytest.raises(ModelError, match="does not understand points"):
        everything(things_tif, tmp_path / "s.gpkg", model=blind)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_refused_and_another_format_too(things_tif, tmp_path):
    (tmp_path / "s.gpkg").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        everything(things_tif, tmp_path / "s.gpkg", model=Oracle(64))
    with pytest.raises(OptionsError, match="GeoPackage"):
        everything(things_tif, tmp_path / "s.geojson", model=Oracle(64))
    with pytest.raises(OptionsError, match="points_per_side"):
        everything(things_tif, tmp_path / "t.gpkg", model=Oracle(64), points_per_side=0)
    assert [path.name for path in tmp_path.iterdir()] == ["s.gpkg"]
    assert (tmp_path / "s.gpkg").read_text() == "precious"


def test_a_run_that_fails_everywhere_leaves_nothing(things_tif, tmp_path):
    broken = Oracle(64)
    broken.clicks = lambda embeddings, points: 1 / 0
    with pytest.raises(geosam.errors.RunError, match="division"):
        everything(things_tif, tmp_path / "s.gpkg", model=broken)
    assert list(tmp_path.iterdir()) == []


@dataclass
class Watched(Oracle):
    """An oracle that counts what it looks at, and is broken off at a look."""

    looks: int = 0
    last: int = 1_000

    def embed(self, images):
        if self.looks == self.last:
            raise KeyboardInterrupt
        self.looks += 1
        return images


@pytest.mark.parametrize("last", [1, 5, 8])
def test_a_run_that_was_broken_off_goes_on_to_the_same_bytes(last, things_tif, tmp_path):
    whole, out = tmp_path / "whole.gpkg", tmp_path / "s.gpkg"
    every, rest = Watched(64), Watched(64)
    everything(things_tif, whole, model=every, options=NATIVE, points_per_side=16)
    with pytest.raises(KeyboardInterrupt):
        everything(things_tif, out, model=Watched(64, last=last), options=NATIVE, points_per_side=16)
    assert not out.exists()
    done = everything(things_tif, out, model=rest, options=NATIVE, points_per_side=16, resume=True)
    assert rest.looks == every.looks - last > 0
    assert done.report["tiles"]["run"] == every.looks
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.gpkg", "whole.gpkg"]


def test_tiles_of_another_run_are_not_taken_and_a_new_start_throws_them_away(things_tif, tmp_path):
    out, model = tmp_path / "s.gpkg", Watched(64)
    with pytest.raises(KeyboardInterrupt):
        everything(things_tif, out, model=Watched(64, last=5), options=NATIVE, points_per_side=16)
    with pytest.raises(OutputError, match=r"begun with another set of limits.*leave out --resume"):
        everything(things_tif, out, model=model, options=NATIVE, points_per_side=8, resume=True)
    everything(things_tif, out, model=model, options=NATIVE, points_per_side=8)
    assert model.looks > 8
    assert [path.name for path in tmp_path.iterdir()] == ["s.gpkg"]


def test_a_tile_that_failed_is_tried_again(things_tif, tmp_path):
    out, good, bad = tmp_path / "s.gpkg", Watched(64), Watched(64, last=7)
    tries = []

    def clicks(embeddings, points):
        tries.append(1)
        return 1 / 0 if len(tries) == 3 else good.clicks(embeddings, points)

    bad.clicks = clicks
    with pytest.raises(KeyboardInterrupt):
        everything(things_tif, out, model=bad, options=NATIVE, points_per_side=16, points_per_batch=999)
    done = everything(
        things_tif, out, model=good, options=NATIVE, points_per_side=16, points_per_batch=999, resume=True
    )
    assert done.report["tiles"]["failed"] == 0
    assert good.looks == done.report["tiles"]["run"] - 6


def test_nothing_found_is_an_empty_layer_and_exit_0(things_tif, tiny_weights, tmp_path, capsys):
    out = tmp_path / "s.gpkg"
    args = ("everything", things_tif, "--out", out, "--model", tiny_weights, "--points-per-side", 2)
    assert run(*args, "--predicted-iou", 1, "--report", tmp_path / "r.json") == 0
    assert "nothing passed" in capsys.readouterr().out
    assert len(table(out)) == 0
    assert json.loads((tmp_path / "r.json").read_text())["segments"] == 0
    assert run(*args) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(*args, "--overwrite", "--resume", "--predicted-iou", 1) == 0
