import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from rtsx.cube.terrain import kernels as terrain
from rtsx.errors import MissingExtraError
from rtsx.labels import IGNORED
from rtsx.model import Packing
from rtsx.training.augment import augment
from rtsx.training.augmentations import blurred, rotation, warped, zoom
from rtsx.training.dataset import TileBatch
from tests.training.pictures import always, layer, make_batch, shown

WITHOUT_ANGLES = ("red", "nir", "ndvi", "slope")


@pytest.mark.parametrize(("name", "axis"), [("HorizontalFlip", -1), ("VerticalFlip", -2)])
def test_a_flipped_tile_is_the_flip_of_the_tile(name, axis):
    batch = make_batch(layers=WITHOUT_ANGLES)
    flipped = augment(batch, always(name), key=(1,))
    assert torch.equal(shown(flipped), shown(batch).flip(axis))
    assert torch.equal(flipped.valid, batch.valid.flip(axis))
    assert torch.equal(flipped.truth, batch.truth.flip(axis))


def test_a_quarter_turn_is_one_and_never_none():
    batch = make_batch(tiles=40, layers=WITHOUT_ANGLES)
    turned = augment(batch, always("RandomRotate90"), key=(1,))
    found = set()
    for tile in range(40):
        matching = [
            k
            for k in (0, 1, 2, 3)
            if torch.equal(shown(turned)[tile], torch.rot90(shown(batch)[tile], k, dims=(-2, -1)))
        ]
        assert len(matching) == 1
        assert torch.equal(turned.truth[tile], torch.rot90(batch.truth[tile], matching[0], dims=(-2, -1)))
        found.add(matching[0])
    assert found == {1, 2, 3}


def aspect_of(heights: np.ndarray) -> np.ndarray:
    """Aspect in degrees, of ground with north at the top."""
    north = np.zeros((2, *heights.shape), np.float32)
    north[1] = 1
    rows = np.full(heights.shape[0], -3.0)
    columns = np.full(heights.shape[0], 3.0)
    return terrain.aspect_kernel(heights.astype(np.float32), rows, columns, north)


def ground(*, size: int = 24, seed: int = 0) -> np.ndarray:
    heights = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 40, (size, size)), 2)
    heights[5:10, 5:10] = heights[7, 7]  # level, where aspect is 0 and stays 0
    return heights.astype(np.float32)


def aspect_batch(aspects: np.ndarray, packing: Packing) -> TileBatch:
    stored = torch.from_numpy((aspects - packing.add_offset) / packing.scale_factor).float()
    valid = torch.ones(stored.shape, dtype=torch.bool)
    return TileBatch(
        stored=stored[:, None],
        layers=("aspect",),
        packings={"aspect": packing},
        valid=valid,
        truth=torch.zeros(stored.shape, dtype=torch.uint8),
    )


TURNS = {
    "HorizontalFlip": [lambda heights: heights[:, ::-1]],
    "VerticalFlip": [lambda heights: heights[::-1]],
    "RandomRotate90": [lambda heights, k=k: np.rot90(heights, k) for k in (1, 2, 3)],
}


