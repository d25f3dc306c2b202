"""Stores that tests of campaigns write into: a folder, a real S3 server on loopback, and ones that misbehave."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults import FaultyProxy
from tests.servers import free_port, script_of, wait_until_answers


@dataclass(frozen=True)
class S3:
    """A bucket of its own on the server."""

    endpoint: str
    """Address of the server."""
    bucket: str
    """Name of the bucket, empty at the beginning of the test."""
    options: dict[str, Any] = field(default_factory=dict)
    """Storage options of fsspec, with credentials."""

    @property
    def url(self) -> str:
        """Where to put a campaign."""
        return f"s3://{self.bucket}/campaign"

    def through(self, endpoint: str) -> dict[str, Any]:
        """The options for another address of the same server, such as that of a proxy."""
        return self.options | {"endpoint_url": endpoint}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of moto's S3 server, in a process."""
    pytest.importorskip("s3fs")
    port = free_port()
    command = [script_of("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/moto-api/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def s3(s3_server: str) -> S3:
    """A fresh bucket."""
    import fsspec

    options = {
        "key": "a",
        "secret": "b",
        "endpoint_url": s3_server,
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    bucket = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return S3(s3_server, bucket, options)


@pytest.fixture
def deaf_s3(s3: S3) -> Iterator[S3]:
    """The same bucket behind a proxy that drops the condition of conditional puts, as some servers do."""
    with FaultyProxy(s3.endpoint, drop=("If-None-Match",)) as proxy:
        yield S3(proxy.url, s3.bucket, s3.through(proxy.url))


@pytest.fixture
def without_rights(tmp_path: Path) -> Path:
    """A folder that nobody may write into; skipped for root, who may anything."""
    if os.geteuid() == 0 or sys.platform == "win32":
        pytest.skip("root may write everywhere")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    return folder
