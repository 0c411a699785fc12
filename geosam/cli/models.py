"""``geosam models``: what ``--model`` can be given, and how to have it here before the network is gone."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from geosam.cli import shared
from geosam.models.families import FAMILIES
from geosam.models.registry import MODELS, ModelSpec, hub_cache


@click.group(short_help="List or fetch the models that geosam knows.", invoke_without_command=True)
@shared.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the models that geosam knows by name, without touching the network.

    \b
      geosam models
      geosam models pull sam2.1-hiera-tiny
      geosam segment ortho.tif --model sam2.1-hiera-tiny --out rivers.geojson

    Besides these names, --model takes the hub id (owner/name) or the folder of any SAM, SAM-HQ, SAM 2, EdgeTAM or
    SAM 3 in the layout of transformers, stock or fine-tuned, and the path of a weights file. Weights are read as
    safetensors, or as torch files that hold nothing but tensors.
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(json.dumps([_entry(spec) for spec in MODELS.values()], indent=2))
        return
    rows: list[tuple[str, ...]] = [("name", "parameters", "tile", "prompts", "licence", "download", "here", "")]
    rows += [_row(spec) for spec in MODELS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"\nDownloads are kept in {hub_cache()}.")


@command.command("pull", short_help="Fetch a model for use without a network.")
@click.argument("name")
def pull_command(name: str) -> None:
    """Fetch the model NAME, of the list or a hub id (owner/name), for use without a network.

    \b
      geosam models pull sam2.1-hiera-tiny

    Its configuration and its weights are fetched, nothing else of its repository, and kept in the hub's cache; copy
    that to a machine without a network. What is there already is not fetched again.
    """
    from geosam.models.hub import pull

    _show_bars_on_terminals_only()
    folder = pull(name)
    if folder is None:
        click.echo(f"{name} is inside the package: nothing to fetch.")
        return
    click.echo(f"{name} is here, in {folder} ({_megabytes(folder)} MB).")


def _show_bars_on_terminals_only() -> None:
    if not sys.stderr.isatty():
        import huggingface_hub.utils

        client: Any = huggingface_hub.utils
        client.disable_progress_bars()


def _megabytes(folder: Path) -> int:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6)


def _row(spec: ModelSpec) -> tuple[str, ...]:
    count = spec.parameter_count()
    return (
        spec.name,
        f"{count / 1e6:.1f} M" if count else "?",
        f"{spec.tile_px} px",
        ",".join(spec.understands),
        spec.licence,
        "?" if spec.download_mb is None else f"{spec.download_mb} MB" if spec.download_mb else "none",
        "yes" if spec.is_here() else "no",
        spec.about,
    )


def _entry(spec: ModelSpec) -> dict[str, object]:
    needs = FAMILIES[spec.family].since if spec.on_hub else None
    facts = {"parameters": spec.parameter_count(), "here": spec.is_here(), "transformers": needs}
    return {**asdict(spec), **facts}
