"""Objects in S3 and what speaks like it."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from functools import cached_property
from typing import Any

from rtsx.campaign.kinds import service_code
from rtsx.campaign.objects import ObjectStore, StoredObject
from rtsx.cube.zarr import file_system

__all__ = ["S3Objects", "is_s3", "single_attempts"]

_PAGE = 1000
"""Objects of one answer to a listing; S3 gives no more."""
_WRITER = "rtsx-writer"
"""Metadata of an object: a word that only its writer knows."""


def is_s3(url: str) -> bool:
    """Whether a URL is read by s3fs."""
    return url.startswith(("s3://", "s3a://"))


def single_attempts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options by which botocore tries once, unless they say how often.

    Its own attempts would multiply with those of the caller, and hide for half a minute that nobody answers.

    Examples
    --------
    >>> single_attempts({"anon": True})
    {'anon': True, 'config_kwargs': {'retries': {'max_attempts': 0}}}
    """
    return {**options, "config_kwargs": {"retries": {"max_attempts": 0}, **options.get("config_kwargs", {})}}


@dataclass(frozen=True)
class S3Objects:
    """One object per key below ``s3://bucket/prefix``; through s3fs, and one client for all threads of a process.

    Errors are those of s3fs: built-in ones, with that of the service as their cause.
    """

    url: str
    """Address that keys are relative to, without a slash at its end."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of s3fs. Credentials that are not in it come from the environment, as boto3 finds them."""

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type["S3Objects"], tuple[str, dict[str, Any]]]:
        return type(self), (self.url, dict(self.options))  # without the client, which belongs to this process

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        try:
            # One request, because otherwise s3fs asks for the size first.
            content: bytes = self._system.cat_file(self._path(key), max_concurrency=1)
        except FileNotFoundError as error:
            if service_code(error) == "NoSuchBucket":
                raise
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._system.pipe_file(self._path(key), content)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; one of many wins.

        A request that was cut may have been carried out and then be refused when it is sent again, by whichever of the
        libraries on the way. So the object is marked, and who is refused looks whose it is.
        """
        writer = uuid.uuid4().hex
        try:
            self._system.pipe_file(self._path(key), content, mode="create", Metadata={_WRITER: writer})
        except OSError as error:
            if not isinstance(error, FileExistsError) and service_code(error) not in ("PreconditionFailed", "412"):
                raise
            return self._writer(key) == writer
        return True

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        self._system.rm_file(self._path(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix; one page of them is held at a time."""
        bucket, _, base = self._path(prefix).partition("/")
        token: dict[str, str] = {}
        while True:
            page = self._system.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{base}/", MaxKeys=_PAGE, **token)
            for entry in page.get("Contents", ()):
                changed = entry["LastModified"].astimezone(UTC)
                yield StoredObject(prefix + entry["Key"].removeprefix(base), entry["Size"], changed)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _writer(self, key: str) -> str | None:
        """The word of whoever wrote an object; None where there is none, or one that was not created."""
        bucket, _, name = self._path(key).partition("/")
        try:
            found: str | None = self._system.call_s3("head_object", Bucket=bucket, Key=name)["Metadata"].get(_WRITER)
        except FileNotFoundError:
            return None
        return found

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return file_system(self.url, {"use_listings_cache": False, **single_attempts(self.options)})

    @property
    def _system(self) -> Any:
        return self._place[0]

    def _path(self, key: str) -> str:
        return f"{self._place[1]}/{key}"


_conforms: type[ObjectStore] = S3Objects
