from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from rtsx.errors import ReviewError
from rtsx.review import AddedOutline, Answer, BatchVerdicts, Review, create_review, merge_review, review_status
from rtsx.scores.agreement import VERDICTS
from tests.review.reviewers import Hands, answers, image, outlines_of, work_through


def make(folder: Path, table: gpd.GeoDataFrame, **how: Any) -> Review:
    made = create_review(
        table, str(folder / "review"), cubes={"2024": "cube.zarr"}, opener=lambda _: image(), **{"repeats": 0.0, **how}
    )
    return replace(made, clock=Hands())


def test_merge_says_what_was_answered(tmp_path: Path) -> None:
    review = make(tmp_path, outlines_of(60), batch_size=10, repeats=0.3)
    work_through(review, "ada", "bob", errors=0.1)
    merged = merge_review(review)
    said: dict[str, list[str]] = {}
    for one in review.verdicts():
        for answer in one.answers:
            said.setdefault(answer.outline, []).append(answer.verdict)
    assert merged.status.is_complete
    assert set(said) == set(merged.outlines.index)
    for name, row in merged.outlines.iterrows():
        votes = said[str(name)]
        assert row["n_reviews"] == len(votes)
        assert row["verdict"] == (votes[0] if len(set(votes)) == 1 else "unsure")
        assert row["disputed"] == (len(set(votes)) > 1)
    assert set(merged.open) == set(merged.outlines.index[merged.outlines["disputed"]])
    assert set(merged.confirmed.index) == set(merged.outlines.index[merged.outlines["verdict"] == "target"])


def test_half_a_review_is_a_product_that_says_so(tmp_path: Path) -> None:
    table = outlines_of(50)
    review = make(tmp_path, table, batch_size=10)
    empty = review_status(review)
    assert (empty.reviewed, empty.reviewed_down_to, empty.is_complete) == (0, None, False)
    work_through(review, "ada", most=3)
    merged = merge_review(review)
    best = table["prob_max"].sort_values(ascending=False)
    assert merged.status.reviewed == 30
    assert merged.status.reviewed_down_to == best.iloc[29]
    assert dict(merged.status.rows())["state"] == "incomplete: 20 have no verdict"
    assert merged.outlines["verdict"].isna().sum() == 20
    assert merged.outlines["n_reviews"].sum() == 30


def test_kappa_recovers_the_planted_agreement(tmp_path: Path) -> None:
    # Two readers who each err in 10 % of outlines, of which 60 % are slumps, agree in 0.82; by chance in 0.5128.
    planted = (0.82 - 0.5128) / (1 - 0.5128)
    review = make(tmp_path, outlines_of(600), batch_size=50, repeats=1.0)
    work_through(review, "ada", "bob", errors=0.1)
    kappa = review_status(review).kappa
    low, high = kappa.interval
    assert kappa.pairs >= 550
    assert low < planted < high
    assert high - low < 0.2


def test_a_further_round_decides_what_was_unsure_or_disputed(tmp_path: Path) -> None:
    review = make(tmp_path, outlines_of(40), batch_size=20, repeats=1.0)
    with pytest.raises(ReviewError, match="2 batches of round 1 are not done"):
        review.add_round(["y1x0"])
    work_through(review, "ada", "bob", errors=0.25)
    open_ones = merge_review(review).open
    assert open_ones
    review.add_round(open_ones)
    (claim,) = review.claim("expert")
    assert claim.round == 2
    review.submit(answers(review, claim))
    merged = merge_review(review)
    assert merged.open == ()
    right = merged.outlines.loc[list(open_ones)]
    assert ((right["verdict"] == "target") == right["is_slump"]).all()
    assert set(right["n_reviews"]) == {3}
    with pytest.raises(ReviewError, match="nothing to ask again"):
        review.add_round(merged.open)


