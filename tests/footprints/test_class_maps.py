import numpy as np
import pandas as pd
import pytest

from rtsx.errors import FootprintError
from rtsx.footprints.class_maps import is_found, split_classes, thresholds_of


def test_nothing_is_computed(pred):
    def fail(block):
        raise AssertionError("a chunk was computed")

    lazy = pred.chunk(y=20).map_blocks(lambda block: block, template=pred.chunk(y=20))
    lazy["probability"].data = lazy["probability"].data.map_blocks(fail, dtype="uint8", meta=np.empty((0, 0), "uint8"))
    (one,) = split_classes(lazy, threshold=None, class_name=None, water=None)
    assert one.invalid.chunks is not None
    with pytest.raises(AssertionError, match="was computed"):
        one.probability.compute()


def test_invalid_is_what_any_variable_says(pred):
    pred["probability"][0, 0] = 255
    pred["binary"][0, 1] = 255
    pred["valid"][0, 2] = False
    (one,) = split_classes(pred, threshold=None, class_name=None, water=None)
    assert np.flatnonzero(one.invalid.values).tolist() == [0, 1, 2]


def test_valid_may_be_left_out_or_come_as_numbers(pred):
    pred["valid"][0, 2] = False
    (one,) = split_classes(pred.assign(valid=pred["valid"].astype("int8")), threshold=None, class_name=None, water=None)
    assert np.flatnonzero(one.invalid.values).tolist() == [2]
    (one,) = split_classes(pred.drop_vars("valid"), threshold=None, class_name=None, water=None)
    assert not one.invalid.any()


def test_dimensions_may_come_in_any_order(pred):
    (one,) = split_classes(pred.transpose("x", "y"), threshold=None, class_name=None, water=None)
    assert one.probability.dims == one.binary.dims == one.invalid.dims == ("y", "x")


@pytest.mark.parametrize(
    ("names", "threshold", "message"),
    [
        (["binary"], None, r"this lacks binary: it has probability, valid; give a threshold"),
        (["probability"], None, r"this lacks probability: it has binary, valid; is this what predict_cube returned\?"),
        (["probability", "binary"], 0.5, r"this lacks probability: it has valid"),
    ],
)
def test_a_missing_variable_is_named(pred, names, threshold, message):
    with pytest.raises(FootprintError, match=message):
        split_classes(pred.drop_vars(names), threshold=threshold, class_name=None, water=None)


def test_a_strange_dimension_is_named(pred):
    with pytest.raises(FootprintError, match=r"came with member: select one entry"):
        split_classes(pred.expand_dims(member=2), threshold=None, class_name=None, water=None)


def test_a_strange_time_is_shown(pred):
    with pytest.raises(FootprintError, match=r"is a date or a year, but came as .*'summer'"):
        split_classes(pred.assign_coords(time="summer"), threshold=None, class_name=None, water=None)


@pytest.mark.parametrize(
    ("time", "name", "date", "year"),
    [
        (2024, "2024", None, 2024),
        ("2024", "2024", None, 2024),
        ("2024-08-01", "2024-08-01", pd.Timestamp("2024-08-01"), 2024),
        (3, "3", None, None),
    ],
)
def test_a_time_has_a_name_and_the_year_that_it_means(pred, time, name, date, year):
    (one,) = split_classes(pred.assign_coords(time=time), threshold=None, class_name=None, water=None)
    assert (one.name, one.date, one.year) == (name, date, year)


def test_levels_follow_the_scale_factor(pred):
    probability = pred["probability"]
    assert thresholds_of(probability) == 100
    assert thresholds_of(probability.assign_attrs(scale_factor=1 / 250)) == 250
    assert thresholds_of(probability.astype("float32")) == 10_000


@pytest.mark.parametrize(("dtype", "scale"), [("int16", 0.01), ("uint8", 0.3), ("uint8", 0.001), ("uint8", -1.0)])
def test_other_encodings_are_refused(pred, dtype, scale):
    with pytest.raises(FootprintError, match=rf"but came as {dtype} with scale_factor {scale}"):
        thresholds_of(pred["probability"].astype(dtype).assign_attrs(scale_factor=scale))


def test_classes_are_named_by_coordinate_then_bundle_then_number(pred):
    several = pred.expand_dims({"class": 2})
    for classes, expected in [
        (["slump", "rest"], ["slump", "rest"]),
        ('["slump", "rest"]', ["slump", "rest"]),
        (["slump"], ["class_0", "class_1"]),
    ]:
        maps = split_classes(several.assign_attrs(bundle_classes=classes), threshold=None, class_name=None, water=None)
        assert [one.class_name for one in maps] == [one.name for one in maps] == expected
    (one,) = split_classes(
        pred.assign_attrs(bundle_classes=["slump", "rest"]), threshold=None, class_name=None, water=None
    )
    assert one.class_name is None
    (one,) = split_classes(pred.assign_coords({"class": "rest"}), threshold=None, class_name="rest", water=None)
    assert one.class_name == "rest"
    assert one.name == ""


def test_means_of_a_binary_map_are_refused():
    assert is_found(np.array([0, 1, 255, np.nan])).tolist() == [False, True, False, False]
    with pytest.raises(FootprintError, match=r"a pixel has 0.25, as means and resampling give.* give a threshold"):
        is_found(np.array([0, 0.25, 1], np.float32))


def test_floats_of_a_fill_value_are_missing(pred):
    pred["probability"][0, 0] = 255
    (one,) = split_classes(pred.astype("float32"), threshold=None, class_name=None, water=None)
    assert np.flatnonzero(one.invalid.values).tolist() == [0]
