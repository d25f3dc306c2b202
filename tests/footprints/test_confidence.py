"""A rule gives each outline the class of its stratum, and is refused where it is none or of another model."""

import json

import fsspec
import numpy as np
import pytest

from rtsx.errors import EvaluationError, FootprintError, InputNotFoundError
from rtsx.evaluation import assess_accuracy, derive_confidence_rule, sample_outlines
from rtsx.footprints import ConfidenceRule, extract_footprints, merge_footprints, validate_footprints
from tests.footprints.conftest import make_prediction

RIGHT = {("low", "small"): 0.2, ("low", "large"): 0.9, ("high", "small"): 0.6, ("high", "large"): 1.0}
"""Part of the reviewed outlines that is right, by probability and size: not rising with probability alone."""


@pytest.fixture(scope="module")
def squares():
    """Forty outlines of each kind, side 4 or 8 px, probability 0.6 or 0.9."""
    level = np.zeros((40 * 12, 4 * 12), "uint8")
    for column, (side, value) in enumerate(((4, 60), (8, 60), (4, 90), (8, 90))):
        for row in range(40):
            level[12 * row + 2 : 12 * row + 2 + side, 12 * column + 2 : 12 * column + 2 + side] = value
    return make_prediction(level)


@pytest.fixture(scope="module")
def sample(squares):
    found = extract_footprints(squares, min_area_m2=0)
    drawn = sample_outlines(found, size=80, confidence_edges=[0.7], area_edges_m2=[300.5])
    for rows in drawn.groupby("stratum").groups.values():
        first = drawn.loc[rows[0]]
        kind = ("high" if first["prob_max"] > 0.7 else "low", "large" if first["area_m2"] > 300 else "small")
        n_right = round(RIGHT[kind] * len(rows))
        drawn.loc[rows, "verdict"] = ["target"] * n_right + ["other"] * (len(rows) - n_right)
    return drawn


def test_outlines_have_the_class_of_what_was_measured(squares, sample, tmp_path):
    rule = derive_confidence_rule(sample, precision_floor=0.5)
    measured = assess_accuracy(sample).strata.set_index("stratum")
    assert sorted(one.precision for one in rule.strata) == sorted(measured["part"])
    assert sorted(one.low for one in rule.strata) == pytest.approx(sorted(measured["low"]))
    rule.write(tmp_path / "rule.json")
    assert ConfidenceRule.open(tmp_path / "rule.json") == rule
    found = extract_footprints(squares, min_area_m2=0, confidence_rule=tmp_path / "rule.json")
    validate_footprints(found)
    kinds = list(zip(found["prob_max"] > 0.7, found["area_m2"] > 300, strict=True))
    expected = {
        (False, False): "marginal",
        (False, True): "high_confidence",
        (True, False): "candidate",
        (True, True): "high_confidence",
    }
    assert found["confidence_class"].tolist() == [expected[bool(high), bool(large)] for high, large in kinds]
    assert rule.apply(found.drop(columns="confidence_class")).equals(found)
    assert set(derive_confidence_rule(sample, precision_floor=0.99).apply(found)["confidence_class"]) == {
        "marginal",
        "candidate",
    }
    # What nobody has looked at has no class.
    few = sample.copy()
    few.loc[few["stratum"].str.contains("under 0.7, under"), "verdict"] = "unsure"
    classes = derive_confidence_rule(few).apply(found)["confidence_class"]
    assert classes[(found["prob_max"] < 0.7) & (found["area_m2"] < 300)].isna().all()
    assert classes.notna().sum() == 120


