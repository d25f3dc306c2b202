import socket

import pytest
import segmentation_models_pytorch
import torch

from rtsx.errors import BundleError
from rtsx.model.smp import ARCHITECTURES, SmpSource, build_network, meta_network, network_class, total_stride

OPTIONS = {"encoder_name": "resnet18", "in_channels": 3, "classes": 1}


def tiles(channels=3, side=64):
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "DPT"])
def test_every_architecture_builds_with_any_number_of_channels(architecture):
    network = build_network(architecture, {"encoder_name": "resnet18", "in_channels": 7, "classes": 2})
    assert not network.training
    side = 128  # the least that PAN takes
    with torch.no_grad():
        assert network(tiles(7, side)).shape == (1, 2, side, side)


def test_the_field_s_network_has_its_number_of_parameters():
    network = build_network("UnetPlusPlus", {"encoder_name": "resnet34", "in_channels": 10, "classes": 1})
    assert sum(part.numel() for part in network.parameters()) == 26_100_561


@pytest.mark.parametrize(("architecture", "stride"), [("Unet", 32), ("DeepLabV3", 8), ("DeepLabV3Plus", 16)])
def test_the_stride_follows_depth_and_dilation(architecture, stride):
    assert total_stride(build_network(architecture, OPTIONS)) == stride
    assert total_stride(build_network("Unet", {**OPTIONS, "encoder_depth": 3, "decoder_channels": [64, 32, 16]})) == 8


def test_a_skeleton_is_made_once_and_tells_networks_apart():
    one = meta_network("Unet", OPTIONS)
    assert meta_network("Unet", dict(reversed(OPTIONS.items()))) is one
    assert all(part.is_meta for part in one.parameters())
    assert repr(one) == repr(build_network("Unet", OPTIONS))
    for other in ({**OPTIONS, "classes": 2}, {**OPTIONS, "decoder_channels": [64, 32, 16, 16, 8]}):
        assert repr(meta_network("Unet", other)) == repr(build_network("Unet", other)) != repr(one)


def test_names_are_understood_in_any_spelling():
    assert type(build_network("unet++".replace("++", "plusplus"), OPTIONS)).__name__ == "UnetPlusPlus"
    assert type(build_network("manet", OPTIONS)).__name__ == "MAnet"


@pytest.mark.parametrize("name", ["Unet++", "unet_plus_plus", "UNETPLUSPLUS"])
def test_any_spelling_names_the_library_s_class(name):
    """Pretrained encoders were asked for by the class of another reading of names, which knew no `unet++`."""
    assert network_class(name) is segmentation_models_pytorch.UnetPlusPlus


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(BundleError, match=r"got 'Unett'. Did you mean 'Unet'\?.*from_module"):
        build_network("Unett", OPTIONS)
    with pytest.raises(
        BundleError, match=r"Unet cannot be built with the encoder .resnet19.: the installed libraries have none"
    ):
        build_network("Unet", {**OPTIONS, "encoder_name": "resnet19"})
    with pytest.raises(BundleError, match=r"Unet has no options \['dropout'\]"):
        build_network("Unet", {**OPTIONS, "dropout": 0.1})


