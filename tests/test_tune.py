"""Tuning: the cache, questions, losses, the loop and its checkpoints, on tiny random models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.ops import sigmoid_focal_loss

from geosam.cli import main
from geosam.datasets import open_labelled
from geosam.errors import DatasetError, ModelError, OptionsError, OutputError, RunError
from geosam.finetune import TuneOptions, finetune
from geosam.finetune import quick as quick_room
from geosam.finetune import store as store_room
from geosam.finetune.kept import detached, embeddings_of, encoded
from geosam.finetune.losses import boundary, focal, mask_loss
from geosam.finetune.memory import in_parts
from geosam.finetune.questions import Way, ask_about, draw_way
from geosam.finetune.quick import _attend as attend
from geosam.finetune.quick import quick
from geosam.finetune.ranks import Ranks
from geosam.finetune.scoring import masks
from geosam.finetune.store import corners, cut, drawn, open_store
from geosam.finetune.suited import SAM, SMALL, suited
from geosam.models import load_model
from geosam.options import ModelOptions
from geosam.predict.views import turned

FAST = {"epochs": 2, "batch": 4, "learning_rate": 1e-3, "views": 1}


def pond(n: int, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A dark blue disc on speckled green ground, and its label."""
    rng = np.random.default_rng(n)
    y, x = np.mgrid[:side, :side]
    water = (x - rng.uniform(16, 48)) ** 2 + (y - rng.uniform(16, 48)) ** 2 < rng.uniform(9, 15) ** 2
    image = rng.integers(90, 150, (side, side, 3)).astype(np.uint8)
    image[..., 1] += 40
    image[water] = (30, 50, 90)
    return image, np.where(water, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ponds")
    for split, count in (("train", 8), ("validation", 4), ("test", 3)):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for n in range(count):
            image, label = pond(n + 100 * len(split))
            Image.fromarray(image).save(folder / split / "images" / f"{split}{n}.png")
            Image.fromarray(label).save(folder / split / "masks" / f"{split}{n}.png")
    return folder


@pytest.fixture(scope="module", params=["tiny", "sam"])
def base(request, tiny_weights, tiny_sam_folder):
    return str(tiny_weights if request.param == "tiny" else tiny_sam_folder)


def run(tiles, base, out, **options):
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    return finetune(tiles, settings, out, TuneOptions.of({**FAST, **options}))


# On a CPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 0.5])
def test_what_a_cpu_learns_faster_is_the_same_function(monkeypatch, scale):
    """Attention of few scores and GELU in bfloat16, forward and back; anything else is left to torch."""
    asked = []
    monkeypatch.setattr(quick_room, "_attend", lambda *given: asked.append(given) or attend(*given))
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.bfloat16) for n in (64, 5, 5))

    def learned(way):
        parts = [part.clone().requires_grad_() for part in (q, k, v)]
        with way:
            found = F.gelu(F.scaled_dot_product_attention(*parts, scale=scale))
        found.float().square().sum().backward()
        return [found, *(part.grad for part in parts)]

    plain = learned(nullcontext())
    assert not asked
    for one, other in zip(plain, learned(quick(torch.device("cpu"), torch.bfloat16)), strict=True):
        assert one.dtype == other.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    assert len(asked) == 1
    monkeypatch.setattr(quick_room, "_SCORES", 64 * 5 - 1)
    learned(quick(torch.device("cpu"), torch.bfloat16))
    with quick(torch.device("cpu"), torch.bfloat16):
        F.scaled_dot_product_attention(q, q, q, is_causal=True)
    learned(quick(torch.device("cpu"), torch.float32))
    assert len(asked) == 1


def test_lessons_on_a_cpu_with_bfloat16_are_learned_the_faster_way(tiles, tiny_sam_folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(quick_room, "_attend", lambda *given: asked.append(given) or attend(*given))
    settings = ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="bfloat16")
    finetune(tiles, settings, tmp_path / "run", TuneOptions.of({**FAST, "epochs": 1}))
    assert asked


# The whole -----------------------------------------------------------------------------------------------------------


def test_a_tuned_decoder_is_better_and_loads_on_its_base(tiles, base, tmp_path):
    epochs = 12 if "tiny.safetensors" in base else 60  # A random SAM of a few thousand weights is slow to learn.
    tuned = run(tiles, base, tmp_path / "run", epochs=epochs, learning_rate=3e-3, patience=99, none=0, dense=0)
    assert tuned.after["oracle"] > tuned.before["oracle"] + 0.05
    assert set(tuned.test_after) == set(tuned.before)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best", "last", "log.jsonl", "state.pt", "validation.png", "tiles"} <= names
    model = load_model(ModelOptions(name=str(tuned.folder), device="cpu", dtype="float32"))
    from geosam.finetune.scoring import score

    data = open_labelled(tiles)
    store = open_store(data, load_model(ModelOptions(name=base, device="cpu", dtype="float32")),
                       tmp_path / "run" / "tiles", views=1, pixels=False, ranks=Ranks())  # fmt: skip
    assert store.reused
    again = score(model, store, store.of_split("validation"), Ranks())
    assert again == pytest.approx(tuned.after, abs=1e-6)


