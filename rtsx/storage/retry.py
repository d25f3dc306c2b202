"""Errors classified by whether trying again helps, and pauses between tries.

Errors of libraries are known by their names, because most of these libraries are optional and none is needed to judge.
"""

import errno
import random
import re
import time
from collections.abc import Container, Iterator, Mapping
from typing import Literal

from rtsx.errors import (
    BundleError,
    ConfigError,
    CubeError,
    MemoryPlanError,
    MissingExtraError,
    OutputNotWritableError,
    PlanError,
)

FailureKind = Literal["passing", "lasting", "halting"]
"""Passing: may be gone next time (network, lost worker, memory), so it is tried again. Lasting: this cell will never do (bad
data), so it is set aside at once. Halting: no cell can do (full disk, no right to write, wrong versions), so the run stops."""

_Verdict = Literal["passing", "halting", "denied"]
_HALTING_TYPES = (
    BundleError,
    ConfigError,
    ImportError,
    MemoryPlanError,
    MissingExtraError,
    OutputNotWritableError,
    PlanError,
)
"""Errors of ours and of Python after which no cell can do."""
_Table = Mapping[_Verdict, Container[str | int | None]]

_NUMBERS: _Table = {
    "halting": {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS},
    "denied": {errno.EACCES, errno.EPERM},
    "passing": {
        *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EPIPE),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT),
        *(errno.EADDRNOTAVAIL, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH),
        *(errno.EREMOTEIO, errno.ESTALE),
    },
}
"""Of the operating system. The disk takes no more bytes, whoever asks; rights are missing; networks, servers of files, and
processes that have too much open."""
NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
"""Words of S3 and Azure for a bucket that is not there; Google's answer is that of an object that is not."""
_STATUS_KINDS: _Table = {
    "passing": {
        *(408, 425, 429, *range(500, 600)),
        *("ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout"),
        *("ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"),
        *("XAmzContentSHA256Mismatch", "BadDigest"),
    }
    - {501, 505, 507},
    "halting": {507, *NO_BUCKET, "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "RequestTimeTooSkewed"},
    "denied": {
        *(401, 403),
        *("AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken"),
        *("SignatureDoesNotMatch", "AccountProblem", "NotSignedUp", "AuthorizationHeaderMalformed"),
    },
}
"""Statuses of HTTP, and words of object stores."""
_PASSING_NAMES = {
    "azure.core.exceptions.IncompleteReadError",
    "azure.core.exceptions.ServiceRequestError",
    "azure.core.exceptions.ServiceResponseError",
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "botocore.parsers.ResponseParserError",
    "distributed.comm.core.CommClosedError",
    "distributed.nanny.WorkerProcessError",
    "distributed.scheduler.KilledWorker",
    "gcsfs.retry.ChecksumError",
    "google.auth.exceptions.TransportError",
    "http.client.HTTPException",
    "httpx.TransportError",
    "requests.exceptions.ChunkedEncodingError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.RetryError",
    "requests.exceptions.Timeout",
    "torch.AcceleratorError",
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "urllib3.exceptions.HTTPError",
}
_DENIED_NAMES = {
    "azure.core.exceptions.ClientAuthenticationError",
    "botocore.exceptions.NoCredentialsError",
    "botocore.exceptions.PartialCredentialsError",
    "google.auth.exceptions.DefaultCredentialsError",
    "google.auth.exceptions.RefreshError",
}
_DENIED_TEXT = "Forbidden: "
"""How gcsfs begins an error where Google answers 403; it has no number."""
LOST_GPU = re.compile(
    r"CUDA (?:driver )?error(?!: (?:out of memory|CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED)))|"
    r"Triton Error \[CUDA\](?!: out of memory)|CUDA failure (?!2\b)\d+|CUDNN_STATUS_EXECUTION_FAILED"
)
"""What torch, Triton, ONNX Runtime (whose number 2 is too little memory) and cuDNN say when a kernel, or the card, has failed: the
context of the process is lost with it."""
_PASSING_TEXT = re.compile(
    r"HTTP (?:response code|error code)\s*:?\s*(?:0\b|408|429|5\d\d)|CURL error|timed? ?out|could not resolve host|"
    r"connection (?:reset|refused|was reset|timed out|died)|recv failure|empty reply from server|CUDA error|"
    rf"{LOST_GPU.pattern}|'/vsicurl/[^']*' does not exist in the file system",
    re.IGNORECASE,
)
"""What GDAL and CUDA say; their errors carry no numbers. The last is a server that gave no answer: a file that is not there is
answered with 404, and GDAL then says so."""
_SHORT = re.compile(r"IReadBlock failed|TIFFRead\w*\(\) failed|Read failed\. See|got \d+ bytes, expected")
"""What GDAL says when bytes are missing: from a file because it is cut, from a server because the transfer was; it keeps what
the server said to itself."""
_GARBLED = re.compile(
    r"\w*(?:Decode|Decompress)\w*:|JPEGLib:|Using code not yet in table|Corrupted LZW|Decoding error|_decompress\w*\(\)"
)
"""What the decoders of a TIFF say. They are asked once all bytes of a block have come, so that other bytes would not come
another time."""
_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)|\b(https?|ftp|s3a?|gs|gcs|az|abfss?|hdfs)://")
"""Names of what lies behind a network, in the message of whoever tried to read it."""


