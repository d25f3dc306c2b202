"""Stores that keep every image on its own grid: windows of files copied as they are, and the index by which they are opened."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import chain, count, groupby
from typing import Any

import dask.array as da
import numpy as np
import shapely
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from rtsx.cube.build_state import PartPlan, PartSource, RegionWrite
from rtsx.cube.chunk_loader import MissingImage, plan_encodings, warn_missing
from rtsx.cube.encoding import output_nodata, packing_attrs, without_mask
from rtsx.cube.georeference import pixel_m, with_georeference
from rtsx.cube.graph import covering_window
from rtsx.cube.images import BandRequest, BandSource, GivenImages, Image, ImageSource, Period
from rtsx.cube.pinning import settled_images
from rtsx.cube.rasterio import read_header
from rtsx.cube.recipe import CubeRecipe, SourceRecipe
from rtsx.cube.resample.readers import MASKED, VALID, open_reader
from rtsx.cube.resample.warp import overview_factor
from rtsx.cube.terrain import TerrainGrid, terrain_halo
from rtsx.cube.write import prepare_level
from rtsx.errors import CubeError
from rtsx.parsing import parsed_json
from rtsx.storage import absolute
from rtsx.storage.retry import classify_error
from rtsx.storage.zarr import open_group


@dataclass(frozen=True)
class NativeImages(ImageSource):
    """The images of one source in a store of the native layout."""

    path: str
    """Path or URL of the store."""
    source: str
    """Name of the source."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return images in the order in which they were copied; see `ImageSource`."""
        index = native_index(self.path)
        if self.source not in index:
            raise CubeError(f"{self.path} holds images of {sorted(index)}; {self.source!r} is not among them.")
        return GivenImages(index[self.source]).find(area, period, wanted)


def with_native_images(recipe: CubeRecipe, path: str) -> CubeRecipe:
    """Return the recipe with the images that a store of the native layout holds instead of those that its sources would find."""
    sources = (replace(source, images=NativeImages(path, source.name)) for source in recipe.sources)
    return replace(recipe, sources=tuple(sources))


def native_index(path: str) -> dict[str, list[Image]]:
    """Return the images that a store holds, by source.

    Raises
    ------
    CubeError
        It has no images on their own grids, or what it says of them is damaged or names something outside of it.
    """
    group = open_group(path, {})
    index: Any = group["build"].attrs.get("index") if "build" in group else None
    if not isinstance(index, Mapping):
        raise CubeError(f"{path} holds no images on their own grids. Build it with layout='native', or --native.")
    what = f"{path} (its index)"
    stored = parsed_json(json.dumps(index), dict[str, list[StoredImage]], what=what, error=CubeError)
    try:
        return {source: [image_in(path, one) for one in images] for source, images in stored.items()}
    except (CRSError, ShapelyError, ValueError, TypeError, ArithmeticError) as error:
        raise CubeError(f"{what} is damaged: {error}. Build the store again.") from error


@dataclass(frozen=True, kw_only=True)
class StoredBands:
    """Bands of an image, as the index has them."""

    group: str
    """Path of their group within the store."""
    arrays: tuple[str, ...]
    """Names of the arrays in it."""
    crs: str
    """CRS of their grid."""
    transform: tuple[float, float, float, float, float, float]
    """Its affine transform, row by row."""
    shape: tuple[int, int]
    """Height and width, px."""
    dtype: str
    """Of the stored values."""
    nodata: str | None
    """Stored value of a missing pixel, as text, because it may be NaN."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""
    asset: str
    """Asset that they come from."""
    settled: tuple[str, ...] = ()
    """What of its packing counts whatever the file declares; not in the stores of version 0.1."""

    def __post_init__(self) -> None:
        """Refuse what lies elsewhere."""
        if not re.fullmatch(r"\w[^/\\:\x00]*(/\w[^/\\:\x00]*)*", self.group):
            raise CubeError(f"{self.group!r} is no group of this store")


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One image, as the index has it."""

    id: str
    """Id of the image."""
    time: str | None
    """When it was taken, ISO 8601."""
    footprint: str | None
    """Outline in longitude and latitude, WKT."""
    cloud_cover: float | None
    """Percent under cloud."""
    sun: tuple[float | None, float | None]
    """Azimuth and elevation, degrees."""
    bands: dict[str, StoredBands]
    """Where its bands lie."""
    platform: str | None = None
    """Satellite; not in the stores of version 0.1."""
    stamp: str = ""
    """By which the image is known; empty where nobody asks."""


_OF_BANDS = ("scale_factor", "add_offset", "asset")
_OF_IMAGES = ("id", "cloud_cover", "platform", "stamp")
"""Fields that an index has as they are."""


