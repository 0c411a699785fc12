"""Scores against hand-worked values and plain oracles; the rows of an image; files against files by strips."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from geosam.errors import DatasetError, OptionsError
from geosam.evaluate import DataSet, Ruler, Tally, Truth, check_rows, column_weighted_f1, compare, evaluate_model
from geosam.evaluate.picture import Case
from geosam.evaluate.rows import Runner, TruthSource, scene_of
from geosam.evaluate.samples import Sample, load_list
from geosam.evaluate.summary import Scored, summary
from geosam.evaluate.truth import centreline, edge
from geosam.options import SceneOptions, SegmentOptions

SIDE = 64


def square(top, left, size=20, side=SIDE):
    water = np.zeros((side, side), bool)
    water[top : top + size, left : left + size] = True
    return water


def truth(water, known=None, **ruler):
    return Truth(water, np.ones_like(water) if known is None else known, Ruler(**ruler))


# Pixels ---------------------------------------------------------------------------------------------------------------


def test_scores_of_a_hand_worked_case():
    water, found = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    water[0] = True  # Four wet pixels,
    found[0, 1:] = found[1, 1:3] = True  # three of them found, and two dry ones with them.
    tally = truth(water).measure(found)
    assert tally.counts() == {"tp": 3, "fp": 2, "fn": 1, "tn": 2, "thin_line_px": 0}
    scores = tally.scores()
    assert scores["iou"] == pytest.approx(3 / 6)
    assert scores["f1"] == pytest.approx(6 / 9)
    assert scores["precision"] == pytest.approx(3 / 5)
    assert scores["recall"] == pytest.approx(3 / 4)
    assert scores["accuracy"] == pytest.approx(5 / 8)
    assert scores["false_water"] == pytest.approx(2 / 4)
    assert scores["water_share"] == pytest.approx(4 / 8)


def test_nothing_against_nothing_is_perfect():
    dry = np.zeros((8, 8), bool)
    scores = truth(dry).measure(dry).scores()
    assert [scores[name] for name in ("iou", "f1", "precision", "recall", "boundary_f1", "accuracy")] == [1.0] * 6
    assert scores["thin_recall"] is None


def test_missing_everything_and_inventing_everything_score_zero():
    dry, wet = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    missed, invented = truth(wet).measure(dry), truth(dry).measure(wet)
    assert missed.iou == invented.iou == missed.f1 == invented.f1 == 0
    assert (missed.recall, missed.precision) == (0, None)
    assert (invented.recall, invented.precision) == (None, 0)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int8, (3, 9, 9), elements=st.integers(0, 1)))
def test_what_is_not_known_is_not_counted(layers):
    """Whatever is found there, only known pixels are in the counts, as a loop over them counts."""
    water, found, known = layers.astype(bool)
    tally = truth(water & known, known).measure(found, found.astype(np.float32))
    pairs = [(bool(w), bool(f)) for w, f, k in zip(water.flat, found.flat, known.flat, strict=True) if k]
    expected = [pairs.count(pair) for pair in ((True, True), (False, True), (True, False), (False, False))]
    assert [tally.tp, tally.fp, tally.fn, tally.tn] == expected
    assert tally.levels.sum() == known.sum()
    flipped = truth(water & known, known).measure(np.where(known, found, ~found))
    assert [flipped.tp, flipped.fp, flipped.fn, flipped.tn] == expected


def test_the_ancestors_score_does_not_punish_half_a_reach_missed():
    """Fault 1 of the ancestor: sklearn's weighted F1, arguments flipped, takes each column for a label."""
    water = np.zeros((10, 40), bool)
    water[4:7] = True
    half = water.copy()
    half[:, 20:] = False
    assert column_weighted_f1(water, half) == 1.0
    tally = truth(water).measure(half)
    assert tally.iou == pytest.approx(0.5)
    assert tally.f1 == pytest.approx(2 / 3)


