"""Which numbers and names of a bundle go together."""

import math

from rtsx.errors import BundleError

__all__ = ["check_channels", "check_temperature", "check_tiles"]


def check_channels(layers: tuple[str, ...], *, classes: tuple[str, ...], activation: str, threshold: float) -> None:
    """Refuse layers and classes that are missing or named twice, and activations that cannot be.

    Raises
    ------
    BundleError
        The message says which, and what to do.

    Examples
    --------
    >>> check_channels(("red",), classes=("lake",), activation="sigmoid", threshold=0.5)
    """
    if not layers or len(set(layers)) < len(layers):
        raise BundleError(
            f"A bundle needs at least one input layer, and each once; got {list(layers)}. Pass layers= in the order of "
            "the network's channels."
        )
    if not classes or len(set(classes)) < len(classes) or "" in classes:
        raise BundleError(
            f"A bundle needs at least one class, each with its own name; got {list(classes)}. Pass classes= in the order "
            "of the network's output."
        )
    if activation not in {"sigmoid", "softmax", "none"}:
        raise BundleError(f"activation has to be 'sigmoid', 'softmax' or 'none'; got {activation!r}.")
    if activation == "softmax" and len(classes) == 1:
        raise BundleError(
            f"softmax over the single class {classes[0]!r} is 1 everywhere. Pass activation='sigmoid', or name every "
            "class that the network tells apart."
        )
    if not 0 <= threshold <= 1:
        raise BundleError(f"threshold has to be a probability in 0..1; got {threshold}.")


def check_temperature(temperature: float, *, activation: str) -> None:
    """Refuse temperatures that turn probabilities around, and those that nothing would apply.

    Raises
    ------
    BundleError
        The message says which, and what to do.

    Examples
    --------
    >>> check_temperature(1.5, activation="sigmoid")
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise BundleError(f"temperature has to be a finite number above 0; got {temperature}. 1 changes nothing.")
    if temperature != 1 and activation == "none":
        raise BundleError(
            f"temperature={temperature} divides the output of a network before its activation, but with activation='none' "
            "the network has applied its own. Leave temperature out, or take the activation out of the network."
        )


def check_tiles(tile: int, *, overlap: int, stride: int, trim: int | None) -> None:
    """Refuse tiles that are off the network's stride, and overlaps that leave nothing to step by; all in px.

    Raises
    ------
    BundleError
        The message names the nearest numbers that go together.

    Examples
    --------
    >>> check_tiles(1024, overlap=256, stride=32, trim=None)
    """
    if stride < 1:
        raise BundleError(f"stride has to be at least 1 px; got {stride}. A five-stage encoder has 32.")
    if tile < 1 or tile % stride:
        raise BundleError(
            f"tile has to be a multiple of the network's stride of {stride} px; got {tile}. Pass "
            f"tile={max(1, round(tile / stride)) * stride}, or the stride= of the network if it is another."
        )
    if not 0 <= overlap < tile:
        raise BundleError(
            f"overlap has to be at least 0 and below the tile of {tile} px; got {overlap}. A quarter of the tile is usual."
        )
    if overlap % stride:
        raise BundleError(
            f"overlap has to be a multiple of the network's stride of {stride} px, or tiles would start off its lattice; "
            f"got {overlap}. Pass overlap={min(tile - stride, -(-overlap // stride) * stride)}."
        )
    if trim is not None and not 0 <= 2 * trim <= overlap:
        raise BundleError(f"trim has to be between 0 and half the overlap of {overlap} px; got {trim}.")
