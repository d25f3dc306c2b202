"""Layers that are made from others of the same pixel, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CubeError

DerivedKernel = Callable[..., NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class DerivedLayer:
    """A layer made from others of the same pixel."""

    name: str
    """Name of the variable."""
    needs: tuple[str, ...]
    """Layers that the kernel takes, in its order."""
    units: str
    """Physical unit of the answer; ``1`` or ``index`` where it has none."""
    kernel: DerivedKernel | None
    """From physical float32 arrays of equal shape, NaN where invalid, to float32; None for ndvi, which has exact rules
    of its own (see `add_ndvi`)."""
    long_name: str = ""
    """What a plot calls it."""


_KNOWN: dict[str, DerivedLayer] = {
    "ndvi": DerivedLayer(
        name="ndvi",
        needs=("red", "nir"),
        units="index",
        kernel=None,
        long_name="normalised difference vegetation index",
    )
}


def derived_layer(
    name: str, *, needs: Sequence[str], units: str, long_name: str = ""
) -> Callable[[DerivedKernel], DerivedKernel]:
    """Decorator that makes a function a layer which recipes and YAML files can name; the function stays what it is.

    Parameters
    ----------
    name, needs, units, long_name
        Fields of `DerivedLayer`.

    Raises
    ------
    CubeError
        Another function has that name already.

    Examples
    --------
    >>> @derived_layer("ndwi", needs=("green", "nir"), units="index")
    ... def ndwi(green, nir):
    ...     return (green - nir) / (green + nir)
    >>> get_derived("ndwi").needs
    ('green', 'nir')
    """

    def register(kernel: DerivedKernel) -> DerivedKernel:
        before = _KNOWN.get(name)
        # A cell of a notebook that runs again replaces its own function, and nobody else's.
        if before is not None and _place(before.kernel) != _place(kernel):
            raise CubeError(
                f"Derived layer {name!r} is taken by {_place(before.kernel)}; {_place(kernel)} needs another name."
            )
        _KNOWN[name] = DerivedLayer(name=name, needs=tuple(needs), units=units, kernel=kernel, long_name=long_name)
        return kernel

    return register


def _place(kernel: DerivedKernel | None) -> str:
    """Return where a kernel was defined; ndvi, which has none, is ours."""
    return "rtsx" if kernel is None else f"{kernel.__module__}.{kernel.__qualname__}"


def get_derived(name: str) -> DerivedLayer:
    """Return the layer that was registered under a name.

    Raises
    ------
    CubeError
        There is none.
    """
    if name not in _KNOWN:
        raise CubeError(
            f"Known derived layers are {sorted(_KNOWN)}; got {name!r}. Choose one. In Python, @derived_layer({name!r}, needs=...) adds one."
        )
    return _KNOWN[name]
