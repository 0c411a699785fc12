"""What many machines rest on, without any: blocks, retries, locks, addresses."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import geosam
from geosam import cluster
from geosam.cluster import starting
from geosam.cluster.blocks import _BlockStore, _keep, cut
from geosam.cluster.card import ModelCard, model_here
from geosam.cluster.farm import MOST_TRIES, Farm, _Tasks, _Try
from geosam.cluster.parcel import Fault, Raised
from geosam.cluster.storage import Sign, Storage, Watch
from geosam.cluster.tasks import SceneTask, run_task
from geosam.cluster.workers import _wanted
from geosam.errors import GeosamError, ModelError, OptionsError, OutputError, RunError, SceneError
from geosam.mosaic import Mosaic
from geosam.mosaic.store import StripStore
from geosam.options import ModelOptions
from geosam.pipeline.lock import Owner, locked
from geosam.pipeline.machines import SceneJob
from geosam.tiling import plan_tiles

# The cut --------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 200)), st.integers(1, 20))
def test_blocks_hold_every_missing_strip_once_and_no_other(missing: set[int], hands: int) -> None:
    blocks = cut(sorted(missing), hands)
    assert [row for block in blocks for row in block] == sorted(missing)
    assert all(block.step == 1 and len(block) for block in blocks)


def test_every_worker_has_a_block_and_few_rows_are_computed_twice() -> None:
    blocks = cut(range(112), 4)
    assert len(blocks) >= 8
    assert len(blocks) <= 112 / 5
    assert len(cut(range(8), 8)) == 8


@settings(deadline=None, max_examples=15)
@given(st.integers(33, 300), st.integers(0, 24), st.data())
def test_strips_made_in_parts_have_the_bytes_of_the_whole(height: int, overlap: int, data: st.DataObject) -> None:
    plan = plan_tiles((height, 90), 32, overlap)
    rng = np.random.default_rng(0)
    votes = {tile.index: rng.random((32, 32), np.float32) for tile in plan.tiles}
    whole, store = Kept(len(plan.tops)), Kept(len(plan.tops))
    stitch(Mosaic(whole, plan, grid(plan.shape), 0), votes)
    edges = sorted(data.draw(st.sets(st.integers(1, len(plan.tops)))) | {0, len(plan.tops)})
    parts = [range(*pair) for pair in itertools.pairwise(edges)]
    for strips in data.draw(st.permutations(parts)):
        stitch(Mosaic.part(store, plan, grid(plan.shape), strips), votes)
    assert store.kept == whole.kept
    assert len(store.kept) == len(plan.tops)


class Kept(StripStore):
    """Strips in memory."""

    def __init__(self, total: int):
        super().__init__(Path("nowhere"), total)
        self.kept: dict[int, bytes] = {}

    def put(self, row: int, data: bytes) -> None:
        self.kept[row] = data


def stitch(mosaic: Mosaic, votes: dict[int, np.ndarray]) -> None:
    for row in mosaic.rows:
        for tile in mosaic.plan.row(row):
            mosaic.add(tile, votes[tile.index], np.ones((32, 32), bool))
        mosaic.finish_row(row, {"row": row})


def grid(shape: tuple[int, int]) -> GeoBox:
    return GeoBox(shape, rasterio.Affine(2.0, 0.0, 500_000.0, 0.0, -2.0, 5_300_000.0), "EPSG:32610")


# Locks ----------------------------------------------------------------------------------------------------------------


def test_a_lock_of_a_process_that_is_gone_is_put_aside(tmp_path: Path) -> None:
    out, lock = tmp_path / "r.gpkg", tmp_path / ".r.gpkg.lock"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    here = {"host": socket.gethostname(), "run": "another", "started": "0"}
    for left in ({**here, "pid": int(gone.stdout)}, {**here, "pid": os.getpid()}):  # The second: a number used again.
        lock.write_text(json.dumps(left))
        with locked(out, Owner.new()):
            assert json.loads(lock.read_text())["run"] != "another"
        assert not lock.exists()
    lock.write_text(json.dumps({**here, "host": "elsewhere", "pid": 1}))
    with pytest.raises(OutputError, match="elsewhere"), locked(out, Owner.new()):
        pass
    assert lock.exists()


def test_a_lock_that_a_full_disk_has_no_room_for_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "rivers.geojson"
    with monkeypatch.context() as full:
        full.setattr("geosam.pipeline.lock.json.dump", no_room)
        with pytest.raises(OutputError, match="the disk is full"), locked(out, Owner.new()):
            pytest.fail("the run went on")
    assert list(tmp_path.iterdir()) == []
    with locked(out, Owner.new()):
        pass


# Retries --------------------------------------------------------------------------------------------------------------


class Yard:
    """Stands in for a client with workers; always gives a task to the first worker that may have it, as if idle."""

    status = "running"

    def __init__(self, workers: dict[str, str], bad_jobs: tuple[int, ...] = ()):
        self.kinds, self.bad_jobs = workers, bad_jobs
        self.asked: list[dict[str, Any]] = []
        self.cancelled = 0

    @property
    def scheduler(self) -> Yard:
        return self

    def sync(self, call: Any, **how: Any) -> Any:
        return call(**how)

    def identity(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {name: {"resources": {"GPU": 1.0} if "gpu" in name else {}} for name in self.kinds}}

    def submit(self, function: Any, parcel: bytes, **how: Any) -> Ended:
        self.asked.append(how)
        _, _, job, _ = pickle.loads(parcel)
        worker = next(name for name in self.kinds if name in (how["workers"] or self.kinds))
        if self.kinds[worker] == "strange":
            return Ended((worker, "ImportError: no geosam"))
        if self.kinds[worker] == "bad" or job in self.bad_jobs:
            return Ended((worker, Raised(SceneError("not here."))))
        return Ended((worker, job * 10))

    def cancel(self, futures: list[Any], force: bool) -> None:
        self.cancelled += len(futures)


class Ended:
    """A future that has ended."""

    def __init__(self, end: Any, status: str = "finished"):
        self.end, self.status = end, status

    def add_done_callback(self, call: Any) -> None:
        call(self)

    def result(self) -> Any:
        return self.end

    def exception(self) -> Any:
        return self.end


def work(job: int, tries: int) -> int:
    return job


@given(st.lists(st.sampled_from(["good", "bad", "strange"]), min_size=1, max_size=8), st.integers(1, 6))
def test_every_task_is_done_as_long_as_one_worker_can(kinds: list[str], jobs: int) -> None:
    told: list[str] = []
    yard = Yard({f"worker{at}": kind for at, kind in enumerate(kinds)})
    found = dict(Farm(yard, told.append).each(work, range(jobs), "x"))
    if "good" in kinds:
        assert found == {job: job * 10 for job in range(jobs)}
        assert len(told) <= len(kinds) - kinds.count("good")
    else:
        assert all(isinstance(outcome, Fault) for outcome in found.values())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_fault_of_all_workers_is_told_by_the_last_one_alone(count: int) -> None:
    """The others said only that their work goes elsewhere: what ended the run is not said twice."""
    told: list[str] = []
    [(_, fault)] = Farm(Yard(dict.fromkeys("abcde"[:count], "bad")), told.append).each(work, [0], "x")
    assert isinstance(fault, Fault)
    assert [line.split(":")[0] for line in told] == [
        f"worker {name} cannot go on, and its work goes to others" for name in "abcd"[: count - 1]
    ]


def test_a_task_that_fails_everywhere_is_given_up_and_the_others_are_done() -> None:
    told: list[str] = []
    yard = Yard({f"worker{at}": "good" for at in range(50)}, bad_jobs=(3,))
    farm = Farm(yard, told.append, proven={f"worker{at}" for at in range(50)})
    found = dict(farm.each(work, range(6), "x"))
    fault = found.pop(3)
    assert isinstance(fault, Fault)
    assert isinstance(fault.error, SceneError)
    assert found == {job: job * 10 for job in range(6) if job != 3}
    assert len(yard.asked) == 5 + MOST_TRIES


def test_tasks_ask_for_a_gpu_where_workers_have_one() -> None:
    yard = Yard({"cpu": "good", "gpu": "good"})
    farm = Farm(yard, print, gpu=True)
    assert list(farm.workers()) == ["gpu"]
    list(farm.each(work, [0], "x"))
    assert yard.asked[0]["resources"] == {"GPU": 1}
    list(Farm(yard, print).each(work, [0], "x"))
    assert yard.asked[1]["resources"] is None


def test_local_workers_share_the_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geosam.cluster.starting.signal.signal", lambda *_: None)
    for allowed, wanted in (("4,7", ["4", "7", "4"]), ("", ["", "", ""])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        gpus, found = starting._gpus(), []
        for name in range(3):
            starting._place(gpus, SimpleNamespace(name=name))
            found.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert found == wanted


def test_a_scheduler_that_goes_is_one_line_that_says_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard({"a": "good"})
    monkeypatch.setattr(yard, "submit", lambda *_, **how: Ended(ConnectionError("gone"), "cancelled"))
    monkeypatch.setattr(Ended, "result", lambda self: (_ for _ in ()).throw(self.end))
    with pytest.raises(RunError, match=r"scheduler is gone \(gone\).*--resume"):
        list(Farm(yard, print).each(work, [0, 1], "x"))
    assert yard.cancelled == 1


def test_a_task_that_kills_its_workers_is_named_and_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = type("KilledWorker", (Exception,), {})
    yard = Yard({"a": "good"})
    monkeypatch.setattr(yard, "submit", lambda *_, **how: Ended(killed("x"), "error"))
    [(_, fault)] = Farm(yard, print).each(work, [0], "x")
    assert isinstance(fault, Fault)
    assert "out of memory" in str(fault.error)


def test_a_task_kept_for_workers_that_have_gone_may_go_anywhere() -> None:
    yard = Yard({"a": "good"})
    tasks = _Tasks(Farm(yard, print), work, "x")
    tasks.begin(_Try(0, 0, where=frozenset({"a"})))
    tasks.set_free({"a", "b"})
    assert [asked["workers"] for asked in yard.asked] == [["a"]]
    tasks.set_free({"b"})
    assert [asked["workers"] for asked in yard.asked] == [["a"], None]
    assert yard.cancelled == 1


def test_workers_that_never_come_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    clock = itertools.count(0, 3)
    monkeypatch.setattr("geosam.cluster.farm.time.monotonic", lambda: float(next(clock)))
    farm = Farm(Yard({}), told.append)
    for _ in range(20):
        assert farm.workers() == {}
    assert len(told) == 1
    assert "waiting" in told[0]


# What a worker checks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"sha256": "0"}, {"version": "0.0"}, {"dtype": "float16"}, {"tile_px": 32}])
def test_a_worker_with_another_model_is_refused(other: dict[str, Any], tiny_weights: Path) -> None:
    options = ModelOptions(name=str(tiny_weights), device="cpu")
    card = ModelCard.of(model_here(options))
    assert model_here(options, card) is model_here(options)
    with pytest.raises(ModelError, match=f"worker's {next(iter(other))} is .* and the run began with"):
        model_here(options, replace(card, **other))


def test_a_card_answers_whatever_a_run_asks_of_a_model(tiny_weights: Path) -> None:
    model = model_here(ModelOptions(name=str(tiny_weights), device="cpu"))
    card, asked = ModelCard.of(model), set()
    for room in ("pipeline", "predict"):
        for path in Path(geosam.__file__).with_name(room).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            asked |= set(re.findall(r"\b(?<!\.)model\.(\w+)", text)) | set(re.findall(r'getattr\(model, "(\w+)"', text))
    assert asked >= {"tile_px", "sha256", "step_px"}
    for name in asked:
        if hasattr(model, name) and name not in ("embed", "decode"):
            assert getattr(card, name) == getattr(model, name)


def test_a_worker_stops_when_its_run_has_ended_or_another_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geosam.cluster.storage.time.monotonic", itertools.count(0, 100).__next__)
    sign, later = (Sign(Storage(str(tmp_path)), run) for run in ("one", "two"))
    watch = Watch(sign)
    sign.set()
    watch(1, 10)
    for end in (sign.clear, later.set):
        sign.set()
        end()
        with pytest.raises(RunError, match="--storage"):
            watch(2, 10)


@pytest.mark.parametrize("row", [3, 4])
def test_a_tile_that_fails_at_first_costs_no_strip(row: int, tmp_path: Path) -> None:
    plan = plan_tiles((300, 90), 32, 8)
    sign = Sign(Storage(str(tmp_path)), "one")
    sign.set()
    well = {"failed": 0, "failures": []}
    for strict in (True, False):
        work = SimpleNamespace(folder=tmp_path, plan=plan, mail=None, sign=sign)
        part = Mosaic.part(_BlockStore(work, strict), plan, grid(plan.shape), range(4, 6))  # type: ignore[arg-type]
        assert part.rows == range(3, 6)
        for at in part.rows:
            for tile in plan.row(at):
                part.add_nothing(tile)
            record = {"failed": 1, "failures": ["device lost"]} if at == row else well
            if strict and at == row:
                with pytest.raises(RunError, match="device lost"):
                    part.finish_row(at, record)
                break
            part.finish_row(at, record)
        assert sorted(path.name for path in tmp_path.glob("strip-*")) == (
            [] if strict else ["strip-00004", "strip-00005"]
        )


@pytest.mark.parametrize("url", ["path", "file URL", "memory://geosam-test"])
def test_storage_is_the_same_by_path_and_by_url(url: str, tmp_path: Path) -> None:
    storage = Storage({"path": str(tmp_path / "a"), "file URL": (tmp_path / "b").as_uri()}.get(url, url)).below("c")
    assert storage.get("x") is None
    storage.put("x", b"1")
    storage.put("x", b"22")
    assert storage.get("x") == b"22"
    storage.remove("x")
    assert storage.get("x") is None
    storage.put("y", b"")
    storage.remove()
    assert storage.get("y") is None


def test_storage_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for url in (str(tmp_path / "file"), "nosuchprotocol://bucket/folder"):
        with pytest.raises(OutputError, match="cannot be written from") as told:
            Storage(url).put("x", b"1")
        assert "\n" not in str(told.value)


# A full disk ----------------------------------------------------------------------------------------------------------


class FullDisk:
    """Takes half of what is written and then has no room; in place of ``Path.write_bytes`` and of an fsspec system."""

    def write_bytes(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def pipe_file(self, path: str, data: bytes) -> None:
        self.write_bytes(Path(path), data)

    def makedirs(self, path: str, exist_ok: bool) -> None:
        Path(path).mkdir(exist_ok=exist_ok)

    def rm(self, path: str, recursive: bool) -> None:
        Path(path).unlink()


def test_a_storage_without_room_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geosam.cluster.storage._opened", lambda url: (FullDisk(), url))
    with pytest.raises(OutputError) as told:
        Storage(str(tmp_path)).put("strip-00000", b"0123")
    assert str(told.value) == (
        f"{tmp_path} is full, as {socket.gethostname()} sees it. Make room there, then run again with --resume."
    )


def test_a_run_that_cannot_say_that_it_is_wanted_leaves_no_half_of_a_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geosam.cluster.storage._opened", lambda url: (FullDisk(), url))
    with pytest.raises(OutputError, match="is full"), _wanted(Sign(Storage(str(tmp_path)), "run")):
        pytest.fail("the run went on")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_whose_own_disk_is_full_says_which_machine_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: FullDisk().write_bytes(path, data))
    with pytest.raises(OutputError, match=rf"^{re.escape(socket.gethostname())}: .*the disk is full.*--resume\.$"):
        _keep(tmp_path / "geosam-1.tif", b"0123")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "is_the_scenes"),
    [(OutputError("full"), False), (RunError("ended"), False), (SceneError("no raster"), True)],
)
def test_a_disk_without_room_is_the_workers_fault_and_not_the_scenes(
    error: GeosamError, is_the_scenes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("geosam.cluster.tasks.model_here", lambda *_: None)
    monkeypatch.setattr("geosam.cluster.tasks.run_scene", fail)
    sign = Sign(Storage(str(tmp_path)), "run")
    sign.set()
    options: Any = SimpleNamespace(model=None)
    job = SceneJob("a.tif", None, tmp_path / "a.geojson", None, None, None, False, False)
    task = SceneTask(job, options, None, Owner.new(), sign, is_file=False)  # type: ignore[arg-type]
    if is_the_scenes:
        assert run_task(task, 0) is error
    else:
        with pytest.raises(type(error)):
            run_task(task, 0)


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["nonsense://x", "tcp://", "nowhere.json", "not an address"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(OptionsError, match="no dask scheduler"), cluster.connected(address):
        pass


def test_options_that_contradict_each_other_are_refused() -> None:
    for asked in ({"dask": "tcp://x:1", "workers": 2}, {"dask": None, "workers": 0}):
        with pytest.raises(OptionsError), cluster.machines(**asked):
            pass
    with pytest.raises(OptionsError, match="--storage"), cluster.machines(None, None, "s3://b/f"):
        pass
    with cluster.machines(None, None) as nobody:
        assert nobody is None
