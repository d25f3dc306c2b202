"""Taking a prediction apart: one map for each class at each time."""

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube import class_names
from rtsx.cube.encoding import as_mask
from rtsx.cube.times import times_of, years_of
from rtsx.errors import FootprintError

_NODATA = 255
_SCENE_NAMES = ("scene_id", "item_id", "scene_ids", "item_ids", "id")


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """One class at one time, lazy where the prediction is."""

    class_name: str | None
    """What the objects are; None where the prediction does not say."""
    name: str
    """Tells this map from the others of the same prediction; empty where there is only one."""
    date: pd.Timestamp | None
    """Acquisition time in UTC, where known to the day or better."""
    year: int | None
    """Calendar year, where known."""
    scene_id: str | None
    """Scenes or items that the map was made from, joined by commas."""
    probability: xr.DataArray
    """`(y, x)` uint8 levels or float 0-1."""
    binary: xr.DataArray | None
    """`(y, x)`, 1 where there is an object; None where a threshold decides."""
    invalid: xr.DataArray
    """`(y, x)` bool, True where a pixel cannot be trusted."""
    water: xr.DataArray | None
    """`(y, x)` uint8, 1 on water; None where nothing is known of it."""


def split_classes(
    pred: xr.Dataset, *, threshold: float | None, class_name: str | None, water: xr.DataArray | None
) -> tuple[ClassMap, ...]:
    """Take a prediction apart into its maps, computing nothing.

    Parameters
    ----------
    pred : xarray.Dataset
        As `predict_cube` returns it or as read from its store, decoded or not.
    threshold : float or None
        Where given, the binary map is not used.
    class_name : str or None
        The class to keep; None keeps all but the background.
    water : xarray.DataArray or None
        `(y, x)` on the prediction's grid; the same for all maps.

    Raises
    ------
    FootprintError
        A variable or class that is asked for is missing, or dimensions are not `([time,] [class,] y, x)`.
    """
    wanted = ("probability",) if threshold is not None else ("probability", "binary")
    missing = [name for name in wanted if name not in pred.data_vars]
    if missing:
        cure = "give a threshold" if missing == ["binary"] else "is this what predict_cube returned?"
        raise FootprintError(
            f"a prediction has the variables {' and '.join(wanted)}, and this lacks {' and '.join(missing)}: it has "
            f"{', '.join(map(str, pred.data_vars)) or 'none'}; {cure}"
        )
    used = pred[[name for name in (*wanted, "valid") if name in pred.data_vars]]
    strange = set(used.dims) - {"time", "class", "y", "x"}
    if strange:
        raise FootprintError(
            f"a prediction has dimensions ([time,] [class,] y, x), but came with {', '.join(sorted(map(str, strange)))}: "
            "select one entry, for example with pred.isel(...)"
        )
    return tuple(
        _class_map(one, single=single, threshold=threshold, water=water)
        for scene in _each(used, "time")
        for one, single in _classes(scene, class_name)
    )


def thresholds_of(probability: xr.DataArray) -> int:
    """Return the number of steps between probability 0 and 1: of the stored integers, or 10000 for float.

    Raises
    ------
    FootprintError
        The dtype is neither uint8 nor float, or the scale factor is not one over a whole number.
    """
    if probability.dtype.kind == "f":
        return 10_000
    scale = float(probability.attrs.get("scale_factor", 0.01))
    levels = round(1 / scale) if scale > 0 else 0
    if probability.dtype != np.uint8 or not 1 <= levels < _NODATA or abs(levels * scale - 1) > 1e-6:
        raise FootprintError(
            "probability is uint8 with a scale_factor such as 0.01, or float from 0 to 1, but came as "
            f"{probability.dtype} with scale_factor {scale}: convert it, or predict with dtype='uint8'"
        )
    return levels


def _each(pred: xr.Dataset, dimension: str) -> list[xr.Dataset]:
    if dimension not in pred.dims:
        return [pred]
    return [pred.isel({dimension: index}) for index in range(pred.sizes[dimension])]


