"""Scores of whole scenes agree with torchmetrics and with searching for objects one by one; what cannot be evaluated is refused."""

import warnings
from dataclasses import replace

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import scipy.optimize
import shapely
import torch
import torchmetrics.functional.classification as tm
import xarray as xr
from pyproj import Geod

import rtsx
from rtsx.errors import BundleError, EvaluationError, FootprintError, LabelDateWarning, TruthWarning
from rtsx.evaluation import Evaluation, EvaluationScene, choose_objects
from rtsx.evaluation.scoring import _label_years
from rtsx.footprints.schema import stated_years
from rtsx.inference.plan import PredictionPlan
from rtsx.labels import StubLabelRaster, rasterize_labels
from rtsx.model import ModelBundle, OutlineChoice
from tests.evaluation.scenes import make_prediction, make_scene, random_case


def target_of(truth, valid, number=1):
    counted = valid & (truth != 255)
    return torch.where(torch.as_tensor(counted), torch.as_tensor(truth == number).long(), -1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_scores_are_those_of_torchmetrics(seed, dtype):
    level, truth, valid = random_case(seed)
    row = rtsx.evaluate(make_prediction(level, valid=valid, dtype=dtype), StubLabelRaster(truth)).pooled.iloc[0]
    found, target = torch.as_tensor(level / 100), target_of(truth, valid)
    hard = (found >= 0.5).long()
    assert row["iou"] == pytest.approx(float(tm.binary_jaccard_index(hard, target, ignore_index=-1)), abs=1e-6)
    assert row["precision"] == pytest.approx(float(tm.binary_precision(hard, target, ignore_index=-1)), abs=1e-6)
    assert row["recall"] == pytest.approx(float(tm.binary_recall(hard, target, ignore_index=-1)), abs=1e-6)
    assert row["f1"] == pytest.approx(float(tm.binary_f1_score(hard, target, ignore_index=-1)), abs=1e-6)
    expected = float(tm.binary_average_precision(found, target, ignore_index=-1))
    assert row["average_precision"] == pytest.approx(expected, abs=1e-6)
    counted = valid & (truth != 255)
    assert row["evaluated_px"] == counted.sum()
    assert row["target_px"] == (truth == 1)[counted].sum()


def test_several_classes_have_scores_each_and_a_mean():
    level, truth, valid = random_case(7, classes=3)
    names = ("background", "slump", "pond", "scar")
    pred = make_prediction(np.concatenate([100 - level.max(0, keepdims=True), level]), valid=valid, classes=names)
    table = rtsx.evaluate(pred, StubLabelRaster(truth, classes=names[1:]), threshold=0.5).pooled.set_index("class")
    assert table.index.tolist() == ["slump", "pond", "scar", "mean"]
    for number, name in enumerate(names[1:], 1):
        hard = torch.as_tensor(level[number - 1] >= 50).long()
        expected = float(tm.binary_jaccard_index(hard, target_of(truth, valid, number), ignore_index=-1))
        assert table.loc[name, "iou"] == pytest.approx(expected, abs=1e-6)
    assert table.loc["mean", "iou"] == pytest.approx(table["iou"].iloc[:3].mean())
    only = rtsx.evaluate(pred, StubLabelRaster(truth, classes=names[1:]), threshold=0.5, classes=["pond"]).pooled
    assert only["class"].tolist() == ["pond"]
    assert only["iou"].iloc[0] == table.loc["pond", "iou"]


def test_a_class_that_does_not_occur_is_not_in_the_mean():
    level = np.zeros((2, 4, 4), int)
    level[0, :2] = 90
    truth = np.zeros((4, 4), np.uint8)
    truth[:3] = 1
    table = rtsx.evaluate(make_prediction(level, classes=("a", "b")), StubLabelRaster(truth, classes=("a", "b"))).pooled
    assert table["iou"].round(4).tolist() == [0.6667, 1.0, 0.6667]


def test_the_prediction_decides_unless_there_is_a_threshold():
    level, truth, valid = random_case(3)
    pred = make_prediction(level, valid=valid)
    other = pred.assign(binary=(("y", "x"), np.where(valid, level >= 70, 255).astype("uint8")))
    at_70 = rtsx.evaluate(pred, StubLabelRaster(truth), threshold=0.7).pooled
    assert rtsx.evaluate(other, StubLabelRaster(truth)).pooled.equals(at_70)
    assert not rtsx.evaluate(pred, StubLabelRaster(truth)).pooled.equals(at_70)


def test_a_mask_alone_has_no_scores_of_probability():
    level, truth, valid = random_case(3)
    pred = make_prediction(level, valid=valid)
    row = rtsx.evaluate(pred.drop_vars("probability"), StubLabelRaster(truth)).pooled.iloc[0]
    assert np.isnan(row["average_precision"])
    assert np.isnan(row["calibration_error"])
    assert row["iou"] == rtsx.evaluate(pred, StubLabelRaster(truth)).pooled.iloc[0]["iou"]


def naive_objects(level, truth, valid, *, threshold, least=1):
    counted = valid & (truth != 255)
    masks = [scipy.ndimage.label(mask & counted, np.ones((3, 3)))[0] for mask in (level >= 50, truth == 1)]
    sets = [
        [set(np.flatnonzero(labels == n)) for n in range(1, labels.max() + 1) if (labels == n).sum() >= least]
        for labels in masks
    ]
    iou = np.array([[len(f & t) / len(f | t) for t in sets[1]] for f in sets[0]]).reshape(len(sets[0]), len(sets[1]))
    rows, columns = scipy.optimize.linear_sum_assignment(-(iou >= threshold).astype(int))
    return int((iou[rows, columns] >= threshold).sum()), len(sets[0]), len(sets[1])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(4))
