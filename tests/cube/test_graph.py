"""Which images meet which chunks: never one too few."""

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rtsx.cube.graph import images_per_chunk
from rtsx.cube.images import BandSource, Image
from rtsx.geometry.antimeridian import lonlat_polygon

CUBE = GeoBox((300, 400), Affine(30, 0, -1_000_000, 0, -30, 500_000), "EPSG:3413")
CHUNKS = ((100, 100, 100), (150, 150, 100))


def image(geobox: GeoBox, footprint: shapely.Geometry | None = None) -> Image:
    bands = BandSource(href="x.tif", bands=(1,), geobox=geobox, dtype="uint8", nodata=None)
    return Image(id="x", bands={"red": bands}, footprint=footprint)


def chunks_with_pixels(geobox: GeoBox, halo: int) -> set[tuple[int, int]]:
    """Chunks some pixel of which lies within the raster, by exact coordinates of every pixel."""
    height, width = CUBE.shape
    margin = halo
    rows, columns = np.meshgrid(
        np.arange(-margin, height + margin) + 0.5, np.arange(-margin, width + margin) + 0.5, indexing="ij"
    )
    x, y = CUBE.affine * (columns, rows)
    u, v = Transformer.from_crs(str(CUBE.crs), str(geobox.crs), always_xy=True).transform(x, y)
    across, down = ~geobox.affine * (u, v)
    inside = (across >= 0) & (across < geobox.shape[1]) & (down >= 0) & (down < geobox.shape[0])
    found = set()
    for iy, top in enumerate((0, 100, 200)):
        for ix, (left, right) in enumerate(((0, 150), (150, 300), (300, 400))):
            part = inside[top : top + 100 + 2 * margin, left : right + 2 * margin]
            if part.any():
                found.add((iy, ix))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("halo", [0, 12])
@pytest.mark.parametrize("seed", range(6))
def test_no_chunk_that_holds_a_pixel_is_missed(seed: int, halo: int) -> None:
    rng = np.random.default_rng(seed)
    rasters = []
    for crs, pixel in (("EPSG:3413", 10.0), ("EPSG:32622", 10.0), ("EPSG:4326", 0.0003), ("EPSG:32608", 60.0)):
        x, y = CUBE.affine * (rng.uniform(-100, 500), rng.uniform(-100, 400))
        u, v = Transformer.from_crs(str(CUBE.crs), crs, always_xy=True).transform(x, y)
        shape = (int(rng.integers(20, 500)), int(rng.integers(20, 500)))
        rasters.append(GeoBox(shape, Affine(pixel, 0, u, 0, -pixel, v), crs))
    found = images_per_chunk([image(raster) for raster in rasters], CUBE, CHUNKS, halo=halo)
    for raster, chunks in zip(rasters, found, strict=True):
        assert chunks_with_pixels(raster, halo) <= set(chunks)


def test_far_rasters_meet_nothing_and_global_ones_everything() -> None:
    far = GeoBox((100, 100), Affine(10, 0, 1_500_000, 0, -10, -2_000_000), "EPSG:3413")
    whole = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    none, every = images_per_chunk([image(far), image(whole)], CUBE, CHUNKS, halo=0)
    assert none == ()
    assert len(every) == 9


def test_a_footprint_keeps_a_slanted_scene_out_of_its_empty_corners() -> None:
    raster = GeoBox((300, 400), CUBE.affine, "EPSG:3413")
    to_degrees = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    corner = shapely.Polygon([CUBE.affine * (0, 0), CUBE.affine * (130, 0), CUBE.affine * (0, 80)])
    lonlat = shapely.transform(shapely.segmentize(corner, 300), to_degrees.transform, interleaved=False)
    (found,) = images_per_chunk([image(raster, lonlat)], CUBE, CHUNKS, halo=0)
    assert found == ((0, 0),)


@pytest.mark.parametrize("is_outlined", [False, True])
@pytest.mark.parametrize("west", [-200.0, -180.0, -179.99, -90.0, 179.99, 180.0, 180.01, 200.0, 359.95])
def test_in_degrees_ground_is_found_however_its_turns_are_counted(west: float, is_outlined: bool) -> None:
    raster = GeoBox((100, 100), Affine(0.001, 0, west, 0, -0.001, 70), "EPSG:4326")
    footprint = lonlat_polygon(raster.extent.geom, "EPSG:4326") if is_outlined else None
    own = (west + 180) % 360 - 180
    for corner in (own, own + 360 if own < 0 else own):
        cube = GeoBox((100, 100), Affine(0.001, 0, corner, 0, -0.001, 70), "EPSG:4326")
        assert images_per_chunk([image(raster, footprint)], cube, ((100,), (100,)), halo=0) == (((0, 0),),)
