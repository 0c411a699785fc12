"""``geosam models``: what ``--model`` can be given."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from geosam.cli import shared
from geosam.models.registry import MODELS, ModelSpec, hub_cache


@click.command(short_help="List the models that geosam knows.")
@shared.json_option
def command(as_json: bool) -> None:
    """List the models that geosam knows by name, without touching the network.

    \b
      geosam models
      geosam segment ortho.tif --model sam-vit-base --out rivers.geojson

    Besides these names, --model takes the hub id (owner/name) or the folder of any SAM, stock or fine-tuned, and the
    path of a weights file. Weights are read as safetensors, or as torch files that hold nothing but tensors.
    """
    if as_json:
        click.echo(json.dumps([_entry(spec) for spec in MODELS.values()], indent=2))
        return
    rows: list[tuple[str, ...]] = [("name", "parameters", "tile", "prompts", "licence", "download", "here", "")]
    rows += [_row(spec) for spec in MODELS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo(f"\nDownloads are kept in {hub_cache()}.")


def _row(spec: ModelSpec) -> tuple[str, ...]:
    count = spec.parameter_count()
    return (
        spec.name,
        f"{count / 1e6:.1f} M" if count else "?",
        f"{spec.tile_px} px",
        ",".join(spec.understands),
        spec.licence,
        f"{spec.download_mb} MB" if spec.download_mb else "none",
        "yes" if spec.is_here() else "no",
        spec.about,
    )


def _entry(spec: ModelSpec) -> dict[str, object]:
    return {**asdict(spec), "parameters": spec.parameter_count(), "here": spec.is_here()}