def test_objects_are_those_of_a_search(seed, threshold):
    level, truth, valid = random_case(seed)
    row = rtsx.evaluate(make_prediction(level, valid=valid), StubLabelRaster(truth), object_iou=threshold).pooled.iloc[
        0
    ]
    matched, found, true = naive_objects(level, truth, valid, threshold=threshold)
    assert (row["objects_matched"], row["objects_found"], row["objects_true"]) == (matched, found, true)
    assert row["object_f1"] == pytest.approx(2 * matched / (found + true))


def test_small_objects_are_left_out_by_their_ground_area():
    level, truth, valid = random_case(5)
    pred = make_prediction(level, valid=valid)
    # 3 m pixels at 80 degrees north in EPSG:3413 are 9 m² within a few per cent.
    row = rtsx.evaluate(pred, StubLabelRaster(truth), min_object_area_m2=9.0 * 9.5).pooled.iloc[0]
    assert (row["objects_found"], row["objects_true"]) == naive_objects(level, truth, valid, threshold=0.5, least=10)[
        1:
    ]


def test_polygons_are_a_truth_of_pixels():
    pred = make_prediction(random_case(6)[0])
    outline = shapely.box(600_030, -900_090, 600_090, -900_030)
    labels = gpd.GeoDataFrame({"class_name": ["slump"]}, geometry=[outline], crs="EPSG:3413").to_crs("EPSG:4326")
    truth = rasterize_labels(labels, pred.odc.geobox, classes=["slump"])
    assert rtsx.evaluate(pred, labels).pooled["target_px"].iloc[0] == 400
    by_truth = rtsx.evaluate(pred, truth).pooled.drop(columns="class")
    assert rtsx.evaluate(pred, labels).pooled.drop(columns="class").equals(by_truth)


