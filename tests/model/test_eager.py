import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.backends import exported_shape, open_eager, uses_batch_statistics

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
