"""``geosam synth``: make a river scene with exact truth."""

from __future__ import annotations

from typing import Any

import click

from geosam.cli import shared
from geosam.errors import OptionsError

_FEATURES = ("river", "braided", "tributary", "lake", "oxbow", "forest", "gravel", "roads", "roofs", "glint")


@click.command("synth", short_help="Make a river scene with exact truth.")
@click.option("--out", required=True, type=click.Path(file_okay=True), help="Folder to make and fill.")
@click.option("--size", default=2048, show_default=True, help="Rows and columns in pixels.")
@click.option("--height", type=int, help="Rows, where they differ from --size.")
@click.option("--width", type=int, help="Columns, where they differ from --size.")
@click.option("--gsd", "gsd_m", default=0.5, show_default=True, help="Metres a pixel, 0.05 to 30 look best.")
@click.option("--seed", default=0, show_default=True, help="Another seed is another river.")
@click.option(
    "--water",
    type=click.Choice(["mixed", "brown", "grey", "green", "clear", "black", "milky", "blue"]),
    default="mixed",
    show_default=True,
    help="Colour of the water; mixed: each body has its own.",
)
@click.option("--bands", type=click.Choice(["rgb", "rgbn"]), default="rgb", show_default=True, help="rgbn adds NIR.")
@click.option("--dtype", type=click.Choice(["uint8", "uint16", "float32"]), default="uint8", show_default=True,
              help="As displayed; reflectance x 10,000; reflectance.")  # fmt: skip
@click.option("--crs", type=click.Choice(["utm", "lonlat", "none"]), default="utm", show_default=True,
              help="EPSG:32632, EPSG:4326, or no CRS at all.")  # fmt: skip
@click.option("--rotate", "rotation_deg", default=0.0, show_default=True, help="Turn the grid, degrees.")
@click.option("--collar", "collar_px", default=0, show_default=True, help="Border without data, pixels.")
@click.option("--without", multiple=True, type=click.Choice(_FEATURES), help="Leave a feature out; may be repeated.")
@click.option("--plain", is_flag=True, help="Repeated textures instead of trees and fields: faster, for benchmarks.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier scene in the folder.")
def command(out: str, overwrite: bool, **given: Any) -> None:
    """Make a river scene from a seed, with exact truth.

    The folder gets scene.tif (the picture), truth.tif (1 water, 0 dry, 255 collar), truth.gpkg
    (the same truth as polygons, in the scene's CRS) and scene.json (the options). The scene has a
    meandering river with a braided reach, a tributary narrower than 10 px, a lake and an oxbow, in
    woods and fields, with roads, bridges and dark roofs as traps. Truth is the wet surface: shadow,
    glint and foam on water are water; a bridge is not. Size is bounded by the disk, not by memory.

    \b
      geosam synth --out demo
      geosam synth --out demo --size 4096 --gsd 0.3 --bands rgbn --water brown --seed 7
      geosam synth --out bench --size 20000 --bands rgbn --plain
      geosam synth --out odd --dtype float32 --crs lonlat --rotate 20 --collar 64 --without lake
    """
    from geosam.synth import write_scene

    options = _options(**given)
    with shared.progress("painting") as progress:
        made = write_scene(options, out, overwrite=overwrite, progress=progress)
    area = made.water_px * options.gsd_m**2
    click.echo(f"{out}: scene.tif, truth.tif, truth.gpkg, scene.json")
    click.echo(
        f"{options.height} x {options.width} px at {options.gsd_m:g} m; water {made.water_fraction:.1%}, "
        f"{area:,.0f} m2, in {made.polygons} polygons"
    )


def _options(
    size: int, height: int | None, width: int | None, without: tuple[str, ...], plain: bool, **rest: Any
) -> Any:
    """Checked options from the command line's values."""
    from pydantic import ValidationError

    from geosam.options import first_fault
    from geosam.synth import SynthOptions

    features = {name: name not in without for name in _FEATURES}
    shape = {"height": height or size, "width": width or size, "detail": "plain" if plain else "full"}
    try:
        return SynthOptions.model_validate({**rest, **shape, **features})
    except ValidationError as error:
        raise OptionsError(f"synth: {first_fault(error)}. See geosam synth --help.") from None
