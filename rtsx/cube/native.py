"""Parts of a store that keeps every image on its own grid: windows of files, copied as they are."""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.align.opening import open_reader
from rtsx.cube.align.pyproj import transform, turn_of
from rtsx.cube.align.storing import without_mask
from rtsx.cube.gaps import Gap, report_gap
from rtsx.cube.georeference import pixel_m, with_georeference
from rtsx.cube.image import AssetBands, Image
from rtsx.cube.levels import prepare_level
from rtsx.cube.native_images import index_of
from rtsx.cube.packing import packing_attrs
from rtsx.cube.parts import PartPlan, PartSource, Written
from rtsx.cube.pinning import PinnedImages
from rtsx.cube.rasterio import read_header
from rtsx.cube.recipe import CubeRecipe, SourceRecipe
from rtsx.cube.storage import plan_storage
from rtsx.cube.terrain import Ground, terrain_halo
from rtsx.errors import CubeError

__all__ = ["NativeGroup", "NativeParts", "covering_window"]

_CHUNK = 512
_PIXELS_AROUND = 8
"""Pixels of an image around what a cube touches: twice what the widest resampling looks at."""
_EDGE_POINTS = 33
"""Points per side of the cube's raster that are projected to find what it touches; inside, too."""


@dataclass(frozen=True, kw_only=True)
class NativeGroup:
    """The bands of one image that share a grid, and the window of them that is kept."""

    path: str
    """Path of the group in the store."""
    source: str
    """Name of the source."""
    image: Image
    """What it shows."""
    names: tuple[str, ...]
    """Bands, by the name that was wanted."""
    rows: tuple[int, int]
    """Half-open range of the file's rows."""
    columns: tuple[int, int]
    """Half-open range of the file's columns."""

    @property
    def geobox(self) -> GeoBox:
        """Raster of the window."""
        return self.image.bands[self.names[0]].geobox[slice(*self.rows), slice(*self.columns)]

    def arrays(self, name: str) -> tuple[str, ...]:
        """Names of the arrays of a wanted name: itself, or numbered where it has several bands."""
        bands = self.image.bands[name].bands
        return (name,) if len(bands) == 1 else tuple(f"{name}_{place}" for place in range(1, len(bands) + 1))


