"""A trial run on small tiles: whether a network takes its layers, returns its classes, and returns scores."""

from collections.abc import Iterator, Sequence

import torch

from rtsx.errors import BundleError
from rtsx.model.eager import exported_shape
from rtsx.model.forward import Forward
from rtsx.model.inputs import InputLayer
from rtsx.model.scenery import Scenery, plausible_ranges

__all__ = ["check_output", "try_network"]

_SIDE = 128
"""Side of the trial tile in px, where the stride allows."""


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


def check_output(
    forward: Forward, *, inputs: Sequence[InputLayer], side: int, activation: str | None, described: str
) -> None:
    """Refuse a network whose output the activation would squeeze a second time, or that returns class numbers.

    The network runs on a plausible scene and on noise of many amplitudes. Scores (logits) grow with the amplitude, so
    an output that stays within 0..1, -1..1, 0..100 or 0..255, or whose classes always have one sum, is no score.

    Parameters
    ----------
    forward
        The network without the bundle's activation.
    inputs
        Its channels, for the plausible scene.
    side
        Side in px of a tile that it takes.
    activation
        "none" where the caller says that it returns probabilities.
    described
        What the network is, for messages.

    Raises
    ------
    BundleError
        The message says what was returned, and what to pass instead.

    Examples
    --------
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Sigmoid())
    >>> check_output(network, inputs=[InputLayer(name="red")], side=32, activation="none", described="The module")
    """
    answers = []
    for tile in _probes(inputs, side):
        try:
            with torch.no_grad():
                answer = forward(tile)
        except (RuntimeError, BundleError):  # beyond what its arithmetic holds; the other amplitudes remain
            continue
        if answer.dtype.is_floating_point and not bool(answer.isfinite().all()):
            continue
        answers.append(answer.detach().cpu())
    if not answers:
        return
    numbers = torch.cat([answer.double() for answer in answers])
    if not answers[0].dtype.is_floating_point or _are_class_numbers(numbers, activation=activation):
        some = ", ".join(f"{value:g}" for value in numbers.unique()[:5])
        raise BundleError(
            f"{described} returns whole numbers ({some}; {answers[0].dtype}), which are class numbers or a finished "
            "mask, not scores. Take the argmax, threshold or cast off its end, so that it returns one score or "
            "probability per class as float."
        )
    if activation == "none":
        return
    squeezed = _squeezed(numbers, activation=activation)
    if squeezed is not None:
        raise BundleError(
            f"{described} returns {squeezed[0]} already, whatever it is shown ({numbers.min():.3g} to "
            f"{numbers.max():.3g}); a {activation or 'sigmoid or softmax'} over them would make nearly equal numbers of "
            f"them. {squeezed[1]}"
        )


_AMPLITUDES = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the noise that is shown, in channel units; networks are trained on amplitudes about 1."""


def _probes(inputs: Sequence[InputLayer], side: int) -> Iterator[torch.Tensor]:
    yield Scenery(ranges=plausible_ranges(inputs), seed=0).field(side, number=0).contiguous()
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(inputs), side, side)
    for amplitude in _AMPLITUDES:
        for _ in range(2):
            # Each layer has a level of its own besides, because networks that average see nothing in noise.
            level = 2 * torch.randn((*shape[:2], 1, 1), generator=generator)
            yield amplitude * (level + torch.randn(shape, generator=generator))


def _are_class_numbers(numbers: torch.Tensor, *, activation: str | None) -> bool:
    low, high = numbers.min(), numbers.max()
    # Zeros and ones of a network that is said to return probabilities are probabilities, if coarse ones.
    is_mask = activation == "none" and 0 <= low <= high <= 1
    return not is_mask and bool((low >= 0) & (low < high) & (high < _MOST_CLASSES) & (numbers == numbers.round()).all())


_MOST_CLASSES = 256
"""Whole numbers above are the scores of strong noise."""


def _squeezed(numbers: torch.Tensor, *, activation: str | None) -> tuple[str, str] | None:
    """What the numbers (tile, class, y, x) are instead of scores, and the cure; None for scores, and where they do not tell."""
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return None
    if numbers.shape[1] > 1:
        if low >= 0 and _have_sum(numbers, 1):
            return "probabilities that sum to 1 over the classes", _NONE
        if low >= 0 and _have_sum(numbers, 100):
            return "percentages", _SCALED.format(wrong="(x / 100)")
        # A softmax takes the logarithm back: the answer is right.
        if high <= 0 and activation == "sigmoid" and _have_sum(numbers.exp(), 1):
            return "logarithms of probabilities", "Pass activation='softmax', which takes the logarithm back."
    if high - low < _FLAT and not (low >= 0 and (high < _FLAT or low > 1 - _FLAT)):
        return None  # a network without weights yet: nothing is known about it
    if low >= 0 and high <= 1:
        return "probabilities", _NONE
    if low >= -1 and high <= 1 and _reach(numbers, -1, 1):
        return "numbers of a tanh", _SCALED.format(wrong="((x + 1) / 2)")
    for most, scale in ((100, "(x / 100)"), (255, "(x / 255)")):
        if low >= 0 and high <= most and _reach(numbers, 0, most):
            return f"probabilities times {most}", _SCALED.format(wrong=scale)
    return None


_NONE = "Pass activation='none' if they are probabilities; else take what bounds them off the network's end."
_SCALED = "Wrap the network in a module that returns probabilities, {wrong}, and pass activation='none'."
_FLAT = 1e-3
"""Numbers of less spread say nothing about where they end, unless they crowd at 0 or 1."""


def _have_sum(numbers: torch.Tensor, total: float) -> bool:
    # Half precision inside a network rounds to three digits.
    return bool((numbers.sum(dim=1) / total - 1).abs().max() < 5e-3)


def _reach(numbers: torch.Tensor, low: float, high: float) -> bool:
    """Whether many numbers crowd at both bounds, as those of no score do."""
    near = 1e-3 * (high - low)
    return all(int(((numbers - bound).abs() <= near).sum()) >= _CROWD for bound in (low, high))


_CROWD = 16


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
