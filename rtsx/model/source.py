"""The plug point between formats of weights and what runs them, and batch normalisation by the statistics of each tile."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from rtsx.errors import BundleError

if TYPE_CHECKING:
    import torch

Framework = Literal["torch", "torchscript", "export", "onnx"]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The weights as one file, and what is needed beside it to read it again."""

    kind: Literal["smp", "torchscript", "export", "onnx"]
    """Which source reads the file."""
    filename: str
    """Name of the file in the bundle's folder."""
    artifact_type: str
    """`mlm:artifact_type` of the file: the function that wrote it, or one that writes such files."""
    media_type: str
    """Media type of the file."""
    data: bytes
    """The whole file."""
    options: Mapping[str, object]
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
