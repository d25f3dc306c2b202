"""What tells that an image changed: from what its item, its files and their servers say. No pixel is read."""

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import fsspec
import requests

from rtsx.cube.image import AssetBands, Image
from rtsx.storage import is_url, local_path

__all__ = ["address_of", "image_stamp", "remote_state"]

_ROOTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Root metadata of a Zarr store, the one that says most first; writers change it with the content, or should."""
_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created")
"""What services call the time of the last change."""
_TIMEOUT_S = 30
"""For a server to say something of a file."""


def image_stamp(image: Image) -> str:
    """Digest of everything about an image that changes pixels, and of what tells that its files changed.

    Asks no server: a file behind a URL of which nobody says anything counts as unchanged.
    """
    told = {
        "time": None if image.time is None else image.time.isoformat(),
        "cloud_cover": image.cloud_cover,
        "sun": [image.sun_azimuth, image.sun_elevation],
        "footprint": None if image.footprint is None else sha256(image.footprint.wkb).hexdigest(),
        "bands": {name: _told(bands) for name, bands in image.bands.items()},
    }
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def _told(bands: AssetBands) -> Mapping[str, Any]:
    return {
        "href": _bare(bands.href),
        "bands": list(bands.bands),
        "grid": [str(bands.geobox.crs), list(bands.geobox.shape.yx), list(map(float, tuple(bands.geobox.affine)[:6]))],
        "packing": [bands.dtype, str(bands.nodata), bands.scale_factor, bands.add_offset],
        "content": [bands.stamp, "" if _is_checksum(bands.stamp) else _state(bands)],
    }


def _bare(href: str) -> str:
    """An address without user and query, in which signed ones carry a token that is another one every time."""
    if not is_url(href):
        return href
    address = urlsplit(href)
    return address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is_checksum(stamp: str) -> bool:
    return bool(stamp) and not stamp.startswith("updated=")


def _state(bands: AssetBands) -> str:
    """What the file itself tells without being read."""
    return _root_digest(bands.href) if bands.opener == "zarr" else _file_state(bands.href)


def _file_state(href: str) -> str:
    """Size and time of change of a local file; empty for what is none."""
    if is_url(href) or href.startswith("/vsi"):
        return ""
    try:
        found = local_path(href).stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def _root_digest(path: str) -> str:
    """Digest of the metadata in the root of a Zarr store; empty where there is none that can be read."""
    system, root = fsspec.core.url_to_fs(path)
    for name in _ROOTS:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sha256(system.cat_file(f"{root.rstrip('/')}/{name}")).hexdigest()
    return ""


def remote_state(image: Image) -> str:
    """Digest of what servers say of an image's files (ETag; else size and time of change); empty where one says nothing.

    Asks for the head of every file behind a URL whose item gives no checksum.
    """
    hrefs = {bands.href for bands in image.bands.values() if not _is_checksum(bands.stamp) and bands.opener != "zarr"}
    addresses = sorted(address for address in map(address_of, hrefs) if is_url(address))
    states = [_head(address) for address in addresses]
    return sha256(json.dumps(states).encode()).hexdigest()[:32] if addresses and all(states) else ""


def address_of(href: str) -> str:
    """The URL that GDAL's names for remote files stand for."""
    return href.removeprefix("/vsicurl/").replace("/vsis3/", "s3://", 1)


def _head(address: str) -> str:
    try:
        if urlsplit(address).scheme in ("http", "https"):
            # One byte instead of HEAD, because addresses that were signed for GET refuse that.
            with requests.get(address, headers={"Range": "bytes=0-0"}, stream=True, timeout=_TIMEOUT_S) as answer:
                told: Mapping[str, Any] = answer.headers if answer.ok else {}
                told = {**told, "size": told.get("Content-Range", told.get("Content-Length"))}
        else:
            system, path = fsspec.core.url_to_fs(address)
            system.invalidate_cache()
            told = system.info(path)
    except Exception:  # whatever a service raises: reading the file itself will say what is wrong with it
        return ""
    tag = told.get("ETag", told.get("etag"))
    changed = next((told[name] for name in _TIMES if told.get(name)), None)
    return str(tag) if tag else f"{told.get('size')} {changed}" if changed else ""
