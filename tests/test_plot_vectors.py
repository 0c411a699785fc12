"""Pictures of vector layers: width along a river, and change between two dates."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shapely.geometry import LineString, box

from geosam import plot
from geosam.cli import cli
from geosam.errors import OptionsError, SceneError
from geosam.plot.drawing import area_text, length_text
from geosam.plot.erosion import LAYERS
from geosam.plot.sheet import SIDE_PX, sheet
from geosam.rivers import river_products

UTM = "EPSG:32633"
X, Y = 500_000, 5_000_000


def table(*shapes: object, crs: str | None = UTM) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=list(shapes), crs=crs)


@pytest.fixture(scope="module")
def canal() -> gpd.GeoDataFrame:
    """600 m of straight canal from west to east, 20 m wide, and 40 m in its eastern half."""
    west = LineString([(X, Y), (X + 300, Y)]).buffer(10, cap_style="flat")
    return table(west.union(LineString([(X + 300, Y), (X + 600, Y)]).buffer(20, cap_style="flat")))


@pytest.fixture(scope="module")
def network(canal: gpd.GeoDataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "canal.gpkg"
    river_products(canal, out=path)
    return path


@pytest.fixture
def ortho(tmp_path: Path) -> Path:
    grid = Affine(2.0, 0, X - 100, 0, -2.0, Y + 200)
    path = tmp_path / "ortho.tif"
    with rasterio.open(path, "w", "GTiff", 400, 200, 3, UTM, grid, "uint8") as file:
        file.write(np.random.default_rng(0).integers(90, 120, (3, 200, 400)).astype(np.uint8))
    return path


def chart(figure: Figure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance and wetted width as they are drawn."""
    [axes] = [axes for axes in figure.axes if axes.get_ylabel() == "width in m"]
    return tuple(np.asarray(values, float) for values in axes.lines[0].get_data())  # type: ignore[return-value]


def legend(axes: object) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[attr-defined]


def colours(figure: Figure) -> set[tuple[int, ...]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].reshape(-1, 3)
    return {tuple(map(int, colour)) for colour in np.unique(pixels, axis=0)}


def test_the_chart_has_the_widths_of_the_river_at_their_distances(network: Path) -> None:
    at, wide = chart(plot.width(network))
    if np.nanmean(wide[at < 250]) > 30:  # a course may run either way
        at = 600 - at
    assert np.nanmean(wide[(at > 60) & (at < 240)]) == pytest.approx(20, rel=0.05)
    assert np.nanmean(wide[(at > 360) & (at < 540)]) == pytest.approx(40, rel=0.05)


def test_title_legend_and_axes_say_what_is_drawn_with_units(network: Path) -> None:
    figure = plot.width(network)
    assert "canal: " in figure.get_suptitle()
    assert figure.get_suptitle().endswith(" m wide on average")
    on_map, on_chart, bar = figure.axes
    assert bar.get_ylabel() == "wetted width in m"
    assert on_chart.get_xlabel() == "distance along the main course in m"
    assert legend(on_map)[0] == "main course, with its distances"
    assert legend(on_chart)[0] == "wetted width, all channels"
    assert {text.get_text() for text in on_map.texts} >= {"N", "100 m"}


def test_polygons_and_their_network_make_the_same_chart(canal: gpd.GeoDataFrame, network: Path) -> None:
    products = river_products(canal)
    for given in (canal, products, canal.to_crs("EPSG:4326")):
        assert np.allclose(chart(plot.width(given)), chart(plot.width(network)), atol=0.2, equal_nan=True)


def test_distances_on_the_map_are_those_of_the_chart(network: Path) -> None:
    figure = plot.width(network)
    on_map, on_chart, _ = figure.axes
    ends = gpd.read_file(network, layer="centrelines").geometry.iloc[0].coords
    marks = [line.get_xydata()[0] for line in on_map.lines]
    ticks = [tick for tick in on_chart.get_xticks() if 0 <= tick <= on_chart.get_xlim()[1]]
    assert len(marks) == len(ticks) > 3
    paper = sheet("", [gpd.read_file(network, layer="water")])
    first = ~paper.geobox.affine @ ends[0]
    assert marks[0] == pytest.approx(first, abs=1)
    step = np.hypot(*np.diff(marks, axis=0).T) * paper.gsd_m
    assert step == pytest.approx(np.diff(ticks), rel=0.02)


def test_cross_sections_lie_on_the_ortho_where_they_were_measured(network: Path, ortho: Path) -> None:
    on_map = plot.width(network, ortho).axes[0]
    [sections] = [c for c in on_map.collections if isinstance(c, LineCollection) and c.get_array() is not None]
    xy = np.concatenate(sections.get_segments())
    assert xy[:, 1].min() == pytest.approx(100 - 10, abs=0.7)  # the northern bank, 20 m from the axis, at 2 m a pixel
    assert 50 < xy[:, 0].min() < xy[:, 0].max() < 350