def test_only_the_decoder_is_in_the_file_and_the_rest_is_untouched(tiles, base, tmp_path):
    from safetensors.torch import load_file

    tuned = run(tiles, base, tmp_path / "run", epochs=1)
    names = set(load_file(tuned.folder / "tuned.safetensors"))
    assert names
    # river-tiny's way down decodes where nothing is asked, though it stands in the encoder.
    assert all(name.startswith(("mask_decoder.", "image_encoder.way_down.")) for name in names)
    assert any("way_down" in name for name in names) == ("tiny.safetensors" in base)


@pytest.mark.parametrize("train", ["decoder+prompt", "lora", "all"])
def test_more_than_the_decoder_can_learn(tiles, base, tmp_path, train):
    before = load_model(ModelOptions(name=base, device="cpu", dtype="float32")).module.state_dict()
    tuned = run(tiles, base, tmp_path / "run", epochs=1, train=train, boxes=0.5)
    after = load_model(ModelOptions(name=str(tuned.folder), device="cpu", dtype="float32")).module.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    others = ("prompt_encoder", "image_encoder.way_down")
    encoder = {name for name in moved if "encoder" in name.split(".")[0] and not name.startswith(others)}
    assert any(name.startswith("mask_decoder.") for name in moved)
    assert bool(encoder) == (train in ("lora", "all"))


def test_a_run_that_was_cut_off_goes_on_with_the_same_curve(tiles, base, tmp_path, monkeypatch):
    from geosam.finetune.tune import Tuner

    run(tiles, base, tmp_path / "whole", epochs=3, ema=0.5)
    one_epoch = Tuner._one_epoch

    def killed(self, progress):
        if self.epoch == 2:
            raise KeyboardInterrupt
        one_epoch(self, progress)

    monkeypatch.setattr(Tuner, "_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiles, base, tmp_path / "cut", epochs=3, ema=0.5)
    monkeypatch.setattr(Tuner, "_one_epoch", one_epoch)
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    finetune(tiles, settings, tmp_path / "cut", TuneOptions.of({**FAST, "epochs": 3, "ema": 0.5}), resume=True)
    whole, cut_off = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "cut")
    )
    assert [row["epoch"] for row in cut_off] == [1, 2, 3]
    for one, other in zip(whole, cut_off, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["rows"] == pytest.approx(other["rows"], abs=1e-6)


def test_a_run_that_was_killed_leaves_no_line_twice(tiles, tiny_weights, tmp_path):
    settings = ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32")
    run(tiles, str(tiny_weights), tmp_path / "run", epochs=2)
    log = tmp_path / "run" / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"epoch": 3, "loss": 0.1}\n{"epoch": 4, "lo')  # Killed before and while it wrote.
    finetune(tiles, settings, tmp_path / "run", TuneOptions.of(FAST), resume=True)
    assert log.read_text() == whole
    (tmp_path / "run" / "state.pt").unlink()  # Killed in its first epoch: nothing to go on from.
    finetune(tiles, settings, tmp_path / "run", TuneOptions.of(FAST), resume=True)
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]


def test_a_run_with_other_options_does_not_go_on(tiles, base, tmp_path):
    run(tiles, base, tmp_path / "run", epochs=1)
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    with pytest.raises(RunError, match=r"with epochs 1, not 2; seed 42, not 1, so it cannot go on"):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of({**FAST, "seed": 1}), resume=True)


