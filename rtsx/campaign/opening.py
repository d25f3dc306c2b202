"""The object store of an output, wherever it lies."""

from collections.abc import Mapping
from typing import Any

from rtsx.campaign.fsspec import FsspecObjects
from rtsx.campaign.local_objects import LocalObjects
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.retrying_objects import RetryingObjects
from rtsx.campaign.s3fs import S3Objects, is_s3
from rtsx.storage import is_url, local_path

__all__ = ["objects_of"]


def objects_of(output: str, options: Mapping[str, Any]) -> ObjectStore:
    """The objects below a folder or URL; every call is tried again with growing pauses while its errors can pass.

    Touches nothing.

    Parameters
    ----------
    output
        Folder, or URL such as ``s3://bucket/prefix``.
    options
        Storage options of fsspec, where it is a URL.

    Examples
    --------
    >>> objects_of("/maps/2024", {})
    RetryingObjects(store=LocalObjects(root='/maps/2024'))
    """
    if not is_url(output):
        return RetryingObjects(LocalObjects(str(local_path(output))))
    if is_s3(output):
        return RetryingObjects(S3Objects(output.rstrip("/"), dict(options)))
    return RetryingObjects(FsspecObjects(output.rstrip("/"), dict(options)))
