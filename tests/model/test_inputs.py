import numpy as np
import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.inputs import (
    InputLayer,
    Packing,
    derived_ndvi_is_defined,
    prepare,
    required_layers,
    valid_pixels,
)


@pytest.mark.parametrize(("scale", "offset"), [(0, 0), (float("nan"), 0), (1, float("inf"))])
def test_numbers_that_spoil_a_channel_are_refused(scale, offset):
    with pytest.raises(BundleError, match=r"'red' needs a finite, non-zero scale"):
        InputLayer(name="red", scale=scale, offset=offset)


def test_impossible_ranges_and_deviations_are_refused():
    with pytest.raises(BundleError, match=r"needs a name"):
        InputLayer(name="")
    with pytest.raises(BundleError, match=r"clip=\(low, high\) with low < high"):
        InputLayer(name="red", clip=(1, 0))
    with pytest.raises(BundleError, match=r"deviation of layer 'red' has to be above 0; got 0"):
        InputLayer.from_statistics("red", mean=1, std=0)
    with pytest.raises(BundleError, match=r"range of layer 'red' has to be"):
        InputLayer.from_range("red", 1, 1, clip=True)


def test_packing_and_scaling_fold_into_one_step():
    layer = InputLayer.from_range("red", -0.1, 0.5, clip=False)
    packing = Packing(scale_factor=1e-4, add_offset=-0.1)
    stored = {"red": torch.tensor([[0, 1234, 10000]], dtype=torch.int32)}
    answer = prepare(stored, torch.ones(1, 3, dtype=torch.bool), inputs=[layer], packings={"red": packing}, fill=0.0)
    physical = np.array([0, 1234, 10000]) * 1e-4 - 0.1
    np.testing.assert_allclose(answer[0, 0].numpy(), (physical + 0.1) / 0.6, rtol=1e-5, atol=1e-6)


def test_fill_stands_in_every_channel_after_clipping():
    inputs = [InputLayer(name="red", clip=(0, 1)), InputLayer(name="nir")]
    stored = {"red": torch.tensor([[5.0, 5.0]]), "nir": torch.tensor([[5.0, float("nan")]])}
    valid = torch.tensor([[True, False]])
    answer = prepare(stored, valid, inputs=inputs, packings=dict.fromkeys(stored, Packing()), fill=-1.0)
    assert answer.tolist() == [[[1.0, -1.0]], [[5.0, -1.0]]]


def test_what_hides_under_the_mask_changes_nothing():
    inputs = [InputLayer(name="red"), InputLayer(name="ndvi")]
    valid = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    red, nir = torch.rand(8, 8) + 1, torch.rand(8, 8) + 1
    packings = {"red": Packing(), "nir": Packing()}
    clean = prepare({"red": red, "nir": nir}, valid, inputs=inputs, packings=packings, fill=0.0)
    dirty = {"red": red.masked_fill(~valid, float("nan")), "nir": nir.masked_fill(~valid, -1e9)}
    assert torch.equal(prepare(dirty, valid, inputs=inputs, packings=packings, fill=0.0), clean)


def test_ndvi_is_derived_only_where_the_cube_lacks_it():
    inputs = [InputLayer(name="ndvi"), InputLayer(name="red")]
    assert required_layers(inputs, ["red", "nir"]) == ("red", "nir")
    assert required_layers(inputs, ["red", "nir", "ndvi"]) == ("ndvi", "red")


def test_missing_layers_are_all_named():
    inputs = [InputLayer(name="ndvi"), InputLayer(name="slope"), InputLayer(name="dem")]
    with pytest.raises(BundleError, match=r"missing \['dem', 'nir', 'slope'\]. Add them to the cube"):
        required_layers(inputs, ["red", "blue"])


def test_a_pixel_is_valid_where_every_layer_is():
    stored = {
        "red": np.array([[0, 1, 1, 1]], np.uint16),
        "dem": np.array([[1, np.nan, -9999, 1]], np.float32),
        "tc_wetness": np.array([[0, 0, 0, 0]], np.uint8),
    }
    packings = {"red": Packing(nodata=0), "dem": Packing(nodata=-9999), "tc_wetness": Packing()}
    assert valid_pixels(stored, packings=packings, mask=None).tolist() == [[False, False, False, True]]
    assert not valid_pixels(stored, packings=packings, mask=np.zeros((1, 4), bool)).any()


def test_ndvi_of_a_dark_pixel_is_undefined():
    stored = {"red": np.array([[0, 1000]], np.uint16), "nir": np.array([[0, 0]], np.uint16)}
    assert derived_ndvi_is_defined(stored, packings=dict.fromkeys(stored, Packing(scale_factor=1e-4))).tolist() == [
        [False, True]
    ]
