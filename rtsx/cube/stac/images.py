"""STAC items to images: the bands that are asked for, on their own grids, with their packing."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from typing import Any, TypeVar

from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import BandRequest, BandSource, Image, Period
from rtsx.cube.mask_rules import band_places
from rtsx.cube.rasterio import RasterHeader, read_header
from rtsx.cube.stac.assets import (
    AssetSelection,
    Signer,
    asset_href,
    get_signer,
    newest_processing,
    packing_of,
    select_asset,
)
from rtsx.cube.stac.item import (
    Band,
    ItemDict,
    band_of_file,
    bands_of,
    bounds_of,
    cloud_cover_of,
    densify_in_source_crs,
    etag_of,
    has_classes,
    item_footprint,
    item_name,
    overlaps,
    platform_of,
    proj_geobox,
    raster_footprint,
    refuse_unread_nodata,
    same_band_name,
    sun_of,
    time_of,
    unit_of,
)
from rtsx.errors import CubeError
from rtsx.storage import without_query

_T = TypeVar("_T")

_HEADERS_AT_ONCE = 8
"""Headers that are read at the same time, because each one from a server is a wait of some hundred milliseconds."""


def images_of(
    items: Iterable[ItemDict],
    wanted: Sequence[BandRequest],
    *,
    sign: str | Signer | None = None,
    read_header: Callable[[str], RasterHeader] = read_header,
) -> tuple[Image, ...]:
    """Return items as images, in their order; `choose` says how an asset and its bands are found.

    What the item states is taken at its word. A file's header is read only where the item leaves something open:

    - the grid (`proj_geobox`), or one that lies elsewhere than the item's own outline: the header of that very file;
    - the dtype, and with it nodata, scale and offset, or which bands there are: the header of the first item's asset
      answers for that asset in all items of its collection. Items without a collection answer for themselves.

    Parameters
    ----------
    items
        Items of any STAC version, as JSON has them. Relative hrefs are resolved against their ``self`` link.
    wanted
        What each image has to hold.
    sign
        Signing hook for the hrefs (`get_signer`). It is called here, once per file: what it returns is stored in the
        image, so that images have to be found again when its tokens expire.
    read_header
        Reads a header; called from several threads.

    Raises
    ------
    CubeError
        An item lacks what is wanted, or an asset cannot be used; item and asset are named.
    """
    hook = cache(get_signer(sign)) if sign is not None else str
    drafts = [_drafts(item, wanted, hook) for item in items]
    headers = _headers([draft for row in drafts for draft in row], read_header)
    return tuple(_image(row, headers) for row in drafts if row)


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """One wish on one item, as far as the item alone answers it."""

    item: ItemDict
    outline: BaseGeometry | None
    wanted: BandRequest
    choice: AssetSelection
    href: str
    geobox: GeoBox | None
    """None where the file's own header has to tell."""

    @property
    def is_described(self) -> bool:
        """Whether the item lists the bands and how they are stored, and, where their order is that of names, these."""
        listed = self.choice.bands
        needs_names = len(self.wanted.names) > 1 and not any(band.name for band in listed or ())
        return listed is not None and not needs_names and all(band.dtype for band in listed)

    @property
    def kind(self) -> tuple[str, str]:
        """What one header can answer for: an asset of a collection, or one file."""
        collection = self.item.get("collection")
        return (str(collection), self.choice.asset) if collection else ("", self.href)

    @property
    def label(self) -> str:
        """For messages."""
        return f"asset {self.choice.asset!r} of item {item_name(self.item)}"


def _drafts(item: ItemDict, wanted: Sequence[BandRequest], sign: Callable[[str], str]) -> list[_Draft]:
    outline = item_footprint(item)
    drafts = []
    for wish in wanted:
        choice = select_asset(item, wish)
        geobox = proj_geobox(item, choice.asset)
        if geobox is not None and outline is not None and not overlaps(outline, geobox):
            geobox = None  # a wrong zone, as some published items have it
        href = sign(asset_href(item, choice.asset))
        drafts.append(_Draft(item=item, outline=outline, wanted=wish, choice=choice, href=href, geobox=geobox))
    return drafts


