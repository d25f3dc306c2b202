"""The Dataset that a prediction is: names, dimensions, coordinates and attributes around the answers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from rtsx.cube import GRID_MAPPING, lattice_origin
from rtsx.inference.answers import NODATA
from rtsx.inference.runner import Runner

__all__ = ["answer_attributes", "prediction_dataset"]

_LONG_NAMES = {
    "probability": "probability of the target",
    "binary": "target found",
    "probability_member": "probability of the target by ensemble member",
    "spread": "standard deviation of probability among ensemble members",
    "valid": "pixel can be trusted",
}


def prediction_dataset(answers: Mapping[str, Any], cube: xr.Dataset, *, runner: Runner, version: str) -> xr.Dataset:
    """Wrap answers in the cube's coordinates.

    Parameters
    ----------
    answers
        Arrays `(time?, member?, class?, y, x)` by name; NumPy or dask.
    cube
        Where they belong.
    runner
        What made them.
    version
        Of rtsx.
    """
    plan = runner.plan
    timed = "time" in cube.dims
    result = xr.Dataset(coords={name: cube.coords[name] for name in cube.coords if _is_kept(cube.coords[name])})
    for name, array in answers.items():
        dims = _dims(name, several=len(plan.classes) > 1, timed=timed)
        result[name] = (dims, array, answer_attributes(name, array.dtype.name))
        result[name].encoding |= GRID_MAPPING
    if len(plan.classes) > 1:
        result = result.assign_coords({"class": list(plan.classes)})
    if plan.keep_members:
        result = result.assign_coords(member=[bundle.id for bundle in runner.bundles])
    return result.assign_attrs(
        lattice_origin=list(lattice_origin(cube)),
        Conventions="CF-1.11",
        bundle_id="+".join(bundle.id for bundle in runner.bundles),
        bundle_digest="+".join(plan.members),
        bundle_classes=json.dumps(plan.classes),  # text, because NetCDF 3 has no lists of it
        threshold=plan.threshold,
        plan=plan.to_json(),
        rtsx_version=version,
    )


def _is_kept(coordinate: xr.DataArray) -> bool:
    """True for what describes pixels and times; other coordinates belong to layers that are not here."""
    return set(coordinate.dims) <= {"time", "y", "x"}


def _dims(name: str, *, several: bool, timed: bool) -> Sequence[str]:
    leading = ["time"] if timed else []
    if name == "probability_member":
        leading.append("member")
    if several and name != "valid":
        leading.append("class")
    return [*leading, "y", "x"]


def answer_attributes(name: str, dtype: str) -> dict[str, Any]:
    """CF attributes of one variable of a prediction, such as `probability`, that is stored as `dtype`."""
    attributes: dict[str, Any] = {"long_name": _LONG_NAMES[name]}
    if dtype == "uint8":
        attributes["_FillValue"] = NODATA
    if name.startswith("probability"):
        attributes |= {"units": "1"} | ({"scale_factor": 0.01} if dtype == "uint8" else {})
    if name == "binary":
        attributes |= {"flag_values": [0, 1], "flag_meanings": "absent present"}
    return attributes
