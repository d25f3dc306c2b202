"""The bundle: a frozen model with everything that is needed to run it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from typing import Any, Self, TypedDict, Unpack

import torch

from rtsx.arguments import typed
from rtsx.errors import BundleError
from rtsx.model.bundle_io import ITEM_NAME, write_folder, write_item
from rtsx.model.exported import ModuleSource, TorchScriptSource
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import (
    Activation,
    Metadata,
    OutlineChoice,
    Reach,
    check_background,
    check_channels,
    check_temperature,
    check_tiles,
)
from rtsx.model.network import Network, OpenedNetworks, open_network, run_in_torch_thread
from rtsx.model.open import check_network, open_network_source
from rtsx.model.smp import SmpSource
from rtsx.model.source import ARTIFACT_FORMATS, BatchNormMode, BatchStatisticsSource, NetworkSource, digest_of_json
from rtsx.pages import html_table

UNSAID_STRIDE = 32
"""Stride of a network that does not say: five halvings, which every smaller power of two divides."""


class BundleKeywords(TypedDict, total=False):
    """What may be stated about a network; what is None, or left out, is not."""

    layers: Sequence[str] | None
    """Names of its channels in their order; with a preset, the predecessors' names are understood."""
    mean: Sequence[float] | None
    """Mean of each layer, in physical units."""
    std: Sequence[float] | None
    """Standard deviation of each layer, in physical units."""
    inputs: Sequence[InputLayer] | None
    """Layers with their scaling, instead of `layers`, `mean`, `std` and `preset`."""
    preset: str | None
    """Published models whose scaling is taken: "tss-v1" or "darts-v2"."""
    classes: Sequence[str] | None
    """Names of the output channels in their order; one for a binary network with one logit."""
    activation: Activation | None
    """"sigmoid", "softmax", or "none" if the network returns probabilities. Default: "none" for an ONNX graph that ends in either,
    else "sigmoid" for one class and "softmax" for several."""
    tile: int | None
    """Side of a tile, px."""
    overlap: int | None
    """Pixels that neighbouring tiles share."""
    trim: int | None
    """Pixels on each side of a tile that never count."""
    stride: int | None
    """Total down-sampling, px. Default: the network's where that is known, else 32."""
    threshold: float | None
    """Least probability that counts as found. Default 0.5."""
    outlines: OutlineChoice | None
    """Threshold and least area of outlines that were chosen by object scores, for one class. Default: those of `threshold`, from 288 m²."""
    temperature: float | None
    """What the network's output is divided by before the activation. Default 1."""
    fill: float | None
    """Channel value of an invalid pixel. Default 0."""
    pixel_m: float | None
    """Ground length of a pixel that the network has learnt, m; predictions at another are warned of."""
    bn_mode: BatchNormMode | None
    """"eval" (default), or "batch" for the statistics of each tile, which reproduces DARTS v1."""
    id: str | None
    """Name of the model. Default: the name of the file, or of the module's class."""


def _source_of(module: torch.nn.Module) -> NetworkSource:
    if isinstance(module, torch.jit.ScriptModule):
        return TorchScriptSource.from_module(module)
    return SmpSource.from_network(module) or ModuleSource.from_module(module)


def _metadata(stated: BundleKeywords) -> Metadata:
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in stated.items()
    }
    metadata = Metadata(**known)
    check_background(metadata.classes or ())
    return metadata


