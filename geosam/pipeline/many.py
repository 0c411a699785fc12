"""One scene or many: each with its own files, or all in one file with a column ``scene``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.errors import GeosamError, OptionsError, RunError
from geosam.models import load_model
from geosam.options import SegmentOptions
from geosam.pipeline import Progress, Rivers, segment
from geosam.pipeline.outputs import write_json
from geosam.vector import check_output, write_rivers

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass
class Batch:
    """What became of the inputs of a run."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reports by input."""
    bad: dict[str, str] = field(default_factory=dict)
    """Inputs that could not be used, and why."""
    written: dict[str, Path] = field(default_factory=dict)
    """The polygons' file by input."""

    @property
    def failed(self) -> bool:
        """Whether an input or a tile failed."""
        return bool(self.bad) or any(report["tiles"]["failed"] for report in self.done.values())

    def lines(self) -> Iterator[str]:
        """A line for each input that is done: file, water found, work, time."""
        for name, report in self.done.items():
            yield _line(self.written[name], report)


def segment_many(
    inputs: Sequence[str],
    options: SegmentOptions | None = None,
    *,
    out: str | Path,
    probability: str | Path | None = None,
    mask: str | Path | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Batch:
    """River polygons of one scene or of many.

    Args:
        inputs: Paths, URLs or GDAL names.
        options: Every stage's options.
        out: For one input a file. For several a folder (a file of the input's name each), or one file.
        probability: As ``out``; for several inputs a folder.
        mask: As ``out``; for several inputs a folder.
        report: A file; for several inputs a list of reports.
        overwrite: Replace outputs that exist.
        resume: Go on from what an earlier run finished.
        progress: Told stage, work done and work in all.
        tell: Given warnings and the reasons of failures, a line each.

    Returns:
        Reports and failures. Of several inputs a bad one is told and noted, and the others go on.

    Raises:
        GeosamError: The only input is bad, or an option or output is.
    """
    options = SegmentOptions() if options is None else options
    folder = Path(out).is_dir() or str(out).endswith("/")
    if len(inputs) == 1 and not folder:
        result = segment(
            inputs[0], options, out=out, probability=probability, mask=mask, report=report,
            overwrite=overwrite, resume=resume, progress=progress,
        )  # fmt: skip
        return _told(Batch({inputs[0]: result.report}, {}, {inputs[0]: Path(out)}), tell)
    work = _Work(list(inputs), options, Path(out), overwrite, resume, progress)
    work.check(folder, probability, mask, report)
    batch = work.into_folder(probability, mask) if folder else work.into_one_file(probability, mask)
    if report is not None:
        write_json(Path(report), {"scenes": list(batch.done.values()), "bad": batch.bad})
    return _told(batch, tell)


@dataclass(frozen=True)
class _Work:
    inputs: list[str]
    options: SegmentOptions
    out: Path
    overwrite: bool
    resume: bool
    progress: Progress | None

    def check(self, folder: bool, *others: str | Path | None) -> None:
        """Refuse what could not be written, before the first scene is run."""
        names = [_stem(name) for name in self.inputs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise OptionsError(f"two inputs are called {twice[0]}, so that their results could not be told apart.")
        if folder:
            self.out.mkdir(exist_ok=True)
        else:
            check_output(self.out, self.overwrite)
        for path in others[:2]:
            if path is not None:
                Path(path).mkdir(exist_ok=True)

    def into_folder(self, probability: str | Path | None, mask: str | Path | None) -> Batch:
        """A file for each scene."""
        batch = Batch()
        for name, target, result in self._each(batch, self.out, ".geojson", probability, mask, self.overwrite):
            batch.done[name], batch.written[name] = result.report, target
        return batch

    def into_one_file(self, probability: str | Path | None, mask: str | Path | None) -> Batch:
        """One file for all scenes; parts lie beside it until all are done, so that ``resume`` finds them."""
        parts = self.out.with_name(f".{self.out.name}.parts")
        if not self.resume:
            shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(exist_ok=True)
        batch, tables = Batch(), []
        for name, _, result in self._each(batch, parts, ".parquet", probability, mask, True):
            batch.done[name], batch.written[name] = result.report, self.out
            tables.append(result.polygons)
        if not tables:
            raise RunError(f"none of {len(self.inputs)} inputs could be used. First: {next(iter(batch.bad.values()))}")
        write_rivers(_one_table(tables), self.out, self.overwrite)
        shutil.rmtree(parts, ignore_errors=True)
        return batch

    def _each(
        self, batch: Batch, folder: Path, suffix: str, probability: str | Path | None, mask: str | Path | None,
        overwrite: bool,
    ) -> Iterator[tuple[str, Path, Rivers]]:  # fmt: skip
        """Run scene after scene with one model; bad ones go to the batch's list."""
        model = load_model(self.options.model)
        for name in self.inputs:
            target = folder / f"{_stem(name)}{suffix}"
            rasters = [Path(place) / f"{_stem(name)}.tif" if place else None for place in (probability, mask)]
            try:
                result = segment(
                    name, self.options, out=target, probability=rasters[0], mask=rasters[1], model=model,
                    overwrite=overwrite, resume=self.resume, progress=self.progress,
                )  # fmt: skip
            except GeosamError as error:
                batch.bad[name] = str(error)
                continue
            yield name, target, result


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


def _stem(name: str) -> str:
    return Path(name.rstrip("/")).name.split("?")[0].rsplit(".", 1)[0] or "scene"


def _told(batch: Batch, tell: Callable[[str], None]) -> Batch:
    for name, report in batch.done.items():
        for warning in report["warnings"]:
            tell(f"{name}: {warning}")
        if report["tiles"]["failed"]:
            tell(f"{name}: {report['tiles']['failed']} tiles failed and are nodata. First: {report['failures'][0]}")
    for name, reason in batch.bad.items():
        tell(reason if name in reason else f"{name}: {reason}")
    return batch


def _line(path: Path, report: dict[str, Any]) -> str:
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
