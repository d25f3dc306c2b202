"""What tells that an input changed: one stamp per image, from what the item or the file says of itself. No pixel is read."""

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from odc.geo.geobox import GeoBox

from rtsx.campaign.mark import InputStamp
from rtsx.cube import AssetBands, CubeRecipe, Image
from rtsx.cube.pinning import PinnedImages, pinned
from rtsx.cube.zarr import is_url

__all__ = ["input_stamps", "stamps_of"]

_ROOTS = ("zarr.json", ".zmetadata", ".zgroup")
"""Root metadata of a Zarr store, the one that says most first; writers change it with the content, or should."""


def input_stamps(recipe: CubeRecipe, geobox: GeoBox) -> tuple[InputStamp, ...]:
    """Images that a recipe finds on a ground, as they are now.

    Parameters
    ----------
    recipe
        Its sources are asked.
    geobox
        Raster of the ground, such as `cell_geobox`.

    Returns
    -------
    tuple
        Sorted; equal to an earlier answer where no image came, went or changed. Of a file it counts what its item says
        (checksum or ETag); where it has neither, also when the item was updated, size and time of change of a local file, and
        the digest of the root metadata of a Zarr store. A file behind a URL of which nobody says anything counts as unchanged.

    Raises
    ------
    CubeError
        A source cannot be asked.
    """
    return stamps_of(pinned(recipe, geobox, ids=None))


def stamps_of(recipe: CubeRecipe) -> tuple[InputStamp, ...]:
    """Stamps of the images of a pinned recipe, sorted."""
    return tuple(
        sorted(
            InputStamp(source=source.name, image=image.id, stamp=_stamp(image))
            for source in recipe.sources
            if isinstance(source.images, PinnedImages)
            for image in source.images.images
        )
    )


def _stamp(image: Image) -> str:
    """Digest of everything about an image that changes pixels, and of what tells that its files changed."""
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
    """An address without its query, in which signed ones carry a token that is another one every time."""
    return urlsplit(href)._replace(query="", fragment="").geturl() if is_url(href) else href


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
        found = Path(href.removeprefix("file://")).stat()
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
