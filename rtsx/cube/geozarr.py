"""GeoZarr metadata: the conventions `proj`, `spatial` and `multiscales` as attributes of Zarr groups.

These are version 0.1 of the conventions kept by the zarr-conventions organisation, which replaced the tile matrix sets
of the older GeoZarr draft. They repeat what CF says in `spatial_ref` and in the coordinates, for readers that know only
the one or the other.
"""

from collections.abc import Sequence
from typing import Any

import pyproj
from odc.geo.geobox import GeoBox

__all__ = ["multiscale_attrs", "spatial_attrs"]

_CONVENTIONS = {
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
}


def spatial_attrs(geobox: GeoBox) -> dict[str, Any]:
    """Attributes of a group whose arrays lie on `geobox`.

    Examples
    --------
    >>> from affine import Affine
    >>> attrs = spatial_attrs(GeoBox((2, 4), Affine(3, 0, 600, 0, -3, 30), "EPSG:3413"))
    >>> attrs["proj:wkt2"][:31]
    'PROJCRS["WGS 84 / NSIDC Sea Ice'
    >>> attrs["proj:code"], attrs["spatial:transform"], attrs["spatial:bbox"]
    ('EPSG:3413', [3.0, 0.0, 600.0, 0.0, -3.0, 30.0], [600.0, 24.0, 612.0, 30.0])
    """
    crs = pyproj.CRS.from_user_input(str(geobox.crs))
    authority = crs.to_authority(min_confidence=100)
    # Both, because browsers know few codes, and polar ones are not among them.
    named = ({"proj:code": ":".join(authority)} if authority else {}) | {"proj:wkt2": crs.to_wkt()}
    return {
        "zarr_conventions": [_convention("proj"), _convention("spatial")],
        **named,
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [float(value) for value in geobox.boundingbox],
        **_placed(geobox),
        "spatial:registration": "pixel",
    }


def multiscale_attrs(levels: Sequence[tuple[str, GeoBox]]) -> dict[str, Any]:
    """Attributes of the root group of a pyramid.

    Parameters
    ----------
    levels
        Path of the group (``"."`` for the root itself) and geobox of each level, full resolution first, each half as
        fine as the one before it.
    """
    layout: list[dict[str, Any]] = []
    for place, (path, geobox) in enumerate(levels):
        entry: dict[str, Any] = {"asset": path, "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}}
        if place:
            entry["derived_from"] = levels[place - 1][0]
            entry["transform"]["scale"] = [2.0, 2.0]
        layout.append(entry | _placed(geobox))
    root = spatial_attrs(levels[0][1])
    # With a layout, shape and transform belong to its entries alone.
    shared = {name: value for name, value in root.items() if name not in ("spatial:shape", "spatial:transform")}
    conventions = [*root["zarr_conventions"], _convention("multiscales")]
    return shared | {"zarr_conventions": conventions, "multiscales": {"layout": layout}}


def _placed(geobox: GeoBox) -> dict[str, Any]:
    return {
        "spatial:shape": [int(size) for size in geobox.shape],
        "spatial:transform": [float(value) for value in tuple(geobox.affine)[:6]],
    }


def _convention(name: str) -> dict[str, str]:
    uuid, description = _CONVENTIONS[name]
    return {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }
