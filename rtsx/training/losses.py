"""What is minimised: a weighted sum of losses over the pixels that count."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED
from rtsx.suggest import suggest
from rtsx.training.recipe import LossTerm

if TYPE_CHECKING:
    import torch

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Logits (tile, channel, y, x) and target (tile, y, x) uint8 to a scalar with a gradient."""

# Least and greatest value of each option, both included.
_SMOOTH = {"smooth": (0.0, math.inf), "log_loss": (False, True)}
LOSSES: Mapping[str, Mapping[str, tuple[float | bool, float | bool]]] = {
    "JaccardLoss": _SMOOTH,
    "DiceLoss": _SMOOTH,
    "FocalLoss": {"gamma": (0.0, math.inf), "alpha": (0.0, 1.0)},
    "LovaszLoss": {},
    "SoftBCEWithLogitsLoss": {"smooth_factor": (0.0, 0.5), "pos_weight": (0.0, math.inf)},
    "SoftCrossEntropyLoss": {"smooth_factor": (0.0, 1.0)},
}
"""Every loss by name, with the range of its options: ``smooth`` is added above and below the fraction, ``log_loss`` takes
-log of the score, ``gamma`` and ``alpha`` (one class only) are those of Lin et al. 2017, ``smooth_factor`` is the part of the
target that goes to the other classes, ``pos_weight`` what a positive pixel counts."""

# What only one class, or only several, can have, and what to take instead.
_ONE_CLASS = {"SoftBCEWithLogitsLoss": "SoftCrossEntropyLoss"}
_SEVERAL_CLASSES = {"SoftCrossEntropyLoss": "SoftBCEWithLogitsLoss"}


def check_losses(terms: Sequence[LossTerm]) -> None:
    """Refuse terms that are not known or not possible.

    Raises
    ------
    TrainingError
        There is no term, or one has an unknown name or option, a weight that is not above 0, or an option out of range.
    """
    if not terms:
        raise TrainingError(f"A training needs at least one loss; got none. Known are {', '.join(LOSSES)}.")
    for term in terms:
        if term.name not in LOSSES:
            raise TrainingError(f"There is no loss {term.name!r}.{suggest(term.name, LOSSES)}")
        if not (term.weight > 0 and math.isfinite(term.weight)):
            raise TrainingError(f"The weight of {term.name} has to be above 0; got {term.weight}. Leave the loss out.")
        for name, value in term.options.items():
            _check_option(term.name, name, value)


def _check_option(loss: str, name: str, value: float | bool) -> None:
    known = LOSSES[loss]
    if name not in known:
        raise TrainingError(f"{loss} has no option {name!r}.{suggest(name, known)}")
    low, high = known[name]
    if isinstance(low, bool) != isinstance(value, bool) or not isinstance(value, int | float):
        expected = "true or false" if isinstance(low, bool) else "a number"
        raise TrainingError(f"{name} of {loss} has to be {expected}; got {value!r}.")
    if not low <= value <= high:
        raise TrainingError(f"{name} of {loss} has to be from {low:g} to {high:g}; got {value}.")


def build_loss(terms: Sequence[LossTerm], *, classes: int) -> Loss:
    """The weighted sum of some losses.

    Pixels are selected before any loss sees them, instead of masked within: what stands in an ignored pixel, NaN included,
    changes nothing. Scores such as Dice's are those of all pixels of the batch that count, taken together. A batch in which
    nothing counts gives 0, with a gradient of 0.

    As in the library, Jaccard and Dice are 0 for a class of which the batch has no pixel: alone they do not punish false
    alarms in batches without a label, so add a loss by pixel.

    Parameters
    ----------
    terms
        As `check_losses` wants them.
    classes
        Channels of the logits: 1 for yes or no, whose target is 0 or 1; else the number of exclusive classes, the first of
        them background.

    Raises
    ------
    TrainingError
        As `check_losses`; or a loss or option is not made for so many classes.

    Examples
    --------
    >>> import torch
    >>> loss = build_loss([LossTerm(name="SoftBCEWithLogitsLoss")], classes=1)
    >>> loss(torch.tensor([[[[0.0, 99.0]]]]), torch.tensor([[[1, 255]]], dtype=torch.uint8))
    tensor(0.6931)
    """
    # Here, because configs are checked by the list above without waiting for torch.
    import torch

    from rtsx.training.smp import smp_loss

    check_losses(terms)
    for term in terms:
        _check_classes(term, classes)
    weighted = [(term.weight, smp_loss(term.name, term.options, classes=classes)) for term in terms]

    def loss(logits: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        is_counted = target != IGNORED
        if not is_counted.any():
            # Not logits * 0, which is NaN where a logit is infinite.
            return logits.masked_fill(torch.ones_like(logits, dtype=torch.bool), 0.0).sum()
        # In float32, because sums over a batch overflow float16.
        chosen = logits.movedim(1, -1)[is_counted].float()
        wanted = target[is_counted].long()
        return torch.stack([weight * each(chosen, wanted) for weight, each in weighted]).sum()

    return loss


def _check_classes(term: LossTerm, classes: int) -> None:
    if classes > 1 and term.name in _ONE_CLASS:
        raise TrainingError(
            f"{term.name} is for one class; this network has {classes}, which exclude each other. Take "
            f"{_ONE_CLASS[term.name]}."
        )
    if classes == 1 and term.name in _SEVERAL_CLASSES:
        raise TrainingError(
            f"{term.name} is for several classes: a softmax over one is always 1. Take {_SEVERAL_CLASSES[term.name]}."
        )
    if classes > 1 and "alpha" in term.options:
        raise TrainingError(
            f"alpha of {term.name} weighs positive against negative; with {classes} classes leave it out."
        )
