"""A Zarr store as a lazy cube, whoever wrote it."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import CopyOnWriteArray, LazilyIndexedArray, MemoryCachedArray

from rtsx.cube.conventions import NAMELESS, as_cube, layer_names, with_axis_names
from rtsx.cube.encoding import is_sparse
from rtsx.cube.georeference import geobox_of, with_georeference, with_pixel_centres
from rtsx.cube.rasters import AUTO_CHUNK, cell_window
from rtsx.cube.times import FACTS, years_of
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage.codecs import fast_codecs, read_part
from rtsx.storage.zarr import LAYERS, MAP_IDENTITY, YEARS, StorageOptions, open_group, require_chunks, store_failures

_STORE_ATTRS = ("zarr_conventions", "multiscales", "proj:", "spatial:", "rtsx:")
"""Attributes that describe the store and its shape, not the data; they would lie after the first `isel`."""


def open_zarr_cube(
    path: str, cell: Cell | None, *, layers: Sequence[str] | None, chunk: int | None, options: StorageOptions
) -> xr.Dataset:
    """Lazy cube of a Zarr store; reads metadata and coordinates only.

    `chunk` in pixels; None chooses about 1024, in whole shards or chunks of the store.
    """
    stored = read_metadata(path, options)
    try:
        cube = with_pixel_centres(_turned(as_cube(_with_plain_strings(_in_order(stored)))))
        geobox = geobox_of(cube)
    except CubeError as error:
        raise CubeError(f"{path}: {error}") from error
    if layers is not None:
        own = layer_names(cube)
        if len(own) == len(layers) and all(map(NAMELESS.fullmatch, own)) and not set(own) & set(layers):
            cube = cube.rename(dict(zip(own, layers, strict=True)))
        if missing := [name for name in layers if name not in cube.data_vars]:
            raise CubeError(f"Layers {missing} are not in {path}, which has {list(layer_names(cube))}.")
        cube = cube[[*layers, *(["valid"] if "valid" in cube and "valid" not in layers else [])]]
    origin = tuple(cube.attrs.get("lattice_origin", (geobox.affine.c, geobox.affine.f)))
    if cell is not None:
        rows, columns = cell_window(geobox, cell, name=path)
        cube, geobox, origin = cube.isel(y=rows, x=columns), geobox[rows, columns], cell.grid.origin
    attrs = {name: value for name, value in cube.attrs.items() if not name.startswith(_STORE_ATTRS)}
    attrs |= _facts(stored)
    cube = _by_year(_chunked(cube.drop_attrs(deep=False).assign_attrs(attrs), chunk, path), stored, path)
    if cell is None and "spatial_ref" in cube.coords:
        return cube.assign_attrs(lattice_origin=[float(value) for value in origin])
    return with_georeference(cube.drop_vars(["y", "x", "spatial_ref"], errors="ignore"), geobox, lattice_origin=origin)


_LARGEST_CHUNK_BYTES = 1 << 31
"""Bytes of a chunk that may be larger than its array; one is decoded whole, however little of it is in the array."""


def _refuse_hollow_chunks(group: zarr.Group, path: str) -> None:
    """Refuse arrays in chunks far larger than themselves, which would fill the memory when the first pixel is read."""
    for name, array in group.arrays():
        size = prod(array.chunks) * array.dtype.itemsize
        if size > max(_LARGEST_CHUNK_BYTES, 4 * array.nbytes):
            raise CubeError(
                f"{path}: array {name!r} of {array.shape} values is stored in chunks of {array.chunks}, each {size:,} bytes when it "
                "is read. The store is damaged, or made to fill memories. Write it again with smaller chunks."
            )


def read_metadata(path: str, options: StorageOptions) -> xr.Dataset:
    """Return the variables of a Zarr store and their attributes as they are stored; no pixel is read."""
    group = open_group(path, options)
    with store_failures(path), fast_codecs():
        _refuse_hollow_chunks(group, path)
        stored: xr.Dataset = xr.open_zarr(
            group.store,
            group=group.path or None,
            chunks=None,  # so that cutting out comes before chunking
            consolidated=group.metadata.consolidated_metadata is not None,
            decode_coords="all",
            mask_and_scale=False,
        )
    if not any(variable.ndim > 1 for variable in stored.variables.values()):
        _name_groups(group, path)
    for name, layer in with_axis_names(stored).data_vars.items():
        if {"y", "x"} <= set(layer.dims) and not is_sparse(layer):
            require_chunks(group, str(name))
    stored.encoding = {}  # so that `as_cube` leaves all chunks to those who read them
    return stored


_SHOWN_GROUPS = 12
"""Groups that an error lists; a product of Sentinel-2 has about as many with rasters."""


def _name_groups(group: zarr.Group, path: str) -> None:
    """Refuse a group without arrays of its own where the groups in it have rasters, as in levels of a pyramid and products of EOPF.

    Raises
    ------
    CubeError
        Names those groups.
    """
    found: dict[str, list[str]] = {}
    for name, array in group.members(max_depth=None):
        if isinstance(array, zarr.Array) and array.ndim > 1:
            inner, _, own = name.rpartition("/")
            found.setdefault(inner, []).append(own)
    if found:
        each = [f"{path.rstrip('/')}/{inner} ({', '.join(sorted(names))})" for inner, names in sorted(found.items())]
        more = f"; and {len(each) - _SHOWN_GROUPS} more" * (len(each) > _SHOWN_GROUPS)
        raise CubeError(f"{path} has its rasters in groups. Open one of them: {'; '.join(each[:_SHOWN_GROUPS])}{more}.")


@dataclass(frozen=True)
class StoredPixels:
    """A stored variable as an array that dask can wrap; what goes wrong when it is read names the store."""

    variable: xr.Variable
    """Not read yet."""
    name: str
    path: str

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.variable.shape

    @property
    def ndim(self) -> int:
        """As stored."""
        return self.variable.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        dtype: np.dtype[Any] = np.dtype(self.variable.dtype)
        return dtype

    def at(self, step: int) -> "StoredPixels":
        """Return one step of the first axis."""
        return StoredPixels(self.variable[step], self.name, self.path)

    def __getitem__(self, key: tuple[slice | int, ...]) -> NDArray[Any]:
        with store_failures(self.path, what=partial(self._told, key)):
            return np.asarray(self.variable[key].to_numpy())

    def read_into(self, out: NDArray[Any], key: tuple[slice, ...]) -> None:
        """Read a part into the first rows and columns of an array, in one step where the codecs can."""
        part = self.variable[key]
        with store_failures(self.path, what=partial(self._told, key)):
            if found := _in_store(part):
                read_part(*found, out=out)
            else:
                out[tuple(slice(0, length) for length in part.shape)] = part.to_numpy()

    def _told(self, key: tuple[slice | int, ...]) -> str:
        parts = (f"{part.start}-{part.stop}" if isinstance(part, slice) else part for part in key)  # dask cuts further
        place = ", ".join(f"{dim} {part}" for dim, part in zip(self.variable.dims, parts, strict=False))
        return f"{self.name} cannot be read at {place}"


def _in_store(variable: xr.Variable) -> "tuple[zarr.Array[Any], tuple[slice, ...]] | None":
    """Return the array of Zarr that a variable is cut from, and what of it that is; None where more than cutting was done."""
    data: Any = variable._data
    while isinstance(data, MemoryCachedArray | CopyOnWriteArray):
        data = data.array
    if not isinstance(data, LazilyIndexedArray) or not isinstance(data.array, ZarrArrayWrapper):
        return None
    array: zarr.Array[Any] = data.array.get_array()  # type: ignore[no-untyped-call]
    part = []
    for one, length in zip(data.key.tuple, array.shape, strict=True):
        if isinstance(one, slice):
            start, stop, step = one.indices(length)
        elif isinstance(one, int | np.integer):
            start, stop, step = int(one), int(one) + 1, 1
        else:
            return None
        if step != 1 or stop <= start:
            return None
        part.append(slice(start, stop))
    return array, tuple(part)


def stored_pixels(array: da.Array) -> StoredPixels | None:
    """Return what an array of `open_zarr_cube` is cut from; None for any other, also for one that was cut, computed with, put in other chunks or persisted.

    By its graph: whatever is done to a dask array gives it another name, or leaves out of the graph what it was made from.
    """
    original = f"original-{array.name}"  # dask's own name for what `from_array` is given
    found = getattr(array.dask, "layers", {}).get(original, {}).get(original)
    return found if isinstance(found, StoredPixels) else None


def _by_year(cube: xr.Dataset, stored: xr.Dataset, path: str) -> xr.Dataset:
    """Return the map of a campaign with its years in order, without the steps of those whose creation was stopped, which have no date."""
    if MAP_IDENTITY not in stored.attrs:
        return cube
    places = {str(year): place for place, year in enumerate(years_of(stored))}
    known = [places[year] for year in sorted(stored.attrs.get(YEARS, {})) if year in places]
    if not known:
        raise CubeError(
            f"{path} has no year yet: its creation was stopped. Run the campaign again, with rtsx campaign run."
        )
    # Of chunks, instead of pixels that are read one after the other.
    return cube if known == [*range(cube.sizes["time"])] else cube.isel(time=known)


def _facts(stored: xr.Dataset) -> dict[str, Any]:
    """Attributes that say what a campaign's years were made with: what all share by name, the rest by year."""
    years: dict[str, dict[str, Any]] = stored.attrs.get(YEARS, {})
    first = next(iter(years.values()), {})
    shared = {name: value for name, value in first.items() if all(one.get(name) == value for one in years.values())}
    own = {year: {name: value for name, value in facts.items() if name not in shared} for year, facts in years.items()}
    return {**shared, **({FACTS: json.dumps(own)} if any(own.values()) else {})}


