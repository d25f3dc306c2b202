"""Well-known products: what their bands are called and how they are stored, which catalogs have them; and what no layer can be called."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rtsx.errors import CubeError


@dataclass(frozen=True, kw_only=True)
class SensorCatalog:
    """What one provider's catalog calls a product and its parts."""

    url: str
    """Address of its STAC API; empty where scenes are ordered instead of searched for."""
    collections: tuple[str, ...] = ()
    """Collections that are searched unless others are named."""
    others: tuple[str, ...] = ()
    """Further collections of the same product and layout."""
    assets: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict, hash=False)
    """Key of the asset by layer; by collection where they differ."""
    quality: str | None = None
    """Key of the asset that holds quality data."""
    search: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further fields of the search, such as the signing hook; a source may say otherwise."""
    searches: Sequence[tuple[frozenset[str], Mapping[str, Any]]] = field(default=(), hash=False)
    """Fields that hold instead for sources that read only some of these assets."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """Bands and packing of one product."""

    name: str
    """Name under which `open_cube` knows it."""
    bands: tuple[tuple[str, ...], ...]
    """Layer names in band order, one tuple per kind of file; the number of bands tells the kinds apart."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float | None
    """Physical value of stored 0; None where only an item says it."""
    nodata: float | None
    """Stored value of a missing pixel; None where the product has none of its own."""
    units: str
    """Physical unit of every band."""
    catalogs: Mapping[str, SensorCatalog] = field(default_factory=dict, hash=False)
    """Catalogs that have it, by provider; a source that says nothing else searches the first."""
    layers: tuple[str, ...] = ()
    """Layers that a source reads of a catalog if it names none; the first of `bands` if empty."""
    common_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What catalogs call a band, where that is not the name of the layer."""
    quality: Mapping[str, Any] | None = field(default=None, hash=False)
    """Asset and rule of the quality data in catalogs that no provider names; None where there are none."""
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What a source of a catalog does unless it says otherwise, such as its composite."""

    def require_packing(self) -> None:
        """Raise unless files of the product are stored in one way, so that a file needs no item to be read.

        Raises
        ------
        CubeError
            Only items say how they are stored.
        """
        if self.add_offset is None:
            raise CubeError(
                f"Files of {self.name} do not say whether the offset of newer processing is in their values. Name the sensor "
                f"{' or '.join(name for name in SENSORS if name.startswith(f'{self.name}-'))}, or read them by their STAC items."
            )

    def may_hold(self, others: Sequence[str]) -> bool:
        """Test whether a collection of these products may hold this one, or what a provider has made of it.

        Examples
        --------
        >>> SENSORS["sentinel2-l2a"].may_hold(["sentinel2"]), SENSORS["landsat"].may_hold(["hls"])
        (True, False)
        """
        return any(self.name == one or self.name.startswith(f"{one}-") for one in others)

    def owner_of(self, collection: str) -> str | None:
        """Return the provider that has a collection of this product; None where no known one does."""
        owners = (name for name, one in self.catalogs.items() if collection in (*one.collections, *one.others))
        return next(owners, None)

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
_SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
_CLOUDY = {"max_cloud_cover": 70}
"""Percent above which a scene costs more than its clear pixels are worth; that of the published Landsat trends."""
_SIGNED = {"sign": "planetary-computer"}
_ELEMENT84 = SensorCatalog(url="https://earth-search.aws.element84.com/v1", search=_CLOUDY)
_PLANETARY_COMPUTER = SensorCatalog(url="https://planetarycomputer.microsoft.com/api/stac/v1", search=_CLOUDY | _SIGNED)
SENTINEL2_BANDS = dict(
    zip(
        _SENTINEL2[2], ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"), strict=True
    )
)
"""Numbers of the bands of Sentinel-2, by layer."""
_SENTINEL2_METRES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B08": 10, "B09": 60}
"""Pixels of its bands, where they are not 20 m."""
_LANDSAT_ASSETS = {name: name for name in ("coastal", *_SIX)} | {"nir": "nir08"}


def _packed(scale: float, *, units: str, nodata: float | None, add_offset: float | None = 0.0) -> dict[str, Any]:
    return {"scale_factor": scale, "add_offset": add_offset, "nodata": nodata, "units": units}