def test_the_ancestors_score_of_a_hand_worked_case():
    water = np.array([[1, 1, 0], [1, 0, 0]], bool)
    found = np.array([[1, 0, 1], [0, 0, 1]], bool)
    # F1 of the columns: 2/3, 0, 0; their weights are the water found in them: 1, 0, 2.
    assert column_weighted_f1(water, found) == pytest.approx((2 / 3) / 3)
    assert column_weighted_f1(water, np.zeros_like(water)) == 0


# Boundaries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "tolerance", "expected"), [(3, 3, 1.0), (4, 3, None), (0, 0, 1.0), (30, 3, 0.0)])
def test_boundary_f1_of_a_shifted_square(shift, tolerance, expected):
    water, found = square(10, 10), square(10, 10 + shift)
    score = truth(water, tolerance_px=tolerance).measure(found).edges.f1
    if expected is None:  # By hand: of the 76 edge pixels the columns left and right lie 4 px off, but for their ends.
        mine, other = np.argwhere(edge(water, ~water)), np.argwhere(edge(found, ~found))
        near = (np.sqrt(((mine[:, None] - other[None]) ** 2).sum(-1)) <= tolerance).any(axis=1).mean()
        assert 0 < near < 1
        expected = near  # The two squares are mirror images, so precision equals recall.
    assert score == pytest.approx(expected)


def test_the_border_of_an_image_is_no_boundary():
    water = np.zeros((20, 20), bool)
    water[:, :8] = True
    found = edge(water, ~water)
    assert found.sum() == 20
    assert found[:, 7].all()


def test_a_tolerance_in_metres_goes_by_the_pixel_size():
    water, found, ruler = square(10, 10), square(10, 14), Ruler(tolerance_px=1, tolerance_m=2.0)
    known = np.ones_like(water)
    fine, coarse = (Truth(water, known, ruler, gsd).measure(found) for gsd in (0.5, 2.0))
    assert fine.edges_m.f1 == 1.0  # 2 m are 4 px
    assert coarse.edges_m.f1 == coarse.edges.f1 < 1  # 2 m are 1 px
    assert Truth(water, known, ruler).measure(found).edges_m is None


def test_a_bank_inside_a_doubtful_seam_is_found_within_the_seam_only():
    """Labels leave a seam at the banks: a line along its middle is right, one far off is not."""
    water, known = square(12, 12, 40), np.ones((SIDE, SIDE), bool)
    known[square(9, 9, 46) & ~square(15, 15, 34)] = False  # 3 px to either side of the bank
    label = truth(water & known, known, tolerance_px=3)
    assert label.measure(water).edges.f1 == 1.0
    assert label.measure(square(10, 10, 44)).edges.f1 > 0.98  # But for the corners.
    assert label.measure(square(2, 2, 60)).edges.f1 < 0.2


def test_no_boundary_is_made_up_deep_inside_what_is_not_known():
    water, known = np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)
    water[:, :20], known[:, 20:44] = True, False
    tally = truth(water, known).measure(water)
    assert (tally.edges.true, tally.edges.found, tally.edges.f1) == (0, 0, 1.0)


# Thin channels --------------------------------------------------------------------------------------------------------


def channel(width, side=SIDE):
    water = np.zeros((side, side), bool)
    water[20 : 20 + width] = True
    return water


@pytest.mark.parametrize(("width", "is_thin"), [(1, True), (4, True), (10, True), (11, False), (16, False)])
def test_channels_narrower_than_the_limit_are_thin(width, is_thin):
    line = centreline(channel(width), 11)
    assert line.any() == is_thin
    assert not is_thin or 40 <= line.sum() <= 66


def test_recall_of_half_a_thin_channel_is_a_half():
    water = channel(5) | square(40, 10)  # The wide pond beside it does not count.
    found = water.copy()
    found[:, :32] = False
    tally = truth(water).measure(found)
    assert tally.thin_recall == pytest.approx(0.5, abs=0.05)
    assert truth(square(10, 10, 30)).measure(square(10, 10, 30)).thin_recall is None


