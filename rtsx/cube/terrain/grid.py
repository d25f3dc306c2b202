"""The grid under a window of elevation: ground size of its pixels, direction of true north, position of the sun."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from rtsx.cube.georeference import describe_geobox
from rtsx.errors import CubeError

Floats = NDArray[np.float64]

_STEP = 1e-5
"""Degrees of latitude, about a metre, over which the direction of a meridian is measured: shorter, and the rounding of
coordinates shows; longer, and the meridian bends."""


_UPRIGHT = ("Mercator (variant A)", "Mercator (variant B)", "Popular Visualisation Pseudo Mercator")

_THINNEST_M = 1e-6
"""Metres that the side of a pixel has at least."""


def is_north_up(crs: str) -> bool:
    """Test whether meridians are columns and parallels rows: geographic and Mercator."""
    system = CRS.from_user_input(crs)
    operation = system.coordinate_operation
    return system.is_geographic or (operation is not None and operation.method_name in _UPRIGHT)


def pixel_lengths(crs: str, edges: Floats, width: float) -> tuple[Floats, Floats]:
    """Return the height and width in m of the pixels of each row on the ellipsoid, along geodesics.

    Parameters
    ----------
    crs
        One in which meridians are columns.
    edges
        (row + 1,) y of the edges of rows, CRS units.
    width
        Width of a pixel, CRS units.
    """
    system = CRS.from_user_input(crs)
    geodesic = system.get_geod()
    assert geodesic is not None  # only a CRS of heights alone has no ellipsoid
    to_lonlat = _to_lonlat(system)
    x = np.zeros_like(edges)
    lon, lat = to_lonlat.transform(x, edges)
    # A raster whose pixels are centred on the pole has an edge beyond it.
    lat = np.clip(lat, -90, 90)
    _, _, heights = geodesic.inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
    middle = (edges[:-1] + edges[1:]) / 2
    lon, lat = to_lonlat.transform(x[1:], middle)
    right, _ = to_lonlat.transform(x[1:] + width, middle)
    lat = np.clip(lat, -90, 90)
    _, _, widths = geodesic.inv(lon, lat, right, lat)
    # A pixel on the pole has no width, and a division has to have a result.
    return np.maximum(heights, _THINNEST_M), np.maximum(widths, _THINNEST_M)


def north_vector(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the unit vector (x, y) of true north at points of a projected CRS, in the plane of its map."""
    system = CRS.from_user_input(crs)
    to_lonlat = _to_lonlat(system)
    lon, lat = to_lonlat.transform(x, y)
    # Stepped towards the equator, because there is no north of the pole.
    step = np.where(lat > 0, -_STEP, _STEP)
    there_x, there_y = to_lonlat.transform(lon, lat + step, direction="INVERSE")
    east, north = (there_x - x) * np.sign(step), (there_y - y) * np.sign(step)
    length = np.hypot(east, north)
    return east / length, north / length


def _to_lonlat(system: CRS) -> Transformer:
    # To the CRS's own datum: a change of datum would ask for grid files, and turns nothing by a measurable angle.
    assert system.geodetic_crs is not None
    return Transformer.from_crs(system, system.geodetic_crs, always_xy=True)


SUN_AZIMUTH = 225.0
"""Degrees clockwise from true north, where no image says otherwise; the field's default."""
SUN_ELEVATION = 25.0
"""Degrees above the horizon, where no image says otherwise; the field's default."""

_LATTICE = 32
"""Pixels between the points at which true north is computed; it is interpolated in between."""


