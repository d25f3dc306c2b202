import pytest

from rtsx.errors import BundleError
from rtsx.model.metadata import check_channels, check_tiles

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
