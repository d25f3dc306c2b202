"""What is measured about a bundle once and remembered on this machine: its receptive field, and the fastest backend that agrees with eager torch.

Small JSON files in a cache folder: `RTSX_CACHE_DIR`, else `rtsx` under `XDG_CACHE_HOME` or `~/.cache`. A folder that
cannot be written costs time, never a result.
"""

import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock

import torch

from rtsx.errors import BundleError, MissingExtraError, PlanError
from rtsx.model.backends import exported_shape
from rtsx.model.bundle import ModelBundle
from rtsx.model.exported import ExportSource
from rtsx.model.metadata import Reach
from rtsx.model.network import Network, resolve_device, resolve_dtype, run_in_torch_thread
from rtsx.model.onnx import OnnxSource
from rtsx.model.receptive_field import SyntheticInputs, input_ranges, measure_receptive_field
from rtsx.model.source import NetworkSource
from rtsx.names import version_of
from rtsx.storage import write_object

AGREEMENT = 1e-4
"""Most that a backend's probabilities may differ from the reference's."""

# Side in px of what both are shown, but for compiled networks: large enough to be lively, small enough to be quick.
_SHOWN = 512

_AGREEMENT_LOCK = Lock()
_AGREED: set[tuple[str, str, str, int]] = set()


def reference_backend(bundle: ModelBundle) -> str:
    """Return the backend whose answers count as right: eager torch, or ONNX Runtime where there is no torch network."""
    return "onnx" if bundle.source.framework == "onnx" else "eager"


def require_backends_equal(
    bundle: ModelBundle, *, backend: str, device: str, precision: str, tile: int, batch_size: int
) -> None:
    """Refuse a backend whose probabilities differ from the reference's by more than 1e-4.

    Two forward passes, the first time that a process meets a network and a backend; nothing for the reference itself,
    for `"auto"`, which has its own check, and in half precision, where two right results differ by more.

    Parameters
    ----------
    bundle
        The network.
    backend, device, precision
        How it is to run.
    tile, batch_size
        Side of the tiles in px, and how many go together. A compiled network is compared on just these, because it is built
        anew for others.

    Raises
    ------
    BundleError
        They differ, or the backend cannot run this network.
    MissingExtraError
        The backend's library is not installed.
    """
    reference = reference_backend(bundle)
    where = resolve_device(device, backends=[backend])
    if backend in {"auto", reference} or resolve_dtype(precision) != torch.float32:
        return
    side = tile if backend == "compile" or bundle.source.framework != "torch" else min(tile, _SHOWN)
    key = (bundle.digest, backend, str(where), side)
    with _AGREEMENT_LOCK:
        if key in _AGREED:
            return
        field = SyntheticInputs(ranges=input_ranges(bundle.inputs)).field(side, number=0).to(where)
        batch = field.expand(batch_size if backend == "compile" else 1, -1, -1, -1).contiguous()
        expected, found = (
            bundle.network(device=str(where), precision="float32", backend=name)(batch) for name in (reference, backend)
        )
        apart = max_abs_difference(found, expected)
        if not apart <= AGREEMENT:
            raise BundleError(
                f"backend={backend!r} answers up to {apart:.2g} away from {reference!r} for bundle {bundle.id!r}; at most "
                f"{AGREEMENT:g} is allowed. Run it with backend={reference!r}, or leave backend out."
            )
        _AGREED.add(key)


