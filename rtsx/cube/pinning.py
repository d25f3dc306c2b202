"""A recipe whose images are settled, with what tells that an image changed: what a build and its resumption have in common."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import requests
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import BandRequest, BandSource, Image, ImageSource, Period
from rtsx.cube.load import find_images
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.stac.assets import address_of
from rtsx.errors import CubeError
from rtsx.storage import file_system, is_url, local_path

_ROOTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Root metadata of a Zarr store, the one that says most first; writers change it with the content, or should."""
_TIMES = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created")
"""What services call the time of the last change."""
_TIMEOUT_S = 30
"""For a server to say something of a file."""


def image_stamp(image: Image) -> str:
    """Return the digest of everything about an image that changes pixels, and of what tells that its files changed.

    Asks no server: a file behind a URL of which nobody says anything counts as unchanged. A copy has that of its original.
    """
    if image.stamp:
        return image.stamp
    facts = {
        "time": None if image.time is None else image.time.isoformat(),
        "cloud_cover": image.cloud_cover,
        "sun": [image.sun_azimuth, image.sun_elevation],
        "footprint": None if image.footprint is None else sha256(image.footprint.wkb).hexdigest(),
        "bands": {name: _described(bands) for name, bands in image.bands.items()},
    }
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _described(bands: BandSource) -> Mapping[str, Any]:
    state = ""
    if not _is_checksum(bands.stamp):  # what the file itself tells without being read
        state = _root_digest(bands.href) if bands.opener == "zarr" else _file_state(bands.href)
    return {
        "href": _bare(bands.href),
        "bands": list(bands.bands),
        "grid": [str(bands.geobox.crs), list(bands.geobox.shape.yx), list(map(float, tuple(bands.geobox.affine)[:6]))],
        "packing": [bands.dtype, str(bands.nodata), bands.scale_factor, bands.add_offset],
        "content": [bands.stamp, state],
        **({} if bands.step is None else {"step": bands.step}),
    }


def _bare(href: str) -> str:
    """Return an address without user and query, in which signed ones carry a token that is another one every time."""
    if not is_url(href):
        return href
    address = urlsplit(href)
    return address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is_checksum(stamp: str) -> bool:
    return bool(stamp) and not stamp.startswith("updated=")


def _file_state(href: str) -> str:
    """Return the size and time of change of a local file; empty for what is none."""
    if is_url(href) or href.startswith("/vsi"):
        return ""
    try:
        found = local_path(href).stat()
    except OSError:
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


def _root_digest(path: str) -> str:
    """Return the digest of the metadata in the root of a Zarr store; empty where there is none that can be read."""
    system, root = file_system(path, {})
    for name in _ROOTS:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sha256(system.cat_file(f"{root.rstrip('/')}/{name}")).hexdigest()
    return ""


def remote_state(image: Image) -> str:
    """Return the digest of what servers say of an image's files (ETag; else size and time of change); empty where one says nothing.

    Asks for the head of every file behind a URL whose item gives no checksum.
    """
    hrefs = {bands.href for bands in image.bands.values() if not _is_checksum(bands.stamp) and bands.opener != "zarr"}
    addresses = sorted(address for address in map(address_of, hrefs) if is_url(address))
    states = [_head(address) for address in addresses]
    return sha256(json.dumps(states).encode()).hexdigest()[:32] if addresses and all(states) else ""


def _head(address: str) -> str:
    try:
        if urlsplit(address).scheme in ("http", "https"):
            # One byte instead of HEAD, because addresses that were signed for GET refuse that.
            with requests.get(address, headers={"Range": "bytes=0-0"}, stream=True, timeout=_TIMEOUT_S) as response:
                metadata: Mapping[str, Any] = response.headers if response.ok else {}
                metadata = {**metadata, "size": metadata.get("Content-Range", metadata.get("Content-Length"))}
        else:
            system, path = file_system(address, {})
            system.invalidate_cache()
            metadata = system.info(path)
    except Exception:  # whatever a service raises: reading the file itself will say what is wrong with it
        return ""
    tag = metadata.get("ETag", metadata.get("etag"))
    changed = next((metadata[name] for name in _TIMES if metadata.get(name)), None)
    return str(tag) if tag else f"{metadata.get('size')} {changed}" if changed else ""


_THREADS = 16
"""Servers that are asked at a time."""

Stamps = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class ResolvedImages:
    """Images that all count, wherever one looks.

    A part of a cube sees the images of the whole, because dtype, packing, time steps and the sun follow from all of them;
    which of them meet the part is found out when it is planned.
    """

    images: tuple[Image, ...]
    """All of them, in order."""

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return all images; see `ImageSource`."""
        return self.images


_conforms: type[ImageSource] = ResolvedImages


def resolve_images(recipe: CubeRecipe, geobox: GeoBox, *, ids: Mapping[str, Sequence[str]] | None) -> CubeRecipe:
    """Return the recipe with the images that its sources find now, or found when a build began.

    Parameters
    ----------
    recipe
        Its sources are asked, once.
    geobox
        Raster of the cube.
    ids
        Ids of the images by source, as `image_ids` gave them when the build began; what catalogs have received since is
        left out. None takes all that is found.

    Raises
    ------
    CubeError
        An image of `ids` is not found any more.
    """
    sources = []
    for source in recipe.sources:
        images = find_images(source, geobox)
        if ids is not None:
            known = ids[source.name]
            if missing := sorted(set(known) - {image.id for image in images}):
                raise CubeError(
                    f"Source {source.name!r} had {len(known)} images when this build began; {missing[:5]} are not found "
                    "any more. Bring them back, or start again with overwrite=True."
                )
            images = tuple(image for image in images if image.id in set(known))
        sources.append(replace(source, images=ResolvedImages(images)))
    return replace(recipe, sources=tuple(sources))


def settled_images(recipe: CubeRecipe) -> dict[str, tuple[Image, ...]]:
    """Return the images of a pinned recipe, by source."""
    pinned = ((source.name, source.images) for source in recipe.sources)
    return {name: images.images for name, images in pinned if isinstance(images, ResolvedImages)}


def image_ids(recipe: CubeRecipe) -> dict[str, list[str]]:
    """Return the ids of the images of a pinned recipe, by source."""
    return {source: [image.id for image in images] for source, images in settled_images(recipe).items()}


def image_stamps(recipe: CubeRecipe) -> dict[str, dict[str, list[str]]]:
    """Return the stamp and remote state of the images of a pinned recipe, by source and id."""
    with ThreadPoolExecutor(_THREADS, "rtsx-stamp") as threads:
        pairs = {
            source: threads.map(lambda one: (one.id, [image_stamp(one), remote_state(one)]), images)
            for source, images in settled_images(recipe).items()
        }
        return {source: dict(found) for source, found in pairs.items()}


def require_unchanged(recipe: CubeRecipe, begun: Stamps, *, target: str) -> None:
    """Refuse to build one store from two states of its images.

    Parameters
    ----------
    recipe
        Pinned.
    begun
        `image_stamps` when the build began; what it does not know passes.
    target
        The store, for the message.

    Raises
    ------
    CubeError
        An image was rewritten since.
    """
    changed = [
        f"{source}/{name}"
        for source, images in image_stamps(recipe).items()
        for name, (stamp, state) in images.items()
        if (then := begun.get(source, {}).get(name)) is not None
        and (then[0] != stamp or (then[1] and state and then[1] != state))
    ]
    if changed:
        raise CubeError(
            f"{len(changed)} images have changed since the build of {target} began, such as {changed[:3]}; its parts would be "
            "of two states. Bring the images back as they were, or start again with overwrite=True."
        )
