"""The command line: one verb a file, loaded only when it is called.

``geosam --help`` must answer at once, so nothing here imports torch, rasterio or geopandas.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from geosam.errors import GeosamError, RunError

VERBS: dict[str, str] = {
    "segment": "River polygons from an orthoimage: the whole way.",
    "everything": "Every thing in a scene as a segment, to select from.",
    "select": "Rivers from segments, by points, boxes, words or an index.",
    "coarse": "The first guess of water, as a raster.",
    "prompts": "The control points a model would be given, as a vector layer.",
    "vectorize": "Polygons from a mask or probability raster.",
    "rivers": "Centrelines, widths, reaches and islands of rivers.",
    "change": "What rivers did between two dates: erosion, migration, cut-offs.",
    "stats": "Temperature or height under the water and along it.",
    "info": "Look at a raster before an hours-long run.",
    "models": "List or fetch the models that geosam knows.",
    "finetune": "Tune or train a model on labelled tiles.",
    "relabel": "Predict, correct, retrain: labels by model and person in turn.",
    "evaluate": "Score a model on labelled tiles, or a result against a reference.",
    "synth": "Make a river scene with exact truth.",
    "plot": "A picture of a scene and its rivers.",
    "view": "A page to look at rivers and to edit them by clicks.",
    "depth": "Relative depth of a photograph, beside its water.",
}
"""Every verb and its line in ``geosam --help``; the verb lives in ``geosam/cli/<verb>.py`` as ``command``."""


class _Verbs(click.Group):
    """A group that imports a verb's file when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"geosam.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="geosam-rivers", prog_name="geosam")
def cli(debug: bool) -> None:
    """River polygons from orthoimages.

    \b
      geosam segment ortho.tif --out rivers.geojson
      geosam info ortho.tif

    Exit codes: 0 done (an empty result is done), 1 the run or some tiles failed, 2 bad usage or bad input.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line and turn errors into one line on stderr and an exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        result: Any = cli.main(args=args, prog_name="geosam", standalone_mode=False)
    except click.exceptions.Abort:
        _fail("stopped by the user.", 1)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        _fail("stopped by the user. Run again with --resume to go on.", 1)
    except GeosamError as error:
        if "--debug" in args:
            raise
        _fail(str(error), 1 if isinstance(error, RunError) else 2)
    except Exception as error:
        if "--debug" in args:
            raise
        _fail(f"unexpected {type(error).__name__}: {error}. Run geosam --debug to see where, and please report it.", 1)
    raise SystemExit(result if isinstance(result, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo("geosam: " + " ".join(message.split()), err=True)
    raise SystemExit(code)
