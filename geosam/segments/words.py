"""``geosam segment --text``: from a scene and words to rivers, by way of every segment and CLIP."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from geosam.errors import OptionsError
from geosam.options import SegmentOptions, SelectOptions
from geosam.pipeline import Progress, at_working_gsd
from geosam.scene import Scene
from geosam.segments.making import everything
from geosam.segments.selecting import Selected, select
from geosam.vector import check_output

if TYPE_CHECKING:
    from geosam.models import PromptableModel


def segment_by_text(
    scene: str | Path | Scene,
    text: str,
    options: SegmentOptions | None = None,
    *,
    out: str | Path | None = None,
    clip: str | None = None,
    model: PromptableModel | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Selected:
    """Rivers, or whatever the words say, of a scene; for a first look, not for serious pipelines.

    Every segment of the scene is found by ``options.model`` and shown to CLIP. This is the place where a model that
    understands words by itself would be asked instead.

    Args:
        scene: Path, URL or GDAL name, or an open scene.
        text: Words for what is wanted.
        options: How the scene is read and cut, how the model runs, and the vector options' areas.
        out: Polygons: .geojson, .gpkg, .fgb or .parquet.
        clip: Hub id or folder; None: that of :class:`~geosam.options.SelectOptions`.
        model: A loaded model; None: loaded as ``options.model`` says.
        overwrite: Replace an output that exists.
        progress: Told the stage, the work done and the work in all.

    Raises:
        GeosamError: As of :func:`geosam.everything` and :func:`geosam.select`.
    """
    from geosam.segments.text import Clip

    options = SegmentOptions() if options is None else options
    if not text.strip():
        raise OptionsError("--text is empty. Give words for what is wanted, such as river.")
    if out is not None:
        check_output(out, overwrite)
    clip = SelectOptions().clip if clip is None else clip
    Clip(clip)  # Before the hours that the segments may take.
    opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
    working = at_working_gsd(opened, options.scene)
    limits = {"min_area_m2": options.vector.min_area_m2, "max_hole_m2": options.vector.max_hole_m2}
    with tempfile.TemporaryDirectory(prefix="geosam-") as folder:
        found = Path(folder) / "segments.gpkg"
        everything(working, found, model=model, options=options, progress=progress)
        return select(found, out, scene=working, text=text, clip=clip, overwrite=overwrite, **limits)
