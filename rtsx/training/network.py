"""Which network is trained, and what it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["NetworkSpec"]


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """An architecture of segmentation-models-pytorch."""

    architecture: str = "UnetPlusPlus"
    """One of `rtsx.model.ARCHITECTURES`, in any case."""
    encoder: str = "resnet34"
    """Name of the encoder in segmentation-models-pytorch, or ``tu-`` and the name of a timm model."""
    encoder_weights: str | None = None
    """None: random. A path that ends in .pth, .pt or .safetensors: read from there. Any other word, such as ``imagenet``: what
    the library downloads under that name. The first convolution is adapted to the number of layers."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Further arguments of the architecture, such as ``decoder_channels``, as JSON values."""
