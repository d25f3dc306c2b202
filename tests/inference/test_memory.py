"""Projected memory bounds what a small run takes."""

import json
import weakref

import numpy as np
import pytest
import torch
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx import ModelBundle, predict_cube
from rtsx.errors import BundleError, ClusterError, MemoryPlanError
from rtsx.inference import dask as dask_room
from rtsx.inference import device, memory, predict
from rtsx.inference import runner as runner_room
from rtsx.inference.device import CPU, Hardware
from rtsx.inference.memory import MemoryPlan
from rtsx.model.metadata import Reach
from tests import warm

# In processes of their own, because a peak can only be read once and would be that of other tests.
SCRIPT = """
import json, os, resource, sys
import dask.array as da
import numpy as np, torch, xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
import rtsx
from rtsx.inference import predict

def measure(size, chunk, tile):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 24, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(24, 24, 3, padding=1), torch.nn.Conv2d(24, 1, 1)
    )
    bundle = rtsx.ModelBundle.from_module(network, layers=("a", "b"), mean=[0, 0], std=[1, 1], tile=tile, overlap=32, stride=1)
    geobox = GeoBox((size, size), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    pixels = da.ones((size, size), chunks=chunk, dtype=np.float32)
    cube = xr.Dataset({name: (("y", "x"), pixels) for name in "ab"}).assign_coords(xr_coords(geobox, always_yx=True))

    found = []
    original = predict.require_memory
    predict.require_memory = lambda *given, **more: found.append(original(*given, **more))
    options = {"tile": tile, "overlap": 32, "backend": "eager"}
    small = cube.isel(y=slice(0, 64), x=slice(0, 64))
    rtsx.predict_cube(small, bundle, **options).compute()  # loads what there is to load
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lazy = rtsx.predict_cube(cube, bundle, **options)
    lazy["probability"].data.sum().compute(num_workers=2)  # a sum, so that the answer itself is not kept
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"measured": (after - before) * 1024, "projected": found[-1].total_bytes}))

for case in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        try:
            measure(*case)
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
"""
CASES = [(1024, 512, 256), (1536, 768, 512)]


