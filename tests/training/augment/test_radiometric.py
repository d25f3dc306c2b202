from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from rtsx.model import Packing
from rtsx.training.augment import augment
from rtsx.training.augment.geometric import blurred
from tests.training.pictures import always, layer, make_batch, shown

RADIOMETRIC = ["RandomBrightnessContrast", "MultiplicativeNoise", "Blur"]


def ndvi(batch):
    red, nir = layer(batch, "red"), layer(batch, "nir")
    return (nir - red) / (nir + red)


@pytest.mark.parametrize("name", RADIOMETRIC)
def test_only_reflectance_changes_and_ndvi_follows(name):
    batch = make_batch()
    changed = augment(batch, always(name), key=(3,))
    for number, each in enumerate(batch.layers):
        is_same = torch.equal(shown(changed)[:, number], shown(batch)[:, number])
        assert is_same == (each in ("slope", "aspect"))
    assert torch.equal(changed.valid, batch.valid)
    assert torch.equal(changed.truth, batch.truth)
    valid = changed.valid
    torch.testing.assert_close(layer(changed, "ndvi")[valid], ndvi(changed)[valid], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RADIOMETRIC)
def test_named_layers_change_instead(name):
    batch = make_batch()
    changed = augment(batch, always(name, layers=["slope"]), key=(3,))
    for number, each in enumerate(batch.layers):
        assert torch.equal(shown(changed)[:, number], shown(batch)[:, number]) == (each != "slope")


@pytest.mark.parametrize("step", [always("RandomBrightnessContrast", contrast=0), always("MultiplicativeNoise")])
def test_a_common_gain_leaves_ndvi_as_it_is(step):
    batch = make_batch()
    changed = augment(batch, step, key=(3,))
    gains = layer(changed, "red") / layer(batch, "red")
    for tile in range(4):
        each = gains[tile][batch.valid[tile]]
        torch.testing.assert_close(each, each[:1].expand_as(each), rtol=1e-3, atol=0)
    assert len({round(float(gains[tile][batch.valid[tile]].mean()), 4) for tile in range(4)}) == 4
    torch.testing.assert_close(ndvi(changed)[batch.valid], ndvi(batch)[batch.valid], rtol=1e-3, atol=1e-4)


def test_brightness_and_contrast_are_about_the_mean_of_valid_pixels():
    batch = make_batch(layers=("red", "nir"))
    changed = augment(batch, always("RandomBrightnessContrast", brightness=0, contrast=0.3), key=(3,))
    for name in ("red", "nir"):
        for tile in range(4):
            before = layer(batch, name)[tile][batch.valid[tile]]
            after = layer(changed, name)[tile][batch.valid[tile]]
            is_free = after > before / 2 * 1.001
            factors = ((after - before.mean()) / (before - before.mean()))[
                is_free & ((before - before.mean()).abs() > 0.02)
            ]
            assert 0.7 <= float(factors.mean()) <= 1.3
            assert float(factors.max() - factors.min()) < 1e-2


def test_reflectance_never_turns_negative():
    batch = make_batch(layers=("red", "nir"))
    dark = replace(batch, stored=torch.where(torch.rand(batch.stored.shape) < 0.5, 1100.0, 9000.0))
    changed = augment(dark, always("RandomBrightnessContrast", brightness=0.9, contrast=0.9), key=(3,))
    for name in ("red", "nir"):
        assert (layer(changed, name)[batch.valid] > 0).all()


def test_noise_is_within_its_limits_and_per_what_is_asked():
    batch = make_batch(layers=("red", "nir"), invalid=0.0)

    def gains(**options):
        changed = augment(batch, always("MultiplicativeNoise", multiplier=[0.5, 2], **options), key=(3,))
        found = torch.stack([layer(changed, name) / layer(batch, name) for name in ("red", "nir")], 1)
        assert 0.499 < found.min() < found.max() < 2.01
        return found

    def kinds(found):
        return len(torch.unique((found * 1000).round()))

    assert kinds(gains()) <= 8, "one of each tile, rounded to one number or two"
    both = gains(per_layer=True)
    assert (both[:, 0, 0, 0] - both[:, 1, 0, 0]).abs().min() > 1e-3
    by_pixel = gains(per_pixel=True)
    assert kinds(by_pixel) > 500
    torch.testing.assert_close(by_pixel[:, 0], by_pixel[:, 1], rtol=1e-3, atol=1e-3)
    assert (gains(per_pixel=True, per_layer=True).diff(dim=1).abs() > 1e-3).float().mean() > 0.9


def test_a_blur_is_the_gaussian_mean_of_valid_pixels():
    batch = make_batch(tiles=2, layers=("red", "slope"), invalid=0.3)
    sigmas = torch.tensor([0.7, 1.9])
    found = blurred(batch.stored, batch.valid, sigmas=sigmas, widest=2.0)
    for tile, sigma in enumerate(sigmas.tolist()):
        valid = batch.valid[tile].numpy()
        for number in range(2):
            values = np.where(valid, batch.stored[tile, number].numpy(), 0).astype(np.float64)
            total, weight = (
                ndimage.gaussian_filter(each, sigma, mode="constant", radius=6)
                for each in (values, valid.astype(np.float64))
            )
            np.testing.assert_allclose(found[tile, number].numpy()[valid], (total / weight)[valid], rtol=1e-4)
            assert (found[tile, number].numpy()[~valid] == 0).all()


@pytest.mark.parametrize("size", [24, 256])
def test_a_blur_depends_on_the_tile_alone(size):
    batch = make_batch(tiles=3, size=size, layers=("red",))
    alone = replace(batch, stored=batch.stored[1:2], valid=batch.valid[1:2], truth=batch.truth[1:2])
    sigmas = torch.tensor([0.6, 1.1, 1.4])
    together = blurred(batch.stored, batch.valid, sigmas=sigmas, widest=1.5)[1]
    torch.testing.assert_close(together, blurred(alone.stored, alone.valid, sigmas=sigmas[1:2], widest=1.5)[0])


def test_a_pixel_whose_bands_come_to_nothing_is_invalid():
    batch = make_batch(layers=("red", "nir"), invalid=0.0, packings={"red": Packing(), "nir": Packing()})
    cancelling = replace(batch, stored=torch.tensor([0.5, -0.25])[:, None, None].expand(4, 2, 24, 24).clone())
    steps = always("MultiplicativeNoise", multiplier=[2, 2], layers=["nir"])
    changed = augment(cancelling, steps, key=(0,))
    assert not changed.valid.any()


def test_an_ndvi_without_its_bands_stays():
    batch = make_batch(layers=("ndvi", "nir"))
    changed = augment(batch, always("MultiplicativeNoise"), key=(0,))
    assert torch.equal(shown(changed)[:, 0], shown(batch)[:, 0])
    assert not torch.equal(shown(changed)[:, 1], shown(batch)[:, 1])