# Calibration ----------------------------------------------------------------------------------------------------------


def test_calibration_error_of_hand_worked_cases():
    water = np.zeros((10, 10), bool)
    water[:5] = True

    def measured(probability):
        everywhere = np.full((10, 10), probability, np.float32)
        return truth(water).measure(everywhere > 0.5, everywhere).ece

    assert measured(0.5) == pytest.approx(0)
    assert measured(1.0) == pytest.approx(0.5)
    assert measured(0.75) == pytest.approx(0.25)
    assert truth(water).measure(water).ece is None


def test_calibration_error_agrees_with_a_loop_over_bins():
    rng = np.random.default_rng(0)
    probability = (rng.integers(0, 257, (40, 40)) / 256).astype(np.float32)
    water = rng.random((40, 40)) < probability**2
    into = np.minimum((probability * 256).astype(int) * 15 // 256, 14)
    parts = [(into == k).mean() * abs(probability[into == k].mean() - water[into == k].mean()) for k in range(15)]
    assert truth(water).measure(water, probability).ece == pytest.approx(sum(parts), abs=1e-6)


# Sums and summaries ---------------------------------------------------------------------------------------------------


def scored(name, tally):
    return Scored(name, "", "auto", tally, 0.5)


def test_a_row_has_means_over_images_and_pooled_scores():
    images = [scored("a", Tally(tp=9, fn=1, tn=90)), scored("b", Tally(tp=1, fn=3, tn=6)), scored("dry", Tally(tn=100))]
    row = summary(images)
    assert row["n"] == 3
    assert row["iou_mean"] == pytest.approx((0.9 + 0.25 + 1) / 3)
    assert row["iou_median"] == pytest.approx(0.9)
    assert row["iou_q25"] == pytest.approx((0.25 + 0.9) / 2)
    assert row["failures"] == pytest.approx(1 / 3)
    assert row["pooled"]["iou"] == pytest.approx(10 / 14)
    assert row["wet"]["n"] == 2
    assert row["wet"]["iou_mean"] == pytest.approx((0.9 + 0.25) / 2)
    assert row["dry"] == {"n": 1, "false_water": 0.0}
    assert row["ece"] is None


def test_strips_with_a_halo_add_up_to_the_whole():
    rng = np.random.default_rng(3)
    smooth = np.asarray(Image.fromarray(rng.random((30, 10)).astype(np.float32)).resize((96, 300)))
    water, found = smooth > 0.5, np.roll(smooth, 2, axis=0) > 0.52
    known = np.ones_like(water)
    known[100:120, 30:60] = False
    whole = truth(water & known, known).measure(found)
    halo, total = Ruler().halo_px(None), Tally()
    for top in range(0, 300, 70):
        first, last = max(0, top - halo), min(300, top + 70 + halo)
        part = truth((water & known)[first:last], known[first:last])
        total += part.measure(found[first:last], rows=slice(top - first, min(top + 70, 300) - first))
    assert total.counts() == whole.counts() | {"thin_line_px": total.thin}
    assert total.edges == whole.edges
    assert total.thin == pytest.approx(whole.thin, rel=0.1)


# A model on images ----------------------------------------------------------------------------------------------------


def sample(gsd_m=None, shape=(90, 80)):
    rng = np.random.default_rng(1)
    rgb = rng.integers(90, 140, (*shape, 3), dtype=np.uint8)
    label = np.zeros(shape, np.uint8)
    label[:, 30:50], label[:, 28:30] = 255, 128
    rgb[:, 30:50] //= 3
    return Sample("made", "g", rgb, label, gsd_m)


@pytest.fixture(scope="module")
def model(tiny_weights):
    from geosam.models import load_model
    from geosam.options import ModelOptions

    return load_model(ModelOptions(name=str(tiny_weights), device="cpu"))


def test_every_row_is_on_the_grid_of_the_image(model, tmp_path):
    for gsd, working in ((None, "auto"), (0.5, 1.0)):
        options = SegmentOptions(scene=SceneOptions(gsd=working))
        found = Runner.of(model, options, tmp_path).rows(sample(gsd), ("coarse", "auto", "oracle", "none"))
        assert list(found) == ["coarse", "auto", "oracle", "none"]
        assert all(row.water.shape == (90, 80) for row in found.values())
        assert found["coarse"].method in ("rgb", "learned")
        assert found["coarse"].probability is None
        assert all(found[row].failed == 0 for row in found)


def test_the_automatic_row_is_what_segment_writes(model, tmp_path):
    """End to end means end to end: the probability equals that of ``geosam.segment`` on the same picture."""
    from geosam.pipeline import segment

    one, options = sample(0.5), SegmentOptions()
    found = Runner.of(model, options, tmp_path).rows(one, ("auto",))["auto"]
    path = tmp_path / "p.tif"
    segment(scene_of(one, options.scene), options, probability=path, model=model)
    with rasterio.open(path) as raster:
        assert np.array_equal(np.nan_to_num(raster.read(1)), found.probability)


def test_a_tile_is_encoded_once_for_all_rows(model, tmp_path, monkeypatch):
    calls = []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda images: calls.append(len(images)) or embed(images))
    Runner.of(model, SegmentOptions(), tmp_path).rows(sample(shape=(60, 60)), ("auto", "oracle", "none"))
    assert calls == [1]