def _hls_assets(sentinel: str, landsat: str) -> dict[str, str | Mapping[str, str]]:
    """Return assets of HLS by layer: the two halves share the numbers of bands, and not what they mean."""
    shared: dict[str, str | Mapping[str, str]] = {"coastal": "B01", "blue": "B02", "green": "B03", "red": "B04"}
    differing = {"nir": ("B8A", "B05"), "swir16": ("B11", "B06"), "swir22": ("B12", "B07")}
    return shared | {layer: {sentinel: mine, landsat: theirs} for layer, (mine, theirs) in differing.items()}


SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor(
            name="planetscope",
            bands=(
                ("blue", "green", "red", "nir"),
                ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            ),
            **_packed(1e-4, nodata=0, units="reflectance"),
            catalogs={
                "planet": SensorCatalog(
                    url="",
                    assets=dict.fromkeys(("blue", "green", "red", "nir"), "ortho_analytic_4b_sr")
                    | dict.fromkeys(("coastal_blue", "green_i", "yellow", "rededge"), "ortho_analytic_8b_sr"),
                    quality="ortho_udm2",
                )
            },
            layers=("blue", "green", "red", "nir"),
            quality={"asset": "ortho_udm2"},
        ),
        Sensor(
            name="sentinel2",
            bands=_SENTINEL2,
            **_packed(1e-4, add_offset=None, nodata=0, units="reflectance"),
            catalogs={
                "element84": replace(
                    _ELEMENT84,
                    collections=("sentinel-2-l2a",),
                    others=("sentinel-2-c1-l2a",),
                    assets={name: name for name in _SENTINEL2[2]},
                    quality="scl",
                ),
                "planetary-computer": replace(
                    _PLANETARY_COMPUTER, collections=("sentinel-2-l2a",), assets=SENTINEL2_BANDS, quality="SCL"
                ),
                "cdse": SensorCatalog(
                    url="https://stac.dataspace.copernicus.eu/v1",
                    collections=("sentinel-2-l2a",),
                    assets={
                        layer: f"{band}_{_SENTINEL2_METRES.get(band, 20)}m" for layer, band in SENTINEL2_BANDS.items()
                    },
                    quality="SCL_20m",
                    search=_CLOUDY,
                ),
            },
            layers=_SENTINEL2[0],
            quality={"asset": "scl", "rule": "sentinel2-scl"},
            defaults={"composite": "median"},
        ),
        Sensor(
            name="landsat",
            bands=(_SIX, ("coastal", *_SIX)),
            **_packed(2.75e-5, add_offset=-0.2, nodata=0, units="reflectance"),
            catalogs={
                provider: replace(catalog, collections=("landsat-c2-l2",), assets=_LANDSAT_ASSETS, quality="qa_pixel")
                for provider, catalog in (("planetary-computer", _PLANETARY_COMPUTER), ("element84", _ELEMENT84))
            },
            layers=_SIX,
            common_names={"nir": "nir08"},
            quality={"asset": "qa_pixel", "rule": "landsat-qa-pixel"},
            defaults={"composite": "median"},
        ),
        Sensor(
            name="hls",
            bands=(_SIX, ("coastal", *_SIX)),
            **_packed(1e-4, nodata=-9999, units="reflectance"),
            catalogs={
                "planetary-computer": replace(
                    _PLANETARY_COMPUTER,
                    collections=("hls2-s30", "hls2-l30"),
                    assets=_hls_assets("hls2-s30", "hls2-l30"),
                    quality="Fmask",
                ),
                "nasa": SensorCatalog(
                    url="https://cmr.earthdata.nasa.gov/stac/LPCLOUD",
                    collections=("HLSS30_2.0", "HLSL30_2.0"),
                    assets=_hls_assets("HLSS30_2.0", "HLSL30_2.0"),
                    quality="Fmask",
                    search=_CLOUDY | {"outline": False},  # it refuses polygons that are no boxes
                ),
            },
            layers=_SIX,
            quality={"asset": "Fmask", "rule": "hls-fmask"},
            defaults={"composite": "median"},
        ),
        Sensor(
            name="sentinel1-rtc",
            bands=(("vv", "vh"),),
            **_packed(1.0, nodata=-32768, units="1"),
            catalogs={
                "planetary-computer": replace(
                    _PLANETARY_COMPUTER,
                    collections=("sentinel-1-rtc",),
                    assets={name: name for name in ("vv", "vh", "hh", "hv")},
                    # Scenes of the sea ice have HH and HV, others one of the two only.
                    search={"query": {"sar:polarizations": {"eq": ["VV", "VH"]}}} | _SIGNED,
                    searches=((frozenset({"hh", "hv"}), {"query": {"sar:polarizations": {"eq": ["HH", "HV"]}}}),),
                )
            },
            defaults={"composite": "mean"},  # of power: it thins out the speckle
        ),
        Sensor(
            name="planet-basemap",
            bands=(("red", "green", "blue"),),
            **_packed(1.0, nodata=None, units="dn"),
            catalogs={"planet": SensorCatalog(url="")},
        ),
        Sensor(name="sentinel2-l2a", bands=_SENTINEL2, **_packed(1e-4, nodata=0, units="reflectance")),
        Sensor(
            name="sentinel2-l2a-04.00",
            bands=_SENTINEL2,
            **_packed(1e-4, add_offset=-0.1, nodata=0, units="reflectance"),
        ),
        Sensor(
            name="arcticdem",
            bands=(("dem",),),
            **_packed(1.0, nodata=-9999, units="m"),
            catalogs={
                "pgc": SensorCatalog(
                    url="https://stac.pgc.umn.edu/api/v1",
                    collections=("arcticdem-mosaics-v4.1-10m",),
                    others=("arcticdem-mosaics-v4.1-2m", "arcticdem-mosaics-v4.1-32m"),
                    assets={"dem": "dem"},
                )
            },
            defaults={"period": "any"},
        ),
        Sensor(
            name="tcvis",
            bands=(("tc_brightness", "tc_greenness", "tc_wetness"),),
            **_packed(1.0, nodata=None, units="1"),
            defaults={"period": "any"},  # an image of many years, whose middle is no date of it
        ),
    )
}
"""The products that `open_cube` and sources know. ``sentinel2`` is for catalogs, whose items say which values have the
offset of processing baseline 04.00; ``sentinel2-l2a-04.00`` is for files as ESA ships them from processing baseline
04.00 (25 January 2022), whose values are 1000 too high; ``sentinel2-l2a`` for older files and for those that a provider
has already harmonised."""