def test_two_processes_have_the_losses_of_one(tiles, tiny_weights, tmp_path):
    arguments = ["--dataset", str(tiles), "--model", str(tiny_weights), "--epochs", "3", "--batch-size", "4",
                 "--learning-rate", "3e-3", "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    # Not accelerate launch --cpu, which starts a single process where there is no MPI. Standalone: on a free port.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "geosam"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, start in (("one", [sys.executable, "-m", "geosam"]), ("two", launch)):
        call = [*start, "finetune", *arguments, "--out", str(tmp_path / name)]
        done = subprocess.run(call, capture_output=True, text=True, env=env, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [row["processes"] for row in one + two] == [1, 1, 1, 2, 2, 2]
    assert one[0]["loss"] > one[-1]["loss"] * 1.02  # It learns, so that processes that do not share would show.
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        assert a["rows"]["oracle"] == pytest.approx(b["rows"]["oracle"], abs=0.02)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best(tiles, base, tmp_path, monkeypatch):
    from geosam.finetune import lessons

    loss = lessons.mask_loss
    calls = []

    def broken(*args):
        calls.append(1)
        return loss(*args) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(lessons, "mask_loss", broken)
    with pytest.raises(RunError, match="not a number in epoch"):
        run(tiles, base, tmp_path / "run", epochs=9)
    assert (tmp_path / "run" / "best" / "tuned.safetensors").is_file()


@pytest.mark.parametrize(
    ("what", "error"), [("torch.save", RuntimeError("PytorchStreamWriter failed")), ("save_file", OSError(28, "full"))]
)
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_written(
    tiles, base, tmp_path, monkeypatch, what, error
):
    def fills(_values, path, **_rest):
        path.write_bytes(b"half")
        raise error

    run(tiles, base, tmp_path / "run", epochs=1)
    kept = (tmp_path / "run" / "best" / "tuned.safetensors").read_bytes()
    monkeypatch.setattr(f"geosam.finetune.tuned.{what}", fills)
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    with pytest.raises(OutputError, match=r"cannot be written \((full|PytorchStream.*)\). Free space and go on with"):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of({**FAST, "seed": 1}), overwrite=True)
    assert not list((tmp_path / "run").rglob("*.part"))
    assert what == "torch.save" or (tmp_path / "run" / "best" / "tuned.safetensors").read_bytes() == kept


def test_out_of_memory_halves_what_is_done_at_once_and_changes_nothing(tiles, base, tmp_path, monkeypatch):
    from geosam.finetune.lessons import Lessons

    plain = run(tiles, base, tmp_path / "plain", epochs=1)
    loss = Lessons.loss

    def small(self, lessons):
        if len(lessons) > 2:
            raise torch.OutOfMemoryError("too much")
        return loss(self, lessons)

    monkeypatch.setattr(Lessons, "loss", small)
    halved = run(tiles, base, tmp_path / "halved", epochs=1)
    assert any("2 tiles at once" in note for note in halved.notes)
    assert halved.after == pytest.approx(plain.after, abs=1e-3)


def test_tiles_are_encoded_and_scored_in_parts_that_fit():
    done, tried = [], []

    def small(numbers):
        tried.append(len(numbers))
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("too much")
        done.extend(numbers)

    in_parts(range(7), 8, small)
    assert done == list(range(7))
    assert tried == [7, 4, 2, 2, 2, 1]

    def never(numbers):
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(RunError, match="memory is too small for one tile"):
        in_parts(range(7), 4, never)


def test_a_run_that_made_things_worse_says_so(tiles, base, tmp_path):
    tuned = run(tiles, base, tmp_path / "run", epochs=1)
    tuned.before, tuned.after = {"auto": 0.9, "oracle": 0.9}, {"auto": 0.8, "oracle": 0.9}
    assert any("worse than the untouched one on the validation tiles" in line for line in tuned.report())
    tuned.test_before, tuned.test_after = tuned.before, tuned.after
    tuned.after = {"auto": 0.95, "oracle": 0.9}
    told = [line for line in tuned.report() if "worse than the untouched" in line]
    assert told == ["note: the tuned model is worse than the untouched one on the test tiles; keep the old one"]
    tuned.test_after = {}
    assert not any("note" in line for line in tuned.report(notes=False))
    tuned.before, tuned.after = {"auto": 0.8, "oracle": 0.5, "none": 0.8}, {"auto": 0.9, "oracle": 0.49, "none": 0.798}
    assert tuned.report()[-1] == "note: mean IoU of oracle fell on the validation tiles; look before you use it"


def test_what_is_left_open_suits_the_model_and_is_told(tiles, base, tmp_path):
    small = "tiny.safetensors" in base
    said = []
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    tuned = finetune(tiles, settings, tmp_path / "run", TuneOptions(epochs=1, batch=8), warn=said.append)
    suits = SMALL if small else SAM
    line = f"--learning-rate {suits.learning_rate:g} and --views {suits.views}, as suits "
    assert any(note.startswith(line) for note in tuned.notes)
    assert said == tuned.notes
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert (row["learning_rate"], row["views"]) == (suits.learning_rate, suits.views)
    assert row["rate"] == pytest.approx(suits.learning_rate, rel=0.9)
    notes = json.loads((tuned.folder / "geosam.json").read_text())
    assert notes["options"]["views"] == suits.views
    arrays = [path for path in (tmp_path / "run" / "tiles").glob("*.npy") if path.stem not in ("labels", "guesses")]
    assert {np.load(path, mmap_mode="r").shape[1] for path in arrays} == {suits.views}


def test_what_is_given_is_kept_and_mobile_sam_counts_as_a_sam(tiny_weights):
    from geosam.models.network import TinySam, TinySamConfig

    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu"))
    options, suits, line = suited(TuneOptions(views=2), model)
    assert (options.views, options.learning_rate, suits.views) == (2, SMALL.learning_rate, 2)
    assert line == f"--learning-rate {SMALL.learning_rate:g}, as suits tiny"
    assert suited(TuneOptions(views=2, learning_rate=1.0), model)[2] is None
    mobile = SimpleNamespace(module=TinySam(TinySamConfig(image_size=64, skips=False)), name="mobile")
    assert suited(TuneOptions(), mobile)[1] == SAM


def test_the_manual_tells_what_suits_which_model():
    from geosam.cli.finetune import command

    told = " ".join(option.help or "" for option in command.params)
    assert "3e-4 for river-tiny and 2e-4 for a SAM" in told
    assert "8 for river-tiny and 1 for a SAM" in told
    assert (SMALL.learning_rate, SMALL.views, SAM.learning_rate, SAM.views) == (3e-4, 8, 2e-4, 1)


def test_norms_keep_their_statistics_where_everything_learns(tiles, tiny_weights, tmp_path):
    before = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32")).module.state_dict()
    tuned = run(tiles, str(tiny_weights), tmp_path / "run", epochs=1, train="all", views=1)
    after = load_model(ModelOptions(name=str(tuned.folder), device="cpu", dtype="float32")).module.state_dict()
    kept = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert any(not torch.equal(before[name], after[name]) for name in before if "backbone" in name)


def test_a_question_about_one_body_does_not_teach_the_way_down(tiny_weights):
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))
    model.module.requires_grad_(True)
    images = torch.from_numpy(pond(1)[0].transpose(2, 0, 1))[None]
    features = embeddings_of(model, encoded(model, images))
    assert features.water.requires_grad
    assert not any(part.requires_grad for part in vars(detached(features)).values())


