"""Scenes through a model, and what it is sure of apart from what a person should look at."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
import shapely

from geosam.coarse import coarse_mask
from geosam.errors import GeosamError, OptionsError, SceneError
from geosam.models import load_model
from geosam.options import SegmentOptions
from geosam.pipeline import at_working_gsd, segment, without_specks
from geosam.pipeline.inputs import Source, sources
from geosam.relabel.queue import check_queue_path, write_queue
from geosam.relabel.scores import Comparison, Scores
from geosam.relabel.stamp import fingerprint, relative
from geosam.relabel.styles import ACCEPTED, TO_CHECK
from geosam.relabel.views import ORDER, Turned
from geosam.scene import Scene
from geosam.vector import check_path, polygonize

if TYPE_CHECKING:
    from geosam.models import PromptableModel

Progress = Callable[[str, int, int], None]

ACCEPT_ABOVE = 0.9
VIEWS = 4


@dataclass(frozen=True)
class Predicted:
    """What became of the scenes."""

    scenes: gpd.GeoDataFrame
    """As in the queue, the least confident first."""
    failed: tuple[str, ...]
    """A line for each scene that could not be used."""

    @property
    def accepted(self) -> int:
        """Scenes that are confident enough."""
        return int((self.scenes["status"] == ACCEPTED).sum())


def predict(
    scenes: Sequence[str | Path],
    out: str | Path,
    options: SegmentOptions | None = None,
    *,
    accept_above: float = ACCEPT_ABOVE,
    views: int = VIEWS,
    model: PromptableModel | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Predict over unlabelled scenes, and queue what a person should check.

    Args:
        scenes: Rasters, folders, lists or STAC catalogues, as :func:`geosam.pipeline.inputs.sources` takes them.
        out: GeoPackage with the layers scenes (footprints, scores, status), water and predicted.
        options: As of a run of ``segment``.
        accept_above: Confidence above which a scene is accepted unseen.
        views: Turned and mirrored views that are compared, 1 to 8; each costs as much as the first.
        model: A loaded model; None: loaded as ``options.model`` says.
        overwrite: Replace an existing queue.
        progress: Told the scenes done and all scenes.

    Raises:
        OptionsError: A value is out of range, or ``out`` is no GeoPackage.
        SceneError: No scene can be used.
        ModelError: The model cannot be loaded.
        OutputError: ``out`` cannot be written; nothing existing was touched.
    """
    options = SegmentOptions() if options is None else options
    if not 0 <= accept_above <= 1:
        raise OptionsError(f"--accept-above is a confidence between 0 and 1, got {accept_above:g}.")
    if not 1 <= views <= len(ORDER):
        raise OptionsError(f"--views lies between 1 and {len(ORDER)}, got {views}.")
    out = Path(out)
    check_queue_path(out)
    check_path(out, overwrite)
    wanted = sources([str(scene) for scene in scenes])
    loaded = load_model(options.model) if model is None else model
    found, failed = _each(wanted, loaded, options, views, progress or (lambda stage, done, total: None))
    if not found:
        raise SceneError(f"no scene of {len(wanted)} can be used. First: {failed[0]}")
    tables = _tables(found, loaded, options, accept_above, out)
    write_queue(out, tables)
    return Predicted(tables["scenes"], tuple(failed))


@dataclass(frozen=True)
class _Found:
    """One scene and what was found in it."""

    name: str
    scene: Scene
    water: gpd.GeoDataFrame
    scores: Scores


def _each(
    wanted: Sequence[Source], model: PromptableModel, options: SegmentOptions, views: int, tell: Progress
) -> tuple[list[_Found], list[str]]:
    found: list[_Found] = []
    failed: list[str] = []
    names: dict[str, int] = {}
    for done, source in enumerate(wanted):
        tell("scenes", done, len(wanted))
        try:
            scene = at_working_gsd(Scene.open(source.path, options.scene), options.scene)
            if not scene.has_crs:
                raise SceneError(f"{source.path} has no CRS, so it cannot be corrected on a map. Give it one.")
            name = source.name or scene.name
            names[name] = names.get(name, 0) + 1
            name = name if names[name] == 1 else f"{name}_{names[name]}"
            water, scores = _predicted(scene, model, options, views)
        except GeosamError as error:
            failed.append(" ".join(str(error).split()))
            continue
        found.append(_Found(name, scene, water, scores))
    tell("scenes", len(wanted), len(wanted))
    return found, failed