def test_a_part_of_an_outline_has_no_class_until_it_is_whole(squares, sample):
    rule = derive_confidence_rule(sample)
    halo = 10
    at = 12 * 2 + 5  # through the third column
    left = extract_footprints(
        squares.isel(x=slice(0, at + halo)), min_area_m2=0, halo=(0, 0, 0, halo), confidence_rule=rule
    )
    right = extract_footprints(
        squares.isel(x=slice(at - halo, None)), min_area_m2=0, halo=(0, 0, halo, 0), confidence_rule=rule
    )
    assert left.loc[left["cut"], "confidence_class"].isna().all()
    merged = merge_footprints([left, right])
    assert merged["confidence_class"].isna().sum() == 40
    whole = extract_footprints(squares, min_area_m2=0, confidence_rule=rule)
    assert rule.apply(merged)["confidence_class"].tolist() == whole["confidence_class"].tolist()


def test_rules_that_are_none_are_refused(squares, sample, tmp_path):
    rule = derive_confidence_rule(sample)
    other = squares.assign_attrs(bundle_digest="1" * 64)
    with pytest.raises(
        FootprintError, match="measured on outlines of the bundle 000000000000, and these are of 111111111111"
    ):
        extract_footprints(other, confidence_rule=rule)
    with pytest.raises(FootprintError, match="one that they do not name"):
        extract_footprints(squares.drop_attrs(deep=False), confidence_rule=rule)
    with pytest.raises(InputNotFoundError, match="no rule of confidence at"):
        extract_footprints(squares, confidence_rule=tmp_path / "rule.json")
    with pytest.raises(FootprintError, match="is a folder: name the file"):
        ConfidenceRule.open(tmp_path)
    with pytest.raises(InputNotFoundError, match=r"at memory://rules/none\.json"):
        ConfidenceRule.open("memory://rules/none.json")
    with pytest.raises(FootprintError, match="cannot be reached"):
        ConfidenceRule.open("nowhere://rules/rule.json")
    with pytest.raises(FootprintError, match="to a local path, not memory://"):
        rule.write("memory://rules/rule.json")
    fsspec.filesystem("memory").pipe_file("/rules/rule.json", rule.to_json().encode())
    assert ConfidenceRule.open("memory://rules/rule.json") == rule
    document = json.loads(rule.to_json())
    first = document["strata"][0]
    for changes, told in (
        ({"strata": [{**first, "confidence_class": "sure"}]}, "confidence_class"),
        (
            {"strata": [{**first, "confidence_class": "marginal", "low": 0.9, "precision": 0.95, "high": 1.0}]},
            "follows",
        ),
        ({"strata": [first, first]}, "do not overlap"),
        ({"strata": [{**first, "area_m2": [5.0, 1.0]}]}, "ascends"),
        ({"strata": []}, "and strata"),
        ({"floor": 0.5}, "unknown name|unexpected"),
        ({"bundle_digest": None}, "bundle_digest"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(document | changes))
        with pytest.raises(FootprintError, match=rf"wrong.json: This is no rule of confidence.*({told})"):
            ConfidenceRule.open(tmp_path / "wrong.json")
    with pytest.raises(EvaluationError, match="outlines of one bundle_digest"):
        derive_confidence_rule(sample.assign(bundle_digest=["a"] + ["b"] * (len(sample) - 1)))
    with pytest.raises(EvaluationError, match="one of the ground"):
        derive_confidence_rule(sample.assign(design="ground"))
    with pytest.raises(EvaluationError, match="does not say which bundle"):
        derive_confidence_rule(sample.drop(columns="bundle_digest"))
    with pytest.raises(EvaluationError, match="draw it with sample_outlines"):
        derive_confidence_rule(sample.assign(stratum=sample["stratum"].str.replace("prob", "p")))
    with pytest.raises(EvaluationError, match="40 outlines, and 80 are in the sample"):
        assess_accuracy(sample.assign(stratum="all"))


def test_a_rule_on_a_server_that_nobody_reaches_is_no_damaged_one():
    pytest.importorskip("s3fs")
    nobody = {"anon": True, "endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(FootprintError, match=r"Could not connect.*Check address and network"):
        ConfidenceRule.open("s3://rules/rule.json", storage_options=nobody)
