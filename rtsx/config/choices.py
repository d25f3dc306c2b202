"""How a campaign predicts, outlines, retries and reckons: the parts of its config that are one value each."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from rtsx.campaign.outline_spec import OutlineSpec
from rtsx.campaign.prediction_spec import PredictionSpec
from rtsx.campaign.prices import Prices
from rtsx.campaign.retry_spec import RetrySpec
from rtsx.config.memory import Memory, memory_bytes
from rtsx.config.strict import Strict
from rtsx.inference.augment import Augmentation
from rtsx.inference.plan import Merge
from rtsx.tiling import Blend

__all__ = ["OutlineConfig", "Outlines", "PredictionConfig", "PricesConfig", "RetryConfig"]

_Pixels = Annotated[int, Field(ge=0)]
_Turns = Annotated[
    tuple[Augmentation, ...],
    BeforeValidator(
        lambda given: (given,) if isinstance(given, str) else given,
        json_schema_input_type=list[Augmentation] | Augmentation,
    ),
]


class PredictionConfig(Strict):
    """How cells are predicted; the words are those of `rtsx.predict_cube`."""

    tile: Annotated[int, Field(gt=0)] | Literal["auto", "bundle"] = PredictionSpec.tile
    """Side of a tile, px; auto takes the cheapest that gives the right answer, bundle the one of training."""
    overlap: _Pixels | Literal["auto", "bundle"] = PredictionSpec.overlap
    """Pixels that neighbouring tiles share."""
    trim: _Pixels | None = PredictionSpec.trim
    """Pixels on each side of a tile that never count; the bundle's own if left out."""
    blend: Blend | Literal["auto"] = PredictionSpec.blend
    """How tiles are joined; auto is crop where the network's reach is finite, linear elsewhere."""
    batch_size: int | None = Field(default=PredictionSpec.batch_size, gt=0)
    """Tiles per forward pass; the device's own choice if left out."""
    device: str = PredictionSpec.device
    """Device of each worker: auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic; auto is bfloat16 on a GPU and float32 on a CPU."""
    backend: Literal["eager", "compile", "onnx", "openvino"] = "eager"
    """What runs the network; the same everywhere, so that all workers write the same bytes."""
    augment: _Turns = PredictionSpec.augment
    """Turns averaged with the image as it is: hflip, vflip, rot90, rot180, rot270, transpose."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = PredictionSpec.scales
    """Sizes at which tiles are shown."""
    merge: Merge = PredictionSpec.merge
    """How scales are fused."""
    memory: Memory | None = None
    """Memory of one worker, such as 8GB, by which the tile is chosen where it is auto; that of this machine if left out."""

    def spec(self) -> PredictionSpec:
        """How cells are predicted."""
        said = {name: getattr(self, name) for name in type(self).model_fields if name != "memory"}
        return PredictionSpec(**said, memory_bytes=None if self.memory is None else memory_bytes(self.memory))


class OutlineConfig(Strict):
    """How objects are outlined; the words are those of `rtsx.extract_footprints`."""

    min_area_m2: float = Field(default=OutlineSpec.min_area_m2, ge=0)
    """Smaller objects are left out, m²."""
    threshold: float | None = Field(default=OutlineSpec.threshold, gt=0, le=1)
    """Least probability of an object; the model's own if left out."""
    edge_distance: int = Field(default=OutlineSpec.edge_distance, ge=0)
    """Outlines this near to missing data are marked as cut, px."""

    def spec(self) -> OutlineSpec:
        """How objects are outlined."""
        return OutlineSpec(**{name: getattr(self, name) for name in type(self).model_fields})


Outlines = Annotated[
    OutlineConfig | None,
    BeforeValidator(
        lambda given: {True: {}, False: None}[given] if isinstance(given, bool) else given,
        json_schema_input_type=OutlineConfig | bool | None,
    ),
]
"""How objects are outlined, or whether at all."""


class RetryConfig(Strict):
    """What is done about cells that fail."""

    attempts: int = Field(default=RetrySpec.attempts, ge=1)
    """Times that a cell is tried in one run, while its failures can pass."""
    backoff_s: float = Field(default=RetrySpec.backoff_s, ge=0)
    """Seconds before the second attempt; doubled for each further one."""
    longest_backoff_s: float = Field(default=RetrySpec.longest_backoff_s, ge=0)
    """Bound of that pause, s."""
    most_failures: int = Field(default=RetrySpec.most_failures, ge=1)
    """Cells set aside in one run after which it stops."""
    lease_s: float = Field(default=RetrySpec.lease_s, gt=0)
    """Seconds without a sign of life after which another run may take over a cell."""

    def spec(self) -> RetrySpec:
        """What is done about cells that fail."""
        return RetrySpec(**{name: getattr(self, name) for name in type(self).model_fields})


class PricesConfig(Strict):
    """What plan and report reckon costs with; what is left out costs nothing."""

    device_hour: float | None = Field(default=None, ge=0)
    """Price of a worker for an hour, with its GPU where it has one."""
    gigabyte_month: float | None = Field(default=None, ge=0)
    """Price of storing 10^9 bytes for a month."""
    gigabyte_read: float | None = Field(default=None, ge=0)
    """Price of reading 10^9 bytes from the sources."""
    currency: str = Prices.currency
    """Name of the currency."""

    def spec(self) -> Prices:
        """The prices."""
        return Prices(**{name: getattr(self, name) for name in type(self).model_fields})
