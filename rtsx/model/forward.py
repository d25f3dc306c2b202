"""The raw forward pass that every backend offers, and how a pass of fixed batch size serves batches of any size."""

from collections.abc import Callable

import torch

from rtsx.errors import BundleError

__all__ = ["Forward", "in_batches_of", "in_largest_batches", "only_tensor"]

Forward = Callable[[torch.Tensor], torch.Tensor]
"""A network without its activation: (tile, layer, y, x) float32 to (tile, class, y, x) of any floating dtype."""


def in_batches_of(forward: Forward, size: int) -> Forward:
    """Make a forward pass that only takes `size` tiles at once take any number of them.

    The last batch is filled up with copies of its last tile, whose answers are dropped.

    Examples
    --------
    >>> seen = []
    >>> def pairs(batch):
    ...     seen.append(len(batch))
    ...     return batch * 2
    >>> in_batches_of(pairs, 2)(torch.ones(3, 1, 4, 4)).shape, seen
    (torch.Size([3, 1, 4, 4]), [2, 2])
    """

    def forward_any(batch: torch.Tensor) -> torch.Tensor:
        answers = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            missing = size - len(part)
            if missing:
                part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
            # A copy, because a backend may hand out the same buffer again on the next pass.
            answers.append(forward(part)[: size - missing].clone())
        return torch.cat(answers)

    return forward_any


def in_largest_batches(forward: Forward) -> Forward:
    """Fill every batch up to the largest that came so far with such tiles, for a pass that is slow to meet a new size.

    When the device runs out of memory the largest is forgotten: the caller comes again with fewer tiles, and filling
    these up would fail the same way.
    """
    largest: dict[torch.Size, int] = {}

    def forward_filled(batch: torch.Tensor) -> torch.Tensor:
        tile = batch.shape[1:]
        size = largest[tile] = max(largest.get(tile, 0), len(batch))
        try:
            return in_batches_of(forward, size)(batch)
        except torch.OutOfMemoryError:
            largest.pop(tile, None)
            raise

    return forward_filled


def only_tensor(raw: object) -> torch.Tensor:
    """Take the network's output as it is when it is one tensor, and refuse it otherwise.

    Raises
    ------
    BundleError
        The network returns a tuple, a dictionary or something else that holds several tensors.
    """
    if isinstance(raw, torch.Tensor):
        return raw
    inside = f" with keys {sorted(map(str, raw))}" if isinstance(raw, dict) else ""
    raise BundleError(
        f"The network has to return one tensor (tile, class, y, x); it returned a {type(raw).__name__}{inside}. "
        "Wrap it in a module whose forward returns the segmentation alone."
    )
