"""``geosam segment --text``: from a scene and words to rivers, by SAM 3, or by way of every segment and CLIP."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from geosam.errors import OptionsError
from geosam.options import SegmentOptions, SelectOptions
from geosam.pipeline import Progress, Rivers, at_working_gsd, segment
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

    Where ``options.model`` is a SAM 3, its detector is told the words and looks at every tile. Of another model every
    segment of the scene is found and shown to CLIP; so it is of a SAM 3 too where ``clip`` is given.

    Args:
        scene: Path, URL or GDAL name, or an open scene.
        text: Words for what is wanted.
        options: How the scene is read and cut, how the model runs, and the vector options' areas.
        out: Polygons: .geojson, .gpkg, .fgb or .parquet.
        clip: Hub id or folder; None: that of :class:`~geosam.options.SelectOptions`, where one is needed.
        model: A loaded model, for CLIP to choose among its segments; None: loaded as ``options.model`` says.
        overwrite: Replace an output that exists.
        progress: Told the stage, the work done and the work in all.

    Raises:
        GeosamError: As of :func:`geosam.everything`, :func:`geosam.select` and :func:`geosam.segment`.
    """
    options = SegmentOptions() if options is None else options
    if not text.strip():
        raise OptionsError("--text is empty. Give words for what is wanted, such as river.")
    if out is not None:
        check_output(out, overwrite)
    if model is None and asks_by_words(options, clip):
        rivers = segment(scene, told(options, text), out=out, overwrite=overwrite, progress=progress)
        return Selected(rivers.polygons, len(rivers.polygons), {"by": "text", "text": text}, _warnings(rivers))
    from geosam.segments.text import Clip

    clip = SelectOptions().clip if clip is None else clip
    Clip(clip)  # Before the hours that the segments may take.
    opened = scene if isinstance(scene, Scene) else Scene.open(scene, options.scene)
    working = at_working_gsd(opened, options.scene)
    limits = {"min_area_m2": options.vector.min_area_m2, "max_hole_m2": options.vector.max_hole_m2}
    with tempfile.TemporaryDirectory(prefix="geosam-") as folder:
        found = Path(folder) / "segments.gpkg"
        everything(working, found, model=model, options=options, progress=progress)
        return select(found, out, scene=working, text=text, clip=clip, overwrite=overwrite, **limits)


def asks_by_words(options: SegmentOptions, clip: str | None = None) -> bool:
    """Whether words go to the model itself; not where a CLIP is named, or the model understands none.

    Raises:
        ModelError: The model cannot be fetched or read.
    """
    from geosam.models.loading import understands_words

    return clip is None and understands_words(options.model.name)


def told(options: SegmentOptions, text: str) -> SegmentOptions:
    """The options of a run whose model is told words, and asked nothing else.

    Raises:
        OptionsError: Prompts are given too.
    """
    asked = options.prompts
    if asked.which not in (None, "none") or asked.points_file or asked.boxes_file or asked.mask_file:
        raise OptionsError(
            "--text is all that SAM 3 is asked, and prompts were given too. Leave out --text, or --prompts, --points, "
            "--boxes and --prompt-mask."
        )
    return options.model_copy(
        update={
            "model": options.model.model_copy(update={"text": text}),
            "prompts": asked.model_copy(update={"which": "none"}),
        }
    )


def _warnings(rivers: Rivers) -> tuple[str, ...]:
    return tuple(str(warning) for warning in rivers.report["warnings"])
