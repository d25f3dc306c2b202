"""A season of Sentinel-2 as one image: time and memory of a median and a medoid, and the kernels beside NumPy's own.

A cell of one degree at 70 N is 42 million pixels of 10 m. What is measured is a part of it, under as many images; the rest is a
multiple, because chunks know nothing of each other.
"""

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dask
import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import rtsx
from benchmarks.peak import peak_mib
from rtsx.cube.composite import Observation, medoid_composite, percentile_composite
from rtsx.cube.images import BandRequest, BandSource, GivenImages, Image
from rtsx.cube.mask_rules import mask_rule
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, QualityRecipe, SourceRecipe

GRID = rtsx.Grid.arctic(resolution=10)
BANDS = ("blue", "green", "red", "nir")
CORNER = (40_000, -210_000)
"""Row and column of the grid, near Herschel Island."""
CELL_PX = 42_000_000
"""Pixels of 10 m in one degree of latitude and longitude at 70 N."""


def images(folder: Path, *, count: int, side: int) -> tuple[Image, ...]:
    """Images of two UTM zones over one square of `side` px, a third of each under cloud, written as COGs are: in blocks of 512 px."""
    rng, made = np.random.default_rng(1), []
    around = int(side * 1.5)
    x = GRID.resolution * (CORNER[1] + side / 2)
    y = -GRID.resolution * (CORNER[0] + side / 2)
    for number in range(count):
        crs = f"EPSG:{32607 + number % 2}"
        east, north = Transformer.from_crs(GRID.crs, crs, always_xy=True).transform(x, y)
        affine = Affine(10, 0, round(east, -1) - around * 5, 0, -10, round(north, -1) + around * 5)
        spots = np.kron(rng.random((around // 40 + 1,) * 2), np.ones((40, 40)))[:around, :around]
        stored = np.stack([(1200 + 900 * spots + 100 * band).astype(np.uint16) for band in range(len(BANDS))])
        scl = np.where(spots[::2, ::2] > 0.67, 9, 4).astype(np.uint8)[None]
        sources = {}
        for name, pixels, grid in (("bands", stored, affine), ("scl", scl, affine * affine.scale(2))):
            path = folder / f"{number:03d}_{name}.tif"
            shape = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
            blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd"}
            with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=grid, **shape, **blocks) as file:
                file.write(pixels)
            box = GeoBox(pixels.shape[1:], grid, crs)
            for place, band in enumerate(BANDS if name == "bands" else ("scl",), start=1):
                sources[band] = BandSource(
                    href=str(path), bands=(place,), geobox=box, dtype=pixels.dtype.name, nodata=None, scale_factor=1e-4
                )
        moment = datetime(2024, 7, 1, 21, tzinfo=UTC) + timedelta(days=number * 92 / count)
        made.append(Image(id=f"{number:03d}", bands=sources, time=moment, cloud_cover=33.0))
    return tuple(made)


def seconds_of(found: tuple[Image, ...], composite: str, *, side: int, chunk: int, threads: int) -> float:
    """Seconds for the layers and the mask of the square."""
    layers = tuple(LayerRecipe(wanted=BandRequest(name=band)) for band in BANDS)
    quality = QualityRecipe(wanted=BandRequest(name="scl"), rule=mask_rule("sentinel2-scl", data=None))
    source = SourceRecipe(name="s2", images=GivenImages(found), layers=layers, quality=quality, composite=composite)
    window = GRID.window((CORNER[0], CORNER[0] + side), (CORNER[1], CORNER[1] + side))
    cube = rtsx.open_cube(CubeRecipe(grid=GRID, sources=(source,), chunk=chunk), window)
    started = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=threads):
        done = cube.compute()
    assert done["valid"].values.mean() > 0.9
    return time.perf_counter() - started


def kernels(*, count: int, side: int) -> dict[str, float]:
    """Megapixels a second of each way to join `count` images of one layer that are in memory."""
    rng = np.random.default_rng(2)
    pieces = [
        Observation(
            (rng.integers(1, 9000, (side, side)).astype(np.uint16),), rng.integers(1, 3, (side, side), np.uint8)
        )
        for _ in range(count)
    ]
    empty = Observation((np.zeros((side, side), np.uint16),), np.zeros((side, side), np.uint8))
    rule = {"empty": empty, "least": 2, "count": count, "rows_at_once": side}

    def stack(rows: slice) -> list[Observation]:
        return [Observation((piece.layers[0][rows],), piece.quality[rows]) for piece in pieces]

    def by_numpy() -> None:
        values = np.stack([np.where(piece.quality >= 2, piece.layers[0], np.nan) for piece in pieces])
        np.nanmedian(values, axis=0)

    ways = {
        "median": lambda: percentile_composite(stack, percent=50.0, **rule),
        "medoid": lambda: medoid_composite(stack, scales=(1e-4,), **rule),
        "numpy.nanmedian": by_numpy,
    }
    found = {}
    for name, way in ways.items():
        if name != "numpy.nanmedian":
            way()  # compiles
        started = time.perf_counter()
        way()
        found[name] = side * side / 1e6 / (time.perf_counter() - started)
    return found


def run(*, count: int, side: int, chunk: int, threads: int = 2) -> None:
    """Print tables."""
    print(f"\n{count} images in memory, one layer of {side // 2} x {side // 2} px: megapixels a second\n")
    for name, speed in kernels(count=count, side=side // 2).items():
        print(f"{name:16} {speed:8.2f}")
    with tempfile.TemporaryDirectory() as folder:
        found = images(Path(folder), count=count, side=side)
        print(
            f"\n{count} images, {len(BANDS)} layers and their mask on {side} x {side} px, chunks of {chunk}, {threads} threads"
        )
        print(f"\n{'composite':16} {'s':>8} {'Mpx/s':>8} {'1 degree, h':>12} {'peak MiB':>9}")
        print(f"{'(nothing yet)':16} {'':>8} {'':>8} {'':>12} {peak_mib():9.0f}")
        for composite in ("median", "medoid"):
            seconds = seconds_of(found, composite, side=side, chunk=chunk, threads=threads)
            speed = side * side / 1e6 / seconds
            print(f"{composite:16} {seconds:8.1f} {speed:8.3f} {CELL_PX / 1e6 / speed / 3600:12.2f} {peak_mib():9.0f}")
