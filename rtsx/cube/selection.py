"""Which bands of which files become which layers: the plan of opening rasters, made from headers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import PurePosixPath

from rtsx.cube.georeference import crs_name
from rtsx.cube.layer import Layer
from rtsx.cube.rasterio import RasterHeader
from rtsx.cube.sensor import Sensor
from rtsx.errors import CubeError

__all__ = ["Selected", "select_bands", "select_layers", "validate_same_grid"]


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
    band's number (``band_1``). `layers` picks among those names; where it names none of them but as many as there are
    bands, it gives the bands their names instead.

    Raises
    ------
    CubeError
        A name is missing or taken twice.
    """
    found = [_described(header, number, sensor) for header in headers for number in range(1, header.count + 1)]
    if layers is not None:
        names = [selected.layer.name for selected in found]
        if set(layers) <= set(names):
            found = [selected for selected in found if selected.layer.name in set(layers)]
            found.sort(key=lambda selected: list(layers).index(selected.layer.name))
        elif len(layers) == len(found) and not set(layers) & set(names):
            found = [
                replace(selected, layer=replace(selected.layer, name=name))
                for selected, name in zip(found, layers, strict=True)
            ]
        else:
            raise CubeError(
                f"Layers {sorted(set(layers) - set(names))} are not in {', '.join(header.path for header in headers)}: "
                f"the {len(found)} bands are {names}. Ask for some of these, or give every band a name in band order."
            )
    return _unique(found)


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
            if header.count != 1:
                raise CubeError(
                    f"Layer {name!r}: {header.path} has {header.count} bands, and a path stands for a file of one. "
                    f"Say which with Layer({name!r}, path, band=...)."
                )
            wanted = Layer(name, str(wanted))
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
        try:
            name = sensor.names(header.count)[place]
        except CubeError as error:
            raise CubeError(f"{header.path}: {error}") from error
        layer = Layer(
            name,
            header.path,
            band=number,
            scale_factor=sensor.scale_factor,
            add_offset=sensor.add_offset,
            nodata=header.nodata[place] if sensor.nodata is None else sensor.nodata,
            units=sensor.units,
        )
        return Selected(header, number, layer)
    stem = PurePosixPath(header.path).stem
    scale, offset = header.scales[place], header.offsets[place]
    declares = (scale, offset) != (1.0, 0.0)  # GDAL gives 1 and 0 where the file is silent
    layer = Layer(
        header.descriptions[place] or (stem if header.count == 1 else f"band_{number}"),
        header.path,
        band=number,
        scale_factor=scale if declares else None,
        add_offset=offset if declares else None,
        nodata=header.nodata[place],
        units=header.units[place],
    )
    return Selected(header, number, layer)


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
    return tuple(found)