_OLI = dict(zip(("coastal", *_SIX), ("B1", "B2", "B3", "B4", "B5", "B6", "B7"), strict=True))
_TM = dict(zip(_SIX, ("B1", "B2", "B3", "B4", "B5", "B7"), strict=True))
_BAND_NUMBERS: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "sentinel2": (SENTINEL2_BANDS,),
    "landsat": (_OLI, _TM),
    "hls": (dict(zip(_SIX, ("B2", "B3", "B4", "B8A", "B11", "B12"), strict=True)), _OLI),
}
"""What missions call the layers of a product, by the beginning of its name."""
_NUMBER = re.compile(r"(?:sr_)?b0?(\d{1,2}a?)", re.IGNORECASE)
"""Of a band, as missions, Earth Engine (``SR_B4``, ``B4``) and STAC (``B04``) write it."""


def layers_of_numbers(sensor: Sensor, described: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the layers that a file's bands are by the numbers in their descriptions, of each mission that has such numbers.

    Examples
    --------
    >>> layers_of_numbers(SENSORS["sentinel2-l2a"], ["B4", "B3", "B2", "B8"])
    [('red', 'green', 'blue', 'nir')]
    >>> layers_of_numbers(SENSORS["landsat"], ["SR_B3", "SR_B4"])  # of Landsat 8, or of 5
    [('green', 'red'), ('red', 'nir')]
    """
    found = [match[1].lower() for text in described if (match := _NUMBER.fullmatch(text.strip()))]
    read = []
    for mission in _BAND_NUMBERS.get(sensor.name.split("-")[0], ()):
        layers = {name[1:].lstrip("0").lower(): layer for layer, name in mission.items()}
        if len(found) == len(described) and set(found) <= set(layers):
            read.append(tuple(layers[number] for number in found))
    return read


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
    if odd := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise CubeError(f"A layer needs a name of text, such as 'red'; among {list(names)} are {odd}. {cure}")
    texts = [str(name) for name in names]
    if reserved := [name for name in texts if name in _RESERVED]:
        raise CubeError(
            f"No layer can be called {', '.join(map(repr, reserved))}: coordinates and mask of a cube are. {cure}"
        )
    if paths := [name for name in texts if "/" in name or name.startswith(".") or _GROUP.fullmatch(name)]:
        raise CubeError(
            f"No layer can be called {', '.join(map(repr, paths))}: a Zarr store takes it for a group. {cure}"
        )
    folded = Counter(name.strip().casefold() for name in texts)
    if alike := [name for name in texts if folded[name.strip().casefold()] > 1]:
        raise CubeError(
            f"Layers {alike} have one name, or differ in case and blanks only, which some file systems and readers do not tell "
            f"apart. {cure}"
        )
