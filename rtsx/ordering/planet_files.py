"""What a delivered Planet order consists of: its manifest, its files, and the metadata of each scene."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rtsx.cube.sensor import SENSORS
from rtsx.errors import OrderError
from rtsx.ordering.checksum import Checksum
from rtsx.ordering.provider import RemoteFile

__all__ = ["ITEM_MANIFEST", "described_item", "remote_files"]

ITEM_MANIFEST = "manifest.json"
"""Name of the file that lists all others."""

_UDM2 = ("clear", "snow", "shadow", "haze_light", "haze_heavy", "cloud", "confidence", "unusable")
_COMMON = {"blue", "green", "red", "nir", "rededge", "yellow"}
"""Bands whose name is the common one of the eo extension."""
_ASSETS = {
    "ortho_analytic_4b": ("data",),
    "ortho_analytic_4b_sr": ("data", "reflectance"),
    "ortho_analytic_8b": ("data",),
    "ortho_analytic_8b_sr": ("data", "reflectance"),
    "ortho_udm2": ("data",),
}
"""Asset types whose bands are known, and their roles."""
_PROPERTIES = {
    "gsd": "gsd",
    "satellite_id": "platform",
    "published": "published",
    "updated": "updated",
    "sun_azimuth": "view:sun_azimuth",
    "sun_elevation": "view:sun_elevation",
    "satellite_azimuth": "view:azimuth",
}
"""Planet's names that STAC has names for; all others get the prefix ``pl:``."""
_ELSEWHERE = {"acquired", "cloud_cover", "view_angle", "instrument", "id"}


def remote_files(
    results: Iterable[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    *,
    scenes: Sequence[str],
    headers: Callable[[str], Mapping[str, str]],
) -> tuple[RemoteFile, ...]:
    """The files of an order that belong to a scene, sizes and checksums as the manifest has them.

    Parameters
    ----------
    results
        The order's results: names, ``<order id>/<path>``, and locations.
    manifest
        The order's manifest; empty where there is none, and then nothing is known but the names.
    scenes
        Ids of the scenes that were ordered.
    headers
        Headers that the request of a location needs.
    """
    listed = {entry["path"]: entry for entry in manifest.get("files") or ()}
    files = []
    for result in results:
        path = result["name"].split("/", 1)[-1]
        entry = listed.get(path) or listed.get(result["name"]) or {}
        notes = entry.get("annotations") or {}
        name = PurePosixPath(path).name
        scene = notes.get("planet/item_id") or next((one for one in scenes if name.startswith(f"{one}_")), None)
        if scene is None or name == ITEM_MANIFEST:
            continue
        digests = entry.get("digests") or {}
        algorithm = next((one for one in ("sha256", "md5") if digests.get(one)), None)
        files.append(
            RemoteFile(
                scene_id=scene,
                asset=_asset(name, scene, notes.get("planet/asset_type")),
                name=name,
                href=result["location"],
                size=entry.get("size"),
                checksum=Checksum(algorithm, digests[algorithm].lower()) if algorithm else None,
                media_type=entry.get("media_type") or _media_type(name),
                headers=headers(result["location"]),
            )
        )
    return tuple(files)


def described_item(scene_id: str, files: Sequence[Path]) -> dict[str, Any]:
    """A STAC item from the metadata that is delivered with a scene, with what is known of its assets' bands.

    Raises
    ------
    OrderError
        There is no metadata among the files, or it is of something else.
    """
    metadata = next((path for path in files if path.name == f"{scene_id}_metadata.json"), None)
    if metadata is None:
        raise OrderError(
            f"Scene {scene_id} came without {scene_id}_metadata.json; its files are {[path.name for path in files]}. "
            "Order a bundle that holds metadata."
        )
    try:
        content = json.loads(metadata.read_text())
        told, geometry = content["properties"], content["geometry"]
        properties: dict[str, Any] = {"datetime": told["acquired"], "constellation": "planetscope"}
    except (ValueError, KeyError, TypeError) as error:
        raise OrderError(f"{metadata} is no metadata of a scene: {error!r}. Delete it, and run fetch again.") from error
    if told.get("cloud_cover") is not None:
        properties["eo:cloud_cover"] = round(100 * told["cloud_cover"], 4)  # a fraction there, per cent here
    if told.get("view_angle") is not None:
        properties["view:off_nadir"] = abs(told["view_angle"])
    if told.get("instrument"):
        properties["instruments"] = [told["instrument"]]
    for name, value in told.items():
        if name not in _ELSEWHERE and value is not None:
            properties[_PROPERTIES.get(name, f"pl:{name}")] = value
    assets = {asset: {"roles": list(roles), **_bands(asset)} for asset, roles in _ASSETS.items()}
    return {"type": "Feature", "id": scene_id, "geometry": geometry, "properties": properties, "assets": assets}


def _bands(asset: str) -> dict[str, Any]:
    if asset == "ortho_udm2":
        return {"eo:bands": [{"name": name} for name in _UDM2]}
    sensor = SENSORS["planetscope"]
    names = sensor.names(4 if "_4b" in asset else 8)
    described: dict[str, Any] = {
        "eo:bands": [{"name": name, **({"common_name": name} if name in _COMMON else {})} for name in names]
    }
    if asset.endswith("_sr"):
        stored = {"scale": sensor.scale_factor, "offset": sensor.add_offset, "nodata": sensor.nodata}
        described["raster:bands"] = [stored] * len(names)
    return described


def _asset(name: str, scene: str, stated: str | None) -> str:
    """Key of the asset that a file becomes: Planet's asset type, else what is left of its name."""
    if stated:
        return stated
    key = PurePosixPath(name).stem.removeprefix(f"{scene}_")
    udm = "udm2" in key.lower() and name.endswith(".tif")
    return "ortho_udm2" if udm else "metadata" if key == "metadata" else key


def _media_type(name: str) -> str | None:
    endings = {
        ".tif": "image/tiff; application=geotiff",
        ".json": "application/json",
        ".xml": "application/xml",
    }
    return endings.get(PurePosixPath(name).suffix.lower())
