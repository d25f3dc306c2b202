from dataclasses import replace

import numpy as np
import pytest
import torch

from rtsx.errors import TrainingError
from rtsx.training import AugmentationSpec
from rtsx.training.augment import AUGMENTATIONS, augment, check_augmentations, drop_channels
from tests.training.pictures import LAYERS, always, make_batch, shown

ON_BATCHES = [name for name in AUGMENTATIONS if name != "ChannelDropout"]


def test_the_promised_augmentations_are_there():
    assert list(AUGMENTATIONS) == [
        *("HorizontalFlip", "VerticalFlip", "RandomRotate90", "Rotate", "Blur", "RandomBrightnessContrast"),
        *("MultiplicativeNoise", "RandomResizedCrop", "ChannelDropout", "TrivialAugment"),
    ]


@pytest.mark.parametrize("name", ON_BATCHES)
def test_a_key_decides_everything_and_the_batch_stays_as_it_was(name):
    batch = make_batch()
    before = [tensor.clone() for tensor in (batch.stored, batch.valid, batch.truth)]
    first, same, other = (augment(batch, always(name), key=key) for key in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(shown(first), shown(same))
    assert torch.equal(first.truth, same.truth)
    assert not torch.equal(shown(first), shown(batch))
    if name not in ("HorizontalFlip", "VerticalFlip"):
        assert not torch.equal(shown(first), shown(other))
    for kept, now in zip(before, (batch.stored, batch.valid, batch.truth), strict=True):
        assert torch.equal(kept.nan_to_num(), now.nan_to_num())


@pytest.mark.parametrize("name", ON_BATCHES)
def test_a_probability_is_one_of_tiles(name):
    batch = make_batch(tiles=200, size=8)

    def changed(probability):
        found = augment(batch, [AugmentationSpec(name=name, probability=probability)], key=(7,))
        return (shown(found) != shown(batch)).flatten(1).any(1)

    assert not changed(0.0).any()
    assert changed(1.0).float().mean() > 0.99
    assert 0.2 < changed(0.3).float().mean() < 0.4


@pytest.mark.parametrize("name", ON_BATCHES)
def test_every_augmentation_gives_finite_channels(name):
    batch = augment(make_batch(seed=2), always(name), key=(1,))
    assert batch.stored.dtype == torch.float32
    assert batch.truth.dtype == torch.uint8
    assert batch.stored.shape == (4, 5, 24, 24)
    assert shown(batch).isfinite().all()


def test_each_tile_is_changed_by_one_of_a_list():
    names = ("HorizontalFlip", "VerticalFlip", "RandomRotate90")
    batch = make_batch(tiles=120, size=8, layers=("red", "nir", "slope"), invalid=0.0)
    trivial = AugmentationSpec(name="TrivialAugment", probability=1.0, options={"augmentations": list(names)})
    changed = shown(augment(batch, [trivial], key=(3,)))
    ways = [
        shown(batch).flip(-1),
        shown(batch).flip(-2),
        *(shown(batch).rot90(turns, dims=(-2, -1)) for turns in (1, 2, 3)),
    ]
    is_way = torch.stack([(changed == way).flatten(1).all(1) for way in ways])
    assert is_way.any(0).all()
    assert ((is_way[:2].float().mean(1) > 0.2) & (is_way[:2].float().mean(1) < 0.5)).all()


@pytest.mark.parametrize(
    ("augmentations", "message"),
    [
        (["Blurr"], "Did you mean 'Blur'"),
        (["ChannelDropout"], "cannot choose 'ChannelDropout'"),
        (["TrivialAugment"], "cannot choose 'TrivialAugment'"),
        ([], "has to be a list of names"),
        ("Blur", "has to be a list of names"),
    ],
)
def test_what_is_no_list_of_augmentations_is_refused(augmentations, message):
    with pytest.raises(TrainingError, match=message):
        check_augmentations(
            [AugmentationSpec(name="TrivialAugment", options={"augmentations": augmentations})], layers=["red"]
        )
    with pytest.raises(TrainingError, match="still be lit"):
        check_augmentations(
            [AugmentationSpec(name="TrivialAugment", options={"augmentations": ["Rotate"]})],
            layers=["red", "hillshade"],
        )


def test_steps_come_in_their_order():
    batch = make_batch(layers=("red", "nir", "slope"), invalid=0.0)
    turned = augment(batch, always("RandomRotate90"), key=(5,))
    # The second step draws for itself, whatever the first has drawn.
    first, second = always("HorizontalFlip"), always("Rotate")
    one = augment(batch, first + second, key=(5,))
    other = augment(batch, second + first, key=(5,))
    assert not torch.equal(one.valid, other.valid)
    both = augment(
        augment(batch, first, key=(5,)), [AugmentationSpec(name="VerticalFlip", probability=0.0), *second], key=(5,)
    )
    assert torch.equal(shown(one), shown(both))
    assert not torch.equal(shown(turned), shown(batch))


def test_nothing_configured_changes_nothing():
    batch = make_batch()
    assert augment(batch, [], key=(1,)) is batch
    channels = torch.rand(2, 3, 4, 4)
    assert drop_channels(channels, always("HorizontalFlip"), fill=0.0, key=(1,)) is channels


@pytest.mark.parametrize("name", ON_BATCHES)
def test_law_4_what_hides_under_the_mask_never_matters(name):
    batch = make_batch(seed=4, invalid=0.3)
    other = replace(batch, stored=torch.where(batch.valid[:, None], batch.stored, 4321.0))
    one, two = (augment(each, always(name), key=(3,)) for each in (batch, other))
    assert torch.equal(one.valid, two.valid)
    assert torch.equal(one.target(), two.target())
    assert torch.equal(shown(one), shown(two))


def test_dropped_channels_hold_the_fill_everywhere():
    channels = torch.rand(50, 4, 6, 6) + 1
    kept = channels.clone()
    found = drop_channels(channels, always("ChannelDropout", most=2), fill=-7.0, key=(1,))
    assert torch.equal(channels, kept)
    is_lost = (found == -7.0).flatten(2).all(2)
    assert torch.equal(found[~is_lost], channels[~is_lost])
    assert (found[is_lost] == -7.0).all()
    counts = is_lost.sum(1)
    assert set(counts.tolist()) == {1, 2}
    assert is_lost.any(0).all(), "every channel has its turn"
    again = drop_channels(channels, always("ChannelDropout", most=2), fill=-7.0, key=(1,))
    assert torch.equal(again, found)
    batch = make_batch()
    assert torch.equal(augment(batch, always("ChannelDropout"), key=(1,)).truth, batch.truth)


def test_a_probability_of_dropping_is_one_of_tiles():
    channels = torch.rand(300, 3, 2, 2) + 1
    step = [AugmentationSpec(name="ChannelDropout", probability=0.3)]
    lost = (drop_channels(channels, step, fill=0.0, key=(2,)) == 0).flatten(1).any(1)
    assert 0.2 < lost.float().mean() < 0.4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("horizontalflip", {}, r"There is no augmentation 'horizontalflip'\. Did you mean 'HorizontalFlip'\?"),
        ("Elastic", {}, r"There is no augmentation 'Elastic'\. .*Known are Blur, ChannelDropout"),
        ("Rotate", {"limits": 3}, r"Rotate has no parameter 'limits'\. Did you mean 'limit'\?"),
        ("HorizontalFlip", {"p": 0.1}, r"HorizontalFlip has no parameter 'p'\. It takes none"),
        ("Rotate", {"limit": 200}, "limit of Rotate, in degrees, has to be from 0.001 to 180; got 200"),
        ("Rotate", {"limit": True}, "limit of Rotate, in degrees, has to be a number; got True"),
        (
            "RandomResizedCrop",
            {"scale": 0.5},
            r"scale of RandomResizedCrop has to be two numbers \[low, high\]; got 0.5",
        ),
        ("RandomResizedCrop", {"scale": [0.5, 2]}, "scale of RandomResizedCrop has to be from 0.01 to 1; got 2"),
        ("Blur", {"sigma": [2, 1]}, r"sigma of Blur has to be \[low, high\] with low not above high; got \[2, 1\]"),
        ("Blur", {"layers": "red"}, "layers of Blur has to be a list of names; got 'red'"),
        ("Blur", {"layers": ["rad"]}, r"Blur is to change layer 'rad', which is not read\. Did you mean 'red'\?"),
        ("Blur", {"layers": ["aspect"]}, "Blur cannot change 'aspect': angles"),
        ("MultiplicativeNoise", {"layers": ["ndvi"]}, "cannot change 'ndvi' by itself: it follows red and nir"),
        ("MultiplicativeNoise", {"per_pixel": 1}, "per_pixel of MultiplicativeNoise has to be true or false; got 1"),
        ("RandomBrightnessContrast", {"contrast": 1.5}, "contrast of RandomBrightnessContrast has to be from 0 to 0.9"),
        ("ChannelDropout", {"most": 9}, "drop up to 9 of 6 channels and would leave nothing to see"),
        ("ChannelDropout", {"most": 1.5}, "most of ChannelDropout has to be a whole number; got 1.5"),
    ],
)
def test_what_is_not_possible_is_refused_before_anything_is_read(name, options, message):
    steps = [AugmentationSpec(name=name, options=options)]
    with pytest.raises(TrainingError, match=message):
        check_augmentations(steps, layers=LAYERS)
    with pytest.raises(TrainingError):
        augment(make_batch(), steps, key=(1,))