def test_the_oracle_is_given_the_truth_and_no_dense_mask(model, tmp_path, monkeypatch):
    given_prompts = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda e, prompts: given_prompts.extend(prompts) or decode(e, prompts))
    one = sample(shape=(60, 60))
    Runner.of(model, SegmentOptions(), tmp_path).rows(one, ("oracle",))
    assert given_prompts
    for prompts in given_prompts:
        assert prompts.mask is None
        for (x, y), label in zip(prompts.points[0], prompts.labels[0], strict=True):
            assert one.label[int(y), int(x)] == (255 if label == 1 else 0)


def test_truth_as_a_coarse_mask_is_unknown_where_the_label_is():
    source = TruthSource.of(sample(), (90, 80))
    water, valid = source.read(Window(20, 60, 40, 40))
    assert water.shape == valid.shape == (40, 40)
    assert water[:30, 10:30].all()
    assert not valid[:, 8:10].any()
    assert not valid[30:].any()


def test_a_model_that_needs_prompts_has_no_row_without(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "understands", frozenset({"points", "boxes"}))
    found = Runner.of(model, SegmentOptions(), tmp_path).rows(sample(), ("coarse", "auto", "oracle", "none"))
    assert list(found) == ["coarse", "auto", "oracle"]
    assert found["coarse"].method != "learned"


def test_unknown_rows_are_refused():
    assert check_rows(["none", "auto"]) == ("auto", "none")
    with pytest.raises(OptionsError, match="'best'"):
        check_rows(["best"])


# Data sets ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(6):
        one = sample()
        Image.fromarray(one.rgb).save(tmp_path / "images" / f"t{number}.png")
        Image.fromarray(one.label).save(tmp_path / "masks" / f"t{number}.png")
    lines = [f"t{number},{'AB'[number % 2]},{'dev' if number < 3 else 'train'}" for number in range(6)]
    (tmp_path / "index.csv").write_text("\n".join(["file,group,split", *lines]))
    return tmp_path


def names(folder, **options):
    return [pair.name for pair in DataSet(folder=str(folder), **options).open()]


def test_a_data_set_can_be_narrowed(folder):
    assert names(folder, splits=("dev",)) == ["t0", "t1", "t2"]
    assert names(folder, groups=("B",)) == ["t1", "t3", "t5"]
    assert names(folder, names="t[45]") == ["t4", "t5"]
    assert names(folder, limit=3) == ["t0", "t2", "t4"]
    assert names(folder, splits=("all",)) == names(folder)
    assert names(folder, splits=("validation",)) == ["t0", "t1", "t2"]  # Which the index calls dev.
    with pytest.raises(DatasetError, match=r"left of split test, .*there are splits dev, train and groups A, B"):
        names(folder, splits=("test",))


