"""The viewer without a browser: answers like a run's, edits that lose nothing, a server that is nobody else's."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import httpx
import numpy as np
import pytest
import rasterio
import shapely
import torch
from click.testing import CliRunner
from fastapi.testclient import TestClient
from rasterio.transform import from_origin
from scipy import ndimage

import geosam
from geosam.cli import cli
from geosam.errors import OptionsError, OutputError, SceneError
from geosam.models import load_model
from geosam.options import ModelOptions, PromptOptions, SegmentOptions
from geosam.pipeline import segment
from geosam.prompts import DRY, WATER, Prompts
from geosam.scene import Scene
from geosam.viewer import serving, session, table, view
from geosam.viewer.asking import Asked
from geosam.viewer.guard import Guard
from geosam.viewer.opening import Given, open_page
from geosam.viewer.place import Place
from geosam.viewer.rasters import OrthoLayer, View
from geosam.viewer.routes import Page, make_app

TOKEN = "t0ken"
COLUMNS = ["id", "area_m2", "perimeter_m", "probability", "scene", "model"]


class DarkWater:
    """Water is what is dark: all of it, or the bodies that are pointed at, as the protocol wants it."""

    def is_water(self, image: np.ndarray) -> np.ndarray:
        """Of a tile (3, h, w)."""
        return image.mean(axis=0) < 95

    name, sha256, step_px, threshold = "dark-water", "0" * 64, None, 0.5
    device, dtype, understands = torch.device("cpu"), torch.float32, frozenset({"points", "boxes", "none"})

    def __init__(self, tile_px: int = 256) -> None:
        self.tile_px = tile_px

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, self.tile_px, self.tile_px)
        return images

    def decode(self, embeddings: torch.Tensor, prompts: Sequence[Prompts]) -> torch.Tensor:
        assert len(prompts) == len(embeddings)
        found = [self._water(image, asked) for image, asked in zip(embeddings, prompts, strict=True)]
        return torch.from_numpy(np.where(np.stack(found), 4.0, -4.0).astype(np.float32))

    def _water(self, image: torch.Tensor, asked: Prompts) -> np.ndarray:
        dark = self.is_water(image.float().numpy())
        labels, _ = ndimage.label(dark)
        water = np.zeros_like(dark)
        for row in range(len(asked)):
            keep, box = asked.labels[row] >= 0, asked.box(row)
            if box is None and not keep.any():
                water |= dark
            at = {label: asked.points[row][asked.labels[row] == label].astype(int) for label in (WATER, DRY)}
            hit, denied = ({labels[y, x] for x, y in at[label]} - {0} for label in (WATER, DRY))
            water |= np.isin(labels, list(hit - denied))
            if box is not None:
                x0, y0, x1, y1 = box.astype(int)
                water[y0:y1, x0:x1] |= dark[y0:y1, x0:x1]
        return water


@pytest.fixture
def model():
    return DarkWater()


@pytest.fixture
def page(river_tif, tmp_path, model):
    opened = open_page(river_tif, Given(out=tmp_path / "edited.geojson"), SegmentOptions(), model)
    yield opened
    opened.close()


@pytest.fixture
def client(page):
    return client_of(page)


def client_of(page: Page) -> TestClient:
    guarded = Guard(make_app(page), TOKEN)
    return TestClient(guarded, base_url=f"http://127.0.0.1:1/{TOKEN}/", headers={"X-Geosam-Token": TOKEN})


def at(page: Page, x: float, y: float, **more: Any) -> dict[str, Any]:
    """A click on a pixel of the scene."""
    lon, lat = page.session.place.lonlat(np.array([[x, y]]))[0]
    return {"lon": float(lon), "lat": float(lat), **more}


def done(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()


def square(x: float, y: float, side: float = 20) -> shapely.Polygon:
    return shapely.box(x, y, x + side, y + side)


def rows(scene: Scene, *shapes: shapely.Geometry, **columns: Any) -> gpd.GeoDataFrame:
    """A table in pixels, as of a file that has nothing but these columns."""
    frame = gpd.GeoDataFrame(columns, geometry=list(shapes), crs=None)
    world = frame.set_geometry(table.moved(scene.geobox.affine, frame.geometry.to_numpy()))
    return table.read_table("RIVERS", world.set_crs(scene.geobox.crs.proj), scene)


# Answers ------------------------------------------------------------------------------------------------------------


def test_points_alone_give_what_a_run_with_the_same_points_gives(river_tif, tmp_path, tiny_sam_folder):
    """Over several tiles, with water and dry points and a box: the same polygons, to the last corner."""
    options = SegmentOptions(model=ModelOptions(name=str(tiny_sam_folder), device="cpu", dtype="float32"))
    small = load_model(options.model)
    page = open_page(river_tif, Given(out=tmp_path / "e.gpkg", points_only=True), options, small)
    points = [(71.5, 40.5, WATER), (72.25, 100.0, WATER), (120.0, 60.0, DRY)]
    asked = Asked(tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points), ((50, 10, 90, 140),))
    answer = page.session.asker.ask(asked)
    assert len(answer.tiles) > 1
    affine = page.session.scene.geobox.affine
    shapes = [shapely.Point(affine @ (x, y)) for x, y, _ in points]
    labels = ["dry" if label == DRY else "water" for *_, label in points]
    crs = page.session.scene.geobox.crs.proj
    gpd.GeoDataFrame({"label": labels, "body": 1}, geometry=shapes, crs=crs).to_file(tmp_path / "points.gpkg")
    box = table.moved(affine, np.array([shapely.box(50, 10, 90, 140)], dtype=object))
    gpd.GeoDataFrame(geometry=box, crs=crs).to_file(tmp_path / "boxes.gpkg")
    files = {"points_file": str(tmp_path / "points.gpkg"), "boxes_file": str(tmp_path / "boxes.gpkg")}
    run = segment(river_tif, options.model_copy(update={"prompts": PromptOptions(**files)}), model=small).polygons
    mine = table.in_scene(answer.bodies, page.session.scene)
    assert len(run) == len(mine) > 0
    assert [shapely.equals_exact(a, b, 1e-6) for a, b in zip(run.geometry, mine.geometry, strict=True)]
    np.testing.assert_allclose(mine.area_m2, run.area_m2, rtol=1e-9)
    np.testing.assert_allclose(mine.probability, run.probability, atol=1e-4)
    page.close()


def test_a_click_gives_the_body_of_what_a_run_without_prompts_finds(page, river_tif, model):
    page.session.point(*at(page, 71.5, 60.5).values(), WATER)
    (mine,) = table.in_scene(page.session.state.pending.add, page.session.scene).geometry
    options = SegmentOptions(prompts=PromptOptions(which="none"))
    found = segment(river_tif, options, model=model).polygons
    spot = shapely.Point(page.session.scene.geobox.affine @ (71.5, 60.5))
    (theirs,) = [shape for shape in found.geometry if shape.contains(spot)]
    assert shapely.symmetric_difference(mine, theirs).area < 1e-6
    true = shapely.box(450_000 + 120, 5_300_000 - 300, 450_000 + 168, 5_300_000)
    assert mine.intersection(true).area / mine.union(true).area > 0.8


def test_a_tile_is_embedded_once_and_decoded_again_only_when_its_prompts_change(page, monkeypatch):
    calls = {"embed": 0, "decode": 0}
    for name in calls:
        method = getattr(page.session.asker.model, name)

        def counted(*args, method=method, name=name):
            calls[name] += 1
            return method(*args)

        monkeypatch.setattr(page.session.asker.model, name, counted, raising=False)
    page.session.point(*at(page, 71.5, 60.5).values(), WATER)
    assert calls == {"embed": 1, "decode": 1}
    page.session.asker.ask(page.session.state.pending.asked)
    assert calls == {"embed": 1, "decode": 1}
    page.session.point(*at(page, 150.5, 90.5).values(), DRY)
    assert calls == {"embed": 1, "decode": 3}  # what is seen unasked, and what is said to the points


def test_other_water_in_the_tile_is_not_meant(tmp_path, river_tif, model):
    path = tmp_path / "two.tif"
    with rasterio.open(river_tif) as file, rasterio.open(path, "w", **file.profile) as out:
        bands = file.read()
        bands[:3, :, 120:140] = 60  # a second river
        out.write(bands)
        out.descriptions = file.descriptions
    page = open_page(path, Given(out=tmp_path / "e.geojson"), SegmentOptions(), model)
    page.session.point(*at(page, 130.5, 60.5).values(), WATER)
    pending = page.session.state.pending
    assert len(pending.answer.bodies) == 2
    assert [shape.bounds for shape in pending.add.geometry] == [(120, 0, 140, 150)]
    page.close()


def test_looking_at_a_view_makes_its_tiles_ready(page, client):
    tile = page.session.asker.tiles.plan.tile(0, 0)
    assert not page.session.asker.tiles.is_ready(tile)
    west, south, east, north = page.session.place.bounds()
    look = {"lon0": west, "lat0": south, "lon1": east, "lat1": north, "lon": west, "lat": north}
    assert done(client.post("api/look", json=look))["wanted"] == 1
    for _ in range(600):
        if page.session.asker.tiles.is_ready(tile):
            break
        time.sleep(0.05)
    assert page.session.asker.tiles.is_ready(tile)


def test_a_tile_that_could_not_be_read_is_tried_again(page, monkeypatch):
    tiles = page.session.asker.tiles
    read, tile = tiles._reader.read, tiles.plan.tile(0, 0)
    fails = [True, False]

    def once(tile):
        if fails.pop(0):
            raise geosam.errors.RunError("gone")
        return read(tile)

    monkeypatch.setattr(type(tiles._reader), "read", lambda self, tile: once(tile))
    with pytest.raises(geosam.errors.RunError):
        tiles.get(tile)
    assert tiles.get(tile).embedding is not None


def test_following_goes_on_into_the_next_tiles(river_tif, tmp_path):
    page = open_page(river_tif, Given(out=tmp_path / "e.gpkg"), SegmentOptions(), DarkWater(64))
    page.session.point(*at(page, 71.5, 30.5).values(), WATER)
    before = page.session.state.pending
    page.session.follow()
    after = page.session.state.pending
    top, bottom = after.add.total_bounds[[1, 3]]
    assert after.add.area_m2.sum() > before.add.area_m2.sum()
    assert len(after.answer.tiles) > len(before.answer.tiles)
    assert (top, bottom) == (0, 150)
    page.session.undo()
    assert page.session.state.pending is before
    page.close()


# Edits --------------------------------------------------------------------------------------------------------------


def test_a_click_is_pending_until_it_is_accepted_and_every_step_can_be_undone(page, client):
    state = done(client.post("api/point", json=at(page, 71.5, 60.5)))
    assert state["pending"]["polygons"] == 1
    assert page.session.state.pending.add.crs is None  # pixels
    assert state["polygons"] == 0
    assert done(client.get("api/rivers"))["features"] == []
    state = done(client.post("api/accept"))
    assert (state["pending"], state["polygons"], state["saved"]) == (None, 1, False)
    (feature,) = done(client.get("api/rivers"))["features"]
    spot = shapely.Point(*at(page, 71.5, 60.5).values())
    assert shapely.from_geojson(json.dumps(feature["geometry"])).contains(spot)
    assert done(client.post("api/undo"))["pending"]["polygons"] == 1
    assert done(client.post("api/undo"))["pending"] is None
    assert client.post("api/undo").status_code == 409
    assert done(client.post("api/redo"))["pending"]["polygons"] == 1
    assert done(client.post("api/discard"))["pending"] is None


def test_a_box_asks_for_the_water_in_it(page, client):
    a, b = at(page, 50, 20), at(page, 95, 120)
    state = done(client.post("api/box", json={"lon0": a["lon"], "lat0": a["lat"], "lon1": b["lon"], "lat1": b["lat"]}))
    assert state["pending"]["polygons"] >= 1
    spot = shapely.Point(*at(page, 71.5, 60.5).values())
    assert shapely.from_geojson(json.dumps(state["pending"]["add"])).contains(spot)
    (box,) = page.session.state.pending.asked.boxes
    np.testing.assert_allclose(box, (50, 20, 95, 120), atol=2)  # the corners lie on the page, not on the grid


def test_a_dry_point_cuts_what_the_model_takes_for_dry(page):
    """A polygon over river and bank loses its bank, and keeps its id."""
    wide = rows(page.session.scene, shapely.box(60, 40, 120, 100), id=[7], probability=[0.9])
    page.session._states[0] = session.State(wide, session.Pending())
    page.session.point(*at(page, 105.5, 70.5).values(), DRY)
    pending = page.session.state.pending
    assert pending.add is None
    assert shapely.intersects_xy(pending.cut, 105.5, 70.5)
    page.session.accept()
    (left,) = page.session.state.rivers.itertuples()
    assert left.id == 7
    assert shapely.intersects_xy(left.geometry, 70.5, 70.5)
    assert not shapely.intersects_xy(left.geometry, 105.5, 70.5)
    assert left.geometry.area < 0.6 * 3600
    assert page.session.state.log[-1]["action"] == "cut"


def test_water_and_dry_points_add_and_cut_in_one_edit(page):
    wide = rows(page.session.scene, shapely.box(76, 40, 120, 100), id=[7], probability=[0.9])
    page.session._states[0] = session.State(wide, session.Pending())
    page.session.point(*at(page, 68.5, 70.5).values(), WATER)
    page.session.point(*at(page, 110.5, 70.5).values(), DRY)
    page.session.accept()
    shapes = page.session.state.rivers.geometry
    assert shapes.intersects(shapely.Point(68.5, 20.5)).any()
    assert not shapes.intersects(shapely.Point(110.5, 70.5)).any()
    assert 7 in set(page.session.state.rivers.id)


def test_dry_points_off_the_result_say_that_they_change_nothing(page, client):
    state = done(client.post("api/point", json=at(page, 150, 70, label="dry")))
    assert "change nothing" in state["pending"]["note"]
    answer = client.post("api/accept")
    assert answer.status_code == 409
    assert "nothing to accept" in answer.json()["detail"]


def test_what_is_joined_takes_up_what_it_overlaps_and_what_shares_an_edge(page):
    scene = page.session.scene
    old = rows(scene, square(0, 0), square(30, 0), square(100, 100), square(60, 20), id=[3, 8, 5, 9], name=list("abcd"))
    new = rows(scene, shapely.box(20, 5, 40, 12), probability=[0.8], model=["m"])  # edge to edge with the first
    both = table.joined(old, new, scene)
    assert sorted(both.id) == [3, 5, 9]
    row = both[both.id == 3].iloc[0]
    assert row.geometry.equals(shapely.union_all([square(0, 0), square(30, 0), shapely.box(20, 5, 40, 12)]))
    assert row["name"] == "a"
    assert row.area_m2 == pytest.approx(row.geometry.area * 4, rel=1e-2)
    untouched = both[both.id == 5].iloc[0]
    assert untouched.geometry.equals_exact(old[old.id == 5].geometry.iloc[0], 0)
    assert len(old) == 4  # the tables of earlier steps stay as they were


def test_polygons_that_only_meet_in_a_corner_stay_apart(page):
    scene = page.session.scene
    both = table.joined(rows(scene, square(0, 0), id=[1]), rows(scene, square(20, 20)), scene)
    assert sorted(both.id) == [1, 2]
    assert sorted(both.geometry.area.round(6)) == [400, 400]


def test_seven_decimals_leave_no_gap_between_joined_polygons(page):
    scene = page.session.scene
    old = rows(scene, shapely.box(0, 0, 19.96, 20), id=[1])
    (shape,) = table.joined(old, rows(scene, shapely.box(20, 0, 40, 20)), scene).geometry
    assert isinstance(shape, shapely.Polygon)
    assert len(shape.interiors) == 0
    assert shape.area == pytest.approx(800, abs=1)


def test_a_cut_through_the_middle_leaves_two_polygons_and_no_specks(page):
    scene = page.session.scene
    old = rows(scene, shapely.box(0, 0, 60, 20), square(100, 100), id=[4, 6])
    left = table.without(old, shapely.box(40, -1, 58, 21), 50, scene)
    assert sorted(left.id) == [4, 6]
    left = table.without(old, shapely.box(20, -1, 30, 21), 50, scene)
    assert sorted(left.id) == [4, 6, 7]
    assert left[left.id == 4].geometry.iloc[0].equals(shapely.box(30, 0, 60, 20))


def test_areas_and_perimeters_are_those_of_a_run(page):
    """Measured of polygons as measured of pixels, islands and several parts included."""
    from geosam.vector import Strip, polygonize

    scene = page.session.scene
    water = np.random.default_rng(0).random(scene.shape) > 0.45
    run = polygonize([Strip(0, water)], scene.geobox)
    area, perimeter = table.measures(table.moved(~scene.geobox.affine, run.geometry.to_numpy()), scene)
    np.testing.assert_allclose(area, run.area_m2, rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(perimeter, run.perimeter_m, rtol=1e-8, atol=1e-6)
    whole = table.moved(~scene.geobox.affine, np.array([shapely.MultiPolygon(list(run.geometry[:5]))], dtype=object))
    assert table.measures(whole, scene)[0][0] == pytest.approx(run.area_m2[:5].sum(), rel=1e-7)


def test_deleting_takes_one_polygon_and_a_number_that_is_not_there_none(page, client):
    two = rows(page.session.scene, square(0, 0), square(50, 50), id=[3, 8])
    page.session._states[0] = session.State(two, session.Pending())
    assert done(client.post("api/delete", json={"id": 8}))["polygons"] == 1
    assert list(page.session.state.rivers.id) == [3]
    assert client.post("api/delete", json={"id": 8}).status_code == 409
    assert done(client.post("api/undo"))["polygons"] == 2


def test_a_click_outside_the_scene_is_refused_and_changes_nothing(page, client):
    answer = client.post("api/point", json=at(page, -5, 20))
    assert answer.status_code == 409
    assert answer.json() == {"detail": "That point lies outside the scene."}
    assert not page.session.can_undo


# Saving -------------------------------------------------------------------------------------------------------------


def test_saving_writes_what_a_run_writes_and_a_history_beside_it(page, client, river_tif, tmp_path, model):
    client.post("api/point", json=at(page, 71.5, 60.5))
    client.post("api/accept")
    state = done(client.post("api/save"))
    assert (state["written"], state["saved"]) == (1, True)
    run = tmp_path / "run.geojson"
    segment(river_tif, SegmentOptions(prompts=PromptOptions(which="none")), model=model, out=run)
    theirs, mine = (json.loads(path.read_text()) for path in (run, tmp_path / "edited.geojson"))
    assert mine["type"] == theirs["type"] == "FeatureCollection"
    one, other = mine["features"][0], theirs["features"][0]
    assert list(one["properties"]) == list(other["properties"]) == COLUMNS
    assert one["properties"] == other["properties"]
    assert one["geometry"] == other["geometry"]
    history = json.loads((tmp_path / "edited.prompts.json").read_text())
    (edit,) = history["edits"]
    assert edit["action"] == "add"
    assert edit["points"][0]["label"] == "water"
    np.testing.assert_allclose(edit["points"][0]["xy_px"], (71.5, 60.5), atol=0.125)
    np.testing.assert_allclose(edit["points"][0]["lonlat"], list(at(page, 71.5, 60.5).values()), atol=1e-6)
    assert history["model"] == {"name": model.name, "sha256": model.sha256}
    assert (tmp_path / "edited.qml").is_file()  # QGIS shows it as it shows a run's


def test_what_was_saved_can_be_opened_again_and_loses_nothing(page, client, tmp_path, river_tif, model):
    client.post("api/point", json=at(page, 71.5, 60.5))
    client.post("api/accept")
    client.post("api/save")
    saved = (tmp_path / "edited.geojson").read_bytes()
    again = open_page(
        river_tif, Given(tmp_path / "edited.geojson", out=tmp_path / "b.geojson"), SegmentOptions(), model
    )
    again.session.save()
    assert (tmp_path / "b.geojson").read_bytes() == saved
    again.close()


def test_further_columns_of_a_file_are_kept(river_tif, tmp_path, model):
    scene = Scene.open(str(river_tif))
    given = table.in_scene(rows(scene, square(10, 10), square(150, 100), reach=["upper", "lower"]), scene)
    given.to_file(tmp_path / "given.gpkg")
    page = open_page(river_tif, Given(tmp_path / "given.gpkg", out=tmp_path / "e.geojson"), SegmentOptions(), model)
    page.session.point(*at(page, 71.5, 60.5).values(), WATER)
    page.session.accept()
    page.session.save()
    saved = gpd.read_file(tmp_path / "e.geojson")
    assert saved.reach.tolist() == ["upper", "lower", None] or saved.reach.isna().tolist() == [False, False, True]
    assert saved.id.tolist() == [1, 2, 3]
    page.close()


def test_a_save_that_fails_leaves_the_old_file_and_the_edits(page, client, tmp_path, monkeypatch):
    client.post("api/point", json=at(page, 71.5, 60.5))
    client.post("api/accept")
    client.post("api/save")
    before = (tmp_path / "edited.geojson").read_bytes()
    client.post("api/delete", json={"id": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(geosam.vector.write._WRITERS, ".geojson", full)
    answer = client.post("api/save")
    assert answer.status_code == 500
    assert "the disk is full" in answer.json()["detail"]
    assert (tmp_path / "edited.geojson").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edited.geojson", "edited.prompts.json", "edited.qml"]
    state = done(client.get("api/state"))
    assert (state["saved"], state["polygons"]) == (False, 0)


def test_edits_that_were_not_saved_are_kept_when_the_page_ends(page, client, tmp_path):
    client.post("api/point", json=at(page, 71.5, 60.5))
    client.post("api/accept")
    kept = page.session.close()
    assert kept == tmp_path / "edited.unsaved.geojson"
    assert len(gpd.read_file(kept)) == 1
    assert not (tmp_path / "edited.geojson").exists()
    assert page.session.close() is None


def test_a_browser_that_goes_away_does_not_stop_a_save(page, tmp_path, monkeypatch):
    """The request is dropped while the file is being written; the file is there all the same."""
    writing, go_on = threading.Event(), threading.Event()
    write = geosam.vector.write._WRITERS[".geojson"]

    def slow(*args):
        writing.set()
        assert go_on.wait(20)
        write(*args)

    page.session.point(*at(page, 71.5, 60.5).values(), WATER)
    page.session.accept()
    monkeypatch.setitem(geosam.vector.write._WRITERS, ".geojson", slow)
    viewer = serving.Viewer(page)
    token = viewer.url.rstrip("/").rsplit("/", 1)[1]
    port = int(viewer.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as browser:
        lines = [f"POST /{token}/api/save HTTP/1.1", f"Host: 127.0.0.1:{port}", f"X-Geosam-Token: {token}"]
        browser.sendall("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())
        assert writing.wait(20)
    time.sleep(0.2)
    assert not (tmp_path / "edited.geojson").exists()
    threading.Timer(0.2, go_on.set).start()
    assert viewer.stop() is None  # waits for the save, and finds nothing unsaved
    assert len(gpd.read_file(tmp_path / "edited.geojson")) == 1


# What is shown ------------------------------------------------------------------------------------------------------


def tile_over(page: Page, zoom: int) -> tuple[int, int]:
    """The tile of web mercator in the middle of the scene."""
    height, width = page.session.scene.shape
    lon, lat = page.session.place.lonlat(np.array([[width / 2, height / 2]]))[0]
    n = 2**zoom
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * n
    return int((lon + 180) / 360 * n), int(y)


def pixels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    with rasterio.MemoryFile(answer.content) as file, file.open() as image:
        return image.read()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_tile_shows_the_scene_where_it_lies(page, client):
    """Each of its pixels has the colour that the scene has at that place, and is clear outside."""
    zoom = 16
    x, y = tile_over(page, zoom)
    image = pixels(client.get(f"tiles/ortho/{zoom}/{x}/{y}.png"))
    rows_, cols = np.nonzero(image[3])
    assert len(rows_) > 1000
    n = 2**zoom * 256
    lon = (x * 256 + cols + 0.5) / n * 360 - 180
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y * 256 + rows_ + 0.5) / n))))
    xy = page.session.place.pixels(np.stack([lon, lat], axis=1))
    inside = ((xy > 1) & (xy < np.array([199, 149]))).all(axis=1)
    rgb, _ = page.session.scene.read_rgb(rasterio.windows.Window(0, 0, 200, 150))
    wet = (xy[:, 0] > 62) & (xy[:, 0] < 82)
    dry = (xy[:, 0] < 58) | (xy[:, 0] > 86)
    for where in (wet & inside, dry & inside):
        expected = rgb[xy[where, 1].astype(int), xy[where, 0].astype(int)].mean(axis=0)
        np.testing.assert_allclose(image[:3, rows_[where], cols[where]].mean(axis=1), expected, atol=3)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_bands_and_stretch_can_be_chosen(page, client):
    x, y = tile_over(page, 17)
    grey = pixels(client.get(f"tiles/ortho/17/{x}/{y}.png?bands=nir&percent=2"))
    assert (grey[0] == grey[1]).all()
    shown = grey[0][grey[3] > 0]
    assert shown.min() == 0
    assert shown.max() == 255
    falsely = pixels(client.get(f"tiles/ortho/17/{x}/{y}.png?bands=nir,red,green&percent=2"))
    assert (falsely[0] != falsely[1]).any()
    stretch = done(client.get("api/stretch?bands=nir&percent=2"))
    assert stretch["low"][0] == 15
    assert stretch["high"][0] == 200
    answer = client.get(f"tiles/ortho/17/{x}/{y}.png?bands=ultraviolet")
    assert answer.status_code == 500
    assert "no band known as ultraviolet" in answer.json()["detail"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_coarse_mask_is_made_when_it_is_wanted(page, client):
    x, y = tile_over(page, 17)
    assert client.get(f"tiles/coarse/17/{x}/{y}.png").status_code == 404
    assert done(client.post("api/coarse"))["status"] in ("running", "ready")
    for _ in range(400):
        state = done(client.get("api/state"))["coarse"]
        if state["status"] != "running":
            break
        time.sleep(0.05)
    assert state["status"] == "ready", state
    image = pixels(client.get(f"tiles/coarse/17/{x}/{y}.png"))
    assert set(np.unique(image[3])) == {0, 255}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_given_probability_is_as_opaque_as_it_is_sure(page, tmp_path, river_tif, model):
    with rasterio.open(river_tif) as file:
        profile = {**file.profile, "count": 1, "dtype": "float32", "nodata": float("nan")}
    with rasterio.open(tmp_path / "p.tif", "w", **profile) as out:
        out.write(np.full((1, 150, 200), 0.4, np.float32))
    given = Given(out=tmp_path / "e.geojson", probability=tmp_path / "p.tif", overwrite=True)
    other = open_page(river_tif, given, SegmentOptions(), model)
    x, y = tile_over(page, 17)
    image = pixels(client_of(other).get(f"tiles/probability/17/{x}/{y}.png"))
    assert set(np.unique(image[3])) <= {0, 102}
    other.close()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_probability_layer_shows_what_clicks_gave_and_undo_takes_it_back(page, client):
    x, y = tile_over(page, 17)
    address = f"tiles/probability/17/{x}/{y}.png"
    assert client.get(address).status_code == 204
    first = done(client.get("api/state"))["seen"]
    clicked = done(client.post("api/point", json=at(page, 71.5, 60.5)))["seen"]
    assert clicked != first
    image = pixels(client.get(address))
    sure = round(255 / (1 + np.exp(-4)))  # what the model says of water; of dry ground 255 less that
    assert {int(value) for value in np.unique(image[3])} <= {0, 255 - sure, sure}
    assert (image[3] == sure).sum() > 100
    assert done(client.post("api/accept"))["seen"] == clicked  # what was accepted stays to be seen
    np.testing.assert_array_equal(pixels(client.get(address)), image)
    client.post("api/undo")
    assert done(client.post("api/undo"))["seen"] == first
    assert client.get(address).status_code == 204


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_a_click_gave_lies_over_the_given_probability(page, tmp_path, river_tif):
    with rasterio.open(river_tif) as file:
        profile = {**file.profile, "count": 1, "dtype": "float32", "nodata": float("nan")}
    with rasterio.open(tmp_path / "p.tif", "w", **profile) as out:
        out.write(np.full((1, 150, 200), 0.4, np.float32))
    given = Given(out=tmp_path / "e.geojson", probability=tmp_path / "p.tif", overwrite=True)
    other = open_page(river_tif, given, SegmentOptions(), DarkWater(64))
    guest = client_of(other)
    done(guest.post("api/point", json=at(other, 71.5, 60.5)))
    x, y = tile_over(page, 16)
    alpha = pixels(guest.get(f"tiles/probability/16/{x}/{y}.png"))[3]
    assert (alpha == 102).sum() > 100  # 0.4 where no tile was asked
    assert (alpha == round(255 / (1 + np.exp(-4)))).sum() > 20
    other.close()


def test_far_away_tiles_are_empty_and_absurd_ones_unknown(client):
    assert client.get("tiles/ortho/16/0/0.png").status_code == 204
    assert client.get("tiles/ortho/2/9/0.png").status_code == 404
    assert client.get("tiles/ortho/99/0/0.png").status_code == 404
    assert client.get("tiles/secret/2/0/0.png").status_code == 404


def test_a_scene_is_read_no_finer_than_a_tile_shows_it(river_tif, monkeypatch):
    """However large the scene: a tile that shows all of it reads a small version."""
    scene = Scene.open(str(river_tif))
    layer, read = OrthoLayer(scene, Place.of(scene)), []
    whole = Scene.read_rgb
    monkeypatch.setattr(Scene, "read_rgb", lambda self, window: read.append(window) or whole(self, window))
    import geosam.viewer.rasters as rasters

    grid = rasters.GeoBox.from_bbox((-14e6, 5e6, -13e6, 7e6), "EPSG:3857", shape=(256, 256))
    layer.picture(grid, View())
    assert max(read[0].width, read[0].height) <= 4


# Scenes without a place on earth ------------------------------------------------------------------------------------


@pytest.fixture
def bare_tif(tmp_path, river_tif):
    path = tmp_path / "bare.tif"
    with rasterio.open(river_tif) as file:
        profile = {**file.profile, "crs": None, "transform": rasterio.Affine.identity()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, "w", **profile) as out:
                out.write(file.read())
                out.descriptions = file.descriptions
    return path


def without_crs() -> SegmentOptions:
    return SegmentOptions.from_mapping({"scene": {"allow_no_crs": True}})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_crs_is_shown_and_edited_in_its_pixels(bare_tif, tmp_path, model):
    page = open_page(bare_tif, Given(out=tmp_path / "e.gpkg"), without_crs(), model)
    client = client_of(page)
    assert done(client.get("api/scene"))["on_earth"] is False
    x, y = tile_over(page, 16)
    assert pixels(client.get(f"tiles/ortho/16/{x}/{y}.png"))[3].any()
    done(client.post("api/point", json=at(page, 71.5, 60.5)))
    done(client.post("api/accept"))
    done(client.post("api/save"))
    saved = gpd.read_file(tmp_path / "e.gpkg")
    assert saved.geometry.iloc[0].contains(shapely.Point(71.5, 60.5))
    assert saved.area_m2.iloc[0] == pytest.approx(saved.geometry.iloc[0].area)
    edit = json.loads((tmp_path / "e.prompts.json").read_text())["edits"][0]
    assert "lonlat" not in edit["points"][0]
    page.close()


def test_a_scene_without_crs_has_one_clear_line_as_long_as_nobody_allows_it(bare_tif):
    result = CliRunner().invoke(cli, ["view", str(bare_tif), "--no-browser"])
    assert isinstance(result.exception, SceneError)
    assert "has no CRS" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_scene_at_the_pole_is_shown_as_a_plain_picture(tmp_path):
    path = tmp_path / "pole.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8", "crs": "EPSG:3413"}
    with rasterio.open(path, "w", transform=from_origin(-640, 640, 20, 20), **profile) as out:
        out.write(np.random.default_rng(0).integers(50, 200, (3, 64, 64), np.uint8))
    place = Place.of(Scene.open(str(path)))
    assert not place.is_real
    xy = np.array([[0.0, 0.0], [64.0, 64.0], [10.5, 20.25]])
    np.testing.assert_allclose(place.pixels(place.lonlat(xy)), xy, atol=1e-6)


# Bad input ----------------------------------------------------------------------------------------------------------


def test_polygons_without_crs_have_one_clear_line(river_tif, tmp_path, model):
    gpd.GeoDataFrame(geometry=[square(0, 0)], crs=None).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(OptionsError, match=r"RIVERS .*bare\.parquet has no CRS.*Save it with its CRS") as error:
        view(river_tif, tmp_path / "bare.parquet", out=tmp_path / "e.geojson", model=model)
    assert "\n" not in str(error.value)
    with pytest.raises(OptionsError, match=r"--compare .*bare\.parquet has no CRS"):
        view(river_tif, compare=tmp_path / "bare.parquet", out=tmp_path / "e.geojson", model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("notes.txt", b"no raster", "notes.txt"), ("missing.tif", None, "does not exist")],
)
def test_what_is_no_raster_has_one_clear_line(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = CliRunner().invoke(cli, ["view", str(tmp_path / name), "--no-browser"])
    assert isinstance(result.exception, SceneError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


def test_points_are_no_polygons_and_an_empty_result_is_a_result(river_tif, tmp_path):
    scene = Scene.open(str(river_tif))
    gpd.GeoDataFrame(geometry=[shapely.Point(9, 47)], crs=4326).to_file(tmp_path / "p.geojson")
    with pytest.raises(OptionsError, match="holds a Point"):
        table.read_table("RIVERS", tmp_path / "p.geojson", scene)
    with pytest.raises(OptionsError, match="does not exist"):
        table.read_table("RIVERS", tmp_path / "q.geojson", scene)
    (tmp_path / "r.geojson").write_text("{")
    with pytest.raises(OptionsError, match="is not a vector file that can be read"):
        table.read_table("RIVERS", tmp_path / "r.geojson", scene)
    geosam.write_rivers(table.in_scene(rows(scene), scene), tmp_path / "empty.geojson")
    assert len(table.read_table("RIVERS", tmp_path / "empty.geojson", scene)) == 0


def test_a_port_that_is_taken_is_said_and_zero_chooses(page):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OptionsError, match=f"port {port} of 127.0.0.1 is taken.*--port 0"):
            serving.Viewer(page, port)
    viewer = serving.Viewer(page, 0)
    assert viewer.url.startswith("http://127.0.0.1:")
    viewer.stop()


def test_a_scene_that_changes_is_noticed_and_the_edits_are_kept(river_tif, tmp_path, model):
    path = tmp_path / "scene.tif"
    path.write_bytes(river_tif.read_bytes())
    page = open_page(path, Given(out=tmp_path / "e.geojson"), SegmentOptions(), model)
    client = client_of(page)
    done(client.post("api/point", json=at(page, 71.5, 60.5)))
    done(client.post("api/accept"))
    assert done(client.get("api/state"))["notice"] == ""
    path.write_bytes(river_tif.read_bytes() + b"more")
    assert "scene.tif has changed on disk" in done(client.get("api/state"))["notice"]
    answer = client.post("api/point", json=at(page, 71.5, 90.5))
    assert answer.status_code == 409
    assert "Your edits are kept" in answer.json()["detail"]
    assert done(client.post("api/save"))["written"] == 1
    path.unlink()
    assert done(client.get("api/state"))["polygons"] == 1
    page.close()


def test_an_output_that_exists_is_not_replaced_unless_one_says_so(river_tif, tmp_path, model):
    (tmp_path / "e.geojson").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        open_page(river_tif, Given(out=tmp_path / "e.geojson"), SegmentOptions(), model)
    page = open_page(river_tif, Given(out=tmp_path / "e.geojson", overwrite=True), SegmentOptions(), model)
    assert (tmp_path / "e.geojson").read_text() == "mine"  # until somebody saves
    page.close()
    with pytest.raises(OutputError, match="does not exist"):
        open_page(river_tif, Given(out=tmp_path / "no" / "e.geojson"), SegmentOptions(), model)


def test_a_missing_extra_is_said_with_what_to_run(river_tif, monkeypatch):
    for name in ("geosam.viewer.opening", "geosam.viewer.routes", "geosam.viewer.serving"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(OptionsError, match=r'pip install "geosam-rivers\[view\]"'):
        view(river_tif)


@pytest.mark.parametrize("template", ["ftp://x/{z}/{x}/{y}", "https://x/{z}/{x}.png", "nonsense"])
def test_a_background_that_is_no_address_of_tiles_is_refused(river_tif, tmp_path, template, model):
    with pytest.raises(OptionsError, match="no address of map tiles"):
        view(river_tif, background=template, out=tmp_path / "e.geojson", model=model)


# Nobody else ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/api/state", "/static/main.js", "/wrong/", "/wrong/api/state", "/t0ke/", "/t0ken"]
)
def test_without_the_token_there_is_no_answer(client, path):
    answer = client.get(f"http://127.0.0.1:1{path}")
    assert answer.status_code == (200 if path == "/t0ken" else 403)


def test_a_change_needs_the_token_in_the_header_too(client):
    for headers in ({"X-Geosam-Token": ""}, {"X-Geosam-Token": "other"}):
        assert client.post("api/undo", headers=headers).status_code == 403
    assert client.post("api/undo").status_code == 409


def test_the_token_is_compared_in_constant_time(client, monkeypatch):
    import secrets

    compared = []
    whole = secrets.compare_digest
    monkeypatch.setattr(secrets, "compare_digest", lambda a, b: compared.append((a, b)) or whole(a, b))
    client.get("api/state")
    client.get("http://127.0.0.1:1/guess/api/state")
    assert compared == [(b"t0ken", b"t0ken"), (b"guess", b"t0ken")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_foreign_name_that_leads_here_is_refused(client, host):
    assert client.get("api/state", headers={"Host": host}).status_code == 403


def test_each_start_has_a_token_of_its_own_and_only_this_machine_is_served(page, river_tif, tmp_path, model):
    first = serving.Viewer(page)
    other = open_page(river_tif, Given(out=tmp_path / "f.geojson"), SegmentOptions(), model)
    second = serving.Viewer(other)
    tokens = [viewer.url.rstrip("/").rsplit("/", 1)[1] for viewer in (first, second)]
    assert tokens[0] != tokens[1]
    assert min(map(len, tokens)) >= 32
    listening = {sock.getsockname()[0] for server in first._server.servers for sock in server.sockets}
    assert listening == {"127.0.0.1"}
    first.stop()
    second.stop()
    assert not first.is_running


@pytest.mark.parametrize(
    "path",
    [
        "static/%2e%2e/routes.py", "static/..%2froutes.py", "static//etc/passwd",
        "static/%2fetc/passwd", "static/..%5croutes.py", "tiles/..%2f..%2fetc/1/0/0.png", "static/", "static/maplibre",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages_own_files(client, path):
    answer = client.get(f"http://127.0.0.1:1/{TOKEN}/{path}")
    assert answer.status_code in (404, 405)
    assert b"import" not in answer.content


def test_no_request_names_a_file(page):
    """Every parameter of every route, by name and by type: numbers, choices, bands."""
    known = {"z", "x", "y", "bands", "percent"}
    app = make_app(page)
    found = {
        param.name for route in app.routes if hasattr(route, "dependant") for param in route.dependant.query_params
    }
    found |= {
        param.name for route in app.routes if hasattr(route, "dependant") for param in route.dependant.path_params
    }
    assert found <= known
    answer = client_of(page).post("api/save", json={"path": "/tmp/x"}, params={"out": "/tmp/x", "url": "/etc/passwd"})
    assert answer.status_code == 200
    assert page.session.out.exists()
    assert client_of(page).post("api/point", json={"lon": 1, "lat": 2, "path": "x"}).status_code == 422


def test_a_page_may_load_from_its_own_server_alone(client):
    answer = client.get("")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    for path in Path(geosam.viewer.__path__[0], "static").glob("*.*"):
        assert "https://" not in path.read_text(encoding="utf-8"), path.name


# In a notebook, and on the command line ------------------------------------------------------------------------------


def test_in_a_notebook_the_page_shows_itself_in_the_cell(river_tif, tmp_path, model):
    viewer = geosam.view(river_tif, out=tmp_path / "e.geojson", model=model)
    html = viewer._repr_html_()
    assert html.startswith("<iframe ")
    assert f'src="{viewer.url}"' in html
    assert viewer._thread.daemon
    assert httpx.get(viewer.url).status_code == 200
    assert viewer.stop() is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(viewer.url)
    assert repr(viewer) == "Viewer(stopped)"


def test_a_result_of_a_run_can_be_viewed_as_it_is(river_tif, tmp_path, model):
    run = segment(river_tif, SegmentOptions(prompts=PromptOptions(which="none")), model=model)
    viewer = geosam.view(river_tif, run, compare=run.polygons, out=tmp_path / "e.geojson", model=model)
    assert len(viewer.page.session.state.rivers) == len(run.polygons)
    assert viewer.page.layers.compare is not None
    viewer.stop()


def test_the_command_prints_the_address_and_ends_with_ctrl_c(river_tif, tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", lambda s: None if s < 0.1 else interrupted(s))
    opened = []
    monkeypatch.setattr("click.launch", opened.append)
    args = ["view", str(river_tif), "--out", str(tmp_path / "e.geojson"), "--device", "cpu"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, result.output
    url = result.stdout.splitlines()[0]
    assert url.startswith("http://127.0.0.1:")
    assert opened == [url]
    result = CliRunner().invoke(cli, [*args, "--no-browser"])
    assert result.exit_code == 0
    assert len(opened) == 1


def test_the_packages_files_are_all_shipped():
    root = Path(geosam.__file__).parent
    data = tomllib.loads((root.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["geosam"]
    shipped = {path for pattern in data for path in root.glob(pattern)}
    static = [path for path in (root / "viewer" / "static").rglob("*") if path.is_file()]
    assert len(static) > 8
    assert set(static) <= shipped
    assert (root / "viewer" / "static" / "maplibre" / "LICENSE.txt").exists()
