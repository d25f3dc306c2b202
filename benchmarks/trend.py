"""Trends of a stack of Landsat scenes, beside xarray's `polyfit` on the same files: megapixels a second, and the peak of memory by the number of scenes.

Each runs in a process of its own, on one thread. xarray follows the same recipe: it stacks the scenes as floats, brings OLI
to ETM+, drops what lies beyond three standard deviations, and fits the tasseled cap; both have to give the same numbers.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from shapely.geometry import box, mapping

import rtsx
from benchmarks.peak import peak_mib
from rtsx.config.cube import CubeConfig
from rtsx.cube.images import BandRequest
from rtsx.cube.recipe import TASSELED_CAP_BANDS, TREND_LAYERS
from rtsx.cube.stac import StacCatalog
from rtsx.cube.trend.blocks import is_oli
from rtsx.cube.trend.kernels import OLI_INTERCEPT, OLI_SLOPE, TASSELED_CAP

CLEAR, CLOUD = 21824, 22280
CORNER = (565005.0, 7725015.0)


def write_stack(folder: Path, *, side: int, scenes: int, seed: int = 0) -> Path:
    """Write scenes of 2000 to 2019 as files of six bands and of QA_PIXEL, a third of them clouds; returns the folder's items."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ground, change = rng.uniform(0.03, 0.3, (6, 1, 1)), rng.normal(0, 0.03, (6, side, side))
    features = []
    for number in range(scenes):
        moment = datetime(2000 + number * 20 // scenes, 7, 1, 20, tzinfo=UTC) + timedelta(days=int(rng.integers(62)))
        seen = ground + change * (moment.year - 2010) / 10 + rng.normal(0, 0.01, (6, side, side))
        qa = np.where(rng.random((1, side, side)) < 0.33, CLOUD, CLEAR).astype(np.uint16)
        satellite = (5, 7, 8)[number % 3]
        name = f"L{'TEC'[number % 3]}0{satellite}_L2SP_068011_{number:06}"
        profile = {
            "driver": "GTiff", "height": side, "width": side, "dtype": "uint16", "crs": "EPSG:32607", "tiled": True,
            "blockxsize": 256, "blockysize": 256, "transform": Affine(30, 0, CORNER[0], 0, -30, CORNER[1]),
        }  # fmt: skip
        for key, pixels in (("sr", np.clip(np.rint((seen + 0.2) / 2.75e-5), 1, 65535)), ("qa_pixel", qa)):
            nodata = 0 if key == "sr" else None
            with rasterio.open(folder / f"{name}_{key}.tif", "w", count=len(pixels), nodata=nodata, **profile) as file:
                file.write(pixels.astype(np.uint16))
        packed = {"data_type": "uint16", "nodata": 0, "scale": 2.75e-5, "offset": -0.2}
        bands = [{"name": band, "common_name": band} for band in TASSELED_CAP_BANDS]
        features.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": name,
                "collection": "landsat",
                "links": [],
                "geometry": mapping(box(-140, 69, -138, 70)),
                "bbox": [-140, 69, -138, 70],
                "properties": {
                    "datetime": moment.isoformat(),
                    "platform": f"landsat-{satellite}",
                    "proj:code": "EPSG:32607",
                    "proj:shape": [side, side],
                    "proj:transform": list(profile["transform"])[:6],
                },
                "assets": {
                    "sr": {"href": f"./{name}_sr.tif", "eo:bands": bands, "raster:bands": [packed] * 6},
                    "qa_pixel": {"href": f"./{name}_qa_pixel.tif", "raster:bands": [{"data_type": "uint16"}]},
                },
            }
        )
    items = folder / "items.json"
    items.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return items


def by_rtsx(items: Path) -> np.ndarray:
    """Slopes (3, y, x) a decade, as a cube has them."""
    text = {"catalog": str(items), "trend": {"window": "2000-2019", "dtype": "float32"}}
    recipe = CubeConfig.model_validate(
        {"grid": {"crs": "EPSG:32607", "resolution": 30, "origin": [15, 15]}, "sources": {"trends": text}}
    ).recipe()
    with rasterio.open(next(items.parent.glob("*_sr.tif"))) as file:
        side = file.height
    top, left = round((15 - CORNER[1]) / 30), round((CORNER[0] - 15) / 30)
    cube = rtsx.open_cube(recipe, recipe.grid.window((top, top + side), (left, left + side)))
    cube = cube[[*TREND_LAYERS]].compute(scheduler="synchronous")
    return np.stack([cube[name] for name in TREND_LAYERS])


