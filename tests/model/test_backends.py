"""Every backend gives eager's answer; what cannot run says why."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model import ModelBundle
from rtsx.model.backends import can_compile, open_compiled
from rtsx.model.network import BACKENDS

NEEDS = {"onnx": "onnxscript", "openvino": "openvino"}
LAYERS = ("red", "nir")


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


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "eager"])
def test_every_backend_agrees_with_eager(bundle: ModelBundle, backend: str) -> None:
    if backend in NEEDS and find_spec(NEEDS[backend]) is None:
        pytest.skip(f"{NEEDS[backend]} is not installed")
    if backend == "compile" and not can_compile(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    for shape in ((3, 2, 32, 32), (1, 2, 32, 32), (2, 2, 64, 64)):
        batch = torch.rand(shape)
        expected = run(bundle, "eager", batch)
        torch.testing.assert_close(run(bundle, backend, batch), expected, atol=1e-4, rtol=0)


def test_what_compiles_is_looked_for_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtsx.model.backends.shutil.which", lambda name: None)
    monkeypatch.setattr("rtsx.model.backends.find_spec", lambda name: name == "triton")
    assert can_compile(torch.device("cuda"))
    assert not can_compile(torch.device("cpu"))
    with pytest.raises(MissingExtraError, match=r"needs a C\+\+ compiler"):
        open_compiled(Small(), device=torch.device("cpu"), dtype=torch.float32)


def test_answers_do_not_share_a_buffer(bundle: ModelBundle) -> None:
    pytest.importorskip("openvino", reason="needs the openvino extra")
    first = run(bundle, "openvino", torch.zeros(1, 2, 32, 32))
    kept = first.clone()
    run(bundle, "openvino", torch.ones(1, 2, 32, 32))
    torch.testing.assert_close(first, kept)


def test_onnx_files_run_in_both_runtimes(bundle: ModelBundle, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the onnx extra")
    pytest.importorskip("openvino", reason="needs the openvino extra")
    from rtsx.model.onnx import exported_onnx

    path = tmp_path / "small.onnx"
    path.write_bytes(exported_onnx(Small().eval(), n_layers=2, tile=32))
    opened = ModelBundle.open(
        path,
        layers=LAYERS,
        mean=(0, 0),
        std=(1, 1),
        classes=("target",),
        activation="sigmoid",
        tile=32,
        overlap=8,
        stride=2,
    )
    batch = torch.rand(3, 2, 32, 32)
    expected = run(bundle, "eager", batch)
    for backend in ("auto", "onnx", "openvino"):
        torch.testing.assert_close(run(opened, backend, batch), expected, atol=1e-4, rtol=0)


def test_an_onnx_file_of_fixed_batch_takes_any_number_of_tiles(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the onnx extra")
    network = Small().eval()
    path = tmp_path / "fixed.onnx"
    program = torch.onnx.export(network, (torch.rand(2, 2, 32, 32),), dynamo=True, verbose=False)
    program.save(str(path))
    opened = ModelBundle.open(
        path,
        layers=LAYERS,
        mean=(0, 0),
        std=(1, 1),
        classes=("target",),
        activation="sigmoid",
        tile=32,
        overlap=8,
        stride=2,
    )
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
