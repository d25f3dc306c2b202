"""One named input band, and where it comes from."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from rtsx.arguments import typed
from rtsx.errors import CubeError

__all__ = ["Layer", "require_layer_names"]

_RESERVED = frozenset({"x", "y", "time", "band", "spatial_ref", "valid"})
"""Names of a cube's coordinates and mask, which no layer can have: xarray would take it for one of them."""

_GROUP = re.compile(r"build|\d+x")
"""Groups of a store, of its build and its overviews."""


def require_layer_names(names: Sequence[object], *, cure: str) -> None:
    """Raise unless every layer of a cube can have its name, so that none vanishes behind another or a coordinate.

    Parameters
    ----------
    names
        All layers of the cube.
    cure
        Sentence that says how to rename them.

    Raises
    ------
    CubeError
        A name is empty, no text, a path in a store, taken by a coordinate or the mask, or there twice, be it in another case.

    Examples
    --------
    >>> require_layer_names(["red", "x"], cure="Name them with layers=[...].")
    Traceback (most recent call last):
    ...
    rtsx.errors.CubeError: No layer can be called 'x': coordinates and mask of a cube are. Name them with layers=[...].
    """
    odd = [name for name in names if not isinstance(name, str) or not name.strip()]
    if odd:
        raise CubeError(f"A layer needs a name of text, such as 'red'; among {list(names)} are {odd}. {cure}")
    texts = [str(name) for name in names]
    reserved = [name for name in texts if name in _RESERVED]
    if reserved:
        raise CubeError(
            f"No layer can be called {', '.join(map(repr, reserved))}: coordinates and mask of a cube are. {cure}"
        )
    paths = [name for name in texts if "/" in name or name.startswith(".") or _GROUP.fullmatch(name)]
    if paths:
        raise CubeError(
            f"No layer can be called {', '.join(map(repr, paths))}: a Zarr store takes it for a group. {cure}"
        )
    folded = Counter(name.strip().casefold() for name in texts)
    alike = [name for name in texts if folded[name.strip().casefold()] > 1]
    if alike:
        raise CubeError(
            f"Layers {alike} have one name, or differ in case and blanks only, which some file systems and readers do not tell "
            f"apart. {cure}"
        )


@typed(CubeError)
@dataclass(frozen=True)
class Layer:
    """One band of a raster file as a variable of a cube.

    Examples
    --------
    >>> Layer("red", "scene.tif", band=3, scale_factor=1e-4, nodata=0, units="reflectance").band
    3
    """

    name: str
    """Name of the variable, such as ``red``; what a bundle asks for."""
    source: str | PathLike[str]
    """Path or URL of a raster file that GDAL reads."""
    band: int | str = 1
    """Number of the band in the file, counted from 1, or its description."""
    scale_factor: float | None = None
    """Physical units per stored unit; None takes what the file declares."""
    add_offset: float | None = None
    """Physical value of stored 0; None takes what the file declares."""
    nodata: float | None = None
    """Stored value that marks a missing pixel; None takes what the file declares."""
    units: str | None = None
    """Physical unit: ``reflectance``, ``index``, ``m``, ``degree`` or ``1``; None takes what the file declares."""
    long_name: str | None = None
    """What a plot or a reader should call the layer; None leaves it out."""

    def __post_init__(self) -> None:
        """Refuse names and bands that cannot be."""
        if not self.name:
            raise CubeError("A layer needs a name; got ''. Name it after what it holds, such as 'red'.")
        if isinstance(self.band, int) and self.band < 1:
            raise CubeError(f"Bands are counted from 1; layer {self.name!r} asks for band {self.band}.")
