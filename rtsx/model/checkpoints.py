"""Checkpoints: of thaw-slump-segmentation (TSS) and darts-nextgen (DN) in their four formats, and of any other training.

Which preset a checkpoint was trained with is nowhere in the file, so it is known by who writes such files. A state dict with
a `config.yml` is from TSS: `tss-v1`. A file with `input_combination` or `norm_factors` is one of the published
first-generation models, exported from TSS: `tss-v1`. A file with DN's own config is from DN's training: `darts-v2`. The
caller can say otherwise. Any other file has no preset: its weights are found by the names that networks of
segmentation-models-pytorch give them, and the caller says the rest.
"""

import datetime as dt
import io
import pickle
import re
import reprlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml

from rtsx.errors import BundleError, UntrustedModelError
from rtsx.model.exported import ModuleSource
from rtsx.model.inputs import canonical_layers, preset_named
from rtsx.model.metadata import Metadata
from rtsx.model.smp import SmpSource, build_network, options_of
from rtsx.model.source import NetworkSource
from rtsx.parsing import LimitedLoader, json_value

_TILE = 1024
"""Window in which TSS and DN run their models, px."""
_PREFIXES = re.compile(r"^(_orig_mod\.|module\.)+")
"""What torch.compile and DataParallel put before the names of tensors."""
_PARTS = ("encoder.", "decoder.", "segmentation_head.")
"""Parts of a network of segmentation-models-pytorch; a head that classifies the whole tile is left out."""
_NETWORK = re.compile(r"(|.*?\.)encoder\.")
"""Name of a tensor of such a network, with what stands before it: the attribute of a Lightning module, of wrappers."""
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged)(?![a-z])|(EMA|Ema|SWA|Averaged)(?![a-z])")
"""In names of weights that are averages over training, made to be used instead of the last ones."""
_NO_LAYER = re.compile(
    r"loss|criterion|metric|accuracy|iou|jaccard|f1|precision|recall|confusion|auroc|(pos|class)_weight|n_averaged|classification_head",
    re.I,
)
"""In names of tensors of a training that no image runs through."""
_FEW = 16
"""Numbers that a message repeats."""
_OF_WEIGHTS = {"activation", "aux_params", "classes", "encoder_name", "encoder_weights", "in_channels"}
"""Arguments of a network that the weights say, or that are none of its scores."""
_DEEPEST = 4
"""Mappings within each other that are searched for weights."""
_TOLD_AS = {
    "architecture": ("architecture", "arch", "model", "model_name"),
    "encoder": ("encoder", "encoder_name", "backbone"),
}
"""Names of hyperparameters of other projects, such as torchgeo, by ours."""
_OPTION_NAMES = {"encoder": "encoder_name", "input_channels": "in_channels"}
"""Names of constructor arguments that the two projects call otherwise."""
_NO_OPTIONS = {"arch", "architecture", "encoder_weights", "model_framework"}
"""Keys of a model's configuration that are no arguments of the architecture."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network and everything known about it."""

    source: NetworkSource
    metadata: Metadata
    """What its file says, or the caller's word over that."""


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """The parts of a checkpoint, whatever its format."""

    written_as: str
    """The format, for the provenance."""
    state: Mapping[str, torch.Tensor]
    """Weights under the network's own names."""
    model: Mapping[str, object]
    """Architecture and arguments."""
    bands: object
    """The layers, in whatever form the file names them; None where it does not."""
    preset: str | None
    """Preset that such files were trained with; None where anybody may have written them."""
    patch_size: object = None
    """Side of the training tiles in px, where the file says it."""


def read_checkpoint(
    data: bytes, *, name: str, read_run_config: Callable[[], bytes | None], stated: Mapping[str, object], trust: bool
) -> LoadedModel:
    """Read a checkpoint of TSS or DN, or of any training of a network of segmentation-models-pytorch.

    Parameters
    ----------
    data
        The whole file.
    name
        Of the file, for messages.
    read_run_config
        Reads the `config.yml` of the training run; returns None where there is none. Called for bare state dicts only.
    stated
        `architecture` and `encoder` as the caller says them; they count more than what the file says.
    trust
        Whether the caller vouches for the author; then the file may run any code when it is read.

    Raises
    ------
    UntrustedModelError
        The file holds more than tensors and plain values, and the caller does not vouch for it.
    BundleError
        The file is damaged or is no checkpoint, its architecture or layers are unknown, or its weights do not fit.
    """
    content = _load(data, trust=trust)
    whole = [one for one in content.values() if isinstance(one, torch.nn.Module)]
    if len(whole) == 1:
        if stated:
            raise BundleError("The checkpoint holds its network whole. Leave architecture= and encoder= out.")
        return _whole(whole[0])
    config = _as_mapping(_as_mapping(content.get("hyper_parameters")).get("config"))
    if "state_dict" in content and "model" in config and {"bands", "input_combination"} & set(config):
        contents = _lightning(content, config)
    elif "statedict" in content and "config" in content:
        contents = _darts(content)
    elif content and all(isinstance(value, torch.Tensor) for value in content.values()):
        raw = read_run_config()
        contents = _other(content, name=name, stated=stated, trust=trust) if raw is None else _run(content, _yaml(raw))
    else:
        contents = _other(content, name=name, stated=stated, trust=trust)
    return _assemble(contents, stated=stated)


