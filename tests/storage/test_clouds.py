"""Google and Azure: what is the same as on S3 and on a disk, and what their libraries do in another way.

Where their libraries and servers are not installed, the tests with `cloud` are skipped; the others hold what follows from the errors
and options of these libraries, by fakes.
"""

import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from rtsx import Campaign, ModelBundle
from rtsx.campaign.preflight import check_object_store
from rtsx.cli.options import require_absent
from rtsx.cube import open_source, write_cube
from rtsx.errors import CampaignError, MissingExtraError, OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.footprints import ConfidenceRule
from rtsx.review import open_review
from rtsx.storage.lock import exclusive_lock
from rtsx.storage.object_store import FsspecObjects, RetryingObjects, open_object_store
from rtsx.storage.retry import classify_error
from rtsx.storage.zarr import atomic_store
from tests.campaign.conftest import Cloud
from tests.faults import Fault, FaultyProxy

Make = Callable[..., xr.Dataset]


def test_a_cloud_is_trusted_with_a_campaign(cloud: Cloud) -> None:
    objects = open_object_store(cloud.url, cloud.options)
    check_object_store(objects, lease_s=60)
    assert list(objects.list("")) == []


def test_a_creation_whose_answer_was_lost_has_won(cloud: Cloud) -> None:
    with FaultyProxy(cloud.endpoint, methods={"PUT", "POST"}) as proxy:
        faults: list[Fault | None] = ["cut after", None]
        proxy.plan = lambda *_: faults.pop(0) if faults else None
        store = RetryingObjects(FsspecObjects(cloud.url, cloud.through(proxy.url)), (0.001,) * 8)
        assert store.create("a", b"x")
        assert proxy.failed == 1
        assert not store.create("a", b"x")


def test_a_bucket_that_is_not_there_ends_the_run(cloud: Cloud, random_cube: Make) -> None:
    nowhere = f"{cloud.url.partition('://')[0]}://nowhere-at-all/maps"
    objects = open_object_store(nowhere, cloud.options)
    for write in (objects.put, objects.create):
        with pytest.raises(OutputNotWritableError, match="no such bucket") as error:
            write("a", b"x")
        assert classify_error(error.value) == "halting"
    with pytest.raises(OutputNotWritableError, match="no such bucket"):
        check_object_store(objects, lease_s=60)
    with pytest.raises(OutputNotWritableError, match="no such bucket"):
        write_cube(random_cube(), f"{nowhere}/a.zarr", storage_options=cloud.options)
    with pytest.raises(CampaignError):
        Campaign.open(nowhere, storage_options=cloud.options)


def test_a_cube_goes_there_and_back(cloud: Cloud, random_cube: Make) -> None:
    first, second = (random_cube((130, 171), seed=seed, chunk=128) for seed in (1, 2))
    url = f"{cloud.url}/2024.zarr"
    write_cube(first, url, storage_options=cloud.options)
    with pytest.raises(OutputExistsError, match="exists"):
        write_cube(second, url, storage_options=cloud.options)
    write_cube(second, url, storage_options=cloud.options, overwrite=True)
    xr.testing.assert_identical(open_source(url, storage_options=cloud.options).load(), second.load())
    assert {found.key.split("/")[0] for found in open_object_store(cloud.url, cloud.options).list("")} == {"2024.zarr"}


class HttpError(Exception):
    """As gcsfs raises it: none of Python's own kinds."""

    def __init__(self, code: int) -> None:
        super().__init__(f"no, {code}")
        self.code = code


