from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import xarray as xr

from rtsx.errors import InputNotFoundError, OutputExistsError, OutputNotWritableError, ReviewError
from rtsx.review import AddedOutline, Review, create_review, merge_review, open_review
from rtsx.storage.object_store import open_object_store
from tests.meanwhile import Meanwhile
from tests.review.reviewers import Hands, answers, image, outlines_of, work_through

OPENED = {"opener": lambda _: image(), "cubes": {"2024": "cube.zarr"}}
Make = Callable[..., Review]


@pytest.fixture
def make(tmp_path: Any) -> Make:
    def made(count: int = 25, **how: Any) -> Review:
        place = str(tmp_path / "review")
        create_review(outlines_of(count), place, **OPENED, **{"batch_size": 10, "repeats": 0.2, **how})
        return replace(open_review(place), clock=Hands())

    return made


def test_a_review_comes_back_as_it_was_made(make: Make) -> None:
    review = make()
    (first,) = review.rounds()
    assert [len(batch.outlines) for batch in first.batches if batch.repeats is None] == [10, 10, 5]
    assert first.n_repeats == 5
    assert review.settings.class_name == "rts"
    assert review.settings.blind
    # In falling order from batch to batch, and shuffled within one.
    best = review.outlines["prob_max"].sort_values(ascending=False).index[:10].tolist()
    assert sorted(first.batches[0].outlines) == sorted(best)
    assert list(first.batches[0].outlines) != best


def test_the_same_outlines_in_any_order_of_rows_have_the_same_queue(tmp_path: Any) -> None:
    table = outlines_of(30)
    one = create_review(table, str(tmp_path / "one"), **OPENED, batch_size=7)
    other = create_review(table.sample(frac=1, random_state=1), str(tmp_path / "other"), **OPENED, batch_size=7)
    assert one.rounds() == other.rounds()
    reseeded = create_review(table, str(tmp_path / "third"), **OPENED, batch_size=7, seed=1)
    assert one.rounds() != reseeded.rounds()


def test_two_reviewers_never_hold_one_batch(make: Make) -> None:
    review = make(200)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(review.claim, [f"reviewer {number}" for number in range(8)]))
    batches = [claim.batch for claims in taken for claim in claims]
    assert len(batches) == len(set(batches)) == 8
    assert [claim.batch for claim in review.claim("reviewer 3")] == [taken[3][0].batch]  # again: the same


def test_a_claim_without_a_sign_of_life_is_free_and_one_with_is_not(make: Make) -> None:
    review = make()
    (first,) = review.claim("ada")
    review.clock.move(days=6)
    (kept,) = review.renew("ada")
    review.clock.move(days=6)
    assert review.claim("bob")[0].batch != first.batch
    assert kept.batch == first.batch
    review.clock.move(days=8)
    assert review.claim("eve")[0].batch == first.batch
    assert review.renew("ada") == ()
    assert review.claim("ada")[0].batch != first.batch


def test_what_was_sent_late_counts_beside_the_other_s(make: Make) -> None:
    review = make()
    (late,) = review.claim("ada")
    review.clock.move(days=8)
    (now,) = review.claim("bob")
    assert now.batch == late.batch
    assert review.submit(answers(review, late))
    assert review.submit(answers(review, now))
    assert [one.reviewer for one in review.verdicts()] == ["ada", "bob"]


def test_sending_twice_changes_nothing(make: Make) -> None:
    review = make()
    (claim,) = review.claim("ada")
    sent = answers(review, claim)
    assert review.submit(sent)
    review.clock.move(days=1)
    assert not review.submit(replace(sent, finished=review.clock()))
    assert len(review.verdicts()) == 1
    other = replace(sent, answers=tuple(replace(one, verdict="unsure") for one in sent.answers))
    with pytest.raises(ReviewError, match="what was sent first counts"):
        review.submit(other)
    assert review.verdicts() == (sent,)


