"""Error and seconds of warps, bilinear, side by side: ours, rasterio's and odc-geo's against every position by pyproj."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr, xr_reproject
from pyproj import Transformer
from rasterio.warp import reproject

from benchmarks.exact import exact_positions, exact_warp
from rtsx.cube.rasterio import read_header
from rtsx.cube.resample.readers import ArrayReader, FileReader
from rtsx.cube.resample.warp import warp

Floats = NDArray[np.float32]
Contender = Callable[[ArrayReader, GeoBox], Floats]

CRSS = ("EPSG:3413", "EPSG:4326", "EPSG:32608", "EPSG:32652")
PLACES = {"EPSG:32608": (-135.4, 69.1), "EPSG:32652": (129.3, 72.2)}
BETWEEN = (177.0, 80.0)
"""Where both zones can be drawn, 48 degrees from the middle of either."""

REAL = {
    "Copernicus 30 m": ("dem_highlat/COP30_63.84_-149.29_63.92_-149.21.tif", 10.0),
    "Yukon DEM 20 m": ("dem_highlat/dem_SouthGlacier.tif", 10.0),
    "Sentinel-2 10 m": ("rts_expert_s2l8/Bykovsky/S2_20210721T035541_20210721T035540_T52WEE.tif", 3.0),
}
"""Files of the real data, and the metres of the target's pixels."""

NODATA = -9999.0


@dataclass(frozen=True)
class Case:
    """A raster, and the grid it is brought to."""

    name: str
    reader: ArrayReader
    target: GeoBox

    @property
    def label(self) -> str:
        """Raster, and from which CRS to which."""
        crs = [str(box.crs).removeprefix("EPSG:") for box in (self.reader.geobox, self.target)]
        return f"{self.name:16}{crs[0]:>6} to {crs[1]:<6}"


def rtsx_warp(reader: ArrayReader, target: GeoBox) -> Floats:
    """Ours."""
    anchor = (target.affine.c, target.affine.f)
    return warp(reader, target, resampling="bilinear", anchor=anchor).pixels


def rasterio_reproject(reader: ArrayReader, target: GeoBox) -> Floats:
    """GDAL's warper on arrays, as rasterio calls it."""
    out = np.full((reader.count, *target.shape), NODATA, np.float32)
    source = reader.geobox
    reproject(
        reader.pixels,
        out,
        src_transform=source.affine,
        src_crs=str(source.crs),
        src_nodata=NODATA,
        dst_transform=target.affine,
        dst_crs=str(target.crs),
        dst_nodata=NODATA,
        resampling=rasterio.enums.Resampling.bilinear,
        num_threads=1,
    )
    return out


def odc_reproject(reader: ArrayReader, target: GeoBox) -> Floats:
    """odc-geo on an array in memory."""
    bands = [
        xr_reproject(wrap_xr(band, reader.geobox, nodata=NODATA), target, resampling="bilinear", dst_nodata=NODATA)
        for band in reader.pixels
    ]
    return xr.concat(bands, "band").values


CONTENDERS: dict[str, Contender] = {"rtsx": rtsx_warp, "rasterio": rasterio_reproject, "odc-geo": odc_reproject}


def synthetic(size: int) -> Iterator[Case]:
    """Each pair of CRS, 10 m to 10 m: a rough surface with holes, 0 to 100 units."""
    for source in CRSS:
        for target in CRSS:
            if source != target:
                zones = [crs for crs in (source, target) if crs in PLACES]
                at = BETWEEN if len(zones) == 2 else PLACES[zones[0]] if zones else PLACES["EPSG:32608"]
                box = _around(at, source, shape=(size, size), pixel_m=10.0)
                yield Case("rough surface", _surface(box), _around(at, target, shape=(size, size), pixel_m=10.0))


