"""STAC in and out: bands of an item as one raster, searches, and items of results."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.rio.main import main_group
from rasterio.windows import Window
from referencing import Registry, Resource

from geosam.catalogue import items, searched, stacked, write_item
from geosam.catalogue.assets import bands_by_role
from geosam.cli import cli, main
from geosam.errors import OptionsError, OutputError, RunError, SceneError
from geosam.pipeline.inputs import sources
from geosam.scene import Scene
from geosam.vector.style import WATER, Categories, Symbol, qml, style_path, write_style

NAMES = ("red", "green", "blue", "nir")
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
GRID = Affine(2.0, 0, 450_000, 0, -2.0, 5_300_000)


def write_band(path: Path, values: np.ndarray, transform: Affine = GRID, crs: str = "EPSG:32610", **more: Any) -> Path:
    planes = values if values.ndim == 3 else values[None]
    count, height, width = planes.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, crs, transform, planes.dtype.name, **more) as file:
        file.write(planes)
    return path


def item(assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    when = {"datetime": "2024-06-01T00:00:00Z"}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "geometry": None, "links": [], "assets": assets,
        "properties": {**when, **properties},
    }  # fmt: skip


def band(href: str, name: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": TIFF, "roles": ["data"], "eo:bands": [{"name": "B", "common_name": name}], **more}


@pytest.fixture
def bands(river_tif: Path) -> dict[str, np.ndarray]:
    with rasterio.open(river_tif) as file:
        return dict(zip(NAMES, file.read(), strict=True))


@pytest.fixture
def single(bands: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """An item with a file for each band."""
    for name, values in bands.items():
        write_band(tmp_path / f"{name}.tif", values)
    assets = {f"B{at}": band(f"./{name}.tif", name) for at, name in enumerate(reversed(NAMES))}
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item({"thumbnail": {"href": "t.png", "roles": ["thumbnail"]}, **assets})))
    return path


def whole(scene: Scene) -> np.ndarray:
    return scene.read(Window(0, 0, scene.shape[1], scene.shape[0]), NAMES).values


# Bands of an item -----------------------------------------------------------------------------------------------------


def test_single_bands_are_one_scene_with_the_pixels_of_their_files(
    single: Path, bands: dict[str, np.ndarray], river_tif: Path
) -> None:
    [source] = sources([f"stac:{single}"])
    scene, plain = Scene.open(source.path), Scene.open(river_tif)
    assert source.name == "one"
    assert scene.geobox == plain.geobox
    assert scene.bands == dict(zip(NAMES, (1, 2, 3, 4), strict=True))
    assert np.array_equal(whole(scene), np.stack([bands[name] for name in NAMES]))
    assert scene.source == "STAC item one"
    assert sources([str(single)]) == [source]  # without stac: too, since no asset is a whole picture


def test_coarser_bands_are_laid_on_the_finest_grid(bands: dict[str, np.ndarray], tmp_path: Path) -> None:
    coarse = bands["nir"].reshape(75, 2, 100, 2).mean(axis=(1, 3)).astype(np.uint8)
    half = Affine(4.0, 0, 450_000, 0, -4.0, 5_300_000)
    hrefs = {name: write_band(tmp_path / f"{name}.tif", bands[name]) for name in NAMES[:3]}
    hrefs["nir"] = write_band(tmp_path / "nir.tif", coarse, half)
    scene = Scene.open(stacked(item({name: band(str(path), name) for name, path in hrefs.items()}), ""))
    nir = whole(scene)[3]
    assert scene.shape == (150, 200)
    inside, outside = nir[10:-10, 66:78], nir[10:-10, 100:]
    assert inside.mean() == pytest.approx(15, abs=1)
    assert outside.mean() == pytest.approx(200, abs=1)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_one_asset_with_all_bands_is_read_in_the_order_of_its_roles(
    version: str, bands: dict[str, np.ndarray], tmp_path: Path
) -> None:
    order = ("blue", "green", "red", "nir")
    path = write_band(tmp_path / "stack.tif", np.stack([bands[name] for name in order]))
    said = (
        {"eo:bands": [{"common_name": name} for name in order]}
        if version == "1.0"
        else {"bands": [{"name": name, "eo:common_name": name} for name in order]}
    )
    one = item({"image": {"href": str(path), "type": TIFF, "roles": ["data"], **said}})
    scene = Scene.open(stacked(one, ""))
    assert np.array_equal(whole(scene), np.stack([bands[name] for name in NAMES]))


def test_nodata_scale_and_offset_come_from_the_file_or_from_the_item(tmp_path: Path) -> None:
    values = np.full((64, 64), 3000, np.uint16)
    values[:8] = 0
    hrefs = {name: write_band(tmp_path / f"{name}.tif", values, nodata=0) for name in NAMES}
    facts = {"raster:bands": [{"scale": 0.0001, "offset": -0.1}]}
    assets = {name: band(str(path), name, **facts) for name, path in hrefs.items()}
    block = Scene.open(stacked(item(assets), "")).read(Window(0, 0, 64, 64), NAMES)
    assert not block.valid[:8].any()
    assert block.valid[8:].all()
    assert block.values[:, 8:] == pytest.approx(0.2)
    applied = item(assets, **{"earthsearch:boa_offset_applied": True})
    assert Scene.open(stacked(applied, "")).read(Window(0, 8, 64, 8), NAMES).values == pytest.approx(0.3)


def test_data_is_taken_before_pictures_geotiff_before_others_and_fine_before_coarse() -> None:
    jp2 = {"href": "red.jp2", "type": "image/jp2", "roles": ["data"], "eo:bands": [{"common_name": "red"}]}
    assets = {
        "visual": {
            "href": "tci.tif", "type": TIFF, "roles": ["visual"], "eo:bands": [{"common_name": n} for n in NAMES[:3]],
        },
        "red-jp2": jp2,
        "red-60": band("red60.tif", "red", gsd=60),
        **{name: band(f"{name}.tif", name, gsd=10) for name in NAMES[:3]},
        "narrow": band("b8a.tif", "nir08", gsd=10),
    }  # fmt: skip
    found = bands_by_role(item(assets), "/data/item.json")
    assert [(one.role, one.href) for one in found] == [
        ("red", "/data/red.tif"), ("green", "/data/green.tif"), ("blue", "/data/blue.tif"), ("nir", "/data/b8a.tif"),
    ]  # fmt: skip
    with_nir = item({**assets, "b8": band("b8.tif", "nir", gsd=10)})
    assert bands_by_role(with_nir, "")[3].href == "b8.tif"
    only = item({"visual": assets["visual"]})
    assert [(one.role, one.band) for one in bands_by_role(only, "")] == [("red", 1), ("green", 2), ("blue", 3)]


def test_keys_name_bands_that_nothing_else_names() -> None:
    assets = {
        name: {"href": f"{name}.tif", "type": TIFF, "roles": ["data"]} for name in ("red", "green", "blue", "nir08")
    }
    assert [one.role for one in bands_by_role(item(assets), "")] == list(NAMES)


def test_what_cannot_be_stacked_is_one_line(bands: dict[str, np.ndarray], tmp_path: Path) -> None:
    hrefs = {name: write_band(tmp_path / f"{name}.tif", bands[name]) for name in NAMES}
    write_band(hrefs["nir"], bands["nir"], Affine(2e-5, 0, -123, 0, -2e-5, 48), "EPSG:4326")
    assets = {name: band(str(path), name) for name, path in hrefs.items()}
    with pytest.raises(SceneError, match=r"nir\.tif \(nir\) differs in grid"):
        Scene.open(stacked(item(assets), ""))
    hrefs["nir"].unlink()
    with pytest.raises(SceneError, match=r"nir\.tif does not exist") as told:
        Scene.open(stacked(item(assets), ""))
    assert "\n" not in str(told.value)
    with pytest.raises(SceneError, match="no red, green and blue by their common names; it has red"):
        stacked(item({"red": assets["red"]}), "")


def test_a_file_that_goes_away_is_an_error_each_time_it_is_read(single: Path) -> None:
    """GDAL's own VRT gives arbitrary values here, without an error."""
    [source] = sources([f"stac:{single}"])
    scene = Scene.open(source.path)
    (single.parent / "nir.tif").unlink()
    with pytest.raises(SceneError, match=r"nir\.tif does not exist"):
        Scene.open(source.path)
    elsewhere = pickle.loads(pickle.dumps(scene))
    for _ in range(3):
        with ThreadPoolExecutor(1) as other, pytest.raises(RunError, match=r"nir\.tif cannot be read"):
            other.submit(whole, elsewhere).result()


