"""Stacks of scenes in the format of Landsat Collection 2, on ground whose tasseled cap changes by a known slope: for the docs, tests and benchmarks."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pystac
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from rtsx.storage import local_path, refuse_other_format
from rtsx.synthetic.scene import write_cog
from rtsx.synthetic.stac import EO, make_asset, make_collection, make_item, raster_outline, write_catalog

LANDSAT = "landsat-c2-l2"
"""Collection of the scenes, as public servers call it."""
LANDSAT_BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
"""Keys of the assets with reflectance."""
_PIXEL_M = 30.0
_CORNER = (565005.0, 7725015.0)
"""x and y of the upper left corner: Herschel Island, on the pixels that all scenes of Landsat share."""
_SCALE, _OFFSET = 2.75e-5, -0.2
"""Reflectance per stored unit, and of stored 0."""
_CLEAR, _CLOUD, _FILL = 21824, 22280, 1
"""Values of QA_PIXEL."""
_TUNDRA = np.array([0.04, 0.07, 0.06, 0.25, 0.18, 0.10])
"""Reflectance in summer, as ETM+ sees it, in the middle of the window."""
_FADING = np.array([-0.02, -0.02, -0.03, 0.05, -0.04, -0.05])
"""Change of reflectance a decade where the ground changes most; bare ground that is overgrown."""
_OLI = (
    np.array([0.9785, 0.9542, 0.9825, 1.0073, 1.0171, 0.9949]),
    np.array([-0.0095, -0.0016, -0.0022, -0.0021, -0.0030, 0.0029]),
)
"""Slope and intercept by which OLI sees the reflectance of ETM+ (Roy et al. 2016)."""
_DECADE_DAYS = 3650.0


@dataclass(frozen=True, kw_only=True)
class LandsatStack:
    """Scenes on disk, and what they were made from."""

    catalog: Path
    """Static catalog of all scenes."""
    change: NDArray[np.float64]
    """(band, y, x) change of reflectance a decade, as ETM+ sees it, in `LANDSAT_BANDS`."""
    crs: str
    """CRS of all scenes."""
    transform: Affine
    """Transform: px to CRS."""


def write_landsat(
    folder: str | Path,
    *,
    shape: tuple[int, int] = (256, 256),
    years: tuple[int, int] = (2000, 2019),
    scenes_a_year: int = 2,
    crs: str = "EPSG:32607",
    corner: tuple[float, float] = _CORNER,
    noise: float = 0.004,
    seed: int = 0,
) -> LandsatStack:
    """Write scenes of every July and August and their catalog.

    Landsat 5 and 7 see the first years, 8 and 9 the last ones, each as its sensor does. Clouds cover about a third of the
    pixels and are flagged, but for one pixel in two hundred, which stays an outlier. A corner of each scene holds no data.

    Parameters
    ----------
    folder
        Where to; created.
    shape
        Height and width of each scene, px of 30 m.
    years
        First and last.
    scenes_a_year
        Scenes of each year.
    crs, corner
        Where they lie: x and y of the upper left corner.
    noise
        Standard deviation of reflectance from one scene to the next.
    seed
        What chance goes by.

    Raises
    ------
    OutputExistsError
        The folder is a file, or a store of another format.
    """
    refuse_other_format(folder, what="a folder of scenes")
    folder = local_path(folder)
    rng = np.random.default_rng(seed)
    transform = Affine(_PIXEL_M, 0, corner[0], 0, -_PIXEL_M, corner[1])
    amount = _smooth(rng, shape)
    change = _FADING[:, None, None] * (amount - amount.min()) / (np.ptp(amount) or 1)
    middle = dt.datetime((years[0] + years[1] + 1) // 2, 1, 1, tzinfo=dt.UTC)
    items = []
    for year in range(years[0], years[1] + 1):
        for number in range(scenes_a_year):
            day = 1 + int(62 * (number + rng.random()) / scenes_a_year)
            time = dt.datetime(year, 7, 1, 20, 30, tzinfo=dt.UTC) + dt.timedelta(days=min(day, 62) - 1)
            decades = (time - middle).total_seconds() / 86400 / _DECADE_DAYS
            seen = _TUNDRA[:, None, None] + change * decades + rng.normal(0, noise, (len(LANDSAT_BANDS), *shape))
            satellite = (5, 7)[number % 2] if year < 2012 else (7, 8)[number % 2] if year < 2022 else (8, 9)[number % 2]
            items.append(_scene(folder, seen, rng, time=time, satellite=satellite, crs=crs, transform=transform))
    collection = make_collection(LANDSAT, "Synthetic scenes in the format of Landsat.")
    catalog = write_catalog(
        folder, items, collections=[collection], name="landsat", description="Synthetic scenes of Landsat"
    )
    return LandsatStack(catalog=catalog, change=change, crs=crs, transform=transform)


def _smooth(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float64]:
    return np.asarray(ndimage.gaussian_filter(rng.standard_normal(shape), max(shape) / 16, mode="reflect"))


def _scene(
    folder: Path,
    seen: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    time: dt.datetime,
    satellite: int,
    crs: str,
    transform: Affine,
) -> pystac.Item:
    """Write one scene of what ETM+ would see, under clouds and with its edge, and describe it."""
    shape = seen.shape[1:]
    if satellite >= 8:
        slope, intercept = _OLI
        seen = slope[:, None, None] * seen + intercept[:, None, None]
    clouds = _smooth(rng, shape)
    under = clouds > np.quantile(clouds, 0.67)
    hidden = rng.random(shape) < 0.005
    seen[:, under | hidden] = rng.uniform(0.4, 0.7)
    rows, columns = np.indices(shape)
    outside = rows + columns < rng.uniform(0, 0.4) * min(shape)
    qa = np.where(outside, _FILL, np.where(under, _CLOUD, _CLEAR)).astype(np.uint16)
    stored = np.where(outside, 0, np.clip(np.rint((seen - _OFFSET) / _SCALE), 1, 65535)).astype(np.uint16)
    name = f"{['LT05', 'LE07', 'LC08', 'LC09'][(5, 7, 8, 9).index(satellite)]}_L2SP_068011_{time:%Y%m%d}_02_T1"
    place = folder / LANDSAT / name
    place.mkdir(parents=True, exist_ok=True)
    packing = {"raster:scale": _SCALE, "raster:offset": _OFFSET}
    assets = {}
    for key, pixels in (*zip(LANDSAT_BANDS, stored, strict=True), ("qa_pixel", qa)):
        path = place / f"{name}_{key}.tif"
        nodata = _FILL if key == "qa_pixel" else 0
        write_cog(path, pixels[None], crs=crs, transform=transform, nodata=nodata, names=(key,), tags={})
        described = {} if key == "qa_pixel" else {key: {"eo:common_name": key, **packing}}
        assets[key] = make_asset(path, title=key, pixel_m=_PIXEL_M, bands=described)
    return make_item(
        name,
        assets,
        collection=LANDSAT,
        geometry=raster_outline(place / f"{name}_blue.tif"),
        time=time,
        pixel_m=_PIXEL_M,
        properties={
            "platform": f"landsat-{satellite}",
            "eo:cloud_cover": round(100 * float(under[~outside].mean()), 2),
            "landsat:collection_category": "T1",
        },
        extensions=(EO,),
    )
