"""Layers whose unit or values contradict what the bundle relies on."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rtsx.errors import BundleError
from rtsx.model.inputs import PRESETS, InputLayer, Packing
from rtsx.model.values import check_units, check_values

RNG = np.random.default_rng(0)
DN = RNG.integers(100, 4000, (80, 90)).astype(np.uint16)
SCALED = (DN * 1e-4).astype("float32")
DARTS = PRESETS["darts-v2"].scaling
RED, NDVI, SLOPE, DEM = (DARTS[name] for name in ("red", "ndvi", "slope", "dem"))
LEARNT = InputLayer.from_statistics("red", mean=0.15, std=0.1)
NUMBERS = InputLayer.from_statistics("red", mean=1500, std=800)
PLANET = Packing(scale_factor=1e-4, nodata=0, is_declared=True)


def check(layer: InputLayer, values: Any, packing: Packing) -> dict[str, str]:
    return check_values(
        {layer.name: values}, np.ones(values.shape, bool), inputs=[layer], packings={layer.name: packing}
    )


def wrapped(dtype: str) -> Any:
    nir, red = (DN % 250).astype(dtype), (DN[::-1] % 250).astype(dtype)
    with np.errstate(all="ignore"):
        return (nir - red) / (nir + red)


@pytest.mark.parametrize("layer", [RED, LEARNT, NUMBERS, InputLayer(name="red")])
@pytest.mark.parametrize(
    "made", [lambda dn: (dn * 1e-4).astype("float32"), lambda dn: dn / 10000, lambda dn: (dn + 0.3) / 10000]
)
def test_a_layer_that_is_scaled_twice_is_refused(layer: InputLayer, made: Callable[[Any], Any]) -> None:
    with pytest.raises(BundleError, match=r"'red' is scaled twice.*0\.0001.*pop\('scale_factor'\)"):
        check(layer, made(DN), PLANET)


@pytest.mark.parametrize("layer", [RED, LEARNT])
@pytest.mark.parametrize(
    ("values", "packing"),
    [
        (SCALED, Packing()),
        (DN, PLANET),
        (DN.astype("float32"), PLANET),
        (DN.astype("float64") + 0.25, PLANET),  # resampled
        (np.where(DN > 3000, np.nan, DN), PLANET),  # masked
        (RNG.integers(7000, 14000, (80, 90)), PLANET),  # snow and clouds
        (np.where(DN > 3900, 40000, DN).astype("uint16"), PLANET),  # glint
        (np.where(DN > 2000, 65535, DN).astype("uint16"), PLANET),  # saturated
        (RNG.uniform(-0.03, 0.01, (80, 90)), Packing()),  # water after atmospheric correction
        (np.full((80, 90), 700, np.uint16), PLANET),
        (np.full((80, 90), np.nan, np.float32), PLANET),
        (RNG.uniform(1, 30, (80, 90)), PLANET),  # clear water, resampled
        (RNG.uniform(0, 1, (5, 6)), PLANET),  # a handful of pixels proves nothing
    ],
)
def test_reflectance_as_it_occurs_is_taken(layer: InputLayer, values: Any, packing: Packing) -> None:
    assert not check(layer, values, packing)


@pytest.mark.parametrize(
    ("layer", "values", "packing", "message"),
    [
        (RED, DN.astype("float32"), Packing(), r"'red' has values from .* allows.*scale_factor"),
        (LEARNT, DN, Packing(), r"'red' has values from .* allows.*scale_factor"),
        (LEARNT, (DN % 256).astype("uint8"), Packing(), r"'red' has values from .* 1 / 255"),
        (RED, DN / 100, Packing(), r"'red' has values from .* 0\.01 for per cent"),
        (RED, DN, Packing(scale_factor=0.01, is_declared=True), r"'red' has values from"),
        (NUMBERS, SCALED, Packing(), r"'red' .* which is reflectance, and the bundle has learnt numbers of about 1500"),
        (NUMBERS, DN, PLANET, r"'red' .* which is reflectance, and the bundle has learnt numbers of about 1500"),
        (RED, np.where(DN > 3000, -9999, SCALED), Packing(), r"'red' holds -9999 in \d.*_FillValue'\] = -9999"),
        (DEM, np.where(DN > 3000, -32768, DN.astype("int32")).astype("int16"), Packing(), r"'dem' holds -32768"),
        (DEM, DN * 100.0, Packing(), r"'dem' has values from .* 0\.01 for centimetres"),
        (NDVI, wrapped("uint8"), Packing(), r"'ndvi' has values.*wrap around.*drop_vars.*derived"),
        (NDVI, wrapped("uint16"), Packing(), r"'ndvi' has values.*wrap around"),
        (NDVI, wrapped("uint16"), PLANET, r"'ndvi' has values.*wrap around"),  # xarray keeps the packing of the bands
        (InputLayer.from_statistics("ndvi", mean=0.3, std=0.2), wrapped("uint32"), Packing(), "wrap around"),
        (InputLayer.from_statistics("ndmi", mean=0.3, std=0.2), wrapped("uint16"), Packing(), r"wrap around.*astype"),
        (NDVI, wrapped("int32"), PLANET, r"'ndvi' is scaled twice"),
        (NDVI, (wrapped("int32") * 10000).astype("float32"), Packing(), r"'ndvi' has values"),
    ],
)
def test_what_cannot_be_is_refused(layer: InputLayer, values: Any, packing: Packing, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        check(layer, values, packing)


@pytest.mark.parametrize(
    ("layer", "values", "packing", "message"),
    [
        (RED, SCALED - 0.3, Packing(), r"below -0\.03.*applied twice"),
        (RED, SCALED * 1e-4, Packing(), "may have been scaled twice, or hold nothing"),
        (RED, np.where(DN > 3500, 77, SCALED), Packing(), r"'red' has values from .*_FillValue"),
        (
            RED,
            RNG.uniform(0.1, 0.9, (80, 90)),
            Packing(scale_factor=0.01, is_declared=True),
            "seems to be scaled twice",
        ),
        (SLOPE, RNG.uniform(0, 120, (80, 90)), Packing(), r"'slope' has values .* outside -0\.5 to 90\.5.*per cent"),
        (SLOPE, DN / 100, Packing(scale_factor=0.01, is_declared=True), "'slope' seems to be scaled twice"),
        (
            InputLayer.from_statistics("dem", mean=300, std=100),
            DN * 100.0,
            Packing(),
            r"'dem' .* deviations from the 300",
        ),
    ],
)
def test_what_is_doubtful_is_told(layer: InputLayer, values: Any, packing: Packing, message: str) -> None:
    (told,) = check(layer, values, packing).values()
    assert re.search(message, told), told


@pytest.mark.parametrize(
    ("layer", "values", "packing"),
    [
        (SLOPE, RNG.uniform(0, 300, (80, 90)).astype("float32"), Packing(scale_factor=0.1)),
        (InputLayer.from_statistics("ndvi", mean=120, std=40), DN.astype("uint8"), Packing()),
        (InputLayer(name="ndvi"), DN.astype("float32"), Packing()),
        (NUMBERS, DN.astype("float32") + 0.5, Packing()),
        (InputLayer(name="height"), RNG.uniform(0, 1, (80, 90)), PLANET),
        (NDVI, wrapped("int32"), Packing()),
        (DEM, DN.astype("float32"), Packing()),
        (DARTS["relative_elevation"], SCALED - 0.2, Packing()),
        (DARTS["tc_wetness"], (DN % 256).astype("uint8"), Packing()),
        (InputLayer.from_statistics("trend", mean=0.0, std=0.02), SCALED - 0.2, Packing()),
    ],
)
def test_what_is_merely_unusual_is_taken(layer: InputLayer, values: Any, packing: Packing) -> None:
    assert not check(layer, values, packing)


def test_a_forgotten_offset_is_told_of_all_bands_together() -> None:
    layers = [DARTS[name] for name in ("blue", "green", "red", "nir")]
    stored = {layer.name: DN // 4 + 1000 for layer in layers}
    valid = np.ones(DN.shape, bool)
    (told,) = check_values(stored, valid, inputs=layers, packings=dict.fromkeys(stored, PLANET)).values()
    assert "sentinel2-l2a-04.00" in told
    packings = dict.fromkeys(stored, Packing(scale_factor=1e-4, add_offset=-0.1, is_declared=True))
    assert not check_values(stored, valid, inputs=layers, packings=packings)
    snow = {name: values + 6000 for name, values in stored.items()}
    assert not check_values(snow, valid, inputs=layers, packings=dict.fromkeys(stored, PLANET))


def test_what_hides_under_the_mask_is_not_looked_at() -> None:
    values = np.where(DN > 2000, -9999, SCALED)
    assert not check_values({"red": values}, values > 0, inputs=[RED], packings={"red": Packing()})


def units_of(layer: InputLayer, units: str, *, dtype: str = "float32", packing: Packing | None = None) -> None:
    check_units(
        [layer], {layer.name: packing or Packing()}, dtypes={layer.name: np.dtype(dtype)}, units={layer.name: units}
    )


@pytest.mark.parametrize(
    ("layer", "units", "message"),
    [
        (
            DEM,
            "cm",
            r"'dem' says that it is in 'cm', and the bundle wants 'm'.*scale_factor=0\.01, add_offset=0, units='m'",
        ),
        (DEM, "Feet", r"scale_factor=0\.3048"),
        (DEM, "degrees", r"in 'degrees', and the bundle wants 'm'"),
        (SLOPE, "radians", r"scale_factor=57\.29"),
        (SLOPE, "percent", r"np\.degrees\(np\.arctan\(cube\['slope'\] / 100\)\)"),
        (SLOPE, "K", r"in 'K', and the bundle wants 'degree'"),
        (RED, "%", r"scale_factor=0\.01"),
        (RED, "DN", r"in 'DN', and the bundle wants 'reflectance'.*sensor="),
        (NDVI, "m", r"in 'm', and the bundle wants 'index'"),
        (InputLayer(name="heat", units="K"), "degC", r"in 'degC', and the bundle wants 'K'"),  # type: ignore[arg-type]
    ],
)
def test_units_that_contradict_the_bundle_are_refused(layer: InputLayer, units: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        units_of(layer, units)


@pytest.mark.parametrize(
    ("layer", "units"),
    [
        *((DEM, word) for word in ("m", "metres", "Meter", "", "somewhat")),
        *((SLOPE, word) for word in ("degree", "degrees", "deg", "°")),
        *((RED, word) for word in ("reflectance", "1", "unitless", "BOA reflectance", "none")),
        (NDVI, "reflectance"),  # of the bands that it was made of
        (InputLayer.from_statistics("dem", mean=3, std=2), "cm"),
    ],
)
def test_other_words_for_the_same_unit_are_taken(layer: InputLayer, units: str) -> None:
    units_of(layer, units)


def test_numbers_are_reflectance_once_they_have_a_scale() -> None:
    units_of(RED, "dn", dtype="uint16", packing=PLANET)
    with pytest.raises(BundleError, match="as reflectance, but the cube holds integers and no scale_factor"):
        units_of(LEARNT, "", dtype="uint16")
    with pytest.raises(BundleError, match="as an index from -1 to 1, but the cube holds integers"):
        units_of(NDVI, "", dtype="int16")
    with pytest.raises(BundleError, match=r"greatest number of uint8, by scale_factor 0\.0001 .* is 0\.0255"):
        units_of(RED, "", dtype="uint8", packing=PLANET)
    units_of(RED, "", dtype="uint8", packing=Packing(scale_factor=1 / 255, is_declared=True))


@pytest.mark.parametrize("number", [65535, -3000, -999, -1])
def test_a_number_that_is_far_from_all_others_is_told(number: int) -> None:
    values = np.where(DN < 300, number, DN.astype("int32"))
    layer = NUMBERS if number < 0 else InputLayer(name="height")
    (told,) = check(layer, values, Packing()).values()
    assert f"attrs['_FillValue'] = {number}" in told


def test_numbers_that_are_far_from_all_others_for_a_reason_are_taken() -> None:
    height, numbers = InputLayer(name="height"), DN.astype("int32")
    assert not check(height, np.where(DN < 110, -999, numbers), Packing()), "in few pixels"
    assert not check(height, np.where(DN < 300, -999, np.int32(7)), Packing()), "a mask"
    assert not check(height, np.where(DN < 300, 65535, numbers), Packing(nodata=0)), "saturated, as nodata is known"


def test_zero_in_all_optical_layers_at_once_is_told() -> None:
    layers = [DARTS[name] for name in ("blue", "green", "red")]
    stored = {layer.name: np.where(DN[::-1] < 300, 0, DN) for layer in layers}
    packings = dict.fromkeys(stored, Packing(scale_factor=1e-4, is_declared=True))
    (told,) = check_values(stored, np.ones(DN.shape, bool), inputs=layers, packings=packings).values()
    assert "'blue', 'green', 'red' are 0 together" in told
    assert "attrs['_FillValue'] = 0" in told
    assert not check_values(stored, DN[::-1] >= 300, inputs=layers, packings=packings)
    stored["red"] = DN
    assert not check_values(stored, np.ones(DN.shape, bool), inputs=layers, packings=packings), "dark in two"
