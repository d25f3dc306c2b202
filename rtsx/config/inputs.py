"""Channels, network and split of a training config."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rtsx.config.source import CUBE_PRESETS, PresetName
from rtsx.config.yaml import Checked, ConfigModel, alone, from_folder, is_glance
from rtsx.errors import ConfigError
from rtsx.model import InputLayer, preset_named
from rtsx.training.recipe import NetworkSpec


class InputConfig(ConfigModel):
    """How one layer becomes a channel: by its range, by mean and deviation, or by what the training scenes measure."""

    range: tuple[float, float] | None = None
    """Physical values that become 0 and 1."""
    clip: bool = False
    """Hold the channel within 0 and 1; with `range`."""
    mean: float | None = None
    """Physical value that becomes 0; with `std`."""
    std: float | None = Field(default=None, gt=0)
    """Physical difference that becomes 1; with `mean`."""
    units: Literal["", "reflectance", "index", "m", "degree", "1"] = ""
    """Physical unit that cubes have to provide; nothing takes what comes."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_statistics = self.mean is not None and self.std is not None
        if (self.range is None) == (not by_statistics) and not self.is_measured:
            raise ValueError("a layer has a range, or mean and std, or nothing, and is then measured")
        if self.clip and self.range is None:
            raise ValueError("clip goes with a range")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is [low, high] with low < high; got {list(self.range)}")
        return self

    @property
    def is_measured(self) -> bool:
        """Whether nothing is said of the scaling."""
        return self.range is None and self.mean is None and self.std is None

    def layer(self, name: str) -> InputLayer:
        """Return the channel of a layer of that name; `is_measured` has to be False."""
        if self.range is not None:
            low, high = self.range
            return InputLayer.from_range(name, low, high, clip=self.clip, units=self.units)
        assert self.mean is not None  # checked above
        assert self.std is not None
        return replace(InputLayer.from_statistics(name, mean=self.mean, std=self.std), units=self.units)


def _by_name(given: object) -> object:
    if isinstance(given, list | tuple):
        return {str(name): {} for name in given}
    if isinstance(given, Mapping):
        return {name: {} if one is None else one for name, one in given.items()}
    return given


class InputsConfig(ConfigModel):
    """Layers in the order of the channels, with their scaling."""

    preset: PresetName | None = None
    """Published models whose scaling is taken for all layers."""
    layers: Annotated[
        dict[str, InputConfig] | None,
        BeforeValidator(_by_name, json_schema_input_type=dict[str, InputConfig | None] | list[str] | None),
    ] = None
    """Names, or scaling by name; the preset's layers if left out. Names without scaling are measured on tiles of the
    training scenes."""

    @model_validator(mode="after")
    def _stated_once(self) -> Self:
        if not self.layers and (self.preset is None or CUBE_PRESETS[self.preset].order is None):
            raise ValueError(
                "inputs need layers, in the order of the channels; only the preset tss-v1 has some of its own"
            )
        scaled = [name for name, layer in (self.layers or {}).items() if not layer.is_measured]
        if self.preset is not None:
            if scaled:
                raise ValueError(
                    f"the preset scales all layers; leave out the scaling of {', '.join(scaled)}, or the preset"
                )
            preset_named(self.preset).inputs_for(self.names)
        if scaled and len(scaled) < len(self.layers or {}):
            missing = [name for name in self.names if name not in scaled]
            raise ValueError(f"either all layers are scaled here or none; nothing is said of {', '.join(missing)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Layers in order."""
        if self.layers:
            return tuple(self.layers)
        assert self.preset is not None  # checked above
        return CUBE_PRESETS[self.preset].order or ()

    def channels(self) -> tuple[InputLayer, ...] | None:
        """Return the channels; None where they are to be measured."""
        if self.preset is not None:
            return preset_named(self.preset).inputs_for(self.names)
        assert self.layers is not None  # checked above
        if any(layer.is_measured for layer in self.layers.values()):
            return None
        return tuple(layer.layer(name) for name, layer in self.layers.items())


Inputs = Annotated[
    InputsConfig, BeforeValidator(alone("layers", list, tuple), json_schema_input_type=InputsConfig | list[str])
]
"""Inputs, or the names of layers alone, which are then measured."""


@lru_cache(maxsize=16)
def _stride(architecture: str, encoder: str, *, options: str) -> int:
    # Remembered, because it is asked again by every check of one config, and a network is built for the answer.
    from rtsx.training.networks import stride_of  # here, because it loads torch

    return stride_of(NetworkSpec(architecture=architecture, encoder=encoder, options=json.loads(options)))


def downsampling(network: NetworkSpec) -> int:
    """Return the total down-sampling of a network, px.

    Examples
    --------
    >>> downsampling(NetworkSpec(architecture="Unet", encoder="resnet18"))
    32
    """
    return _stride(network.architecture, network.encoder, options=json.dumps(network.options, sort_keys=True))


_FILES = (".pth", ".pt", ".safetensors")


def _known(network: NetworkSpec, info: ValidationInfo) -> NetworkSpec:
    """Return the network, which can be built, with the path of its weights counting from the folder of the config."""
    if not is_glance(info):
        downsampling(network)
    weights = network.encoder_weights
    is_file = weights is not None and weights.endswith(_FILES)
    return replace(network, encoder_weights=from_folder(str(weights), info)) if is_file else network


Network = Checked[Annotated[NetworkSpec, AfterValidator(_known)]]
"""Architecture and encoder."""


class SplitConfig(ConfigModel):
    """Parts of the training scenes that are held out; a group is never divided."""

    validation: float = Field(default=0.2, gt=0, lt=1)
    """Part of all scenes that choose epoch, threshold and temperature; at least one group."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Part of all scenes that only measure the result; above 0, at least one group."""
    seed: int = 0
    """Seed of the draw."""

    @model_validator(mode="after")
    def _leaves_some(self) -> "SplitConfig":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation and test are parts of all scenes that leave some for training; got {self.validation} and "
                f"{self.test}"
            )
        return self


