"""Networks to train, from their specification: built, and given encoder weights for any number of layers."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import safetensors
import safetensors.torch
import segmentation_models_pytorch
import torch

from rtsx.errors import TrainingError
from rtsx.model import build_network
from rtsx.model.smp import meta_network, network_class, total_stride
from rtsx.names import suggest
from rtsx.training.recipe import NetworkSpec, explained

_SUFFIXES = (".pth", ".pt", ".safetensors")
_WRAPPERS = ("state_dict", "statedict", "model", "model_state_dict")
"""Keys under which files keep a state dict."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "backbone.", "encoder.")
"""What may stand in front of an encoder's own names."""


def is_file(encoder_weights: str) -> bool:
    """Test whether encoder weights name a file instead of a download."""
    return encoder_weights.endswith(_SUFFIXES)


def check_encoder_weights(spec: NetworkSpec) -> None:
    """Refuse weights that are nowhere; looks for a file, and downloads nothing.

    Raises
    ------
    TrainingError
        There is no such file, or the library has none of that name for the encoder.
    """
    weights = spec.encoder_weights
    if weights is None:
        return
    if is_file(weights):
        if not Path(weights).is_file():
            raise TrainingError(
                f"Encoder weights: there is no file {weights}. Give its path, or the name of a download."
            )
        return
    # Those of timm have one name here, because the tag that tells them apart is part of the encoder's: tu-resnet18.a1_in1k.
    settings = segmentation_models_pytorch.encoders.encoders.get(spec.encoder)
    known = ["imagenet"] if settings is None else list(settings["pretrained_settings"])
    if weights not in known:
        raise TrainingError(
            f"Weights {weights!r} of the encoder {spec.encoder!r} cannot be had: nobody offers them.{suggest(weights, known)} Or "
            "give a file that ends in .pth, .pt or .safetensors, or no encoder weights."
        )


def load_encoder(network: torch.nn.Module, spec: NetworkSpec) -> None:
    """Load the encoder's weights into a network, in place.

    Raises
    ------
    TrainingError
        They cannot be downloaded or read, or do not fit.
    """
    assert spec.encoder_weights is not None, "the caller has looked"
    check_encoder_weights(spec)
    encoder = cast("torch.nn.Module", network.encoder)
    wanted = encoder.state_dict()
    if is_file(spec.encoder_weights):
        found = _plain_names(_read(Path(spec.encoder_weights)), wanted=wanted)
    else:
        found = _downloaded(spec)
    missing = sorted(name for name in wanted if name not in found and not name.endswith("num_batches_tracked"))
    if missing:
        raise TrainingError(
            f"The weights {spec.encoder_weights!r} do not fit the encoder {spec.encoder!r}: {len(missing)} of "
            f"{len(wanted)} tensors are missing, such as {missing[:3]}. Look for the encoder they were made with."
        )
    fitted = {name: fit_first_convolution(found[name], tuple(wanted[name].shape)) for name in wanted if name in found}
    differing = [name for name, tensor in fitted.items() if tensor.shape != wanted[name].shape]
    if differing:
        name = differing[0]
        raise TrainingError(
            f"The weights {spec.encoder_weights!r} do not fit the encoder {spec.encoder!r}: {len(differing)} tensors have "
            f"another shape, such as {name} with {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}."
        )
    encoder.load_state_dict(fitted, strict=False)