def classify_error(error: BaseException) -> FailureKind:
    """Return what is to be done about an error.

    The error itself is asked first, then what it came from, and the first that says something counts. What says nothing
    is lasting: bad data is the usual reason, and a defect of ours is not cured by repetition.

    A block from a server that came whole and cannot be decoded is bad data; one that came in part may come whole next time.

    Missing rights end the run, unless it was a source that could not be read: a single image may be closed to us. A disk
    that is full ends it in any case.

    Examples
    --------
    >>> classify_error(ConnectionResetError()), classify_error(ValueError()), classify_error(OSError(errno.ENOSPC, "No space left on device"))
    ('passing', 'lasting', 'halting')
    """
    from_source = is_remote = is_short = is_garbled = False
    for one in _chain(error):
        word, text = _classified(one), _text(one)
        if word == "denied":
            return "lasting" if from_source else "halting"
        if word is not None:
            return word
        from_source = from_source or isinstance(one, CubeError)
        is_remote = is_remote or _REMOTE.search(text) is not None
        is_short = is_short or (isinstance(one, OSError) and _SHORT.search(text) is not None)
        is_garbled = is_garbled or _GARBLED.search(text) is not None
    return "passing" if is_remote and is_short and not is_garbled else "lasting"


def is_denied(error: BaseException) -> bool:
    """Test whether an error says that credentials or rights are missing."""
    return any(_classified(one) == "denied" for one in _chain(error))


def service_code(error: BaseException) -> str | None:
    """Return what an object store called an error, such as ``NoSuchBucket`` or ``ContainerNotFound``; None where it did not say."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict) and isinstance(response.get("Error"), dict):
            code = response["Error"].get("Code")
            return None if code is None else str(code)
        stated = getattr(one, "error_code", None)
        if isinstance(stated, str):  # Azure's, which may be a member of an enumeration
            return str(getattr(stated, "value", stated))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, as a traceback shows them; the members of a group after the group."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting.append(one.__cause__ if one.__cause__ is not None or one.__suppress_context__ else one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)


def _text(error: BaseException) -> str:
    """Return what an error says; nothing where it cannot, as KilledWorker without a worker."""
    try:
        return str(error)
    except Exception:
        return ""


def _classified(error: BaseException) -> _Verdict | None:
    """Return what one error says by itself; None where that is nothing."""
    if isinstance(error, _HALTING_TYPES):
        return "halting"
    names = {f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__}
    if names & _DENIED_NAMES:
        return "denied"
    code = service_code(error) if isinstance(error, OSError) or hasattr(error, "response") else None
    for status in (int(code) if code is not None and code.isdecimal() else code, _status(error)):
        if (said := _found(_STATUS_KINDS, status)) is not None:
            return said
    if isinstance(error, MemoryError | ConnectionError | TimeoutError) or names & _PASSING_NAMES:
        return "passing"
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and _text(error).startswith(_DENIED_TEXT)):
        return "denied"
    if isinstance(error, OSError) and (said := _found(_NUMBERS, error.errno)) is not None:
        return said
    if isinstance(error, OSError | RuntimeError) or "rasterio._err.CPLE_BaseError" in names:
        return "passing" if _PASSING_TEXT.search(_text(error)) else None
    return None


def _found(table: _Table, value: str | int | None) -> _Verdict | None:
    return next((verdict for verdict, known in table.items() if value in known), None)


def _status(error: BaseException) -> int | None:
    """Return the number of an answer of HTTP, wherever a library keeps it."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None


PAUSES_S = (0.1, 0.3, 1.0, 3.0, 9.0)
"""Seconds before the second, third ... attempt of one call. What lasts longer fails the cell, whose own pauses are longer."""
_PATIENCE_S = 30.0
"""Seconds after which a call gets one more attempt at most: libraries of some clouds have tried again themselves for so long."""
_SLOW_LINE = 100_000
"""Bytes a second of the slowest line; what is written takes so long in each attempt, beside the patience."""


def backoff_with_jitter(pauses_s: tuple[float, ...], *, n_bytes: int = 0) -> Iterator[float]:
    """Yield pauses moved at random by up to a half, so that workers that failed together do not come back together.

    They end early where attempts take longer than writing `n_bytes` does over a slow line.

    Examples
    --------
    >>> all(0.5 <= pause <= 1.5 for pause in backoff_with_jitter((1.0, 1.0, 1.0)))
    True
    """
    began = time.monotonic()
    for number, pause in enumerate(pauses_s, start=1):
        yield pause * random.uniform(0.5, 1.5)
        if time.monotonic() - began > _PATIENCE_S + number * n_bytes / _SLOW_LINE:
            return
