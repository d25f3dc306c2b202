"""Networks: ready to run, a batch of tiles in and probabilities out; kept open by a process; and run by threads of its own.

On a GPU every thread keeps plans of cuDNN and a workspace of cuBLAS, and every stream memory of its own, so there two fixed
threads with a stream each run all networks. On a CPU one does. Every thread that calls torch there gets a team of OpenMP
threads of its own, which stays as long as the thread does. As soon as the teams together have more threads than there are
cores, GNU's OpenMP lets none of them wait actively between two operators, and small tiles, whose operators are short, take
a third longer: `python -m benchmarks teams`.
"""

import math
import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from rtsx.errors import BundleError
from rtsx.model.backends import Forward, open_compiled, open_eager, open_openvino, uses_batch_statistics
from rtsx.model.metadata import Activation
from rtsx.model.onnx import exported_onnx, onnx_runs_on_gpus, open_onnx
from rtsx.storage.retry import LOST_GPU

if TYPE_CHECKING:
    from rtsx.model.source import NetworkSource

BACKENDS = ("eager", "compile", "onnx", "openvino")
"""Every backend by name."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FLOAT32_ONLY = {"onnx", "openvino"}
_OUT_OF_MEMORY = re.compile(
    r"out of memory|unable to find an engine to execute|ALLOC(?:ATION)?_FAILED|(?:CUBLAS|CUDNN)_STATUS_NOT_INITIALIZED|"
    r"NVML_SUCCESS ==|Failed to allocate memory|can't allocate memory"
)
"""What CUDA, cuDNN (which finds no algorithm whose workspace fits), cuBLAS (which cannot begin), torch's allocator (which asks how
full the card is), ONNX Runtime and torch on a CPU say."""
_ROUNDING = 1e-4
"""How far beyond 0..1 a probability may be before it counts as a missing activation."""


class Network(Protocol):
    """What inference needs of a network: call it with tiles, get probabilities.

    Threads: one caller at a time; a network may use every thread that torch is allowed. Ownership: the network keeps
    neither the batch nor the output, so the caller may overwrite both.
    """

    device: torch.device
    """Where batches have to lie and outputs come to lie."""
    backend: str
    """What does the arithmetic: "eager", "compile", "onnx", "openvino", or a stub's own word."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn (tile, layer, y, x) float32 into (tile, class, y, x) float32 probabilities, contiguous, no gradient."""
        ...


class StubNetwork(Network):
    """A network made from a plain function of tensors, which counts its calls; for tests of whatever calls networks.

    Examples
    --------
    >>> stub = StubNetwork(lambda batch: batch[:, :1].clamp(0, 1))
    >>> stub(torch.full((2, 3, 4, 4), 0.5)).shape
    torch.Size([2, 1, 4, 4])
    >>> stub.n_calls, stub.n_tiles
    (1, 2)
    """

    backend = "stub"

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.n_calls = 0
        """Forward passes so far."""
        self.n_tiles = 0
        """Tiles in all forward passes so far."""
        self._function = function

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Apply the function and count."""
        self.n_calls += 1
        self.n_tiles += len(batch)
        return self._function(batch).float().contiguous()


@dataclass(eq=False)
class ProbabilityNetwork(Network):
    """A raw forward pass with its activation, checked the first time it meets a tile size."""

    forward: Forward
    """The network without its activation."""
    _: KW_ONLY
    device: torch.device
    backend: str
    n_layers: int
    """Input channels."""
    classes: tuple[str, ...]
    """Names of the output channels."""
    activation: Activation
    """What turns the raw output, divided by the temperature, into probabilities."""
    temperature: float
    _checked: set[torch.Size] = field(default_factory=set, init=False)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn (tile, layer, y, x) float32 into (tile, class, y, x) float32 probabilities.

        Raises
        ------
        BundleError
            The network cannot take such tiles, or what it returns cannot be probabilities of its classes; found the
            first time that a tile size comes.
        """
        is_new = batch.shape[1:] not in self._checked
        try:
            raw = self._first_forward(batch) if is_new else self.forward(batch)
        except (RuntimeError, BundleError) as error:
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        with torch.no_grad():
            output = self._activate(raw.to(self.device, torch.float32)).contiguous()
        if is_new:
            low, high = output.aminmax()
            require_probabilities(low.item(), high.item(), where="for finite input")
            self._checked.add(batch.shape[1:])
        return output

    def _activate(self, raw: torch.Tensor) -> torch.Tensor:
        if self.temperature != 1:
            raw = raw / self.temperature
        if self.activation == "sigmoid":
            return raw.sigmoid()
        return raw.softmax(dim=1) if self.activation == "softmax" else raw

    def _first_forward(self, batch: torch.Tensor) -> torch.Tensor:
        if batch.ndim != 4 or batch.shape[1] != self.n_layers:
            raise BundleError(
                f"The network takes batches (tile, {self.n_layers} layers, y, x); got {tuple(batch.shape)}. "
                "Check the layers of the bundle."
            )
        try:
            raw = self.forward(batch)
        except BundleError:
            raise
        except Exception as error:  # whatever a foreign network raises at a tile that it cannot take
            if isinstance(error, MemoryError) or is_out_of_memory(error) or LOST_GPU.search(str(error)):
                raise  # the device failed, not the network
            raise BundleError(
                f"The network failed on a batch of shape {tuple(batch.shape)} with {self.backend}: {error}. "
                "Check its number of layers, and that the tile is a multiple of its stride and a size it can take."
            ) from error
        expected = (len(batch), len(self.classes), *batch.shape[2:])
        if tuple(raw.shape) != expected:
            raise BundleError(
                f"For {len(self.classes)} classes {list(self.classes)} the network has to return (tile, class, y, x) = "
                f"{expected}; it returned {tuple(raw.shape)}. Name as many classes as it has output channels, and let "
                "it answer at the resolution of its input."
            )
        return raw


