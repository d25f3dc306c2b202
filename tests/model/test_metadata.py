""""""

import pytest

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Metadata, check_channels, check_tiles


def test_the_caller_overrides_what_the_file_says():
    merged = Metadata(tile=256, threshold=0.4).over(Metadata(tile=1024, overlap=256, threshold=0.5, id="net"))
    assert (merged.tile, merged.overlap, merged.threshold, merged.id) == (256, 256, 0.4, "net")


def test_statistics_replace_a_preset_as_a_whole():
    found = Metadata(layers=("red",), preset="tss-v1")
    scaled = Metadata(mean=(0.5,), std=(0.5,)).over(found).scaled()
    assert scaled.preset is None
    assert scaled.inputs == (InputLayer.from_statistics("red", mean=0.5, std=0.5),)


def test_a_preset_replaces_the_scaling_of_a_bundle():
    found = Metadata(inputs=(InputLayer(name="red", scale=7),))
    assert Metadata(preset="darts-v2").over(found).scaled().inputs[0].clip == (0.0, 1.0)


def test_explicit_inputs_stay():
    inputs = (InputLayer(name="red", scale=7),)
    assert Metadata(inputs=inputs).over(Metadata(layers=("nir",), preset="tss-v1")).scaled().inputs == inputs
    assert Metadata(tile=64).over(Metadata(inputs=inputs)).inputs == inputs


def test_layers_alone_do_not_inherit_another_network_s_scaling():
    merged = Metadata(layers=("nir",)).over(Metadata(inputs=(InputLayer(name="red", scale=7),))).scaled()
    with pytest.raises(BundleError, match=r"net.onnx does not say its mean, std, classes, tile, overlap"):
        merged.require(described="net.onnx", opener="ModelBundle.open('net.onnx'")


def test_everything_missing_is_named_at_once_with_an_example():
    with pytest.raises(
        BundleError,
        match=r"net.onnx does not say its layers, mean, std, classes, tile, overlap. .*such as ModelBundle.open\(",
    ):
        Metadata().require(described="net.onnx", opener="ModelBundle.open('net.onnx'")
    with pytest.raises(BundleError, match=r"does not say its std, overlap"):
        Metadata(layers=("red",), mean=(0.1,), classes=("a",), tile=64).require(
            described="net.onnx", opener="ModelBundle.open('net.onnx'"
        )


def test_lengths_have_to_agree():
    with pytest.raises(BundleError, match=r"layers, mean and std have to be of one length; got 2, 1 and 2"):
        Metadata(layers=("red", "nir"), mean=(1.0,), std=(1.0, 1.0)).scaled()


CHANNELS = {"layers": ("red",), "classes": ("lake",), "activation": "sigmoid", "threshold": 0.5}
TILES = {"tile": 64, "overlap": 32, "stride": 16, "trim": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, r"at least one input layer, and each once; got \[\]"),
        ({"layers": ("red", "red")}, r"each once; got \['red', 'red'\]"),
        ({"classes": ()}, r"at least one class"),
        ({"classes": ("a", "a")}, r"each with its own name"),
        ({"activation": "relu"}, r"activation has to be 'sigmoid', 'softmax' or 'none'; got 'relu'"),
        ({"activation": "softmax"}, r"softmax over the single class 'lake' is 1 everywhere"),
        ({"threshold": 50}, r"threshold has to be a probability in 0..1; got 50"),
    ],
)
def test_channels_that_cannot_be_are_refused(changes, message):
    check_channels(**CHANNELS)
    with pytest.raises(BundleError, match=message):
        check_channels(**{**CHANNELS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 0}, r"stride has to be at least 1 px; got 0"),
        (
            {"tile": 100, "stride": 32},
            r"multiple of the network's stride of 32 px; got 100. Pass tile=96, or the stride=",
        ),
        ({"tile": 0}, r"stride of 16 px; got 0. Pass tile=16"),
        ({"overlap": 64}, r"overlap has to be at least 0 and below the tile of 64 px; got 64"),
        ({"overlap": 20}, r"overlap has to be a multiple of the network's stride of 16 px, .* got 20. Pass overlap=32"),
        ({"trim": 17}, r"trim has to be between 0 and half the overlap of 32 px; got 17"),
        ({"trim": -1}, r"got -1"),
    ],
)
def test_tiles_that_cannot_be_are_refused(changes, message):
    check_tiles(**TILES)
    with pytest.raises(BundleError, match=message):
        check_tiles(**{**TILES, **changes})
