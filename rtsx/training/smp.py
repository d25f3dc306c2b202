"""Losses of segmentation-models-pytorch, fed with the pixels that count and nothing else."""

from collections.abc import Callable, Mapping

import torch
from segmentation_models_pytorch import losses as smp

SmpLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits (pixel, channel) float32 and target (pixel,) int64 to a scalar."""


def smp_loss(name: str, options: Mapping[str, float | bool], *, classes: int) -> SmpLoss:
    """A loss by its name in the library; it applies sigmoid (one class) or softmax (several) itself, once.

    Parameters
    ----------
    name
        One that `check_losses` lets through, and that is made for so many classes.
    options
        Its arguments; those not given are the library's own, with which `FocalLoss` has ``gamma`` 2.
    classes
        Channels of the logits; 1 means yes or no.
    """
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


def _by_pixel(module: torch.nn.Module, *, is_float: bool) -> SmpLoss:
    """The module on one picture of a single column, (1, channel, pixel, 1), whose every pixel counts."""

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        column = target.to(logits.dtype) if is_float else target
        # One class: (1, 1, pixel, 1) like the logits; several: (1, pixel, 1).
        shaped = column[None, None, :, None] if logits.shape[1] == 1 else column[None, :, None]
        value: torch.Tensor = module.to(logits.device)(logits.T[None, :, :, None], shaped)
        return value

    return loss


def _softmax_focal(gamma: float) -> SmpLoss:
    """Focal loss of exclusive classes, ``mean((1 - p)^gamma * -log p)`` with p of the true class (Lin et al. 2017, eq. 4).

    Instead of the library's own, which takes every class for a question of its own with a sigmoid: the bundle's answer is
    a softmax.
    """

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_p = torch.nn.functional.log_softmax(logits, dim=1).gather(1, target[:, None])
        return ((1 - log_p.exp()) ** gamma * -log_p).mean()

    return loss