def test_the_water_that_river_tiny_sees_unasked_is_tuned_too(tiles, tiny_weights, tmp_path):
    tuned = run(tiles, str(tiny_weights), tmp_path / "run", epochs=12, learning_rate=3e-3, patience=99)
    assert tuned.after["none"] > tuned.before["none"] + 0.05
    assert load_model(ModelOptions(name=str(tuned.folder), device="cpu")).plain


def test_early_stop(tiles, base, tmp_path):
    tuned = run(tiles, base, tmp_path / "run", epochs=30, learning_rate=1e-12, patience=2)
    assert tuned.epochs == 3


# The cache -----------------------------------------------------------------------------------------------------------


def test_the_encoder_runs_once_a_tile_and_view(tiles, base, tmp_path, monkeypatch):
    model = load_model(ModelOptions(name=base, device="cpu", dtype="float32"))
    seen = []
    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, images: seen.append(len(images)) or encode(self, images))
    data = open_labelled(tiles)
    first = open_store(data, model, tmp_path / "c", views=4, pixels=False, ranks=Ranks())
    assert not first.reused
    assert sum(seen) == 15 * 4 + 1  # The one finds the shapes out.
    assert open_store(data, model, tmp_path / "c", views=4, pixels=False, ranks=Ranks()).reused
    assert sum(seen) == 15 * 4 + 1


def test_a_cache_of_another_model_is_made_again_and_said_so(tiles, tiny_weights, tiny_sam_folder, tmp_path):
    data = open_labelled(tiles)
    for name, note in ((tiny_weights, False), (tiny_sam_folder, True)):
        model = load_model(ModelOptions(name=str(name), device="cpu", dtype="float32"))
        store = open_store(data, model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())
        assert not store.reused
        assert bool(store.notes) is note


