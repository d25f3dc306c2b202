"""Scores of areas where there is nothing."""

from rtsx.scores import AreaScores


def test_nothing_to_find_and_nothing_found():
    nothing = AreaScores(shared_m2=0.0, false_m2=0.0, missed_m2=0.0)
    assert (nothing.iou, nothing.precision, nothing.recall, nothing.f1) == (1.0, 1.0, 1.0, 1.0)
