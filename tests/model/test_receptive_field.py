""""""

import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model import Reach, measure_receptive_field
from rtsx.model.network import ProbabilityNetwork
from rtsx.model.receptive_field import SyntheticInputs


def network(module, *, n_layers=1, classes=("slump",), activation="sigmoid"):
    module.eval()

    def forward(batch):
        with torch.no_grad():
            return module(batch)

    return ProbabilityNetwork(
        forward,
        device=torch.device("cpu"),
        backend="stub",
        n_layers=n_layers,
        classes=classes,
        activation=activation,
        temperature=1.0,
    )


def chain(*radii):
    """Box filters one after another: every pixel within the sum of the radii counts."""
    return torch.nn.Sequential(*(torch.nn.AvgPool2d(2 * r + 1, stride=1, padding=r) for r in radii))


class Strided(torch.nn.Module):
    """Means of blocks of one stride, spread over the neighbouring blocks: reach is one stride."""

    def __init__(self, stride):
        super().__init__()
        self.down = torch.nn.AvgPool2d(stride)
        self.up = torch.nn.Upsample(scale_factor=stride)
        self.spread = chain(1)

    def forward(self, batch):
        return self.up(self.spread(self.down(batch))) * 4


class WholeTile(torch.nn.Module):
    """Every pixel minus the mean of the tile."""

    def forward(self, batch):
        return batch - batch.mean((2, 3), keepdim=True)


def measured(module, *, stride=1, tile=64, n_layers=1, **given):
    return measure_receptive_field(
        network(module, n_layers=n_layers), n_layers=n_layers, stride=stride, tile=tile, **given
    )


@pytest.mark.parametrize("radii", [(0,), (1,), (2, 3), (4, 1, 2)])
def test_a_chain_of_filters_reaches_as_far_as_the_sum_of_its_radii(radii):
    assert measured(chain(*radii), quantum=1e-4) == Reach(stride=1, radius=sum(radii), depends_on_tile=False)


def test_a_reach_beyond_the_first_tile_is_found_on_a_larger_one():
    far = torch.nn.Conv2d(1, 1, 3, padding=60, dilation=60, bias=False)
    torch.nn.init.constant_(far.weight, 1.0)
    assert measured(far) == Reach(stride=1, radius=60, depends_on_tile=False)


def test_weights_too_small_to_move_the_answer_do_not_count():
    kernel = torch.nn.Conv2d(1, 1, 7, padding=3, bias=False)
    torch.nn.init.constant_(kernel.weight, 1e-5)
    with torch.no_grad():
        kernel.weight[..., 2:5, 2:5] = 0.5
    assert measured(kernel).radius == 1
    assert measured(kernel, quantum=1e-6).radius == 3


def test_a_saturated_answer_does_not_hide_the_reach():
    sure = torch.nn.Sequential(chain(3), torch.nn.Conv2d(1, 1, 1))
    torch.nn.init.constant_(sure[1].weight, 1.0)
    torch.nn.init.constant_(sure[1].bias, -8.0)
    assert network(sure)(torch.rand(1, 1, 64, 64)).max() < 0.005  # no pixel could move by half a quantum
    assert measured(sure).radius == 3


@pytest.mark.parametrize("stride", [4, 32])
def test_the_radius_of_a_strided_network_is_a_multiple_of_its_stride(stride):
    assert measured(Strided(stride), stride=stride) == Reach(stride=stride, radius=stride, depends_on_tile=False)


def test_the_true_stride_is_found_below_the_declared_one():
    assert measured(Strided(4), stride=8) == Reach(stride=4, radius=8, depends_on_tile=False)


def test_a_declared_stride_that_is_too_small_is_refused():
    class Padded(Strided):
        def forward(self, batch):
            size = batch.shape[-1]
            more = -size % 8
            return super().forward(torch.nn.functional.pad(batch, (0, more, 0, more)))[..., :size, :size]

    with pytest.raises(BundleError, match=r"declared with stride 4 px, .* moves by 8 px. Pass stride=8"):
        measured(Padded(8), stride=4)


def test_a_network_that_refuses_a_multiple_of_its_stride_has_another():
    class Strict(torch.nn.Module):
        def forward(self, batch):
            if batch.shape[-1] % 32:
                raise RuntimeError("sizes of tensors must match")
            return batch

    with pytest.raises(BundleError, match=r"takes tiles of 96 px, but not of 112 px. Pass its true stride"):
        measured(Strict(), stride=16)


def test_a_mean_over_the_tile_depends_on_the_tile():
    found = measured(WholeTile())
    assert found.depends_on_tile
    assert found.stride == 1


def test_squeeze_and_excitation_depends_on_the_tile():
    from torchvision.ops import SqueezeExcitation

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), SqueezeExcitation(8, 4), torch.nn.Conv2d(8, 1, 1))
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.weight.data *= 3
    assert measured(module, stride=32).depends_on_tile


def test_a_network_bound_to_its_tile_depends_on_it():
    class Bound(torch.nn.Module):
        def forward(self, batch):
            return batch + torch.zeros(64, 64)

    assert measured(Bound(), stride=32) == Reach(stride=32, radius=32, depends_on_tile=True)


def test_a_network_that_does_not_run_says_why():
    with pytest.raises(BundleError, match="has to return"):
        measured(torch.nn.Conv2d(1, 2, 1))


def test_several_classes_count_together():
    module = torch.nn.Conv2d(1, 3, 5, padding=2, bias=False)
    torch.nn.init.zeros_(module.weight)
    with torch.no_grad():
        module.weight[2] = 1.0
    softmax = network(module, classes=("a", "b", "c"), activation="softmax")
    assert measure_receptive_field(softmax, n_layers=1, stride=1, tile=64).radius == 2


def test_a_network_has_one_reach():
    torch.manual_seed(0)
    module = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 5, padding=2) for _ in range(4)))
    assert measured(module) == measured(module)


def test_fields_lie_within_their_layers_ranges_and_use_them():
    field = SyntheticInputs(ranges=((0.0, 1.0), (-2.0, 2.0))).field(128, number=0)
    for channel, (low, high) in zip(field[0], ((0.0, 1.0), (-2.0, 2.0)), strict=True):
        assert low <= channel.min() <= low + 0.2 * (high - low)
        assert high >= channel.max() >= high - 0.2 * (high - low)


def test_fields_are_smooth_and_rough():
    field = SyntheticInputs(ranges=((0.0, 1.0),)).field(128, number=0)[0, 0]
    neighbours = (field[:, 1:] - field[:, :-1]).abs().mean()
    strangers = (field[:, 64:] - field[:, :64]).abs().mean()
    assert 0.02 < neighbours < 0.8 * strangers


def test_numbers_tell_fields_apart():
    first = SyntheticInputs(ranges=((0.0, 1.0),))
    assert torch.equal(first.field(32, number=1), SyntheticInputs(ranges=((0.0, 1.0),)).field(32, number=1))
    assert not torch.equal(first.field(32, number=1), first.field(32, number=2))


def test_flat_scenes_have_each_layers_own_value():
    flat = SyntheticInputs(ranges=((0.0, 1.0), (-2.0, 2.0))).flat(4, at=1)
    assert flat.shape == (1, 2, 4, 4)
    assert flat[0, :, 0, 0].tolist() == [1.0, 2.0]
