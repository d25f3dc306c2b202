"""Which errors can pass, which cannot, and which end a run."""

import errno
import http.client
from pathlib import Path

import botocore.exceptions as boto
import fsspec
import numpy as np
import pystac_client.exceptions
import pytest
import rasterio
import requests
import torch
import urllib3
from affine import Affine
from distributed import KilledWorker
from distributed.comm import CommClosedError
from rasterio.errors import RasterioIOError
from scipy.ndimage import gaussian_filter

from rtsx.cube.rasterio import read_header, read_window
from rtsx.errors import (
    BundleError,
    CubeError,
    FootprintError,
    MemoryPlanError,
    MissingExtraError,
    NoImageError,
    OutputNotWritableError,
)
from rtsx.storage.retry import FailureKind, classify_error, service_code
from tests.campaign.conftest import S3
from tests.faults import Fault, FaultyProxy
from tests.servers import free_port


def _service(code: str, status: int) -> boto.ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "PutObject")  # type: ignore[arg-type]


def _http(status: int) -> requests.HTTPError:
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError("no", response=answer)


def _api(status: int) -> pystac_client.exceptions.APIError:
    error = pystac_client.exceptions.APIError("no")
    error.status_code = status
    return error


def _named(name: str, **said: object) -> Exception:
    """An error of a library that is not installed here."""
    module, _, kind = name.rpartition(".")
    error: Exception = type(kind, (Exception,), {"__module__": module, **said})()
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_named("azure.core.exceptions.ServiceRequestError"), "passing"),
        (_named("azure.core.exceptions.HttpResponseError", status_code=503, response=None), "passing"),
        (_named("azure.core.exceptions.ClientAuthenticationError"), "halting"),
        (
            _named(
                "azure.core.exceptions.ResourceNotFoundError",
                error_code="ContainerNotFound",
                status_code=404,
                response=None,
            ),
            "halting",
        ),
        (
            _named(
                "azure.core.exceptions.ResourceNotFoundError", error_code="BlobNotFound", status_code=404, response=None
            ),
            "lasting",
        ),
        (_named("gcsfs.retry.HttpError", code=429), "passing"),
        (_named("gcsfs.retry.HttpError", code=401), "halting"),
        (_named("gcsfs.retry.ChecksumError"), "passing"),
        (OSError("Forbidden: https://storage.googleapis.com/b/maps"), "halting"),
        (_named("google.auth.exceptions.RefreshError"), "halting"),
        (_named("google.auth.exceptions.TransportError"), "passing"),
        (ConnectionResetError(), "passing"),
        (TimeoutError(), "passing"),
        (MemoryError(), "passing"),
        (http.client.IncompleteRead(b""), "passing"),
        (boto.EndpointConnectionError(endpoint_url="x"), "passing"),
        (boto.ConnectionClosedError(endpoint_url="x"), "passing"),
        (_service("SlowDown", 503), "passing"),
        (_service("500", 500), "passing"),
        (_service("InternalError", 500), "passing"),
        (_http(503), "passing"),
        (_http(429), "passing"),
        (_api(502), "passing"),
        (requests.ConnectionError(), "passing"),
        (urllib3.exceptions.ReadTimeoutError(None, None, "x"), "passing"),  # type: ignore[arg-type]
        (OSError(errno.EIO, "no"), "passing"),
        (OSError(errno.ESTALE, "no"), "passing"),
        (OSError(errno.EMFILE, "no"), "passing"),
        (RasterioIOError("HTTP response code: 503"), "passing"),
        (RasterioIOError("CURL error: Could not resolve host: a.b"), "passing"),
        (torch.OutOfMemoryError(), "passing"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "passing"),
        (RuntimeError("CUDA driver error: unknown error"), "passing"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "passing"),
        (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access"), "passing"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"), "passing"),
        (CommClosedError(), "passing"),
        (KilledWorker("a", None, 3), "passing"),
        (OSError(errno.ENOSPC, "No space left on device"), "halting"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "halting"),
        (OSError(errno.EROFS, "no"), "halting"),
        (PermissionError(errno.EACCES, "no"), "halting"),
        (PermissionError("Access Denied."), "halting"),
        (_service("AccessDenied", 403), "halting"),
        (_service("InvalidAccessKeyId", 403), "halting"),
        (_service("NoSuchBucket", 404), "halting"),
        (_service("QuotaExceeded", 403), "halting"),
        (_service("507", 507), "halting"),
        (boto.NoCredentialsError(), "halting"),
        (ModuleNotFoundError("no"), "halting"),
        (MissingExtraError("no"), "halting"),
        (BundleError("no"), "halting"),
        (MemoryPlanError("no"), "halting"),
        (OutputNotWritableError("no"), "halting"),
        (ValueError("no"), "lasting"),
        (FileNotFoundError(errno.ENOENT, "no"), "lasting"),
        (RasterioIOError("file is not recognized as being in a supported file format"), "lasting"),
        (RasterioIOError("HTTP response code: 404"), "lasting"),
        (_http(404), "lasting"),
        (_service("NoSuchKey", 404), "lasting"),
        (CubeError("no"), "lasting"),
        (NoImageError("no"), "lasting"),
        (FootprintError("no"), "lasting"),
        (RuntimeError("no"), "lasting"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_judged(error: BaseException, kind: FailureKind) -> None:
    assert classify_error(error) == kind


def _from(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def test_what_an_error_came_from_is_judged_too() -> None:
    assert classify_error(_from(CubeError("cannot be read"), ConnectionResetError())) == "passing"
    assert (
        classify_error(_from(RuntimeError("block 3"), _from(CubeError("a"), OSError(errno.ENOSPC, "full"))))
        == "halting"
    )
    assert classify_error(ExceptionGroup("two", [ValueError(), TimeoutError()])) == "passing"


def test_the_error_itself_comes_before_what_it_came_from() -> None:
    assert classify_error(_from(OutputNotWritableError("no"), TimeoutError())) == "halting"


def test_a_source_that_is_closed_to_us_costs_its_cells_and_not_the_run() -> None:
    assert classify_error(_from(CubeError("cannot be read"), PermissionError("Forbidden"))) == "lasting"
    assert classify_error(PermissionError("Forbidden")) == "halting"


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_transfer_that_broke_off_is_told_from_a_file_that_is_cut(fault: Fault, s3: S3, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1, 512, 512), np.uint8)
    profile = {"driver": "GTiff", "width": 512, "height": 512, "count": 1, "dtype": "uint8", "tiled": True}
    place = {"blockxsize": 128, "blockysize": 128, "crs": "EPSG:3413", "transform": Affine(3, 0, 0, 0, -3, 0)}
    whole, half = tmp_path / "whole.tif", tmp_path / "half.tif"
    with rasterio.open(whole, "w", **profile, **place) as file:
        file.write(pixels)
    half.write_bytes(whole.read_bytes()[:100_000])
    fsspec.filesystem("s3", **s3.options).pipe_file(f"{s3.bucket}/whole.tif", whole.read_bytes(), ACL="public-read")
    window = (slice(300, 500), slice(300, 500))
    with FaultyProxy(s3.endpoint, faults=(fault,)) as proxy, rasterio.Env(GDAL_HTTP_MAX_RETRY="0"):
        url = f"{proxy.url}/{s3.bucket}/whole.tif"
        read_header(url)
        proxy.rate = 1.0
        with pytest.raises(CubeError, match=r"http://.*cannot be read in rows 300-500") as error:
            read_window(url, window, bands=[1])
    assert classify_error(error.value) == "passing"
    with pytest.raises(CubeError, match="cannot be read in rows 300-500") as error:
        read_window(str(half), window, bands=[1])
    assert classify_error(error.value) == "lasting"


@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw", "jpeg", "lzma", "lerc", "webp"])
def test_a_block_that_came_whole_and_cannot_be_decoded_is_bad_data(compress: str, s3: S3, tmp_path: Path) -> None:
    pixels = gaussian_filter(np.random.default_rng(0).integers(1, 255, (3, 128, 128)).astype(float), (0, 2, 2))
    profile = {"driver": "GTiff", "width": 128, "height": 128, "count": 3, "dtype": "uint8", "tiled": True}
    place = {"blockxsize": 64, "blockysize": 64, "crs": "EPSG:3413", "transform": Affine(3, 0, 0, 0, -3, 0)}
    bad = tmp_path / "bad.tif"
    try:
        with rasterio.open(bad, "w", **profile, **place, compress=compress) as file:
            file.write(pixels.astype(np.uint8))
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"this GDAL does not write {compress}: {error}")
    with rasterio.open(bad) as file:
        first = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(bad.read_bytes())
    content[first : first + 60] = b"\xff" * 60
    fsspec.filesystem("s3", **s3.options).pipe_file(f"{s3.bucket}/bad.tif", bytes(content), ACL="public-read")
    with pytest.raises(CubeError, match=r"http://.*cannot be read in rows 0-128") as error:
        read_window(f"{s3.endpoint}/{s3.bucket}/bad.tif", (slice(0, 128), slice(0, 128)), bands=[1])
    assert classify_error(error.value) == "lasting"