def real(folder: Path, size: int) -> Iterator[Case]:
    """Real rasters on the grids of the other CRS."""
    for name, (path, pixel_m) in REAL.items():
        header = read_header(folder / path)
        dtype, nodata = np.dtype(header.dtypes[0]), header.nodata[0]
        bands = header.data_bands
        file = FileReader(path=header.path, bands=bands, geobox=header.geobox, dtype=dtype, nodata=nodata)
        box = file.geobox
        stored = file.read(slice(0, box.shape[0]), slice(0, box.shape[1]))[:4]
        is_missing = np.zeros(stored.shape, bool) if file.nodata is None else stored == file.nodata
        reader = ArrayReader(np.where(is_missing, NODATA, stored).astype(np.float32), box, nodata=NODATA)
        middle = box.affine.c + box.affine.a * box.shape[1] / 2, box.affine.f + box.affine.e * box.shape[0] / 2
        at = Transformer.from_crs(str(box.crs), "EPSG:4326", always_xy=True).transform(*middle)
        for crs in CRSS:
            if crs != str(box.crs) and not (crs == "EPSG:32652" and at[0] < 0):
                yield Case(name, reader, _around(at, crs, shape=(size, size), pixel_m=pixel_m))


def run(*, size: int, rounds: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Measure and print the table; (max error, mean error, seconds) of every contender in every case.

    Errors are over pixels that all hold valid, in units of the raster; seconds are medians, on arrays in memory, one thread.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RTSX_REAL_DATA", beside))
    print(f"bilinear, {size} x {size} px, one thread, GDAL {rasterio.__gdal_version__}; max error, mean error, seconds")
    print(f"{'':34}" + "".join(f"{name:>30}" for name in CONTENDERS))
    table = {}
    for case in (*synthetic(size), *(real(folder, size) if folder.is_dir() else ())):
        table[case.label] = found = _measure(case, rounds=rounds)
        cells = (f"{most:12.2g}{mean:10.2g}{seconds:8.3f}" for most, mean, seconds in found.values())
        print(f"{case.label:34}" + "".join(cells), flush=True)
    if not folder.is_dir():
        print(f"real rasters left out: there is no {folder}")
    return table


def _measure(case: Case, *, rounds: int) -> dict[str, tuple[float, float, float]]:
    positions = exact_positions(case.reader.geobox, case.target)
    exact, valid = exact_warp(case.reader.pixels, positions, resampling="bilinear", nodata=NODATA)
    answers, seconds = {}, {name: [] for name in CONTENDERS}
    for number in range(rounds + 1):  # the first one pays for compiling and for setting up
        for name, contender in CONTENDERS.items():
            begin = time.perf_counter()
            answers[name] = contender(case.reader, case.target)
            if number:
                seconds[name].append(time.perf_counter() - begin)
    for answer in answers.values():
        valid = valid & np.isfinite(answer) & (answer != NODATA)
    errors = {name: np.abs(answer - exact)[valid] for name, answer in answers.items()}
    return {
        name: (float(error.max()), float(error.mean()), statistics.median(seconds[name]))
        for name, error in errors.items()
    }


def _around(at: tuple[float, float], crs: str, *, shape: tuple[int, int], pixel_m: float) -> GeoBox:
    """A north-up raster around a longitude and latitude; square on the ground in degrees too, more or less."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*at)
    height = pixel_m / 111_000 if crs == "EPSG:4326" else pixel_m
    width = height / np.cos(np.radians(at[1])) if crs == "EPSG:4326" else pixel_m
    corner = Affine.translation(x - shape[1] / 2 * width, y + shape[0] / 2 * height)
    return GeoBox(shape, Affine(width, 0, corner.c, 0, -height, corner.f), crs)


def _surface(box: GeoBox) -> ArrayReader:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: box.shape[0], : box.shape[1]]
    waves = partial(np.sin, dtype=np.float64)
    pixels = 50 + 30 * waves(rows / 7) * waves(columns / 11) + rng.uniform(-20, 20, box.shape.yx)
    pixels[rng.random(pixels.shape) < 0.001] = NODATA
    return ArrayReader(pixels[None].astype(np.float32), box, nodata=NODATA)
