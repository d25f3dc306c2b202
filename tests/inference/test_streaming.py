"""One region, band by band: what is read, when, and that the answer is that of the whole."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx import ModelBundle, predict_cube
from rtsx.errors import BundleError, PlanError
from rtsx.inference import streaming as region_module
from rtsx.inference.plan import PredictionPlan, Region, input_window
from rtsx.inference.runner import Runner, needed_layers, packings_of, prediction_plan
from rtsx.inference.streaming import predict_region

SHAPE = (120, 97)


class Blurred(torch.nn.Module):
    """A mean over 5 x 5 px and a layer at half the size."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        near = torch.nn.functional.avg_pool2d(batch, 5, stride=1, padding=2)
        far = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(batch, 2), scale_factor=2)
        return near - 0.5 * far


def make_bundle() -> ModelBundle:
    return ModelBundle.from_module(
        Blurred(), layers=("red",), mean=(0.0,), std=(0.1,), tile=32, overlap=16, stride=2, classes=("target",)
    )


def make_cube() -> xr.Dataset:
    random = np.random.default_rng(4)
    red = random.integers(1, 9000, SHAPE).astype(np.uint16)
    red[random.random(SHAPE) < 0.1] = 0
    red[70:, :50] = 0
    geobox = GeoBox(SHAPE, Affine(3, 0, -15, 0, -3, -39), "EPSG:3413")
    layers = {"red": (("y", "x"), red, {"scale_factor": 1e-4, "_FillValue": 0})}
    return xr.Dataset(layers, attrs={"lattice_origin": [0.0, 0.0]}).assign_coords(xr_coords(geobox, always_yx=True))


class Counted:
    """Gives the pixels of a cube, and counts how often each was asked for."""

    def __init__(self, cube: xr.Dataset, runner: Runner) -> None:
        self.cube, self.runner = cube, runner
        self.times = np.zeros(SHAPE, int)
        self.windows: list[Region] = []

    def __call__(self, window: Region) -> Mapping[str, NDArray[Any]]:
        self.times[window] += 1
        self.windows.append(window)
        stored = {name: self.cube[name].values[window] for name in self.runner.plan.layers}
        return {**stored, "valid": self.runner.valid(stored, None)}


def runner_for(whole: xr.Dataset, cube: xr.Dataset, bundle: ModelBundle | None = None, **changes: Any) -> Runner:
    plan, bundles = PredictionPlan.from_json(whole.attrs["plan"]), (bundle or make_bundle(),)
    runner = Runner(
        plan=plan,
        bundles=bundles,
        packings=packings_of(bundles, cube, layers=plan.layers),
        device="cpu",
        precision="auto",
        backend="eager",
        batch_size=None,
    )
    return replace(runner, **changes)


REGIONS = [
    (slice(0, 120), slice(0, 97)),
    (slice(30, 61), slice(10, 50)),
    (slice(100, 120), slice(90, 97)),
    (slice(5, 6), slice(0, 1)),
]


@pytest.mark.parametrize("blend", ["crop", "linear", "max"])
@pytest.mark.parametrize("span", [32, 50, 2048])
def test_bands_are_the_answer_of_the_whole_and_every_pixel_is_read_once(
    blend: str, span: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_module, "_SPAN", span)
    cube = make_cube()
    whole = predict_cube(cube, make_bundle(), tile=32, overlap=12, blend=blend, backend="eager")
    runner = runner_for(whole, cube)
    for region in REGIONS:
        read = Counted(cube, runner)
        bands = list(predict_region(read, region, runner=runner))
        rows = [band for band, _ in bands]
        assert (rows[0].start, rows[-1].stop) == (region[0].start, region[0].stop)
        assert all(one.stop == other.start for one, other in pairwise(rows))
        for name in ("probability", "binary", "valid"):
            found = np.concatenate([answers[name] for _, answers in bands])
            np.testing.assert_array_equal(found, whole[name].values[region], err_msg=name)
        expected = np.zeros(SHAPE, int)
        expected[input_window(runner.plan.tiling, region)] = 1
        np.testing.assert_array_equal(read.times, expected)


