from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import segmentation_models_pytorch
import torch

from rtsx.errors import TrainingError
from rtsx.training import NetworkSpec
from rtsx.training.networks import (
    check_encoder_weights,
    check_step,
    fit_first_convolution,
    new_network,
    output_classes,
    stride_of,
)

OPTIONS = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def make_spec(weights: str | None = None, **changes: Any) -> NetworkSpec:
    return NetworkSpec(
        **({"architecture": "Unet", "encoder": "resnet18", "options": OPTIONS, "encoder_weights": weights} | changes)
    )


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    """An encoder of three layers whose numbers are told from random ones."""
    network = new_network(make_spec(), layers=3, classes=1, seed=7)
    return network.encoder  # type: ignore[no-any-return, return-value]


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", ["bare.pth", "wrapped.pt", "plain.safetensors"])
def test_a_file_is_read_and_its_first_convolution_fitted(
    tmp_path: Path, trained: torch.nn.Module, name, layers
) -> None:
    state = trained.state_dict()
    path = tmp_path / name
    if name == "bare.pth":
        torch.save({**state, "fc.weight": torch.zeros(2)}, path)
    elif name == "wrapped.pt":
        torch.save({"state_dict": {f"model.encoder.{key}": value for key, value in state.items()}}, path)
    else:
        safetensors.torch.save_file(state, path)
    encoder = new_network(make_spec(str(path)), layers=layers, classes=1, seed=0).encoder
    assert torch.equal(encoder.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)
    first = trained.conv1.weight
    expected = torch.stack([first[:, number % 3] for number in range(layers)], 1) * 3 / layers
    torch.testing.assert_close(encoder.conv1.weight, expected if layers > 1 else first.sum(1, keepdim=True))


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_fitting_is_the_rule_of_the_library(layers: int) -> None:
    from segmentation_models_pytorch.encoders._utils import patch_first_conv

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    weight = module[0].weight.detach().clone()
    patch_first_conv(module, layers)
    fitted = fit_first_convolution(weight, (4, layers, 3, 3))
    torch.testing.assert_close(fitted, module[0].weight)


def test_downloads_go_through_the_library(monkeypatch: pytest.MonkeyPatch, trained: torch.nn.Module) -> None:
    asked: dict[str, Any] = {}
    constructor = segmentation_models_pytorch.Unet

    def offline(**options: Any) -> torch.nn.Module:
        asked.update(options)
        network = constructor(**{**options, "encoder_weights": None})
        network.encoder.load_state_dict(trained.state_dict())
        return network

    spec = make_spec("imagenet")
    monkeypatch.setattr("rtsx.training.networks.network_class", lambda name: offline)
    encoder = new_network(spec, layers=4, classes=1, seed=0).encoder
    assert (asked["encoder_weights"], asked["in_channels"]) == ("imagenet", 3)
    assert torch.equal(encoder.layer2[0].conv1.weight, trained.layer2[0].conv1.weight)
    torch.testing.assert_close(encoder.conv1.weight[:, 3], trained.conv1.weight[:, 0] * 0.75)


def test_a_download_that_does_not_exist_says_what_else_to_do() -> None:
    with pytest.raises(TrainingError, match=r"'imagnet' of the encoder 'resnet18' cannot be had.*give a file"):
        new_network(make_spec("imagnet"), layers=4, classes=1, seed=0)


def test_encoders_of_timm_know_one_download(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"'advprop' of the encoder 'tu-resnet18' cannot be had.*Known are imagenet"
    ):
        check_encoder_weights(make_spec("advprop", encoder="tu-resnet18"))
    check_encoder_weights(make_spec("imagenet", encoder="tu-resnet18"))
    check_encoder_weights(make_spec("swsl"))


@pytest.mark.parametrize(("model", "first"), [("resnet18", "conv1"), ("convnext_atto", "stem_0")])
def test_files_of_timm_are_read(tmp_path: Path, model: str, first: str) -> None:
    import timm

    published = timm.create_model(model).state_dict()
    torch.save(published, tmp_path / "published.pth")
    spec = make_spec(str(tmp_path / "published.pth"), encoder=f"tu-{model}", options={})
    found = new_network(spec, layers=4, classes=1, seed=0).encoder.state_dict()
    told = {name.removeprefix("model.").replace(".", "_"): tensor for name, tensor in found.items()}
    for name, tensor in published.items():
        if (flat := name.replace(".", "_")) in told and not flat.startswith(f"{first}_weight"):
            assert torch.equal(told[flat], tensor), name
    own, published_first = found[f"model.{first}.weight"], published[f"{first.replace('_', '.')}.weight"]
    assert torch.equal(own, fit_first_convolution(published_first, tuple(own.shape)))


def test_files_that_do_not_fit_are_refused(tmp_path: Path, trained: torch.nn.Module) -> None:
    state = trained.state_dict()
    with pytest.raises(TrainingError, match="there is no file"):
        new_network(make_spec(str(tmp_path / "none.pth")), layers=4, classes=1, seed=0)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(TrainingError, match="tensors are missing, such as"):
        new_network(make_spec(str(tmp_path / "other.pth")), layers=4, classes=1, seed=0)
    torch.save({**state, "bn1.weight": torch.zeros(5)}, tmp_path / "shape.pth")
    with pytest.raises(TrainingError, match=r"bn1.weight with \(5,\) instead of \(64,\)"):
        new_network(make_spec(str(tmp_path / "shape.pth")), layers=4, classes=1, seed=0)
    torch.save({"numbers": [1, 2]}, tmp_path / "list.pth")
    with pytest.raises(TrainingError, match="hold no state dict"):
        new_network(make_spec(str(tmp_path / "list.pth")), layers=4, classes=1, seed=0)
    torch.save(trained, tmp_path / "module.pth")
    with pytest.raises(TrainingError, match="could run code of their author"):
        new_network(make_spec(str(tmp_path / "module.pth")), layers=4, classes=1, seed=0)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        new_network(make_spec(str(tmp_path / "broken.safetensors")), layers=4, classes=1, seed=0)


def test_the_seed_decides_the_weights_and_nobody_else_notices() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (new_network(make_spec(), layers=2, classes=1, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    assert torch.equal(one["encoder.conv1.weight"], same["encoder.conv1.weight"])
    assert not torch.equal(one["encoder.conv1.weight"], other["encoder.conv1.weight"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"architecture": "Unett"}, "Did you mean 'Unet'"),
        ({"encoder": "resnet19"}, "Look for the encoder's name in"),
        ({"options": {"decoder_chanels": [1]}}, "decoder_chanels"),
        ({"options": {"activation": "sigmoid"}}, r"Options \['activation'\] of Unet are not free"),
    ],
)
def test_networks_that_do_not_exist_are_refused(changes, text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        stride_of(make_spec(**changes))


def test_the_stride_is_that_of_the_network() -> None:
    assert stride_of(make_spec()) == 8
    assert stride_of(NetworkSpec(architecture="deeplabv3", encoder="resnet18")) == 8


def test_encoders_that_read_numbers_while_they_are_built_are_looked_at_too() -> None:
    spec = NetworkSpec(architecture="Segformer", encoder="mit_b0")
    assert stride_of(spec) == 32
    check_step(spec, tile=64, tiles=1)
    with pytest.raises(TrainingError, match=r"PAN with mit_b0 cannot learn from 2 tiles of 64 px"):
        check_step(NetworkSpec(architecture="PAN", encoder="mit_b0"), tile=64, tiles=2)


def test_several_classes_get_a_background() -> None:
    assert output_classes(["a"]) == ("a",)
    assert output_classes(["a", "b"]) == ("background", "a", "b")
