"""Layers whose values contradict what the bundle relies on."""

from typing import Any

import numpy as np
import pytest

from rtsx.errors import BundleError
from rtsx.inference.values import check_values
from rtsx.model.inputs import InputLayer, Packing
from rtsx.model.presets import PRESETS

RNG = np.random.default_rng(0)
DN = RNG.integers(100, 4000, (80, 90)).astype(np.uint16)
RED = PRESETS["darts-v2"].scaling["red"]
PLANET = Packing(scale_factor=1e-4, nodata=0, is_declared=True)


def check(layer: InputLayer, values: Any, packing: Packing) -> None:
    check_values({layer.name: values}, np.ones(values.shape, bool), inputs=[layer], packings={layer.name: packing})


@pytest.mark.parametrize("layer", [RED, InputLayer.from_statistics("red", mean=0.15, std=0.1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_that_is_scaled_twice_is_refused(layer: InputLayer, dtype: str) -> None:
    with pytest.raises(BundleError, match=r"'red' is scaled twice.*0\.0001.*pop\('scale_factor'\)"):
        check(layer, (DN * 1e-4).astype(dtype), PLANET)
    check(layer, (DN * 1e-4).astype(dtype), Packing())
    check(layer, DN, PLANET)
    check(layer, DN.astype(dtype), PLANET)
    check(layer, DN.astype(dtype) + 0.25, PLANET)  # resampled


def test_numbers_that_no_reflectance_has_are_refused() -> None:
    with pytest.raises(BundleError, match=r"'red' has values from .* allows.*scale_factor"):
        check(RED, DN.astype("float32"), Packing())


def test_an_index_of_unsigned_integers_that_wrapped_is_refused() -> None:
    nir, red = DN, DN[::-1]
    wrapped = (nir - red) / (nir + red)
    ndvi = PRESETS["darts-v2"].scaling["ndvi"]
    for layer in (ndvi, InputLayer.from_statistics("ndvi", mean=0.3, std=0.2)):
        for packing in (Packing(), PLANET):  # xarray keeps the packing of the bands
            with pytest.raises(BundleError, match=r"'ndvi' has values.*wrap around.*drop_vars.*derived"):
                check(layer, wrapped, packing)
        with pytest.raises(BundleError, match=r"'ndvi' is scaled twice"):
            check(layer, (nir.astype("float32") - red) / (nir.astype("float32") + red), PLANET)
        check(layer, (nir.astype("float32") - red) / (nir.astype("float32") + red), Packing())


@pytest.mark.parametrize(
    ("layer", "values", "packing"),
    [
        (
            PRESETS["darts-v2"].scaling["slope"],
            RNG.uniform(0, 300, (80, 90)).astype("float32"),
            Packing(scale_factor=0.1),
        ),
        (RED, RNG.uniform(0.5, 4, (80, 90)).astype("float32"), Packing(scale_factor=0.01)),  # dark water in percent
        (InputLayer.from_statistics("ndvi", mean=120, std=40), DN.astype("uint8"), Packing()),
        (InputLayer(name="ndvi"), DN.astype("float32"), Packing()),
        (InputLayer.from_statistics("red", mean=1500, std=800), DN.astype("float32") + 0.5, Packing()),
        (InputLayer(name="height"), RNG.uniform(0, 1, (80, 90)), PLANET),
        (RED, RNG.uniform(1, 5, (80, 90)), PLANET),  # clear water, resampled
        (RED, RNG.uniform(0, 1, (5, 6)), PLANET),  # a handful of pixels proves nothing
    ],
)
def test_what_is_merely_unusual_is_taken(layer: InputLayer, values: Any, packing: Packing) -> None:
    check(layer, values, packing)