def test_repeats_come_to_another_reviewer_alone(make: Make) -> None:
    review = make(40)
    for claim in review.claim("ada"):
        review.submit(answers(review, claim))
    assert [review.rounds()[0].batches[claim.batch].repeats for claim in review.claim("ada")] == [None]
    assert [review.rounds()[0].batches[claim.batch].repeats for claim in review.claim("bob")] == [None, 0]
    work_through(review, "ada", "bob")
    reviewers: dict[str, list[str]] = {}
    for one in review.verdicts():
        for answer in one.answers:
            reviewers.setdefault(answer.outline, []).append(one.reviewer)
    assert sum(len(names) for names in reviewers.values()) == 48
    assert all(len(names) == len(set(names)) for names in reviewers.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sent: replace(sent, answers=sent.answers[1:]), "1 lack one"),
        (lambda sent: replace(sent, answers=(*sent.answers[1:], sent.answers[1])), "gets one verdict"),
        (lambda sent: replace(sent, answers=(replace(sent.answers[0], outline="y9x9"), *sent.answers[1:])), "'y9x9'"),
        (lambda sent: replace(sent, batch=99), "which this review has not"),
        (lambda sent: replace(sent, round=0), "which this review has not"),
        (lambda sent: replace(sent, batch=1), "does not have"),
        (lambda sent: replace(sent, reviewer="bob"), "never claimed by bob"),
        (lambda sent: replace(sent, reviewer="../../etc/passwd"), "letters, digits"),
        (lambda sent: replace(sent, added=(AddedOutline(geometry="POINT (1 1)"),)), "polygon"),
        (lambda sent: replace(sent, added=(AddedOutline(geometry="POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"),)), "cross"),
        (lambda sent: replace(sent, answers=(replace(sent.answers[0], comment="a" * 3000), *sent.answers[1:])), "2000"),
    ],
)
def test_verdicts_that_do_not_fit_are_refused(make: Make, change: Any, message: str) -> None:
    review = make()
    (claim,) = review.claim("ada")
    with pytest.raises(ReviewError, match=message):
        review.submit(change(answers(review, claim)))
    assert review.verdicts() == ()


