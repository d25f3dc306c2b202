"""The plug point between formats of weights and what runs them, batch normalisation by the statistics of each tile, and digests of networks."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from rtsx.errors import BundleError

if TYPE_CHECKING:
    import torch

Framework = Literal["torch", "torchscript", "export", "onnx"]


class ArtifactFormat(NamedTuple):
    """How the weights of one kind of source lie in a bundle's folder."""

    filename: str
    """Name of the file."""
    artifact_type: str
    """`mlm:artifact_type` of the file: the function that wrote it, or one that writes such files."""
    media_type: str
    """Media type of the file."""


_BINARY = "application/octet-stream; application="
ARTIFACT_FORMATS = {
    "smp": ArtifactFormat("weights.safetensors", "safetensors.torch.save_file", f"{_BINARY}safetensors"),
    "torchscript": ArtifactFormat("model.ts", "torch.jit.save", f"{_BINARY}pytorch"),
    "export": ArtifactFormat("model.pt2", "torch.export.save", f"{_BINARY}pytorch"),
    "onnx": ArtifactFormat("model.onnx", "onnx.save", f"{_BINARY}onnx"),
}
"""Formats by the kind of the source that reads them."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The weights as one file, and what is needed beside it to read it again."""

    kind: Literal["smp", "torchscript", "export", "onnx"]
    """Which source reads the file, and in which format it is."""
    data: bytes
    """The whole file."""
    options: Mapping[str, object] = field(default_factory=dict)
    """JSON values that the source needs besides the file, such as the encoder's name."""


