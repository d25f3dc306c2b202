"""Names of files, stores and rasters: a local one becomes absolute where it is given, not where it is opened.

A lazy cube is read later, after a change of folder or by a worker that was started in another one.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from os.path import normpath
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from rtsx.errors import CubeError, MissingExtraError, PathError, RtsxError

REMOTE_SCHEMES = frozenset({"http", "https", "ftp", "s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"})
"""What a document on a server may refer to, beside what has its own scheme."""

_REMOTE_VSI = re.compile(
    r"(/vsi(zip|tar|gzip|7z)/)*/?vsi(curl(_streaming)?/(https?|ftp)://|(s3|gs|az|adls|oss|swift)(_streaming)?/)"
)
"""The same in GDAL's words. Not `/vsicurl?`, whose options may name files."""

_FILE_URI = re.compile(r"\s*file:(?=/)(?://(?:localhost(?=/))?)?", re.IGNORECASE)
_DATASET = r"(?:NETCDF|HDF4\w*|HDF5|BAG|GPKG|ZARR|GTIFF_DIR|SENTINEL\w+|DERIVED_SUBDATASET|S10\d):"
"""How GDAL's names of the datasets in a file begin, such as ``HDF5:"a.h5"://red``."""
_WRAPPED = re.compile(
    r"(?P<wrapper>/vsi(?:zip|tar|gzip|7z|rar)/\{?|(?:zip|tar|gzip)(?:\+file)?://|vrt://(?!\w+://)"
    rf"|{_DATASET}(?:(?:\d+|[A-Z_]+):)*\"?)"
    r"(?P<file>[^\"!:}?]+)(?P<rest>.*)",
    re.DOTALL | re.IGNORECASE,
)
"""A file inside a name that only GDAL or rasterio knows: an archive's, or that of one of its datasets."""


def is_url(path: str) -> bool:
    """Test whether a path leads to a server, an object store or another file system of fsspec.

    Examples
    --------
    >>> is_url("s3://bucket/map.zarr"), is_url("maps/2024.zarr"), is_url("file:///maps/2024.zarr")
    (True, False, False)
    """
    return "://" in path and not _FILE_URI.match(path) and not re.match(_DATASET, path, re.IGNORECASE)


def leads_to_server(name: str, *schemes: str) -> bool:
    """Test whether a name is the address of something on a server: of a known scheme, or one of `schemes`.

    Examples
    --------
    >>> leads_to_server("s3://bucket/a.tif"), leads_to_server("/vsizip//vsicurl/https://example.org/a.zip/b.tif")
    (True, True)
    >>> leads_to_server("zip+file:///a.zip!b.tif"), leads_to_server("/vsizip//data/a.zip/b.tif"), leads_to_server("a.tif")
    (False, False, False)
    """
    if name.startswith("/vsi"):
        return _REMOTE_VSI.match(name) is not None
    try:
        return "://" in name and urlsplit(name).scheme in {*REMOTE_SCHEMES, *map(str.lower, schemes)}
    except ValueError:  # no address at all, such as http://[
        return False


@dataclass(frozen=True)
class Cloud:
    """An object store of a kind that rtsx knows; its file system comes with an extra."""

    name: str
    """Scheme of its addresses, and that of them which is shown."""
    extra: str
    """Extra of rtsx with its library."""
    credentials: str
    """Where that library finds credentials, as advice."""


_S3 = Cloud("s3", "s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
_GOOGLE = Cloud(
    "gs",
    "gcs",
    "GOOGLE_APPLICATION_CREDENTIALS to the file of a key, or log in with: gcloud auth application-default login",
)
_AZURE = Cloud(
    "az",
    "azure",
    "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or log in with: az login",
)
_CLOUDS = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss"), _AZURE),
}


def cloud_of(url: str) -> Cloud | None:
    """Return the cloud that an address leads to; None for every other.

    Examples
    --------
    >>> cloud_of("gcs://bucket/maps").name, cloud_of("abfs://maps@account.dfs.core.windows.net").extra, cloud_of("/maps")
    ('gs', 'azure', None)
    """
    return _CLOUDS.get(url.partition("://")[0].lower()) if is_url(url) else None


