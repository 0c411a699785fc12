"""The page in a browser: headless Chromium on a synthetic river whose truth is known."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.windows import Window
from test_viewer import DarkWater, square, table

from geosam.options import SegmentOptions
from geosam.scene import Scene
from geosam.synth import SynthOptions, write_scene
from geosam.viewer import serving
from geosam.viewer.opening import Given, open_page
from geosam.viewer.session import Pending, State

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = os.environ.get("GEOSAM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
]  # fmt: skip
"""The map needs WebGL, which SwiftShader computes without a graphics card."""
WAIT_MS = 60_000
"""A busy machine may take long; nothing here is timed."""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    # rasterio silences it where it warps, which Python cannot do for one thread alone.
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


class BlueWater(DarkWater):
    """Exact on a synthetic scene of plain texture and blue water."""

    name = "blue-water"

    def is_water(self, image: np.ndarray) -> np.ndarray:
        return image[2] > image[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A scene of 512 x 320 px with a river, a tributary, a lake and an oxbow."""
    made = tmp_path_factory.mktemp("scene") / "made"
    write_scene(SynthOptions(seed=0, height=320, width=512, gsd_m=1.0, detail="plain", water="blue", roads=False), made)
    return made


@pytest.fixture(scope="module")
def viewer(folder) -> Iterator[serving.Viewer]:
    given = Given(compare=folder / "truth.gpkg", out=folder / "edited.geojson")
    page = open_page(folder / "scene.tif", given, SegmentOptions(), BlueWater(128))
    running = serving.Viewer(page)
    yield running
    running.stop()


