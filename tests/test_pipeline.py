"""The whole way, with a model whose answer is known: water is what is dark."""

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch

import geosam
from geosam.errors import OptionsError, OutputError
from geosam.options import SegmentOptions
from geosam.pipeline import at_working_gsd, segment, without_specks
from geosam.pipeline.many import segment_many
from geosam.scene import Scene


class DarkIsWater:
    """A model that knows no prompt matters: water where the mean of red, green and blue is under 100."""

    name, tile_px, sha256, threshold = "dark", 64, "0" * 64, 0.5
    device, dtype = torch.device("cpu"), torch.float32
    understands = frozenset({"points", "mask", "none"})

    def __init__(self, fail_on=()):
        self.calls, self.fail_on = 0, set(fail_on)

    def embed(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 64, 64)
        self.calls += 1
        if self.calls in self.fail_on:
            raise KeyboardInterrupt
        return images

    def decode(self, embeddings, prompts):
        assert len(prompts) == len(embeddings)
        return torch.where(embeddings.float().mean(dim=1) < 100, 8.0, -8.0)


def options(**stages):
    return SegmentOptions.from_mapping(stages)


def test_the_river_is_found_where_it_is(river_tif):
    result = segment(river_tif, model=DarkIsWater())
    assert len(result.polygons) == 1
    river = result.polygons.iloc[0]
    assert river.geometry.bounds == pytest.approx((450_120, 5_299_700, 450_168, 5_300_000))
    # A UTM metre at this easting is 0.9996 of a metre on the ground.
    assert river.area_m2 == pytest.approx(48 * 300 / 0.9996**2, rel=1e-3)
    assert river.probability == pytest.approx(1, abs=0.01)
    assert (river.scene, river.model) == ("river", "dark")
    assert result.failed_tiles == 0


def test_dry_tiles_do_not_run(river_tif):
    result = segment(river_tif, options(tiles={"overlap_px": 0}), model=DarkIsWater())
    tiles = result.report["tiles"]
    assert tiles["total"] == 12
    assert tiles["dry"] == 6
    assert tiles["run"] == 6


def test_every_output_agrees_with_every_other(river_tif, tmp_path):
    names = {name: tmp_path / name for name in ("r.gpkg", "p.tif", "m.tif", "r.json")}
    result = segment(
        river_tif, out=names["r.gpkg"], probability=names["p.tif"], mask=names["m.tif"], report=names["r.json"],
        model=DarkIsWater(),
    )  # fmt: skip
    with rasterio.open(names["p.tif"]) as p, rasterio.open(names["m.tif"]) as m, rasterio.open(river_tif) as scene:
        assert p.transform == m.transform == scene.transform
        assert p.crs == m.crs == scene.crs
        assert np.array_equal(p.read(1) > 0.5, m.read(1) == 1)
        assert (m.read(1)[:, 60:84] == 1).all()
    assert gpd.read_file(names["r.gpkg"]).area.sum() == pytest.approx(result.polygons.area.sum())
    assert json.loads(names["r.json"].read_text()) == json.loads(json.dumps(result.report))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_geojson_is_in_longitude_and_latitude(river_tif, tmp_path):
    segment(river_tif, out=tmp_path / "r.geojson", model=DarkIsWater())
    bounds = json.loads((tmp_path / "r.geojson").read_text())["features"][0]["geometry"]["coordinates"][0]
    lon, lat = np.array(bounds).T
    assert ((lon > -123.7) & (lon < -123.6)).all()
    assert ((lat > 47.8) & (lat < 47.9)).all()


def test_a_killed_run_goes_on_and_gives_the_same_bytes(river_tif, tmp_path):
    whole, broken = tmp_path / "whole.tif", tmp_path / "broken.tif"
    single = options(model={"batch_size": 1})
    segment(river_tif, single, out=tmp_path / "a.gpkg", probability=whole, model=DarkIsWater())
    with pytest.raises(KeyboardInterrupt):
        segment(river_tif, single, out=tmp_path / "b.gpkg", probability=broken, model=DarkIsWater(fail_on={5}))
    assert not broken.exists()
    assert not (tmp_path / "b.gpkg").exists()
    again = DarkIsWater()
    segment(river_tif, single, out=tmp_path / "b.gpkg", probability=broken, model=again, resume=True)
    fresh = DarkIsWater()
    segment(river_tif, single, model=fresh)
    assert again.calls < fresh.calls
    assert whole.read_bytes() == broken.read_bytes()


