import datetime as dt
import fractions
import io
import pickle

import pytest
import torch
import yaml

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.checkpoints import read_checkpoint
from rtsx.model.smp import build_network

TEN = (
    *("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"),
    *("tc_brightness", "tc_greenness", "tc_wetness"),
)
SOURCES = {
    10: ["tcvis", "slope", "planet", "relative_elevation", "ndvi"],
    7: ["slope", "planet", "relative_elevation", "ndvi"],
}
_networks = {}


def network(n_layers, encoder="mobilenet_v2", architecture="UnetPlusPlus"):
    key = (n_layers, encoder, architecture)
    if key not in _networks:
        torch.manual_seed(n_layers)
        options = {"encoder_name": encoder, "in_channels": n_layers, "classes": 1}
        _networks[key] = build_network(architecture, options)
    return _networks[key]


def small():
    return network(7, "mobilenet_v2", "Unet")


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read(content, *, config=None, trust=False, stated=None):
    data = content if isinstance(content, bytes) else saved(content)
    return read_checkpoint(data, name="weights.pt", read_run_config=lambda: config, stated=stated or {}, trust=trust)


def run_config(n_layers, encoder="mobilenet_v2", architecture="UnetPlusPlus"):
    model = {
        "architecture": architecture,
        "encoder": encoder,
        "encoder_weights": "imagenet",
        "input_channels": n_layers,
    }
    return yaml.safe_dump({"model": model, "data_sources": SOURCES[n_layers]}).encode()


def darts_model(n_layers, encoder="mobilenet_v2", arch="UnetPlusPlus"):
    return {
        "arch": arch,
        "encoder_name": encoder,
        "encoder_weights": "imagenet",
        "in_channels": n_layers,
        "classes": 1,
    }


def as_state_dict(net, n_layers, prefix=""):
    return {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}


def as_legacy(net, n_layers, **config):
    model = darts_model(n_layers, *_names(net))
    named = config or {"input_combination": list(TEN[:n_layers]), "norm_factors": {"ndvi": 1e-4}, "patch_size": 1024}
    return {"config": {"model": model, "model_framework": "smp", **named}, "statedict": net.state_dict()}


def as_converted(net, n_layers):
    return as_legacy(net, n_layers, bands=list(TEN[:n_layers]))


def as_lightning(net, n_layers):
    state = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    return {
        "state_dict": {**state, "train_metrics.count": torch.zeros(1)},
        "hyper_parameters": {
            "config": {"model": darts_model(n_layers, *_names(net)), "bands": list(TEN[:n_layers])},
            "datetime": dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
        },
        "epoch": 3,
    }


