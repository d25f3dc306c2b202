"""How weights are changed: optimiser, learning rate over time, averaging."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["OptimisationSpec", "OptimiserName", "ScheduleName"]

OptimiserName = Literal["AdamW", "Adam", "SGD"]
ScheduleName = Literal["constant", "StepLR", "ExponentialLR", "cosine"]


@dataclass(frozen=True, kw_only=True)
class OptimisationSpec:
    """Everything between a gradient and the next weights."""

    optimiser: OptimiserName = "AdamW"
    """Class of `torch.optim`."""
    learning_rate: float = 1e-3
    """Learning rate at its highest."""
    optimiser_options: Mapping[str, float | bool] = field(default_factory=dict)
    """Further arguments of the optimiser, such as ``weight_decay``."""
    schedule: ScheduleName = "cosine"
    """``constant``; torch's ``StepLR`` and ``ExponentialLR``, by epochs; or ``cosine``: a half cosine to 0, by steps."""
    schedule_options: Mapping[str, float] = field(default_factory=dict)
    """Arguments of the schedule: ``step_size`` (epochs) and ``gamma``; ``gamma``."""
    warmup: float = 0.0
    """Part of all steps, 0 to below 1, over which the learning rate rises from 0, whatever the schedule."""
    gradient_clip: float | None = None
    """Greatest norm of the gradient; None: as it comes."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, such as 0.999, which is then what is judged and kept; None:
    the weights themselves."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of forward and backward pass; anything but float32 by autocast, float16 with scaled gradients."""