def test_a_server_that_does_not_answer_is_told_from_a_file_that_is_not_there(s3: S3) -> None:
    with rasterio.Env(GDAL_HTTP_MAX_RETRY="0"):
        with pytest.raises(CubeError) as error:
            read_header(f"http://127.0.0.1:{free_port()}/away.tif")
        assert classify_error(error.value) == "passing"
        for _ in range(2):  # the second answer comes from GDAL's cache
            with pytest.raises(CubeError) as error:
                read_header(f"{s3.endpoint}/{s3.bucket}/missing.tif")
            assert classify_error(error.value) == "lasting"


def test_what_was_handled_without_being_named_counts_until_it_is_suppressed() -> None:
    error = ValueError("a")
    error.__context__ = TimeoutError()
    assert classify_error(error) == "passing"
    error.__suppress_context__ = True
    assert classify_error(error) == "lasting"


def test_a_circle_of_causes_ends() -> None:
    error = ValueError("a")
    error.__context__ = _from(ValueError("b"), error)
    assert classify_error(error) == "lasting"


def test_the_word_of_a_service_is_found_below() -> None:
    assert service_code(_from(FileNotFoundError("no"), _service("NoSuchBucket", 404))) == "NoSuchBucket"
    assert service_code(FileNotFoundError("no")) is None