def _headers(
    drafts: Sequence[_Draft], read: Callable[[str], RasterHeader]
) -> dict[str | tuple[str, str], RasterHeader]:
    """Return the headers by href, and by kind where one answers for many."""
    needed: dict[str, _Draft] = {}
    sampled: dict[tuple[str, str], str] = {}
    for draft in drafts:
        if not draft.is_described:
            sampled.setdefault(draft.kind, draft.href)
        if draft.geobox is None:
            needed.setdefault(draft.href, draft)
    hrefs = set(sampled.values())
    for draft in drafts:
        if draft.href in hrefs:
            needed.setdefault(draft.href, draft)

    def header(draft: _Draft) -> RasterHeader:
        if _is_zarr(draft):
            raise CubeError(
                f"For Zarr, the item has to state proj:code, proj:transform, proj:shape and the data_type of each band; "
                f"{draft.label} does not. Add them to the item."
            )
        try:
            return read(draft.href)
        except CubeError as error:
            raise CubeError(
                f"The header of {draft.label} is needed, because the item does not state grid and dtype, or a grid away "
                f"from its own outline: {error}"
            ) from error

    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        read_headers = dict(zip(needed, pool.map(header, needed.values()), strict=True))
    return read_headers | {kind: read_headers[href] for kind, href in sampled.items()}


def _image(row: Sequence[_Draft], headers: dict[str | tuple[str, str], RasterHeader]) -> Image:
    bands = {draft.wanted.name: _asset_bands(draft, headers) for draft in row}
    item = row[0].item
    outline = row[0].outline
    azimuth, elevation = sun_of(item)
    return Image(
        id=str(item.get("id", "")),
        bands=bands,
        time=time_of(item),
        footprint=None if outline is None else densify_in_source_crs(outline, next(iter(bands.values())).geobox),
        cloud_cover=cloud_cover_of(item),
        platform=platform_of(item),
        sun_azimuth=azimuth,
        sun_elevation=elevation,
    )


def _asset_bands(draft: _Draft, headers: dict[str | tuple[str, str], RasterHeader]) -> BandSource:
    wanted, own = draft.wanted, headers.get(draft.href)
    bands = draft.choice.bands
    like: RasterHeader | None = None
    header = None if draft.is_described else own or headers[draft.kind]
    if header is not None:
        chosen = _chosen(draft, header)
        bands = _filled(chosen, header)
        like = None if own is not None else _answer(draft, chosen, header)
    assert bands is not None
    if wanted.names:
        named = [band.name or (header.descriptions[band.number - 1] if header else None) for band in bands]
        bands = tuple(bands[place] for place in band_places(wanted.names, named))
    bands = tuple(packing_of(draft.item, draft.choice.asset, band=band) for band in bands)
    found: dict[str, Any] = {}
    if wanted.scale_factor is None:
        scale = _one(draft, "scale", [band.scale for band in bands])
        found["scale_factor"] = 1.0 if scale is None else scale
    if wanted.add_offset is None:
        found["add_offset"] = _one(draft, "offset", [band.offset for band in bands]) or 0.0
    if wanted.nodata is None:
        refuse_unread_nodata(draft.item, draft.choice.asset)
        found["nodata"] = _one(draft, "nodata", [band.nodata for band in bands])
    geobox = headers[draft.href].geobox if draft.geobox is None else draft.geobox
    numbers = {band.number for band in bands}
    return BandSource(
        href=draft.href,
        bands=tuple(band.name or band.number for band in bands) if _is_zarr(draft) else tuple(b.number for b in bands),
        geobox=geobox,
        dtype=str(_one(draft, "data_type", [band.dtype for band in bands])),
        asset=draft.choice.asset,
        opener="zarr" if _is_zarr(draft) else "gdal",
        settled=frozenset(wanted.stated),
        stamp=etag_of(draft.item, draft.choice.asset),
        like=like,
        units=unit_of(draft.item, draft.choice.asset, bands[0].number)
        or (own and own.units[bands[0].number - 1])
        or "",
        has_classes=has_classes(draft.item, draft.choice.asset, numbers)
        or (own is not None and not numbers.isdisjoint(own.coloured)),
        alone=_alone(draft),
        names=wanted.names if like is not None and not any(band.name for band in draft.choice.bands or ()) else (),
        **found | wanted.stated,
    )


