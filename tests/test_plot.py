"""Pictures: right place, bounded reads, nothing left behind."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shapely.geometry import Point, Polygon, box

from geosam import plot
from geosam.cli import cli
from geosam.errors import OutputError, SceneError
from geosam.options import SceneOptions
from geosam.plot.canvas import look, mapped, north, round_length
from geosam.plot.layers import shapes, water
from geosam.prompts import Prompts
from geosam.scene import Scene

UTM = "EPSG:32633"
GRID = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)


def write_raster(path: Path, bands: NDArray[np.generic], transform: Affine = GRID, crs: str | None = UTM) -> Path:
    count, height, width = bands.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, crs, transform, bands.dtype.name, nodata=None) as file:
        file.write(bands)
    return path


def on_map(points: list[tuple[float, float]], grid: Affine = GRID) -> list[NDArray[np.float64]]:
    """Pixel coordinates (x, y) to map coordinates."""
    return list(mapped(grid, np.array(points, float)))


def turned_by(degrees: float) -> Affine:
    """A grid of 2 m, turned counter-clockwise."""
    cos, sin = 2 * np.cos(np.radians(degrees)), 2 * np.sin(np.radians(degrees))
    return Affine(cos, sin, 500_000, sin, -cos, 5_000_000)


def water_window() -> NDArray[np.bool_]:
    mask = np.zeros((60, 100), bool)
    mask[20:40, 10:90] = True
    mask[28:32, 40:60] = False  # an island
    return mask


def ortho_bands() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    bands = rng.integers(90, 120, (1, 60, 100)).astype(np.uint8).repeat(3, axis=0)  # grey
    bands[:, water_window()] -= 60
    return bands


@pytest.fixture
def ortho(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "ortho.tif", ortho_bands())


@pytest.fixture
def rivers() -> gpd.GeoDataFrame:
    """The same water as :func:`water_window`, as a polygon with a hole, in map coordinates."""
    shell = on_map([(10, 20), (90, 20), (90, 40), (10, 40)])
    hole = on_map([(40, 28), (60, 28), (60, 32), (40, 32)])
    return gpd.GeoDataFrame({"area_m2": [1520 * 4.0]}, geometry=[Polygon(shell, [hole])], crs=UTM)


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """The figure as pixels, uint8 (h, w, 4)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def color_at(figure: Figure, xy: tuple[float, float]) -> NDArray[np.int_]:
    """What is seen at a pixel of the scene, RGB."""
    pixels = drawn(figure)
    x, y = figure.axes[0].transData.transform(xy)
    return pixels[round(pixels.shape[0] - y), round(x), :3].astype(int)


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_polygons_in_any_crs_land_on_the_pixels_they_were_traced_from(
    ortho: Path, rivers: gpd.GeoDataFrame, crs: str
) -> None:
    small = look(ortho)
    moved = rivers.to_crs(crs)
    assert np.allclose(shapes(small, moved).total_bounds, (10, 20, 90, 40), atol=1e-3)
    assert np.array_equal(water(small, moved), water_window())


def test_polygons_land_right_on_a_rotated_grid(tmp_path: Path) -> None:
    turned = turned_by(30)
    small = look(write_raster(tmp_path / "turned.tif", ortho_bands(), turned))
    corners = on_map([(10, 20), (90, 20), (90, 40), (10, 40)], turned)
    frame = gpd.GeoDataFrame(geometry=[Polygon(corners)], crs=UTM)
    assert np.allclose(shapes(small, frame).total_bounds, (10, 20, 90, 40), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 1), "uint8"), ((0, 255), "uint8"), ((0.1, 0.9), "float32")], ids=["01", "0255", "prob"]
)
def test_mask_rasters_of_every_usual_coding_are_read_as_water(
    ortho: Path, tmp_path: Path, values: tuple[float, float], dtype: str
) -> None:
    mask = np.where(water_window(), values[1], values[0]).astype(dtype)[None]
    path = write_raster(tmp_path / "mask.tif", mask)
    assert np.array_equal(water(look(ortho), path), water_window())


def test_the_overlay_colours_the_river_and_leaves_island_and_land_alone(ortho: Path, rivers: gpd.GeoDataFrame) -> None:
    figure = plot.overlay(ortho, rivers)
    river, island, land = (color_at(figure, xy) for xy in [(25.0, 30.0), (50.0, 30.0), (50.0, 50.0)])
    assert river[2] - river[0] > 60
    assert abs(island[2] - island[0]) < 40
    assert abs(land[2] - land[0]) < 40
    assert legend_of(figure) == ["rivers: 6,080 m² in 1 polygon"]


