"""Commit marks and failures as text."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsx.campaign.records import CommitRecord, Failure, InputVersion
from rtsx.errors import CampaignError
from tests.campaign.records import a_mark

characters = st.characters(exclude_categories=["Cs"])  # instead of a codec, which is tried out on all there are
words = st.text(characters, max_size=12)
cells = st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)
keys = st.lists(words.filter(lambda part: part not in {"", ".", ".."} and "/" not in part), min_size=1).map("/".join)
marks = st.builds(
    CommitRecord,
    cell=cells,
    plan_digest=words,
    state=st.sampled_from(["mapped", "empty"]),
    objects=st.dictionaries(keys, words, max_size=4),
    inputs=st.lists(st.builds(InputVersion, words, words, words), max_size=4).map(tuple),
    bundles=st.lists(words, max_size=3).map(tuple),
    versions=st.dictionaries(words, words, max_size=3),
    n_valid=st.integers(0, 10**9),
    n_outlines=st.integers(0, 10**6),
    seconds=st.floats(0, 1e6),
    peak_memory_bytes=st.integers(0, 10**12),
    started=moments,
    finished=moments,
    run=words,
    worker=words,
    hardware=words,
)
failures = st.builds(
    Failure,
    cell=cells,
    kind=st.sampled_from(["passing", "lasting", "halting"]),
    error=words,
    message=words,
    traceback=st.text(characters, max_size=60),
    attempts=st.integers(1, 9),
    when=words,
    run=words,
    worker=words,
)


@given(marks)
def test_law_7_a_mark_comes_back_equal(mark: CommitRecord) -> None:
    text = mark.to_json()
    again = CommitRecord.from_json(text)
    assert again == mark
    assert again.to_json() == text
    assert "\n" not in text


@given(failures)
def test_law_7_a_failure_comes_back_equal(failure: Failure) -> None:
    text = failure.to_json()
    assert Failure.from_json(text) == failure
    assert "\n" not in text


MARK = CommitRecord(
    cell=(3, -4), plan_digest="d", state="mapped", objects={"a": "b"}, inputs=(InputVersion("s", "i", "t"),),
    bundles=("b",), versions={"rtsx": "1"}, n_valid=9, n_outlines=1, seconds=1.5, peak_memory_bytes=10,
    started="2024-07-01T00:00:00+00:00", finished="2024-07-01T00:00:00+00:00", run="r", worker="w",
)  # fmt: skip
FAILURE = Failure(
    cell=(3, -4), kind="lasting", error="CubeError", message="bad", traceback="", attempts=1, when="2024", run="r",
    worker="w",
)  # fmt: skip


def damaged(text: str) -> list[str]:
    document: dict[str, Any] = json.loads(text)
    without = {name: value for name, value in document.items() if name != "run"}
    return [
        "",
        text[: len(text) // 2],
        "null",
        "3",
        "[]",
        json.dumps(without),
        json.dumps(document | {"unknown": 1}),
        json.dumps(document | {"cell": [1]}),
        json.dumps(document | {"cell": "ab"}),
        json.dumps(document | {"cell": None}),
    ]


@pytest.mark.parametrize("text", damaged(MARK.to_json()))
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(CampaignError, match="This is no commit mark"):
        CommitRecord.from_json(text)


@pytest.mark.parametrize("changes", [{"inputs": [1]}, {"inputs": None}, {"inputs": [{"source": "s"}]}, {"bundles": 3}])
def test_a_mark_with_other_inputs_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CampaignError, match="This is no commit mark"):
        CommitRecord.from_json(json.dumps(json.loads(MARK.to_json()) | changes))


@pytest.mark.parametrize("text", damaged(FAILURE.to_json()))
def test_what_is_no_failure_is_refused(text: str) -> None:
    with pytest.raises(CampaignError, match="This is no record of a failure"):
        Failure.from_json(text)


def test_stamps_are_sorted_by_source_and_image() -> None:
    stamps = [
        InputVersion("b", "1", "x"),
        InputVersion("a", "2", "x"),
        InputVersion("a", "1", "y"),
        InputVersion("a", "1", "x"),
    ]
    assert sorted(stamps) == [stamps[3], stamps[2], stamps[1], stamps[0]]


@pytest.mark.parametrize("key", ["/etc/hostname", "../../etc/hostname", "map/../../x", "", "map//c"])
def test_a_record_of_a_stranger_names_nothing_outside_of_its_output(key: str) -> None:
    record = json.loads(a_mark((0, 0)).to_json())
    with pytest.raises(CampaignError, match=r"This is no commit.*is no key in this output"):
        CommitRecord.from_json(json.dumps({**record, "objects": {key: "0"}}))
