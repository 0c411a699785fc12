"""What a new user meets first: the README tells the truth, every verb explains itself, presets parse."""

import ast
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import rasterio
from click.testing import CliRunner

import geosam
from geosam.cli import VERBS, cli
from geosam.cli.shared import stage_fields
from geosam.options import SegmentOptions, read_toml

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "data/README.md",
    "benchmarks/README.md",
    "docs/cluster.md",
    "docs/everything.md",
    "docs/relabel.md",
    "docs/stats.md",
    "docs/viewer.md",
]
PRESETS = sorted((ROOT / "configs").glob("*.toml"))
SLOW_TO_IMPORT = {"torch", "transformers", "timm", "rasterio", "geopandas", "scipy", "skimage", "matplotlib"}


def commands_of(text: str) -> list[list[str]]:
    """Command lines of ``geosam`` in fenced blocks and in indented lines, as words; prose is passed over."""
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?:#  )? +(geosam .*)$", text, re.MULTILINE)
    lines = [line for block in [*fenced, *indented] for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"geosam [a-z]+( \S|$)", line)]


def command_named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"geosam {name} does not exist"
    return command


def check_command(words: list[str]) -> None:
    """The verb exists and has every option that the command line uses."""
    if words[1] == "--help":
        return
    command = command_named(words[1])
    if isinstance(command, click.Group) and len(words) > 2:
        command = command.commands[words[2]]
    known = {name for param in command.params for name in param.opts}
    used = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
    assert used <= known | {"--help"}, f"{shlex.join(words)}: no {sorted(used - known)}"


def documented() -> list[tuple[str, list[str]]]:
    pages = [*PAGES, *(str(path.relative_to(ROOT)) for path in PRESETS)]
    return [(page, words) for page in pages for words in commands_of((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "words"), documented(), ids=lambda value: value if isinstance(value, str) else None)
def test_every_command_in_the_documents_exists_with_its_options(page: str, words: list[str]) -> None:
    check_command(words)


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first_block = text.split("```")[1]
    assert re.findall(r"^make \w+", first_block, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_the_documents_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)\b", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", [*PAGES, "geosam/README.md", "CHANGELOG.md"])
def test_every_relative_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_help_answers_without_the_slow_imports() -> None:
    code = (
        "import sys; from geosam.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print(sorted(set(sys.modules) & {SLOW_TO_IMPORT!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(verb in done.stdout for verb in VERBS)


def test_no_verb_needs_torch_to_explain_itself() -> None:
    code = (
        "import importlib, sys\nfrom geosam.cli import VERBS\n"
        "for verb in VERBS: importlib.import_module(f'geosam.cli.{verb}')\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'timm'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_text_with_an_example_that_holds(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "--help"], terminal_width=200)
    assert result.exit_code == 0, result.output
    examples = [words for words in commands_of(command_named(verb).help or "") if words[1] == verb]
    assert examples, f"geosam {verb} --help has no example"
    for words in examples:
        check_command(words)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_is_explained(verb: str) -> None:
    silent = [param.opts for param in command_named(verb).params if isinstance(param, click.Option) and not param.help]
    assert not silent


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_parses_and_says_why(path: Path) -> None:
    assert SegmentOptions.from_toml(path) != SegmentOptions()
    tables = read_toml(path)
    assert set(tables) <= set(stage_fields()) | {"seed"}
    assert path.read_text(encoding="utf-8").count("#") >= 5


def test_the_presets_are_there() -> None:
    assert {path.stem for path in PRESETS} >= {"naip", "sentinel2", "drone-rgb"}


def test_the_sample_scene_is_small_and_as_described() -> None:
    path = ROOT / "data" / "river.tif"
    assert path.stat().st_size < 1.5e6
    with rasterio.open(path) as file:
        assert (file.count, file.dtypes[0], file.crs.to_epsg()) == (4, "uint8", 32632)
        assert file.shape == (600, 600)
        assert file.res == pytest.approx((0.8, 0.8))


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert geosam.__version__ == project["version"] == newest[1]


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_everything_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_extras = (line for extra, lines in extras.items() if extra != "dev" for line in lines)
    declared = [*project["dependencies"], *of_extras]
    names = {re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-") for line in declared}
    homes = importlib.metadata.packages_distributions()
    for path in (ROOT / "geosam").rglob("*.py"):
        for module in imported_by(path) - set(sys.stdlib_module_names) - {"geosam"}:
            home = {name.lower().replace("_", "-") for name in homes.get(module, [])}
            assert home & names, f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not ask for"


def imported_by(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    given = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in plain | given}


def house_map() -> list[str]:
    """Every room, in the order of the house map: floor by floor."""
    rows = re.findall(r"^\| \d+ \| (.*?) \|", (ROOT / "geosam" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [room for row in rows for room in re.findall(r"`(\w+)`", row)]


def rooms_used_by(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    given = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    inside = {node.module.split(".")[1] for node in given if node.module and node.module.startswith("geosam.")}
    return inside | {
        alias.name for node in given if node.module == "geosam" for alias in node.names if alias.name[0] != "_"
    }


def test_the_map_of_the_house_has_every_room() -> None:
    rooms = {
        path.stem for path in (ROOT / "geosam").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(house_map()) == {room for room in rooms if not room.startswith("_")}


def test_imports_only_run_downward() -> None:
    rooms = house_map()
    for path in (ROOT / "geosam").rglob("*.py"):
        room = path.relative_to(ROOT / "geosam").parts[0].removesuffix(".py")
        if not room.startswith("_"):
            upward = rooms_used_by(path) - {room} - set(rooms[: rooms.index(room)])
            assert not upward, (
                f"{path.relative_to(ROOT)} imports {sorted(upward)}, which stand after {room} in the house map"
            )


def test_only_the_rooms_named_in_the_map_import_torch() -> None:
    told = re.search(r"Only (.*?) import torch", (ROOT / "geosam" / "README.md").read_text(encoding="utf-8"))
    assert told is not None
    found = {path for path in (ROOT / "geosam").rglob("*.py") if "torch" in imported_by(path)}
    assert {path.relative_to(ROOT / "geosam").parts[0].removesuffix(".py") for path in found} == set(
        re.findall(r"`(\w+)`", told[1])
    )


def test_the_gate_is_a_script_that_calls_make_test() -> None:
    gate = ROOT / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(gate)], check=True)
    assert "\nmake test\n" in gate.read_text(encoding="utf-8")


def test_make_installs_once_and_again_only_when_the_project_file_changed(tmp_path: Path) -> None:
    for part in ("Makefile", "pyproject.toml"):
        (tmp_path / part).write_bytes((ROOT / part).read_bytes())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "pip").touch()
    assert "pip install" in dry_run(tmp_path)
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / ".venv" / stamp).touch()
    assert "pip install" not in dry_run(tmp_path)
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    assert "pip install" in dry_run(tmp_path)


def dry_run(folder: Path) -> str:
    return subprocess.run(["make", "-n", "test"], cwd=folder, capture_output=True, text=True, check=True).stdout
