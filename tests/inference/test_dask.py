"""The dask driver: lazy, small in graph, the same on every scheduler."""

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from dask.callbacks import Callback
from dask.core import flatten
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx import ModelBundle, open_cube, predict_cube, write_cube
from rtsx.cube.zarr_cube import StoredPixels
from rtsx.errors import CubeError
from rtsx.inference import kernel
from tests import warm


def make_cube(times: int | None = None, shape: tuple[int, int] = (130, 170)) -> xr.Dataset:
    random = np.random.default_rng(0)
    geobox = GeoBox(shape, Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    leading = () if times is None else (times,)
    dims = ("y", "x") if times is None else ("time", "y", "x")
    red = random.integers(0, 200, (*leading, *shape)).astype(np.uint8)
    layers = {"red": (dims, red, {"_FillValue": 0}), "dem": (("y", "x"), random.random(shape, np.float32))}
    coords = xr_coords(geobox, always_yx=True)
    cube = xr.Dataset(layers).assign_coords(coords)
    return cube if times is None else cube.assign_coords(time=np.arange(times) + 2020)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AvgPool2d(2), torch.nn.Conv2d(2, 1, 3, padding=1), torch.nn.Upsample(scale_factor=2)
    )
    return ModelBundle.from_module(
        network, layers=("red", "dem"), mean=[100, 0.5], std=[50, 0.3], tile=32, overlap=8, stride=2
    )


OPTIONS = {"tile": 32, "overlap": 8, "backend": "eager"}


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("something was computed")


def test_building_a_prediction_computes_nothing(bundle: ModelBundle) -> None:
    with dask.config.set(scheduler=refuse):
        predict_cube(make_cube().chunk(y=50, x=50), bundle, **OPTIONS)


def test_predictions_of_renamed_layers_are_computed_together(bundle: ModelBundle) -> None:
    cube = make_cube().chunk(y=64, x=64)
    swapped = replace(
        bundle, inputs=tuple(replace(one, name={"red": "dem", "dem": "red"}[one.name]) for one in bundle.inputs)
    )
    first = predict_cube(cube, bundle, **OPTIONS)["probability"]
    second = predict_cube(cube.rename(red="dem", dem="red"), swapped, **OPTIONS)["probability"]
    for alone, together in zip((first.compute(), second.compute()), dask.compute(first, second), strict=True):
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("said", "comes", "is_lossy"), [("i2", "f4", True), ("u1", "i2", True), ("f8", "f4", False), ("i4", "i2", False)]
)
def test_pixels_of_another_dtype_than_they_say_are_never_cut_off(
    bundle: ModelBundle, said: str, comes: str, is_lossy: bool
) -> None:
    cube = make_cube().chunk(y=64, x=64)
    cube["dem"] = xr.apply_ufunc(
        lambda one: (10 * one).astype(comes), cube["dem"], dask="parallelized", output_dtypes=[said]
    )
    lazy = predict_cube(cube, bundle, **OPTIONS)["probability"]
    if is_lossy:
        with pytest.raises(
            CubeError, match=f"'dem' says that it is .*{np.dtype(said).name}.* come as {np.dtype(comes).name}"
        ):
            lazy.compute()
    else:
        true = cube.assign(dem=cube["dem"].compute().astype(said))
        np.testing.assert_array_equal(lazy, predict_cube(true, bundle, **OPTIONS)["probability"])


def test_a_numpy_cube_is_answered_at_once(bundle: ModelBundle) -> None:
    found = predict_cube(make_cube(), bundle, **OPTIONS)
    assert isinstance(found["probability"].data, np.ndarray)


def test_chunks_are_those_of_the_cube(bundle: ModelBundle) -> None:
    cube = make_cube().chunk(y=(60, 40, 30), x=(100, 70))
    found = predict_cube(cube, bundle, **OPTIONS)
    for name in ("probability", "binary", "valid"):
        assert found[name].chunks == ((60, 40, 30), (100, 70))