PRETRAINED_CONFIG = "config.json"
"""File that `save_pretrained` writes beside ``model.safetensors``."""


def read_pretrained(data: bytes, config: bytes | None, *, name: str, stated: Mapping[str, object]) -> LoadedModel:
    """Read safetensors of a network of segmentation-models-pytorch, as its `save_pretrained` and the hub of Hugging Face have them, or alone.

    Parameters
    ----------
    data
        The whole file.
    config
        The JSON beside it, which names the architecture and its arguments; None where there is none, and `stated` has to.
    name, stated
        As of `read_checkpoint`.

    Raises
    ------
    BundleError
        One of both is damaged, the architecture is unknown, or its weights do not fit.
    """
    try:
        state = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise BundleError(_damaged(error)) from error
    if config is None:
        contents = _other(state, name=name, stated=stated, trust=False)
        network = build_network(str(contents.model["architecture"]), {"encoder_name": contents.model["encoder"]})
        first = next(
            name for name, one in network.state_dict().items() if name.startswith("encoder.") and one.ndim == 4
        )
        channels = {"in_channels": contents.state[first].shape[1]} if first in contents.state else {}
        return _assemble(replace(contents, model={**contents.model, **channels}), stated=stated)
    config_values = _mapping(json_value(config, what=PRETRAINED_CONFIG, error=BundleError), PRETRAINED_CONFIG)
    content = {
        "state_dict": state,
        "hyper_parameters": {**config_values, "architecture": config_values.get("_model_class")},
    }
    contents = _other(content, name=name, stated=stated, trust=False)
    # Not by the weights, which this format keeps in another order than the network.
    sizes = {name: config_values[name] for name in ("in_channels", "classes") if name in config_values}
    return _assemble(replace(contents, model={**contents.model, **sizes}), stated=stated)


def _load(data: bytes, *, trust: bool) -> Mapping[str, Any]:
    if not data.startswith(_MAGIC):
        raise BundleError(
            "The file is no checkpoint: it is neither a zip archive nor a pickle. Check that it is the right file, and "
            "that it was copied in binary mode."
        )
    # Dates are plain values too, and Lightning checkpoints of DN carry one.
    harmless: list[Any] = [OrderedDict, dt.datetime, dt.date, dt.timezone, dt.timedelta]
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise UntrustedModelError(
                f"The checkpoint holds more than tensors and plain values ({_reason(error)}), so reading it can run code "
                "of its author. If you trust where it comes from, pass trust=True."
            ) from error
        content = _load_trusted(data)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise BundleError(_damaged(error)) from error
    if isinstance(content, torch.nn.Module):
        return {"module": content}
    if not isinstance(content, Mapping):
        raise BundleError(
            f"The checkpoint holds a {type(content).__name__} instead of weights by name, or of a whole network."
        )
    return content


def _whole(module: torch.nn.Module) -> LoadedModel:
    """Take a network that was saved with its code's names, by ``torch.save(network, path)``."""
    source = SmpSource.from_network(module) or ModuleSource.from_module(module)
    stride = source.stride if isinstance(source, SmpSource) else None
    return LoadedModel(source=source, metadata=Metadata(stride=stride, provenance={"format": "whole module"}))


_MAGIC = (b"PK", b"\x80")
"""First bytes of torch's zip archives, and of the pickles it wrote before version 1.6."""


def _load_trusted(data: bytes) -> object:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise BundleError(
            f"The checkpoint refers to code that is not installed here: {error}. Install the project that wrote it, "
            "or save its state_dict alone."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise BundleError(_damaged(error)) from error


def _reason(error: Exception) -> str:
    found = re.search(r"GLOBAL (\S+)|Unsupported \w+ (\S+)", str(error))
    return f"it needs {found[1] or found[2]}" if found else "pickled objects"


def _damaged(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), type(error).__name__)  # some of torch's errors say nothing
    return f"The checkpoint cannot be read: {first}. It is truncated, damaged or no checkpoint; copy it again."