def _predicted(
    scene: Scene, model: PromptableModel, options: SegmentOptions, views: int
) -> tuple[gpd.GeoDataFrame, Scores]:
    """Water by the mean of several views, and how much they and the first guess agree."""
    alone = options.model_copy(update={"model": options.model.model_copy(update={"views": 1})})
    threshold = model.threshold if options.vector.threshold is None else options.vector.threshold
    with tempfile.TemporaryDirectory(prefix="geosam-relabel-") as folder:
        paths, expected = [], []
        for view in ORDER[:views]:
            turned: Any = Turned(model, view)
            paths.append(Path(folder) / f"view-{view}.tif")
            segment(scene, alone, probability=paths[-1], model=turned)
            expected += turned.expected
        learned = options.coarse.method == "learned"
        coarse = None if learned else coarse_mask(scene, options.coarse, path=Path(folder) / "coarse.tif")
        compared = Comparison(paths, coarse, threshold)
        water = polygonize(
            compared.strips(), scene.geobox, without_specks(options.vector, scene), scene=scene.name, model=model.name
        )
        return water, compared.scores(expected)


def _tables(
    found: list[_Found], model: PromptableModel, options: SegmentOptions, accept_above: float, out: Path
) -> dict[str, gpd.GeoDataFrame]:
    """The layers, scenes in the order in which they should be looked at."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = sorted(found, key=lambda one: (one.scores.confidence, one.name))
    systems = {str(one.scene.geobox.crs) for one in found}
    crs = found[0].scene.geobox.crs if len(systems) == 1 else "EPSG:4326"
    rows = [_row(one, model, options, accept_above, out, today) for one in found]
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
    prints = pd.concat([_footprint(one.scene).to_crs(crs) for one in found], ignore_index=True)
    waters = [
        one.water[["area_m2", "probability", "geometry"]].to_crs(crs).assign(scene=one.name, edited="") for one in found
    ]
    water = gpd.GeoDataFrame(pd.concat(waters, ignore_index=True), geometry="geometry", crs=crs)
    water = water[["scene", "area_m2", "probability", "edited", "geometry"]].astype({"scene": str, "edited": str})
    scenes = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=prints.to_numpy(), crs=crs)
    return {"scenes": scenes, "water": water, "predicted": water.drop(columns="edited")}


def _row(
    one: _Found, model: PromptableModel, options: SegmentOptions, accept_above: float, out: Path, today: str
) -> dict[str, Any]:
    scores = one.scores
    return {
        "rank": 0,
        "scene": one.name,
        "status": ACCEPTED if scores.confidence > accept_above else TO_CHECK,
        "confidence": scores.confidence,
        "predicted_iou": scores.predicted_iou,
        "stability": scores.stability,
        "views_iou": scores.views_iou,
        "coarse_iou": scores.coarse_iou,
        "water": scores.water,
        "audit": 0,
        "person": "",
        "edited": "",
        "model": model.name,
        "model_sha256": model.sha256,
        "predicted": today,
        "source": relative(one.scene.source, out),
        "fingerprint": fingerprint(one.scene.source),
        "height": int(one.scene.shape[0]),
        "width": int(one.scene.shape[1]),
        "options": options.scene.model_dump_json(),
    }


def _footprint(scene: Scene) -> gpd.GeoSeries:
    height, width = scene.shape
    corners = [scene.geobox.affine @ corner for corner in ((0, 0), (0, height), (width, height), (width, 0))]
    assert scene.geobox.crs is not None
    return gpd.GeoSeries([shapely.Polygon(corners)], crs=scene.geobox.crs.proj)