def test_a_stack_that_is_cut_off_or_short_is_refused(single: Path, bands: dict[str, np.ndarray]) -> None:
    [source] = sources([f"stac:{single}"])
    nir = single.parent / "nir.tif"
    write_band(nir, bands["nir"][:100])
    with pytest.raises(SceneError, match="differs in grid"):
        Scene.open(source.path)
    write_band(nir, bands["nir"])
    nir.write_bytes(nir.read_bytes()[:-20_000])
    with pytest.raises(SceneError, match=r"nir\.tif is cut off"):
        Scene.open(source.path)


def test_a_decimated_stack_is_what_a_decimated_file_is(single: Path, river_tif: Path) -> None:
    [source] = sources([f"stac:{single}"])
    one, other = (Scene.open(path).decimated(50) for path in (source.path, str(river_tif)))
    assert np.array_equal(whole(one), whole(other))
    at = Window(3, 5, 20, 20)
    near, file = (Scene.open(path).read(at, ("nir", "red")).values for path in (source.path, str(river_tif)))
    assert np.array_equal(near, file)


# Catalogues and searches ----------------------------------------------------------------------------------------------


def test_a_catalogue_that_pystac_wrote_is_walked(single: Path, tmp_path: Path) -> None:
    when = datetime(2024, 6, 1, tzinfo=UTC)
    catalogue = pystac.Catalog("rivers", "made here")
    for name in ("may", "june"):
        one = pystac.Item(name, None, None, when, {})
        for role in NAMES:
            said = {"eo:bands": [{"common_name": role}]}
            one.add_asset(role, pystac.Asset(str(single.parent / f"{role}.tif"), None, None, TIFF, ["data"], said))
        catalogue.add_item(one)
    catalogue.normalize_and_save(str(tmp_path / "catalogue"), pystac.CatalogType.SELF_CONTAINED)
    found = sources([f"stac:{tmp_path / 'catalogue' / 'catalog.json'}"])
    assert {source.name for source in found} == {"may", "june"}
    assert all(Scene.open(source.path).bands["nir"] == 4 for source in found)