def test_a_raster_that_is_the_truth_is_read_once():
    reads = []

    def read(block):
        reads.append(block.shape)
        return block

    level, truth, valid = random_case(3)
    pred = make_prediction(level, valid=valid).chunk(y=20, x=25)
    chunks = da.from_array(truth, chunks=(20, 25)).map_blocks(read, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    lazy = pred["binary"].copy(data=chunks)
    found = rtsx.evaluate(pred, lazy, boundary=1, bootstrap=0)
    assert found.to_json() == rtsx.evaluate(pred, StubLabelRaster(truth), boundary=1, bootstrap=0).to_json()
    # Each block of the map reads its own chunk and those that its halo of a pixel meets.
    assert len(reads) == 4 * 4


def test_a_raster_is_a_truth_too():
    level, truth, valid = random_case(6)
    pred = make_prediction(level, valid=valid)
    raster = pred["binary"].copy(data=truth)
    assert rtsx.evaluate(pred, raster).pooled.equals(rtsx.evaluate(pred, StubLabelRaster(truth)).pooled)
    shifted = raster.assign_coords(x=raster.x + 3)
    with pytest.raises(EvaluationError, match="lie on different grids: EPSG:3413, transform"):
        rtsx.evaluate(pred, shifted)


def test_regions_and_the_whole_are_sums_of_scenes():
    scenes = [make_scene(seed, region="east" if seed < 2 else "west") for seed in range(5)]
    evaluation = rtsx.evaluate(scenes, bootstrap=200)
    assert evaluation.scenes["scene"].tolist() == [scene.name for scene in scenes]
    assert evaluation.regions["region"].tolist() == ["east", "west"]
    assert evaluation.regions["scenes"].tolist() == [2, 3]
    for name in ("evaluated_px", "target_px", "found_px", "objects_true", "objects_found", "objects_matched"):
        by_region = evaluation.scenes.groupby("region")[name].sum()
        assert evaluation.regions.set_index("region")[name].to_dict() == by_region.to_dict()
        assert evaluation.pooled[name].iloc[0] == evaluation.scenes[name].sum()
    row = evaluation.pooled.iloc[0]
    assert row["iou_low"] < row["iou"] < row["iou_high"]
    assert "95 %" in str(evaluation)
    assert "west" in str(evaluation)


def test_intervals_are_percentiles_over_scenes_drawn_anew():
    evaluation = rtsx.evaluate([make_scene(seed) for seed in range(6)], bootstrap=300, seed=5)
    counts = evaluation.scenes[["objects_true", "objects_found", "objects_matched"]].to_numpy()
    drawn = np.random.default_rng(5).multinomial(6, [1 / 6] * 6, size=300) @ counts
    f1 = 2 * drawn[:, 2] / (drawn[:, 0] + drawn[:, 1])
    row = evaluation.pooled.iloc[0]
    np.testing.assert_allclose([row["object_f1_low"], row["object_f1_high"]], np.percentile(f1, [2.5, 97.5]))


def test_a_scene_alone_has_no_interval():
    evaluation = rtsx.evaluate(make_scene(1))
    assert evaluation.pooled[["iou_low", "iou_high"]].isna().all(axis=None)
    assert "95 %" not in str(evaluation)
    assert str(evaluation).endswith("objects: IoU >= 0.5, all sizes")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_prediction_from_a_store_is_evaluated_alike(tmp_path, dtype):
    level, truth, valid = random_case(2, size=(60, 60))
    pred = make_prediction(level, valid=valid, dtype=dtype).chunk(y=20, x=30)
    expected = rtsx.evaluate(pred, StubLabelRaster(truth)).to_json()
    rtsx.write_cube(pred, tmp_path / "pred.zarr")
    assert rtsx.evaluate(rtsx.open_cube(tmp_path / "pred.zarr"), StubLabelRaster(truth)).to_json() == expected
    decoded = xr.open_zarr(tmp_path / "pred.zarr", consolidated=False)
    again = rtsx.evaluate(decoded, StubLabelRaster(truth)).pooled
    assert again["iou"].iloc[0] == rtsx.evaluate(pred, StubLabelRaster(truth)).pooled["iou"].iloc[0]


def square(west, side=30.0, crs="EPSG:3413", **columns):
    geometry = [shapely.box(600_000 + west, -900_000, 600_000 + west + side, -900_000 + side)]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=crs)


