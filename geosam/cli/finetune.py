"""``geosam finetune``: tune a model on labelled tiles, or train a small one from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from geosam.cli import labelled, shared, values
from geosam.errors import OptionsError

_TRAIN = ("decoder", "decoder+prompt", "lora", "all")
_LOSSES = ("bce", "dice", "focal", "bce-dice", "sam", "boundary")
_TUNE = (
    "train", "epochs", "batch", "learning_rate", "loss", "views", "ema", "patience", "multimask", "learn_none",
    "learn_dense", "coarse", "boxes", "jitter_px", "lora_rank", "seed",
)  # fmt: skip

_run_options = shared.join(
    click.option("--dataset", metavar="ID|PATH", help="Labelled tiles: a hub id, or a folder or file; see below."),
    click.option(
        "--model",
        default="river-tiny",
        show_default=True,
        metavar="NAME",
        help="Model to start from: a name of geosam models, a hub id, or a folder.",
    ),
    click.option("--out", required=True, metavar="DIR", help="Folder for weights, log, pictures and state."),
    click.option("--config", metavar="C.toml", help="Options from a TOML file; the command line wins over it."),
    click.option("--resume", is_flag=True, help="Go on from the state that an earlier run left in --out."),
    click.option("--overwrite", is_flag=True, help="Begin again in a folder that holds a run."),
    click.option(
        "--cache", metavar="DIR", help="Folder for encoded tiles; several runs may share it.  [default: OUT/tiles]"
    ),
    click.option("--push-to-hub", metavar="ID", help="Upload the best weights to this model id of the hub."),
    click.option("--tensorboard", is_flag=True, help="Also log to OUT/tensorboard (needs the package tensorboard)."),
    click.option(
        "--device",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        help="Where to train.",
    ),
    click.option(
        "--dtype",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Precision of the arithmetic; weights and optimizer stay float32.",
    ),
)

_tune_options = shared.join(
    click.option("--train", type=click.Choice(_TRAIN), help="What learns.  [default: decoder]"),
    click.option("--epochs", type=int, metavar="N", help="Greatest number of passes over the tiles.  [default: 40]"),
    click.option(
        "--batch-size", "batch", type=int, metavar="N", help="Tiles a step, over all processes.  [default: 16]"
    ),
    click.option(
        "--learning-rate",
        type=float,
        metavar="RATE",
        help="At its height.  [default: by the model, 3e-4 for river-tiny and 2e-4 for a SAM]",
    ),
    click.option("--loss", type=click.Choice(_LOSSES), help="sam is 20 focal : 1 Dice.  [default: bce-dice]"),
    click.option(
        "--views",
        type=click.Choice(["1", "2", "4", "8"]),
        callback=lambda c, p, v: v and int(v),
        help="Turned and mirrored views to learn from, each encoded once.  [default: by the model, 8 for river-tiny "
        "and 1 for a SAM]",
    ),
    click.option(
        "--ema", type=float, metavar="DECAY", help="Score and save a moving average of the weights.  [default: off]"
    ),
    click.option(
        "--patience", type=int, metavar="N", help="Stop after N epochs without a better score.  [default: 10]"
    ),
    click.option(
        "--multimask", is_flag=True, default=None, help="Also learn SAM's three masks, the best of which counts."
    ),
    click.option("--learn-none", is_flag=True, default=None, help="Teach SAM to find water without a prompt."),
    click.option("--learn-dense", is_flag=True, default=None, help="Teach SAM to take the coarse mask as a hint."),
    click.option(
        "--coarse-share",
        "coarse",
        type=float,
        metavar="SHARE",
        help="Prompts from the coarse mask, not the label.  [default: 0.3]",
    ),
    click.option(
        "--box-share", "boxes", type=float, metavar="SHARE", help="Questions that give a box.  [default: 0.2]"
    ),
    click.option(
        "--jitter", "jitter_px", type=float, metavar="PX", help="Points are shaken by so much.  [default: 1.5]"
    ),
    click.option("--lora-rank", type=int, metavar="N", help="Rank of the adapters.  [default: 8]"),
    click.option("--seed", type=int, metavar="N", help="Of order, prompts and views.  [default: 42]"),
)

_gsd_option = click.option(
    "--gsd", type=values.gsd, metavar="native|auto|METRES", help="Pixel size that orthoimages are read at; auto: as "
    "geosam segment works on them.  [default: auto]",
)  # fmt: skip

_scratch_options = shared.join(
    click.option(
        "--data-root",
        metavar="DIR",
        envvar="GEOSAM_DATA",
        help="Of a recipe: folder that holds its data folders; default: GEOSAM_DATA of the environment.",
    ),
    click.option("--minutes", type=float, help="Of a recipe: time budget, instead of its own."),
    click.option("--steps", type=int, help="Of a recipe: greatest number of steps, instead of its own."),
)


@click.command(name="finetune", short_help="Tune or train a model on labelled tiles.")
@_run_options
@_tune_options
@labelled.labelled_options
@_gsd_option
@_scratch_options
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Tune a model on labelled tiles; its encoder runs once a tile, so that an epoch costs the decoder alone.

    \b
      geosam finetune --dataset stodoran/elwha-segmentation-v1 --model sam-vit-base --out runs/elwha
      geosam finetune --dataset tiles/ --out runs/mine --group-by date
      geosam finetune --dataset orthos/ --labels water.gpkg --out runs/mine --views 8
      accelerate launch -m geosam finetune --dataset tiles/ --model sam-vit-huge --out runs/huge
      geosam segment ortho.tif --model runs/mine/best --out rivers.geojson

    \b
    Labelled tiles are told apart by what is there:
      a hub id, parquet, save_to_disk or imagefolder   columns image and label (0/1 or 0/255), optional name
      images/ and masks/ with equal stems              255 water, 0 dry, 128 not known; index.csv is heeded
      name patterns (--image-suffix, --label-suffix), class ids (--water-ids), --layout cityscapes
      orthoimages with polygons of water               beside each, or --labels; cut into chips

    The epoch is chosen on the validation tiles, by the mean IoU of automatic and oracle prompts; a test split
    chooses nothing and is scored at the end. The untouched model's scores stand beside the tuned one's.

    A --config with [[data]] tables is a recipe: it trains a small SAM from scratch, all of it (see
    configs/finetune/river-tiny.toml), within --minutes; --data-root is where its folders lie. With a weights file
    as --model it starts from that instead of from random weights.

    Exit codes: 0 done, 1 the run could not finish, 2 bad input.
    """
    from geosam.options import read_toml

    table = read_toml(given["config"]) if given["config"] else {}
    typed = {name for name in given if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE}
    _check_used(ctx, typed, is_recipe="data" in table)
    return _from_scratch(given, "model" in typed) if "data" in table else _tune(given, typed, table)