def test_the_worst_images_fill_the_room_that_the_picture_has():
    for shape in ((90, 80), (1800, 1600)):
        one = sample(shape=shape)
        assert {max(panel.size) for panel in Case.of(one, one.water, "one").panels} == {320}


def test_images_without_water_belong_to_no_split(folder):
    (folder / "negatives").mkdir()
    Image.fromarray(sample().rgb).save(folder / "negatives" / "dry.png")
    assert "dry" in names(folder)
    assert "dry" not in names(folder, splits=("dev",))
    assert "dry" not in names(folder, negatives=False)


def test_images_named_after_their_labels_are_paired(folder):
    for path in (folder / "images").iterdir():
        path.rename(path.with_name(f"{path.stem}_rgb.png"))
    assert names(folder, image_suffix="_rgb") == [f"t{number}" for number in range(6)]
    with pytest.raises(DatasetError, match="_nir"):
        names(folder, image_suffix="_nir")


def raster(path, values, gsd=1.0, left=500_000.0, top=5_000_000.0, crs="EPSG:32631", **profile):
    values = np.atleast_3d(values.T).T if values.ndim == 2 else values
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    with rasterio.open(
        path, "w", driver="GTiff", crs=crs, transform=from_origin(left, top, gsd, gsd), **shape, **profile
    ) as out:
        out.write(values)
    return path


def test_bands_are_chosen_and_pixel_sizes_read_from_geotiffs(folder):
    bands = np.stack([np.full((90, 80), value, np.uint8) for value in (1, 2, 3, 4)])
    raster(folder / "images" / "t0.tif", bands, gsd=5.0)
    (folder / "images" / "t0.png").unlink()
    dataset = DataSet(folder=str(folder), names="t0", bands=(3, 4, 4), columns=(0.5, 1.0))
    one = dataset.read(dataset.open()[0])
    assert one.rgb.shape == (90, 40, 3)
    assert one.rgb[0, 0].tolist() == [3, 4, 4]
    assert one.gsd_m == pytest.approx(5.0, rel=0.01)
    few = dataset.model_copy(update={"bands": (3, 4, 5)})
    with pytest.raises(DatasetError, match="4 bands"):
        few.read(few.open()[0])


def test_made_tiles_need_no_folder(model):
    dataset = DataSet(folder="synth", seeds=(9_000_000, 9_000_002), side=64, gsds_m=(0.5,))
    result = evaluate_model(dataset, model, rows=("auto",))
    assert [image.name for image in result.images] == ["synth_9000000", "synth_9000001"]
    assert result.rows["auto"]["n"] == 2


def test_the_list_of_dev_sets_can_be_read():
    from pathlib import Path

    sets = load_list(Path(__file__).parent.parent / "configs" / "evaluate" / "dev.toml")
    assert len({dataset.title for dataset in sets}) == len(sets) == 8


# A result against a reference -----------------------------------------------------------------------------------------


def river(side=120, left=40, width=20):
    water = np.zeros((side, side), np.uint8)
    water[:, left : left + width] = 1
    return water


def test_a_mask_against_a_mask_of_another_coding(tmp_path):
    label = np.where(river() == 1, np.uint8(255), np.uint8(0))
    label[:10] = 128
    done = compare(raster(tmp_path / "p.tif", river(left=45), nodata=255), raster(tmp_path / "r.tif", label))
    assert done.tally.tp == 15 * 110
    assert done.tally.fp == done.tally.fn == 5 * 110
    assert done.tally.known == 120 * 110
    assert done.report()["iou"] == pytest.approx(15 / 25)
    assert done.not_predicted == 0


