"""``geosam select``: rivers from the segments that ``geosam everything`` found."""

from __future__ import annotations

from typing import Any

import click

from geosam.cli import shared, values


@click.command(name="select", short_help="Rivers from segments, by points, boxes, words or an index.")
@click.argument("segments", metavar="SEGMENTS.gpkg")
@click.option("--out", required=True, metavar="PATH", help="Polygons: .geojson, .gpkg, .fgb or .parquet.")
@click.option(
    "--points", metavar="FILE",
    help="Take what water points hit, less what dry ones hit. Any vector format and CRS; attribute label: water or "
    "dry (or 1 and 0); without it all are water.",
)  # fmt: skip
@click.option("--box", metavar="X0,Y0,X1,Y1", help="Take the segment that fits this box best, in the segments' CRS.")
@click.option("--boxes", metavar="FILE", help="The same for the bounds of each polygon of a vector file.")
@click.option("--index", metavar="NAME", help="Take those whose mean index is high: ndwi, mndwi, or exg (low).")
@click.option(
    "--above", type=values.threshold, metavar="auto|VALUE",
    help="Threshold of --index, of exg of minus excess green; with --text the least share of it.  "
    "[default: fitted to the segments; with --text 0.5]",
)  # fmt: skip
@click.option("--touching", metavar="FILE", help="Take what lines, points or polygons of a vector file touch.")
@click.option(
    "--text", metavar="WORDS",
    help="Take what CLIP finds to be more like these words than like other ground. For a first look, not for serious "
    "pipelines.",
)  # fmt: skip
@click.option("--clip", metavar="NAME", help="CLIP for --text: a hub id or a folder.  [openai/clip-vit-base-patch32]")
@click.option(
    "--model", metavar="NAME",
    help="Tell the words of --text to this model, in place of CLIP: sam3, or the folder of one. It looks at the scene.",
)  # fmt: skip
@click.option("--scene", metavar="INPUT", help="The scene, for --text.  [default: where it was]")
@click.option("--min-area", "min_area_m2", type=float, metavar="M2", help="Drop water bodies smaller than this.")
@click.option("--max-hole", "max_hole_m2", type=float, metavar="M2", help="Fill islands smaller than this.")
@shared.style_option
@shared.overwrite_option
def command(segments: str, out: str, scene: str | None, style: bool, overwrite: bool, **given: Any) -> None:
    """Take some of the segments that geosam everything found as rivers, in one of six ways.

    Segments that lie one over another become one water body. Attributes are those of geosam segment. No model
    runs but that of --text, so that it takes seconds. Segments of a scene that has changed since are refused.

    \b
      geosam select segments.gpkg --points clicks.gpkg --out rivers.geojson
      geosam select segments.gpkg --index ndwi --out rivers.geojson
      geosam select segments.gpkg --touching centreline.geojson --min-area 50 --out rivers.gpkg
      geosam select segments.gpkg --box 512040,5261600,512300,5261900 --out rivers.gpkg
      geosam select segments.gpkg --text river --scene ortho.tif --out rivers.gpkg
    """
    from pathlib import Path

    from geosam.segments import select
    from geosam.vector.style import write_style

    given = {name: value for name, value in given.items() if value is not None}
    found = select(segments, out, scene=scene, overwrite=overwrite, **given)
    if style:
        write_style(Path(out))
    for warning in found.warnings:
        click.echo(f"geosam: {' '.join(warning.split())}", err=True)
    how = f", {found.facts['index']} above {found.facts['above']}" if "index" in found.facts else ""
    if len(found.polygons) == 0:
        click.echo(f"{out}: nothing was selected, so the layer is empty ({found.segments} segments{how})")
        return
    count = "1 water body" if len(found.polygons) == 1 else f"{len(found.polygons):,} water bodies"
    area = float(found.polygons["area_m2"].sum())
    click.echo(f"{out}: {count} of {found.segments:,} segments, {area:,.0f} m2{how}")