class _Api(BaseHTTPRequestHandler):
    """A STAC API with two pages, which remembers what it was asked."""

    asked: list[dict[str, list[str]]]
    assets: dict[str, Any]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.asked.append(query)
        page = int(query.get("page", ["1"])[0])
        features = [{**item(self.assets), "id": f"page-{page}"}]
        links = [{"rel": "next", "href": f"http://{self.headers['Host']}{self.path}&page=2"}] if page == 1 else []
        body = json.dumps({"type": "FeatureCollection", "features": features, "links": links}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/geo+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api(single: Path) -> Iterator[str]:
    _Api.asked = []
    _Api.assets = {name: band((single.parent / f"{name}.tif").as_uri(), name) for name in NAMES}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # requests keeps its connection
def test_a_search_asks_what_its_address_says_and_goes_through_all_pages(api: str) -> None:
    found = sources([f"stac:{api}/search?collections=naip&bbox=-123.6,47.9,-123.5,48.0&limit=1"])
    assert [source.name for source in found] == ["page-1", "page-2"]
    assert _Api.asked[0] == {"collections": ["naip"], "bbox": ["-123.6,47.9,-123.5,48.0"], "limit": ["1"]}
    assert Scene.open(found[0].path).bands["nir"] == 4


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_search_that_cannot_be_asked_or_finds_everything_is_refused(api: str) -> None:
    with pytest.raises(OptionsError, match="would find everything"):
        next(searched(f"{api}/search?limit=10"))
    with pytest.raises(OptionsError, match="unknown parameter colection"):
        next(searched(f"{api}/search?colection=naip"))
    assert _Api.asked == []
    with pytest.raises(SceneError, match="cannot be read"):
        next(searched("http://127.0.0.1:1/search?collections=naip"))


# Items of results -----------------------------------------------------------------------------------------------------


def report(river_tif: Path, **more: Any) -> dict[str, Any]:
    return {
        "geosam": "1.0", "scene": str(river_tif), "size_px": [200, 150], "gsd_m": 2.0, "crs": "EPSG:32610",
        "transform": list(GRID)[:6], "model": {"name": "river-tiny", "sha256": "0"}, "coarse": {"method": "ndwi"},
        "threshold": 0.5, "polygons": 1, "area_m2": 14400.0, **more,
    }  # fmt: skip


def valid(path: Path) -> pystac.Item:
    """An item that pystac reads, checked against STAC's own schema, offline."""
    schemas = get_local_schema_cache()
    registry: Any = Registry().with_resources([(uri, Resource.from_contents(one)) for uri, one in schemas.items()])
    [schema] = [one for uri, one in schemas.items() if uri.endswith("/item.json")]
    Draft7Validator(schema, registry=registry).validate(json.loads(path.read_text()))
    return pystac.Item.from_file(str(path))


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["segment", *map(str, words)], standalone_mode=True)
    return result.exit_code, result.output


