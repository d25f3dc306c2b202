"""Arrays of a Zarr group as a reader."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.align.reader import WindowReader
from rtsx.cube.zarr import open_group, store_failure
from rtsx.errors import CubeError

__all__ = ["ZarrReader"]


@dataclass(frozen=True, kw_only=True)
class ZarrReader:
    """Arrays (y, x) of one dtype and shape in a Zarr group, v2 or v3, each as a band.

    Nothing is opened before the first `read`, and each opens the group anew: it may be used by several threads.

    Examples
    --------
    >>> from affine import Affine
    >>> box = GeoBox((100, 200), Affine(3, 0, 0, 0, -3, 300), "EPSG:3413")
    >>> ZarrReader(path="scene.zarr", arrays=("red", "nir"), geobox=box, dtype=np.dtype("uint16"), nodata=0).count
    2
    """

    path: str
    """Path or URL of the group."""
    arrays: tuple[str, ...]
    """Names of the arrays, in band order."""
    geobox: GeoBox
    """CRS, transform and shape."""
    dtype: np.dtype[Any]
    """Dtype that the arrays are stored in."""
    nodata: float | None
    """Stored value of a missing pixel; None where there is none."""
    asset: str = ""
    """What the group is called in its catalog, for messages."""

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.arrays)

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Stored pixels (band, y, x) of a window; chunks that were never written hold the array's fill value.

        Raises
        ------
        CubeError
            The group cannot be read there, or an array is not the one that was described.
        """
        group = open_group(self.path, {})
        shape = rows.stop - rows.start, columns.stop - columns.start
        pixels = np.empty((len(self.arrays), *shape), self.dtype)
        for place, name in enumerate(self.arrays):
            array = self._array(group, name)
            try:
                # Leading axes of length one, such as a single time, fall away.
                pixels[place] = np.asarray(array[..., rows, columns]).reshape(shape)
            except Exception as error:  # see `store_failure`
                where = f"rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}"
                raise store_failure(self._name, error, what=f"{name} cannot be read in {where}") from error
        return pixels

    def coarser(self, factor: float) -> Self:
        """Itself: the levels that Zarr stores have no common rule for what a coarse pixel is the mean of."""
        return self

    @property
    def _name(self) -> str:
        return f"{self.path}{f' (asset {self.asset!r})' if self.asset else ''}"

    def _array(self, group: zarr.Group, name: str) -> zarr.Array[Any]:
        """An array, after a look at what it says of itself."""
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            raise CubeError(
                f"{self._name} has no array {name!r}; there are {sorted(group.array_keys())}. Correct the names of its bands."
            )
        differs: list[tuple[str, object, object]] = []
        if array.dtype.newbyteorder("=") != self.dtype:
            differs.append(("dtype", self.dtype, array.dtype))
        expected = self.geobox.shape.yx
        if array.shape[-2:] != expected or not _is_plane(array.shape):
            differs.append(("shape (y, x)", expected, array.shape))
        if differs:
            told = "; ".join(f"{what}: expected {wanted}, found {got}" for what, wanted, got in differs)
            raise CubeError(f"{name} of {self._name} is not what its catalog says it is: {told}. Correct its entry.")
        return array


def _is_plane(shape: Sequence[int]) -> bool:
    return len(shape) >= 2 and all(length == 1 for length in shape[:-2])


_conforms: type[WindowReader] = ZarrReader