def bad_inputs():
    level, truth, valid = random_case(1)
    pred, good = make_prediction(level, valid=valid), StubLabelRaster(truth)
    two = make_prediction(np.stack([level, level]), valid=valid, classes=("slump", "pond"))
    line = gpd.GeoDataFrame(geometry=[shapely.LineString([(0, 0), (1, 1)])], crs="EPSG:3413")
    bowtie = gpd.GeoDataFrame(geometry=[shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])], crs="EPSG:3413")
    mixed = gpd.GeoDataFrame(
        {"class_name": ["slump", "pond"]},
        geometry=[shapely.box(0, 0, 9, 9), shapely.box(9, 9, 12, 12)],
        crs="EPSG:3413",
    )
    several = StubLabelRaster(truth, classes=("slump", "pond", "scar"))
    return {
        "no scene": (([],), {}, "There is no scene to evaluate"),
        "no truth": ((pred,), {}, "give it as the second argument"),
        "two truths": (([make_scene(1)], good), {}, "Scenes hold their own truth"),
        "same name": (([make_scene(1), make_scene(1)],), {}, "scene 1 occurs more than once"),
        "sizes": ((pred, StubLabelRaster(truth[:-1])), {}, r"differ in size: \(40, 50\) and \(39, 50\) px"),
        "unknown class": ((two, several), {"classes": ["pont"]}, "Class 'pont' is not among .* did you mean 'pond'"),
        "other classes": ((two, several), {}, "is of the classes slump, pond, and its truth knows slump, pond, sc"),
        "no class": ((pred, good), {"classes": []}, "classes is empty"),
        "nothing valid": ((pred, StubLabelRaster(np.full_like(truth, 255))), {}, "^No pixel counts"),
        "polygons of one class": ((two, square(0)), {}, "classes slump, pond, but its truth is polygons of one"),
        "polygons of several": ((pred, mixed), {}, "are of several classes, slump, pond: evaluate one at a time"),
        "no CRS of polygons": ((pred, square(0, crs=None)), {}, "need a CRS, but it is None"),
        "no CRS": ((make_prediction(level, crs=None), square(0)), {}, "A cube needs a CRS"),
        "no place": ((make_prediction(level, crs=None), good), {"min_object_area_m2": 9}, "no place there: A cube needs a"),
        "lines": ((pred, line), {}, "are Polygons or MultiPolygons, but there are LineString"),
        "broken": ((pred, bowtie), {}, "1 of 1 outlines of the truth are not valid; the first is row 0"),
        "raster for outlines": ((square(0), good), {}, "Footprints are evaluated by polygons, but .* is StubLabelRaster"),
        "array": (([EvaluationScene(name="a", prediction=pred, truth=good), 3],), {}, "A scene to evaluate is an EvaluationScene, not int"),
        "no variables": ((pred[["valid"]], good), {}, "has probability or binary, or both, but there are valid"),
        "times": ((pred.expand_dims(time=2), good), {}, r"one ground at one time; in Python, pred.isel\(time"),
        "no binary": ((pred.drop_vars("binary"), good), {}, "has no binary: give a threshold"),
        "no probability": ((pred.drop_vars("probability"), good), {"threshold": 0.5}, "no probability: evaluate it without"),
        "integers": ((pred.assign(probability=pred["probability"].astype("int16")), good), {}, "came as int16"),
        "beyond 1": ((make_prediction(level * 3, dtype="float32"), good), {}, "runs from 0 to 1, but a pixel in rows 0-39"),
        "threshold": ((pred, good), {"threshold": 50}, "a probability from 0 to 1, not 50"),
        "object_iou": ((pred, good), {"object_iou": 0}, "above 0 to 1, not 0"),
        "boundary": ((pred, good), {"boundary": 0}, "a whole number of pixels from 1 to 4096, not 0"),
        "area": ((pred, good), {"min_object_area_m2": -1}, "finite area of at least 0 m², not -1"),
        "threshold of outlines": ((square(0), square(0)), {"threshold": 0.5}, "is outlines, which are found already: leave"),
        "bootstrap": ((pred, good), {"bootstrap": -1}, "a whole number of draws from 0, not -1"),
    }  # fmt: skip


@pytest.mark.parametrize("case", bad_inputs())
def test_what_cannot_be_evaluated_is_refused(case):
    arguments, keywords, message = bad_inputs()[case]
    with pytest.raises(EvaluationError, match=message):
        rtsx.evaluate(*arguments, **keywords)


def test_outlines_of_another_place_are_no_truth_of_a_single_prediction():
    pred = make_prediction(np.full((8, 8), 20))
    elsewhere = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 90, 90)], crs="EPSG:3413")
    with pytest.raises(EvaluationError, match="No outline of the truth lies on the prediction"):
        rtsx.evaluate(pred, elsewhere)
    assert rtsx.evaluate(pred, elsewhere.iloc[:0]).pooled["iou"].item() == 1
    scenes = [EvaluationScene(name="here", prediction=pred, truth=elsewhere)]
    with pytest.warns(TruthWarning, match="No outline of the truth lies on any scene") as warned:
        assert rtsx.evaluate(scenes).pooled["iou"].item() == 1
    assert [one.filename for one in warned if one.category is TruthWarning] == [__file__]


def boxes(*corners, crs="EPSG:32652"):
    """Rectangles of (west, south, east, north) in m from a place on the Bykovsky Peninsula."""
    x, y = (510_000, 7_975_000) if crs == "EPSG:32652" else (0, 0)
    return gpd.GeoDataFrame(geometry=[shapely.box(w + x, s + y, e + x, n + y) for w, s, e, n in corners], crs=crs)


def test_areas_are_those_of_the_ground_and_rows_are_objects():
    found = boxes((0, 0, 100, 100), (500, 0, 600, 100))
    true = boxes((0, 0, 100, 80), (520, 0, 600, 100), (900, 0, 950, 50))
    with pytest.warns(TruthWarning, match="1 of 3 outlines of the truth lie outside the rectangle"):
        row = rtsx.evaluate(found, true.to_crs("EPSG:4326")).pooled.iloc[0]
    assert row["iou"] == pytest.approx(16_000 / 22_500, abs=1e-6)
    assert row["precision"] == pytest.approx(16_000 / 20_000, abs=1e-6)
    assert row["recall"] == pytest.approx(16_000 / 18_500, abs=1e-6)
    # UTM shrinks lengths by 0.9996 near its middle, so the ground is larger than the plane.
    assert row["found_m2"] == pytest.approx(20_000 / 0.9996**2, rel=1e-5)
    assert (row["objects_matched"], row["objects_found"], row["objects_true"]) == (2, 2, 3)
    assert np.isnan(row["average_precision"])
    assert np.isnan(row["boundary_iou"])


