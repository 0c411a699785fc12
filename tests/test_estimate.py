from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geosam.errors import ModelError, RunError
from geosam.estimate import Calibration, estimate_run, look, machine, memory_mb, sampling
from geosam.estimate.sampling import Sample, spread
from geosam.options import SegmentOptions
from geosam.scene import Scene
from geosam.tiling import plan_tiles

UTM = Affine(2, 0, 500_000, 0, -2, 5_000_000)
MEASURED = Calibration(
    model="river-tiny", sha256="ab", device="cpu", dtype="float32", tile_px=64, batch_size=4, strip_threads=2,
    start_s=3.0, tile_s=0.5, dry_tile_s=0.01, row_s=0.02, vector_tile_s=0.001, vector_s_mpx=0.002,
    memory_mb=1000, read_mb=0, machine="a machine", day="2026-11-21",
)  # fmt: skip


def of(**stages: dict[str, Any]) -> SegmentOptions:
    return SegmentOptions.from_mapping({"scene": {"gsd": "native"}, **stages})


def opened(path: Path, **scene: Any) -> Scene:
    return Scene.open(path, of(scene={"gsd": "native", **scene}).scene)


@pytest.fixture(scope="module")
def ortho(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grass with a river across it and a pond, red, green, blue and near infrared, 600 x 800 px in blocks of 128."""
    return painted(tmp_path_factory.mktemp("ortho") / "ortho.tif", tiled=True, blockxsize=128, blockysize=128)


def painted(path: Path, **profile: Any) -> Path:
    row, col = np.mgrid[:600, :800]
    river = np.abs(row - 300 - 150 * np.sin(col / 120)) < 12
    pond = np.hypot(row - 80, col - 700) < 15
    noise = np.random.default_rng(0).integers(-8, 9, row.shape)
    bands = [np.where(river | pond, w, g) + noise for g, w in ((60, 50), (80, 70), (60, 60), (150, 20))]
    about = {"driver": "GTiff", "count": 4, "dtype": "uint8", "height": 600, "width": 800}
    with rasterio.open(path, "w", **about, crs="EPSG:32632", transform=UTM, **profile) as file:
        file.write(np.stack(bands).astype(np.uint8))
        file.descriptions = ("red", "green", "blue", "nir")
    return path


def sample_of(monkeypatch: pytest.MonkeyPatch, px: int) -> None:
    """No scene is small, and so many pixels are looked at."""
    monkeypatch.setattr(look, "WHOLE_PX", 0)
    monkeypatch.setattr(sampling, "SAMPLE_PX", px)


# What the scene tells -------------------------------------------------------------------------------------------------


def test_of_a_small_scene_the_very_tiles_are_counted_that_a_run_runs(
    ortho: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    from geosam.pipeline import segment

    options = of(model={"name": str(tiny_weights)})
    report = segment(ortho, options, out=tmp_path / "rivers.gpkg").report
    found = estimate_run(opened(ortho), options, measured=MEASURED).look
    assert (found.tiles, found.wet) == (report["tiles"]["total"], report["tiles"]["run"])
    assert 0 < found.wet < found.tiles
    assert found.wet_low == found.wet_high == found.wet
    assert found.seen == found.tiles


def test_of_a_larger_scene_a_sample_tells_between_which_numbers_the_wet_tiles_lie(
    ortho: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = estimate_run(opened(ortho), of(), measured=MEASURED).look
    sample_of(monkeypatch, 12 * 128**2)
    found = estimate_run(opened(ortho), of(), measured=MEASURED).look
    assert found.wet_low <= whole.wet <= found.wet_high
    assert found.wet_low < found.wet < found.wet_high < found.tiles == whole.tiles
    assert found.seen < whole.seen
    assert min(found.coarse_s, found.read_s) > 0


def test_a_sample_of_everything_leaves_no_doubt(ortho: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share, read = 0.25, np.full(40, 4)
    assert Sample(np.full(40, 1), read, 1.0, (), 0.0).share_range() == (share, share)
    mixed = Sample(np.arange(40) % 5, read, 1.0, (), 0.0)
    assert mixed.share_range() == (mixed.share, mixed.share)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("squares", [1, 4])
def test_the_range_holds_the_truth_nineteen_times_in_twenty(share: float, squares: int) -> None:
    rng, inside, times = np.random.default_rng(1), 0, 400
    for _ in range(times):
        drawn = rng.binomial(squares, share, 180 // squares)
        low, high = Sample(drawn, np.full(len(drawn), squares), 0.01, (), 0.0).share_range()
        assert 0 <= low <= high <= 1
        inside += low <= share <= high
    assert inside >= 0.94 * times


@pytest.mark.parametrize(
    ("profile", "shape"),
    [
        ({"tiled": True, "blockxsize": 128, "blockysize": 128}, (128, 128)),
        ({"tiled": True, "blockxsize": 48, "blockysize": 48}, (96, 96)),
        ({"tiled": True, "blockxsize": 32, "blockysize": 16}, (64, 64)),
    ],
)
def test_pieces_are_whole_blocks_spread_over_the_scene(
    profile: dict[str, Any], shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = opened(painted(tmp_path / "ortho.tif", **profile))
    monkeypatch.setattr(sampling, "SAMPLE_PX", 10 * shape[0] * shape[1])
    pieces = spread(scene, 64)
    assert 8 <= len(pieces) <= 10
    assert len({(piece.row_off, piece.col_off) for piece in pieces}) == len(pieces)
    for piece in pieces:
        assert (piece.height, piece.width) == shape
        assert piece.row_off % shape[0] == piece.col_off % shape[1] == 0
        assert piece.row_off + shape[0] <= 600
        assert piece.col_off + shape[1] <= 800
    rows, cols = (sorted(getattr(piece, name) for piece in pieces) for name in ("row_off", "col_off"))
    assert rows[0] < 150 < 350 < rows[-1]
    assert cols[0] < 200 < 500 < cols[-1]


def test_where_time_is_up_the_first_pieces_tell_of_the_whole_scene(
    ortho: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_of(monkeypatch, 10**9)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(sampling, "LONGEST_S", 0.0)
    monkeypatch.setattr(sampling, "FEWEST", 4)
    scene = opened(ortho)
    whole = len(spread(scene, 64))
    found = sampling.sample(scene, of().coarse, 64)
    assert len(found.wet) == sampling.FEWEST < whole
    assert found.of_all == pytest.approx(4 * 128**2 / (600 * 800))
    first = spread(scene, 64)[:4]
    assert len({piece.row_off for piece in first}) > 1 < len({piece.col_off // 256 for piece in first})


def test_seconds_of_the_pieces_stand_for_the_whole_scene(ortho: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_of(monkeypatch, 12 * 128**2)
    ticks = iter(range(100))
    monkeypatch.setattr(sampling, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    found = sampling.sample(opened(ortho), of().coarse, 64)
    assert len(found.wet) < sampling.FEWEST
    assert found.coarse_s == pytest.approx(1 + 1 / found.of_all)  # One to fit the rule, one for the pieces.
    assert found.of_all < 0.5


def test_a_remote_scene_is_not_fetched_in_full(ortho: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLE_PX", 12 * 128**2)
    scene = replace(opened(ortho), source="https://example.org/ortho.tif")
    assert (
        estimate_run(scene, of(), measured=MEASURED).look.seen
        < estimate_run(opened(ortho), of(), measured=MEASURED).look.seen
    )


def test_of_a_file_stored_by_rows_whole_rows_are_read_and_all_their_squares_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.tif"
    about = {"driver": "GTiff", "count": 4, "dtype": "uint8", "height": 512, "width": 1100, "blockysize": 2}
    with rasterio.open(path, "w", **about, crs="EPSG:32632", transform=UTM) as file:
        file.write(np.random.default_rng(0).integers(1, 255, (4, 512, 1100), np.uint8))
    sample_of(monkeypatch, 1)
    pieces = spread(opened(path), 64)
    assert len(pieces) == sampling.LEAST_PIECES
    assert {(piece.col_off, piece.width, piece.height) for piece in pieces} == {(0, 1100, 64)}
    options = of(scene={"gsd": "native", "bands": "red=1,green=2,blue=3,nir=4"})
    assert estimate_run(opened(path), options, measured=MEASURED).look.seen == 17 * len(pieces)


def test_without_water_no_tile_is_wet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dry.tif"
    about = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": 512, "width": 512}
    with rasterio.open(path, "w", **about, crs="EPSG:32632", transform=UTM) as file:
        file.write(np.random.default_rng(0).integers(160, 250, (3, 512, 512), np.uint8))
    options = of(coarse={"method": "dark", "threshold": 0.5})
    found = estimate_run(opened(path), options, measured=MEASURED)
    assert (found.look.wet, found.look.wet_high) == (0, 0)
    assert found.total_s == pytest.approx(found.dry_s)
    sample_of(monkeypatch, 20 * 64**2)
    found = estimate_run(opened(path), options, measured=MEASURED)
    assert found.look.wet == 0 < found.look.wet_high < 0.2 * found.look.tiles


# Options of the run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [of(tiles={"which": "all"}), of(prompts={"which": "none"})])
def test_where_every_tile_runs_none_has_to_be_found_wet(ortho: Path, options: SegmentOptions) -> None:
    found = estimate_run(opened(ortho), options, measured=MEASURED)
    assert found.look.wet == found.look.wet_low == found.look.wet_high == found.look.tiles
    assert found.total_s == pytest.approx(found.all_s) == pytest.approx(found.low_s) == pytest.approx(found.high_s)


def test_with_prompts_of_ones_own_alone_the_tiles_that_hold_one_run(ortho: Path, tmp_path: Path) -> None:
    xy = [UTM @ pixel for pixel in ((20, 20), (24, 20), (700, 500))]
    gpd.GeoSeries(shapely.points(xy), crs="EPSG:32632").to_file(tmp_path / "points.gpkg")
    options = of(prompts={"points_file": str(tmp_path / "points.gpkg")}, tiles={"overlap_px": 0})
    found = estimate_run(opened(ortho), options, measured=MEASURED)
    assert found.look.wet == found.look.wet_high == 2
    assert found.seconds["coarse"] == 0


def test_a_look_with_the_model_costs_its_tiles_and_may_find_anything(ortho: Path) -> None:
    found = estimate_run(opened(ortho), of(coarse={"method": "learned"}), measured=MEASURED)
    assert (found.look.wet_low, found.look.wet_high) == (0, found.look.tiles)
    assert found.look.tiles_of_guess
    assert found.seconds["coarse"] > found.look.tiles_of_guess * MEASURED.tile_s


def test_a_large_scene_of_colours_alone_is_looked_at_with_the_model(
    ortho: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = opened(ortho, bands="red=1,green=2,blue=3")
    assert estimate_run(colours, of(), measured=MEASURED).look.tiles_of_guess == 0
    monkeypatch.setattr("geosam.pipeline.guess.LOOK_SIDE_PX", 100)
    assert estimate_run(colours, of(), measured=MEASURED).look.tiles_of_guess
    assert estimate_run(opened(ortho), of(), measured=MEASURED).look.tiles_of_guess == 0
    assert estimate_run(colours, of(model={"name": "sam-vit-base"}), measured=MEASURED).look.tiles_of_guess == 0


def test_a_mask_of_ones_own_is_the_guess(ortho: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corner = shapely.box(*(UTM @ (8, 56)), *(UTM @ (56, 8)))
    gpd.GeoSeries([corner], crs="EPSG:32632").to_file(tmp_path / "mask.gpkg")
    options = of(coarse={"method": str(tmp_path / "mask.gpkg")}, tiles={"overlap_px": 0})
    assert estimate_run(opened(ortho), options, measured=MEASURED).look.wet == 1
    sample_of(monkeypatch, 10**9)
    found = estimate_run(opened(ortho), options, measured=MEASURED).look
    assert found.wet_low <= 1 <= found.wet_high < found.tiles / 4


# Arithmetic -----------------------------------------------------------------------------------------------------------


def test_stages_add_up_and_each_figure_counts_as_often_as_it_is_met(ortho: Path) -> None:
    scene = opened(ortho)

    def predict_s(**changed: float) -> float:
        return estimate_run(scene, of(), measured=replace(still, **changed)).seconds["predict"]

    nothing = dict.fromkeys(("start_s", "tile_s", "dry_tile_s", "row_s", "vector_tile_s", "vector_s_mpx"), 0.0)
    still = replace(MEASURED, **nothing)
    found = estimate_run(scene, of(), measured=MEASURED, opened_in_s=1.5)
    plan = plan_tiles(scene.shape, 64)
    assert found.total_s == pytest.approx(sum(found.seconds.values()))
    assert found.seconds["open"] == 1.5
    assert found.dry_s < found.low_s == found.high_s < found.all_s
    # Pictures are read anew each time, which takes milliseconds: a thousand seconds a tile drown it.
    assert predict_s(tile_s=1000.0) == pytest.approx(1000 * found.look.wet, rel=1e-2)
    assert predict_s(dry_tile_s=1000.0) == pytest.approx(1000 * (len(plan) - found.look.wet), rel=1e-2)
    assert predict_s(row_s=1000.0) == pytest.approx(1000 * len(plan.tops), rel=1e-2)


def test_memory_grows_with_the_width_a_little_and_with_the_height_not_at_all(ortho: Path) -> None:
    def megabytes(*shape: int) -> int:
        return memory_mb(opened(ortho).in_shape(shape), plan_tiles(shape, 64), MEASURED)

    assert megabytes(20_000, 20_000) == megabytes(200_000, 20_000)
    assert MEASURED.memory_mb < megabytes(600, 800) < megabytes(20_000, 20_000) < megabytes(20_000, 400_000) < 1400
    assert memory_mb(opened(ortho), plan_tiles((600, 800), 64), replace(MEASURED, memory_mb=5000)) > 5000


# The machine ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Models that were measured: figures are made up, and kept in a folder of the test."""
    measured: list[str] = []

    def probe(options: SegmentOptions) -> dict[str, Any]:
        measured.append(options.model.name)
        figures = asdict(MEASURED)
        return {name: figures[name] for name in figures if name not in ("machine", "day")}

    monkeypatch.setattr(machine, "_probe", probe)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return measured


def test_a_machine_is_measured_once_and_again_when_asked(probes: list[str]) -> None:
    said: list[str] = []
    first = machine.calibration(of(), tell=said.append)
    assert machine.calibration(of(), tell=said.append) == first
    assert (len(probes), len(said)) == (1, 1)
    assert "river-tiny" in said[0]
    machine.calibration(of(), anew=True)
    assert len(probes) == 2
    assert machine.calibration(of()) == first


@pytest.mark.parametrize(
    "changed",
    [
        lambda patch: patch.setattr(machine, "__version__", "99"),
        lambda patch: patch.setattr(machine, "_cores", lambda: 99),
        lambda patch: patch.setenv("OMP_NUM_THREADS", "99"),
        lambda patch: patch.setattr(machine, "model_mark", lambda name: "other weights"),
    ],
    ids=["version", "cores", "threads", "model"],
)
def test_figures_are_not_used_where_anything_they_depend_on_has_changed(
    changed: Callable[[pytest.MonkeyPatch], None], probes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.calibration(of())
    changed(monkeypatch)
    machine.calibration(of())
    assert len(probes) == 2


@pytest.mark.parametrize(
    ("options", "again"),
    [
        (of(model={"batch_size": 2}), 2),
        (of(model={"dtype": "bfloat16"}), 2),
        (of(prompts={"multimask": True}), 2),
        (of(seed=7, vector={"min_area_m2": 5.0}), 1),
    ],
)
def test_options_that_change_the_speed_are_measured_each(
    options: SegmentOptions, again: int, probes: list[str]
) -> None:
    machine.calibration(of())
    machine.calibration(options)
    machine.calibration(of())
    assert len(probes) == again


def test_a_file_of_weights_that_was_replaced_is_another_model(tmp_path: Path, probes: list[str]) -> None:
    path = tmp_path / "mine.safetensors"
    options = of(model={"name": str(path)})
    for weights, times in ((b"one", 1), (b"one", 1), (b"longer", 2)):
        if not path.exists() or path.read_bytes() != weights:
            path.write_bytes(weights)
        machine.calibration(options)
        assert len(probes) == times


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"KEY": {"start_s": 1}}', '{"KEY": 3}'])
def test_a_spoilt_file_is_measured_over(text: str, probes: list[str]) -> None:
    machine.calibration(of())
    file = machine.cache_file()
    key = next(iter(json.loads(file.read_text())))
    file.write_text(text.replace("KEY", key))
    assert machine.calibration(of()).tile_s == MEASURED.tile_s
    assert len(probes) == 2
    machine.calibration(of())
    assert len(probes) == 2


def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(tmp_path: Path, probes: list[str]) -> None:
    (tmp_path / "cache").write_text("in the way")
    said: list[str] = []
    assert machine.calibration(of(), tell=said.append).tile_s == MEASURED.tile_s
    assert "not kept" in said[-1]
    assert (tmp_path / "cache").read_text() == "in the way"


def test_the_file_does_not_grow_for_ever(probes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MOST_KEPT", 3)
    for batch in range(1, 6):
        machine.calibration(of(model={"batch_size": batch}))
    assert len(json.loads(machine.cache_file().read_text())) == 3
    machine.calibration(of(model={"batch_size": 5}))
    assert len(probes) == 5


def test_a_process_that_waited_for_the_disk_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {name: value for name, value in asdict(MEASURED).items() if name not in ("machine", "day")}
    found = [figures | {"start_s": 30.0, "read_mb": 900}, figures]
    monkeypatch.setattr(machine, "_probe", lambda options: found.pop(0))
    assert machine.measure(of()).start_s == MEASURED.start_s


@pytest.mark.parametrize("name", ["sam-vit-huge", "someone/some-sam", "no-such-model", "mobile-sam"])
def test_a_model_that_is_not_here_is_not_fetched_to_be_measured(
    name: str, probes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match=name):
        machine.calibration(of(model={"name": name}))
    assert not probes


def test_what_stops_the_measuring_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_START", 'import sys; sys.stdin.read(); print(\'{"error": "no such device"}\')')
    with pytest.raises(ModelError, match=r"^no such device$"):
        machine.measure(of())
    monkeypatch.setattr(machine, "_START", "raise SystemExit('out of luck')")
    with pytest.raises(RunError, match="out of luck") as caught:
        machine.measure(of())
    assert "\n" not in str(caught.value)


def test_measuring_goes_the_whole_way_in_a_process_of_its_own(tiny_weights: Path) -> None:
    found = machine.measure(of(model={"name": str(tiny_weights), "device": "cpu", "dtype": "float32"}))
    assert (found.device, found.dtype, found.tile_px, found.model) == ("cpu", "float32", 64, tiny_weights.stem)
    assert len(found.sha256) == 64
    assert found.start_s > 10 * found.tile_s > 0
    assert found.tile_s > found.dry_tile_s >= 0
    assert found.memory_mb > 200
    assert min(found.row_s, found.vector_tile_s, found.vector_s_mpx, found.model_mpx_s) > 0
