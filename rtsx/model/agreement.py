"""Whether a backend that was asked for by name answers like the reference; found out once per process and network."""

from threading import Lock

import torch

from rtsx.errors import BundleError
from rtsx.model.bundle import ModelBundle
from rtsx.model.network import resolve_device, resolve_dtype
from rtsx.model.scenery import Scenery, plausible_ranges

__all__ = ["AGREEMENT", "difference", "reference_backend", "require_agreement"]

AGREEMENT = 1e-4
"""Most that a backend's probabilities may differ from the reference's."""

# Side in px of what both are shown, but for compiled networks: large enough to be lively, small enough to be quick.
_SHOWN = 512

_LOCK = Lock()
_AGREED: set[tuple[str, str, str, int]] = set()


def reference_backend(bundle: ModelBundle) -> str:
    """The backend whose answers count as right: eager torch, or ONNX Runtime where there is no torch network."""
    return "onnx" if bundle.source.framework == "onnx" else "eager"


def require_agreement(bundle: ModelBundle, *, backend: str, device: str, precision: str, tile: int) -> None:
    """Refuse a backend whose probabilities differ from the reference's by more than 1e-4.

    Two forward passes, the first time that a process meets a network and a backend; nothing for the reference itself,
    for `"auto"`, which has its own check, and in half precision, where two right answers differ by more.

    Parameters
    ----------
    bundle
        The network.
    backend, device, precision
        How it is to run.
    tile
        Side of the tiles in px. A compiled network is compared on just these, because it is built anew for others.

    Raises
    ------
    BundleError
        They differ, or the backend cannot run this network.
    MissingExtraError
        The backend's library is not installed.
    """
    reference = reference_backend(bundle)
    where = resolve_device(device)
    if backend in {"auto", reference} or resolve_dtype(precision, where) != torch.float32:
        return
    side = tile if backend == "compile" or bundle.source.framework != "torch" else min(tile, _SHOWN)
    key = (bundle.digest, backend, str(where), side)
    with _LOCK:
        if key in _AGREED:
            return
        batch = Scenery(ranges=plausible_ranges(bundle.inputs), seed=0).field(side, number=0).contiguous().to(where)
        expected, found = (
            bundle.network(device=str(where), precision="float32", backend=name)(batch) for name in (reference, backend)
        )
        apart = difference(found, expected)
        if not apart <= AGREEMENT:
            raise BundleError(
                f"backend={backend!r} answers up to {apart:.2g} away from {reference!r} for bundle {bundle.id!r}; at most "
                f"{AGREEMENT:g} is allowed. Run it with backend={reference!r}, or leave backend out."
            )
        _AGREED.add(key)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference of two answers; infinite where one is NaN or they differ in shape.

    Examples
    --------
    >>> difference(torch.tensor([0.25]), torch.tensor([0.75]))
    0.5
    >>> difference(torch.tensor([torch.nan]), torch.tensor([0.75]))
    inf
    """
    if found.shape != expected.shape:
        return float("inf")
    apart = float((found - expected).abs().max())
    return float("inf") if apart != apart else apart
