import pytest
import torch

from rtsx.errors import BundleError
from rtsx.model.inputs import PRESETS, Packing, prepare, preset_named

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
