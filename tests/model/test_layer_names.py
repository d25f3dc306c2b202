import pytest

from rtsx.errors import BundleError
from rtsx.model.inputs import LAYER_NAMES, canonical_layers


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
