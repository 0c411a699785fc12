"""Shared options: what the user typed beats the TOML file, which beats the defaults."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from geosam.cli import shared
from geosam.errors import OptionsError
from geosam.options import CoarseOptions, ModelOptions, SceneOptions, SegmentOptions

seen: list[SegmentOptions] = []


@click.command()
@shared.scene_options
@shared.coarse_option
@shared.threshold_option("vector")
@shared.area_options("vector")
@shared.simplify_option
@shared.model_options
@shared.seed_option
@shared.config_option
def verb() -> None:
    seen.append(shared.segment_options())


def run(*args: str) -> SegmentOptions:
    verb.main(list(args), standalone_mode=False)
    return seen.pop()


def toml(folder: Path, text: str) -> str:
    path = folder / "options.toml"
    path.write_text(text)
    return str(path)


def test_nothing_typed_gives_the_defaults() -> None:
    assert run() == SegmentOptions()


def test_every_shared_option_reaches_its_stage() -> None:
    made = run(
        *("--bands", "naip", "--aoi", "a.gpkg", "--gsd", "0.5", "--allow-no-crs", "--coarse", "hsv"),
        *("--threshold", "0.25", "--min-area", "7", "--max-hole", "8", "--simplify", "9", "--model", "m"),
        *("--device", "cpu", "--dtype", "float32", "--batch-size", "3", "--compile", "--seed", "11"),
        *("--views", "8", "--magnify", "1", "--nodata", "0"),
    )
    assert made.model_dump(exclude={"prompts", "tiles"}) == {
        "scene": {
            **SceneOptions().model_dump(),
            **{"bands": "naip", "aoi": "a.gpkg", "gsd": 0.5, "allow_no_crs": True, "nodata": 0.0},
        },
        "coarse": {**CoarseOptions().model_dump(), "method": "hsv"},
        "vector": {"threshold": 0.25, "min_area_m2": 7.0, "max_hole_m2": 8.0, "simplify_m": 9.0},
        "model": {
            **ModelOptions().model_dump(),
            **{"name": "m", "device": "cpu", "dtype": "float32", "batch_size": 3, "compile": True},
            **{"views": 8, "magnify": 1},
        },
        "seed": 11,
    }


def test_the_file_beats_the_defaults_and_what_is_typed_beats_the_file(tmp_path: Path) -> None:
    config = toml(tmp_path, 'seed = 4\n[scene]\nbands = "naip"\ngsd = 2\n[vector]\nthreshold = 0.7\n')
    made = run("--config", config, "--gsd", "native")
    assert (made.seed, made.scene.bands, made.scene.gsd, made.vector.threshold) == (4, "naip", "native", 0.7)


def test_auto_and_a_typed_default_undo_what_the_file_says(tmp_path: Path) -> None:
    config = toml(tmp_path, "[vector]\nthreshold = 0.7\nmin_area_m2 = 50\n[model]\nbatch_size = 9\n")
    made = run("--threshold", "auto", "--batch-size", "auto", "--min-area", "0", "--config", config)
    assert (made.vector.threshold, made.model.batch_size, made.vector.min_area_m2) == (None, None, 0.0)


@pytest.mark.parametrize("gsd", ["native", "auto"])
def test_gsd_takes_its_words(gsd: str) -> None:
    assert run("--gsd", gsd).scene.gsd == gsd


@pytest.mark.parametrize(
    "args",
    [("--gsd", x) for x in ("0", "-1", "nan", "inf", "coarse", "")]
    + [("--threshold", x) for x in ("nan", "inf", "high", "")]
    + [("--batch-size", x) for x in ("0", "-1", "2.5", "many", "²", "")]
    + [("--magnify", x) for x in ("0", "3", "twice", "")],
)
def test_a_value_of_the_wrong_kind_is_bad_usage_that_names_the_option(args: tuple[str, str]) -> None:
    result = CliRunner().invoke(verb, args)
    assert result.exit_code == 2
    assert f"Invalid value for '{args[0]}': {args[1]!r}" in result.output


@pytest.mark.parametrize("args", [("--seed", "-1"), ("--threshold", "2"), ("--min-area", "-3")])
def test_a_value_out_of_range_is_one_line_that_names_the_option(args: tuple[str, str]) -> None:
    with pytest.raises(OptionsError, match=rf"^{args[0]}: [^\n]+, got {args[1]}") as caught:
        run(*args)
    assert "\n" not in str(caught.value)


def test_a_fault_in_the_file_names_the_file_and_the_key(tmp_path: Path) -> None:
    config = toml(tmp_path, "[scene]\nbandz = 1\n")
    with pytest.raises(OptionsError, match=r"options\.toml: unknown key 'scene.bandz'"):
        run("--config", config, "--model", "m")


def test_a_stage_that_is_no_table_is_an_options_error(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="scene must be a table"):
        run("--config", toml(tmp_path, "scene = 3\n"), "--bands", "naip")


def test_a_missing_file_is_an_options_error() -> None:
    with pytest.raises(OptionsError, match=r"nowhere\.toml does not exist"):
        run("--config", "nowhere.toml")


def test_help_shows_each_default_from_the_options_model() -> None:
    text = CliRunner().invoke(verb, ["--help"], terminal_width=200).output
    assert "[default: river-tiny]" in text
    assert "[default: native]" not in text


def test_was_given_tells_typed_from_configured(tmp_path: Path) -> None:
    config = toml(tmp_path, "[scene]\ngsd = 2\n")
    told: list[bool] = []

    @click.command()
    @shared.scene_options
    @shared.config_option
    def probe() -> None:
        told.append(shared.was_given("scene.gsd"))

    probe.main(["--config", config], standalone_mode=False)
    probe.main(["--gsd", "2"], standalone_mode=False)
    assert told == [False, True]


def test_progress_is_silent_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shared.progress("reading") as advance, shared.stage_progress() as advance_stage:
        advance(1, 2)
        advance_stage("tiles", 2, 2)
    assert capsys.readouterr() == ("", "")