def file_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a file system of fsspec: clouds list anew each time, and headers stay with their host when a server redirects.

    Examples
    --------
    >>> file_options("gs://bucket", {"token": "anon"}), sorted(file_options("https://example.org", {"headers": {"X-Key": "k"}}))
    ({'use_listings_cache': False, 'token': 'anon'}, ['get_client', 'headers'])
    """
    if cloud_of(url) is not None:
        return {"use_listings_cache": False, **options}  # others write there, too
    is_web = bool(options) and url.lower().startswith(("http://", "https://"))
    return {**({"get_client": _home_client} if is_web else {}), **options}


def options_beside(path: object, output: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the storage options of an output for what lies in the same bucket; none for anything else, which may not see the credentials.

    Examples
    --------
    >>> options_beside("s3://maps/rule.json", "s3://maps/2024", {"key": "k"}), options_beside("s3://other/a", "s3://maps/2024", {"key": "k"})
    ({'key': 'k'}, {})
    """
    return options if isinstance(path, str) and path.split("/")[:3] == output.split("/")[:3] else {}


def file_system(url: str, options: Mapping[str, Any], *, error: type[RtsxError] = CubeError) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path in it.

    Parameters
    ----------
    url
        Path or URL.
    options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
    error
        What to raise.

    Raises
    ------
    RtsxError
        `error`: nobody knows the scheme, its library is not installed, or it takes no such address or options.
    MissingExtraError
        Its library comes with an extra that is not installed.
    """
    import fsspec.core  # here, because of a local disk most commands only check a path

    try:
        system, path = fsspec.core.url_to_fs(absolute(url), **file_options(url, options))
    except (ImportError, ValueError, TypeError) as reason:
        scheme, cloud = url.partition("://")[0], cloud_of(url)
        if isinstance(reason, ImportError) and cloud is not None:
            raise MissingExtraError(
                f"{without_query(url)}: {scheme}:// needs the {cloud.extra} extra: pip install 'rtsx[{cloud.extra}]'."
            ) from reason
        if cloud is not None:
            cure = f"Check the address and storage_options; for credentials set {cloud.credentials}."
        elif isinstance(reason, ImportError):
            cure = "Install that library, or take a folder, s3://, gs:// or az://."
        else:
            cure = "What can be written to is a folder, s3://, gs://, and az:// or abfs://; https:// can be read."
        raise error(f"{without_query(url)} cannot be reached: {reason}. {cure}") from reason
    return system, path


async def _home_client(**options: Any) -> Any:
    """Return a session of aiohttp, which itself takes away ``Authorization`` only."""
    import aiohttp  # here, because it comes with fsspec's http alone

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_leave_keys)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


async def _leave_keys(_session: object, _context: object, redirect: Any) -> None:
    """Take away all but plain headers from a request that goes to another host."""
    here, there = redirect.url, redirect.url.join(type(redirect.url)(redirect.response.headers.get("Location", "")))
    upgrade = (here.host, here.scheme, there.scheme) == (there.host, "http", "https")
    if here.origin() != there.origin() and not (upgrade and here.is_default_port() and there.is_default_port()):
        for name in set(redirect.headers) - _PLAIN_HEADERS:
            redirect.headers.popall(name, None)


_PLAIN_HEADERS = {"Accept", "Accept-Encoding", "If-Range", "Range", "User-Agent"}


def without_query(path: str) -> str:
    """Return an address without its query, in which signed ones carry a key and its dates; other names as they are.

    Examples
    --------
    >>> without_query("https://example.org/a.tif?sig=x.zarr"), without_query("/data/what?.tif")
    ('https://example.org/a.tif', '/data/what?.tif')
    """
    return re.split(r"[?#]", path, maxsplit=1)[0] if is_url(path) else path


def local_path(path: str | PathLike[str], *, folder: str | PathLike[str] | None = None) -> Path:
    """Return the absolute path of a local file or folder, given as a path, with ``~``, or as a ``file:`` URI.

    Parameters
    ----------
    path
        What names it.
    folder
        What a relative path counts from; None for the working folder.

    Raises
    ------
    PathError
        It is not in UTF-8, as GDAL wants it, has a NUL in it, or counts from a working folder that is gone.

    Examples
    --------
    >>> local_path("file:///data/lena%20delta.tif"), local_path("a.tif", folder="/data")
    (PosixPath('/data/lena delta.tif'), PosixPath('/data/a.tif'))
    """
    name = os.fspath(path)
    if _FILE_URI.match(name):
        name = _FILE_URI.sub("", name)
        name = name if os.path.lexists(name) else unquote(name)
    try:
        # Not normalised, because ``..`` after a link leads elsewhere.
        path = Path(folder or "", os.path.expanduser(name)).absolute()  # noqa: PTH111 - Path raises for a user it does not know
        str(path).encode()
    except FileNotFoundError as error:
        raise PathError(f"{name} counts from the working folder, which is gone. Change to another with cd.") from error
    except UnicodeEncodeError as error:
        raise PathError(f"{name!a} is no name in UTF-8, which GDAL needs. Rename it.") from error
    if "\0" in name:
        raise PathError(f"{name!r} has a NUL in it, which no file has. Check where the name comes from.")
    return path


def absolute(path: str | PathLike[str], *, folder: str | PathLike[str] | None = None) -> str:
    """Return a name that means the same in every folder: `local_path` of what is local; URLs and GDAL's own names stay.

    Where a name of GDAL holds a local file that is there, such as ``NETCDF:"a.nc":red`` or ``/vsizip/a.zip/b.tif``, that
    file becomes absolute.

    Examples
    --------
    >>> absolute("s3://bucket/a.tif"), absolute("/vsicurl/https://example.org/a.tif"), absolute("a.tif", folder="/data")
    ('s3://bucket/a.tif', '/vsicurl/https://example.org/a.tif', '/data/a.tif')
    """
    name = os.fspath(path)
    wrapped = _WRAPPED.fullmatch(name)
    if wrapped is not None and not wrapped["file"].startswith("/"):
        file = local_path(wrapped["file"], folder=folder)
        inside = [file, *file.parents][: len(Path(wrapped["file"]).parts)]
        return f"{wrapped['wrapper']}{file}{wrapped['rest']}" if any(one.exists() for one in inside) else name
    if wrapped is not None or is_url(name) or name.startswith("/vsi"):
        return name
    path = local_path(name, folder=folder)
    # As people write it, without `..`, unless a link in it leads elsewhere.
    plain = Path(normpath(path)) if ".." in path.parts else path
    return str(plain if plain == path or plain.resolve() == path.resolve() else path)


def plain_folder(path: str) -> str:
    """Return a folder in a bucket as everybody writes it: without slashes around it, ``//``, ``.`` and ``..``.

    Examples
    --------
    >>> plain_folder("/maps//2024/"), plain_folder("maps/./old/../2024"), plain_folder("..")
    ('maps/2024', 'maps/2024', '')
    """
    return normpath(f"/{path}").strip("/")


def file_name(path: str) -> str:
    """Return the last part of a path, without what is no part of a name: the query of a URL, which may be a signature, and GDAL's words.

    Examples
    --------
    >>> file_name("https://example.org/a/my%20scene.tif?sig=1/2"), file_name("a/b#1.tif"), file_name('NETCDF:"a/b.nc":red')
    ('my scene.tif', 'b#1.tif', 'b.nc')
    """
    wrapped = _WRAPPED.fullmatch(path)
    if wrapped is not None and re.match(_DATASET, path, re.IGNORECASE):
        path = wrapped["file"]
    return PurePosixPath(unquote(without_query(path)) if is_url(path) else path).name
