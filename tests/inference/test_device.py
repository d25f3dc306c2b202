"""The batch that shrinks when the device runs out of memory, and the slots of a device."""

import gc
import pickle
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from dask.sizeof import sizeof

from rtsx.errors import ClusterError
from rtsx.inference import device as device_room
from rtsx.inference import kernel
from rtsx.inference.device import (
    _HUBS,
    Batches,
    BatchSize,
    Hardware,
    Pending,
    default_batch_size,
    from_device,
    plain_memory,
    room_for,
    to_device,
)
from rtsx.inference.device import CPU as CPU_HARDWARE
from rtsx.inference.kernel import BlockInput, BlockRun, EnsembleMember, TileSums, run_batch
from rtsx.inference.plan import BlockPlan, PredictionPlan
from rtsx.inference.runner import Runner
from rtsx.model import network as network_room
from rtsx.model.inputs import InputLayer, Packing
from rtsx.model.network import Network, StubNetwork, run_in_torch_thread
from rtsx.tiling import TilePlan, TileRange

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
UNBUNDLED = replace(PLAN, members=())


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


def block_of(network: Network, rows: slice = slice(0, 99)) -> BlockRun:
    member = EnsembleMember(network=network, inputs=(InputLayer(name="red"),), fill=0.0)
    tiles = TileRange(TILING.all.y[rows], TILING.all.x)
    return BlockRun(window(), tiles, plan=PLAN, open_members=lambda: (member,))


def batches_of(size: BatchSize, *, device: torch.device = CPU) -> Batches[BlockRun]:
    return Batches(device, size, tile=TILING.tile, run=run_batch)


def answer(network: Network, size: BatchSize, *, device: torch.device = CPU) -> np.ndarray:
    values = batches_of(size, device=device).submit(block_of(network)).result().values
    assert values is not None
    return values


