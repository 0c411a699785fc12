"""Many machines give the bytes of one, whatever happens to them on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
from rasterio.transform import from_origin

from geosam import cluster, segment
from geosam.cli import main
from geosam.cluster import parcel
from geosam.cluster.farm import Farm
from geosam.cluster.workers import Workers
from geosam.errors import OutputError, RunError, SceneError
from geosam.options import SegmentOptions
from geosam.pipeline.lock import Owner, locked
from geosam.pipeline.many import segment_many
from geosam.tiling import plan_tiles

LOG: list[str] = []
"""What the workers' side told the user."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Workers]:
    """Two worker processes; every test asks them for a run of its own."""
    with cluster.local(2, device="cpu", tell=LOG.append) as workers:
        yield workers


@pytest.fixture
def machines(pair: Workers) -> Workers:
    LOG.clear()
    return Workers(pair.client, None, LOG.append, grows=False)


@pytest.fixture(scope="module")
def long_tif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 x 700 px with a river down the middle: 12 tile rows of 64 px, which two workers share as four blocks."""
    rng = np.random.default_rng(0)
    bands = np.full((4, 700, 120), 120, np.uint8) + rng.integers(0, 40, (4, 700, 120), dtype=np.uint8)
    bands[:3, :, 40:70] = 60 + rng.integers(0, 30, (3, 700, 30), dtype=np.uint8)
    bands[3] = 200
    bands[3, :, 40:70] = 15
    path = tmp_path_factory.mktemp("long") / "long.tif"
    profile = {"driver": "GTiff", "width": 120, "height": 700, "count": 4, "dtype": "uint8", "crs": "EPSG:32610"}
    with rasterio.open(path, "w", transform=from_origin(450_000, 5_300_000, 2.0, 2.0), **profile) as out:
        out.write(bands)
        out.descriptions = ("red", "green", "blue", "nir")
    return path


@pytest.fixture(scope="module")
def options(tiny_weights: Path) -> SegmentOptions:
    return SegmentOptions.from_mapping({"model": {"name": str(tiny_weights), "device": "cpu"}})


@pytest.fixture(scope="module")
def alone(long_tif: Path, options: SegmentOptions, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What one machine gives."""
    return Run(long_tif, options, tmp_path_factory.mktemp("alone")).go()


class Run:
    """A run and the two files that it writes."""

    def __init__(self, scene: Path, options: SegmentOptions, folder: Path):
        self.scene, self.options = scene, options
        self.out, self.raster = folder / "rivers.geojson", folder / "p.tif"
        self.strips = folder / ".rivers.geojson.work" / "strips"
        self.report: dict[str, Any] = {}

    def go(self, machines: Any = None, **how: Any) -> Run:
        result = segment(self.scene, self.options, out=self.out, probability=self.raster, machines=machines, **how)
        self.report = result.report
        return self

    def same_as(self, other: Run) -> bool:
        left = sorted(path.name for path in self.out.parent.iterdir())
        assert left == ["p.tif", "rivers.geojson"], "something was left behind"
        return self.out.read_bytes() == other.out.read_bytes() and self.raster.read_bytes() == other.raster.read_bytes()


# The same bytes -------------------------------------------------------------------------------------------------------


def test_two_workers_give_the_bytes_of_one_machine(machines: Workers, alone: Run, tmp_path: Path) -> None:
    both = Run(alone.scene, alone.options, tmp_path).go(machines)
    assert both.same_as(alone)
    assert both.report["tiles"] == alone.report["tiles"]
    assert both.report["tiles"]["run"] > 20
    assert both.report["seconds"].keys() == alone.report["seconds"].keys()
    assert LOG == []


def test_the_first_guess_by_the_model_is_made_by_the_workers_too(machines: Workers, alone: Run, tmp_path: Path) -> None:
    learned = alone.options.model_copy(update={"coarse": alone.options.coarse.model_copy(update={"method": "learned"})})
    one = Run(alone.scene, learned, tmp_path / "one")
    two = Run(alone.scene, learned, tmp_path / "two")
    for run in (one, two):
        run.out.parent.mkdir()
    assert two.go(machines).same_as(one.go())


