"""The loss wants the truth and counts valid pixels only; a short training learns something."""

import numpy as np
import pytest
import torch

from rtsx.cli.demo_examples import Example
from rtsx.cli.demo_training import TrainingPlan, best_threshold, count_pixels, loss_of, train


class Brightness(torch.nn.Module):
    """Logit that grows with the first channel: 0 at 0.5."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return 8 * (batch[:, :1] - 0.5)


def bright_square(seed: int) -> Example:
    """A scene in which blue alone tells the target: DN 2000 inside, 200 outside, a margin of invalid pixels."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((128, 128), bool)
    row, column = rng.integers(20, 70, 2)
    truth[row : row + 30, column : column + 30] = True
    stored = rng.normal(200, 20, (4, 128, 128))
    stored[0, truth] = 2000
    valid = np.ones((128, 128), bool)
    valid[:10] = False
    return Example(
        stored=torch.from_numpy(stored.astype(np.int16)), valid=torch.from_numpy(valid), truth=torch.from_numpy(truth)
    )


def test_the_loss_is_least_for_the_truth():
    truth = torch.zeros(2, 16, 16, dtype=torch.bool)
    truth[:, 4:9, 4:9] = True
    valid = torch.ones_like(truth)
    right = torch.where(truth, 20.0, -20.0)
    assert loss_of(right, truth=truth, valid=valid) < 1e-6
    assert loss_of(-right, truth=truth, valid=valid) > 10
    assert loss_of(torch.zeros(2, 16, 16), truth=truth, valid=valid) == pytest.approx(0.693 + 1 - 26 / 282, abs=1e-2)


def test_the_loss_is_blind_to_invalid_pixels():
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    valid = torch.ones_like(truth)
    valid[:, :, 4:] = False
    logits = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    other = torch.where(valid, logits, torch.tensor(50.0))
    assert loss_of(logits, truth=truth, valid=valid) == loss_of(other, truth=truth | ~valid, valid=valid)


def test_pixels_are_counted_where_they_are_valid():
    example = bright_square(0)
    (counts,) = count_pixels(Brightness(), [example], thresholds=[0.5])
    assert counts.tolist() == [[900, 900, 900]]
    none_valid = Example(stored=example.stored, valid=torch.zeros_like(example.valid), truth=example.truth)
    assert count_pixels(Brightness(), [none_valid], thresholds=[0.5]).sum() == 0


def test_the_best_threshold_separates():
    threshold, score = best_threshold(Brightness(), [bright_square(1), bright_square(2)])
    assert 0.2 <= threshold <= 0.8
    assert score == 1


@pytest.fixture
def one_thread():
    """Because threads that wait for each other take most of the time of tensors this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_short_training_learns_and_repeats():
    plan = TrainingPlan(
        encoder="tu-test_resnet", decoder=(16, 8), steps=16, batch=4, crop=32, checks=2, learning_rate=1e-2
    )
    examples = [bright_square(seed) for seed in range(3)]
    first, again = (train(plan, training=examples, validation=[bright_square(9)]) for _ in range(2))
    assert first.iou > 0.7  # without learning 0.49
    assert first.iou == again.iou
    assert first.threshold == again.threshold
    assert not first.network.training
