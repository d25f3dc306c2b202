"""A trial run on a small tile: whether a network takes its layers and answers with its classes."""

import torch

from rtsx.errors import BundleError
from rtsx.model.eager import exported_shape

__all__ = ["looks_like_probabilities", "try_network"]

_SIDE = 128
"""Side of the trial tile in px, where the stride allows."""
_CLOSE = 1e-4
"""How far a sum of probabilities may be from 1."""


def try_network(
    module: torch.nn.Module, *, n_layers: int, classes: tuple[str, ...], tile: int, stride: int
) -> torch.Tensor:
    """Run a torch network once on noise, and refuse it when it does not fit its description; return its raw answer.

    Raises
    ------
    BundleError
        The network takes another number of layers, or returns another number of classes or another size.

    Examples
    --------
    >>> network = torch.nn.Conv2d(3, 1, 1)
    >>> try_network(network, n_layers=3, classes=("target",), tile=256, stride=1).shape
    torch.Size([1, 1, 128, 128])
    """
    small = min(tile, max(stride, _SIDE // stride * stride))
    answer, failure = _answer(module, n_layers=n_layers, side=small)
    if failure is not None and small != tile:
        # A network that was traced or exported for one size takes its own tile only.
        small = tile
        answer, failure = _answer(module, n_layers=n_layers, side=tile)
    if failure is not None:
        raise BundleError(
            f"The network cannot run on {n_layers} layers and a tile of {small} px: {_first_line(failure)}. Check that "
            "the layers are as many as its input channels, and that the tile is a multiple of its stride."
        ) from failure
    batch = _batch_of(module)
    expected = (batch, len(classes), small, small)
    if not isinstance(answer, torch.Tensor):
        raise BundleError(
            f"The network has to return one tensor (tile, class, y, x); it returned a {type(answer).__name__}. Wrap it "
            "in a module whose forward returns the segmentation alone."
        )
    if tuple(answer.shape) != expected:
        raise BundleError(
            f"With classes {list(classes)} the network has to turn tiles ({batch}, {n_layers}, {small}, {small}) into "
            f"{expected}; it returned {tuple(answer.shape)}. Name as many classes as it has output channels, and let it "
            "answer at the resolution of its input."
        )
    return answer


def looks_like_probabilities(answer: torch.Tensor) -> bool:
    """Whether an answer (tile, class, y, x) lies in 0..1 and, with several classes, sums to 1.

    Examples
    --------
    >>> looks_like_probabilities(torch.tensor([[[[0.25]], [[0.75]]]]))
    True
    """
    if answer.min() < 0 or answer.max() > 1:
        return False
    return answer.shape[1] == 1 or bool((answer.sum(dim=1) - 1).abs().max() < _CLOSE)


def _answer(module: torch.nn.Module, *, n_layers: int, side: int) -> tuple[object, Exception | None]:
    noise = torch.randn((_batch_of(module), n_layers, side, side), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return module(noise), None
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        return None, error


def _batch_of(module: torch.nn.Module) -> int:
    """Tiles in a pass: one, unless the module is a program that was exported for another number."""
    shape = exported_shape(module)
    return 1 if shape is None or shape[0] is None else shape[0]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
