"""Objects in S3: what only object stores can do wrong."""

import errno
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from rtsx.campaign.plan import write_plan
from rtsx.errors import OutputExistsError
from rtsx.storage import stage
from rtsx.storage.lock import exclusive_lock
from rtsx.storage.object_store import (
    FsspecObjects,
    LocalObjects,
    MemoryObjects,
    ObjectStore,
    RetryingObjects,
    StoredObject,
    open_object_store,
)
from rtsx.storage.retry import classify_error
from tests import warm
from tests.campaign.collect.finished import Output, make_pixels, plan_of
from tests.campaign.conftest import S3, Keys
from tests.faults import Fault, FaultyProxy

_QUICK = (0.001,) * 8


def test_a_creation_whose_answer_was_lost_has_won(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, methods={"PUT"}) as proxy:
        faults: list[Fault | None] = ["cut after", None]
        proxy.plan = lambda *_: faults.pop(0) if faults else None
        store = RetryingObjects(FsspecObjects(s3.url, s3.through(proxy.url)), _QUICK)
        assert store.create("a", b"x")
        assert proxy.failed == 1
        assert not store.create("a", b"x")


def test_a_creation_that_was_lost_to_another_has_not_won(s3: S3) -> None:
    theirs = FsspecObjects(s3.url, s3.options)
    with FaultyProxy(s3.endpoint, methods={"PUT"}) as proxy:

        def cut_and_come_between(*_: str) -> Fault | None:
            return "cut" if theirs.create("a", b"theirs") else None

        proxy.plan = cut_and_come_between
        assert not RetryingObjects(FsspecObjects(s3.url, s3.through(proxy.url)), _QUICK).create("a", b"mine")
        assert proxy.failed == 1
    assert theirs.get("a") == b"theirs"


def test_a_bucket_that_is_gone_is_no_empty_one(s3: S3) -> None:
    store = open_object_store("s3://nowhere-at-all/campaign", s3.options)
    with pytest.raises(FileNotFoundError, match="bucket") as error:
        store.get("a")
    assert classify_error(error.value) == "halting"


def test_more_than_a_page_is_listed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.storage.object_store._PAGE", 3)
    store = FsspecObjects(s3.url, s3.options)
    for number in range(10):
        store.put(f"marks/{number}", b"x")
    assert [found.key for found in store.list("marks")] == [f"marks/{number}" for number in range(10)]


def test_credentials_come_from_the_environment(s3: S3, guarded: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    anywhere = {"client_kwargs": {"region_name": "eu-central-1"}}
    for name, value in (guarded.writer | {"AWS_ENDPOINT_URL": s3.endpoint}).items():
        monkeypatch.setenv(name, value)
    store = open_object_store(s3.url, anywhere)
    assert store.create("a", b"x")
    assert store.get("a") == b"x"
    for name, value in guarded.reader.items():
        monkeypatch.setenv(name, value)
    other = open_object_store(s3.url, anywhere | {"max_concurrency": 9})  # another client, because s3fs keeps the first
    assert other.get("a") == b"x"
    with pytest.raises(PermissionError) as error:
        other.put("a", b"y")
    assert classify_error(error.value) == "halting"


def test_anybody_reads_what_is_public(s3: S3) -> None:
    mine = open_object_store(s3.url, s3.options)
    mine.put("public", b"x")
    mine.put("private", b"y")
    _let_read(s3, "public")
    anybody = open_object_store(s3.url, {"anon": True, "endpoint_url": s3.endpoint})
    assert anybody.get("public") == b"x"
    with pytest.raises(PermissionError) as error:
        anybody.get("private")
    assert classify_error(error.value) == "halting"


def test_an_answer_that_never_stops_failing_is_raised_as_it_is(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=1.0, faults=("503",)) as proxy:
        store = RetryingObjects(FsspecObjects(s3.url, s3.through(proxy.url)), (0.001, 0.001))
        with pytest.raises(OSError, match="Service Unavailable") as error:
            store.put("a", b"x")
        assert classify_error(error.value) == "passing"
        assert proxy.failed == 3


def _let_read(s3: S3, key: str) -> None:
    system = fsspec.filesystem("s3", **s3.options)
    system.call_s3("put_object_acl", Bucket=s3.bucket, Key=f"campaign/{key}", ACL="public-read")


def test_a_campaign_is_looked_at_by_its_url_alone(s3: S3, tmp_path: Path) -> None:
    plan = plan_of(2, 2)
    write_plan(open_object_store(s3.url, s3.options), plan)
    output = Output(plan, s3.url, s3.options)
    output.finish(make_pixels(plan, seed=1), list(plan.cells)[:3])
    # A process of its own, because s3fs keeps the first client that was made without options.
    said = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": s3.endpoint}
    asked = warm.start(
        "rtsx.cli:main",
        ["rtsx", "campaign", "status", s3.url, "--check"],
        log=tmp_path / "said",
        environment=said | {"AWS_DEFAULT_REGION": "eu-central-1"},
    )
    asked.join()
    assert "3 of 4 cells done" in (tmp_path / "said").read_text()
    assert asked.exitcode == 1


def test_one_of_many_builds_of_one_cube_goes_on(s3: S3) -> None:
    """The lock of `build_cube` on an object store: a conditional write decides."""
    target = f"{s3.url}/cube.zarr"

    def build(_: int) -> bool:
        try:
            with exclusive_lock(target, s3.options):
                entered.wait(30)
        except OutputExistsError:
            refused.append(1)
            if len(refused) == 3:
                entered.set()
            return False
        return True

    entered = threading.Event()
    refused: list[int] = []
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(build, range(4))) == 1
    with exclusive_lock(target, s3.options):
        pass