def test_an_empty_result_still_makes_a_picture(ortho: Path, rivers: gpd.GeoDataFrame) -> None:
    assert "in 0 polygons" in legend_of(plot.overlay(ortho, rivers.iloc[:0]))[0]
    assert "IoU 0.000" in plot.error(ortho, rivers.iloc[:0], rivers).axes[0].get_title()


def test_the_error_map_splits_result_and_truth_into_three(ortho: Path, rivers: gpd.GeoDataFrame) -> None:
    left, right = (box(*np.ravel(on_map(corners))) for corners in ([(0, 60), (50, 0)], [(30, 60), (100, 0)]))
    found, true = rivers.clip(left), rivers.clip(right)
    figure = plot.error(ortho, found, true)
    both, invented, missed = (color_at(figure, xy) for xy in [(35.0, 30.0), (20.0, 30.0), (80.0, 30.0)])
    assert both.argmax() == 2
    assert invented[0] > 150 > invented[2]
    assert missed[0] > 150
    assert missed[1] < 110
    overlap, union = 20 * 20 - 10 * 4, 1520
    assert figure.axes[0].get_title() == f"ortho: IoU {overlap / union:.3f}"
    assert [text.split(":")[0] for text in legend_of(figure)] == [
        "found and true",
        "found, not true",
        "true, not found",
    ]


def test_a_perfect_result_has_an_iou_of_one(ortho: Path, rivers: gpd.GeoDataFrame) -> None:
    assert plot.error(ortho, rivers, rivers).axes[0].get_title() == "ortho: IoU 1.000"


def test_probability_has_a_scale_from_zero_to_one_and_no_colour_where_nothing_is_known(
    ortho: Path, tmp_path: Path
) -> None:
    values = np.where(water_window(), 1.0, np.nan).astype(np.float32)[None]
    figure = plot.probability(ortho, write_raster(tmp_path / "p.tif", values))
    [bar] = figure.axes[0].child_axes
    assert bar.get_ylabel() == "probability of water"
    assert bar.get_ylim() == (0, 1)
    unknown, wet = color_at(figure, (50.0, 50.0)), color_at(figure, (25.0, 30.0))
    assert np.ptp(unknown) < 10  # the pale ortho
    assert wet[2] - wet[0] > 60  # dark blue


@pytest.mark.parametrize("labels", [[1, 1, 0], ["water", "water", "dry"]])
def test_prompts_are_drawn_where_they_lie_and_counted_by_label(ortho: Path, labels: list[object]) -> None:
    points = gpd.GeoDataFrame(
        {"label": labels}, geometry=[Point(xy) for xy in on_map([(20, 30), (70, 30), (50, 50)])], crs=UTM
    )
    figure = plot.prompts(ortho, points.to_crs("EPSG:4326"))
    assert legend_of(figure) == ["water: 2 points", "dry: 1 point"]
    assert np.allclose(figure.axes[0].collections[1].get_offsets(), [(50, 50)], atol=1e-3)


def test_a_tile_shows_its_points_and_not_their_padding() -> None:
    points = np.array([[[4, 5], [9, 9]], [[20, 21], [0, 0]]], np.float32)
    prompts = Prompts(points, np.array([[1, 0], [1, -10]]), np.array([[1, 1, 9, 9]], np.float32).repeat(2, 0))
    figure = plot.tile(np.full((32, 32, 3), 90, np.uint8), prompts, water=np.eye(32, dtype=bool))
    assert legend_of(figure) == ["water: 2 points", "dry: 1 point"]


def test_before_and_after_share_one_ortho(ortho: Path, rivers: gpd.GeoDataFrame, tmp_path: Path) -> None:
    mask = write_raster(tmp_path / "mask.tif", water_window().astype(np.uint8)[None])
    figure = plot.before_after(ortho, mask, rivers, titles=("guess", "model"))
    assert [axes.get_title() for axes in figure.axes] == ["guess", "model"]
    assert legend_of(figure) == ["water: 6,085 m²"]  # on the ground; 6,080 m² on UTM's grid


def test_results_of_a_run_can_be_drawn_as_they_are(ortho: Path, rivers: gpd.GeoDataFrame, tmp_path: Path) -> None:
    mask = write_raster(tmp_path / "mask.tif", water_window().astype(np.uint8)[None])
    run = SimpleNamespace(polygons=rivers)
    figure = plot.before_after(ortho, SimpleNamespace(path=mask), run)
    assert legend_of(figure) == ["water: 6,085 m²"]
    assert "IoU 1.000" in plot.error(ortho, run, SimpleNamespace(path=mask)).axes[0].get_title()


