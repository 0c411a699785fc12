"""The plain loop on transformers that geosam sets out to replace: every tile, one at a time, in float32.

    python benchmarks/ancestor.py scene.tif --model FOLDER --out runs/ancestor

A tile is read; NDWI above a threshold is its coarse water; three points in the eroded water and three on the eroded
land go to SAM through its processor; masks are stitched in memory and traced by rasterio. This is the recipe of the
Elwha notebooks (geo-smart/water-surf) with its points asked as one joint prompt. Nothing of geosam is used.

``--questions`` gives tiles and points instead, as benchmarks/against.py does, so that two programs can be asked the
same; ``--only`` runs some of the tiles. The last line printed is JSON: seconds by part, and of each tile.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.features import shapes
from rasterio.windows import Window
from scipy import ndimage
from transformers import SamImageProcessor, SamModel, SamProcessor

POINTS = 3
PAD = -10
"""Label of a point that is none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", help="raster of four bands: red, green, blue, near infrared")
    parser.add_argument("--model", required=True, help="folder of a SAM")
    parser.add_argument("--out", required=True, help="folder for mask.tif and water.geojson")
    parser.add_argument("--threshold", type=float, default=0.0, help="NDWI above which a pixel is water")
    parser.add_argument("--questions", help="JSON: the tiles' corners and the points of their water bodies")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the tiles that run; without it all do")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(run(asked, out)))


def run(asked: argparse.Namespace, out: Path) -> dict[str, Any]:
    started = time.perf_counter()
    sam = Sam(asked.model, asked.device)
    loaded = time.perf_counter()
    seconds: dict[int, float] = {}
    cpu_s: dict[int, float] = {}
    with rasterio.open(asked.scene) as scene:
        tiles = read_questions(asked.questions) if asked.questions else plain_tiles(scene, sam.tile_px)
        total, count = np.zeros(scene.shape, np.float32), np.zeros(scene.shape, np.uint8)
        for number in asked.only if asked.only is not None else range(len(tiles)):
            begun, cpu_begun = time.perf_counter(), time.process_time()
            one_tile(scene, sam, tiles[number], total, count, asked.threshold, np.random.default_rng(number))
            seconds[number] = round(time.perf_counter() - begun, 4)
            cpu_s[number] = round(time.process_time() - cpu_begun, 4)
            print(f"tile {number} of {len(tiles)}: {seconds[number]:.1f} s", file=sys.stderr)
        traced = time.perf_counter()
        polygons = write(scene, np.where(count == 0, 255, total > 0.5 * count).astype(np.uint8), out)
    ended = time.perf_counter()
    parts = {"load": loaded - started, "tiles": sum(seconds.values()), "trace": ended - traced}
    tile_facts = {"tiles": len(tiles), "tile_seconds": seconds, "tile_cpu_s": cpu_s}
    return {**tile_facts, "polygons": polygons, "seconds": parts}


class Sam:
    """SAM as transformers offers it, in float32."""

    def __init__(self, folder: str, device: str) -> None:
        self.model = SamModel.from_pretrained(folder).float().eval().to(device)
        self.tile_px = int(self.model.config.vision_config.image_size)
        side = {"longest_edge": self.tile_px}
        square = {"height": self.tile_px, "width": self.tile_px}
        self.processor = SamProcessor(SamImageProcessor(size=side, pad_size=square))

    @torch.no_grad()
    def logits(self, rgb: Any, bodies: list[Any]) -> Any:
        """The greatest logit of all bodies, float32 (h, w). Every tile is encoded, and decoded at least once."""
        inputs = self.processor(images=rgb, return_tensors="pt").to(self.model.device)
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"])
        found = [self.decode(embeddings, inputs, *body) for body in bodies or [([[0.0, 0.0]], [PAD])]]
        return np.max(found, axis=0) if bodies else np.full(rgb.shape[:2], -20, np.float32)

    def decode(self, embeddings: Any, inputs: Any, points: Any, labels: Any) -> Any:
        # The processor's points are pixel indices; those of a question count from the corner of the first pixel.
        xy = torch.tensor(points, dtype=torch.float32, device=self.model.device)[None, None] - 0.5
        asked = torch.tensor(labels, device=self.model.device)[None, None]
        found = self.model(
            image_embeddings=embeddings, input_points=xy, input_labels=asked, multimask_output=False
        ).pred_masks
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        full = self.processor.image_processor.post_process_masks(found.cpu(), *sizes, binarize=False)
        return full[0][0, 0].numpy()


def one_tile(scene: Any, sam: Sam, tile: Any, total: Any, count: Any, threshold: float, rng: Any) -> None:
    """Read, guess, ask, and add the answer to what is stitched: the mean where tiles overlap."""
    (left, top), bodies = tile
    window = Window(left, top, min(sam.tile_px, scene.width - left), min(sam.tile_px, scene.height - top))
    bands = scene.read(window=window)
    if bodies is None:
        bodies = sampled(ndwi(bands) > threshold, rng)
    logits = sam.logits(np.ascontiguousarray(bands[:3].transpose(1, 2, 0)), bodies)
    rows, cols = window.toslices()
    total[rows, cols] += 1 / (1 + np.exp(-logits))
    count[rows, cols] += 1


def plain_tiles(scene: Any, side: int) -> list[Any]:
    """Corners of tiles side by side, without overlap, and no points yet."""
    return [((left, top), None) for top in range(0, scene.height, side) for left in range(0, scene.width, side)]


def read_questions(path: str) -> list[Any]:
    """Corners (x, y) of tiles and, of each, its bodies: points (x, y) in pixels of the tile, and their labels."""
    return [(tile["corner"], tile["bodies"]) for tile in json.loads(Path(path).read_text(encoding="utf-8"))]


def ndwi(bands: Any) -> Any:
    green, nir = bands[1].astype(np.float32), bands[3].astype(np.float32)
    return (green - nir) / np.maximum(green + nir, 1e-6)


def sampled(water: Any, rng: Any) -> list[Any]:
    """One joint prompt: points in the water and on land, or none where there is no water."""
    wet = spread(water, 35, 2.75, rng)
    dry = spread(~water, 50, 2.0, rng)
    return [(wet + dry, [1] * len(wet) + [0] * len(dry))] if wet else []


def spread(mask: Any, share: float, apart: float, rng: Any) -> list[Any]:
    """Up to three points: erode A^0.6 / share times, draw a pixel, blank a disc around it, and again.

    Pixel centres as (x, y), counted from the corner of the first pixel.
    """
    times = int(mask.sum() ** 0.6 / share)
    core = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=times) if times else mask
    rows, cols = np.nonzero(core)
    radius, points = apart * len(rows) ** 0.5 / POINTS, []
    while len(rows) and len(points) < POINTS:
        n = rng.integers(len(rows))
        points.append([float(cols[n]) + 0.5, float(rows[n]) + 0.5])
        free = np.hypot(rows - rows[n], cols - cols[n]) > radius
        rows, cols = rows[free], cols[free]
    return points


def write(scene: Any, mask: Any, out: Path) -> int:
    """The mask as GeoTIFF (1 water, 0 dry, 255 not run) and its polygons in the scene's CRS; gives their number."""
    profile = {**scene.profile, "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate"}
    with rasterio.open(out / "mask.tif", "w", **profile) as file:
        file.write(mask, 1)
    traced = [geometry for geometry, _ in shapes(mask, mask=mask == 1, transform=scene.transform)]
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in traced]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (out / "water.geojson").write_text(text, encoding="utf-8")
    return len(traced)


if __name__ == "__main__":
    main()