def stored_image(image: Image) -> StoredImage:
    """Return an image as an index has it, whose bands lie in a store."""
    return StoredImage(
        time=None if image.time is None else image.time.isoformat(),
        footprint=None if image.footprint is None else shapely.to_wkt(image.footprint, rounding_precision=-1),
        sun=(image.sun_azimuth, image.sun_elevation),
        bands={name: _stored_bands(bands) for name, bands in image.bands.items()},
        **{name: getattr(image, name) for name in _OF_IMAGES},
    )


def _stored_bands(bands: BandSource) -> StoredBands:
    a, b, c, d, e, f = (float(value) for value in tuple(bands.geobox.affine)[:6])
    return StoredBands(
        group=bands.href,
        arrays=tuple(str(name) for name in bands.bands),
        crs=str(bands.geobox.crs),
        transform=(a, b, c, d, e, f),
        shape=(bands.geobox.shape.y, bands.geobox.shape.x),
        dtype=bands.dtype,
        nodata=None if bands.nodata is None else str(bands.nodata),
        settled=tuple(sorted(bands.settled)),
        **{name: getattr(bands, name) for name in _OF_BANDS},
    )


def image_in(path: str, stored: StoredImage) -> Image:
    """Return an image of the index of a store at a path."""
    bands = {
        name: BandSource(
            href=f"{path.rstrip('/')}/{one.group}",
            bands=one.arrays,
            geobox=GeoBox(one.shape, Affine(*one.transform), one.crs),
            dtype=np.dtype(one.dtype).name,
            nodata=None if one.nodata is None else float(one.nodata),
            settled=frozenset(one.settled),
            opener="zarr",
            **{field: getattr(one, field) for field in _OF_BANDS},
        )
        for name, one in stored.bands.items()
    }
    return Image(
        bands=bands,
        time=None if stored.time is None else datetime.fromisoformat(stored.time),
        footprint=None if stored.footprint is None else shapely.from_wkt(stored.footprint),
        sun_azimuth=stored.sun[0],
        sun_elevation=stored.sun[1],
        **{name: getattr(stored, name) for name in _OF_IMAGES},
    )


@dataclass(frozen=True, kw_only=True)
class NativeGroup:
    """The bands of one image that share a grid, and the window of them that is kept."""

    path: str
    """Path of the group in the store."""
    source: str
    """Name of the source."""
    image: Image
    names: tuple[str, ...]
    """Bands, by the name that was wanted."""
    rows: tuple[int, int]
    """Half-open range of the file's rows."""
    columns: tuple[int, int]
    """Half-open range of the file's columns."""
    raster: GeoBox
    """Grid of the file, or of the overview that a coarser cube reads; rows and columns are those of it."""
    factor: float
    """For `WindowReader.overview_for`, which then gives that overview; 0 for the file itself."""
    is_masked: bool
    """Whether a mask says what is missing, and no stored value can: it is kept as `valid`."""

    @property
    def geobox(self) -> GeoBox:
        """Raster of the window."""
        return self.raster[slice(*self.rows), slice(*self.columns)]

    def arrays(self, name: str) -> tuple[str, ...]:
        """Return names of the arrays of a wanted name: itself, or numbered where it has several bands."""
        bands = self.image.bands[name].bands
        return (name,) if len(bands) == 1 else tuple(f"{name}_{place}" for place in range(1, len(bands) + 1))