class Tiles:
    """A block whose tiles are numbers, and what comes of it."""

    def __init__(self, tiles: range, value: object = None) -> None:
        self.tiles, self.value = tiles, value

    def restart(self) -> None:
        """Nothing is on a device."""

    def sums(self) -> object:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device of its own threads, which computes on the CPU."""
    for name in ("set_device", "set_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda given: given)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    device = torch.device("cuda", 0)
    yield device
    _HUBS.pop(device, None)
    for number in (0, 1):
        if (pool := network_room._POOLS.pop((device, number), None)) is not None:
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


def test_a_batch_has_one_shape_and_is_filled_across_blocks() -> None:
    """The network's answer depends on how many tiles come together, as on a GPU."""
    seen: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return batch * (1 - len(batch) / 100)

    network = StubNetwork(forward)
    expected = answer(network, BatchSize(8))
    seen.clear()
    batches = batches_of(BatchSize(8))
    pending = [batches.submit(block_of(network, slice(row, row + 1))) for row in range(len(TILING.all.y))]
    for one in pending:
        region, values = one.result().region, one.result().values
        assert values is not None
        expected[..., region[0], region[1]] -= values
    assert not expected.any()
    assert seen == [8] * -(-len(TILING) // 8)


def test_nothing_runs_before_a_batch_is_full_or_waited_for() -> None:
    network = StubNetwork(lambda batch: batch)
    batches = batches_of(BatchSize(len(TILING) + 1))
    first = batches.submit(block_of(network))
    run_in_torch_thread(int)
    assert network.n_calls == 0
    second = batches.submit(block_of(network))
    np.testing.assert_array_equal(first.result().values, second.result().values)
    assert network.n_calls == 2


def test_what_nobody_waits_for_any_more_is_not_run() -> None:
    network = StubNetwork(lambda batch: batch)
    batches, room = batches_of(BatchSize(100)), room_for(CPU, 5, limit=5)
    dropped = batches.submit(block_of(network), room=room)
    del dropped
    assert batches.submit(block_of(network, slice(0, 1))).result().values is not None
    assert network.n_calls == 1
    room_for(CPU, 5, limit=5).release()


@pytest.mark.parametrize("is_short", [False, True])
def test_pixels_stay_where_they_are_until_the_device_is_waited_for(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    """A GPU copies them late, and again after its memory ended; until then their memory is no other window's."""
    sent: list[int] = []
    failures = [torch.OutOfMemoryError("CUDA out of memory.")] if is_short else []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        if failures:
            raise failures.pop()
        return batch

    def wait(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
        others = [plain_memory(64 * 64 * 4) for _ in range(8)]
        assert not {other.ctypes.data for other in others} & set(sent)
        return from_device(tensors)

    def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
        sent.append(array.ctypes.data)
        return torch.from_numpy(array.copy())

    monkeypatch.setattr(kernel, "to_device", send)
    monkeypatch.setattr(kernel, "from_device", wait)
    block = block_of(StubNetwork(forward))
    red = plain_memory(64 * 64 * 4).view(np.float32).reshape(64, 64)
    red[:] = 0.5
    block.window = replace(block.window, stored={"red": red})
    del red
    alive = weakref.ref(block.window)
    pending = batches_of(BatchSize(4), device=gpu).submit(block)
    del block
    assert pending.result().values is not None
    assert len(sent) == (4 if is_short else 2)
    assert alive() is None


def test_what_is_pending_travels_as_what_came_of_it() -> None:
    pending = batches_of(BatchSize(100)).submit(block_of(StubNetwork(lambda batch: batch)))
    there: Pending[TileSums] = pickle.loads(pickle.dumps(pending))
    np.testing.assert_array_equal(there.result().values, pending.result().values)


def test_what_is_pending_has_the_size_of_what_comes_of_it() -> None:
    pending = batches_of(BatchSize(100)).submit(block_of(StubNetwork(lambda batch: batch)))
    before = sizeof(pending)
    values = pending.result().values
    assert values is not None
    assert values.nbytes < before <= sizeof(pending) + 50 < values.nbytes + 500
    assert sizeof(pending.result()) > values.nbytes


@pytest.mark.parametrize("is_for_good", [False, True])
def test_memory_that_ends_within_a_batch_of_several_blocks_loses_nothing(gpu: torch.device, is_for_good: bool) -> None:
    """Its blocks begin again, those of the other thread as well, as what they hold on the device may be missing."""
    network = StubNetwork(lambda batch: batch)
    expected = answer(network, BatchSize(1))
    failed: list[int] = []

    def failing(batch: torch.Tensor) -> torch.Tensor:
        if network.n_calls > 3 and len(batch) == 6 and (is_for_good or not failed):
            failed.append(6)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return batch

    network = StubNetwork(failing)
    size = BatchSize(6)
    batches = batches_of(size, device=gpu)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pending = [batches.submit(block_of(network, slice(row, row + 1))) for row in range(len(TILING.all.y))]
        for one in pending:
            region, values = one.result().region, one.result().values
            assert values is not None
            expected[..., region[0], region[1]] -= values
    assert not expected.any()
    assert size.size == (3 if is_for_good else 6)
    assert [str(one.message)[:40] for one in caught] == ["The device ran out of memory at 6 tiles "] * is_for_good


def test_memory_that_another_block_holds_is_waited_for(gpu: torch.device) -> None:
    """The batch stays as it is, because a smaller one is not needed and may answer with other bits."""
    begun, failed, go_on = threading.Event(), threading.Event(), threading.Event()

    def other(batch: torch.Tensor) -> torch.Tensor:
        begun.set()
        assert go_on.wait(60)
        return batch

    class Full(StubNetwork):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            if not go_on.is_set():
                failed.set()
                raise torch.OutOfMemoryError("the other block has it all")
            return super().__call__(batch)

    size = BatchSize(1)
    batches = batches_of(size, device=gpu)
    holding = batches.submit(block_of(StubNetwork(other), slice(0, 1)))
    assert begun.wait(60)
    waiting = batches.submit(block_of(Full(lambda batch: batch)))
    assert failed.wait(60)
    go_on.set()
    assert holding.result().values is not None
    np.testing.assert_array_equal(waiting.result().values, answer(StubNetwork(lambda batch: batch), BatchSize(8)))
    assert size.size == 1


def test_an_error_of_one_batch_leaves_the_next_alone(gpu: torch.device) -> None:
    def fail(batch: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such tile")

    batches = batches_of(BatchSize(1), device=gpu)
    bad = [batches.submit(block_of(StubNetwork(fail))) for _ in range(3)]
    good = batches.submit(block_of(StubNetwork(lambda batch: batch)))
    for one in bad:
        with pytest.raises(ValueError, match="no such tile"):
            one.result()
    assert good.result().values is not None


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (torch.cuda, "set_device"),  # a busy card
        (torch.cuda, "empty_cache"),  # one whose context is poisoned
        (device_room, "start_in_torch_thread"),  # no thread is to be had
    ],
)
def test_a_thread_that_fails_ends_what_waits_and_is_tried_again(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    full = [torch.OutOfMemoryError("CUDA out of memory.")]

    def run(parts: object, size: int) -> None:
        if full:
            raise full.pop()

    batches: Batches[Tiles] = Batches(gpu, BatchSize(1), tile=16, run=run)
    # Not `result`, which would wait for ever where this fails.
    with monkeypatch.context() as patch:
        patch.setattr(where, name, mock.Mock(side_effect=RuntimeError("CUDA error: out of order")))
        with pytest.raises(RuntimeError, match="out of order"):
            batches.submit(Tiles(range(1)))._job.result.result(timeout=20)
    assert batches.submit(Tiles(range(1), "fine"))._job.result.result(timeout=20) == "fine"


def test_an_error_of_one_block_leaves_the_others_of_its_batch_alone() -> None:
    ran: list[int] = []

    def run(parts: Sequence[tuple[Tiles, Sequence[int]]], size: int) -> None:
        numbers = [number for _, tiles in parts for number in tiles]
        ran.extend(numbers)
        if 5 in numbers:
            raise ValueError("no such tile")

    batches: Batches[Tiles] = Batches(CPU, BatchSize(4), tile=16, run=run)
    blocks = [
        Tiles(range(2), ValueError("NaN")),
        Tiles(range(2, 5), "first"),
        Tiles(range(5, 6)),
        Tiles(range(6, 8), "last"),
    ]
    pending = [batches.submit(block) for block in blocks]
    for one, said in ((pending[0], "NaN"), (pending[2], "no such tile")):
        with pytest.raises(ValueError, match=said):
            one.result()
    assert [pending[1].result(), pending[3].result()] == ["first", "last"]
    assert ran == [0, 1, 2, 3, 4, 5, 6, 7, 2, 3, 4, 5, 6, 7]


def test_blocks_that_have_begun_are_let_go_where_nobody_waits() -> None:
    ran: list[int] = []
    batches: Batches[Tiles] = Batches(CPU, BatchSize(4), tile=16, run=lambda parts, size: ran.append(len(parts)))
    block = Tiles(range(5))
    alive = weakref.ref(block)
    room = room_for(CPU, 5, limit=5)
    dropped = batches.submit(block, room=room)
    run_in_torch_thread(int)
    assert ran == [1]
    del block, dropped
    assert alive() is None
    room_for(CPU, 5, limit=5).release()  # asking for its room is enough
    assert ran == [1]


def test_batches_that_have_nothing_to_do_are_forgotten() -> None:
    def shared(key: str) -> Batches[Tiles]:
        return Batches.shared(CPU, key, lambda: Batches(CPU, sizes[key], tile=16, run=lambda parts, size: None))

    sizes = {name: BatchSize(4) for name in ("idle", "busy", "shrunk", "new")}
    with pytest.warns(RuntimeWarning, match="at 4 tiles"):
        sizes["shrunk"].halve(4, tile=16, cause=torch.OutOfMemoryError())
    before, pending = {name: shared(name) for name in ("idle",)}, shared("busy").submit(Tiles(range(1)))
    before |= {name: shared(name) for name in ("busy", "shrunk")}
    shared("new")
    assert shared("busy") is before["busy"]
    assert shared("shrunk") is before["shrunk"]
    assert shared("idle") is not before["idle"]
    pending.result()
    assert not _HUBS[CPU].lanes


def test_windows_have_room_by_their_bytes() -> None:
    device = torch.device("cuda", 9)
    first, second = room_for(device, 60, limit=100), room_for(device, 40, limit=100)
    given = threading.Event()

    def ask() -> None:
        room_for(device, 70, limit=100).release()
        given.set()

    asking = threading.Thread(target=ask)
    asking.start()
    second.release()
    second.release()  # once more counts for nothing
    assert not given.wait(0.05)
    first.release()
    assert given.wait(60)
    asking.join()
    room_for(device, 1000, limit=100).release()  # alone, whatever it takes
    del _HUBS[device]


def test_whoever_asks_for_room_lets_what_waits_run() -> None:
    network = StubNetwork(lambda batch: batch)
    batches = batches_of(BatchSize(100))
    pending = batches.submit(block_of(network), room=room_for(CPU, 60, limit=100))
    room_for(CPU, 60, limit=100).release()
    assert network.n_calls == 1
    assert pending.result().values is not None


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


def test_pinned_pixels_are_sent_from_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pytest.fail("copied"))
    sent = list[torch.Tensor]()
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, *, non_blocking: sent.append(tensor) or tensor.clone()
    )
    wide = np.arange(1000, dtype=np.uint16).reshape(10, 100)
    there = to_device(wide[2:7, 10:20], torch.device("meta"))
    assert there.tolist() == wide[2:7, 10:20].tolist()
    assert sent[0].is_contiguous()
    assert sent[0].data_ptr() == wide[2:7, 10:20].ctypes.data


def test_memory_is_used_again_when_nothing_holds_it_and_not_before() -> None:
    held = plain_memory(1000)
    first = plain_memory(2000)
    part = first.view(np.uint16)[3:5]
    place = first.ctypes.data
    del first
    assert plain_memory(2000).ctypes.data != place  # a view of it is left
    part[:] = 7
    del part
    assert plain_memory(1900).ctypes.data == place
    del held
    assert not device_room._Lent._free
    assert not device_room._Lent._lent


def test_sums_are_quantised_alike_in_whole_numbers_and_in_floats() -> None:
    """By the host and where a tensor is, at every tie and beyond one."""
    halves = (np.arange(0, 201) * kernel.ONE // 200).astype(np.int32)
    total = np.unique(np.concatenate([halves + by for by in range(-2, 3)])).clip(0)[None, None, None]
    valid = np.ones(total.shape[-2:], bool)
    valid[0, 5] = False
    found = kernel.quantise(total, valid, plan=PLAN)
    exact = np.minimum(np.rint(total[0, 0].astype(float) * 100 / kernel.ONE), 100)
    np.testing.assert_array_equal(found["probability"], np.where(valid, exact, 255))
    there = kernel.quantise_there(torch.from_numpy(total), torch.from_numpy(valid), plan=PLAN)
    for name, pixels in there.items():
        np.testing.assert_array_equal(pixels.numpy(), found[name])


def test_the_host_waits_for_the_device_once_for_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and mirrored edges are there already; layers and validity go without waiting."""
    answer(StubNetwork(lambda batch: batch), BatchSize(8))
    sent, moved, fetched = list[torch.Tensor](), list[object](), list[object]()
    real, to = kernel.from_device, torch.Tensor.to
    monkeypatch.setattr(kernel.torch, "from_numpy", lambda array: sent.append(array) or torch.tensor(array))
    monkeypatch.setattr(kernel, "from_device", lambda tensor: fetched.append(tensor) or real(tensor))

    def counted(tensor: torch.Tensor, *given: object, **more: object) -> torch.Tensor:
        if any(isinstance(one, torch.device) for one in (*given, *more.values())):
            moved.append(tensor)
        return to(tensor, *given, **more)

    monkeypatch.setattr(torch.Tensor, "to", counted)
    answer(StubNetwork(lambda batch: batch), BatchSize(8))
    assert {array.ndim for array in sent} == {2}
    assert len(moved) == 0
    assert len(fetched) == 1


def test_two_threads_at_one_wall_halve_once() -> None:
    size = BatchSize(8)
    with pytest.warns(RuntimeWarning, match="at 8 tiles"):
        size.halve(8, tile=16, cause=torch.OutOfMemoryError())
    size.halve(8, tile=16, cause=torch.OutOfMemoryError())  # a second warning would fail the test
    assert size.size == 4


def test_a_cpu_runs_blocks_in_the_torch_thread() -> None:
    ran: list[int] = []
    network = StubNetwork(lambda batch: ran.append(threading.get_ident()) or batch)
    answer(network, BatchSize(8))
    assert set(ran) == {run_in_torch_thread(threading.get_ident)} != {threading.get_ident()}
    assert run_in_torch_thread(lambda: answer(network, BatchSize(8))).any()  # which would wait for itself


def test_a_window_without_a_valid_pixel_does_not_queue_for_the_device() -> None:
    full = window()
    empty = replace(full, valid=np.zeros_like(full.valid))
    runner = Runner(
        plan=UNBUNDLED,
        bundles=(),
        packings=full.packings,
        device="cpu",
        precision="float32",
        backend="eager",
        batch_size=1,
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
    np.testing.assert_array_equal(from_device([there])[0], array)


@pytest.mark.parametrize(
    ("hardware", "tile", "size"),
    [
        (CPU_HARDWARE, 256, 1),
        (Hardware("GPU"), 1024, 4),
        (Hardware("GPU"), 256, 64),
        (Hardware("GPU"), 8192, 1),
        (Hardware("large", 80 * 2**30), 1024, 4),
        (Hardware("small", 8 * 2**30), 1024, 3),
    ],
)
def test_batches_fit_the_device(hardware: Hardware, tile: int, size: int) -> None:
    """By all that a card has, so that one kind of card has one arithmetic."""
    assert default_batch_size(hardware, tile=tile, bytes_per_pixel=1000) == size


def test_a_prediction_goes_on_where_it_began_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(
        plan=UNBUNDLED, bundles=(), packings={}, device="cpu", precision="float32", backend="eager", batch_size=1
    )
    runner.require_hardware("CPU")
    with pytest.raises(ClusterError, match=r"found CPU here; NVIDIA A10 where this prediction began. .*device='cpu'"):
        runner.require_hardware("NVIDIA A10")


def test_block_plan_reads_what_its_tiles_see() -> None:
    blocks = BlockPlan(tiling=TILING, chunks=((40, 24), (10, 54)))
    seen = [tile.index for block in blocks for tile in TILING.tiles(block.tiles)]
    assert sorted(seen) == sorted(tile.index for tile in TILING)
    assert blocks.largest_read >= max(
        (b.read[0].stop - b.read[0].start) * (b.read[1].stop - b.read[1].start) for b in blocks if b.read
    )


@pytest.mark.skipif("not torch.cuda.is_available()", reason="needs a GPU")
def test_a_gpu_gives_the_same_answer() -> None:
    network = StubNetwork(lambda batch: batch.sigmoid(), device="cuda")
    on_cpu = answer(StubNetwork(lambda batch: batch.sigmoid()), BatchSize(4))
    on_gpu = answer(network, BatchSize(4))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=8)
