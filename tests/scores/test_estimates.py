"""Estimates equal a published example to the printed digits, and their intervals hold the truth as often as they say."""

import math

import numpy as np
import pytest

from rtsx.scores.estimates import (
    StratumCounts,
    estimate_area,
    estimate_precision,
    estimate_recall,
    required_sample,
    wilson_interval,
)

# Olofsson et al. 2014, table 8: rows are map classes (deforestation, forest gain, stable forest, stable non-forest).
MATRIX = ((66, 0, 5, 4), (0, 55, 8, 12), (1, 0, 153, 11), (2, 1, 9, 313))
PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)
HECTARES = 0.09


def strata_of(number):
    return [
        StratumCounts(mapped=row == number, size=size, reviewed=sum(counts), target=counts[number], finite=False)
        for row, (counts, size) in enumerate(zip(MATRIX, PIXELS, strict=True))
    ]


@pytest.mark.parametrize(
    ("number", "precision", "area"),
    [
        (0, (0.88, 0.07), (21_158, 6_158)),
        (1, (0.73, 0.10), (11_686, 3_756)),
        (2, (0.93, 0.04), (285_770, 15_510)),
        (3, (0.96, 0.02), (581_386, 16_282)),
    ],
)
def test_a_published_example_comes_out_to_the_printed_digits(number, precision, area):
    strata = strata_of(number)
    found = estimate_precision(strata)
    assert (round(found.value, 2), round(1.96 * found.standard_error, 2)) == precision
    ground = estimate_area(strata)
    assert (round(ground.value * HECTARES), round(1.96 * ground.standard_error * HECTARES)) == area


def test_the_recall_of_the_published_example():
    recall = estimate_recall(strata_of(0))
    assert (round(recall.value, 2), round(1.96 * recall.standard_error, 2)) == (0.75, 0.21)


@pytest.mark.parametrize("target", [0, 3, 30])
def test_wilsons_interval_is_scipys(target):
    from scipy.stats import binomtest

    expected = binomtest(target, 30).proportion_ci(0.9, method="wilson")
    assert wilson_interval(target / 30, 30, confidence=0.9) == pytest.approx((expected.low, expected.high))


def test_one_stratum_has_the_interval_of_its_part():
    stratum = StratumCounts(mapped=True, size=50.0, reviewed=20, target=7, finite=False)
    area, precision = estimate_area([stratum]), estimate_precision([stratum])
    low, high = wilson_interval(7 / 20, 20)
    assert (area.low, area.high) == pytest.approx((50 * low, 50 * high))
    assert (precision.low, precision.high) == pytest.approx((low, high))


def test_a_stratum_that_was_seen_whole_is_certain():
    stratum = StratumCounts(mapped=True, size=12, reviewed=12, target=9, finite=True)
    precision = estimate_precision([stratum])
    assert (precision.value, precision.standard_error, precision.low, precision.high) == (0.75, 0.0, 0.75, 0.75)


def test_where_nothing_was_missed_recall_is_one_and_its_interval_is_not():
    found = StratumCounts(mapped=True, size=100.0, reviewed=50, target=40, finite=False)
    elsewhere = StratumCounts(mapped=False, size=1000.0, reviewed=100, target=0, finite=False)
    recall = estimate_recall([found, elsewhere])
    assert recall.value == recall.high == 1
    assert 0.5 < recall.low < 0.9


@pytest.mark.parametrize("found", [0, 1, 29, 30])
@pytest.mark.parametrize("missed", [0, 1, 30])
def test_ends_are_on_both_sides_of_the_value(found, missed):
    strata = [
        StratumCounts(mapped=True, size=100.0, reviewed=30, target=found, finite=False),
        StratumCounts(mapped=False, size=900.0, reviewed=30, target=missed, finite=False),
    ]
    for estimate in (estimate_precision(strata), estimate_recall(strata), estimate_area(strata)):
        assert math.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high
    assert math.isnan(estimate_recall(strata).value) == (found == missed == 0)


def test_without_any_hit_recall_is_zero():
    found = StratumCounts(mapped=True, size=100.0, reviewed=50, target=0, finite=False)
    elsewhere = StratumCounts(mapped=False, size=1000.0, reviewed=100, target=10, finite=False)
    recall = estimate_recall([found, elsewhere])
    assert recall.value == recall.low == 0
    assert 0 < recall.high < 0.3


def test_what_was_not_reviewed_is_not_stated():
    found = StratumCounts(mapped=True, size=100.0, reviewed=50, target=40, finite=False)
    elsewhere = StratumCounts(mapped=False, size=1000.0, reviewed=0, target=0, finite=False)
    assert estimate_precision([found, elsewhere]).value == 0.8
    assert math.isnan(estimate_recall([found, elsewhere]).value)
    assert math.isnan(estimate_recall([found]).value)
    assert math.isnan(estimate_precision([elsewhere]).value)


@pytest.mark.parametrize(
    ("sizes", "parts", "reviewed"),
    [
        ((100, 300, 10_000), (0.8, 0.1, 0.0), (100, 100, 300)),  # nothing is missed far away
        (
            (100, 300, 10_000),
            (0.8, 0.1, 0.002),
            (100, 100, 300),
        ),  # seldom is anything seen there: z times SE holds 70 %
        ((100, 300, 2_000), (0.95, 0.3, 0.01), (60, 60, 200)),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(sizes, parts, reviewed):
    rng = np.random.default_rng(5)
    whole = [size * part for size, part in zip(sizes, parts, strict=True)]
    truths = (parts[0], whole[0] / sum(whole), sum(whole))
    held, draws = np.zeros(3), 400
    for _ in range(draws):
        strata = [
            StratumCounts(mapped=not row, size=size, reviewed=n, target=int(rng.binomial(n, part)), finite=False)
            for row, (size, part, n) in enumerate(zip(sizes, parts, reviewed, strict=True))
        ]
        estimates = (estimate_precision(strata), estimate_recall(strata), estimate_area(strata))
        held += [each.low <= truth <= each.high for each, truth in zip(estimates, truths, strict=True)]
    assert ((held / draws >= 0.9) & (held / draws <= 0.99)).all(), held / draws


def test_twice_the_standard_error_is_too_short_where_little_is_found():
    """As docs/howto/accuracy.md says: with 300 points elsewhere, one in 500 of which holds a slump."""
    rng = np.random.default_rng(5)
    held, draws, recall = np.zeros(2), 1000, 80 / 130
    for _ in range(draws):
        strata = [
            StratumCounts(mapped=mapped, size=size, reviewed=n, target=int(rng.binomial(n, part)), finite=False)
            for mapped, size, part, n in ((True, 100, 0.8, 100), (False, 300, 0.1, 100), (False, 10_000, 0.002, 300))
        ]
        estimate = estimate_recall(strata)
        held += [
            abs(estimate.value - recall) <= 1.96 * estimate.standard_error,
            estimate.low <= recall <= estimate.high,
        ]
    assert held[0] / draws == pytest.approx(0.71, abs=0.04)
    assert held[1] / draws == pytest.approx(0.94, abs=0.02)


def test_the_required_sample_gives_the_wanted_interval():
    n = required_sample(0.3, half_width=0.04)
    low, high = wilson_interval(0.3, n)
    assert (high - low) / 2 == pytest.approx(0.04, rel=0.02)
    assert required_sample(0.3, half_width=0.04, size=100) <= 100
    assert required_sample(0.0, half_width=0.1) == 2
    assert required_sample(0.5, half_width=0.1, size=1) == 1