def test_a_tall_river_stands_beside_its_chart(canal: gpd.GeoDataFrame) -> None:
    upright = table(canal.geometry.iloc[0])
    upright = upright.set_geometry(upright.rotate(90, origin=(X, Y)))
    figure = plot.width(upright)
    figure.draw_without_rendering()
    on_map, on_chart = (
        next(axes.get_window_extent() for axes in figure.axes if axes.get_ylabel() == label)
        for label in ("", "width in m")
    )
    assert on_map.x1 < on_chart.x0
    assert on_map.height > 1.5 * on_chart.height
    assert np.nanmax(chart(figure)[1]) == pytest.approx(40, rel=0.05)


def test_a_river_is_chosen_by_its_number_and_a_wrong_one_is_named(canal: gpd.GeoDataFrame) -> None:
    second = LineString([(X, Y + 300), (X + 200, Y + 300)]).buffer(5, cap_style="flat")
    two = table(canal.geometry.iloc[0], second)
    assert np.nanmedian(chart(plot.width(two, river=2))[1]) == pytest.approx(10, rel=0.1)
    with pytest.raises(OptionsError, match=r"no river 3. Its rivers are 1, 2\."):
        plot.width(two, river=3)


def test_no_river_is_one_line(canal: gpd.GeoDataFrame, tmp_path: Path) -> None:
    river_products(canal.iloc[:0], out=tmp_path / "none.gpkg")
    with pytest.raises(SceneError, match="none holds no river"):
        plot.width(tmp_path / "none.gpkg")
    with pytest.raises(SceneError, match=r"missing\.gpkg"):
        plot.width(tmp_path / "missing.gpkg")


# Change ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved() -> dict[str, gpd.GeoDataFrame]:
    """A channel 100 m wide and 1 km long that went 20 m to the east, and 20 m wider there."""
    return {
        "eroded": table(box(X + 100, Y, X + 140, Y + 1000)),
        "accreted": table(box(X, Y, X + 20, Y + 1000)),
        "stable": table(box(X + 20, Y, X + 100, Y + 1000)),
    }


def written(tables: dict[str, gpd.GeoDataFrame], path: Path) -> Path:
    for name, one in tables.items():
        one.to_file(path, layer=name)
    return path


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_change_has_three_colours_with_their_areas_on_the_ground(
    moved: dict[str, gpd.GeoDataFrame], crs: str, tmp_path: Path
) -> None:
    path = written({name: one.to_crs(crs) for name, one in moved.items()}, tmp_path / "change.gpkg")
    figure = plot.change(path)
    assert legend(figure.axes[0]) == ["stable water: 8.01 ha", "eroded, now water: 4 ha", "accreted, now land: 2 ha"]
    assert figure.axes[0].get_title() == "change: 2 ha more water than before"


def test_change_is_drawn_where_it_is(moved: dict[str, gpd.GeoDataFrame], ortho: Path) -> None:
    on_map = plot.change(moved, ortho).axes[0]
    faces = {patch.get_facecolor(): patch for patch in on_map.patches if patch.get_facecolor()[3] == 0.85}
    bounds = [patch.get_extents().transformed(on_map.transData.inverted()).bounds for patch in faces.values()]
    lefts_and_widths = [(round(x), round(width)) for x, _, width, _ in bounds]
    assert len(faces) == len(LAYERS)
    assert lefts_and_widths == [(60, 40), (100, 20), (50, 10)]  # stable, eroded, accreted, at 2 m from X - 100


def test_no_change_is_said(moved: dict[str, gpd.GeoDataFrame]) -> None:
    still = {**moved, "eroded": moved["eroded"].iloc[:0], "accreted": moved["accreted"].iloc[:0]}
    assert plot.change(still).axes[0].get_title() == "change: as much water as before"


def test_a_layer_that_lacks_is_named(moved: dict[str, gpd.GeoDataFrame], tmp_path: Path) -> None:
    del moved["accreted"]
    with pytest.raises(SceneError, match=r"change\.gpkg has no layer accreted"):
        plot.change(written(moved, tmp_path / "change.gpkg"))
    with pytest.raises(SceneError, match="has no layer stable or eroded or accreted"):
        plot.change(tmp_path / "missing.gpkg")


# Paper and words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", None])
def test_paper_holds_every_layer_and_leaves_a_margin(canal: gpd.GeoDataFrame, crs: str | None) -> None:
    given = canal.to_crs(crs) if crs else table(canal.geometry.iloc[0], crs=None)
    paper = sheet("x", [given.iloc[:0], given])
    seen = plot.layers.shapes(paper, given).total_bounds
    height, width = paper.shape
    assert max(paper.shape) == SIDE_PX
    assert seen[:2].min() > 20
    assert width - seen[2] > 20
    assert height - seen[3] > 20
    assert paper.has_crs == (crs is not None)
    if crs:
        assert (seen[2] - seen[0]) * paper.gsd_m == pytest.approx(600, rel=2e-3)


