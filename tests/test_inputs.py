"""What a user may name instead of one raster: folders, lists, STAC documents."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest

from geosam.errors import OptionsError, SceneError
from geosam.options import SegmentOptions
from geosam.pipeline.inputs import Source, sources
from geosam.pipeline.many import segment_many


def paths(*inputs: str | Path, asset: str | None = None) -> list[str]:
    return [os.path.normpath(source.path) for source in sources([str(one) for one in inputs], asset)]


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def item(name: str, **assets: Any) -> dict[str, Any]:
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "assets": assets, "links": []}


def picture(href: str, roles: tuple[str, ...] = ("data",), **more: Any) -> dict[str, Any]:
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    return {"href": href, "type": kind, "roles": list(roles), **more}


def test_rasters_urls_and_gdal_names_are_taken_as_they_are() -> None:
    inputs = ["a.tif", "https://host/a.tif?key=1", "/vsizip/a.zip/b.tif", "GTIFF_DIR:2:a.tif", "s3://bucket/a.tif"]
    assert sources(inputs) == [Source(one) for one in inputs]


@pytest.mark.parametrize("by", ["path", "URL"])
def test_a_folder_stands_for_its_rasters_in_order(by: str, tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIFF", "c.jp2", "notes.md", "a.tif.aux.xml"):
        (tmp_path / name).touch()
    found = paths(tmp_path) if by == "path" else paths(f"{tmp_path.as_uri()}/")
    assert [Path(path).name for path in found] == ["a.TIFF", "b.tif", "c.jp2"]


def test_a_list_names_scenes_beside_it_and_elsewhere(tmp_path: Path) -> None:
    listed = write(tmp_path / "l.txt", "# flights\n\nday1/a.tif\n/data/b.tif\ns3://bucket/c.tif\nmore.txt\n")
    write(tmp_path / "more.txt", "d.tif\n")
    assert paths(listed) == [
        f"{tmp_path}/day1/a.tif", "/data/b.tif", os.path.normpath("s3://bucket/c.tif"), f"{tmp_path}/d.tif",
    ]  # fmt: skip


def test_a_catalogue_is_walked_down_to_its_items_once(tmp_path: Path) -> None:
    down = [{"rel": "self", "href": "x"}, {"rel": "root", "href": "../c.json"}, {"rel": "child", "href": "../c.json"}]
    top = {"type": "Catalog", "links": [{"rel": "child", "href": "./one/c.json"}, {"rel": "item", "href": "i.json"}]}
    write(tmp_path / "c.json", top)
    write(tmp_path / "i.json", item("first", image=picture("i.tif")))
    write(tmp_path / "one" / "c.json", {"type": "Collection", "links": [*down, {"rel": "item", "href": "j.json"}]})
    write(tmp_path / "one" / "j.json", item("second", image=picture("../j.tif")))
    assert [source.name for source in sources([str(tmp_path / "c.json")])] == ["first", "second"]
    assert paths(tmp_path / "c.json") == [f"{tmp_path}/i.tif", f"{tmp_path}/j.tif"]


def test_the_result_of_a_search_goes_on_to_its_next_page(tmp_path: Path) -> None:
    first = {"type": "FeatureCollection", "features": [item("a", image=picture("https://host/a.tif"))]}
    write(tmp_path / "1.json", {**first, "links": [{"rel": "next", "href": "2.json"}, {"rel": "self", "href": "1"}]})
    write(tmp_path / "2.json", {"type": "FeatureCollection", "features": [item("b", image=picture("/vsis3/b.tif"))]})
    found = sources([str(tmp_path / "1.json")])
    assert found == [Source("https://host/a.tif", "a"), Source("/vsis3/b.tif", "b")]


def test_the_image_of_an_item_is_its_first_geotiff_of_three_bands_or_more(tmp_path: Path) -> None:
    bands = {"eo:bands": [{"name": "B04"}]}
    assets = {
        "metadata": {"href": "m.xml", "type": "application/xml", "roles": ["data"]},
        "thumbnail": picture("t.tif", ("thumbnail",)),
        "B04": picture("red.tif", **bands),
        "visual": picture("v.tif", ("visual",), **{"eo:bands": [{}, {}, {}]}),
        "analytic": picture("a.tif"),
    }
    path = write(tmp_path / "i.json", item("s2", **assets))
    assert paths(path) == [f"{tmp_path}/v.tif"]
    assert paths(path, asset="B04") == [f"{tmp_path}/red.tif"]
    with pytest.raises(SceneError, match="no asset nir; it has metadata, thumbnail, B04"):
        paths(path, asset="nir")
    with pytest.raises(SceneError, match="--asset"):
        paths(write(tmp_path / "j.json", item("none", thumbnail=assets["thumbnail"])))


@pytest.mark.parametrize(
    ("base", "href", "wanted"),
    [
        ("s3://bucket/c/catalog.json", "./x/i.json", "s3://bucket/c/x/i.json"),
        ("https://host/c/catalog.json", "../i.tif", "https://host/i.tif"),
        ("https://host/c/catalog.json", "/i.tif", "https://host/i.tif"),
        ("/a/catalog.json", "file:///b/i.tif", "/b/i.tif"),
    ],
)
def test_an_address_is_meant_as_seen_from_its_document(base: str, href: str, wanted: str) -> None:
    from geosam.pipeline.inputs import beside

    assert beside(base, href) == wanted


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("missing.json", None, "does not exist"),
        ("missing.txt", None, "does not exist"),
        ("bad.json", "{", "not JSON"),
        ("list.json", "[]", "no STAC"),
        ("other.json", '{"type": "Topology"}', "no STAC"),
        ("empty.json", '{"type": "Catalog", "links": []}', "holds no STAC items"),
        ("empty.txt", "# nothing\n", "names no scene"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, text: str | None, word: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(SceneError, match=word) as told:
        paths(tmp_path / name)
    assert name in str(told.value)
    assert "\n" not in str(told.value)


def test_scenes_of_a_catalogue_are_called_by_their_items(river_tif: Path, tiny_weights: Path, tmp_path: Path) -> None:
    features = [item(name, image=picture(str(river_tif))) for name in ("may", "june")]
    catalogue = write(tmp_path / "c.json", {"type": "FeatureCollection", "features": features})
    options = SegmentOptions.from_mapping({"model": {"name": str(tiny_weights)}, "vector": {"threshold": 1e-4}})
    segment_many([str(catalogue)], options, out=tmp_path / "all.gpkg")
    assert set(gpd.read_file(tmp_path / "all.gpkg")["scene"]) == {"may", "june"}
    with pytest.raises(OptionsError, match="two inputs are called june"):
        segment_many([str(catalogue), str(catalogue)], options, out=tmp_path / "twice.gpkg")


def test_resume_leaves_scenes_that_are_finished(river_tif: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = SegmentOptions.from_mapping({"model": {"name": str(tiny_weights)}})
    other = tmp_path / "other.tif"
    other.write_bytes(river_tif.read_bytes())
    out = tmp_path / "out"
    segment_many([str(river_tif)], options, out=f"{out}/")
    before = (out / "river.geojson").stat()
    batch = segment_many([str(river_tif), str(other)], options, out=f"{out}/", resume=True)
    assert batch.kept == [out / "river.geojson"]
    assert list(batch.done) == [str(other)]
    assert not batch.failed
    assert (out / "river.geojson").stat() == before


def test_resume_takes_finished_parts_of_one_file_as_they_are(
    river_tif: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SegmentOptions.from_mapping({"model": {"name": str(tiny_weights)}, "vector": {"threshold": 1e-4}})
    scenes = [tmp_path / f"{name}.tif" for name in ("a", "b")]
    for scene in scenes:
        scene.write_bytes(river_tif.read_bytes())
    inputs, whole, broken = [str(scene) for scene in scenes], tmp_path / "whole.geojson", tmp_path / "broken.geojson"
    segment_many(inputs, options, out=whole)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "coarse" and (tmp_path / ".broken.geojson.parts" / "a.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_many(inputs, options, out=broken, progress=stop)
    real, opened = segment_many.__globals__["segment"], []
    monkeypatch.setitem(
        segment_many.__globals__, "segment", lambda scene, *a, **k: (opened.append(scene), real(scene, *a, **k))[1]
    )
    segment_many(inputs, options, out=broken, resume=True)
    assert opened == inputs[1:]
    assert broken.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif", "broken.geojson", "whole.geojson"]
