"""Water runs downhill, every drop of it leaves, and channels join."""

import numpy as np
import pytest

from rtsx.synthetic.drainage import channels, drain, with_trunk


@pytest.fixture(scope="module")
def hollow():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:50].astype(np.float32)
    pit = 25 * np.exp(-((y - 15) ** 2 + (x - 30) ** 2) / 40)
    return (60 + 0.5 * x + rng.normal(0, 0.2, y.shape) - pit).astype(np.float32)


def test_every_cell_drains_down_to_the_border(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    filled = drainage.filled.ravel()
    inner = np.flatnonzero(drainage.receiver >= 0)
    assert (filled[drainage.receiver[inner]] < filled[inner]).all()
    assert (drainage.filled >= hollow - 1e-3).all()
    outlets = np.flatnonzero(drainage.receiver == -1)
    assert drainage.area.ravel()[outlets].sum() == hollow.size


def test_the_hollow_is_filled(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    assert drainage.filled[15, 30] > hollow[15, 30] + 10


def test_a_trunk_river_carries_its_upstream_country_out(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    trunk = with_trunk(drainage, upstream=1e6, rng=np.random.default_rng(2))
    carried = trunk.area - drainage.area
    assert set(np.unique(carried)) == {0, 1e6}
    assert (carried > 0).sum() > 10


def test_channels_follow_the_receivers_and_meet_at_their_ends(hollow):
    drainage = drain(hollow, rng=np.random.default_rng(1))
    reaches = channels(drainage, least_area=30, smooth=1)
    ends = {tuple(reach.path[-1]) for reach in reaches}
    heads = {tuple(reach.path[0]) for reach in reaches}
    assert len(reaches) > 3
    assert ends & heads
    assert all(reach.area >= 15 for reach in reaches)