class Tab:
    """The page in a tab, on a laptop's screen."""

    def __init__(self, browser: Any, viewer: serving.Viewer) -> None:
        self.viewer, self.place = viewer, viewer.page.session.place
        self.tab = browser.new_page(viewport={"width": 1366, "height": 768})
        self.tab.set_default_timeout(WAIT_MS)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.tab.on("response", lambda answer: answer.status >= 500 and self.errors.append(answer.url))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.load()

    def load(self) -> None:
        self.tab.goto(self.viewer.url)
        self.tab.wait_for_selector("body[data-ready]")

    def begin_with(self, *shapes: Any) -> None:
        """A session of its own, with these polygons as its result, in pixels."""
        page = self.viewer.page
        frame = gpd.GeoDataFrame({"id": range(1, len(shapes) + 1)}, geometry=list(shapes), crs=None)
        state = State(table._completed(frame, page.session.scene), Pending())
        page.session._states, page.session._at, page.session._saved = [state], 0, state
        page.version += 1
        self.tab.keyboard.press("p")
        self.tab.evaluate("geosam.refresh()")

    def settle(self) -> None:
        """Until every step is answered."""
        self.tab.wait_for_selector("body:not(.busy)", state="attached")

    def drawn(self) -> None:
        """Until everything is drawn, which takes seconds where a processor does it."""
        self.settle()
        drawn = "() => new Promise(done => { const map = geosam.map; map.once('idle', done); map.triggerRepaint(); })"
        self.tab.evaluate(drawn)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the scene is on the screen."""
        lonlat = self.place.lonlat(np.array([[x, y]]))[0].tolist()
        on_screen = (
            "c => { const p = geosam.map.project(c), r = geosam.map.getContainer().getBoundingClientRect();"
            "return [p.x + r.left, p.y + r.top]; }"
        )
        left, top = self.tab.evaluate(on_screen, lonlat)
        return left, top

    def click(self, x: float, y: float, *, shift: bool = False) -> None:
        if shift:
            self.tab.keyboard.down("Shift")
        self.tab.mouse.click(*self.at(x, y))
        if shift:
            self.tab.keyboard.up("Shift")
        self.settle()

    def press(self, keys: str) -> None:
        self.tab.keyboard.press(keys)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.tab.mouse.move(*start)
        self.tab.mouse.down()
        self.tab.mouse.move(*end, steps=4)
        self.tab.mouse.up()
        self.settle()

    def colour(self, x: float, y: float) -> np.ndarray:
        """Mean colour of the screen around a pixel of the scene."""
        self.drawn()
        left, top = self.at(x, y)
        clip = {"x": left - 3, "y": top - 3, "width": 7, "height": 7}
        picture = Image.open(io.BytesIO(self.tab.screenshot(clip=clip))).convert("RGB")
        return np.asarray(picture, float).reshape(-1, 3).mean(axis=0)

    def shown(self, source: str) -> Any:
        """What a source of the map draws, in pixels of the scene."""
        data = self.tab.evaluate("s => geosam.map.getSource(s).serialize().data", source)
        features = data["features"] if data["type"] == "FeatureCollection" else [{"geometry": data}]
        shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
        return shapely.union_all([shapely.transform(shape, self.place.pixels) for shape in shapes])

    def says(self, selector: str) -> str:
        return str(self.tab.inner_text(selector))


@pytest.fixture(scope="module")
def one_tab(browser, viewer) -> Iterator[Tab]:
    """One for all tests: a page of its own would take each of them seconds."""
    opened = Tab(browser, viewer)
    yield opened
    opened.tab.close()


@pytest.fixture
def tab(one_tab, viewer) -> Iterator[Tab]:
    opened = one_tab
    opened.begin_with()
    yield opened
    assert opened.errors == []
    strange = [url for url in opened.asked if not url.startswith((viewer.url, "blob:", "data:"))]
    assert strange == []  # The page needs no network.


@pytest.fixture(scope="module")
def truth(folder) -> Any:
    """The largest water body of the scene, in pixels."""
    scene = Scene.open(str(folder / "scene.tif"))
    return table.read_table("truth", folder / "truth.tif", scene).geometry.iloc[0]


def spot_in(shape: Any) -> tuple[float, float]:
    """A pixel centre well inside a shape."""
    point = shapely.centroid(shapely.maximum_inscribed_circle(shape))
    return int(point.x) + 0.5, int(point.y) + 0.5


def iou(one: Any, other: Any) -> float:
    return one.intersection(other).area / one.union(other).area


def test_the_page_loads_and_shows_the_scene(tab, truth, folder):
    scene = Scene.open(str(folder / "scene.tif"))
    rgb, _ = scene.read_rgb(Window(0, 0, 512, 320))
    for x, y in (spot_in(truth), (20.5, 20.5), (490.5, 300.5)):
        expected = rgb[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean(axis=(0, 1))
        np.testing.assert_allclose(tab.colour(x, y), expected, atol=35)
    assert tab.says("#name") == "scene"
    assert tab.says("#total") == "0 polygons · 0 m²"
    assert "blue-water" in tab.says("#about")


def test_click_undo_accept_save_and_reload(tab, truth, folder):
    """The whole way: one click and a follow give the river to the pixel, and it is there again after a reload."""
    x, y = spot_in(truth)
    tab.click(x, y)
    first = tab.shown("add")
    assert shapely.intersects_xy(first, x, y)
    assert iou(first, truth.intersection(shapely.box(*first.bounds))) > 0.97
    assert "adds" in tab.says("#pending-text")
    assert "ms" in tab.says("#spent")
    tab.press("Control+z")
    assert tab.shown("add").is_empty
    assert not tab.tab.is_visible("#pending")
    tab.click(x, y)
    tab.press("f")
    assert iou(tab.shown("add"), truth) > 0.99
    tab.press("Enter")
    assert tab.shown("add").is_empty
    assert iou(tab.shown("rivers"), truth) > 0.99
    assert tab.says("#total").startswith("1 polygon ·")
    blue = tab.colour(x, y)
    tab.press("Control+s")
    tab.tab.wait_for_selector("#toast:has-text('Saved 1 polygon.')")
    assert tab.tab.is_disabled("#save")
    saved = gpd.read_file(folder / "edited.geojson")
    assert saved.model.tolist() == ["blue-water"]
    tab.load()
    assert iou(tab.shown("rivers"), truth) > 0.99
    np.testing.assert_allclose(tab.colour(x, y), blue, atol=12)


def test_shift_click_cuts_what_is_no_water(tab, truth):
    x, y = spot_in(truth)
    tab.begin_with(shapely.box(0, 0, 512, 320))
    corners = ((20.5, 20.5), (490.5, 300.5), (20.5, 300.5))
    dry = next(corner for corner in corners if truth.distance(shapely.Point(corner)) > 9)
    tab.click(*dry, shift=True)
    assert shapely.intersects_xy(tab.shown("cut"), *dry)
    assert not shapely.intersects_xy(tab.shown("cut"), x, y)
    assert "red" in tab.says("#pending-text")
    tab.press("Enter")
    assert not shapely.intersects_xy(tab.shown("rivers"), *dry)


def test_a_box_a_deletion_and_the_buttons(tab, viewer, truth):
    tab.begin_with(square(10, 10, 40))
    tab.press("b")
    x0, y0, x1, y1 = truth.bounds
    tab.drag(tab.at(x0 + 2, y0 + 2), tab.at((x0 + x1) / 2, y1 - 2))
    assert len(viewer.page.session.state.pending.asked.boxes) == 1
    assert shapely.area(tab.shown("add")) > 0
    tab.tab.click("#discard")
    tab.settle()
    assert tab.shown("add").is_empty
    tab.press("d")
    tab.drawn()
    tab.click(30, 30)
    assert tab.says("#total").startswith("0 polygons")
    tab.tab.click("#undo")
    tab.settle()
    assert tab.says("#total").startswith("1 polygon ")
    assert tab.tab.is_enabled("#redo")


def test_layers_can_be_hidden_and_the_bands_changed(tab, truth):
    x, y = spot_in(truth)
    tab.begin_with(shapely.Point(x, y).buffer(30))
    covered = tab.colour(x, y)
    tab.tab.uncheck("#layer-rivers")
    bare = tab.colour(x, y)
    assert np.abs(covered - bare).max() > 15
    tab.tab.check("#layer-rivers")
    np.testing.assert_allclose(tab.colour(x, y), covered, atol=3)
    tab.tab.keyboard.down("h")
    np.testing.assert_allclose(tab.colour(x, y), bare, atol=3)
    tab.tab.keyboard.up("h")
    tab.tab.select_option("#bands", "red")
    tab.tab.uncheck("#layer-rivers")
    assert np.ptp(tab.colour(x, y)) < 2  # grey
    tab.tab.check("#layer-coarse")
    tab.tab.wait_for_selector('[data-layer="coarse"] .said:has-text("water")')
    tab.tab.uncheck("#layer-coarse")
    tab.tab.check("#layer-rivers")
    tab.tab.select_option("#bands", "")


def test_the_probability_of_a_click_can_be_looked_at(tab, truth):
    x, y = spot_in(truth)
    tab.tab.check("#layer-probability")
    bare = tab.colour(x, y)
    tab.click(x, y)
    tab.press("Enter")
    tab.tab.uncheck("#layer-rivers")
    tab.tab.uncheck("#layer-prompts")
    shown = tab.colour(x, y)
    assert np.abs(shown - bare).max() > 15
    tab.press("Control+z")
    tab.press("Control+z")
    np.testing.assert_allclose(tab.colour(x, y), bare, atol=3)
    tab.tab.uncheck("#layer-probability")
    tab.tab.check("#layer-rivers")
    tab.tab.check("#layer-prompts")


def test_the_swipe_shows_the_other_result_on_the_right(tab, truth):
    x, y = spot_in(truth)
    before = tab.colour(x, y)
    tab.press("w")
    tab.tab.wait_for_selector("#divider", state="visible")
    tab.tab.wait_for_timeout(1000)
    box = tab.tab.locator("main").bounding_box()
    middle = tab.tab.locator("#divider").bounding_box()
    left, _ = tab.at(x, y)
    start = (middle["x"] + 1, box["y"] + box["height"] * 0.75)
    tab.drag(start, (left - 40, start[1]))
    tab.tab.wait_for_timeout(1000)
    other = tab.colour(x, y)
    assert other[0] - before[0] > 25  # the reference is drawn in purple
    now = tab.tab.locator("#divider").bounding_box()["x"]
    tab.drag((now + 1, start[1]), (left + 40, start[1]))
    tab.tab.wait_for_timeout(500)
    np.testing.assert_allclose(tab.colour(x, y), before, atol=5)
    tab.press("w")
    assert not tab.tab.is_visible("#divider")


def test_arrow_keys_move_the_divider_of_the_swipe(tab):
    """From where W was pressed, without the mouse, and the map stays where it is."""
    divider = tab.tab.get_by_role("slider", name="Divider between two results")
    tab.tab.mouse.click(*tab.at(20, 20))  # the focus is on the map, as it is after every click
    tab.settle()
    tab.press("w")
    divider.wait_for(state="visible")
    place = tab.tab.evaluate("geosam.map.getCenter().toArray()")

    def percent() -> float:
        box, main = divider.bounding_box(), tab.tab.locator("main").bounding_box()
        return float(100 * (box["x"] + 1 - main["x"]) / main["width"])

    def moved_by(key: str) -> float:
        before = percent()
        tab.press(key)
        assert float(divider.get_attribute("aria-valuenow")) == pytest.approx(percent(), abs=0.6)
        return percent() - before

    assert moved_by("ArrowRight") == pytest.approx(2, abs=0.2)
    assert moved_by("ArrowLeft") == pytest.approx(-2, abs=0.2)
    assert moved_by("PageDown") == pytest.approx(-10, abs=0.2)
    tab.press("End")
    assert percent() == pytest.approx(float(divider.get_attribute("aria-valuemax")), abs=0.2)
    assert moved_by("ArrowRight") == 0
    tab.press("Home")
    assert percent() == pytest.approx(float(divider.get_attribute("aria-valuemin")), abs=0.2)
    assert tab.tab.evaluate("geosam.map.getCenter().toArray()") == place
    tab.press("w")
    assert not divider.is_visible()
    tab.press("ArrowRight")  # the map's again
    tab.tab.wait_for_function("at => geosam.map.getCenter().lng > at[0]", arg=place)
    tab.press("0")


def test_everything_fits_on_a_laptops_screen(tab, truth):
    tab.click(*spot_in(truth))
    wide, high = tab.tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert (wide, high) == (1366, 768)
    for button in tab.tab.locator("button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1366
        assert box["y"] + box["height"] <= 768
        assert button.evaluate("b => b.scrollWidth <= b.clientWidth + 1"), button.inner_text()
    tab.press("?")
    assert tab.tab.is_visible("#help")
    tab.tab.keyboard.press("Escape")
    assert not tab.tab.is_visible("#help")
    assert tab.tab.is_visible("#pending")  # the key closed the help and nothing else


def test_the_page_tells_of_a_changed_scene_and_of_a_server_that_is_gone(browser, folder, tmp_path, truth):
    scene = tmp_path / "scene.tif"
    shutil.copy(folder / "scene.tif", scene)
    page = open_page(scene, Given(out=tmp_path / "e.geojson"), SegmentOptions(), BlueWater(128))
    viewer = serving.Viewer(page)
    tab = Tab(browser, viewer)
    tab.click(*spot_in(truth))
    tab.press("Enter")
    os.utime(scene, (1, 1))
    tab.tab.wait_for_selector("#notice:has-text('scene.tif has changed on disk')")
    tab.click(20, 20)
    assert "Your edits are kept" in tab.says("#toast")
    assert tab.says("#total").startswith("1 polygon ")
    kept = viewer.stop()
    assert kept == tmp_path / "e.unsaved.geojson"
    tab.tab.wait_for_selector("#toast:has-text('The server does not answer')")
    tab.tab.close()