def test_a_worker_that_dies_costs_its_block_only(machines: Workers, alone: Run, tmp_path: Path) -> None:
    process_of, killed = machines.client.run(os.getpid), []

    def kill_one_at_work(stage: str, done: int, total: int) -> None:
        if stage == "predict" and not killed:
            busy = [worker for worker, tasks in machines.client.processing().items() if tasks]
            killed.append(process_of[busy[0]])
            os.kill(killed[0], signal.SIGKILL)

    run = Run(alone.scene, alone.options, tmp_path).go(machines, progress=kill_one_at_work)
    assert killed
    assert not psutil.pid_exists(killed[0]) or psutil.Process(killed[0]).status() == psutil.STATUS_ZOMBIE
    assert run.same_as(alone)
    assert run.report["tiles"] == alone.report["tiles"]


def test_strips_may_go_by_a_storage_that_is_no_folder_of_the_output(
    machines: Workers, alone: Run, tmp_path: Path
) -> None:
    storage, folder = tmp_path / "storage", tmp_path / "out"
    folder.mkdir()
    machines.storage = storage.as_uri()
    assert Run(alone.scene, alone.options, folder).go(machines).same_as(alone)
    assert list(storage.iterdir()) == []


# Scenes side by side --------------------------------------------------------------------------------------------------


def test_scenes_side_by_side_give_the_bytes_of_one_after_another(
    machines: Workers, river_tif: Path, options: SegmentOptions, tmp_path: Path
) -> None:
    names = ["a.tif", "b.tif", "c.tif"]
    for name in names:
        shutil.copy(river_tif, tmp_path / name)
    (tmp_path / "bad.tif").write_text("no raster")
    inputs = [str(tmp_path / name) for name in ["a.tif", "bad.tif", "b.tif", "c.tif"]]
    low = options.model_copy(update={"vector": options.vector.model_copy(update={"threshold": 1e-4})})
    told: list[list[str]] = [[], []]
    done = [
        segment_many(inputs, low, out=tmp_path / out, machines=how, tell=lines.append)
        for out, how, lines in (("one.geojson", None, told[0]), ("two.geojson", machines, told[1]))
    ]
    assert (tmp_path / "one.geojson").read_bytes() == (tmp_path / "two.geojson").read_bytes()
    assert [list(batch.done) for batch in done] == [[inputs[0], *inputs[2:]]] * 2
    assert told[0] == told[1]
    assert LOG == []
    lines = list(done[1].lines())
    assert [line.split(":")[0] for line in lines] == [
        f"{tmp_path / 'two.geojson'}, {tmp_path / name}" for name in names
    ]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([*names, "bad.tif", "one.geojson", "two.geojson"])


def test_scenes_side_by_side_go_to_files_of_their_own_and_are_resumed(
    machines: Workers, river_tif: Path, options: SegmentOptions, tmp_path: Path
) -> None:
    for name in ("a.tif", "b.tif"):
        shutil.copy(river_tif, tmp_path / name)
    inputs, out = [str(tmp_path / name) for name in ("a.tif", "b.tif")], tmp_path / "out"
    told: list[tuple[str, int, int]] = []
    segment_many(inputs, options, out=f"{out}/", machines=machines, progress=lambda *news: told.append(news))
    assert told == [("scenes", 0, 2), ("scenes", 1, 2), ("scenes", 2, 2)]
    assert sorted(path.name for path in out.iterdir()) == ["a.geojson", "b.geojson"]
    again = segment_many(inputs, options, out=f"{out}/", machines=machines)
    assert list(again.bad) == inputs
    assert all("--overwrite" in reason for reason in again.bad.values())
    (out / "b.geojson").unlink()
    resumed = segment_many(inputs, options, out=f"{out}/", machines=machines, resume=True)
    assert (resumed.kept, list(resumed.done)) == ([out / "a.geojson"], inputs[1:])


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["workers", "one machine"])
def test_resume_makes_only_what_is_missing(on: str, machines: Workers, alone: Run, tmp_path: Path) -> None:
    run, before, after = Run(alone.scene, alone.options, tmp_path), {}, {}

    def stop_after_a_block(stage: str, done: int, total: int) -> None:
        if stage == "predict":
            raise KeyboardInterrupt

    def look_at_the_end(stage: str, done: int, total: int) -> None:
        if stage == "predict":
            after.update(stamps(run.strips))

    with pytest.raises(KeyboardInterrupt):
        run.go(machines, progress=stop_after_a_block)
    time.sleep(0.5)  # A worker may be in the middle of writing a strip.
    before.update(stamps(run.strips))
    assert 0 < len(before) < len(plan_tiles((700, 120), 64).tops)
    run.go(machines if on == "workers" else None, progress=look_at_the_end, resume=True)
    if on == "workers":  # One machine goes on from the first gap.
        assert before.items() <= after.items()
    assert run.same_as(alone)
    assert run.report["tiles"] == alone.report["tiles"]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("strip-*")}


