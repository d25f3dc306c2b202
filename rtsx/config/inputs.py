"""Channels of a network: which layers, and how they are scaled."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rtsx.config.preset import PRESETS, PresetName
from rtsx.config.strict import Strict
from rtsx.model import InputLayer, preset_named

__all__ = ["InputConfig", "Inputs", "InputsConfig"]


class InputConfig(Strict):
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
        """The channel of a layer of that name; `is_measured` has to be False."""
        if self.range is not None:
            low, high = self.range
            return InputLayer.from_range(name, low, high, clip=self.clip, units=self.units)
        assert self.mean is not None  # checked above
        assert self.std is not None
        scaled = InputLayer.from_statistics(name, mean=self.mean, std=self.std)
        return InputLayer(name=name, scale=scaled.scale, offset=scaled.offset, units=self.units)


def _by_name(given: object) -> object:
    if isinstance(given, list | tuple):
        return {str(name): {} for name in given}
    if isinstance(given, Mapping):
        return {name: {} if one is None else one for name, one in given.items()}
    return given


def _alone(given: object) -> object:
    return {"layers": given} if isinstance(given, list | tuple) else given


class InputsConfig(Strict):
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
    def _said_once(self) -> Self:
        if not self.layers and (self.preset is None or PRESETS[self.preset].order is None):
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
        return PRESETS[self.preset].order or ()

    def channels(self) -> tuple[InputLayer, ...] | None:
        """The channels; None where they are to be measured."""
        if self.preset is not None:
            return preset_named(self.preset).inputs_for(self.names)
        assert self.layers is not None  # checked above
        if any(layer.is_measured for layer in self.layers.values()):
            return None
        return tuple(layer.layer(name) for name, layer in self.layers.items())


Inputs = Annotated[InputsConfig, BeforeValidator(_alone, json_schema_input_type=InputsConfig | list[str])]
"""Inputs, or the names of layers alone, which are then measured."""
