import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score, precision_score, recall_score

from rtsx.scores import PixelScores
from rtsx.training.metrics import EpochMetrics


def make_answers(channels: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, channels, 12, 10, generator=generator) * 2
    probability = logits.sigmoid() if channels == 1 else logits.softmax(1)
    probability = (probability * 1000).round() / 1000
    target = torch.randint(0, max(channels, 2), (3, 12, 10), generator=generator).to(torch.uint8)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return probability, target


def test_a_single_class_is_judged_like_scikit_learn_does() -> None:
    probability, target = make_answers(1)
    judged = EpochMetrics.of(probability, target)
    counts = target != 255
    truth, found = target[counts].numpy() == 1, probability[:, 0][counts].numpy()
    scores = judged.scores(0.4)
    assert scores.iou == pytest.approx(jaccard_score(truth, found >= 0.4))
    assert scores.recall == pytest.approx(recall_score(truth, found >= 0.4))
    assert judged.mean_average_precision() == pytest.approx(average_precision_score(truth, found), abs=1e-9)
    ious = [jaccard_score(truth, found >= t) for t in np.unique(found)]
    assert judged.mean_iou(judged.best_threshold) == pytest.approx(max(ious))
    assert judged.n_pixels == counts.sum()


def test_of_several_classes_the_greatest_is_found() -> None:
    probability, target = make_answers(4)
    judged = EpochMetrics.of(probability, target)
    counts = target != 255
    truth = target[counts].numpy()
    greatest = probability.argmax(1)[counts].numpy()
    expected = jaccard_score(truth, greatest, labels=[1, 2, 3], average=None)
    assert [scores.iou for scores in judged.by_class(0.123)] == pytest.approx(expected.tolist())
    assert judged.mean_iou(0.5) == pytest.approx(expected.mean())
    assert judged.best_threshold == 0.5
    precision = precision_score(truth, greatest, labels=[1, 2, 3], average="micro")
    assert judged.scores(0.5).precision == pytest.approx(precision)


@pytest.mark.parametrize("channels", [1, 3])
def test_parts_add_up_to_the_whole(channels: int) -> None:
    probability, target = make_answers(channels, seed=3)
    whole = EpochMetrics.of(probability, target)
    parts = EpochMetrics.empty(channels=channels)
    for number in range(3):
        parts += EpochMetrics.of(probability[number : number + 1], target[number : number + 1])
    assert parts == whole
    assert EpochMetrics.empty(channels=channels).with_counts(whole.to_counts()) == whole


def test_nothing_to_judge_is_no_error() -> None:
    judged = EpochMetrics.of(torch.rand(1, 1, 2, 2), torch.full((1, 2, 2), 255, dtype=torch.uint8))
    assert (judged.n_pixels, judged.best_threshold) == (0, 0.5)
    assert np.isnan(judged.mean_average_precision())
    assert judged.scores(0.5) == PixelScores(hits=0, false_alarms=0, misses=0, rejections=0)