def test_a_probability_has_a_threshold_and_a_calibration(tmp_path):
    probability = np.where(river() == 1, np.float32(0.75), np.float32(0.25))
    probability[:, :20] = np.nan
    paths = raster(tmp_path / "p.tif", probability, nodata=np.nan), raster(tmp_path / "r.tif", river())
    done = compare(*paths)
    assert done.tally.iou == 1
    assert done.tally.ece == pytest.approx(0.25)
    assert done.not_predicted == pytest.approx(20 / 120)
    assert "17%" in done.warnings[0]
    assert compare(*paths, threshold=0.8).tally.iou == 0


def test_a_prediction_on_another_grid_and_in_another_crs_is_brought_to_the_reference(tmp_path):
    reference = raster(tmp_path / "r.tif", river())
    fine = raster(tmp_path / "fine.tif", np.repeat(np.repeat(river(), 4, 0), 4, 1), gsd=0.25)
    assert compare(fine, reference).tally.iou == 1
    shifted = raster(tmp_path / "off.tif", river(left=20), left=500_020.0)
    done = compare(shifted, reference)
    assert done.tally.iou == 1
    assert done.not_predicted == pytest.approx(20 / 120)
    turned = tmp_path / "lonlat.tif"
    with rasterio.open(reference) as source, rasterio.vrt.WarpedVRT(source, crs="EPSG:4326", nodata=255) as warped:
        values, profile = warped.read(1), warped.profile
    profile.update(driver="GTiff", nodata=255)
    with rasterio.open(turned, "w", **profile) as out:
        out.write(values, 1)
    assert compare(turned, reference).tally.iou > 0.93


def vector(path, *boxes, crs="EPSG:32631"):
    import geopandas
    from shapely.geometry import box

    geopandas.GeoDataFrame(geometry=[box(*bounds) for bounds in boxes], crs=crs).to_file(path)
    return path


def test_polygons_against_a_raster_and_a_raster_against_polygons(tmp_path):
    polygons = vector(tmp_path / "p.gpkg", (500_040, 4_999_880, 500_060, 5_000_000))
    mask = raster(tmp_path / "r.tif", river())
    assert compare(polygons, mask).tally.counts() == compare(mask, polygons).tally.counts()
    assert compare(polygons, mask).tally.tp == 20 * 120
    assert compare(polygons, mask).tally.edges.f1 == 1


def test_two_vector_files_are_compared_by_their_areas(tmp_path):
    import geopandas

    true = vector(tmp_path / "r.gpkg", (500_000, 4_999_800, 500_100, 5_000_000))
    found = vector(
        tmp_path / "p.gpkg", (500_050, 4_999_800, 500_150, 5_000_000), (500_060, 4_999_900, 500_070, 4_999_910)
    )
    geopandas.read_file(found).to_crs("EPSG:4326").to_file(tmp_path / "p.geojson")
    for path in (found, tmp_path / "p.geojson"):
        report = compare(path, true, pixel_m=1.0, ruler=Ruler(tolerance_m=2.0)).report()
        assert report["iou"] == pytest.approx(1 / 3, rel=1e-3)
        assert report["precision"] == pytest.approx(0.5, rel=1e-3)
        assert report["areas_m2"]["reference"] == pytest.approx(20_000, rel=1e-2)
        assert report["grid"]["gsd_m"] == pytest.approx(1.0, rel=1e-2)
        assert 0.15 < report["boundary_f1_m"] < 0.25  # Half of two short sides of four: 100 m of 600.
        assert report["accuracy"] is None


def test_polygons_of_another_place_are_doubted(tmp_path):
    here = vector(tmp_path / "here.gpkg", (500_040, 4_999_880, 500_060, 5_000_000))
    away = vector(tmp_path / "away.gpkg", (700_040, 4_999_880, 700_060, 5_000_000))
    mask = raster(tmp_path / "r.tif", river())
    for prediction, reference, said in ((away, mask, away), (mask, away, away), (away, here, away), (here, away, here)):
        done = compare(prediction, reference, pixel_m=100.0)
        assert done.report()["iou"] == 0
        assert done.warnings[0].startswith(f"no polygon of {said} lies on the ground of")
    assert not compare(here, mask).warnings