@dataclass(frozen=True, kw_only=True)
class NativeParts(PartSource):
    """The parts of a store with every image of a recipe on its own grid."""

    recipe: CubeRecipe
    """Pinned."""
    geobox: GeoBox
    """Raster of the cube, whose ground is kept."""
    shard: int | None
    """Side of a shard, px; None for the recipe's chunk."""

    @cached_property
    def groups(self) -> tuple[NativeGroup, ...]:
        """All groups, by source and image."""
        groups: list[NativeGroup] = []
        images = settled_images(self.recipe)
        taken: set[str] = set()
        for source in self.recipe.sources:
            if images[source.name]:
                plan_encodings(source, images[source.name])  # refuses what could be stored and not opened
            for image in images[source.name]:
                path = _free(f"{_part(source.name, _NO_NAME)}/{_part(image.id, _NO_ID)}", taken)
                groups += native_groups(image, source, path=path, cube=self.geobox, anchor=self.recipe.grid.origin)
        return tuple(groups)

    @cached_property
    def plans(self) -> tuple[PartPlan, ...]:
        """Parts of each group."""
        plans, first = [], 0
        side = self.shard or self.recipe.chunk
        for group in self.groups:
            plans.append(PartPlan.of(group.geobox.shape.yx, side=side, first=first))
            first += plans[-1].count
        return tuple(plans)

    @property
    def count(self) -> int:
        """Number of parts."""
        return self.plans[-1].first + self.plans[-1].count if self.plans else 0

    def prepare(self, root: zarr.Group) -> None:
        """Create all groups and arrays, and the index of the images."""
        for group, plan in zip(self.groups, self.plans, strict=True):
            variables = {}
            for name in group.names:
                bands = group.image.bands[name]
                dtype = np.dtype(bands.dtype)
                attrs = packing_attrs(
                    dtype, scale_factor=bands.scale_factor, add_offset=bands.add_offset, nodata=bands.nodata
                )
                if group.is_masked:
                    attrs |= {MASKED: True}
                for array in group.arrays(name):
                    lazy = da.zeros(plan.shape, dtype=dtype, chunks=-1)
                    variables[array] = xr.Variable(("y", "x"), lazy, attrs)
            if group.is_masked:
                variables[VALID] = xr.Variable(("y", "x"), da.zeros(plan.shape, dtype=bool, chunks=-1))
            corner = (group.geobox.affine.c, group.geobox.affine.f)
            template = with_georeference(variables, group.geobox, lattice_origin=corner)
            template = template.assign_attrs(image_id=group.image.id)
            prepare_level(template, root.store, group=group.path, plan=plan.storage)

    def pieces(self, number: int) -> Iterator[RegionWrite]:
        """Yield pixels of a part; nothing where the image cannot be read and that is a gap."""
        place = bisect_right([plan.first for plan in self.plans], number) - 1
        group, part = self.groups[place], self.plans[place].part(number)
        source = next(one for one in self.recipe.sources if one.name == group.source)
        rows, columns = (
            slice(start + begin, start + end)
            for start, (begin, end) in ((group.rows[0], part.rows), (group.columns[0], part.columns))
        )
        for array, band in read_native(group, source, rows=rows, columns=columns):
            yield RegionWrite(f"{group.path}/{array}", part.window, band)

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write the index of all images but those with a gap, which would be taken for whole."""
        images: dict[str, list[Image]] = {source.name: [] for source in self.recipe.sources}
        for (source, _), found in groupby(self.groups, key=lambda group: (group.source, id(group.image))):
            groups = list(found)
            image = groups[0].image
            if f"{source}/{image.id}" not in gaps:
                bands = {name: bands_in(group, name) for group in groups for name in group.names}
                images[source].append(replace(image, bands={name: bands[name] for name in image.bands}))
        # Plain values. Hrefs are paths of groups within the store.
        root["build"].attrs["index"] = {
            source: [asdict(stored_image(image)) for image in kept] for source, kept in images.items()
        }


def read_native(
    group: NativeGroup, source: SourceRecipe, *, rows: slice, columns: slice
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield stored pixels (y, x) of some rows and columns of a group's raster by array, and `valid`; none more where that is a gap.

    Raises
    ------
    CubeError
        The image cannot be read, and that is an error; it is named.
    """
    quality = None if source.quality is None else source.quality.wanted.name
    for names in _read_together(group, quality):
        bands = group.image.bands[names[0]]
        together = replace(bands, bands=tuple(b for name in names for b in group.image.bands[name].bands))
        try:
            # Every value of quality data counts, as where it is read to mask.
            reader = open_reader(together, any_value=quality in names).overview_for(group.factor)
            pixels = reader.read(rows, columns)
            valid = ~np.ma.getmaskarray(pixels) if group.is_masked else None
            stored = np.ma.getdata(pixels) if group.is_masked else without_mask(pixels, bands.nodata)[0]
            if stored.dtype != pixels.dtype or (valid is not None and (valid != valid[0]).any()):
                raise CubeError(
                    f"{bands.href} says by a mask of each band what is missing, and {bands.dtype} without nodata has no value "
                    f"for it in a store. Write nodata: with a spare value in the layers {list(names)}."
                )
        except CubeError as error:
            reason = f"Source {group.source!r}, image {group.image.id!r}: {error}"
            if source.unreadable == "error":
                raise CubeError(reason) from error
            warn_missing(MissingImage(group.source, group.image.id), reason=reason, error=error)
            return
        arrays = [array for name in names for array in group.arrays(name)]
        yield from zip(arrays, stored, strict=True)
        if valid is not None:
            yield VALID, valid[0]


