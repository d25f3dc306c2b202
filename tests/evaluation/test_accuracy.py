"""What a reviewed sample says, what it does not say yet, and what is no reviewed sample."""

import json

import geopandas as gpd
import numpy as np
import pytest

from rtsx.errors import EvaluationError, TruthWarning
from rtsx.evaluation import assess_accuracy
from rtsx.evaluation.accuracy import read_sample_csv
from rtsx.scores.estimates import wilson_interval


def make_sample(strata, *, design="ground"):
    """Rows of (stratum, mapped, size, target, other, unsure, missing)."""
    rows = []
    for stratum, mapped, size, *counts in strata:
        for verdict, count in zip(("target", "other", "unsure", None), counts, strict=True):
            rows += [{"stratum": stratum, "mapped": mapped, "stratum_size": size, "verdict": verdict}] * count
    table = gpd.GeoDataFrame(rows, geometry=gpd.points_from_xy(range(len(rows)), range(len(rows))), crs="EPSG:3413")
    return table.assign(
        sample_id=[f"s{number}" for number in range(len(rows))], design=design, region="", inclusion_probability=0.1
    )


GROUND = [("elsewhere", False, 9e6, 1, 99, 0, 0), ("found", True, 1e6, 40, 10, 0, 0)]


def test_values_are_those_of_the_estimators():
    table = assess_accuracy(make_sample(GROUND)).estimates.set_index("measure")
    assert table.loc["precision", "value"] == 0.8
    assert table.loc["area_m2", "value"] == pytest.approx(0.8e6 + 9e6 / 100)
    assert table.loc["recall", "value"] == pytest.approx(0.8e6 / (0.8e6 + 9e4))
    assert (table["lowest"] == table["low"]).all()
    assert (table["highest"] == table["high"]).all()


def test_unsure_ones_count_either_way():
    strata = [("elsewhere", False, 9e6, 1, 95, 4, 0), ("found", True, 1e6, 40, 5, 5, 0)]
    table = assess_accuracy(make_sample(strata)).estimates.set_index("measure")
    assert table.loc["precision", "value"] == pytest.approx(40 / 45)
    assert table.loc["precision", ["lowest", "highest"]].tolist() == pytest.approx(
        [wilson_interval(40 / 50, 50)[0], wilson_interval(45 / 50, 50)[1]]
    )
    against = assess_accuracy(
        make_sample([("elsewhere", False, 9e6, 5, 95, 0, 0), ("found", True, 1e6, 40, 10, 0, 0)])
    ).estimates.set_index("measure")
    assert table.loc["recall", "lowest"] == pytest.approx(against.loc["recall", "low"])
    none = assess_accuracy(
        make_sample([("elsewhere", False, 9e6, 1, 99, 0, 0), ("found", True, 1e6, 40, 10, 0, 0)])
    ).estimates.set_index("measure")
    assert table.loc["area_m2", "lowest"] == pytest.approx(none.loc["area_m2", "low"])


def test_half_a_review_says_so():
    accuracy = assess_accuracy(make_sample([("elsewhere", False, 9e6, 0, 0, 0, 20), ("found", True, 1e6, 8, 2, 0, 10)]))
    table = accuracy.estimates.set_index("measure")
    assert table.loc["precision", "value"] == 0.8
    assert np.isnan(table.loc["recall", "value"])
    assert np.isnan(table.loc["area_m2", "value"])
    assert "30 of 40 units are not reviewed yet" in str(accuracy)
    assert "Nothing is known of stratum 'elsewhere' yet" in str(accuracy)
    assert json.loads(accuracy.to_json())["estimates"][1]["value"] is None
    assert accuracy.required(0.1).set_index("stratum").loc["elsewhere", "required"] == 97


def test_outlines_have_a_precision_alone():
    accuracy = assess_accuracy(make_sample([("all", True, 400, 15, 5, 0, 0)], design="outlines"))
    assert accuracy.estimates["measure"].tolist() == ["precision"]
    assert str(accuracy).splitlines()[1].split() == ["precision", "0.75", "0.537-0.886"]


def test_it_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = assess_accuracy(make_sample(GROUND)).plot(tmp_path / "accuracy.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_is_no_reviewed_sample_is_refused():
    sample = make_sample(GROUND)
    with pytest.raises(EvaluationError, match="this lacks stratum_size"):
        assess_accuracy(sample.drop(columns="stratum_size"))
    with pytest.raises(EvaluationError, match="one of target, other, unsure, or missing; got rts"):
        assess_accuracy(sample.assign(verdict="rts"))
    with pytest.raises(EvaluationError, match="has a verdict of"):
        assess_accuracy(sample.assign(verdict=None))
    with pytest.raises(EvaluationError, match="several samples"):
        assess_accuracy(sample.assign(sample_id="s1"))
    with pytest.raises(EvaluationError, match="no rows"):
        assess_accuracy(sample.iloc[:0])
    with pytest.raises(EvaluationError, match="several sizes"):
        assess_accuracy(sample.assign(stratum_size=np.arange(len(sample), dtype=float) + 1))
    with pytest.raises(EvaluationError, match="confidence is above 0"):
        assess_accuracy(sample, confidence=95)


@pytest.mark.parametrize("decimal", [".", ","])
def test_a_sample_that_went_through_a_spreadsheet_is_the_same(decimal):
    sample = make_sample(GROUND)
    words = (
        sample.drop(columns="geometry")
        .astype(str)
        .replace({"region": {"": None}, "verdict": {"target": " Target", "None": ""}})
    )
    words["stratum_size"] = words["stratum_size"].str.replace(".", decimal)
    assert (
        assess_accuracy(words.rename(columns={"inclusion_probability": "inclusion_"})).to_json()
        == assess_accuracy(sample).to_json()
    )
    with pytest.raises(
        EvaluationError, match="stratum_size of a sample is a number in every row, as it was drawn; got 'many'"
    ):
        assess_accuracy(words.assign(stratum_size="many"))
    yes_or_no = words.assign(mapped=words["mapped"].map({"True": "Yes", "False": "no"}))
    assert assess_accuracy(yes_or_no).to_json() == assess_accuracy(sample).to_json()
    with pytest.raises(
        EvaluationError, match="mapped of a sample is true or false in every row, as it was drawn; got 'WAHR'"
    ):
        assess_accuracy(words.assign(mapped="WAHR"))


def test_units_that_are_gone_are_missed():
    sample = make_sample(GROUND)
    with pytest.warns(TruthWarning, match="99 units that were drawn are not in this table, such as s1"):
        assess_accuracy(sample[sample["stratum"] == "found"])


def test_a_csv_with_semicolons_and_without_outlines(tmp_path):
    sample = make_sample(GROUND)
    sample.drop(columns="geometry").to_csv(tmp_path / "s.csv", sep=";", decimal=",", index=False, encoding="utf-8-sig")
    assert assess_accuracy(read_sample_csv(tmp_path / "s.csv")).to_json() == assess_accuracy(sample).to_json()
