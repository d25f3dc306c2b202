"""Write a Dataset to sharded Zarr v3 with overviews, in one pass over the data.

The metadata of overviews are version 0.1 of the conventions kept by the zarr-conventions organisation, which replaced the
tile matrix sets of the older GeoZarr draft. They repeat what CF says in `spatial_ref` and in the coordinates, for readers
that know only the one or the other.
"""

import itertools
import math
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import dask.array as da
import numpy as np
import pyproj
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, ZstdCodec

from rtsx.arguments import typed
from rtsx.cube.conventions import as_cube, layer_names, require_numbers
from rtsx.cube.encoding import OutputDtype, is_representable, packing, stores_all_chunks
from rtsx.cube.georeference import GRID_MAPPING, geobox_of, validate_georeference, with_georeference, with_pixel_centres
from rtsx.errors import CubeError
from rtsx.progress import show_progress
from rtsx.storage.codecs import fast_codecs
from rtsx.storage.zarr import LAYERS, atomic_store

Reduction = Literal["average", "max", "nearest"]

_SMALLEST_TOP_LEVEL = 1024
"""Pixels: the coarsest level is the first whose longer side is at most this long, one look on a screen."""


def reduction_of(variable: xr.DataArray) -> Reduction:
    """Return how four pixels of a variable become one.

    - ``"max"`` for masks and for `binary`, because an overview is for finding things: a slump of a few pixels has to
      stay visible, and under the mode it would be gone at the first level. Areas are not measured on overviews.
    - ``"nearest"`` for classes (those with CF ``flag_values``, and Sentinel-2's `scl`), whose numbers have no mean.
    - ``"average"`` for the rest, over the valid pixels.
    """
    if variable.dtype == bool or variable.name == "binary":
        return "max"
    if "flag_values" in variable.attrs or variable.name in ("scl", "class_index"):
        return "nearest"
    return "average"


def level_count(shape: tuple[int, int]) -> int:
    """Return the number of overview levels below full resolution.

    Examples
    --------
    >>> level_count((1024, 1000)), level_count((1025, 10)), level_count((12288, 12288))
    (0, 1, 4)
    """
    return max(0, math.ceil(math.log2(max(shape) / _SMALLEST_TOP_LEVEL)))