def test_layers_in_other_chunks_and_in_memory_are_brought_together(bundle: ModelBundle) -> None:
    cube = make_cube()
    mixed = cube.assign(red=cube["red"].chunk(y=50, x=60))
    other = cube.assign(red=cube["red"].chunk(y=50, x=60), dem=cube["dem"].chunk(y=33, x=170))
    expected = predict_cube(cube, bundle, **OPTIONS)
    for lazy in (mixed, other):
        found = predict_cube(lazy, bundle, **OPTIONS)
        assert found["probability"].chunks == ((50, 50, 30), (60, 60, 50))
        xr.testing.assert_identical(found.compute(), expected)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_a_forked_process_predicts_after_its_parent_did(bundle: ModelBundle) -> None:
    cube = make_cube().chunk(y=50, x=60)
    expected = predict_cube(cube, bundle, **OPTIONS).compute(scheduler="threads")

    def predict() -> None:
        with dask.config.set(scheduler="threads"):
            xr.testing.assert_identical(predict_cube(cube, bundle, **OPTIONS).compute(), expected)

    child = multiprocessing.get_context("fork").Process(target=predict)
    child.start()
    child.join(120)  # would wait for ever for threads that only the parent has
    child.kill()
    child.join()
    assert child.exitcode == 0


def test_few_tasks_per_chunk(bundle: ModelBundle) -> None:
    cube = make_cube().chunk(y=32, x=32)
    chunks = len(cube["red"].chunks[0]) * len(cube["red"].chunks[1])
    graph = predict_cube(cube, bundle, **OPTIONS)["probability"].__dask_graph__()
    graph = {key for key in graph if not (isinstance(key, tuple) and key[0].startswith("barrier-"))}
    assert len(graph) / chunks < 14


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cube(
        make_cube(), tmp_path_factory.mktemp("stored") / "cube.zarr", chunks=16, shards=32, overviews=False
    )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What is read of stores from now on."""
    found: list[tuple[str, object]] = []
    read = StoredPixels.read_into

    def noted(pixels: StoredPixels, out: np.ndarray, key: tuple[slice, ...]) -> None:
        found.append((pixels.name, key))
        read(pixels, out, key)

    monkeypatch.setattr(StoredPixels, "read_into", noted)
    return found


def test_a_store_is_read_once_by_one_task_per_chunk(
    bundle: ModelBundle, stored: str, reads: list[tuple[str, object]]
) -> None:
    cube = open_cube(stored, chunks=64)
    found = predict_cube(cube, bundle, **OPTIONS)
    assert not reads
    graph = found["probability"].__dask_graph__()
    of_layers = {cube[name].data.name for name in ("red", "dem")}
    assert not [key for key in graph if isinstance(key, tuple) and key[0] in of_layers]
    assert sum(isinstance(key, tuple) and key[0].startswith("read-") for key in graph) == 3 * 3
    xr.testing.assert_equal(found.compute(), predict_cube(make_cube(), bundle, **OPTIONS))
    assert len(reads) == len({(name, str(key)) for name, key in reads}) == 2 * 3 * 3


def test_only_layers_as_they_are_stored_are_read_from_the_store(
    bundle: ModelBundle, stored: str, reads: list[tuple[str, object]]
) -> None:
    """Whatever was done to a layer counts, also where dask leaves its name."""
    expected = predict_cube(make_cube(), bundle, **OPTIONS)
    cube = open_cube(stored, chunks=64)
    kept = cube.persist()
    reads.clear()
    xr.testing.assert_equal(predict_cube(kept, bundle, **OPTIONS).compute(), expected)
    assert not reads
    cube = open_cube(stored, chunks=64)
    darker = cube.assign(red=cube["red"].copy(data=cube["red"].data // 2))
    numpy = make_cube()
    other = predict_cube(numpy.assign(red=numpy["red"].copy(data=numpy["red"].data // 2)), bundle, **OPTIONS)
    xr.testing.assert_equal(predict_cube(darker, bundle, **OPTIONS).compute(), other)
    (optimised,) = dask.optimize(cube)
    pickled = pickle.loads(pickle.dumps(cube))
    for same in (
        optimised,
        pickled,
        cube.chunk(y=50, x=170),
        cube.assign(dem=cube["dem"].copy(data=cube["dem"].values)),
    ):
        xr.testing.assert_equal(predict_cube(same, bundle, **OPTIONS).compute(), expected)
    part = {"y": slice(40, 120), "x": slice(70, 170)}
    cut = predict_cube(cube.isel(part), bundle, **OPTIONS)
    xr.testing.assert_equal(cut.compute(), predict_cube(cube.isel(part).load(), bundle, **OPTIONS))


def test_times_in_a_store_are_read_from_it(
    bundle: ModelBundle, reads: list[tuple[str, object]], tmp_path: Path
) -> None:
    cube = make_cube(times=2)
    stored = open_cube(write_cube(cube, tmp_path / "times.zarr", chunks=16, overviews=False), chunks=64)
    found = predict_cube(stored, bundle, **OPTIONS)
    xr.testing.assert_equal(found.compute(), predict_cube(cube, bundle, **OPTIONS))
    assert [name for name, _ in reads] == 2 * 3 * 3 * [
        "red"
    ]  # the other is the same at all times, and read once for them


@pytest.mark.parametrize("options", [{}, {"blend": "max"}, {"tile": 96, "overlap": 32}, {"tile": 16, "overlap": 0}])
@pytest.mark.parametrize("classes", [1, 3])
def test_what_a_device_quantises_is_what_the_host_does(
    monkeypatch: pytest.MonkeyPatch, classes: int, options: dict[str, object]
) -> None:
    """In all three drivers, with several outputs and with tiles larger and smaller than chunks."""
    torch.manual_seed(1)
    network = torch.nn.Conv2d(2, classes, 3, padding=1)
    names = [f"class{number}" for number in range(classes)]
    activation = "softmax" if classes > 1 else "sigmoid"
    bundle = ModelBundle.from_module(
        network, layers=("red", "dem"), mean=[100, 0.5], std=[50, 0.3], tile=32, overlap=8, stride=2, classes=names,
        activation=activation,
    )  # fmt: skip
    cube = make_cube()
    cube["red"][30:70, 20:100] = 0
    chunked = cube.chunk(y=50, x=60)
    expected = predict_cube(cube, bundle, **OPTIONS | options)
    done = []
    monkeypatch.setattr(kernel, "quantises", lambda device, plan: True)
    there = kernel.quantise_there
    monkeypatch.setattr(kernel, "quantise_there", lambda *given, **how: done.append(given) or there(*given, **how))
    for one in (cube, chunked, cube.chunk(y=130, x=20)):
        xr.testing.assert_identical(predict_cube(one, bundle, **OPTIONS | options).compute(), expected)
    assert done


def test_a_part_is_computed_without_the_rest(bundle: ModelBundle) -> None:
    cube = make_cube(shape=(500, 500)).chunk(y=50, x=50)
    last = predict_cube(cube, bundle, **OPTIONS)["probability"].data.blocks[9, 9]
    (part,) = dask.optimize(last)
    answers = [key for key in part.__dask_graph__() if isinstance(key, tuple) and key[0].startswith("tiles-")]
    assert len(answers) == 4


@pytest.mark.parametrize("batch_size", [1, 9])
@pytest.mark.parametrize("part", [(5, 3), (9, 9)])
def test_a_part_of_an_optimised_prediction_is_computed_without_the_rest(
    bundle: ModelBundle, batch_size: int, part: tuple[int, int]
) -> None:
    """Where batches are filled, with at most what fills those of its four blocks."""
    cube = make_cube(shape=(500, 500)).chunk(y=50, x=50)
    (whole,) = dask.optimize(predict_cube(cube, bundle, **OPTIONS, batch_size=batch_size)["probability"].data)
    (found,) = dask.optimize(whole.blocks[part])
    n_blocks = sum("tiles-" in str(key) for key in found.__dask_graph__())
    assert n_blocks <= (4 if batch_size == 1 else 4 * 4)


def test_threads_wait_for_a_device_in_turn_so_that_the_others_read(bundle: ModelBundle) -> None:
    """One of all blocks whose tiles fill its batches, however many of them are there."""
    cube = make_cube(shape=(500, 500)).chunk(y=50, x=50)
    found = predict_cube(cube, bundle, **OPTIONS, batch_size=40)["probability"].data
    graph = found.__dask_graph__().cull(set(flatten(found.__dask_keys__())))
    needs = graph.get_all_dependencies()
    strips = [key for key in needs if isinstance(key, tuple) and key[0].startswith("strip-")]
    at_once = [key for key in strips if not any(str(one[0]).startswith("waited-") for one in needs[key])]
    assert len(strips) == 361
    assert len(at_once) <= 12  # batches of 40 of 441 tiles


class MostAlive(Callback):
    """Counts the chunks of one layer that are in memory at once."""

    def __init__(self, name: str) -> None:
        self.name, self.most = name, 0
        super().__init__()

    def _posttask(self, key: object, result: object, dsk: object, state: dict[str, object], worker: object) -> None:
        alive = sum(isinstance(held, tuple) and held[0].startswith(self.name) for held in state["cache"])
        self.most = max(self.most, alive)


@pytest.mark.parametrize("chunks", [(12, 12), (5, 20), (20, 5)])
def test_what_waits_in_memory_is_one_row_of_chunks(bundle: ModelBundle, chunks: tuple[int, int]) -> None:
    cube = make_cube(shape=(chunks[0] * 50, chunks[1] * 50)).chunk(y=50, x=50)
    found = predict_cube(cube, bundle, **OPTIONS)
    with dask.config.set(scheduler="synchronous"), MostAlive("read-") as reading:
        dask.compute(found["probability"].data, found["binary"].data, found["valid"].data)
    assert reading.most <= min(chunks) + 4


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_every_scheduler_gives_the_same_bytes(bundle: ModelBundle, scheduler: str) -> None:
    cube = make_cube()
    expected = predict_cube(cube, bundle, **OPTIONS)
    with warm.pools(), dask.config.set(scheduler=scheduler, num_workers=2):
        found = predict_cube(cube.chunk(y=70, x=90), bundle, **OPTIONS).compute()
    xr.testing.assert_identical(found, expected)


def test_distributed_workers_give_the_same_bytes(bundle: ModelBundle) -> None:
    distributed = pytest.importorskip("distributed")
    cube = make_cube()
    expected = predict_cube(cube, bundle, **OPTIONS)
    with (
        # Over TCP, so that all that goes to workers is written out; other processes are the test above.
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster),
    ):
        found = predict_cube(cube.chunk(y=40, x=90), bundle, **OPTIONS).compute()
    xr.testing.assert_identical(found, expected)


def test_times_are_answered_one_by_one_and_static_layers_serve_all(bundle: ModelBundle) -> None:
    cube = make_cube(times=3)
    found = predict_cube(cube.chunk(time=2, y=60, x=60), bundle, **OPTIONS).compute()
    assert found["probability"].dims == ("time", "y", "x")
    assert list(found["time"].values) == [2020, 2021, 2022]
    for step in range(3):
        alone = predict_cube(cube.isel(time=step), bundle, **OPTIONS)
        np.testing.assert_array_equal(found["probability"].isel(time=step), alone["probability"])
    xr.testing.assert_identical(found, predict_cube(cube, bundle, **OPTIONS))


def test_an_error_in_a_block_reaches_the_caller(bundle: ModelBundle) -> None:
    cube = make_cube().chunk(y=50, x=50)
    cube["dem"] = cube["dem"].copy(data=cube["dem"].data.map_blocks(_fail_in_one, dtype=np.float32))
    with pytest.raises(OSError, match="disk is gone"):
        predict_cube(cube, bundle, **OPTIONS).compute()


def _fail_in_one(block: np.ndarray, block_id: tuple[int, ...] | None = None) -> np.ndarray:
    if block_id == (1, 2):
        raise OSError("disk is gone")
    return block