def max_abs_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference of two answers; infinite where one is NaN or they differ in shape.

    Examples
    --------
    >>> max_abs_difference(torch.tensor([0.25]), torch.tensor([0.75]))
    0.5
    >>> max_abs_difference(torch.tensor([torch.nan]), torch.tensor([0.75]))
    inf
    """
    if found.shape != expected.shape:
        return float("inf")
    apart = float((found - expected).abs().max())
    return float("inf") if apart != apart else apart


def load_cached(kind: str, conditions: Mapping[str, object]) -> dict[str, object] | None:
    """Return what was remembered under these conditions, or None.

    Parameters
    ----------
    kind
        What was measured, one word.
    conditions
        Everything that the measurement depends on, as JSON values.
    """
    try:
        kept = json.loads(_path(kind, conditions).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept["found"] if isinstance(kept, dict) and kept.get("conditions") == dict(conditions) else None


def save_cached(kind: str, conditions: Mapping[str, object], *, found: Mapping[str, object]) -> dict[str, object]:
    """Keep a measurement, whole or not at all, and return the one to go by: this, or what somebody else kept first.

    The first wins, instead of the last, because whoever read it already works with it: of several processes that
    measure at once, all have to come to the same tiles and the same backend.
    """
    path = _path(kind, conditions)
    content = json.dumps({"conditions": dict(conditions), "found": dict(found)}, indent=1, sort_keys=True).encode()
    try:
        is_damaged = path.exists() and load_cached(kind, conditions) is None
        write_object(path, content, replace=is_damaged)
    except OSError:
        with suppress(OSError):  # measured again next time
            write_object(path, content, replace=True)  # a file system without links: the last wins
    return load_cached(kind, conditions) or dict(found)


def _path(kind: str, conditions: Mapping[str, object]) -> Path:
    base = os.environ.get("RTSX_CACHE_DIR")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtsx"
    name = hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:32]
    return folder / f"{kind}-{name}.json"


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


def receptive_field_of(bundle: ModelBundle) -> Reach:
    """Return the stored reach of a bundle, or the measured one: some seconds, once per bundle and machine."""
    if bundle.reach is not None:
        return bundle.reach
    return run_in_torch_thread(lambda: _reach_of(bundle))


def _reach_of(bundle: ModelBundle) -> Reach:
    with _LOCK:
        if bundle.digest not in _REACHES:
            conditions = {"digest": bundle.digest, "rtsx": version("rtsx")}
            kept = load_cached("reach", conditions)
            if kept is None:
                measured = measure_receptive_field(
                    bundle.network(device="cpu", precision="float32", backend=reference_backend(bundle)),
                    n_layers=len(bundle.inputs),
                    stride=bundle.stride,
                    tile=bundle.tile,
                    ranges=input_ranges(bundle.inputs),
                )
                kept = save_cached("reach", conditions, found=asdict(measured))
            _REACHES[bundle.digest] = Reach(**kept)  # type: ignore[arg-type]
        return _REACHES[bundle.digest]


def choose_backend(bundle: ModelBundle, *, tile: int, passes: int) -> str:
    """Return the backend for `passes` forward passes over tiles of `tile` px on this machine's CPU.

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
    """Return the fastest of some backends that agrees with the first, and the median seconds of each that does.

    One that cannot be opened or run is passed over, as is one whose probabilities are off by more than 1e-4.
    """
    networks: dict[str, Network] = {}
    expected: torch.Tensor | None = None
    for name in candidates:
        try:
            network = open_backend(name)
            output = network(batch)
        except (BundleError, MissingExtraError):
            if expected is None:
                raise  # the reference itself
            continue
        expected = output if expected is None else expected
        if max_abs_difference(output, expected) <= AGREEMENT:
            networks[name] = network
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_PASSES):  # interleaved, so that noise meets all alike
        for name, network in networks.items():
            seconds[name].append(_seconds(network, batch))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return min(medians, key=medians.__getitem__), medians


def _choice(bundle: ModelBundle, *, tile: int, passes: int) -> tuple[str, bool]:
    """Return the backend, and whether it was found by measuring, now or earlier."""
    reference = reference_backend(bundle)
    candidates = _installed(reference)
    conditions: dict[str, object] = {
        "digest": bundle.digest,
        "tile": tile,
        "threads": torch.get_num_threads(),
        "versions": {name: version_of(name) for name in ("torch", "openvino", "onnxruntime")},
    }
    kept = load_cached("backend", conditions)
    if kept is not None and kept["backend"] in candidates:
        return str(kept["backend"]), True
    if len(candidates) == 1 or passes * tile**2 < _FEWEST_PIXELS:
        return reference, False
    timed = bundle.tile if bundle.source.framework != "torch" else min(tile, _TIMED_TILE)
    batch = SyntheticInputs(ranges=input_ranges(bundle.inputs)).field(timed, number=0)
    network = bundle.network(device="cpu", precision="float32", backend=reference)
    network(batch)
    if _seconds(network, batch) * passes * (tile / timed) ** 2 < _WORTHWHILE_S:
        return reference, False
    backend, seconds = fastest_backend(
        lambda name: bundle.network(device="cpu", precision="float32", backend=name), candidates, batch=batch
    )
    kept = save_cached("backend", conditions, found={"backend": backend, "seconds": seconds})
    return str(kept["backend"]), True


def _installed(reference: str) -> list[str]:
    others = {"openvino": find_spec("openvino"), "onnx": find_spec("onnxruntime")}
    return [reference, *(name for name, spec in others.items() if spec is not None and name != reference)]


def _seconds(network: Network, batch: torch.Tensor) -> float:
    begin = time.perf_counter()
    network(batch)
    return time.perf_counter() - begin


def fixed_sides(source: NetworkSource) -> tuple[int | None, int | None]:
    """Return the height and width in px that alone the network takes; None where it says nothing, as torch modules do."""
    if isinstance(source, OnnxSource):
        return source.shapes.height, source.shapes.width
    if isinstance(source, ExportSource):
        shape = exported_shape(source.load_module())
        return (None, None) if shape is None else (shape[1], shape[2])
    return None, None


def check_fixed_tile(bundle: ModelBundle, *, sizes: tuple[int, ...]) -> None:
    """Refuse tiles that the bundle's network cannot take.

    Parameters
    ----------
    bundle
        Whose network is to run.
    sizes
        Sides in px of the tiles that it would be shown, at every scale.

    Raises
    ------
    PlanError
        The network was exported for another size.
    """
    height, width = fixed_sides(bundle.source)
    wrong = [size for size in sizes if {height, width} - {None, size}]
    if wrong:
        cure = f"Take tile={height} and no other scale" if height == width else "No square tile fits"
        raise PlanError(
            f"Bundle {bundle.id!r} takes tiles of {height or 'any'} x {width or 'any'} px only; the plan has tiles of "
            f"{', '.join(map(str, wrong))} px. {cure}, or export the network with free height and width."
        )
