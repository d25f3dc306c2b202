"""One batch of tiles through every member, turn and scale of a plan.

Part of the kernel: tensors in, tensors out, on whatever device the batch lies on.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import interpolate

from rtsx.inference.augment import turned, turned_back
from rtsx.inference.plan import PredictionPlan

__all__ = ["Forward", "member_answer"]

Forward = Callable[[torch.Tensor], torch.Tensor]
"""A network: batch (tile, layer, y, x) to probabilities (tile, class, y, x)."""


def member_answer(batch: torch.Tensor, network: Forward, *, plan: PredictionPlan) -> torch.Tensor:
    """Probabilities (tile, class, y, x) of one member: turns averaged, scales fused by `plan.merge`."""
    if plan.augment == ("identity",) and plan.scales == (1.0,):
        return network(batch)
    return _fused([_averaged(_at_scale(batch, network, scale=scale, plan=plan)) for scale in plan.scales], plan.merge)


def _at_scale(batch: torch.Tensor, network: Forward, *, scale: float, plan: PredictionPlan) -> list[torch.Tensor]:
    size = batch.shape[-1]
    seen = batch if scale == 1 else _resized(batch, round(size * scale))
    answers = (turned_back(network(turned(seen, name).contiguous()), name) for name in plan.augment)
    return [answer if scale == 1 else _resized(answer, size) for answer in answers]


def _resized(batch: torch.Tensor, size: int) -> torch.Tensor:
    # Antialiased, because a plain bilinear half-size picture drops every other pixel's neighbours.
    return interpolate(batch, size=(size, size), mode="bilinear", align_corners=False, antialias=size < batch.shape[-1])


def _averaged(answers: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(answers)).mean(0) if len(answers) > 1 else answers[0]


def _fused(answers: Sequence[torch.Tensor], merge: str) -> torch.Tensor:
    if merge == "max" and len(answers) > 1:
        return torch.stack(list(answers)).amax(0)
    return _averaged(answers)