def _run(content: Mapping[str, torch.Tensor], config: Mapping[str, object]) -> _Contents:
    model = dict(_mapping(config.get("model"), "model in config.yml"))
    sources = config.get("data_sources")
    # Sorted, because TSS stacks its sources in the order of their names, whatever the order in the file.
    bands = sorted(map(_source_name, sources)) if isinstance(sources, list) else None
    return _Contents(
        written_as="TSS run", state=_plain_names(content), model={"classes": 1, **model}, bands=bands, preset="tss-v1"
    )


def _other(content: Mapping[str, Any], *, name: str, stated: Mapping[str, object], trust: bool) -> _Contents:
    """Return a checkpoint of any training: the one network that is in it, its sizes from its weights."""
    networks, beside = {}, {}
    for where, weights, others in _networks(content):
        networks[where], beside[where] = weights, others
    averaged = [place for place in networks if _AVERAGED.search(place)]
    if not networks:
        raise BundleError(
            f"No checkpoint that is known: it holds {sorted(map(str, content))[:8]}, and no weights with names such as "
            "encoder.conv1.weight, as networks of segmentation-models-pytorch have them. Build the network yourself, load "
            "the weights, and pass it to ModelBundle.from_module; or export it to ONNX."
        )
    place = next(iter(networks))
    if len(networks) > 1:
        told_of = f"The checkpoint holds {len(networks)} networks, {' and '.join(map(repr, networks))}"
        if len(averaged) != 1:
            raise BundleError(
                f"{told_of}, and it does not say which is meant. Ask whoever has made it for that one in a file of its own; in "
                "Python, torch.save(network.state_dict(), 'network.pt') writes one."
            )
        (place,) = averaged
        warnings.warn(f"{told_of}; the averaged one, {place!r}, is taken.", stacklevel=2)
    state = networks[place]
    left_out = {name: one.flatten() for name, one in beside[place].items() if not _NO_LAYER.search(name)}
    if left_out:
        told_as = [
            name if len(one) > _FEW else f"{name} ({', '.join(f'{number:.4g}' for number in one.tolist())})"
            for name, one in left_out.items()
        ]
        warnings.warn(
            f"The checkpoint holds more than its network, which is left out: {', '.join(told_as[:5])}. Where the training scaled its "
            "input by that, as examples of segmentation-models-pytorch do, say so with mean= and std=, in physical units; a network "
            "with further layers is opened from ONNX.",
            stacklevel=2,
        )
    named = {**_hyperparameters(content), **stated}
    if "architecture" not in named or "encoder" not in named:
        raise BundleError(
            "The checkpoint does not say what its network is, and no config.yml lies in the folder above it or beside it. "
            "Copy the run folder whole, or say it, such as "
            f"ModelBundle.open({name!r}, architecture='Unet', encoder='resnet34', "
            "layers=('blue', 'green', 'red'), mean=[0.1, 0.1, 0.1], std=[0.05, 0.05, 0.05], classes=('target',), tile=256, "
            f"overlap=64{', trust=True' * trust})."
        )
    model: dict[str, object] = {name: named[name] for name in _TOLD_AS}
    # What weights do not show, such as dilation, or show and the usual network has not.
    known = options_of(str(named["architecture"])) - _OF_WEIGHTS
    parameters = _as_mapping(content.get("hyper_parameters"))
    model |= {name: value for name, value in parameters.items() if name in known and value is not None}
    # Sizes of the weights, instead of what is said, because these are what has to fit; the rest is compared later.
    first = next((tensor for name, tensor in state.items() if name.startswith("encoder.") and tensor.ndim == 4), None)
    last = next((tensor for name, tensor in reversed(state.items()) if name.startswith("segmentation_head.")), None)
    if first is not None and last is not None:
        model |= {"in_channels": first.shape[1], "classes": last.shape[0]}
    written_as = "state dict" if not place else f"checkpoint, weights of {place.rstrip('.')}"
    return _Contents(written_as=written_as, state=state, model=model, bands=None, preset=None)


