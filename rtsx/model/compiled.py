"""torch.compile: kernels made for one network and one tile size; costs tens of seconds before the first answer."""

import shutil
from importlib.util import find_spec

import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model.eager import cast_forward, uses_batch_statistics
from rtsx.model.forward import Forward, in_largest_batches

__all__ = ["can_compile", "open_compiled"]


def can_compile(device: torch.device) -> bool:
    """Whether the machine has what torch.compile calls: a C++ compiler for a CPU, Triton for a GPU."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def open_compiled(module: torch.nn.Module, *, device: torch.device, dtype: torch.dtype) -> Forward:
    """Raw forward pass whose kernels are compiled at the first call of each tile size.

    Weights are frozen into the kernels, so that normalisation folds into convolutions. Batches are filled up to the
    largest that came so far, because another batch size would be compiled anew.

    Raises
    ------
    MissingExtraError
        There is no compiler.
    BundleError
        The network cannot be compiled as it is.
    """
    if not can_compile(device):
        wanted = "Triton" if device.type == "cuda" else "a C++ compiler, such as g++,"
        raise MissingExtraError(f"backend='compile' needs {wanted} on this machine. Install it, or take 'eager'.")
    if isinstance(module, torch.jit.ScriptModule) or uses_batch_statistics(module):
        raise BundleError("Scripted networks and batch statistics cannot be compiled. Run them with backend='eager'.")
    module = module.to(device).to(memory_format=torch.channels_last)
    compiled = torch.compile(
        cast_forward(module, device=device, dtype=dtype), dynamic=False, options={"freezing": True}
    )
    return in_largest_batches(compiled)
