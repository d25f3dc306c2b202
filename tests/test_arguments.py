"""Arguments of the wrong type are refused by name at every public door."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import xarray as xr

import rtsx
from rtsx.arguments import typed
from rtsx.campaign import ClusterSpec, OutlineSpec, PredictionSpec, Prices
from rtsx.campaign.recipe import RetrySpec
from rtsx.errors import CampaignError, GridError, RtsxError

DOORS = [getattr(rtsx, name) for name in rtsx.__all__ if callable(getattr(rtsx, name))] + [
    *(rtsx.ModelBundle.open, rtsx.ModelBundle.from_module, rtsx.Campaign.create, rtsx.Campaign.open),
    *(rtsx.Grid.arctic, rtsx.Grid.from_geobox, rtsx.InputLayer.from_statistics, rtsx.InputLayer.from_range),
]
MADE_BY_OTHERS = {"Campaign", "Cell", "ModelBundle", "show_progress"}
"""Classes that users do not make by hand, and a context whose label is only shown."""
DOORS = [
    door for door in DOORS if not door.__module__.startswith(("rtsx.footprints", "rtsx.labels"))
]  # with messages of their own
WRONG = [None, object(), torch.nn.Identity(), torch.nn.Conv2d, np.zeros((2, 2)), len, {3: 4}, [object()]]


@pytest.mark.parametrize(
    "door", [door for door in DOORS if door.__name__ not in MADE_BY_OTHERS], ids=lambda door: door.__qualname__
)
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_what_no_door_takes_is_refused_by_name(door: Callable[..., Any], wrong: object) -> None:
    first, *others = (one for one in inspect.signature(door).parameters.values())
    needed = {one.name: "given" for one in others if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
    with pytest.raises(RtsxError, match=r"takes `|got|does not say|EvaluationScene|Scenes"):
        door(**{first.name: wrong}, **needed)


CUBE = xr.Dataset({"red": (("y", "x"), np.zeros((2, 2)))})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rtsx.evaluate(Path("m.zarr"), "l.gpkg"), r"Open it with rtsx\.open_cube\('m\.zarr'\)"),
        (lambda: rtsx.evaluate(CUBE, torch.nn.Identity()), r"`truth` as a path or .* got a torch\.Identity"),
        (lambda: rtsx.ModelBundle.open(5), r"^ModelBundle\.open takes `path` as a path; .* help\(rtsx\.ModelBundle\.open\)"),
        (lambda: rtsx.Campaign.create("c.yaml"), r"Open it with rtsx\.load_campaign\('c\.yaml'\)"),
        (lambda: rtsx.cross_validate("t.yaml", "o"), r"Open it with rtsx\.config\.load_training_recipe\('t\.yaml'\)"),
        (lambda: rtsx.write_cube(CUBE, CUBE), r"`path` as a path; got a xarray\.Dataset"),
        (lambda: rtsx.open_cube("s.tif", layers="red"), r"`layers` as a list of a text or None; got the text 'red'\. Write \['red'\]"),
        (lambda: rtsx.open_cube("s.tif", (3, 4)), r"`cell` as .*Cell.* got tuple \(3, 4\)"),
        (lambda: rtsx.read_labels(None), r"read_labels takes `source` as a path or geopandas\.GeoDataFrame; got None"),
        (lambda: rtsx.standardise_labels(3), r"standardise_labels takes `source` as .* got int 3"),
        (lambda: PredictionSpec(tile=256.0), r"PredictionSpec takes `tile` as a whole number or 'auto' or .* got float 256\.0"),
        (lambda: OutlineSpec(threshold="0.5"), r"OutlineSpec takes `threshold` as a number or None; got the text '0\.5'"),
        (lambda: ClusterSpec(workers="4"), r"ClusterSpec takes `workers` as a whole number or None; got the text '4'"),
        (lambda: Prices(device_hour="1"), r"Prices takes `device_hour` as a number or None; got the text '1'"),
        (lambda: rtsx.Grid.arctic(resolution="3"), r"`resolution` as a number; got the text '3'\. See help\(rtsx\.Grid\.arctic\)"),
    ],
)  # fmt: skip
def test_the_message_says_what_opens_it(call: Callable[[], object], message: str) -> None:
    with pytest.raises(RtsxError, match=message):
        call()


def test_arrays_of_numpy_and_its_numbers_are_taken() -> None:
    assert rtsx.TilePlan(shape=np.array([64, 64]), tile=np.int64(32), overlap=8, trim=0, stride=1).tile == 32
    assert rtsx.Grid(crs="EPSG:3413", resolution=np.float32(3)).resolution == 3
    module = torch.nn.Conv2d(2, 1, 1)
    options = {"tile": 32, "overlap": 8, "stride": 1, "std": (1, 2)}
    rtsx.ModelBundle.from_module(module, layers=np.array(["red", "nir"]), mean=np.array([0.5, 1]), **options)


def test_true_is_no_number() -> None:
    with pytest.raises(GridError, match=r"takes `resolution` as a number; got"):
        rtsx.Grid(crs="EPSG:3413", resolution=True)
    with pytest.raises(CampaignError, match=r"takes `attempts` as a whole number; got"):
        RetrySpec(attempts=True)


def test_annotations_are_read_as_users_read_them() -> None:
    @typed(GridError, but=("free",))
    def door(
        shape: tuple[int, int],
        names: Sequence[str] | Literal["all"] = (),
        *,
        by: Mapping[str, float] | None = None,
        free: int = 0,
        unknown: "Unheard" = None,  # type: ignore[name-defined]  # noqa: F821 - as one that is imported for types only
        steps: Iterable[int] = (),
        call: Callable[[], int] | None = None,
        **rest: int,
    ) -> tuple[int, ...]:
        """Give the shape back."""
        return shape

    assert door((1, 2)) == (1, 2)
    assert door([1, 2], ["red"], by={"a": 1}, free="x", unknown=3, steps=iter([1]), call=len, more="y") == [1, 2]
    for args, options in (
        (((1, 2, 3),), {}),
        (((1, 2.5),), {}),
        (("12",), {}),
        (((1, 2), ["red", 3]), {}),
        (((1, 2),), {"by": {"a": "b"}}),
        (((1, 2),), {"by": [1]}),
        (((1, 2),), {"steps": "123"}),
        (((1, 2),), {"call": 3}),
    ):
        with pytest.raises(GridError, match=r"door takes `\w+` as .*; got .*\."):
            door(*args, **options)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        door()


def test_keywords_of_a_bundle_are_listed_and_checked() -> None:
    for door in (rtsx.ModelBundle.open, rtsx.ModelBundle.from_module):
        assert {"layers", "tile", "temperature", "bn_mode"} <= set(inspect.signature(door).parameters)
    with pytest.raises(TypeError, match=r"ModelBundle\.open\(\) got an unexpected keyword argument 'layrs'"):
        rtsx.ModelBundle.open("demo", layrs=["red"])  # type: ignore[call-arg]
    with pytest.raises(RtsxError, match=r"ModelBundle\.open takes `tile` as a whole number or None; got the text '64'"):
        rtsx.ModelBundle.open("demo", tile="64")  # type: ignore[arg-type]
