import io
import warnings
import zipfile

import pytest
import torch

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.torchscript import TorchScriptSource, is_torchscript


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu()


class Saving(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen.pt")
        return x[:, :1]


def scripted(module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def test_it_loads_without_trust_and_answers_alike():
    module = Net().eval()
    source = TorchScriptSource.from_bytes(scripted(module), trust=False)
    tile = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(source.load_module()(tile), module(tile))
    assert (source.framework, source.architecture, source.n_parameters) == ("torchscript", "Net", 56)


def test_code_that_touches_files_is_refused_unless_trusted():
    data = scripted(Saving())
    with pytest.raises(UntrustedModelError, match=r"calls \['torch.save'\], which can reach beyond .*trust=True"):
        TorchScriptSource.from_bytes(data, trust=False)
    assert TorchScriptSource.from_bytes(data, trust=True).architecture == "Saving"


def test_operators_of_unknown_libraries_are_refused():
    data = scripted(Net())
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py"):
                content = content.replace(b"torch.relu", b"ops.c10d.broadcast")
            new.writestr(name, content)
    with pytest.raises(UntrustedModelError, match=r"calls \['ops.c10d.broadcast'\]"):
        TorchScriptSource.from_bytes(changed.getvalue(), trust=False)


def test_files_are_told_by_their_content():
    with zipfile.ZipFile(io.BytesIO(scripted(Net()))) as archive:
        assert is_torchscript(archive)
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer)
    with zipfile.ZipFile(buffer) as archive:
        assert not is_torchscript(archive)


def test_a_scripted_module_in_memory_becomes_a_source():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(Net())
    source = TorchScriptSource.from_module(module)
    tile = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(source.load_module()(tile), module.eval()(tile))


def test_damaged_files_are_refused():
    data = scripted(Net())
    with pytest.raises(BundleError, match=r"The TorchScript file cannot be read.*copy it again"):
        TorchScriptSource.from_bytes(data[:500], trust=False)
    with pytest.raises(BundleError, match=r"The TorchScript file cannot be read: .*copy it again or ask for ONNX"):
        TorchScriptSource.from_bytes(data[:500], trust=True)
    with pytest.raises(BundleError, match=r"has no ONNX file"):
        TorchScriptSource.from_bytes(data, trust=False).onnx_path()
