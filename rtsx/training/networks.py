"""Networks to train, from their spec: built, given weights to start from, and looked at beforehand."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rtsx.errors import BundleError, TrainingError
from rtsx.model import build_network
from rtsx.model.smp import network_stride, skeleton
from rtsx.training.encoder_weights import load_encoder
from rtsx.training.network import NetworkSpec

__all__ = ["check_step", "new_network", "output_classes", "stride_of"]

# What the recipe says elsewhere, or what would turn logits into something else.
_NOT_OPTIONS = ("activation", "aux_params", "classes", "encoder_name", "encoder_weights", "in_channels")


def output_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of a network's output channels: the class itself where there is one, else ``background`` in front of them.

    Examples
    --------
    >>> output_classes(["slump"]), output_classes(["slump", "lake"])
    (('slump',), ('background', 'slump', 'lake'))
    """
    return tuple(classes) if len(classes) == 1 else ("background", *classes)


def new_network(spec: NetworkSpec, *, layers: int, classes: int, seed: int) -> torch.nn.Module:
    """Build a network as it is before the first step; the caller's random numbers are left alone.

    Parameters
    ----------
    spec
        Architecture, encoder and what it starts from.
    layers, classes
        Input and output channels.
    seed
        Of the random weights.

    Raises
    ------
    TrainingError
        Something of the spec is unknown, or the encoder's weights cannot be had or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _built(spec, layers=layers, classes=classes)
        if spec.encoder_weights is not None:
            load_encoder(network, spec)
    return network


def stride_of(spec: NetworkSpec) -> int:
    """Total down-sampling of a network, px, found without its numbers.

    Raises
    ------
    TrainingError
        Something of the spec is unknown.
    """
    return network_stride(_without_numbers(spec))


def check_step(spec: NetworkSpec, *, tile: int, tiles: int) -> None:
    """Refuse tiles, and numbers of them, that a network cannot learn from; found without its numbers.

    Parameters
    ----------
    spec
        A network that can be built.
    tile
        Side of a tile, px.
    tiles
        Tiles that one device gets at a time.

    Raises
    ------
    TrainingError
        Its features of such a tile are too small: to be halved again, or to be normalised over so few tiles.
    """
    network = copy.deepcopy(_without_numbers(spec)).train()
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                network(torch.empty(tiles, 3, tile, tile))
        except NotImplementedError:
            return  # some encoders read numbers; the first step will tell
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{spec.architecture} with {spec.encoder} cannot learn from {tiles} tile{'s' if tiles > 1 else ''} of {tile} px "
                f"at a time: {error}. Take a larger tile, or more of them in a batch (for each device)."
            ) from error


def _without_numbers(spec: NetworkSpec) -> torch.nn.Module:
    """The network to look at; it is kept, and so not to be changed."""
    with _told(spec):
        return skeleton(spec.architecture, _options(spec, layers=3, classes=1))


def _built(spec: NetworkSpec, *, layers: int, classes: int) -> torch.nn.Module:
    with _told(spec):
        return build_network(spec.architecture, _options(spec, layers=layers, classes=classes))


def _options(spec: NetworkSpec, *, layers: int, classes: int) -> dict[str, object]:
    return {**spec.options, "encoder_name": spec.encoder, "in_channels": layers, "classes": classes}


@contextmanager
def _told(spec: NetworkSpec) -> Iterator[None]:
    """Refuse options that are not free, and say what cannot be built."""
    reserved = sorted(set(spec.options) & set(_NOT_OPTIONS))
    if reserved:
        raise TrainingError(
            f"Options {reserved} of {spec.architecture} are not free: layers, classes and encoder have fields of their own, "
            "and a network in training answers with logits alone. Remove them."
        )
    try:
        yield
    except BundleError as error:
        raise TrainingError(f"The network cannot be built. {error}") from error