def _networks(
    content: Mapping[Any, Any], place: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Yield where each network stands in a checkpoint, its weights under its own names, and what stands beside all of them there."""
    tensors = {name: one for name, one in content.items() if isinstance(name, str) and isinstance(one, torch.Tensor)}
    prefixes = tuple(dict.fromkeys(match[1] for match in map(_NETWORK.match, tensors) if match))
    parts = tuple(prefix + part for prefix in prefixes for part in _PARTS)
    others = {name: one for name, one in tensors.items() if not name.startswith(parts)}
    for prefix in prefixes:
        inside = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        # torch.compile may have wrapped parts, too.
        yield (
            place + prefix,
            {name.replace("_orig_mod.", ""): one for name, one in inside.items() if name.startswith(_PARTS)},
            others,
        )
    for name, inner in content.items() if depth < _DEEPEST else ():
        # Lightning keeps the last weights beside the averaged ones, which it then calls the state.
        if isinstance(inner, Mapping) and name != "current_model_state":
            yield from _networks(inner, f"{place}{name}.", depth + 1)


def _hyperparameters(content: Mapping[str, Any]) -> dict[str, object]:
    """Return the architecture and encoder, where hyperparameters of a usual name say them."""
    parameters = _as_mapping(content.get("hyper_parameters"))
    named = {
        ours: [parameters[name] for name in theirs if isinstance(parameters.get(name), str)]
        for ours, theirs in _TOLD_AS.items()
    }
    return {ours: found[0] for ours, found in named.items() if found}


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _source_name(source: object) -> str:
    return str(source.get("name")) if isinstance(source, Mapping) else str(source)


def _yaml(raw: bytes) -> Mapping[str, object]:
    try:
        return _mapping(LimitedLoader(raw).get_single_data(), "config.yml")
    except yaml.YAMLError as error:
        raise BundleError(
            f"The run's config.yml cannot be read: {error}. Mend it, or copy the run folder again."
        ) from error


def _darts(content: Mapping[str, Any]) -> _Contents:
    config = _mapping(content["config"], "config")
    is_first_generation = "input_combination" in config or "norm_factors" in config
    return _Contents(
        written_as="DN checkpoint, first generation" if is_first_generation else "DN checkpoint",
        state=_plain_names(_mapping(content["statedict"], "statedict")),
        model=_mapping(config.get("model"), "config.model"),
        bands=config.get("input_combination", config.get("bands")),
        preset="tss-v1" if is_first_generation else "darts-v2",
        patch_size=config.get("patch_size"),
    )


def _lightning(content: Mapping[str, Any], config: Mapping[str, Any]) -> _Contents:
    state = _mapping(content["state_dict"], "state_dict")
    # Only the network, because losses and metrics of the training module have tensors of their own.
    network = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    return _Contents(
        written_as="DN Lightning checkpoint",
        state=_plain_names(network),
        model=_mapping(config.get("model"), "hyper_parameters.config.model"),
        bands=config.get("input_combination", config.get("bands")),
        preset="darts-v2",
        patch_size=config.get("patch_size"),
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BundleError(
            f"The checkpoint has no {what}: expected keys and values, got {type(value).__name__}. Build the network "
            "yourself and pass it to ModelBundle.from_module."
        )
    return value


def _plain_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {_PREFIXES.sub("", name): tensor for name, tensor in state.items()}


def _assemble(contents: _Contents, *, stated: Mapping[str, object]) -> LoadedModel:
    model = dict(contents.model)
    for names in (("arch", "architecture"), ("encoder_name", "encoder")):
        if names[1] in stated:  # in either project's spelling, because the file may have the other one
            model = {name: value for name, value in model.items() if name not in names} | {names[1]: stated[names[1]]}
    architecture = model.get("arch", model.get("architecture"))
    if architecture is None:
        raise BundleError(
            f"The checkpoint does not name its architecture; its model is {reprlib.repr(model)}. Pass architecture=."
        )
    options = {_OPTION_NAMES.get(name, name): value for name, value in model.items() if name not in _NO_OPTIONS}
    source = SmpSource.from_state(str(architecture), options, state=contents.state)
    layers = None if contents.bands is None else canonical_layers(_band_names(contents.bands))
    if layers is not None and len(layers) != source.n_channels:
        raise BundleError(
            f"The checkpoint names {len(layers)} layers {list(layers)}, but its network takes {source.n_channels} "
            "channels. Pass layers= in the order of the channels."
        )
    tile = contents.patch_size if isinstance(contents.patch_size, int) else _TILE
    preset = None if contents.preset is None else preset_named(contents.preset)
    return LoadedModel(
        source=source,
        metadata=Metadata(
            layers=layers,
            preset=contents.preset,
            classes=preset.classes if preset is not None and source.n_classes == 1 else None,
            activation="none" if options.get("activation") else None,
            tile=None if preset is None else tile,
            overlap=None if preset is None else tile // 4,
            stride=source.stride,
            provenance={"format": contents.written_as},
        ),
    )


def _band_names(bands: object) -> list[str]:
    inside = bands.get("bands", bands.get("names")) if isinstance(bands, Mapping) else bands
    if not isinstance(inside, (list, tuple)) or not all(isinstance(name, (str, Mapping)) for name in inside):
        raise BundleError(
            f"The checkpoint names its layers in a way that is not known: {reprlib.repr(bands)}. Pass layers= in the order of the "
            "network's channels."
        )
    return [_source_name(name) for name in inside]
