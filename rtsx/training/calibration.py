"""Calibration: the temperature that makes probabilities mean what they say.

Guo, Pleiss, Sun, Weinberger 2017 (ICML), "On calibration of modern neural networks": logits are divided by one number,
which is chosen to minimise the negative log-likelihood of held-out pixels. Which answer is greatest never changes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

__all__ = ["SAMPLED_PIXELS", "best_temperature", "counted_logits", "negative_log_likelihood"]

SAMPLED_PIXELS = 2**20
"""Pixels that calibration looks at, at most about: more would not move one number."""
_LIMITS = (1 / 20, 20.0)
"""Least and greatest temperature; where all held-out pixels are right, colder is always better."""


def counted_logits(
    logits: torch.Tensor, target: torch.Tensor, *, ignored: int, every: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Logits (pixel, class) and classes (pixel,) of every so-many-th pixel that counts.

    Parameters
    ----------
    logits
        (tile, class, y, x), of any floating dtype.
    target
        (tile, y, x) uint8.
    ignored
        The target's value where a pixel does not count.
    every
        1 takes every pixel.
    """
    counts = target != ignored
    chosen = logits.movedim(1, -1)[counts][::every]
    return chosen.float().cpu().numpy(), target[counts][::every].cpu().numpy()


def negative_log_likelihood(logits: NDArray[np.float32], truth: NDArray[np.uint8], *, temperature: float) -> float:
    """Mean negative logarithm of the probability of the truth, in nats.

    Parameters
    ----------
    logits
        (pixel, class); one class stands for a sigmoid, several for a softmax.
    truth
        (pixel,): 0 or 1 with one class, the class with several.
    temperature
        What logits are divided by.

    Examples
    --------
    >>> logits = np.array([[0.0], [0.0]], np.float32)
    >>> round(negative_log_likelihood(logits, np.array([0, 1], np.uint8), temperature=2.0), 4)
    0.6931
    """
    scaled = torch.from_numpy(logits).double() / temperature
    if logits.shape[1] == 1:
        target = torch.from_numpy(truth).double()
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled[:, 0], target))
    return float(torch.nn.functional.cross_entropy(scaled, torch.from_numpy(truth).long()))


def best_temperature(logits: NDArray[np.float32], truth: NDArray[np.uint8]) -> float:
    """Temperature with the least negative log-likelihood, between 0.05 and 20; 1 where the truth is the same everywhere.

    Without both kinds of pixels there is nothing to weigh: the best probability would be 0 or 1 throughout.
    """
    if len(np.unique(truth)) < 2:
        return 1.0
    low, high = (math.log(limit) for limit in _LIMITS)
    # In the logarithm, because a temperature and its inverse are equally far from 1.
    found = minimize_scalar(
        lambda exponent: negative_log_likelihood(logits, truth, temperature=math.exp(exponent)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-4},
    )
    # Rounded, because further digits depend on how the machine adds up.
    return round(math.exp(float(found.x)), 3)
