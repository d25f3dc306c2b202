"""Mask rules, against the sentences of the specification."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube import apply_mask, open_source, quality_level
from rtsx.errors import CubeError

WriteTif = Callable[..., Path]
Make = Callable[..., xr.Dataset]


@given(st.lists(st.sampled_from([0, 1, 97]), min_size=8, max_size=8))
def test_udm2_rules_pixel_by_pixel(bands: list[int]) -> None:
    clear, snow, shadow, light, heavy, cloud, _confidence, unusable = (band != 0 for band in bands)
    udm2 = np.array(bands, np.uint8).reshape(8, 1, 1)
    good = clear and not (snow or shadow or heavy or cloud or unusable)
    assert quality_level(udm2, "tss-v1").item() == (2 if good else 0)
    expected = 0 if unusable else 1 if (snow or shadow or light or heavy or cloud) else 2
    assert quality_level(udm2, "darts-v2").item() == expected


def test_scene_classes() -> None:
    levels = quality_level(np.arange(12, dtype=np.uint8).reshape(1, 1, 12), "sentinel2-scl")[0].tolist()
    assert levels == [0, 0, 2, 1, 2, 2, 2, 2, 1, 1, 2, 1]


def udm2_scene() -> np.ndarray:
    udm2 = np.zeros((8, 230, 301), np.uint8)
    udm2[0] = 1
    udm2[5, :100] = 1
    udm2[7, :, :50] = 1
    return udm2


def test_valid_is_lazy_and_joined_with_what_is_there(write_tif: WriteTif, random_cube: Make) -> None:
    cube = random_cube()
    path = write_tif("udm2.tif", udm2_scene())
    masked = apply_mask(cube, path, rule="darts-v2")
    assert masked["valid"].chunks is not None
    good = np.zeros((230, 301), bool)
    good[100:, 50:] = True
    np.testing.assert_array_equal(masked["valid"].values, good & cube["valid"].values)
    with_low = apply_mask(cube.drop_vars("valid"), path, rule="darts-v2", keep_low=True)
    good[:, 50:] = True
    np.testing.assert_array_equal(with_low["valid"].values, good)
    assert with_low["valid"].attrs["mask_rule"] == "darts-v2"
    assert set(cube.coords) == set(masked.coords)


def test_arrays_will_do_too(random_cube: Make) -> None:
    cube = random_cube(chunk=None).drop_vars("valid")
    scl = xr.DataArray(np.full((230, 301), 4, np.uint8), dims=("y", "x"))
    scl[0, 0] = 9
    valid = apply_mask(cube, scl, rule="sentinel2-scl")["valid"].values
    assert valid.sum() == 230 * 301 - 1
    with pytest.raises(CubeError, match=r"needs quality data on the cube's pixels, \(8, 230, 301\)"):
        apply_mask(cube, scl, rule="tss-v1")
    with pytest.raises(CubeError, match="8 bands; got shape"):
        quality_level(np.zeros((1, 2, 2), np.uint8), "tss-v1")


def test_a_mask_follows_a_cut_out_and_has_to_cover_it(write_tif: WriteTif, random_cube: Make) -> None:
    cube = random_cube().drop_vars("valid")
    path = write_tif("udm2.tif", udm2_scene())
    whole = apply_mask(cube, path, rule="tss-v1")
    part = apply_mask(cube.isel(y=slice(90, 140), x=slice(30, 90)), path, rule="tss-v1")
    np.testing.assert_array_equal(part["valid"].values, whole["valid"].values[90:140, 30:90])
    small = write_tif("small.tif", udm2_scene()[:, :100])
    with pytest.raises(CubeError, match=r"has to cover the cube on the same pixels: .*small.tif.*gdalwarp -r near"):
        apply_mask(cube, small, rule="tss-v1")


def test_open_cube_takes_the_mask_along(write_tif: WriteTif) -> None:
    scene = write_tif("scene.tif", np.ones((4, 230, 301), np.uint16))
    cube = open_source(scene, sensor="planetscope", chunks=100, mask=(write_tif("udm2.tif", udm2_scene()), "tss-v1"))
    assert cube["valid"].chunks == cube["red"].chunks
    assert cube["valid"].values.sum() == 130 * 251
