"""Options of every stage: one frozen, strict model each, with its defaults in this one place.

The command line, TOML files (``configs/*.toml``, one table a stage) and Python callers all end
up here. Unknown keys are errors. Lengths are metres, areas square metres, whatever the CRS.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geosam.errors import OptionsError

CoarseMethod = Literal["auto", "ndwi", "ndwi-ndvi", "mndwi", "awei", "awei-sh", "rgb", "hsv", "exg", "dark", "learned"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


_Model = TypeVar("_Model", bound=BaseModel)


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class SceneOptions(_Options):
    """How the raster is read."""

    bands: str | None = None
    """Band roles, ``red=1,green=2,blue=3,nir=4`` (1-based), or a preset such as naip. None: read from the file."""
    aoi: str | None = None
    """Vector file (any CRS); pixels outside its polygons are unknown, and the work is cropped to its bounds."""
    gsd: Literal["native", "auto"] | float = "auto"
    """Working ground sampling distance in metres; ``auto`` picks the resolution at which the model is at its best."""
    nodata: float | None = None
    """Value of pixels without data, in place of what the file says or does not say: in all bands shown, where it is
    one that a dark or bright pixel can have too."""
    allow_no_crs: bool = False
    """Accept a raster without CRS; the result is in pixel coordinates (x right, y down), in a non-GeoJSON format."""

    @model_validator(mode="after")
    def _gsd_is_positive(self) -> Self:
        if isinstance(self.gsd, float) and self.gsd <= 0:
            raise ValueError(f"gsd must be above 0 m, got {self.gsd}")
        return self


class CoarseOptions(_Options):
    """The first guess of water."""

    method: str = "auto"
    """One of :data:`CoarseMethod`, or the path of a raster or vector file that holds a mask."""
    threshold: float | None = None
    """Value above which a pixel is water; None: fitted to the whole scene.

    Of the index itself; for exg of minus excess green, for rgb of log-odds, for learned of the probability.
    """
    min_area_m2: float | None = Field(default=None, ge=0)
    """Water components smaller than this are dropped; None: than 40 pixels."""
    max_hole_m2: float | None = Field(default=None, ge=0)
    """Holes in water smaller than this are filled; None: than 20 pixels."""


class PromptOptions(_Options):
    """Control points sampled from the coarse mask, and a person's own from files."""

    which: Literal["auto", "given", "both", "none"] | None = None
    """``auto``: sampled; ``given``: those of the files below alone; ``both``: these join the sampled ones; ``none``:
    nothing is asked, for a model that is trained for it. None: given where a file is named, else auto."""
    points_file: str | None = None
    """Vector file (any CRS) of points; attribute ``label``: water or dry, ``body``: points of one joint prompt."""
    boxes_file: str | None = None
    """Vector file of polygons, whose bounds along the pixel grid are boxes; attribute ``body`` as of the points."""
    mask_file: str | None = None
    """Raster or vector file, given to the model as a dense prompt as it is."""
    multimask: bool = False
    """Have whole, part and sub-part of each body and keep the one of highest predicted IoU."""
    points: int = Field(default=3, ge=1, le=64)
    """Water points a water body."""
    dry_points: int = Field(default=2, ge=0, le=64)
    """Dry points a water body, near the bank on the other side."""
    boxes: bool = False
    """Also give the box of each water body."""
    dense: bool = True
    """Also give the coarse mask itself as a dense prompt, where the model was trained for it."""
    max_bodies: int = Field(default=8, ge=1, le=256)
    """Water bodies prompted in one tile, the largest first; the rest share one joint prompt."""


class TileOptions(_Options):
    """How the scene is cut."""

    which: Literal["auto", "water", "all"] = "auto"
    """``water``: run only tiles that hold coarse water. ``auto``: all where ``prompts.which`` is none, else water."""
    overlap_px: int | None = Field(default=None, ge=0)
    """Overlap of neighbouring tiles in working pixels; None: an eighth of the tile."""


class ModelOptions(_Options):
    """The model and how it is run."""

    name: str = "river-tiny"
    """A registry name, a hub id, or a folder."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    batch_size: int | None = Field(default=None, ge=1)
    """Tiles a batch; None: chosen for the device."""
    compile: bool = False
    """Compile a SAM's encoder: minutes at the start of a run, for faster tiles after that."""
    magnify: Literal[1, 2, 4] | None = None
    """How many times river-tiny enlarges a tile before it looks at it; None: as it was found best."""
    views: int = Field(default=1, ge=1, le=8)
    """Turned and mirrored views of each tile whose answers are averaged; every one costs as much as the first."""


