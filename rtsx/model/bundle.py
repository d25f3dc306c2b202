"""The bundle: a frozen model that knows everything needed to run it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rtsx.errors import BundleError
from rtsx.model.batchnorm import BatchNormMode, BatchStatisticsSource
from rtsx.model.consistency import check_channels, check_tiles
from rtsx.model.digest import digest_of_json
from rtsx.model.folder import write_folder
from rtsx.model.inputs import InputLayer
from rtsx.model.item import ITEM_NAME, write_item
from rtsx.model.metadata import Activation, Metadata
from rtsx.model.module import ModuleSource
from rtsx.model.network import Network, open_network
from rtsx.model.opened_networks import OpenedNetworks
from rtsx.model.opening import open_source
from rtsx.model.reach import Reach
from rtsx.model.smp import SmpSource
from rtsx.model.source import NetworkSource
from rtsx.model.torchscript import TorchScriptSource
from rtsx.model.trial import try_network

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["ModelBundle"]

_STRIDE = 32
"""Stride of a network that does not say: five halvings, which every smaller power of two divides."""

_networks = OpenedNetworks(limit=8)
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBundle:
    """A network with its input scaling, classes, tile plan and provenance.

    Frozen, safe to share between threads, and can be pickled: it carries its weights, so hand it to many tasks as one
    object. Equal bundles give equal answers and say the same about themselves.

    Raises
    ------
    BundleError
        The numbers contradict each other; the message names the cure.

    Examples
    --------
    >>> network = torch.nn.Conv2d(2, 1, 3, padding=1)
    >>> bundle = ModelBundle.from_module(
    ...     network, layers=("red", "nir"), mean=(0.1, 0.2), std=(0.1, 0.1), tile=64, overlap=32, stride=1, id="tiny"
    ... )
    >>> print(bundle)
    tiny: Conv2d, 2 layers (red, nir) to target by sigmoid, tiles of 64 px with overlap 32
    """

    id: str
    """Name of the model for people and products."""
    inputs: tuple[InputLayer, ...]
    """The network's channels in their order: layer and scaling."""
    classes: tuple[str, ...]
    """Names of the answers; a single one is what a binary network finds."""
    activation: Activation
    """What turns the network's output into probabilities; "none" where the network does it itself."""
    threshold: float
    """Least probability that counts as found, 0..1."""
    tile: int
    """Side of a tile in px, as the network was trained or is meant to run."""
    overlap: int
    """Pixels that neighbouring tiles share."""
    stride: int
    """Total down-sampling of the network in px; tiles and steps are multiples of it."""
    source: NetworkSource = field(repr=False)
    """Where the network comes from."""
    trim: int | None = None
    """Pixels on each side of a tile that never count; None: the planner's choice."""
    fill: float = 0.0
    """Channel value of an invalid pixel, in every layer."""
    preset: str | None = None
    """Name of the preset that the scaling comes from, where it does."""
    bn_mode: BatchNormMode = "eval"
    """"eval": stored averages; "batch": statistics of each tile, as DARTS v1 ran."""
    reach: Reach | None = None
    """How far a pixel matters, as measured; None: not measured yet."""
    provenance: Mapping[str, object] | None = None
    """Where the weights come from, as JSON values: file, its sha256, format, library versions."""

    def __post_init__(self) -> None:
        """Refuse numbers that contradict each other."""
        check_channels(self.layers, classes=self.classes, activation=self.activation, threshold=self.threshold)
        check_tiles(self.tile, overlap=self.overlap, stride=self.stride, trim=self.trim)
        if self.bn_mode not in {"eval", "batch"}:
            raise BundleError(f"bn_mode has to be 'eval' or 'batch'; got {self.bn_mode!r}.")
        if self.bn_mode == "batch":
            BatchStatisticsSource(self.source)  # refuses graphs whose normalisation is fixed

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the network's channels, in their order."""
        return tuple(layer.name for layer in self.inputs)

    @property
    def n_parameters(self) -> int:
        """Numbers in the weights."""
        return self.source.n_parameters

    @cached_property
    def digest(self) -> str:
        """sha256, as hex, over the weights and everything that changes answers.

        Name, provenance and the measured reach are left out: what the planner makes of the reach is in the plan.
        """
        return digest_of_json(
            {
                "network": self.source.digest,
                "inputs": [asdict(layer) for layer in self.inputs],
                "classes": self.classes,
                "activation": self.activation,
                "threshold": self.threshold,
                "tile": self.tile,
                "overlap": self.overlap,
                "trim": self.trim,
                "stride": self.stride,
                "fill": self.fill,
                "bn_mode": self.bn_mode,
            }
        )

    @classmethod
    def open(
        cls,
        path: "str | PathLike[str]",
        *,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        inputs: Sequence[InputLayer] | None = None,
        classes: Sequence[str] | None = None,
        activation: Activation | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        trim: int | None = None,
        stride: int | None = None,
        threshold: float | None = None,
        fill: float | None = None,
        preset: str | None = None,
        bn_mode: BatchNormMode | None = None,
        id: str | None = None,  # noqa: A002 - the word that STAC and the attribute use
        architecture: str | None = None,
        encoder: str | None = None,
        trust: bool = False,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "ModelBundle":
        """Open a bundle's folder, or any file of weights that the field has.

        Files: checkpoints of thaw-slump-segmentation and darts-nextgen (four formats), ONNX, TorchScript, and archives
        of `torch.export`. Keywords complete what the file does not say, and override what it says. Layers are scaled as
        one: whoever gives `layers`, `mean`, `std` or `preset` replaces the file's scaling.

        Parameters
        ----------
        path
            Local path or fsspec URL.
        layers
            Names of the network's channels in their order; with a preset, the predecessors' names are understood.
        mean, std
            One number per layer, in physical units.
        inputs
            Layers with their scaling, instead of `layers`, `mean`, `std` and `preset`.
        classes
            Names of the output channels in their order.
        activation
            "sigmoid", "softmax" or "none". Default: "none" for an ONNX graph that ends in either, else "sigmoid" for one
            class and "softmax" for several.
        tile, overlap, trim, stride
            px. The stride defaults to the network's where that is known, else to 32.
        threshold
            Default 0.5.
        fill
            Channel value of an invalid pixel. Default 0.
        preset
            "tss-v1" or "darts-v2".
        bn_mode
            "eval" (default), or "batch" to reproduce DARTS v1.
        id
            Default: the name of the file.
        architecture, encoder
            Names in segmentation-models-pytorch, for checkpoints: needed for a bare state dict without its run's
            `config.yml`.
        trust
            Read the file even if that can run code of its author.
        storage_options
            Arguments of the URL's file system.

        Raises
        ------
        BundleError
            Nothing is there, it is damaged, its description is incomplete, or it contradicts the keywords.
        UntrustedModelError
            Reading the file can run code of its author, and `trust` is False.
        """
        said = Metadata(
            id=id,
            layers=_tuple(layers),
            mean=_tuple(mean),
            std=_tuple(std),
            inputs=_tuple(inputs),
            classes=_tuple(classes),
            activation=activation,
            tile=tile,
            overlap=overlap,
            trim=trim,
            stride=stride,
            threshold=threshold,
            fill=fill,
            preset=preset,
            bn_mode=bn_mode,
        )
        named = {"architecture": architecture, "encoder": encoder}
        opened = open_source(
            str(path),
            said=said,
            trust=trust,
            network={name: value for name, value in named.items() if value is not None},
            storage_options=storage_options or {},
        )
        return cls._complete(opened.metadata, source=opened.source)

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        layers: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        inputs: Sequence[InputLayer] | None = None,
        preset: str | None = None,
        classes: Sequence[str] = ("target",),
        activation: Activation | None = None,
        tile: int,
        overlap: int,
        trim: int | None = None,
        stride: int | None = None,
        threshold: float = 0.5,
        fill: float = 0.0,
        bn_mode: BatchNormMode = "eval",
        id: str | None = None,  # noqa: A002 - the word that STAC and the attribute use
        provenance: Mapping[str, object] | None = None,
    ) -> "ModelBundle":
        """Make a bundle of a network in memory; it is copied, so training may go on.

        Parameters
        ----------
        module
            Turns (tile, layer, y, x) float32 into (tile, class, y, x), at the same resolution.
        layers
            Names of its channels in their order. Without `mean` and `std` or a preset, physical values go in unscaled.
        mean, std
            One number per layer, in physical units.
        inputs
            Layers with their scaling, instead of `layers`, `mean`, `std` and `preset`.
        preset
            "tss-v1" or "darts-v2".
        classes
            Names of its output channels; one for a binary network with one logit.
        activation
            "sigmoid", "softmax", or "none" if the network returns probabilities. Default: "sigmoid" for one class,
            "softmax" for several.
        tile, overlap, trim
            px.
        stride
            Total down-sampling in px. Default: the encoder's for networks of segmentation-models-pytorch, else 32.
        threshold
            Least probability that counts as found.
        fill
            Channel value of an invalid pixel.
        bn_mode
            "eval", or "batch" for the statistics of each tile.
        id
            Default: the name of the module's class.
        provenance
            Whatever should be remembered about the weights, as JSON values.

        Raises
        ------
        BundleError
            The network does not run on such tiles, or its answer does not fit the classes.
        """
        source = _source_of(module)
        if isinstance(source, SmpSource):
            stride = source.stride if stride is None else stride
        stride = _STRIDE if stride is None else stride
        said = Metadata(layers=_tuple(layers), mean=_tuple(mean), std=_tuple(std), inputs=_tuple(inputs), preset=preset)
        if said.inputs is None and said.layers is not None and mean is None and std is None and preset is None:
            said = Metadata(inputs=tuple(InputLayer(name=name) for name in said.layers))
        said = replace(
            said.scaled(),
            id=id or type(module).__name__,
            classes=tuple(classes),
            activation=activation,
            tile=tile,
            overlap=overlap,
            trim=trim,
            stride=stride,
            threshold=threshold,
            fill=fill,
            bn_mode=bn_mode,
            provenance=provenance,
        )
        said.require(described=f"The module {type(module).__name__}")
        bundle = cls._complete(said, source=source)
        try_network(
            source.load_module(), n_layers=len(bundle.inputs), classes=bundle.classes, tile=tile, stride=bundle.stride
        )
        return bundle

    @classmethod
    def _complete(cls, metadata: Metadata, *, source: NetworkSource) -> "ModelBundle":
        assert metadata.inputs is not None, "the opener requires these four"
        assert metadata.classes is not None
        assert metadata.tile is not None
        assert metadata.overlap is not None
        return cls(
            id=metadata.id or source.architecture,
            inputs=metadata.inputs,
            classes=metadata.classes,
            activation=metadata.activation or ("sigmoid" if len(metadata.classes) == 1 else "softmax"),
            threshold=0.5 if metadata.threshold is None else metadata.threshold,
            tile=metadata.tile,
            overlap=metadata.overlap,
            stride=_STRIDE if metadata.stride is None else metadata.stride,
            source=source,
            trim=metadata.trim,
            fill=0.0 if metadata.fill is None else metadata.fill,
            preset=metadata.preset,
            bn_mode=metadata.bn_mode or "eval",
            reach=metadata.reach,
            provenance=metadata.provenance,
        )

    def save(self, path: "str | PathLike[str]", *, overwrite: bool = False) -> None:
        """Write the bundle's folder: the weights, and a STAC Item with the MLM extension.

        A local folder appears whole or not at all. In an object store the metadata file is written last, and without it
        the folder is no bundle.

        Parameters
        ----------
        path
            Local path or fsspec URL of a folder that does not exist yet.
        overwrite
            Replace the bundle that is there; a folder that holds anything else is kept.

        Raises
        ------
        OutputExistsError
            Something is there already, and `overwrite` is False or it is more than a bundle.
        OutputNotWritableError
            The place cannot be written.
        BundleError
            The network is one that cannot be written to a file.
        """
        artifact = self.source.artifact(n_layers=len(self.inputs), tile=self.tile, stride=self.stride)
        item = write_item(self._metadata(), source=self.source, artifact=artifact)
        # The metadata file comes last, because its presence is what makes the folder a bundle.
        write_folder(str(path), {artifact.filename: artifact.data, ITEM_NAME: item}, overwrite=overwrite)

    def network(self, *, device: str, precision: str, backend: str) -> Network:
        """Load the network, or take it from this process's cache.

        Parameters
        ----------
        device
            "auto", "cpu", "cuda" or "cuda:N".
        precision
            "auto", "float32", "bfloat16" or "float16".
        backend
            "auto", "eager", "compile", "onnx" or "openvino".

        Raises
        ------
        BundleError
            An unknown device, precision or backend, or one that cannot run this network.
        MissingExtraError
            The backend's library is not installed.
        """
        source = self.source if self.bn_mode == "eval" else BatchStatisticsSource(self.source)
        return _networks.get(
            (self.digest, device, precision, backend),
            lambda: open_network(
                source,
                digest=self.digest,
                n_layers=len(self.inputs),
                classes=self.classes,
                activation=self.activation,
                stride=self.stride,
                tile=self.tile,
                device=device,
                precision=precision,
                backend=backend,
            ),
        )

    def with_reach(self, reach: Reach) -> "ModelBundle":
        """Copy of the bundle that knows its reach; the digest stays."""
        return replace(self, reach=reach)

    def _metadata(self) -> Metadata:
        own = {known.name for known in fields(Metadata)} & {known.name for known in fields(self)}
        return Metadata(**{name: getattr(self, name) for name in own})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelBundle):
            return NotImplemented
        return self.digest == other.digest and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self.digest)

    def _said(self) -> tuple[object, ...]:
        return self.id, self.preset, self.reach, dict(self.provenance or {})

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.source.architecture}, {len(self.inputs)} layers ({', '.join(self.layers)}) to "
            f"{', '.join(self.classes)} by {self.activation}, tiles of {self.tile} px with overlap {self.overlap}"
        )


def _source_of(module: torch.nn.Module) -> NetworkSource:
    if isinstance(module, torch.jit.ScriptModule):
        return TorchScriptSource.from_module(module)
    return SmpSource.from_network(module) or ModuleSource.from_module(module)


def _tuple(values: Sequence[_Value] | None) -> tuple[_Value, ...] | None:
    return None if values is None else tuple(values)
