"""Every backend gives eager's answer; what cannot run says why."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import freezing

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model import ModelBundle, backends
from rtsx.model.backends import (
    can_compile,
    exported_shape,
    fixed_batches,
    open_compiled,
    open_eager,
    single_output,
    uses_batch_statistics,
)
from rtsx.model.exported import TorchScriptSource
from rtsx.model.network import BACKENDS

NEEDS = {"onnx": "onnxscript", "openvino": "openvino"}
LAYERS = ("red", "nir")
OF_A_FILE = {
    "layers": LAYERS,
    "mean": (0, 0),
    "std": (1, 1),
    "classes": ("target",),
    "activation": "sigmoid",
    "tile": 32,
    "overlap": 8,
    "stride": 2,
}
"""What a file of a network does not say itself."""


class Small(torch.nn.Module):
    """A convolution, a normalisation, a way down and up: what backends treat differently."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.down = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.up = torch.nn.ConvTranspose2d(4, 1, 2, stride=2)
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.up(torch.relu(self.norm(self.down(batch))))


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return ModelBundle.from_module(Small(), layers=LAYERS, tile=32, overlap=8, stride=2)


def run(bundle: ModelBundle, backend: str, batch: torch.Tensor) -> torch.Tensor:
    return bundle.network(device="cpu", precision="auto", backend=backend)(batch)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "eager"])
