"""What a GPU makes of geosam: tiles a second by model, batch and precision, its share of the chip, and the whole job.

    python benchmarks/gpu.py                                          all models, half an hour or so
    python benchmarks/gpu.py --models sam-vit-huge --batches 8 16 32  one of them
    python benchmarks/gpu.py --models sam-vit-base --large 50000      and the whole job on a scene of 50,000 px
    python benchmarks/gpu.py --device cpu --tiny                      a rehearsal where there is no GPU

- **Rate**: what the chip does in a product of two large square matrices, in the same precision, measured here.
- **Share**: the encoder's multiplications and additions, counted by torch.utils.flop_counter, times tiles a second,
  over that rate. Tokens that only fill up windows are not counted where geosam does not compute them.
- **Busy**: the part of the time of predicting in which a kernel ran, by the profiler; without a GPU there is none.
- **By stage**: seconds in which the device embedded, decoded and blended, and in which the host waited for readers and
  device; they overlap. What a job spent them on is in the last table, kernel by kernel.
- Beside it all: transformers' own encoder, float32, one tile at a time, and the plain loop of ancestor.py.

SAMs have random weights (random_sam.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

import measure
import torch
from random_sam import SIZES, random_sam, saved
from run import machine
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import geosam
from geosam.models import load_model
from geosam.models.attention import encode
from geosam.options import ModelOptions, SegmentOptions

HERE = Path(__file__).parent
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [name for name in SIZES if name != "tiny"]
    parser.add_argument("--models", nargs="+", default=[*models, "river-tiny"], help="names, or folders of a SAM")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=10, help="batches, of which the median is told")
    parser.add_argument("--size", type=int, default=8192, help="side of the whole job's scene in pixels; 0: none")
    parser.add_argument(
        "--large", type=int, default=50_000, help="side of one more scene, for the first model; 0: none"
    )
    parser.add_argument("--slow-tiles", type=int, default=8, help="tiles the plain loop runs on")
    parser.add_argument("--folder", default="runs/gpu", help="random weights, kept")
    parser.add_argument("--tiny", action="store_true", help="a small random SAM, one small batch, a small scene")
    asked = parser.parse_args()
    if asked.tiny:
        asked.models, asked.batches, asked.dtypes = ["tiny", "river-tiny"], [2], ["bfloat16"]
        asked.repeat, asked.size, asked.large, asked.slow_tiles = 2, 512, 768, 2
    asked.device = torch.device(asked.device)
    print(f"{machine()}\n{chip(asked.device)}\n")
    show(encoding(asked), ("model", "way", "precision", "batch", "ms a tile", "tiles a second", "share"))
    kernels: list[tuple[Any, ...]] = []
    jobs = ("job", "scene, px", "seconds", "tiles run", "tiles a second", "busy in predict", "by stage")
    if asked.size or asked.large:
        show(whole_jobs(asked, kernels), jobs)
        show(iter(kernels), ("job", "kernel", "calls", "share of device time"))


def chip(device: torch.device) -> str:
    if device.type != "cuda":
        return "No GPU: the tables are a rehearsal."
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}."


def show(rows: Iterator[tuple[Any, ...]], titles: tuple[str, ...]) -> None:
    """A table in Markdown, each line as soon as it is measured."""
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print()


# The encoder ---------------------------------------------------------------------------------------------------------


def encoding(asked: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    side = 1024 if asked.device.type == "cpu" else 8192
    rates = {name: matrix_rate(side, getattr(torch, name), asked) for name in {*asked.dtypes, "float32"}}
    for name, rate in rates.items():
        yield "(rate)", f"{side} x {side} matrices", name, "", "", f"{rate / 1e12:.2f} TFLOP/s", ""
    for name in asked.models:
        flops = flops_of(name)
        for way, precision, batch, run in ways(name, asked):
            seconds = timed(run, asked)
            share = flops * batch / seconds / rates[precision]
            yield name, way, precision, batch, f"{1e3 * seconds / batch:.2f}", f"{batch / seconds:.2f}", f"{share:.2f}"


def ways(name: str, asked: argparse.Namespace) -> Iterator[tuple[str, str, int, Callable[[], Any]]]:
    """What is timed of a model: way, precision, batch, and what runs one batch."""
    if name in SIZES:
        model = random_sam(name).to(asked.device)
        pixels = torch.randn(1, 3, *(model.config.vision_config.image_size,) * 2, device=asked.device)
        yield "transformers", "float32", 1, lambda: model.vision_encoder(pixels)
        del model
    for precision in asked.dtypes:
        for compiled in (False, True):
            ours: Any = load_model(options_of(name, asked, precision, compiled))
            for batch in asked.batches:
                images = torch.randint(0, 256, (batch, 3, ours.tile_px, ours.tile_px), dtype=torch.uint8)
                yield f"geosam{' --compile' * compiled}", precision, batch, lambda m=ours, i=images: m.embed(i)


def options_of(name: str, asked: argparse.Namespace, precision: str, compiled: bool) -> ModelOptions:
    named = str(saved(name, Path(asked.folder) / name)) if name in SIZES else name
    return ModelOptions(name=named, device=asked.device.type, dtype=precision, compile=compiled)


@torch.inference_mode()
def timed(run: Callable[[], Any], asked: argparse.Namespace) -> float:
    """Median seconds of a call, after two that warm up."""
    with warnings.catch_warnings(action="always"):  # A compiler that fails is to be seen.
        spent = [once(run, asked.device) for _ in range(asked.repeat + 2)]
    return median(spent[2:])


def once(run: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(side: int, dtype: torch.dtype, asked: argparse.Namespace) -> float:
    """Floating-point operations a second in a product of two square matrices."""
    a, b = (torch.randn(side, side, device=asked.device).to(dtype) for _ in range(2))
    return float(2 * side**3 / timed(lambda: a @ b, asked))


def flops_of(name: str) -> int:
    """Multiplications and additions of encoding one tile."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if name in SIZES:
            model = random_sam(name).to("meta")
            pixels = torch.empty(1, 3, *(model.config.vision_config.image_size,) * 2, device="meta")
            encode(model.vision_encoder, pixels, attend=counted)
        else:
            ours: Any = load_model(ModelOptions(name=name, device="cpu", dtype="float32"))
            ours.embed(torch.zeros(1, 3, ours.tile_px, ours.tile_px, dtype=torch.uint8))
    return counter.get_total_flops()


