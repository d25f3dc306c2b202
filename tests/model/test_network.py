"""Networks that are ready to run, their devices, and the threads that run them."""

import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.network import (
    _POOLS,
    Network,
    OpenedNetworks,
    ProbabilityNetwork,
    StubNetwork,
    _lacking_kernels,
    open_network,
    resolve_device,
    resolve_dtype,
    run_in_torch_thread,
    start_in_torch_thread,
    torch_threads,
)
from tests import warm


class ModuleSource:
    """A source of exactly one module, as a bundle made from a module has it."""

    framework = "torch"

    def __init__(self, module):
        self._module = module

    def load_module(self):
        return self._module


def opened(
    module, *, n_layers=3, classes=("slump",), activation="sigmoid", temperature=1.0, precision="auto", device="cpu"
) -> Network:
    return open_network(
        ModuleSource(module),
        n_layers=n_layers,
        classes=classes,
        activation=activation,
        temperature=temperature,
        stride=1,
        tile=16,
        device=device,
        precision=precision,
        backend="eager",
    )


def convolution(n_classes=1, n_layers=3):
    torch.manual_seed(0)
    return torch.nn.Conv2d(n_layers, n_classes, 3, padding=1)


def batch(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_the_sigmoid_is_applied_exactly_once():
    module, tiles = convolution(), batch(2, 3, 16, 16)
    answer = opened(module)(tiles)
    torch.testing.assert_close(answer, module(tiles).detach().sigmoid())
    assert answer.dtype == torch.float32
    assert answer.is_contiguous()
    assert not answer.requires_grad


def test_softmax_runs_over_the_classes():
    module, tiles = convolution(3), batch(2, 3, 16, 16)
    answer = opened(module, classes=("clear", "cloud", "shadow"), activation="softmax")(tiles)
    torch.testing.assert_close(answer, module(tiles).detach().softmax(1))


def test_none_takes_the_networks_own_probabilities():
    module = torch.nn.Sequential(convolution(), torch.nn.Sigmoid())
    tiles = batch(1, 3, 16, 16)
    torch.testing.assert_close(opened(module, activation="none")(tiles), module(tiles).detach())


def test_the_answer_can_be_changed_in_place():
    answer = opened(convolution())(batch(1, 3, 16, 16))
    answer.mul_(0)
    assert answer.max() == 0


def test_logits_without_an_activation_are_refused():
    module = convolution()
    torch.nn.init.constant_(module.bias, 7.0)
    with pytest.raises(BundleError, match=r"has to return probabilities in 0..1; it returned .* Pass activation="):
        opened(module, activation="none")(batch(1, 3, 16, 16))


def test_a_wrong_number_of_classes_is_refused():
    with pytest.raises(
        BundleError, match=r"For 1 classes \['slump'\] .* \(1, 1, 16, 16\); it returned \(1, 2, 16, 16\)"
    ):
        opened(convolution(2))(batch(1, 3, 16, 16))


def test_an_answer_at_another_resolution_is_refused():
    module = torch.nn.Sequential(convolution(), torch.nn.AvgPool2d(2))
    with pytest.raises(BundleError, match="answer at the resolution of its input"):
        opened(module)(batch(1, 3, 16, 16))


def test_nan_from_finite_input_is_refused():
    module = convolution()
    torch.nn.init.constant_(module.bias, float("nan"))
    with pytest.raises(BundleError, match="returned NaN or infinity for finite input"):
        opened(module)(batch(1, 3, 16, 16))


def test_a_wrong_number_of_layers_is_refused():
    with pytest.raises(BundleError, match=r"takes batches \(tile, 3 layers, y, x\); got \(1, 4, 16, 16\)"):
        opened(convolution())(batch(1, 4, 16, 16))


def test_weights_for_other_layers_are_named_with_the_cause():
    with pytest.raises(BundleError, match=r"failed on a batch of shape .* Check its number of layers") as caught:
        opened(convolution(n_layers=5))(batch(1, 3, 16, 16))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [ValueError, AssertionError, KeyError, TypeError, ZeroDivisionError])
