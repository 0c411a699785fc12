"""Where the results of a run go, and where it keeps what is not finished yet."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geosam.errors import OptionsError, OutputError
from geosam.pipeline.lock import Owner, locked
from geosam.vector import check_output, check_path


@dataclass(frozen=True)
class Outputs:
    """What :func:`segment` writes besides returning; None: not written."""

    vector: Path | None = None
    """Polygons: .geojson, .gpkg, .fgb or .parquet."""
    probability: Path | None = None
    """Probability of water, float32 GeoTIFF, NaN nodata."""
    mask: Path | None = None
    """Water mask, uint8 GeoTIFF: 1 water, 0 dry, 255 nodata."""
    report: Path | None = None
    """Report of the run, JSON."""
    products: Path | None = None
    """Centrelines, widths, reaches and islands of the rivers, a GeoPackage."""

    def check(self, overwrite: bool, has_crs: bool = True) -> None:
        """Refuse outputs that could not be written, before an hours-long run.

        Raises:
            OutputError: A folder is missing or a file exists.
            OptionsError: The vector format is unknown or cannot do without a CRS.
        """
        if self.vector is not None:
            check_output(self.vector, overwrite, has_crs=has_crs)
        for path in (self.probability, self.mask, self.report):
            if path is not None:
                check_path(path, overwrite)
        if self.products is not None:
            from geosam.rivers import check_network  # loads geopandas

            check_network(self.products, overwrite)
        every = (self.vector, self.probability, self.mask, self.report, self.products)
        given = [path.resolve() for path in every if path]
        if len(set(given)) < len(given):
            raise OptionsError("two outputs have the same path. Give each its own.")


@contextmanager
def work_folder(outputs: Outputs, resume: bool, owner: Owner) -> Iterator[Path]:
    """A folder for what is not finished yet: beside the output, so that ``resume`` finds it.

    A run that fails leaves it only if there are finished strips to go on from.

    Raises:
        OutputError: Another run is at work on the output.
    """
    beside = outputs.vector or outputs.probability or outputs.mask
    if beside is None:
        with tempfile.TemporaryDirectory(prefix="geosam-") as temporary:
            yield Path(temporary)
        return
    folder = work_path(beside)
    with locked(beside, owner):
        if not resume and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except BaseException:  # Ctrl-C too.
            if not any(folder.glob("strips/strip-*")):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def work_path(output: Path) -> Path:
    """Where a run with this output keeps what is not finished yet."""
    return output.with_name(f".{output.name}.work")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON under another name, then rename it.

    Raises:
        OutputError: The disk is full or the folder is gone.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"{path} could not be written ({error.strerror or error}). Nothing was left behind."
        ) from None
