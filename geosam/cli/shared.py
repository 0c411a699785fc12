"""Options that several verbs share, each defined once, and the way they become the options of a stage.

An option made by :func:`stage_option` knows the field it sets (``scene.gsd``, ``model.name``), shows that
field's default in ``--help``, and hands its value to :func:`segment_options` rather than to the verb's function,
so a verb's signature stays short::

    @click.command()
    @click.argument("scene")
    @shared.scene_options
    @shared.area_options("vector")
    @shared.config_option
    def command(scene: str) -> None:
        options = shared.segment_options()

Nothing here imports torch, rasterio or geopandas.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, get_args

import click
from click.core import ParameterSource
from pydantic import BaseModel

from geosam.cli.values import batch_size, gsd, magnify, threshold
from geosam.errors import OptionsError
from geosam.options import Device, Dtype, SegmentOptions, read_toml

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]
Progress = Callable[[int, int], None]

_GIVEN = "geosam.given"
_NAMES = "geosam.names"
_CONFIG = "geosam.config"
_FROM_USER = frozenset({ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.PROMPT})


# Options that know the field they set ---------------------------------------------------------------------------------


def stage_option(*names: str, key: str, help: str, **settings: Any) -> Decorator[F]:
    """A click option that sets one field of :class:`~geosam.options.SegmentOptions`.

    Args:
        names: Option names, ``"--gsd"``.
        key: The field, ``"scene.gsd"``, or ``"seed"``.
        help: What the option does; the field's default is added to it.
        settings: Handed to :func:`click.option`.
    """
    shown = _default_of(key)
    return click.option(
        *names,
        help=f"{help}  [default: {shown}]" if shown else help,
        expose_value=False,
        callback=_remember(key),
        **{"default": None, **settings},
    )


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def keep_what_the_user_gave(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        # Only what was typed may win over the TOML file: a default that came along would undo the file.
        if param.name is not None and ctx.get_parameter_source(param.name) in _FROM_USER:
            ctx.meta.setdefault(_GIVEN, {})[key] = value
            ctx.meta.setdefault(_NAMES, {})[key] = param.opts[0]
        return value

    return keep_what_the_user_gave


def _default_of(key: str) -> str:
    """The default of a field as a person reads it; empty for a switch and for "read from the file"."""
    value: Any = SegmentOptions()
    for part in key.split("."):
        value = getattr(value, part)
    if value is None:
        return "" if key.startswith("scene.") or key.endswith("_file") else "auto"
    if isinstance(value, bool):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def join(*decorators: Decorator[Any]) -> Decorator[Any]:
    """One decorator of several, listed by ``--help`` in the order given."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


scene_options: Decorator[Any] = join(
    stage_option(
        "--bands",
        key="scene.bands",
        metavar="ROLES",
        help="Which band is which: red=1,green=2,blue=3,nir=4, or naip, sentinel2, landsat8, planetscope. "
        "Needed only where the file does not say.",
    ),
    stage_option("--aoi", key="scene.aoi", metavar="FILE", help="Work only inside the polygons of this vector file."),
    stage_option("--gsd", key="scene.gsd", type=gsd, metavar="native|auto|METRES", help="Pixel size to work at."),
    stage_option(
        "--nodata",
        key="scene.nodata",
        type=float,
        metavar="VALUE",
        help="Value that means no data, where the file does not say so: 0 for a black border.",
    ),
    stage_option(
        "--allow-no-crs",
        key="scene.allow_no_crs",
        is_flag=True,
        default=False,
        help="Accept a raster without CRS; the result is in pixel coordinates, not in GeoJSON.",
    ),
)
"""``--bands --aoi --gsd --nodata --allow-no-crs``: how a raster is read."""

coarse_option: Decorator[Any] = stage_option(
    "--coarse",
    key="coarse.method",
    metavar="METHOD|FILE",
    help="First guess of water: auto (an index with infrared, else learned or rgb), mndwi, awei, awei-sh, ndwi-ndvi, "
    "ndwi, rgb, exg, dark, hsv, learned, or a raster or vector file that holds a mask.",
)
"""``--coarse``: the rule of the first guess, or a file that holds one."""

