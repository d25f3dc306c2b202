"""What the bands of well-known products are called and how they are stored, and what no layer can be called."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rtsx.errors import CubeError


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """Bands and packing of one product."""

    name: str
    """Name under which `open_cube` knows it."""
    bands: tuple[tuple[str, ...], ...]
    """Layer names in band order, one tuple per kind of file; the number of bands tells the kinds apart."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""
    nodata: float | None
    """Stored value of a missing pixel; None where the product has none of its own."""
    units: str
    """Physical unit of every band."""

    def names(self, count: int) -> tuple[str, ...]:
        """Return the layer names of a file with `count` bands, in band order.

        Raises
        ------
        CubeError
            The product has no such file.

        Examples
        --------
        >>> SENSORS["planetscope"].names(4)
        ('blue', 'green', 'red', 'nir')
        """
        for names in self.bands:
            if len(names) == count:
                return names
        known = " or ".join(str(len(names)) for names in self.bands)
        raise CubeError(
            f"A {self.name} file has {known} bands; this one has {count}. Name its bands with layers=[...] instead."
        )


_SENTINEL2 = (
    ("blue", "green", "red", "nir"),
    ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"),
    (
        *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
        *("nir", "nir08", "nir09", "swir16", "swir22"),
    ),
)
"""10 m bands; 10 m and 20 m bands; all L2A bands. Names are those of the STAC common names of Sentinel-2."""

SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor(
            name="planetscope",
            bands=(
                ("blue", "green", "red", "nir"),
                ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            ),
            scale_factor=1e-4,
            add_offset=0.0,
            nodata=0,
            units="reflectance",
        ),
        Sensor(
            name="sentinel2-l2a", bands=_SENTINEL2, scale_factor=1e-4, add_offset=0.0, nodata=0, units="reflectance"
        ),
        Sensor(
            name="sentinel2-l2a-04.00",
            bands=_SENTINEL2,
            scale_factor=1e-4,
            add_offset=-0.1,
            nodata=0,
            units="reflectance",
        ),
        Sensor(name="arcticdem", bands=(("dem",),), scale_factor=1.0, add_offset=0.0, nodata=-9999, units="m"),
        Sensor(
            name="tcvis",
            bands=(("tc_brightness", "tc_greenness", "tc_wetness"),),
            scale_factor=1.0,
            add_offset=0.0,
            nodata=None,
            units="1",
        ),
    )
}
"""The products that `open_cube` knows. ``sentinel2-l2a-04.00`` is for files as ESA ships them from processing baseline
04.00 (25 January 2022), whose values are 1000 too high; ``sentinel2-l2a`` for older files and for those that a provider
has already harmonised."""


def get_sensor(sensor: "str | Sensor") -> Sensor:
    """Return the sensor of that name; a `Sensor` of the caller's own passes through.

    Raises
    ------
    CubeError
        No such name.
    """
    if isinstance(sensor, Sensor):
        return sensor
    if sensor not in SENSORS:
        raise CubeError(
            f"Known sensors are {sorted(SENSORS)}; got {sensor!r}. Take one of them, or name the bands with layers=[...]."
        )
    return SENSORS[sensor]


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
