import torch

from rtsx.model.receptive_field import Scenery


def test_fields_lie_within_their_layers_ranges_and_use_them():
    field = Scenery(ranges=((0.0, 1.0), (-2.0, 2.0)), seed=0).field(128, number=0)
    for channel, (low, high) in zip(field[0], ((0.0, 1.0), (-2.0, 2.0)), strict=True):
        assert low <= channel.min() <= low + 0.2 * (high - low)
        assert high >= channel.max() >= high - 0.2 * (high - low)


def test_fields_are_smooth_and_rough():
    field = Scenery(ranges=((0.0, 1.0),), seed=0).field(128, number=0)[0, 0]
    neighbours = (field[:, 1:] - field[:, :-1]).abs().mean()
    strangers = (field[:, 64:] - field[:, :64]).abs().mean()
    assert 0.02 < neighbours < 0.8 * strangers


def test_seed_and_number_tell_fields_apart():
    first = Scenery(ranges=((0.0, 1.0),), seed=0)
    assert torch.equal(first.field(32, number=1), Scenery(ranges=((0.0, 1.0),), seed=0).field(32, number=1))
    assert not torch.equal(first.field(32, number=1), first.field(32, number=2))
    assert not torch.equal(first.field(32, number=1), Scenery(ranges=((0.0, 1.0),), seed=1).field(32, number=1))


def test_flat_scenes_have_each_layers_own_value():
    flat = Scenery(ranges=((0.0, 1.0), (-2.0, 2.0)), seed=0).flat(4, at=1)
    assert flat.shape == (1, 2, 4, 4)
    assert flat[0, :, 0, 0].tolist() == [1.0, 2.0]


def test_a_sample_is_mirrored_in_place_and_turned_by_number():
    sample = torch.arange(12.0).view(1, 3, 4)
    scenery = Scenery(ranges=((0.0, 1.0),), seed=0, sample=sample)
    shown = scenery.field(2, number=0)
    assert torch.equal(shown, sample[None, :, 0:2, 1:3])
    larger = scenery.field(16, number=0)[0, 0]
    # neighbours in a mirrored picture are neighbours in the sample, so nothing jumps by more than one row
    assert (larger[1:] - larger[:-1]).abs().max() == 4
    assert torch.equal(scenery.field(2, number=2), torch.rot90(sample, 2, (-2, -1))[None, :, 0:2, 1:3])