def _in_order(stored: xr.Dataset) -> xr.Dataset:
    """Variables in the order in which they were written, where the store remembers it."""
    known = [name for name in stored.attrs.get(LAYERS, ()) if name in stored.data_vars]
    return stored[[*known, *(name for name in stored.data_vars if name not in known)]] if known else stored


def _with_plain_strings(stored: xr.Dataset) -> xr.Dataset:
    """Text coordinates such as `class` in NumPy's fixed-width type, as they were before they were stored."""
    texts = {
        name: coord.copy(data=np.array([str(text) for text in coord.values.flat], str).reshape(coord.shape))
        for name, coord in stored.coords.items()
        if coord.dtype.kind in "TO"
    }
    return stored.assign_coords(texts)


def turned_axes(cube: xr.Dataset) -> tuple[str, ...]:
    """Return which of y and x run the other way than those of a cube, where y falls and x rises."""
    axes = {name: (cube.coords.get(name), sign) for name, sign in (("y", -1), ("x", 1))}
    return tuple(
        name
        for name, (axis, sign) in axes.items()
        if axis is not None and axis.size > 1 and (float(axis[-1]) - float(axis[0])) * sign < 0
    )


def _turned(cube: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with y falling and x rising; lazily."""
    axes = turned_axes(cube)
    return cube.isel(dict.fromkeys(axes, slice(None, None, -1))) if axes else cube


def _chunked(cube: xr.Dataset, chunk: int | None, path: str) -> xr.Dataset:
    lengths = {dim: _length(cube, dim, chunk) for dim in cube.dims}
    lazy = {}
    for name, variable in cube.data_vars.variables.items():
        if variable.dims:
            chunks = tuple(lengths[dim] for dim in variable.dims)
            # A name of its own, because dask would read the pixels to make one, and a store may be written again.
            # And what its pixels are like, because dask would read none of them to see.
            like = np.empty((0,) * variable.ndim, variable.dtype)
            pixels = da.from_array(StoredPixels(variable, str(name), path), chunks=chunks, name=False, meta=like)
            lazy[name] = variable.copy(data=pixels)
    with warnings.catch_warnings():
        # xarray warns where chunks cut through stored ones. `chunk` is the caller's word, and at the edge of a cell the
        # cut is what was asked for.
        warnings.filterwarnings(
            "ignore", message="The specified chunks separate the stored chunks", category=UserWarning
        )
        return cube.assign(lazy).chunk(lengths)  # coordinates, too


def _length(cube: xr.Dataset, dim: Any, chunk: int | None) -> int:
    if dim not in ("y", "x"):
        return 1 if dim == "time" else cube.sizes[dim]
    if chunk is not None:
        return chunk
    units = []
    for variable in cube.variables.values():
        stored = variable.encoding.get("shards") or variable.encoding.get("chunks")
        if dim in variable.dims and stored and len(stored) == variable.ndim and variable.ndim > 1:
            units.append(stored[variable.dims.index(dim)])
    unit = max(units, default=AUTO_CHUNK)
    return max(1, round(AUTO_CHUNK / unit)) * unit
