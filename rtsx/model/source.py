"""Where a bundle's network comes from: the plug point between the formats of weights and whatever runs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from rtsx.errors import BundleError

if TYPE_CHECKING:
    import torch

__all__ = ["Artifact", "Framework", "NetworkSource", "refuse_module", "refuse_onnx"]

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

    @property
    def n_parameters(self) -> int:
        """Numbers in the weights."""
        ...

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
        ...

    def onnx_path(self) -> Path:
        """Local path of the ONNX file, which must not be changed.

        Raises
        ------
        BundleError
            The network is one of torch.
        """
        ...

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Pack the weights as one file for a bundle's folder.

        Raises
        ------
        BundleError
            The network cannot be written; the message says what else to do.
        """
        ...


def refuse_onnx(architecture: str) -> BundleError:
    """Error of a torch source that is asked for its ONNX file."""
    return BundleError(
        f"{architecture} is a torch network and has no ONNX file. Run it with backend='eager' or 'compile', "
        "or export it to ONNX and open that."
    )


def refuse_module() -> BundleError:
    """Error of an ONNX source that is asked for a torch module."""
    return BundleError(
        "An ONNX file holds no torch module. Run it with backend='onnx' or 'openvino', or open the network's checkpoint."
    )