@dataclass(frozen=True, kw_only=True)
class TerrainGrid:
    """Everything about a window that a terrain kernel needs besides the heights.

    Pixels are known by whole numbers, counted from the origin of the CRS: however a raster is cut into windows or tiles,
    a pixel has the same size and the same north, to the last bit.

    Raises
    ------
    CubeError
        The sun stands nowhere in the sky.
    """

    crs: str
    """``EPSG:CODE`` or WKT."""
    pixel: tuple[float, float]
    """(y, x): CRS units from one pixel to the next; y is negative where north is up."""
    phase: tuple[float, float]
    """(y, x): distance of pixel edges from whole multiples of the pixel, in pixels, 0 up to 1."""
    corner: tuple[int, int]
    """(y, x) of the first pixel, counted from the origin of the CRS."""
    shape: tuple[int, int]
    """(y, x) of the window."""
    sun_azimuth: float = SUN_AZIMUTH
    """Degrees clockwise from true north, 0-360."""
    sun_elevation: float = SUN_ELEVATION
    """Degrees above the horizon, 0-90."""

    def __post_init__(self) -> None:
        """Check the sun; the rest comes from a geobox."""
        if not (0 <= self.sun_azimuth <= 360 and 0 <= self.sun_elevation <= 90):
            raise CubeError(
                "The sun has an azimuth of 0-360 degrees and an elevation of 0-90 degrees; got "
                f"{self.sun_azimuth} and {self.sun_elevation}. An image taken at night has no hillshade."
            )

    @classmethod
    def from_geobox(
        cls, geobox: GeoBox, *, sun_azimuth: float = SUN_AZIMUTH, sun_elevation: float = SUN_ELEVATION
    ) -> Self:
        """Return the ground under a window.

        Raises
        ------
        CubeError
            The window has no CRS, or its rows do not run along the x of its CRS.

        Examples
        --------
        >>> from affine import Affine
        >>> ground = TerrainGrid.from_geobox(GeoBox((2, 3), Affine(0.25, 0, -150, 0, -0.25, 60), "EPSG:4326"))
        >>> ground.corner, ground.widths_m().round().tolist(), ground.heights_m().round().tolist()
        ((-240, -600), [14003.0, 14108.0], [27853.0, 27851.0])
        """
        affine = geobox.affine
        if geobox.crs is None or affine.b or affine.d:
            raise CubeError(
                "Terrain is computed on rasters with a CRS whose rows run along its x; got "
                f"{describe_geobox(geobox)}. Warp the elevation first, e.g. with gdalwarp."
            )
        pixel = (float(affine.e), float(affine.a))
        counted = (float(affine.f) / pixel[0], float(affine.c) / pixel[1])
        # Rounded, because corners of tiles carry the rounding errors of whoever wrote them.
        phase = tuple(round(value - np.floor(value), 4) % 1.0 for value in counted)
        corner = tuple(round(value - part) for value, part in zip(counted, phase, strict=True))
        return cls(
            crs=str(geobox.crs),
            pixel=pixel,
            phase=(phase[0], phase[1]),
            corner=(corner[0], corner[1]),
            shape=(int(geobox.shape[0]), int(geobox.shape[1])),
            sun_azimuth=sun_azimuth,
            sun_elevation=sun_elevation,
        )

    def window(self, rows: slice, columns: slice) -> Self:
        """Return the ground under a part; rows and columns are counted from this window's corner and may lie outside it.

        Examples
        --------
        >>> from affine import Affine
        >>> ground = TerrainGrid.from_geobox(GeoBox((50, 50), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413"))
        >>> ground.window(slice(-3, 10), slice(0, 5)).corner
        (-2503, 500)
        """
        corner = (self.corner[0] + rows.start, self.corner[1] + columns.start)
        return replace(self, corner=corner, shape=(rows.stop - rows.start, columns.stop - columns.start))

    def heights_m(self) -> NDArray[np.float64]:
        """Return (y,) height of the pixels of each row in m.

        Geographic and Mercator grids: along the geodesic. All others: as the map says, which in EPSG:3413 is 3 % short
        at the pole, right at 70° N and 6 % long at 55° N.
        """
        return self._lengths()[0]

    def widths_m(self) -> NDArray[np.float64]:
        """Return (y,) width of the pixels of each row in m; see `heights_m`."""
        return self._lengths()[1]

    def _lengths(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if is_north_up(self.crs):
            edges = (np.arange(self.shape[0] + 1, dtype=np.float64) + self.corner[0] + self.phase[0]) * self.pixel[0]
            return pixel_lengths(self.crs, edges, abs(self.pixel[1]))
        unit = float(CRS.from_user_input(self.crs).axis_info[0].unit_conversion_factor)
        height, width = (np.full(self.shape[0], abs(length) * unit) for length in self.pixel)
        return height, width

    def true_north(self) -> NDArray[np.float32]:
        """Return (2, y, x): x and y of the unit vector towards true north, in the plane of the map; read-only.

        Exact at points 32 pixels apart, bilinear in between: at 3 m, from 10 km off the pole on, within 0.001° and 0.00005
        of unit length.
        """
        if is_north_up(self.crs):
            return np.broadcast_to(np.array([0, 1], np.float32)[:, None, None], (2, *self.shape))
        rows, columns = (
            np.arange(first // _LATTICE, (first + count - 1) // _LATTICE + 2)
            for first, count in zip(self.corner, self.shape, strict=True)
        )
        y = (rows * _LATTICE + 0.5 + self.phase[0]) * self.pixel[0]
        x = (columns * _LATTICE + 0.5 + self.phase[1]) * self.pixel[1]
        grid_x, grid_y = np.meshgrid(x, y)
        nodes = np.stack(north_vector(self.crs, grid_x, grid_y))
        return _between(_between(nodes, self.corner[1], self.shape[1], axis=2), self.corner[0], self.shape[0], axis=1)


def _between(nodes: NDArray[np.floating], first: int, count: int, *, axis: int) -> NDArray[np.float32]:
    """Return values at `count` pixels from `first` on, along one axis, from values every `_LATTICE` pixels."""
    cell, part = np.divmod(np.arange(first, first + count), _LATTICE)
    cell -= cell[0]
    nodes = nodes.astype(np.float32, copy=False)
    values, steps = nodes.take(cell, axis), nodes.take(cell + 1, axis)
    # In place, because these are as large as the window.
    steps -= values
    steps *= (part / _LATTICE).astype(np.float32).reshape(np.where(np.arange(3) == axis, count, 1))
    values += steps
    return values
