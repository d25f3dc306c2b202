"""What is found out about a bundle once: how far it looks, and which backend runs it fastest here."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from threading import Lock

import torch

from rtsx.errors import BundleError, MissingExtraError
from rtsx.model.agreement import AGREEMENT, difference, reference_backend
from rtsx.model.bundle import ModelBundle
from rtsx.model.measurements import recall, remember
from rtsx.model.metadata import Reach
from rtsx.model.network import Network
from rtsx.model.reach import measure_reach
from rtsx.model.scenery import Scenery, plausible_ranges
from rtsx.model.torch_thread import on_torch_thread

__all__ = ["chosen_backend", "fastest_backend", "reach_of"]

# Opening and timing the others takes about as long; shorter jobs are better done than prepared.
_WORTHWHILE_S = 60.0
# A job of fewer pixels is done before anything could be timed.
_FEWEST_PIXELS = 2**21
# Side in px at which backends are timed: large enough to rank them, small enough to be quick.
_TIMED_TILE = 512
_PASSES = 3

_LOCK = Lock()
_REACHES: dict[str, Reach] = {}
_BACKENDS: dict[tuple[str, int], str] = {}


def reach_of(bundle: ModelBundle) -> Reach:
    """Stored reach of a bundle, or the measured one: some seconds, once per bundle and machine."""
    if bundle.reach is not None:
        return bundle.reach
    return on_torch_thread(lambda: _reach_of(bundle))


def _reach_of(bundle: ModelBundle) -> Reach:
    with _LOCK:
        if bundle.digest not in _REACHES:
            conditions = {"digest": bundle.digest, "rtsx": version("rtsx")}
            kept = recall("reach", conditions)
            if kept is None:
                kept = remember("reach", conditions, found=asdict(_measured(bundle)))
            _REACHES[bundle.digest] = Reach(**kept)  # type: ignore[arg-type]
        return _REACHES[bundle.digest]


def chosen_backend(bundle: ModelBundle, *, tile: int, passes: int) -> str:
    """The backend for `passes` forward passes over tiles of `tile` px on this machine's CPU.

    A job of a few tiles, or that the reference finishes within a minute, is left to it. For a longer one, every installed backend is timed
    on a few passes; the fastest that agrees with the reference to 1e-4 is chosen and remembered for the bundle's
    digest, the tile, the threads and the libraries' versions. torch.compile is not tried, because building its
    kernels takes longer than most jobs; ask for it by name.
    """
    key = (bundle.digest, tile)
    with _LOCK:
        if key in _BACKENDS:
            return _BACKENDS[key]
        backend, is_measured = _choice(bundle, tile=tile, passes=passes)
        if is_measured:  # a job that was too short to measure for says nothing about the next
            _BACKENDS[key] = backend
        return backend


def fastest_backend(
    open_backend: Callable[[str], Network], candidates: Sequence[str], *, batch: torch.Tensor
) -> tuple[str, dict[str, float]]:
    """The fastest of some backends that agrees with the first, and the median seconds of each that does.

    One that cannot be opened or run is passed over, as is one whose probabilities are off by more than 1e-4.
    """
    networks: dict[str, Network] = {}
    expected: torch.Tensor | None = None
    for name in candidates:
        try:
            network = open_backend(name)
            answer = network(batch)
        except (BundleError, MissingExtraError):
            if expected is None:
                raise  # the reference itself
            continue
        expected = answer if expected is None else expected
        if difference(answer, expected) <= AGREEMENT:
            networks[name] = network
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_PASSES):  # interleaved, so that noise meets all alike
        for name, network in networks.items():
            seconds[name].append(_seconds(network, batch))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return min(medians, key=medians.__getitem__), medians


def _choice(bundle: ModelBundle, *, tile: int, passes: int) -> tuple[str, bool]:
    """The backend, and whether it was found by measuring, now or earlier."""
    reference = reference_backend(bundle)
    candidates = _installed(reference)
    conditions: dict[str, object] = {
        "digest": bundle.digest,
        "tile": tile,
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    kept = recall("backend", conditions)
    if kept is not None and kept["backend"] in candidates:
        return str(kept["backend"]), True
    if len(candidates) == 1 or passes * tile**2 < _FEWEST_PIXELS:
        return reference, False
    timed = bundle.tile if bundle.source.framework != "torch" else min(tile, _TIMED_TILE)
    batch = Scenery(ranges=plausible_ranges(bundle.inputs), seed=0).field(timed, number=0)
    network = bundle.network(device="cpu", precision="float32", backend=reference)
    network(batch)
    if _seconds(network, batch) * passes * (tile / timed) ** 2 < _WORTHWHILE_S:
        return reference, False
    backend, seconds = fastest_backend(
        lambda name: bundle.network(device="cpu", precision="float32", backend=name), candidates, batch=batch
    )
    kept = remember("backend", conditions, found={"backend": backend, "seconds": seconds})
    return str(kept["backend"]), True


def _installed(reference: str) -> list[str]:
    others = {"openvino": find_spec("openvino"), "onnx": find_spec("onnxruntime")}
    return [reference, *(name for name, spec in others.items() if spec is not None and name != reference)]


def _measured(bundle: ModelBundle) -> Reach:
    return measure_reach(
        bundle.network(device="cpu", precision="float32", backend=reference_backend(bundle)),
        n_layers=len(bundle.inputs),
        stride=bundle.stride,
        tile=bundle.tile,
        ranges=plausible_ranges(bundle.inputs),
    )


def _seconds(network: Network, batch: torch.Tensor) -> float:
    begin = time.perf_counter()
    network(batch)
    return time.perf_counter() - begin


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