def _alone(draft: _Draft) -> tuple[str, ...]:
    """Return the names of the one band that an item lists; empty where it lists others, or a number is wanted."""
    listed = bands_of(draft.item, draft.choice.asset)
    if not draft.is_described or len(listed) != 1 or any(isinstance(wish, int) for wish in draft.wanted.bands):
        return ()
    return tuple(name for name in (listed[0].name, listed[0].common_name, draft.wanted.name) if name)


def _chosen(draft: _Draft, header: RasterHeader) -> tuple[Band, ...]:
    """Return the wanted bands, as far as the item describes them."""
    # One that an item lists of several in the file may be any of them.
    is_one_of_several = len(bands_of(draft.item, draft.choice.asset)) == 1 < len(header.data_bands)
    chosen = draft.choice.bands if draft.choice.bands and not is_one_of_several else _bands_of_file(draft, header)
    for band in chosen:
        if band.number > header.count:
            raise CubeError(
                f"Band {band.number} of {draft.label} is wanted; {header.path} has {header.count}. Correct bands=."
            )
    return chosen


def _answer(draft: _Draft, chosen: Sequence[Band], header: RasterHeader) -> RasterHeader:
    """Return the header of another file with only that left in it by which bands were chosen and described."""
    wishes = [str(wish) for wish in draft.wanted.bands] or [draft.wanted.name]
    is_by_name = [same_band_name(*pair) for pair in zip(wishes, (band.name for band in chosen), strict=False)]
    is_named = draft.choice.bands is None and all(is_by_name)
    are_named = any(band.name for band in draft.choice.bands or ())
    is_packed = all(band.scale is not None and band.offset is not None for band in chosen)
    return replace(
        header,
        descriptions=header.descriptions
        if is_named or (draft.wanted.names and not are_named)
        else (None,) * header.count,
        scales=() if is_packed else header.scales,
    )


def _filled(chosen: Sequence[Band], header: RasterHeader) -> tuple[Band, ...]:
    """Return bands with everything that the item leaves open taken from a header."""
    return tuple(
        replace(
            band,
            dtype=band.dtype or header.dtypes[band.number - 1],
            nodata=header.nodata[band.number - 1] if band.nodata is None else band.nodata,
            scale=_stated(header.scales[band.number - 1], 1.0) if band.scale is None else band.scale,
            offset=_stated(header.offsets[band.number - 1], 0.0) if band.offset is None else band.offset,
        )
        for band in chosen
    )


def _stated(value: float, default: float) -> float | None:
    """Return what a file says; None for what it also says when it says nothing."""
    return None if value == default else value


def _bands_of_file(draft: _Draft, header: RasterHeader) -> tuple[Band, ...]:
    """Return the wanted bands by what the file calls its bands."""
    wanted = draft.wanted
    listed = [_band_of_file(draft, header, number) for number in header.data_bands]
    if not wanted.bands:
        return _described(draft, header, wanted.name) or tuple(listed)
    chosen = []
    for wish in wanted.bands:
        if isinstance(wish, int):
            chosen.append(_band_of_file(draft, header, wish))
        elif found := _described(draft, header, wish):
            chosen += found
        else:
            raise CubeError(
                f"Band {wish!r} is wanted of {draft.label}; neither the item nor the file names a band so. The file "
                f"{header.path} has {header.count} bands called {list(header.descriptions)}. Give numbers from 1."
            )
    return tuple(chosen)