def test_corrected_and_added_outlines_are_measured(tmp_path: Path) -> None:
    review = make(tmp_path, outlines_of(3), batch_size=3)
    (claim,) = review.claim("ada")
    sent = answers(review, claim)
    drawn = "POLYGON ((501000 7699000, 501100 7699000, 501100 7699100, 501000 7699100, 501000 7699000))"
    again = "POLYGON ((501005 7699000, 501100 7699000, 501100 7699100, 501005 7699100, 501005 7699000))"
    first = replace(sent.answers[0], verdict="target", corrected=drawn, comment="<b>wider</b>")
    review.submit(
        replace(
            sent, answers=(first, *sent.answers[1:]), added=(AddedOutline(geometry=drawn), AddedOutline(geometry=again))
        )
    )
    merged = merge_review(review)
    row = merged.outlines.loc[first.outline]
    assert row["is_corrected"]
    assert row["review_comment"] == "<b>wider</b>"
    assert row["area_m2"] == pytest.approx(10_000, rel=0.01)
    assert row.geometry.equals(shapely.from_wkt(drawn))
    assert len(merged.added) == 1  # drawn twice, once there
    (added,) = merged.added.to_dict("records")
    assert added["area_m2"] == pytest.approx(10_000, rel=0.01)
    assert (added["class_name"], added["verdict"], added["is_added"]) == ("rts", "target", True)
    assert np.isnan(added["prob_max"])
    assert len(merged.table) == 4
    assert merged.table.crs == merged.outlines.crs
    merged.table.to_parquet(tmp_path / "merged.parquet")


def test_a_sample_has_its_verdicts(tmp_path: Path) -> None:
    table = outlines_of(20).rename(columns={"footprint_id": "sample_id"}).drop(columns=["prob_max", "prob_mean"])
    review = make(tmp_path, table.assign(stratum="found"), batch_size=8)
    assert review.settings.order == "random"
    work_through(review, "ada")
    merged = merge_review(review)
    assert set(merged.outlines["verdict"]) <= set(VERDICTS)
    assert merged.outlines["sample_id"].tolist() == table["sample_id"].tolist()
    assert merged.status.reviewed_down_to is None


@pytest.mark.parametrize("numbers", [range(3), [10**12, 5, 7]])
def test_outlines_with_numbers_as_ids_are_written_beside_added_ones(tmp_path: Path, numbers: Any) -> None:
    review = make(tmp_path, outlines_of(3).assign(footprint_id=list(numbers)).astype({"footprint_id": "int64"}))
    (claim,) = review.claim("ada")
    said = tuple(Answer(outline=name, verdict="target") for name in review.outlines.index)
    drawn = "POLYGON ((501000 7699000, 501100 7699000, 501100 7699100, 501000 7699000))"
    review.submit(
        BatchVerdicts(
            round=1, batch=claim.batch, reviewer="ada", answers=said, finished=review.clock(),
            added=(AddedOutline(geometry=drawn),),
        )
    )  # fmt: skip
    merged = merge_review(review)
    merged.write(str(tmp_path / "verified"))
    ids = set(gpd.read_parquet(tmp_path / "verified" / "confirmed.parquet")["footprint_id"])
    assert ids == {*map(str, numbers), "added-1-0-0-ada"}
    for name in ("whole.gpkg", "whole.fgb", "whole.parquet"):
        (file,) = merged.write(str(tmp_path / name))
        assert file.is_file()


def test_the_name_of_another_kind_of_file_becomes_no_folder(tmp_path: Path) -> None:
    merged = merge_review(make(tmp_path, outlines_of(3)))
    for name in ("verified.geojson", "verified.shp", "verified.csv"):
        with pytest.raises(ReviewError, match="change the ending"):
            merged.write(str(tmp_path / name))
        assert not (tmp_path / name).exists()
    for name in ("verified.2024", "verified.v2/", "verified"):
        assert len(merged.write(str(tmp_path / name) + "/" * name.endswith("/"))) == 5
