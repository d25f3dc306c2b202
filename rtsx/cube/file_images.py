"""Files as images: GeoTIFFs, COGs and VRTs by path or pattern, and Zarr stores."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from glob import glob
from os.path import lexists
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from rtsx.cube.conventions import with_axis_names
from rtsx.cube.encoding import VALID_RANGE, missing_values, packing
from rtsx.cube.georeference import geobox_of, with_axes, with_crs
from rtsx.cube.images import BandRequest, BandSource, Image, ImageSource, Period
from rtsx.cube.mask_rules import band_places
from rtsx.cube.rasterio import RasterHeader, read_header
from rtsx.cube.rasters import sensor_names
from rtsx.cube.sensors import get_sensor
from rtsx.cube.times import times_of
from rtsx.cube.zarr_cube import open_zarr_cube, read_metadata, turned_axes
from rtsx.errors import CubeError
from rtsx.grid import lonlat_polygon
from rtsx.parsing import STRICT, Several
from rtsx.storage import absolute, is_url, without_query

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})(-?)([01]\d)\2([0-3]\d)(?:[T_](\d{6}))?(?!\d)")
"""Date, and time of day where it follows, in the names of PlanetScope, Sentinel-2 and Landsat files; numbers of tiles have `_` between them."""
_DAY_OF_YEAR = re.compile(r"\.(?=A|\d{7}T)A?((?:19|20)\d{5})(?:T(\d{6}))?\.")
"""As HLS and MODIS have it."""


@dataclass(frozen=True, kw_only=True)
class FileImages:
    """Raster files, each an image, or each with companions such as its quality data.

    Raises
    ------
    CubeError
        No asset, or companions in other numbers.
    """

    __pydantic_config__ = STRICT

    assets: Mapping[str, Several[str]]
    """Paths, URLs or glob patterns by asset; the first entry is the image itself. The files of an asset are
    sorted by name, and the n-th of each belong together."""
    sensor: str | None = None
    """Product that names the bands of the images; if left out, the files describe them, or the `sensor` of a YAML source where that
    says no number of bands."""

    def __post_init__(self) -> None:
        """Refuse no files at all, and make the paths mean the same in every working folder."""
        if not self.assets or not all(self.assets.values()):
            raise CubeError(f"Files are given by asset, such as {{'image': ['*.tif']}}; got {dict(self.assets)}.")
        assets = {asset: tuple(absolute(path) for path in paths) for asset, paths in self.assets.items()}
        object.__setattr__(self, "assets", assets)

    def __hash__(self) -> int:
        return hash(tuple(self.assets.items()))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return images by name; see `ImageSource`. The time is the date in the name of the file, such as ``20240721_200707`` or ``2024-07-21``.

        With a period, a file without a date in its name is an error rather than silently in or out.
        """
        files = {asset: _expanded(patterns) for asset, patterns in self.assets.items()}
        counts = {asset: len(paths) for asset, paths in files.items()}
        if len(set(counts.values())) > 1:
            raise CubeError(
                f"The n-th files of each asset belong together, so there have to be equally many; got {counts}. "
                "Make the patterns match one file of each asset per image."
            )
        found = []
        for paths in zip(*files.values(), strict=True):
            name = _file_name(paths[0]).stem
            time = time_in(_file_name(paths[0]).name)
            _refuse_other_dates(paths)
            if period is not None and time is None:
                raise CubeError(
                    f"{paths[0]} has no date such as 20240721 in its name, so it cannot be told whether it lies within "
                    f"{period.start} to {period.end}. Rename it, describe it by a STAC item, or leave the period out."
                )
            if period is not None and time is not None and time not in period:
                continue
            headers = {asset: read_header(path) for asset, path in zip(files, paths, strict=True)}
            first, main = next(iter(headers.items()))
            if any(not one.bands and one.asset in (None, first) for one in wanted):
                headers[first] = self._named(main)
            footprint = lonlat_polygon(main.geobox.extent.geom, str(main.geobox.crs))
            if footprint.intersects(area):
                bands = {one.name: _asset_bands(headers, one) for one in wanted}
                found.append(Image(id=name, bands=bands, time=time, footprint=footprint))
        return tuple(found)

    def layer_names(self) -> tuple[str, ...]:
        """Return names of the bands of the first image; reads its header.

        Raises
        ------
        CubeError
            It cannot be read, or a band has no name.
        """
        header = self._named(read_header(_expanded(next(iter(self.assets.values())))[0]))
        names = [header.descriptions[band - 1] for band in header.data_bands]
        if not all(names):
            raise CubeError(f"{header.path} has bands without a name: {names}. Name the layers.")
        return tuple(name for name in names if name)

    def _named(self, header: RasterHeader) -> RasterHeader:
        """Return the header with its bands named by the sensor."""
        if self.sensor is None:
            return header
        return replace(header, descriptions=sensor_names(header, get_sensor(self.sensor)))


_YES_OR_NO = 2
"""Numbers of a layer such as `binary`, between which rounding is the nearer one."""