def by_xarray(items: Path) -> np.ndarray:
    """The same by xarray, all scenes side by side."""
    images = StacCatalog(str(items)).find(box(-180, -90, 180, 90), None, _wanted())
    seen, times = [], []
    for image in images:
        with (
            rasterio.open(image.bands["blue"].href) as file,
            rasterio.open(image.bands["qa_pixel"].href) as quality,
        ):
            values = file.read().astype(np.float32) * np.float32(2.75e-5) - np.float32(0.2)
            clear = quality.read(1) == CLEAR
        if is_oli(image):
            values = (values - OLI_INTERCEPT[:, None, None]) / OLI_SLOPE[:, None, None]
        seen.append(np.where(clear, values, np.nan))
        times.append(image.time.timestamp() / 86400 / 3650)
    stack = xr.DataArray(np.stack(seen), dims=("time", "band", "y", "x"), coords={"time": np.array(times) - 4.0})
    judged = stack[:, :4]
    near = np.abs(judged - judged.mean("time")) <= 3 * judged.std("time")
    stack = stack.where(near.all("band"))
    matrix = xr.DataArray(TASSELED_CAP, dims=("index", "band"))
    fit = xr.dot(matrix, stack, dim="band").polyfit("time", 1, skipna=True)
    return fit.polyfit_coefficients.sel(degree=1).transpose("index", "y", "x").values


def _wanted() -> list[BandRequest]:
    named = [BandRequest(name=band) for band in TASSELED_CAP_BANDS]
    return [*named, BandRequest(name="qa_pixel", asset="qa_pixel")]


_CONTENDERS = {"rtsx": by_rtsx, "xarray": by_xarray}


@dataclass(frozen=True)
class Measured:
    """What one run took."""

    seconds: float
    """From opening to the last slope; without the imports, and what is compiled once."""
    peak: float
    """Peak memory of its process, MiB."""
    slopes: np.ndarray
    """(3, y, x) a decade."""

    @classmethod
    def of(cls, contender: str, items: Path, warm: Path) -> "Measured":
        """Measure in a process of its own."""
        out = items.parent / f"{contender}.npy"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.trend", contender, str(items), str(warm), str(out)]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return cls(told["seconds"], told["peak"], np.load(out))


def run(*, side: int, scenes: tuple[int, ...]) -> dict[tuple[str, int], Measured]:
    """Measure and print a table, one line per contender and number of scenes."""
    found = {}
    print(f"{'':>8}{'scenes':>8}{'s':>9}{'Mpx/s':>9}{'peak MiB':>10}   ({side} x {side} px, 7 bands)")
    with tempfile.TemporaryDirectory() as name:
        warm = write_stack(Path(name) / "warm", side=16, scenes=8)
        for count in scenes:
            items = write_stack(Path(name) / str(count), side=side, scenes=count)
            for contender in _CONTENDERS:
                one = found[contender, count] = Measured.of(contender, items, warm)
                rate = side * side * count / 1e6 / one.seconds
                print(f"{contender:>8}{count:8}{one.seconds:9.2f}{rate:9.1f}{one.peak:10.0f}", flush=True)
            apart = np.abs(found["rtsx", count].slopes - found["xarray", count].slopes).max()
            faster = found["xarray", count].seconds / found["rtsx", count].seconds
            print(f"{'':>8}{count:8}  {faster:.1f} times as fast; slopes differ by {apart:.1g} at most", flush=True)
    return found


if __name__ == "__main__":
    contender, items, warm, out = sys.argv[1], *map(Path, sys.argv[2:])
    _CONTENDERS[contender](warm)
    begin = time.perf_counter()
    slopes = _CONTENDERS[contender](items)
    took = time.perf_counter() - begin
    np.save(out, slopes)
    print(json.dumps({"seconds": took, "peak": peak_mib()}))
