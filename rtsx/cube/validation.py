"""What makes an `xarray.Dataset` a cube."""

import json

import numpy as np
import xarray as xr

from rtsx.cube.conventions import as_cube
from rtsx.cube.georeference import geobox_of, is_regular
from rtsx.cube.packing import packing
from rtsx.errors import CubeError

__all__ = ["class_names", "layer_names", "require_numbers", "validate_cube", "validate_georeference"]


def layer_names(cube: xr.Dataset) -> tuple[str, ...]:
    """Names of the variables that lie on the cube's pixels, without `valid`."""
    return tuple(
        str(name) for name, layer in cube.data_vars.items() if name != "valid" and {"y", "x"} <= set(layer.dims)
    )


def class_names(pred: xr.Dataset) -> list[str]:
    """Names of a prediction's classes, in their order; empty where it does not say what it found.

    Examples
    --------
    >>> class_names(xr.Dataset(attrs={"bundle_classes": '["slump"]'})), class_names(xr.Dataset())
    (['slump'], [])
    """
    if "class" in pred.coords:
        return [str(name) for name in np.atleast_1d(pred["class"].values)]
    names = pred.attrs.get("bundle_classes", [])  # a list in older predictions
    if isinstance(names, str):
        names = json.loads(names) if names.startswith("[") else [names]
    return [str(name) for name in np.atleast_1d(names)]


def validate_cube(cube: xr.Dataset | xr.DataArray) -> None:
    """Raise unless a Dataset can be predicted, written and cut into tiles; computes nothing.

    A cube has dimensions (y, x) or (time, y, x), coordinates `y` (falling) and `x` (rising) of pixel centres, a CRS in
    `spatial_ref`, one numeric variable per layer with CF packing in its attributes, and optionally a boolean `valid`.
    Variables without the dimensions y and x are nobody's business. What `as_cube` makes one passes too.

    Raises
    ------
    CubeError
        Something is missing or wrong; the message says what to do.
    """
    cube = as_cube(cube)
    validate_georeference(cube)
    names = layer_names(cube)
    if not names:
        raise CubeError(f"A cube needs at least one layer on (y, x); this one has variables {list(cube.data_vars)}.")
    for name in names:
        _validate_layer(cube[name])
    if "time" in cube.dims and not cube.sizes["time"]:
        raise CubeError("The cube has no time: its dimension 'time' has length 0. Look at what selected the times.")
    if "time" in cube.dims and "time" in cube.coords and cube["time"].isnull().any():
        raise CubeError(
            "Some times of the cube are missing (NaT). Leave them out, with cube.isel(time=cube.time.notnull().values), or set them."
        )
    if "valid" in cube:
        valid = cube["valid"]
        if valid.dtype != bool or valid.dims not in (("y", "x"), ("time", "y", "x")):
            raise CubeError(
                f"`valid` has to be boolean on (y, x) or (time, y, x), True where a pixel can be trusted; got {valid.dtype} "
                f"on {valid.dims}. Make it so with cube['valid'] != 0, or call it otherwise, with cube.rename(valid='mask'), if it "
                "is a layer."
            )


def validate_georeference(cube: xr.Dataset) -> None:
    """Raise unless a Dataset says where its pixels lie, north-up and in equal steps.

    Raises
    ------
    CubeError
        Dimensions, coordinates, CRS or `lattice_origin` are missing or wrong.
    """
    affine = geobox_of(cube).affine
    if affine.b or affine.d:
        raise CubeError(f"A cube has to be north-up; this one is rotated ({affine.b}, {affine.d}). Warp it first.")
    for name, step, direction in (("y", affine.e, -1), ("x", affine.a, 1)):
        axis = cube[name].values
        if axis.dtype.kind not in "iuf":
            raise CubeError(
                f"Coordinate {name!r} has to be numbers; got {axis.dtype}. Make it so with "
                f"cube.assign_coords({name}=cube.{name}.astype(float))."
            )
        if step * direction <= 0:
            raise CubeError(
                f"Coordinate {name!r} has to {'rise' if direction > 0 else 'fall'}; it goes from {axis[0]} to {axis[-1]}. "
                f"Turn the cube with cube.isel({name}=slice(None, None, -1))."
            )
        if not is_regular(axis.astype(np.float64), step):
            raise CubeError(
                f"Coordinate {name!r} has to step by one pixel ({step}) throughout; it does not. Warp the cube to a grid."
            )
    origin = cube.attrs.get("lattice_origin", (0.0, 0.0))
    if np.shape(origin) != (2,) or not np.isfinite(np.asarray(origin, float)).all():
        raise CubeError(f"The attribute lattice_origin has to be two numbers [x, y] in CRS units; got {origin!r}.")


def require_numbers(layer: xr.DataArray) -> None:
    """Raise unless a layer holds numbers that networks and stores know.

    Raises
    ------
    CubeError
        It holds text, objects, times, complex or extended numbers.
    """
    if layer.dtype.kind not in "uifb" or layer.dtype.itemsize > 8:
        raise CubeError(
            f"Layer {layer.name!r} has to be numeric, of 64 bits at most; got {layer.dtype}. Convert it with "
            f"cube[{layer.name!r}].astype('float32'), or leave it out with cube.drop_vars({layer.name!r})."
        )


def _validate_layer(layer: xr.DataArray) -> None:
    if layer.dims not in (("y", "x"), ("time", "y", "x")):
        raise CubeError(
            f"Layer {layer.name!r} has to be on (y, x) or (time, y, x); got {layer.dims}. "
            "Split other dimensions into layers with cube[name].to_dataset(dimension), or transpose."
        )
    require_numbers(layer)
    try:
        scale = packing(layer)["scale_factor"]
    except (TypeError, ValueError) as error:
        raise CubeError(
            f"Layer {layer.name!r} has packing attributes that are no numbers: "
            f"{ {key: layer.attrs[key] for key in ('scale_factor', 'add_offset', '_FillValue') if key in layer.attrs} }."
        ) from error
    if not np.isfinite(scale) or scale == 0:
        raise CubeError(f"Layer {layer.name!r} needs a finite scale_factor other than 0; got {scale}.")