def _described(draft: _Draft, header: RasterHeader, name: str) -> tuple[Band, ...]:
    """Return the band that a file calls by a name; empty where there is none."""
    numbers = [number for number, text in enumerate(header.descriptions, start=1) if same_band_name(name, text)]
    if len(numbers) > 1:
        raise CubeError(f"Bands {numbers} of {header.path} ({draft.label}) are called {name!r}; give a number.")
    return tuple(_band_of_file(draft, header, number) for number in numbers)


def _band_of_file(draft: _Draft, header: RasterHeader, number: int) -> Band:
    name = header.descriptions[number - 1] if 1 <= number <= header.count else None
    return band_of_file(draft.item, draft.choice.asset, number=number, name=name, count=header.count)


def _one(draft: _Draft, what: str, values: Sequence[_T]) -> _T:
    """Return the value that all wanted bands share."""
    if len({repr(value) for value in values}) > 1:  # repr, because NaN equals NaN here
        raise CubeError(
            f"Bands that are wanted together have to share their {what}; those of {draft.label} have {list(values)}. "
            "Ask for them under several names."
        )
    return values[0]


def _is_zarr(draft: _Draft) -> bool:
    kind = str(draft.item["assets"][draft.choice.asset].get("type") or "")
    return "zarr" in kind or without_query(draft.href).rstrip("/").endswith(".zarr")


def selected_images(
    items: Iterable[ItemDict],
    wanted: Sequence[BandRequest],
    *,
    area: BaseGeometry,
    period: Period | None,
    max_cloud_cover: float | None,
    sign: str | Signer | None,
) -> tuple[Image, ...]:
    """Return images of the items that meet area, period and cloud cover, by time and then by id.

    An item that comes twice counts once, and an image of Sentinel-2 that was processed anew by its highest baseline. One
    without a date meets every period. One that does not state its cloud cover meets no `max_cloud_cover`, because a
    server that is asked leaves it out, too, and answers must not depend on the catalog. An image whose item gives no
    outline is looked for by its rasters.
    """
    kept: dict[tuple[str, str], ItemDict] = {}
    for item in items:
        moment = time_of(item)
        is_in_time = period is None or moment is None or moment in period
        if is_in_time and _may_meet(item, area):
            kept.setdefault((str(item.get("collection")), str(item.get("id"))), item)
    # Before clouds count, because what a newer processing calls cloudy must not come back by an older one.
    clear = [item for item in newest_processing(kept.values()) if _is_clear(item, max_cloud_cover)]
    images = images_of(clear, wanted, sign=sign)
    return tuple(sorted((image for image in images if _meets(image, area)), key=_order))


def _is_clear(item: ItemDict, max_cloud_cover: float | None) -> bool:
    if max_cloud_cover is None:
        return True
    percent = cloud_cover_of(item)
    return percent is not None and percent <= max_cloud_cover


def _may_meet(item: ItemDict, area: BaseGeometry) -> bool:
    """Test whether an item's outline comes near an area: its bbox, because edges are bent in between the corners."""
    outline = item_footprint(item)
    if outline is None:
        return True
    return any(_widened(part.bounds).intersects(area) for part in getattr(outline, "geoms", [outline]))


def _widened(bounds: tuple[float, float, float, float]) -> BaseGeometry:
    """Return a box that also holds edges that are straight on a projected grid, which lie outside the box of their corners."""
    west, south, east, north = bounds
    margin = max(east - west, north - south) / 8
    return bounds_of((west - margin, max(south - margin, -90), east + margin, min(north + margin, 90)))


def _meets(image: Image, area: BaseGeometry) -> bool:
    if image.footprint is not None:
        return bool(image.footprint.intersects(area))
    return any(raster_footprint(bands.geobox).intersects(area) for bands in image.bands.values())


def _order(image: Image) -> tuple[bool, date | float, str]:
    return image.time is None, 0.0 if image.time is None else image.time.timestamp(), image.id