class NetworkSource(Protocol):
    """A network as it was found, holding everything needed to load it anywhere.

    Sources are frozen, can be pickled, and carry their weights with them, because a worker sees neither the caller's
    memory nor always its file system. Threads: every method may be called from any thread.
    """

    @property
    def framework(self) -> Framework:
        """What can run the network: "onnx" through `onnx_path`, everything else through `load_module`."""
        ...

    @property
    def architecture(self) -> str:
        """The network's name for people, such as "UnetPlusPlus/resnet34"."""
        ...

    @cached_property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(part.numel() for part in self.load_module().parameters())

    @property
    def digest(self) -> str:
        """sha256 over the weights and the architecture, independent of the file that holds them."""
        ...

    def load_module(self) -> "torch.nn.Module":
        """Load a new module that belongs to the caller: CPU, float32, ready for inference, output as the file gives it.

        Raises
        ------
        BundleError
            The network is not one of torch, or its weights do not fit.
        """
        raise BundleError(
            "An ONNX file holds no torch module. Run it with backend='onnx' or 'openvino', or open the network's "
            "checkpoint."
        )

    def onnx_path(self) -> Path:
        """Return the local path of the ONNX file, which must not be changed.

        Raises
        ------
        BundleError
            The network is one of torch.
        """
        raise BundleError(
            f"{self.architecture} is a torch network and has no ONNX file. Run it with backend='eager' or 'compile', "
            "or export it to ONNX and open that."
        )

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Pack the weights as one file for a bundle's folder.

        Raises
        ------
        BundleError
            The network cannot be written; the message says what else to do.
        """
        ...


BatchNormMode = Literal["eval", "batch"]


def use_batch_statistics(module: "torch.nn.Module") -> int:
    """Make every batch normalisation of a module use the batch at hand, in place, and return how many there are.

    Equal to a module left in training mode, except that nothing is learnt and dropout stays off: the stored
    averages are removed instead of switched, so that a later `eval()` cannot bring them back.
    """
    from torch.nn.modules.batchnorm import _BatchNorm  # heavy; kept out of `import rtsx`

    parts = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for part in parts:
        part.track_running_stats = False
        part.running_mean = None
        part.running_var = None
        part.num_batches_tracked = None
    return len(parts)


@dataclass(frozen=True, eq=False)
class BatchStatisticsSource(NetworkSource):
    """A torch source whose module normalises by the batch at hand; runs tile by tile, or tiles would mix.

    Raises
    ------
    BundleError
        The source is not a torch module, so its normalisation is fixed.
    """

    source: NetworkSource
    """The network with its stored averages."""
    framework: ClassVar[Framework] = "torch"

    def __post_init__(self) -> None:
        """Refuse what has no modules to change."""
        if self.source.framework != "torch":
            raise BundleError(
                f"bn_mode='batch' needs a network of torch modules; {self.source.architecture} comes as "
                f"{self.source.framework}, where normalisation is part of the graph. Open its checkpoint instead."
            )

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.source.architecture

    @property
    def digest(self) -> str:
        """Digest of the network with its stored averages; the bundle's own digest knows the mode."""
        return self.source.digest

    def load_module(self) -> "torch.nn.Module":
        """Load the module and take its stored averages away."""
        module = self.source.load_module()
        if not use_batch_statistics(module):
            raise BundleError(
                f"bn_mode='batch' was asked for, but {self.architecture} has no batch normalisation. Use bn_mode='eval'."
            )
        return module

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Pack the network with its stored averages."""
        return self.source.artifact(n_layers=n_layers, tile=tile, stride=stride)


def digest_of_bytes(data: bytes) -> str:
    """Return the sha256 of a file's content, as hex.

    Examples
    --------
    >>> digest_of_bytes(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(data).hexdigest()


def digest_of_json(value: object) -> str:
    """Return the sha256 of a JSON value, whatever the order of its keys.

    Examples
    --------
    >>> digest_of_json({"a": 1, "b": (2.5,)}) == digest_of_json({"b": [2.5], "a": 1})
    True
    """
    return digest_of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_of_tensors(tensors: "Mapping[str, torch.Tensor]", *, header: str) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of tensors, whatever container they came in, and over `header`."""
    import torch  # heavy; kept out of `import rtsx`

    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(value: object) -> str:
    """Return the text that stands for a value in a digest, equal in every process that runs the same Python.

    Functions stand for their byte code, constants, defaults and the values they close over, objects for their class
    and attributes, arrays for their bytes. What a function calls by global name is represented by that name only.

    Examples
    --------
    >>> fingerprint({"rate": 0.5, "names": ("a", "b")})
    "{'rate':0.5,'names':['a','b']}"
    >>> def scaled(by):
    ...     return lambda x: x * by
    >>> fingerprint(scaled(2)) == fingerprint(scaled(3))
    False
    """
    return _text(value, above=())


def _text(value: object, *, above: tuple[int, ...]) -> str:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if id(value) in above:
        return "..."  # a value that holds itself, such as a recursive function
    inside = (*above, id(value))
    if isinstance(value, (tuple, list)):
        return f"[{','.join(_text(item, above=inside) for item in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(_text(item, above=inside) for item in value))}}}"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_text(k, above=inside)}:{_text(v, above=inside)}' for k, v in value.items())}}}"
    if isinstance(value, (FunctionType, MethodType, partial)):
        return _function_text(value, inside=inside)
    if isinstance(value, (type, ModuleType)):
        return value.__name__
    if hasattr(value, "__array__") and hasattr(value, "shape"):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{digest_of_bytes(np.ascontiguousarray(array).tobytes())}"
    return f"{type(value).__qualname__}{_text(getattr(value, '__dict__', None), above=inside)}"


def _function_text(value: "FunctionType | MethodType | partial[object]", *, inside: tuple[int, ...]) -> str:
    if isinstance(value, partial):
        return f"partial{_text([value.func, value.args, value.keywords], above=inside)}"
    if isinstance(value, MethodType):
        return f"method{_text([value.__func__, value.__self__], above=inside)}"
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
    return f"{_code_text(value.__code__)}{_text([value.__defaults__, value.__kwdefaults__, cells], above=inside)}"


def _code_text(code: CodeType) -> str:
    constants = [
        _code_text(value) if isinstance(value, CodeType) else _text(value, above=()) for value in code.co_consts
    ]
    return f"{code.co_name}{code.co_code.hex()}{code.co_names}{constants}"
