from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtsx.errors import TrainingError
from rtsx.model import InputLayer
from rtsx.training import AugmentationSpec, LossTerm, NetworkSpec, OptimisationSpec
from rtsx.training.run import check_devices, check_recipe
from tests.training.little import make_recipe, make_scene

TWO = ("slump", "lake")


def test_a_good_recipe_has_the_stride_of_its_network() -> None:
    assert check_recipe(make_recipe()) == 8


def test_checking_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("something was computed")

    recipe = make_recipe(training=(lazy(make_scene("one")),))
    with dask.config.set(scheduler=refuse):
        check_recipe(recipe)


def lazy(scene: Any) -> Any:
    return replace(scene, cube=scene.cube.chunk(y=40, x=40))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": ""}, "needs an id"),
        ({"tile": 36}, r"tile has to be a multiple of the network's stride of 8 px; got 36. Pass tile=32"),
        ({"overlap": 32}, "overlap has to be at least 0 and below the tile"),
        ({"overlap": 4}, "overlap has to be a multiple of the network's stride of 8 px"),
        ({"network": NetworkSpec(architecture="Unett")}, "Did you mean 'Unet'"),
        ({"network": NetworkSpec(encoder="resnet19")}, "The network cannot be built.*resnet19"),
        ({"network": NetworkSpec(encoder="resnet18", encoder_weights="imagnet")}, "Did you mean 'imagenet'"),
        ({"network": NetworkSpec(encoder="resnet18", encoder_weights="none.pth")}, "there is no file none.pth"),
        ({"fill": float("nan")}, "fill is the channel value of an invalid pixel, a finite number; got nan"),
        ({"provenance": {"folder": Path("data")}}, "provenance is kept with the bundle as JSON, and is none"),
        (
            {"augmentations": (AugmentationSpec(name="ChannelDropout", options={"most": 2}),)},
            "up to 2 of 2 channels and would leave nothing to see",
        ),
        ({"losses": ()}, "at least one loss"),
        ({"losses": (LossTerm(name="Dice"),)}, "There is no loss 'Dice'. Did you mean 'DiceLoss'"),
        ({"losses": (LossTerm(name="SoftCrossEntropyLoss"),)}, "is for several classes"),
        ({"augmentations": (AugmentationSpec(name="HorizontalFlp"),)}, "HorizontalFlip"),
        ({"optimisation": OptimisationSpec(learning_rate=-1)}, "learning_rate has to be above 0; got -1"),
        ({"epochs": 0}, "epochs has to be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size has to be at least 1; got 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch has to be at least 1"),
        ({"patience": 0}, "patience has to be at least 1"),
        (
            {"patience": 2, "validation": ()},
            "patience waits for a better validation, but there are no validation scenes",
        ),
        ({"classes": ()}, "at least one class"),
        ({"classes": ("a", "a")}, r"each with its own name; got \['a', 'a'\]"),
        ({"classes": ("background", "a")}, "gets 'background' by itself"),
        ({"classes": ("slump",)}, r"learns the classes \['slump'\], but the truth of scene 'one' has \['target'\]"),
        ({"training": ()}, "at least one training scene; got none"),
        ({"test": (make_scene("one"),)}, r"Scenes \['one'\] stand more than once"),
        ({"inputs": ()}, "at least one input layer"),
        ({"inputs": (InputLayer(name="red"), InputLayer(name="red"))}, "each once"),
        ({"inputs": (InputLayer(name="dem"),)}, r"Scene 'one' lacks layers of the recipe.*missing \['dem'\]"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        check_recipe(make_recipe(**changes))


def test_a_group_is_on_one_side_of_the_test() -> None:
    with pytest.raises(TrainingError, match=r"Groups \['Banks'\] have scenes on both sides"):
        check_recipe(
            make_recipe(training=(make_scene("one", group="Banks"),), test=(make_scene("four", group="Banks"),))
        )


@pytest.mark.parametrize(
    ("device", "devices", "num_workers", "precision", "text"),
    [
        ("cpu", 3, 0, "float32", "divide the batch of 4 tiles evenly; got 3"),
        ("cpu", 0, 0, "float32", "devices has to be at least 1"),
        ("cpu", 1, -1, "float32", "num_workers has to be at least 0"),
        ("cpu", 1, 0, "float16", "needs a GPU"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(device, devices, num_workers, precision, text) -> None:
    recipe = make_recipe(optimisation=OptimisationSpec(precision=precision))
    with pytest.raises(TrainingError, match=text):
        check_devices(recipe, device=device, devices=devices, num_workers=num_workers)


@pytest.mark.parametrize(
    ("network", "tile", "batch_size", "text"),
    [
        (
            "DeepLabV3",
            64,
            1,
            "DeepLabV3 with resnet18 cannot learn from 1 tile of 64 px at a time.*more than 1 value per channel",
        ),
        ("PAN", 64, 4, "PAN with resnet18 cannot learn from 4 tiles of 64 px.*Take a larger tile"),
    ],
)
def test_features_that_would_become_too_small_are_refused(network: str, tile: int, batch_size: int, text: str) -> None:
    recipe = make_recipe(
        network=NetworkSpec(architecture=network, encoder="resnet18"), tile=tile, batch_size=batch_size
    )
    with pytest.raises(TrainingError, match=text):
        check_devices(recipe, device="cpu", devices=1, num_workers=0)


def test_augmentations_are_checked_by_the_layers_that_are_stored() -> None:
    ndvi, red = (InputLayer.from_range(name, -1, 1, clip=False) for name in ("ndvi", "red"))
    blur = AugmentationSpec(name="Blur")
    check_recipe(make_recipe(inputs=(ndvi,), augmentations=(blur, replace(blur, options={"layers": ["red"]}))))
    with pytest.raises(TrainingError, match="Blur is to change layer 'ndvi', which is not read"):
        check_recipe(make_recipe(inputs=(ndvi, red), augmentations=(replace(blur, options={"layers": ["ndvi"]}),)))