model_options: Decorator[Any] = join(
    stage_option("--model", key="model.name", metavar="NAME", help="A name of geosam models, a hub id, or a folder."),
    stage_option("--device", key="model.device", type=click.Choice(get_args(Device)), help="Where the model runs."),
    stage_option("--dtype", key="model.dtype", type=click.Choice(get_args(Dtype)), help="Precision it runs in."),
    stage_option("--batch-size", key="model.batch_size", type=batch_size, metavar="auto|N", help="Tiles a batch."),
    stage_option(
        "--magnify",
        key="model.magnify",
        type=magnify,
        metavar="auto|1|2|4",
        help="Times that river-tiny enlarges a tile before it looks at it; 1 is the fastest.",
    ),
    stage_option(
        "--views",
        key="model.views",
        type=click.IntRange(1, 8),
        metavar="N",
        help="Average the answers to 1 to 8 turned and mirrored views of a tile; each costs as much as the first.",
    ),
    stage_option(
        "--compile",
        key="model.compile",
        is_flag=True,
        default=False,
        help="Compile the encoder of a SAM or river-tiny, for long runs: minutes at first, then faster tiles.",
    ),
)
"""``--model --device --dtype --batch-size --views --compile``: the model and how it is run."""

tile_options: Decorator[Any] = join(
    stage_option(
        "--tiles",
        key="tiles.which",
        type=click.Choice(["auto", "water", "all"]),
        help="Run the model only where the first guess has water, or everywhere; auto: everywhere where no prompt "
        "is given, else water.",
    ),
    stage_option(
        "--overlap", key="tiles.overlap_px", type=int, metavar="PX", help="Overlap of neighbouring tiles in pixels."
    ),
)
"""``--tiles --overlap``: how the scene is cut."""

prompt_options: Decorator[Any] = join(
    stage_option(
        "--prompts",
        key="prompts.which",
        type=click.Choice(["auto", "given", "both", "none"]),
        help="auto: points of the first guess. given: yours alone, and only tiles that hold one run; so it is where a "
        "file of yours is named. Points alone use neither the first guess nor near infrared, and reach no farther than "
        "their tiles; both adds them to the automatic run. none: no prompt, for a model trained for it.",
    ),
    stage_option(
        "--points",
        key="prompts.points_file",
        metavar="FILE",
        help="Your points, in any vector format and CRS. Attribute label: water or dry (or 1 and 0); without it all "
        "are water. Points of the same attribute body are one prompt. What geosam prompts writes is such a file.",
    ),
    stage_option(
        "--boxes",
        key="prompts.boxes_file",
        metavar="FILE",
        help="Your boxes: the bounds of each polygon of a vector file.",
    ),
    stage_option(
        "--prompt-mask",
        key="prompts.mask_file",
        metavar="FILE",
        help="Your mask, polygons or raster, as a dense prompt, for models that understand masks (--mask is the "
        "raster that is written; for a mask to sample points in, see --coarse).",
    ),
    stage_option(
        "--multimask",
        key="prompts.multimask",
        is_flag=True,
        default=False,
        help="Have whole, part and sub-part of each water body, and keep the one of highest predicted IoU.",
    ),
)
"""``--prompts --points --boxes --prompt-mask --multimask``: what a run asks its model."""

simplify_option: Decorator[Any] = stage_option(
    "--simplify",
    key="vector.simplify_m",
    type=float,
    metavar="M",
    help="Simplify outlines by at most so many metres, whatever the CRS.",
)
"""``--simplify``: tolerance of the outlines in metres."""

seed_option: Decorator[Any] = stage_option(
    "--seed", key="seed", type=int, metavar="N", help="Seed of the prompts; the same seed gives the same result."
)
"""``--seed``: seed of everything drawn at random in a run."""


def threshold_option(stage: Literal["coarse", "vector"]) -> Decorator[Any]:
    """``--threshold auto|FLOAT``: of the index (``coarse``) or of the probability (``vector``)."""
    what = {"coarse": "Index value", "vector": "Probability"}[stage]
    return stage_option(
        "--threshold",
        key=f"{stage}.threshold",
        type=threshold,
        metavar="auto|FLOAT",
        help=f"{what} above which a pixel is water.",
    )


