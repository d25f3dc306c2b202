"""The public door: what it returns, and what it refuses before anything is read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
import torch
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx import ModelBundle, open_cube, predict_cube, write_cube
from rtsx.cube import add_ndvi
from rtsx.errors import (
    BundleError,
    CubeError,
    EnsembleWarning,
    LayerValuesWarning,
    MemoryPlanError,
    PixelSizeWarning,
    PlanError,
)
from rtsx.inference.kernel import BlockRun, run_batch
from rtsx.inference.plan import PredictionPlan
from rtsx.model import InputLayer, OutlineChoice
from rtsx.model.metadata import Reach
from rtsx.tiling import Tile

OPTIONS = {"tile": 32, "overlap": 8, "backend": "eager"}


class Smooth(torch.nn.Module):
    """A mean of the first layer over 3 x 3 px, times a gain, as many classes as asked for."""

    def __init__(self, gain: float = 1.0, classes: int = 1) -> None:
        super().__init__()
        self.gain, self.classes = gain, classes

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(batch[:, :1], 3, stride=1, padding=1)
        return torch.cat([mean * self.gain * (number + 1) for number in range(self.classes)], 1)


def make_bundle(layers: tuple[str, ...] = ("red",), **changes: object) -> ModelBundle:
    values = {"tile": 32, "overlap": 8, "stride": 1} | changes
    if "inputs" not in values:
        values |= {"layers": layers} | {"mean": [0] * len(layers), "std": [1] * len(layers)} | changes
    return ModelBundle.from_module(values.pop("module", Smooth()), **values)


def make_cube(shape: tuple[int, int] = (60, 80), **layers: object) -> xr.Dataset:
    random = np.random.default_rng(5)
    made = {
        "red": (("y", "x"), random.integers(1, 3000, shape).astype(np.uint16), {"scale_factor": 1e-4, "_FillValue": 0}),
        "nir": (("y", "x"), random.integers(1, 6000, shape).astype(np.uint16), {"scale_factor": 1e-4, "_FillValue": 0}),
        "dem": (("y", "x"), random.random(shape).astype(np.float32)),
    }
    geobox = GeoBox(shape, Affine(3, 0, 300, 0, -3, 900), "EPSG:32608")
    return xr.Dataset(made | layers).assign_coords(xr_coords(geobox, always_yx=True))


def test_a_prediction_keeps_place_and_says_how_it_was_made() -> None:
    cube, bundle = make_cube(), make_bundle(id="smooth")
    found = predict_cube(cube, bundle, **OPTIONS)
    assert found.odc.geobox == cube.odc.geobox
    assert found.rio.crs == cube.rio.crs
    assert found.attrs["bundle_id"] == "smooth"
    assert found.attrs["bundle_digest"] == bundle.digest
    plan = json.loads(found.attrs["plan"])
    assert plan["tiling"]["tile"] == 32
    assert plan["layers"] == ["red"]
    assert found["probability"].dtype == np.uint8
    assert found["probability"].attrs["scale_factor"] == 0.01
    assert found["probability"].attrs["_FillValue"] == 255
    xr.testing.assert_allclose(
        xr.decode_cf(found)["probability"].astype("float32"),
        predict_cube(cube, bundle, dtype="float32", **OPTIONS)["probability"],
        atol=0.00501,
    )


def test_ndvi_is_derived_on_the_way_and_equals_the_cubes_own() -> None:
    cube = make_cube()
    cube["red"].attrs["add_offset"] = cube["nir"].attrs["add_offset"] = -0.1  # Sentinel-2 since 2022
    cube["red"].values[:5] = cube["red"].values[:5] % 1999 + 1
    cube["nir"].values[:5] = 2000 - cube["red"].values[:5]  # their sum is 0: undefined
    bundle = make_bundle(("ndvi",))
    derived = predict_cube(cube, bundle, dtype="float32", **OPTIONS)
    stored = predict_cube(add_ndvi(cube), bundle, dtype="float32", **OPTIONS)
    np.testing.assert_allclose(derived["probability"], stored["probability"], atol=1e-6)
    assert not derived["valid"].values[:5].any()


def test_ensembles_average_and_keep_members() -> None:
    cube = make_cube()
    bundles = [make_bundle(module=Smooth(gain), id=f"gain {gain}") for gain in (2.0, 9.0)]
    alone = [predict_cube(cube, bundle, dtype="float32", **OPTIONS)["probability"].values for bundle in bundles]
    together = predict_cube(cube.chunk(y=25, x=30), bundles, dtype="float32", keep_members=True, **OPTIONS).compute()
    assert list(together["member"].values) == ["gain 2.0", "gain 9.0"]
    np.testing.assert_allclose(together["probability_member"], alone, atol=1e-6)
    np.testing.assert_allclose(together["probability"], np.mean(alone, 0), atol=1e-6)
    np.testing.assert_allclose(together["spread"], np.std(alone, 0), atol=1e-6)
    mean = predict_cube(cube, bundles, dtype="float32", **OPTIONS)
    np.testing.assert_allclose(mean["probability"], together["probability"], atol=1e-6)
    assert "spread" not in mean


def test_classes_that_exclude_each_other_share_every_pixel() -> None:
    bundle = make_bundle(module=Smooth(3.0, classes=3), classes=("a", "b", "c"), activation="softmax")
    found = predict_cube(make_cube(), bundle, dtype="float32", **OPTIONS)
    assert found["probability"].dims == ("class", "y", "x")
    np.testing.assert_allclose(found["probability"].sum("class"), 1, atol=1e-5)
    assert (found["binary"].sum("class") == 1).all()
    np.testing.assert_array_equal(found["binary"].argmax("class"), found["probability"].argmax("class"))


def test_independent_classes_are_judged_by_the_threshold() -> None:
    bundle = make_bundle(module=Smooth(3.0, classes=2), classes=("a", "b"), activation="sigmoid", threshold=0.6)
    found = predict_cube(make_cube(), bundle, dtype="float32", **OPTIONS)
    np.testing.assert_array_equal(found["binary"], found["probability"] >= 0.6)


def test_turns_are_averaged_and_leave_a_symmetric_network_alone() -> None:
    cube = make_cube()
    plain = predict_cube(cube, make_bundle(), dtype="float32", **OPTIONS)
    turns = ("hflip", "vflip", "rot90", "rot180", "rot270", "transpose")
    turned = predict_cube(cube, make_bundle(), dtype="float32", augment=turns, **OPTIONS)
    np.testing.assert_allclose(turned["probability"], plain["probability"], atol=1e-6)

    class Leaning(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pad(batch, (1, 0, 0, 0))[..., :-1] * 9  # each pixel answers for its left

    one = predict_cube(cube, make_bundle(module=Leaning()), dtype="float32", **OPTIONS)["probability"].values
    both = predict_cube(cube, make_bundle(module=Leaning()), dtype="float32", augment=("hflip",), **OPTIONS)
    red = cube["red"].values * 1e-4
    right = 1 / (1 + np.exp(-9 * red[:, 2:]))
    np.testing.assert_allclose(both["probability"].values[:, 1:-1], (one[:, 1:-1] + right) / 2, atol=1e-5)


@pytest.mark.parametrize(("merge", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_scales_are_fused(merge: str, reduce: object) -> None:
    cube = make_cube((64, 64))
    options = {"tile": 64, "overlap": 0, "backend": "eager", "dtype": "float32"}
    alone = [predict_cube(cube, make_bundle(), scales=(s,), **options)["probability"].values for s in (1.0, 0.5)]
    fused = predict_cube(cube, make_bundle(), scales=(1.0, 0.5), merge=merge, **options)["probability"]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(fused, reduce(alone, axis=0), atol=1e-6)


def test_a_larger_batch_changes_nothing_that_counts() -> None:
    cube = make_cube()
    one, many = (
        predict_cube(cube, make_bundle(), batch_size=size, dtype="float32", **OPTIONS)["probability"] for size in (1, 7)
    )
    np.testing.assert_allclose(many, one, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile": 33, "bundle": {"stride": 2}}, PlanError, "tile has to be a multiple of the network's stride of 2 px"),
        ({"overlap": 32}, PlanError, "overlap has to be below the tile of 32 px; got 32"),
        ({"blend": "mean"}, PlanError, "blend has to be one of linear, hann, gaussian, crop, max; got 'mean'"),
        ({"trim": 5}, PlanError, "trim has to be at most half the overlap of 8 px"),
        ({"augment": ("mirror",)}, PlanError, "augment has to be among identity, hflip, .*; got mirror"),
        (
            {"augment": ("hflip",), "bundle": {"layers": ("aspect",)}},
            PlanError,
            "cannot be used with layers .'aspect'.",
        ),
        (
            {"scales": (0.3,), "bundle": {"stride": 2}},
            PlanError,
            "at scale 0.3 has 9.6 px, .*Take another scale or tile",
        ),
        ({"scales": ()}, PlanError, "scales have to be one or more numbers"),
        ({"merge": "sum"}, PlanError, "merge has to be 'mean' or 'max'; got 'sum'"),
        ({"dtype": "uint16"}, PlanError, "dtype has to be 'uint8' or 'float32'; got 'uint16'"),
        ({"backend": "tensorrt"}, BundleError, "backend has to be 'auto' or one of"),
        ({"device": "tpu"}, BundleError, "device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got 'tpu'"),
        ({"precision": "int8"}, BundleError, "precision has to be 'auto' or one of"),
        ({"batch_size": 0}, PlanError, "batch_size has to be at least 1; got 0"),
        ({"bundle": {"layers": ("red", "swir")}}, BundleError, r"missing \['swir'\]. Where these are bands"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    bundle = make_bundle(**options.pop("bundle", {}))
    cube = make_cube(aspect=(("y", "x"), np.zeros((60, 80), np.float32))).chunk(y=30)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was read")

    with dask.config.set(scheduler=refuse), pytest.raises(error, match=message):
        predict_cube(cube, bundle, **(OPTIONS | options))


def test_reflectance_without_a_scale_is_refused_with_the_cure() -> None:
    bundle = ModelBundle.from_module(
        Smooth(),
        inputs=(InputLayer.from_range("red", 0, 0.3, clip=False, units="reflectance"),),
        tile=32,
        overlap=8,
        stride=1,
    )
    cube = make_cube()
    del cube["red"].attrs["scale_factor"]
    with pytest.raises(BundleError, match=r"'red' as reflectance, but the cube holds integers and no scale_factor"):
        predict_cube(cube, bundle, **OPTIONS)
    with pytest.raises(BundleError, match=r"'red' has values from .* outside -1 to 5.*attrs\['scale_factor'\]"):
        predict_cube(cube.assign(red=cube["red"].astype(np.float32)), bundle, **OPTIONS)
    predict_cube(cube.assign(red=cube["red"] * np.float32(1e-4)), bundle, **OPTIONS)


def test_floats_that_keep_the_scale_of_what_they_were_made_from_are_refused() -> None:
    bundle, cube = make_bundle(), make_cube()
    twice = cube.assign(red=(cube["red"].astype(np.float32) * np.float32(1e-4)).assign_attrs(cube["red"].attrs))
    for refused in (twice, twice.chunk(y=30)):
        with pytest.raises(BundleError, match=r"'red' is scaled twice.*scale_factor 0\.0001"):
            predict_cube(refused, bundle, **OPTIONS).load()
    twice["red"].attrs.pop("scale_factor")
    predict_cube(twice, bundle, **OPTIONS)


@pytest.mark.parametrize("chunks", [None, 20])
def test_doubtful_values_are_warned_of_once_a_prediction(chunks: int | None) -> None:
    bundle = make_bundle(inputs=(InputLayer.from_range("red", 0, 0.3, clip=False, units="reflectance"),))
    cube = make_cube()
    cube["red"].attrs["add_offset"] = -0.4
    for _ in range(2):
        with pytest.warns(LayerValuesWarning, match=r"'red' are reflectance.*below -0\.03") as seen:
            predict_cube(cube.chunk(y=chunks) if chunks else cube, bundle, **OPTIONS).load()
        assert [one.category for one in seen].count(LayerValuesWarning) == 1


def test_units_that_contradict_the_bundle_are_refused_before_anything_is_read() -> None:
    bundle = make_bundle(inputs=(InputLayer.from_range("dem", -100, 3000, clip=True, units="m"),))
    cube = make_cube()
    right = predict_cube(cube, bundle, **OPTIONS)
    cube["dem"] = (cube["dem"] * 100).assign_attrs(units="cm")
    with pytest.raises(BundleError, match=r"'dem' says that it is in 'cm', and the bundle wants 'm'"):
        predict_cube(cube.chunk(y=20), bundle, **OPTIONS)
    cube["dem"].attrs.update(scale_factor=0.01, add_offset=0, units="m")  # the cure
    xr.testing.assert_equal(predict_cube(cube, bundle, **OPTIONS)["binary"], right["binary"])


def fixed_onnx(folder: Path) -> ModelBundle:
    """`Smooth` as it is exported for tiles of 32 px alone."""
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    from onnx import TensorProto, helper, save_model

    path = folder / "fixed.onnx"
    pooling = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 32, 32)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("AveragePool", ["x"], ["y"], **pooling)], "net", ends[:1], ends[1:])
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    options = {"layers": ("red",), "mean": (0,), "std": (1,), "tile": 32, "overlap": 8, "stride": 1}
    return ModelBundle.open(path, classes=("target",), activation="sigmoid", **options)


def test_a_tile_that_a_fixed_network_cannot_take_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    bundle, cube = fixed_onnx(tmp_path), make_cube().chunk(y=30)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was read")

    with dask.config.set(scheduler=refuse):
        with pytest.raises(
            PlanError, match=r"takes tiles of 32 x 32 px only; the plan has tiles of 48 px. Take tile=32"
        ):
            predict_cube(cube, bundle, tile=48, overlap=8)
        with pytest.raises(PlanError, match=r"takes tiles of 32 x 32 px only; the plan has tiles of 16 px"):
            predict_cube(cube, bundle, tile=32, overlap=8, scales=(1.0, 0.5))
        knowing = bundle.with_reach(Reach(stride=1, radius=1, depends_on_tile=False))
        tiling = json.loads(predict_cube(cube, knowing).attrs["plan"])["tiling"]
    assert tiling["tile"] == 32
    found = predict_cube(cube, bundle, tile=32, overlap=8, dtype="float32").compute()
    expected = predict_cube(cube, make_bundle(), dtype="float32", **OPTIONS).compute()
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-5)


def test_what_is_no_cube_or_no_bundle_is_refused() -> None:
    with pytest.raises(CubeError, match=r"needs a CRS"):
        predict_cube(make_cube().drop_vars("spatial_ref").drop_attrs(), make_bundle(), **OPTIONS)
    with pytest.raises(BundleError, match=r"takes a ModelBundle or several; got Smooth"):
        predict_cube(make_cube(), [Smooth()], **OPTIONS)
    with pytest.raises(BundleError, match=r"takes a ModelBundle or several; got none"):
        predict_cube(make_cube(), [], **OPTIONS)
    with pytest.raises(BundleError, match=r"There is no model at no/bundle"):
        predict_cube(make_cube(), Path("no/bundle"), **OPTIONS)
    other = make_bundle(classes=("lake",))
    with pytest.raises(BundleError, match=r"have to share classes and activation"):
        predict_cube(make_cube(), [make_bundle(), other], **OPTIONS)


def test_a_plan_beyond_the_memory_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.inference.predict.available_bytes", lambda: 10_000)
    with pytest.raises(MemoryPlanError, match=r"needs about .* GiB in one process .* but a worker has 0.0 GiB"):
        predict_cube(make_cube(), make_bundle(), **OPTIONS)


def test_the_tile_does_not_depend_on_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle().with_reach(Reach(stride=1, radius=5, depends_on_tile=False))
    cube = make_cube((3000, 10))
    memory = psutil.virtual_memory()
    plans = []
    for free in (memory.total, 2**30):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: memory._replace(available=free))
        plans.append(predict_cube(cube.chunk(y=500), bundle).attrs["plan"])
    assert plans[0] == plans[1]
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory._replace(available=2**20))
    with pytest.raises(MemoryPlanError, match=r"a worker has 0\.0 GiB"):
        predict_cube(cube.chunk(y=500), bundle)


@pytest.mark.parametrize(
    "stored",
    [
        lambda red: np.asfortranarray(red),
        lambda red: red.astype(">u2"),
        lambda red: red.astype(">f4"),
        lambda red: red[::-1].copy()[::-1],
        lambda red: red.astype(np.float64),
        lambda red: red.astype(np.int64),
        lambda red: red.astype(np.uint64),
        lambda red: da.from_array(red, chunks=((20, 0, 40), (80,))),
        lambda red: da.from_array(red.astype(">u2"), chunks=(25, 33)),
        lambda red: np.lib.stride_tricks.as_strided(red, writeable=False),
    ],
    ids=["fortran", "big-endian", "big-endian float", "reversed", "float64", "int64", "uint64", "empty chunk", "lazy", "read-only"],
)  # fmt: skip
def test_how_pixels_lie_in_memory_changes_nothing(stored: Callable[[np.ndarray], object], tmp_path: Path) -> None:
    cube, bundle = make_cube(), make_bundle()
    expected = predict_cube(cube, bundle, **OPTIONS)
    other = cube.assign(red=cube["red"].copy(data=stored(cube["red"].values)))
    found = predict_cube(other, bundle, **OPTIONS).compute()
    np.testing.assert_array_equal(found["probability"], expected["probability"])
    write_cube(other, tmp_path / "cube.zarr")
    np.testing.assert_array_equal(open_cube(tmp_path / "cube.zarr")["red"], cube["red"])


def test_auto_uses_the_stored_reach() -> None:
    bundle = make_bundle().with_reach(Reach(stride=1, radius=5, depends_on_tile=False))
    tiling = json.loads(predict_cube(make_cube(), bundle).attrs["plan"])["tiling"]
    assert (tiling["overlap"], tiling["trim"]) == (10, 5)
    whole = make_bundle().with_reach(Reach(stride=1, radius=16, depends_on_tile=True))
    tiling = json.loads(predict_cube(make_cube(), whole).attrs["plan"])["tiling"]
    assert (tiling["tile"], tiling["overlap"]) == (32, 8)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (torch.nan, r"returned NaN or infinity for a tile in pixels .*precision='float32'"),
        (-0.02, r"in 0..1; it returned -0.02..0.5 for a tile in pixels"),
        (1.5, r"in 0..1; it returned 0.5..1.5 for a tile in pixels"),
    ],
)
def test_what_is_no_probability_is_an_error_and_no_map(wrong: float, told: str) -> None:
    """Also in a later tile than the first; below 0 it would become the number of nodata."""

    class Overflowing(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            bright = batch[:, :1].amax((2, 3), keepdim=True) > 5  # one tile only, and not the first
            return torch.where(bright, wrong, 0 * batch[:, :1] + 0.5)

    cube = make_cube()
    cube["red"].values[:] = 1000
    cube["red"].values[50, 70] = 60000
    with pytest.raises(BundleError, match=told):
        predict_cube(cube, make_bundle(module=Overflowing(), activation="none"), **OPTIONS)


def test_a_backend_that_answers_otherwise_than_eager_makes_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: torch.nn.Module, *, n_layers: int, tile: int) -> object:
        return lambda batch: model(batch) + 1

    monkeypatch.setattr("rtsx.model.network.open_openvino", wrong)
    bundle = make_bundle(module=Smooth(0.7))
    with pytest.raises(BundleError, match=r"backend='openvino' answers up to .* Run it with backend='eager'"):
        predict_cube(make_cube(), bundle, **(OPTIONS | {"backend": "openvino"}))


def test_members_cannot_be_kept_under_the_greatest() -> None:
    with pytest.raises(PlanError, match=r"keep_members cannot go with blend='max'"):
        predict_cube(make_cube(), [make_bundle(), make_bundle()], blend="max", keep_members=True, **OPTIONS)


def test_a_network_that_makes_tensors_of_its_own_can_be_planned() -> None:
    class Coordinates(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch[:, :1] + torch.linspace(0, 1, batch.shape[-1])

    found = predict_cube(make_cube(), make_bundle(module=Coordinates()), **OPTIONS)
    assert found["valid"].all()


def test_a_prediction_says_where_its_lattice_begins() -> None:
    assert predict_cube(make_cube(), make_bundle(), **OPTIONS).attrs["lattice_origin"] == [300.0, 900.0]
    cell = make_cube().assign_attrs(lattice_origin=[0.0, 0.0])
    assert predict_cube(cell, make_bundle(), **OPTIONS).attrs["lattice_origin"] == [0.0, 0.0]


def test_pixels_of_another_size_are_warned_of_unless_a_scale_makes_up_for_it() -> None:
    cube = make_cube()  # 3 m
    with pytest.warns(
        PixelSizeWarning,
        match=r"has learnt pixels of 10 m, and the cube has 2.99 m .*resolution of 10 m of EPSG:32608",
    ):
        predict_cube(cube, make_bundle(pixel_m=10.0, id="coarse"), **OPTIONS)
    degrees = cube.assign_coords(x=-135 + cube["x"] * 2e-5, y=60 + cube["y"] * 1e-5).drop_vars("spatial_ref")
    degrees = degrees.rio.write_crs("EPSG:4326")
    with pytest.warns(PixelSizeWarning, match=r"at a resolution of \S+ by \S+ degrees of EPSG:4326\."):
        predict_cube(degrees, make_bundle(pixel_m=10.0, id="coarse"), **OPTIONS)
    predict_cube(cube, make_bundle(pixel_m=6.0), scales=(1.0, 0.5), **OPTIONS)
    predict_cube(cube, make_bundle(pixel_m=3.1), **OPTIONS)


def test_members_that_have_chosen_differently_are_warned_of() -> None:
    one, other = make_bundle(id="a", threshold=0.2), make_bundle(id="b", threshold=0.9)
    with pytest.warns(
        EnsembleWarning, match=r"\('a': threshold 0.2; 'b': threshold 0.9\). For their mean .* the first"
    ):
        assert predict_cube(make_cube(), [one, other], **OPTIONS).attrs["threshold"] == 0.2
    outlined = make_bundle(id="a", threshold=0.2, outlines=OutlineChoice(threshold=0.4, min_area_m2=300.0))
    with pytest.warns(
        EnsembleWarning, match=r"'a': threshold 0.2; 'a': threshold 0.2, outlines from 0.4, at least 300"
    ):
        predict_cube(make_cube(), [one, outlined], **OPTIONS)
    predict_cube(make_cube(), [one, one], **OPTIONS)  # a warning is an error here


@pytest.mark.parametrize(
    "options", [OPTIONS, OPTIONS | {"blend": "crop"}, {"tile": "bundle", "overlap": "bundle", "trim": 2}, {"tile": 64}]
)
@pytest.mark.parametrize("window", [np.s_[20:37, 41:66], np.s_[:9, -12:], np.s_[-5:, :3], np.s_[:, :]])
@pytest.mark.parametrize("is_lazy", [False, True])
def test_a_window_is_cut_from_the_whole(options: dict[str, object], window: tuple[slice, slice], is_lazy: bool) -> None:
    cube, bundle = make_cube((90, 110)).assign_attrs(lattice_origin=[0.0, 1200.0]), make_bundle()
    whole = predict_cube(cube, bundle, **options)
    part = predict_cube(cube.chunk(y=40, x=30) if is_lazy else cube, bundle, window=window, **options)
    xr.testing.assert_equal(part.compute(), whole.isel(y=window[0], x=window[1]))
    assert part.attrs["lattice_origin"] == whole.attrs["lattice_origin"]
    assert part.odc.geobox == whole.odc.geobox[window]
    transform = [float(number) for number in part.spatial_ref.attrs["GeoTransform"].split()]
    assert transform == list(whole.odc.geobox[window].affine.to_gdal())


@pytest.mark.parametrize("is_lazy", [False, True])
def test_a_window_runs_the_tiles_that_cover_it_and_no_others(is_lazy: bool, ran: list[int]) -> None:
    cube, bundle, window = make_cube((300, 300)), make_bundle(), np.s_[130:190, 150:210]
    options = OPTIONS | {"tile": 160, "overlap": 32, "device": "cpu"}
    whole = PredictionPlan.from_json(predict_cube(cube.chunk(), bundle, **options).attrs["plan"]).tiling
    predict_cube(cube.chunk(y=64, x=64) if is_lazy else cube, bundle, window=window, **options).compute()
    assert len(ran) == len(whole.tiles_covering(window)) < len(whole)


def test_the_tile_of_a_window_is_the_cheapest_for_it(ran: list[int]) -> None:
    cube = make_cube((2000, 2000)).chunk(y=500, x=500)
    bundle = make_bundle(stride=32, tile=256, overlap=64).with_reach(Reach(stride=32, radius=20, depends_on_tile=False))
    whole, part = (
        predict_cube(cube, bundle, backend="eager", window=window) for window in (None, np.s_[900:1300, 700:1100])
    )
    tiles = [json.loads(found.attrs["plan"])["tiling"]["tile"] for found in (whole, part)]
    assert tiles[0] > 1000
    assert tiles[1] < 600
    same = part["probability"].compute()
    assert 0 < sum(side**2 for side in ran) < 8 * 400**2
    xr.testing.assert_equal(same, whole["probability"].isel(y=slice(900, 1300), x=slice(700, 1100)).compute())


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sides of the tiles that have been run."""
    sides: list[int] = []

    def noting(parts: Sequence[tuple[BlockRun, Sequence[Tile]]], size: int) -> None:
        sides.extend(tile.size for _, tiles in parts for tile in tiles)
        run_batch(parts, size)

    monkeypatch.setattr("rtsx.inference.runner.run_batch", noting)
    monkeypatch.setattr("rtsx.inference.device._HUBS", {})  # whose batches have what they were made with
    return sides


@pytest.mark.parametrize("window", [np.s_[10:10, :], np.s_[:, 200:300], np.s_[::2, :], np.s_[30:20, 5:9]])
def test_a_window_without_a_pixel_is_refused(window: tuple[slice, slice]) -> None:
    with pytest.raises(PlanError, match=r"90 x 110 px.*such as slice\(0, 400\)"):
        predict_cube(make_cube((90, 110)), make_bundle(), window=window, **OPTIONS)


@pytest.mark.parametrize("window", [400, (slice(0, 4),), "0:4", ((0, 4), (0, 4))])
def test_a_window_of_another_type_is_refused(window: object) -> None:
    with pytest.raises(PlanError, match="window"):
        predict_cube(make_cube(), make_bundle(), window=window, **OPTIONS)
