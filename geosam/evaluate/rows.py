"""The rows of an evaluation: what is found in one image, by the coarse mask and by each way of prompting."""

from __future__ import annotations

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from geosam import predict
from geosam.errors import OptionsError
from geosam.evaluate.samples import Sample
from geosam.mosaic import Mosaic
from geosam.options import SceneOptions, SegmentOptions
from geosam.pipeline import at_working_gsd, first_guess
from geosam.predict import CoarseSource
from geosam.prompts import Prompts
from geosam.scene import Scene
from geosam.tiling import plan_tiles

if TYPE_CHECKING:
    import xarray
    from torch import Tensor

    from geosam.models import PromptableModel

Row = Literal["coarse", "auto", "oracle", "none"]
ROWS: tuple[Row, ...] = get_args(Row)
"""``coarse``: the coarse mask alone. ``auto``: end to end, as ``geosam segment``. ``oracle``: points sampled
from the truth by the same sampler, without the dense mask, which would give the answer away. ``none``: no prompt."""

Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """What one row found in an image, on the image's own grid."""

    water: Bool
    """Shape (h, w)."""
    probability: NDArray[np.float32] | None = None
    """Shape (h, w); None for the coarse mask."""
    method: str = ""
    """The coarse mask's rule."""
    failed: int = 0
    """Tiles that raised; they count as dry."""


def check_rows(names: Sequence[str]) -> tuple[Row, ...]:
    """Rows by name, in the order of :data:`ROWS`.

    Raises:
        OptionsError: A name is unknown, or there is none.
    """
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise OptionsError(f"--rows has {unknown[0] if unknown else 'nothing'!r}. Choose of {', '.join(ROWS)}.")
    return tuple(row for row in ROWS if row in names)


