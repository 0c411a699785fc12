"""One scene or many: each with its own files, or all in one file with a column ``scene``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.errors import GeosamError, OptionsError, RunError
from geosam.options import SegmentOptions
from geosam.pipeline import Outputs, Progress, Rivers, segment, write_network
from geosam.pipeline.inputs import Source, sources
from geosam.pipeline.lock import locked
from geosam.pipeline.machines import Here, Machines, SceneJob
from geosam.pipeline.outputs import write_json
from geosam.scene import Scene
from geosam.scene.stack import stack_title
from geosam.vector import write_rivers

if TYPE_CHECKING:
    import geopandas as gpd

    from geosam.models import PromptableModel


@dataclass
class Batch:
    """What became of the inputs of a run."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reports by input."""
    bad: dict[str, str] = field(default_factory=dict)
    """Inputs that could not be used, and why."""
    written: dict[str, Path] = field(default_factory=dict)
    """The polygons' file by input."""
    kept: list[Path] = field(default_factory=list)
    """Files that an earlier run had finished, which ``resume`` left as they are."""
    probabilities: list[Path] = field(default_factory=list)
    """Rasters of the probability of water."""
    masks: list[Path] = field(default_factory=list)
    """Rasters of water."""
    unmade: list[str] = field(default_factory=list)
    """Products that could not be made of the polygons, a line each that says why."""

    @property
    def failed(self) -> bool:
        """Whether an input, a tile or a product failed."""
        return bool(self.bad or self.unmade) or any(report["tiles"]["failed"] for report in self.done.values())

    def note_rasters(self, probability: str | Path | None, mask: str | Path | None) -> None:
        """Keep the names of the rasters of one scene."""
        self.probabilities += [] if probability is None else [Path(probability)]
        self.masks += [] if mask is None else [Path(mask)]

    def note_unmade(self, reason: str | None) -> None:
        """Keep why products could not be made; None: they were, or nobody asked for them."""
        self.unmade += [] if reason is None else [reason]

    def lines(self) -> Iterator[str]:
        """A line for each input that is done: file, water found, work, time."""
        for path in self.kept:
            yield f"{path}: finished by an earlier run, and left as it is"
        in_one_file = len(set(self.written.values())) < len(self.written)
        for name, report in self.done.items():
            yield _line(f"{self.written[name]}, {name}" if in_one_file else str(self.written[name]), report)


def segment_many(
    inputs: Sequence[str],
    options: SegmentOptions | None = None,
    *,
    out: str | Path,
    probability: str | Path | None = None,
    mask: str | Path | None = None,
    report: str | Path | None = None,
    products: str | Path | None = None,
    asset: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda message: None,
    machines: Machines | None = None,
) -> Batch:
    """River polygons of one scene or of many.

    Args:
        inputs: Paths, URLs or GDAL names; folders of rasters, lists and STAC documents stand for all they hold:
            see :func:`geosam.pipeline.inputs.sources`.
        options: Every stage's options.
        out: For one scene a file. For several a folder (a file of the scene's name each), or one file.
        probability: As ``out``; for several scenes a folder.
        mask: As ``out``; for several scenes a folder.
        report: A file; for several scenes a list of reports.
        products: GeoPackage of centrelines, widths, reaches and islands; where ``out`` is a folder, a folder.
        asset: Asset of STAC items that is the image; None: the first that looks like one.
        overwrite: Replace outputs that exist.
        resume: Go on from what an earlier run finished.
        progress: Told stage, work done and work in all.
        tell: Given warnings and the reasons of failures, a line each.
        machines: Compute, from :mod:`geosam.cluster`; None: this process does.

    Returns:
        Reports and failures. Of several inputs a bad one is told and noted, and the others go on.

    Raises:
        GeosamError: The only input is bad, or an option or output is.
    """
    options = SegmentOptions() if options is None else options
    machines = Here() if machines is None else machines
    folder = Path(out).is_dir() or str(out).endswith("/")
    found = sources(inputs, asset)
    if len(found) == 1 and not folder:
        result = segment(
            _opened(found[0].path, found[0].name, options), options, out=out, probability=probability, mask=mask,
            report=report, products=products, overwrite=overwrite, resume=resume, progress=progress,
            machines=machines,
        )  # fmt: skip
        name = stack_title(found[0].path)
        batch = Batch({name: result.report}, written={name: Path(out)})
        batch.note_rasters(probability, mask)
        batch.note_unmade(result.report["products_unmade"])
        return _told(batch, tell)
    network = None if products is None else Path(products)
    work = _Work(found, options, Path(out), network, overwrite, resume, progress, machines)
    work.check(folder, probability, mask, report)
    batch = work.into_folder(probability, mask) if folder else work.into_one_file(probability, mask)
    if report is not None:
        write_json(
            Path(report), {"scenes": list(batch.done.values()), "bad": batch.bad, "products_unmade": batch.unmade}
        )
    return _told(batch, tell)


