"""What ``make demo`` runs: a made-up river scene, its polygons, a picture, and how near they come to the truth.

Each step is a verb of the command line, printed as it would be typed, so that the demo is also a first lesson::

    python -m geosam.demo --out demo
"""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import click

SCENE = ("--size", "2048", "--gsd", "0.5", "--seed", "3", "--bands", "rgbn")
"""A river with a braided reach, a tributary, a lake and an oxbow, as a camera with near infrared sees it."""


@click.command()
@click.option("--out", "folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--model", default="river-tiny", show_default=True, help="Another model than the bundled one.")
@click.option("--quick", is_flag=True, help="A small scene, to see whether everything is in place.")
def command(folder: Path, model: str, quick: bool) -> None:
    """Make a river scene, turn it into polygons, and say how good they are."""
    # The bundled model is all that is needed; a look-up on the hub would only cost time where there is no network.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    started = time.perf_counter()
    files = {name: folder / name for name in ("scene.tif", "rivers.geojson", "probability.tif", "overlay.png")}
    scene, rivers, probability, picture = (str(path) for path in files.values())
    size = ("--size", "512") if quick else ()
    _run("synth", "--out", str(folder), *SCENE, *size, "--overwrite")
    other = () if model == "river-tiny" else ("--model", model)
    seconds = _run("segment", scene, "--out", rivers, "--probability", probability, *other, "--overwrite")
    _run("plot", scene, rivers, "--out", picture, "--overwrite")
    click.echo()
    for path in (rivers, probability, picture):
        click.echo(path)
    found, true, iou = agreement(folder / "rivers.geojson", folder / "truth.gpkg")
    click.echo(f"area found  {found:,.0f} m² (in truth {true:,.0f} m²)")
    click.echo(f"IoU         {iou:.3f} against the scene's exact truth")
    click.echo(f"time        {seconds:.1f} s for geosam segment, {time.perf_counter() - started:.1f} s in all")


def agreement(rivers: Path, truth: Path) -> tuple[float, float, float]:
    """Area found and true area in m², and their intersection over union.

    Args:
        rivers: Polygons in any CRS.
        truth: Polygons in a metric CRS, in which everything is measured.
    """
    import geopandas as gpd
    import shapely

    reference = gpd.read_file(truth)
    true = shapely.union_all(reference.geometry.values)
    found = shapely.union_all(gpd.read_file(rivers).to_crs(reference.crs).geometry.values)
    union = found.union(true).area
    return found.area, true.area, found.intersection(true).area / union if union else 1.0


def _run(*args: str) -> float:
    """Run one verb in this process, and return the seconds it took."""
    from geosam.cli import main

    click.secho(f"$ geosam {shlex.join(args)}", bold=True)
    started = time.perf_counter()
    try:
        main(list(args))
    except SystemExit as end:
        if end.code:
            raise
    return time.perf_counter() - started


if __name__ == "__main__":
    command()