@dataclass(frozen=True, kw_only=True)
class StoreImages:
    """A Zarr store, v2 or v3, as one image: its arrays are the bands. One with several steps of `time` is an image for each."""

    __pydantic_config__ = STRICT

    path: str
    """Path or URL of the group; its arrays are the bands."""
    time: datetime | None = None
    """When it was taken; the date that the store has, if it has one step of `time`, or none, if left out."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return the images that meet area and period; see `ImageSource`. Of several steps of time, a period has to say which count."""
        if period is not None and self.time is not None and self.time not in period:
            return ()
        names = tuple(str(one.bands[0]) if one.bands else one.name for one in wanted)
        raw = with_axis_names(read_metadata(self.path, {}))
        steps = self._steps(raw, names, period)
        stored = open_zarr_cube(self.path, None, layers=names, chunk=None, options={})
        geobox = geobox_of(stored)
        if not lonlat_polygon(geobox.extent.geom, str(geobox.crs)).intersects(area):
            return ()
        geobox = _as_stored(geobox, turned_axes(with_axes(with_crs(raw))))
        bands = {}
        for one, name in zip(wanted, names, strict=True):
            if stored[name].dims not in (("y", "x"), ("time", "y", "x")):
                raise CubeError(
                    f"{self.path}: array {name!r} is on {stored[name].dims}; a store that is aligned has arrays on (y, x) or (time, y, x). Store "
                    "what is meant by itself, or predict the store as it is."
                )
            odd = _unaligned(raw, name, has_nodata=one.nodata is not None)
            if odd is not None:
                raise CubeError(
                    f"{self.path}: {odd}, and a store that is aligned is read as it lies there. Store it as a cube, as "
                    f"rtsx.write_cube(rtsx.open_cube({self.path!r}), ...) does."
                )
            packed = packing(stored[name])
            found = {key: packed[key] for key in ("nodata", "scale_factor", "add_offset")}
            dtype = stored[name].dtype.name
            bands[one.name] = BandSource(
                href=self.path,
                bands=(name,),
                geobox=geobox,
                dtype=dtype,
                opener="zarr",
                settled=frozenset(one.stated),
                units=str(stored[name].attrs.get("units", "")),
                has_classes=np.size(stored[name].attrs.get("flag_values", ())) > _YES_OR_NO,
                **found | one.stated,
            )
        stem = _file_name(self.path).stem
        if len(steps) == 1 and steps[0][0] is None:
            return (Image(id=stem, bands=bands, time=steps[0][1]),)
        return tuple(
            Image(
                id=f"{stem}-{time:%Y%m%dT%H%M%S}",
                bands={name: replace(one, step=step) for name, one in bands.items()},
                time=time,
            )
            for step, time in steps
        )

    def _steps(
        self, raw: xr.Dataset, names: Sequence[str], period: Period | None
    ) -> list[tuple[int | None, datetime | None]]:
        """Return place and date of the steps of time that count; no place where there are not several."""
        read = [raw[name] for name in (*names, "valid") if name in raw]
        several = max((one.sizes.get("time", 1) for one in read), default=1)
        dates = times_of(raw) if any("time" in one.dims for one in read) else []
        if several == 1:
            if self.time is not None or not dates or np.isnat(dates[0]):
                return [(None, self.time)]
            return [(None, time) for time in (_time_within(dates[0], period),) if time is not None]
        if self.time is not None or period is None or len(dates) < several or any(map(np.isnat, dates)):
            shown = ", ".join(map(str, raw["time"].values[:3] if dates else range(3)))
            raise CubeError(
                f"{self.path} has {several} steps of time ({shown}, ...), and an image is of one. Say which count with a period, without a time "
                "of the store's own; the steps need dates for that. Or store the step that is meant by itself."
            )
        found = ((step, _time_within(one, period)) for step, one in enumerate(dates))
        return [(step, time) for step, time in found if time is not None]


def _time_within(date: np.datetime64, period: Period | None) -> datetime | None:
    """Return a time, or of a month or year its first day, within a period; None where there is none."""
    is_day = np.datetime_data(date)[0] not in ("Y", "M")
    days = [date] if is_day else np.arange(date.astype("M8[D]"), (date + 1).astype("M8[D]"))
    times = (day.astype("M8[us]").item().replace(tzinfo=UTC) for day in days)
    return next((time for time in times if period is None or time in period), None)


def _as_stored(geobox: GeoBox, turned: Sequence[str]) -> GeoBox:
    """Return the geobox of pixels that lie in a store with some axes turned."""
    height, width = geobox.shape
    for name in turned:
        turn = Affine(1, 0, 0, 0, -1, height) if name == "y" else Affine(-1, 0, width, 0, 1, 0)
        geobox = GeoBox(geobox.shape, geobox.affine * turn, geobox.crs)
    return geobox


