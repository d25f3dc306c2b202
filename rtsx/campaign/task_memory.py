"""Memory of one task of a campaign, reckoned before anything runs. Pure, but for walking the networks' tensors."""

from collections.abc import Sequence

from rtsx.campaign.plan import CampaignPlan
from rtsx.inference.memory import MemoryPlan
from rtsx.model import ModelBundle
from rtsx.model.activations import network_bytes_per_pixel

__all__ = ["task_memory"]

# Bands of stored pixels at a time: the one at work, the one that is read meanwhile, and both once more while they are joined.
_BANDS = 4
# Blocks of network input and of answers at a time: the one at work, and what waits for the tiles below.
_BLOCKS = 2
# Side of what the windows of one block span where a tile is smaller.
_SPAN = 2048
# What the scratch of convolutions takes on top of the tensors themselves.
_SCRATCH = 2.0
# Copies of a cell's answers: while they are outlined, labels of four bytes stand beside each map.
_LABEL_BYTES = 4


def task_memory(
    plan: CampaignPlan, bundles: Sequence[ModelBundle], *, stored_bytes_per_pixel: int, batch_size: int | None
) -> MemoryPlan:
    """What a worker process needs for one cell at most, besides libraries and weights.

    Parameters
    ----------
    plan
        What is run.
    bundles
        Those of the plan.
    stored_bytes_per_pixel
        Of all layers that are read, and of the validity.
    batch_size
        Tiles per forward pass; None for the one of a CPU.
    """
    tiling, side = plan.prediction.tiling, plan.grid.cell_size
    span = max(tiling.tile, _SPAN)
    across = min(side + 2 * tiling.tile, plan.shape[1])
    block = min(span, plan.shape[0]) * min(span, across)
    band = min(span, plan.shape[0]) * across
    inputs = {(bundle.inputs, bundle.fill) for bundle in bundles}
    classes = len(plan.prediction.classes)
    kept = side**2 * (2 * classes + 1)
    return MemoryPlan(
        window_bytes=_BANDS * band * stored_bytes_per_pixel
        + _BLOCKS * block * 4 * sum(len(layers) for layers, _ in inputs),
        answer_bytes=_BLOCKS * 4 * classes * band + kept + (0 if plan.outlines is None else side**2 * _LABEL_BYTES),
        network_bytes=int(_SCRATCH * max(map(network_bytes_per_pixel, bundles)) * (batch_size or 1) * tiling.tile**2),
    )
