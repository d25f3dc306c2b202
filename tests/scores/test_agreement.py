"""Agreement is what comparing masks one by one gives."""

import numpy as np
import pytest

from rtsx.scores import AgreementCounts, bootstrap_indices, percentile_interval


def naive_iou(one, other):
    union = (one | other).sum()
    return (one & other).sum() / union if union else 1.0


@pytest.mark.parametrize("annotators", [2, 3, 4])
def test_agreement_with_each_and_with_the_majority(annotators):
    random = np.random.default_rng(annotators)
    masks, counted = random.random((annotators + 1, 12, 15)) < 0.5, random.random((12, 15)) < 0.7
    counts = AgreementCounts.of(masks, counted, annotators=annotators)
    seen = masks[:, counted]
    iou = [[naive_iou(one, other) for other in seen] for one in seen]
    np.testing.assert_allclose(counts.iou(), iou, atol=1e-12)
    by_all = seen[:annotators].mean(axis=0) >= 0.5
    assert counts.all_size == by_all.sum()
    for number, mask in enumerate(seen):
        others = np.delete(seen[:annotators], number, axis=0) if number < annotators else seen[:annotators]
        by_others = others.mean(axis=0) >= 0.5
        assert counts.all_shared[number] == (by_all & mask).sum()
        assert counts.others_shared[number] == (by_others & mask).sum()
        assert counts.others_size[number] == by_others.sum()


def test_counts_of_parts_add_up():
    random = np.random.default_rng(0)
    masks, counted = random.random((4, 12, 15)) < 0.5, random.random((12, 15)) < 0.7
    whole = AgreementCounts.of(masks, counted, annotators=3)
    left, right = (AgreementCounts.of(masks[..., s], counted[..., s], annotators=3) for s in (np.s_[:7], np.s_[7:]))
    together = left + right
    np.testing.assert_array_equal(whole.shared, together.shared)
    np.testing.assert_array_equal(whole.others_shared, together.others_shared)
    assert (whole.all_size, whole.counted) == (together.all_size, together.counted)


def test_other_masks_do_not_add_up():
    mask, counted = np.ones((2, 3, 3), bool), np.ones((3, 3), bool)
    one, other = (AgreementCounts.of(mask, counted, annotators=n) for n in (1, 2))
    with pytest.raises(ValueError, match="of the same masks"):
        one + other


def test_draws_are_seeded_and_complete():
    drawn = bootstrap_indices(7, draws=200, seed=3)
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(drawn, bootstrap_indices(7, draws=200, seed=3))
    assert not np.array_equal(drawn, bootstrap_indices(7, draws=200, seed=4))
    assert abs(drawn.mean() - 1) < 1e-12


def test_the_interval_leaves_missing_scores_out():
    values = np.append(np.linspace(0, 1, 201), [np.nan, np.nan])
    assert np.allclose(percentile_interval(values), (0.025, 0.975))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
    assert np.isnan(percentile_interval(np.empty(0))).all()
