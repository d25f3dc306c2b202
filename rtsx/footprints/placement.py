"""Where a prediction lies on the ground and on its lattice."""

from dataclasses import dataclass

import numpy as np
import odc.geo.xr  # noqa: F401  registers the accessor .odc
import xarray as xr
from affine import Affine
from pyproj import CRS

from rtsx.cube.georeference import require_ground, stated_geobox
from rtsx.errors import CubeError, FootprintError

__all__ = ["Placement"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The step from pixels to ground coordinates, checked to be free of rotation."""

    crs: CRS
    """Coordinate reference system of the raster."""
    transform: Affine
    """Pixel (column, row) to ground (x, y); no rotation and no shear, but pixels need not be square."""
    shape: tuple[int, int]
    """Rows and columns of the raster, both at least one."""
    row: int
    """Row of the raster's first pixel on the lattice."""
    column: int
    """Column of the raster's first pixel on the lattice."""

    @classmethod
    def of(cls, pred: xr.Dataset) -> "Placement":
        """Read the placement of a prediction from its coordinates.

        Parameters
        ----------
        pred : xarray.Dataset
            With dimensions `y` and `x`, their coordinates, and a grid mapping (`spatial_ref`). The attribute
            `lattice_origin` (x, y) says where the lattice's pixel (0, 0) begins; without it, CRS coordinates (0, 0).

        Raises
        ------
        FootprintError
            Without pixels, coordinates or CRS, or with a rotated grid.
        """
        shape = (pred.sizes.get("y", 0), pred.sizes.get("x", 0))
        if 0 in shape:
            raise FootprintError(
                f"a prediction has pixels along 'y' and 'x', but its sizes are {dict(pred.sizes)}: "
                "select a part that is not empty, or rename the dimensions"
            )
        if not {"y", "x"} <= set(pred.coords):
            raise FootprintError(
                f"a prediction has coordinates 'y' and 'x', but came with {sorted(map(str, pred.coords))}: "
                "take them over from the cube with pred.assign_coords(y=cube.y, x=cube.x)"
            )
        mappings = {
            places.get("grid_mapping")
            for each in (pred, *pred.data_vars.values())
            for places in (each.attrs, each.encoding)
        }
        for name in mappings - {None, *pred.coords}:
            raise FootprintError(
                f"the CRS of the prediction is said to be in the coordinate {name!r}, but that is not there: "
                "attach one with pred.rio.write_crs(...)"
            )
        try:
            geobox = pred.odc.geobox
        except ValueError as error:
            raise FootprintError(f"the coordinates of the prediction make no regular grid: {error}") from error
        if geobox is None or geobox.crs is None:
            raise FootprintError("a prediction has a CRS, but came without: attach one with pred.rio.write_crs(...)")
        try:
            require_ground(geobox.crs, "the prediction", cure="pred.rio.write_crs('EPSG:...')")
            crs, geobox = geobox.crs, stated_geobox(pred, geobox)
        except CubeError as error:
            raise FootprintError(str(error)) from error
        transform = Affine(*geobox.affine[:6])
        if transform.b or transform.d:
            raise FootprintError(
                f"outlines need a grid whose rows run along x, but the transform {tuple(transform[:6])} is rotated: "
                "warp the prediction to an upright grid first, for example with pred.rio.reproject(pred.rio.crs)"
            )
        for name, first, step in (("y", transform.f, transform.e), ("x", transform.c, transform.a)):
            off = np.abs((pred[name].values - first) / step - np.arange(pred.sizes[name]) - 0.5) > 0.01
            if off.any():
                raise FootprintError(
                    f"the coordinate {name!r} of a prediction goes on in equal steps of {step}, but pixel "
                    f"{np.argmax(off)} of it does not: select neighbouring pixels only, or warp to a regular grid"
                )
        x, y = pred.attrs.get("lattice_origin", (0.0, 0.0))
        return cls(
            crs=CRS.from_user_input(crs.to_wkt()),
            transform=transform,
            shape=shape,
            row=round((transform.f - y) / transform.e),
            column=round((transform.c - x) / transform.a),
        )

    def lattice_names(self, first: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        """Return a name for each pixel, given as row * columns + column: its row and column on the lattice."""
        rows, columns = np.divmod(first, self.shape[1])
        return [f"y{row}x{column}" for row, column in zip(rows + self.row, columns + self.column, strict=True)]
