"""Tiles through a model: what runs, what is read, what happens when things go wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from scipy import ndimage

from geosam.errors import ModelError, OutputError, RunError
from geosam.mosaic import Mosaic
from geosam.options import SegmentOptions
from geosam.predict import TileReport, batch_size, hint, run, signature, unprompted
from geosam.predict.blending import Blender, DeviceCell, Laid
from geosam.predict.flight import Sent, sent
from geosam.prompts import Prompts
from geosam.tiling import plan_tiles

PX = 32


def cut(array: np.ndarray, window: Window) -> np.ndarray:
    """A window that may hang over; what is outside is 0 or False."""
    top, left, size = int(window.row_off), int(window.col_off), (int(window.height), int(window.width))
    out = np.zeros(size + array.shape[2:], array.dtype)
    piece = array[top : top + size[0], left : left + size[1]]
    out[: piece.shape[0], : piece.shape[1]] = piece
    return out


class FakeScene:
    """A scene out of an array; checks that it is asked only for whole tiles inside its grid."""

    def __init__(self, rgb: np.ndarray, valid: np.ndarray | None = None, faulty: tuple[tuple[int, int], ...] = ()):
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        self.rgb, self.shape, self.source, self.stretch = rgb, rgb.shape[:2], "fake.tif", None
        self.valid = np.ones(self.shape, bool) if valid is None else valid
        self.faulty = faulty
        self.reads: Counter[tuple[int, int]] = Counter()
        self.threads: set[str] = set()
        self.geobox = GeoBox(self.shape, rasterio.Affine(1, 0, 500_000, 0, -1, 5_300_000), "EPSG:32610")

    def read_rgb(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        assert (window.width, window.height) == (PX, PX)
        assert 0 <= window.row_off < self.shape[0]
        assert 0 <= window.col_off < self.shape[1]
        at = int(window.row_off), int(window.col_off)
        self.reads[at] += 1
        self.threads.add(threading.current_thread().name)
        if at in self.faulty:
            raise OSError("block cannot be read")
        time.sleep(np.random.default_rng().random() * 0.001)  # readers finish in any order
        valid = cut(self.valid, window)
        return np.where(valid[..., None], cut(self.rgb, window), 0), valid


class FakeCoarse:
    """A coarse mask out of arrays."""

    def __init__(self, water: np.ndarray, valid: np.ndarray | None = None):
        self.water, self.valid = water, np.ones(water.shape, bool) if valid is None else valid

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        return cut(self.water, window), cut(self.valid, window)


class Brightness:
    """A pointwise model: the red value is the probability. Checks what it is given."""

    name, tile_px, sha256, device, dtype = "brightness", PX, "0" * 64, torch.device("cpu"), torch.float32
    threshold = 0.5

    def __init__(self, understands: frozenset[str] = frozenset({"points", "none"}), most: int = 10**9):
        self.understands, self.most = understands, most
        self.batches: list[int] = []
        self.prompts: list[Prompts] = []

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, PX, PX)
        assert torch.is_inference_mode_enabled()
        if len(images) > self.most:
            raise torch.OutOfMemoryError(f"no room for {len(images)}")
        return images

    def decode(self, embeddings: torch.Tensor, prompts: list[Prompts]) -> torch.Tensor:
        assert len(embeddings) == len(prompts)
        assert all(len(one.points) > 0 for one in prompts)
        self.batches.append(len(prompts))
        self.prompts += prompts
        return torch.logit(embeddings[:, 0].float() / 256)


def options(batch: int = 4, which: str = "water", **kwargs: Any) -> SegmentOptions:
    return SegmentOptions.model_validate({"model": {"batch_size": batch}, "tiles": {"which": which}, **kwargs})


def random_scene(shape: tuple[int, int] = (150, 200), **kwargs: Any) -> FakeScene:
    return FakeScene(np.random.default_rng(0).integers(1, 256, (*shape, 3), np.uint8), **kwargs)


def ran(
    folder: Path, scene: FakeScene, water: np.ndarray, model: Any = None, opts: SegmentOptions | None = None, **kw: Any
) -> tuple[np.ndarray, TileReport]:
    plan = plan_tiles(scene.shape, PX, 8)
    folder.mkdir(exist_ok=True)
    mosaic = Mosaic.open(folder / "out.work", plan, scene.geobox, resume=kw.pop("resume", False))
    coarse = kw.pop("coarse", None) or FakeCoarse(water, scene.valid)
    report = run(scene, coarse, plan, model or Brightness(), opts or options(), mosaic, **kw)
    return mosaic.read(Window(0, 0, scene.shape[1], scene.shape[0])), report


def everywhere(scene: FakeScene) -> np.ndarray:
    return np.ones(scene.shape, bool)


@pytest.mark.parametrize("shape", [(150, 200), (32, 32), (33, 90), (7, 50), (1, 1)])
def test_tiles_of_a_pointwise_model_give_the_whole(tmp_path, shape):
    """Cut, read, batched, computed and blended, every pixel is what the model makes of it alone."""
    scene = random_scene(shape)
    result, report = ran(tmp_path, scene, everywhere(scene))
    np.testing.assert_allclose(result, scene.rgb[..., 0] / 256, atol=0.5 / 256 + 1e-6)
    assert report.run == report.total == len(plan_tiles(shape, PX, 8))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_result_does_not_depend_on_the_batch_size(tmp_path, batch):
    scene = random_scene()
    expected, _ = ran(tmp_path, scene, everywhere(scene))
    result, _ = ran(tmp_path, scene, everywhere(scene), opts=options(batch))
    np.testing.assert_array_equal(result, expected)


def test_batches_are_full_but_never_span_tile_rows(tmp_path):
    scene, model = random_scene((56, 32 + 24 * 5)), Brightness()  # 2 rows of 6
    ran(tmp_path, scene, everywhere(scene), model)
    assert model.batches == [4, 2, 4, 2]


def test_dry_tiles_are_neither_read_nor_run_and_nodata_stays_nodata(tmp_path):
    scene = random_scene((200, 300))
    scene.valid[:, 200:] = False
    water = np.zeros(scene.shape, bool)
    water[100:104, 50:54] = True
    result, report = ran(tmp_path, scene, water)
    tiles = plan_tiles(scene.shape, PX, 8).tiles
    wet = {
        (int(tile.window.row_off), int(tile.window.col_off)) for tile in tiles if water[tile.window.toslices()].any()
    }
    assert set(scene.reads) == wet
    assert set(scene.reads.values()) == {1}
    empty = sum(not scene.valid[tile.window.toslices()].any() for tile in tiles)
    assert (report.run, report.nodata, report.dry) == (len(wet), empty, len(tiles) - len(wet) - empty)
    np.testing.assert_array_equal(np.isnan(result), ~scene.valid)
    np.testing.assert_allclose(result[100:104, 50:54], scene.rgb[100:104, 50:54, 0] / 256, atol=0.5 / 256 + 1e-6)
    assert (result[:50, :200] == 0).all()


@pytest.mark.parametrize("views", [2, 8])
def test_views_of_a_pointwise_model_give_what_one_gives_and_cost_as_many_runs(tmp_path, views):
    scene, model = random_scene((60, 70)), Brightness()
    result, report = ran(tmp_path, scene, everywhere(scene), model, options(model={"views": views, "batch_size": 4}))
    np.testing.assert_allclose(result, scene.rgb[..., 0] / 256, atol=0.5 / 256 + 1e-6)
    assert sum(model.batches) == views * report.run


class Trimmed(Brightness):
    """Takes smaller tiles too, by steps of 8 px."""

    step_px = 8

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (3, 16, PX)
        return images


def test_a_scene_smaller_than_a_tile_is_run_without_its_mirror_images(tmp_path):
    scene = random_scene((13, 200))
    result, report = ran(tmp_path, scene, everywhere(scene), Trimmed())
    assert report.failed == 0
    np.testing.assert_allclose(result, scene.rgb[..., 0] / 256, atol=0.5 / 256 + 1e-6)


def test_all_tiles_run_when_asked_and_nodata_tiles_still_do_not(tmp_path):
    scene = random_scene((100, 200))
    scene.valid[:, 100:] = False
    model = Brightness()
    result, report = ran(tmp_path, scene, np.zeros(scene.shape, bool), model, options(which="all"))
    assert report.dry == 0
    assert report.nodata > 0
    assert report.run == len(model.prompts) == report.total - report.nodata
    assert all(one.points.shape == (1, 0, 2) for one in model.prompts)
    np.testing.assert_array_equal(np.isnan(result), ~scene.valid)
    np.testing.assert_allclose(result[:, :100], scene.rgb[:, :100, 0] / 256, atol=0.5 / 256 + 1e-6)


def test_a_model_that_needs_prompts_is_not_run_without(tmp_path):
    scene, model = random_scene((60, 60)), Brightness(frozenset({"points"}))
    result, report = ran(tmp_path, scene, np.zeros(scene.shape, bool), model, options(which="all"))
    assert (report.dry, report.run) == (report.total, 0)
    assert (result == 0).all()


def test_pixels_without_data_are_given_the_mean_colour_and_the_overhang_mirrors(tmp_path):
    scene = FakeScene(np.full((20, 40, 3), 90, np.uint8))
    scene.rgb[:, :10], scene.valid[:, 10:20] = 30, False

    class Keeps(Brightness):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            self.image = images[0]
            return super().embed(images)

    model = Keeps()
    ran(tmp_path, scene, everywhere(scene), model, options(batch=1))
    np.testing.assert_array_equal(model.image[:, 20:], model.image.flip(1)[:, 12:24])
    assert set(model.image[0, :20].unique().tolist()) == {30, 90, 85}  # (2 x 30 + 20 x 90) / 22 columns


def test_images_are_read_by_other_threads_ahead_of_computing(tmp_path):
    scene, ahead = random_scene(), []

    class Watches(Brightness):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            ahead.append(len(scene.reads) - sum(self.batches) - len(images))
            return super().embed(images)

    ran(tmp_path, scene, everywhere(scene), Watches())
    assert threading.current_thread().name not in scene.threads
    assert max(ahead) >= 4
    assert max(ahead) <= 2 * 4 + 1


def test_prompts_are_seeded_by_the_tile_not_by_the_order(tmp_path):
    drawn: dict[int, list[Any]] = {}

    def sampler(key: int) -> Any:
        def sample(water: np.ndarray, valid: np.ndarray, rng: np.random.Generator) -> Prompts:
            assert water.shape == valid.shape == (PX, PX)
            drawn.setdefault(key, []).append(rng.random())
            return Prompts(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.int64))

        return sample

    scene = random_scene()
    for key, opts in enumerate((options(), options(batch=1), options(seed=1))):
        ran(tmp_path, scene, everywhere(scene), opts=opts, sampler=sampler(key))
    assert sorted(drawn[0]) == sorted(drawn[1])
    assert len(set(drawn[0])) == len(drawn[0])
    assert not set(drawn[0]) & set(drawn[2])


def test_running_out_of_memory_halves_the_batch_and_goes_on(tmp_path):
    scene, model = random_scene(), Brightness(most=2)
    expected, _ = ran(tmp_path, scene, everywhere(scene))
    result, report = ran(tmp_path, scene, everywhere(scene), model, options(batch=8))
    np.testing.assert_array_equal(result, expected)
    assert report.failed == 0
    assert report.batch_size == 2
    assert max(model.batches) == 2


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory"), MemoryError()]
)
def test_a_tile_too_large_for_memory_even_alone_fails(tmp_path, error):
    class Full(Brightness):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            self.batches.append(len(images))
            raise error

    scene, model = random_scene((32, 80)), Full()
    result, report = ran(tmp_path, scene, everywhere(scene), model)
    assert (report.failed, report.run, report.batch_size) == (3, 0, 1)
    assert model.batches == [3, 1, 1, 1]
    assert np.isnan(result).all()


class Spoils(Brightness):
    """Fails whenever a tile that begins with a marked pixel is in the batch."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        if (images[:, 0, 12, 12] == 0).any():
            raise ValueError("bad\ntile")
        return super().embed(images)


