"""One call from labelled data and a model's name to tuned weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from geosam.datasets import DataOptions, LabelledData, open_labelled
from geosam.errors import DatasetError, OutputError
from geosam.finetune.folder import check_holds_no_run, make_run_folder
from geosam.finetune.options import TuneOptions
from geosam.finetune.outcome import Tuned
from geosam.finetune.publish import Board
from geosam.finetune.ranks import Ranks
from geosam.finetune.tune import Tuner
from geosam.models import load_model
from geosam.options import ModelOptions
from geosam.pipeline import at_working_gsd

StageProgress = Callable[[str, int, int], None]


def finetune(
    dataset: str | Path,
    model: str | ModelOptions = "river-tiny",
    out: str | Path = "runs/tuned",
    options: TuneOptions | None = None,
    *,
    data: DataOptions | None = None,
    cache: str | Path | None = None,
    tensorboard: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: StageProgress | None = None,
    warn: Callable[[str], object] | None = None,
) -> Tuned:
    """Tune a model on labelled tiles.

    Args:
        dataset: Hub id, or a folder or file of labelled tiles; see :func:`geosam.datasets.open_labelled`.
        model: A name of the registry, a hub id or a folder; or options that name it and its device.
        out: Receives ``best``, ``last``, ``log.jsonl``, ``validation.png`` and ``state.pt``.
        options: How to tune.
        data: How to read the data set.
        cache: Where tiles are kept once encoded; None: ``out/tiles``. Runs on the same data may share it.
        tensorboard: Write the log as events into ``out/tensorboard`` too, an epoch at a time.
        resume: Go on from ``state.pt``.
        overwrite: Replace an earlier run in ``out``.
        progress: Called with a stage, what is done of it, and how much it is.
        warn: Told a line at once for everything that the user should know; all are in the report too.

    Returns:
        The scores before and after, and where the weights are.

    Raises:
        DatasetError: The data cannot be used.
        ModelError: The model cannot be loaded.
        OutputError: ``out`` holds a run already, or cannot be written.
        RunError: The loss stopped being a number, or memory is too small for one tile.
    """
    options = TuneOptions() if options is None else options
    out = Path(out)
    kept = Path(cache) if cache else out / "tiles"
    _check_out(out, kept, resume, overwrite)
    labelled = open_labelled(dataset, data, at_working_gsd)
    _check_splits(labelled)
    settings = ModelOptions(name=model) if isinstance(model, str) else model
    ranks = Ranks.join(settings.device)
    loaded = load_model(settings.model_copy(update={"device": ranks.device.split(":")[0]}))
    base = str(Path(settings.name).resolve()) if Path(settings.name).exists() else settings.name
    if ranks.rank == 0:
        make_run_folder(out, resume)
    ranks.wait()
    tuner = Tuner(labelled, loaded, base, options, out, ranks, kept)
    tuner.warn = warn or tuner.warn
    try:
        if tensorboard and ranks.rank == 0:
            tuner.also_log = Board(out / "tensorboard").add
        return tuner.run(resume=resume, progress=progress or (lambda stage, done, total: None))
    finally:
        with suppress(OSError):
            out.rmdir()  # Only if it is empty: what was wrong with the data came up before anything was written.


def _check_out(out: Path, cache: Path, resume: bool, overwrite: bool) -> None:
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist. Make it, or choose another --out.")
    for path, option in ((out, "--out"), (cache, "--cache")):
        if path.is_file():
            raise OutputError(f"{path} is a file. Give {option} a folder.")
    check_holds_no_run(out, resume, overwrite)


def _check_splits(data: LabelledData) -> None:
    for split in ("train", "validation"):
        if not data.splits.get(split):
            raise DatasetError(
                f"the data have no {split} images ({data.describe()}). Give more images, or another split."
            )
    if not any(tile.weight for tile in data.splits["train"]):
        raise DatasetError("all training images have a weight of 0. Give at least one of them a weight above it.")