@pytest.mark.parametrize(
    ("change", "how", "error", "message"),
    [
        (lambda table: table[:0], {}, ReviewError, "table is empty"),
        (lambda table: table, {"cubes": {}}, ReviewError, "no cube was given"),
        (lambda table: table.translate(1e5), {}, ReviewError, "outside of the cube '2024'"),
        (lambda table: table.assign(footprint_id="a"), {}, ReviewError, "missing or repeated"),
        (lambda table: table.drop(columns="prob_max"), {}, ReviewError, "needs prob_max"),
        (lambda table: table.assign(class_name=[*["a"] * 20, *["b"] * 5]), {}, ReviewError, "have a, b"),
        (lambda table: table.drop(columns="footprint_id"), {}, ReviewError, "footprint_id or sample_id"),
        (lambda table: table, {"batch_size": 0}, ReviewError, "at least 1 outline"),
        (lambda table: table, {"repeats": 2}, ReviewError, "part from 0 to 1"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_before_the_first_byte(
    tmp_path: Any, change: Any, how: dict[str, Any], error: type[Exception], message: str
) -> None:
    table = outlines_of(25)
    changed = change(table)
    given = changed if hasattr(changed, "columns") else table.set_geometry(changed)
    with pytest.raises(error, match=message):
        create_review(given, str(tmp_path / "review"), **{**OPENED, **how})
    assert list(tmp_path.iterdir()) == []


def test_outlines_in_another_crs_are_placed_where_they_are(tmp_path: Any) -> None:
    review = create_review(outlines_of(5).to_crs("EPSG:3413"), str(tmp_path / "review"), **OPENED)
    assert review.outlines.crs == "EPSG:3413"


def test_a_review_is_neither_replaced_nor_made_of_another_s_outlines(make: Make, tmp_path: Any) -> None:
    review = make()
    with pytest.raises(OutputExistsError, match="is a review already"):
        create_review(outlines_of(3), str(tmp_path / "review"), **OPENED)
    with pytest.raises(InputNotFoundError, match=r"no review\.json"):
        open_review(str(tmp_path / "nothing"))
    review.objects.put("outlines.parquet", b"others")
    with pytest.raises(ReviewError, match="removed or replaced"):
        _ = open_review(str(tmp_path / "review")).outlines


def test_of_two_reviews_that_are_made_at_once_one_is_there_whole() -> None:
    for n in range(20):
        place = f"memory://reviews/{n}"

        def other(place: str = place) -> None:
            with suppress(OutputExistsError):
                create_review(outlines_of(3), place, **OPENED)

        meanwhile = Meanwhile(n, other)
        with meanwhile.happening(), suppress(OutputExistsError):
            create_review(outlines_of(9), place, **OPENED)
        review = open_review(place)
        assert review.progress() == (0, len(review.outlines))
        if not meanwhile.has_happened:
            assert n > 3, "there were writes to come between"
            return
    raise AssertionError("never ended")


def test_a_review_lies_in_any_object_store() -> None:
    place = "memory://review-anywhere"
    made = create_review(outlines_of(12), place, **OPENED, batch_size=5, repeats=0.5)
    work_through(replace(made, clock=Hands()), "ada", "bob")
    sent = open_review(place).verdicts()
    assert sum(len(one.answers) for one in sent) == 18
    assert open_object_store(place, {}).get("review.json") is not None


def test_verdicts_of_another_review_are_an_error(make: Make) -> None:
    review = make()
    (claim,) = review.claim("ada")
    sent = answers(review, claim)
    alien = replace(sent, answers=(replace(sent.answers[0], outline="elsewhere"), *sent.answers[1:]))
    review.objects.put("verdicts/001/000000/ada.json", alien.to_json().encode())
    with pytest.raises(ReviewError, match="'elsewhere'"):
        review.verdicts()


def test_the_image_is_not_read(tmp_path: Any) -> None:
    lazy = image().chunk()
    broken = lazy.map(lambda band: xr.apply_ufunc(_refuse, band, dask="parallelized", output_dtypes=[band.dtype]))
    create_review(
        outlines_of(3), str(tmp_path / "review"), cubes={"a": "b"}, opener=lambda _: broken.assign_coords(lazy.coords)
    )


def _refuse(_: Any) -> Any:
    raise AssertionError("a pixel was read")


def test_a_place_that_cannot_hold_a_review_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        create_review(outlines_of(3), str(tmp_path / "file" / "review"), **OPENED)
    # A store that lets everybody create an object that is there, as some S3 servers do.
    monkeypatch.setattr("rtsx.storage.object_store.LocalObjects.create", lambda self, key, content: True)
    with pytest.raises(ReviewError, match="conditional writes"):
        create_review(outlines_of(3), str(tmp_path / "review"), **OPENED)


@pytest.mark.slow
def test_a_review_lies_on_s3(s3: Any) -> None:
    place = f"s3://{s3.bucket}/review"
    made = create_review(outlines_of(12), place, **OPENED, batch_size=4, repeats=0.5, storage_options=s3.options)
    with ThreadPoolExecutor(3) as pool:
        taken = [claims[0].batch for claims in pool.map(made.claim, ("ada", "bob", "eve"))]
    assert sorted(taken) == [0, 1, 2]
    work_through(made, "ada", "bob", "eve")
    merged = merge_review(open_review(place, storage_options=s3.options))
    assert merged.status.is_complete
    assert merged.status.kappa.pairs == 6
    with pytest.raises(ReviewError, match="cannot be read"):
        open_review(f"s3://{s3.bucket}-none/review", storage_options=s3.options)


def test_what_is_asked_of_the_store_does_not_grow_with_what_is_done(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = make(60, batch_size=2, repeats=0.0)
    work_through(review, "ada", most=25)
    review.claim("bob")  # who leaves
    review.clock.move(days=8)
    (taken,) = review.claim("eve")
    review.submit(answers(review, taken))
    (held,) = review.claim("ada")
    asked: list[str] = []
    get = type(review.objects).get
    monkeypatch.setattr(
        type(review.objects),
        "get",
        lambda self, key: get(self, asked.append(key) or key),  # type: ignore[func-returns-value]
    )
    assert [one.batch for one in review.claim("ada")] == [held.batch]
    assert [one.batch for one in review.renew("ada")] == [held.batch]
    assert [one.batch for one in review.active_claims()] == [held.batch]
    claims = [key for key in asked if key.startswith("claims/")]
    assert {int(key.split("/")[2]) for key in claims} <= {held.batch, taken.batch}
    assert [one.batch for one in review.claim("zoe")] == [held.batch + 1]


def test_points_are_reviewed_and_not_drawn(tmp_path: Any) -> None:
    table = outlines_of(3).rename(columns={"footprint_id": "sample_id"})
    place = str(tmp_path / "review")
    review = create_review(table.set_geometry(table.centroid), place, **OPENED, repeats=0.0)
    (claim,) = review.claim("ada")
    sent = answers(review, claim)
    drawn = "POLYGON ((501000 7699000, 501100 7699000, 501100 7699100, 501000 7699000))"
    for one in (
        replace(sent, added=(AddedOutline(geometry=drawn),)),
        replace(sent, answers=(replace(sent.answers[0], corrected=drawn), *sent.answers[1:])),
    ):
        with pytest.raises(ReviewError, match="asks what is at points"):
            review.submit(one)
    assert review.submit(sent)
