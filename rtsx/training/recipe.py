"""The recipe of a bundle: everything that a training depends on, besides machine and versions of libraries."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal

import xarray as xr
from annotated_types import Ge, Gt, Le

from rtsx.cube import as_cube, validate_cube
from rtsx.errors import BundleError, TrainingError
from rtsx.labels import LabelRaster
from rtsx.model.inputs import InputLayer
from rtsx.names import suggest
from rtsx.parsing import STRICT


@contextmanager
def explained(prefix: str = "") -> Iterator[None]:
    """Raise a `TrainingError` where the block raises a `BundleError`, with its text after `prefix`."""
    try:
        yield
    except BundleError as error:
        raise TrainingError(f"{prefix}{error}") from error


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """An architecture of segmentation-models-pytorch."""

    __pydantic_config__ = STRICT

    architecture: str = "UnetPlusPlus"
    """Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, PAN, DeepLabV3, DeepLabV3Plus, UPerNet, Segformer or DPT, in any case."""
    encoder: str = "resnet34"
    """Encoder of segmentation-models-pytorch, such as resnet34, or ``tu-`` and the name of a timm model."""
    encoder_weights: str | None = None
    """Nothing: random. A path that ends in .pth, .pt or .safetensors: read from there. Any other word, such as ``imagenet``: what
    the library downloads under that name. The first convolution is adapted to the number of layers."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Further arguments of the architecture, such as ``decoder_channels``, as JSON values."""


OptimiserName = Literal["AdamW", "Adam", "SGD"]
ScheduleName = Literal["constant", "StepLR", "ExponentialLR", "cosine"]


@dataclass(frozen=True, kw_only=True)
class OptimisationSpec:
    """Everything between a gradient and the next weights."""

    optimiser: OptimiserName = "AdamW"
    """Class of `torch.optim`."""
    learning_rate: float = 1e-3
    """Learning rate at its highest."""
    optimiser_options: Mapping[str, float | bool] = field(default_factory=dict)
    """Further arguments of the optimiser, such as ``weight_decay``."""
    schedule: ScheduleName = "cosine"
    """``constant``; torch's ``StepLR`` and ``ExponentialLR``, by epochs; or ``cosine``: a half cosine to 0, by steps."""
    schedule_options: Mapping[str, float] = field(default_factory=dict)
    """Arguments of the schedule: ``step_size`` (epochs) and ``gamma``; ``gamma``."""
    warmup: float = 0.0
    """Part of all steps, 0 to below 1, over which the learning rate rises from 0, whatever the schedule."""
    gradient_clip: float | None = None
    """Greatest norm of the gradient; None: as it comes."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, such as 0.999, which is then what is evaluated and kept; None:
    the weights themselves."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of forward and backward pass; anything but float32 by autocast, float16 with scaled gradients."""


@dataclass(frozen=True, kw_only=True)
class SamplingSpec:
    """Which tiles the network sees; a draw is a pure function of seed, epoch and place in the epoch."""

    __pydantic_config__ = STRICT

    negatives: Annotated[float, Ge(0)] = 1.0
    """Tiles without a labelled pixel per tile with one, at the start of the training, at least 0."""
    final_negatives: Annotated[float, Gt(0)] | None = None
    """The same at the end, reached in equal steps of its logarithm over the epochs; as at the start if left out."""
    drawn_by: Literal["tile", "pixel"] = "tile"
    """``tile``: each tile with a label as often as any other; ``pixel``: as often as it has labelled pixels, so that large objects
    are shown as much as they weigh in an IoU."""
    jitter: bool = True
    """Shift each tile at random by up to half a tile, so that no two epochs show the same cuts."""
    hard_negatives: Annotated[float, Ge(0), Le(1)] = 0.5
    """Part of the tiles without a label, 0 to 1, that show something that a review has refused, where there is any; 0: as often
    as any other ground."""
    min_valid: Annotated[float, Gt(0), Le(1)] = 0.05
    """Least part of a tile's pixels that have to be valid, above 0 to 1; a tile with less is never drawn."""
    blocks_at_once: Annotated[int, Ge(1)] | None = None
    """Blocks of 8 by 8 tiles whose tiles are shown, mixed, before those of others; all ground is mixed if left out. For
    scenes that are computed lazily and do not fit the cache: fewer blocks are read less often, but batches see less at a time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        ratios = (self.negatives, self.negatives if self.final_negatives is None else self.final_negatives)
        if min(ratios) < 0 or (self.final_negatives is not None and min(ratios) <= 0):
            raise TrainingError(
                f"negatives have to be above 0 where final_negatives differ, because the ratio grows by factors; got {ratios}."
            )
        if self.drawn_by not in ("tile", "pixel"):
            raise TrainingError(f"Tiles are drawn_by 'tile' or 'pixel'; got {self.drawn_by!r}.")
        if not 0 <= self.hard_negatives <= 1:
            raise TrainingError(
                f"hard_negatives is a part of the tiles without a label, 0 to 1; got {self.hard_negatives}."
            )
        if not 0 < self.min_valid <= 1:
            raise TrainingError(f"min_valid is the part of a tile that is valid, above 0 to 1; got {self.min_valid}.")
        if self.blocks_at_once is not None and self.blocks_at_once < 1:
            raise TrainingError(
                f"blocks_at_once is at least 1; got {self.blocks_at_once}. Leave it out to mix tiles over all ground."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingScene:
    """One ground at one time, with what is known to be there.

    Raises
    ------
    CubeError
        The cube is none.
    TrainingError
        It has a time dimension, or truth and cube differ in size.
    """

    name: str
    """Tells the scene from the others, in logs and reports."""
    cube: xr.Dataset
    """Layers on (y, x), lazy or not, as `open_cube` gives them, perhaps with `valid`."""
    truth: LabelRaster
    """What is where, on the pixels of the cube."""
    group: str = ""
    """Region, or whatever else must not be divided between training and test."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        object.__setattr__(self, "cube", as_cube(self.cube))
        validate_cube(self.cube)
        if "time" in self.cube.dims:
            raise TrainingError(
                f"Scene {self.name!r} has {self.cube.sizes['time']} times; a scene is one ground at one time. Select one with "
                "cube.isel(time=...), or make a scene of each."
            )
        size = (self.cube.sizes["y"], self.cube.sizes["x"])
        if self.truth.shape != size:
            raise TrainingError(
                f"Truth and cube of scene {self.name!r} differ in size: {self.truth.shape} and {size} px. Bring the labels "
                "onto the cube's grid."
            )


