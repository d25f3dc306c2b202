"""Eager torch: runs every torch network as it is, and is the reference that other backends are held to."""

from collections.abc import Iterator

import torch

from rtsx.errors import BundleError
from rtsx.model.forward import Forward, in_batches_of, only_tensor

__all__ = ["cast_forward", "exported_shape", "open_eager", "uses_batch_statistics"]


def open_eager(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Put a module on a device and return its raw forward pass, which builds no gradients.

    Parameters
    ----------
    module
        Any `torch.nn.Module`, scripted and exported ones included, already in the mode it has to run in. It is moved
        to `device` in place and belongs to the returned function from then on.
    dtype
        Dtype of the arithmetic; anything but float32 runs under autocast, with weights kept in float32.
    """
    shape = exported_shape(module)
    # channels_last, because it is 1.2-1.9 times faster than NCHW on CPUs and what tensor cores want on GPUs.
    module = module.to(device).to(memory_format=torch.channels_last)
    forward = cast_forward(module, device=device, dtype=dtype)
    if uses_batch_statistics(module):
        # One by one, because batch statistics would otherwise mix tiles, and a tile's answer depend on its neighbours.
        return in_batches_of(forward, 1)
    if shape is None:
        return forward
    return _of_exported_shape(forward, shape)


def cast_forward(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Raw forward pass of a module: channels_last input, autocast to `dtype` unless that is float32, no gradients."""

    # no_grad instead of inference_mode, because callers blend answers in place and an inference tensor refuses that.
    def forward(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return only_tensor(module(batch.contiguous(memory_format=torch.channels_last)))

    return forward


def uses_batch_statistics(module: torch.nn.Module) -> bool:
    """Whether a batch normalisation in the module normalises by the tiles of the batch instead of stored averages."""
    return any(
        normalisation.training or normalisation.running_mean is None for normalisation in _batch_normalisations(module)
    )


def _batch_normalisations(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    for part in module.modules():
        # A scripted module keeps the name of the class it was made from.
        if getattr(part, "original_name", type(part).__name__).startswith(("BatchNorm", "SyncBatchNorm")):
            yield part


def exported_shape(module: torch.nn.Module) -> tuple[int | None, ...] | None:
    """Batch size, height and width that an exported program is bound to, None where free; None for other modules."""
    graph = getattr(module, "graph", None)
    if not isinstance(module, torch.fx.GraphModule) or graph is None:
        return None
    for node in graph.nodes:
        if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor):
            size = node.meta["val"].shape
            return tuple(length if isinstance(length, int) else None for length in (size[0], *size[2:]))
    return None


def _of_exported_shape(forward: Forward, shape: tuple[int | None, ...]) -> Forward:
    """Hold an exported program to the tile it was exported for, and feed it the batches it was exported for."""
    batched = forward if shape[0] is None else in_batches_of(forward, shape[0])

    def forward_checked(batch: torch.Tensor) -> torch.Tensor:
        if any(bound not in {None, length} for bound, length in zip(shape[1:], batch.shape[2:], strict=True)):
            raise BundleError(
                f"This program was exported for tiles of {shape[1]} x {shape[2]} px; it got {batch.shape[2]} x "
                f"{batch.shape[3]}. Predict with that tile, or export it with dynamic sizes of y and x."
            )
        return batched(batch)

    return forward_checked
