"""Every architecture, loss and augmentation: built, one step, saved, opened, predicted with."""

from pathlib import Path

import pytest
import torch

from rtsx.model import ARCHITECTURES, ModelBundle
from rtsx.training import AugmentationSpec, LossTerm, NetworkSpec, TrainingRecipe, train
from rtsx.training.augment import AUGMENTATIONS
from rtsx.training.losses import LOSSES
from tests.training.little import ENCODER, make_recipe, make_scene

NETWORKS = tuple(name for name in ARCHITECTURES if name != "DPT")  # that one needs a vision transformer
TWO = ("slump", "lake")
ONE_CLASS = tuple(name for name in LOSSES if name != "SoftCrossEntropyLoss")
SEVERAL = tuple(name for name in LOSSES if name != "SoftBCEWithLogitsLoss")

PAIRS = [
    (network, ONE_CLASS[number // 2 % 5], ("target",)) if number % 2 == 0 else (network, SEVERAL[number // 2 % 5], TWO)
    for number, network in enumerate(NETWORKS)
]
"""Each network once, by turns with one and with several classes, so that each loss has both wherever it can."""


NARROW = {
    "Unet": {"decoder_channels": [32, 16, 16, 8, 8]},
    "UnetPlusPlus": {"decoder_channels": [32, 16, 16, 8, 8]},
    "MAnet": {"decoder_channels": [32, 16, 16, 8, 8], "decoder_pab_channels": 16},
    "UPerNet": {"decoder_channels": 32},
    "Segformer": {"decoder_segmentation_channels": 32},
}
"""Decoders whose usual width would take most of the time."""


def make_matrix_recipe(network: str, loss: str, classes: tuple[str, ...]) -> TrainingRecipe:
    """One step that goes through every augmentation."""
    scene = make_scene("one", seed=1, classes=classes)
    return make_recipe(
        id=network,
        classes=classes,
        training=(scene,),
        validation=(),
        test=(),
        tile=128 if network == "PAN" else 64,  # that one halves its features three times more
        overlap=32,
        network=NetworkSpec(architecture=network, encoder=ENCODER, options=NARROW.get(network, {})),
        losses=(LossTerm(name=loss),),
        augmentations=tuple(AugmentationSpec(name=name, probability=1.0) for name in sorted(AUGMENTATIONS)),
        epochs=1,
        steps_per_epoch=1,
        batch_size=2,
    )


def test_the_pairs_leave_nothing_out() -> None:
    assert {network for network, _, _ in PAIRS} == set(NETWORKS)
    for losses, classes in ((ONE_CLASS, ("target",)), (SEVERAL, TWO)):
        assert {loss for _, loss, known in PAIRS if known == classes} == set(losses)


@pytest.mark.parametrize(("network", "loss", "classes"), PAIRS)
def test_it_trains_and_answers(tmp_path: Path, network: str, loss: str, classes: tuple[str, ...]) -> None:
    recipe = make_matrix_recipe(network, loss, classes)
    run = train(recipe, tmp_path, device="cpu")
    opened = ModelBundle.open(tmp_path / "bundle")
    assert opened.digest == run.bundle.digest
    assert opened.source.architecture == f"{network}/{ENCODER}"
    tiles = torch.rand(3, 2, recipe.tile, recipe.tile, generator=torch.Generator().manual_seed(0))
    probability = opened.network(device="cpu", precision="auto", backend="eager")(tiles)
    assert probability.shape == (3, len(opened.classes), recipe.tile, recipe.tile)
    assert torch.isfinite(probability).all()
    assert 0 <= probability.min() < probability.max() <= 1
