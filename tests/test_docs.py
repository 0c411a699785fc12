"""The documentation: it builds without a warning, and what it tells people to type exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from PIL import Image

import geosam
from geosam.cli import VERBS, cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / name for name in ("index.md", "how.md", "quality.md")]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(path: Path) -> list[list[str]]:
    """Command lines of geosam in blocks and in code between words, as words."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`((?:rio )?geosam [a-z]+ [^`]+)`", text)
    words = [shlex.split(line, comments=True) for line in [*lines, *inline]]
    return [line[1:] if line[0] == "rio" else line for line in words if line and line[0] in ("geosam", "rio")]


@pytest.mark.parametrize("words", [words for path in PAGES for words in commands(path)], ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None
    command.make_context(words[1], words[2:])


def test_the_start_page_has_commands_for_every_task() -> None:
    assert {words[1] for words in commands(PAGES[0])} >= {"segment", "plot", "coarse", "rivers", "finetune", "info"}


def test_the_command_line_page_is_the_help_of_every_verb() -> None:
    page = script("hooks").command_line()
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        section = page.split(f"\n## geosam {verb}\n")[1].split("\n## ")[0]
        shown = set(re.findall(r"--[a-z][a-z-]*", section))
        assert {name for param in command.params for name in param.opts if name.startswith("--")} <= shown


@pytest.mark.parametrize("part", ["scores", "fails"])
def test_numbers_are_those_of_the_card(part: str) -> None:
    hooks = script("hooks")
    shown = hooks.included(part, DOCS)
    assert shown in hooks.card()
    assert f"<!-- include {part} -->" in (DOCS / "quality.md").read_text(encoding="utf-8")
    assert not re.search(r"\d\.\d\d", (DOCS / "quality.md").read_text(encoding="utf-8"))


def test_every_picture_of_a_page_is_one_that_the_figures_write() -> None:
    figures = script("figures")
    asked = {name for path in PAGES for name in re.findall(r"\(figures/([\w-]+)\.jpg\)", path.read_text("utf-8"))}
    assert asked <= {*figures.STEPS, *figures.FAILURES}
    source = (DOCS / "figures.py").read_text(encoding="utf-8")
    assert {*re.findall(r'save\("(\w+)"', source)} == set(figures.STEPS)


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    """The functions and classes of the package, and what its rooms give: classes too."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    paths = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    members = re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*)\]", page)))
    members += re.findall(r"^        - (\w+)$", page, re.MULTILINE)
    told = {path.rsplit(".", 1)[1] for path in paths} | set(members) | {"GeosamError"}  # shown with its module
    rooms = ("changes", "finetune", "plot", "relabel", "segments", "stats", "viewer")
    wanted = {name for room in rooms for name in importlib.import_module(f"geosam.{room}").__all__}
    assert wanted | set(geosam.__all__) <= told | {"synth"}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """With blank pictures in place of those that only a run of the model can make."""
    figures = script("figures")
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("figures", "__pycache__"))
    (tmp_path / "docs" / "figures").mkdir()
    for name in (*figures.STEPS, *figures.FAILURES):
        Image.new("RGB", (8, 8)).save(tmp_path / "docs" / "figures" / f"{name}.jpg")
    (tmp_path / "docs" / "figures" / "failures.md").write_text("**None**", encoding="utf-8")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("docs/hooks.py", str(DOCS / "hooks.py"))
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert 'id="geosam.plot.width"' in api
    assert ":func:" not in api
    assert "geosam segment" in (tmp_path / "site" / "cli.html").read_text(encoding="utf-8")