def counted(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_col: Tensor) -> Tensor:
    """Attention of products that the counter knows."""
    bias = (by_row[..., None] + by_col[..., None, :]).flatten(2)
    return (torch.bmm(q, k.transpose(1, 2)) + bias).softmax(-1).bmm(v)


# The whole job -------------------------------------------------------------------------------------------------------


def whole_jobs(asked: argparse.Namespace, kernels: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for name in asked.models if asked.size else ():
        for compiled in (False, True):
            yield job(name, asked.size, compiled, asked, kernels)
        if name in SIZES:
            yield plain_loop(name, asked)
    if asked.large:  # Not by the profiler, which keeps every kernel of a run in memory.
        yield job(asked.models[0], asked.large, False, asked, None)


def job(
    name: str, size: int, compiled: bool, asked: argparse.Namespace, kernels: list[tuple[Any, ...]] | None
) -> tuple[Any, ...]:
    """A row: from opening the scene to the written file. What the device spent it on is added to ``kernels``."""
    title = f"geosam segment, {name}{' --compile' * compiled}"
    model = options_of(name, asked, asked.dtypes[0], compiled)
    options = SegmentOptions.from_mapping({"model": model.model_dump(), "scene": {"gsd": "native"}})
    scene, busy = measure.scene(size), "not measured"
    with tempfile.TemporaryDirectory() as folder, profiled(asked.device, kernels is not None) as profiler:
        started = time.perf_counter()
        report = geosam.segment(scene, options, out=Path(folder) / "rivers.gpkg").report
        seconds = time.perf_counter() - started
    tiles, spent = report["tiles"]["run"], report["seconds"]["predict"]
    if kernels is not None:
        kernels += [(title, *row) for row in most_time(profiler, asked.device)]
        busy = f"{busy_seconds(profiler) / spent:.2f}" if asked.device.type == "cuda" else "no GPU"
    stages = ", ".join(f"{stage} {value:g}" for stage, value in report["tile_seconds"].items())
    return title, f"{size:,}", f"{seconds:.1f}", tiles, f"{tiles / spent:.2f}", busy, stages


@contextmanager
def profiled(device: torch.device, wanted: bool) -> Iterator[Any]:
    """torch's profiler of the device, or nothing."""
    if not wanted:
        yield None
        return
    kind = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiler:
        yield profiler


def most_time(profiler: Any, device: torch.device, most: int = 8) -> list[tuple[Any, ...]]:
    """The kernels that took most of the device's time: name, calls, share."""
    time_of = attrgetter("self_device_time_total" if device.type == "cuda" else "self_cpu_time_total")
    found = sorted(profiler.key_averages(), key=time_of, reverse=True)
    total = sum(map(time_of, found)) or 1.0
    return [(one.key[:70].replace("|", "/"), one.count, f"{time_of(one) / total:.2f}") for one in found[:most]]


def busy_seconds(profiler: Any) -> float:
    """Seconds in which at least one kernel or copy ran on the GPU."""
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy, reached = 0.0, 0.0
    for begin, end in sorted((event.time_range.start, event.time_range.end) for event in events):
        busy += max(end - max(begin, reached), 0)
        reached = max(reached, end)
    return busy / 1e6


def plain_loop(name: str, asked: argparse.Namespace) -> tuple[Any, ...]:
    """A row: the same of ``ancestor.py`` on the first tiles of the scene."""
    scene, model = measure.scene(asked.size), saved(name, Path(asked.folder) / name)
    tiles = [str(n) for n in range(asked.slow_tiles)]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model", str(model), "--out", folder, "--device", asked.device.type, "--only", *tiles]
        command = [sys.executable, str(HERE / "ancestor.py"), str(scene), *options]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    told = json.loads(said.splitlines()[-1])
    spent = list(told["tile_seconds"].values())[1:]  # The first warms up.
    of_all = f"{len(tiles)} (of {told['tiles']})"
    return f"the plain loop, {name}", f"{asked.size:,}", "", of_all, f"{len(spent) / sum(spent):.2f}", "", ""


if __name__ == "__main__":
    main()