@pytest.fixture(scope="module")
def peaks() -> dict[tuple[int, ...], dict[str, int]]:
    """What was measured and what was projected, of each case."""
    done = warm.run(SCRIPT, [json.dumps(CASES)])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(CASES), done.stderr[-3000:]
    return dict(zip(CASES, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_projected_memory_bounds_the_measured(
    peaks: dict[tuple[int, ...], dict[str, int]], case: tuple[int, int, int]
) -> None:
    found = peaks[case]
    assert found["measured"] <= found["projected"]
    assert found["projected"] < 20 * max(found["measured"], 2**24), "a bound that is never near refuses what would work"


@pytest.mark.parametrize(("shape", "hardware"), [((512, 640), CPU), ((640, 448), Hardware("GPU"))])
def test_windows_that_wait_for_their_row_are_planned_for(
    shape: tuple[int, int], hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU they are pinned, in powers of two."""
    alive, most = [0], [0]

    def counted(n_bytes: int) -> np.ndarray:
        memory = np.empty(n_bytes, np.uint8)
        taken = device.host_bytes(n_bytes, hardware)
        alive[0] += taken
        most[0] = max(most[0], alive[0])
        weakref.finalize(memory, lambda: alive.__setitem__(0, alive[0] - taken))
        return memory

    plans: list[MemoryPlan] = []
    real = predict.require_memory
    monkeypatch.setattr(predict, "require_memory", lambda *given, **more: plans.append(real(*given, **more)))
    monkeypatch.setattr(predict, "planned_hardware", lambda *given, **more: hardware)
    monkeypatch.setattr(dask_room, "memory_for", lambda device: counted)
    module = torch.nn.Conv2d(1, 1, 1)
    bundle = ModelBundle.from_module(module, layers=("a",), mean=[0], std=[1], tile=64, overlap=16, stride=1)
    geobox = GeoBox(shape, Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    pixels = np.random.default_rng(0).random(shape, np.float32)
    cube = xr.Dataset({"a": (("y", "x"), pixels)}).assign_coords(xr_coords(geobox, always_yx=True)).chunk(y=64, x=64)
    lazy = predict_cube(cube, bundle, tile=64, overlap=16, batch_size=1, backend="eager")
    lazy["probability"].data.compute(scheduler="synchronous")
    assert alive == [0]
    assert plans[0].window_bytes / 3 < most[0] <= plans[0].window_bytes


class Workers:
    """A client whose workers have these devices."""

    asynchronous = False

    def __init__(self, *have: Hardware | str) -> None:
        self.have = {f"tcp://10.0.0.{number}": one for number, one in enumerate(have)}

    def run(self, ask: object, *given: object) -> dict[str, Hardware | str]:
        return self.have


A10, H200 = Hardware("NVIDIA A10", 24 * 2**30), Hardware("NVIDIA H200", 140 * 2**30)


@pytest.mark.parametrize(
    ("device", "have", "refused"),
    [
        ("cuda", [A10, A10], None),
        (
            "auto",
            [A10, CPU],
            r"found CPU at tcp://10.0.0.1; NVIDIA A10 at tcp://10.0.0.0. .* or device='cpu', which all have",
        ),
        ("auto", [A10, H200], r"found NVIDIA A10 at tcp://10.0.0.0; NVIDIA H200 at tcp://10.0.0.1"),
        (
            "cuda",
            [A10, "torch sees 0 GPUs here."],
            r"1 of 2 workers have no device='cuda', such as tcp://10.0.0.1: torch",
        ),
        ("cpu", [A10, CPU], None),
    ],
)
def test_workers_that_would_compute_otherwise_are_refused(
    device: str, have: list[Hardware | str], refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "current_client", lambda: Workers(*have))
    monkeypatch.setattr(memory, "_is_worker", lambda: False)
    if refused is None:
        expected = CPU if device == "cpu" else have[0]
        assert memory.planned_hardware([], device=device, backend="eager") == expected
    else:
        with pytest.raises(ClusterError, match=refused):
            memory.planned_hardware([], device=device, backend="eager")


@pytest.mark.parametrize("device", ["cuda", "cuda:banana"])
def test_a_device_that_is_not_here_is_refused_where_there_are_no_workers(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "current_client", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BundleError, match=f"{device!r}"):
        memory.planned_hardware([], device=device, backend="eager")


def test_a_card_holds_every_block_that_a_batch_is_filled_from() -> None:
    options = {"network_bytes": 2**30, "block_bytes": 2**30, "batch_size": 8, "tile": 512}
    memory.require_card(A10, tiles_per_block=8, **options)
    with pytest.raises(MemoryPlanError, match=r"8 tiles of 512 px needs about 35.0 GiB of NVIDIA A10"):
        memory.require_card(A10, tiles_per_block=0.5, **options)
    memory.require_card(Hardware("GPU"), tiles_per_block=0.5, **options)


def test_a_gpu_is_planned_for_by_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network does not count in the memory of the machine, nor the machine's for the tile."""
    module = torch.nn.Conv2d(1, 1, 1)
    bundle = ModelBundle.from_module(module, layers=("a",), mean=[0], std=[1], tile=64, overlap=16, stride=1)
    bundle = bundle.with_reach(Reach(stride=1, radius=1, depends_on_tile=False))
    monkeypatch.setattr(runner_room, "network_bytes_per_pixel", lambda bundle: 1000)
    tiles = [
        memory.largest_tile([bundle], hardware=hardware, precision="auto", available=2**26)
        for hardware in (CPU, Hardware("small", 2**30), A10)
    ]
    assert tiles[0] < tiles[1] < tiles[2] == 2270
    cube = xr.Dataset({"a": (("y", "x"), np.ones((3000, 3000), np.float32))})
    cube = cube.assign_coords(xr_coords(GeoBox((3000, 3000), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413"), always_yx=True))
    plans = []
    real = predict.require_memory
    monkeypatch.setattr(predict, "require_memory", lambda *given, **more: plans.append(real(*given, **more)))
    for hardware in (CPU, A10, Hardware("NVIDIA Nano", 2**30)):
        monkeypatch.setattr(predict, "planned_hardware", lambda *given, now=hardware, **more: now)
        if hardware.memory_bytes == 2**30:
            with pytest.raises(
                MemoryPlanError,
                match=r"one tile of 2048 px needs .* GiB of NVIDIA Nano, which has 1.0 GiB. Take a smaller tile",
            ):
                predict_cube(cube.chunk(y=2048, x=2048), bundle, tile=2048, overlap=16, device="cuda")
        else:
            predict_cube(cube.chunk(y=2048, x=2048), bundle, tile=1024, overlap=16, device="cuda")
    on_cpu, on_gpu = plans
    assert on_gpu.network_bytes == 0 < on_cpu.network_bytes