def test_a_probability_is_between_0_and_1():
    with pytest.raises(TrainingError, match=r"probability of Blur has to be from 0 to 1; got 1\.5"):
        check_augmentations([AugmentationSpec(name="Blur", probability=1.5)], layers=LAYERS)


@pytest.mark.parametrize("name", ["HorizontalFlip", "VerticalFlip", "RandomRotate90", "Rotate"])
def test_light_from_a_fixed_side_cannot_be_turned(name):
    with pytest.raises(
        TrainingError, match=rf"{name} turns the picture, but \['hillshade'\] would still be lit.*Leave"
    ):
        check_augmentations(always(name), layers=("red", "hillshade"))


def test_light_from_a_fixed_side_can_be_seen_closer():
    check_augmentations(always("RandomResizedCrop") + always("Blur"), layers=("red", "hillshade"))


def test_a_change_of_nothing_is_refused():
    with pytest.raises(TrainingError, match=r"none of the layers \['slope', 'dem'\] is known.*layers=\[\.\.\.\]"):
        check_augmentations(always("MultiplicativeNoise"), layers=("slope", "dem"))


def test_dropping_leaves_a_channel():
    with pytest.raises(TrainingError, match="up to 2 of 2 channels"):
        drop_channels(torch.rand(1, 2, 4, 4), always("ChannelDropout", most=2), fill=0.0, key=(1,))


def test_half_of_the_flips_flip():
    batch = make_batch(tiles=100, size=6, layers=("slope",))
    flipped = augment(batch, [AugmentationSpec(name="HorizontalFlip")], key=(11,))
    is_flipped = np.array([torch.equal(shown(flipped)[i], shown(batch)[i].flip(-1)) for i in range(100)])
    is_same = np.array([torch.equal(shown(flipped)[i], shown(batch)[i]) for i in range(100)])
    assert (is_flipped ^ is_same).all()
    assert 35 < is_flipped.sum() < 65