def test_rgb_alone_goes_by_colour(river_tif):
    rgb = options(scene={"bands": "red=1,green=2,blue=3"})
    coarse = segment(river_tif, rgb, model=DarkIsWater()).report["coarse"]
    assert coarse["method"] == "rgb"
    assert coarse["water_fraction"] == pytest.approx(24 / 200, abs=0.02)


def test_the_model_is_asked_for_the_first_guess_where_that_is_wanted(river_tif):
    asked = options(scene={"bands": "red=1,green=2,blue=3"}, coarse={"method": "learned"})
    coarse = segment(river_tif, asked, model=DarkIsWater()).report["coarse"]
    assert coarse["method"] == "learned"
    assert coarse["water_fraction"] == pytest.approx(24 / 200, abs=0.01)


def test_a_large_scene_of_colours_alone_is_looked_at_by_the_model(river_tif, monkeypatch):
    """Unless it has infrared, a rule's threshold is given, all tiles are run, or the model needs prompts."""
    rgb = {"scene": {"bands": "red=1,green=2,blue=3"}}

    def method(model, **asked):
        return segment(river_tif, options(**asked), model=model).report["coarse"]["method"]

    assert method(DarkIsWater(), **rgb) == "rgb"
    monkeypatch.setattr("geosam.pipeline.guess.LOOK_SIDE_PX", 100)
    assert method(DarkIsWater(), **rgb) == "learned"
    assert method(DarkIsWater(), **rgb, coarse={"method": "rgb"}) == "rgb"
    assert method(DarkIsWater(), **rgb, coarse={"threshold": 0.3}) == "rgb"
    assert method(DarkIsWater(), **rgb, tiles={"which": "all"}) == "rgb"
    assert method(DarkIsWater()).startswith("ndwi")
    prompted = DarkIsWater()
    prompted.understands = frozenset({"points", "mask"})
    assert method(prompted, **rgb) == "rgb"


def test_near_infrared_is_trusted_before_the_model(river_tif):
    coarse = segment(river_tif, model=DarkIsWater()).report["coarse"]
    assert coarse["method"].startswith("ndwi")
    assert coarse["reason"]


def test_no_water_is_an_empty_valid_result(river_tif, tmp_path):
    dry = options(coarse={"method": "ndwi", "threshold": 0.99})
    result = segment(river_tif, dry, out=tmp_path / "r.geojson", model=DarkIsWater())
    assert len(result.polygons) == 0
    assert json.loads((tmp_path / "r.geojson").read_text())["features"] == []
    assert result.report["tiles"]["run"] == 0


def test_an_existing_output_stays_as_it_is(river_tif, tmp_path):
    (tmp_path / "r.gpkg").write_text("precious")
    with pytest.raises(OutputError, match="overwrite"):
        segment(river_tif, out=tmp_path / "r.gpkg", model=DarkIsWater())
    assert (tmp_path / "r.gpkg").read_text() == "precious"


def test_two_outputs_of_one_path_are_refused(river_tif, tmp_path):
    with pytest.raises(OptionsError, match="same path"):
        segment(river_tif, probability=tmp_path / "x.tif", mask=tmp_path / "x.tif", model=DarkIsWater())


def test_an_array_is_a_scene_too(river_tif):
    import rioxarray

    with rioxarray.open_rasterio(river_tif) as array:
        from_array = segment(array, options(scene={"bands": "red=1,green=2,blue=3,nir=4"}), model=DarkIsWater())
    from_file = segment(river_tif, model=DarkIsWater())
    assert from_array.polygons.geometry.iloc[0].equals(from_file.polygons.geometry.iloc[0])