def native_groups(
    image: Image, source: SourceRecipe, *, path: str, cube: GeoBox, anchor: tuple[float, float]
) -> list[NativeGroup]:
    """Return the windows of an image that a cube reads, a group for each grid; none where it shows nothing of the cube.

    Parameters
    ----------
    image
        Of the source.
    source
        How its images are read.
    path
        Of the group in a store, or of the groups if there are several.
    cube
        Raster of the cube.
    anchor
        Corner (x, y) of its pixel grid.

    Raises
    ------
    CubeError
        A file cannot be asked for its overviews at this moment.
    """
    resampling = {layer.name: layer.resampling for layer in source.layers}
    quality = None if source.quality is None else source.quality.wanted.name
    by_grid: dict[tuple[GeoBox, float, str], list[str]] = {}
    for name, bands in image.bands.items():
        factor = 0.0
        # Mosaics and trends are read at full resolution, and quality data is taken from the nearest pixel.
        if name in resampling and not source.terrain and source.trend is None:
            factor = overview_factor(bands.geobox, cube, resampling=resampling[name], anchor=anchor)
        mask = _mask_of(replace(bands, nodata=None) if name == quality else bands)
        by_grid.setdefault((*_level(bands, factor), mask), []).append(name)
    groups = []
    for place, ((raster, factor, mask), names) in enumerate(by_grid.items()):
        window = covering_window(raster, cube, margin_m=_margin_m(source, raster, cube))
        if window is None:
            return []  # it shows nothing of the cube
        groups.append(
            NativeGroup(
                path=path if len(by_grid) == 1 else f"{path}/{place}",
                source=source.name,
                image=image,
                names=tuple(names),
                rows=window[0],
                columns=window[1],
                raster=raster,
                factor=factor,
                is_masked=bool(mask),
            )
        )
    return groups


def _level(bands: BandSource, factor: float) -> tuple[GeoBox, float]:
    """Return the grid of the overview that is read, and `factor`; that of the file, and 0, where it is the file itself."""
    if not factor:
        return bands.geobox, 0.0
    try:
        raster = open_reader(bands).overview_for(factor).geobox
    except CubeError as error:
        if classify_error(error) != "lasting":
            raise
        return bands.geobox, 0.0  # reading it will say what is wrong with it
    return (raster, factor) if raster != bands.geobox else (raster, 0.0)


def _mask_of(bands: BandSource) -> str:
    """Return the file whose mask says what is missing, as no stored value can; empty where there is none."""
    if np.dtype(bands.dtype).kind not in "iu" or output_nodata(bands.nodata, np.dtype(bands.dtype)) is not None:
        return ""
    try:
        if bands.opener == "gdal":
            return bands.href if set(read_header(bands.href).masked) & set(bands.bands) else ""
        is_masked = bands.opener == "zarr" and VALID in open_group(bands.href, {})
        return bands.href if is_masked else ""
    except CubeError as error:
        if classify_error(error) != "lasting":
            raise
        return ""  # reading it will say what is wrong with it


def _margin_m(source: SourceRecipe, raster: GeoBox, cube: GeoBox) -> float:
    """Return the ground that erosion and terrain look at around a pixel, m; terrain on the grid on which it is computed."""
    eroded = 0.0 if source.quality is None else source.quality.erode_m
    grid = raster if source.terrain_grid == "source" else cube
    halo = terrain_halo(source.terrain, TerrainGrid.from_geobox(grid)) * pixel_m(grid) if source.terrain else 0.0
    return max(eroded, halo)


def _read_together(group: NativeGroup, quality: str | None) -> list[list[str]]:
    """Return names whose bands one read of one file gives; quality data is apart, because no mask of the file counts there."""
    together: dict[object, list[str]] = {}
    for name in group.names:
        bands = group.image.bands[name]
        packing = str(bands.nodata), bands.scale_factor, bands.add_offset, bands.settled
        together.setdefault((bands.href, bands.dtype, packing, bands.opener, name == quality), []).append(name)
    return list(together.values())


def bands_in(group: NativeGroup, name: str) -> BandSource:
    """Return a band of a group as it lies in the store."""
    bands = group.image.bands[name]
    return replace(
        bands, href=group.path, bands=group.arrays(name), geobox=group.geobox, opener="zarr", step=None, reader=None
    )


_NO_NAME, _NO_ID = re.compile(r"[/\\:\x00]"), re.compile(r"[^A-Za-z0-9._-]")
"""What the paths of sources and of images within them do not hold."""
_RESERVED = frozenset({"build", "zarr.json"})
"""What a store of ours has itself."""
_LONGEST_PART = 200
"""Letters; file systems take 255 bytes."""


def _part(text: str, replaced: re.Pattern[str]) -> str:
    """Return a part of a path that `StoredBands` takes: what would be hidden, an option or the store's own has an underscore before it.

    Examples
    --------
    >>> [_part(text, _NO_ID) for text in ("20240721_a.1", "-9999", ".tile", "zarr.json", "")]
    ['20240721_a.1', '_-9999', '_.tile', '_zarr.json', '_']
    """
    part = replaced.sub("_", text)[:_LONGEST_PART]
    return part if re.match(r"\w", part) and part not in _RESERVED else f"_{part}"


def _free(path: str, taken: set[str]) -> str:
    """Return a path that no other image has: two collections may use one id."""
    free = next(one for one in chain([path], (f"{path}_{n}" for n in count(2))) if one not in taken)
    taken.add(free)
    return free
