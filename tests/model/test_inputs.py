""""""

import numpy as np
import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.inputs import (
    LAYER_NAMES,
    PRESETS,
    InputLayer,
    Packing,
    canonical_layers,
    derived_ndvi_is_defined,
    prepare,
    preset_named,
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
    with pytest.raises(
        BundleError, match=r"missing \['dem', 'nir', 'slope'\]. Where these are bands under other names"
    ):
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


REFLECTANCE = Packing(scale_factor=1e-4, nodata=0, is_declared=True)


def channel(preset, layer, stored, *, packing=None, valid=True):
    tensors = {layer: torch.tensor([[stored]])}
    return prepare(
        tensors,
        torch.tensor([[valid]]),
        inputs=PRESETS[preset].inputs_for([layer]),
        packings={layer: packing or Packing()},
        fill=PRESETS[preset].fill,
    ).item()


@pytest.mark.parametrize(
    ("layer", "stored", "packing", "expected"),
    [
        *((band, 3000, REFLECTANCE, 1.0) for band in ("blue", "green", "red", "nir")),
        ("red", 6000, REFLECTANCE, 2.0),  # not clipped
        ("ndvi", 0.0, None, 0.5),
        ("ndvi", 1.0, None, 1.0),
        ("relative_elevation", 0.0, None, 0.5),
        ("relative_elevation", 100.0, None, 1.5),  # not clipped
        ("slope", 45.0, None, 0.5),
        *((layer, 255, None, 1.0) for layer in ("tc_brightness", "tc_greenness", "tc_wetness")),
    ],
)
def test_golden_values_of_tss_v1(layer, stored, packing, expected):
    assert channel("tss-v1", layer, stored, packing=packing) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("layer", "stored", "packing", "expected"),
    [
        *((band, 2000, REFLECTANCE, 0.5) for band in ("blue", "green", "red", "nir")),
        ("red", 8000, REFLECTANCE, 1.0),  # clipped
        # Sentinel-2 from baseline 04.00: DN 1000 is reflectance 0.
        ("red", 1000, Packing(scale_factor=1e-4, add_offset=-0.1, is_declared=True), 1 / 6),
        ("ndvi", -1.0, None, 0.0),
        ("relative_elevation", -80.0, None, 0.0),
        ("slope", 90.0, None, 1.0),
        ("tc_wetness", 51, None, 0.2),
        ("aspect", 90.0, None, 0.25),
        ("hillshade", 0.3, None, 0.3),
        ("curvature", 0.0, None, 0.5),
        ("dem", 1450.0, None, 0.5),
    ],
)
def test_golden_values_of_darts_v2(layer, stored, packing, expected):
    assert channel("darts-v2", layer, stored, packing=packing) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("preset", "layer"), [(name, layer) for name in PRESETS for layer in PRESETS[name].scaling])
def test_a_masked_pixel_is_zero_in_every_layer(preset, layer):
    assert channel(preset, layer, 77.0, valid=False) == 0
    assert channel(preset, layer, float("nan"), valid=False) == 0


def test_ndvi_of_two_bands_meets_the_golden_value():
    tensors = {"red": torch.tensor([[1000]]), "nir": torch.tensor([[3000]])}
    packings = dict.fromkeys(tensors, REFLECTANCE)
    inputs = PRESETS["tss-v1"].inputs_for(["ndvi"])
    answer = prepare(tensors, torch.tensor([[True]]), inputs=inputs, packings=packings, fill=0.0)
    assert answer.item() == pytest.approx(0.75)  # ndvi 0.5


def test_optical_layers_insist_on_reflectance():
    for preset in PRESETS.values():
        assert {preset.scaling[band].units for band in ("blue", "green", "red", "nir")} == {"reflectance"}


def test_a_layer_without_scaling_is_refused():
    with pytest.raises(BundleError, match=r"'tss-v1' has no scaling for layers \['aspect'\].*pass inputs="):
        PRESETS["tss-v1"].inputs_for(["red", "aspect"])


def test_an_unknown_preset_is_refused():
    with pytest.raises(BundleError, match=r"one of \['darts-v2', 'tss-v1'\]; got 'v3'"):
        preset_named("v3")


def test_our_names_stay():
    assert canonical_layers(LAYER_NAMES) == LAYER_NAMES


def test_sources_of_the_predecessors_become_their_layers():
    assert canonical_layers(["ndvi", "planet", "relative_elevation", "slope", "tcvis"]) == (
        *("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"),
        *("tc_brightness", "tc_greenness", "tc_wetness"),
    )


def test_an_unknown_layer_is_refused_with_the_nearest_name():
    with pytest.raises(BundleError, match=r"Unknown layer 'slop'; .* Did you mean 'slope'\?.*pass layers="):
        canonical_layers(["slop"])


def test_a_layer_cannot_come_twice():
    with pytest.raises(BundleError, match=r"\['red'\] are named twice"):
        canonical_layers(["planetscope", "red"])
