"""Options of every stage: one frozen, strict model each, with its defaults in this one place.

The command line, TOML files (``configs/*.toml``, one table a stage) and Python callers all end
up here. Unknown keys are errors. Lengths are metres, areas square metres, whatever the CRS.
"""

from __future__ import annotations

import tomllib
from datetime import date
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
    """Compile the encoder of a SAM or of river-tiny: minutes at the start of a run, for faster tiles after that."""
    magnify: Literal[1, 2, 4] | None = None
    """How many times river-tiny enlarges a tile before it looks at it; None: as it was found best."""
    text: str | None = None
    """Words for what is wanted in place of water, such as river, for a model that understands them: SAM 3. Nothing
    else is asked then."""
    text_score: float = Field(default=0.5, ge=0, le=1)
    """With ``text``: instances that the model is less sure of are passed over."""
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
    """Gaps up to this are closed where both sides agree in direction; 0: none."""
    every_m: float | None = Field(default=None, gt=0)
    """Distance between cross-sections; None: half the mean width of each river's main course."""
    reach_m: float | None = Field(default=None, gt=0)
    """Length of a reach, about; None: ten times that width."""
    min_area_m2: float | None = Field(default=None, ge=0)
    """Water bodies smaller than this are left out, after gaps are closed; None: than 25 pixels."""
    max_island_m2: float | None = Field(default=None, gt=0)
    """Land between channels larger than this is no island: total widths end at it. None: all of it is."""


DAYS_PER_YEAR = 365.2425
"""Of the Gregorian calendar."""


class ChangeOptions(_Options):
    """Everything ``geosam change`` can be told: from the water of two dates to erosion and migration."""

    years: float | None = Field(default=None, gt=0)
    """Years between the dates; None: no rates, unless both dates are given."""
    early_date: date | None = None
    late_date: date | None = None
    register_by: Literal["none", "auto"] | tuple[float, float] = "none"
    """What is done about LATE lying beside EARLY: nothing; what is estimated is taken back; or LATE is known to lie so
    many metres east and north of EARLY, which is taken back."""
    downstream: Literal["auto", "north", "east", "south", "west"] = "auto"
    """Where rivers flow, by and large, which says what is left and right; auto: from their narrower to their wider
    end."""
    gsd_m: float | None = Field(default=None, gt=0)
    """Size of the pixels that the polygons came from; None: read from the rasters or the outlines."""
    bridge_m: float = Field(default=0.0, ge=0)
    """Gaps of rivers up to this are closed for their courses, not for areas; 0: none."""
    reach_m: float | None = Field(default=None, gt=0)
    """Length of a reach, about; None: ten times the mean width of each river's main course."""
    min_area_m2: float = Field(default=0.0, ge=0)
    """Water bodies smaller than this are left out at both dates."""

    @model_validator(mode="after")
    def _dates_are_in_order(self) -> Self:
        if (self.early_date is None) != (self.late_date is None):
            raise ValueError("one of early_date and late_date is given. Give both, or years")
        if self.early_date is not None and self.late_date is not None:
            if self.years is not None:
                raise ValueError("years and dates are given. Give the one or the other")
            if self.late_date <= self.early_date:
                dates = f"{self.late_date} is not after {self.early_date}"
                raise ValueError(f"the late date {dates}, the early one. Swap the two inputs, or the dates")
        return self

    @property
    def years_between(self) -> float | None:
        """Years between the dates, as given or by the calendar; None: not known."""
        if self.early_date is None or self.late_date is None:
            return self.years
        return (self.late_date - self.early_date).days / DAYS_PER_YEAR


class StatsOptions(_Options):
    """Everything ``geosam stats`` can be told: a raster's values under water polygons and along rivers."""

    percentiles: tuple[float, ...] = (10.0, 50.0, 90.0)
    """Percentiles of the values under each polygon, 0 to 100."""
    along_m: float | None = Field(default=None, gt=0)
    """Length of the reaches that rivers are cut into, about; None: none, or ten widths where cold patches need them."""
    colder_than: float | None = Field(default=None, gt=0)
    """How far below the median of its reach water is a cold patch, in the raster's unit; None: none are looked for."""
    cold_layer: str | None = None
    """Layer, or ``layer:band``, that cold patches are looked for in; None: the first band of the first layer."""
    min_patch_m2: float | None = Field(default=None, ge=0)
    """Cold patches smaller than this are left out; None: than 4 pixels."""

    @model_validator(mode="after")
    def _percentiles_are_from_0_to_100(self) -> Self:
        wrong = [percent for percent in self.percentiles if not 0 <= percent <= 100]
        if wrong:
            raise ValueError(f"percentiles lie between 0 and 100, got {wrong[0]:g}")
        return self


