"""Laws of evaluation: chunks change nothing, what does not count never matters, and parts add up to the whole."""

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import rtsx
from rtsx.evaluation import Evaluation, EvaluationScene
from rtsx.labels import StubLabelRaster
from tests.evaluation.scenes import make_prediction

# Truths drawn at random are of one value now and then.
pytestmark = pytest.mark.filterwarnings("ignore::rtsx.errors.TruthWarning")

BOUNDARY = 2


@st.composite
def rasters(draw):
    """Levels, truth with ignored pixels, validity: dense enough for objects that wind through many chunks."""
    size = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.9]))
    level = np.where(
        random.random(size) < density, random.choice([50, 70, 100], size), random.choice([0, 30, 49], size)
    )
    truth = (random.random(size) < density).astype(np.uint8)
    truth[random.random(size) < draw(st.sampled_from([0.0, 0.1, 0.3]))] = 255
    valid = random.random(size) >= draw(st.sampled_from([0.0, 0.1, 0.3]))
    # At least one pixel counts, because otherwise there is nothing to evaluate.
    truth[0, 0], valid[0, 0] = 1, True
    return level, truth, valid


@st.composite
def divided(draw):
    """A raster, a division of its axes, and a dtype."""
    level, truth, valid = draw(rasters())
    chunks = tuple(draw(division(length)) for length in level.shape)
    return level, truth, valid, chunks, draw(st.sampled_from(["uint8", "float32"]))


@st.composite
def division(draw, length):
    if draw(st.booleans()):
        return (1,) * length
    cuts = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    return tuple(np.diff([0, *cuts, length]).tolist())


def score(pred, truth, **keywords):
    # One thread, because starting two for a hundred chunks of a pixel takes most of the time.
    with dask.config.set(scheduler="synchronous"):
        return rtsx.evaluate(pred, truth, boundary=BOUNDARY, bootstrap=0, **keywords)


@settings(max_examples=10, deadline=None)
@given(divided(), st.sampled_from([None, 0.5, 0.7]))
def test_chunks_change_nothing(case, threshold):
    level, truth, valid, (rows, columns), dtype = case
    pred = make_prediction(level, valid=valid, dtype=dtype)
    whole = score(pred, StubLabelRaster(truth), threshold=threshold).to_json()
    assert score(pred.chunk(y=rows, x=columns), StubLabelRaster(truth), threshold=threshold).to_json() == whole


@settings(max_examples=8, deadline=None)
@given(divided(), st.integers(0, 2**32 - 1))
def test_what_does_not_count_never_matters(case, seed):
    level, truth, valid, (rows, columns), dtype = case
    random = np.random.default_rng(seed)
    shown = score(make_prediction(level, valid=valid, dtype=dtype), StubLabelRaster(truth)).to_json()
    other = np.where(valid & (truth != 255), level, random.integers(0, 101, level.shape))
    hidden = make_prediction(other, valid=valid, dtype=dtype)
    if dtype == "uint8":
        # Values under the mask as they come, instead of nodata: `valid` alone says that they do not count.
        hidden["probability"] = hidden["probability"].copy(data=other.astype("uint8"))
        hidden["binary"] = hidden["binary"].copy(data=(other >= 50).astype("uint8"))
    below = np.where(valid, truth, random.choice([0, 1, 255], truth.shape)).astype(np.uint8)
    assert score(hidden.chunk(y=rows, x=columns), StubLabelRaster(below)).to_json() == shown