def test_an_item_of_a_run_is_valid_and_names_files_that_are_there(
    single: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    extra = [word for name in ("probability", "mask") for word in (f"--{name}", out / f"{name}.tif")]
    code, output = run(
        f"stac:{single}", "--model", tiny_weights, "--stac", "--out", out / "rivers.gpkg", *extra, "--report",
        out / "report.json",
    )  # fmt: skip
    assert code == 0, output
    found = valid(out / "rivers.stac.json")
    assert found.id == "rivers"
    assert set(found.assets) == {"rivers", "probability", "mask", "report"}
    assert all(asset.href.startswith("./") and (out / asset.href).is_file() for asset in found.assets.values())
    assert found.properties["proj:code"] == "EPSG:32610"
    assert found.assets["mask"].extra_fields["proj:shape"] == [150, 200]
    with rasterio.open(out / "mask.tif") as mask:
        assert found.assets["mask"].extra_fields["proj:transform"] == list(mask.transform)[:6]
    assert list(found.properties["processing:software"]) == ["geosam"]
    scene = gpd.GeoSeries([shapely.box(450_000, 5_299_700, 450_400, 5_300_000)], crs="EPSG:32610").to_crs(4326)
    assert shapely.hausdorff_distance(shapely.geometry.shape(found.geometry), scene.iloc[0]) < 1e-6
    assert found.bbox == pytest.approx(scene.total_bounds, abs=1e-6)


def test_the_image_is_linked_from_where_the_item_stands(river_tif: Path, tmp_path: Path) -> None:
    result = tmp_path / "rivers.geojson"
    written = write_item(result, [report(river_tif)], {})
    document = json.loads(written.read_text())
    [link] = document["links"]
    assert link["rel"] == "derived_from"
    assert os.path.samefile(tmp_path / link["href"], river_tif)
    assert document["assets"]["rivers"] == {
        "href": "./rivers.geojson", "title": "River polygons", "type": "application/geo+json", "roles": ["data"],
        "proj:code": "EPSG:4326",
    }  # fmt: skip
    valid(written)
    with pytest.raises(OutputError, match="--overwrite"):
        write_item(result, [report(river_tif)], {})


@pytest.mark.parametrize("crs", [None, "EPSG:32610", "other"])
def test_scenes_without_a_code_or_a_crs_still_make_a_valid_item(
    crs: str | None, river_tif: Path, tmp_path: Path
) -> None:
    wkt = rasterio.crs.CRS.from_proj4("+proj=utm +zone=10 +ellps=bessel +units=m").to_wkt()
    used = wkt if crs == "other" else crs
    reports = [report(river_tif, crs=used, gsd_m=2.0 if used else None), report(river_tif, crs=used, scene="x.tif")]
    found = valid(write_item(tmp_path / f"{crs}.gpkg", reports, {}))
    assert (found.geometry is None) == (crs is None)
    assert found.properties["proj:code"] == ("EPSG:32610" if crs == "EPSG:32610" else None)
    assert ("proj:wkt2" in found.properties) == (crs == "other")
    assert found.properties["geosam:water_bodies"] == 2


def test_an_item_that_is_there_is_refused_before_the_run(river_tif: Path, tmp_path: Path) -> None:
    (tmp_path / "rivers.stac.json").write_text("mine")
    result = CliRunner().invoke(cli, ["segment", str(river_tif), "--stac", "--out", str(tmp_path / "rivers.gpkg")])
    assert isinstance(result.exception, OutputError)
    assert [path.name for path in tmp_path.iterdir()] == ["rivers.stac.json"]


def test_scenes_of_a_folder_get_an_item_and_a_style_each(river_tif: Path, tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.tif").write_bytes(river_tif.read_bytes())
    out = tmp_path / "out"
    code, output = run(tmp_path / "in", "--model", tiny_weights, "--stac", "--out", f"{out}/", "--mask", tmp_path / "m")
    assert code == 0, output
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}{suffix}" for name in ("a", "b") for suffix in (".geojson", ".qml", ".stac.json")
    ]
    found = valid(out / "a.stac.json")
    assert found.assets["mask"].href == "../m/a.tif"