class EverythingOptions(_Options):
    """Everything ``geosam everything`` can be told beside scene, tiles and model."""

    points_per_side: int = Field(default=32, ge=1, le=512)
    """Points a side of the grid in each tile, and in each crop."""
    points_per_batch: int | None = Field(default=None, ge=1)
    """Points decoded at once; None: chosen for the device."""
    crops: int = Field(default=0, ge=0, le=4)
    """Layers of zoomed crops, for small things: 2 x 2 crops of a tile in the first, 4 x 4 in the second."""
    predicted_iou: float | None = Field(default=None, ge=0, le=1)
    """Masks of which the model expects no greater IoU are dropped; 0: none is. None: 0.88 for a model that gives whole,
    part and sub-part, and 0 for one that gives a single mask, such as river-tiny, and cannot rank it."""
    stability: float | None = Field(default=None, ge=0, le=1)
    """Masks are dropped whose IoU between the logits ``-stability_offset`` and ``stability_offset`` is no greater.
    None: 0.95 for a model that gives whole, part and sub-part, else 0."""
    stability_offset: float = Field(default=1.0, gt=0)
    """Logits that the threshold of a mask is moved down and up by, to see how much it changes."""
    nms_iou: float = Field(default=0.7, ge=0, le=1)
    """Of two masks of a tile whose boxes have a greater IoU the one of lower predicted IoU is dropped."""
    join_iou: float = Field(default=0.5, gt=0, le=1)
    """Segments of overlapping tiles are one where, in what both tiles see, their IoU is at least this."""
    min_area_m2: float | None = Field(default=None, ge=0)
    """Segments smaller than this are dropped; None: than 25 pixels."""

    def settled(self, masks: int) -> Self:
        """The limits for a model that gives so many masks a point, where none were given."""
        usual = {"predicted_iou": 0.88, "stability": 0.95}  # Segment Anything's own.
        unset = {name: limit if masks > 1 else 0.0 for name, limit in usual.items() if getattr(self, name) is None}
        return self.model_copy(update=unset)


class SelectOptions(_Options):
    """Everything ``geosam select`` can be told: one way of choosing segments."""

    points: str | None = None
    """Vector file of points; attribute ``label``: water or dry."""
    box: str | None = None
    """``x0,y0,x1,y1`` in the segments' CRS."""
    boxes: str | None = None
    """Vector file of polygons, whose bounds along the pixel grid are boxes."""
    text: str | None = None
    """Words for what is wanted, such as river; CLIP is asked, or ``model``."""
    index: str | None = None
    """An index of which the segments have the mean, such as ndwi."""
    above: float | None = None
    """Mean index, or with ``text`` its share, above which a segment is taken; None: fitted, or with ``text`` 0.5."""
    touching: str | None = None
    """Vector file of lines, points or polygons."""
    clip: str = "openai/clip-vit-base-patch32"
    """Hub id or folder of the CLIP that ``text`` is asked of."""
    model: str | None = None
    """A model that understands words, SAM 3, to be told ``text`` in place of CLIP: name, hub id or folder."""

    @property
    def way(self) -> str:
        """Which of the ways is meant.

        Raises:
            OptionsError: None or several are.
        """
        ways = [name for name in ("points", "box", "boxes", "text", "index", "touching") if getattr(self, name)]
        if len(ways) != 1:
            found = " and ".join(f"--{name}" for name in ways) or "none"
            raise OptionsError(
                f"select takes one of --points, --box, --boxes, --text, --index and --touching, and was given {found}."
            )
        return ways[0]


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
    if fault["type"] == "value_error":  # One of our own, of several values together: it says itself what it got.
        said = str(fault["msg"]).removeprefix("Value error, ")
        return f"{key}: {said}" if key else said
    return f"{key}: {fault['msg']}, got {fault['input']!r}"


def _whole_numbers_to_float(values: dict[str, Any]) -> dict[str, Any]:
    """Let ``gsd = 1`` stand for 1.0, which a strict union of names and floats refuses."""
    scene = dict(values.get("scene", {})) if isinstance(values.get("scene"), dict) else None
    if scene is not None and isinstance(scene.get("gsd"), int) and not isinstance(scene["gsd"], bool):
        return {**values, "scene": {**scene, "gsd": float(scene["gsd"])}}
    return values
