"""The bands of an asset as its item describes them, whichever version of STAC wrote it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rtsx.cube.stac.item import ItemDict, item_name
from rtsx.errors import CubeError

_COMMON_NAMES = {"nearinfrared": "nir", "coastalblue": "coastal", "coastalaerosol": "coastal", "panchromatic": "pan"}
"""What some write out, by the common name that STAC gives it."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band of an asset; None for whatever the item leaves open."""

    number: int
    """Number in the file, from 1."""
    name: str | None = None
    """Name, such as ``B04`` or ``Near-Infrared``."""
    common_name: str | None = None
    """Name that all sensors share, such as ``nir``."""
    dtype: str | None = None
    """NumPy dtype that it is stored in."""
    nodata: float | None = None
    """Stored value of a missing pixel; None where the item declares none."""
    scale: float | None = None
    """Physical units per stored unit."""
    offset: float | None = None
    """Physical value of stored 0."""


def normalise_name(name: str) -> str:
    """Return a name without case, spaces and punctuation, so that ``Green I`` and ``green_i`` are one.

    Examples
    --------
    >>> normalise_name("Green I"), normalise_name("Near-Infrared")
    ('greeni', 'nearinfrared')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def same_band_name(name: str, other: str | None) -> bool:
    """Test whether two names mean one band: they differ in case, spaces and punctuation, or one is written out.

    Examples
    --------
    >>> same_band_name("Near Infrared", "near_infrared"), same_band_name("near_infrared", "nir"), same_band_name("nir", "nir08")
    (True, True, False)
    """
    mine, theirs = (_COMMON_NAMES.get(plain, plain) for plain in (normalise_name(name), normalise_name(other or "")))
    return mine == theirs != ""


def bands_of(item: ItemDict, key: str) -> tuple[Band, ...]:
    """Return bands of an asset in file order; empty where the item does not list them.

    Read are ``bands`` (STAC 1.1), ``eo:bands`` and ``raster:bands`` (1.0), and the numbers or names in ``eo:bands``
    that point into the item's properties (0.7 to 0.9). What STAC 1.1 states once for a whole asset counts for each band.

    Examples
    --------
    >>> asset = {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"data_type": "uint16"}]}
    >>> bands_of({"id": "a", "assets": {"red": asset}}, "red")
    (Band(number=1, name='B04', common_name='red', dtype='uint16', nodata=None, scale=None, offset=None),)
    """
    asset: Mapping[str, Any] = item["assets"][key]
    if listed := asset.get("bands"):
        return tuple(_band(number, {**asset, **band}, band) for number, band in enumerate(listed, start=1))
    named = _named(item, asset)
    stored = [band for band in asset.get("raster:bands") or () if isinstance(band, Mapping)]
    if len(stored) == 1 and len(named) > 1:
        stored *= len(named)  # one statement for all bands, as some catalogs write it
    count = max(len(named), len(stored))
    named = [*named, *[{}] * (count - len(named))]
    stored = [*stored, *[{}] * (count - len(stored))]
    return tuple(
        _band(number, {**asset, **raster}, name)
        for number, (name, raster) in enumerate(zip(named, stored, strict=True), start=1)
    )


def band_of_file(item: ItemDict, key: str, *, number: int, name: str | None, count: int) -> Band:
    """Return a band of an asset that only its file names, with what the item states of it, or once for the whole asset.

    Parameters
    ----------
    item, key
        The item, and the asset in it.
    number, name
        The band's number in the file, from 1, and what the file calls it.
    count
        Bands that the file has.

    Raises
    ------
    CubeError
        The item lists another number of bands, and they differ.

    Examples
    --------
    >>> asset = {"data_type": "uint16", "raster:scale": 1e-4}
    >>> band_of_file({"id": "a", "assets": {"red": asset}}, "red", number=1, name=None, count=1).scale
    0.0001
    """
    listed = bands_of(item, key)
    if not listed:
        return _band(number, item["assets"][key], {"name": name})
    if len(listed) != count and len({(band.dtype, band.nodata, band.scale, band.offset) for band in listed}) > 1:
        raise CubeError(
            f"Asset {key!r} of item {item_name(item)} lists {len(listed)} bands that differ in dtype, nodata, scale or offset, and "
            f"its file has {count}. Correct the item, or write nodata:, scale_factor: and add_offset: in the layer and take them "
            "out of the item."
        )
    return replace(listed[number - 1 if number <= len(listed) == count else 0], number=number, name=name)


def _named(item: ItemDict, asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return ``eo:bands`` of an asset, looked up in the item where they are only pointers."""
    properties = item.get("properties") or {}
    known: Sequence[Mapping[str, Any]] = properties.get("eo:bands") or ()
    by_name = {band.get("name"): band for band in known if isinstance(band, Mapping)}
    named: list[Mapping[str, Any]] = []
    for band in asset.get("eo:bands") or ():
        if isinstance(band, Mapping):
            named.append(band)
        elif isinstance(band, int):
            named.append(known[band] if 0 <= band < len(known) and isinstance(known[band], Mapping) else {})
        else:
            named.append(by_name.get(band) or {"name": str(band)})
    return named


def _band(number: int, stored: Mapping[str, Any], named: Mapping[str, Any]) -> Band:
    common = named.get("eo:common_name") or named.get("common_name")
    return Band(
        number=number,
        name=named.get("name"),
        common_name=common,
        dtype=_dtype(stored.get("data_type")),
        nodata=_number(stored.get("nodata")),
        scale=_number(stored.get("raster:scale", stored.get("scale"))),
        offset=_number(stored.get("raster:offset", stored.get("offset"))),
    )


def _dtype(name: object) -> str | None:
    """Return the NumPy dtype of a ``data_type``; None for what NumPy does not know, such as ``cint16`` or ``other``."""
    try:
        return np.dtype(name).name if isinstance(name, str) else None
    except TypeError:
        return None


def _number(value: object) -> float | None:
    """Return a number; JSON has none for NaN and infinity, so that STAC writes them as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