def test_units_suit_the_size_and_can_be_shared() -> None:
    assert [area_text(value) for value in (12.0, 15_576, 2.5e6, 1.2e9)] == ["12 m²", "1.56 ha", "2.5 km²", "1,200 km²"]
    assert area_text(310, like=15_576) == "0.031 ha"
    assert [length_text(value) for value in (4.26, 999, 12_345)] == ["4.26 m", "999 m", "12.3 km"]


# The verb -------------------------------------------------------------------------------------------------------------


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["plot", *map(str, words)])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (("overlay", "S"), ("overlay", "S", None)),
        (("overlay", "S", "r.gpkg"), ("overlay", "S", "r.gpkg")),
        (("S", "r.gpkg"), ("overlay", "S", "r.gpkg")),
        (("prompts", "S", "p.gpkg"), ("prompts", "S", "p.gpkg")),
        (("probability", "S", "p.tif"), ("probability", "S", "p.tif")),
        (("S", "--probability", "p.tif"), ("probability", "S", "p.tif")),
        (("error", "S", "r.gpkg", "t.gpkg"), ("error", "S", "r.gpkg", "t.gpkg")),
        (("error", "S", "r.gpkg", "--truth", "t.gpkg"), ("error", "S", "r.gpkg", "t.gpkg")),
        (("S", "r.gpkg", "--truth", "t.gpkg"), ("error", "S", "r.gpkg", "t.gpkg")),
        (("before-after", "S", "b.tif", "r.gpkg"), ("before_after", "S", "b.tif", "r.gpkg")),
        (("S", "r.gpkg", "--before", "b.tif"), ("before_after", "S", "b.tif", "r.gpkg")),
        (("width", "n.gpkg"), ("width", "n.gpkg", None)),
        (("width", "S", "n.gpkg"), ("width", "n.gpkg", "S")),
        (("change", "c.gpkg"), ("change", "c.gpkg", None)),
        (("S", "c.gpkg", "--kind", "change"), ("change", "c.gpkg", "S")),
    ],
)
def test_the_verb_takes_files_by_their_place(
    words: tuple[str, ...], called: tuple[object, ...], ortho: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    for kind in ("overlay", "prompts", "probability", "error", "before_after", "width", "change"):
        monkeypatch.setattr(plot, kind, lambda *a, _kind=kind, **k: seen.extend([_kind, *a]) or Figure())
    given = [str(ortho) if word == "S" else word for word in words]
    code, output = run(*given, "--out", tmp_path / "o.png")
    assert code == 0, output
    assert tuple("S" if getattr(one, "source", None) == str(ortho) else one for one in seen) == called


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("error", "S", "r.gpkg"), "needs --truth"),
        (("width",), "needs NETWORK"),
        (("prompts", "S"), "needs POINTS"),
        (("overlay", "S", "r.gpkg", "x.gpkg"), "x.gpkg is one more"),
        (("network", "S", "r.gpkg"), "network is neither a file nor a kind of picture"),
        (("S", "r.gpkg", "--probability", "p.tif"), "r.gpkg is one more"),
    ],
)
def test_the_verb_names_what_is_missing_or_too_much(
    words: tuple[str, ...], said: str, ortho: Path, tmp_path: Path
) -> None:
    code, output = run(*(ortho if word == "S" else word for word in words), "--out", tmp_path / "o.png")
    assert code == 2
    assert said in output
    assert not (tmp_path / "o.png").exists()


def test_the_verb_writes_width_and_change(
    network: Path, moved: dict[str, gpd.GeoDataFrame], ortho: Path, tmp_path: Path
) -> None:
    change = written(moved, tmp_path / "change.gpkg")
    for words in (("width", network, "--river", 1), ("width", ortho, network), ("change", change)):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        code, output = run(*words, "--dpi", 40, "--out", out)
        assert (code, output.strip()) == (0, str(out))
        assert out.read_bytes().startswith(b"\x89PNG")


def test_blank_paper_is_drawn_in_ink(moved: dict[str, gpd.GeoDataFrame]) -> None:
    assert {(247, 247, 247), (17, 17, 17)} <= colours(plot.change(moved))


@pytest.mark.parametrize(("times", "unit", "factor"), [(1, "m", 1), (100, "km", 1000)])
def test_widths_have_the_unit_that_suits_them_on_map_and_chart(
    canal: gpd.GeoDataFrame, times: int, unit: str, factor: float
) -> None:
    large = table(shapely.affinity.scale(canal.geometry.iloc[0], times, times, origin=(X, Y)))
    figure = plot.width(large)
    labels = {axes.get_ylabel() for axes in figure.axes}
    assert {f"width in {unit}", f"wetted width in {unit}"} <= labels
    [axes] = [axes for axes in figure.axes if axes.get_ylabel() == f"width in {unit}"]
    wetted = np.asarray(axes.lines[0].get_ydata(), float)
    assert np.nanmax(wetted) == pytest.approx(40 * times / factor, rel=0.05)
