"""geosam's segments of one tile beside transformers' own mask generation: the same random weights, points and limits.

    python benchmarks/everything.py                          256 points; some minutes
    python benchmarks/everything.py --points-per-side 32     the default of both, 1024 points; four times as long
    python benchmarks/everything.py --points-per-side 8 --nms-iou 1    more masks to compare; random ones fill the tile
    python benchmarks/everything.py --tiny                   a rehearsal; its figures mean nothing

Both run on one thread of one process, one after the other, and CPU seconds are compared, so that a busy machine slows
both alike. transformers runs as its pipeline does by default, in float32 and 64 points at a time; geosam in what is
fastest here. Random weights predict IoUs without sense, so the limits are set to let through about as many masks as
those of a trained SAM do: a third by predicted IoU, and half of those by stability.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from random_sam import random_sam
from scipy import ndimage

from geosam.models.clicks import clicks_of
from geosam.models.device import choose_dtype
from geosam.models.sam import SamAdapter
from geosam.options import EverythingOptions
from geosam.segments.generate import Generator
from geosam.segments.grid import grid

PASS_IOU, PASS_STABILITY = 0.33, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points-per-side", type=int, default=16)
    parser.add_argument("--dtype", default="auto", help="of geosam's side")
    parser.add_argument("--nms-iou", type=float, default=0.7, help="1: no mask is dropped for one like it")
    parser.add_argument("--tiny", action="store_true", help="a small random SAM")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network = random_sam("tiny" if asked.tiny else "sam-vit-base")
    network.mask_decoder.iou_prediction_head.proj_out.bias.add_(0.5)  # Limits are from 0 to 1, and so should these be.
    cpu = torch.device("cpu")
    sam = SamAdapter(network, name="random", sha256="0", device=cpu, dtype=choose_dtype(asked.dtype, cpu))
    image = picture(sam.tile_px)
    limits = fair_limits(sam, image, asked.points_per_side).model_copy(update={"nms_iou": asked.nms_iou})
    ours, found = ours_in(sam, image, limits)
    theirs, masks = theirs_in(network, image, limits)
    points = asked.points_per_side**2
    report = {
        "points": points,
        "limits": [round(limits.predicted_iou or 0, 4), round(limits.stability or 0, 4)],
        "geosam": {**ours, "dtype": str(sam.dtype), "masks": len(found)},
        "transformers": {**theirs, "dtype": "torch.float32", "masks": len(masks)},
        "times faster": round(theirs["tile"] / ours["tile"], 2),
        "times faster for 1024 points, worked out": round(for_points(theirs, points) / for_points(ours, points), 2),
        "median IoU of the nearest mask": round(agreement(found, masks), 4),
    }
    print(json.dumps(report, indent=1))


def picture(side: int) -> np.ndarray[Any, Any]:
    """Smooth colours, uint8 (3, side, side)."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(3, side, side)), (0, side / 40, side / 40))
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def fair_limits(sam: SamAdapter, image: np.ndarray[Any, Any], a_side: int) -> EverythingOptions:
    """Limits that let through a fair share of the masks, from a few of the points."""
    points = grid(sam.tile_px, a_side)[:: max(a_side**2 // 16, 1)]
    logits, predicted = clicks_of(sam)(sam.embed(torch.from_numpy(image)[None]), points, 0.0)
    least = float(predicted.quantile(1 - PASS_IOU).clamp(0.001, 1))
    stable = ((logits > 1).sum(dim=(1, 2)) / (logits > -1).sum(dim=(1, 2)))[predicted > least]
    return EverythingOptions(
        points_per_side=a_side, predicted_iou=least, stability=float(stable.quantile(1 - PASS_STABILITY))
    )


def ours_in(sam: SamAdapter, image: np.ndarray[Any, Any], limits: EverythingOptions) -> tuple[dict[str, float], Any]:
    encoder = Timed(sam.embed)
    sam.embed = encoder  # type: ignore[assignment,method-assign]
    started = time.process_time()
    found = Generator(sam, limits).tile(image)
    return {"tile": round(time.process_time() - started, 2), "encoder": round(encoder.seconds, 2)}, found


def theirs_in(network: Any, image: np.ndarray[Any, Any], limits: EverythingOptions) -> tuple[dict[str, float], Any]:
    from PIL import Image
    from transformers import SamImageProcessor, pipeline

    side = image.shape[1]
    processor = SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    generator = pipeline("mask-generation", model=network, image_processor=processor, device="cpu")
    encoder = Timed(network.get_image_embeddings)
    network.get_image_embeddings = encoder
    started = time.process_time()
    found = generator(
        Image.fromarray(image.transpose(1, 2, 0)),
        points_per_crop=limits.points_per_side,
        pred_iou_thresh=limits.predicted_iou,
        stability_score_thresh=limits.stability,
        crops_nms_thresh=limits.nms_iou,
    )
    return {"tile": round(time.process_time() - started, 2), "encoder": round(encoder.seconds, 2)}, found["masks"]


class Timed:
    """A function that counts its CPU seconds."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **more: Any) -> Any:
        started = time.process_time()
        try:
            return self.function(*args, **more)
        finally:
            self.seconds += time.process_time() - started


def for_points(seconds: dict[str, float], points: int) -> float:
    """Seconds of a tile with 1024 points, the rest being in proportion to them."""
    return seconds["encoder"] + (seconds["tile"] - seconds["encoder"]) * 1024 / points


def agreement(found: Any, masks: Any) -> float:
    """Median over transformers' masks of the IoU with the most similar one of ours; 0 where there is none."""
    if not found or not masks:
        return 0.0
    side = masks[0].shape[0]
    ours = [one.runs.mask((0, 0, side, side)) for one in found]
    best = [max(float((a & b).sum() / max((a | b).sum(), 1)) for a in ours) for b in map(np.asarray, masks)]
    return float(np.median(best))


if __name__ == "__main__":
    main()
