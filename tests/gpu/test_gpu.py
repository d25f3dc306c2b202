"""What is claimed of a GPU, on a GPU: `python -m benchmarks gpu` runs it first of all."""

import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray

from benchmarks.scene import LAYERS, make_bundle, make_cube, make_unet
from rtsx import ModelBundle, predict_cube
from rtsx.inference import kernel
from rtsx.inference.device import _HUBS, Hardware
from rtsx.model.metadata import Reach

# Asked when it runs, because a process that was forked from one that has asked cannot use a GPU.
pytestmark = pytest.mark.skipif("not torch.cuda.is_available()", reason="needs a GPU, and torch sees none")

PLAN = {"tile": 256, "overlap": 64, "trim": 0, "backend": "eager", "device": "cuda", "batch_size": 4}
"""Small batches, so that the scene takes several, and both threads of the card."""


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return make_bundle(make_unet()).with_reach(Reach(stride=32, radius=64, depends_on_tile=False))


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return make_cube(1024).load()


@pytest.fixture
def share() -> Iterator[None]:
    """All of the card again, whatever a test has left."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
    _HUBS.clear()


def probability(cube: xr.Dataset, bundle: ModelBundle, **options: object) -> NDArray[np.generic]:
    return np.asarray(predict_cube(cube, bundle, **(PLAN | {"dtype": "float32"} | options)).probability)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_stored_dtype_is_predicted_as_on_a_cpu(bundle: ModelBundle, cube: xr.Dataset, dtype: str) -> None:
    """Casts, masks and mirrored edges; float32 is float32, not TF32, which is off by about 1e-3."""
    small = cube.isel(y=slice(0, 300), x=slice(0, 300)).copy(deep=True)
    for name in LAYERS:
        values = (small[name].values % 250).astype(dtype)
        small[name] = small[name].dims, values, {"scale_factor": 1 / 250, "_FillValue": values.dtype.type(0)}
    found = probability(small, bundle, precision="float32")
    expected = probability(small, bundle, precision="float32", device="cpu")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Batches:
    """Counts batches by the thread that runs them; the `full`-th finds no memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: Counter[str] = Counter()
        self.full = 0
        self._real = kernel.forward_tiles
        monkeypatch.setattr(kernel, "forward_tiles", self)

    def __call__(self, *given: Any, **how: Any) -> torch.Tensor:
        self.of[threading.current_thread().name] += 1
        if self.of.total() == self.full:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._real(*given, **how)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_chunks_and_threads_change_no_bit(
    bundle: ModelBundle, cube: xr.Dataset, precision: str, batches: Batches
) -> None:
    whole = probability(cube, bundle, precision=precision)
    for chunk, scheduler in ((256, "synchronous"), (300, "threads"), (1024, "threads"), (256, "threads")):
        with dask.config.set(scheduler=scheduler, num_workers=8):
            np.testing.assert_array_equal(probability(cube.chunk(y=chunk, x=chunk), bundle, precision=precision), whole)
    assert len(batches.of) == 2, "both threads, each with a stream and plans of cuDNN of its own"


def test_memory_that_ends_once_changes_no_bit(bundle: ModelBundle, cube: xr.Dataset, batches: Batches) -> None:
    whole = probability(cube, bundle)
    batches.full = batches.of.total() + 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = probability(cube.chunk(y=512, x=512), bundle)
    assert batches.of.total() > batches.full
    np.testing.assert_array_equal(found, whole)


def test_a_small_share_of_the_card_is_enough(bundle: ModelBundle, cube: xr.Dataset, share: None) -> None:
    """Batches are halved until they fit, with a warning each; the values stay, but for their last bits."""
    expected = probability(cube, bundle, precision="float32")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    _HUBS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = probability(cube, bundle, precision="float32", batch_size=64)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_memory_does_not_grow_from_block_to_block(bundle: ModelBundle) -> None:
    """Two streams keep what they free, and no more."""
    reserved = []
    for rows in (1024, 4096):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        probability(make_cube(rows).isel(x=slice(0, 1024)), bundle, tile=512, overlap=128)
        reserved.append(torch.cuda.max_memory_reserved())
    assert reserved[1] < 1.3 * reserved[0]


def test_the_host_waits_once_for_a_block(bundle: ModelBundle, cube: xr.Dataset) -> None:
    probability(cube, bundle)  # weights of tiles are there then
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        probability(cube, bundle)
    waits = sum(event.count for event in profiled.key_averages() if event.key == "cudaStreamSynchronize")
    assert 1 <= waits <= 8, "one block of 2048 px, and its finite check"


def test_a_compiled_network_has_one_shape(bundle: ModelBundle, cube: xr.Dataset) -> None:
    expected = probability(cube, bundle, precision="float32")
    np.testing.assert_allclose(
        probability(cube.chunk(y=300, x=300), bundle, precision="float32", backend="compile"), expected, atol=1e-3
    )


def test_the_card_is_known_by_its_name() -> None:
    hardware = Hardware.of(torch.device("cuda", 0))
    assert hardware.name == torch.cuda.get_device_name(0)
    assert hardware.memory_bytes > 2**30


POISONED = """
import torch
from rtsx.storage.retry import LOST_GPU
try:
    torch.ones(1, device="cuda")[torch.tensor([9], device="cuda")].cpu()
except Exception as error:
    assert LOST_GPU.search(str(error)), error
    print("recognised")
"""


def test_a_context_that_is_lost_is_recognised() -> None:
    """In a process of its own, because nothing can use the GPU in it afterwards."""
    done = subprocess.run([sys.executable, "-c", POISONED], capture_output=True, text=True, timeout=120, check=False)
    assert "recognised" in done.stdout, done.stderr
