"""The batch that shrinks when the device runs out of memory, and the slots of a device."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtsx.inference.blocks import BlockPlan
from rtsx.inference.device import BatchSize, default_batch_size, from_device, on_device, to_device
from rtsx.inference.kernel import BlockInput, EnsembleMember, run_tiles
from rtsx.inference.plan import PredictionPlan
from rtsx.inference.runner import Runner
from rtsx.model.inputs import InputLayer, Packing
from rtsx.model.network import StubNetwork, run_in_torch_thread
from rtsx.tiling import TilePlan

TILING = TilePlan(shape=(64, 64), tile=16, overlap=8, trim=0, stride=4)
PLAN = PredictionPlan(
    tiling=TILING,
    layers=("red",),
    classes=("target",),
    threshold=0.5,
    exclusive=False,
    members=("digest",),
    augment=("identity",),
    scales=(1.0,),
    merge="mean",
    keep_members=False,
    dtype="uint8",
)


def window() -> BlockInput:
    red = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    everything = (slice(0, 64), slice(0, 64))
    return BlockInput(
        region=everything, stored={"red": red}, packings={"red": Packing()}, valid=np.ones((64, 64), bool)
    )


class SmallDevice(StubNetwork):
    """A device on which only so many tiles fit at once."""

    def __init__(self, capacity: int) -> None:
        super().__init__(lambda batch: batch)
        self.capacity = capacity
        self.refused: list[int] = []

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.capacity:
            self.refused.append(len(batch))
            raise torch.OutOfMemoryError("no room")
        return super().__call__(batch)


def answer(network: StubNetwork, size: BatchSize) -> np.ndarray:
    member = EnsembleMember(network=network, inputs=(InputLayer(name="red"),), fill=0.0)
    values = run_tiles(window(), TILING.all, plan=PLAN, members=[member], batch_size=size).values
    assert values is not None
    return values


def test_out_of_memory_halves_the_batch_once_per_size_and_loses_nothing() -> None:
    roomy, tight = StubNetwork(lambda batch: batch), SmallDevice(capacity=3)
    size = BatchSize(16)
    with pytest.warns(RuntimeWarning) as caught:
        found = answer(tight, size)
    expected = [f"out of memory at {n} tiles of 16 px; going on with {n // 2}" for n in (16, 8, 4)]
    assert all(text in str(warning.message) for text, warning in zip(expected, caught, strict=True))
    assert tight.refused == [16, 8, 4]
    assert size.size == 2
    assert tight.n_tiles == len(TILING)
    np.testing.assert_array_equal(found, answer(roomy, BatchSize(5)))


def test_a_single_tile_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MemoryError, match=r"no memory for a single tile of 16 px. Take a smaller tile"):
        answer(SmallDevice(capacity=0), BatchSize(1))


def test_two_threads_at_one_wall_halve_once() -> None:
    size = BatchSize(8)
    with pytest.warns(RuntimeWarning, match="at 8 tiles"):
        size.halve(8, tile=16, cause=torch.OutOfMemoryError())
    size.halve(8, tile=16, cause=torch.OutOfMemoryError())  # a second warning would fail the test
    assert size.size == 4


def test_a_cpu_runs_blocks_in_the_torch_thread() -> None:
    ran = on_device(torch.device("cpu"), threading.get_ident)
    assert ran == run_in_torch_thread(threading.get_ident) != threading.get_ident()


def test_a_window_without_a_valid_pixel_does_not_queue_for_the_device() -> None:
    full = window()
    empty = replace(full, valid=np.zeros_like(full.valid))
    runner = Runner(
        plan=PLAN, bundles=(), packings=full.packings, device="cpu", precision="float32", backend="eager", batch_size=1
    )
    begun, go_on = threading.Event(), threading.Event()

    def busy() -> bool:
        begun.set()
        return go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(run_in_torch_thread, busy)
        begun.wait(60)
        try:
            assert pool.submit(runner.run, empty, TILING.all).result(timeout=30).values is None
        finally:
            go_on.set()
        assert other.result()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "bool", ">u2", ">f4"])
def test_every_stored_dtype_makes_the_trip(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    array.flags.writeable = False
    there = to_device(array, torch.device("cpu"))
    np.testing.assert_array_equal(from_device(there), array)


def test_batches_fit_the_device() -> None:
    assert default_batch_size(torch.device("cpu"), tile=256) == 1
    assert default_batch_size(torch.device("cuda"), tile=1024) == 16
    assert default_batch_size(torch.device("cuda"), tile=256) == 64
    assert default_batch_size(torch.device("cuda"), tile=8192) == 1


def test_block_plan_reads_what_its_tiles_see() -> None:
    blocks = BlockPlan(tiling=TILING, chunks=((40, 24), (10, 54)))
    seen = [tile.index for block in blocks for tile in TILING.tiles(block.tiles)]
    assert sorted(seen) == sorted(tile.index for tile in TILING)
    assert blocks.largest_read >= max(
        (b.read[0].stop - b.read[0].start) * (b.read[1].stop - b.read[1].start) for b in blocks if b.read
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_answer() -> None:
    network = StubNetwork(lambda batch: batch.sigmoid(), device="cuda")
    on_cpu = answer(StubNetwork(lambda batch: batch.sigmoid()), BatchSize(4))
    on_gpu = answer(network, BatchSize(4))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=8)