def test_whatever_a_network_raises_at_a_tile_is_told_with_the_tile(error):
    class Particular(torch.nn.Module):
        def forward(self, tiles):
            raise error("sides of 64 only")

    with pytest.raises(BundleError, match=r"failed on a batch of shape \(1, 3, 16, 16\) .*sides of 64 only") as caught:
        opened(Particular())(batch(1, 3, 16, 16))
    assert isinstance(caught.value.__cause__, error)


def test_a_network_that_returns_a_dictionary_is_refused():
    class Wrapped(torch.nn.Module):
        def forward(self, tiles):
            return {"out": tiles}

    with pytest.raises(BundleError, match=r"it returned a dict with keys \['out'\]. Wrap it"):
        opened(Wrapped())(batch(1, 3, 16, 16))


def test_each_tile_size_is_checked_anew():
    class OnlySixteen(torch.nn.Module):
        def forward(self, tiles):
            return tiles[:, :1, :16, :16]

    network = opened(OnlySixteen())
    network(batch(1, 3, 16, 16))
    with pytest.raises(BundleError, match="it returned"):
        network(batch(1, 3, 32, 32))


def test_bfloat16_is_close_but_not_equal():
    module, tiles = convolution(), batch(1, 3, 16, 16)
    exact, rounded = opened(module)(tiles), opened(module, precision="bfloat16")(tiles)
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).abs().max()
    assert 0 < difference < 0.02


def test_names_of_devices_and_precisions():
    assert resolve_device("auto").type in {"cpu", "cuda"}
    assert resolve_dtype("auto") == torch.float32
    assert resolve_dtype("float16") == torch.float16
    with pytest.raises(BundleError, match="precision has to be 'auto' or one of"):
        resolve_dtype("float64")
    with pytest.raises(BundleError, match="device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"):
        resolve_device("gpu")


def test_a_gpu_that_is_not_there_is_refused():
    beyond = torch.cuda.device_count()
    with pytest.raises(BundleError, match=rf"device='cuda:{beyond}' was asked for, but torch sees {beyond} GPUs"):
        resolve_device(f"cuda:{beyond}")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch sees two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_90"])
    _lacking_kernels.cache_clear()
    yield
    _lacking_kernels.cache_clear()


@pytest.mark.usefixtures("gpus")
def test_a_gpu_has_a_number() -> None:
    assert resolve_device("auto") == resolve_device("cuda") == resolve_device("cuda:0") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_what_cannot_use_a_gpu_runs_on_the_cpu_by_default(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr("rtsx.model.network.onnx_runs_on_gpus", lambda: False)
    with pytest.warns(RuntimeWarning, match="torch sees a GPU, but .* here run on the CPU"):
        assert resolve_device("auto", backends=[backend]).type == "cpu"
    monkeypatch.setattr("rtsx.model.network.onnx_runs_on_gpus", lambda: True)
    assert resolve_device("auto", backends=["onnx"]).type == "cuda"


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((7, 5), ["sm_75", "sm_120"], True),
        ((8, 9), ["sm_75", "sm_86"], True),
        ((7, 0), ["sm_75", "sm_120"], False),
        ((6, 1), ["sm_75", "compute_75"], False),
        ((12, 1), ["sm_75", "sm_120", "compute_120"], True),
        ((13, 0), ["sm_120", "compute_120"], True),
        ((13, 0), ["sm_90a", "sm_120"], False),
        ((9, 0), ["gfx90a"], True),
        ((9, 0), [], True),
    ],
)
def test_a_gpu_that_torch_is_not_built_for_is_told(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
        return
    with pytest.raises(BundleError, match=r"A card is of compute capability .* is built for .*, or take 'cpu'"):
        resolve_device("cuda:0")
    with pytest.warns(RuntimeWarning, match="A card is of compute capability"):
        assert resolve_device("auto").type == "cpu"


ASKED_FOR_TF32: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "older": lambda: [setattr(part, "allow_tf32", True) for part in (CUDNN, MATMUL)],
    "newer": lambda: [setattr(part, "fp32_precision", "tf32") for part in (CUDNN.conv, MATMUL)],
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}
CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture
def flags_kept() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    CUDNN.allow_tf32 = True