def one_after_another(
    machines: Machines, jobs: Sequence[SceneJob], options: SegmentOptions, progress: Progress | None = None
) -> Iterator[Rivers | GeosamError]:
    """Run scenes in order with one model, each on all machines; for one that cannot be used, why."""
    model = machines.model(options.model)
    for job in jobs:
        try:
            yield run_scene(machines, job, options, model, progress)
        except GeosamError as error:
            yield error


def run_scene(
    machines: Machines,
    job: SceneJob,
    options: SegmentOptions,
    model: PromptableModel,
    progress: Progress | None = None,
) -> Rivers:
    """One scene of many; one that an earlier run finished is taken as it is.

    Raises:
        GeosamError: The scene cannot be used.
    """
    if job.resume:
        known = _finished(job, options, model)
        if known is not None:
            return known
    return segment(
        _opened(job.source, job.name, options), options, out=job.out, probability=job.probability, mask=job.mask,
        report=job.report, model=model, overwrite=job.overwrite, resume=job.resume, progress=progress,
        machines=machines,
    )  # fmt: skip


def _opened(source: str, name: str | None, options: SegmentOptions) -> str | Scene:
    return source if name is None else replace(Scene.open(source, options.scene), name=name)


def _finished(job: SceneJob, options: SegmentOptions, model: PromptableModel) -> Rivers | None:
    """What a job left that ended well, with the same options and model; None: it has to be run."""
    import geopandas as gpd

    try:
        report = json.loads(job.report.read_text(encoding="utf-8")) if job.report else {}
        polygons = gpd.read_parquet(job.out) if report else None
    except (OSError, ValueError):
        return None
    same = report.get("options") == options.model_dump(mode="json") and report["model"]["sha256"] == model.sha256
    return Rivers(polygons, report) if same else None


