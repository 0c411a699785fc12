"""``geosam rivers``: centrelines, widths, reaches and islands from water polygons."""

from __future__ import annotations

import time
from typing import Any

import click

from geosam.cli import shared
from geosam.options import RiverOptions, checked


@click.command(name="rivers", short_help="Centrelines, widths, reaches and islands of rivers.")
@click.argument("water")
@click.option(
    "--out", metavar="NETWORK.gpkg", required=True, help="The GeoPackage to be, with a layer for each product."
)
@click.option(
    "--mask", metavar="M.tif", help="Also write the river with the largest network as a mask of one component."
)
@click.option(
    "--bridge", "bridge_m", type=float, metavar="M",
    help="Close gaps of up to so many metres where both sides agree in direction: bridges, canopy.  [default: none]",
)  # fmt: skip
@click.option(
    "--every", "every_m", type=float, metavar="M",
    help="Distance between cross-sections in metres.  [default: half the river's width]",
)  # fmt: skip
@click.option(
    "--reach", "reach_m", type=float, metavar="M",
    help="Length of a reach in metres, about.  [default: ten times the river's width]",
)  # fmt: skip
@click.option(
    "--min-area", "min_area_m2", type=float, metavar="M2",
    help="Leave out water bodies smaller than this, in square metres.  [default: 25 pixels]",
)  # fmt: skip
@click.option(
    "--max-island", "max_island_m2", type=float, metavar="M2",
    help="Land between channels larger than this is no island: total widths end at it.  [default: any is]",
)  # fmt: skip
@click.option(
    "--gsd", "gsd_m", type=float, metavar="M",
    help="Size of the pixels that the outlines come from, in metres.  [default: read from the outlines]",
)  # fmt: skip
@click.option("--report", metavar="R.json", help="Also write what was found, as JSON.")
@shared.style_option
@shared.overwrite_option
def command(
    water: str, out: str, mask: str | None, report: str | None, style: bool, overwrite: bool, **given: Any
) -> None:
    """What is in the rivers of WATER: polygons as geosam segment writes them, in any CRS, or a mask raster.

    \b
      geosam rivers rivers.geojson --out network.gpkg
      geosam rivers rivers.gpkg --out network.gpkg --bridge 30 --every 10 --reach 500
      geosam rivers mask.tif --out network.gpkg --mask largest.tif

    \b
    Layers of NETWORK.gpkg, in the CRS of WATER, with lengths in metres and areas in square metres:
      water        water bodies: river, lake or pond by shape; lakes on a river and the sea are apart from it
      centrelines  one main course a river; channels that join it at both ends, branches that end
      widths       cross-sections: width of the channel, of all wetted channels, and in total with islands
      reaches      pieces of centreline: length, sinuosity, widths, braiding, water area, bank length
      islands      islands and bars
      bridges      water put over gaps, by --bridge only

    Spurs shorter than two of their own widths are pruned. An island shorter than a quarter of its river's width does
    not part the centreline, but counts in widths. --mask is uint8, 1 water and 0 dry, on the raster's own grid or in a
    CRS in metres, as RivGraph takes it. Where a line is cut by the edge of the scene is guessed from the bounds of
    WATER.
    """
    from pathlib import Path

    from geosam.pipeline.outputs import write_json
    from geosam.rivers import river_products
    from geosam.vector import check_path
    from geosam.vector.shades import MASK
    from geosam.vector.style import write_style

    started = time.perf_counter()
    options = checked(
        RiverOptions, {name: value for name, value in given.items() if value is not None}, "geosam rivers"
    )
    if report is not None:
        check_path(Path(report), overwrite)
    with shared.stage_progress() as progress:
        products = river_products(water, options, out=out, mask=mask, overwrite=overwrite, progress=progress)
    if style and products.report["mask_pixels"]:
        write_style(Path(str(mask)), MASK)
    if report is not None:
        write_json(Path(report), products.report)
    for notice in products.report["notices"]:
        click.echo(f"geosam: {notice}.", err=True)
    for line in _summary(products.report):
        click.echo(line)
    click.echo(f"{out} ({time.perf_counter() - started:.1f} s)")


def _summary(report: dict[str, Any]) -> list[str]:
    bodies = report["bodies"]
    water = ", ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in bodies.items() if count)
    lines = [water or "no water: wrote empty layers"]
    if bodies["river"]:
        lines.append(
            f"{report['main_m'] / 1000:,.2f} km of main course, {report['centrelines']:,} centrelines, "
            f"{report['sections']:,} cross-sections, {report['reaches']:,} reaches, {report['islands']:,} islands"
        )
    if report["options"]["bridge_m"] > 0:
        lines.append(f"{report['bridges']:,} gaps bridged, {report['bridged_m']:,.0f} m in all")
    if report["mask"] is not None:
        lines.append(
            f"{report['mask']} ({report['mask_pixels']:,} water pixels)"
            if report["mask_pixels"]
            else "no mask: there is no river"
        )
    return lines