_networks = OpenedNetworks(limit=8)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBundle:
    """A network with its input scaling, classes, tile plan and provenance.

    Frozen, safe to share between threads, and can be pickled: it carries its weights, so hand it to many tasks as one
    object. Equal bundles give equal outputs and say the same about themselves.

    Raises
    ------
    BundleError
        The numbers contradict each other; the message names the cure.

    Examples
    --------
    >>> import torch
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
    temperature: float = 1.0
    """What the network's output is divided by before the activation; above 1 makes probabilities less extreme."""
    outlines: OutlineChoice | None = None
    """Threshold and least area of outlines, chosen by object scores; None: as `threshold` says, from 288 m²."""
    pixel_m: float | None = None
    """Ground length of a pixel that the network has learnt, m; None: nobody has said. Another one is warned of."""
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
        check_temperature(self.temperature, activation=self.activation)
        if self.pixel_m is not None and not 0 < self.pixel_m < math.inf:
            raise BundleError(f"pixel_m is the ground length of a pixel, above 0 m; got {self.pixel_m}.")
        if self.outlines is not None and len(self.classes) > 1:
            raise BundleError(
                f"outlines are chosen for one class, but the bundle tells {', '.join(self.classes)} apart. Leave them out, and say "
                "threshold and min_area_m2 when outlines are extracted."
            )
        check_tiles(self.tile, overlap=self.overlap, stride=self.stride, trim=self.trim)
        if self.bn_mode not in {"eval", "batch"}:
            raise BundleError(f"bn_mode has to be 'eval' or 'batch'; got {self.bn_mode!r}.")
        if self.bn_mode == "batch":
            BatchStatisticsSource(self.source)  # refuses graphs whose normalisation is fixed

    @classmethod
    @typed(BundleError)
    def open(
        cls,
        path: str | PathLike[str],
        *,
        architecture: str | None = None,
        encoder: str | None = None,
        trust: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        **stated: Unpack[BundleKeywords],
    ) -> Self:
        """Open a bundle's folder, or any file of weights that the field has.

        Files: checkpoints of thaw-slump-segmentation and darts-nextgen (four formats), and of any other training, by
        Lightning or plain torch, of a network of segmentation-models-pytorch; ONNX, TorchScript, and archives of
        `torch.export`. Keywords complete what the file does not say, and override what it says. Layers are scaled as
        one: whoever gives `layers`, `mean`, `std` or `preset` replaces the file's scaling.

        Parameters
        ----------
        path
            Local path or fsspec URL; ``"demo"`` is the small model that ships with rtsx.
        architecture, encoder
            Names in segmentation-models-pytorch, for checkpoints: needed where the file does not say them, as a bare
            state dict without its run's `config.yml`.
        trust
            Read the file even if that can run code of its author.
        storage_options
            Arguments of the URL's file system.
        **stated
            See `rtsx.model.BundleKeywords`.

        Raises
        ------
        BundleError
            Nothing is there, it is damaged, its description is incomplete, or it contradicts the keywords.
        UntrustedModelError
            Reading the file can run code of its author, and `trust` is False.
        """
        named = {"architecture": architecture, "encoder": encoder}
        opened = open_network_source(
            str(path),
            said=_metadata(stated),
            trust=trust,
            network={name: value for name, value in named.items() if value is not None},
            storage_options=storage_options or {},
        )
        return cls._from_metadata(opened.metadata, source=opened.source)

    @classmethod
    @typed(BundleError)
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        provenance: Mapping[str, object] | None = None,
        **stated: Unpack[BundleKeywords],
    ) -> Self:
        """Make a bundle of a network in memory; it is copied, so training may go on.

        `tile` and `overlap` have to be stated. Without `mean` and `std` or a preset, physical values of `layers` go in
        unscaled. The only class is called "target" where `classes` are not named.

        Parameters
        ----------
        module
            Turns (tile, layer, y, x) float32 into (tile, class, y, x), at the same resolution.
        provenance
            Whatever should be remembered about the weights, as JSON values.
        **stated
            See `rtsx.model.BundleKeywords`.

        Raises
        ------
        BundleError
            The network does not run on such tiles, or its output does not fit the classes.
        """
        source = run_in_torch_thread(lambda: _source_of(module))
        said = _metadata({"fill": 0.0, "classes": ("target",), **stated})
        if said.inputs is None and said.layers is not None and (said.mean, said.std, said.preset) == (None, None, None):
            said = replace(said, inputs=tuple(InputLayer(name=name) for name in said.layers))
        stride = source.stride if isinstance(source, SmpSource) else UNSAID_STRIDE
        said = replace(
            said.scaled(),
            id=said.id or type(module).__name__,
            stride=stride if said.stride is None else said.stride,
            provenance=provenance,
        )
        described = f"The module {type(module).__name__}"
        said.require(described=described, opener="ModelBundle.from_module(module")
        bundle = cls._from_metadata(said, source=source)
        run_in_torch_thread(lambda: check_network(source, said, described=described))
        return bundle

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
        # Left out where it changes nothing, so that bundles of before keep their digest.
        later = {} if self.temperature == 1 else {"temperature": self.temperature}
        later |= {} if self.outlines is None else self.outlines.attrs
        stated = ("classes", "activation", "threshold", "tile", "overlap", "trim", "stride", "fill", "bn_mode")
        later |= {name: getattr(self, name) for name in stated}
        return digest_of_json(
            later | {"network": self.source.digest, "inputs": [asdict(layer) for layer in self.inputs]}
        )

    @classmethod
    def _from_metadata(cls, metadata: Metadata, *, source: NetworkSource) -> Self:
        stated = {name: value for name, value in vars(metadata).items() if value is not None}
        single = len(stated["classes"]) == 1
        usual = {
            "id": source.architecture,
            "activation": "sigmoid" if single else "softmax",
            "threshold": 0.5,
            "stride": UNSAID_STRIDE,
        }
        own = {known.name for known in fields(cls)} & stated.keys()
        return cls(source=source, **usual | {name: stated[name] for name in own})

    @typed(BundleError)
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
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
        write_folder(
            str(path), {ARTIFACT_FORMATS[artifact.kind].filename: artifact.data, ITEM_NAME: item}, overwrite=overwrite
        )

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
                n_layers=len(self.inputs),
                classes=self.classes,
                activation=self.activation,
                temperature=self.temperature,
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
        return self.digest == other.digest and self._stated() == other._stated()

    def __hash__(self) -> int:
        return hash(self.digest)

    def _stated(self) -> tuple[object, ...]:
        return self.id, self.preset, self.pixel_m, self.reach, dict(self.provenance or {})

    def _repr_html_(self) -> str:
        rows = [
            ("digest", self.digest[:12]),
            ("network", self.source.architecture),
            ("layers", ", ".join(self.layers)),
            ("classes", ", ".join(self.classes)),
            ("threshold", f"{self.threshold:g}"),
            *(() if self.outlines is None else [("outlines", str(self.outlines))]),
            ("tiles", f"{self.tile} px with overlap {self.overlap}"),
            ("pixel", "any" if self.pixel_m is None else f"{self.pixel_m:g} m"),
        ]
        return html_table(f"Model bundle {self.id}", rows)

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.source.architecture}, {len(self.inputs)} layers ({', '.join(self.layers)}) to "
            f"{', '.join(self.classes)} by {self.activation}, tiles of {self.tile} px with overlap {self.overlap}"
        )