class Undefined(Brightness):
    """Gives NaN on a marked tile."""

    def decode(self, embeddings: torch.Tensor, prompts: list[Prompts]) -> torch.Tensor:
        logits = super().decode(embeddings, prompts)
        logits[embeddings[:, 0, 12, 12] == 0] = torch.nan
        return logits


@pytest.mark.parametrize(("model", "word"), [(Spoils(), "bad tile"), (Undefined(), "NaN"), (None, "block cannot")])
def test_a_tile_that_fails_is_nodata_and_counted_and_spares_its_batch(tmp_path, model, word):
    scene = random_scene((32 + 48, 32 + 72), faulty=() if model else ((24, 24),))
    scene.rgb[24 + 12, 24 + 12] = 0
    result, report = ran(tmp_path, scene, everywhere(scene), model)
    assert (report.failed, report.run) == (1, report.total - 1)
    assert len(report.failures) == 1
    assert report.failures[0].startswith("tile row 1, column 1: ")
    assert word in report.failures[0]
    lost = np.zeros(scene.shape, bool)
    lost[32:48, 32:48] = True  # what no other tile covers
    np.testing.assert_array_equal(np.isnan(result), lost)
    np.testing.assert_allclose(result[~lost], scene.rgb[~lost, 0] / 256, atol=0.5 / 256 + 1e-6)


