"""The batch that shrinks when the device runs out of memory, and the slots of a device."""

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rtsx.inference import kernel
from rtsx.inference.blocks import BlockPlan
from rtsx.inference.device import (
    _WINDOWS,
    BatchSize,
    default_batch_size,
    from_device,
    on_device,
    to_device,
    window_slot,
)
from rtsx.inference.kernel import BlockInput, EnsembleMember, run_tiles
from rtsx.inference.plan import PredictionPlan
from rtsx.inference.runner import Runner
from rtsx.model import network as network_room
from rtsx.model.inputs import InputLayer, Packing
from rtsx.model.network import Network, StubNetwork, run_in_torch_thread
from rtsx.tiling import TilePlan

CPU = torch.device("cpu")
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


def answer(network: Network, size: BatchSize, *, device: torch.device = CPU) -> np.ndarray:
    member = EnsembleMember(network=network, inputs=(InputLayer(name="red"),), fill=0.0)
    values = on_device(
        device,
        lambda: run_tiles(window(), TILING.all, plan=PLAN, members=[member], batch_size=size.size),
        shrink=lambda error: size.halve(size.size, tile=TILING.tile, cause=error),
    ).values
    assert values is not None
    return values


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device of its own threads, which computes on the CPU."""
    for name in ("set_device", "set_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda given: given)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    device = torch.device("cuda", 0)
    yield device
    if (pool := network_room._POOLS.pop(device, None)) is not None:
        pool.shutdown()


def test_out_of_memory_halves_the_batch_once_per_size_and_loses_nothing() -> None:
    roomy, tight = StubNetwork(lambda batch: batch), SmallDevice(capacity=3)
    size = BatchSize(16)
    with pytest.warns(RuntimeWarning) as caught:
        found = answer(tight, size)
    expected = [f"out of memory at {n} tiles of 16 px; going on with {n // 2}" for n in (16, 8, 4)]
    assert all(text in str(warning.message) for text, warning in zip(expected, caught, strict=True))
    assert tight.refused == [16, 16, 8, 4]  # the first once more, as the memory may have been another block's
    assert size.size == 2
    np.testing.assert_array_equal(found, answer(roomy, BatchSize(5)))


def test_a_single_tile_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MemoryError, match=r"no memory for a single tile of 16 px. Take a smaller tile"):
        answer(SmallDevice(capacity=0), BatchSize(1))


@pytest.mark.parametrize("stage", ["_prepared", "_batch", "_blend", "from_device", "to_device"])
@pytest.mark.parametrize(
    "said", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory")]
)
def test_memory_may_end_anywhere_in_a_block(monkeypatch: pytest.MonkeyPatch, stage: str, said: Exception) -> None:
    expected, size = answer(StubNetwork(lambda batch: batch), BatchSize(8)), BatchSize(8)
    real, errors = getattr(kernel, stage), [said]

    def once(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(kernel, stage, once)
    np.testing.assert_array_equal(answer(StubNetwork(lambda batch: batch), size), expected)
    assert size.size == 8


def test_what_a_failed_block_held_is_free_when_it_is_run_again() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        if not held:
            activations = torch.zeros(10)
            held.append(weakref.ref(activations))
            raise RuntimeError("CUDA error: out of memory")
        assert held[0]() is None
        return batch

    network = network_room.ProbabilityNetwork(
        forward, device=CPU, backend="eager", n_layers=1, classes=("a",), activation="none", temperature=1
    )
    gc.disable()
    try:
        answer(network, BatchSize(8))
    finally:
        gc.enable()
    assert held


def test_other_errors_are_not_tried_again() -> None:
    network = StubNetwork(lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer(network, BatchSize(8))
    assert network.n_calls == 1


def test_memory_that_another_block_holds_is_waited_for(gpu: torch.device) -> None:
    """The batch stays as it is, because a smaller one is not needed and may answer with other bits."""
    begun, failed, go_on = threading.Event(), threading.Event(), threading.Event()

    def other() -> bool:
        begun.set()
        return go_on.wait(60)

    class Full(StubNetwork):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            if not go_on.is_set():
                failed.set()
                raise torch.OutOfMemoryError("the other block has it all")
            return super().__call__(batch)

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(on_device, gpu, other, shrink=lambda error: None)
        assert begun.wait(60)
        size, network = BatchSize(1), Full(lambda batch: batch)
        waiting = pool.submit(answer, network, size, device=gpu)
        assert failed.wait(60)
        go_on.set()
        assert holding.result(timeout=60)
        np.testing.assert_array_equal(
            waiting.result(timeout=60), answer(StubNetwork(lambda batch: batch), BatchSize(8))
        )
    assert size.size == 1


def test_blocks_that_both_run_out_of_memory_take_turns(gpu: torch.device) -> None:
    together = threading.Barrier(2, timeout=60)
    inside, most = [0], [0]

    def work() -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            if not alone[0]:
                together.wait()
                alone_after.append(1)
                raise torch.OutOfMemoryError("two are too many")
            return inside[0]
        finally:
            inside[0] -= 1

    alone, alone_after = [False], list[int]()

    def run() -> int:
        def once() -> int:
            if len(alone_after) == 2:
                alone[0] = True
            return work()

        return on_device(gpu, once, shrink=lambda error: pytest.fail("nothing has to shrink"))

    with ThreadPoolExecutor(2) as pool:
        assert [each.result(timeout=60) for each in [pool.submit(run), pool.submit(run)]] == [1, 1]
    assert most == [2]


def test_a_third_window_is_ready_while_a_gpu_computes_two() -> None:
    device = torch.device("cuda", 9)
    with window_slot(device), window_slot(device), window_slot(device):
        assert not _WINDOWS[device].acquire(blocking=False)


def test_views_are_pinned_without_what_lies_between_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    wide = np.arange(1000.0).reshape(10, 100)
    to_device(wide[:, 10:20], torch.device("meta"))
    assert pinned[0].is_contiguous()
    assert pinned[0].untyped_storage().nbytes() == 10 * 10 * 8


def test_weights_of_a_tile_go_to_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(StubNetwork(lambda batch: batch), BatchSize(8))
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(kernel.torch, "from_numpy", lambda array: sent.append(array) or torch.tensor(array))
    answer(StubNetwork(lambda batch: batch), BatchSize(8))
    assert {array.ndim for array in sent} == {2}  # layers and validity, no weights


def test_two_threads_at_one_wall_halve_once() -> None:
    size = BatchSize(8)
    with pytest.warns(RuntimeWarning, match="at 8 tiles"):
        size.halve(8, tile=16, cause=torch.OutOfMemoryError())
    size.halve(8, tile=16, cause=torch.OutOfMemoryError())  # a second warning would fail the test
    assert size.size == 4


def test_a_cpu_runs_blocks_in_the_torch_thread() -> None:
    ran = on_device(CPU, threading.get_ident, shrink=lambda error: None)
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
