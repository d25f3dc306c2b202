"""The bundle: a frozen model that knows everything needed to run it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from os import PathLike
from typing import Self

from rtsx.arguments import typed
from rtsx.errors import BundleError
from rtsx.model.batchnorm import BatchNormMode, BatchStatisticsSource
from rtsx.model.consistency import check_channels, check_temperature, check_tiles
from rtsx.model.digest import digest_of_json
from rtsx.model.doors import UNSAID_STRIDE, BundleDoors
from rtsx.model.folder import write_folder
from rtsx.model.inputs import InputLayer
from rtsx.model.item import ITEM_NAME, write_item
from rtsx.model.metadata import Activation, Metadata, Reach
from rtsx.model.network import Network, open_network
from rtsx.model.opened_networks import OpenedNetworks
from rtsx.model.source import NetworkSource

__all__ = ["ModelBundle"]

_networks = OpenedNetworks(limit=8)


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelBundle(BundleDoors):
    """A network with its input scaling, classes, tile plan and provenance.

    Frozen, safe to share between threads, and can be pickled: it carries its weights, so hand it to many tasks as one
    object. Equal bundles give equal answers and say the same about themselves.

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
        # Left out where it changes nothing, so that bundles of before keep their digest.
        calibrated = {} if self.temperature == 1 else {"temperature": self.temperature}
        return digest_of_json(
            calibrated
            | {
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
    def _from_metadata(cls, metadata: Metadata, *, source: NetworkSource) -> Self:
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
            stride=UNSAID_STRIDE if metadata.stride is None else metadata.stride,
            source=source,
            trim=metadata.trim,
            fill=0.0 if metadata.fill is None else metadata.fill,
            temperature=1.0 if metadata.temperature is None else metadata.temperature,
            pixel_m=metadata.pixel_m,
            preset=metadata.preset,
            bn_mode=metadata.bn_mode or "eval",
            reach=metadata.reach,
            provenance=metadata.provenance,
        )

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
        return self.digest == other.digest and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self.digest)

    def _said(self) -> tuple[object, ...]:
        return self.id, self.preset, self.pixel_m, self.reach, dict(self.provenance or {})

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.source.architecture}, {len(self.inputs)} layers ({', '.join(self.layers)}) to "
            f"{', '.join(self.classes)} by {self.activation}, tiles of {self.tile} px with overlap {self.overlap}"
        )