def test_no_more_is_read_than_the_picture_shows(ortho: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = Scene.read_rgb

    def counting(self: Scene, window: rasterio.windows.Window) -> object:
        asked.append(int(window.width) * int(window.height))
        return whole(self, window)

    monkeypatch.setattr(Scene, "read_rgb", counting)
    plot.overlay(ortho, max_side_px=20)
    assert sum(asked) <= 20 * 20


def test_the_scale_bar_is_as_long_as_it_says(ortho: Path) -> None:
    figure = plot.overlay(ortho)
    bar = figure.axes[0].patches[0]
    text = next(text.get_text() for text in figure.axes[0].texts if text.get_text().endswith(" m"))
    assert bar.get_width() * look(ortho).gsd_m == pytest.approx(float(text.removesuffix(" m")))


def test_a_scene_in_degrees_has_its_proportions_and_a_bar_along_the_row(tmp_path: Path) -> None:
    """At 60 north a degree of longitude is half as long as one of latitude."""
    step = 1e-4
    path = write_raster(tmp_path / "o.tif", ortho_bands(), Affine(step, 0, 10, 0, -step, 60), "EPSG:4326")
    figure = plot.overlay(path)
    figure.draw_without_rendering()
    [axes] = figure.axes
    box_px = axes.get_window_extent()
    assert box_px.height / box_px.width == pytest.approx(2 * 60 / 100, rel=0.01)
    text = next(text.get_text() for text in axes.texts if text.get_text().endswith(" m"))
    metres = axes.patches[0].get_width() * step * 111_320 * 0.5
    assert metres == pytest.approx(float(text.removesuffix(" m")), rel=0.01)
    filled = plot.before_after(path, path, path)
    filled.draw_without_rendering()
    for one in filled.axes:
        box_px = one.get_window_extent()
        assert box_px.height / box_px.width == pytest.approx(2 * 60 / 100, rel=0.01)


@pytest.mark.parametrize(("longest", "chosen"), [(1.0, 1), (4.9, 2), (99, 50), (0.07, 0.05), (5000, 5000)])
def test_the_scale_bar_has_a_round_length(longest: float, chosen: float) -> None:
    assert round_length(longest) == pytest.approx(chosen)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_the_arrow_points_north_on_turned_and_south_up_grids(tmp_path: Path, degrees: int) -> None:
    x, y = north(look(write_raster(tmp_path / "t.tif", ortho_bands(), turned_by(degrees))))
    # Turned counter-clockwise by so many degrees, north lies clockwise of the picture's top.
    expected = (np.sin(np.radians(degrees)), -np.cos(np.radians(degrees)))
    assert (x, y) == pytest.approx(expected, abs=2e-3)


def test_a_scene_without_crs_is_drawn_in_pixels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "plain.tif", ortho_bands(), crs=None)
    scene = Scene.open(path, SceneOptions(allow_no_crs=True))
    frame = gpd.GeoDataFrame(geometry=[box(10, 20, 90, 40)])
    figure = plot.overlay(scene, frame)
    assert legend_of(figure) == ["rivers: 1,600 px in 1 polygon"]
    assert not any(text.get_text() == "N" for text in figure.axes[0].texts)


def test_drawing_leaves_pyplot_alone(ortho: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.png"
    code = f"import sys; from geosam import plot; plot.save(plot.overlay({str(ortho)!r}), {str(out)!r}); "
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert out.stat().st_size > 1000


def test_a_picture_shows_itself_in_a_notebook(ortho: Path) -> None:
    assert plot.overlay(ortho)._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["o.png", "o.jpg", "o.pdf", "o.svg"])