def _unaligned(raw: xr.Dataset, name: str, *, has_nodata: bool) -> str | None:
    """Return what of an array the aligned reader, which reads the arrays themselves, would take for something else; None where nothing is."""
    if name not in raw:
        return f"layer {name!r} is not an array of its own"
    layer = raw[name]
    missing = () if has_nodata else missing_values(layer)
    if len(missing) > 1:
        return f"array {name!r} has several values of missing pixels, {list(missing)}"
    for word in (*VALID_RANGE, "_Unsigned"):
        if word in layer.attrs:
            return f"array {name!r} has the attribute {word}"
    for one in (layer, *([raw["valid"]] if "valid" in raw else [])):
        dims = [dim for dim in one.dims if dim in ("y", "x") or one.sizes[dim] > 1]
        if dims not in (["y", "x"], ["time", "y", "x"]):
            return f"array {one.name!r} is on {one.dims}"
    if "valid" in raw and raw["valid"].dtype.kind not in "bu":
        return f"its array 'valid' is {raw['valid'].dtype} instead of bool"
    return None


_conforms: tuple[type[ImageSource], ...] = (FileImages, StoreImages)


def _expanded(patterns: Sequence[str]) -> list[str]:
    """Return files of an asset, sorted by name; a pattern that matches nothing is an error."""
    paths: list[str] = []
    for pattern in patterns:
        # A file of exactly that name is meant before a pattern: people have "[aoi] lena.tif".
        is_pattern = any(mark in pattern for mark in "*?[") and not is_url(pattern) and not lexists(pattern)
        matches = sorted(glob(pattern, recursive=True)) if is_pattern else [pattern]  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            raise CubeError(f"No file matches {pattern!r}. Check the folder and the pattern.")
        paths += matches
    return sorted(dict.fromkeys(paths), key=lambda path: (_file_name(path).name, path))


def _refuse_other_dates(paths: Sequence[str]) -> None:
    """Raise where files that would belong together are of different dates."""
    times = {path: time_in(_file_name(path).name) for path in paths}
    if len({time for time in times.values() if time is not None}) > 1:
        raise CubeError(
            f"The n-th files of each asset belong together, but these are of different dates: {list(paths)}. Make the "
            "patterns match one file of each asset per image."
        )


def _file_name(path: str) -> PurePosixPath:
    """Return a path, or that of an address without its query, in which a signed one has its token."""
    return PurePosixPath(without_query(path))


def time_in(name: str) -> datetime | None:
    """Return the first date in a name, of midnight where no hour is in it; None where it is none, or to come."""
    if found := _DATE.search(name):
        day, hour, written = found[1] + found[3] + found[4], found[5], "%Y%m%d%H%M%S"
    elif found := _DAY_OF_YEAR.search(name):
        day, hour, written = found[1], found[2], "%Y%j%H%M%S"
    else:
        return None
    try:
        time = datetime.strptime(day + (hour or "000000"), written).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if time <= datetime.now(UTC) else None


def _asset_bands(headers: Mapping[str, RasterHeader], wanted: BandRequest) -> BandSource:
    asset = next(iter(headers)) if wanted.asset is None else wanted.asset
    if not isinstance(asset, str) or asset not in headers:
        raise CubeError(
            f"{wanted.name!r} is in asset {asset!r}; the files given are of {sorted(headers)}. Add them, or name another."
        )
    header = headers[asset]
    numbers = tuple(_number(header, band, wanted.name) for band in _bands(header, wanted))
    order = band_places(wanted.names, [header.descriptions[number - 1] for number in numbers])
    numbers = tuple(numbers[place] for place in order)
    places = [number - 1 for number in numbers]
    dtype = _one([header.dtypes[place] for place in places], header, "dtype")
    found: dict[str, Any] = {"scale_factor": header.scales[places[0]], "add_offset": header.offsets[places[0]]}
    if wanted.nodata is None:
        found["nodata"] = _one([header.nodata[place] for place in places], header, "nodata")
    return BandSource(
        href=header.path,
        bands=numbers,
        geobox=header.geobox,
        dtype=dtype,
        asset=asset,
        settled=frozenset(wanted.stated),
        units=header.units[places[0]] or "",
        has_classes=not {*numbers}.isdisjoint(header.coloured),
        **found | wanted.stated,
    )


def _bands(header: RasterHeader, wanted: BandRequest) -> tuple[int | str, ...]:
    if wanted.bands:
        return wanted.bands
    if wanted.name in header.descriptions:
        return (wanted.name,)
    if len(header.data_bands) == 1 or wanted.asset is not None:
        return header.data_bands
    raise CubeError(
        f"{header.path} has no band called {wanted.name!r}: its {header.count} bands are described as "
        f"{list(header.descriptions)}. Say which one it is by its number, such as `{wanted.name}: 1`, under `layers`."
    )


def _number(header: RasterHeader, band: int | str, name: str) -> int:
    number = header.number_of(band)
    if number is None:
        raise CubeError(
            f"{name!r} is band {band!r} of {header.path}, which has {header.count} bands described as "
            f"{list(header.descriptions)}. Ask for one of these."
        )
    return number


def _one(values: Sequence[Any], header: RasterHeader, what: str) -> Any:
    if len({str(value) for value in values}) > 1:
        raise CubeError(f"Bands that are read together need one {what}; in {header.path} they have {list(values)}.")
    return values[0]
