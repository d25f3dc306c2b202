"""Raster files that share a grid as a lazy cube: layers, bands and windows planned from headers alone."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from os import PathLike
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import odc.geo
import xarray as xr
from odc.geo.geobox import GeoBox

from rtsx.arguments import typed
from rtsx.cube.encoding import output_nodata, packing_attrs, require_nodata
from rtsx.cube.georeference import crs_name, pixels_apart, with_georeference
from rtsx.cube.graph import lazy_bands
from rtsx.cube.rasterio import RasterHeader, read_header, read_overview_geobox, stored_dtype
from rtsx.cube.sensors import Sensor, layers_of_numbers, require_layer_names
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage import file_name


@typed(CubeError)
@dataclass(frozen=True)
class Layer:
    """One band of a raster file as a variable of a cube.

    Examples
    --------
    >>> Layer("red", "scene.tif", band=3, scale_factor=1e-4, nodata=0, units="reflectance").band
    3
    """

    name: str
    """Name of the variable, such as ``red``; what a bundle asks for."""
    source: str | PathLike[str]
    """Path or URL of a raster file that GDAL reads."""
    band: int | str = 1
    """Number of the band in the file, counted from 1, or its description."""
    scale_factor: float | None = None
    """Physical units per stored unit; None takes what the file declares."""
    add_offset: float | None = None
    """Physical value of stored 0; None takes what the file declares."""
    nodata: float | None = None
    """Stored value that marks a missing pixel; None takes what the file declares."""
    units: str | None = None
    """Physical unit: ``reflectance``, ``index``, ``m``, ``degree`` or ``1``; None takes what the file declares."""
    long_name: str | None = None
    """What a plot or a reader should call the layer; None leaves it out."""

    def __post_init__(self) -> None:
        """Refuse names and bands that cannot be."""
        if not self.name:
            raise CubeError("A layer needs a name; got ''. Name it after what it holds, such as 'red'.")
        if isinstance(self.band, int) and self.band < 1:
            raise CubeError(f"Bands are counted from 1; layer {self.name!r} asks for band {self.band}.")


_ALPHA = "alpha"
"""What an alpha band is called."""


@dataclass(frozen=True)
class Selection:
    """One band that will be read."""

    header: RasterHeader
    """The file that holds it."""
    band: int
    """Its number in the file, from 1."""
    layer: Layer
    """Its name and packing; None stands where neither the caller, nor the sensor, nor the file says anything."""


def select_bands(
    headers: Sequence[RasterHeader], *, layers: Sequence[str] | None, sensor: Sensor | None
) -> tuple[Selection, ...]:
    """Return every band of some files as a layer, or those that `layers` names.

    Names come from the sensor, else from the bands' descriptions, else from the file's name (one band) or from the
    band's number (``band_1``). `layers` picks among those names; where it holds others, and as many as there are bands, it
    gives the bands their names instead, unless they are the same but for case. An alpha band is no layer but a mask, unless it is asked for.

    Raises
    ------
    CubeError
        A name is missing or taken twice.
    """
    every = [_described(header, number, sensor) for header in headers for number in range(1, header.count + 1)]
    data = [one for one in every if one.layer.name != _ALPHA or one.band in one.header.data_bands] or every
    if layers is None:
        return _unique(data)
    names = [selected.layer.name for selected in every]
    if set(layers) <= set(names):
        found = [selected for selected in every if selected.layer.name in set(layers)]
        return _unique(sorted(found, key=lambda selected: list(layers).index(selected.layer.name)))
    folded = {name.casefold(): one for name, one in zip(names, every, strict=True)}
    if len(folded) == len(every) and {name.casefold() for name in layers} <= set(folded):
        asked = [(name, folded[name.casefold()]) for name in layers]
        return _unique([replace(one, layer=replace(one.layer, name=name)) for name, one in asked])
    for found in (data, every):
        pairs = list(zip(layers, found, strict=False))
        if len(layers) == len(found) and all(name not in names or name == one.layer.name for name, one in pairs):
            return _unique([replace(one, layer=replace(one.layer, name=name)) for name, one in pairs])
    raise CubeError(
        f"Layers {sorted(set(layers) - set(names))} are not in {', '.join(header.path for header in headers)}: "
        f"the {len(every)} bands are {names}. Ask for some of these, or give every band a name in band order."
    )


def select_layers(
    headers: Mapping[str, RasterHeader], named: Mapping[str, Layer | str | PathLike[str]]
) -> tuple[Selection, ...]:
    """Return the bands that a mapping from layer name to `Layer` or to the path of a one-band file asks for.

    Parameters
    ----------
    headers
        Headers by path.
    named
        What the caller gave.

    Raises
    ------
    CubeError
        A band is not in its file, or a path stands for a file of several bands.
    """
    found = []
    for name, wanted in named.items():
        if not isinstance(wanted, Layer):
            header = headers[str(wanted)]
            if len(header.data_bands) != 1:
                raise CubeError(
                    f"Layer {name!r}: {header.path} has {header.count} bands, and a path stands for a file of one. "
                    f"Say which with Layer({name!r}, path, band=...)."
                )
            wanted = Layer(name, str(wanted), band=header.data_bands[0])
        header = headers[str(wanted.source)]
        band = header.number_of(wanted.band)
        if band is None:
            raise CubeError(
                f"Layer {wanted.name!r} asks for band {wanted.band!r} of {header.path}, which has {header.count} bands "
                f"described as {list(header.descriptions)}."
            )
        own = _described(header, band, None).layer
        require_nodata(wanted.nodata, stored_dtype(header, band), layer=name)
        stated = {key: value for key, value in vars(wanted).items() if value is not None}
        found.append(
            Selection(header, band, replace(own, **stated | {"name": name, "source": header.path, "band": band}))
        )
    return _unique(found)


def validate_same_grid(headers: Sequence[RasterHeader]) -> None:
    """Raise unless all files have the same CRS, transform (to a hundredth of a pixel) and shape.

    Raises
    ------
    CubeError
        Two files differ; both are named, with both values.
    """
    first, *others = headers
    for other in others:
        ours, theirs = first.geobox, other.geobox
        for what, mine, its, differs in (
            ("CRS", crs_name(ours.crs), crs_name(theirs.crs), ours.crs != theirs.crs),
            ("shape (y, x)", tuple(ours.shape), tuple(theirs.shape), ours.shape != theirs.shape),
            ("transform", tuple(ours.affine)[:6], tuple(theirs.affine)[:6], pixels_apart(ours, theirs) > 0.01),
        ):
            if differs:
                raise CubeError(
                    f"Layers of a cube have to share one grid, but the {what} differs: {first.path} has {mine}, "
                    f"{other.path} has {its}. Warp one onto the other first, e.g. with gdalwarp, or with "
                    "rioxarray's reproject_match."
                )


def _described(header: RasterHeader, number: int, sensor: Sensor | None) -> Selection:
    """Return one band with the name and packing that the sensor, else the file, gives it."""
    place = number - 1
    nodata, units = header.nodata[place], header.units[place]
    scale: float | None
    offset: float | None
    if sensor is None:
        stem = PurePosixPath(file_name(header.path)).stem
        # By its number only where it is one of several, and an alpha band by what it is.
        is_data = number in header.data_bands
        unnamed = _ALPHA if not is_data else stem if len(header.data_bands) == 1 else f"band_{number}"
        name = (header.descriptions[place] if is_data else None) or unnamed
        scale, offset = header.scales[place], header.offsets[place]
        if (scale, offset) == (1.0, 0.0):  # GDAL gives 1 and 0 where the file is silent
            scale = offset = None
    else:
        name, scale, offset = sensor_names(header, sensor)[place], sensor.scale_factor, sensor.add_offset
        nodata, units = nodata if sensor.nodata is None else sensor.nodata, sensor.units
    layer = Layer(name, header.path, band=number, scale_factor=scale, add_offset=offset, nodata=nodata, units=units)
    return Selection(header, number, layer)


def sensor_names(header: RasterHeader, sensor: Sensor) -> tuple[str, ...]:
    """Return names of a file's bands in their order, by its sensor; an alpha band beside those of the product is one more.

    Where the file itself describes its bands by the product's names, or by the numbers of a mission, it says which they are and in
    what order. One with B8A of Sentinel-2 where a file of the product has B08 has it as nir.

    Raises
    ------
    CubeError
        The product has no file with as many bands and the file names none, its names fit several missions, or files of the product
        need their items.
    """
    sensor.require_packing()
    _require_packing_of(header, sensor)
    names = [_ALPHA if band == header.alpha else "" for band in range(1, header.count + 1)]
    if header.alpha is None or header.count - 1 not in map(len, sensor.bands):
        names = [""] * header.count
    described = [(text or "").lower() for text, name in zip(header.descriptions, names, strict=True) if not name]
    said = [tuple(described)] if set(described) <= {name for names in sensor.bands for name in names} else []
    counted = [f"b{band}" for band in range(1, header.count + 1)]  # in the file, and not those of a mission
    if list(header.descriptions) != counted:
        said += layers_of_numbers(sensor, described)
    # B8A stands for nir where B08 is not there: products of 20 m have it instead, and HLS calls it so.
    spelt = [*said, *(tuple("nir" if one == "nir08" else one for one in each) for each in said if "nir" not in each)]
    usual = [sorted(each) for each in sensor.bands]
    known = next((each for each in spelt if sorted(each) in usual), None)
    if known is None and len(set(said)) == 1 and len(set(said[0])) == len(described):
        known = said[0]  # some bands of the product, or more than any bundle reads
    if said and known is None:
        raise CubeError(
            f"{header.path} describes its bands as {described}, which may be {' or '.join(str(list(each)) for each in dict.fromkeys(said))} of "
            f"{sensor.name}. Name its bands with layers=[...] and leave sensor= out."
        )
    if known is None:
        try:
            known = sensor.names(len(described))
        except CubeError as error:
            raise CubeError(f"{header.path}: {error}") from error
    rest = iter(known)
    return tuple(name or next(rest) for name in names)


def _require_packing_of(header: RasterHeader, sensor: Sensor) -> None:
    """Raise where the file itself declares another scale, offset or nodata than the sensor has."""
    usual = (sensor.scale_factor, sensor.add_offset or 0.0)
    for band in header.data_bands:
        own, nodata = (header.scales[band - 1], header.offsets[band - 1]), header.nodata[band - 1]
        missing = output_nodata(nodata, stored_dtype(header, band))
        if own != (1.0, 0.0) and not np.allclose(own, usual, rtol=1e-5, atol=1e-9):
            declared, other = f"scale {own[0]:g} and offset {own[1]:g}", f"{usual[0]:g} and {usual[1]:g}"
        elif None not in (missing, sensor.nodata) and missing != sensor.nodata:
            declared, other = f"nodata {missing:g}", f"{sensor.nodata:g}"
        else:
            continue
        such = ", such as sentinel2-l2a-04.00 for an offset of -0.1," if sensor.name.startswith("sentinel2") else ""
        raise CubeError(
            f"Band {band} of {header.path} declares {declared}, and sensor {sensor.name!r} has {other}. Take the sensor that fits{such} or none, and "
            "name the layers, so that what the file declares counts."
        )


def _unique(found: Sequence[Selection]) -> tuple[Selection, ...]:
    seen: dict[str, Selection] = {}
    for selected in found:
        name = selected.layer.name
        if name in seen:
            raise CubeError(
                f"Two bands are called {name!r}: band {seen[name].band} of {seen[name].header.path} and band "
                f"{selected.band} of {selected.header.path}. Name them with layers=[...]; in Python, a mapping from name to "
                "Layer(...) says which is which."
            )
        seen[name] = selected
    require_layer_names(
        list(seen),
        cure="Name every band in its order with layers=[...], or only others; in Python, names can be mapped to Layer(...).",
    )
    for name, selected in seen.items():
        if selected.band == selected.header.alpha and name != _ALPHA:
            warnings.warn(
                f"Band {selected.band} of {selected.header.path}, layer {name!r}, is marked as alpha: where it is 0, the "
                f"file's pixels are missing. If it holds data, write the file with ALPHA=NO, or unmark the band with "
                f"gdal_edit.py -colorinterp_{selected.band} undefined.",
                stacklevel=2,
            )
    return tuple(found)


_PHASE_TOLERANCE = 0.01
"""Pixels that a source may lie off the grid: far below what a viewer could see, far above rounding noise."""


def cell_window(source: GeoBox, cell: Cell, *, name: str) -> tuple[slice, slice]:
    """Return rows and columns of `source` that lie in `cell`.

    A source that covers part of the cell gives that part: nothing is filled in, and because tiles are anchored to the
    grid, the part is predicted exactly as it would be within the whole.

    Raises
    ------
    CubeError
        The source is not on the cell's grid, or does not meet the cell.
    """
    grid, wanted = cell.grid, cell.geobox
    if source.crs != odc.geo.CRS(grid.crs):
        raise _off_grid(name, "CRS", got=crs_name(source.crs), expected=grid.crs)
    affine = source.affine
    drift = max(abs(affine.a - grid.resolution), abs(affine.e + grid.resolution)) * max(source.shape)
    if drift > _PHASE_TOLERANCE * grid.resolution:
        raise _off_grid(
            name, "pixel size", got=f"({affine.a}, {affine.e})", expected=f"({grid.resolution}, {-grid.resolution})"
        )
    column = (wanted.affine.c - affine.c) / grid.resolution
    row = (affine.f - wanted.affine.f) / grid.resolution
    if max(abs(row - round(row)), abs(column - round(column))) > _PHASE_TOLERANCE:
        raise _off_grid(name, "upper-left corner", got=f"({affine.c}, {affine.f})", expected=f"a whole pixel of {grid}")
    spans = []
    for start, length in zip((round(row), round(column)), source.shape, strict=True):
        span = slice(max(start, 0), min(start + grid.cell_size, length))
        if span.start >= span.stop:
            raise CubeError(
                f"{name} does not meet cell {cell.id}: it covers {tuple(source.boundingbox)}, the cell {cell.bounds}. "
                "Choose another source or another cell."
            )
        spans.append(span)
    return spans[0], spans[1]


def _off_grid(name: str, what: str, *, got: str, expected: str) -> CubeError:
    return CubeError(
        f"{name} is not on the grid of the cell: {what} {got}, expected {expected}. "
        "Warp it first, e.g. with gdalwarp -t_srs -tr -tap, or open it without a cell."
    )


RasterSource = str | PathLike[str] | Sequence[str | PathLike[str]] | Mapping[str, Layer | str | PathLike[str]]

AUTO_CHUNK = 1024
"""Pixels per side of a chunk that is chosen for the caller: 1 Mpx of ten uint16 layers is 20 MB, a good task for dask."""


def open_rasters(
    source: RasterSource,
    cell: Cell | None,
    *,
    layers: Sequence[str] | None,
    sensor: Sensor | None,
    chunk: int | None,
    overview: int | None = None,
) -> xr.Dataset:
    """Return the lazy cube of raster files, or of one of their overviews, 0 the finest; reads their headers only.

    `chunk` in pixels; None chooses about 1024, in whole blocks of the files.
    """
    selected = _select(source, layers=layers, sensor=sensor)
    if overview is not None:
        coarse = {one.header: _at_overview(one.header, overview) for one in selected}
        selected = tuple(replace(one, header=coarse[one.header]) for one in selected)
    headers = tuple(dict.fromkeys(one.header for one in selected))
    validate_same_grid(headers)
    geobox = headers[0].geobox
    if geobox.affine.e > 0 or geobox.affine.a < 0 or geobox.affine.b or geobox.affine.d:
        raise CubeError(
            f"{headers[0].path} is not north-up (transform {tuple(geobox.affine)[:6]}). Warp it first, e.g. with gdalwarp."
        )
    if cell is None:
        window = (slice(0, geobox.shape[0]), slice(0, geobox.shape[1]))
        origin = (geobox.affine.c, geobox.affine.f)
    else:
        window = cell_window(geobox, cell, name=headers[0].path)
        geobox = geobox[window]
        origin = cell.grid.origin
    size = _auto_chunk(headers) if chunk is None else (chunk, chunk)
    variables: dict[str, xr.Variable] = {}
    for header in headers:
        # VRTs may hold bands of several dtypes; one read gives one dtype.
        for dtype in dict.fromkeys(header.dtypes):
            if group := [one for one in selected if one.header == header and header.dtypes[one.band - 1] == dtype]:
                stack = lazy_bands(header, window, bands=tuple(one.band for one in group), chunk=size)
                for place, one in enumerate(group):
                    variables[one.layer.name] = xr.Variable(("y", "x"), stack[place], _attrs(one))
    ordered = {one.layer.name: variables[one.layer.name] for one in selected}
    masked = [one for one in selected if one.band in one.header.masked]
    numbers = {header: tuple(one.band for one in masked if one.header == header) for header in headers}
    masks = [lazy_bands(one, window, bands=bands, chunk=size, masks=True) for one, bands in numbers.items() if bands]
    if masks:
        attrs = {"long_name": "True where no mask of the files calls a pixel missing"}
        ordered["valid"] = xr.Variable(("y", "x"), reduce(and_, masks), attrs)
    return with_georeference(ordered, geobox, lattice_origin=origin)


def _select(source: RasterSource, *, layers: Sequence[str] | None, sensor: Sensor | None) -> tuple[Selection, ...]:
    if isinstance(source, Mapping):
        if sensor is not None:
            raise CubeError("A mapping from names to files says itself what each band is; leave sensor= out.")
        wanted = {name: one for name, one in source.items() if layers is None or name in layers}
        missing = sorted(set(layers or ()) - set(wanted))
        if missing or not wanted:
            raise CubeError(f"Layers {missing} are not among the sources {sorted(source)}. Add them, or ask for fewer.")
        paths = [str(one.source if isinstance(one, Layer) else one) for one in wanted.values()]
        return select_layers({path: read_header(path) for path in dict.fromkeys(paths)}, wanted)
    paths = [str(source)] if isinstance(source, str | PathLike) else [str(path) for path in source]
    if not paths:
        raise CubeError("A cube needs at least one file; the list of sources is empty.")
    return select_bands([read_header(path) for path in paths], layers=layers, sensor=sensor)


def _at_overview(header: RasterHeader, overview: int) -> RasterHeader:
    geobox = read_overview_geobox(header.path, overview, whole=header.geobox)
    return replace(header, geobox=geobox, overview=overview)


def _auto_chunk(headers: Sequence[RasterHeader]) -> tuple[int, int]:
    """Return about `AUTO_CHUNK` px in whole blocks of the file with the largest ones, so that no block is decoded twice.

    Strips (blocks as wide as the file) bind the rows only.
    """
    width = headers[0].geobox.shape[1]
    rows = max(header.block[0] for header in headers)
    columns = max((header.block[1] for header in headers if header.block[1] < width), default=AUTO_CHUNK)
    return tuple(max(1, round(AUTO_CHUNK / block)) * block for block in (rows, columns))  # type: ignore[return-value]


def _attrs(one: Selection) -> dict[str, Any]:
    stated = {key: value for key, value in vars(one.layer).items() if key not in ("name", "source", "band")}
    return packing_attrs(stored_dtype(one.header, one.band), **stated)
