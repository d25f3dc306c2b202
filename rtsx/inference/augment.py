"""Test-time augmentation: ways to turn a batch before the network sees it, and to turn its answer back.

Pure functions of tensors whose last two axes are (y, x) and equally long.
"""

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch

__all__ = ["AUGMENTATIONS", "Augmentation", "turned", "turned_back"]

Augmentation = Literal["identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
"""A turn by name; rotations are counter-clockwise, `transpose` mirrors at the main diagonal."""

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
"""Every augmentation by name."""

_BACK: dict[Augmentation, Augmentation] = {"rot90": "rot270", "rot270": "rot90"}


def turned(batch: "torch.Tensor", augmentation: Augmentation) -> "torch.Tensor":
    """The batch as a view turned by `augmentation`; shape (..., y, x) with y equal to x."""
    match augmentation:
        case "identity":
            return batch
        case "hflip":
            return batch.flip(-1)
        case "vflip":
            return batch.flip(-2)
        case "transpose":
            return batch.transpose(-2, -1)
        case _:
            return batch.rot90(int(augmentation.removeprefix("rot")) // 90, dims=(-2, -1))


def turned_back(answer: "torch.Tensor", augmentation: Augmentation) -> "torch.Tensor":
    """Undo `turned`: ``turned_back(turned(batch, a), a)`` is the batch.

    Examples
    --------
    >>> import torch
    >>> batch = torch.arange(4).reshape(2, 2)
    >>> all(torch.equal(turned_back(turned(batch, a), a), batch) for a in AUGMENTATIONS)
    True
    """
    return turned(answer, _BACK.get(augmentation, augmentation))
