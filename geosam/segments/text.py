"""Segments by words: CLIP sees each of them by itself and says how like the words it is; or SAM 3 is told the words.

CLIP was trained on photographs with captions, hardly on imagery from above: good for a first look, not for serious
pipelines. Source: Radford et al. (2021), Learning Transferable Visual Models From Natural Language Supervision; the
selection of segments by it is that of Zhao et al. (2023), Fast Segment Anything.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import torch
import torch.nn.functional as F
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.windows import Window
from torch import Tensor

from geosam.errors import ModelError, OptionsError
from geosam.models.hub import from_hub, is_hub_id
from geosam.options import ModelOptions, SceneOptions, SegmentOptions, SelectOptions
from geosam.scene import Scene
from geosam.segments.choosing import Choice, in_pixels
from geosam.segments.files import Segments

CAPTION = "an aerial photograph of {}"
OTHERS = ("fields", "trees", "grass", "buildings", "a road", "bare ground")
"""What the words compete with: their share is that of all these captions together."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's own mean and standard deviation of RGB from 0 to 1."""
MARGIN = 0.1
"""Of a segment's longer side, which CLIP sees around it."""
BATCH = 16
LOOK_PX = 2048
"""Side of what is looked at to find the share of a segment in what a model was told."""


def by_text(segments: Segments, scene: Scene, options: SelectOptions) -> Choice:
    """Segments whose share of the words is above ``options.above``, or a half.

    Raises:
        ModelError: CLIP is not there, and cannot be fetched; or the model understands no words.
        OptionsError: There are no words.
    """
    above = 0.5 if options.above is None else options.above
    words = str(options.text)
    if not words.strip():
        raise OptionsError("--text is empty. Give words for what is wanted, such as river.")
    if options.model is None:
        share = shares(Clip(options.clip), scene, in_pixels(segments), words)
    else:
        share = told_shares(options.model, scene, in_pixels(segments), words)
    taken: NDArray[np.bool_] = share > above
    best = round(float(share.max()), 4) if len(share) else None
    warnings = () if taken.any() or best is None else (f"the best segment has a share of {best} of {options.text!r}.",)
    return Choice(taken, np.zeros_like(taken), {"text": options.text, "above": above, "best": best}, warnings)


class Clip:
    """A CLIP of transformers on the CPU."""

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer, CLIPModel

        folder = _folder(name)
        try:
            model: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises what it likes
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
            raise ModelError(f"--clip {name} is no CLIP that can be loaded ({reason}). Give a folder of one.") from None
        self.model, self.tokenizer = model.eval(), tokenizer
        self.side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def share(self, pictures: Tensor, captions: Sequence[str]) -> Tensor:
        """Share of each caption in each picture, float32 (n, captions), rows summing to one.

        Args:
            pictures: RGB from 0 to 1, float32 (n, 3, side, side).
            captions: Words.
        """
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        words = self.tokenizer(list(captions), padding=True, return_tensors="pt")
        found = self.model(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=(pictures - mean) / std
        )
        like: Tensor = found.logits_per_image.softmax(dim=1)
        return like


def shares(clip: Clip, scene: Scene, shapes: NDArray[np.object_], words: str) -> NDArray[np.float64]:
    """Share of the words in each segment, float64 (n,).

    Args:
        clip: Says how like they are.
        scene: At the segments' resolution.
        shapes: Segments in its pixels.
        words: What is wanted.
    """
    captions = [CAPTION.format(text) for text in (words, *OTHERS)]
    found = [np.zeros(0)]
    for start in range(0, len(shapes), BATCH):
        pictures = torch.stack([picture(scene, shape, clip.side) for shape in shapes[start : start + BATCH]])
        found.append(clip.share(pictures, captions)[:, 0].double().numpy())
    return np.concatenate(found)


def told_shares(model: str, scene: Scene, shapes: NDArray[np.object_], words: str) -> NDArray[np.float64]:
    """Mean probability of the words in each segment, float64 (n,), by a model that understands them.

    Args:
        model: Name, hub id or folder.
        scene: At the segments' resolution; the model looks at all of it.
        shapes: Segments in its pixels.
        words: What is wanted.

    Raises:
        ModelError: The model cannot be loaded, or understands no words.
    """
    from geosam.pipeline import segment
    from geosam.segments.words import told

    options = SegmentOptions(model=ModelOptions(name=model), scene=SceneOptions(gsd="native"))
    with tempfile.TemporaryDirectory(prefix="geosam-") as folder:
        file = Path(folder) / "probability.tif"
        segment(scene, told(options, words), probability=file)
        with rasterio.open(file) as found:
            return np.array([_mean_inside(found, shape) for shape in shapes], float).reshape(len(shapes))


def _mean_inside(found: Any, shape: Any) -> float:
    """Mean of a raster in a segment, in its pixels; 0 where nothing is known. Of a large segment a coarser look."""
    x0, y0, x1, y1 = shape.bounds
    left, top = math.floor(x0), math.floor(y0)
    width, height = max(math.ceil(x1) - left, 1), max(math.ceil(y1) - top, 1)
    times = max(width / LOOK_PX, height / LOOK_PX, 1.0)
    size = (max(round(height / times), 1), max(round(width / times), 1))
    values = found.read(1, window=Window(left, top, width, height), out_shape=size, resampling=Resampling.average)
    scale = Affine(width / size[1], 0, left, 0, height / size[0], top)
    inside = rasterize([shape], size, transform=scale, all_touched=times > 1).astype(bool) & np.isfinite(values)
    return float(values[inside].mean()) if inside.any() else 0.0


def picture(scene: Scene, shape: Any, side: int) -> Tensor:
    """A segment by itself, float32 (3, side, side) from 0 to 1; what is not of it has CLIP's mean colour."""
    x0, y0, x1, y1 = shape.bounds
    half = (0.5 + MARGIN) * max(x1 - x0, y1 - y0)
    times = max(half / side, 1.0)  # Of a large segment a coarser scene is read.
    rows, cols = (max(math.ceil(length / times), 1) for length in scene.shape)
    look = scene.in_shape((rows, cols)) if times > 1 else scene
    scale = np.array([cols / scene.shape[1], rows / scene.shape[0]])
    left, top = (np.array([(x0 + x1) / 2, (y0 + y1) / 2]) - half) * scale
    size = max(math.ceil(2 * half * float(scale.max())), 1)
    rgb, valid = look.read_rgb(Window(int(left), int(top), size, size))
    placed = shapely.transform(shape, lambda xy: xy * scale - (int(left), int(top)))
    inside = rasterize([placed], (size, size), all_touched=True).astype(bool) & valid
    seen = np.where(inside[..., None], rgb / 255.0, MEAN).astype(np.float32)
    planes = torch.from_numpy(seen).permute(2, 0, 1)[None]
    return F.interpolate(planes, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]


def _folder(name: str) -> Path:
    """Where a CLIP lies, fetched from the hub if it is not in its cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not is_hub_id(name):
        raise ModelError(f"--clip {name} is neither a folder nor a hub id. Give owner/name, or an existing folder.")
    try:
        return from_hub(name, words=True)
    except ModelError as error:
        raise ModelError(f"--clip {str(error).replace('--model', '--clip')}") from None