class Shaped(torch.nn.Module):
    """Answers by how many tiles come together, as the arithmetic of a GPU may."""

    # Of the class, because a bundle runs copies of the module that it was made from.
    seen: ClassVar[list[int]] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(batch))
        return batch[:, :1] * (1 - len(batch) / 10_000)  # more is no rounding, and refused


@pytest.mark.parametrize("span", [32, 50])
def test_batches_are_filled_from_the_band_below(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_module, "_SPAN", span)
    cube = make_cube()
    bundle = ModelBundle.from_module(Shaped(), layers=("red",), tile=32, overlap=12, stride=2)
    Shaped.seen.clear()
    whole = predict_cube(cube, bundle, tile=32, overlap=12, backend="eager", batch_size=7)
    in_memory = list(Shaped.seen)
    Shaped.seen.clear()
    runner = runner_for(whole, cube, bundle, batch_size=7)
    bands = list(predict_region(Counted(cube, runner), REGIONS[0], runner=runner))
    found = np.concatenate([answers["probability"] for _, answers in bands])
    np.testing.assert_array_equal(found, whole["probability"].values[REGIONS[0]])
    assert len(bands) > 2
    assert set(Shaped.seen) == {7}
    assert len(Shaped.seen) == in_memory.count(7)


def test_only_one_band_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_module, "_SPAN", 32)
    cube = make_cube()
    whole = predict_cube(cube, make_bundle(), tile=32, overlap=12, blend="crop", backend="eager")
    runner = runner_for(whole, cube)
    read = Counted(cube, runner)
    bands = predict_region(read, (slice(0, 120), slice(0, 97)), runner=runner)
    for number, _ in enumerate(bands, start=1):
        # Those of the bands that were handed over, of the next one, and of one that answers for what both share.
        assert len(read.windows) <= number + 2
    assert all(rows.stop - rows.start <= 32 for rows, _ in read.windows), "no more than a tile at a time"


def test_a_reader_that_fails_ends_the_prediction() -> None:
    cube = make_cube()
    whole = predict_cube(cube, make_bundle(), tile=32, overlap=12, backend="eager")

    def fails(window: Region) -> Mapping[str, NDArray[Any]]:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        list(predict_region(fails, (slice(0, 120), slice(0, 97)), runner=runner_for(whole, cube)))


def test_who_stops_listening_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_module, "_SPAN", 32)
    cube = make_cube()
    whole = predict_cube(cube, make_bundle(), tile=32, overlap=12, backend="eager")
    runner = runner_for(whole, cube)
    bands = predict_region(Counted(cube, runner), (slice(0, 120), slice(0, 97)), runner=runner)
    next(bands)
    bands.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rtsx-read")]


def test_a_plan_is_made_of_the_layers_at_hand_or_of_those_that_are_needed() -> None:
    bundle = make_bundle()
    whole = PredictionPlan.from_json(predict_cube(make_cube(), bundle, tile=32, overlap=12).attrs["plan"])
    options = {"augment": (), "scales": (1.0,), "merge": "mean", "keep_members": False, "dtype": "uint8"}
    assert needed_layers((bundle,), ("dem", "red")) == ("red",)
    for layers in (("dem", "red"), ("red",)):
        assert prediction_plan((bundle,), layers=layers, tiling=whole.tiling, **options) == whole
    with pytest.raises(BundleError, match="missing"):
        prediction_plan((bundle,), layers=("dem",), tiling=whole.tiling, **options)


def test_a_runner_is_refused_the_bundles_of_another_plan_and_a_cube_without_its_layers() -> None:
    cube = make_cube()
    plan = PredictionPlan.from_json(predict_cube(cube, make_bundle(), tile=32, overlap=12).attrs["plan"])
    options = {"device": "cpu", "precision": "auto", "backend": "eager", "batch_size": None}
    other = ModelBundle.from_module(torch.nn.Identity(), layers=("red",), tile=32, overlap=16, stride=2)
    with pytest.raises(PlanError, match="Run it with its own bundles, or plan again"):
        Runner(plan=plan, bundles=(other,), packings={}, **options)
    with pytest.raises(BundleError, match=r"missing \['red'\]"):
        packings_of((make_bundle(),), cube.rename(red="green"), layers=plan.layers)