@pytest.mark.usefixtures("flags_kept")
@pytest.mark.parametrize("asked", ASKED_FOR_TF32)
def test_a_gpu_is_used_by_two_threads_with_a_stream_each(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Float32 is float32 there, whatever the user has asked torch for by whichever name, and is what it was afterwards."""
    streams: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams.append(device) or device)
    for name in ("set_device", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda given: given)
    device = torch.device("cuda", 1)
    ASKED_FOR_TF32[asked]()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = _flags_now()

    def work() -> tuple[int, list[object]]:
        # What products and convolutions read, which torch refuses where names say different things.
        assert not torch._C._get_cublas_allow_tf32()
        assert not torch._C._get_cudnn_allow_tf32()
        return threading.get_ident(), _flags_now()

    ran = [start_in_torch_thread(work, device, number % torch_threads(device)).result() for number in range(50)]
    for number in (0, 1):
        _POOLS.pop((device, number)).shutdown()
    assert len({thread for thread, _ in ran}) == len(streams) == 2
    assert all(flags == ["ieee", "ieee", "ieee", True, False, "highest", False] for _, flags in ran)
    assert _flags_now() == before


def _flags_now() -> list[object]:
    """Those that decide whether float32 is float32, and whether it is so again, None where torch refuses to read them."""
    found: list[object] = [CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision, MATMUL.fp32_precision]
    found += [CUDNN.deterministic, CUDNN.benchmark]
    for read in (torch.get_float32_matmul_precision, lambda: CUDNN.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


@pytest.mark.parametrize(
    "said",
    [
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1100'),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0"),
        BundleError(
            "ONNX Runtime failed on tiles (8, 3, 32, 32): Failed to allocate memory for requested buffer of size 8"
        ),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_every_word_for_too_little_memory_is_understood(said: Exception, is_first: bool) -> None:
    full = [is_first]

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        if full[0]:
            raise said
        return tiles

    network = ProbabilityNetwork(
        forward,
        device=torch.device("cpu"),
        backend="eager",
        n_layers=1,
        classes=("a",),
        activation="sigmoid",
        temperature=1,
    )
    if not is_first:
        network(batch(1, 1, 8, 8))
        full[0] = True
    with pytest.raises(torch.OutOfMemoryError):
        network(batch(1, 1, 8, 8))


def test_a_fork_of_a_process_that_uses_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(BundleError, match=r"forked from one that uses a GPU.*'spawn'"):
        resolve_device("cuda")
    assert resolve_device("cpu").type == "cpu"


def test_the_stub_counts_calls_and_tiles():
    stub = StubNetwork(lambda tiles: tiles[:, :1].double())
    stub(batch(3, 2, 8, 8))
    answer = stub(batch(1, 2, 8, 8))
    assert (stub.n_calls, stub.n_tiles, stub.device, answer.dtype) == (2, 4, torch.device("cpu"), torch.float32)


def test_the_network_is_a_probability_network_of_its_backend():
    network = opened(convolution())
    assert isinstance(network, ProbabilityNetwork)
    assert network.backend == "eager"


def test_temperature_divides_the_output_before_the_activation():
    module = convolution()
    batch = torch.randn(2, 3, 16, 16)
    plain, tempered = (opened(module, temperature=t)(batch) for t in (1.0, 2.5))
    torch.testing.assert_close(torch.logit(tempered), torch.logit(plain) / 2.5, atol=1e-4, rtol=1e-4)


TEAM = 5
"""Threads of a team: its master, which Python knows, and others, which it does not."""

SCRIPT = """
import os, sys, threading
import numpy as np, torch, xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
import rtsx
from rtsx.synthetic import demo_bundle_path

def unknown():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

torch.set_num_threads(int(sys.argv[1]))
before = unknown()
geobox = GeoBox((256, 256), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
pixels = np.random.default_rng(0).random((256, 256), np.float32)
bundle = rtsx.ModelBundle.open(demo_bundle_path())
cube = xr.Dataset({name: (("y", "x"), pixels) for name in bundle.layers}).assign_coords(xr_coords(geobox, always_yx=True))
cube = cube.chunk({"y": 128, "x": 128})
rtsx.predict_cube(cube, bundle, backend="eager", tile=128, overlap=32).compute(num_workers=3)
print(unknown() - before)
torch.ones(1024, 1024).add_(1)
print(unknown() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux lists")
def test_opening_and_predicting_start_one_team_of_threads() -> None:
    done = warm.run(SCRIPT, [str(TEAM)])
    assert done.stdout.split() == [str(TEAM - 1), str(2 * (TEAM - 1))], (
        done.stderr
    )  # the second shows that the count sees teams


def test_everyone_is_served_by_one_thread() -> None:
    barrier = threading.Barrier(4)

    def ask(_: int) -> set[int]:
        barrier.wait()
        return {run_in_torch_thread(threading.get_ident) for _ in range(50)}

    with ThreadPoolExecutor(4) as askers:
        assert len(set.union(*askers.map(ask, range(4)))) == 1


def test_what_has_not_begun_is_dropped_with_its_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def busy() -> None:
        begun.set()
        go_on.wait(60)

    result = Future.result

    def interrupted(future: Future[object], *given: float) -> object:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return result(future, *given)

    with ThreadPoolExecutor(1) as asker:
        first = asker.submit(run_in_torch_thread, busy)
        begun.wait(60)
        with monkeypatch.context() as patched:
            patched.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_in_torch_thread(lambda: done.append("too late"))
        go_on.set()
        first.result()
    run_in_torch_thread(int)
    assert done == []


def test_an_error_lets_go_of_what_was_asked() -> None:
    class Large:
        """What work holds."""

    def fail(held: Large) -> None:
        raise ValueError("no")

    large = Large()
    gone = weakref.ref(large)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            run_in_torch_thread(partial(fail, large))
        del large
        run_in_torch_thread(int)  # the thread has let go of the work before
        assert gone() is None
    finally:
        gc.enable()


def test_work_may_ask_again_and_errors_arrive() -> None:
    assert run_in_torch_thread(lambda: run_in_torch_thread(threading.get_ident)) == run_in_torch_thread(
        threading.get_ident
    )
    with pytest.raises(ZeroDivisionError):
        run_in_torch_thread(lambda: 1 // 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    script = """
import os
from rtsx.model.network import run_in_torch_thread
run_in_torch_thread(int)
child = os.fork()
if child == 0:
    run_in_torch_thread(int)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = warm.run(script, [])
    assert done.stdout.strip() == "7", done.stderr


def stub():
    return StubNetwork(lambda batch: batch)


def test_the_network_unused_for_longest_is_dropped():
    networks = OpenedNetworks(limit=2)
    first, second = networks.get("a", stub), networks.get("b", stub)
    assert networks.get("a", stub) is first
    networks.get("c", stub)
    assert networks.get("a", stub) is first
    assert networks.get("b", stub) is not second


def test_many_threads_open_a_network_once():
    networks, opened = OpenedNetworks(limit=2), []

    def open_one():
        opened.append(stub())
        return opened[-1]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: networks.get("a", open_one), range(32)))
    assert len(opened) == 1
    assert all(network is opened[0] for network in found)