AUGMENTATION_NAMES = (
    "HorizontalFlip",
    "VerticalFlip",
    "RandomRotate90",
    "Rotate",
    "Blur",
    "RandomBrightnessContrast",
    "MultiplicativeNoise",
    "RandomResizedCrop",
    "ChannelDropout",
    "TrivialAugment",
)
"""Names of the classes of augmentations, which load torch."""


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of the loss."""

    name: str
    """``JaccardLoss``, ``DiceLoss``, ``FocalLoss``, ``LovaszLoss``, ``SoftBCEWithLogitsLoss`` or ``SoftCrossEntropyLoss``."""
    weight: float = 1.0
    """What it is multiplied by before terms are added."""
    options: Mapping[str, float | bool] = field(default_factory=dict)
    """Arguments of the loss, such as ``gamma``."""


@dataclass(frozen=True, kw_only=True)
class AugmentationSpec:
    """One change of a batch, in its place among the others."""

    name: str
    """One of `AUGMENTATION_NAMES`."""
    probability: float = 0.5
    """Probability that a tile is changed, 0-1."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Its parameters, as JSON values."""


def check_augmentation_name(spec: AugmentationSpec) -> None:
    """Raise `TrainingError` where there is no augmentation of that name; the nearest is offered."""
    if spec.name not in AUGMENTATION_NAMES:
        raise TrainingError(f"There is no augmentation {spec.name!r}.{suggest(spec.name, AUGMENTATION_NAMES)}")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """What is learnt from, how, and what the bundle will say about itself.

    Scenes are lazy; nothing is read before training starts.
    """

    id: str
    """Name of the bundle."""
    training: tuple[TrainingScene, ...] = field(repr=False)
    """What is learnt from; at least one."""
    validation: tuple[TrainingScene, ...] = field(default=(), repr=False)
    """What chooses the epoch, the threshold and the temperature. Empty: the last epoch is kept, threshold 0.5, temperature 1."""
    test: tuple[TrainingScene, ...] = field(default=(), repr=False)
    """What measures the result once, at the end; nothing is chosen by it."""
    classes: tuple[str, ...] = ("target",)
    """What is learnt, by the names that the scenes' truths use. One: a binary network with one logit. Several: exclusive
    classes, and the network gets ``background`` in front of them."""
    inputs: tuple[InputLayer, ...] | None = None
    """Channels of the network; None: every layer of the first training scene, scaled by mean and deviation as measured on
    tiles of the training scenes."""
    preset: str | None = None
    """Name of the preset that `inputs` are from, where they are."""
    fill: float = 0.0
    """Channel value of an invalid pixel."""
    tile: int = 256
    """Side of a tile, px; a multiple of the network's stride."""
    overlap: int = 64
    """What the bundle recommends for inference, px."""
    network: NetworkSpec = field(default_factory=NetworkSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    """Which tiles it sees."""
    augmentations: tuple[AugmentationSpec, ...] = ()
    """What happens to them, in this order; training tiles only."""
    losses: tuple[LossTerm, ...] = (LossTerm(name="DiceLoss"), LossTerm(name="FocalLoss"))
    """What is minimised: their weighted sum."""
    optimisation: OptimisationSpec = field(default_factory=OptimisationSpec)
    epochs: int = 30
    """Greatest number of epochs; each ends with a validation and a checkpoint."""
    steps_per_epoch: int | None = None
    """Batches of an epoch; None: as many as show each positive tile once."""
    batch_size: int = 8
    """Tiles of a batch, on all devices together."""
    patience: int | None = None
    """Epochs without a better validation after which training stops; None: all epochs run."""
    seed: int = 0
    """Seed of the weights, the tiles and their augmentation."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Remembered with the bundle as it is, as JSON values: the resolved config, say."""

    @property
    def scenes(self) -> tuple[TrainingScene, ...]:
        """All of them: what is learnt from, what chooses, what measures."""
        return (*self.training, *self.validation, *self.test)
