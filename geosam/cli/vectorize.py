"""``geosam vectorize``: polygons from a mask or probability raster."""

from __future__ import annotations

import time

import click

from geosam.cli import shared


@click.command(short_help="Polygons from a mask or probability raster.")
@click.argument("raster")
@click.option("--out", required=True, metavar="PATH", help="The file to be: .geojson, .gpkg, .fgb or .parquet.")
@shared.threshold_option("vector")
@shared.area_options("vector")
@shared.simplify_option
@shared.stage_option(
    "--allow-no-crs",
    key="scene.allow_no_crs",
    is_flag=True,
    default=False,
    help="Accept a raster without CRS; the result is in pixel coordinates, not in GeoJSON.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that work side by side; default: one a processor, up to 8. The result is the same.",
)
@shared.config_option
@shared.style_option
@shared.overwrite_option
def command(raster: str, out: str, threads: int | None, style: bool, overwrite: bool) -> None:
    """Polygons from a mask or probability RASTER, by strips: a raster of any size will do.

    \b
      geosam vectorize probability.tif --out rivers.geojson
      geosam vectorize mask.tif --out rivers.gpkg --min-area 500 --max-hole 100 --simplify 2

    A probability raster is float from 0 to 1, or whole numbers with a scale tag; --threshold says
    from where on it is water (auto: 0.5). A mask is whole numbers: water 1 or 255, dry 0. Nodata
    is not water. Pixels that share an edge make one polygon; islands are its holes.

    Each polygon has id, area_m2, perimeter_m, probability (mean of its pixels), scene and model.
    Areas and lengths are in m² and metres on the ground, whatever the CRS. GeoJSON is in
    longitude and latitude (RFC 7946), the other formats are in the CRS of the raster. A raster
    without water gives an empty, valid file.
    """
    from pathlib import Path

    from geosam.vector import check_output, has_crs, polygonize_raster, write_rivers
    from geosam.vector.style import write_style

    started = time.perf_counter()
    options = shared.segment_options()
    allow_no_crs = options.scene.allow_no_crs
    check_output(out, overwrite, has_crs=not allow_no_crs or has_crs(raster))
    with shared.progress("polygons") as progress:
        rivers = polygonize_raster(
            raster, options.vector, allow_no_crs=allow_no_crs, progress=progress, threads=threads
        )
    write_rivers(rivers, out, overwrite)
    if style:
        write_style(Path(out))
    click.echo(_summary(len(rivers), float(rivers["area_m2"].sum()), rivers.crs is not None))
    click.echo(f"{out} ({time.perf_counter() - started:.1f} s)")


def _summary(count: int, area: float, in_metres: bool) -> str:
    if not count:
        return "no water: wrote an empty layer"
    return f"{count:,} polygon{'s' if count > 1 else ''}, {area:,.0f} {'m²' if in_metres else 'px'} of water"