# A device that works ahead, with the CPU in its place -----------------------------------------------------------------


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr("geosam.predict.batching.works_ahead", lambda device: True)


@pytest.mark.parametrize("model", [Brightness, Spoils, Undefined, lambda: Brightness(most=2)])
@pytest.mark.parametrize("which", ["water", "all"])
@pytest.mark.parametrize("shape", [(150, 200), (7, 50)])
def test_tiles_blended_on_a_device_give_what_the_host_gives_to_half_a_step(tmp_path, request, model, which, shape):
    scene = random_scene(shape, valid=np.arange(shape[1])[None].repeat(shape[0], 0) > shape[1] // 3)
    scene.rgb[12::24, 12::24][:2] = 0
    water = np.random.default_rng(1).random((5, 7)).repeat(30, 0).repeat(30, 1)[: shape[0], : shape[1]] > 0.8
    known = np.arange(shape[0])[:, None].repeat(shape[1], 1) < 140  # Below, dry ground is not known to be dry.
    coarse = FakeCoarse(water, known)
    expected, told = ran(tmp_path / "host", scene, water, model(), options(which=which), coarse=coarse)
    assert told.run
    assert told.dry or which == "all" or shape[0] < 150
    request.getfixturevalue("ahead")
    result, report = ran(tmp_path / "device", scene, water, model(), options(which=which), coarse=coarse)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    assert np.nanmax(np.abs(result - expected)) <= 0.5 / 254 + 1 / 256 + 1e-6
    assert np.nanmean(np.abs(result - expected)) < 0.5 / 256
    assert replace(report, seconds={}) == replace(told, seconds={})


def test_the_next_batch_is_given_to_the_device_before_the_host_waits_for_the_last(tmp_path, ahead, monkeypatch):
    scene, model = random_scene((32 + 24 * 3, 32 + 24 * 3)), Brightness()  # 4 rows of 4 tiles: 4 batches
    log, landed, embed = [], Sent.landed, model.embed
    monkeypatch.setattr(
        Sent, "landed", lambda self: (log.append("landed") if len(self.value) == 4 else 0, landed(self))[1]
    )
    monkeypatch.setattr(Mosaic, "finish_row", spied(Mosaic.finish_row, log, "row"))
    model.embed = lambda images: (log.append("embed"), embed(images))[1]
    ran(tmp_path, scene, everywhere(scene), model)
    assert " ".join(log) == "embed embed landed row embed landed row embed landed row landed row"


def spied(method: Any, log: list[str], word: str) -> Any:
    """The method, which notes that it is called."""
    return lambda *args: (log.append(word), method(*args))[1]


def test_a_batch_for_which_the_device_has_no_room_to_blend_has_not_voted(tmp_path, ahead, monkeypatch):
    scene, reserve, calls = random_scene(), Mosaic.reserve, iter(range(1000))
    expected, _ = ran(tmp_path / "room", scene, everywhere(scene))

    def narrow(self: Mosaic, tile: Any) -> None:
        if next(calls) == 2:
            raise torch.OutOfMemoryError("no room")
        reserve(self, tile)

    monkeypatch.setattr(Mosaic, "reserve", narrow)
    result, report = ran(tmp_path / "narrow", scene, everywhere(scene))
    assert (report.batch_size, report.failed) == (2, 0)
    np.testing.assert_array_equal(result, expected)


def test_what_leaves_a_device_is_the_nearest_of_254_steps_and_a_byte_for_nothing(tmp_path):
    plan = plan_tiles((16, 32), 16, 0)
    mosaic = Mosaic.open(tmp_path / "work", plan, GeoBox((16, 32), rasterio.Affine.identity(), None))
    blender = Blender(mosaic, torch.device("cpu"))
    probability = torch.linspace(0, 1, 512).view(2, 16, 16)
    has_data = np.ones((2, 16, 16), bool)
    has_data[:, -1] = False
    laid = blender.lay(plan.tiles, probability.logit(), list(has_data))
    assert isinstance(laid, Laid)
    cells = list(mosaic._cells.values())
    assert all(isinstance(cell, DeviceCell) and cell._bytes().dtype == torch.uint8 for cell in cells)
    for tile in plan.tiles:
        mosaic.report(tile)
    mosaic.finish_row(0)
    blender.close()
    found = mosaic.read(Window(0, 0, 32, 16))
    assert np.isnan(found[-1]).all()
    expected = np.concatenate(list(probability.numpy()), axis=1)[:-1]
    np.testing.assert_allclose(found[:-1], expected, atol=0.5 / 254 + 0.5 / 256 + 1e-6)
    assert found[:-1].max() == np.rint(256 * np.rint(254 * expected.max()) / 254) / 256


def test_what_is_sent_arrives():
    assert torch.equal(sent(torch.arange(3)).landed(), torch.arange(3))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_an_index_is_sure_from_the_third_pixel_on(share):
    rng = np.random.default_rng(5)
    water, known = rng.random((40, 60)) < share, rng.random((40, 60)) < 0.8
    inside, outside = (
        ndimage.distance_transform_cdt(np.pad(one, 3, "symmetric"), "chessboard") for one in (water, ~water)
    )
    depth = np.minimum(inside + outside, 3)[3:-3, 3:-3] if 0 < share < 1 else np.full(water.shape, 3)
    expected = np.where(known, np.where(water, 1, -1) * 5.0 * (0.4 + 0.2 * depth), 0)
    found = hint.log_odds(torch.from_numpy(water), torch.from_numpy(known), 5.0).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_coarse_mask_that_cannot_be_read_fails_its_tiles_only(tmp_path):
    class Torn(FakeCoarse):
        def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
            if window.row_off == 0:
                raise OSError("torn")
            return super().read(window)

    scene = random_scene((80, 80))
    _, report = ran(tmp_path, scene, everywhere(scene), coarse=Torn(everywhere(scene)))
    assert (report.failed, report.run) == (3, 6)


@pytest.mark.parametrize("stop", [1, 2, 5, 7])
def test_a_stopped_run_resumes_to_a_byte_equal_result(tmp_path, stop):
    """Ctrl-C in the middle of a row: the report counts every tile once, and the raster is the same."""
    scene = random_scene((250, 120), faulty=((48, 48),))
    water = np.zeros(scene.shape, bool)
    water[:, 20:70] = True
    (tmp_path / "straight").mkdir()
    (tmp_path / "stopped").mkdir()
    _, expected = ran(tmp_path / "straight", scene, water)

    class Stops(Brightness):
        def embed(self, images: torch.Tensor) -> torch.Tensor:
            if len(self.batches) == stop:
                raise KeyboardInterrupt
            return super().embed(images)

    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path / "stopped", scene, water, Stops())
    assert len(list((tmp_path / "stopped" / "out.work").glob("strip-*"))) >= stop - 1
    before, model = sum(scene.reads.values()), Brightness()
    _, report = ran(tmp_path / "stopped", scene, water, model, resume=True)
    assert sum(scene.reads.values()) - before < before or stop <= 2
    assert (report.run, report.dry, report.failures) == (expected.run, expected.dry, expected.failures)
    for path in (tmp_path / "straight" / "out.work").iterdir():
        assert (tmp_path / "stopped" / "out.work" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a POSIX signal")
def test_a_killed_run_leaves_whole_strips_and_resumes(tmp_path):
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_predict import *

        class Dies(Brightness):
            def embed(self, images):
                if len(self.batches) == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().embed(images)

        scene = random_scene((250, 120))
        ran(Path({str(tmp_path)!r}), scene, everywhere(scene), Dies())
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -signal.SIGKILL
    scene = random_scene((250, 120))
    result, report = ran(tmp_path, scene, everywhere(scene), resume=True)
    assert sum(scene.reads.values()) < report.total
    np.testing.assert_allclose(result, scene.rgb[..., 0] / 256, atol=0.5 / 256 + 1e-6)


def test_a_finished_run_resumed_reads_nothing(tmp_path):
    scene = random_scene()
    expected, first = ran(tmp_path, scene, everywhere(scene))
    scene.reads.clear()
    result, report = ran(tmp_path, scene, everywhere(scene), resume=True)
    assert not scene.reads
    assert (report.run, report.total) == (first.run, first.total)
    np.testing.assert_array_equal(result, expected)


def test_a_full_disk_stops_the_run(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    scene = random_scene()
    monkeypatch.setattr("geosam.mosaic.store.os.fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        ran(tmp_path, scene, everywhere(scene))


def test_progress_counts_up_to_all_tiles(tmp_path):
    scene, seen = random_scene(), []
    ran(tmp_path, scene, everywhere(scene), progress=lambda done, total: seen.append((done, total)))
    total = len(plan_tiles(scene.shape, PX, 8))
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_seconds_are_told_by_stage(tmp_path):
    scene = random_scene()
    _, report = ran(tmp_path, scene, everywhere(scene))
    assert set(report.seconds) == {"wait", "embed", "decode", "mosaic"}
    assert all(spent >= 0 for spent in report.seconds.values())


def test_the_batch_fits_the_device_unless_a_size_is_asked_for():
    small, large = Brightness(), Brightness()
    small.tile_px, large.tile_px = 512, 1024
    assert [batch_size(model, SegmentOptions()) for model in (small, large)] == [4, 1]
    assert batch_size(large, options(7)) == 7


def test_the_signature_changes_with_what_matters_and_not_with_the_threshold():
    scene, model = random_scene(), Brightness()
    base = signature(scene, FakeCoarse(everywhere(scene)), model, options())
    assert signature(scene, None, model, options(vector={"threshold": 0.7})) == base
    assert signature(scene, None, model, options(seed=1)) != base
    other = Brightness()
    other.sha256 = "1" * 64
    assert signature(scene, None, other, options()) != base


def test_unprompted_writes_a_raster_of_the_whole_scene(tmp_path):
    scene, model = random_scene(), Brightness()
    scene.valid[:, :50] = False
    path = unprompted(scene, model, options(), tmp_path / "learned.tif")
    with rasterio.open(path) as raster:
        result = raster.read(1)
    np.testing.assert_array_equal(np.isnan(result), ~scene.valid)
    np.testing.assert_allclose(result[:, 50:], scene.rgb[:, 50:, 0] / 256, atol=0.5 / 256 + 1e-6)
    assert all(one.points.shape == (1, 0, 2) for one in model.prompts)
    assert list(tmp_path.iterdir()) == [path]


def test_unprompted_writes_a_mask_where_a_threshold_is_given(tmp_path):
    scene = random_scene()
    scene.valid[:, :50] = False
    with rasterio.open(unprompted(scene, Brightness(), options(), tmp_path / "m.tif", threshold=0.25)) as raster:
        assert raster.dtypes == ("uint8",)
        np.testing.assert_array_equal(raster.read(1), np.where(scene.valid, scene.rgb[..., 0] > 64, 255))


def test_unprompted_needs_a_model_that_can_and_a_tile_that_works(tmp_path):
    scene = random_scene((40, 40))
    with pytest.raises(ModelError, match="--coarse"):
        unprompted(scene, Brightness(frozenset({"points"})), options(), tmp_path / "p.tif")
    with pytest.raises(RunError, match="all 4 tiles failed"):
        unprompted(scene, Brightness(most=0), options(), tmp_path / "p.tif")
    assert list(tmp_path.iterdir()) == []
