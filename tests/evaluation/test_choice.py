"""The scores that are chosen among are those of objects, counted one map after the other."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import torch

import rtsx
from rtsx.errors import BundleError, EvaluationError
from rtsx.evaluation import EvaluationScene, choose_objects
from rtsx.inference.plan import PredictionPlan
from rtsx.labels import StubLabelRaster
from rtsx.model import ModelBundle, OutlineChoice
from tests.evaluation.scenes import make_prediction, random_case


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
