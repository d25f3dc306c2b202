"""Mask rules by name and as expressions, pixel by pixel."""

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from rtsx.cube import apply_mask
from rtsx.cube.mask_rules import MASK_RULES, MaskRule, mask_rule, quality_level
from rtsx.errors import CubeError


@given(st.integers(0, 2**16 - 1))
def test_landsat_bits_pixel_by_pixel(qa: int) -> None:
    low = any(qa >> bit & 1 for bit in (1, 2, 3, 4, 5))
    expected = 0 if qa & 1 else 1 if low else 2
    assert quality_level(np.array([[[qa]]], np.uint16), "landsat-qa-pixel").item() == expected


@given(st.lists(st.sampled_from([0, 1, 40, 97]), min_size=8, max_size=8))
def test_the_lowest_level_wins_and_the_rest_is_what_the_rule_leaves(bands: list[int]) -> None:
    clear, snow, shadow, _light, _heavy, cloud, confidence, unusable = bands
    udm2 = np.array(bands, np.uint8).reshape(8, 1, 1)
    invalid, low, good = {"invalid": "unusable"}, {"low": "cloud or shadow or snow"}, {"good": "clear"}

    def level(rule: str | dict[str, str]) -> int:
        return int(mask_rule(rule, data="udm2").quality(udm2).item())

    is_low = cloud or shadow or snow
    assert level(invalid | low | good) == (0 if unusable else 1 if is_low else 2 if clear else 0)
    assert level(invalid | low) == (0 if unusable else 1 if is_low else 2)
    assert level(low) == (1 if is_low else 2)
    assert level(invalid) == (0 if unusable else 2)
    assert level("clear and confidence >= 80") == (2 if clear and confidence >= 80 else 0)
    assert level({"low": "clear", "good": "cloud"}) == (1 if clear else 2 if cloud else 0)


def test_rules_are_values() -> None:
    for rule in (*MASK_RULES.values(), mask_rule({"low": "cloud"}, data="udm2")):
        assert isinstance(rule, MaskRule)
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert hash(rule)
    assert mask_rule("darts-v2", data=None) is mask_rule("darts-v2", data="udm2") is MASK_RULES["darts-v2"]
    rule = mask_rule({"good": "clear", "invalid": "unusable\n  or cloud"}, data="udm2")
    assert (rule.name, rule.bands) == ("invalid: unusable or cloud; good: clear", 8)


def test_levels_come_as_one_byte_in_an_array_of_their_own() -> None:
    scl = np.full((1, 3, 4), 5, np.uint8)
    for rule in ("sentinel2-scl", mask_rule("vegetation or not_vegetated", data="scl")):
        levels = quality_level(scl, rule)
        assert levels.dtype == np.uint8
        assert (levels == 2).all()
        levels[:] = 0
        assert (scl == 5).all()


def test_a_rule_of_expressions_masks_a_cube(random_cube: Callable[..., xr.Dataset]) -> None:
    cube = random_cube().drop_vars("valid")
    qa = np.random.default_rng(3).integers(0, 2**16, (230, 301)).astype(np.uint16)
    data = xr.DataArray(qa, dims=("y", "x"))
    rule = mask_rule({"invalid": "fill", "low": "bit(3) or snow_confidence == 3"}, data="qa_pixel")
    low = (qa & 8 != 0) | (qa >> 12 & 3 == 3)
    masked = apply_mask(cube, data, rule=rule)["valid"]
    np.testing.assert_array_equal(masked.values, (qa & 1 == 0) & ~low)
    np.testing.assert_array_equal(apply_mask(cube, data, rule=rule, keep_low=True)["valid"].values, qa & 1 == 0)
    assert masked.attrs["mask_rule"] == "invalid: fill; low: bit(3) or snow_confidence == 3"


def test_what_is_no_rule_is_told() -> None:
    with pytest.raises(
        CubeError, match=r"Known mask rules are \['darts-v2', .*got 'darts-v1'. Did you mean 'darts-v2'"
    ):
        mask_rule("darts-v1", data=None)
    with pytest.raises(CubeError, match=r"expressions for some of \['invalid', 'low', 'good'\]; got \['bad'\]"):
        mask_rule({"bad": "cloud"}, data="udm2")
    with pytest.raises(CubeError, match=r"for some of .* got \[\]"):
        mask_rule({}, data="udm2")
    with pytest.raises(CubeError, match=r"'low' is 1\. Put it into quotes"):
        mask_rule({"low": 1}, data="udm2")  # type: ignore[dict-item]
    with pytest.raises(CubeError, match="column 1: unknown name 'clod', did you mean 'cloud'"):
        mask_rule("clod", data="udm2")
    with pytest.raises(CubeError, match=r"'good: clear' reads data \(band, y, x\) with 8 bands; got shape \(1, 2, 2\)"):
        quality_level(np.zeros((1, 2, 2), np.uint8), mask_rule("clear", data="udm2"))