def test_save_writes_every_format_it_promises_and_leaves_nothing_else(ortho: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    plot.save(plot.overlay(ortho, max_side_px=50), folder / name)
    assert [path.name for path in folder.iterdir()] == [name]


def test_save_refuses_what_exists_what_has_no_folder_and_what_is_no_picture(ortho: Path, tmp_path: Path) -> None:
    figure = plot.overlay(ortho, max_side_px=20)
    (tmp_path / "o.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        plot.save(figure, tmp_path / "o.png")
    assert (tmp_path / "o.png").read_bytes() == b"mine"
    with pytest.raises(OutputError, match="not a folder"):
        plot.save(figure, tmp_path / "no" / "o.png")
    with pytest.raises(OutputError, match=r"ends in \.png"):
        plot.save(figure, tmp_path / "o.xyz")


@pytest.mark.parametrize("name", ["missing.geojson", "missing.gpkg", "missing.parquet", "missing.tif"])
def test_a_layer_that_cannot_be_read_is_a_scene_error(ortho: Path, name: str) -> None:
    with pytest.raises(SceneError, match=name):
        plot.overlay(ortho, name)


@pytest.fixture
def on_disk(ortho: Path, rivers: gpd.GeoDataFrame, tmp_path: Path) -> dict[str, str]:
    rivers.to_file(tmp_path / "rivers.gpkg")
    rivers.set_geometry(rivers.centroid).assign(label=1).to_file(tmp_path / "points.gpkg")
    write_raster(tmp_path / "p.tif", water_window().astype(np.float32)[None])
    return {name: str(tmp_path / name) for name in ("ortho.tif", "rivers.gpkg", "points.gpkg", "p.tif", "o.png")}


@pytest.mark.parametrize(
    ("args", "title"),
    [
        (("rivers.gpkg",), "overlay"),
        ((), "overlay"),
        (("--probability", "p.tif"), "probability"),
        (("rivers.gpkg", "--truth", "p.tif"), "error"),
        (("rivers.gpkg", "--before", "p.tif"), "before_after"),
        (("points.gpkg", "--kind", "prompts"), "prompts"),
    ],
)
def test_the_verb_draws_the_kind_that_its_options_imply(
    on_disk: dict[str, str], monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], title: str
) -> None:
    called: list[str] = []
    for kind in ("overlay", "probability", "error", "prompts", "before_after"):
        real = getattr(plot, kind)
        monkeypatch.setattr(plot, kind, lambda *a, _kind=kind, _real=real: called.append(_kind) or _real(*a))
    words = [on_disk.get(word, word) for word in args]
    result = CliRunner().invoke(cli, ["plot", on_disk["ortho.tif"], *words, "--out", on_disk["o.png"]])
    assert result.exit_code == 0, result.output
    assert called == [title]
    assert result.output.strip() == on_disk["o.png"]


def test_the_verb_says_what_a_kind_needs(on_disk: dict[str, str]) -> None:
    words = ["plot", on_disk["ortho.tif"], "--kind", "error", "--out", on_disk["o.png"]]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert "A picture of kind error needs RIVERS" in result.output


def test_of_polygons_that_leave_the_picture_the_part_inside_counts(ortho: Path) -> None:
    """As of a mask: what is drawn is what is counted, in square metres on the ground as the layer says."""
    shapes_px = [box(90, 10, 110, 20), box(120, 10, 130, 20), box(10, 30, 20, 40)]
    frame = gpd.GeoDataFrame(
        {"area_m2": [3 * 800.0, 3 * 400.0, 3 * 400.0]},
        geometry=[Polygon(on_map(list(shape.exterior.coords))) for shape in shapes_px], crs=UTM,
    )  # fmt: skip
    assert legend_of(plot.overlay(ortho, frame)) == ["rivers: 2,400 m² in 2 polygons"]
    inside = 200 * look(ortho).pixel_area_m2
    assert legend_of(plot.overlay(ortho, frame.drop(columns="area_m2"))) == [f"rivers: {inside:.0f} m² in 2 polygons"]


@pytest.mark.parametrize("shape", [(600, 60), (60, 600), (100, 100)])
@pytest.mark.parametrize("maps", [1, 2])
def test_a_long_name_is_not_cut_off(shape: tuple[int, int], maps: int, tmp_path: Path) -> None:
    name = "20230714_flight03_upper_reach_north_bank_orthomosaic_rgb_corrected_final"
    path = write_raster(tmp_path / f"{name}.tif", np.full((3, *shape), 100, np.uint8))
    empty = gpd.GeoDataFrame(geometry=[], crs=UTM)
    titles = (name, f"{name}2")
    figure = plot.overlay(path) if maps == 1 else plot.before_after(path, empty, empty, titles=titles)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= figure.bbox.width for box in boxes)
    assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))
    assert figure.axes[0].get_title().replace("\n", "") == name


@pytest.mark.parametrize("shape", [(600, 60), (60, 600)])
def test_a_scale_of_colours_is_as_thick_beside_a_narrow_map_as_beside_a_wide_one(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    path = write_raster(tmp_path / "o.tif", np.full((3, *shape), 100, np.uint8))
    raster = write_raster(tmp_path / "p.tif", np.full((1, *shape), 0.5, np.float32))
    figure = plot.probability(path, raster)
    figure.draw_without_rendering()
    [bar] = figure.axes[0].child_axes
    assert bar.get_window_extent().width / figure.dpi == pytest.approx(0.18, abs=0.03)
    assert bar.get_tightbbox().x1 <= figure.bbox.width