def test_metres_that_are_called_degrees_are_refused(tmp_path):
    here = vector(tmp_path / "here.gpkg", (500_040, 4_999_880, 500_060, 5_000_000))
    metres = vector(tmp_path / "metres.geojson", (500_040, 4_999_880, 500_060, 5_000_000), crs="EPSG:4326")
    for prediction, reference in ((metres, here), (here, metres), (metres, raster(tmp_path / "r.tif", river()))):
        with pytest.raises(DatasetError, match=r"metres.geojson is said to be in degrees .*begin at 500040, 4999880"):
            compare(prediction, reference)


def test_an_empty_result_is_a_result(tmp_path):
    import geopandas

    empty = tmp_path / "none.gpkg"
    geopandas.GeoDataFrame(geometry=geopandas.GeoSeries([], crs="EPSG:32631")).to_file(empty)
    assert compare(empty, raster(tmp_path / "dry.tif", np.zeros((40, 40), np.uint8))).tally.iou == 1
    assert compare(empty, raster(tmp_path / "wet.tif", river())).tally.iou == 0
    assert compare(empty, empty).report()["iou"] == 1


def test_strips_give_what_one_pass_gives(tmp_path):
    rng = np.random.default_rng(5)
    smooth = np.asarray(Image.fromarray(rng.random((25, 8)).astype(np.float32)).resize((90, 260))).clip(0, 1)
    found = raster(tmp_path / "p.tif", np.roll(smooth, 3, axis=1))
    label = raster(tmp_path / "r.tif", (smooth > 0.5).astype(np.uint8))
    whole, parts = compare(found, label), compare(found, label, strip_px=90 * 37)
    assert parts.tally.edges == whole.tally.edges
    assert parts.tally.ece == whole.tally.ece
    assert parts.column_weighted_f1 == whole.column_weighted_f1
    assert [parts.tally.tp, parts.tally.fp] == [whole.tally.tp, whole.tally.fp]


def test_rasters_without_crs_are_compared_pixel_by_pixel(tmp_path):
    one, other, small = (tmp_path / name for name in ("one.tif", "other.tif", "small.tif"))
    for path, values in ((one, river()), (other, river(left=45)), (small, river(side=100))):
        Image.fromarray(values).save(path)
    assert compare(one, other).tally.iou == pytest.approx(15 / 25)
    with pytest.raises(DatasetError, match="100 x 100 px"):
        compare(small, one)


def test_what_cannot_be_compared_is_named(tmp_path):
    good = raster(tmp_path / "good.tif", river())
    Image.fromarray(river()).save(tmp_path / "bare.tif")
    polygons = vector(tmp_path / "p.gpkg", (500_040, 4_999_880, 500_060, 5_000_000))
    for pair in ((tmp_path / "bare.tif", polygons), (polygons, tmp_path / "bare.tif")):
        with pytest.raises(DatasetError, match=r"bare.tif has no CRS"):
            compare(*pair)
    (tmp_path / "text.tif").write_text("no raster")
    bad = {
        "nowhere.tif": (tmp_path / "nowhere.tif", "does not exist"),
        "text": (tmp_path / "text.tif", "neither a raster nor a vector"),
        "classes": (raster(tmp_path / "classes.tif", river() * 7), "values \\[7\\]"),
        "both": (raster(tmp_path / "both.tif", np.where(river() == 1, 1, 255).astype(np.uint8)), "both 1 and 255"),
        "metres": (raster(tmp_path / "metres.tif", river().astype(np.float32) * 900), "0 to 900"),
        "elsewhere": (raster(tmp_path / "far.tif", river(), left=800_000.0), "overlap"),
    }
    for path, message in bad.values():
        with pytest.raises(DatasetError, match=message) as error:
            compare(path, good)
        assert "\n" not in str(error.value)
