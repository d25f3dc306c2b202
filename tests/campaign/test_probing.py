"""Stores that can and cannot be trusted with a campaign."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rtsx.campaign.preflight import probe_store
from rtsx.errors import CampaignError, OutputNotWritableError
from rtsx.storage.object_store import MemoryObjects, ObjectStore, RetryingObjects, StoredObject, objects_of
from tests.campaign.conftest import S3, Keys
from tests.faults import FaultyProxy
from tests.servers import free_port


def _hasty(objects: ObjectStore) -> ObjectStore:
    """The same store with short pauses."""
    assert isinstance(objects, RetryingObjects)
    return replace(objects, pauses_s=(0.001,))


def test_good_stores_pass_and_keep_nothing(s3: S3, tmp_path: Path) -> None:
    for objects in (objects_of(str(tmp_path / "new" / "folder"), {}), objects_of(s3.url, s3.options), MemoryObjects()):
        probe_store(objects, lease_s=60)
        assert list(objects.list("probes")) == []


def test_what_a_killed_probe_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    objects = objects_of(str(tmp_path), {})
    for name in ("killed", "living"):
        objects.put(f"probes/{name}-write", b"")
    os.utime(tmp_path / "probes" / "killed-write", (0, 0))
    probe_store(objects, lease_s=60)
    assert [found.key for found in objects.list("probes")] == ["probes/living-write"]


def test_a_store_that_falters_passes(s3: S3) -> None:
    with FaultyProxy(s3.endpoint, rate=0.1, faults=("503", "cut", "cut after"), seed=1) as proxy:
        probe_store(RetryingObjects(objects_of(s3.url, s3.through(proxy.url)), (0.001,) * 8), lease_s=60)
        assert proxy.failed > 0


def test_a_store_that_ignores_conditions_is_refused(deaf_s3: S3) -> None:
    with pytest.raises(CampaignError, match=r"does not keep conditional writes: 16 of 16 writers .*If-None-Match"):
        probe_store(objects_of(deaf_s3.url, deaf_s3.options), lease_s=60)


def test_a_store_that_looks_first_and_writes_then_is_refused() -> None:
    class Racing(MemoryObjects):
        def create(self, key: str, content: bytes) -> bool:
            won = content != b"late"  # right for one writer at a time, and wrong for several
            self.put(key, content)
            return won

    with pytest.raises(CampaignError, match="conditional writes"):
        probe_store(Racing(), lease_s=60)


def test_a_bucket_that_is_not_there_is_told(s3: S3) -> None:
    with pytest.raises(OutputNotWritableError, match=r"s3://nowhere-at-all/maps: there is no such bucket.*Create it"):
        probe_store(objects_of("s3://nowhere-at-all/maps", s3.options), lease_s=60)


def test_a_service_that_is_not_there_is_told(s3: S3) -> None:
    objects = objects_of(s3.url, s3.through(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(CampaignError, match=r"cannot be reached \(EndpointConnectionError.*Check the address"):
        probe_store(_hasty(objects), lease_s=60)


def test_credentials_that_nobody_knows_are_told(s3: S3, guarded: Keys) -> None:
    with pytest.raises(OutputNotWritableError, match=r"does not know these credentials.*AWS_ACCESS_KEY_ID"):
        probe_store(objects_of(s3.url, s3.options), lease_s=60)


def test_a_wrong_secret_is_told(s3: S3, guarded: Keys) -> None:
    options = s3.options | {"key": guarded.writer["AWS_ACCESS_KEY_ID"], "secret": "wrong"}
    with pytest.raises(OutputNotWritableError, match="does not know these credentials"):
        probe_store(objects_of(s3.url, options), lease_s=60)


def test_credentials_that_may_only_read_are_told(s3: S3, guarded: Keys) -> None:
    keys = guarded.reader
    options = s3.options | {"key": keys["AWS_ACCESS_KEY_ID"], "secret": keys["AWS_SECRET_ACCESS_KEY"]}
    with pytest.raises(OutputNotWritableError, match=r"cannot be written \(PermissionError.*rights"):
        probe_store(objects_of(s3.url, options), lease_s=60)


def test_missing_credentials_are_told(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    options = {"endpoint_url": s3.endpoint, "client_kwargs": {"region_name": "eu-central-1"}}
    with pytest.raises(OutputNotWritableError, match=r"needs credentials, and there are none.*AWS_ACCESS_KEY_ID"):
        probe_store(objects_of(s3.url, options), lease_s=60)


def test_a_folder_without_rights_is_told(without_rights: Path) -> None:
    with pytest.raises(OutputNotWritableError, match=r"closed cannot be written \(PermissionError.*rights"):
        probe_store(objects_of(str(without_rights), {}), lease_s=60)


def test_a_file_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"")
    with pytest.raises(OutputNotWritableError, match="cannot be written"):
        probe_store(objects_of(str(tmp_path / "map"), {}), lease_s=60)


def test_a_full_disk_is_told(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(16 * 4096)
    with (folder / "everything").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 16 * 4096)
    with pytest.raises(OutputNotWritableError, match=r"is full .*Free space"):
        probe_store(objects_of(str(folder), {}), lease_s=60)


@pytest.mark.parametrize("minutes", [-3, 3])
def test_a_clock_that_is_off_is_refused(minutes: int, s3: S3, tmp_path: Path) -> None:
    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(minutes=minutes)

    for objects in (objects_of(str(tmp_path), {}), objects_of(s3.url, s3.options)):
        word = "ahead of" if minutes > 0 else "behind"
        with pytest.raises(CampaignError, match=rf"1[78]\d s {word} that of .*leases of 120 s bear 30 s.*chrony"):
            probe_store(objects, lease_s=120, clock=clock)
        probe_store(objects, lease_s=1200, clock=clock)


class _Forgetful(MemoryObjects):
    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(())


class _Stale(MemoryObjects):
    def get(self, key: str) -> bytes | None:
        return b"old" if super().get(key) is not None else None


class _Undying(MemoryObjects):
    def delete(self, key: str) -> None:
        """Say nothing, do nothing."""


@pytest.mark.parametrize(
    ("store", "words"),
    [(_Forgetful, "does not list"), (_Stale, "other bytes"), (_Undying, "still gives an object that was removed")],
)
def test_a_store_that_is_behind_itself_is_refused(store: type[MemoryObjects], words: str) -> None:
    with pytest.raises(CampaignError, match=words):
        probe_store(store(), lease_s=60)