def test_ground_counts_once_but_outlines_are_objects_each():
    found = boxes((0, 0, 100, 100), (50, 0, 150, 100))
    row = rtsx.evaluate(found, boxes((0, 0, 150, 100))).pooled.iloc[0]
    assert row["iou"] == pytest.approx(1.0)
    assert (row["objects_matched"], row["objects_found"], row["objects_true"]) == (1, 2, 1)


@pytest.mark.filterwarnings("ignore:.*lie on another of them:rtsx.errors.TruthWarning")
@pytest.mark.parametrize("seed", range(4))
def test_shapely_objects_are_those_of_a_search(seed):
    random = np.random.default_rng(seed)
    corners = random.integers(0, 400, (2, 7, 2))
    tables = [boxes(*[(x, y, x + 90, y + 70) for x, y in some]) for some in corners]
    found, true = (list(table.geometry) for table in tables)
    iou = np.array([[f.intersection(t).area / f.union(t).area for t in true] for f in found])
    for threshold in (0.1, 0.3):
        row = rtsx.evaluate(*tables, object_iou=threshold).pooled.iloc[0]
        rows, columns = scipy.optimize.linear_sum_assignment(-(iou >= threshold).astype(int))
        assert row["objects_matched"] == (iou[rows, columns] >= threshold).sum()


@pytest.mark.parametrize("lon", [179.999, 15.0])
def test_the_antimeridian_is_no_border(lon):
    ring = np.array([(lon, 70.0), (lon + 0.01, 70.0), (lon + 0.01, 70.005), (lon, 70.005)])
    half = ring + np.array([0.005, 0.0])
    found, true = (
        gpd.GeoDataFrame(geometry=[shapely.Polygon(r)], crs="EPSG:4326").to_crs("EPSG:3995") for r in (ring, half)
    )
    row = rtsx.evaluate(found, true).pooled.iloc[0]
    area = abs(Geod(ellps="WGS84").polygon_area_perimeter(*ring.T)[0])
    assert row["found_m2"] == pytest.approx(area, rel=1e-4)
    assert row["iou"] == pytest.approx(1 / 3, abs=1e-4)


def test_small_outlines_are_left_out_of_the_objects():
    row = rtsx.evaluate(
        boxes((0, 0, 10, 10), (50, 0, 90, 40)), boxes((50, 0, 90, 40)), min_object_area_m2=288
    ).pooled.iloc[0]
    assert (row["objects_found"], row["objects_true"], row["object_f1"]) == (1, 1, 1.0)


def test_nothing_found():
    true = boxes((0, 0, 10, 10))
    row = rtsx.evaluate(boxes(), true, mapped=true).pooled.iloc[0]
    assert (row["iou"], row["precision"], row["recall"], row["object_recall"]) == (0.0, 1.0, 0.0, 0.0)
    with pytest.raises(EvaluationError, match="neither found nor true outlines"):
        rtsx.evaluate(boxes(), boxes())


def test_pixels_and_outlines_do_not_add_up():
    outlines = EvaluationScene(name="outlines", prediction=boxes((0, 0, 9, 9)), truth=boxes((0, 0, 9, 9)))
    with pytest.raises(
        EvaluationError, match=r"evaluated in px and 'outlines' in m2: pixels and outlines do not add up"
    ):
        rtsx.evaluate([make_scene(1), outlines])


def test_classes_of_outlines_are_one():
    named = boxes((0, 0, 9, 9)).assign(class_name="slump")
    assert rtsx.evaluate(named, named).pooled["class"].tolist() == ["slump"]
    with pytest.raises(EvaluationError, match="are of slump, not of pond, to be evaluated"):
        rtsx.evaluate(named, named, classes=["pond"])
    both = gpd.GeoDataFrame(pd.concat([named, boxes((20, 0, 30, 9)).assign(class_name="pond")]), crs=named.crs)
    with pytest.raises(EvaluationError, match="of the prediction are of several classes, slump, pond"):
        rtsx.evaluate(both, named)


def test_outlines_come_back_from_json():
    evaluation = rtsx.evaluate(boxes((0, 0, 9, 9)), boxes((3, 0, 9, 9)))
    assert Evaluation.from_json(evaluation.to_json()).pooled.equals(evaluation.pooled)