def _names(net):
    return ("mobilenet_v2", "Unet") if net is small() else ("mobilenet_v2", "UnetPlusPlus")


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [7, 10])
def test_the_four_formats_give_the_same_bits(n_layers):
    net = network(n_layers)
    tile = torch.rand(1, n_layers, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(tile)
    config = run_config(n_layers)
    checkpoints = [
        *(read(as_state_dict(net, n_layers, p), config=config) for p in ("", "module.", "_orig_mod.module.")),
        read(as_legacy(net, n_layers)),
        read(as_converted(net, n_layers)),
        read(as_lightning(net, n_layers)),
    ]
    for checkpoint in checkpoints:
        assert checkpoint.source.architecture == "UnetPlusPlus/mobilenet_v2"
        assert checkpoint.metadata.layers == TEN[:n_layers]
        assert (checkpoint.metadata.tile, checkpoint.metadata.overlap, checkpoint.metadata.stride) == (1024, 256, 32)
        with torch.no_grad():
            assert torch.equal(checkpoint.source.load_module()(tile), expected)
    assert len({checkpoint.source.digest for checkpoint in checkpoints}) == 1


@pytest.mark.parametrize(
    ("content", "preset"),
    [
        (lambda: as_legacy(small(), 7), "tss-v1"),
        (lambda: as_legacy(small(), 7, bands=list(TEN[:7]), norm_factors={}), "tss-v1"),
        (lambda: as_legacy(small(), 7, bands={"bands": list(TEN[:7])}), "darts-v2"),
        (lambda: as_lightning(small(), 7), "darts-v2"),
    ],
)
def test_the_preset_follows_from_who_writes_such_files(content, preset):
    checkpoint = read(content())
    assert checkpoint.metadata.preset == preset
    assert checkpoint.metadata.layers == TEN[:7]
    assert checkpoint.metadata.classes == ("thaw_slump",)


def test_a_run_s_sources_are_stacked_by_name():
    checkpoint = read(as_state_dict(small(), 7), config=run_config(7, "mobilenet_v2", "Unet"))
    assert checkpoint.metadata.layers == TEN[:7]
    assert checkpoint.metadata.preset == "tss-v1"


def test_the_patch_size_is_the_tile():
    checkpoint = read(as_legacy(small(), 7, bands=list(TEN[:7]), patch_size=512))
    assert (checkpoint.metadata.tile, checkpoint.metadata.overlap) == (512, 128)


def test_an_activation_inside_of_the_network_is_not_applied_again():
    content = as_converted(small(), 7)
    content["config"]["model"]["activation"] = "sigmoid"
    checkpoint = read(content)
    assert checkpoint.metadata.activation == "none"
    assert read(as_converted(small(), 7)).metadata.activation is None
    tile = torch.rand(1, 7, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.source.load_module()(tile), small()(tile).sigmoid())


def test_a_bare_state_dict_needs_its_run_or_two_words():
    state = as_state_dict(small(), 7)
    with pytest.raises(
        BundleError,
        match=r"no config.yml lies in the folder .*say it, such as ModelBundle.open\('weights.pt', architecture='Unet'",
    ):
        read(state)
    checkpoint = read(state, stated={"architecture": "Unet", "encoder": "mobilenet_v2"})
    assert checkpoint.source.n_channels == 7
    assert (checkpoint.metadata.preset, checkpoint.metadata.tile) == (None, None)


NAMED = {"architecture": "Unet", "encoder": "mobilenet_v2"}
BESIDE = {"criterion.pos_weight": torch.ones(1), "train_metrics.count": torch.zeros(1)}
TORCHGEO = {"model": "unet", "backbone": "mobilenet_v2", "weights": None, "in_channels": 3, "loss": "ce"}


def prefixed(prefix):
    return {f"{prefix}{name}": tensor for name, tensor in small().state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        *(
            {"state_dict": {**BESIDE, **prefixed(prefix)}, "hyper_parameters": {}, "epoch": 3}
            for prefix in ("", "model.", "net.", "module.", "network.", "model._orig_mod.", "_orig_mod.model.", "a.module.b.")
        ),
        {"state_dict": prefixed("model."), "hyper_parameters": {"config": {"model": {"name": "unet"}}}},
        {"state_dict": {f"model.{n}": t for n, t in prefixed("").items()} | {"model.classification_head.1.weight": torch.ones(2)}},
        {"state_dict": {name.replace("encoder.", "encoder._orig_mod."): one for name, one in prefixed("model.").items()}},
        {"model_state_dict": prefixed(""), "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 1},
        {"model": prefixed("module."), "optimizer": {}, "args": {"lr": 1e-3}},
        {"checkpoint": {"weights": prefixed("net.")}},
        prefixed("model."),
        {**prefixed("model."), **BESIDE},
        {"state_dict": prefixed("model."), "current_model_state": prefixed("model."), "averaging_state": {"n": 1}},
    ],
)  # fmt: skip
def test_a_checkpoint_of_any_training_gives_its_network(content):
    checkpoint = read(content, stated=NAMED)
    expected = small().state_dict()
    assert list(checkpoint.source.state) == list(expected)
    assert all(torch.equal(one, expected[name]) for name, one in checkpoint.source.state.items())
    # Nobody has said how its layers are scaled.
    metadata = checkpoint.metadata
    assert (metadata.preset, metadata.layers, metadata.classes, metadata.tile) == (None, None, None, None)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("DeepLabV3Plus", {"encoder_output_stride": 8}),
        ("DeepLabV3Plus", {"decoder_atrous_rates": [6, 12, 18]}),
        ("Unet", {"decoder_attention_type": "scse"}),
        ("Unet", {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]}),
        ("FPN", {"decoder_merge_policy": "cat"}),
    ],
)
def test_hyperparameters_of_the_network_count(architecture, options):
    trained = build_network(architecture, {"encoder_name": "resnet18", "classes": 2, **options})
    said = {
        "arch": architecture,
        "encoder_name": "resnet18",
        "out_classes": 2,
        "lr": 1e-3,
        "activation": "sigmoid",
        **options,
    }
    weights = {f"model.{name}": one for name, one in trained.state_dict().items()}
    opened = read({"state_dict": weights, "hyper_parameters": said}).source
    tiles = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(opened.load_module()(tiles), trained(tiles))


