"""Milliseconds from a click in the viewer to its answer, on tiles that are ready.

Without ``--browser`` the clicks are the page's own requests, over the server on this machine: nothing but drawing is
left out. ``wall`` is the whole click, ``cpu`` what both sides worked for it, ``answer`` the step itself. With it they
are clicks in headless Chromium, and ``wall`` is what the page shows under the map: from the click to the answer drawn.
Each click is on water, answered, and discarded again.

python benchmarks/clicks.py
python benchmarks/clicks.py --browser
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import measure
import numpy as np
import rasterio

from geosam.options import SegmentOptions
from geosam.viewer.opening import Given, open_page
from geosam.viewer.serving import Viewer

CHROMIUM = ("--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WARM = 3
"""Clicks before those that count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the scene in pixels")
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--browser", action="store_true", help="click in headless Chromium")
    asked = parser.parse_args()
    scene = measure.scene(asked.size)
    with tempfile.TemporaryDirectory() as folder:
        viewer = Viewer(open_page(scene, Given(out=Path(folder) / "edited.geojson"), SegmentOptions()))
        place = viewer.page.session.place
        spots = place.lonlat(on_water(scene.with_name("truth.tif"), asked.clicks + WARM))
        corners = place.lonlat(np.array([[0, 0], [asked.size, asked.size]], float))
        times = (in_browser if asked.browser else over_http)(viewer, spots, corners)
        viewer.stop()
    shown = {name: spread([one[name] for one in times[WARM:]]) for name in times[0]}
    print(json.dumps({"job": "clicks", "size": asked.size, "clicks": asked.clicks, **shown}))


def spread(values: list[float]) -> dict[str, float]:
    return {"median_ms": round(float(np.median(values)), 1), "p95_ms": round(float(np.percentile(values, 95)), 1)}


def on_water(truth: Path, count: int) -> Any:
    """Middles of pixels of water, (x, y), shape (count, 2)."""
    with rasterio.open(truth) as mask:
        rows, cols = np.nonzero(mask.read(1) == 1)
    chosen = np.random.default_rng(0).choice(len(rows), count, replace=False)
    return np.stack([cols[chosen], rows[chosen]], axis=1) + 0.5


class Client:
    """Asks as the page does, over one connection that stays open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.base = parts.path
        self.headers = {"Content-Type": "application/json", "X-Geosam-Token": parts.path.strip("/")}
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        self.connection.request(method, self.base + path, json.dumps(body or {}), self.headers)
        answer = self.connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {found}")
        return found


def over_http(viewer: Viewer, spots: Any, corners: Any) -> list[dict[str, float]]:
    client = Client(viewer.url)
    (west, north), (east, south) = corners.tolist()
    middle = {"lon": (west + east) / 2, "lat": (south + north) / 2}
    client.ask("POST", "api/look", {"lon0": west, "lat0": south, "lon1": east, "lat1": north, **middle})
    while (tiles := client.ask("GET", "api/state")["tiles"])["ready"] < tiles["wanted"]:
        time.sleep(0.2)
    times = []
    for lon, lat in spots.tolist():
        began, worked = time.perf_counter(), time.process_time()
        spent = client.ask("POST", "api/point", {"lon": lon, "lat": lat, "label": "water"})["spent"]
        wall = 1000 * (time.perf_counter() - began)
        cpu = 1000 * (time.process_time() - worked)
        client.ask("POST", "api/discard")
        times.append({"wall": wall, "answer": spent["wall_ms"], "cpu": cpu, "answer_cpu": spent["cpu_ms"]})
    return times


def in_browser(viewer: Viewer, spots: Any, corners: Any) -> list[dict[str, float]]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(CHROMIUM))
        tab = browser.new_page(viewport={"width": 1366, "height": 768})
        tab.set_default_timeout(120_000)
        tab.goto(viewer.url)
        tab.wait_for_selector("body[data-ready]")
        tab.wait_for_timeout(3000)  # Until the page has said what it looks at.
        tab.wait_for_selector("#tiles:empty", state="attached")
        times = [click(tab, spot) for spot in spots.tolist()]
        browser.close()
    return times


def click(tab: Any, spot: list[float]) -> dict[str, float]:
    """Of one click: until the answer is shown, and what of it was the server's."""
    where = "c => { const p = geosam.map.project(c), r = geosam.map.getContainer().getBoundingClientRect();"
    tab.evaluate("document.getElementById('spent').textContent = ''")
    tab.mouse.click(*tab.evaluate(where + "return [p.x + r.left, p.y + r.top]; }", spot))
    tab.wait_for_selector("#spent:not(:empty)", state="attached")
    answer, page = re.findall(r"\d+", tab.inner_text("#spent"))
    tab.keyboard.press("Escape")
    tab.wait_for_selector("body:not(.busy)", state="attached")
    return {"wall": float(page), "answer": float(answer)}


if __name__ == "__main__":
    main()