@dataclass(frozen=True, kw_only=True)
class NativeParts:
    """The parts of a store with every image of a recipe on its own grid."""

    recipe: CubeRecipe
    """Pinned."""
    geobox: GeoBox
    """Raster of the cube, whose ground is kept."""
    shard: int | None
    """Side of a shard, px; None for the recipe's chunk."""

    def __post_init__(self) -> None:
        """Refuse, before anything is written, files whose mask has no value in the store."""
        sources = {source.name: source for source in self.recipe.sources if source.unreadable == "error"}
        for group in self.groups:
            source = sources.get(group.source)
            judging = None if source is None or source.quality is None else source.quality.wanted.name
            for name in group.names if source is not None else ():
                bands = group.image.bands[name]
                is_silent = bands.nodata is None and np.dtype(bands.dtype).kind != "f" and bands.opener == "gdal"
                if is_silent and name != judging and set(read_header(bands.href).masked) & set(bands.bands):
                    raise CubeError(f"Source {group.source!r}, image {group.image.id!r}: {_no_value(bands, [name])}")

    @cached_property
    def groups(self) -> tuple[NativeGroup, ...]:
        """All groups, by source and image."""
        groups: list[NativeGroup] = []
        for source in self.recipe.sources:
            images = source.images.images if isinstance(source.images, PinnedImages) else ()
            taken: set[str] = set()
            for image in images:
                path = _free(f"{source.name}/{re.sub(r'[^A-Za-z0-9._-]', '_', image.id)}", taken)
                groups += _groups_of(image, source, path=path, raster=self.geobox)
        return tuple(groups)

    @cached_property
    def plans(self) -> tuple[PartPlan, ...]:
        """Parts of each group."""
        plans, first = [], 0
        side = self.shard or self.recipe.chunk
        for group in self.groups:
            shape = group.geobox.shape.yx
            lengths = [(min(side, size),) * max(1, -(-size // side)) for size in shape]
            storage = plan_storage(shape, (lengths[0], lengths[1]), chunk=min(_CHUNK, side), shard="auto")
            plans.append(PartPlan(shape, storage, first=first))
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
                    dtype,
                    scale_factor=bands.scale_factor,
                    add_offset=bands.add_offset,
                    nodata=bands.nodata,
                    units=None,
                    long_name=None,
                )
                for array in group.arrays(name):
                    lazy = da.zeros(plan.shape, dtype=dtype, chunks=-1)
                    variables[array] = xr.Variable(("y", "x"), lazy, dict(attrs))
            corner = (group.geobox.affine.c, group.geobox.affine.f)
            template = with_georeference(variables, group.geobox, lattice_origin=corner)
            template = template.assign_attrs(image_id=group.image.id)
            prepare_level(template, root.store, group=group.path, plan=plan.storage)

    def pieces(self, number: int) -> Iterator[Written]:
        """Pixels of a part; nothing where the image cannot be read and that is a gap."""
        place = bisect_right([plan.first for plan in self.plans], number) - 1
        group, part = self.groups[place], self.plans[place].part(number)
        source = next(one for one in self.recipe.sources if one.name == group.source)
        rows, columns = (
            slice(start + begin, start + end)
            for start, (begin, end) in ((group.rows[0], part.rows), (group.columns[0], part.columns))
        )
        judging = None if source.quality is None else source.quality.wanted.name
        for names in _read_together(group):
            bands = group.image.bands[names[0]]
            together = replace(bands, bands=tuple(b for name in names for b in group.image.bands[name].bands))
            try:
                # Every value of quality data counts, as where it is read to judge.
                pixels = open_reader(together, any_value=judging in names).read(rows, columns)
                stored, _ = without_mask(pixels, bands.nodata)
                if stored.dtype != pixels.dtype:
                    raise CubeError(_no_value(bands, names))
            except CubeError as error:
                reason = f"Source {group.source!r}, image {group.image.id!r}: {error}"
                if source.unreadable == "error":
                    raise CubeError(reason) from error
                report_gap(Gap(group.source, group.image.id), reason=reason, error=error)
                return
            arrays = [array for name in names for array in group.arrays(name)]
            for array, band in zip(arrays, stored, strict=True):
                yield Written(f"{group.path}/{array}", part.window, band)

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write the index of all images but those with a gap, which would be taken for whole."""
        images: dict[str, list[Image]] = {source.name: [] for source in self.recipe.sources}
        for key in dict.fromkeys((group.source, id(group.image)) for group in self.groups):
            groups = [group for group in self.groups if (group.source, id(group.image)) == key]
            image = groups[0].image
            if f"{groups[0].source}/{image.id}" not in gaps:
                bands = {name: _stored(group, name) for group in groups for name in group.names}
                images[groups[0].source].append(replace(image, bands={name: bands[name] for name in image.bands}))
        root["build"].attrs["index"] = index_of(images)


def _no_value(bands: AssetBands, names: Sequence[str]) -> str:
    return (
        f"{bands.href} says by a mask what is missing, and {bands.dtype} without nodata has no value for it in a store. "
        f"Write nodata: with a spare value in the layers {list(names)}."
    )


def covering_window(raster: GeoBox, cube: GeoBox, *, margin_m: float) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of an image's raster that a cube may touch; None where it touches none.

    Parameters
    ----------
    raster
        Grid of the image.
    cube
        Grid of the cube.
    margin_m
        Ground around the cube that counts, too.
    """
    ours, theirs = cube.crs, raster.crs
    assert ours is not None  # every grid and every image has one
    assert theirs is not None
    # A tenth more, because a metre of a projection is not one of the ground.
    around = margin_m / pixel_m(cube) * 1.1 + 2
    height, width = cube.shape
    along = [np.linspace(-around, size + around, _EDGE_POINTS) for size in (width, height)]
    columns, rows = np.meshgrid(*along)
    x, y = cube.affine.c + cube.affine.a * columns.ravel(), cube.affine.f + cube.affine.e * rows.ravel()
    x, y = transform(x, y, source=ours, target=theirs)
    inverse: Affine = ~raster.affine
    column = inverse.a * x + inverse.b * y + inverse.c
    row = inverse.d * x + inverse.e * y + inverse.f
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        return (0, raster.shape[0]), (0, raster.shape[1])
    turn = turn_of(theirs) / abs(raster.affine.a)
    if turn:
        # Around the earth to where the raster is; where the cube lies on the seam or on a pole, all columns count.
        column = column - np.floor((column + max(0.0, (turn - raster.shape[1]) / 2)) / turn) * turn
        if np.ptp(column) > turn / 2:
            column = np.array([0.0, raster.shape[1]])
            row = np.append(row, [0.0] if abs(y).max() > 89 else [])
    spans = []
    for positions, size in ((row, raster.shape[0]), (column, raster.shape[1])):
        start = max(0, math.floor(positions.min()) - _PIXELS_AROUND)
        stop = min(size, math.ceil(positions.max()) + _PIXELS_AROUND)
        if start >= stop:
            return None
        spans.append((start, stop))
    return spans[0], spans[1]


def _groups_of(image: Image, source: SourceRecipe, *, path: str, raster: GeoBox) -> list[NativeGroup]:
    by_grid: dict[GeoBox, list[str]] = {}
    for name, bands in image.bands.items():
        by_grid.setdefault(bands.geobox, []).append(name)
    groups = []
    for place, (geobox, names) in enumerate(by_grid.items()):
        window = covering_window(geobox, raster, margin_m=_margin_m(source, geobox))
        if window is None:
            return []  # it shows nothing of the cube
        inner = path if len(by_grid) == 1 else f"{path}/{place}"
        groups.append(
            NativeGroup(
                path=inner, source=source.name, image=image, names=tuple(names), rows=window[0], columns=window[1]
            )
        )
    return groups


def _margin_m(source: SourceRecipe, geobox: GeoBox) -> float:
    """Ground that erosion and terrain look at around a pixel, m."""
    eroded = 0.0 if source.quality is None else source.quality.erode_m
    halo = terrain_halo(source.terrain, Ground.from_geobox(geobox)) * pixel_m(geobox) if source.terrain else 0.0
    return max(eroded, halo)


def _read_together(group: NativeGroup) -> list[list[str]]:
    """Names whose bands one read of one file gives."""
    together: dict[object, list[str]] = {}
    for name in group.names:
        bands = group.image.bands[name]
        packing = str(bands.nodata), bands.scale_factor, bands.add_offset, bands.settled
        together.setdefault((bands.href, bands.dtype, packing, bands.opener), []).append(name)
    return list(together.values())


def _stored(group: NativeGroup, name: str) -> AssetBands:
    bands = group.image.bands[name]
    return replace(bands, href=group.path, bands=group.arrays(name), geobox=group.geobox, opener="zarr")


def _free(path: str, taken: set[str]) -> str:
    """A path that no other image has: two collections may use one id."""
    free = next(one for one in chain([path], (f"{path}_{n}" for n in count(2))) if one not in taken)
    taken.add(free)
    return free


_conforms: type[PartSource] = NativeParts
