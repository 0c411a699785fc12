"""What a run asks of the machines that compute it: its order is the same on one machine and on many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from geosam.errors import GeosamError
from geosam.options import ModelOptions, SegmentOptions
from geosam.pipeline.lock import Owner

if TYPE_CHECKING:
    from geosam.models import PromptableModel
    from geosam.pipeline import Progress, Rivers
    from geosam.predict import TileReport

Runner: TypeAlias = "Callable[..., TileReport]"
"""Computes the tiles of one scene: :func:`geosam.predict.run`, or the same with its arguments on many machines."""


@dataclass(frozen=True)
class SceneJob:
    """One scene of many, and where its results go."""

    source: str
    """Path, URL or GDAL name."""
    name: str | None
    """Told in the column ``scene``; None: the source's own."""
    out: Path
    probability: Path | None = None
    mask: Path | None = None
    report: Path | None = None
    """Written last of all, so a job that has one is done; None: whether it is done cannot be told."""
    overwrite: bool = False
    resume: bool = False


class Machines(Protocol):
    """Where the tiles of a run are computed."""

    @property
    def owner(self) -> Owner:
        """The run, for its locks: what is done for one run may be gone on with by another process of it."""
        ...

    @property
    def run(self) -> Runner:
        """Computes the tiles of one scene."""
        ...

    def model(self, options: ModelOptions) -> PromptableModel:
        """The model as the machines have it; it need not compute in this process."""
        ...

    def scenes(
        self, jobs: Sequence[SceneJob], options: SegmentOptions, progress: Progress | None = None
    ) -> Iterator[Rivers | GeosamError]:
        """Run scenes, each as :func:`geosam.segment` does; results in the order of the jobs."""
        ...


@dataclass(frozen=True)
class Here:
    """This process computes."""

    owner: Owner = field(default_factory=Owner.new)

    @property
    def run(self) -> Runner:
        """:func:`geosam.predict.run`."""
        from geosam import predict

        return predict.run

    def model(self, options: ModelOptions) -> PromptableModel:
        """The model, loaded."""
        from geosam.models import load_model

        return load_model(options)

    def scenes(
        self, jobs: Sequence[SceneJob], options: SegmentOptions, progress: Progress | None = None
    ) -> Iterator[Rivers | GeosamError]:
        """One scene after another."""
        from geosam.pipeline.many import one_after_another

        return one_after_another(self, jobs, options, progress)
