"""Plans: what is refused and with which cure, and how many tiles a raster takes."""

import pickle

import numpy as np
import pytest

from rtsx.errors import PlanError
from rtsx.tiling import TilePlan, TileRange, reflect_pad


def plan(**changes: object) -> TilePlan:
    values = {"shape": (512, 512), "tile": 256, "overlap": 64, "trim": 8, "stride": 32} | changes
    return TilePlan(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": 250}, r"tile has to be a multiple of the network's stride of 32 px.*got 250\. Take 224 or 256"),
        ({"overlap": 70}, r"overlap has to be a multiple.*got 70\. Take 64 or 96"),
        ({"overlap": 256}, r"overlap has to be below the tile of 256 px; got 256\. Take 64"),
        ({"trim": 33}, r"trim has to be at most half the overlap of 64 px.*got 33\. Take 32"),
        ({"trim": -1}, r"at least 0; got .*trim=-1"),
        ({"stride": 0}, r"stride and tile have to be at least 1 px"),
        ({"shape": (0, 5)}, r"at least one pixel along y and x; got \(0, 5\)"),
        ({"blend": "cubic"}, r"blend has to be one of linear, hann, gaussian, crop, max; got 'cubic'"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(**changes)


@pytest.mark.parametrize(("tile", "overlap", "tiles"), [(256, 64, 441), (512, 128, 121), (1024, 256, 25)])
def test_without_trim_a_raster_takes_no_more_tiles_than_a_sliding_window(tile: int, overlap: int, tiles: int) -> None:
    # The count that MONAI's sliding window comes to: ceil((n - overlap) / step) along each axis.
    found = plan(shape=(4096, 4096), tile=tile, overlap=overlap, trim=0)
    assert len(found) == tiles == len(list(found))


def test_starts_are_on_the_lattice_wherever_the_raster_lies() -> None:
    tiles = list(plan(offset=(1000, -77)))
    assert {(tile.start[0] + 1000) % 32 for tile in tiles} == {0}
    assert {(tile.start[1] - 77) % 192 for tile in tiles} == {160}  # one lead of 32 px before a multiple of the step


def test_two_windows_of_one_scene_share_their_tiles() -> None:
    whole = {tile.index: (tile.start[0] + 0, tile.start[1]) for tile in plan(shape=(2000, 2000))}
    part = plan(shape=(700, 700), offset=(600, 900))
    for tile in part:
        start = (tile.start[0] + 600, tile.start[1] + 900)
        assert whole.get(tile.index, start) == start


def test_a_tile_larger_than_the_raster_is_one_tile() -> None:
    found = plan(shape=(100, 60), tile=256, overlap=64, trim=32)
    assert len(found) == 1
    (tile,) = found
    assert tile.support == tile.core == (slice(0, 100), slice(0, 60))


def test_over_compute_counts_what_the_network_sees() -> None:
    found = plan(shape=(4096, 4096), tile=1024, overlap=256, trim=0)
    assert found.over_compute == pytest.approx(25 * 1024**2 / 4096**2)


def test_a_plan_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(plan())) == plan()
    assert hash(plan()) == hash(plan())
    assert str(plan()).startswith("9 tiles of 256 px, overlap 64, trim 8, linear, over 512 x 512 px: over-compute 2.25")
    assert len(TileRange(range(2), range(3))) == 6


def test_every_tile_starts_in_exactly_one_region_of_a_partition() -> None:
    found = plan(shape=(500, 300), offset=(17, 5))
    rows, columns = [slice(0, 130), slice(130, 131), slice(131, 500)], [slice(0, 299), slice(299, 300)]
    ranges = [found.starting_in((row, column)) for row in rows for column in columns]
    assert sum(len(part) for part in ranges) == len(found)
    assert {t.index for part in ranges for t in found.tiles(part)} == {t.index for t in found}


def test_regions_of_a_range_cover_its_tiles() -> None:
    found = plan(shape=(500, 300), offset=(17, 5))
    some = TileRange(found.y.indices[1:], found.x.indices[:1])
    read, answered = found.read_region(some), found.output_region(some)
    for tile in found.tiles(some):
        for axis in (0, 1):
            assert read[axis].start <= max(tile.start[axis], 0)
            assert read[axis].stop >= min(tile.start[axis] + tile.size, found.shape[axis])
            assert answered[axis].start <= tile.support[axis].start
            assert answered[axis].stop >= tile.support[axis].stop


@pytest.mark.parametrize("length", [2, 3, 7])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (2, 5), (20, 31)])
def test_equals_numpy(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflect_pad(-before, length + after, length=length), expected)


def test_a_single_pixel_is_repeated() -> None:
    np.testing.assert_array_equal(reflect_pad(-2, 3, length=1), np.zeros(5))
