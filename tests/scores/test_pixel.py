"""Pixel scores agree with scikit-learn and torchmetrics on random maps with pixels that do not count."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as tm

from rtsx.scores import AreaScores, PixelScores, PixelTally, average_precision, best_threshold, calibration_error


def random_map(seed, *, levels, share=0.3, size=(64, 50)):
    """Levels, truth, and which pixels count."""
    random = np.random.default_rng(seed)
    truth = random.random(size) < share
    level = np.clip(random.normal(np.where(truth, 0.6, 0.35), 0.25, size), 0, 1)
    return np.rint(level * levels).astype(np.int64), truth, random.random(size) < 0.8


@pytest.mark.parametrize("levels", [100, 10_000])
@pytest.mark.parametrize("seed", range(4))
def test_scores_at_a_threshold_are_those_of_torchmetrics(seed, levels):
    level, truth, counts = random_map(seed, levels=levels)
    tally = PixelTally.of(level[counts], truth[counts], levels=levels)
    for threshold in (0.0, 0.29, 0.5, 0.77, 1.0):
        scores = PixelScores.at(tally, threshold)
        found = torch.as_tensor(level >= round(threshold * levels)).long()
        target = torch.where(torch.as_tensor(counts), torch.as_tensor(truth).long(), -1)
        for name, function in (
            ("iou", tm.binary_jaccard_index),
            ("precision", tm.binary_precision),
            ("recall", tm.binary_recall),
            ("f1", tm.binary_f1_score),
        ):
            assert getattr(scores, name) == pytest.approx(float(function(found, target, ignore_index=-1)), abs=1e-6)


@pytest.mark.parametrize("levels", [100, 10_000])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_average_precision_is_that_of_scikit_learn(levels, share):
    for seed in range(4):
        level, truth, counts = random_map(seed, levels=levels, share=share)
        tally = PixelTally.of(level[counts], truth[counts], levels=levels)
        expected = sklearn.metrics.average_precision_score(truth[counts], level[counts] / levels)
        assert average_precision(tally) == pytest.approx(expected, abs=1e-6)
        target = torch.as_tensor(truth[counts]).long()
        other = tm.binary_average_precision(torch.as_tensor(level[counts] / levels), target, thresholds=None)
        assert average_precision(tally) == pytest.approx(float(other), abs=1e-6)


@pytest.mark.parametrize("bins", [10, 15])
def test_the_calibration_error_is_that_of_torchmetrics_away_from_the_borders_of_bins(bins):
    """On a border the two differ: torchmetrics closes bins on the left and gives 1.0 one of its own."""
    for seed in range(4):
        level, truth, counts = random_map(seed, levels=100)
        counts &= (level * bins) % 100 != 0
        tally = PixelTally.of(level[counts], truth[counts], levels=100)
        probability = torch.as_tensor(level[counts] / 100)
        expected = tm.binary_calibration_error(probability, torch.as_tensor(truth[counts]).long(), n_bins=bins)
        assert calibration_error(tally, bins=bins) == pytest.approx(float(expected), abs=1e-6)


def test_the_calibration_error_closes_bins_on_the_right():
    level, truth, counts = random_map(5, levels=100)
    expected, total = 0.0, counts.sum()
    for number in range(10):
        inside = counts & (level > 10 * number) & (level <= 10 * (number + 1)) | (counts & (level == 0) & (number == 0))
        expected += abs((level[inside] / 100).sum() - truth[inside].sum()) / total
    tally = PixelTally.of(level[counts], truth[counts], levels=100)
    assert calibration_error(tally, bins=10) == pytest.approx(expected, abs=1e-12)


def test_the_best_threshold_is_the_best_of_all():
    level, truth, counts = random_map(6, levels=100)
    tally = PixelTally.of(level[counts], truth[counts], levels=100)
    threshold, iou = best_threshold(tally)
    tried = [PixelScores.at(tally, step / 100).iou for step in range(1, 101)]
    assert iou == max(tried)
    assert threshold == pytest.approx((1 + int(np.argmax(tried))) / 100)


def test_nothing_to_find_is_told_apart():
    empty = PixelTally.empty(levels=100)
    assert np.isnan(average_precision(empty))
    assert np.isnan(calibration_error(empty))
    assert best_threshold(empty) == (0.5, 1.0)
    nothing = PixelScores(hits=0, false_alarms=0, misses=0, rejections=9)
    assert (nothing.iou, nothing.precision, nothing.recall, nothing.f1) == (1.0, 1.0, 1.0, 1.0)


def test_tallies_of_other_levels_do_not_add_up():
    with pytest.raises(ValueError, match="have the same levels"):
        PixelTally.empty(levels=100) + PixelTally.empty(levels=10)


def test_nothing_to_find_and_nothing_found():
    nothing = AreaScores(shared_m2=0.0, false_m2=0.0, missed_m2=0.0)
    assert (nothing.iou, nothing.precision, nothing.recall, nothing.f1) == (1.0, 1.0, 1.0, 1.0)