_RECIPE_ONLY = {"data_root", "minutes", "steps"}
_BOTH = {"model", "out", "config", "device", "resume", "overwrite"}


def _check_used(ctx: click.Context, typed: set[str], is_recipe: bool) -> None:
    """Refuse what would be passed over in silence."""
    for param in ctx.command.params:
        if param.name in typed - _BOTH and (param.name in _RECIPE_ONLY) != is_recipe:
            raise OptionsError(
                f"{param.opts[0]} does not go with a recipe, which has data and a schedule of its own. Leave it away."
                if is_recipe
                else f"{param.opts[0]} is for a recipe, a --config with [[data]] tables. Leave it away, or give one."
            )


def _from_scratch(given: dict[str, Any], typed_model: bool) -> int:
    from geosam.finetune.loop import train
    from geosam.finetune.recipe import Recipe

    if not given["data_root"]:
        raise OptionsError("a recipe needs --data-root, the folder that holds its data folders; found none.")
    recipe = Recipe.from_toml(given["config"])
    changes = {name: given[name] for name in ("minutes", "steps") if given[name] is not None}
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})
    weights = train(
        recipe, Path(given["data_root"]), Path(given["out"]), device=given["device"], resume=given["resume"],
        overwrite=given["overwrite"], start=Path(given["model"]) if typed_model else None,
    )  # fmt: skip
    click.echo(f"{weights}: trained. Use it with geosam segment --model {weights}")
    return 0


def _tune(given: dict[str, Any], typed: set[str], table: dict[str, Any]) -> int:
    from geosam.datasets import DataOptions
    from geosam.finetune import TuneOptions, finetune
    from geosam.finetune.publish import check_hub, check_tensorboard, push
    from geosam.options import ModelOptions, checked

    where = given["config"] or "finetune"
    options = TuneOptions.of({**_part(table, "finetune", where), **_given(given, _TUNE)}, where)
    data = checked(
        DataOptions, {**_part(table, "dataset", where), **labelled.typed(given), **_given(given, ("gsd",))}, where
    )
    run = _part(table, "run", where)
    dataset = given["dataset"] or run.get("dataset")
    if not dataset:
        raise OptionsError("nothing to learn from was given. Give --dataset, or a --config that names one.")
    name = given["model"] if "model" in typed else run.get("model", given["model"])
    if given["push_to_hub"]:
        check_hub(given["push_to_hub"])
    if given["tensorboard"]:
        check_tensorboard()
    model = ModelOptions(name=name, device=given["device"], dtype=given["dtype"])
    with shared.stage_progress() as progress:
        tuned = finetune(
            dataset, model, given["out"], options, data=data, cache=given["cache"], tensorboard=given["tensorboard"],
            resume=given["resume"], overwrite=given["overwrite"], progress=progress,
            warn=lambda line: click.echo(f"note: {line}", err=True),
        )  # fmt: skip
    if not tuned.speaks:  # One process of several.
        return 0
    for line in tuned.report(notes=False):  # They were told as they came.
        click.echo(line)
    if given["push_to_hub"]:
        click.echo(push(tuned.folder, given["push_to_hub"]))
    return 0


def _given(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if given[name] is not None}


def _part(table: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    unknown = sorted(set(table) - {"finetune", "dataset", "run"})
    if unknown:
        raise OptionsError(f"{where}: unknown table {unknown[0]!r}. Use [run], [dataset] and [finetune].")
    part = table.get(name, {})
    if not isinstance(part, dict):
        raise OptionsError(f"{where}: {name} must be a table. Write [{name}].")
    return part
