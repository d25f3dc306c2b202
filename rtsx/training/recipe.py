"""The recipe of a bundle: everything that a training depends on, besides machine and versions of libraries."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtsx.errors import TrainingError
from rtsx.model.inputs import InputLayer
from rtsx.training.nearest import nearest
from rtsx.training.network import NetworkSpec
from rtsx.training.optimisation import OptimisationSpec
from rtsx.training.sampling import SamplingSpec
from rtsx.training.scene import TrainingScene

__all__ = ["AUGMENTATION_NAMES", "AugmentationSpec", "LossTerm", "TrainingRecipe", "check_augmentation_name"]

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
        raise TrainingError(f"There is no augmentation {spec.name!r}.{nearest(spec.name, AUGMENTATION_NAMES)}")


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
    """What is trained."""
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    """Which tiles it sees."""
    augmentations: tuple[AugmentationSpec, ...] = ()
    """What happens to them, in this order; training tiles only."""
    losses: tuple[LossTerm, ...] = (LossTerm(name="DiceLoss"), LossTerm(name="FocalLoss"))
    """What is minimised: their weighted sum."""
    optimisation: OptimisationSpec = field(default_factory=OptimisationSpec)
    """How."""
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
