import hashlib
import io
import json
import warnings
import zipfile

import pytest
import torch

from rtsx import ModelBundle
from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.exported import TorchScriptSource, is_torchscript


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu()


def scripted(module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises torch.export
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def test_it_answers_like_the_module():
    module = Net().eval()
    source = TorchScriptSource.from_bytes(scripted(module), trust=True)
    tile = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(source.load_module()(tile), module(tile))
    assert (source.framework, source.architecture, source.n_parameters) == ("torchscript", "Net", 56)


def rewritten(data: bytes, statement: bytes, *, twice: bool = False, ending: str = "py") -> bytes:
    """A TorchScript file whose code runs a statement first; `twice`: the harmless code follows under the same name."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("debug_pkl"):
                continue
            if name.endswith(".py") and b"torch.relu" in content:
                evil = content.replace(b"    return torch.relu", b"    " + statement + b"\n    return torch.relu")
                new.writestr(f"{name[:-2]}{ending}", evil)
                if not twice:
                    continue
            new.writestr(name, content)
    return changed.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"statement": b'torch.save("x", "PATH")'},
        {"statement": b'torch . save("x", "PATH")'},
        {"statement": b'ops.aten.save("x", "PATH")'},
        {"statement": b'torch.save("x", "PATH")', "twice": True},
        {"statement": b'torch.save("x", "PATH")', "ending": "PY"},
        {"statement": b"pass"},
    ],
)
@pytest.mark.parametrize("as_bundle", [False, True])
def test_no_file_runs_before_its_author_is_trusted(tmp_path, change, as_bundle):
    said = {
        "layers": tuple("abc"),
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "classes": ("a", "b"),
        "tile": 32,
        "overlap": 0,
    }
    data = rewritten(
        scripted(Net()), **change | {"statement": change["statement"].replace(b"PATH", bytes(tmp_path / "x"))}
    )
    path = tmp_path / "net.pt"
    path.write_bytes(data)
    if as_bundle:
        path.write_bytes(scripted(Net()))
        ModelBundle.open(path, **said, trust=True).save(tmp_path / "bundle")
        path, said = tmp_path / "bundle", {}
        (path / "model.ts").write_bytes(data)
        item = json.loads((path / "item.json").read_text())
        item["assets"]["weights"]["file:checksum"] = f"1220{hashlib.sha256(data).hexdigest()}"
        (path / "item.json").write_text(json.dumps(item))
    with pytest.raises(UntrustedModelError, match=r"can read and write files when it is opened.*trust=True"):
        ModelBundle.open(path, **said)
    assert not (tmp_path / "x").exists()


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
        TorchScriptSource.from_bytes(data[:500], trust=True)
    with pytest.raises(BundleError, match=r"The TorchScript file cannot be read: .*copy it again or ask for ONNX"):
        TorchScriptSource.from_bytes(data[:500], trust=True)
    with pytest.raises(BundleError, match=r"has no ONNX file"):
        TorchScriptSource.from_bytes(data, trust=True).onnx_path()
