"""Objects in S3: what only object stores can do wrong."""

import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from rtsx.campaign.plan import write_plan
from rtsx.cube.build_state import alone
from rtsx.errors import OutputExistsError
from rtsx.storage.object_store import RetryingObjects, S3Objects, objects_of
from rtsx.storage.retry import kind_of
from tests.campaign.collect.finished import Output, make_pixels, plan_of
from tests.campaign.conftest import S3, Keys
from tests.faults import Fault, FaultyProxy
from tests.servers import script_of

_QUICK = (0.001,) * 8


def test_a_creation_whose_answer_was_lost_has_won(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, methods={"PUT"}) as proxy:
        faults: list[Fault | None] = ["cut after", None]
        proxy.plan = lambda *_: faults.pop(0) if faults else None
        store = RetryingObjects(S3Objects(s3.url, s3.through(proxy.url)), _QUICK)
        assert store.create("a", b"x")
        assert proxy.failed == 1
        assert not store.create("a", b"x")


def test_a_creation_that_was_lost_to_another_has_not_won(s3: S3) -> None:
    theirs = S3Objects(s3.url, s3.options)
    with FaultyProxy(s3.endpoint, methods={"PUT"}) as proxy:

        def cut_and_come_between(*_: str) -> Fault | None:
            return "cut" if theirs.create("a", b"theirs") else None

        proxy.plan = cut_and_come_between
        assert not RetryingObjects(S3Objects(s3.url, s3.through(proxy.url)), _QUICK).create("a", b"mine")
        assert proxy.failed == 1
    assert theirs.get("a") == b"theirs"


def test_a_bucket_that_is_gone_is_no_empty_one(s3: S3) -> None:
    store = objects_of("s3://nowhere-at-all/campaign", s3.options)
    with pytest.raises(FileNotFoundError, match="bucket") as error:
        store.get("a")
    assert kind_of(error.value) == "halting"


def test_more_than_a_page_is_listed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.storage.object_store._PAGE", 3)
    store = S3Objects(s3.url, s3.options)
    for number in range(10):
        store.put(f"marks/{number}", b"x")
    assert [found.key for found in store.list("marks")] == [f"marks/{number}" for number in range(10)]


def test_credentials_come_from_the_environment(s3: S3, guarded: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    anywhere = {"client_kwargs": {"region_name": "eu-central-1"}}
    for name, value in (guarded.writer | {"AWS_ENDPOINT_URL": s3.endpoint}).items():
        monkeypatch.setenv(name, value)
    store = objects_of(s3.url, anywhere)
    assert store.create("a", b"x")
    assert store.get("a") == b"x"
    for name, value in guarded.reader.items():
        monkeypatch.setenv(name, value)
    other = objects_of(s3.url, anywhere | {"max_concurrency": 9})  # another client, because s3fs keeps the first
    assert other.get("a") == b"x"
    with pytest.raises(PermissionError) as error:
        other.put("a", b"y")
    assert kind_of(error.value) == "halting"


def test_anybody_reads_what_is_public(s3: S3) -> None:
    mine = objects_of(s3.url, s3.options)
    mine.put("public", b"x")
    mine.put("private", b"y")
    _let_read(s3, "public")
    anybody = objects_of(s3.url, {"anon": True, "endpoint_url": s3.endpoint})
    assert anybody.get("public") == b"x"
    with pytest.raises(PermissionError) as error:
        anybody.get("private")
    assert kind_of(error.value) == "halting"


def test_an_answer_that_never_stops_failing_is_raised_as_it_is(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=1.0, faults=("503",)) as proxy:
        store = RetryingObjects(S3Objects(s3.url, s3.through(proxy.url)), (0.001, 0.001))
        with pytest.raises(OSError, match="Service Unavailable") as error:
            store.put("a", b"x")
        assert kind_of(error.value) == "passing"
        assert proxy.failed == 3


def _let_read(s3: S3, key: str) -> None:
    system = fsspec.filesystem("s3", **s3.options)
    system.call_s3("put_object_acl", Bucket=s3.bucket, Key=f"campaign/{key}", ACL="public-read")


def test_a_campaign_is_looked_at_by_its_url_alone(s3: S3) -> None:
    plan = plan_of(2, 2)
    write_plan(objects_of(s3.url, s3.options), plan)
    output = Output(plan, s3.url, s3.options)
    output.finish(make_pixels(plan, seed=1), list(plan.cells)[:3])
    # A process of its own, because s3fs keeps the first client that was made without options.
    said = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": s3.endpoint}
    asked = subprocess.run(
        [script_of("rtsx"), "campaign", "status", s3.url, "--check"],
        env=os.environ | said | {"AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
    )
    assert "3 of 4 cells done" in asked.stdout, asked.stderr
    assert asked.returncode == 1


def test_one_of_many_builds_of_one_cube_goes_on(s3: S3) -> None:
    """The lock of `build_cube` on an object store: a conditional write decides."""
    target = f"{s3.url}/cube.zarr"

    def build(_: int) -> bool:
        try:
            with alone(target, s3.options):
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
    with alone(target, s3.options):
        pass