def test_a_second_run_on_one_output_is_refused(alone: Run, tmp_path: Path) -> None:
    run = Run(alone.scene, alone.options, tmp_path)
    with locked(run.out, Owner.new()):
        for resume in (False, True):
            with pytest.raises(OutputError, match=f"process {os.getpid()} on {socket.gethostname()}"):
                run.go(resume=resume)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".rivers.geojson.lock"]


# Bad luck -------------------------------------------------------------------------------------------------------------


def hide(path: str) -> None:
    """Make a worker blind to a file."""
    real = getattr(os.stat, "real", os.stat)

    def stat(asked: Any, *args: Any, **how: Any) -> os.stat_result:
        if str(asked) == path:
            raise FileNotFoundError(2, "No such file or directory")
        return real(asked, *args, **how)

    stat.real = real  # type: ignore[attr-defined]
    os.stat = stat


def show() -> None:
    os.stat = getattr(os.stat, "real", os.stat)


def test_a_worker_without_the_file_is_named_and_the_other_does_the_work(
    machines: Workers, alone: Run, tmp_path: Path
) -> None:
    workers = list(machines.client.nthreads())
    machines.client.run(hide, str(alone.scene), workers=workers[:1])
    try:
        assert Run(alone.scene, alone.options, tmp_path).go(machines).same_as(alone)
        assert len(LOG) == 1
        assert workers[0] in LOG[0]
        assert "long.tif cannot be read" in LOG[0]
        machines.client.run(hide, str(alone.scene))
        (tmp_path / "none").mkdir()
        with pytest.raises(SceneError, match="where all machines see it"):
            Run(alone.scene, alone.options, tmp_path / "none").go(machines)
        assert list((tmp_path / "none").iterdir()) == []
    finally:
        machines.client.run(show)


def sicken() -> None:
    """Have every tile fail on a worker, as on a GPU that is out of order."""
    from geosam.predict.batching import Batcher

    def broken(*_: Any) -> None:
        raise RuntimeError("device lost")

    Batcher.well, Batcher._compute = Batcher._compute, broken  # type: ignore


def heal() -> None:
    from geosam.predict.batching import Batcher

    Batcher._compute = getattr(Batcher, "well", Batcher._compute)  # type: ignore[method-assign]


def test_tiles_that_fail_on_a_sick_worker_are_tried_on_another(machines: Workers, alone: Run, tmp_path: Path) -> None:
    workers = list(machines.client.nthreads())
    machines.client.run(sicken, workers=workers[:1])
    try:
        run = Run(alone.scene, alone.options, tmp_path).go(machines)
    finally:
        machines.client.run(heal)
    assert run.same_as(alone)
    assert run.report["tiles"]["failed"] == 0
    assert len(LOG) == 1
    assert workers[0] in LOG[0]
    assert "device lost" in LOG[0]