@settings(max_examples=12, deadline=None)
@given(rasters())
def test_the_answer_is_that_of_the_naive_reference(case):
    """Pixels compared one by one, bands by looking around each pixel, objects by labelling the whole."""
    level, truth, valid = case
    pred = make_prediction(level, valid=valid).chunk(y=3, x=4)
    row = score(pred, StubLabelRaster(truth)).pooled.iloc[0]
    counted = valid & (truth != 255)
    found, true = counted & (level >= 50), counted & (truth == 1)
    union = (found | true).sum()
    assert row["iou"] == ((found & true).sum() / union if union else 1.0)
    assert row["evaluated_px"] == counted.sum()
    bands = [np.zeros_like(counted), np.zeros_like(counted)]
    for band, mask in zip(bands, (found, true), strict=True):
        for y, x in np.argwhere(mask):
            around = tuple(slice(max(0, at - BOUNDARY), at + BOUNDARY + 1) for at in (y, x))
            band[y, x] = (counted[around] & ~mask[around]).any()
    either = (bands[0] | bands[1]).sum()
    expected = (bands[0] & bands[1]).sum() / either if either else np.nan
    np.testing.assert_equal(row["boundary_iou"], expected)
    counts = [scipy.ndimage.label(mask, np.ones((3, 3)))[1] for mask in (found, true)]
    assert (row["objects_found"], row["objects_true"]) == tuple(counts)


@settings(max_examples=8, deadline=None)
@given(st.lists(rasters(), min_size=2, max_size=4))
def test_scenes_pooled_are_their_concatenation(cases):
    """For pixel scores; the scenes lie apart, so that no object and no band reaches from one into the other."""
    scenes = [
        EvaluationScene(name=str(n), prediction=make_prediction(level, valid=valid), truth=StubLabelRaster(truth))
        for n, (level, truth, valid) in enumerate(cases)
    ]
    pooled = rtsx.evaluate(scenes, boundary=BOUNDARY, bootstrap=0)
    width = max(level.shape[1] for level, *_ in cases)

    def stacked(number, fill):
        parts = [case[number] for case in cases]
        gap = BOUNDARY + 1
        return np.concatenate([np.pad(p, ((0, gap), (0, width - p.shape[1])), constant_values=fill) for p in parts])

    pred = make_prediction(stacked(0, 0), valid=stacked(2, False))
    together = rtsx.evaluate(pred, StubLabelRaster(stacked(1, 255)), boundary=BOUNDARY, bootstrap=0)
    assert pooled.pooled.drop(columns="scenes").equals(together.pooled.drop(columns="scenes"))
    apart = Evaluation.pooled_of(rtsx.evaluate(scene, boundary=BOUNDARY, bootstrap=0) for scene in scenes)
    assert apart.pooled.equals(pooled.pooled)


@settings(max_examples=10, deadline=None)
@given(rasters())
def test_an_evaluation_comes_back_from_json_equal(case):
    level, truth, valid = case
    evaluation = score(make_prediction(level, valid=valid), StubLabelRaster(truth))
    again = Evaluation.from_json(evaluation.to_json())
    assert again.to_json() == evaluation.to_json()
    assert again.scenes.equals(evaluation.scenes)
    assert again.rule == evaluation.rule


def test_every_chunk_is_computed_once():
    """A map of two classes that two scenes share: each of its chunks is made one time."""
    made = []

    def make(block_id):
        made.append(block_id)
        return np.full((1, 8, 8), 70, np.uint8)

    shape = (2, 80, 96)
    level = da.map_blocks(
        make, chunks=((1, 1), (8,) * 10, (8,) * 12), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    pred = xr.Dataset({"probability": (("class", "y", "x"), level, {"scale_factor": 0.01})})
    pred = pred.assign_coords({"class": ["slump", "pond"]})
    truth = StubLabelRaster(np.ones(shape[1:], np.uint8), classes=("slump", "pond"))
    scenes = [EvaluationScene(name=name, prediction=pred, truth=truth) for name in ("one", "other")]
    with dask.config.set(scheduler="synchronous"):
        evaluation = rtsx.evaluate(scenes, threshold=0.5, bootstrap=0)
    assert evaluation.scenes["iou"].tolist()[:2] == [1.0, 0.0]
    assert len(made) == len(set(made)) == 2 * 10 * 12
    assert evaluation.scenes["objects_found"].iloc[0] == 1
