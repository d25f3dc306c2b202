"""What every object store of a campaign promises, on a disk, in S3, and in memory."""

import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from rtsx.storage.object_store import MemoryObjects, ObjectStore, objects_of


@pytest.fixture(params=["disk", "s3", "fsspec", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store."""
    if request.param == "disk":
        yield objects_of(str(tmp_path / "campaign"), {})
    elif request.param == "s3":
        s3 = request.getfixturevalue("s3")
        yield objects_of(s3.url, s3.options)
    elif request.param == "fsspec":
        yield objects_of(f"memory://{uuid.uuid4().hex}/campaign", {})
        fsspec.filesystem("memory").store.clear()
    else:
        yield MemoryObjects()


def test_what_is_put_is_there_whole_and_can_be_replaced(objects: ObjectStore) -> None:
    assert objects.get("a/b/c.json") is None
    objects.put("a/b/c.json", b"one")
    assert objects.get("a/b/c.json") == b"one"
    objects.put("a/b/c.json", b"")
    assert objects.get("a/b/c.json") == b""
    big = bytes(range(256)) * 1000
    objects.put("a/b/c.json", big)
    assert objects.get("a/b/c.json") == big


def test_a_folder_is_no_object(objects: ObjectStore) -> None:
    objects.put("a/b", b"x")
    assert objects.get("a") is None
    assert objects.get("a/b/c") is None
    objects.delete("a/b/c")


def test_only_what_is_not_there_is_created(objects: ObjectStore) -> None:
    assert objects.create("a/mark", b"first")
    assert not objects.create("a/mark", b"second")
    assert objects.get("a/mark") == b"first"
    objects.delete("a/mark")
    assert objects.create("a/mark", b"third")


def test_one_of_32_concurrent_writers_wins(objects: ObjectStore) -> None:
    words = [f"writer {number}".encode() for number in range(32)]
    with ThreadPoolExecutor(32) as threads:
        for attempt in range(3):
            won = list(threads.map(lambda word, key=f"a/{attempt}": objects.create(key, word), words))
            assert won.count(True) == 1
            assert objects.get(f"a/{attempt}") == words[won.index(True)]


def test_equal_bytes_have_one_winner_too(objects: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: objects.create("a", b"same"), range(8))).count(True) == 1


def test_deleting_what_is_gone_is_nothing(objects: ObjectStore) -> None:
    objects.put("a/b", b"x")
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.get("a/b") is None


def test_a_listing_has_all_below_a_folder_and_nothing_else(objects: ObjectStore) -> None:
    for key in ("a/one", "a/deep/two", "ab/three", "a.four"):
        objects.put(key, key.encode())
    listed = sorted(objects.list("a"))
    assert [(found.key, found.n_bytes) for found in listed] == [("a/deep/two", 10), ("a/one", 5)]
    assert list(objects.list("nothing")) == []
    objects.delete("a/one")
    assert [found.key for found in objects.list("a")] == ["a/deep/two"]


def test_a_listing_tells_the_time_of_the_last_change(objects: ObjectStore) -> None:
    objects.put("a/one", b"x")
    (found,) = objects.list("a")
    assert found.changed.utcoffset() is not None
    assert abs(found.changed - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_store_travels(objects: ObjectStore) -> None:
    if isinstance(objects, MemoryObjects):
        pytest.skip("belongs to its process")
    objects.put("a", b"x")
    copy = pickle.loads(pickle.dumps(objects))
    assert copy.get("a") == b"x"
    assert copy == objects