def let_write(most: int) -> None:
    """Allow a worker files of so many bytes: beyond that its disk is as good as full."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_a_worker_whose_disk_is_full_is_named_and_the_other_does_the_work(
    machines: Workers, alone: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    machines.storage = (tmp_path / "storage").as_uri()
    workers = list(machines.client.nthreads())
    machines.client.run(let_write, 100, workers=workers[:1])
    try:
        assert Run(alone.scene, alone.options, folder).go(machines).same_as(alone)
        assert len(LOG) == 1
        assert workers[0] in LOG[0]
        assert "full" in LOG[0]
    finally:
        machines.client.run(let_write, -1)


def test_scenes_of_a_worker_whose_disk_is_full_are_done_by_the_other(
    machines: Workers, river_tif: Path, options: SegmentOptions, tmp_path: Path
) -> None:
    for name in ("a.tif", "b.tif"):
        shutil.copy(river_tif, tmp_path / name)
    inputs, out = [str(tmp_path / name) for name in ("a.tif", "b.tif")], tmp_path / "out"
    workers = list(machines.client.nthreads())
    machines.client.run(let_write, 100, workers=workers[:1])
    try:
        batch = segment_many(inputs, options, out=f"{out}/", machines=machines)
    finally:
        machines.client.run(let_write, -1)
    assert (list(batch.done), batch.bad) == (inputs, {})
    assert sorted(path.name for path in out.iterdir()) == ["a.geojson", "b.geojson"]
    assert len(LOG) == 1
    assert workers[0] in LOG[0]


def test_no_worker_seems_gone_while_the_client_looks_for_itself(machines: Workers) -> None:
    """The client asks the scheduler for its own sake every other second, and for no worker at all."""
    machines.client.sync(machines.client._update_scheduler_info)
    assert machines.client._scheduler_identity["workers"] == {}
    farm = Farm(machines.client, LOG.append)
    with pytest.MonkeyPatch.context() as between:
        between.setattr(machines.client, "_update_scheduler_info", nothing)
        assert set(farm.workers()) == set(machines.client.nthreads())
    assert LOG == []


async def nothing(**_: Any) -> None:
    """An answer that another one has overtaken."""


def test_workers_that_do_not_see_the_folder_are_told_apart_from_a_bad_scene(
    machines: Workers, alone: Run, tmp_path: Path
) -> None:
    machines.client.run(hide_sign)
    try:
        with pytest.raises(RunError, match="--storage"):
            Run(alone.scene, alone.options, tmp_path).go(machines)
    finally:
        machines.client.run(show_sign)


def hide_sign() -> None:
    from geosam.cluster import storage

    storage.Storage.real, storage.Storage.get = storage.Storage.get, lambda self, name: None  # type: ignore


def show_sign() -> None:
    from geosam.cluster import storage

    storage.Storage.get = storage.Storage.real  # type: ignore[attr-defined]


def test_a_worker_that_cannot_read_a_task_says_so(machines: Workers) -> None:
    address, said = machines.client.submit(parcel.unpacker(), b"cno_such_module\nname\n.", pure=False).result()
    assert address in machines.client.nthreads()
    assert "no_such_module" in said


def test_no_scheduler_is_one_line_and_exit_2(alone: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # A port at which nobody listens.
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit) as stop:
            main(["segment", str(alone.scene), "--dask", address, "--out", str(tmp_path / "o.geojson")])
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert f"no dask scheduler answers at {address}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ctrl_c_heard() -> Iterator[None]:
    """Processes begun here hear Ctrl-C, also where a shell that runs the tests in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.usefixtures("ctrl_c_heard")
def test_no_process_outlives_the_run(end: signal.Signals, alone: Run, tmp_path: Path) -> None:
    run = Run(alone.scene, alone.options, tmp_path)
    words = ["segment", alone.scene, "--model", alone.options.model.name, "--device", "cpu"]
    started = subprocess.Popen(
        [sys.executable, "-m", "geosam", *map(str, words), "--workers", "1", "--out", str(run.out),
         "--probability", str(run.raster)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    family: dict[int, psutil.Process] = {}

    def begun() -> bool:
        """Whether the first strip is there; who belongs to the run is noted before, since then it soon ends."""
        family.update({child.pid: child for child in psutil.Process(started.pid).children(recursive=True)})
        return started.poll() is not None or any(run.strips.glob("strip-*"))

    wait_for(begun, 300)
    assert len(family) >= 1
    os.killpg(started.pid, end) if end == signal.SIGINT else started.kill()  # Ctrl-C reaches the whole group.
    said = started.communicate(timeout=120)[1]
    wait_for(lambda: not any(alive(process) for process in family.values()), 60)
    if end == signal.SIGINT:
        assert started.returncode == 1
        assert said.strip() == "geosam: stopped by the user. Run again with --resume to go on."
    assert any(run.strips.glob("strip-*"))
    assert run.go(resume=True).same_as(alone)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(happened: Any, at_most_s: float) -> None:
    end = time.monotonic() + at_most_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
