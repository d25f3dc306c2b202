"""Annotators are compared on the same pixels, whatever they drew in."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from rtsx.errors import EvaluationError
from rtsx.evaluation import Agreement, annotator_agreement
from rtsx.labels import StubLabelRaster
from tests.evaluation.scenes import make_prediction, random_case


@pytest.fixture
def like():
    return make_prediction(np.zeros((40, 50), int))


def drawn(like, seed):
    return random_case(seed)[1]


def test_masks_polygons_and_truths_agree(like):
    outline = shapely.box(600_030, -900_090, 600_090, -900_030)
    polygon = gpd.GeoDataFrame(geometry=[outline], crs="EPSG:3413")
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 1
    given = {
        "polygon": polygon.to_crs("EPSG:4326"),
        "truth": StubLabelRaster(mask),
        "raster": like["binary"].copy(data=mask),
    }
    agreement = annotator_agreement(given, like)
    assert agreement.mean_pairwise_iou == 1.0
    assert agreement.majority_px == 400
    assert (agreement.pairs.to_numpy() == 1).all()


def test_models_stand_among_the_annotators(like):
    truths = {f"expert {seed}": StubLabelRaster(drawn(like, seed)) for seed in range(3)}
    values = np.stack([truth.read((slice(0, 40), slice(0, 50))) for truth in truths.values()])
    counted = (values != 255).all(axis=0)
    majority = ((values == 1).mean(axis=0) >= 0.5) & counted
    model = make_prediction(np.where(majority, 80, 20))
    agreement = annotator_agreement(truths, like, models={"model": model})
    table = agreement.table.set_index("name")
    assert table["kind"].tolist() == ["annotator"] * 3 + ["model"]
    assert table.loc["model", ["majority_iou", "others_iou", "rank"]].tolist() == [1.0, 1.0, 1]
    one = (values[0] == 1) & counted
    assert table.loc["expert 0", "majority_iou"] == (one & majority).sum() / (one | majority).sum()
    others = (values[1:] == 1).any(axis=0) & counted
    assert table.loc["expert 0", "others_iou"] == (one & others).sum() / (one | others).sum()
    assert "mean IoU of two annotators" in str(agreement)
    assert Agreement.from_json(agreement.to_json()).table.equals(agreement.table)
    strict = annotator_agreement(truths, like, models={"model": model}, threshold=0.9)
    assert strict.table.set_index("name").loc["model", "target_px"] == 0


def test_chunks_change_nothing(like):
    truths = {f"expert {seed}": StubLabelRaster(drawn(like, seed)) for seed in range(3)}
    level, _, valid = random_case(9)
    model = make_prediction(level, valid=valid)
    whole = annotator_agreement(truths, like, models={"model": model})
    parts = annotator_agreement(truths, like.chunk(y=7, x=11), models={"model": model.chunk(y=13, x=50)})
    assert parts.to_json() == whole.to_json()
    only = annotator_agreement(truths, like.chunk(y=7, x=11))
    assert only.to_json() == annotator_agreement(truths, like).to_json()


def test_pixels_count_where_all_know_and_all_models_are_valid():
    level, truth, valid = random_case(4)
    like = make_prediction(level, valid=valid)
    agreement = annotator_agreement({"a": StubLabelRaster(truth), "b": StubLabelRaster(truth)}, like)
    assert agreement.counts.counted == (valid & (truth != 255)).sum()
    half = np.zeros_like(valid)
    half[:20] = True
    model = make_prediction(level, valid=half)
    with_model = annotator_agreement(
        {"a": StubLabelRaster(truth), "b": StubLabelRaster(truth)}, like, models={"model": model}
    )
    assert with_model.counts.counted == (valid & half & (truth != 255)).sum()


def test_one_class_of_several(like):
    truth = np.zeros((40, 50), np.uint8)
    truth[:10], truth[10:30] = 1, 2
    given = {name: StubLabelRaster(truth, classes=("pond", "slump")) for name in "ab"}
    assert annotator_agreement(given, like, class_name="slump").majority_px == 1000
    with pytest.raises(EvaluationError, match="name those to evaluate with classes="):
        annotator_agreement(given, like)


def test_one_class_of_outlines(like):
    outlines = [shapely.box(600_000, -900_030, 600_030, -900_000), shapely.box(600_060, -900_120, 600_150, -900_000)]
    both = gpd.GeoDataFrame({"class_name": ["slump", "negative"]}, geometry=outlines, crs="EPSG:3413")
    given = {"both": both, "one": both.iloc[:1], "unsaid": both.iloc[:1].drop(columns="class_name")}
    agreement = annotator_agreement(given, like, class_name="slump")
    assert (agreement.majority_px, agreement.mean_pairwise_iou) == (100, 1.0)
    with pytest.raises(EvaluationError, match="No annotator has outlined the class 'slum'; there are negative, slump"):
        annotator_agreement(given, like, class_name="slum")


def test_what_cannot_be_compared_is_refused(like):
    one = StubLabelRaster(np.ones((40, 50), np.uint8))
    with pytest.raises(EvaluationError, match="between two annotators at least; got 1"):
        annotator_agreement({"a": one}, like)
    with pytest.raises(EvaluationError, match="but both have a: rename one"):
        annotator_agreement({"a": one, "b": one}, like, models={"a": like})
    with pytest.raises(EvaluationError, match="a raster with a CRS: A cube needs a CRS"):
        annotator_agreement({"a": one, "b": one}, make_prediction(np.zeros((40, 50), int), crs=None))
    with pytest.raises(EvaluationError, match="Model 'm' lies on another grid"):
        annotator_agreement({"a": one, "b": one}, like, models={"m": like.assign_coords(x=like.x + 3)})
    with pytest.raises(EvaluationError, match=r"of scene 'b' differ in size"):
        annotator_agreement({"a": one, "b": StubLabelRaster(np.ones((4, 5), np.uint8))}, like)
    ignored = StubLabelRaster(np.full((40, 50), 255, np.uint8))
    with pytest.raises(EvaluationError, match="No pixel counts"):
        annotator_agreement({"a": one, "b": ignored}, like)
