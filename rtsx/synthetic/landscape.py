"""Kinds of ground: what grows on it, what colour its sediment has, and how high its hills are."""

from collections.abc import Mapping
from dataclasses import dataclass

from rtsx.errors import CubeError

__all__ = ["LANDSCAPES", "Landscape", "landscape_named"]

Colour = tuple[float, float, float, float]
"""Reflectance in blue, green, red and nir."""


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """One kind of ground. Models that have seen one kind alone are worth little on another, as in the real Arctic."""

    tussock: Colour
    """The commonest cover."""
    shrub: Colour
    """Willow and dwarf birch, in hollows and along brooks."""
    sedge: Colour
    """Wet meadow."""
    heath: Colour
    """Dry cover of convex ground."""
    rock: Colour
    """Frost-shattered rock and dry till on hilltops."""
    gravel: Colour
    """River bars and beaches."""
    basin: Colour
    """The floor of a drained lake."""
    mud_wet: Colour
    """Saturated thawed sediment."""
    mud_dry: Colour
    """Drained sediment."""
    headwall: Colour
    """The ice-rich headwall of a slump: dark, wet, bare."""
    regrowth: Colour
    """Young plants on stabilised floors."""
    relief: float
    """Height of hills, as a part of the plateau's."""


LANDSCAPES: Mapping[str, Landscape] = {
    "plateau": Landscape(
        tussock=(0.036, 0.060, 0.063, 0.232),
        shrub=(0.026, 0.049, 0.038, 0.300),
        sedge=(0.030, 0.049, 0.045, 0.185),
        heath=(0.056, 0.080, 0.090, 0.212),
        rock=(0.094, 0.122, 0.148, 0.195),
        gravel=(0.108, 0.138, 0.164, 0.205),
        basin=(0.032, 0.062, 0.051, 0.315),
        mud_wet=(0.052, 0.076, 0.094, 0.128),
        mud_dry=(0.088, 0.118, 0.147, 0.200),
        headwall=(0.043, 0.056, 0.067, 0.088),
        regrowth=(0.034, 0.062, 0.052, 0.285),
        relief=1.0,
    ),
    # Sparse, dry and bright: slumps are the dark places, where on the plateau they are the bare ones.
    "polar-desert": Landscape(
        tussock=(0.092, 0.121, 0.148, 0.212),
        shrub=(0.060, 0.086, 0.092, 0.235),
        sedge=(0.048, 0.072, 0.074, 0.190),
        heath=(0.112, 0.146, 0.176, 0.228),
        rock=(0.148, 0.182, 0.212, 0.250),
        gravel=(0.136, 0.168, 0.196, 0.236),
        basin=(0.064, 0.094, 0.096, 0.240),
        mud_wet=(0.038, 0.054, 0.066, 0.086),
        mud_dry=(0.062, 0.084, 0.103, 0.136),
        headwall=(0.030, 0.039, 0.046, 0.060),
        regrowth=(0.074, 0.102, 0.116, 0.225),
        relief=0.6,
    ),
    # Lush and flat, on dark, organic sediment.
    "yedoma": Landscape(
        tussock=(0.024, 0.048, 0.040, 0.268),
        shrub=(0.019, 0.040, 0.029, 0.335),
        sedge=(0.021, 0.040, 0.032, 0.215),
        heath=(0.036, 0.060, 0.058, 0.240),
        rock=(0.060, 0.080, 0.092, 0.150),
        gravel=(0.074, 0.096, 0.112, 0.148),
        basin=(0.024, 0.052, 0.038, 0.350),
        mud_wet=(0.026, 0.036, 0.043, 0.066),
        mud_dry=(0.042, 0.056, 0.068, 0.102),
        headwall=(0.020, 0.026, 0.030, 0.044),
        regrowth=(0.026, 0.052, 0.040, 0.300),
        relief=0.45,
    ),
}
"""The kinds of ground by name; the first is that of the demo."""


def landscape_named(name: str) -> Landscape:
    """Look a kind of ground up.

    Raises
    ------
    CubeError
        There is none of this name.

    Examples
    --------
    >>> landscape_named("plateau").relief
    1.0
    """
    if name not in LANDSCAPES:
        raise CubeError(f"The landscape has to be one of {', '.join(LANDSCAPES)}; got {name!r}.")
    return LANDSCAPES[name]