@pytest.mark.parametrize(
    ("beside", "stated"),
    [
        ({"mean": torch.full((1, 3, 1, 1), 0.485), "std": torch.ones(3)}, r"mean \(0.485, 0.485, 0.485\), std \(1, 1, 1\)"),
        ({"model.mean": torch.ones(1)}, r"model.mean \(1\)"),
        ({"norm.weight": torch.ones(64)}, r"norm.weight\. Where"),
        ({"head.weight": torch.ones(1, 1, 1, 1)}, r"head.weight \(1\)"),
    ],
)  # fmt: skip
def test_what_stands_beside_the_network_is_said(beside, stated):
    with pytest.warns(UserWarning, match=rf"more than its network, which is left out: {stated}"):
        read({"state_dict": {**prefixed("model."), **beside, **BESIDE}}, stated=NAMED)


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: {"model": one, "epoch": 3}])
def test_a_network_that_was_saved_whole(wrap):
    checkpoint = read(wrap(small()), trust=True)
    assert checkpoint.source.architecture == "Unet/mobilenet_v2"
    assert checkpoint.metadata.stride == 32
    assert read(wrap(torch.nn.Conv2d(3, 1, 1)), trust=True).source.architecture == "Conv2d"
    with pytest.raises(UntrustedModelError, match="pass trust=True"):
        read(wrap(small()))
    with pytest.raises(BundleError, match="holds its network whole"):
        read(wrap(small()), trust=True, stated=NAMED)


def test_hyperparameters_name_the_network():
    checkpoint = read({"state_dict": prefixed("model."), "hyper_parameters": TORCHGEO})
    assert (checkpoint.source.architecture, checkpoint.source.n_channels) == ("Unet/mobilenet_v2", 7)
    with pytest.raises(
        BundleError,
        match=r"does not say what its network is.*such as ModelBundle.open\(.weights.pt., architecture=.Unet., encoder=.resnet34., layers=",
    ):
        read({"state_dict": prefixed("model."), "hyper_parameters": {"model": "unet"}})
    with pytest.raises(BundleError, match=r"overlap=64, trust=True\)\."):
        read({"state_dict": prefixed("model.")}, trust=True)


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (lambda old, new: {"state_dict": {**old("model."), **new("ema_model.module.")}}, "state_dict.ema_model.module."),
        (lambda old, new: {"state_dict": {**old("model."), **new("ema.module."), "ema.n_averaged": torch.ones(1)}}, "ema"),
        (lambda old, new: {"state_dict": old(""), "state_dict_ema": new("")}, "state_dict_ema"),
        (lambda old, new: {"state_dict": old("model."), "callbacks": {"EMACallback": {"weights": new("")}}}, "EMACallback"),
    ],
)  # fmt: skip
def test_averaged_weights_are_taken_and_named(content, taken):
    def changed(prefix):
        return {name: one * 0.5 if one.is_floating_point() else one for name, one in prefixed(prefix).items()}

    with pytest.warns(UserWarning, match=rf"holds 2 networks.*the averaged one, '.*{taken}"):
        checkpoint = read(content(prefixed, changed), stated=NAMED)
    name = "segmentation_head.0.weight"
    assert torch.equal(checkpoint.source.state[name], small().state_dict()[name] * 0.5)
    assert taken.rstrip(".") in str(checkpoint.metadata.provenance)