class VectorOptions(_Options):
    """From probability to polygons."""

    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability above which a pixel is water; None (``auto``): the model's own."""
    min_area_m2: float | None = Field(default=None, ge=0)
    """Polygons smaller than this are dropped; None: ``segment`` drops specks under 25 pixels, ``vectorize`` none."""
    max_hole_m2: float | None = Field(default=None, ge=0)
    """Islands smaller than this are filled; None: ``segment`` fills those under 25 pixels, ``vectorize`` none."""
    simplify_m: float = Field(default=0.0, ge=0)
    """Outlines may move by as much; 0: they follow the pixels."""


class RiverOptions(_Options):
    """Everything ``geosam rivers`` can be told: from water polygons to centrelines, widths and reaches."""

    gsd_m: float | None = Field(default=None, gt=0)
    """Size of the pixels that the polygons came from; finer details are noise. None: read from the outlines."""
    bridge_m: float = Field(default=0.0, ge=0)
    """Gaps up to this are closed where the ends on both sides point at each other; 0: none."""
    every_m: float | None = Field(default=None, gt=0)
    """Distance between cross-sections; None: half the mean width of each river's main course."""
    reach_m: float | None = Field(default=None, gt=0)
    """Length of a reach, about; None: ten times that width."""
    min_area_m2: float | None = Field(default=None, ge=0)
    """Water bodies smaller than this are left out, after gaps are closed; None: than 25 pixels."""
    max_island_m2: float | None = Field(default=None, gt=0)
    """Land between channels larger than this is no island: total widths end at it. None: all of it is."""


class SegmentOptions(_Options):
    """Everything ``geosam segment`` can be told."""

    scene: SceneOptions = SceneOptions()
    coarse: CoarseOptions = CoarseOptions()
    prompts: PromptOptions = PromptOptions()
    tiles: TileOptions = TileOptions()
    model: ModelOptions = ModelOptions()
    vector: VectorOptions = VectorOptions()
    seed: int = Field(default=0, ge=0)
    """Seeds the prompts; the same seed gives the same result."""

    @classmethod
    def from_toml(cls, path: str | Path) -> SegmentOptions:
        """Read options from a TOML file with one table a stage.

        Args:
            path: TOML file; tables ``scene``, ``coarse``, ``prompts``, ``tiles``, ``model``,
                ``vector`` and the key ``seed``, all optional.

        Raises:
            OptionsError: The file is missing, is not TOML, or has an unknown or ill-typed key.
        """
        return cls.from_mapping(read_toml(path), where=str(path))

    @classmethod
    def from_mapping(cls, values: dict[str, Any], where: str = "options") -> SegmentOptions:
        """Check a nested mapping (one mapping a stage) and freeze it.

        Raises:
            OptionsError: Names the first key at fault, as ``stage.key``, and what was found.
        """
        try:
            return cls.model_validate(_whole_numbers_to_float(values))
        except ValidationError as error:
            raise OptionsError(f"{where}: {first_fault(error)}") from None


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        OptionsError: The file is missing or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OptionsError(f"{path} does not exist. Give an existing TOML file to --config.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionsError(f"{path} is not a TOML file that can be read: {error}") from None


def checked(kind: type[_Model], values: dict[str, Any], where: str) -> _Model:
    """Freeze a mapping as a model of options; whole numbers stand for floats.

    Raises:
        OptionsError: Names the first key at fault and what was found.
    """
    floats = {
        name for name, field in kind.model_fields.items() if float in (field.annotation, *get_args(field.annotation))
    }
    whole = {name for name, value in values.items() if name in floats and type(value) is int}
    try:
        return kind.model_validate({name: float(v) if name in whole else v for name, v in values.items()})
    except ValidationError as error:
        raise OptionsError(f"{where}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """One line for the first fault pydantic found: where, what is wrong, what was given."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("function", "literal", "float")))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}. See --help for the options of each stage."
    return f"{key}: {fault['msg']}, got {fault['input']!r}"


def _whole_numbers_to_float(values: dict[str, Any]) -> dict[str, Any]:
    """Let ``gsd = 1`` stand for 1.0, which a strict union of names and floats refuses."""
    scene = dict(values.get("scene", {})) if isinstance(values.get("scene"), dict) else None
    if scene is not None and isinstance(scene.get("gsd"), int) and not isinstance(scene["gsd"], bool):
        return {**values, "scene": {**scene, "gsd": float(scene["gsd"])}}
    return values
