"""The read path: COGs on disk, each in its own projection, to ten aligned layers in memory, chunk by chunk.

Three ways to do the same work, in one process and taken in turns: rtsx, stackstac with plain dask, and GDAL's own warper
chunk by chunk as the floor of what a reader in Python could cost. Terrain is computed on the cube's grid by the same
kernels in all three, so that only reading, warping and scheduling differ.

And what is written: sizes and times of the codecs that a cube may be stored with, on the bands of that scene and of other rasters.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import dask
import dask.array as da
import numpy as np
import rasterio
import rasterio.warp
import stackstac
import zarr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling as GdalResampling
from rasterio.vrt import WarpedVRT
from zarr.codecs import BloscCodec, ZstdCodec

import rtsx
from benchmarks.peak import peak_mib
from rtsx.cube.derived import get_derived
from rtsx.cube.file_images import FileImages
from rtsx.cube.images import BandRequest
from rtsx.cube.mask_rules import mask_rule
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, QualityRecipe, SourceRecipe
from rtsx.cube.terrain import TerrainGrid, get_terrain, terrain_block, terrain_halo
from rtsx.synthetic import SceneFiles, SceneSpec, write_scene

BANDS = ("blue", "green", "red", "nir")
TRENDS = ("tc_brightness", "tc_greenness", "tc_wetness")
TERRAIN = ("relative_elevation", "slope")
GRID = rtsx.Grid.arctic(resolution=3)


class Nowhere:
    """Takes what `da.store` writes and counts it."""

    def __init__(self) -> None:
        self.pixels = 0

    def __setitem__(self, place: Any, block: NDArray[Any]) -> None:
        self.pixels += block.size


@dataclass(frozen=True)
class Work:
    """What every contender reads."""

    files: SceneFiles
    geobox: GeoBox
    chunk: int

    @classmethod
    def make(cls, folder: Path, *, size: int, chunk: int) -> "Work":
        """Write a scene of `size` px."""
        return cls.of(write_scene(SceneSpec(seed=5, size=size), folder), size=size, chunk=chunk)

    @classmethod
    def of(cls, files: SceneFiles, *, size: int, chunk: int) -> "Work":
        """The work on a scene that is there: the square of the grid that it covers best."""
        with rasterio.open(files.image) as image:
            west, south, east, north = rasterio.warp.transform_bounds(image.crs, GRID.crs, *image.bounds)
        side = size // chunk * chunk
        column, row = round((west + east) / 2 / 3) - side // 2, round(-(south + north) / 2 / 3) - side // 2
        return cls(files, GRID.window((row, row + side), (column, column + side)), chunk)

    @property
    def chunks(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Rows and columns of every chunk."""
        height, width = self.geobox.shape
        return [
            ((y, min(y + self.chunk, height)), (x, min(x + self.chunk, width)))
            for y in range(0, height, self.chunk)
            for x in range(0, width, self.chunk)
        ]


def with_rtsx(work: Work) -> None:
    """Ours."""
    files = work.files
    optical = SourceRecipe(
        name="planetscope",
        images=FileImages(assets={"image": (str(files.image),), "udm2": (str(files.udm2),)}),
        layers=tuple(LayerRecipe(wanted=BandRequest(name=name, asset="image", bands=(name,))) for name in BANDS),
        quality=QualityRecipe(wanted=BandRequest(name="udm2", asset="udm2"), rule=mask_rule("tss-v1", data=None)),
    )
    elevation = SourceRecipe(
        name="arcticdem",
        images=FileImages(assets={"dem": (str(files.dem),)}),
        layers=(LayerRecipe(wanted=BandRequest(name="dem"), resampling="bilinear"),),
        terrain=tuple(get_terrain(name) for name in TERRAIN),
        terrain_grid="cube",
    )
    trends = SourceRecipe(
        name="tcvis",
        images=FileImages(assets={"trends": (str(files.tcvis),)}),
        layers=tuple(
            LayerRecipe(wanted=BandRequest(name=name, asset="trends", bands=(name,)), resampling="nearest")
            for name in TRENDS
        ),
    )
    recipe = CubeRecipe(
        grid=GRID, sources=(optical, elevation, trends), derived=(get_derived("ndvi"),), chunk=work.chunk
    )
    cube = rtsx.open_cube(recipe, work.geobox)
    names = [*BANDS, "ndvi", *TERRAIN, *TRENDS, "valid"]
    da.store([cube[name].data for name in names], [Nowhere() for _ in names], lock=False)


