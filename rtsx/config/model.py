"""The network of a training config."""

import json
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from rtsx.config.strict import Strict, from_folder, is_glance
from rtsx.errors import TrainingError
from rtsx.training.network import NetworkSpec

__all__ = ["ModelConfig"]


@lru_cache(maxsize=16)
def _stride(architecture: str, encoder: str, *, options: str) -> int:
    # Remembered, because it is asked again by every check of one config, and a network is built for the answer.
    from rtsx.training.networks import stride_of  # here, because it loads torch

    return stride_of(NetworkSpec(architecture=architecture, encoder=encoder, options=json.loads(options)))


_FILES = (".pth", ".pt", ".safetensors")


def _name_or_path(given: str, info: ValidationInfo) -> str:
    return from_folder(given, info) if given.endswith(_FILES) else given


class ModelConfig(Strict):
    """The network.

    Examples
    --------
    >>> ModelConfig(architecture="Unet", encoder="resnet18").stride
    32
    """

    architecture: str = NetworkSpec.architecture
    """Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, PAN, DeepLabV3, DeepLabV3Plus, UPerNet, Segformer or DPT."""
    encoder: str = NetworkSpec.encoder
    """Encoder of segmentation-models-pytorch, such as resnet34, or ``tu-`` and the name of a timm model."""
    encoder_weights: Annotated[str, AfterValidator(_name_or_path)] | None = NetworkSpec.encoder_weights
    """Nothing: random. A path that ends in .pth, .pt or .safetensors. Any other word, such as imagenet: what the library
    downloads under that name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the architecture, such as ``decoder_channels``."""

    @model_validator(mode="after")
    def _exists(self, info: ValidationInfo) -> Self:
        if is_glance(info):
            return self
        try:
            _ = self.stride
        except TrainingError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def stride(self) -> int:
        """Total down-sampling, px."""
        return _stride(self.architecture, self.encoder, options=json.dumps(self.options, sort_keys=True))

    def network(self) -> NetworkSpec:
        """What is to be trained."""
        return NetworkSpec(
            architecture=self.architecture,
            encoder=self.encoder,
            encoder_weights=self.encoder_weights,
            options=self.options,
        )
