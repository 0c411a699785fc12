"""What a worker is asked besides blocks: its model's card, and whole scenes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace

from geosam.cluster.card import ModelCard, model_here
from geosam.cluster.storage import Sign, Watch, absolute
from geosam.coarse.rules import known_methods
from geosam.errors import GeosamError, OutputError, RunError, SceneError
from geosam.models import MODELS
from geosam.options import ModelOptions, SegmentOptions
from geosam.pipeline import Rivers
from geosam.pipeline.lock import Owner
from geosam.pipeline.machines import Here, SceneJob
from geosam.pipeline.many import run_scene


@dataclass(frozen=True)
class SceneTask:
    """A scene of many, for one worker. Paths are absolute."""

    job: SceneJob
    options: SegmentOptions
    card: ModelCard
    owner: Owner
    sign: Sign
    is_file: bool
    """Whether the process that asks sees the source as a file, so that a worker that does not is at fault."""


def card(options: ModelOptions, tries: int) -> ModelCard | GeosamError:
    """The card of this worker's model, or why it cannot be loaded."""
    try:
        return ModelCard.of(model_here(options))
    except GeosamError as error:
        return error


def run_task(task: SceneTask, tries: int) -> Rivers | GeosamError:
    """Run a scene to its files, going on from what a worker that died had finished of it.

    Returns:
        The result, or why this scene cannot be used.

    Raises:
        GeosamError: This worker is at fault, or the run has ended.
    """
    task.sign.check()
    model = model_here(task.options.model, task.card)
    if task.is_file and not os.path.exists(task.job.source):
        raise SceneError(f"{task.job.source} is not on {socket.gethostname()}. Put it where all machines see it.")
    watch = Watch(task.sign)
    try:
        return run_scene(Here(task.owner), task.job, task.options, model, lambda stage, done, total: watch(done, total))
    except (OutputError, RunError):  # A disk of this worker that is full is no fault of the scene.
        raise
    except GeosamError as error:
        return error


def anywhere(job: SceneJob) -> SceneJob:
    """The job with absolute paths."""
    paths = {name: getattr(job, name) for name in ("out", "probability", "mask", "report")}
    return replace(job, source=absolute(job.source), **{name: path and path.absolute() for name, path in paths.items()})


def options_anywhere(options: SegmentOptions) -> SegmentOptions:
    """The options with absolute paths."""
    values = options.model_dump()
    if values["coarse"]["method"] not in known_methods():
        _make_absolute(values["coarse"], "method")
    if values["model"]["name"] not in MODELS:
        _make_absolute(values["model"], "name")
    for stage, key in (("scene", "aoi"), *(("prompts", key) for key in values["prompts"] if key.endswith("_file"))):
        _make_absolute(values[stage], key)
    return SegmentOptions.model_validate(values)


def _make_absolute(values: dict[str, str | None], key: str) -> None:
    path = values[key]
    values[key] = path and absolute(path)
