"""What stands beside the results of a run: styles for QGIS, and STAC items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geosam.catalogue import check_item, write_item
from geosam.pipeline.many import Batch
from geosam.vector.shades import MASK, PROBABILITY
from geosam.vector.style import WATER, Style, style_path, write_style


def check_items(out: str | Path, overwrite: bool) -> None:
    """Refuse an item that could not be written, before a run; where ``out`` is a folder its items are not known yet.

    Raises:
        OutputError: It exists, or its folder cannot be written.
    """
    if not (str(out).endswith("/") or Path(out).is_dir()):
        check_item(Path(out), overwrite)


def put_styles(batch: Batch) -> list[Path]:
    """A QGIS style beside every file of polygons and every raster of a run that has none. Returns the new ones."""
    drawn: list[tuple[Path, Style]] = [
        *((path, WATER) for path in dict.fromkeys(batch.written.values())),
        *((path, PROBABILITY) for path in batch.probabilities),
        *((path, MASK) for path in batch.masks),
    ]
    # By the style's own path: rivers.geojson and rivers.tif have one file for both.
    styles: dict[Path, tuple[Path, list[Style]]] = {}
    for path, style in drawn:
        styles.setdefault(style_path(path), (path, []))[1].append(style)
    written = [write_style(path, *both) for path, both in styles.values()]
    return [style for style in written if style is not None]


def put_items(
    batch: Batch,
    *,
    probability: str | Path | None = None,
    mask: str | Path | None = None,
    products: str | Path | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """A STAC item beside every file of polygons of a run, which names what else the run wrote. Returns their paths.

    Args:
        batch: The run.
        probability: As given to the run.
        mask: As given to the run.
        products: As given to the run.
        report: As given to the run.
        overwrite: Replace items that exist.

    Raises:
        OutputError: An item exists, or cannot be written.
    """
    given = {"probability": probability, "mask": mask, "products": products, "report": report}
    scenes: dict[Path, list[dict[str, Any]]] = {}
    for name, path in batch.written.items():
        scenes.setdefault(path, []).append(batch.done[name])
    return [
        write_item(path, reports, _files(path, {key: Path(one) for key, one in given.items() if one}), overwrite)
        for path, reports in scenes.items()
    ]


def _files(result: Path, given: dict[str, Path]) -> dict[str, Path]:
    """The files that belong to one result: as given, or of its name in a folder that is given for several."""
    there: dict[str, Path] = {}
    for key, path in given.items():
        suffix = ".gpkg" if key == "products" else ".tif"
        one = path / f"{result.stem}{suffix}" if path.is_dir() else path
        if one.is_file():
            there[key] = one
    return there
