"""Rasters and cubes that the tests of this room are made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.georeference import with_georeference

UTM = Affine(3.0, 0.0, 711576.0, 0.0, -3.0, 94749.0)


@pytest.fixture
def write_tif(tmp_path: Path) -> Callable[..., Path]:
    """Write (band, y, x) as a tiled GeoTIFF and give its path."""

    def write(name: str, pixels: NDArray[Any], *, descriptions: tuple[str, ...] = (), **profile: Any) -> Path:
        path = tmp_path / name
        options: dict[str, Any] = {
            "crs": "EPSG:32649",
            "transform": UTM,
            "nodata": None,
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
            "compress": "deflate",
            "dtype": pixels.dtype,
        } | profile
        count, height, width = pixels.shape
        with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **options) as file:
            file.write(pixels)
            if descriptions:
                file.descriptions = descriptions
        return path

    return write


@pytest.fixture
def random_cube() -> Callable[..., xr.Dataset]:
    """Make a prediction-like cube with invalid pixels: probability, binary, valid, a float and a uint16 layer."""

    def make(
        shape: tuple[int, int] = (230, 301),
        *,
        chunk: int | None = 100,
        times: int = 0,
        classes: int = 0,
        affine: Affine = UTM,
        crs: str = "EPSG:32649",
        seed: int = 0,
    ) -> xr.Dataset:
        rng = np.random.default_rng(seed)
        outer = tuple(n for n in (times, classes) if n)
        dims = (*(["time"] if times else []), *(["class"] if classes else []), "y", "x")
        probability = rng.integers(0, 101, (*outer, *shape)).astype(np.uint8)
        invalid = rng.random(shape) < 0.2
        probability[..., invalid] = 255
        binary = np.where(probability == 255, 255, probability >= 50).astype(np.uint8)
        dem = rng.normal(300, 50, shape).astype(np.float32)
        dem[invalid] = -9999
        red = rng.integers(1, 9000, shape).astype(np.uint16)
        arrays: dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]] = {
            "probability": (dims, probability, {"scale_factor": 0.01, "_FillValue": np.uint8(255)}),
            "binary": (dims, binary, {"_FillValue": np.uint8(255)}),
            "valid": (("y", "x"), ~invalid, {"long_name": "True where a pixel can be trusted"}),
            "dem": (("y", "x"), dem, {"_FillValue": np.float32(-9999), "units": "m"}),
            "red": (("y", "x"), red, {"scale_factor": 1e-4, "_FillValue": np.uint16(0), "units": "reflectance"}),
        }
        variables = {
            name: xr.Variable(
                axes, data if chunk is None else da.from_array(data, (1,) * (data.ndim - 2) + (chunk, chunk)), attrs
            )
            for name, (axes, data, attrs) in arrays.items()
        }
        cube = with_georeference(variables, GeoBox(shape, affine, crs), lattice_origin=(711000.0, 95001.0))
        coords: dict[str, Any] = {}
        if times:
            coords["time"] = np.array(["2023-07-01", "2024-08-02", "2025-07-15"][:times], "M8[ns]")
        if classes:
            coords["class"] = ["clear", "cloud", "slump"][:classes]
        return cube.assign_coords(coords).assign_attrs(bundle_id="demo", plan='{"tile": 256}', threshold=0.5)

    return make