def split_scenes(groups: Sequence[str], split: SplitConfig) -> tuple[list[int], list[int], list[int]]:
    """Return places of the scenes for training, validation and test, each ascending; a pure function of its arguments.

    Groups are shuffled, and given to validation, then to test, until each has its part of the scenes.

    Raises
    ------
    ConfigError
        There are too few groups.

    Examples
    --------
    >>> split_scenes(["a", "a", "b", "c", "d"], SplitConfig(validation=0.25))
    ([0, 1, 2, 4], [3], [])
    """
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    # Sorted first, so that the draw does not depend on the order in which the scenes are listed.
    order = sorted(members)
    random.Random(split.seed).shuffle(order)
    wanted = [split.validation] + ([split.test] if split.test else [])
    if len(order) <= len(wanted):
        raise ConfigError(
            f"A split into training, validation{' and test' if split.test else ''} needs more than {len(wanted)} groups; "
            f"the scenes are of {len(order)}: {', '.join(sorted(members))}. Give scenes another group, or list the scenes "
            "of each set"
        )
    held: list[list[int]] = []
    for later, part in enumerate(wanted, 1):
        taken: list[int] = []
        # The last groups are left for the sets that come after, training the last of them.
        while not taken or (
            len(order) > len(wanted) - later + 1 and len(taken) + len(members[order[0]]) / 2 <= part * len(groups)
        ):
            taken += members[order.pop(0)]
        held.append(sorted(taken))
    training = sorted(place for group in order for place in members[group])
    return training, held[0], held[1] if split.test else []


Options = dict[str, Any]


def _named(number: str | None) -> Callable[[object], object]:
    """Reads every spelling; a bare number is the option called `number`."""

    def read(given: object) -> object:
        entries = given if isinstance(given, list | tuple) else [given]
        found: dict[object, object] = {}
        for entry in entries:
            if not isinstance(entry, str | Mapping):
                raise ValueError(f"expected a name, or a name with options such as {{Name: {{...}}}}; got {entry!r}")
            for name, options in {entry: None}.items() if isinstance(entry, str) else entry.items():
                if name in found:
                    raise ValueError(f"{name} is named twice; name it once")
                found[name] = _options(name, options, number)
        return found

    return read


def _options(name: object, given: object, number: str | None) -> object:
    if given is None:
        return {}
    if isinstance(given, int | float) and not isinstance(given, bool) and number is not None:
        return {number: given}
    if not isinstance(given, Mapping):
        usual = "" if number is None else f", or a number, its {number}"
        raise ValueError(f"{name} takes options such as {{option: value}}{usual}; got {given!r}")
    return dict(given)


def _one(given: dict[str, Options]) -> dict[str, Options]:
    if len(given) != 1:
        raise ValueError(f"expected one name; got {', '.join(given) or 'none'}")
    return given


_Spelled = dict[str, Options | None] | list[str | dict[str, Options | None]] | str
_Weighed = dict[str, Options | float | None] | list[str | dict[str, Options | float | None]] | str

Named = Annotated[dict[str, Options], BeforeValidator(_named(None), json_schema_input_type=_Spelled)]
"""Options by name, in order."""
NamedOne = Annotated[Named, AfterValidator(_one)]
"""One name with its options."""
Losses = Annotated[dict[str, Options], BeforeValidator(_named("weight"), json_schema_input_type=_Weighed)]
"""Options by name; a number is the weight."""
Augmentations = Annotated[dict[str, Options], BeforeValidator(_named("probability"), json_schema_input_type=_Weighed)]
"""Options by name, in order; a number is the probability."""
