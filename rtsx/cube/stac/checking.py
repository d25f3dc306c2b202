"""Items of other people's catalogs, checked where they enter: one that is odd is named and set aside, and the rest goes on."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import isfinite
from typing import Any

from rtsx.cube.stac.item import ItemDict, item_footprint, item_name, time_of
from rtsx.errors import CubeError, MissingCoverageWarning
from rtsx.redaction import redacted

_TEXT = str | None
_LIST: Any = list | tuple | None
_KINDS: Mapping[str, tuple[Any, str]] = {
    "href": (str, "text"),
    "type": (_TEXT, "text"),
    "title": (_TEXT, "text"),
    "roles": (_LIST, "a list"),
    "bands": (_LIST, "a list"),
    "eo:bands": (_LIST, "a list"),
    "raster:bands": (_LIST, "a list"),
}
"""What the fields of an asset are, where they are read."""
_NUMBERS = ("nodata", "scale", "offset", "raster:scale", "raster:offset")


def sound_items(items: Iterable[object], where: str) -> Iterator[ItemDict]:
    """Yield items as they come, without those that are odd, of each of which a warning says what is.

    Parameters
    ----------
    items
        What a catalog gives for items.
    where
        Which catalog, for messages.

    Raises
    ------
    CubeError
        All of them are odd.

    Examples
    --------
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     [item["id"] for item in sound_items([{"id": "a", "assets": []}, {"id": "b", "assets": {}}], "here")]
    ['b']
    """
    any_sound, odd = False, list[str]()
    for item in items:
        oddity = oddity_of(item)
        if oddity is not None:
            odd.append(oddity)
            continue
        any_sound = True
        yield item  # type: ignore[misc]  # a mapping, or it would be odd
    if odd and not any_sound:
        raise CubeError(f"{where} has no item that can be used. {odd[0]} Correct it, or ask whoever keeps the catalog.")
    for oddity in odd:
        warnings.warn(redacted(f"{where}: {oddity} It is left out."), MissingCoverageWarning, stacklevel=2)


def oddity_of(item: object) -> str | None:
    """Return what is wrong with an item; None where it can be read.

    Examples
    --------
    >>> oddity_of({"id": "a", "assets": {"red": {"href": "a.tif", "raster:bands": [{"scale": "x"}]}}})
    "Item a: asset 'red' has the scale 'x', and that is no number."
    """
    if not isinstance(item, Mapping):
        return f"{str(item)[:80]!r} is no STAC item."
    name = f"Item {item_name(item)}"
    assets, properties = item.get("assets"), item.get("properties") or {}
    if not isinstance(item.get("id"), str | int) or not isinstance(item.get("collection"), _TEXT):
        return f"{name} has no id, or an id or a collection that is no text."
    if not (isinstance(properties, Mapping) and isinstance(properties.get("eo:bands"), _LIST)):
        return f"{name} has properties that are no names and values."
    if not isinstance(assets, Mapping) or not all(isinstance(asset, Mapping) for asset in assets.values()):
        return f"{name} has assets that are no names and values."
    links = item.get("links") or ()
    if not isinstance(links, list | tuple) or not all(isinstance(link, Mapping) for link in links):
        return f"{name} has links that are none."
    for key, asset in assets.items():
        fault = _asset_fault(asset, properties.get("eo:bands") or ())
        if fault is not None:
            return f"{name}: asset {key!r} has {fault}."
    try:
        time_of(item)
        item_footprint(item)
    except CubeError as error:
        return str(error)
    return None


def _asset_fault(asset: Mapping[str, Any], known: Sequence[Any]) -> str | None:
    for name, (kind, word) in _KINDS.items():
        if not isinstance(asset.get(name), kind) or (name == "href" and not asset["href"]):
            return f"the {name} {str(asset.get(name))[:60]!r}, and that is no {word.removeprefix('a ')}"
    named = [*(asset.get("eo:bands") or ()), *known, *(asset.get("bands") or ())]
    stored = [asset, *(asset.get("raster:bands") or ()), *(asset.get("bands") or ())]
    if not all(isinstance(band, Mapping | str | int) for band in named) or not all(
        isinstance(role, str) for role in asset.get("roles") or ()
    ):
        return "bands or roles that are none"
    if not all(isinstance(band, Mapping) for band in asset.get("bands") or ()):
        return "bands that are no names and values"
    for band in chain(named, stored):
        if not isinstance(band, Mapping):
            continue
        for name in ("name", "common_name", "eo:common_name"):
            if not isinstance(band.get(name), _TEXT):
                return f"a band with the {name} {str(band[name])[:60]!r}, and that is no text"
        for name in _NUMBERS:
            if not _is_number(band.get(name), finite=name != "nodata"):
                return f"the {name} {str(band[name])[:60]!r}, and that is no number"
    return None


def _is_number(value: object, *, finite: bool) -> bool:
    """Test whether a value is a number, or text for one as STAC has it of NaN; nothing is one, too."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return isfinite(float(value)) or not finite
    except (ValueError, OverflowError):
        return False
