"""Open a recipe as a lazy cube: ask every source once, plan which images meet which chunk, join the variables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import dask.array as da
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from rtsx.cube.chunk_loader import QUALITY, ChunkLoader, plan_encodings
from rtsx.cube.derived import add_derived
from rtsx.cube.external_readers import lazy_stacks
from rtsx.cube.georeference import GRID_MAPPING, describe_geobox, geobox_window, pixel_m, with_georeference
from rtsx.cube.graph import Chunks, chunk_lengths, images_per_chunk, lazy_blocks
from rtsx.cube.images import Image, TimeGroup, group_images, mean_sun
from rtsx.cube.recipe import CubeRecipe, SourceRecipe, trusted_level
from rtsx.cube.terrain.grid import SUN_AZIMUTH, SUN_ELEVATION
from rtsx.cube.terrain_blocks import TerrainChunkReader
from rtsx.cube.times import COVERAGE
from rtsx.cube.trend import TrendChunkReader, with_packing_of_collection2
from rtsx.cube.trend_kernels import LEAST
from rtsx.errors import CubeError, NoImageError
from rtsx.grid import Cell, Grid, lonlat_polygon

_NOISE = 1e-6
"""Pixels by which the corner of a region may be off through rounding."""
_LARGEST = 2**31
"""Pixels per side of the largest raster that is taken for meant."""


def region_geobox(grid: Grid, region: BaseGeometry) -> GeoBox:
    """Return the smallest raster of a grid's pixels around a region.

    Parameters
    ----------
    grid
        Whose pixels.
    region
        Any shapely geometry in longitude and latitude, not empty.

    Raises
    ------
    CubeError
        The region has no extent on this grid.

    Examples
    --------
    >>> from shapely import box
    >>> region_geobox(Grid.arctic(resolution=30), box(-139.3, 69.5, -138.9, 69.65)).shape
    Shape2d(x=595, y=560)
    """
    xmin, ymin, xmax, ymax = _unwrapped(grid.projected(region), grid).bounds
    left, right = (xmin - grid.origin[0]) / grid.resolution, (xmax - grid.origin[0]) / grid.resolution
    top, bottom = (grid.origin[1] - ymax) / grid.resolution, (grid.origin[1] - ymin) / grid.resolution
    # Edges that lie on a pixel's but for rounding noise take no pixel more.
    rows = math.floor(top + _NOISE), math.ceil(bottom - _NOISE)
    columns = math.floor(left + _NOISE), math.ceil(right - _NOISE)
    for what, (start, stop) in (("rows", rows), ("columns", columns)):
        if not 0 < stop - start < _LARGEST or region.bounds[:2] == region.bounds[2:]:
            raise CubeError(
                f"The region {region.bounds} spans {stop - start} {what} of {grid}. Give it as longitude and latitude, in "
                "this order, with an area."
            )
    return grid.window(rows, columns)


def _unwrapped(region: BaseGeometry, grid: Grid) -> BaseGeometry:
    """Return a region that is split at the antimeridian in one piece, on a grid in degrees: its west is moved beyond 180."""
    if not CRS(grid.crs).geographic or region.bounds[2] - region.bounds[0] <= 180:
        return region
    parts = shapely.get_parts(region)
    return shapely.union_all([translate(part, 360) if part.bounds[2] <= 0 else part for part in parts])


_MOST_CHUNKS = 1_000_000
"""Chunks of a cube; planning more takes minutes and gigabytes."""


def recipe_geobox(recipe: CubeRecipe, ground: Cell | GeoBox | None) -> GeoBox:
    """Return the raster of a recipe's cube: a cell of its grid, a raster on it, or its own region.

    Raises
    ------
    CubeError
        The cell is of another grid, the raster does not lie on the grid, or there is no region.
    """
    grid = recipe.grid
    if ground is None:
        if recipe.region is None:
            raise CubeError(
                "The recipe names no region. Give it one with region={bbox: [WEST, SOUTH, EAST, NORTH]}; in Python, open_cube "
                "also takes a cell: open_cube(recipe, grid[iy, ix])."
            )
        raster = region_geobox(grid, recipe.region)
        height, width = raster.shape
        chunks = math.ceil(height / recipe.chunk) * math.ceil(width / recipe.chunk)
        if chunks > _MOST_CHUNKS:
            raise CubeError(
                f"The region spans {width:,} x {height:,} pixels, which are {chunks:,} chunks, and one cube has {_MOST_CHUNKS:,} at "
                "most. A bbox is [WEST, SOUTH, EAST, NORTH], and goes around the earth where WEST is the larger; for so much "
                "ground take larger pixels or chunks, or a campaign, which goes cell by cell."
            )
        return raster
    if isinstance(ground, Cell):
        if (ground.grid.crs, ground.grid.resolution, ground.grid.origin) != (grid.crs, grid.resolution, grid.origin):
            raise CubeError(
                f"The cell is of {ground.grid}, the recipe of {grid}. Take the cell from the recipe's grid."
            )
        return ground.geobox
    row = (grid.origin[1] - ground.affine.f) / grid.resolution
    column = (ground.affine.c - grid.origin[0]) / grid.resolution
    same_pixels = (
        ground.crs == CRS(grid.crs)
        and not (ground.affine.b or ground.affine.d)
        and max(abs(ground.affine.a / grid.resolution - 1), abs(ground.affine.e / grid.resolution + 1)) < 1e-9
        and max(abs(row - round(row)), abs(column - round(column))) < 1e-3
    )
    if not same_pixels:
        raise CubeError(f"The raster has to lie on the pixels of {grid}; got {describe_geobox(ground)}.")
    # The grid's own numbers, so that coordinates are the same to the last bit as in any other cut of this grid.
    return grid.window((round(row), round(row) + ground.shape[0]), (round(column), round(column) + ground.shape[1]))


def search_area(geobox: GeoBox, *, margin_m: float) -> BaseGeometry:
    """Return the outline of a raster and the ground around it in longitude and latitude, split at the antimeridian.

    Parameters
    ----------
    geobox
        Of the cube.
    margin_m
        How far beyond its edge its layers look: what a source is not asked for there would show as a seam between cells.
    """
    pixels = math.ceil(margin_m / pixel_m(geobox))
    height, width = geobox.shape
    wide = geobox_window(geobox, (0, height), (0, width), halo=pixels)
    return lonlat_polygon(wide.extent.geom, str(wide.crs))


def longitude_of(geobox: GeoBox) -> float:
    """Return the longitude of the middle of a raster, degrees; 0 on a pole, which has none.

    Examples
    --------
    >>> round(longitude_of(Grid.arctic()[0, 0].geobox), 3)
    0.0
    """
    height, width = geobox.shape
    x, y = geobox.affine * (width / 2, height / 2)
    longitude, _ = Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return float(longitude) if math.isfinite(longitude) else 0.0


def load_recipe(
    recipe: CubeRecipe, geobox: GeoBox, *, anchor: tuple[float, float], begun: tuple[int, int] = (0, 0)
) -> xr.Dataset:
    """Return the lazy cube of a recipe on a raster; asks the sources and reads no pixel.

    Parameters
    ----------
    recipe
        What the cube is made of.
    geobox
        Raster of the cube, on the recipe's grid.
    anchor
        Corner (x, y) of the pixel grid.
    begun
        Rows and columns that lie between the raster and the chunks of another that it is a window of, so that both have the same.

    Returns
    -------
    xarray.Dataset
        A variable per layer on (y, x), those of a source with time steps on (time, y, x); `quality` of every source that
        rates its pixels; `valid`, where all required sources have data to trust.

    Raises
    ------
    NoImageError
        A required source finds nothing.
    CubeError
        The images of a source do not fit together.
    """
    found = {source.name: _found(source, geobox) for source in recipe.sources}
    rows, columns = (
        chunk_lengths(length, recipe.chunk, begun=before) for length, before in zip(geobox.shape, begun, strict=True)
    )
    plans = [_planned(source, found, geobox=geobox, anchor=anchor, chunks=(rows, columns)) for source in recipe.sources]
    variables: dict[str, xr.Variable] = {}
    for plan in plans:
        variables |= plan.variables
    cube = with_georeference(variables, geobox, lattice_origin=anchor)
    cube = cube.assign(valid=_valid(plans)).assign_coords(_time_coords(plans))
    cube["valid"].variable.encoding |= GRID_MAPPING
    for layer in recipe.derived:
        cube = add_derived(cube, layer)
    names = recipe.layers or [name for source in recipe.sources for name in source.layer_names]
    names = [*names, *(layer.name for layer in recipe.derived if layer.name not in names and recipe.layers is None)]
    others = [str(name) for name in cube.data_vars if str(name).startswith("quality")]
    # So that a stored cube says what it was made of.
    made_of = {f"images_{source}": ",".join(sorted(image.id for image in images)) for source, images in found.items()}
    return cube[[*names, *others, "valid"]].assign_attrs(made_of | _coverage(plans))


def _coverage(plans: Sequence["_Planned"]) -> dict[str, str]:
    """Return the first and last day of images by the attributes of ACDD; not of terrain and trends, which are of other years."""
    images = [plan for plan in plans if not plan.source.terrain and plan.source.trend is None]
    times = [image.time for plan in images for step in plan.steps for image in step.images]
    days = [time.date().isoformat() for time in times if time is not None]
    return dict(zip(COVERAGE, (min(days), max(days)), strict=True)) if days else {}


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """One source, planned."""

    source: SourceRecipe
    steps: tuple[TimeGroup, ...]
    """Its time steps; one, without a time, for a source that has none."""
    variables: dict[str, xr.Variable]
    """Its layers, and `quality`."""
    quality: xr.Variable
    """Level of every pixel: 0 where a layer has no data."""


def find_images(source: SourceRecipe, geobox: GeoBox) -> tuple[Image, ...]:
    """Return the images that a source has for a raster; those of a trend in the packing of Landsat, and not under cloud."""
    try:
        images = source.images.find(search_area(geobox, margin_m=source.reach_m), source.period, source.wanted)
    except CubeError as error:
        if not str(error).startswith("Source "):
            error.args = (f"Source {source.name!r}: {error}", *error.args[1:])
        raise
    if source.trend is None:
        return images
    most = source.trend.max_cloud_cover
    clear = (image for image in images if image.cloud_cover is None or image.cloud_cover < most)
    return tuple(map(with_packing_of_collection2, clear))


def _found(source: SourceRecipe, geobox: GeoBox) -> tuple[Image, ...]:
    """Return images of a source; none only where the cube can do without it."""
    images = find_images(source, geobox)
    least = 1 if source.trend is None else LEAST
    if len(images) < least and not source.is_required:
        return ()
    if len(images) < least:
        period = "" if source.period is None else f" between {source.period.start} and {source.period.end}"
        of_months = source.trend.months if source.trend else source.period.months if source.period else ()
        months = f" in the months {', '.join(map(str, of_months))}" if of_months else ""
        few = "no image" if not images else f"{len(images)} scenes, and a trend is made of {LEAST} or more,"
        raise NoImageError(
            f"Source {source.name!r} has {few} of this ground{period}{months}. Check region, dates (`period: any` takes all) "
            "and collection, and filters such as the cloud cover; or drop the source."
        )
    if source.quality is not None:
        rule, name = source.quality.rule, source.quality.wanted.name
        for image in images:
            if len(image.bands[name].bands) != rule.bands:
                raise CubeError(
                    f"Source {source.name!r}: rule {rule.name!r} reads {rule.bands} bands of {name!r}, but image {image.id!r} "
                    f"has the {len(image.bands[name].bands)} bands {list(image.bands[name].bands)}. Name another rule or asset."
                )
    return images


Found = dict[str, tuple[Image, ...]]
"""Images by source."""


def _planned(
    source: SourceRecipe, found: Found, *, geobox: GeoBox, anchor: tuple[float, float], chunks: Chunks
) -> _Planned:
    if not found[source.name]:
        return _nothing(source, geobox, chunks=chunks)
    steps = group_images(
        found[source.name],
        group=source.group,
        order="oldest" if source.trend is not None else "newest" if source.composite == "best" else "cloud",
        longitude=longitude_of(geobox),
        source=source.name,
    )
    images = tuple(image for step in steps for image in step.images)
    blocks: ChunkLoader | TerrainChunkReader | TrendChunkReader
    if source.trend is not None:
        blocks = TrendChunkReader.plan(source, images, geobox=geobox, anchor=anchor)
    elif source.terrain:
        sun = (SUN_AZIMUTH, SUN_ELEVATION) if source.sun_of is None else mean_sun(found[source.sun_of], source.sun_of)
        (elevation,) = plan_encodings(source, images)
        blocks = TerrainChunkReader(
            source=source, images=images, elevation=elevation, sun=sun, geobox=geobox, anchor=anchor
        )
    else:
        blocks = ChunkLoader.plan(source, images, geobox=geobox, anchor=anchor)
    has_time = source.group != "all"
    if source.reader != "rtsx" and isinstance(blocks, ChunkLoader):
        boundless = [layer.recipe.name for layer in blocks.layers if layer.nodata is None and layer.dtype.kind != "f"]
        if boundless:
            raise CubeError(
                f"Source {source.name!r}: {source.reader} marks ground beside an image by its nodata value, and layers "
                f"{boundless} have none. Use the reader 'rtsx', or say nodata in the layer."
            )
        arrays = lazy_stacks(blocks, steps, chunks=chunks, has_time=has_time)
    else:
        hits = images_per_chunk(images, geobox, chunks, halo=blocks.halo)
        arrays = lazy_blocks(blocks, _by_chunk(steps, hits), chunks=chunks, has_time=has_time)
    dims = ("time", "y", "x") if has_time else ("y", "x")
    variables = {name: xr.Variable(dims, arrays[name], attrs) for name, (_, attrs) in blocks.variables.items()}
    quality = variables.pop("quality")
    if source.quality is not None or not source.is_required:
        variables[f"quality_{source.name}"] = quality
    return _Planned(source=source, steps=steps, variables=variables, quality=quality)


def _nothing(source: SourceRecipe, geobox: GeoBox, *, chunks: Chunks) -> _Planned:
    """Return the layers of a source that has no image here: NaN everywhere, as nothing says how they would be stored."""
    shape, dims = geobox.shape.yx, ("y", "x")
    attrs = {"_FillValue": np.float32(np.nan), "long_name": "no image of this ground"}
    missing = da.full(shape, np.nan, dtype=np.float32, chunks=chunks)
    quality = xr.Variable(dims, da.zeros(shape, dtype=np.uint8, chunks=chunks), QUALITY[1])
    variables = {name: xr.Variable(dims, missing, dict(attrs)) for name in source.layer_names}
    variables[f"quality_{source.name}"] = quality
    return _Planned(source=source, steps=(), variables=variables, quality=quality)


def _by_chunk(
    steps: Sequence[TimeGroup], hits: Sequence[Sequence[tuple[int, int]]]
) -> list[dict[tuple[int, int], list[int]]]:
    """Return per step the images of each chunk, from the chunks of each image."""
    per_step: list[dict[tuple[int, int], list[int]]] = [{} for _ in steps]
    owners = (by_chunk for by_chunk, step in zip(per_step, steps, strict=True) for _ in step.images)
    for place, by_chunk in enumerate(owners):
        for index in hits[place]:
            by_chunk.setdefault(index, []).append(place)
    return per_step


def _valid(plans: Sequence[_Planned]) -> xr.DataArray:
    """Return where every required source has data to trust, or any source where none is required; one task per chunk."""
    required = [plan for plan in plans if plan.source.is_required]
    takes_any, required = not required, required or list(plans)
    dims = max((plan.quality.dims for plan in required), key=len)
    arrays = [
        plan.quality.data if len(plan.quality.dims) == len(dims) else plan.quality.data[None] for plan in required
    ]
    least = tuple(trusted_level(plan.source.quality) for plan in required)
    valid = da.map_blocks(
        _valid_block, *arrays, least=least, takes_any=takes_any, dtype=bool, meta=np.empty((0,) * len(dims), bool)
    )
    return xr.DataArray(valid, dims=dims, attrs={"long_name": "True where a pixel can be trusted"})


def _valid_block(*levels: NDArray[np.uint8], least: tuple[int, ...], takes_any: bool) -> NDArray[np.bool_]:
    trusted = [level >= bound for level, bound in zip(levels, least, strict=True)]
    return reduce(np.logical_or if takes_any else np.logical_and, trusted)


def _time_coords(plans: Sequence[_Planned]) -> dict[str, tuple[str, NDArray[np.generic]]]:
    """Return `time`, and `item_ids` that say what every step is made of; nothing for a cube without time steps."""
    steps = next((plan.steps for plan in plans if plan.source.group != "all"), ())
    if not steps:
        return {}
    times = [np.datetime64(step.time.replace(tzinfo=None), "ns") for step in steps if step.time is not None]
    return {"time": ("time", np.array(times)), "item_ids": ("time", np.array([step.item_ids for step in steps], str))}
