"""Composites, against one pixel at a time in plain Python."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from rtsx.cube.composite import Observation, best_quality, first_valid, mean_composite, median_composite

SHAPE = (13, 9)


def make_pieces(count: int, *, dtype: str, seed: int) -> list[Observation]:
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(count):
        quality = rng.integers(0, 3, SHAPE).astype(np.uint8)
        layers = [rng.integers(1, 9000, SHAPE).astype(dtype) for _ in range(2)]
        for layer in layers:  # what hides under level 0 must not matter
            layer[quality == 0] = rng.integers(0, 9000, int((quality == 0).sum()))
        pieces.append(Observation(tuple(layers), quality))
    return pieces


def empty(dtype: str) -> Observation:
    return Observation((np.zeros(SHAPE, dtype), np.zeros(SHAPE, dtype)), np.zeros(SHAPE, np.uint8))


def listed(pieces: list[Observation], rows: slice) -> Iterator[Observation]:
    for piece in pieces:
        yield Observation(tuple(layer[rows] for layer in piece.layers), piece.quality[rows])


def counting(pieces: list[Observation], seen: list[int]) -> Iterator[Observation]:
    for place, piece in enumerate(pieces):
        seen.append(place)
        yield piece


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_composites_equal_one_pixel_at_a_time(count: int, dtype: str, least: int) -> None:
    pieces = make_pieces(count, dtype=dtype, seed=count + least)
    nothing = empty(dtype)
    made = {
        "first": first_valid(pieces, empty=nothing, least=least),
        "best": best_quality(pieces, empty=nothing),
        "mean": mean_composite(pieces, empty=nothing, least=least),
        "median": median_composite(partial(listed, pieces), empty=nothing, least=least, rows_at_once=4),
    }
    for y, x in np.ndindex(*SHAPE):
        use = [piece for piece in pieces if piece.quality[y, x] >= least]
        for place in range(2):
            values = [float(piece.layers[place][y, x]) for piece in use]
            seen = [piece for piece in pieces if piece.quality[y, x]]
            earliest = [*use, *seen][:1]
            by_level = sorted(seen, key=lambda p: -int(p.quality[y, x]))
            wanted = {
                "first": float(earliest[0].layers[place][y, x]) if earliest else 0,
                "best": float(by_level[0].layers[place][y, x]) if by_level else 0,
                "mean": np.mean(values) if values else 0,
                "median": np.median(values) if values else 0,
            }
            for name, fused in made.items():
                value = np.floor(wanted[name] + 0.5) if dtype != "float32" else np.float32(wanted[name])
                assert fused.layers[place][y, x] == pytest.approx(value, rel=1e-6), (name, y, x)
        lowest = min((int(piece.quality[y, x]) for piece in use), default=0)
        assert made["mean"].quality[y, x] == made["median"].quality[y, x] == lowest
        assert made["first"].quality[y, x] == (earliest[0].quality[y, x] if earliest else 0)
    assert all(layer.dtype == dtype for fused in made.values() for layer in fused.layers)


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_median_does_not_depend_on_rows_at_once(rows: int) -> None:
    pieces = make_pieces(6, dtype="uint16", seed=3)
    whole = median_composite(partial(listed, pieces), empty=empty("uint16"), least=2, rows_at_once=1000)
    parts = median_composite(partial(listed, pieces), empty=empty("uint16"), least=2, rows_at_once=rows)
    for one, other in zip((*whole.layers, whole.quality), (*parts.layers, parts.quality), strict=True):
        np.testing.assert_array_equal(one, other)


def test_first_stops_reading_when_nothing_is_open() -> None:
    good = Observation((np.ones(SHAPE, np.uint8),), np.full(SHAPE, 2, np.uint8))
    nothing = Observation((np.zeros(SHAPE, np.uint8),), np.zeros(SHAPE, np.uint8))
    for composite in (
        lambda pieces: first_valid(pieces, empty=nothing, least=2),
        lambda pieces: best_quality(pieces, empty=nothing),
    ):
        seen: list[int] = []
        composite(counting([nothing, good, good, good], seen))
        assert seen == [0, 1]


def test_nan_under_level_0_stays_out() -> None:
    hidden = Observation((np.full(SHAPE, np.nan, np.float32),), np.zeros(SHAPE, np.uint8))
    seen = Observation((np.full(SHAPE, 4, np.float32),), np.full(SHAPE, 2, np.uint8))
    nothing = Observation((np.full(SHAPE, np.nan, np.float32),), np.zeros(SHAPE, np.uint8))
    for fused in (
        mean_composite([hidden, seen], empty=nothing, least=1),
        median_composite(partial(listed, [hidden, seen]), empty=nothing, least=1, rows_at_once=5),
    ):
        assert (fused.layers[0] == 4).all()