class Loser(MemoryFileSystem):
    """Google's file system as it looks from here; the answer to the first creation is lost, and it asks again itself."""

    protocol = "gs"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    marks: ClassVar[dict[str, str]] = {}
    opened: ClassVar[list[dict[str, Any]]] = []
    error: Exception | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.opened.append(options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).removeprefix("gs://").strip("/")

    def pipe_file(
        self, path: str, value: bytes, mode: str = "overwrite", metadata: dict[str, str] | None = None
    ) -> None:
        if self.error is not None:
            raise self.error
        super().pipe_file(path, value, mode=mode)
        self.marks.update(metadata or {})
        if mode == "create":
            super().pipe_file(path, value, mode=mode)

    def getxattr(self, path: str, name: str) -> str:
        return self.marks[name]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Loser]]:
    """Google's file system, replaced."""
    Loser.clear_instance_cache()
    Loser.store.clear()
    Loser.marks.clear()
    Loser.opened.clear()
    Loser.error = None
    monkeypatch.setitem(_registry, "gs", Loser)
    yield Loser
    Loser.clear_instance_cache()


def test_who_is_refused_his_own_object_has_won(fake: type[Loser]) -> None:
    store = FsspecObjects("gs://maps/a")
    assert store.create("x", b"same")
    assert not store.create("x", b"same")


def test_a_process_has_one_client_of_a_cloud_and_lists_anew(fake: type[Loser]) -> None:
    store = open_object_store("gs://maps/a", {"token": "secret-word"})
    for key in ("x", "y"):
        store.put(key, b"")
    assert fake.opened == [{"use_listings_cache": False, "token": "secret-word"}]
    assert "secret-word" not in repr(store)
    assert pickle.loads(pickle.dumps(store)) == store


@pytest.mark.parametrize(
    ("error", "match", "kind"),
    [
        (HttpError(503), "cannot be reached", "passing"),
        (HttpError(401), "does not take these credentials.*GOOGLE_APPLICATION_CREDENTIALS", "halting"),
        (OSError("Forbidden: b/maps/o\nno"), "does not take these credentials.*gcloud", "halting"),
        (FileNotFoundError("b/maps/o"), "no such bucket", "halting"),
    ],
    ids=["busy", "unknown", "forbidden", "absent"],
)
def test_what_a_cloud_refuses_is_told(fake: type[Loser], error: Exception, match: str, kind: str) -> None:
    fake.error = error
    store = FsspecObjects("gs://maps/a")
    with pytest.raises(OSError) as raised:  # noqa: PT011 - whatever it says; that is looked at below
        store.put("x", b"")
    assert classify_error(raised.value) == kind
    with pytest.raises(RtsxError, match=f"(?s){match}"):
        check_object_store(store, lease_s=60)


DOORS: dict[str, Callable[[str], object]] = {
    "cube": open_source,
    "store": lambda url: atomic_store(url, overwrite=False, options={}).__enter__(),
    "build": lambda url: exclusive_lock(url, {}).__enter__(),
    "review": open_review,
    "bundle": ModelBundle.open,
    "campaign": Campaign.open,
    "rule": ConfidenceRule.open,
    "command": lambda url: require_absent([url], overwrite=False),
}

_ENDING = {"cube": ".zarr", "store": ".zarr", "build": ".zarr"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("scheme", "extra", "module"),
    [
        ("s3", "s3", "s3fs"),
        ("gs", "gcs", "gcsfs"),
        ("gcs", "gcs", "gcsfs"),
        ("az", "azure", "adlfs"),
        ("abfs", "azure", "adlfs"),
    ],
)
def test_a_missing_extra_is_named_at_every_door(
    door: str, scheme: str, extra: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(_registry, scheme, raising=False)
    with pytest.raises(MissingExtraError, match=rf"{scheme}:// needs the {extra} extra: pip install 'rtsx\[{extra}\]'"):
        DOORS[door](f"{scheme}://maps/a{_ENDING.get(door, '')}")


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_scheme_is_told_with_those_that_work(door: str) -> None:
    with pytest.raises(RtsxError, match=r"Protocol not known: gopher.*a folder, s3://, gs://, and az:// or abfs://"):
        DOORS[door](f"gopher://maps/a{_ENDING.get(door, '')}")
