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
from rtsx.cube.trend import is_oli
from rtsx.cube.trend_kernels import (
    MOMENTS,
    OLI_INTERCEPT,
    OLI_SLOPE,
    SUMS,
    TASSELED_CAP,
    add_moments,
    add_sums,
    linear_fit,
    reflectance_limits,
    scene_observations,
)

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


def read_stack(items: Path) -> tuple[np.ndarray, np.ndarray, list[bool], list[float]]:
    """Stored pixels (time, band, y, x), where they are clear (time, y, x), whether OLI saw them, and decades."""
    images = StacCatalog(str(items)).find(box(-180, -90, 180, 90), None, _wanted())
    seen, clear = [], []
    for image in images:
        with rasterio.open(image.bands["blue"].href) as file, rasterio.open(image.bands["qa_pixel"].href) as quality:
            seen.append(file.read())
            clear.append(quality.read(1) == CLEAR)
    times = [image.time.timestamp() / 86400 / 3650 - 4.0 for image in images]
    return np.stack(seen), np.stack(clear), [is_oli(image) for image in images], times


def fit_by_xarray(seen: np.ndarray, clear: np.ndarray, *, oli: list[bool], times: list[float]) -> np.ndarray:
    """Slopes (3, y, x) of pixels in memory."""
    values = seen.astype(np.float32) * np.float32(2.75e-5) - np.float32(0.2)
    values[oli] = (values[oli] - OLI_INTERCEPT[:, None, None]) / OLI_SLOPE[:, None, None]
    values[~np.broadcast_to(clear[:, None], values.shape)] = np.nan
    stack = xr.DataArray(values, dims=("time", "band", "y", "x"), coords={"time": np.array(times)})
    judged = stack[:, :4]
    near = np.abs(judged - judged.mean("time")) <= 3 * judged.std("time")
    stack = stack.where(near.all("band"))
    matrix = xr.DataArray(TASSELED_CAP, dims=("index", "band"))
    fit = xr.dot(matrix, stack, dim="band").polyfit("time", 1, skipna=True)
    return fit.polyfit_coefficients.sel(degree=1).transpose("index", "y", "x").values


def fit_by_rtsx(seen: np.ndarray, clear: np.ndarray, *, oli: list[bool], times: list[float]) -> np.ndarray:
    """The same by the kernels of a cube."""
    packing = np.full(6, 2.75e-5), np.full(6, -0.2)
    scenes = [
        scene_observations(tuple(pixels), counts, packing=packing, oli=is_new, decades=decades)
        for pixels, counts, is_new, decades in zip(seen, clear, oli, times, strict=True)
    ]
    moments, sums = np.zeros((clear[0].size, MOMENTS)), np.zeros((clear[0].size, SUMS))
    for one in scenes:
        add_moments(one.counts, one.values, one.gain, one.bias, moments)
    limits = reflectance_limits(moments)
    for one in scenes:
        add_sums(one.counts, one.values, one.gain, one.bias, limits, TASSELED_CAP, one.decades, sums)
    return linear_fit(sums)[1].reshape(3, *clear[0].shape)


def by_xarray(items: Path) -> np.ndarray:
    """Slopes by xarray, all scenes side by side."""
    seen, clear, oli, times = read_stack(items)
    return fit_by_xarray(seen, clear, oli=oli, times=times)


def _wanted() -> list[BandRequest]:
    named = [BandRequest(name=band) for band in TASSELED_CAP_BANDS]
    return [*named, BandRequest(name="qa_pixel", asset="qa_pixel")]


_CONTENDERS = {"rtsx": by_rtsx, "xarray": by_xarray}


_FITS = {"rtsx": fit_by_rtsx, "xarray": fit_by_xarray}


@dataclass(frozen=True)
class Measured:
    """What one run took, in seconds of all processors together, which other programs of a machine change least."""

    busy: float
    """From opening the items to the last slope; without imports, and what is compiled once."""
    fit: float
    """Of pixels in memory to slopes."""
    peak: float
    """Peak memory of the process that did the first, MiB."""
    slopes: np.ndarray
    """(3, y, x) a decade."""

    @classmethod
    def of(cls, contender: str, items: Path, warm: Path) -> "Measured":
        """Measure in a process of its own."""
        out = items.parent / f"{contender}.npy"
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.trend", contender, str(items), str(warm), str(out)]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return cls(told["busy"], told["fit"], told["peak"], np.load(out))


def measure(contender: str, items: Path, out: Path) -> dict[str, float]:
    """Run one contender in this process."""
    begin = time.process_time()
    slopes = _CONTENDERS[contender](items)
    busy, peak = time.process_time() - begin, peak_mib()
    np.save(out, slopes)
    del slopes
    seen, clear, oli, times = read_stack(items)
    begin = time.process_time()
    _FITS[contender](seen, clear, oli=oli, times=times)
    return {"busy": busy, "peak": peak, "fit": time.process_time() - begin}


def run(*, side: int, scenes: tuple[int, ...]) -> dict[tuple[str, int], Measured]:
    """Measure and print a table, one line per contender and number of scenes; a megapixel is one of a scene, with its bands."""
    found = {}
    print(
        f"{'':>8}{'scenes':>8}{'busy s':>9}{'Mpx/s':>9}{'fit s':>9}{'Mpx/s':>9}{'peak MiB':>10}   ({side} x {side} px)"
    )
    with tempfile.TemporaryDirectory() as name:
        warm = write_stack(Path(name) / "warm", side=16, scenes=8)
        for count in scenes:
            items = write_stack(Path(name) / str(count), side=side, scenes=count)
            for contender in _CONTENDERS:
                one = found[contender, count] = Measured.of(contender, items, warm)
                pixels = side * side * count / 1e6
                print(
                    f"{contender:>8}{count:8}{one.busy:9.2f}{pixels / one.busy:9.1f}{one.fit:9.2f}{pixels / one.fit:9.1f}"
                    f"{one.peak:10.0f}",
                    flush=True,
                )
            ours, theirs = found["rtsx", count], found["xarray", count]
            apart = np.nanmax(np.abs(ours.slopes - theirs.slopes))
            print(
                f"{'':>8}{count:8}  {theirs.busy / ours.busy:.1f} times as fast from files, {theirs.fit / ours.fit:.1f} times from "
                f"memory; slopes differ by {apart:.1g} at most",
                flush=True,
            )
    return found


if __name__ == "__main__":
    contender, items, warm, out = sys.argv[1], *map(Path, sys.argv[2:])
    measure(contender, warm, out)
    print(json.dumps(measure(contender, items, out)))
