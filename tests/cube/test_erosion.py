"""Eroding quality, against distances between all pixels."""

import importlib
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtsx.cube.erosion import compiled, disk_half_widths, erode_quality, erosion_halo
from rtsx.errors import CubeError


def naive(quality: NDArray[np.uint8], distance: float, height: float, width: float) -> NDArray[np.uint8]:
    rows, columns = (axis.ravel() for axis in np.indices(quality.shape))
    bad = quality.ravel() == 0
    down, across = np.subtract.outer(rows, rows[bad]) * height, np.subtract.outer(columns, columns[bad]) * width
    is_near = (np.hypot(down, across) <= distance * (1 + 1e-12)).any(axis=1)
    return np.where(is_near.reshape(quality.shape), 0, quality).astype(np.uint8)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 2.9, 3.0, 4.3, 15.0, 31.0, 500.0]),
    st.sampled_from([(3.0, 3.0), (10.0, 3.0), (0.7, 5.0)]),
)
def test_ground_within_the_distance_of_invalid_ground_is_invalid(
    seed: int, distance: float, resolution: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    quality = rng.choice(np.array([0, 1, 2], np.uint8), (13, 17), p=[0.03, 0.3, 0.67])
    before = quality.copy()
    eroded = erode_quality(quality, distance_m=distance, resolution_m=resolution)
    np.testing.assert_array_equal(eroded, naive(quality, distance, *resolution))
    np.testing.assert_array_equal(quality, before)
    assert eroded.dtype == np.uint8
    assert not np.shares_memory(eroded, quality)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 3.0, 8.0, 40.0]))
def test_what_is_outside_is_invalid_only_where_the_caller_says_so(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    quality = rng.choice(np.array([0, 1, 2], np.uint8), (11, 9), p=[0.02, 0.3, 0.68])
    outside = np.pad(quality, 14)  # wider than the distance
    expected = naive(outside, distance, 3.0, 4.0)[14:-14, 14:-14]
    eroded = erode_quality(quality, distance_m=distance, resolution_m=(3.0, 4.0), outside_is_invalid=True)
    np.testing.assert_array_equal(eroded, expected)


def test_low_quality_does_not_spread_and_good_ground_stays() -> None:
    quality = np.full((20, 30), 2, np.uint8)
    quality[4:9, 4:9] = 1
    np.testing.assert_array_equal(erode_quality(quality, distance_m=100, resolution_m=3), quality)
    quality[:, 0] = 0
    eroded = erode_quality(quality, distance_m=30, resolution_m=3)
    assert (eroded[:, :11] == 0).all()
    np.testing.assert_array_equal(eroded[:, 11:], quality[:, 11:])


def test_the_halo_holds_the_distance() -> None:
    assert erosion_halo(distance_m=0, resolution_m=3) == 0
    assert erosion_halo(distance_m=31, resolution_m=3) == 11
    assert erosion_halo(distance_m=31, resolution_m=(31.0, 62.0)) == 1


def test_what_cannot_be_is_refused() -> None:
    quality = np.zeros((2, 2), np.uint8)
    for distance, resolution in ((-1.0, 3.0), (float("nan"), 3.0), (float("inf"), 3.0), (1.0, 0.0), (1.0, (3.0, -3.0))):
        with pytest.raises(CubeError, match="distance of 0 m or more on pixels above 0 m"):
            erode_quality(quality, distance_m=distance, resolution_m=resolution)
    with pytest.raises(CubeError, match=r"Quality is \(y, x\); got shape \(1, 2, 2\)"):
        erode_quality(quality[None], distance_m=1, resolution_m=3)
    with pytest.raises(CubeError, match="erode_m is at most 4096 pixels, here 12288 m; got 1000000000"):
        erosion_halo(distance_m=1e9, resolution_m=3)


def test_a_kernel_compiles_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def read_only(*kernel: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*kernel, **options)

    monkeypatch.setattr(numba, "njit", read_only)
    assert compiled(lambda a, b: a / b)(1.0, 0.0) == float("inf")


def test_a_kernel_that_changed_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Because the decorator stands in another file than most kernels do.
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "changing.py").write_text(KERNEL.format(term="a + 1"))
    import changing  # type: ignore[import-not-found]

    assert changing.kernel(2.0) == 3
    again = importlib.reload(changing)
    assert again.kernel(2.0) == 3
    assert sum(again.kernel.stats.cache_hits.values()) == 1
    (tmp_path / "changing.py").write_text(KERNEL.format(term="a * 50"))
    again = importlib.reload(changing)
    assert again.kernel(2.0) == 100
    assert not again.kernel.stats.cache_hits


KERNEL = """
from rtsx.cube.erosion import compiled


def _kernel(a):
    return {term}


kernel = compiled(_kernel)
"""


@given(
    st.sampled_from([0.0, 1.0, 6.0, 50.0, 100.0, 99.999]),
    st.sampled_from([1.0, 2.0, 3.0, 10.0, 27.3, 300.0]),
    st.sampled_from([1.0, 2.0, 0.1, 12.5, 300.0]),
)
def test_a_pixel_belongs_where_its_centre_is_near_enough(radius: float, height: float, width: float) -> None:
    circle = disk_half_widths(radius, heights_m=np.array([height]), widths_m=np.array([width]))[0]
    reach = len(circle) // 2
    down, across = np.mgrid[-reach - 1 : reach + 2, 0 : int(radius / width) + 2]
    belongs = np.hypot(down * height, across * width) <= radius * (1 + 1e-12)
    np.testing.assert_array_equal(np.concatenate([[-1], circle, [-1]]), belongs.sum(axis=1) - 1)


def test_each_row_has_a_circle_of_its_own() -> None:
    circles = disk_half_widths(100, heights_m=np.array([50.0, 30.0]), widths_m=np.array([20.0, 10.0]))
    assert circles.tolist() == [[-1, 0, 4, 5, 4, 0, -1], [4, 8, 9, 10, 9, 8, 4]]
