"""Composites, against one pixel at a time in plain Python."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.cube.composite import (
    Observation,
    best_quality,
    first_valid,
    mean_composite,
    medoid_composite,
    percentile_composite,
)
from rtsx.cube.mask_rules import GOOD

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


def side_by_side(pieces: list[Observation], composite: Any, **rule: Any) -> Observation:
    return composite(partial(listed, pieces), count=len(pieces), **rule)


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
        "median": side_by_side(pieces, percentile_composite, empty=nothing, least=least, percent=50.0, rows_at_once=4),
        "p20": side_by_side(pieces, percentile_composite, empty=nothing, least=least, percent=20.0, rows_at_once=4),
        "p100": side_by_side(pieces, percentile_composite, empty=nothing, least=least, percent=100.0, rows_at_once=4),
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
                "p20": np.percentile(values, 20) if values else 0,
                "p100": max(values, default=0),
            }
            for name, fused in made.items():
                value = np.floor(wanted[name] + 0.5) if dtype != "float32" else np.float32(wanted[name])
                assert fused.layers[place][y, x] == pytest.approx(value, rel=1e-6), (name, y, x)
        lowest = min((int(piece.quality[y, x]) for piece in use), default=0)
        assert made["mean"].quality[y, x] == made["median"].quality[y, x] == made["p20"].quality[y, x] == lowest
        assert made["first"].quality[y, x] == (earliest[0].quality[y, x] if earliest else 0)
    assert all(layer.dtype == dtype for fused in made.values() for layer in fused.layers)


def test_what_is_made_of_one_image_holds_nothing_else_of_it() -> None:
    bands = np.ones((12, *SHAPE), np.uint16)
    piece = Observation(tuple(bands[:2]), np.full(SHAPE, GOOD, np.uint8))
    nothing = empty("uint16")
    for made in (first_valid([piece], empty=nothing, least=2), best_quality([piece], empty=nothing)):
        assert all((layer == 1).all() and not np.shares_memory(layer, bands) for layer in made.layers)


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_median_does_not_depend_on_rows_at_once(rows: int) -> None:
    pieces = make_pieces(6, dtype="uint16", seed=3)
    for composite, rule in (percentile_composite, {"percent": 50.0}), (medoid_composite, {"scales": (1.0, 1.0)}):
        rule = {"empty": empty("uint16"), "least": 2, **rule}
        whole = side_by_side(pieces, composite, rows_at_once=1000, **rule)
        parts = side_by_side(pieces, composite, rows_at_once=rows, **rule)
        for one, other in zip((*whole.layers, whole.quality), (*parts.layers, parts.quality), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_medoid_is_the_image_nearest_to_all_others(dtype: str) -> None:
    pieces = make_pieces(9, dtype=dtype, seed=4)
    scales = (1e-4, 3e-4)
    made = side_by_side(pieces, medoid_composite, empty=empty(dtype), least=1, scales=scales, rows_at_once=5)
    for y, x in np.ndindex(*SHAPE):
        use = [piece for piece in pieces if piece.quality[y, x] >= 1]
        points = np.array([[layer[y, x] for layer in piece.layers] for piece in use], float) * scales
        sums = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2)).sum(1)
        chosen = use[int(np.argmin(sums))]
        assert [layer[y, x] for layer in made.layers] == [layer[y, x] for layer in chosen.layers]
        assert made.quality[y, x] == chosen.quality[y, x]


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=40),
    percent=st.sampled_from([0.0, 10.0, 33.3, 50.0, 75.0, 100.0]),
)
def test_selection_equals_numpy(values: list[int], percent: float) -> None:
    pieces = [Observation((np.full((1, 1), value, np.uint16),), np.full((1, 1), 2, np.uint8)) for value in values]
    nothing = Observation((np.zeros((1, 1), np.uint16),), np.zeros((1, 1), np.uint8))
    made = side_by_side(pieces, percentile_composite, empty=nothing, least=2, percent=percent, rows_at_once=1)
    exact = np.percentile(values, percent)
    assert abs(int(made.layers[0][0, 0]) - exact) <= 0.5 + 1e-6
    assert exact != round(exact) or made.layers[0][0, 0] == exact


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
        side_by_side([hidden, seen], percentile_composite, empty=nothing, least=1, percent=50.0, rows_at_once=5),
        side_by_side([hidden, seen], medoid_composite, empty=nothing, least=1, scales=(1.0,), rows_at_once=5),
    ):
        assert (fused.layers[0] == 4).all()
