"""The two doors to a bundle: a file or folder of weights, and a network in memory.

In a file of their own because what they take, and say about it, is as long as what a bundle is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Self, TypeVar

import torch

from rtsx.arguments import typed
from rtsx.errors import BundleError
from rtsx.model.batchnorm import BatchNormMode
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Activation, Metadata
from rtsx.model.module import ModuleSource
from rtsx.model.opening import check_network, open_source
from rtsx.model.smp import SmpSource
from rtsx.model.source import NetworkSource
from rtsx.model.torch_thread import on_torch_thread
from rtsx.model.torchscript import TorchScriptSource

__all__ = ["UNSAID_STRIDE", "BundleDoors"]

UNSAID_STRIDE = 32
"""Stride of a network that does not say: five halvings, which every smaller power of two divides."""

_Value = TypeVar("_Value")


class BundleDoors:
    """The ways to get a bundle; `ModelBundle` is what they lead to."""

    @classmethod
    def _from_metadata(cls, metadata: Metadata, *, source: NetworkSource) -> Self:
        """Make the bundle of a complete description."""
        raise NotImplementedError

    @classmethod
    @typed(BundleError)
    def open(
        cls,
        path: str | PathLike[str],
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
        temperature: float | None = None,
        fill: float | None = None,
        pixel_m: float | None = None,
        preset: str | None = None,
        bn_mode: BatchNormMode | None = None,
        id: str | None = None,  # noqa: A002 - the word that STAC and the attribute use
        architecture: str | None = None,
        encoder: str | None = None,
        trust: bool = False,
        storage_options: Mapping[str, Any] | None = None,
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
        temperature
            What the network's output is divided by before the activation. Default 1.
        fill
            Channel value of an invalid pixel. Default 0.
        pixel_m
            Ground length of a pixel that the network has learnt, m; predictions at another are warned of.
        preset
            "tss-v1" or "darts-v2".
        bn_mode
            "eval" (default), or "batch" to reproduce DARTS v1.
        id
            Default: the name of the file.
        architecture, encoder
            Names in segmentation-models-pytorch, for checkpoints: needed where the file does not say them, as a bare
            state dict without its run's `config.yml`.
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
            temperature=temperature,
            fill=fill,
            pixel_m=pixel_m,
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
        return cls._from_metadata(opened.metadata, source=opened.source)

    @classmethod
    @typed(BundleError)
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
        temperature: float = 1.0,
        fill: float = 0.0,
        pixel_m: float | None = None,
        bn_mode: BatchNormMode = "eval",
        id: str | None = None,  # noqa: A002 - the word that STAC and the attribute use
        provenance: Mapping[str, object] | None = None,
    ) -> Self:
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
        temperature
            What the network's output is divided by before the activation.
        fill
            Channel value of an invalid pixel.
        pixel_m
            Ground length of a pixel that the network has learnt, m; predictions at another are warned of.
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
        source = on_torch_thread(lambda: _source_of(module))
        if isinstance(source, SmpSource):
            stride = source.stride if stride is None else stride
        stride = UNSAID_STRIDE if stride is None else stride
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
            temperature=temperature,
            fill=fill,
            pixel_m=pixel_m,
            bn_mode=bn_mode,
            provenance=provenance,
        )
        said.require(described=f"The module {type(module).__name__}")
        bundle = cls._from_metadata(said, source=source)
        on_torch_thread(lambda: check_network(source, said, described=f"The module {type(module).__name__}"))
        return bundle


def _source_of(module: torch.nn.Module) -> NetworkSource:
    if isinstance(module, torch.jit.ScriptModule):
        return TorchScriptSource.from_module(module)
    return SmpSource.from_network(module) or ModuleSource.from_module(module)


def _tuple(values: Sequence[_Value] | None) -> tuple[_Value, ...] | None:
    return None if values is None else tuple(values)
