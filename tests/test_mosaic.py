"""Blending, nodata, strips on disk, and rasters that appear whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from geosam.errors import OutputError
from geosam.mosaic import Mosaic
from geosam.tiling import TilePlan, plan_tiles


@pytest.fixture(autouse=True, scope="module")
def _unsynced() -> Iterator[None]:
    """Syncing is for power cuts, which no test makes, and is most of the time of a test on a busy disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geosam.mosaic.store.os.fsync", lambda handle: None)
        yield


def grid(shape: tuple[int, int]) -> GeoBox:
    return GeoBox(shape, rasterio.Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_300_000.0), "EPSG:32610")


def opened(folder: Path, plan: TilePlan, **kwargs: object) -> Mosaic:
    return Mosaic.open(folder / "out.work", plan, grid(plan.shape), **kwargs)


def padded(image: np.ndarray, plan: TilePlan, fill: float | bool) -> np.ndarray:
    return np.pad(image, ((0, plan.tile_px), (0, plan.tile_px)), constant_values=fill)


def stitch(mosaic: Mosaic, image: np.ndarray, valid: np.ndarray | None = None, rows: int | None = None) -> Mosaic:
    """Report every tile as if a model had given the image itself."""
    plan = mosaic.plan
    valid = np.ones(plan.shape, bool) if valid is None else valid
    values, known = padded(image, plan, 0.5), padded(valid, plan, False)
    for row in range(mosaic.first_row, len(plan.tops) if rows is None else rows):
        for tile in plan.row(row):
            at = tile.window.toslices()
            mosaic.add(tile, values[at], known[at])
        mosaic.finish_row(row, {"row": row})
    return mosaic


