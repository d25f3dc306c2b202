"""How much memory a network's forward pass takes, estimated without running it.

The network is walked on torch's meta device, where tensors have shapes but no storage, and every allocation is
followed until it is freed; the greatest sum alive at once is the answer. Exact for what torch allocates as tensors;
what a convolution library needs as scratch comes on top and is the margin of whoever plans.
"""

import copy
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rtsx.model.network import run_in_torch_thread

if TYPE_CHECKING:
    from rtsx.model.bundle import ModelBundle

# Where a network cannot be walked (ONNX, scripted): twice what a U-Net with 16 channels at full size takes.
_UNKNOWN_BYTES_PER_PIXEL = 1024

_BY_DIGEST: dict[str, int] = {}


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage from its first tensor to its last."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0917 - torch's
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def activation_bytes(module: torch.nn.Module, *, layers: int, tile: int, batch: int) -> int:
    """Return the most bytes that tensors take at once during ``module(batch of tiles)`` in float32, input and output included."""
    walked = copy.deepcopy(module).to("meta")
    counter = _LiveBytes()
    with torch.inference_mode(), counter:
        walked(torch.empty((batch, layers, tile, tile), device="meta"))
    return counter.peak


def network_bytes_per_pixel(bundle: "ModelBundle") -> int:
    """Return the bytes per pixel of a tile that one forward pass of a bundle takes; walked once per process and digest."""
    if bundle.digest not in _BY_DIGEST:
        _BY_DIGEST[bundle.digest] = run_in_torch_thread(lambda: _walked(bundle)) + 1
    return _BY_DIGEST[bundle.digest]


def _walked(bundle: "ModelBundle") -> int:
    if bundle.source.framework != "torch":
        return _UNKNOWN_BYTES_PER_PIXEL
    module = bundle.source.load_module()
    try:
        return activation_bytes(module, layers=len(bundle.inputs), tile=bundle.tile, batch=1) // bundle.tile**2
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        # It makes tensors of its own on the CPU, which do not mix with those of the meta device.
        return _UNKNOWN_BYTES_PER_PIXEL
