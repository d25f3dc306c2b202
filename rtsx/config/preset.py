"""What a preset means for a cube: the choices that a model was trained under."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from rtsx.cube.align.resampling import Resampling

__all__ = ["PRESETS", "Preset", "PresetName", "tcvis_window"]

PresetName = Literal["tss-v1", "darts-v2"]
_TCVIS = ("tc_brightness", "tc_greenness", "tc_wetness")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Choices that hold where a config says nothing itself."""

    mask_rule: str
    """Rule that reads UDM2."""
    terrain_grid: Literal["source", "cube"]
    """Where terrain is computed."""
    terrain_resampling: Resampling
    """How terrain that was computed on its own grid is warped."""
    resampling: Mapping[str, Resampling]
    """How layers are warped, by name."""
    derived: tuple[str, ...]
    """Layers that are computed from others, where those are there."""
    order: tuple[str, ...] | None
    """Order of the layers; None where the checkpoint has it."""
    windows: tuple[tuple[int, str], ...]
    """Last image year of each published window of the trends, and the window."""


_LATEST = 9999
PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "tss-v1": Preset(
            mask_rule="tss-v1",
            terrain_grid="source",
            terrain_resampling="cubic",
            resampling={"dem": "cubic", **dict.fromkeys(_TCVIS, "nearest")},
            derived=("ndvi",),
            order=("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope", *_TCVIS),
            windows=((_LATEST, "2000-2019"),),
        ),
        "darts-v2": Preset(
            mask_rule="darts-v2",
            terrain_grid="cube",
            terrain_resampling="cubic",
            resampling={"dem": "cubic", **dict.fromkeys(_TCVIS, "cubic")},
            derived=("ndvi",),
            order=None,
            windows=((2018, "2000-2019"), (2019, "2001-2020"), (2021, "2003-2022"), (_LATEST, "2005-2024")),
        ),
    }
)
"""The published models of DARTS v1 (thaw-slump-segmentation), and those of darts-nextgen."""


def tcvis_window(preset: Preset, year: int) -> str:
    """Window of the trends that goes with images of a year.

    Examples
    --------
    >>> [tcvis_window(PRESETS["darts-v2"], year) for year in (2017, 2019, 2021, 2024)]
    ['2000-2019', '2001-2020', '2003-2022', '2005-2024']
    """
    return next(window for last, window in preset.windows if year <= last)