def halved_geobox(geobox: GeoBox) -> GeoBox:
    """Return the geobox of pixels twice as large from the same corner; an odd side is rounded up and reaches beyond the data."""
    height, width = geobox.shape
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return GeoBox((-(-height // 2), -(-width // 2)), Affine(2 * a, 2 * b, c, 2 * d, 2 * e, f), geobox.crs)


def halve(block: NDArray[Any], *, reduction: Reduction, nodata: float | None) -> NDArray[Any]:
    """Halve the last two axes of an array; nodata counts only where all four pixels are nodata.

    Parameters
    ----------
    block
        Array (..., y, x). An odd side is completed by a pixel that counts as nodata.
    reduction
        ``"average"`` (rounded for integers), ``"max"`` or ``"nearest"`` (the upper left pixel).
    nodata
        Stored value of a missing pixel, or None; NaN is always missing.

    Returns
    -------
    ndarray
        Same dtype, sides rounded up.

    Examples
    --------
    >>> halve(np.array([[10, 255], [20, 255]], np.uint8), reduction="average", nodata=255)
    array([[15]], dtype=uint8)
    """
    if reduction == "nearest":
        return block[..., ::2, ::2]
    shape = (*block.shape[:-2], *(-(-size // 2) for size in block.shape[-2:]))
    count = np.zeros(shape, np.uint8)
    # Four pixels of 8 bits fit into 16; the rest is summed as float64, which holds every int32 sum exactly.
    dtype = block.dtype if reduction == "max" else np.uint16 if block.dtype == np.uint8 else np.float64
    storing = OutputDtype(block.dtype, nodata)
    reduced = np.full(shape, storing.limits[0] if reduction == "max" else 0, dtype)
    for quarter in (block[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)):
        part = (..., slice(quarter.shape[-2]), slice(quarter.shape[-1]))  # smaller than the rest at an odd side
        is_data = is_representable(quarter, nodata)
        count[part] += is_data
        if reduction == "max":
            np.maximum(reduced[part], quarter, out=reduced[part], where=is_data)
        else:
            np.add(reduced[part], quarter, out=reduced[part], where=is_data)
    if reduction == "average":
        mean = reduced / np.maximum(count, 1)
        reduced = mean if block.dtype.kind == "f" else np.rint(mean)
    out: NDArray[Any] = reduced.astype(block.dtype)
    out[count == 0] = storing.fill
    return out


_CONVENTIONS = {
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
}


def spatial_attrs(geobox: GeoBox) -> dict[str, Any]:
    """Return the attributes of a group whose arrays lie on `geobox`.

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
    """Return the attributes of the root group of a pyramid.

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


_LARGEST_AUTO_SHARD = 4096
"""Pixels per side: 16 Mpx, 16 MB of uint8, so that a shard stays one write and one file of handy size."""
_LARGEST_AUTO_CUT = 2048
"""Pixels per side of the shards of a large array that comes in one piece."""


@dataclass(frozen=True)
class StoragePlan:
    """Chunks and shards of every variable on (y, x)."""

    chunk: tuple[int, int]
    """Height and width in pixels of a chunk: what a reader decodes at least."""
    shard: tuple[int, int]
    """Height and width in pixels of a shard, whole chunks: what a writer writes at once, one file or object."""

    @property
    def has_shards(self) -> bool:
        """Whether a shard holds more than one chunk; otherwise chunks are stored plainly."""
        return self.chunk != self.shard

    def fits(self, lengths: Sequence[Sequence[int]]) -> bool:
        """Test whether dask chunks of these lengths (y, x) are whole shards, the last of an axis excepted.

        Anything else would let two tasks write into one shard, of which one would be lost.

        Examples
        --------
        >>> plan = StoragePlan(chunk=(512, 512), shard=(1024, 1024))
        >>> plan.fits(((2048, 2048, 300), (1024,))), plan.fits(((1536, 1536), (1024,)))
        (True, False)
        """
        return _are_whole(lengths, self.shard)


def _are_whole(lengths: Sequence[Sequence[int]], unit: Sequence[int]) -> bool:
    """Test whether dask chunks are whole units, the last of an axis excepted."""
    return all(length % size == 0 for axis, size in zip(lengths, unit, strict=True) for length in axis[:-1])


def plan_storage(
    shape: tuple[int, int], lengths: tuple[Sequence[int], Sequence[int]], *, chunk: int, shard: int | Literal["auto"]
) -> StoragePlan:
    """Return chunks and shards for an array that arrives in dask chunks of the given lengths.

    ``shard="auto"`` makes each dask chunk one shard where it can: where the dask chunks of an axis are equal and have a
    divisor near `chunk`. Where they have none, the nearest whole number of chunks is taken, and the dask chunks have
    to follow.

    Parameters
    ----------
    shape
        Height and width, px.
    lengths
        Lengths of the dask chunks along y and x, px.
    chunk
        Wanted side of a chunk, px.
    shard
        Wanted side of a shard, px.

    Raises
    ------
    CubeError
        A size is below 1, or a shard is not a whole number of chunks.

    Examples
    --------
    >>> plan_storage((5000, 700), ((1000,) * 5, (700,)), chunk=512, shard="auto")
    StoragePlan(chunk=(500, 512), shard=(1000, 1024))
    """
    if chunk < 1 or (shard != "auto" and shard < 1):
        raise CubeError(f"Chunks and shards are 1 pixel or more; got chunks={chunk}, shards={shard}.")
    if shard != "auto":
        if shard % chunk:
            raise CubeError(f"A shard is a whole number of chunks; got shards={shard} and chunks={chunk}.")
        return StoragePlan(chunk=(chunk, chunk), shard=(shard, shard))
    axes = [_plan_axis(size, axis, chunk) for size, axis in zip(shape, lengths, strict=True)]
    return StoragePlan(chunk=(axes[0][0], axes[1][0]), shard=(axes[0][1], axes[1][1]))


def _plan_axis(size: int, lengths: Sequence[int], chunk: int) -> tuple[int, int]:
    """Return chunk and shard of one axis."""
    if len(lengths) == 1 and size <= chunk:
        return size, size
    if len(lengths) == 1:
        return chunk, min(math.ceil(size / chunk) * chunk, _LARGEST_AUTO_CUT // chunk * chunk or chunk)
    length = max(lengths)
    is_regular = all(one == length for one in lengths[:-1])
    inner = _divisor(length, chunk)
    if not is_regular or inner is None:
        return chunk, min(max(round(length / chunk), 1) * chunk, _LARGEST_AUTO_SHARD // chunk * chunk or chunk)
    parts = min(
        (n for n in range(1, length // inner + 1) if length % (n * inner) == 0 and length // n <= _LARGEST_AUTO_SHARD),
        default=length // inner,
    )
    return inner, length // parts


def _divisor(length: int, chunk: int) -> int | None:
    """Return the largest divisor of `length` that is at most `chunk` and not below a quarter of it; None if there is none."""
    smallest = min(length, max(chunk // 4, 1))
    return next((size for size in range(min(chunk, length), smallest - 1, -1) if length % size == 0), None)


_WRITING: dict[str, Any] = {"mode": "a", "zarr_format": 3, "consolidated": False}

Levels = list[tuple[str, GeoBox]]
"""Group (``"."`` for the root) and geobox of each level, full resolution first."""


def overviews_of(geobox: GeoBox, *, overviews: bool) -> Levels:
    """Return full resolution, and with `overviews` what lies below it: groups ``2x``, ``4x``, ... until one fits a screen."""
    levels = [(".", geobox)]
    for number in range(level_count(geobox.shape.yx) if overviews else 0):
        levels.append((f"{2 ** (number + 1)}x", halved_geobox(levels[-1][1])))
    return levels


def root_attrs(levels: Levels) -> dict[str, Any]:
    """Return GeoZarr attributes of the group that holds all levels."""
    return multiscale_attrs(levels) if len(levels) > 1 else spatial_attrs(levels[0][1])


def write_level(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> None:
    """Write one level: metadata and what is small at once, then all rasters in one computation."""
    described = _described(cube, store, group=group, plan=plan)
    lazy = {str(name): one for name, one in described.variables.items() if isinstance(one.data, da.Array)}
    # What has no raster is small, and times and text are encoded by xarray, which has to see them.
    small = [name for name, one in lazy.items() if not ({"y", "x"} <= set(one.dims) and one.dtype.kind in "biufc")]
    described = described.assign({name: described[name].load() for name in small})
    rasters: dict[str, da.Array] = {name: one.data for name, one in lazy.items() if name not in small}
    # Never computed. In one chunk where the encoding says the chunks of the store, because xarray builds the graph all the same;
    # coordinates are stored in the chunks that they have, so that no two tasks write one chunk of the store.
    nothing = {
        name: described[name].copy(
            # Not an array of NumPy's, which dask would copy as a whole.
            data=da.zeros(one.shape, dtype=one.dtype, chunks=-1 if name in described.data_vars else one.chunks)
        )
        for name, one in rasters.items()
    }
    described.assign(nothing).to_zarr(store, group=group, compute=False, **_WRITING)
    with fast_codecs():
        stored = zarr.open_group(store, path=group, mode="r+", use_consolidated=False)
        arrays = [_as_described(stored, described[name]) for name in rasters]
    pixels = [_aligned(one.astype(array.dtype), array) for one, array in zip(rasters.values(), arrays, strict=True)]
    # At once, instead of computing what xarray gives for it: that puts one task on top of all, below which dask takes chunks
    # in no order, and a third of a prediction waits in memory for its neighbours.
    da.store(pixels, arrays, lock=False)  # type: ignore[arg-type]  # arrays of Zarr are what it is for


def _aligned(pixels: da.Array, array: "zarr.Array[Any]") -> da.Array:
    """Return the pixels in dask chunks that are whole chunks of the store, because two tasks that write one would lose one."""
    unit = array.shards or array.chunks
    return pixels if _are_whole(pixels.chunks, unit) else pixels.rechunk(unit)


def _as_described(group: zarr.Group, variable: xr.DataArray) -> "zarr.Array[Any]":
    """Return the array of a variable, with what no metadata keeps: whether chunks of nothing but the fill value are stored."""
    array = group[str(variable.name)]
    assert isinstance(array, zarr.Array)  # it was made a moment ago
    return array.with_config({"write_empty_chunks": variable.encoding.get("write_empty_chunks", False)})


def prepare_level(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> None:
    """Write metadata and coordinates of one level, and none of its variables."""
    _described(cube, store, group=group, plan=plan).to_zarr(store, group=group, compute=False, **_WRITING)


def _described(cube: xr.Dataset, store: Store, *, group: str | None, plan: StoragePlan) -> xr.Dataset:
    """Return the cube with everything that says how it is stored; its group is there."""
    # By name, because listing a group gives them sorted, and some models tell their layers by place.
    attrs: dict[str, Any] = {LAYERS: [str(name) for name in cube.data_vars]}
    if group is None:
        # Among them the word that the store is not complete; xarray would put its own in their place.
        attrs |= zarr.open_group(store, mode="r", use_consolidated=False).attrs.asdict()
    prepared = cube.drop_encoding().assign_attrs(attrs)
    # Fixed-width strings have no stable Zarr v3 type yet; variable-length ones do. First, because it makes all variables anew.
    texts = [name for name, one in prepared.variables.items() if one.dtype.kind == "U"]
    prepared = prepared.assign({name: prepared[name].astype(object) for name in texts})
    for name, variable in prepared.variables.items():
        variable.attrs.pop("grid_mapping", None)  # as other writers keep it; ours goes through `encoding`
        # None, instead of xarray's own NaN for floats, so that what had no nodata value gets none by being stored.
        if variable.dtype.kind == "f" and "_FillValue" not in variable.attrs:
            variable.encoding["_FillValue"] = None
        if name in prepared.data_vars and {"y", "x"} <= set(variable.dims):
            variable.encoding |= GRID_MAPPING | _encoding(prepared[name], plan)
    if group is not None:
        zarr.create_group(store, path=group, zarr_format=3)
    return prepared


def _encoding(variable: xr.DataArray, plan: StoragePlan) -> dict[str, Any]:
    """Return Zarr encoding of one variable; the leading dimensions are stored one by one."""
    leading = (1,) * (variable.ndim - 2)
    encoding: dict[str, Any] = {
        "chunks": (*leading, *plan.chunk),
        "compressors": (compressor_for(str(variable.name), variable.dtype),),
    }
    if plan.has_shards:
        encoding["shards"] = (*leading, *plan.shard)
    nodata = packing(variable)["nodata"]
    if nodata is not None:
        # Chunks without a valid pixel are not stored at all: they are what an absent chunk reads as.
        encoding["fill_value"] = variable.dtype.type(nodata)
    if stores_all_chunks(str(variable.name), variable.dtype, variable.attrs):
        encoding["write_empty_chunks"] = True
    return encoding


def compressor_for(name: str, dtype: np.dtype[Any]) -> BloscCodec | ZstdCodec:
    """Return what compresses a variable: Zstandard at level 1, on the bits of masks (1.4 times smaller), the bytes of wider numbers."""
    if dtype.kind == "b" or name == "binary":
        return BloscCodec(typesize=1, cname="zstd", clevel=1, shuffle="bitshuffle")
    if dtype.itemsize > 1:
        return BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    return ZstdCodec(level=1)


def coords_beside(cube: xr.Dataset) -> dict[Any, xr.DataArray]:
    """Return the coordinates that say nothing of where pixels lie, such as times and classes."""
    coords = cube.coords.items()
    return {name: coord for name, coord in coords if not {"y", "x"} & set(coord.dims) and name != "spatial_ref"}


def next_overview(cube: xr.Dataset, store: Store, *, above: str, geobox: GeoBox, plan: StoragePlan) -> xr.Dataset:
    """Return the next level, lazily from the stored one above it: nothing of the cube itself is computed again."""
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    source = group if above == "." else group[above]
    if not isinstance(source, zarr.Group):
        raise TypeError(f"{above} is not a group")  # we wrote it a moment ago
    variables = {}
    for name, variable in cube.data_vars.items():
        if {"y", "x"} <= set(variable.dims):
            stored = source[str(name)]
            chunks = (*(1 for _ in variable.dims[:-2]), 2 * plan.shard[0], 2 * plan.shard[1])
            # Named by chance, because hashing the array would read it, and another run may write other values there.
            lazy = da.from_array(stored, chunks=chunks, name=f"level-{uuid.uuid4().hex}", inline_array=True)
            halved = da.map_blocks(
                halve,
                lazy,
                dtype=lazy.dtype,
                chunks=(*lazy.chunks[:-2], *(tuple(-(-n // 2) for n in axis) for axis in lazy.chunks[-2:])),
                meta=np.empty((0,) * lazy.ndim, lazy.dtype),
                reduction=reduction_of(variable),
                nodata=packing(variable)["nodata"],
            )
            variables[str(name)] = xr.Variable(variable.dims, halved, variable.attrs)
    level = with_georeference(variables, geobox, lattice_origin=(geobox.affine.c, geobox.affine.f))
    return level.assign_coords(coords_beside(cube)).drop_attrs(deep=False).assign_attrs(spatial_attrs(geobox))


@typed(CubeError, but=("cube",))
def write_cube(
    cube: xr.Dataset | xr.DataArray,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    shards: int | Literal["auto"] = "auto",
    chunks: int = 512,
    overviews: bool = True,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Write a cube or a prediction as Zarr v3; everything is computed once, together, and all of it or nothing appears.

    Parameters
    ----------
    cube
        Any georeferenced Dataset: layers, predictions, with or without `time` and `class`; or what `as_cube` makes one.
    path
        Local path, or a URL that fsspec knows.
    overwrite
        Replace a Zarr store that is there; the old one stays until the new one is complete.
    shards
        Side of a shard, px; ``"auto"`` makes every dask chunk a shard where it can.
    chunks
        Side of a chunk inside a shard, px.
    overviews
        Also write levels at half the resolution each (groups ``2x``, ``4x``, ...), until one fits a screen.
    progress
        Show how far it is, as `rtsx.show_progress` does.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    str
        The path.

    Raises
    ------
    CubeError
        The Dataset says not where it lies, or has nothing to write.
    OutputExistsError
        Something is there already.
    OutputNotWritableError
        Nothing can be written there; found out before anything is computed.
    """
    cube = as_cube(cube)
    validate_georeference(cube)
    for name in layer_names(cube):
        require_numbers(cube[name])
    if not layer_names(cube) and "valid" not in cube:
        raise CubeError(f"There is nothing on (y, x) to write in {list(cube.data_vars)}.")
    target = str(path)
    cube = with_pixel_centres(cube)
    geobox = geobox_of(cube)
    plan = plan_storage(geobox.shape.yx, _chunk_lengths(cube), chunk=chunks, shard=shards)
    levels = overviews_of(geobox, overviews=overviews)
    with (
        atomic_store(target, overwrite=overwrite, options=storage_options or {}) as store,
        show_progress("writing") if progress else nullcontext(),
    ):
        root = cube.assign_attrs(cube.attrs | root_attrs(levels))
        write_level(_planned(root, plan), store, group=None, plan=plan)
        for (above, _), (name, level_geobox) in itertools.pairwise(levels):
            level = next_overview(cube, store, above=above, geobox=level_geobox, plan=plan)
            write_level(level, store, group=name, plan=plan)
    return target


def _chunk_lengths(cube: xr.Dataset) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return lengths of the dask chunks along y and x of the variable that has the largest ones; in memory, all in one."""
    found = []
    names = [*layer_names(cube), *(["valid"] if "valid" in cube else [])]
    for name in [name for name in names if cube[name].chunks is not None] or names:
        chunksizes = cube[name].chunksizes
        found.append(tuple(tuple(chunksizes.get(dim, (cube.sizes[dim],))) for dim in ("y", "x")))
    rows, columns = max(found, key=lambda lengths: (max(lengths[0]), max(lengths[1])))
    return rows, columns


def _planned(cube: xr.Dataset, plan: StoragePlan) -> xr.Dataset:
    """Return the cube with every variable on (y, x) in dask chunks that are whole shards."""
    planned = {}
    for name, variable in cube.data_vars.items():
        if {"y", "x"} <= set(variable.dims):
            lengths = [variable.chunksizes.get(dim, ()) for dim in ("y", "x")]
            if not all(lengths) or not plan.fits(lengths):
                planned[name] = variable.chunk({"y": plan.shard[0], "x": plan.shard[1]})
    return cube.assign(planned)