@pytest.fixture(params=["disk", "s3", "google", "azure", "fsspec", "memory"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    """An empty store."""
    if request.param == "disk":
        yield open_object_store(str(tmp_path / "campaign"), {})
    elif request.param in ("s3", "google", "azure"):
        place = request.getfixturevalue(request.param)
        yield open_object_store(place.url, place.options)
    elif request.param == "fsspec":
        yield open_object_store(f"memory://{uuid.uuid4().hex}/campaign", {})
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
    assert sorted(found.key for found in objects.list("")) == ["a.four", "a/deep/two", "a/one", "ab/three"]
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


_QUICK_RETRYING_OBJECTS = (0.001,) * 12


class Failing(MemoryObjects):
    """Fails each call some times before it does it; creations also after they are done."""

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.times, self.calls = error, times, count()

    def _fail(self) -> None:
        if next(self.calls) < self.times:
            raise self.error

    def get(self, key: str) -> bytes | None:
        self._fail()
        return super().get(key)

    def create(self, key: str, content: bytes) -> bool:
        done = super().create(key, content)
        self._fail()
        return done

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for number, found in enumerate(super().list(prefix)):
            if number == 2:
                self._fail()
            yield found


def test_what_passes_is_tried_again() -> None:
    store = Failing(ConnectionResetError(), 3)
    assert RetryingObjects(store, _QUICK_RETRYING_OBJECTS).get("a") is None
    assert next(store.calls) == 4


def test_what_lasts_is_raised_at_once() -> None:
    store = Failing(PermissionError(), 3)
    with pytest.raises(PermissionError):
        RetryingObjects(store, _QUICK_RETRYING_OBJECTS).get("a")
    assert next(store.calls) == 1


def test_what_never_passes_is_raised_in_the_end() -> None:
    store = Failing(TimeoutError("slow"), 100)
    with pytest.raises(TimeoutError, match="slow"):
        RetryingObjects(store, (0.001,) * 4).get("a")
    assert next(store.calls) == 5


@pytest.mark.parametrize(("n_bytes", "attempts"), [(5_000_000, 6), (1, 2)])
def test_what_takes_long_is_tried_as_often_as_else_unless_it_is_too_small_for_that(
    n_bytes: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0, 40)  # s, a look after each attempt
    monkeypatch.setattr("rtsx.storage.retry.time", SimpleNamespace(monotonic=lambda: next(clock)))
    store = Failing(TimeoutError("slow"), 100)
    with pytest.raises(TimeoutError, match="slow"):
        RetryingObjects(store, (0.001,) * 5).create("a", bytes(n_bytes))
    assert next(store.calls) == attempts


def test_a_listing_that_broke_goes_on_without_repeating_itself() -> None:
    store = Failing(ConnectionResetError(), 2)
    for key in "abcde":
        store.put(f"m/{key}", b"")
    listed = [found.key for found in RetryingObjects(store, _QUICK_RETRYING_OBJECTS).list("m")]
    assert listed == [f"m/{key}" for key in "abcde"]


def test_a_creation_that_failed_after_it_was_done_has_won() -> None:
    store = RetryingObjects(Failing(ConnectionResetError(), 1), _QUICK_RETRYING_OBJECTS)
    assert store.create("a", b"mine")
    assert not store.create("a", b"theirs")


def test_a_store_that_fails_three_requests_in_ten_loses_nothing(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=0.3, faults=("503", "cut", "cut after"), seed=3) as proxy:
        store = RetryingObjects(FsspecObjects(s3.url, s3.through(proxy.url)), _QUICK_RETRYING_OBJECTS)
        words = {f"m/{number}": f"word {number}".encode() for number in range(40)}
        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(lambda key: store.create(key, words[key]), words))
            assert not any(threads.map(lambda key: store.create(key, b"late"), words))
            assert dict(zip(words, threads.map(store.get, words), strict=True)) == words
        assert {found.key for found in store.list("m")} == set(words)
        assert proxy.failed > 20


def test_what_a_killed_process_left_is_no_object(tmp_path: Path) -> None:
    store = LocalObjects(str(tmp_path))
    store.put("marks/a.json", b"x")
    (tmp_path / "marks" / ".b.json.0123.part").write_bytes(b"half")
    with stage(tmp_path / "marks" / "d.json") as living:
        left = tmp_path / "marks" / ".c.json.partial" / living.name
        left.mkdir(parents=True)
        (left / "draft").write_bytes(b"half")
        assert [found.key for found in store.list("marks")] == ["marks/a.json"]
        assert not left.parent.exists()
        assert living.exists()


def test_a_refused_writer_leaves_nothing(tmp_path: Path) -> None:
    store = LocalObjects(str(tmp_path))
    assert store.create("marks/a.json", b"x")
    assert not store.create("marks/a.json", b"y")
    assert [file.name for file in (tmp_path / "marks").iterdir()] == ["a.json"]


def test_a_link_whose_answer_was_lost_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Path.hardlink_to

    def link_and_lose(self: Path, target: Path) -> None:
        link(self, target)
        raise FileExistsError(errno.EEXIST, "asked again", str(self))

    monkeypatch.setattr(Path, "hardlink_to", link_and_lose)
    assert LocalObjects(str(tmp_path)).create("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "marks").write_bytes(b"")
    store = LocalObjects(str(tmp_path))
    assert list(store.list("marks")) == []
    with pytest.raises(NotADirectoryError):
        store.put("marks/a.json", b"x")


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64 * 1024)
    store = LocalObjects(str(folder))
    store.put("a", b"old")
    for write in (store.put, store.create):
        with pytest.raises(OSError, match="No space") as error:
            write("a" if write == store.put else "b", bytes(100_000))
        assert classify_error(error.value) == "halting"
    assert store.get("a") == b"old"
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_missing_rights_end_the_run(without_rights: Path) -> None:
    store = LocalObjects(str(without_rights))
    assert store.get("a") is None
    for write in (store.put, store.create):
        with pytest.raises(PermissionError) as error:
            write("a", b"x")
        assert classify_error(error.value) == "halting"


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/SECRET"])
def test_a_key_leads_nowhere_outside_of_a_folder(key: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    objects = LocalObjects(str(tmp_path / "output"))
    key = key.replace("/SECRET", str(tmp_path / "secret"))
    acts: tuple[Callable[[str], object], ...] = (
        objects.get,
        objects.delete,
        lambda key: objects.put(key, b""),
        lambda key: objects.create(key, b""),
        lambda key: list(objects.list(key)),
    )
    for act in acts:
        with pytest.raises(PermissionError, match="leads out of the folder"):
            act(key)
    assert (tmp_path / "secret").read_bytes() == b"x"
