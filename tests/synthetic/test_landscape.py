"""Kinds of ground: the same places, other colours and heights."""

from dataclasses import replace

import numpy as np
import pytest

from rtsx.errors import CubeError
from rtsx.synthetic import LANDSCAPES, GroundSpec, SceneSpec, make_ground

GROUND = GroundSpec(seed=3, crs="EPSG:32608", left=520_200, top=7_482_600, size=512, slumps_per_km2=4.0)


def inside_and_around(landscape: str) -> tuple[float, float, float]:
    """Mean red inside slumps and around them on land, and the spread of elevation."""
    ground = make_ground(replace(GROUND, landscape=landscape))
    inside = np.zeros(ground.water.shape, bool)
    for scar in ground.scars:
        if scar.is_active:
            x, y = np.asarray(scar.polygon.representative_point().coords[0]).astype(int)
            inside[y - 2 : y + 3, x - 2 : x + 3] = True
    red, land = ground.reflectance[2], ground.water == 0
    return float(red[inside & land].mean()), float(red[~inside & land].mean()), float(np.ptp(ground.elevation))


def test_slumps_are_bright_on_lush_ground_and_dark_on_bare_ground() -> None:
    inside, around, _ = inside_and_around("plateau")
    assert inside > around
    inside, around, _ = inside_and_around("polar-desert")
    assert inside < around


def test_lowlands_are_flat() -> None:
    heights = {name: inside_and_around(name)[2] for name in LANDSCAPES}
    assert heights["yedoma"] < heights["polar-desert"] < heights["plateau"]


@pytest.mark.parametrize(
    "make", [lambda: replace(GROUND, landscape="taiga"), lambda: SceneSpec(seed=1, landscape="taiga")]
)
def test_an_unknown_landscape_is_refused(make) -> None:
    with pytest.raises(CubeError, match=r"one of plateau, polar-desert, yedoma; got 'taiga'"):
        make()