def with_stackstac(work: Work) -> None:
    """stackstac for every file, terrain by `map_overlap`."""
    files = work.files
    scene = _stacked(work, files.image, bands=(1, 2, 3, 4), dtype="uint16", fill=0, resampling=GdalResampling.bilinear)
    udm2 = _stacked(
        work, files.udm2, bands=tuple(range(1, 9)), dtype="uint8", fill=0, resampling=GdalResampling.nearest
    )
    dem = _stacked(work, files.dem, bands=(1,), dtype="float32", fill=-9999, resampling=GdalResampling.bilinear)[0]
    trends = _stacked(work, files.tcvis, bands=(1, 2, 3), dtype="uint8", fill=0, resampling=GdalResampling.nearest)
    layers = [scene[band] for band in range(4)]
    valid = da.map_blocks(_good, udm2.rechunk({0: -1}), drop_axis=0, dtype=bool, meta=np.empty((0, 0), bool))
    ndvi = da.map_blocks(_ndvi, layers[2], layers[3], dtype="float32")
    ground = TerrainGrid.from_geobox(work.geobox)
    depth = terrain_halo(TERRAIN, ground)
    terrain = [
        da.map_overlap(
            _terrain,
            dem,
            depth=depth,
            boundary=-9999,
            trim=False,
            name=name,
            dtype="float32",
            layer=name,
            halo=depth,
            chunks=dem.chunks,
        )
        for name in TERRAIN
    ]
    arrays = [*layers, ndvi, *terrain, *(trends[band] for band in range(3)), valid]
    da.store(arrays, [Nowhere() for _ in arrays], lock=False)


def with_gdal(work: Work) -> None:
    """GDAL's warper, one chunk after the other in as many threads as there are cores."""
    with ThreadPoolExecutor(dask.system.CPU_COUNT) as pool:
        list(pool.map(lambda chunk: _gdal_chunk(work, *chunk), work.chunks))


def _gdal_chunk(work: Work, rows: tuple[int, int], columns: tuple[int, int]) -> int:
    files = work.files
    scene = _warped(work, files.image, (rows, columns), halo=0, nodata=0, resampling=GdalResampling.bilinear)
    udm2 = _warped(work, files.udm2, (rows, columns), halo=0, nodata=None, resampling=GdalResampling.nearest)
    trends = _warped(work, files.tcvis, (rows, columns), halo=0, nodata=0, resampling=GdalResampling.nearest)
    ground = TerrainGrid.from_geobox(work.geobox)
    halo = terrain_halo(TERRAIN, ground)
    dem = _warped(work, files.dem, (rows, columns), halo=halo, nodata=-9999, resampling=GdalResampling.bilinear)[0]
    window = ground.window(slice(rows[0] - halo, rows[1] + halo), slice(columns[0] - halo, columns[1] + halo))
    terrain = terrain_block(dem, dem != -9999, ground=window, layers=TERRAIN, halo=halo)
    return sum(array.size for array in (scene, trends, terrain, _good(udm2), _ndvi(scene[2], scene[3])))


def _warped(
    work: Work,
    path: Path,
    window: tuple[tuple[int, int], tuple[int, int]],
    *,
    halo: int,
    nodata: float | None,
    resampling: Any,
) -> NDArray[Any]:
    rows, columns = window
    affine = work.geobox.affine * work.geobox.affine.translation(columns[0] - halo, rows[0] - halo)
    # XSCALE and YSCALE of 1 keep GDAL from widening its kernel under rotation, which costs time and accuracy.
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file, crs=GRID.crs, transform=affine, height=rows[1] - rows[0] + 2 * halo, width=columns[1] - columns[0] + 2 * halo,
            resampling=resampling, nodata=nodata, XSCALE=1, YSCALE=1,
        ) as vrt,
    ):  # fmt: skip
        return vrt.read()


