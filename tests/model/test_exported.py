""""""

import hashlib
import io
import json
import warnings
import zipfile

import cloudpickle
import pytest
import torch

from rtsx import ModelBundle
from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.exported import (
    ExportSource,
    ModuleSource,
    TorchScriptSource,
    archive_kind,
    export_module,
)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu() - 1  # scores on both sides of 0


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
    assert archive_kind(scripted(Net())) == "torchscript"
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer)
    assert archive_kind(buffer.getvalue()) is None
    assert archive_kind(b"no archive") is None


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


class Halving(torch.nn.Module):
    """A network of stride 2 that takes its sizes from its input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = torch.nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return torch.nn.functional.interpolate(self.head(self.down(x).relu()), size=x.shape[-2:])


class Bound(torch.nn.Module):
    """A network with one tile size in its code."""

    def forward(self, x):
        return x[:, :1].reshape(-1, 1, 64, 64)


class Random(torch.nn.Module):
    """A network that answers by chance."""

    def forward(self, x):
        return x[:, :1] + torch.rand(1)


class Branching(torch.nn.Module):
    """A network whose path depends on the values it is given."""

    def forward(self, x):
        return x[:, :1] if x.sum().item() > 0 else x[:, 1:2]


def test_any_number_of_tiles_of_any_size_runs():
    module = Halving().eval()
    data = export_module(module, n_layers=3, tile=256, stride=2)
    source = ExportSource.from_bytes(data, {"architecture": "Halving"}, trust=True)
    assert (source.framework, source.architecture, source.n_parameters) == ("export", "Halving", 117)
    for shape in ((1, 3, 64, 64), (5, 3, 32, 90)):
        batch = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(source.load_module()(batch), module(batch))


def test_archives_are_refused_unless_trusted():
    data = export_module(Halving().eval(), n_layers=3, tile=64, stride=2)
    with pytest.raises(UntrustedModelError, match=r"can run code of its author .* pass trust=True"):
        ExportSource.from_bytes(data, {}, trust=False)


def test_the_digest_is_the_recorded_one_or_that_of_the_file():
    data = export_module(Halving().eval(), n_layers=3, tile=64, stride=2)
    assert ExportSource.from_bytes(data, {"digest": "abc"}, trust=True).digest == "abc"
    assert len(ExportSource.from_bytes(data, {}, trust=True).digest) == 64


def test_archives_are_told_by_their_content():
    data = export_module(Halving().eval(), n_layers=3, tile=64, stride=2)
    assert archive_kind(data) == "export"


def test_a_truncated_archive_is_refused():
    data = export_module(Halving().eval(), n_layers=3, tile=64, stride=2)
    with pytest.raises(BundleError, match=r"The .pt2 archive cannot be read: .*copy it again"):
        ExportSource.from_bytes(data[: len(data) // 2], {}, trust=True)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Bound(), "Bound cannot be saved.*ONNX"),
        (Random(), "Random cannot be saved, because its exported program gives other answers.*ONNX"),
        (
            Branching(),
            "Branching cannot be saved, because torch.export cannot follow its code.*Use the bundle in memory",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_with_a_cure(module, message):
    with pytest.raises(BundleError, match=message):
        export_module(module.eval(), n_layers=3, tile=64, stride=1)


def scaling_module(factor, *, cut=0.5):
    class Scaling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cut = cut

        def forward(self, x):
            return x[:, :1] * factor - self.cut

    return Scaling()


def test_code_settings_and_closures_are_in_the_digest():
    digest = ModuleSource.from_module(scaling_module(2)).digest
    assert ModuleSource.from_module(scaling_module(2)).digest == digest
    assert ModuleSource.from_module(scaling_module(3)).digest != digest
    assert ModuleSource.from_module(scaling_module(2, cut=0.4)).digest != digest


def test_tensors_outside_of_the_state_dict_are_in_the_digest():
    first, second = torch.nn.Identity(), torch.nn.Identity()
    first.mean, second.mean = torch.zeros(3), torch.ones(3)
    assert ModuleSource.from_module(first).digest != ModuleSource.from_module(second).digest


def test_training_on_changes_nothing():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Dropout(0.5)).double().train()
    source = ModuleSource.from_module(module)
    tile = torch.ones(1, 1, 4, 4)
    before = source.load_module()(tile)
    with torch.no_grad():
        module[0].weight.zero_()
    loaded = source.load_module()
    assert torch.equal(loaded(tile), before)
    assert not any(part.training for part in loaded.modules())
    assert module.training
    assert {part.dtype for part in loaded.parameters()} == {torch.float32}


def test_loaded_modules_belong_to_the_caller():
    source = ModuleSource.from_module(torch.nn.Conv2d(1, 1, 1))
    source.load_module().weight.data.zero_()
    assert source.load_module().weight.abs().sum() > 0


def test_a_class_of_a_notebook_can_be_sent_to_a_worker():
    source = ModuleSource.from_module(scaling_module(2))
    sent = cloudpickle.loads(cloudpickle.dumps(source))
    assert sent.digest == source.digest
    assert torch.equal(sent.load_module()(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 1.5))
    assert ModuleSource.from_module(sent.load_module()).digest == source.digest


def test_it_has_no_onnx_file():
    with pytest.raises(BundleError, match=r"Conv2d is a torch network and has no ONNX file"):
        ModuleSource.from_module(torch.nn.Conv2d(1, 1, 1)).onnx_path()