def blobs(seed, size=(70, 90)):
    rng = np.random.default_rng(seed)
    noise = scipy.ndimage.gaussian_filter(rng.random(size), 2)
    level = (100 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    moved = scipy.ndimage.gaussian_filter(rng.random(size), 1)
    truth = (level + 40 * (moved - moved.mean()) > 62).astype(np.uint8)
    return level, truth


@pytest.mark.parametrize("chunks", [None, (33, 41)])
def test_rows_are_what_evaluate_says_of_cleaned_maps(chunks):
    scenes, thresholds, areas = [], [0.4, 0.55, 0.7], [0.0, 90.0, 360.0]
    for seed in range(2):
        level, truth = blobs(seed)
        pred = make_prediction(level)
        pred = pred if chunks is None else pred.chunk(y=chunks[0], x=chunks[1])
        scenes.append((f"s{seed}", level, truth, pred))
    choice = choose_objects(
        [EvaluationScene(name=name, prediction=pred, truth=StubLabelRaster(truth)) for name, _, truth, pred in scenes],
        thresholds=thresholds,
        min_areas_m2=areas,
        object_iou=0.3,
    )
    assert len(choice.table) == 9
    for row in choice.table.itertuples():
        cleaned = []
        for name, level, truth, pred in scenes:
            labels, count = scipy.ndimage.label(level >= round(row.threshold * 100), np.ones((3, 3)))
            pixels = np.bincount(labels.ravel(), minlength=count + 1)
            least = np.ceil(row.min_area_m2 / rtsx.evaluation.counts.pixel_area_m2(pred) - 1e-9)
            kept = (pixels[labels] >= least) & (labels > 0)
            cleaned.append(
                EvaluationScene(name=name, prediction=make_prediction(100 * kept), truth=StubLabelRaster(truth))
            )
        expected = rtsx.evaluate(cleaned, threshold=0.5, object_iou=0.3, bootstrap=0).pooled.iloc[0]
        assert (row.matched, row.found, row.true) == tuple(
            expected[["objects_matched", "objects_found", "objects_true"]].astype(int)
        )
        assert row.object_f1 == pytest.approx(expected["object_f1"])
    assert choice.best["object_f1"] == choice.table["object_f1"].max()
    assert f"best: threshold {choice.threshold:g}" in str(choice)
    assert str(choice).endswith("objects: IoU >= 0.3; true ones: all sizes; found ones: from the least area on")
    # Before and after by one rule.
    as_they_are = choose_objects(
        [EvaluationScene(name=name, prediction=pred, truth=StubLabelRaster(truth)) for name, _, truth, pred in scenes],
        thresholds=[0.5],
        min_areas_m2=[288.0],
        object_iou=0.3,
        min_object_area_m2=90.0,
    )
    assert as_they_are.own is not None
    assert as_they_are.own.to_dict() == as_they_are.best.to_dict()
    assert f"the model's own: threshold 0.5, least area 288 m²: F1 {as_they_are.own['object_f1']:.3f}" in str(
        as_they_are
    )
    assert "true ones: from 90 m² on; found ones" in str(as_they_are)


def test_what_a_model_chose_by_objects_is_its_own():
    level, truth = blobs(1)
    pred = make_prediction(level).assign_attrs(outline_threshold=0.62, outline_min_area_m2=90.0)
    tried = {"thresholds": [0.62], "min_areas_m2": [90.0], "object_iou": 0.3}
    choice = choose_objects(pred, StubLabelRaster(truth), **tried)
    assert choice.own is not None
    assert choice.own.to_dict() == choice.best.to_dict()
    silent = pred.assign_attrs(outline_threshold=None).drop_vars("binary")
    assert choose_objects(silent, StubLabelRaster(truth), **tried).own is None
    other = EvaluationScene(name="other", prediction=make_prediction(level), truth=StubLabelRaster(truth))
    scene = EvaluationScene(name="scene", prediction=pred, truth=StubLabelRaster(truth))
    assert choose_objects([scene, other], **tried).own is None


def test_a_lazy_map_is_computed_once():
    level, truth = blobs(0)
    pred = make_prediction(level)
    calls = []

    def counted(block):
        calls.append(block.size)
        return block

    lazy = pred.chunk(y=35, x=45).map(lambda array: array.copy(data=array.data.map_blocks(counted, dtype=array.dtype)))
    choose_objects(lazy[["probability"]], StubLabelRaster(truth), thresholds=[0.3, 0.5, 0.7])
    assert [size for size in calls if size > 1] == [35 * 45] * 4  # dask asks small ones what they return


def test_a_bundle_keeps_what_was_chosen_and_its_maps_are_outlined_by_it(tmp_path):
    level, truth = blobs(3)
    network = torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        network.weight.fill_(1), network.bias.fill_(0)
    stated = {"layers": ("red",), "tile": 32, "overlap": 0, "stride": 1, "activation": "none", "id": "copy"}
    bundle = ModelBundle.from_module(network, **stated)
    cube = make_prediction(level).drop_vars("binary").rename(probability="red")
    cube["red"] = cube["red"].astype("float32").copy(data=(level / 100).astype("float32")).drop_attrs()
    choice = choose_objects(rtsx.predict_cube(cube, bundle), StubLabelRaster(truth), object_iou=0.1)
    chosen = choice.applied_to(bundle)
    chosen.save(tmp_path / "chosen")
    again = ModelBundle.open(tmp_path / "chosen", trust=True)
    assert again == chosen
    assert (
        again.outlines == choice.outlines == OutlineChoice(threshold=choice.threshold, min_area_m2=choice.min_area_m2)
    )
    assert again.digest != bundle.digest
    assert again.threshold == bundle.threshold
    # Bundles without a choice are written, and named, as before.
    bundle.save(tmp_path / "plain")
    assert "outlines" not in (tmp_path / "plain" / "item.json").read_text()
    pred = rtsx.predict_cube(cube, again)
    np.testing.assert_array_equal(pred["binary"], rtsx.predict_cube(cube, bundle)["binary"])
    plan = PredictionPlan.from_json(pred.attrs["plan"])
    assert plan.outlines == choice.outlines
    assert "outlines" not in rtsx.predict_cube(cube, bundle).attrs["plan"]
    rtsx.write_cube(pred, tmp_path / "map.zarr")
    stored = rtsx.open_cube(tmp_path / "map.zarr")
    explicit = {"threshold": choice.threshold, "min_area_m2": choice.min_area_m2}
    expected = rtsx.extract_footprints(rtsx.predict_cube(cube, bundle), **explicit).drop(columns="bundle_digest")
    found = rtsx.extract_footprints(stored).drop(columns="bundle_digest")
    assert len(found)
    assert found.equals(expected)
    told = {"threshold": 0.9, "min_area_m2": 0.0}
    plain = rtsx.extract_footprints(rtsx.predict_cube(cube, bundle), **told).drop(columns="bundle_digest")
    assert rtsx.extract_footprints(stored, **told).drop(columns="bundle_digest").equals(plain)
    with pytest.raises(BundleError, match="outlines are chosen for one class"):
        replace(bundle, classes=("a", "b"), outlines=choice.outlines)
    for threshold in (45, 0):  # 0 is refused here, because a campaign could not be planned with it
        with pytest.raises(BundleError, match="threshold above 0 and up to 1"):
            OutlineChoice(threshold=threshold, min_area_m2=0)


def test_what_cannot_be_chosen_is_refused():
    level, truth = blobs(0)
    pred, stub = make_prediction(level), StubLabelRaster(truth)
    with pytest.raises(EvaluationError, match="nothing to choose among"):
        choose_objects(pred, stub, thresholds=[])
    with pytest.raises(EvaluationError, match="There is no scene to evaluate"):
        choose_objects([])
    with pytest.raises(EvaluationError, match="probability from 0 to 1, not 50"):
        choose_objects(pred, stub, thresholds=[50])
    with pytest.raises(EvaluationError, match="above a probability of 0"):
        choose_objects(pred, stub, thresholds=[0, 0.5])
    with pytest.raises(EvaluationError, match="finite areas of at least 0"):
        choose_objects(pred, stub, min_areas_m2=[-1])
    with pytest.raises(EvaluationError, match="no true object"):
        choose_objects(pred, StubLabelRaster(0 * truth))
    several, several_truth, valid = random_case(7, classes=3)
    names = ("slump", "pond", "scar")
    with pytest.raises(EvaluationError, match="say class_name"):
        choose_objects(
            make_prediction(several, valid=valid, classes=names), StubLabelRaster(several_truth, classes=names)
        )


def three_slumps(columns=30):
    """A map that finds two of three boxes, and the boxes."""
    level = np.zeros((20, 3 * columns), int)
    level[:, :20] = level[:, columns : columns + 20] = 90
    boxes = [
        shapely.box(600_000 + 3 * left, -900_060, 600_000 + 3 * (left + 20), -900_000)
        for left in range(0, 3 * columns, columns)
    ]
    return make_prediction(level), boxes


@pytest.mark.parametrize(("column", "said"), [("TrainClass", "Positive"), ("class_name", "rts")])
def test_what_the_truth_marks_as_none_of_the_target_is_none(column, said):
    pred, boxes = three_slumps()
    truth = gpd.GeoDataFrame({column: [said, "Negative", said]}, geometry=boxes, crs="EPSG:3413")
    row = rtsx.evaluate(pred, truth).pooled.iloc[0]
    assert (row["precision"], row["recall"]) == (0.5, 0.5)
    row = rtsx.evaluate(truth.iloc[:2].drop(columns=column), truth, mapped=pred).pooled.iloc[0]
    assert (row["object_precision"], row["object_recall"]) == (0.5, 0.5)


def test_outlines_of_several_dates_are_warned_of():
    pred, boxes = three_slumps()
    one = gpd.GeoDataFrame(geometry=boxes, crs="EPSG:3413")
    with pytest.warns(TruthWarning, match="3 of 6 outlines of the truth lie on another of them with an IoU of 0.5"):
        rtsx.evaluate(one, pd.concat([one, one], ignore_index=True), mapped=pred)
    with pytest.warns(TruthWarning, match="1 of 4 outlines of the prediction lie"):
        rtsx.evaluate(pd.concat([one, one.iloc[:1]], ignore_index=True), one, mapped=pred)


def test_a_mask_of_other_numbers_than_0_and_1_is_refused():
    pred, boxes = three_slumps()
    truth = gpd.GeoDataFrame(geometry=boxes, crs="EPSG:3413")
    other = pred.assign(binary=pred["binary"] + 1)
    with pytest.raises(EvaluationError, match="binary is 1 where an object is"):
        rtsx.evaluate(other, truth)
    rtsx.evaluate(other.assign(valid=other["binary"] == 1).chunk(x=50), truth.iloc[:1])
    with pytest.raises(FootprintError, match="a valid pixel has 2"):
        rtsx.extract_footprints(other)
    of_bytes = pred.assign(binary=(pred["binary"] * 255).astype("uint8").drop_attrs())
    with pytest.raises(EvaluationError, match="binary is 1 where an object is"):
        rtsx.evaluate(of_bytes, truth)
    with pytest.raises(FootprintError, match="a valid pixel has 255"):
        rtsx.extract_footprints(of_bytes)


def test_an_array_is_no_prediction():
    pred, boxes = three_slumps()
    with pytest.raises(EvaluationError, match="a Dataset with `probability` or `binary`"):
        rtsx.evaluate(pred["probability"], gpd.GeoDataFrame(geometry=boxes, crs="EPSG:3413"))


@pytest.mark.parametrize(
    ("columns", "years"),
    [
        ({"image_date": pd.to_datetime(["2018-07-01"]), "image_date_end": ["2019-07-01"]}, {2018, 2019}),
        ({"image_date": pd.to_datetime(["2018-07-01"]), "image_date_end": [None]}, {2018}),
        ({"image_date": ["2018-07-01"]}, {2018}),
        ({"image_date": [20180701]}, set()),
        ({}, set()),
    ],
)
def test_the_years_of_labels_are_those_of_dates_however_they_are_stored(columns, years):
    table = gpd.GeoDataFrame(columns, geometry=[shapely.box(0, 0, 1, 1)], crs=3413)
    assert _label_years(table) == years
    assert stated_years(table.rename(columns={"image_date": "date"}).assign(year=np.inf)) == {*sorted(years)[:1]}


def test_labels_of_other_years_than_the_prediction_are_warned_of_once_at_both_doors():
    level = np.full((60, 80), 10)
    level[20:40, 30:50] = 80
    pred = make_prediction(level).assign_coords(time=np.datetime64("2024-07-01", "ns"))
    slump = shapely.box(600_090, -900_120, 600_150, -900_060)
    labels = gpd.GeoDataFrame({"image_date": pd.to_datetime(["2019-07-01"])}, geometry=[slump], crs=3413)
    found = labels.rename(columns={"image_date": "date"}).assign(year=2024)
    scenes = [EvaluationScene(name=name, prediction=pred, truth=labels) for name in "ab"]
    for score, given in (
        (rtsx.evaluate, (pred, labels)),
        (choose_objects, (pred, labels)),
        (rtsx.evaluate, (found, labels)),
    ):
        with pytest.warns(LabelDateWarning, match="The truth is of 2019, and the prediction of 2024: ") as caught:
            score(*given)
        assert [one.filename for one in caught if one.category is LabelDateWarning] == [__file__]
    with pytest.warns(LabelDateWarning, match="of scene 'a' is of 2019, .* So it is in 2 of 2 scenes") as caught:
        rtsx.evaluate(scenes, bootstrap=0)
    assert [one.category for one in caught].count(LabelDateWarning) == 1
    period = labels.assign(image_date_end=pd.to_datetime(["2025-07-01"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LabelDateWarning)
        rtsx.evaluate(pred, period)
        rtsx.evaluate(pred, labels.assign(image_date=pd.NaT))
        rtsx.evaluate(pred.drop_vars("time"), labels)