def _stacked(work: Work, path: Path, *, bands: tuple[int, ...], dtype: str, fill: float, resampling: Any) -> da.Array:
    with rasterio.open(path) as file:
        lonlat = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        properties = {
            "proj:epsg": file.crs.to_epsg(),
            "proj:shape": list(file.shape),
            "proj:transform": list(file.transform)[:6],
            "datetime": datetime(2024, 7, 21, tzinfo=UTC).isoformat(),
        }
    west, south, east, north = lonlat
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": path.stem, "bbox": lonlat, "properties": properties, "links": [],
        "geometry": {"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]]},
        "assets": {str(band): {"href": f"vrt://{path}?bands={band}"} for band in bands},
    }  # fmt: skip
    left, top = work.geobox.affine.c, work.geobox.affine.f
    bounds = (left, top - 3 * work.geobox.shape[0], left + 3 * work.geobox.shape[1], top)
    array = stackstac.stack(
        [item], assets=[str(band) for band in bands], epsg=3413, resolution=3, bounds=bounds, snap_bounds=False, dtype=dtype,
        fill_value=np.dtype(dtype).type(fill), rescale=False, resampling=resampling, chunksize=work.chunk, xy_coords=False,
    )  # fmt: skip
    return array.data[0]


def _good(udm2: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return mask_rule("tss-v1", data=None).quality(udm2) == 2


def _ndvi(red: NDArray[Any], nir: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return (nir.astype("float32") - red) / (nir.astype("float32") + red)


def _terrain(dem: NDArray[np.float32], *, layer: str, halo: int) -> NDArray[np.float32]:
    ground = TerrainGrid.from_geobox(GRID.window((0, dem.shape[0]), (0, dem.shape[1])))
    return terrain_block(dem, dem != -9999, ground=ground, layers=[layer], halo=halo)[0]


CONTENDERS: dict[str, Callable[[Work], None]] = {"rtsx": with_rtsx, "stackstac": with_stackstac, "GDAL": with_gdal}


def run(*, size: int, chunk: int, rounds: int, rasters: Sequence[Path] = ()) -> dict[str, float]:
    """Time every contender in turns, take the peak memory of each in a process of its own, and print the table; then that of codecs."""
    with tempfile.TemporaryDirectory() as name:
        work = Work.make(Path(name), size=size, chunk=chunk)
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for contender in CONTENDERS.values():
            contender(work)  # compiles, and brings the files into the page cache
        for _ in range(rounds):
            for label, contender in CONTENDERS.items():
                started = time.perf_counter()
                contender(work)
                seconds[label].append(time.perf_counter() - started)
        print(
            f"{size} px scene, {len(work.chunks)} chunks of {chunk} px, 10 layers and valid, {rounds} rounds, medians"
        )
        for label, values in seconds.items():
            command = [sys.executable, "-m", "benchmarks.reading", label, name, str(size), str(chunk)]
            peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            ratio = median(ours / theirs for ours, theirs in zip(values, seconds["rtsx"], strict=True))
            print(
                f"{label:10} {median(values):6.2f} s {len(work.chunks) / median(values):6.2f} chunks/s "
                f"{ratio:5.2f} x rtsx {peak:6.0f} MiB peak",
                flush=True,
            )
        files = work.files
        own = {"demo image": files.image, "demo elevation": files.dem, "demo trends": files.tcvis}
        named = own | {raster.stem[:19]: raster for raster in rasters}
        compare_codecs({label: bands_of(path) for label, path in named.items()}, rounds=rounds)
    return {label: median(values) for label, values in seconds.items()}


CODECS = {
    "zstd": lambda width: ZstdCodec(level=1),
    "zstd, bytes shuffled": lambda width: BloscCodec(typesize=width, cname="zstd", clevel=1, shuffle="shuffle"),
    "zstd, bits shuffled": lambda width: BloscCodec(typesize=width, cname="zstd", clevel=1, shuffle="bitshuffle"),
    "lz4, bits shuffled": lambda width: BloscCodec(typesize=width, cname="lz4", clevel=1, shuffle="bitshuffle"),
}
"""How pixels of so many bytes may be compressed, all at level 1."""
LAYOUTS = {"512 in 1024": (512, 1024), "1024": (1024, None)}
"""Sides of chunks and of the shards that hold them, px."""


def compare_codecs(rasters: Mapping[str, Sequence[NDArray[Any]]], *, rounds: int) -> dict[tuple[str, ...], float]:
    """Measure and print what storing each raster's bands takes, by codec and layout: size, and milliseconds of processor time per megapixel of a band.

    Returns the milliseconds of reading by zarr alone, by raster, layout and codec.
    """
    print(
        f"{'':20}{'layout':14}{'codec':22}{'size':>6}{'write':>8}{'read':>8}{'by zarrs':>10}   ms of a processor per Mpx"
    )
    found = {}
    for (label, bands), (layout, (chunk, shard)), (codec, make) in product(
        rasters.items(), LAYOUTS.items(), CODECS.items()
    ):
        with tempfile.TemporaryDirectory() as name:
            group = zarr.open_group(name, mode="w")
            began = time.process_time()
            for number, band in enumerate(bands):
                group.create_array(
                    f"band{number}", data=band, chunks=(chunk, chunk), shards=None if shard is None else (shard, shard),
                    compressors=make(band.dtype.itemsize),
                )  # fmt: skip
            spent = {"write": [time.process_time() - began]}
            for _ in range(rounds):
                for how, pipeline in PIPELINES.items():
                    with zarr.config.set({"codec_pipeline.path": pipeline}):
                        began = time.process_time()
                        for _, array in zarr.open_group(name, mode="r").arrays():
                            array[:]
                        spent.setdefault(how, []).append(time.process_time() - began)
            stored = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
        megapixels = sum(band.size for band in bands) / 1e6
        ms = {how: 1000 * median(seconds) / megapixels for how, seconds in spent.items()}
        found[label, layout, codec] = ms["read"]
        zarrs = f"{ms['zarrs']:10.1f}" if "zarrs" in ms else ""
        size = stored / sum(band.nbytes for band in bands)
        print(f"{label:20}{layout:14}{codec:22}{size:6.2f}{ms['write']:8.1f}{ms['read']:8.1f}{zarrs}", flush=True)
    return found


PIPELINES = {"read": "zarr.core.codec_pipeline.BatchedCodecPipeline"} | (
    {"zarrs": "zarrs.ZarrsCodecPipeline"} if find_spec("zarrs") else {}
)
"""Who decodes."""


def bands_of(path: Path, *, least: int = 2048) -> list[NDArray[Any]]:
    """Return the bands of a raster file, or of the arrays (y, x, band) of an .npz, mirrored until they are `least` px wide and high."""
    if path.suffix == ".npz":
        bands = [band for array in np.load(path).values() if array.ndim == 3 for band in np.moveaxis(array, -1, 0)]
    else:
        with rasterio.open(path) as file:
            bands = list(file.read())
    return [np.pad(band, [(0, max(0, least - length)) for length in band.shape], mode="symmetric") for band in bands]


def _alone(label: str, folder: str, *, size: int, chunk: int) -> float:
    """Peak memory of one contender over the files of another process, MiB."""
    spec = SceneSpec(seed=5, size=size)
    files = SceneFiles.named(Path(folder), image_id=spec.image_id, dem_resolution_m=spec.dem_resolution_m)
    CONTENDERS[label](Work.of(files, size=size, chunk=chunk))
    return peak_mib()


if __name__ == "__main__":
    print(_alone(sys.argv[1], sys.argv[2], size=int(sys.argv[3]), chunk=int(sys.argv[4])))
