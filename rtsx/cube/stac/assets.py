"""The asset and band of an item that hold a layer, the radiometric offset of Sentinel-2, and addresses made absolute and signed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from math import hypot
from os.path import lexists
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import unquote, urljoin, urlsplit

from shapely import union_all

from rtsx.cube.images import BandRequest
from rtsx.cube.sensors import SENSORS, SENTINEL2_BANDS
from rtsx.cube.stac.item import (
    Band,
    ItemDict,
    bands_of,
    item_footprint,
    item_name,
    normalise_name,
    same_band_name,
    time_of,
)
from rtsx.errors import CubeError
from rtsx.names import did_you_mean
from rtsx.parsing import AfterValidator, Written
from rtsx.storage import REMOTE_SCHEMES, absolute, is_url, leads_to_server, local_path

_SHOWN_ASSETS = 40
"""Assets that an error lists; items of Sentinel-2 have about as many."""

_PICTURE_ROLES = {"thumbnail", "overview", "visual", "metadata"}
_PICTURE_KEYS = ("visual", "preview", "thumbnail", "renderedpreview", "tci")
_RASTER_ENDING = re.compile(r"\.(tiff?|jp2)$", re.IGNORECASE)
"""Of keys that are names of files, as the first items of Landsat have them."""
_NO_RASTER_TYPES = ("text/", "application/json", "application/geo+json", "application/xml", "application/pdf")
_NO_RASTER_ENDINGS = {".json", ".geojson", ".xml", ".txt", ".html", ".pdf", ".csv", ".parquet", ".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, kw_only=True)
class AssetSelection:
    """An asset of an item, and the bands of it that are wanted."""

    asset: str
    """Key of the asset."""
    bands: tuple[Band, ...] | None
    """The bands; None where the item does not list them, so that the file's header has to tell."""


def select_asset(item: ItemDict, wanted: BandRequest) -> AssetSelection:
    """Return the asset and the bands that answer a wish.

    - With `BandRequest.asset`, that of the item's collection where it has several: the asset with that key; else the one
      whose key is the same but for case, punctuation and the ending of a file; else the one of that ``pl:asset_type``. A
      leading ``ortho_`` may be left out, so that ``udm2`` finds Planet's ``ortho_udm2``. Then its bands by number or name, or
      the band called `BandRequest.name`, or all if none is. A band by name of PlanetScope's four-band reflectance is taken of
      the eight-band file where an item has only that.
    - Without: the asset that is called like the band; else the assets that have a band of that name; else of that common
      name; else either but for case and punctuation, or written out, such as ``Near Infrared`` for ``nir``; else, in items of
      Sentinel-2, the band that has this layer's number there, such as ``B8A`` for ``nir08``. Pictures for
      people (``visual``, ``thumbnail``) never count. Among several the finest pixels win, then a cloud-optimised file; if
      several are left, that is an error rather than a guess, because they are other products, such as radiance beside
      reflectance.

    Raises
    ------
    CubeError
        Nothing fits, or more than one thing; the message lists what the item has.

    Examples
    --------
    >>> item = {"id": "a", "assets": {"B04": {"href": "b.tif", "eo:bands": [{"name": "B04", "common_name": "red"}]}}}
    >>> select_asset(item, BandRequest(name="red")).asset
    'B04'
    """
    asset = wanted.asset
    if isinstance(asset, Mapping):
        if item.get("collection") not in asset:
            raise CubeError(
                f"The asset of {wanted.name!r} is named for the collections {list(asset)}, and item {item_name(item)} is of none of "
                "them. Name the asset alone, or search these collections."
            )
        asset = asset[item["collection"]]
    if asset is not None:
        keys = _called(item, asset)
        if not keys and (eight := _of_eight_bands(item, asset, wanted)) is not None:
            return eight
        if not keys:
            raise CubeError(_missing(item, f"no asset {asset!r}"))
        return _bands_in(item, _only(item, asset, keys), wanted)
    if keys := [key for key in _called(item, wanted.name) if may_be_raster(item["assets"][key])]:
        return _bands_in(item, _only(item, wanted.name, keys), wanted)
    return _by_band(item, wanted)


