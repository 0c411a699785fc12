"""The pictures of the documentation, made by the code that they explain, on made-up scenes with known truth.

``python docs/figures.py`` writes them to docs/figures, with the scores that stand under them. ``make docs`` calls it
when this file or the bundled model has changed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio

import geosam
from geosam import plot, synth
from geosam.cli import cli
from geosam.evaluate import compare

FOLDER = Path(__file__).parent / "figures"
DATA = Path(__file__).parents[1] / "data"
STEPS = ("scene", "coarse", "prompts", "probability", "polygons", "truth", "width", "change")
"""Pictures of one run, in the order of the work."""
FAILURES = {
    "grey": ("Grey-brown water among grey-brown fields", {"seed": 3, "gsd_m": 0.8}),
    "bars": ("Gravel bars in a braided reach", {"seed": 12, "gsd_m": 0.8}),
    "coarse-pixels": ("A river at 10 m a pixel", {"seed": 7, "gsd_m": 10.0}),
}
"""Scenes that are hard: title, and what is made, in red, green and blue unless it says more."""
SIDE_PX = 640


def main() -> None:
    """Write everything."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="geosam-figures-") as folder:
        steps(Path(folder))
        failures(Path(folder))


def steps(work: Path) -> None:
    """The sample scene, which has near infrared, step by step; then what a network and a change look like."""
    scene, truth, points = geosam.Scene.open(DATA / "river.tif"), DATA / "river-truth.gpkg", work / "points.geojson"
    coarse = geosam.coarse_mask(scene)
    verb("prompts", scene.source, "--out", points)
    run = geosam.segment(scene, probability=work / "p.tif")
    save("scene", plot.overlay(scene))
    save("coarse", plot.overlay(scene, coarse))
    save("prompts", plot.prompts(scene, points))
    save("probability", plot.probability(scene, work / "p.tif"))
    save("polygons", plot.overlay(scene, run))
    save("truth", plot.error(scene, run, truth))
    synth.write_scene(synth.SynthOptions(seed=7, height=SIDE_PX, width=SIDE_PX, gsd_m=0.8), work / "products")
    water = work / "products" / "truth.gpkg"
    save("width", plot.width(water, work / "products" / "scene.tif"))
    save("change", plot.change(moved(gpd.read_file(water))))


def moved(water: gpd.GeoDataFrame) -> dict[str, gpd.GeoDataFrame]:
    """Water as it would be if the river went a little to the south-east: eroded, accreted, stable."""
    before = water.union_all()
    after = water.translate(4.0, -3.0).union_all()
    parts = {"eroded": after - before, "accreted": before - after, "stable": before & after}
    return {name: gpd.GeoDataFrame(geometry=[part], crs=water.crs) for name, part in parts.items()}


def failures(work: Path) -> None:
    """Scenes on which the bundled model fails, with the scores it got."""
    model = geosam.load_model()
    lines = []
    for name, (title, made) in FAILURES.items():
        folder = work / name
        synth.write_scene(synth.SynthOptions(height=SIDE_PX, width=SIDE_PX, **made), folder)
        scene = geosam.Scene.open(folder / "scene.tif")
        run = geosam.segment(scene, mask=folder / "mask.tif", model=model)
        scores = compare(folder / "mask.tif", folder / "truth.tif").report()
        save(name, plot.error(scene, run, folder / "truth.gpkg"))
        options = f"--size {SIDE_PX} --gsd {made['gsd_m']:g} --seed {made['seed']} --bands {made.get('bands', 'rgb')}"
        score = ", ".join(f"{key} {said(scores[key])}" for key in ("iou", "precision", "recall"))
        lines += [
            f"**{title}**, `geosam synth {options} --out {name}`:",
            f"{score}; water found on {wet(folder / 'mask.tif'):.1%} of the scene, truly on "
            f"{wet(folder / 'truth.tif'):.1%}.\n\n![{title}](figures/{name}.jpg)\n",
        ]
    (FOLDER / "failures.md").write_text("\n".join(lines), encoding="utf-8")


def said(score: float | None) -> str:
    """A score, or that there is none because nothing was found."""
    return "undefined (nothing was found)" if score is None else f"{score:.2f}"


def wet(path: Path) -> float:
    """Share of water in a mask."""
    with rasterio.open(path) as file:
        return float(np.mean(file.read(1) == 1))


def verb(*words: object) -> None:
    """Run a verb of the command line."""
    cli.main([str(word) for word in words], standalone_mode=False)


def save(name: str, figure: plot.Picture) -> None:
    """Write a picture, small enough for a page."""
    plot.save(figure, FOLDER / f"{name}.jpg", overwrite=True, dpi=90)


if __name__ == "__main__":
    main()
