"""What is minimised: a weighted sum of losses over the pixels that count."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rtsx.errors import TrainingError
from rtsx.labels import IGNORED
from rtsx.names import suggest
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
    """Return the weighted sum of some losses.

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
    import torch

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
    if classes > 1 and term.name == "SoftBCEWithLogitsLoss":
        raise TrainingError(
            f"{term.name} is for one class; this network has {classes}, which exclude each other. Take SoftCrossEntropyLoss."
        )
    if classes == 1 and term.name == "SoftCrossEntropyLoss":
        raise TrainingError(
            f"{term.name} is for several classes: a softmax over one is always 1. Take SoftBCEWithLogitsLoss."
        )
    if classes > 1 and "alpha" in term.options:
        raise TrainingError(
            f"alpha of {term.name} weighs positive against negative; with {classes} classes leave it out."
        )


def smp_loss(name: str, options: Mapping[str, float | bool], *, classes: int) -> Loss:
    """Return a loss by its name in segmentation-models-pytorch, fed with the pixels that count and nothing else.

    It applies sigmoid (one class) or softmax (several) itself, once: logits (pixel, channel) float32 and target (pixel,) int64 to a
    scalar.

    Parameters
    ----------
    name
        One that `check_losses` lets through, and that is made for so many classes.
    options
        Its arguments; those not given are the library's own, with which `FocalLoss` has ``gamma`` 2.
    classes
        Channels of the logits; 1 means yes or no.
    """
    import torch
    from segmentation_models_pytorch import losses as smp  # here, because checking a config waits for neither

    values = dict(options)
    if name == "SoftBCEWithLogitsLoss":
        if "pos_weight" in values:
            values["pos_weight"] = torch.tensor(float(values["pos_weight"]))  # type: ignore[assignment]  # what it takes
        return _by_pixel(smp.SoftBCEWithLogitsLoss(ignore_index=None, **values), is_float=True)
    if name == "SoftCrossEntropyLoss":
        # Given always, because the library fails on its own default of None.
        return _by_pixel(smp.SoftCrossEntropyLoss(**({"smooth_factor": 0.0} | values)), is_float=False)
    if name == "FocalLoss" and classes > 1:
        return _softmax_focal(float(values.get("gamma", 2.0)))
    mode = smp.BINARY_MODE if classes == 1 else smp.MULTICLASS_MODE
    return _by_pixel(getattr(smp, name)(mode, **values), is_float=False)


def _by_pixel(module: "torch.nn.Module", *, is_float: bool) -> Loss:
    """Return the module on one picture of a single column, (1, channel, pixel, 1), whose every pixel counts."""

    def loss(logits: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        column = target.to(logits.dtype) if is_float else target
        # One class: (1, 1, pixel, 1) like the logits; several: (1, pixel, 1).
        shaped = column[None, None, :, None] if logits.shape[1] == 1 else column[None, :, None]
        value: torch.Tensor = module.to(logits.device)(logits.T[None, :, :, None], shaped)
        return value

    return loss


def _softmax_focal(gamma: float) -> Loss:
    """Return the focal loss of exclusive classes, ``mean((1 - p)^gamma * -log p)`` with p of the true class (Lin et al. 2017, eq. 4).

    Instead of the library's own, which takes every class for a question of its own with a sigmoid: the bundle's output is
    a softmax.
    """
    from torch.nn.functional import log_softmax

    def loss(logits: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        log_p = log_softmax(logits, dim=1).gather(1, target[:, None])
        return ((1 - log_p.exp()) ** gamma * -log_p).mean()

    return loss