def whole(mosaic: Mosaic) -> np.ndarray:
    return mosaic.read(Window(0, 0, mosaic.plan.shape[1], mosaic.plan.shape[0]))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[TilePlan, np.ndarray, np.ndarray]:
    tile_px = draw(st.integers(8, 32))
    shape = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    plan = plan_tiles(shape, tile_px, draw(st.integers(0, tile_px * 3 // 4)))
    return plan, rng.random(shape, np.float32), rng.random(shape) > draw(st.sampled_from([0.0, 0.3]))


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_stitching_undoes_cutting(tmp_path_factory, scene):
    """Whatever the overlap, a scene cut into tiles comes back unchanged, and NaN exactly where there is no data."""
    plan, image, valid = scene
    mosaic = stitch(opened(tmp_path_factory.mktemp("m"), plan), image, valid)
    assert mosaic.finished
    result = whole(mosaic)
    np.testing.assert_array_equal(np.isnan(result), ~valid)
    np.testing.assert_allclose(result[valid], image[valid], atol=0.5 / 256 + 1e-6)


@settings(max_examples=10, deadline=None)
@given(scenes(), st.integers(1, 3000))
def test_strips_and_windows_are_the_same_raster(tmp_path_factory, scene, max_px):
    plan, image, valid = scene
    mosaic = stitch(opened(tmp_path_factory.mktemp("m"), plan), image, valid)
    strips = list(mosaic.strips(max_px))
    assert [strip.row_off for strip in strips] == list(np.cumsum([0] + [len(s.probability) for s in strips[:-1]]))
    assert all(strip.probability.dtype == np.float32 for strip in strips)
    np.testing.assert_array_equal(np.concatenate([strip.probability for strip in strips]), whole(mosaic))


@settings(max_examples=10, deadline=None)
@given(scenes(), st.data())
def test_a_resumed_mosaic_is_byte_equal(tmp_path_factory, scene, data):
    """Stopped after any number of strips, the next run finds them and makes the same files."""
    plan, image, valid = scene
    straight, broken = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    stitch(opened(straight, plan), image, valid)
    stop = data.draw(st.integers(0, len(plan.tops)))
    stitch(opened(broken, plan), image, valid, rows=stop)
    resumed = opened(broken, plan, resume=True)
    assert resumed.records == [{"row": row} for row in range(resumed.first_row)]
    assert stop - resumed.first_row <= -(-plan.tile_px // max(1, plan.tile_px - plan.overlap_px)) * 2 or stop == 0
    stitch(resumed, image, valid)
    names = {path.name for path in (straight / "out.work").iterdir()}
    assert names == {path.name for path in (broken / "out.work").iterdir()}
    for name in names:
        assert (straight / "out.work" / name).read_bytes() == (broken / "out.work" / name).read_bytes()


def test_strips_that_hold_no_water_can_be_left_out(tmp_path):
    plan = plan_tiles((300, 60), 32, 8)
    image = np.zeros((300, 60), np.float32)
    image[100:110, 20:30] = 0.5
    mosaic = stitch(opened(tmp_path, plan), image)
    strips = list(mosaic.strips(10 * 60, skip_constant=True))
    assert 0 < len(strips) < 10
    rebuilt = np.zeros_like(image)
    for top, values in strips:
        rebuilt[top : top + len(values)] = values
    np.testing.assert_array_equal(rebuilt, image)


def test_neighbours_that_disagree_are_blended_without_a_step(tmp_path):
    plan = plan_tiles((32, 56), 32, 8)
    mosaic = opened(tmp_path, plan)
    ones = np.ones((32, 32), np.float32)
    for tile in plan.tiles:
        mosaic.add(tile, ones * tile.col, ones > 0)
    mosaic.finish_row(0)
    line = whole(mosaic)[16]
    assert (line[:24] == 0).all()
    assert (line[32:] == 1).all()
    assert (np.diff(line) >= 0).all()
    assert np.diff(line).max() < 0.25


def test_a_skipped_neighbour_does_not_dim_the_overlap(tmp_path):
    """The river must not lose half its probability where the next tile was dry and did not run."""
    plan = plan_tiles((32, 56), 32, 8)
    mosaic = opened(tmp_path, plan)
    mosaic.add(plan.tile(0, 0), np.full((32, 32), 0.75, np.float32), np.ones((32, 32), bool))
    mosaic.add_dry(plan.tile(0, 1), True)
    mosaic.finish_row(0)
    result = whole(mosaic)
    assert (result[:, :32] == 0.75).all()
    assert (result[:, 32:] == 0).all()


def test_a_failed_tile_is_nodata_except_where_another_ran(tmp_path):
    plan = plan_tiles((32, 80), 32, 8)
    mosaic = opened(tmp_path, plan)
    for tile in plan.tiles:
        if tile.col == 1:
            mosaic.add_nothing(tile)
        else:
            mosaic.add(tile, np.ones((32, 32), np.float32), np.ones((32, 32), bool))
    mosaic.finish_row(0)
    np.testing.assert_array_equal(np.isnan(whole(mosaic)[5]), (np.arange(80) >= 32) & (np.arange(80) < 48))


def test_a_dry_tile_is_zero_where_known_and_nodata_elsewhere(tmp_path):
    plan = plan_tiles((40, 40), 32, 8)
    known = np.random.default_rng(0).random((40, 40)) > 0.5
    mosaic = opened(tmp_path, plan)
    for row in plan.rows():
        for tile in row:
            mosaic.add_dry(tile, known[tile.window.toslices()])
        mosaic.finish_row(row[0].row)
    np.testing.assert_array_equal(whole(mosaic), np.where(known, 0, np.nan))


def test_a_dry_scene_holds_nothing_and_stores_next_to_nothing(tmp_path):
    plan = plan_tiles((5000, 5000), 256, 32)
    mosaic = opened(tmp_path, plan)
    for row in plan.rows():
        for tile in row:
            mosaic.add_dry(tile, True)
        assert mosaic.held_px == 0
        mosaic.finish_row(row[0].row)
    assert mosaic.store.bytes_used() < 10_000


def test_memory_is_the_overlap_with_the_row_above_not_the_scene(tmp_path):
    """All wet, 40 tiles wide: never more than the overlap and the cells of the tiles just added."""
    plan = plan_tiles((8 + 5 * 56, 8 + 40 * 56), 64, 8)
    mosaic, most = opened(tmp_path, plan), 0
    for row in plan.rows():
        for tile in row:
            mosaic.add(tile, np.ones((64, 64), np.float32), np.ones((64, 64), bool))
            most = max(most, mosaic.held_px)
        mosaic.finish_row(row[0].row)
    assert most <= plan.shape[1] * plan.overlap_px * 1.1 + 3 * 64 * 64
    assert mosaic.held_px == 0


def test_without_resume_an_earlier_work_folder_is_thrown_away(tmp_path):
    plan = plan_tiles((60, 60), 32, 8)
    stitch(opened(tmp_path, plan), np.ones((60, 60)))
    assert opened(tmp_path, plan).first_row == 0
    assert not list((tmp_path / "out.work").glob("strip-*"))


def test_resume_refuses_strips_of_another_run_and_names_the_difference(tmp_path):
    plan = plan_tiles((60, 60), 32, 8)
    stitch(opened(tmp_path, plan, signature={"model": "a", "seed": 1}), np.ones((60, 60)), rows=1)
    with pytest.raises(OutputError, match=r"another model\. .*--resume"):
        opened(tmp_path, plan, signature={"model": "b", "seed": 1}, resume=True)
    assert (tmp_path / "out.work" / "strip-00000").exists()


@pytest.mark.parametrize("fault", ["cut", "flip", "missing", "empty"])
def test_a_damaged_strip_is_made_again(tmp_path, fault):
    plan = plan_tiles((200, 60), 32, 8)
    image = np.random.default_rng(0).random((200, 60), np.float32)
    expected = whole(stitch(opened(tmp_path, plan), image))
    strip = tmp_path / "out.work" / "strip-00003"
    data = strip.read_bytes()
    strip.write_bytes({"cut": data[:-5], "flip": data[:-1] + bytes([data[-1] ^ 1])}.get(fault, b""))
    if fault == "missing":
        strip.unlink()
    resumed = opened(tmp_path, plan, resume=True)
    assert resumed.first_row == 2
    np.testing.assert_array_equal(whole(stitch(resumed, image)), expected)


def test_a_state_that_was_never_finished_is_a_fresh_start(tmp_path):
    plan = plan_tiles((60, 60), 32, 8)
    (tmp_path / "out.work").mkdir()
    assert opened(tmp_path, plan, resume=True).first_row == 0
    assert json.loads((tmp_path / "out.work" / "state.json").read_text())["tile grid"]["shape"] == [60, 60]


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a work folder"):
        opened(tmp_path, plan_tiles((60, 60), 32, 8))
    assert (tmp_path / "out.work" / "thesis.txt").read_text() == "years of work"


def test_a_missing_output_folder_is_one_line(tmp_path):
    plan = plan_tiles((60, 60), 32, 8)
    with pytest.raises(OutputError, match="nowhere"):
        Mosaic.open(tmp_path / "nowhere" / "out.work", plan, grid(plan.shape))
    with pytest.raises(OutputError, match=r"nowhere does not exist"):
        stitch(opened(tmp_path, plan), np.ones((60, 60))).write_probability(tmp_path / "nowhere" / "p.tif")


def test_the_probability_raster_is_a_valid_cog_with_the_scene_s_georeference(tmp_path):
    plan = plan_tiles((1100, 1300), 256, 32)
    rng = np.random.default_rng(0)
    image = np.kron(rng.random((11, 13), np.float32), np.ones((100, 100), np.float32))
    valid = np.ones(plan.shape, bool)
    valid[:, :600] = False
    mosaic = stitch(opened(tmp_path, plan), image, valid)
    path = mosaic.write_probability(tmp_path / "p.tif")
    fine, errors, _ = cog_validate(path, strict=True)
    assert fine, errors
    with rasterio.open(path) as raster:
        assert (raster.crs, raster.transform) == (rasterio.CRS.from_epsg(32610), grid(plan.shape).affine)
        assert raster.dtypes == ("float32",)
        assert np.isnan(raster.nodata)
        assert raster.descriptions == ("probability of water",)
        np.testing.assert_array_equal(raster.read(1), whole(mosaic))
    assert {child.name for child in tmp_path.iterdir()} == {"p.tif", "out.work"}


def test_the_mask_raster_says_water_dry_and_nodata(tmp_path):
    plan = plan_tiles((60, 70), 32, 8)
    image = np.random.default_rng(0).random((60, 70), np.float32)
    valid = image < 0.9
    mosaic = stitch(opened(tmp_path, plan), image, valid)
    with rasterio.open(mosaic.write_mask(tmp_path / "m.tif", 0.5)) as raster:
        assert (raster.dtypes, raster.nodata) == (("uint8",), 255)
        np.testing.assert_array_equal(raster.read(1), np.where(valid, whole(mosaic) > 0.5, 255))


def test_rasters_written_twice_are_byte_equal(tmp_path):
    plan = plan_tiles((600, 700), 256, 32)
    mosaic = stitch(opened(tmp_path, plan), np.random.default_rng(0).random((600, 700), np.float32))
    first, second = (mosaic.write_probability(tmp_path / name).read_bytes() for name in ("a.tif", "b.tif"))
    assert first == second


def test_discard_leaves_nothing(tmp_path):
    plan = plan_tiles((60, 60), 32, 8)
    stitch(opened(tmp_path, plan), np.ones((60, 60))).discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by a POSIX call")
@pytest.mark.parametrize("what", ["strip", "raster", "tail of raster"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path, what):
    """A limit on the size of files stands in for the disk; it is set in a process of its own.

    The tail is what GDAL writes while closing a file: it gives no error for that.
    """
    program = f"""
        import resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_mosaic import *
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        plan = plan_tiles((300, 300), 256, 32)
        image = np.random.default_rng(0).random((300, 300), np.float32)
        folder = Path({str(tmp_path)!r})
        limit, raster = 20_000, {what!r} != "strip"
        if raster:
            mosaic = stitch(opened(folder, plan), image)
            full = mosaic.write_probability(folder / "p.tif").stat().st_size
            limit = full - 100 if "tail" in {what!r} else limit
            (folder / "p.tif").write_bytes(b"earlier result")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            mosaic.write_probability(folder / "p.tif") if raster else stitch(opened(folder, plan), image)
        except OutputError as error:
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert len(lines) == 1, ran.stdout + ran.stderr
    assert "MB are free" in lines[0]
    assert "needed" in lines[0]
    assert not list(tmp_path.rglob("*.part"))
    if what != "strip":
        assert (tmp_path / "p.tif").read_bytes() == b"earlier result"
        assert len(list((tmp_path / "out.work").glob("strip-*"))) == 2
    else:
        # The strip that still fitted is kept for --resume.
        assert {path.name for path in (tmp_path / "out.work").iterdir()} == {"state.json", "strip-00000"}
