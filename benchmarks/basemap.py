"""A cell over the quads of a whole basemap, beside the same cell over a VRT of the few quads that it shows."""

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import dask
import numpy as np
import rasterio
from affine import Affine

from rtsx.config.cube import load_cube_config
from rtsx.cube import open_source
from rtsx.ordering import Mosaic, QuadLedger
from rtsx.ordering.basemap import Quad, QuadRange
from rtsx.ordering.catalog import described_asset, write_items
from rtsx.ordering.provider import RemoteFile

CORNER = (-15_480_000, 10_910_000)
"""South-west of the quads in EPSG:3857, near Herschel Island, m."""
BANDS = ("red", "green", "blue", "alpha")
VRT = """<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:3857</SRS>
<GeoTransform>{west!r}, {step!r}, 0, {north!r}, 0, -{step!r}</GeoTransform>{bands}</VRTDataset>"""
VRT_BAND = '<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{name}</ColorInterp>{sources}</VRTRasterBand>'
VRT_SOURCE = """<SimpleSource><SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="{side}" ySize="{side}"/><DstRect xOff="{x}" yOff="{y}" xSize="{side}" ySize="{side}"/></SimpleSource>"""


class Complete:
    """Lists every quad of a range, as the API does of a mosaic without gaps."""

    def quads(self, mosaic: Mosaic, area: QuadRange) -> Iterator[Quad]:
        """Quads of a range."""
        for y in range(area.y0, area.y1):
            for x in range(area.x0, area.x1):
                yield Quad(id=f"{x}-{y}", x=x, y=y, href="", percent_covered=100.0)


def write_quads(folder: Path, *, side: int, rows: int) -> Mosaic:
    """Write four quads of `side` px, ``few.vrt`` of them, and ``all.parquet``, in which they stand among `rows` rows (three or more) around the world."""
    start, end = datetime(2025, 7, 1, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)
    step = 4.777314267823516 * 4096 / side
    mosaic = Mosaic(id="m", name="m", start=start, end=end, quad_size=side, resolution=step)
    x0, y0 = mosaic.quad_at(*CORNER)
    world, rng = mosaic.across * side * step / 2, np.random.default_rng(1)
    assets, sources = {}, {}
    for x, y in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
        path = folder / f"{x}-{y}.tif"
        pixels = rng.integers(30, 220, (4, side // 16, side // 16), np.uint8).repeat(16, 1).repeat(16, 2)
        pixels[3] = 255
        profile = {"driver": "COG", "width": side, "height": side, "count": 4, "dtype": "uint8", "compress": "lzw"}
        transform = Affine(step, 0, x * side * step - world, 0, -step, (y + 1) * side * step - world)
        with rasterio.open(path, "w", crs="EPSG:3857", transform=transform, **profile) as file:
            file.write(pixels)
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in BANDS]
        remote = RemoteFile(scene_id=path.stem, asset="data", name=path.name, href=str(path))
        named = {"eo:bands": [{"name": name} for name in BANDS]}
        assets[x, y] = json.dumps(named | described_asset(path, remote, named))
        sources[path.name] = {"x": (x - x0) * side, "y": (y0 + 1 - y) * side}
    bands = "".join(
        VRT_BAND.format(
            band=band,
            name=name.title(),
            sources="".join(VRT_SOURCE.format(file=file, band=band, side=side, **at) for file, at in sources.items()),
        )
        for band, name in enumerate(BANDS, start=1)
    )
    corner = {"west": x0 * side * step - world, "north": (y0 + 2) * side * step - world}
    (folder / "few.vrt").write_text(VRT.format(side=2 * side, step=step, bands=bands, **corner))
    area = QuadRange(y0 - rows // 2, 0, y0 - rows // 2 + rows, mosaic.across)
    ledger = QuadLedger(folder / "quads.sqlite")
    ledger.begin(mosaic.id, "", (area,))
    ledger.list_range(area, Complete(), mosaic)
    plain = assets[x0, y0]
    ledger.settle([("there", 1, assets.get((x, y), plain), "", y, x) for y, x, *_ in ledger.wanted()])
    write_items(ledger, folder / "all.parquet", mosaic)
    ledger.close()
    return mosaic


def seconds_of(folder: Path, source: str, *, mosaic: Mosaic, side: int) -> tuple[float, float]:
    """Seconds to open a cell of `side` px in the middle of the quads, and to compute it."""
    x, y = mosaic.quad_at(*CORNER)
    west, south, *_ = mosaic.bounds(QuadRange(y + 1, x + 1, y + 2, x + 2))
    reach = side * mosaic.resolution / 111_320 / 2  # degrees of longitude, as wide as they are on EPSG:3857
    config = folder / "cube.yaml"
    config.write_text(
        f"region: {{bbox: [{west - reach}, {south - reach / 3}, {west + reach}, {south + reach / 3}]}}\n"
        "grid: {crs: EPSG:3413, resolution: %s}\n"
        "sources: {basemap: {sensor: planet-basemap, %s}}\n" % (mosaic.resolution / 3, source)
    )
    started = time.perf_counter()
    cube = open_source(load_cube_config(config).recipe())
    opened = time.perf_counter()
    with dask.config.set(scheduler="threads", num_workers=2):
        done = cube.compute()
    assert done["valid"].values.mean() > 0.9
    return opened - started, time.perf_counter() - opened


def run(*, side: int, rows: int, cell: int, rounds: int) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as name:
        mosaic = write_quads(Path(name), side=side, rows=rows)
        ways = {
            f"a table of {rows * mosaic.across:,} quads": "items: all.parquet",
            "a VRT of four quads": "files: few.vrt",
        }
        print(f"\nthree layers of a cell over quads of {side} px, median of {rounds}\n")
        print(f"{'over':28} {'open, s':>8} {'compute, s':>11}")
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds + 1):  # the first one compiles
            for way, source in ways.items():
                found[way].append(seconds_of(Path(name), source, mosaic=mosaic, side=cell))
        for way, all_ in found.items():
            opened, computed = (median(column) for column in zip(*all_[1:], strict=True))
            print(f"{way:28} {opened:8.2f} {computed:11.2f}")
