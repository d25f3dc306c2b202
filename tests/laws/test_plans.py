"""Law 7: plans come back from text equal, and nothing else is taken for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.errors import PlanError
from rtsx.inference.plan import TEST_TIME_AUGMENTATIONS, PredictionPlan
from rtsx.tiling import BLENDS, TilePlan

names = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=5, unique=True
).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> PredictionPlan:
    stride = draw(st.sampled_from([1, 2, 8, 32]))
    tile = 2 * stride * draw(st.integers(1, 40))
    overlap = stride * draw(st.integers(0, tile // stride - 1))
    blend = draw(st.sampled_from(BLENDS))
    tiling = TilePlan(
        shape=(draw(st.integers(1, 10**7)), draw(st.integers(1, 10**7))),
        offset=(draw(st.integers(-(10**9), 10**9)), draw(st.integers(-(10**9), 10**9))),
        tile=tile,
        overlap=overlap,
        trim=draw(st.integers(0, overlap // 2)),
        stride=stride,
        blend=blend,
    )
    return PredictionPlan(
        tiling=tiling,
        layers=draw(names),
        classes=draw(names),
        threshold=draw(st.floats(0, 1)),
        exclusive=draw(st.booleans()),
        members=draw(names),
        augment=draw(st.lists(st.sampled_from(TEST_TIME_AUGMENTATIONS), unique=True).map(tuple)),
        scales=draw(st.sampled_from([(1.0,), (1.0, 0.5), (2.0, 1.0, 4.0)])),
        merge=draw(st.sampled_from(["mean", "max"])),
        keep_members=draw(st.booleans()) and blend != "max",
        dtype=draw(st.sampled_from(["uint8", "float32"])),
    )


@given(plans())
def test_law_7_a_plan_comes_back_equal(plan: PredictionPlan) -> None:
    again = PredictionPlan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    assert again.to_json() == plan.to_json()


@given(plans(), st.data())
def test_a_plan_of_which_one_value_is_of_another_type_is_refused(plan: PredictionPlan, data: st.DataObject) -> None:
    document = json.loads(plan.to_json())
    part = data.draw(st.sampled_from([document, document["tiling"]]))
    name = data.draw(st.sampled_from(sorted(part)))
    part[name] = None
    with pytest.raises(PlanError, match=rf"{name}: .*; got None"):
        PredictionPlan.from_json(json.dumps(document))


def document(**changes: object) -> str:
    plan = PredictionPlan(
        tiling=TilePlan(shape=(9, 9), tile=8, overlap=2, trim=1, stride=2), layers=("red",), classes=("target",),
        threshold=0.5, exclusive=False, members=("digest",), augment=("identity",), scales=(1.0,), merge="mean",
        keep_members=False, dtype="uint8",
    )  # fmt: skip
    values = json.loads(plan.to_json())
    values["tiling"] |= changes.pop("tiling", {})
    return json.dumps({name: value for name, value in (values | changes).items() if value != "leave out"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "The plan is no JSON"),
        ("[1]", r"input should be an object; got \[1\]"),
        (document(extra=1), "The plan, extra: unknown name; got 1. .* written by another version of rtsx"),
        (document(merge="leave out"), "The plan, merge: field required"),
        (document(tiling={"tile": 8.0}), r"tiling.tile: input should be a valid integer; got 8.0"),
        (document(tiling={"tile": True}), r"tiling.tile: input should be a valid integer; got True"),
        (document(tiling={"shape": [9]}), r"tiling.shape\[1\]: field required; got \[9\]"),
        (document(tiling={"overlap": 8}), "overlap has to be below the tile of 8 px; got 8"),
        (document(layers=["red", 3]), r"layers\[1\]: input should be a valid string; got 3"),
        (document(layers="red"), "layers: input should be a valid array; got 'red'"),
        (document(threshold=float("nan")), "threshold: input should be a finite number; got nan"),
        (document(exclusive=1), "exclusive: input should be a valid boolean; got 1"),
        (document(merge="sum"), "merge: input should be 'mean' or 'max'; got 'sum'"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PredictionPlan.from_json(text)
