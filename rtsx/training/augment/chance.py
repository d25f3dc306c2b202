"""Random numbers of one augmentation of one batch."""

import torch

from rtsx.training.seeds import seed_of

__all__ = ["Chance"]


class Chance:
    """Numbers that depend on a key alone; drawn on the CPU, whatever device the batch is on.

    Examples
    --------
    >>> first, second = (Chance(3, 1).uniform((2,), low=0, high=1) for _ in range(2))
    >>> torch.equal(first, second)
    True
    """

    def __init__(self, *key: int | str) -> None:
        self._generator = torch.Generator().manual_seed(seed_of(*key))

    def chosen(self, count: int, *, probability: float) -> torch.Tensor:
        """Which of so many things happen, bool (count,)."""
        return torch.rand(count, generator=self._generator) < probability

    def uniform(self, shape: tuple[int, ...], *, low: float, high: float) -> torch.Tensor:
        """Float32 numbers from `low` to `high`, all equally likely."""
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def integers(self, count: int, *, low: int, high: int) -> torch.Tensor:
        """Whole numbers from `low` to `high`, both included, int64 (count,)."""
        return torch.randint(low, high + 1, (count,), generator=self._generator)

    def order(self, count: int, *, of: int) -> torch.Tensor:
        """For each of `count` things a permutation of the numbers below `of`, int64 (count, of)."""
        return torch.rand((count, of), generator=self._generator).argsort(1)
