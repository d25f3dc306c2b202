"""Batch normalisation by the statistics of each tile, as the products of DARTS v1 were made."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rtsx.errors import BundleError
from rtsx.model.source import Artifact, Framework, NetworkSource, refuse_onnx

if TYPE_CHECKING:
    import torch

__all__ = ["BatchNormMode", "BatchStatisticsSource", "use_batch_statistics"]

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
class BatchStatisticsSource:
    """A torch source whose module normalises by the batch at hand; runs tile by tile, or tiles would mix.

    Raises
    ------
    BundleError
        The source is not a torch module, so its normalisation is fixed.
    """

    source: NetworkSource
    """The network with its stored averages."""

    def __post_init__(self) -> None:
        """Refuse what has no modules to change."""
        if self.source.framework != "torch":
            raise BundleError(
                f"bn_mode='batch' needs a network of torch modules; {self.source.architecture} comes as "
                f"{self.source.framework}, where normalisation is part of the graph. Open its checkpoint instead."
            )

    @property
    def framework(self) -> Framework:
        """Always "torch"."""
        return "torch"

    @property
    def architecture(self) -> str:
        """Name of the network."""
        return self.source.architecture

    @property
    def n_parameters(self) -> int:
        """Numbers in the weights."""
        return self.source.n_parameters

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

    def onnx_path(self) -> Path:
        """Raise `BundleError`: there is no such file."""
        raise refuse_onnx(self.architecture)

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Pack the network with its stored averages."""
        return self.source.artifact(n_layers=n_layers, tile=tile, stride=stride)


def _conforms(source: BatchStatisticsSource) -> NetworkSource:
    return source  # a typed line that fails the type check when the class stops being a NetworkSource