def _of_eight_bands(item: ItemDict, asset: str, wanted: BandRequest) -> AssetSelection | None:
    """Return the band of PlanetScope's eight-band file that stands for one of its four-band file; None where it does not."""
    names = SENSORS["planetscope"].names(8)
    is_of_four = normalise_name(asset).removeprefix("ortho") == "analytic4bsr"
    keys = _called(item, "ortho_analytic_8b_sr") if is_of_four else []
    if not keys or wanted.bands or wanted.name not in names:
        return None
    # By number, because the items call its third and fourth band green.
    key, number = _only(item, "ortho_analytic_8b_sr", keys), names.index(wanted.name) + 1
    bands = bands_of(item, key)
    band = bands[number - 1] if len(bands) == len(names) else Band(number=number, name=wanted.name)
    return AssetSelection(asset=key, bands=(band,))


def is_thumbnail(item: ItemDict, key: str) -> bool:
    """Test whether an asset is made for people to look at: its numbers are no measurements."""
    roles = set(item["assets"][key].get("roles") or ())
    return bool(roles & _PICTURE_ROLES) or normalise_name(key).startswith(_PICTURE_KEYS)


def may_be_raster(asset: Mapping[str, Any]) -> bool:
    """Test whether an asset may hold pixels with a place, as far as its media type or the name of its file tells."""
    kind = str(asset.get("type") or "").lower()
    if kind.startswith(_NO_RASTER_TYPES) or kind in {"image/png", "image/jpeg"}:
        return False
    ending = PurePosixPath(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
    return bool(kind) or ending not in _NO_RASTER_ENDINGS


def _called(item: ItemDict, name: str) -> list[str]:
    """Return keys of the assets that go by a name, from the strictest rule that finds any."""
    assets = item.get("assets") or {}
    if name in assets:
        return [name]
    plain = normalise_name(name)
    names = {plain, f"ortho{plain}"}
    by_key = [key for key in assets if normalise_name(_RASTER_ENDING.sub("", key)) in names]
    return by_key or [
        key for key, asset in assets.items() if normalise_name(str(asset.get("pl:asset_type", ""))) in names
    ]


def _only(item: ItemDict, name: str, keys: Sequence[str]) -> str:
    if len(keys) > 1:
        raise CubeError(
            f"Item {item_name(item)} has several assets that go by {name!r}: {sorted(keys)}. Name one by its exact key."
        )
    return keys[0]


def _bands_in(item: ItemDict, key: str, wanted: BandRequest) -> AssetSelection:
    """Return the wanted bands of a given asset."""
    bands = bands_of(item, key)
    asks_by_number = bool(wanted.bands) and all(isinstance(band, int) for band in wanted.bands)
    are_named = any(band.name or band.common_name for band in bands)
    # Where an item lists one band of a file that may have more, another number is one of the file.
    is_another = len(bands) == 1 and asks_by_number and any(isinstance(band, int) and band > 1 for band in wanted.bands)
    unnamed = len(bands) > 1 and not are_named and not asks_by_number
    if not bands or unnamed or is_another or _shares_its_file(item, key, bands):
        return AssetSelection(asset=key, bands=None)
    if wanted.bands:
        bands = tuple(_band_in(item, key, bands=bands, wish=wish) for wish in wanted.bands)
    elif named := _matching(bands, wanted.name):
        bands = (_only_band(item, key, name=wanted.name, found=named),)
    return AssetSelection(asset=key, bands=bands)


def _shares_its_file(item: ItemDict, key: str, bands: Sequence[Band]) -> bool:
    """Test whether another asset lists other bands of the same raster, so that the numbers of neither are those in the file."""
    own, names = item["assets"][key], [band.name for band in bands]
    href = own.get("href")
    return "zarr" not in f"{own.get('type')} {href}" and any(
        other != key and asset.get("href") == href and [band.name for band in bands_of(item, other)] not in ([], names)
        for other, asset in item["assets"].items()
    )


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
    """Return bands of a name, from the strictest rule that finds any."""
    for level in range(4):
        if found := tuple(band for band in bands if _level(band, name) == level):
            return found
    return ()


def _level(band: Band, name: str) -> int | None:
    """Return how strictly a name fits a band: 0 its name, 1 its common name, 2 either but for case and punctuation, 3 written out."""
    if band.name == name:
        return 0
    if band.common_name == name:
        return 1
    if normalise_name(name) in {normalise_name(band.name or ""), normalise_name(band.common_name or "")}:
        return 2
    return 3 if same_band_name(name, band.name) or same_band_name(name, band.common_name) else None


def _by_band(item: ItemDict, wanted: BandRequest) -> AssetSelection:
    """Return the asset that has all wanted bands by name."""
    names = [str(band) for band in wanted.bands] or [wanted.name]
    if any(isinstance(band, int) for band in wanted.bands):
        raise CubeError(_missing(item, f"no asset {wanted.name!r} to take bands {list(wanted.bands)} of"))
    fits: dict[str, int] = {}
    for key, asset in (item.get("assets") or {}).items():
        bands = bands_of(item, key)
        if may_be_raster(asset) and not is_thumbnail(item, key) and all(_matching(bands, name) for name in names):
            fits[key] = max(_level(_matching(bands, name)[0], name) or 0 for name in names)
    if not fits:
        number = _number_of(item, names[0])
        listed = {band.name for key in item.get("assets") or {} for band in bands_of(item, key)}
        if len(names) == 1 and number is not None and (number in listed or _called(item, number)):
            return select_asset(item, BandRequest(name=number))
        raise CubeError(_missing(item, f"no band {' and '.join(map(repr, names))}", name=names[0]))
    best = [key for key in fits if fits[key] == min(fits.values())]
    sizes = {key: _pixel_size(item["assets"][key]) for key in best}
    known = [size for size in sizes.values() if size is not None]
    if len(known) == len(best):
        best = [key for key in best if sizes[key] == min(known)]
    best = [key for key in best if "cloud-optimized" in str(item["assets"][key].get("type") or "")] or best
    if len(best) > 1:
        raise CubeError(
            f"Item {item_name(item)} has {' and '.join(map(repr, names))} in several assets: {sorted(best)}. They may be "
            "other products, such as radiance and reflectance: name one with asset=."
        )
    return _bands_in(item, best[0], wanted)


def _number_of(item: ItemDict, name: str) -> str | None:
    """Return the number by which Sentinel-2 knows a layer of one of its items: some say ``rededge`` of four bands, or nothing."""
    properties = item.get("properties") or {}
    is_sentinel2 = normalise_name(str(properties.get("constellation") or properties.get("platform"))).startswith(
        "sentinel2"
    )
    return SENTINEL2_BANDS.get(name) if is_sentinel2 else None


def _pixel_size(asset: Mapping[str, Any]) -> float | None:
    """Return the size of a pixel in CRS units; None where the asset does not tell."""
    transform = asset.get("proj:transform")
    stored = asset.get("raster:bands") or asset.get("bands") or [{}]
    sizes = (
        hypot(transform[0], transform[3]) if transform else None,  # not its first term, 0 where it lies on its side
        stored[0].get("spatial_resolution", stored[0].get("raster:spatial_resolution")),
        asset.get("gsd"),
    )
    return next((float(size) for size in sizes if size), None)


def _missing(item: ItemDict, what: str, *, name: str = "") -> str:
    """Return an error's text: what an item lacks, what it has, and how to ask for that."""
    assets, known = [], set(item.get("assets") or {})
    for key in item.get("assets") or {}:
        names = [" ".join(filter(None, (band.name, band.common_name))) for band in bands_of(item, key)]
        known.update(" ".join(names).split())
        assets.append(f"{key} ({', '.join(names)})" if any(names) else key)
    shown = "; ".join(assets[:_SHOWN_ASSETS]) + (f"; and {len(assets) - _SHOWN_ASSETS} more" * (len(assets) > 40))
    other = ", or the collections of the product that has it" if item.get("collection") else ""
    number, spelt = _number_of(item, name), ""
    if name and known:
        spelt = f" Sentinel-2 calls {name!r} {number}." if number else ""
        spelt += (
            f"{did_you_mean(name, sorted(known - {name}))} Write `{name}: BAND` under `layers` to read it as {name}."
        )
    return f"Item {item_name(item)} has {what}. Its assets and bands are: {shown or 'none'}. Name one of them{other}.{spelt}"


_SCALE = 1e-4
"""Reflectance per stored unit of every Sentinel-2 product."""

_OFFSET = -1000
"""Stored units that were added to every reflectance from processing baseline 04.00 on."""

_FIRST_WITH_OFFSET = 4.0

_PRODUCT = re.compile(
    r"S2[A-D]_(?:OPER_)?(?:MSI_?L(?P<level>1C|2A)_)(?P<sensed>\d{8}T\d{6})_(?:N(?P<baseline>\d{4})_)?R\d{3}_T(?P<tile>\w{5})"
    r"(?:_(?P<made>\d{8}T\d{6}))?"
)
"""Name of a product as ESA, Planetary Computer (without a baseline) and CDSE write it."""

_ELEMENT84 = re.compile(
    r"S2[A-D]_T?(?P<tile>\d{1,2}[C-X][A-Z]{2})_\d{8}(?:T\d{6})?_(?:(?P<made>\d+)_)?L(?P<level>1C|2A)"
)
"""Id as Earth Search writes it; its number counts the products of a tile and day."""

_LANDSAT = re.compile(r"L[COTE]0\d_(?P<level>L2)S[PR]_(?P<tile>\d{6})_\d{8}_(?:(?P<made>\d{8})_)?\d{2}_(?:RT|T1|T2)")
"""Id of a scene of Landsat as USGS, Planetary Computer (without the day of processing) and Earth Search write it."""

_COVERED = 0.9
"""Part of an image that newer ones have to show to stand for it. Two strips of one pass share a tile, and both count."""

_SAME_PASS_S = 600
"""Seconds between two products of one pass, at most: other passes over a tile are 100 minutes apart."""

_REFLECTANCE = re.compile(r"B(0?[1-9]|1[0-2]|8A)", re.IGNORECASE)
_COLOURS = {name for names in SENSORS["sentinel2"].bands for name in names}
"""Names that Earth Search gives the same bands."""
_ORIGINAL = "image/jp2"
_HARMONISED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


def packing_of(item: ItemDict, key: str, *, band: Band) -> Band:
    """Return a band with its scale and offset as its item has them, with Sentinel-2's offset settled by one rule; None where nothing is known.

    For reflectance bands of items with a Sentinel-2 processing baseline, the first that holds:

    1. the provider says that the values were harmonised (``earthsearch:boa_offset_applied`` is true): offset 0, although
       the same items still state -0.1 for each band; not for the JPEG 2000 originals that they have beside them;
    2. the item states an offset for the band: that one;
    3. the baseline is 04.00 or later: -1000 stored units, which is -0.1;
    4. otherwise 0.

    Their scale is 0.0001 unless the item states one. All other bands have what the item states.

    Examples
    --------
    >>> asset = {"eo:bands": [{"name": "B04", "common_name": "red"}]}
    >>> item = {"properties": {"s2:processing_baseline": "04.00"}, "assets": {"B04": asset}}
    >>> band = packing_of(item, "B04", band=Band(number=1, name="B04"))
    >>> band.scale, band.offset
    (0.0001, -0.1)
    """
    baseline = _baseline(item)
    if baseline is None or not _is_reflectance(item, key, band):
        return band
    scale, offset = _SCALE if band.scale is None else band.scale, band.offset
    properties = item.get("properties") or {}
    if any(properties.get(name) is True for name in _HARMONISED) and item["assets"][key].get("type") != _ORIGINAL:
        offset = 0.0
    elif offset is None:
        offset = _OFFSET * scale if baseline >= _FIRST_WITH_OFFSET else 0.0
    return replace(band, scale=scale, offset=offset)


def newest_processing(items: Iterable[ItemDict]) -> list[ItemDict]:
    """Return items without those that were processed anew: of one tile and pass of Sentinel-2 the highest baseline counts, once.

    Of a scene of Landsat, which has no baselines, the last processing counts.

    The same baseline twice counts as processed anew where the newer shows the ground of the older, too. Items of other
    sensors, and strips that show other ground of the tile, are all kept, in their order.

    Examples
    --------
    >>> names = ["S2B_MSIL2A_20210721T212529_N0301_R043_T07WFT_20210722T003344",
    ...          "S2B_MSIL2A_20210721T212529_N0500_R043_T07WFT_20230215T112233"]
    >>> [item["id"][27:32] for item in newest_processing([{"id": name} for name in names])]
    ['N0500']
    """
    every = list(items)
    known = [one for place, item in enumerate(every) if (one := _processed(item, place)) is not None]
    kept: dict[tuple[str, ...], list[_Processed]] = {one.tile: [] for one in known}
    dropped = set()
    for one in sorted(known, key=lambda one: one.rank, reverse=True):
        newer = [other for other in kept[one.tile] if abs((other.time - one.time).total_seconds()) <= _SAME_PASS_S]
        if newer and _shows(newer, one):
            dropped.add(one.place)
        else:
            kept[one.tile].append(one)
    return [item for place, item in enumerate(every) if place not in dropped]


@dataclass(frozen=True, kw_only=True)
class _Processed:
    """One product of Sentinel-2 or Landsat among others of its tile, or path and row."""

    place: int
    item: ItemDict
    tile: tuple[str, ...]
    """Satellite, level and tile."""
    time: datetime
    """When the pass began where the product's name says so, else the item's time."""
    rank: tuple[float, str, str]
    """Baseline, when or as how many it was made, id: the greatest counts."""


def _processed(item: ItemDict, place: int) -> _Processed | None:
    properties = item.get("properties") or {}
    names = [str(properties.get("s2:product_uri") or ""), str(item.get("id"))]
    matches = (rule.match(name) for name in names for rule in (_PRODUCT, _ELEMENT84, _LANDSAT))
    found = next(filter(None, matches), None)
    if found is None:
        return None
    parts = found.groupdict()
    sensed = parts.get("sensed")
    time = datetime.strptime(sensed, "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if sensed else time_of(item)
    if time is None:
        return None
    made = str(properties.get("s2:generation_time") or parts.get("made") or "").zfill(8)
    return _Processed(
        place=place,
        item=item,
        tile=(found[0][:3], str(parts["level"]), str(parts["tile"]).zfill(5)),
        time=time,
        rank=(_baseline(item) or 0.0, made, str(item.get("id"))),
    )


def _shows(newer: list[_Processed], one: _Processed) -> bool:
    """Test whether newer products show the ground of one; without outlines, if their baseline is higher or they are the same product."""
    outline = item_footprint(one.item)
    outlines = [item_footprint(other.item) for other in newer]
    if outline is None or not outline.area or None in outlines:
        return any(other.rank[0] > one.rank[0] for other in newer)
    return bool(outline.intersection(union_all(outlines)).area >= _COVERED * outline.area)


def _baseline(item: ItemDict) -> float | None:
    """Return the processing baseline of a Sentinel-2 item: its property, else ``_N0509_`` in the product's name; None for others."""
    properties = item.get("properties") or {}
    stated = str(properties.get("s2:processing_baseline", properties.get("sentinel:processing_baseline", "")))
    if re.fullmatch(r"\d+\.\d+", stated):
        return float(stated)
    name = str(properties.get("s2:product_uri", item.get("id")))
    if named := re.match(r"S2[A-D]_MSIL[12][AC]_.*_N(\d{2})(\d{2})_", name):
        return float(f"{named[1]}.{named[2]}")
    version = str(properties.get("processing:version", ""))
    return float(version) if re.match(r"S2[A-D]_", name) and re.fullmatch(r"\d+\.\d+", version) else None


def _is_reflectance(item: ItemDict, key: str, band: Band) -> bool:
    """Test whether a band holds reflectance: ``B01`` to ``B12``, or its colour, by its own name or its asset's, and no picture of them."""
    if is_thumbnail(item, key) or band.dtype == "uint8":
        return False
    names = (band.name or "", re.split("[_-]", key)[0])
    return any(_REFLECTANCE.fullmatch(name) or name in _COLOURS for name in names)


Signer = Callable[[str], str]
"""A signing hook: from an href to the href that may be read."""

SignerName = Annotated[str, AfterValidator(lambda name: check_signer(name).name)]
"""Name of a signing hook: ``planetary-computer``, or that of an installed package."""

Sign = Annotated[str | Signer | None, Written(SignerName | None)]
"""A signing hook by its name, or a function; a document has the name."""

SIGNERS = MappingProxyType({"planetary-computer": "planetary_computer:sign"})
"""Signing hooks by name, as ``module:function``."""

SIGNER_GROUP = "rtsx.signers"
"""Entry points by which other packages add theirs."""


def absolute_href(href: str, base: str | None) -> str:
    """Return an href that needs no base any more; local ones become paths, and what only GDAL knows is left alone.

    Parameters
    ----------
    href
        As a document states it.
    base
        Where the document lies; None: relative hrefs count from the working folder.

    Raises
    ------
    CubeError
        The document lies on a server and names something else than what lies on servers.

    Examples
    --------
    >>> absolute_href("./red.tif", "https://example.org/items/a.json")
    'https://example.org/items/red.tif'
    >>> absolute_href("../red.tif", "/data/items/a.json")
    '/data/red.tif'
    """
    if base is not None and is_url(base):
        return _remote_href(href.strip(), base)
    folder = None if base is None else local_path(base).parent
    plain = absolute(href, folder=folder)
    if "%" not in href or is_url(href) or lexists(plain):
        return plain
    decoded = absolute(unquote(href), folder=folder)
    return decoded if lexists(decoded) else plain  # hrefs are URIs, though many documents hold plain names


def _remote_href(href: str, base: str) -> str:
    """Return the same for a document on a server: it may be a stranger's, so that it never names files of this machine."""
    own, rest = base.split("://", 1)
    with suppress(ValueError):  # no address at all, such as http://[
        if not urlsplit(href).scheme and not href.startswith("/vsi"):
            # urljoin resolves only schemes that it knows, and s3 is none of them.
            return urljoin(f"http://{rest}", href).replace("http://", f"{own}://", 1)
    if not leads_to_server(href, own):
        raise CubeError(
            f"{href[:200]!r} is no address on a server, and a document that lies on one, as {base.split('?')[0]} does, may "
            f"refer to nothing else, lest it reads files of this machine. Addresses begin with {own}:// or one of "
            f"{', '.join(sorted(REMOTE_SCHEMES))}. Correct the document; or copy it and its files to this machine, where "
            "an item's self link, if it has one, has to say so."
        )
    return href


def self_href(item: ItemDict, found: str | None = None) -> str | None:
    """Return where an item lies: as its ``self`` link says, but on a server if it was found on one; else where it was found."""
    links = item.get("links") or ()
    stated = next((str(link["href"]) for link in links if link.get("rel") == "self" and link.get("href")), None)
    return found if stated is None or (found is not None and is_url(found) > is_url(stated)) else stated


def asset_href(item: ItemDict, key: str) -> str:
    """Return where the file of an asset lies, as `absolute_href` has it.

    Raises
    ------
    CubeError
        The asset has no href, or one that an item on a server may not have.
    """
    name = f"Asset {key!r} of item {item_name(item)}"
    stated = item["assets"][key].get("href")
    if not stated:
        raise CubeError(f"{name} has no href. Correct the item.")
    try:
        return absolute_href(str(stated), self_href(item))
    except CubeError as error:
        raise CubeError(f"{name}: {error}") from error


def located(item: ItemDict, base: str | None) -> ItemDict:
    """Return an item whose ``self`` link says where it lies, whatever it said itself, so that its hrefs count from there."""
    links = [link for link in item.get("links") or () if link.get("rel") != "self"]
    return {**item, "links": links if base is None else [*links, {"rel": "self", "href": base}]}


def sibling_href(href: str, base: str | None) -> str:
    """Return the file of an asset's name that lies beside its local item, where there is one; else the href itself."""
    if base is None or is_url(base):
        return href
    file = local_path(base).parent / PurePosixPath(unquote(urlsplit(href).path)).name
    return str(file.absolute()) if file.is_file() else href


def get_signer(sign: str | Signer) -> Signer:
    """Return the signing hook of a name; a function of the caller's own is taken as it is.

    Raises
    ------
    CubeError
        There is none of that name (`check_signer`), or the library that has it is not installed.
    """
    if callable(sign):
        return lambda href: str(sign(href))
    point = check_signer(sign)
    try:
        hook = point.load()
    except (ImportError, AttributeError) as error:
        raise CubeError(
            f"Signing hook {sign!r} needs {point.attr!r} in the module {point.module!r}, and there: {error}. "
            f"Install the package that brings it, e.g. pip install {point.module.split('.')[0].replace('_', '-')}."
        ) from error
    if not callable(hook):
        raise CubeError(
            f"Signing hook {sign!r} has to be a function from an href to an href; got {type(hook).__name__}."
        )
    return lambda href: str(hook(href))


def check_signer(name: str) -> EntryPoint:
    """Return where the signing hook of a name is; imports nothing.

    Only installed packages name hooks, because a config that named any function would run any code.

    Raises
    ------
    CubeError
        No installed package has one of that name.
    """
    known = {point.name: point for point in entry_points(group=SIGNER_GROUP)}
    known |= {own: EntryPoint(own, value, SIGNER_GROUP) for own, value in SIGNERS.items()}
    if name not in known:
        raise CubeError(
            f"Known signing hooks are {sorted(known)}; got {name!r}. Name one. A package adds its own by an entry point of the "
            f"group {SIGNER_GROUP!r}; in Python, a function may be given."
        )
    return known[name]


def address_of(href: str) -> str:
    """Return the URL that GDAL's names for remote files stand for."""
    return href.removeprefix("/vsicurl/").replace("/vsis3/", "s3://", 1)