def apart(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees between directions."""
    return np.abs((first - second + 180) % 360 - 180)


@pytest.mark.parametrize("packing", [Packing(), Packing(scale_factor=0.5)])
@pytest.mark.parametrize("name", list(TURNS))
def test_a_turned_aspect_is_the_aspect_of_turned_ground(name, packing):
    heights = ground()
    batch = aspect_batch(np.stack([aspect_of(heights)] * 12), packing)
    found = layer(augment(batch, always(name), key=(5,)), "aspect").numpy()
    expected = [aspect_of(np.ascontiguousarray(turn(heights))) for turn in TURNS[name]]
    matched = set()
    for tile in found:
        agrees = [number for number, aspect in enumerate(expected) if apart(tile, aspect).max() < 0.01]
        assert len(agrees) == 1
        matched.add(agrees[0])
        assert ((tile == 0) == (expected[agrees[0]] == 0)).all(), "level ground, and only that, is 0"
    assert matched == set(range(len(expected)))


@pytest.mark.parametrize("direction", [0.5, 37.0, 180.0, 301.0])
def test_an_aspect_is_turned_by_the_angle_of_a_rotation(direction):
    rows, columns = np.mgrid[:32, :32]
    falls_to = np.radians(direction)
    heights = 2 * (rows * np.cos(falls_to) - columns * np.sin(falls_to))
    batch = aspect_batch(np.stack([aspect_of(heights)] * 5), Packing())
    assert apart(layer(batch, "aspect").numpy(), direction).max() < 1e-3
    elevation = TileBatch(
        stored=torch.from_numpy(np.stack([heights] * 5)).float()[:, None],
        layers=("dem",),
        packings={"dem": Packing()},
        valid=batch.valid,
        truth=batch.truth,
    )
    turned = layer(augment(batch, always("Rotate", limit=180), key=(2,)), "aspect").numpy()
    moved = augment(elevation, always("Rotate", limit=180), key=(2,))
    inside = ndimage.binary_erosion(moved.valid.numpy(), np.ones((1, 5, 5)), border_value=0)
    for tile in range(5):
        expected = aspect_of(moved.stored[tile, 0].numpy())
        assert inside[tile].sum() > 200
        assert apart(turned[tile], expected)[inside[tile]].max() < 0.5


def test_two_flips_give_the_tile_back_with_its_aspect():
    batch = make_batch(seed=3)
    for name in ("HorizontalFlip", "VerticalFlip"):
        twice = augment(batch, always(name) + always(name), key=(1,))
        torch.testing.assert_close(shown(twice), shown(batch), rtol=1e-5, atol=1e-3)


def test_ground_that_comes_to_face_north_is_not_level():
    facing = np.array([[[180.0, 0.0], [90.0, 45.0]]])
    flipped = layer(augment(aspect_batch(facing, Packing()), always("VerticalFlip"), key=(0,)), "aspect")
    assert flipped.tolist() == [[[90.0, 135.0], [360.0, 0.0]]]


def rotated_by(batch: TileBatch, degrees: float) -> TileBatch:
    return warped(batch, rotation(torch.full((len(batch.valid),), degrees), size=batch.valid.shape[-1]))


def naive_warp(values: np.ndarray, valid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear over valid neighbours alone, pixel by pixel; NaN where the nearest pixel is invalid or outside."""
    out = np.full(rows.shape, np.nan)
    height, width = valid.shape
    for place in np.ndindex(rows.shape):
        y, x = rows[place], columns[place]
        nearest = round(y), round(x)
        if not (0 <= nearest[0] < height and 0 <= nearest[1] < width and valid[nearest]):
            continue
        total = weights = 0.0
        for v in (int(np.floor(y)), int(np.floor(y)) + 1):
            for u in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= v < height and 0 <= u < width and valid[v, u]:
                    weight = (1 - abs(y - v)) * (1 - abs(x - u))
                    total, weights = total + weight * values[v, u], weights + weight
        out[place] = total / weights
    return out


def check_against(batch: TileBatch, moved: TileBatch, rows: np.ndarray, columns: np.ndarray) -> None:
    """Compare with the naive warp that looks at these rows and columns, away from ties between nearest pixels."""
    is_tie = (np.abs(rows % 1 - 0.5) < 1e-3) | (np.abs(columns % 1 - 0.5) < 1e-3)
    near = np.rint(rows).astype(int), np.rint(columns).astype(int)
    size = batch.valid.shape[-1]
    is_inside = (near[0] >= 0) & (near[0] < size) & (near[1] >= 0) & (near[1] < size)
    for tile in range(len(batch.valid)):
        for number in range(len(batch.layers)):
            expected = naive_warp(batch.stored[tile, number].numpy(), batch.valid[tile].numpy(), rows, columns)
            is_valid = np.isfinite(expected)
            np.testing.assert_array_equal(moved.valid[tile].numpy()[~is_tie], is_valid[~is_tie])
            found = moved.stored[tile, number].numpy()
            both = is_valid & ~is_tie
            np.testing.assert_allclose(found[both], expected[both], rtol=2e-3)
        truth = np.full(rows.shape, IGNORED, np.uint8)
        truth[is_inside] = batch.truth[tile].numpy()[near[0][is_inside], near[1][is_inside]]
        np.testing.assert_array_equal(moved.truth[tile].numpy()[~is_tie], truth[~is_tie])


@pytest.mark.parametrize("degrees", [30.0, -77.0, 180.0])
def test_a_rotation_is_bilinear_over_valid_pixels_alone(degrees):
    batch = make_batch(tiles=2, layers=("red", "slope"), invalid=0.3)
    turn = np.radians(degrees)
    middle = (24 - 1) / 2
    rows, columns = (axis - middle for axis in np.mgrid[:24, :24].astype(float))
    # The pixel that comes to lie here, when the picture turns counter-clockwise and rows count downwards.
    back = rows * np.cos(turn) + columns * np.sin(turn), columns * np.cos(turn) - rows * np.sin(turn)
    check_against(batch, rotated_by(batch, degrees), back[0] + middle, back[1] + middle)


def test_a_crop_enlarges_a_square_of_the_tile():
    batch = make_batch(tiles=2, layers=("red", "slope"), invalid=0.3)
    moved = warped(batch, zoom(torch.tensor([13.0, 13.0]), torch.tensor([[5.0, 2.0]] * 2), size=24))
    rows, columns = ((axis + 0.5) * 13 / 24 - 0.5 for axis in np.mgrid[:24, :24].astype(float))
    check_against(batch, moved, rows + 5, columns + 2)


def test_a_quarter_turn_by_angle_is_the_exact_one():
    batch = make_batch(layers=WITHOUT_ANGLES)
    moved = rotated_by(batch, 90.0)
    assert torch.equal(moved.valid, torch.rot90(batch.valid, 1, dims=(-2, -1)))
    assert torch.equal(moved.truth, torch.rot90(batch.truth, 1, dims=(-2, -1)))
    torch.testing.assert_close(shown(moved), torch.rot90(shown(batch), 1, dims=(-2, -1)), rtol=2e-4, atol=0.05)


def test_corners_that_come_in_are_invalid_and_ignored():
    batch = make_batch(invalid=0.0)
    moved = rotated_by(batch, 45.0)
    assert not moved.valid[:, 0, 0].any()
    assert (moved.truth[:, 0, 0] == IGNORED).all()
    assert (moved.truth[~moved.valid] == IGNORED).all()
    assert moved.valid[:, 12, 12].all()


@pytest.mark.parametrize("name", ["Rotate", "RandomResizedCrop"])
def test_a_constant_stays_constant_beside_holes(name):
    batch = make_batch(layers=("slope",), invalid=0.4)
    flat = TileBatch(
        stored=torch.where(batch.valid[:, None], 7.0, 1e30),
        layers=("slope",),
        packings={"slope": Packing()},
        valid=batch.valid,
        truth=batch.truth,
    )
    moved = augment(flat, always(name), key=(4,))
    torch.testing.assert_close(moved.stored[moved.valid[:, None]], torch.full((int(moved.valid.sum()),), 7.0))


def test_a_crop_keeps_physical_values_and_looks_closer():
    batch = make_batch(layers=("slope",), invalid=0.0)
    rows = torch.arange(24.0).expand(4, 24, 24).mT
    ramp = TileBatch(
        stored=rows[:, None].clone(),
        layers=("slope",),
        packings={"slope": Packing()},
        valid=batch.valid,
        truth=batch.truth,
    )
    moved = augment(ramp, always("RandomResizedCrop", scale=[0.25, 0.25]), key=(4,))
    steps = moved.stored[:, 0, 4:20].diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5), rtol=1e-3, atol=1e-3)
    assert len(set(moved.stored[:, 0, 12, 12].tolist())) == 4, "each tile is cut at its own place"


def test_a_crop_of_everything_changes_nothing():
    batch = make_batch()
    whole = augment(batch, always("RandomResizedCrop", scale=[1, 1]), key=(4,))
    assert torch.equal(whole.valid, batch.valid)
    assert torch.equal(whole.truth, batch.truth)
    torch.testing.assert_close(shown(whole), shown(batch), rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("name", ["Rotate", "RandomResizedCrop"])
def test_without_kornia_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.geometry", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtsx\[train\]'"):
        augment(make_batch(), always(name), key=(1,))


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