def test_every_backend_agrees_with_eager(bundle: ModelBundle, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend in NEEDS and find_spec(NEEDS[backend]) is None:
        pytest.skip(f"{NEEDS[backend]} is not installed")
    if backend == "compile" and not can_compile(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    left: list[int] = []
    real = freezing.freeze

    def freeze(*given: Any) -> Any:
        frozen = real(*given)
        left.append(len(frozen[1]))
        return frozen

    monkeypatch.setattr(freezing, "freeze", freeze)
    for shape in ((1, 2, 32, 32), (2, 2, 64, 64)):
        batch = torch.rand(shape)
        expected = run(bundle, "eager", batch)
        torch.testing.assert_close(run(bundle, backend, batch), expected, atol=1e-4, rtol=0)
    assert left == ([1, 1] if backend == "compile" else []), (
        "weights are within the kernels, of which tiles are the one input"
    )


def test_what_compiles_is_looked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.model.backends.shutil.which", lambda name: None)
    monkeypatch.setattr("rtsx.model.backends.find_spec", lambda name: name == "triton")
    assert not can_compile(torch.device("cuda"))  # Triton calls a C compiler
    assert not can_compile(torch.device("cpu"))
    with pytest.raises(MissingExtraError, match=r"needs a C\+\+ compiler"):
        open_compiled(Small(), device=torch.device("cpu"), dtype=torch.float32)
    monkeypatch.setattr("rtsx.model.backends.shutil.which", lambda name: name == "gcc")
    assert can_compile(torch.device("cuda"))


class Listed(torch.nn.Module):
    """Has parts in a list, which has no forward, as decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList([Small(), torch.nn.Conv2d(1, 1, 1)])

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            batch = part(batch)
        return batch


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_traced_network_computes_in_float32_and_in_one_way(is_frozen: bool) -> None:
    """Its graph says how torch was set when it was traced: with TF32, and with whichever algorithm."""
    module, tiles = Listed().eval(), torch.rand(3, 2, 32, 32)
    traced = torch.jit.trace(module, tiles)
    traced = torch.jit.freeze(traced) if is_frozen else traced
    traced = TorchScriptSource.from_module(traced).load_module()
    forward = open_eager(traced, device=torch.device("cpu"), dtype=torch.float32)
    for _ in range(3):
        torch.testing.assert_close(forward(tiles), module(tiles).detach())
    graph = traced.inlined_graph
    settings = [[one.toIValue() for one in node.inputs()][-4:] for node in graph.findAllNodes("aten::_convolution")]
    assert settings == [[False, True, True, False]] * 3  # benchmark, deterministic, cuDNN, TF32


def test_more_networks_are_compiled_than_torch_compiles_of_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the code of their forward pass; beyond its limit of eight torch would run them uncompiled, without a word."""
    compiled: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    tiles = torch.rand(1, 2, 8, 8)
    for _ in range(9):
        module = torch.nn.Conv2d(2, 1, 1)
        forward = open_compiled(module, device=torch.device("cpu"), dtype=torch.float32)
        torch.testing.assert_close(forward(tiles), module(tiles).detach())
    assert len(compiled) == 9


def test_half_precision_keeps_no_cast_weights() -> None:
    """Autocast keeps them for all threads together, and a GPU has two, whose streams do not wait for each other."""
    seen: list[bool] = []

    class Looking(Small):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_autocast_cache_enabled())
            return super().forward(batch)

    open_eager(Looking(), device=torch.device("cpu"), dtype=torch.bfloat16)(torch.rand(1, 2, 32, 32))
    assert seen == [False]


def test_an_exported_program_moves_with_the_devices_that_it_names() -> None:
    class Position(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(2, 1, 3, padding=1)
            self.scaled = Scaled()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            ramp = torch.arange(batch.shape[-1], dtype=torch.float32, device=batch.device)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):  # a graph within the graph
                ramp = ramp + torch.ones(batch.shape[-1], device=batch.device)
            return self.scaled(self.convolution(batch) + ramp.to("cpu") + torch.tensor([2.0]))

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.tensor([0.5])  # neither parameter nor buffer

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return batch * self.scale

    program = torch.export.export(Position().eval(), (torch.rand(2, 2, 32, 32),))
    moved = backends._moved(program.module(), torch.device("meta"))
    assert moved(torch.empty(2, 2, 32, 32, device="meta")).device.type == "meta"


def test_answers_do_not_share_a_buffer(bundle: ModelBundle) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    first = run(bundle, "openvino", torch.zeros(1, 2, 32, 32))
    kept = first.clone()
    run(bundle, "openvino", torch.ones(1, 2, 32, 32))
    torch.testing.assert_close(first, kept)


@pytest.mark.slow
def test_onnx_files_run_in_both_runtimes(bundle: ModelBundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the onnx extra")
    pytest.importorskip("openvino", reason="needs the openvino extra")
    from rtsx.model.onnx import exported_onnx

    path = tmp_path / "small.onnx"
    path.write_bytes(exported_onnx(Small().eval(), n_layers=2, tile=32))
    opened = ModelBundle.open(path, **OF_A_FILE)
    batch = torch.rand(3, 2, 32, 32)
    expected = run(bundle, "eager", batch)
    for backend in ("auto", "onnx", "openvino"):
        torch.testing.assert_close(run(opened, backend, batch), expected, atol=1e-4, rtol=0)


def test_an_onnx_file_of_fixed_batch_takes_any_number_of_tiles(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    from onnx import TensorProto, helper, numpy_helper, save_model

    network = torch.nn.Conv2d(2, 1, 3, padding=1)
    path = tmp_path / "fixed.onnx"
    weights = [numpy_helper.from_array(one.detach().numpy(), name) for name, one in network.named_parameters()]
    node = helper.make_node("Conv", ["x", "weight", "bias"], ["y"], pads=[1, 1, 1, 1])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, count, 32, 32))
        for name, count in (("x", 2), ("y", 1))
    ]
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], initializer=weights)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    opened = ModelBundle.open(path, **OF_A_FILE)
    batch = torch.rand(3, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run(opened, "onnx", batch), network(batch).sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend has to be 'auto' or one of eager, compile, onnx, openvino; got 'tensorrt'"),
        ({"backend": "openvino", "precision": "bfloat16"}, "backend='openvino' computes in float32"),
        ({"device": "cuda:99"}, "device='cuda:99' was asked for, but torch sees"),
        ({"device": "gpu"}, "device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"),
        ({"precision": "int8"}, "precision has to be 'auto' or one of"),
    ],
)
def test_what_cannot_run_says_why(bundle: ModelBundle, options: dict[str, str], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        bundle.network(**({"device": "cpu", "precision": "auto", "backend": "auto"} | options))


def test_a_missing_library_names_its_extra(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    fresh = ModelBundle.from_module(Small(), layers=LAYERS, tile=64, overlap=8, stride=2)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[openvino\]'"):
        fresh.network(device="cpu", precision="auto", backend="openvino")


CPU = torch.device("cpu")


def normalised():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(2, 1, 3, padding=1), torch.nn.BatchNorm2d(1))


def tiles(n, size=16):
    # A gradient over the batch, so that batch statistics of several tiles differ from those of one.
    return torch.rand(n, 2, size, size, generator=torch.Generator().manual_seed(1)) + torch.arange(n).view(n, 1, 1, 1)


def test_answers_equal_the_module_and_need_no_gradient():
    module = normalised().eval()
    expected = module(tiles(2)).detach()
    raw = open_eager(module, device=CPU, dtype=torch.float32)(tiles(2))
    torch.testing.assert_close(raw, expected)
    assert not raw.requires_grad


def test_batch_statistics_never_mix_tiles():
    module = normalised().train()
    assert uses_batch_statistics(module)
    forward = open_eager(module, device=CPU, dtype=torch.float32)
    together, batch = forward(tiles(3)), tiles(3)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], forward(batch[index : index + 1]))
    assert (module(batch) - together).abs().max() > 0.1  # the module by itself does mix them


