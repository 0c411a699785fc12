"""``geosam finetune``: train a model on labelled tiles."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="finetune", short_help="Tune or train a model on labelled tiles.")
@click.option(
    "--config", required=True, metavar="R.toml", help="Recipe: data, schedule and model; see configs/finetune."
)
@click.option(
    "--data-root", metavar="DIR", envvar="GEOSAM_DATA", required=True,
    help="Folder that holds the recipe's data folders; default: the environment variable GEOSAM_DATA.",
)  # fmt: skip
@click.option("--out", required=True, metavar="DIR", help="Folder for weights, state and log.")
@click.option("--minutes", type=float, help="Time budget, instead of the recipe's.")
@click.option("--steps", type=int, help="Greatest number of steps, instead of the recipe's.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Where to train.",
)
@click.option("--resume", is_flag=True, help="Go on from the state that an earlier run left in --out.")
def command(
    config: str, data_root: str, out: str, minutes: float | None, steps: int | None, device: str, resume: bool
) -> None:
    """Train a small SAM from scratch by a recipe, all of it: encoder, prompt encoder and mask decoder.

    The folder then serves geosam segment --model. Batches depend on the seed and the step alone, so
    a run that was cut off goes on with --resume as if it had not been.

    \b
      geosam finetune --config configs/finetune/river-tiny.toml --data-root data --out runs/mine
    """
    from geosam.finetune.loop import train
    from geosam.finetune.recipe import Recipe
    from geosam.models.device import choose_device

    recipe = Recipe.from_toml(config)
    changes = {name: value for name, value in (("minutes", minutes), ("steps", steps)) if value is not None}
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})
    weights = train(recipe, Path(data_root), Path(out), device=str(choose_device(device)), resume=resume)
    click.echo(f"{weights}: trained. Use it with geosam segment --model {weights}")
