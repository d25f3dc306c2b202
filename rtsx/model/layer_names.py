"""Names of layers: ours, and what the predecessors call the same thing in their files."""

import difflib
from collections.abc import Iterable, Mapping

from rtsx.errors import BundleError

__all__ = ["LAYER_NAMES", "canonical_layers"]

LAYER_NAMES = (
    "blue",
    "green",
    "red",
    "nir",
    "ndvi",
    "relative_elevation",
    "slope",
    "tc_brightness",
    "tc_greenness",
    "tc_wetness",
    "aspect",
    "hillshade",
    "curvature",
    "dem",
)
"""Every layer that a preset knows how to scale."""

_OPTICAL = ("blue", "green", "red", "nir")
_TREND = ("tc_brightness", "tc_greenness", "tc_wetness")

# A source of the predecessors may stand for several layers, in the order in which its bands were stacked.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "planet": _OPTICAL,
    "planetscope": _OPTICAL,
    "optical": _OPTICAL,
    "sentinel2": _OPTICAL,
    "s2": _OPTICAL,
    "tcvis": _TREND,
    "near_infrared": ("nir",),
    "near-infrared": ("nir",),
    "elevation": ("dem",),
    "arcticdem": ("dem",),
    "rel_elevation": ("relative_elevation",),
    "tcvis_brightness": ("tc_brightness",),
    "tcvis_greenness": ("tc_greenness",),
    "tcvis_wetness": ("tc_wetness",),
}


def canonical_layers(names: Iterable[str]) -> tuple[str, ...]:
    """Our names of layers that may go by the predecessors' names; their sources become several layers.

    Raises
    ------
    BundleError
        A name means no layer, or one layer is meant twice.

    Examples
    --------
    >>> canonical_layers(["ndvi", "tcvis"])
    ('ndvi', 'tc_brightness', 'tc_greenness', 'tc_wetness')
    """
    layers: list[str] = []
    for name in names:
        key = name.lower()
        if key not in LAYER_NAMES and key not in _OTHER_NAMES:
            near = difflib.get_close_matches(key, [*LAYER_NAMES, *_OTHER_NAMES], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise BundleError(
                f"Unknown layer {name!r}; presets know {list(LAYER_NAMES)}.{hint} For any other layer pass layers= "
                "with mean= and std=, or inputs=."
            )
        layers.extend(_OTHER_NAMES.get(key, (key,)))
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise BundleError(f"Layers {twice} are named twice in {list(names)}. Name each layer once.")
    return tuple(layers)
