"""Small rasters in several projections over one piece of ground, for tests of whole cubes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rtsx.cube.images import BandRequest, BandSource, GivenImages, Image
from rtsx.cube.mask_rules import mask_rule
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, QualityRecipe, Resampling, SourceRecipe
from rtsx.cube.terrain import get_terrain
from rtsx.grid import Grid

GRID = Grid.arctic(resolution=10)
CENTRE = (-2_100_000.0, -400_000.0)
"""Middle of the ground in the grid's CRS: near Herschel Island, UTM zone 7."""
ROWS, COLUMNS = (40_000 - 40, 40_000 + 55), (-210_000 - 60, -210_000 + 50)
CUBE = GRID.window(ROWS, COLUMNS)
"""95 x 110 pixels of the grid."""


@dataclass
class Ground:
    """Writes rasters around the middle of the ground."""

    folder: Path
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(8))

    def raster(
        self,
        name: str,
        pixels: NDArray[Any],
        *,
        crs: str,
        pixel: float,
        nodata: float | None,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> BandSource:
        """Write (band, y, x), its middle moved by `shift` (x, y) metres of the grid from the ground's."""
        count, height, width = pixels.shape
        move = Transformer.from_crs(GRID.crs, crs, always_xy=True)
        x, y = move.transform(CENTRE[0] + shift[0], CENTRE[1] + shift[1])
        affine = Affine(pixel, 0, x - width / 2 * pixel, 0, -pixel, y + height / 2 * pixel)
        path = self.folder / f"{name}.tif"
        profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
        with rasterio.open(
            path, "w", **profile, crs=crs, transform=affine, nodata=nodata, tiled=True, blockxsize=64, blockysize=64
        ) as file:
            file.write(pixels)
        return BandSource(
            href=str(path),
            bands=tuple(range(1, count + 1)),
            geobox=GeoBox((height, width), affine, crs),
            dtype=pixels.dtype.name,
            nodata=nodata,
            asset=name,
        )

    def scene(
        self,
        name: str,
        *,
        crs: str = "EPSG:32607",
        shift: tuple[float, float] = (0.0, 0.0),
        time: datetime | None = None,
        cloud: float | None = None,
        size: int = 150,
        offset: float = 0.0,
    ) -> Image:
        """Two bands of uint16 with nodata, and eight of quality data, about a sixth of it bad."""
        stored = self.rng.integers(100, 8000, (2, size, size)).astype(np.uint16)
        stored[:, self.rng.random((size, size)) < 0.001] = 0
        udm2 = np.zeros((8, size, size), np.uint8)
        bad = np.kron(self.rng.random((-(-size // 12),) * 2) < 0.15, np.ones((12, 12), bool))[:size, :size]
        udm2[0], udm2[5] = ~bad, bad
        bands = self.raster(f"{name}_sr", stored, crs=crs, pixel=9.0, nodata=0, shift=shift)
        parts = {
            layer: BandSource(
                **{key: getattr(bands, key) for key in ("href", "geobox", "dtype", "nodata", "asset")},
                bands=(number,),
                scale_factor=1e-4,
                add_offset=offset,
            )
            for number, layer in enumerate(("red", "nir"), start=1)
        }
        parts["udm2"] = self.raster(f"{name}_udm2", udm2, crs=crs, pixel=9.0, nodata=None, shift=shift)
        return Image(id=name, bands=parts, time=time, cloud_cover=cloud)

    def heights(self, name: str, *, shift: tuple[float, float] = (0.0, 0.0), size: int = 300) -> Image:
        """A DEM of 10 m on the lattice of EPSG:3413, with holes."""
        left = round((CENTRE[0] + shift[0]) / 10) * 10 - CENTRE[0]
        top = round((CENTRE[1] + shift[1]) / 10) * 10 - CENTRE[1]
        y, x = np.mgrid[:size, :size] * 10.0
        heights = 30 * np.sin((x + left) / 170) + 20 * np.cos((y - top) / 230) + self.rng.normal(0, 0.3, (size, size))
        heights[self.rng.random((size, size)) < 0.0005] = -9999
        bands = self.raster(
            name, heights[None].astype(np.float32), crs="EPSG:3413", pixel=10.0, nodata=-9999, shift=(left, top)
        )
        return Image(id=name, bands={"dem": bands})

    def trends(self, name: str) -> Image:
        """Three bands of uint8 without nodata, in degrees."""
        bands = self.raster(
            name,
            self.rng.integers(0, 256, (3, 130, 260)).astype(np.uint8),
            crs="EPSG:4326",
            pixel=0.000269494585,
            nodata=None,
        )
        return Image(
            id=name,
            bands={
                layer: BandSource(
                    **{key: getattr(bands, key) for key in ("href", "geobox", "dtype", "nodata", "asset")},
                    bands=(number,),
                )
                for number, layer in enumerate(("tc_brightness", "tc_greenness"), start=1)
            },
        )


def optical(images: Sequence[Image], **fields: Any) -> SourceRecipe:
    """Source of `Ground.scene`s, judged by rule *tss-v1*."""
    quality = QualityRecipe(
        wanted=BandRequest(name="udm2", bands=tuple(range(1, 9))),
        rule=mask_rule("tss-v1", data=None),
        erode_m=fields.pop("erode_m", 0.0),
    )
    given: Mapping[str, Any] = {"quality": quality, **fields}
    resampling: Resampling = given.get("resampling", "bilinear")
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name), resampling=resampling, units="reflectance")
        for name in ("red", "nir")
    )
    kept = {key: value for key, value in given.items() if key != "resampling"}
    return SourceRecipe(name="planetscope", images=GivenImages(images), layers=layers, **kept)


def elevation(images: Sequence[Image], **fields: Any) -> SourceRecipe:
    """Source of `Ground.heights`, with relative elevation and slope."""
    terrain = tuple(get_terrain(name) for name in fields.pop("terrain", ("relative_elevation", "slope")))
    layer = LayerRecipe(wanted=BandRequest(name="dem"), resampling="cubic")
    return SourceRecipe(name="arcticdem", images=GivenImages(images), layers=(layer,), terrain=terrain, **fields)


def trend(images: Sequence[Image]) -> SourceRecipe:
    """Source of `Ground.trends`, nearest."""
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name), resampling="nearest") for name in ("tc_brightness", "tc_greenness")
    )
    return SourceRecipe(name="tcvis", images=GivenImages(images), layers=layers)


def recipe(*sources: SourceRecipe, chunk: int = 40, **fields: Any) -> CubeRecipe:
    """Cube of some sources on the grid of these tests."""
    return CubeRecipe(grid=GRID, sources=sources, chunk=chunk, **fields)


def at(day: str) -> datetime:
    """Noon of a day."""
    return datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)
