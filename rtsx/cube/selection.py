"""Which bands of which files become which layers: the plan of opening rasters, made from headers alone."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import PurePosixPath

from rtsx.cube.georeference import crs_name
from rtsx.cube.layer import Layer, require_layer_names
from rtsx.cube.rasterio import RasterHeader
from rtsx.cube.sensor import Sensor
from rtsx.errors import CubeError
from rtsx.storage import file_name

__all__ = ["Selected", "select_bands", "select_layers", "sensor_names", "validate_same_grid"]

_ALPHA = "alpha"
"""What an alpha band is called."""


@dataclass(frozen=True)
class Selected:
    """One band that will be read."""

    header: RasterHeader
    """The file that holds it."""
    band: int
    """Its number in the file, from 1."""
    layer: Layer
    """Its name and packing; None stands where neither the caller, nor the sensor, nor the file says anything."""


def select_bands(
    headers: Sequence[RasterHeader], *, layers: Sequence[str] | None, sensor: Sensor | None
) -> tuple[Selected, ...]:
    """Every band of some files as a layer, or those that `layers` names.

    Names come from the sensor, else from the bands' descriptions, else from the file's name (one band) or from the
    band's number (``band_1``). `layers` picks among those names; where it holds others, and as many as there are bands, it
    gives the bands their names instead. An alpha band is no layer but a mask, unless it is asked for.

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
    for found in (data, every):
        if len(layers) == len(found) and all(
            name not in names or name == selected.layer.name for name, selected in zip(layers, found, strict=True)
        ):
            return _unique(
                [
                    replace(selected, layer=replace(selected.layer, name=name))
                    for selected, name in zip(found, layers, strict=True)
                ]
            )
    raise CubeError(
        f"Layers {sorted(set(layers) - set(names))} are not in {', '.join(header.path for header in headers)}: "
        f"the {len(every)} bands are {names}. Ask for some of these, or give every band a name in band order."
    )


def select_layers(
    headers: Mapping[str, RasterHeader], named: Mapping[str, Layer | str | PathLike[str]]
) -> tuple[Selected, ...]:
    """The bands that a mapping from layer name to `Layer` or to the path of a one-band file asks for.

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
        band = _band_number(header, wanted)
        own = _described(header, band, None).layer
        layer = Layer(
            name,
            header.path,
            band=band,
            scale_factor=own.scale_factor if wanted.scale_factor is None else wanted.scale_factor,
            add_offset=own.add_offset if wanted.add_offset is None else wanted.add_offset,
            nodata=own.nodata if wanted.nodata is None else wanted.nodata,
            units=own.units if wanted.units is None else wanted.units,
            long_name=wanted.long_name,
        )
        found.append(Selected(header, band, layer))
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
        pixel = abs(ours.affine.a)
        size = max(ours.shape)
        drift = max(
            abs(one - two) * (size if place in (0, 1, 3, 4) else 1)
            for place, (one, two) in enumerate(zip(tuple(ours.affine)[:6], tuple(theirs.affine)[:6], strict=True))
        )
        for what, mine, its, differs in (
            ("CRS", crs_name(ours.crs), crs_name(theirs.crs), ours.crs != theirs.crs),
            ("shape (y, x)", tuple(ours.shape), tuple(theirs.shape), ours.shape != theirs.shape),
            ("transform", tuple(ours.affine)[:6], tuple(theirs.affine)[:6], drift > 0.01 * pixel),
        ):
            if differs:
                raise CubeError(
                    f"Layers of a cube have to share one grid, but the {what} differs: {first.path} has {mine}, "
                    f"{other.path} has {its}. Warp one onto the other first, e.g. with gdalwarp, or with "
                    "rioxarray's reproject_match."
                )


def _described(header: RasterHeader, number: int, sensor: Sensor | None) -> Selected:
    """One band with the name and packing that the sensor, else the file, gives it."""
    place = number - 1
    if sensor is not None:
        layer = Layer(
            sensor_names(header, sensor)[place],
            header.path,
            band=number,
            scale_factor=sensor.scale_factor,
            add_offset=sensor.add_offset,
            nodata=header.nodata[place] if sensor.nodata is None else sensor.nodata,
            units=sensor.units,
        )
        return Selected(header, number, layer)
    stem = PurePosixPath(file_name(header.path)).stem
    scale, offset = header.scales[place], header.offsets[place]
    declares = (scale, offset) != (1.0, 0.0)  # GDAL gives 1 and 0 where the file is silent
    # By its number only where it is one of several, and an alpha band by what it is.
    unnamed = _ALPHA if number not in header.data_bands else stem if len(header.data_bands) == 1 else f"band_{number}"
    layer = Layer(
        unnamed if number not in header.data_bands else header.descriptions[place] or unnamed,
        header.path,
        band=number,
        scale_factor=scale if declares else None,
        add_offset=offset if declares else None,
        nodata=header.nodata[place],
        units=header.units[place],
    )
    return Selected(header, number, layer)


def sensor_names(header: RasterHeader, sensor: Sensor) -> tuple[str, ...]:
    """Names of a file's bands in their order, by its sensor; an alpha band beside those of the product is one more.

    Where the file itself describes its bands by the same names, it says their order.

    Raises
    ------
    CubeError
        The product has no file with as many bands.
    """
    names = [_ALPHA if band == header.alpha else "" for band in range(1, header.count + 1)]
    if header.alpha is None or header.count - 1 not in map(len, sensor.bands):
        names = [""] * header.count
    try:
        own = sensor.names(names.count(""))
    except CubeError as error:
        raise CubeError(f"{header.path}: {error}") from error
    described = [(text or "").lower() for text, name in zip(header.descriptions, names, strict=True) if not name]
    rest = iter(described if sorted(described) == sorted(own) else own)
    return tuple(name or next(rest) for name in names)


def _band_number(header: RasterHeader, layer: Layer) -> int:
    if isinstance(layer.band, int):
        if layer.band <= header.count:
            return layer.band
    elif layer.band in header.descriptions:
        return header.descriptions.index(layer.band) + 1
    raise CubeError(
        f"Layer {layer.name!r} asks for band {layer.band!r} of {header.path}, which has {header.count} bands "
        f"described as {list(header.descriptions)}."
    )


def _unique(found: Sequence[Selected]) -> tuple[Selected, ...]:
    seen: dict[str, Selected] = {}
    for selected in found:
        name = selected.layer.name
        if name in seen:
            raise CubeError(
                f"Two bands are called {name!r}: band {seen[name].band} of {seen[name].header.path} and band "
                f"{selected.band} of {selected.header.path}. Name them with layers=[...], or pass a mapping from name to "
                "Layer."
            )
        seen[name] = selected
    require_layer_names(
        list(seen), cure="Name every band in its order with layers=[...], name only others, or map names to Layer(...)."
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