def test_one_of_several_networks_has_to_be_chosen():
    both = {"state_dict": {**prefixed("student."), **prefixed("semantic_teacher.")}}
    with pytest.raises(BundleError, match=r"'state_dict.student.' and 'state_dict.semantic_teacher.'.*torch.save\("):
        read(both, stated=NAMED)


class Payload:
    def __reduce__(self):
        return fractions.Fraction, (1, 2)


def test_more_than_tensors_is_refused_unless_trusted():
    content = {**as_legacy(small(), 7), "extra": Payload()}
    with pytest.raises(UntrustedModelError, match=r"it needs fractions.Fraction.*pass trust=True"):
        read(content)
    assert read(content, trust=True).metadata.preset == "tss-v1"
    with pytest.raises(UntrustedModelError, match=r"can run code"):
        read(pickle.dumps({"a": Payload()}, protocol=2))


def test_code_that_is_not_installed_is_named():
    data = saved({"a": Payload()}).replace(b"fractions\nFraction", b"nowhere__\nFraction")
    with pytest.raises(BundleError, match=r"refers to code that is not installed here: No module named 'nowhere__'"):
        read(data, trust=True)


@pytest.mark.parametrize("end", [10, 3000, -5])
def test_truncated_files_are_refused(end):
    with pytest.raises(BundleError, match=r"The checkpoint cannot be read: .*copy it again"):
        read(saved(as_legacy(small(), 7))[:end])


def test_other_files_are_refused():
    with pytest.raises(BundleError, match=r"neither a zip archive nor a pickle"):
        read(b"<html>404</html>")
    with pytest.raises(BundleError, match=r"No checkpoint that is known: it holds \['optimizer', 'weights'\]"):
        read({"weights": torch.zeros(1), "optimizer": {}})
    with pytest.raises(BundleError, match=r"holds a list instead of weights by name"):
        read([torch.zeros(1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "Unit"}, r"got 'Unit'. Did you mean 'Unet'\?"),
        ({"arch": None}, "does not name its architecture"),
        ({"encoder_name": "resnet19"}, "cannot be built with"),
        ({"in_channels": 10}, "tensors have another shape, such as encoder.features"),
        ({"dropout": 1}, r"has no options \['dropout'\]"),
    ],
)
def test_a_wrong_description_is_refused(change, message):
    content = as_converted(small(), 7)
    content["config"]["model"].update(change)
    content["config"]["model"] = {k: v for k, v in content["config"]["model"].items() if v is not None}
    with pytest.raises(BundleError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (list(TEN), "names 10 layers .* but its network takes 7 channels. Pass layers="),
        (["ndvi", "swir"], "Unknown layer 'swir'"),
        ("ndvi", "names its layers in a way that is not known"),
    ],
)
def test_wrong_layers_are_refused(bands, message):
    with pytest.raises(BundleError, match=message):
        read(as_legacy(small(), 7, bands=bands))


def test_a_broken_run_config_is_refused():
    with pytest.raises(BundleError, match=r"config.yml cannot be read"):
        read(as_state_dict(small(), 7), config=b"model: [")
    # Nine aliases a line, which stand for billions of values, and what PyYAML stumbles over: found before it fills the memory.
    bomb = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    for text in (
        f"{bomb}model: *a11",
        "model: 2024-13-45",
        "model: !!int abc",
        "model: " + "[" * 5000,
        "a: &a [*a]",
        "a\0",
    ):
        with pytest.raises(BundleError, match=r"config.yml cannot be read"):
            read(as_state_dict(small(), 7), config=text.encode())
    with pytest.raises(BundleError, match=r"has no model in config.yml"):
        read(as_state_dict(small(), 7), config=b"other: 1")


@pytest.mark.parametrize("write", [as_legacy, as_lightning, as_state_dict])
def test_the_caller_s_architecture_counts_more_than_the_file_s(write):
    content, config = write(small(), 7), run_config(7)  # the run's config says UnetPlusPlus/mobilenet_v2
    stated = {"architecture": "Unet", "encoder": "mobilenet_v2"}
    assert read(content, config=config, stated=stated).source.architecture == "Unet/mobilenet_v2"
    with pytest.raises(BundleError, match=r"weights do not fit Unet"):
        read(content, config=config, stated={**stated, "encoder": "resnet18"})
