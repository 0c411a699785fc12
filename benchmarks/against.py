"""geosam beside the plain transformers loop and segment-geospatial: one scene, the same random weights, one run.

    python benchmarks/against.py                       the published comparison; an hour or so, on a quiet machine
    python benchmarks/against.py --slow-tiles all      the loop on all its tiles, every time: 40 minutes more
    python benchmarks/against.py --tiny                a rehearsal in a few minutes; its figures mean nothing

What is timed, each in a process of its own, starting and loading included except for segment-geospatial; by the clock,
and in CPU seconds of all threads, whose ratio holds on a busy machine too:

1. ``geosam segment`` on a river scene of which about a fifth of the tiles are wet, against ``ancestor.py``: float32,
   one tile at a time, every tile of the same grid. The loop runs on a sample of wet and dry tiles unless all are asked
   for; its mean seconds of each kind are then multiplied by how many there are, and the table says so.
2. ``geosam segment`` on a crop whose first guess is water throughout, so that no tile is skipped, against
   segment-geospatial's automatic mask generator in batch mode on a smaller crop, a megapixel; and again with what its
   windows would take on a large scene, since a small crop takes more of them.

Agreement is that of the two masks where both ran and no neighbouring tile had a say, since the two blend differently.
Both are given the same points, and the first guess as a file: an index that finds two modes would outvote a model of
random weights in geosam, and the loop has no such vote.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import shapely
import torch
from ancestor import PAD
from random_sam import original_layout, random_sam, saved
from rasterio.windows import Window
from run import machine
from scipy import ndimage

from geosam.coarse import coarse_mask
from geosam.options import CoarseOptions, SceneOptions, SegmentOptions
from geosam.prompts import sample_prompts
from geosam.scene import Scene
from geosam.synth import SynthOptions
from geosam.synth.layout import lay_out
from geosam.tiling import TilePlan, plan_tiles

HERE = Path(__file__).parent
WITHOUT = ("lake", "oxbow", "braided", "tributary")
"""Left out of the scene, so that one river is all its water."""
WET_SHARE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="side of the scene in pixels")
    parser.add_argument("--crop", type=int, default=4096, help="side of geosam's all-wet crop")
    parser.add_argument("--small-crop", type=int, default=512, help="side of segment-geospatial's crop")
    parser.add_argument("--runs", type=int, default=3, help="repetitions, of which the median is told")
    parser.add_argument("--samgeo-runs", type=int, help="repetitions of segment-geospatial; without it as many")
    parser.add_argument("--slow-tiles", default="8", help="tiles the loop runs on in each repetition, or all")
    parser.add_argument("--overlap", type=int, help="overlap of the tiles of both sides; without it geosam's own")
    parser.add_argument("--parts", nargs="+", choices=["loop", "samgeo"], default=["loop", "samgeo"])
    parser.add_argument("--points", type=int, default=32, help="segment-geospatial's points a side")
    parser.add_argument("--venv", default="runs/against/samgeo", help="where segment-geospatial is or is to be")
    parser.add_argument("--borrow", action="store_true", help="see against_samgeo.py")
    parser.add_argument("--folder", default="runs/against", help="scene, weights and results; scene and weights stay")
    parser.add_argument("--tiny", action="store_true", help="small scene, small random SAM, one repetition")
    asked = parser.parse_args()
    if asked.tiny:
        asked.size, asked.crop, asked.small_crop, asked.runs, asked.points = 1024, 512, 64, 1, 1
    asked.samgeo_runs = asked.samgeo_runs or asked.runs
    rows = compared(asked, Bench(Path(asked.folder), asked))
    text = f"{machine()}\n\n" + "\n".join(["| what | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])
    print(text)
    Path(asked.folder, "against.md").write_text(text + "\n", encoding="utf-8")


def compared(asked: argparse.Namespace, bench: Bench) -> list[tuple[str, str]]:
    rows = [("scene", f"{asked.size:,} x {asked.size:,} px; {len(bench.wet)} of {len(bench.plan)} tiles wet")]
    if "loop" in asked.parts:
        rows += beside_the_loop(bench, asked)
    if "samgeo" in asked.parts:
        rows += beside_samgeo(bench, asked)
    return rows


# What is compared ----------------------------------------------------------------------------------------------------


def beside_the_loop(bench: Bench, asked: argparse.Namespace) -> list[tuple[str, str]]:
    numbers = sample(bench, asked.slow_tiles)
    ours = [bench.geosam(bench.scene, "--coarse", "ndwi")[0] for _ in range(asked.runs)]
    fast = [one.seconds for one in ours]
    _, report = bench.geosam(bench.scene, "--coarse", bench.coarse, "--mask", bench.folder / "geosam.tif")
    loops = [bench.loop(numbers) for _ in range(asked.runs)]
    slow = [scaled(spent.seconds, told["tile_seconds"], bench) for spent, told in loops]
    slow_cpu = [scaled(spent.cpu_s, told["tile_cpu_s"], bench) for spent, told in loops]
    tiles = [second for _, told in loops for second in told["tile_seconds"].values()]
    beside = -(-asked.size // bench.tile_px)
    bare = median(slow) - (len(bench.plan) - beside**2) * median(tiles)
    how = "all measured" if len(numbers) == len(bench.plan) else f"scaled from {len(numbers)} tiles, wet and dry apart"
    ratio = median(slow) / median(fast)
    iou, share = agreement(bench, numbers)
    ran = report["tiles"]["run"]
    return [
        (f"the loop, {len(bench.plan)} tiles, float32; {how}", seconds_of(slow)),
        ("the loop, a tile", f"{median(tiles):.2f} s"),
        (f"geosam segment, {ran} tiles run, {report['dtype']}, coarse mask and polygons included", seconds_of(fast)),
        ("times faster", f"{ratio:.1f}"),
        (
            "times less CPU; CPU seconds of each",
            f"{median(slow_cpu) / median(one.cpu_s for one in ours):.1f}; "
            f"{median(slow_cpu):.0f}, {median(one.cpu_s for one in ours):.0f}",
        ),
        (f"times faster than the loop on {beside**2} tiles without overlap", f"{bare / median(fast):.1f}"),
        (f"IoU of the masks where both ran ({share:.1%} of the scene)", f"{iou:.4f}"),
    ]


def beside_samgeo(bench: Bench, asked: argparse.Namespace) -> list[tuple[str, str]]:
    crop, all_wet = bench.crop(asked.crop, 4), bench.all_wet(asked.crop)
    ours = [bench.geosam(crop, "--coarse", all_wet) for _ in range(asked.runs)]
    fast = [spent.seconds / (asked.crop**2 / 1e6) for spent, _ in ours]
    fast_cpu = median(spent.cpu_s / (asked.crop**2 / 1e6) for spent, _ in ours)
    tiles = ours[0][1]["tiles"]
    small, checkpoint = bench.crop(asked.small_crop, 3), bench.checkpoint()
    options = ("--checkpoint", checkpoint, "--venv", asked.venv, "--points", asked.points)
    command = (HERE / "against_samgeo.py", small, *options, *(["--borrow"] if asked.borrow else []))
    told = [last_line(run(*command)) for _ in range(asked.samgeo_runs)]
    slow, slow_cpu = [result["s_mpx"] for result in told], median(result["cpu_s_mpx"] for result in told)
    large = median(result["s_mpx_large"] for result in told)
    how = ", ".join([f"{asked.points} points a side", *(" ".join(one) for one in told[0]["versions"].items())])
    return [
        (f"segment-geospatial on {asked.small_crop} px ({how}), s/Mpx", spread(slow)),
        (f"geosam segment on {asked.crop:,} px, {tiles['run']} of {tiles['total']} tiles run, s/Mpx", spread(fast)),
        ("times faster a megapixel", f"{median(slow) / median(fast):.0f}"),
        (
            f"times faster on a large scene, where it takes a window for each 512 px, and not {told[0]['windows']} for "
            f"{asked.small_crop} px; its s/Mpx there",
            f"{large / median(fast):.0f}; {large:.2f}",
        ),
        ("times less CPU a megapixel; CPU s/Mpx of each", f"{slow_cpu / fast_cpu:.0f}; {slow_cpu:.1f}, {fast_cpu:.2f}"),
    ]


def sample(bench: Bench, wanted: str) -> list[int]:
    """Numbers of tiles, half of them wet, evenly spread over the scene."""
    if wanted == "all" or int(wanted) >= len(bench.plan):
        return list(range(len(bench.plan)))
    wet, dry = sorted(bench.wet), sorted(set(range(len(bench.plan))) - bench.wet)
    counts = [(kind, min(max(int(wanted) // 2, 1), len(kind))) for kind in (wet, dry)]
    return sorted(kind[round(n)] for kind, count in counts for n in np.linspace(0, len(kind) - 1, count))


def scaled(seconds: float, of_tiles: dict[str, float], bench: Bench) -> float:
    """Seconds of a loop over all tiles, from one over some: what is not tiles is taken as it is."""
    each = {int(number): spent for number, spent in of_tiles.items()}
    kinds = (bench.wet, set(range(len(bench.plan))) - bench.wet)
    return seconds - sum(each.values()) + sum(len(kind) * mean_of(each, kind) for kind in kinds)


def mean_of(each: dict[int, float], kind: set[int]) -> float:
    return float(np.mean([spent for number, spent in each.items() if number in kind] or [0.0]))


def agreement(bench: Bench, numbers: list[int]) -> tuple[float, float]:
    """IoU where a tile ran on both sides and no other covers the pixel, and the share of such pixels."""
    masks = [read(bench.folder / name) == 1 for name in ("geosam.tif", "loop/mask.tif")]
    covered, ran = np.zeros(masks[0].shape, np.uint8), np.zeros(masks[0].shape, bool)
    for tile in bench.plan.tiles:
        covered[tile.window.toslices()] += 1
        ran[tile.window.toslices()] |= tile.index in bench.wet.intersection(numbers)
    ours, theirs = (mask[ran & (covered == 1)] for mask in masks)
    return float((ours & theirs).sum() / max((ours | theirs).sum(), 1)), ours.size / covered.size


# What it is measured on ----------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """Scene, weights and questions; made on first use and kept."""

    folder: Path
    asked: argparse.Namespace

    @cached_property
    def model(self) -> Path:
        name = "tiny" if self.asked.tiny else "sam-vit-base"
        return saved(name, self.folder / "weights" / name)

    @cached_property
    def tile_px(self) -> int:
        config = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        return int(config["vision_config"]["image_size"])

    @cached_property
    def scene(self) -> Path:
        made = self.folder / f"river-{self.asked.size}"
        if not (made / "scene.tif").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            seed = seed_of(self.asked.size, plan_tiles((self.asked.size,) * 2, self.tile_px, self.asked.overlap))
            left_out = [word for name in WITHOUT for word in ("--without", name)]
            look = ("--size", self.asked.size, "--seed", seed, "--bands", "rgbn", "--plain", *left_out)
            run("-m", "geosam", "synth", "--out", made, *look)
        return made / "scene.tif"

    @cached_property
    def coarse(self) -> Path:
        """The first guess as a file."""
        out = self.folder / "coarse.tif"
        run("-m", "geosam", "coarse", self.scene, "--method", "ndwi", "--gsd", "native", "--overwrite", "--out", out)
        return out

    @cached_property
    def plan(self) -> TilePlan:
        return plan_tiles(read_shape(self.scene), self.tile_px, self.asked.overlap)

    @cached_property
    def wet(self) -> set[int]:
        """Numbers of the tiles that hold coarse water."""
        tiles = json.loads(self.questions.read_text(encoding="utf-8"))
        return {number for number, tile in enumerate(tiles) if tile["bodies"]}

    @cached_property
    def questions(self) -> Path:
        """Tiles and points as geosam has them, for the loop to read."""
        scene = Scene.open(self.scene, SceneOptions(gsd="native"))
        mask = coarse_mask(scene, CoarseOptions(method=str(self.coarse)), path=self.folder / "seen.tif")
        tiles = []
        for tile in self.plan.tiles:
            corner = tile.window.col_off, tile.window.row_off
            tiles.append({"corner": corner, "bodies": bodies(*mask.read(tile.window), tile.index)})
        out = self.folder / "questions.json"
        out.write_text(json.dumps(tiles), encoding="utf-8")
        return out

    def geosam(self, scene: Path, *options: Any) -> tuple[Spent, dict[str, Any]]:
        """Time of ``geosam segment`` from its start to its end, and its report."""
        report = self.folder / "report.json"
        overlap = () if self.asked.overlap is None else ("--overlap", self.asked.overlap)
        files = ("--out", self.folder / "rivers.gpkg", "--report", report, "--overwrite")
        with Spent() as spent:
            run("-m", "geosam", "segment", scene, "--model", self.model, "--gsd", "native", *overlap, *files, *options)
        return spent, json.loads(report.read_text(encoding="utf-8"))

    def loop(self, numbers: list[int]) -> tuple[Spent, dict[str, Any]]:
        """Time of the plain loop from its start to its end, and what it told."""
        options = ("--model", self.model, "--out", self.folder / "loop", "--questions", self.questions)
        with Spent() as spent:
            said = run(HERE / "ancestor.py", self.scene, *options, "--only", *numbers)
        return spent, last_line(said)

    def crop(self, side: int, bands: int) -> Path:
        """The part of the scene with most water."""
        out = self.folder / f"crop-{side}-{bands}.tif"
        truth = (read(self.scene.with_name("truth.tif")) == 1).astype(np.float32)
        centre = np.unravel_index(ndimage.uniform_filter(truth, side, mode="constant").argmax(), truth.shape)
        top, left = (int(np.clip(at - side // 2, 0, self.asked.size - side)) for at in centre)
        window = Window(left, top, side, side)
        with rasterio.open(self.scene) as source:
            profile = {**source.profile, "count": bands, "width": side, "height": side}
            profile["transform"] = source.window_transform(window)
            with rasterio.open(out, "w", **{**profile, "photometric": "rgb"}) as target:
                target.write(source.read(range(1, bands + 1), window=window))
                target.descriptions = source.descriptions[:bands]
        return out

    def all_wet(self, side: int) -> Path:
        """A first guess of the crop that is water throughout."""
        out = self.folder / "all-wet.tif"
        with rasterio.open(self.folder / f"crop-{side}-4.tif") as crop:
            profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": side, "height": side}
            with rasterio.open(out, "w", **profile, crs=crop.crs, transform=crop.transform) as target:
                target.write(np.ones((1, side, side), np.uint8))
        return out

    def checkpoint(self) -> Path:
        """The weights in the layout of segment_anything, which knows no SAM smaller than base."""
        out = self.folder / "weights" / "vit_b.pth"
        if not out.exists():
            torch.save(original_layout(random_sam("sam-vit-base").state_dict()), out)
        return out


def bodies(water: Any, known: Any, number: int) -> list[Any]:
    """The points of each water body of a tile and their labels, as geosam samples them."""
    options = SegmentOptions()
    prompts = sample_prompts(water, known, options.prompts, np.random.default_rng([options.seed, number]))
    rows = zip(prompts.points, prompts.labels, strict=True)
    return [(points[labels != PAD].tolist(), labels[labels != PAD].tolist()) for points, labels in rows]


def seed_of(size: int, plan: TilePlan) -> int:
    """Of twenty rivers the one whose share of wet tiles is nearest to a fifth."""
    lefts, tops = np.meshgrid(plan.lefts, plan.tops)
    boxes = shapely.box(lefts, tops, lefts + plan.tile_px, tops + plan.tile_px)

    def share(seed: int) -> float:
        options = SynthOptions(height=size, width=size, seed=seed, **dict.fromkeys(WITHOUT, False))
        water = shapely.union_all([polygon for _, polygon in lay_out(options).truth])
        return float(shapely.intersects(water, boxes).mean())

    return min(range(20), key=lambda seed: abs(share(seed) - WET_SHARE))


@dataclass
class Spent:
    """Time that child processes take within its block."""

    seconds: float = 0.0
    """By the clock."""
    cpu_s: float = 0.0
    """Of all their threads, the system's work for them included."""

    def __enter__(self) -> Spent:
        self._began = time.perf_counter(), cpu_of_children()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu_s = time.perf_counter() - self._began[0], cpu_of_children() - self._began[1]


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Small things --------------------------------------------------------------------------------------------------------


def run(*words: Any) -> str:
    """Run Python with these arguments; what it printed. Its errors are shown, and end this program too."""
    command = [sys.executable, *map(str, words)]
    print(" ".join(command[1:5]), "...", file=sys.stderr)
    began = time.perf_counter()
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # Told at once: a comparison that is broken off is then not for nothing.
    print(f"... {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return said


def last_line(said: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def read(path: Path) -> Any:
    with rasterio.open(path) as source:
        return source.read(1)


def read_shape(path: Path) -> tuple[int, int]:
    with rasterio.open(path) as source:
        return source.height, source.width


def seconds_of(values: list[float]) -> str:
    return f"{median(values):.1f} s (of {', '.join(f'{value:.1f}' for value in values)})"


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} (of {', '.join(f'{value:.2f}' for value in values)})"


if __name__ == "__main__":
    main()