@dataclass(frozen=True)
class _Work:
    inputs: list[Source]
    options: SegmentOptions
    out: Path
    products: Path | None
    overwrite: bool
    resume: bool
    progress: Progress | None
    machines: Machines

    def check(self, folder: bool, *others: str | Path | None) -> None:
        """Refuse what could not be written, before the first scene is run."""
        names = [_stem(source) for source in self.inputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise OptionsError(f"two inputs are called {twice[0]}, so that their results could not be told apart.")
        if folder:
            self.out.mkdir(exist_ok=True)
        else:
            Outputs(self.out, products=self.products).check(self.overwrite)
        for path in (*others[:2], self.products if folder else None):
            if path is not None:
                Path(path).mkdir(exist_ok=True)
        if folder and self.products is not None and not self.resume:
            for name in names:
                Outputs(products=self.products / f"{name}.gpkg").check(self.overwrite)

    def into_folder(self, probability: str | Path | None, mask: str | Path | None) -> Batch:
        """A file for each scene; ``resume`` leaves those that are there."""
        jobs = [self._job(source, self.out, ".geojson", probability, mask) for source in self.inputs]
        kept = [job for job in jobs if self.resume and not self.overwrite and job.out.exists()]
        batch = Batch(kept=[job.out for job in kept])
        for job in kept:
            self._network(batch, job, job.out)
        for job, result in self._each(batch, [job for job in jobs if job not in kept]):
            batch.written[stack_title(job.source)] = job.out
            self._network(batch, job, result.polygons, result.report["gsd_m"])
        return batch

    def into_one_file(self, probability: str | Path | None, mask: str | Path | None) -> Batch:
        """One file for all scenes; parts lie beside it until all are done, so that ``resume`` finds them."""
        parts = self.out.with_name(f".{self.out.name}.parts")
        with locked(self.out, self.machines.owner):
            if not self.resume:
                shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir(exist_ok=True)
            jobs = [self._job(source, parts, ".parquet", probability, mask) for source in self.inputs]
            jobs = [replace(job, report=job.out.with_suffix(".json"), overwrite=True) for job in jobs]
            batch = Batch()
            tables = [result.polygons for _, result in self._each(batch, jobs)]
            if not tables:
                first = next(iter(batch.bad.values()))
                raise RunError(f"none of {len(self.inputs)} inputs could be used. First: {first}")
            batch.written = dict.fromkeys(batch.done, self.out)
            rivers = _one_table(tables)
            write_rivers(rivers, self.out, self.overwrite)
            if self.products is not None:
                batch.note_unmade(write_network(rivers, self.products, self.overwrite))
            shutil.rmtree(parts, ignore_errors=True)
        return batch

    def _job(
        self, source: Source, folder: Path, suffix: str, probability: str | Path | None, mask: str | Path | None
    ) -> SceneJob:
        stem = _stem(source)
        first, second = (Path(place) / f"{stem}.tif" if place else None for place in (probability, mask))
        out = folder / f"{stem}{suffix}"
        return SceneJob(source.path, source.name, out, first, second, None, self.overwrite, self.resume)

    def _network(self, batch: Batch, job: SceneJob, water: gpd.GeoDataFrame | Path, gsd_m: float | None = None) -> None:
        """Write the products of one scene, unless ``resume`` finds them there."""
        if self.products is not None:
            path = self.products / f"{job.out.stem}.gpkg"
            if self.overwrite or not path.exists():
                batch.note_unmade(write_network(water, path, self.overwrite, gsd_m))

    def _each(self, batch: Batch, jobs: list[SceneJob]) -> Iterator[tuple[SceneJob, Rivers]]:
        """Run the scenes, in order as far as the results go; bad ones go to the batch's list."""
        outcomes = self.machines.scenes(jobs, self.options, self.progress) if jobs else iter(())
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Rivers):
                batch.done[stack_title(job.source)] = outcome.report
                batch.note_rasters(job.probability, job.mask)
                yield job, outcome
            else:
                batch.bad[stack_title(job.source)] = str(outcome)


def _one_table(tables: list[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """All scenes in one table and one CRS: their own where they share it, else longitude and latitude."""
    import geopandas as gpd
    import pandas as pd

    systems = {str(table.crs) for table in tables}
    shared = tables if len(systems) == 1 else [table.to_crs("EPSG:4326") for table in tables]
    filled = [table for table in shared if len(table)] or shared[:1]
    joined = gpd.GeoDataFrame(pd.concat(filled, ignore_index=True), crs=shared[0].crs)
    joined["id"] = range(1, len(joined) + 1)
    return joined


def _stem(source: Source) -> str:
    """Name of a scene's files; of a STAC item's id what can stand in a path."""
    if source.name is not None:
        return source.name.replace("/", "_")
    return Path(source.path.rstrip("/")).name.split("?")[0].rsplit(".", 1)[0] or "scene"


def _told(batch: Batch, tell: Callable[[str], None]) -> Batch:
    for name, report in batch.done.items():
        for warning in report["warnings"]:
            tell(f"{name}: {warning}")
        if report["tiles"]["failed"]:
            tell(f"{name}: {report['tiles']['failed']} tiles failed and are nodata. First: {report['failures'][0]}")
    for reason in batch.unmade:
        tell(reason)
    for name, reason in batch.bad.items():
        tell(reason if name in reason else f"{name}: {reason}")
    return batch


def _line(path: str, report: dict[str, Any]) -> str:
    tiles, seconds = report["tiles"], sum(report["seconds"].values())
    work = f"{tiles['run']} of {tiles['total']} tiles run, {seconds:.1f} s, coarse mask {report['coarse']['method']}"
    if report["polygons"] == 0:
        return f"{path}: no water found in {report['scene']}, so the layer is empty ({work})"
    bodies = "1 water body" if report["polygons"] == 1 else f"{report['polygons']} water bodies"
    return f"{path}: {bodies}, {_area(report['area_m2'], report['crs'])} ({work})"


def _area(area: float, crs: str | None) -> str:
    if crs is None:
        return f"{area:.0f} px"
    return f"{area / 1e6:.2f} km2" if area >= 1e5 else f"{area:.0f} m2"
