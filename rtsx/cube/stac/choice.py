"""Which asset of an item holds what is wanted, and which of its bands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rtsx.cube.image import Wanted
from rtsx.cube.stac.bands import Band, bands_of, called_alike, folded
from rtsx.cube.stac.item import ItemDict, item_name
from rtsx.errors import CubeError

__all__ = ["Choice", "choose", "is_picture"]

_SHOWN_ASSETS = 40
"""Assets that an error lists; items of Sentinel-2 have about as many."""

_PICTURE_ROLES = {"thumbnail", "overview", "visual", "metadata"}
_PICTURE_KEYS = ("visual", "preview", "thumbnail", "renderedpreview", "tci")
_NO_RASTER_TYPES = ("text/", "application/json", "application/geo+json", "application/xml", "application/pdf")
_NO_RASTER_ENDINGS = {".json", ".geojson", ".xml", ".txt", ".html", ".pdf", ".csv", ".parquet", ".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An asset of an item, and the bands of it that are wanted."""

    asset: str
    """Key of the asset."""
    bands: tuple[Band, ...] | None
    """The bands; None where the item does not list them, so that the file's header has to tell."""


def choose(item: ItemDict, wanted: Wanted) -> Choice:
    """The asset and the bands that answer a wish.

    - With `Wanted.asset`: the asset with that key; else the one whose key is the same but for case and punctuation; else
      the one of that ``pl:asset_type``. A leading ``ortho_`` may be left out, so that ``udm2`` finds Planet's
      ``ortho_udm2``. Then its bands by number or name, or the band called `Wanted.name`, or all if none is.
    - Without: the asset that is called like the band; else the assets that have a band of that name; else of that common
      name; else either but for case and punctuation, or written out, such as ``Near Infrared`` for ``nir``. Pictures for people (``visual``, ``thumbnail``) never count. Among
      several the finest pixels win, then a cloud-optimised file; if several are left, that is an error rather than a
      guess, because they are other products, such as radiance beside reflectance.

    Raises
    ------
    CubeError
        Nothing fits, or more than one thing; the message lists what the item has.

    Examples
    --------
    >>> item = {"id": "a", "assets": {"B04": {"href": "b.tif", "eo:bands": [{"name": "B04", "common_name": "red"}]}}}
    >>> choose(item, Wanted(name="red")).asset
    'B04'
    """
    if wanted.asset is not None:
        keys = _called(item, wanted.asset)
        if not keys:
            raise CubeError(_missing(item, f"no asset {wanted.asset!r}"))
        return _bands_in(item, _only(item, wanted.asset, keys), wanted)
    if keys := [key for key in _called(item, wanted.name) if is_raster(item["assets"][key])]:
        return _bands_in(item, _only(item, wanted.name, keys), wanted)
    return _by_band(item, wanted)


def is_picture(item: ItemDict, key: str) -> bool:
    """Whether an asset is made for people to look at: its numbers are no measurements."""
    roles = set(item["assets"][key].get("roles") or ())
    return bool(roles & _PICTURE_ROLES) or folded(key).startswith(_PICTURE_KEYS)


