"""``rio geosam``: every verb of geosam as a plugin of rasterio's command line."""

from __future__ import annotations

from typing import Any

import click

from geosam.cli import cli
from geosam.errors import GeosamError, RunError


class _Said(click.ClickException):
    """One line and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """As geosam's own main function has it."""
        return self.code


class _Plugin(click.Group):
    """geosam's verbs with their exit codes, where another program's main function runs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return cli.list_commands(ctx)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return cli.get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        cli.format_commands(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except GeosamError as error:
            raise _Said(" ".join(str(error).split()), 1 if isinstance(error, RunError) else 2) from None
        if isinstance(result, int) and result:
            ctx.exit(result)
        return result


@click.command(cls=_Plugin, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def geosam() -> None:
    """River polygons from orthoimages, by geosam."""
