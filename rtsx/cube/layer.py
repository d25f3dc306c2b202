"""One named input band, and where it comes from."""

from dataclasses import dataclass
from os import PathLike

from rtsx.errors import CubeError

__all__ = ["RESERVED_NAMES", "Layer"]

RESERVED_NAMES = frozenset({"x", "y", "time", "band", "spatial_ref", "valid"})
"""Names of a cube's coordinates and mask, which no layer can have: xarray would take it for one of them."""


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