@pytest.mark.parametrize(("gsd", "side", "wanted"), [("native", 4000, 0.05), (0.2, 4000, 0.2), ("auto", 8192, 0.25)])
def test_the_working_resolution_is_as_asked(tmp_path, gsd, side, wanted):
    scene = fine_scene(tmp_path, side)
    assert at_working_gsd(scene, options(scene={"gsd": gsd}).scene).gsd_m == pytest.approx(wanted, rel=0.05)


def test_auto_keeps_a_small_scene_as_fine_as_it_is(tmp_path):
    scene = fine_scene(tmp_path, 500)
    assert at_working_gsd(scene, options().scene).shape == scene.shape


def test_auto_does_not_shrink_a_scene_below_what_a_model_needs_to_see(tmp_path):
    assert min(at_working_gsd(fine_scene(tmp_path, 900), options().scene).shape) == 512


def test_specks_are_dropped_unless_an_area_is_given(river_tif, tmp_path):
    scene = Scene.open(river_tif)
    assert without_specks(options().vector, scene).min_area_m2 == pytest.approx(25 * 4, rel=0.01)
    asked = options(vector={"min_area_m2": 0.0}).vector
    assert without_specks(asked, scene).min_area_m2 == 0


def fine_scene(folder, side):
    """A scene of 0.05 m pixels, as a VRT over nothing: only its header is read."""
    path = folder / "fine.tif"
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32610"}
    profile |= {"transform": rasterio.transform.from_origin(450_000, 5_300_000, 0.05, 0.05), "sparse_ok": True}
    with rasterio.open(path, "w", tiled=True, **profile) as out:
        out.write(np.full((3, 64, 64), 90, np.uint8), window=rasterio.windows.Window(0, 0, 64, 64))
    return Scene.open(path)


def test_of_several_scenes_a_bad_one_is_named_and_the_others_go_on(river_tif, tmp_path, tiny_weights):
    bad = tmp_path / "bad.tif"
    bad.write_text("no raster")
    said = []
    batch = segment_many(
        [str(river_tif), str(bad)], options(model={"name": str(tiny_weights)}), out=f"{tmp_path}/out/", tell=said.append
    )
    assert batch.failed
    assert list(batch.bad) == [str(bad)]
    assert any("bad.tif" in line for line in said)
    assert (tmp_path / "out" / "river.geojson").exists()


def test_several_scenes_in_one_file_are_told_apart_by_name(river_tif, tmp_path, tiny_weights):
    second = tmp_path / "other.tif"
    second.write_bytes(river_tif.read_bytes())
    everything = options(model={"name": str(tiny_weights)}, vector={"threshold": 1e-4})
    segment_many([str(river_tif), str(second)], everything, out=tmp_path / "all.gpkg")
    table = gpd.read_file(tmp_path / "all.gpkg")
    assert set(table["scene"]) == {"river", "other"}
    assert table["id"].is_unique
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_public_names_are_all_there():
    for name in geosam.__all__:
        assert getattr(geosam, name) is not None


class SeesLand(DarkIsWater):
    """A model that is sure there is no water anywhere."""

    def decode(self, embeddings, prompts):
        return torch.full((len(embeddings), 64, 64), -20.0)


def test_a_model_cannot_overrule_infrared_inside_a_river(river_tif):
    result = segment(river_tif, model=SeesLand())
    assert result.report["coarse"]["trust"] > 0
    assert len(result.polygons) == 1
    west, _, east, _ = result.polygons.total_bounds
    assert 450_120 < west < 450_132  # It may move the banks by a pixel or two.
    assert 450_156 < east < 450_168


def test_a_model_may_overrule_a_first_guess_from_colour(river_tif):
    rgb = options(scene={"bands": "red=1,green=2,blue=3"}, coarse={"method": "rgb"})
    assert segment(river_tif, rgb, model=SeesLand()).report["coarse"]["trust"] == 0
    assert len(segment(river_tif, rgb, model=SeesLand()).polygons) == 0
