"""Noise has the deviation it promises; upsampling keeps values and places."""

import numpy as np
import pytest

from rtsx.synthetic.noise import block_mean, fractal_noise, smoothstep, upsample, value_noise


@pytest.mark.parametrize("spacing", [2.5, 6, 11])
def test_noise_is_standardised(spacing):
    noise = value_noise((600, 500), spacing=spacing, rng=np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_fractal_noise_is_standardised_and_smooth():
    noise = fractal_noise((512, 512), coarsest=16, finest=4, persistence=0.5, rng=np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(noise, axis=0)).max() < 1.5


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_puts_a_plane_where_it_was(factor):
    coarse = np.add.outer(3 * np.arange(12.0), 5 * np.arange(9.0))
    fine = upsample(coarse, factor=factor, shape=(12 * factor, 9 * factor))
    centre = (np.arange(12 * factor) + 0.5) / factor - 0.5
    inner = slice(2 * factor, 10 * factor), slice(2 * factor, 7 * factor)
    expected = np.add.outer(3 * centre, 5 * centre[: 9 * factor])
    np.testing.assert_allclose(fine[inner], expected[inner], atol=1e-3)
    np.testing.assert_allclose(block_mean(fine, factor=factor)[2:10, 2:7], coarse[2:10, 2:7], atol=1e-3)


def test_smoothstep_has_flat_ends():
    ramp = smoothstep(np.array([-1.0, 0, 1, 2, 3]), 0, 2)
    np.testing.assert_allclose(ramp, [0, 0, 0.5, 1, 1])