def area_options(stage: Literal["coarse", "vector"]) -> Decorator[Any]:
    """``--min-area --max-hole`` in square metres, of the coarse mask (``coarse``) or of the polygons (``vector``)."""
    return join(
        stage_option(
            "--min-area",
            key=f"{stage}.min_area_m2",
            type=float,
            metavar="M2",
            help="Drop water bodies smaller than this, in square metres.",
        ),
        stage_option(
            "--max-hole",
            key=f"{stage}.max_hole_m2",
            type=float,
            metavar="M2",
            help="Fill islands smaller than this, in square metres.",
        ),
    )


# Options of the command line itself -----------------------------------------------------------------------------------


def _remember_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        ctx.meta[_CONFIG] = value
    return value


config_option: Decorator[Any] = click.option(
    "--config",
    metavar="C.toml",
    expose_value=False,
    callback=_remember_config,
    help="Options from a TOML file, one table a stage (see configs/). The command line wins over it.",
)
"""``--config``: a TOML file below the command line's own values."""

style_option: Decorator[Any] = click.option(
    "--style/--no-style",
    default=True,
    show_default=True,
    help="Also write a QGIS style beside each result, such as rivers.qml, unless there is one.",
)
"""``--style --no-style``: handed to the verb as ``style``."""

overwrite_option: Decorator[Any] = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
"""``--overwrite``: handed to the verb as ``overwrite``."""

json_option: Decorator[Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON, for other programs.")
"""``--json``: handed to the verb as ``as_json``."""


def segment_options(ctx: click.Context | None = None) -> SegmentOptions:
    """The options of every stage: the command line over ``--config`` over the defaults.

    Args:
        ctx: The verb's context; None: the current one.

    Raises:
        OptionsError: The file cannot be read, or a value is unknown or out of range; one line that names it.
    """
    ctx = ctx or click.get_current_context()
    config: str | None = ctx.meta.get(_CONFIG)
    values = read_toml(config) if config else {}
    for key, value in ctx.meta.get(_GIVEN, {}).items():
        _put(values, key, value)
    try:
        return SegmentOptions.from_mapping(values, where=config or "")
    except OptionsError as error:
        raise OptionsError(_by_option_name(str(error), ctx, config)) from None


def was_given(key: str, ctx: click.Context | None = None) -> bool:
    """Whether the user typed the option that sets this field (a TOML file does not count)."""
    ctx = ctx or click.get_current_context()
    return key in ctx.meta.get(_GIVEN, {})


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    stage, _, name = key.rpartition(".")
    table = values.setdefault(stage, {}) if stage else values
    if not isinstance(table, dict):
        raise OptionsError(f"{stage} must be a table of options, got {table!r}. Write [{stage}] in the TOML file.")
    table[name] = value


def _by_option_name(message: str, ctx: click.Context, config: str | None) -> str:
    """Name the option where the user typed it, and the file only where the fault is in the file."""
    for key, name in ctx.meta.get(_NAMES, {}).items():
        if f": {key}: " in message:
            return f"{name}: " + message.split(f": {key}: ", 1)[1]
    return message if config else message.removeprefix(": ")


def stage_fields() -> dict[str, tuple[str, ...]]:
    """Every table a TOML file may hold and its keys, in order; for help texts and tests."""
    stages = {name: field.annotation for name, field in SegmentOptions.model_fields.items()}
    return {
        name: tuple(stage.model_fields)
        for name, stage in stages.items()
        if isinstance(stage, type) and issubclass(stage, BaseModel)
    }


# Progress -------------------------------------------------------------------------------------------------------------


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of several stages on stderr, where stderr is a terminal; silent elsewhere.

    Yields:
        ``progress(stage, done, total)``; every new ``stage`` is a new line. May be called from any thread.
    """
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield advance


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Progress of one stage on stderr, where stderr is a terminal; silent elsewhere.

    Yields:
        ``progress(done, total)``.
    """
    with stage_progress() as advance:
        yield lambda done, total: advance(title, done, total)
