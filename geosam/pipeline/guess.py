"""At which resolution a scene is run, and where the first guess of water comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.coarse import CoarseMask, coarse_mask
from geosam.coarse.choose import has_index
from geosam.errors import ModelError
from geosam.models.registry import that_understand
from geosam.options import SceneOptions, SegmentOptions
from geosam.prompts.given import GivenPrompts, way_of
from geosam.prompts.given import runs_everywhere as runs_everywhere
from geosam.scene import Scene

if TYPE_CHECKING:
    from geosam.models import PromptableModel
    from geosam.pipeline.machines import Runner

FINEST_GSD_M = 0.25
"""Finest working resolution of ``gsd="auto"``: river-tiny's training spans 0.15 m to 10 m, and a river
needs to be seen whole more than its ripples do."""

COARSEST_GSD_M = 15.0
"""Beyond this, where rivers are a few pixels wide and no model here was trained, a trusted index decides alone."""

LEAST_SIDE_PX = 512
"""``gsd="auto"`` does not shrink a scene below this: a small scene has to keep its detail."""

LOOK_SIDE_PX = 1024
"""A scene up to this size is looked at in full by the ``learned`` coarse mask, a larger one at half
resolution, which costs a quarter of a full run."""

LOOK_THRESHOLD = 0.2
"""Probability over which that look says water. Low, since a tile without any is not run: at 0.5, half the
resolution missed narrow rivers that the run finds (benchmarks/first_guess.py)."""


def at_working_gsd(scene: Scene, options: SceneOptions) -> Scene:
    """The scene at the resolution it is to be run at.

    ``auto`` is the scene's own, except that finer than :data:`FINEST_GSD_M` is brought up to it as
    far as :data:`LEAST_SIDE_PX` allows.
    """
    if options.gsd == "native" or not scene.has_crs:
        return scene
    if isinstance(options.gsd, float):
        return scene.at_gsd(options.gsd)
    room = min(scene.shape) / LEAST_SIDE_PX  # How many times coarser the scene may become.
    wanted = min(FINEST_GSD_M, scene.gsd_m * max(room, 1.0))
    return scene.at_gsd(wanted) if wanted > 1.05 * scene.gsd_m else scene


@dataclass(frozen=True)
class NoGuess:
    """Stands in for the coarse mask of a run that needs none: no water known, and nothing known to be dry."""

    reason: str
    method: str = "none"
    threshold: float = math.nan
    water_fraction: float = math.nan
    trust: float = 0.0
    warnings: tuple[str, ...] = ()

    def read(self, window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """No water, and every pixel may be any; both bool of the window's shape."""
        known = np.ones((int(window.height), int(window.width)), bool)
        return ~known, known


def guess_needed(options: SegmentOptions) -> NoGuess | None:
    """None where a run needs a coarse mask, else what takes its place."""
    way = way_of(options)
    if way == "given":
        return NoGuess("Not made: only tiles with a given prompt are run.")
    unasked = way == "none" and runs_everywhere(options)
    return NoGuess("Not made: every tile is run without a prompt.") if unasked else None


def check_asked(model: PromptableModel, options: SegmentOptions, given: GivenPrompts | None) -> None:
    """Refuse what the model does not understand, before an hours-long run.

    Raises:
        ModelError: It knows no prompt of a kind that is given, finds nothing without prompts, or has no three masks.
    """
    known = ", ".join(sorted(model.understands))
    strange = [kind for kind in (given.kinds() if given else ()) if kind not in model.understands]
    if strange:
        raise ModelError(
            f"{model.name} does not understand {strange[0]} as prompts (it understands {known}). Leave them out, or "
            f"choose --model {that_understand(strange[0])}."
        )
    if way_of(options) == "none" and "none" not in model.understands:
        raise ModelError(
            f"{model.name} cannot find water without a prompt (it understands {known}). Leave out --prompts none, or "
            f"choose --model {that_understand('none')}."
        )
    if options.prompts.multimask and not getattr(model, "multimask", False):
        raise ModelError(f"{model.name} was trained to give one mask a body, not three. Leave out --multimask.")


def first_guess(
    scene: Scene,
    model: PromptableModel,
    options: SegmentOptions,
    folder: Path,
    progress: Callable[[int, int], None],
    run: Runner | None = None,
) -> CoarseMask:
    """The coarse mask, by an index or a colour rule, or by the model itself without prompts.

    ``auto`` takes an index where the scene has infrared, else what :func:`looks_itself` says, else the colour rule
    ``rgb``. ``run`` computes a look of the model; None: :func:`geosam.predict.run` does.
    """
    if options.coarse.method == "learned" or looks_itself(scene, options, model.understands):
        return _learned(scene, model, options, folder, progress, run)
    mask = coarse_mask(scene, options.coarse, path=folder / "coarse.tif", progress=progress)
    return replace(mask, trust=2 * mask.trust) if scene.gsd_m > COARSEST_GSD_M else mask


def looks_itself(scene: Scene, options: SegmentOptions, understands: Collection[str]) -> bool:
    """Whether ``auto`` means a look by the model: a large scene of colours alone, and a model that needs no prompt.

    There a colour rule calls something water in nearly every tile. The look costs a quarter of a run and leaves out
    what is dry, and on no set of benchmarks/first_guess.py is the result worse. A small scene is run in full anyway,
    as is one of which all tiles are asked for.
    """
    coarse = options.coarse
    asked = coarse.method == "auto" and coarse.threshold is None and options.tiles.which != "all"
    fits = "none" in understands and scene.has_crs and max(scene.shape) > LOOK_SIDE_PX
    return asked and fits and not has_index(scene)


def _learned(
    scene: Scene,
    model: PromptableModel,
    options: SegmentOptions,
    folder: Path,
    progress: Callable[[int, int], None],
    run: Runner | None,
) -> CoarseMask:
    from geosam.predict import unprompted

    side = max(scene.shape)
    look = scene.decimated(side // 2) if side > LOOK_SIDE_PX and scene.has_crs else scene
    threshold = LOOK_THRESHOLD if options.coarse.threshold is None else options.coarse.threshold
    seen = unprompted(look, model, options, folder / "look.tif", threshold=threshold, progress=progress, runner=run)
    from_file = options.coarse.model_copy(update={"method": str(seen), "threshold": None})
    found = coarse_mask(scene, from_file, path=folder / "coarse.tif")
    why = "asked for" if options.coarse.method == "learned" else "no infrared band is there"
    reason = f"learned: {why}; {model.name} without prompts at {_metres(look)}, probability over {threshold:g}."
    return replace(found, method="learned", threshold=threshold, reason=reason)


def _metres(scene: Scene) -> str:
    return f"{scene.gsd_m:.3g} m" if scene.has_crs else f"{scene.shape[1]} x {scene.shape[0]} px"