@dataclass(frozen=True)
class Runner:
    """Runs the rows of one image after another with one loaded model."""

    model: PromptableModel
    options: SegmentOptions
    folder: Path
    """Work folder; what an image leaves there the next one replaces."""

    @classmethod
    def of(cls, model: PromptableModel, options: SegmentOptions, folder: Path) -> Runner:
        """A runner that encodes every tile once, whatever the number of rows."""
        if options.model.batch_size is None and model.device.type == "cpu":
            # The same batches in every row, so that all find their encoding again; on a CPU a batch gains nothing.
            options = options.model_copy(update={"model": options.model.model_copy(update={"batch_size": 1})})
        return cls(Remembering(model), options, folder)

    @property
    def threshold(self) -> float:
        """Probability above which a pixel is water."""
        given = self.options.vector.threshold
        return self.model.threshold if given is None else given

    def rows(self, sample: Sample, rows: Sequence[Row]) -> dict[Row, Found]:
        """What each row finds in an image; a row that the model cannot do is left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Of our own work files, without CRS.
            return self._rows(sample, rows)

    def _rows(self, sample: Sample, rows: Sequence[Row]) -> dict[Row, Found]:
        scene = at_working_gsd(scene_of(sample, self.options.scene), self.options.scene)
        found: dict[Row, Found] = {}
        if "coarse" in rows or "auto" in rows:
            found |= self._automatic(scene, sample, "auto" in rows)
        if "oracle" in rows:
            found["oracle"] = self._oracle(scene, sample)
        if "none" in rows and "none" in self.model.understands:
            found["none"] = self._none(scene, sample)
        return {row: found[row] for row in rows if row in found}

    def _automatic(self, scene: Scene, sample: Sample, to_the_end: bool) -> dict[Row, Found]:
        """The coarse mask and the run that starts from it: the stages of ``geosam segment``."""
        coarse = first_guess(scene, self.model, self.options, self.folder, lambda done, total: None)
        water, _ = coarse.read(Window(0, 0, scene.shape[1], scene.shape[0]))
        guess = Found(_to_grid(water.astype(np.float32), sample.label.shape) > 0.5, method=coarse.method)
        if not to_the_end:
            return {"coarse": guess}
        return {"coarse": guess, "auto": self._run(scene, coarse, self.options, sample)}

    def _oracle(self, scene: Scene, sample: Sample) -> Found:
        prompts = self.options.prompts.model_copy(update={"dense": False})
        options = self.options.model_copy(update={"prompts": prompts})
        return self._run(scene, TruthSource.of(sample, scene.shape), options, sample)

    def _none(self, scene: Scene, sample: Sample) -> Found:
        path = predict.unprompted(scene, self.model, self.options, self.folder / "none.tif")
        with rasterio.open(path) as raster:
            return self._found(raster.read(1), sample)

    def _run(self, scene: Scene, coarse: CoarseSource, options: SegmentOptions, sample: Sample) -> Found:
        plan = plan_tiles(scene.shape, self.model.tile_px, options.tiles.overlap_px)
        mosaic = Mosaic.open(self.folder / "strips", plan, scene.geobox)
        report = predict.run(scene, coarse, plan, self.model, options, mosaic)
        probability = mosaic.read(Window(0, 0, scene.shape[1], scene.shape[0]))
        return self._found(probability, sample, report.failed)

    def _found(self, probability: NDArray[np.float32], sample: Sample, failed: int = 0) -> Found:
        # Nodata here is a tile that failed: its water was missed.
        values = _to_grid(np.nan_to_num(probability, nan=0.0), sample.label.shape)
        return Found(values > np.float32(self.threshold), values, failed=failed)


@dataclass(frozen=True, eq=False)
class TruthSource:
    """The truth in place of a coarse mask; what is not known is neither water nor land."""

    water: Bool
    known: Bool

    @classmethod
    def of(cls, sample: Sample, shape: tuple[int, int]) -> TruthSource:
        """The label of an image on the working grid."""
        water = _to_grid(sample.water.astype(np.float32), shape) > 0.5
        known = _to_grid(sample.known.astype(np.float32), shape) > 0.5
        return cls(water & known, known)

    def read(self, window: Window) -> tuple[Bool, Bool]:
        """Water and validity of a window; outside the image is not valid."""
        top, left = int(window.row_off), int(window.col_off)
        shape = int(window.height), int(window.width)
        inside = slice(top, top + shape[0]), slice(left, left + shape[1])
        over = [(0, size - part) for size, part in zip(shape, self.known[inside].shape, strict=True)]
        return np.pad(self.water[inside], over), np.pad(self.known[inside], over)


class Remembering:
    """A model that encodes the same tiles only once; the last few batches are kept."""

    _KEPT = 32

    def __init__(self, model: PromptableModel) -> None:
        self.name, self.tile_px, self.sha256 = model.name, model.tile_px, model.sha256
        self.device, self.dtype, self.step_px = model.device, model.dtype, model.step_px
        self.multimask = bool(getattr(model, "multimask", False))
        self.threshold, self.understands = model.threshold, model.understands
        self._model = model
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def embed(self, images: Tensor) -> Any:
        """As the model's own."""
        key = hashlib.sha256(images.cpu().numpy().tobytes()).digest()
        if key not in self._kept:
            self._kept[key] = self._model.embed(images)
            while len(self._kept) > self._KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def decode(self, embeddings: Any, prompts: Sequence[Prompts]) -> Tensor:
        """As the model's own."""
        return self._model.decode(embeddings, prompts)


def scene_of(sample: Sample, options: SceneOptions) -> Scene:
    """An image as a scene of three bands: in a made-up place in UTM if its pixel size is known, else without CRS."""
    options = options.model_copy(update={"bands": None, "aoi": None, "allow_no_crs": sample.gsd_m is None})
    return Scene.open(_georeferenced(sample), options)


def _georeferenced(sample: Sample) -> xarray.DataArray:
    import xarray

    height, width = sample.label.shape
    step = sample.gsd_m or 1.0
    # Zone 31 at its central meridian and 45 degrees north, where a metre of the grid is a metre to 0.04 %.
    return xarray.DataArray(
        sample.rgb.transpose(2, 0, 1),
        dims=("band", "y", "x"),
        coords={
            "band": ["red", "green", "blue"],
            "y": 4_983_000 - step * (np.arange(height) + 0.5),
            "x": 500_000 + step * (np.arange(width) + 0.5),
        },
        name=sample.name,
        attrs={} if sample.gsd_m is None else {"crs": "EPSG:32631"},
    )


def _to_grid(values: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Values on a grid of another resolution over the same ground: averaged down, bilinear up."""
    if values.shape == shape:
        return values
    return np.asarray(Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float32)
