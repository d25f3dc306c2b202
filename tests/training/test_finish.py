import numpy as np
import pytest
import torch

from rtsx.training.finish import best_temperature, counted_logits, negative_log_likelihood


def make_pixels(channels: int, *, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels whose truth was drawn with the probabilities of their logits over the temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (40_000, channels)).astype(np.float32)
    if channels == 1:
        probability = 1 / (1 + np.exp(-logits[:, 0] / temperature))
        return logits, (random.random(len(logits)) < probability).astype(np.uint8)
    gumbel = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + gumbel).argmax(1).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_that_made_the_truth_is_found(channels: int, temperature: float) -> None:
    logits, truth = make_pixels(channels, temperature=temperature)
    assert best_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_other_temperature_is_better(channels: int) -> None:
    logits, truth = make_pixels(channels, temperature=2.0, seed=1)
    best = best_temperature(logits, truth)
    least = negative_log_likelihood(logits, truth, temperature=best)
    tried = [negative_log_likelihood(logits, truth, temperature=t) for t in np.geomspace(0.05, 20, 60)]
    assert least <= min(tried) + 1e-7


def test_the_likelihood_is_that_of_its_definition() -> None:
    logits = np.array([[1.0], [-2.0]], np.float32)
    expected = -np.mean([np.log(1 / (1 + np.exp(-0.5))), np.log(1 - 1 / (1 + np.exp(1.0)))])
    found = negative_log_likelihood(logits, np.array([1, 0], np.uint8), temperature=2.0)
    assert found == pytest.approx(expected)


def test_one_kind_of_pixels_cannot_calibrate() -> None:
    assert best_temperature(np.ones((5, 1), np.float32), np.zeros(5, np.uint8)) == 1.0


def test_only_pixels_that_count_are_looked_at() -> None:
    logits = torch.arange(16.0).reshape(1, 2, 2, 4)
    target = torch.tensor([[[0, 1, 255, 1], [255, 0, 0, 1]]], dtype=torch.uint8)
    values, truth = counted_logits(logits, target, every=1)
    assert values.tolist() == [[0, 8], [1, 9], [3, 11], [5, 13], [6, 14], [7, 15]]
    assert truth.tolist() == [0, 1, 1, 0, 0, 1]
    assert counted_logits(logits, target, every=4)[1].tolist() == [0, 0]