# Styles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [WATER, Symbol("line", (1, 2, 3, 255), width_mm=0.5)])
def test_a_style_is_what_qgis_reads(symbol: Symbol) -> None:
    text = qml(symbol)
    assert text.startswith("<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n<qgis ")
    root = ElementTree.fromstring(text.split("\n", 1)[1])
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert renderer.get("type") == "singleSymbol"
    [one] = renderer.findall("symbols/symbol")
    [layer] = one.findall("layer")
    options = {option.get("name"): option.get("value") for option in layer.findall("Option[@type='Map']/Option")}
    assert (one.get("name"), one.get("type")) == ("0", symbol.kind)
    assert layer.get("class") == ("SimpleFill" if symbol.kind == "fill" else "SimpleLine")
    key = "color" if symbol.kind == "fill" else "line_color"
    assert options[key] == ",".join(map(str, symbol.colour))
    assert root.findtext("layerGeometryType") == ("2" if symbol.kind == "fill" else "1")


def test_a_style_by_the_values_of_a_column() -> None:
    wet, dry = Symbol("marker", (1, 2, 3, 255)), Symbol("marker", (9, 8, 7, 255), size_mm=4)
    root = ElementTree.fromstring(qml(Categories("label", {"water": wet, "dry & high": dry})).split("\n", 1)[1])
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "label")
    symbols = {one.get("name"): one for one in renderer.findall("symbols/symbol")}
    colours = {}
    for category in renderer.findall("categories/category"):
        layer = symbols[category.get("symbol")].find("layer")
        assert layer is not None
        assert layer.get("class") == "SimpleMarker"
        [colour] = [option.get("value") for option in layer.iter("Option") if option.get("name") == "color"]
        colours[category.get("value")] = colour
    assert colours == {"water": "1,2,3,255", "dry & high": "9,8,7,255"}
    assert root.findtext("layerGeometryType") == "0"


def test_a_style_that_a_person_made_is_left_alone(tmp_path: Path) -> None:
    result = tmp_path / "rivers.geojson"
    assert write_style(result) == tmp_path / "rivers.qml" == style_path(result)
    style_path(result).write_text("mine")
    assert write_style(result) is None
    assert style_path(result).read_text() == "mine"


@pytest.mark.parametrize("flag", [True, False])
def test_a_run_leaves_a_style_unless_told_not_to(
    flag: bool, river_tif: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = [
        river_tif,
        "--model",
        tiny_weights,
        "--out",
        tmp_path / "rivers.geojson",
        *([] if flag else ["--no-style"]),
    ]
    code, output = run(*words)
    assert code == 0, output
    assert (tmp_path / "rivers.qml").exists() == flag


# rio ------------------------------------------------------------------------------------------------------------------


def test_rio_has_geosam_with_all_its_verbs(river_tif: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    assert "geosam" in runner.invoke(main_group, ["--help"]).output
    told = runner.invoke(main_group, ["geosam", "--help"]).output
    assert all(f"  {verb} " in told for verb in cli.list_commands(None))  # type: ignore[arg-type]
    out = tmp_path / "coarse.tif"
    done = runner.invoke(main_group, ["geosam", "coarse", str(river_tif), "--out", str(out)])
    assert (done.exit_code, out.is_file()) == (0, True), done.output


def test_rio_gives_the_line_and_the_code_that_geosam_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["segment", str(tmp_path / "none.tif"), "--out", str(tmp_path / "o.gpkg")]
    by_rio = CliRunner().invoke(main_group, ["geosam", *words])
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert by_rio.exit_code == ended.value.code == 2
    assert by_rio.output.removeprefix("Error: ") == capsys.readouterr().err.removeprefix("geosam: ")


def test_items_without_a_search_are_walked_without_pystac(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pystac_client", None)
    assert len(list(items(str(single)))) == 1
    with pytest.raises(SceneError, match=r"geosam-rivers\[stac\]"):
        next(searched("https://host/search?collections=x"))
