"""Slopes of series with gaps, outliers and clouds: those of the plainest way, to the last number that is stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from rtsx.cube.recipe import TrendRecipe
from rtsx.cube.trend_kernels import (
    LEAST,
    MOMENTS,
    SUMS,
    TASSELED_CAP,
    SceneObservations,
    add_moments,
    add_series,
    add_sums,
    encoded,
    linear_fit,
    median_slopes,
    reflectance_limits,
    scene_observations,
    trend_layers,
)
from tests.cube.naive_trend import CLEAR, Stack, published, random_stack, trends_of

PACKING = np.full(6, 2.75e-5), np.full(6, -0.2)
START = 1262304000.0
"""2010, s."""


def scenes_of(stack: Stack) -> list[SceneObservations]:
    return [
        scene_observations(
            tuple(dn),
            qa == CLEAR,
            packing=PACKING,
            oli=satellite >= 8,
            decades=(time.timestamp() - START) / 86400 / 3650,
        )
        for dn, qa, time, satellite in zip(stack.dn, stack.qa, stack.times, stack.satellites, strict=True)
    ]


def limits(scenes: list[SceneObservations]) -> NDArray[np.float64]:
    moments = np.zeros((len(scenes[0].counts), MOMENTS))
    for one in scenes:
        add_moments(one.counts, one.values, one.gain, one.bias, moments)
    return reflectance_limits(moments)


def linear(scenes: list[SceneObservations]) -> tuple[NDArray[np.float64], ...]:
    bounds = limits(scenes)
    sums = np.zeros((len(bounds), SUMS))
    for one in scenes:
        add_sums(one.counts, one.values, one.gain, one.bias, bounds, TASSELED_CAP, one.decades, sums)
    return linear_fit(sums)


def theil_sen(scenes: list[SceneObservations]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    bounds = limits(scenes)
    pixels, longest = len(bounds), len(scenes)
    number = np.zeros(pixels, np.int64)
    times, series = np.empty((pixels, longest)), np.empty((pixels, 3, longest))
    for one in scenes:
        given = (one.counts, one.values, one.gain, one.bias, bounds, TASSELED_CAP, one.decades)
        add_series(*given, number, times, series)
    slopes = np.full((3, pixels), np.nan)
    median_slopes(number, times, series, LEAST, slopes)
    return number, slopes


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 60), clear=st.floats(0.1, 1))
@pytest.mark.parametrize("method", ["linear", "theil-sen"])
def test_slopes_are_those_of_the_plainest_way(method: str, seed: int, count: int, clear: float) -> None:
    stack = random_stack((4, 5), count, seed=seed, clear=clear)
    number, slopes = trends_of(stack, method=method)
    scenes = scenes_of(stack)
    found, ours = linear(scenes)[:2] if method == "linear" else theil_sen(scenes)
    np.testing.assert_array_equal(found.reshape(4, 5), number)
    np.testing.assert_allclose(ours.reshape(3, 4, 5), slopes, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.nan_to_num(encoded(ours)).reshape(3, 4, 5), published(slopes))


def test_slopes_and_errors_are_those_of_scipy() -> None:
    stack = random_stack((1, 3), 30, seed=3, clear=1.0)
    stack.qa[:] = CLEAR
    stack.dn[:, :] = np.random.default_rng(3).integers(8000, 12000, stack.dn.shape)  # no outliers among them
    number, slopes, errors = linear(scenes_of(stack))
    assert number.tolist() == [30] * 3
    decades = np.array([time.timestamp() for time in stack.times]) / 86400 / 3650
    _, robust = theil_sen(scenes_of(stack))
    for pixel in range(3):
        seen = stack.dn[:, :, 0, pixel] * PACKING[0] + PACKING[1]
        for place, scene in enumerate(scenes_of(stack)):
            seen[place] = stack.dn[place, :, 0, pixel] * scene.gain + scene.bias
        for index in range(3):
            values = seen @ TASSELED_CAP[index]
            fit = stats.linregress(decades, values)
            np.testing.assert_allclose(slopes[index, pixel], fit.slope, atol=1e-9)
            np.testing.assert_allclose(errors[index, pixel], fit.stderr, rtol=1e-6)
            np.testing.assert_allclose(robust[index, pixel], stats.theilslopes(values, decades).slope, atol=1e-9)


def test_a_pixel_that_never_changed_keeps_all_its_observations() -> None:
    stack = random_stack(
        (1, 2),
        12,
        seed=1,
        clear=1.0,
    )
    stack.qa[:] = CLEAR
    stack.dn[:] = 9123
    still = Stack(dn=stack.dn, qa=stack.qa, times=stack.times, satellites=[7] * 12)
    number, slopes, errors = linear(scenes_of(still))
    assert number.tolist() == [12, 12]
    np.testing.assert_allclose(slopes, 0, atol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-6)
    assert (encoded(slopes) == 128).all()


def test_observations_of_one_pass_have_no_slope() -> None:
    stack = random_stack((1, 2), 6, seed=1, clear=1.0)
    stack.qa[:] = CLEAR
    together = Stack(dn=stack.dn, qa=stack.qa, times=[stack.times[0]] * 6, satellites=[5] * 6)
    number, slopes, errors = linear(scenes_of(together))
    assert (number >= 5).all()
    assert np.isnan(slopes).all()
    assert np.isnan(errors).all()
    assert np.isnan(theil_sen(scenes_of(together))[1]).all()


def test_layers_come_in_the_order_that_is_asked_for() -> None:
    number, slopes, errors = np.full(2, 7.0), np.array([[0.0, 0.12], [-0.12, 0.5], [0.06, -1]]), np.full((3, 2), 0.01)
    asked = TrendRecipe(window=(2000, 2019), layers=("tc_observations", "tc_wetness", "tc_greenness_stderr"))
    layers = trend_layers(asked, number=number, slopes=slopes, errors=errors)
    assert layers.tolist() == [[7, 7], [191, 0], [0.01, 0.01]]
    plain = TrendRecipe(window=(2000, 2019), dtype="float32")
    np.testing.assert_array_equal(trend_layers(plain, number=number, slopes=slopes, errors=errors), slopes)


def test_rows_of_one_pass_have_no_slope_between_them() -> None:
    """Twenty passes, each seen in two rows half a minute apart that differ by a thousandth of reflectance."""
    passes = np.linspace(-1, 1, 20)
    times = np.stack([passes, passes + 24 / 86_400 / 3_650], axis=1).reshape(1, -1)
    value = (0.02 * passes[:, None] + np.array([0.0, 0.002])).reshape(1, 1, -1).repeat(3, axis=1)
    slopes = np.empty((3, 1))
    median_slopes(np.array([40]), times, value, 5, slopes)
    np.testing.assert_allclose(slopes, 0.02, rtol=1e-3)
