import io
import zipfile

import pytest
import torch

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.exported import ExportSource, export_module, is_exported


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
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert is_exported(archive)
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        assert not is_exported(archive)


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