@pytest.mark.parametrize(
    "encoder",
    [
        *(
            "tu-hf-hub:attacker/evil",
            "tu-hf_hub:attacker/evil",
            "tu-local-dir:/etc",
            "timm-regnet:x",
            "tu-timm/resnet18",
        ),
        *("timm-resnest/../x", "hf-hub:a/b", "/etc", "../x", "tu-resnet18@main", "", None, 5, ["resnet18"]),
    ],
)
def test_an_encoder_comes_from_the_installed_libraries_only(encoder, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(BundleError, match="nothing is fetched from elsewhere"):
        build_network("Unet", {**OPTIONS, "encoder_name": encoder})


def test_encoders_of_timm_are_known_by_name_and_tag():
    for name in ("tu-resnet18", "tu-resnet18.a1_in1k"):
        assert meta_network("Unet", {**OPTIONS, "encoder_name": name}).encoder.name == name.removeprefix("tu-")


@pytest.mark.parametrize(
    "option", ["kwargs", "pretrained_cfg", "checkpoint_path", "cache_dir", "pretrained", "weights"]
)
def test_no_option_reaches_the_encoder_s_own_library(option):
    with pytest.raises(BundleError, match=rf"Unet has no options \['{option}'\]"):
        build_network("Unet", {**OPTIONS, "encoder_name": "tu-resnet18", option: "/etc/passwd"})


@pytest.mark.parametrize("option", ["in_channels", "classes"])
@pytest.mark.parametrize("number", [0, -1, 5000, 10**9, 2.0, "2", True, None])
def test_channels_have_a_measure(option, number):
    with pytest.raises(BundleError, match=rf"{option} of Unet is a number from 1 to 4,096; got"):
        build_network("Unet", {**OPTIONS, option: number})


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilevitv2_050"])
def test_a_network_too_large_is_refused_before_it_is_built(encoder):
    wide = {**OPTIONS, "encoder_name": encoder, "decoder_channels": [10**5] * 5}
    with pytest.raises(BundleError, match=r"would have [\d,]+ parameters; 2,000,000,000 are the limit"):
        meta_network("Unet", wide)


def test_a_few_stored_numbers_do_not_become_gigabytes():
    wide = {**OPTIONS, "decoder_channels": [4096, 2048, 1024, 512, 256]}
    few = {
        name: torch.zeros((), dtype=one.dtype).expand(one.shape)
        for name, one in meta_network("Unet", wide).state_dict().items()
    }
    with pytest.raises(BundleError, match=r"weights take [\d,]{11,} bytes, of which [\d,]+ are stored; four times"):
        SmpSource.from_state("Unet", wide, state=few)
    one = torch.zeros(512, 512, 3, 3)
    with pytest.raises(BundleError, match="four times"):  # one storage under many names
        SmpSource.from_state("Unet", OPTIONS, state={str(number): one for number in range(5)})
    for odd in (torch.zeros(3, 3).to_sparse(), [1.0], None):
        with pytest.raises(BundleError, match="The weight 'a' is no dense tensor"):
            SmpSource.from_state("Unet", OPTIONS, state={"a": odd})


def test_weights_survive_bytes_bit_by_bit():
    source = SmpSource.from_network(build_network("Unet", OPTIONS))
    artifact = source.artifact(n_layers=3, tile=64, stride=32)
    again = SmpSource.from_bytes(artifact.data, artifact.options)
    assert again.digest == source.digest
    assert again.architecture == "Unet/resnet18"
    with torch.no_grad():
        assert torch.equal(again.load_module()(tiles()), source.load_module()(tiles()))


def test_loaded_modules_belong_to_the_caller():
    source = SmpSource.from_network(build_network("Unet", OPTIONS))
    module = source.load_module()
    before = source.digest
    for part in module.parameters():
        part.data.zero_()
    assert SmpSource(architecture_name="Unet", options=source.options, state=source.state).digest == before


def test_digest_knows_weights_and_architecture():
    network = build_network("Unet", OPTIONS)
    one = SmpSource.from_network(network).digest
    network.segmentation_head[0].bias.data += 1
    assert SmpSource.from_network(network).digest != one


def test_a_network_changed_by_hand_is_no_network_of_the_library():
    network = build_network("Unet", OPTIONS)
    network.segmentation_head[0] = torch.nn.Conv2d(16, 1, 1)
    assert SmpSource.from_network(network) is None
    assert SmpSource.from_network(torch.nn.Conv2d(3, 1, 1)) is None


def test_weights_that_do_not_fit_are_refused():
    state = build_network("Unet", OPTIONS).state_dict()
    with pytest.raises(BundleError, match=r"do not fit Unet: \d+ tensors have another shape, such as encoder.conv1"):
        SmpSource.from_state("Unet", {**OPTIONS, "in_channels": 4}, state=state)
    with pytest.raises(BundleError, match=r"do not fit Unet: \d+ of \d+ tensors are missing"):
        SmpSource.from_state("Unet", {**OPTIONS, "encoder_name": "resnet34"}, state=state)


def test_a_truncated_file_is_refused():
    artifact = SmpSource.from_network(build_network("Unet", OPTIONS)).artifact(n_layers=3, tile=64, stride=32)
    with pytest.raises(BundleError, match=r"weights.safetensors cannot be read: .* truncated or damaged"):
        SmpSource.from_bytes(artifact.data[:-100], artifact.options)


@pytest.mark.parametrize("layout", ["up to 0.4", "0.5"])
def test_deeplab_decoders_of_older_releases_load(layout):
    network = segmentation_models_pytorch.DeepLabV3("resnet18", encoder_weights=None).eval()
    parts = {"decoder.aspp.": "0.", "decoder.conv.": "1.", "decoder.bn.": "2."}
    prefix = "decoder." if layout == "up to 0.4" else "decoder.aspp."

    def old(name):
        for new, number in parts.items():
            if name.startswith(new):
                return prefix + number + name.removeprefix(new)
        return name

    state = {old(name): tensor for name, tensor in network.state_dict().items()}
    assert state.keys() != network.state_dict().keys()
    source = SmpSource.from_state("DeepLabV3", OPTIONS, state=state)
    with torch.no_grad():
        assert torch.equal(source.load_module()(tiles()), network(tiles()))


def test_it_has_no_onnx_file():
    with pytest.raises(BundleError, match=r"Unet/resnet18 is a torch network and has no ONNX file. Run it with"):
        SmpSource.from_network(build_network("Unet", OPTIONS)).onnx_path()


def test_averages_of_weights_need_no_count_of_batches():
    options = {"encoder_name": "resnet18", "in_channels": 3, "classes": 1}
    state = build_network("Unet", options).state_dict()
    kept = {name: one for name, one in state.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    assert (
        SmpSource.from_state("Unet", options, state=kept).digest
        == SmpSource.from_state("Unet", options, state=state).digest
    )
