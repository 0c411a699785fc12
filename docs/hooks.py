"""What mkdocs does besides: pages that are made of the program itself, so that they cannot be out of date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "geosam" / "models" / "weights"


def on_config(config: Any) -> Any:
    """List every page: those of mkdocs.yml first, then the others by their headings, then those that are made here."""
    listed = {name for entry in config.nav for name in entry.values()}
    others = [path for path in sorted(Path(config.docs_dir).glob("*.md")) if path.name not in listed]
    more = [{path.read_text(encoding="utf-8").split("\n")[0].lstrip("# "): path.name} for path in others]
    config.nav = [*config.nav, *more, {"Code": "code.md"}, {"Changes": "changes.md"}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Make the pages that repeat something: help texts, the change log, the map of the code."""
    made = {
        "cli.md": command_line(),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "code.md": (ROOT / "geosam" / "README.md").read_text(encoding="utf-8"),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put in what a page includes, and unlink what is not part of the site."""
    text = re.sub(r"<!-- include (\S+) -->", lambda found: included(found[1], Path(config.docs_dir)), markdown)
    known = {file.src_uri for file in files}
    folder = Path(page.file.src_uri).parent
    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)#]+)(#[^)]*)?\)", lambda link: kept(link, folder, known), text)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Names in docstrings without the roles that other tools want before them."""
    return re.sub(r":(?:func|class|meth|mod|attr|data):<code>~?", "<code>", html)


def kept(link: re.Match[str], folder: Path, known: set[str]) -> str:
    """A link, or its text alone where it leads out of the site."""
    target = link[2]
    if "://" in target or (folder / target).as_posix() in known:
        return link[0]
    return link[1] if "`" in link[1] or "/" in link[1] else f"{link[1]} (`{Path(target).name}`)"


def included(what: str, docs: Path) -> str:
    """A part of the bundled model's card, or a text that the figures left.

    Raises:
        ValueError: There is no such text.
    """
    if what == "failures":
        return (docs / "figures" / "failures.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {what} -->(.*?)<!-- /{what} -->", card(), re.DOTALL)
    if found is None:
        raise ValueError(f"The model's card has no part {what}.")
    return found[1].strip()


def card() -> str:
    """The bundled model's card, which is where its numbers stand."""
    path = next(path for path in (CARDS / "river-tiny.md", CARDS / "README.md") if path.is_file())
    return path.read_text(encoding="utf-8")


def command_line() -> str:
    """Every verb's own help."""
    from geosam.cli import VERBS, cli

    parts = ["# Command line", "What `geosam VERB --help` says.", fenced(cli, "geosam")]
    for verb, line in VERBS.items():
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        parts += [f"## geosam {verb}", line, fenced(command, f"geosam {verb}")]
    return "\n\n".join(parts) + "\n"


def fenced(command: click.Command, name: str) -> str:
    """The help of a command as a block."""
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    return f"```text\n{command.get_help(context)}\n```"