def require_probabilities(low: float, high: float, *, where: str) -> None:
    """Refuse what cannot be probabilities, by the least and the greatest of them; NaN where one of them is.

    Raises
    ------
    BundleError
        They are not finite, or go beyond 0..1 by more than rounding.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BundleError(
            f"The network returned NaN or infinity {where}. Check its weights and run it with precision='float32'; if that is "
            "what it ran with, look for values in the layers that it was not trained with."
        )
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
        raise BundleError(
            f"With activation='none' the network itself has to return probabilities in 0..1; it returned {low:.3g}..{high:.3g} "
            f"{where}. Pass activation='sigmoid' (one or independent classes) or 'softmax'."
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Test whether a device or its libraries had too little memory.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    True
    """
    return isinstance(error, torch.OutOfMemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def resolve_device(device: str, *, backends: Collection[str] = ()) -> torch.device:
    """Turn a device's name into the device, a GPU by number; "auto" is the first GPU that torch sees, else the CPU.

    Parameters
    ----------
    device
        "auto", "cpu", "cuda" or "cuda:N".
    backends
        What is to run there; "auto" is the CPU where one of them has no way to the GPU.

    Raises
    ------
    BundleError
        The name means nothing to torch, or names a GPU that is not there or that this torch has no kernels for.

    Warns
    -----
    RuntimeWarning
        There is a GPU that "auto" does not take.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    try:
        resolved = _automatic_device(backends) if device == "auto" else torch.device(device)
    except RuntimeError as error:
        raise BundleError(f"device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}.") from error
    n_gpus = torch.cuda.device_count() if resolved.type == "cuda" else 0
    if resolved.type == "cuda" and (resolved.index or 0) >= n_gpus:
        raise BundleError(
            f"device={device!r} was asked for, but torch sees {n_gpus} GPUs here. Use 'auto' or 'cpu'; where processes of one "
            "machine have a GPU each, it is 'cuda' to all of them."
        )
    if resolved.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise BundleError(
            "This process was forked from one that uses a GPU already, and CUDA does not survive that. Start it by the method "
            "'spawn' of multiprocessing, or use device='cpu'."
        )
    if resolved.type != "cuda":
        return resolved
    resolved = torch.device("cuda", resolved.index or 0)  # by number, because threads and weights are kept by device
    if lacking := _lacking_kernels(resolved):
        raise BundleError(f"device={device!r}: {lacking}, or take 'cpu'.")
    return resolved


@cache
def _lacking_kernels(device: torch.device) -> str:
    """Say that this torch has no kernels for a GPU; nothing where it has."""
    capability = torch.cuda.get_device_capability(device)
    archs = torch.cuda.get_arch_list()
    # A kernel of 7.5 runs on 7.5 to 7.9; code of compute_75 is translated for every later card.
    known = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(archs))
    built = [(kind, (int(major), int(minor))) for kind, major, minor in known]
    if not built or any(of <= capability and (kind == "compute" or of[0] == capability[0]) for kind, of in built):
        return ""
    return (
        f"{torch.cuda.get_device_name(device)} is of compute capability {capability[0]}.{capability[1]}, and torch "
        f"{torch.__version__} is built for {', '.join(archs)}. Install a torch that is built for this GPU, of an earlier CUDA"
    )


def _automatic_device(backends: Collection[str]) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if "openvino" in backends or ("onnx" in backends and not onnx_runs_on_gpus()):
        warnings.warn(
            f"torch sees a GPU, but {' and '.join(backends)} here run on the CPU, and so does this prediction. "
            "For ONNX, install onnxruntime-gpu in place of onnxruntime; or pass device='cpu'.",
            RuntimeWarning,
            stacklevel=3,
        )
        return torch.device("cpu")
    if lacking := _lacking_kernels(torch.device("cuda", 0)):
        warnings.warn(f"{lacking}; until then this runs on the CPU.", RuntimeWarning, stacklevel=3)
        return torch.device("cpu")
    return torch.device("cuda")


def resolve_dtype(precision: str) -> torch.dtype:
    """Turn a precision's name into the dtype of the arithmetic; "auto" is float32.

    On a GPU, too: with the trained network of the demo, half precision changes single pixels by many per cents.

    Examples
    --------
    >>> resolve_dtype("auto")
    torch.float32
    """
    if precision == "auto":
        return torch.float32
    if precision not in _DTYPES:
        raise BundleError(f"precision has to be 'auto' or one of {', '.join(_DTYPES)}; got {precision!r}.")
    return _DTYPES[precision]


def open_network(
    source: "NetworkSource",
    *,
    n_layers: int,
    classes: tuple[str, ...],
    activation: Activation,
    temperature: float,
    stride: int,
    tile: int,
    device: str,
    precision: str,
    backend: str,
) -> Network:
    """Load a network and make it ready to run.

    Parameters
    ----------
    source
        Where the weights are, in the form they were found in.
    n_layers, classes
        Input channels, and names of the output channels.
    activation, temperature
        What turns the raw output, divided by the temperature, into probabilities.
    stride, tile
        Pixels; the tile is what backends are measured with.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    precision
        "auto", "float32", "bfloat16" or "float16".
    backend
        "eager", "compile", "onnx" or "openvino"; "auto" is what needs nothing else: eager torch, or ONNX Runtime for
        an ONNX file. Which one is fastest, `choose_backend` finds out.

    Raises
    ------
    BundleError
        An unknown device, precision or backend, or one that cannot run this source.
    MissingExtraError
        The backend's library is not installed.
    """
    name = ("onnx" if source.framework == "onnx" else "eager") if backend == "auto" else backend
    where = resolve_device(device, backends=[name])
    dtype = resolve_dtype(precision)
    if name in _FLOAT32_ONLY and dtype != torch.float32:
        raise BundleError(f"backend={name!r} computes in float32; got precision={precision!r}. Leave precision out.")
    match name:
        case "eager":
            forward = open_eager(source.load_module(), device=where, dtype=dtype)
        case "compile":
            forward = open_compiled(source.load_module(), device=where, dtype=dtype)
        case "onnx" if source.framework == "onnx":
            forward = open_onnx(source.onnx_path(), device=where)
        case "onnx":
            forward = open_onnx(_exported(source, n_layers=n_layers, tile=2 * stride), device=where)
        case "openvino" if where.type != "cpu":
            raise BundleError(f"backend='openvino' runs on the CPU; got device={device!r}. Take 'eager' there.")
        case "openvino":
            model = source.onnx_path() if source.framework == "onnx" else source.load_module()
            forward = open_openvino(model, n_layers=n_layers, tile=tile)
        case _:
            raise BundleError(f"backend has to be 'auto' or one of {', '.join(BACKENDS)}; got {backend!r}.")
    if where.type == "cuda":
        # Its weights may still be on their way, and blocks use them from streams of their own.
        torch.cuda.synchronize(where)
    return ProbabilityNetwork(
        forward,
        device=where,
        backend=name,
        n_layers=n_layers,
        classes=classes,
        activation=activation,
        temperature=temperature,
    )


def _exported(source: "NetworkSource", *, n_layers: int, tile: int) -> bytes:
    module = source.load_module()
    if isinstance(module, torch.jit.ScriptModule) or uses_batch_statistics(module):
        raise BundleError("Scripted networks and batch statistics have no way to ONNX. Run them with backend='eager'.")
    return exported_onnx(module, n_layers=n_layers, tile=tile)


class OpenedNetworks:
    """Keeps the networks used last, so that every block of a campaign finds its network loaded.

    Threads: any number may ask; two that ask for the same network get the same one, opened once.

    Parameters
    ----------
    limit
        Networks kept at most; the one unused for longest is dropped.

    Examples
    --------
    >>> from rtsx.model.network import StubNetwork
    >>> networks = OpenedNetworks(limit=1)
    >>> first = networks.get("a", lambda: StubNetwork(lambda batch: batch))
    >>> networks.get("a", lambda: StubNetwork(lambda batch: batch)) is first
    True
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._networks: OrderedDict[Hashable, Network] = OrderedDict()
        # One lock around opening, because two threads opening the same network would hold it in memory twice.
        self._lock = threading.RLock()

    def get(self, key: Hashable, opener: Callable[[], Network]) -> Network:
        """Return the network under `key`, opened by `opener` where it is not open yet."""
        with self._lock:
            if key not in self._networks:
                self._networks[key] = opener()
                while len(self._networks) > self._limit:
                    self._networks.popitem(last=False)
            self._networks.move_to_end(key)
            return self._networks[key]


_T = TypeVar("_T")

_CPU = torch.device("cpu")
_LOCK = threading.Lock()
_POOLS: dict[tuple[torch.device, int], ThreadPoolExecutor] = {}
_HERE = threading.local()
"""Has the `place` of a thread that runs networks: their device, and which of its threads it is."""


def torch_threads(device: torch.device) -> int:
    """Return how many threads run the networks of a device."""
    return 1 if device.type == "cpu" else 2


def run_in_torch_thread(work: Callable[[], _T], device: torch.device = _CPU) -> _T:
    """Call `work` in a thread that runs the networks of a device, after what others asked of it; returns or raises what it does.

    What `work` calls may ask again. Never ask while holding a lock that work for this thread takes. What has begun is finished,
    even where its asker is interrupted. On a CPU operators take as many threads as `torch.set_num_threads` said before the first
    call.
    """
    if getattr(_HERE, "place", (None,))[0] == device:
        return work()
    future = start_in_torch_thread(work, device, 0)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt of whoever waits: what has not begun is not wanted any more
        raise
    finally:
        del future  # it would keep an error, and with it whatever `work` holds, alive in a circle


def start_in_torch_thread(work: Callable[[], _T], device: torch.device, number: int) -> Future[_T]:
    """Let one of the threads of a device call `work` after what it was asked before, without waiting; on a GPU each has a stream of its own."""
    return _pool(device, number).submit(copy_context().run, _call, work, device, number)


def is_torch_thread(device: torch.device, number: int) -> bool:
    """Test whether the caller runs in this thread of a device, which would wait for itself."""
    return getattr(_HERE, "place", None) == (device, number)


def _pool(device: torch.device, number: int) -> ThreadPoolExecutor:
    with _LOCK:
        if (device, number) not in _POOLS:
            _POOLS[device, number] = ThreadPoolExecutor(1, thread_name_prefix=f"rtsx-{device}-{number}")
        return _POOLS[device, number]


def _settle(device: torch.device, number: int) -> None:
    """Make this thread one of a device's, on a GPU with the stream that it keeps."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))
    _HERE.place = device, number


def _call(work: Callable[[], _T], device: torch.device, number: int) -> _T:
    """Call `work` in a thread of a device.

    Which is settled here, because a pool whose initializer has failed once, as on a busy card, never runs anything again.
    """
    if getattr(_HERE, "place", None) is None:
        _settle(device, number)
    if device.type == "cpu":
        return work()
    with _float32_arithmetic():
        return work()


@contextmanager
def _float32_arithmetic() -> Iterator[None]:
    """Have float32 mean float32, and one batch give one answer; restored by the last thread that leaves, as the flags are the process's."""
    global _n_inside
    with _LOCK:
        _n_inside += 1
        if not _UNDO:
            _UNDO.extend(_ask_for_float32())
    try:
        yield
    finally:
        with _LOCK:
            _n_inside -= 1
            while _UNDO and not _n_inside:
                _UNDO.pop()()


_UNDO: list[Callable[[], None]] = []
"""Sets a flag to what it was before threads of GPUs changed it; from the last one on."""
_n_inside = 0
"""How many threads rely on the changed ones."""


def _ask_for_float32() -> list[Callable[[], None]]:
    """Set torch's flags, and return what sets them back.

    Both names of TF32, because torch from 2.9 on refuses to compute where the older and the newer one say different things. It
    also refuses to read the older one where a user has set the newer one alone, and the older then is as it begins.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    flags: list[tuple[Any, str, Any]] = [(cudnn, "deterministic", True), (cudnn, "benchmark", False)]
    if hasattr(matmul, "fp32_precision"):
        flags += [(where, "fp32_precision", "ieee") for where in (cudnn.conv, cudnn.rnn, matmul)]  # type: ignore[attr-defined]
    undo: list[Callable[[], None]] = [partial(setattr, where, name, getattr(where, name)) for where, name, _ in flags]
    older: list[tuple[Callable[[], Any], Callable[[Any], None], Any, Any]] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest", "highest"),
        (partial(getattr, cudnn, "allow_tf32"), partial(setattr, cudnn, "allow_tf32"), False, True),
    ]
    for read, write, value, begin in older:
        try:
            undo.append(partial(write, read()))
        except RuntimeError:
            undo.append(partial(write, begin))
        write(value)
    for where, name, value in flags:
        setattr(where, name, value)
    return undo


def _forget() -> None:
    """In a forked child, where no thread of the parent is."""
    global _LOCK
    _POOLS.clear()
    _LOCK = threading.Lock()


os.register_at_fork(after_in_child=_forget)