def test_normalisation_without_stored_averages_uses_batch_statistics():
    assert uses_batch_statistics(torch.nn.Sequential(torch.nn.BatchNorm2d(1, track_running_stats=False)).eval())
    assert not uses_batch_statistics(normalised().eval())


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")  # files of this kind outlive their writer
def test_torchscript_runs_and_shows_its_batch_statistics():
    module = normalised().eval()
    expected = module(tiles(2)).detach()
    scripted = torch.jit.trace(module, tiles(1))
    torch.testing.assert_close(open_eager(scripted, device=CPU, dtype=torch.float32)(tiles(2)), expected)
    assert not uses_batch_statistics(scripted)
    assert uses_batch_statistics(scripted.train())


def test_an_exported_program_of_fixed_shape_takes_any_number_of_tiles():
    module = normalised().eval()
    program = torch.export.export(module, (tiles(2),)).module()
    assert exported_shape(program) == (2, 16, 16)
    forward = open_eager(program, device=CPU, dtype=torch.float32)
    torch.testing.assert_close(forward(tiles(3)), module(tiles(3)).detach())
    with pytest.raises(BundleError, match="exported for tiles of 16 x 16 px; it got 32 x 32"):
        forward(tiles(1, 32))


def test_an_exported_program_of_free_shape_takes_any_tile():
    module = normalised().eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (tiles(2),), dynamic_shapes=({0: free, 2: free, 3: free},)).module()
    assert exported_shape(program) == (None, None, None)
    forward = open_eager(program, device=CPU, dtype=torch.float32)
    torch.testing.assert_close(forward(tiles(3, 32)), module(tiles(3, 32)).detach())


def test_other_modules_are_bound_to_no_shape():
    assert exported_shape(normalised()) is None


@pytest.mark.parametrize("n_tiles", [1, 3, 4, 9])
def test_fixed_batches_answer_like_one_large_batch(n_tiles):
    sizes = []
    buffer = torch.empty(4, 2, 8, 8)

    def of_four(batch):
        sizes.append(len(batch))
        return torch.mul(batch, 3, out=buffer)  # a backend that hands out the same buffer every time

    tiles = torch.rand(n_tiles, 2, 8, 8)
    assert torch.equal(fixed_batches(of_four, 4)(tiles), tiles * 3)
    assert set(sizes) == {4}
    assert len(sizes) == -(-n_tiles // 4)


def test_several_tensors_are_refused():
    with pytest.raises(BundleError, match=r"has to return one tensor .* it returned a tuple. Wrap it"):
        single_output((torch.ones(1), torch.ones(1)))