def fit_first_convolution(weight: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Repeat the input channels of a convolution until they are as many as asked for, and scale them to the old sum.

    The rule of segmentation-models-pytorch: channel i starts as channel i modulo what there was, times old over new
    number; a single channel is their sum. Tensors that do not differ in their second dimension alone are returned as they are.

    Examples
    --------
    >>> fit_first_convolution(torch.tensor([[1.0, 2.0]]), (1, 4))
    tensor([[0.5000, 1.0000, 0.5000, 1.0000]])
    """
    old = tuple(weight.shape)
    if len(old) < 2 or len(old) != len(shape) or old[1] == shape[1] or (old[0], *old[2:]) != (shape[0], *shape[2:]):
        return weight
    if shape[1] == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(shape[1]) % old[1]] * (old[1] / shape[1])


def _downloaded(spec: NetworkSpec) -> Mapping[str, torch.Tensor]:
    # The whole network for three layers, because the library knows what of an encoder an architecture keeps.
    constructor = network_class(spec.architecture)
    # timm's encoders take a yes instead of a name; the name is part of the encoder's own.
    weights = True if spec.encoder.startswith("tu-") else spec.encoder_weights
    try:
        network = constructor(encoder_name=spec.encoder, encoder_weights=weights, in_channels=3, **spec.options)
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        raise TrainingError(
            f"Weights {spec.encoder_weights!r} of the encoder {spec.encoder!r} cannot be had: {error}. Without a network, "
            "give a file that ends in .pth, .pt or .safetensors, or no encoder weights."
        ) from error
    return cast("torch.nn.Module", network.encoder).state_dict()


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return cast("Mapping[str, torch.Tensor]", safetensors.torch.load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise TrainingError(f"Encoder weights {path} cannot be read: {error}. Copy the file again.") from error
    except Exception as error:  # pickle's own errors have no common ancestor but this
        raise TrainingError(
            f"Encoder weights {path} hold more than tensors, which could run code of their author. Save the bare state dict."
        ) from error
    while isinstance(found, dict) and (inner := next((key for key in _WRAPPERS if key in found), None)):
        found = found[inner]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise TrainingError(
            f"Encoder weights {path} hold no state dict, which is tensors by name. Save the bare state dict."
        )
    return found


def _plain_names(state: Mapping[str, torch.Tensor], *, wanted: Mapping[str, object]) -> Mapping[str, torch.Tensor]:
    """Return tensors by the encoder's own names: one that is wanted, or becomes so without what stands in front.

    Files of timm have the names of timm's own models, which stand under ``model.`` in an encoder and have some dots replaced.
    """
    by_flat = {_flat(name): name for name in wanted}
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        bare = name
        while bare not in wanted and (prefix := next((p for p in _PREFIXES if bare.startswith(p)), None)):
            bare = bare.removeprefix(prefix)
        plain[bare if bare in wanted else by_flat.get(_flat(bare), bare)] = tensor
    return plain


def _flat(name: str) -> str:
    return name.removeprefix("model.").replace(".", "_")


# What the recipe says elsewhere, or what would turn logits into something else.
_NOT_OPTIONS = ("activation", "aux_params", "classes", "encoder_name", "encoder_weights", "in_channels")


def output_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return names of a network's output channels: the class itself where there is one, else ``background`` in front of them.

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
        with _explained(spec):
            network = build_network(spec.architecture, _options(spec, layers=layers, classes=classes))
        if spec.encoder_weights is not None:
            load_encoder(network, spec)
    return network


def stride_of(spec: NetworkSpec) -> int:
    """Return the total down-sampling of a network, px, found without its numbers.

    Raises
    ------
    TrainingError
        Something of the spec is unknown.
    """
    return total_stride(_without_numbers(spec))


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
    known = f"{spec.architecture} {sorted(_options(spec, layers=3, classes=1).items())!r} {tile} {tiles}"
    if known in _FITTING:
        return
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
    _FITTING.add(known)


_FITTING: set[str] = set()
"""Networks with tiles that they can learn from: seeds and folds train one of them again and again."""


def _without_numbers(spec: NetworkSpec) -> torch.nn.Module:
    """Return the network to look at; it is kept, and so not to be changed."""
    with _explained(spec):
        return meta_network(spec.architecture, _options(spec, layers=3, classes=1))


def _options(spec: NetworkSpec, *, layers: int, classes: int) -> dict[str, object]:
    return {**spec.options, "encoder_name": spec.encoder, "in_channels": layers, "classes": classes}


@contextmanager
def _explained(spec: NetworkSpec) -> Iterator[None]:
    """Refuse options that are not free, and say what cannot be built."""
    reserved = sorted(set(spec.options) & set(_NOT_OPTIONS))
    if reserved:
        raise TrainingError(
            f"Options {reserved} of {spec.architecture} are not free: layers, classes and encoder have fields of their own, "
            "and a network in training answers with logits alone. Remove them."
        )
    with explained("The network cannot be built. "):
        yield