def _classes(scene: xr.Dataset, class_name: str | None) -> list[tuple[xr.Dataset, bool]]:
    """Return the wanted classes of one time, and for each whether the prediction has no other."""
    named: list[str | None] = [*class_names(scene)]
    scenes = _each(scene, "class")
    if len(named) != len(scenes):
        named = [f"class_{index}" for index in range(len(scenes))] if "class" in scene.dims else [None]
    if class_name is not None and class_name not in named:
        near = difflib.get_close_matches(class_name, [str(name) for name in named], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "take one of them, or leave class_name out"
        raise FootprintError(f"the prediction has the classes {named}, not {class_name!r}: {hint}")
    single = len(scenes) == 1
    return [
        (one.assign_coords({"class": name}), single)
        for one, name in zip(scenes, named, strict=True)
        if class_name == name or (class_name is None and (single or name != "background"))
    ]


def _class_map(one: xr.Dataset, *, single: bool, threshold: float | None, water: xr.DataArray | None) -> ClassMap:
    probability = one["probability"].transpose("y", "x")
    binary = one["binary"].transpose("y", "x") if threshold is None else None
    invalid = missing_pixels(probability)
    if binary is not None:
        invalid = invalid | missing_pixels(binary, undeclared=None)
    if "valid" in one:
        invalid = invalid | ~as_mask(one["valid"].transpose("y", "x"))
    class_name = one.coords["class"].item()
    date, year, moment = _moment(one)
    return ClassMap(
        class_name=class_name,
        name="_".join([*moment, *([] if single else [str(class_name)])]),
        date=date,
        year=year,
        scene_id=_scene_id(one),
        probability=probability,
        binary=binary,
        invalid=invalid,
        water=water,
    )


OF_NO_LEVEL = "mark such pixels in `valid`, or correct the scale_factor of `probability`"
FAR_FROM_ONE = (
    "floats are not scaled again. Where `where`, `merge` or a mean has made floats of stored per cent, take the map as it was "
    "predicted, which says in `valid` which pixels count; in Python, pred.assign(probability=pred['probability'] / 100) scales them"
)
"""What to do where integers are beyond their levels, and floats beyond 0 to 1."""


def missing_pixels(prediction: xr.DataArray, *, undeclared: int | None = _NODATA) -> xr.DataArray:
    """Return where a variable of a prediction has no value: at its `_FillValue`, or at `undeclared` where it has none.

    None for a binary map, because 255 is also the yes of a mask of bytes.
    """
    nodata = prediction.attrs.get("_FillValue", undeclared)
    stored: xr.DataArray = prediction == (np.nan if nodata is None else nodata)
    return stored | prediction.isnull() if prediction.dtype.kind == "f" else stored


def is_found(binary: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a binary map says 1.

    Raises
    ------
    FootprintError
        It says something between 0 and 1.
    """
    if binary.dtype.kind == "f" and (parts := binary[(binary > 0) & (binary < 1)]).size:
        raise FootprintError(
            f"binary is 0 or 1, but a pixel has {parts[0]:g}, as means and resampling give: take the map as it was predicted, or "
            "give a threshold, so that probability decides"
        )
    return np.asarray(binary == 1)


def _moment(one: xr.Dataset) -> tuple[pd.Timestamp | None, int | None, list[str]]:
    """Return date, year and the part of the name that tells times apart."""
    if "time" not in one.coords:
        return None, None, []
    time = one.coords["time"].values
    (moment,), (year,) = times_of(one), years_of(one)
    if year is None and time.dtype.kind not in "iuf":
        raise FootprintError(
            f"the coordinate 'time' of a prediction is a date or a year, but came as {time!r}: "
            "convert it, for example with pred.assign_coords(time=pandas.to_datetime(...))"
        )
    if year is None or np.datetime_data(moment)[0] in ("Y", "M"):
        return None, year, [str(time)]
    return pd.Timestamp(moment), year, [str(np.datetime_as_string(moment, unit="auto", timezone="naive"))]


def _scene_id(one: xr.Dataset) -> str | None:
    for name in _SCENE_NAMES:
        found = one.coords[name].values if name in one.coords else one.attrs.get(name)
        if found is not None:
            return ",".join(map(str, np.atleast_1d(found).tolist()))
    return None