def is_raster(asset: Mapping[str, Any]) -> bool:
    """Whether an asset may hold pixels with a place, as far as its media type or the name of its file tells."""
    kind = str(asset.get("type") or "").lower()
    if kind.startswith(_NO_RASTER_TYPES) or kind in {"image/png", "image/jpeg"}:
        return False
    ending = PurePosixPath(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
    return bool(kind) or ending not in _NO_RASTER_ENDINGS


def _called(item: ItemDict, name: str) -> list[str]:
    """Keys of the assets that go by a name, from the strictest rule that finds any."""
    assets = item.get("assets") or {}
    if name in assets:
        return [name]
    plain = folded(name)
    names = {plain, f"ortho{plain}"}
    by_key = [key for key in assets if folded(key) in names]
    return by_key or [key for key, asset in assets.items() if folded(str(asset.get("pl:asset_type", ""))) in names]


def _only(item: ItemDict, name: str, keys: Sequence[str]) -> str:
    if len(keys) > 1:
        raise CubeError(
            f"Item {item_name(item)} has several assets that go by {name!r}: {sorted(keys)}. Name one by its exact key."
        )
    return keys[0]


def _bands_in(item: ItemDict, key: str, wanted: Wanted) -> Choice:
    """The wanted bands of a given asset."""
    bands = bands_of(item, key)
    asks_by_number = bool(wanted.bands) and all(isinstance(band, int) for band in wanted.bands)
    if not bands or (
        len(bands) > 1 and not any(band.name or band.common_name for band in bands) and not asks_by_number
    ):
        return Choice(asset=key, bands=None)
    if not wanted.bands:
        named = _matching(bands, wanted.name)
        return Choice(asset=key, bands=(_only_band(item, key, name=wanted.name, found=named),) if named else bands)
    return Choice(asset=key, bands=tuple(_band_in(item, key, bands=bands, wish=wish) for wish in wanted.bands))


def _band_in(item: ItemDict, key: str, *, bands: tuple[Band, ...], wish: int | str) -> Band:
    if isinstance(wish, int):
        if not 1 <= wish <= len(bands):
            raise CubeError(_missing(item, f"no band {wish} in asset {key!r}, which has {len(bands)}"))
        return bands[wish - 1]
    found = _matching(bands, wish)
    if not found:
        raise CubeError(_missing(item, f"no band {wish!r} in asset {key!r}"))
    return _only_band(item, key, name=wish, found=found)


def _only_band(item: ItemDict, key: str, *, name: str, found: Sequence[Band]) -> Band:
    if len(found) > 1:
        numbers = [band.number for band in found]
        raise CubeError(f"Asset {key!r} of item {item_name(item)} has bands {numbers} called {name!r}; give a number.")
    return found[0]


def _matching(bands: Sequence[Band], name: str) -> tuple[Band, ...]:
    """Bands of a name, from the strictest rule that finds any."""
    for level in range(4):
        if found := tuple(band for band in bands if _level(band, name) == level):
            return found
    return ()


def _level(band: Band, name: str) -> int | None:
    """How strictly a name fits a band: 0 its name, 1 its common name, 2 either but for case and punctuation, 3 written out."""
    if band.name == name:
        return 0
    if band.common_name == name:
        return 1
    if folded(name) in {folded(band.name or ""), folded(band.common_name or "")}:
        return 2
    return 3 if called_alike(name, band.name) or called_alike(name, band.common_name) else None


def _by_band(item: ItemDict, wanted: Wanted) -> Choice:
    """The asset that has all wanted bands by name."""
    names = [str(band) for band in wanted.bands] or [wanted.name]
    if any(isinstance(band, int) for band in wanted.bands):
        raise CubeError(_missing(item, f"no asset {wanted.name!r} to take bands {list(wanted.bands)} of"))
    fits: dict[str, int] = {}
    for key, asset in (item.get("assets") or {}).items():
        bands = bands_of(item, key)
        if is_raster(asset) and not is_picture(item, key) and all(_matching(bands, name) for name in names):
            fits[key] = max(_level(_matching(bands, name)[0], name) or 0 for name in names)
    if not fits:
        raise CubeError(_missing(item, f"no band {' and '.join(map(repr, names))}"))
    best = [key for key in fits if fits[key] == min(fits.values())]
    for rank in (_pixel_size, _is_not_cloud_optimised):
        ranks = {key: rank(item["assets"][key]) for key in best}
        known = [size for size in ranks.values() if size is not None]
        if len(known) == len(best):
            best = [key for key in best if ranks[key] == min(known)]
    if len(best) > 1:
        raise CubeError(
            f"Item {item_name(item)} has {' and '.join(map(repr, names))} in several assets: {sorted(best)}. They may be "
            "other products, such as radiance and reflectance: name one with asset=."
        )
    return _bands_in(item, best[0], wanted)


def _pixel_size(asset: Mapping[str, Any]) -> float | None:
    """Size of a pixel in CRS units; None where the asset does not tell."""
    transform = asset.get("proj:transform")
    stored = asset.get("raster:bands") or asset.get("bands") or [{}]
    told = (
        hypot(transform[0], transform[3])
        if transform
        else None,  # not its first term, 0 where the file lies on its side
        stored[0].get("spatial_resolution", stored[0].get("raster:spatial_resolution")),
        asset.get("gsd"),
    )
    return next((float(size) for size in told if size), None)


def _is_not_cloud_optimised(asset: Mapping[str, Any]) -> float:
    return float("cloud-optimized" not in str(asset.get("type") or ""))


def _missing(item: ItemDict, what: str) -> str:
    """An error's text: what an item lacks, and what it has."""
    assets = []
    for key in item.get("assets") or {}:
        names = [" ".join(filter(None, (band.name, band.common_name))) for band in bands_of(item, key)]
        assets.append(f"{key} ({', '.join(names)})" if any(names) else key)
    shown = "; ".join(assets[:_SHOWN_ASSETS]) + (f"; and {len(assets) - _SHOWN_ASSETS} more" * (len(assets) > 40))
    return f"Item {item_name(item)} has {what}. Its assets and bands are: {shown or 'none'}. Name one of them."
