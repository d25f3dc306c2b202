"""Presets: how the published models want each layer scaled. A model is useless under the wrong one.

A preset belongs to the weights, not to the data: everything is in physical units (reflectance, m, degree), and a cube
says by its packing how stored values become physical. What checkpoints store as `norm_factors` is never read, because
the published files carry wrong ones for ndvi.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rtsx.errors import BundleError
from rtsx.model.inputs import InputLayer
from rtsx.model.layer_names import canonical_layers

__all__ = ["PRESETS", "Preset", "preset_named"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The scaling of every layer that a family of models may use."""

    name: str
    """Name by which files and users refer to it."""
    scaling: Mapping[str, InputLayer]
    """One input layer per name of a layer."""
    fill: float
    """Channel value of an invalid pixel, in every layer."""
    classes: tuple[str, ...]
    """What the family's binary models find."""

    def inputs_for(self, layers: Iterable[str]) -> tuple[InputLayer, ...]:
        """Input layers in the order given; the predecessors' names are understood.

        Raises
        ------
        BundleError
            The preset does not know a layer.

        Examples
        --------
        >>> [layer.name for layer in PRESETS["tss-v1"].inputs_for(["ndvi", "planetscope"])]
        ['ndvi', 'blue', 'green', 'red', 'nir']
        """
        names = canonical_layers(layers)
        unknown = [name for name in names if name not in self.scaling]
        if unknown:
            raise BundleError(
                f"Preset {self.name!r} has no scaling for layers {unknown}; it has {sorted(self.scaling)}. "
                "Use the preset that the weights were trained with, or pass inputs=."
            )
        return tuple(self.scaling[name] for name in names)


def _by_name(*layers: InputLayer) -> Mapping[str, InputLayer]:
    return {layer.name: layer for layer in layers}


_OPTICAL = ("blue", "green", "red", "nir")
_TREND = ("tc_brightness", "tc_greenness", "tc_wetness")

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        # DN / 3000 = reflectance / 0.3; nothing is clipped.
        Preset(
            name="tss-v1",
            scaling=_by_name(
                *(InputLayer.from_range(name, 0, 0.3, clip=False, units="reflectance") for name in _OPTICAL),
                InputLayer.from_range("ndvi", -1, 1, clip=False, units="index"),
                InputLayer.from_range("relative_elevation", -50, 50, clip=False, units="m"),
                InputLayer.from_range("slope", 0, 90, clip=False, units="degree"),
                *(InputLayer.from_range(name, 0, 255, clip=False, units="1") for name in _TREND),
            ),
            fill=0.0,
            classes=("thaw_slump",),
        ),
        Preset(
            name="darts-v2",
            scaling=_by_name(
                *(InputLayer.from_range(name, -0.1, 0.5, clip=True, units="reflectance") for name in _OPTICAL),
                InputLayer.from_range("ndvi", -1, 1, clip=True, units="index"),
                InputLayer.from_range("relative_elevation", -50, 50, clip=True, units="m"),
                InputLayer.from_range("slope", 0, 90, clip=True, units="degree"),
                *(InputLayer.from_range(name, 0, 255, clip=True, units="1") for name in _TREND),
                InputLayer.from_range("aspect", 0, 360, clip=True, units="degree"),
                InputLayer.from_range("hillshade", 0, 1, clip=True, units="1"),
                InputLayer.from_range("curvature", -1, 1, clip=True),
                InputLayer.from_range("dem", -100, 3000, clip=True, units="m"),
            ),
            fill=0.0,
            classes=("thaw_slump",),
        ),
    )
}
"""The presets of the published models."""


def preset_named(name: str) -> Preset:
    """Look a preset up.

    Raises
    ------
    BundleError
        There is none of this name.

    Examples
    --------
    >>> preset_named("darts-v2").fill
    0.0
    """
    if name not in PRESETS:
        raise BundleError(
            f"The preset has to be one of {sorted(PRESETS)}; got {name!r}. For another scaling pass mean= and std=."
        )
    return PRESETS[name]
