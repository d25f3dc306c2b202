import pytest

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Metadata


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
        merged.require(described="net.onnx")


def test_everything_missing_is_named_at_once_with_an_example():
    with pytest.raises(
        BundleError,
        match=r"net.onnx does not say its layers, mean, std, classes, tile, overlap. .*such as ModelBundle.open\(",
    ):
        Metadata().require(described="net.onnx")
    with pytest.raises(BundleError, match=r"does not say its std, overlap"):
        Metadata(layers=("red",), mean=(0.1,), classes=("a",), tile=64).require(described="net.onnx")


def test_lengths_have_to_agree():
    with pytest.raises(BundleError, match=r"layers, mean and std have to be of one length; got 2, 1 and 2"):
        Metadata(layers=("red", "nir"), mean=(1.0,), std=(1.0, 1.0)).scaled()