def test_a_damaged_cache_is_made_again_and_said_so(tiles, tiny_weights, tmp_path):
    data = open_labelled(tiles)
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))

    def opened():
        return open_store(data, model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())

    labels = opened().labels.copy()
    kept = tmp_path / "c" / "labels.npy"
    whole = kept.read_bytes()
    for spoil in (kept.unlink, lambda: kept.write_bytes(b"xx"), lambda: kept.write_bytes(whole[: len(whole) // 2])):
        spoil()
        again = opened()
        assert not again.reused
        assert any("is damaged: made again" in note for note in again.notes)
        assert np.array_equal(again.labels, labels)
    (tmp_path / "c" / "signature.json").write_text("[1]")
    with pytest.raises(OutputError, match="of no cache of geosam"):
        opened()


def test_a_cache_leaves_what_is_not_its_own(tiles, tiny_weights, tiny_sam_folder, tmp_path):
    data = open_labelled(tiles)
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "mine.npy", np.arange(3))
    for name in (tiny_weights, tiny_sam_folder, tiny_weights):
        model = load_model(ModelOptions(name=str(name), device="cpu", dtype="float32"))
        store = open_store(data, model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())
        arrays = {"labels", "guesses", *store.arrays}
        assert "mine" not in arrays
        assert {path.stem for path in (tmp_path / "c").glob("*.npy")} == {"mine", *arrays}
    assert np.load(tmp_path / "c" / "mine.npy").tolist() == [0, 1, 2]


def test_a_cache_that_was_cut_off_while_it_was_made_is_made_again(tiles, tiny_weights, tmp_path, monkeypatch):
    data = open_labelled(tiles)
    model = load_model(ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_room._Builder, "_encode", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(data, model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())
    store = open_store(data, model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())
    assert (store.reused, store.notes) == (False, [])


def test_a_cache_that_cannot_be_written_is_told(tiles, base, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    settings = ModelOptions(name=base, device="cpu", dtype="float32")
    with pytest.raises(OutputError, match=r"is a file. Give --cache a folder"):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of(FAST), cache=tmp_path / "file")
    with pytest.raises(OutputError, match="Not a directory"):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of(FAST), cache=tmp_path / "file" / "under")
    assert not (tmp_path / "run").exists()

    def fills(path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", fills)
    with pytest.raises(OutputError, match=r"cannot be written .No space left on device"):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of(FAST))
    assert not (tmp_path / "run").exists()


def test_kept_embeddings_are_those_of_the_turned_tile(tiles, base, tmp_path):
    model = load_model(ModelOptions(name=base, device="cpu", dtype="float32"))
    data = open_labelled(tiles)
    store = open_store(data, model, tmp_path / "c", views=8, pixels=False, ranks=Ranks())
    chip = store.chips[3]
    image, label = cut(*data.splits[chip.split][chip.tile].read(), chip.row, chip.col, model.tile_px)
    assert np.array_equal(store.labels[3], label)
    for view in (0, 3, 6):
        wanted = encoded(model, torch.from_numpy(turned(image, view))[None])
        for name, values in store.tensors([3], [view]).items():
            assert torch.allclose(values.float(), wanted[name].float(), atol=2e-2, rtol=2e-2)


def test_what_is_kept_gives_the_embeddings_of_the_tile(tiles, base):
    model = load_model(ModelOptions(name=base, device="cpu", dtype="float32"))
    images = torch.from_numpy(np.stack([pond(n)[0].transpose(2, 0, 1) for n in range(2)]))
    found = [model.embed(images), embeddings_of(model, encoded(model, images))]
    whole, again = ([part for part in vars(one).values() if isinstance(part, torch.Tensor)] for one in found)
    assert whole
    for one, other in zip(whole, again, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_full_disk_is_told_before_anything_is_encoded(tiles, base, tmp_path, monkeypatch):
    usage = store_room.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(store_room.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="GiB are free"):
        run(tiles, base, tmp_path / "run")


def test_large_images_are_cut_end_to_end_and_small_ones_filled_up():
    assert corners(64, 64) == [0]
    assert corners(40, 64) == [0]
    assert corners(150, 64) == [0, 64, 86]
    image, label = pond(1)
    picture, truth = cut(image[:40], label[:40], 0, 0, 64)
    assert picture.shape == (3, 64, 64)
    assert (truth[40:] == 128).all()
    assert np.array_equal(picture[:, :40], image[:40].transpose(2, 0, 1))


def test_corrupt_images_are_counted_and_too_many_stop_the_run(tiles, base, tmp_path, monkeypatch):
    shutil.copytree(tiles, tmp_path / "some")
    (tmp_path / "some" / "train" / "images" / "train3.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"1 of 15 images cannot be used.*train3\.png"):
        run(tmp_path / "some", base, tmp_path / "run")
    monkeypatch.setattr(store_room, "_MOST_BAD", 0.5)
    tuned = run(tmp_path / "some", base, tmp_path / "more", epochs=1)
    assert "1 of 15 images are skipped" in tuned.notes
    assert any("skipped" in note and "train3.png" in note for note in tuned.notes)


def test_weights_say_how_often_a_tile_is_drawn():
    numbers = list(range(10, 20))
    equal = drawn(numbers, [0.4] * 10, np.random.default_rng(0))
    assert sorted(equal.tolist()) == numbers
    assert equal.tolist() != numbers
    epochs = [drawn(numbers, [2, 0, *[1] * 8], np.random.default_rng(seed)) for seed in range(20)]
    counts = np.bincount(np.concatenate(epochs), minlength=20)[10:]
    assert [len(epoch) for epoch in epochs] == [10] * 20
    assert counts[0] == 40
    assert counts[1] == 0
    assert (counts[2:] == 20).all()
    halves = [drawn(numbers, [0.5, *[1] * 9], np.random.default_rng(seed)) for seed in range(200)]
    assert 80 < np.bincount(np.concatenate(halves))[10] < 130


def test_an_index_with_weights_is_heeded(tiles, tiny_weights, tmp_path, monkeypatch):
    from geosam.finetune.tune import Tuner

    shutil.copytree(tiles, tmp_path / "some")
    rows = ["file,split,weight", *(f"train{n},train,{1 if n == 2 else 0}" for n in range(8))]
    for kind in ("images", "masks"):
        (tmp_path / "flat" / kind).mkdir(parents=True)
        for path in (tmp_path / "some" / "train" / kind).iterdir():
            shutil.copy(path, tmp_path / "flat" / kind)
        for path in (tmp_path / "some" / "validation" / kind).iterdir():
            shutil.copy(path, tmp_path / "flat" / kind)
    rows += [f"validation{n},val," for n in range(4)]
    (tmp_path / "flat" / "index.csv").write_text("\n".join(rows))
    seen, gradients = set(), Tuner._gradients

    def watched(self, lessons, whole):
        seen.update(self.data.splits["train"][self.store.chips[one.number].tile].name for one in lessons)
        return gradients(self, lessons, whole)

    monkeypatch.setattr(Tuner, "_gradients", watched)
    run(tmp_path / "flat", str(tiny_weights), tmp_path / "run", epochs=1)
    assert seen == {"train2"}
    (tmp_path / "flat" / "index.csv").write_text(
        "\n".join(row.removesuffix(",1") + ",0" * row.endswith(",1") for row in rows)
    )
    with pytest.raises(DatasetError, match="weight of 0"):
        run(tmp_path / "flat", str(tiny_weights), tmp_path / "none", epochs=1)


def test_labels_that_say_nothing_are_refused_and_those_without_water_are_told(tiles, tiny_weights, tmp_path):
    shutil.copytree(tiles, tmp_path / "some")
    for split, value, what in (("train", 128, "training tiles say nothing"), ("train", 0, None),
                               ("validation", 128, "validation tiles say nothing")):  # fmt: skip
        for path in (tmp_path / "some" / split / "masks").iterdir():
            Image.fromarray(np.full((64, 64), value, np.uint8)).save(path)
        if what is None:
            tuned = run(tmp_path / "some", str(tiny_weights), tmp_path / "run", epochs=1)
            assert any(note.startswith("no training tile has any water") for note in tuned.notes)
            continue
        with pytest.raises(DatasetError, match=what):
            run(tmp_path / "some", str(tiny_weights), tmp_path / "run2", epochs=1)


def test_a_fault_of_the_data_leaves_no_empty_folder(tiles, tiny_weights, tmp_path):
    shutil.copytree(tiles, tmp_path / "some")
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "some" / "train" / "masks" / "train3.png")
    with pytest.raises(DatasetError, match="40 x 30 px"):
        run(tmp_path / "some", str(tiny_weights), tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


# Questions -----------------------------------------------------------------------------------------------------------


def test_questions_ask_for_what_their_points_lie_in():
    _, label = pond(5)
    two = label.copy()
    two[:8, :8] = 255
    rng = np.random.default_rng(0)
    for kind in ("points", "box"):
        for _ in range(20):
            prompts, target = ask_about(two, two == 255, Way(kind, False, 3, 2), 1.0, rng)
            assert len(prompts) == 1
            assert (prompts.boxes is not None) == (kind == "box")
            assert (target == 255).sum() in {(label == 255).sum(), 64}
    assert ask_about(two, two == 255, Way("none", False, 3, 2), 1.0, rng)[0].points.shape == (1, 0, 2)
    hinted, target = ask_about(two, two == 255, Way("dense", True, 3, 2), 1.0, rng)
    assert np.array_equal(hinted.mask, two == 255)
    assert np.array_equal(target, two)


def test_ways_are_those_the_model_understands():
    options = TuneOptions()
    rng = np.random.default_rng(0)
    stock = {draw_way(options, frozenset({"points", "boxes"}), rng).kind for _ in range(300)}
    assert stock == {"points", "box"}
    taught = TuneOptions(learn_none=True, learn_dense=True)
    assert {draw_way(taught, frozenset({"points"}), rng).kind for _ in range(300)} == {"points", "box", "none", "dense"}


def test_the_automatic_row_is_asked_as_geosam_segment_asks(tiles, base, tmp_path, monkeypatch):
    model = load_model(ModelOptions(name=base, device="cpu", dtype="float32"))
    store = open_store(open_labelled(tiles), model, tmp_path / "c", views=1, pixels=False, ranks=Ranks())
    asked, decode = [], type(model).decode
    monkeypatch.setattr(
        type(model), "decode", lambda self, seen, prompts: asked.append(prompts[0]) or decode(self, seen, prompts)
    )
    found = masks(model, store, [0])
    assert np.array_equal(found["coarse"][0], store.guess(0))
    hinted = [prompts for prompts in asked if prompts.mask is not None]
    assert len(hinted) == 1
    assert np.array_equal(hinted[0].mask, store.guess(0))
    dry = store.guess(1) & False
    monkeypatch.setattr(store, "guess", lambda n: dry)
    assert not masks(model, store, [1])["auto"][0].any()


def test_a_model_can_learn_to_need_no_prompt(tiles, tiny_sam_folder, tmp_path):
    tuned = run(tiles, str(tiny_sam_folder), tmp_path / "run", epochs=1, learn_none=True, learn_dense=True)
    assert "none" in tuned.after
    model = load_model(ModelOptions(name=str(tuned.folder), device="cpu", dtype="float32"))
    assert {"none", "mask"} <= model.understands


def test_the_untouched_model_is_asked_as_it_would_be_without_tuning(tiles, tiny_sam_folder, tmp_path):
    plain = run(tiles, str(tiny_sam_folder), tmp_path / "plain", epochs=1)
    taught = run(tiles, str(tiny_sam_folder), tmp_path / "taught", epochs=1, learn_none=True, learn_dense=True)
    assert taught.before == plain.before
    assert taught.test_before == plain.test_before
    assert "none" in taught.test_after
    told = [line for line in taught.report() if "untouched model cannot be asked so" in line]
    assert [line.split()[:2] for line in told] == [["validation", "none"], ["test", "none"]]


def test_turning_is_the_group_d4():
    square = np.arange(9).reshape(1, 3, 3)
    assert len({turned(square, view).tobytes() for view in range(8)}) == 8
    assert np.array_equal(turned(square, 0), square)


# Losses --------------------------------------------------------------------------------------------------------------


def test_focal_loss_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    target = (torch.rand(3, 1, 8, 8, generator=generator) > 0.5).float()
    ours = focal(logits, target, torch.ones_like(target))
    theirs = sigmoid_focal_loss(logits, target, reduction="none").mean(dim=(1, 2, 3))
    assert torch.allclose(ours, theirs)


def test_boundary_loss_by_hand():
    # Water left of a bank between columns 1 and 2 of four: distances -2 -1 1 2, in quarters of the tile.
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(4, 1).view(1, 1, 4, 4)
    sure = torch.where(target > 0, 99.0, -99.0)
    assert boundary(sure, target, torch.ones_like(target), stride=1).item() == pytest.approx(-3 / 4 / 4)
    assert boundary(-sure, target, torch.ones_like(target), stride=1).item() == pytest.approx(3 / 4 / 4)
    assert boundary(sure, torch.ones_like(target), torch.ones_like(target), stride=1).item() == 0


@pytest.mark.parametrize("name", ["bce", "dice", "focal", "bce-dice", "sam", "boundary"])
def test_a_right_mask_costs_less_than_a_wrong_one(name):
    target = torch.zeros(2, 1, 16, 16)
    target[:, :, 4:12, 4:12] = 1
    known = torch.ones_like(target)
    sure = torch.where(target > 0, 9.0, -9.0)
    right, wrong = mask_loss(name, sure, target, known), mask_loss(name, -sure, target, known)
    assert right.shape == (2,)
    assert (right < wrong).all()


def test_multimask_learns_from_its_best_mask(tiles, base, tmp_path):
    tuned = run(tiles, base, tmp_path / "run", epochs=1, multimask=True)
    assert np.isfinite(tuned.after["oracle"])


# Bad input -----------------------------------------------------------------------------------------------------------


def test_a_run_is_not_overwritten_in_silence(tiles, base, tmp_path):
    run(tiles, base, tmp_path / "run", epochs=1)
    with pytest.raises(OutputError, match="holds a run already"):
        run(tiles, base, tmp_path / "run", epochs=1)


def test_weights_tuned_on_another_base_are_refused(tiles, tiny_weights, tmp_path):
    tuned = run(tiles, str(tiny_weights), tmp_path / "run", epochs=1)
    notes = json.loads((tuned.folder / "geosam.json").read_text())
    (tuned.folder / "geosam.json").write_text(json.dumps({**notes, "base_sha256": "0"}))
    with pytest.raises(ModelError, match="its weights differ"):
        load_model(ModelOptions(name=str(tuned.folder)))


def test_options_are_checked():
    with pytest.raises(OptionsError, match="unknown key 'epoch'"):
        TuneOptions.of({"epoch": 3})
    with pytest.raises(OptionsError, match="epochs"):
        TuneOptions.of({"epochs": 0})


def run_verb(call):
    with pytest.raises(SystemExit) as stopped:
        main(call)
    return stopped.value.code


def test_the_verb(tiles, tiny_weights, tmp_path, capsys):
    config = tmp_path / "c.toml"
    config.write_text(f'[run]\ndataset = "{tiles}"\nmodel = "{tiny_weights}"\n[finetune]\nepochs = 5\nbatch = 4\n')
    call = ["finetune", "--config", str(config), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]
    assert run_verb(call) == 0
    assert "untouched" in capsys.readouterr().out
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1


def test_the_verb_hands_its_data_options_on(tmp_path, monkeypatch, capsys):
    seen = {}

    def stop(dataset, model, out, options, *, data, **rest):
        seen.update(dataset=dataset, options=options, data=data)
        raise DatasetError("that is all")

    monkeypatch.setattr("geosam.finetune.finetune", stop)
    call = ["finetune", "--dataset", "tiles", "--out", str(tmp_path / "run"), "--columns", "0:0.5", "--names", "t*",
            "--group", "A", "--group", "B", "--limit", "7", "--image-bands", "3,4,4", "--gsd", "native",
            "--chip", "256", "--revision", "v1", "--water-ids", "3,4", "--ignore-value", "9",
            "--image-column", "photo"]  # fmt: skip
    assert run_verb(call) == 2
    data = seen["data"]
    assert (data.columns, data.names, data.groups, data.limit) == ((0, 0.5), "t*", ("A", "B"), 7)
    assert (data.bands, data.gsd, data.chip_px, data.revision) == ((3, 4, 4), "native", 256, "v1")
    assert (data.water_ids, data.ignore_value, data.image_column) == ((3, 4), 9, "photo")
    assert (seen["options"].learning_rate, seen["options"].views) == (None, None)
    for wrong in (["--gsd", "0"], ["--columns", "1:0"], ["--image-bands", "1,2"], ["--water-ids", "a"]):
        assert run_verb(["finetune", "--dataset", "tiles", "--out", str(tmp_path / "run"), *wrong]) == 2
    config = tmp_path / "c.toml"
    config.write_text('[run]\ndataset = "tiles"\n[dataset]\ngroups = ["A"]\ncolumns = [0.5, 1.0]\ngsd = 0.5\n')
    assert run_verb(["finetune", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    assert (seen["data"].groups, seen["data"].columns, seen["data"].gsd) == (("A",), (0.5, 1.0), 0.5)
    capsys.readouterr()
    config.write_text('[run]\ndataset = "tiles"\n[dataset]\ngsd = -1.0\n')
    assert run_verb(["finetune", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    assert "gsd must be above 0 m" in capsys.readouterr().err


def test_what_would_be_passed_over_in_silence_is_refused(tmp_path, capsys):
    config = tmp_path / "recipe.toml"
    config.write_text('[[data]]\nfolder = "synth"\nweight = 1.0\n')
    out = ["--out", str(tmp_path / "run")]
    recipe = ["finetune", "--config", str(config), "--data-root", str(tmp_path), *out]
    for wrong, word in (
        (["--epochs", "3"], "--epochs"),
        (["--dataset", "x"], "--dataset"),
        (["--chip", "64"], "--chip"),
    ):
        assert run_verb([*recipe, *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"geosam: {word} does not go with a recipe")
    assert run_verb(["finetune", "--dataset", "tiles", "--minutes", "3", *out]) == 2
    assert "--minutes is for a recipe" in capsys.readouterr().err


def test_a_recipe_does_not_overwrite_a_run_in_silence(tmp_path, monkeypatch, capsys):
    config, out, called = tmp_path / "recipe.toml", tmp_path / "run", []
    config.write_text('[[data]]\nfolder = "synth"\nweight = 1.0\n')
    out.mkdir()
    call = ["finetune", "--config", str(config), "--data-root", str(tmp_path), "--out", str(out)]
    for name in ("state.pt", "log.jsonl"):
        (out / name).write_text("earlier")
    assert run_verb(call) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert {path.read_text() for path in out.iterdir()} == {"earlier"}
    monkeypatch.setattr("geosam.finetune.loop.train", lambda *_, **given: called.append(given) or out)
    for asked in ("resume", "overwrite"):
        assert run_verb([*call, f"--{asked}"]) == 0
        assert {name: called[-1][name] for name in ("resume", "overwrite")} == {
            name: name == asked for name in ("resume", "overwrite")
        }


def test_orthoimages_are_tuned_on_at_the_resolution_they_are_run_at(tmp_path, monkeypatch):
    from geosam.pipeline import at_working_gsd

    seen = []

    def stop(dataset, data, working):
        seen.append(working)
        raise DatasetError("that is all")

    monkeypatch.setattr("geosam.finetune.run.open_labelled", stop)
    with pytest.raises(DatasetError, match="that is all"):
        finetune("orthos", out=tmp_path / "run")
    assert seen == [at_working_gsd]


def test_the_verb_needs_something_to_learn_from(tmp_path, capsys):
    assert run_verb(["finetune", "--out", str(tmp_path / "run")]) == 2
    assert "Give --dataset" in capsys.readouterr().err


def test_pushing_is_checked_before_and_told_after(tiles, tiny_weights, tmp_path, monkeypatch, capsys):
    from geosam.finetune import publish

    call = ["finetune", "--dataset", str(tiles), "--out", str(tmp_path / "x"), "--push-to-hub"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for repo, word in (("me", "not of the form owner/name"), ("me/rivers", "nobody is logged in")):
        assert run_verb([*call, repo]) == 2
        assert word in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run_verb([*call, "me/rivers"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "HF_HUB_OFFLINE is set" in lines[0]
    assert not (tmp_path / "x").exists()
    calls = []

    class Api:
        def create_repo(self, repo, exist_ok):
            calls.append(repo)

        def upload_folder(self, repo_id, folder_path):
            calls.append(sorted(path.name for path in folder_path.iterdir()))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    tuned = run(tiles, str(tiny_weights), tmp_path / "run", epochs=1)
    assert publish.push(tuned.folder, "me/rivers").endswith("me/rivers")
    assert calls == ["me/rivers", ["geosam.json", "tuned.safetensors"]]


def test_tensorboard_has_the_figures_of_the_log(tiles, tiny_weights, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra train is not installed")
    call = ["finetune", "--dataset", str(tiles), "--model", str(tiny_weights), "--epochs", "2", "--device", "cpu"]
    # In a process of its own: tensorboard brings a flood of deprecation warnings.
    assert (
        subprocess.run(
            [sys.executable, "-m", "geosam", *call, "--out", str(tmp_path / "x"), "--tensorboard"]
        ).returncode
        == 0
    )
    read = "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
    read += "e = E(sys.argv[1]); e.Reload(); print([(s.step, s.value) for s in e.Scalars('oracle')])"
    done = subprocess.run([sys.executable, "-c", read, str(tmp_path / "x/tensorboard")], capture_output=True, text=True)
    rows = [json.loads(line) for line in (tmp_path / "x/log.jsonl").read_text().splitlines()]
    wanted = [(row["epoch"], pytest.approx(row["rows"]["oracle"], rel=1e-5)) for row in rows]
    assert eval(done.stdout) == wanted, done.stderr[-500:]


def test_every_epoch_of_a_run_that_goes_on_is_logged_elsewhere_once(tiles, tiny_weights, tmp_path, monkeypatch):
    told = []

    class Board:
        def __init__(self, folder):
            assert folder == tmp_path / "run" / "tensorboard"
            told.clear()

        def add(self, row):
            told.append((row["epoch"], row["loss"]))
            if row["epoch"] == 2 and len(told) == 2 and not again:
                raise KeyboardInterrupt  # As it comes, not at the end: of an epoch, before the state is kept.

    monkeypatch.setattr("geosam.finetune.run.Board", Board)
    settings = ModelOptions(name=str(tiny_weights), device="cpu", dtype="float32")
    again = False
    with pytest.raises(KeyboardInterrupt):
        finetune(tiles, settings, tmp_path / "run", TuneOptions.of({**FAST, "epochs": 3}), tensorboard=True)
    again = True
    finetune(tiles, settings, tmp_path / "run", TuneOptions.of({**FAST, "epochs": 3}), tensorboard=True, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert told == [(row["epoch"], row["loss"]) for row in rows]
    assert [epoch for epoch, _ in told] == [1, 2, 3]


def test_tensorboard_is_asked_for_before_the_run(tiles, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_verb(["finetune", "--dataset", str(tiles), "--out", str(tmp_path / "x"), "--tensorboard"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
