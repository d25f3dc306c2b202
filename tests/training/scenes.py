"""Small random scenes that tests of training share."""

from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx.labels import IGNORED, StubLabelRaster
from rtsx.model import InputLayer
from rtsx.training import TrainingScene

INPUTS = (
    InputLayer(name="red", scale=2.0, offset=-0.1),
    InputLayer(name="nir"),
    InputLayer(name="ndvi", scale=0.5, offset=0.5),
    InputLayer(name="dem", scale=0.01, clip=(-1.0, 1.0)),
)
"""With an ndvi that is derived, a clip and scales of all kinds."""

Chunks = tuple[Sequence[int], Sequence[int]]


def make_cube(
    shape: tuple[int, int],
    *,
    seed: int = 0,
    chunks: Chunks | None = None,
    layers: Sequence[str] = ("red", "nir", "dem"),
    with_mask: bool = True,
) -> xr.Dataset:
    """uint16 reflectance and float heights, each with holes of its own, and a mask with more of them."""
    random = np.random.default_rng(seed)
    red, nir = random.integers(1, 6000, (2, *shape)).astype(np.uint16)
    dem = random.normal(0, 60, shape).astype(np.float32)
    red[random.random(shape) < 0.1] = 0
    dem[random.random(shape) < 0.05] = np.nan
    red[: shape[0] // 4, : shape[1] // 3] = 0  # enough in one piece for tiles to be empty
    packed = {"scale_factor": 1e-4, "_FillValue": 0, "units": "reflectance"}
    known = {"red": (red, packed), "nir": (nir, packed), "dem": (dem, {"units": "m"})}
    arrays = {name: known[name] for name in layers}
    if with_mask:
        arrays["valid"] = (random.random(shape) < 0.9, {})
    variables = {
        name: (("y", "x"), values if chunks is None else da.from_array(values, chunks=chunks), attrs)
        for name, (values, attrs) in arrays.items()
    }
    geobox = GeoBox(shape, Affine(3, 0, 600_000, 0, -3, 7_600_000), "EPSG:32608")
    return xr.Dataset(variables).assign_coords(xr_coords(geobox, always_yx=True))


def make_truth(
    shape: tuple[int, int],
    *,
    seed: int = 0,
    classes: tuple[str, ...] = ("slump",),
    blobs: int = 4,
    ignored: float = 0.05,
) -> NDArray[np.uint8]:
    """Rectangles of each class, and single pixels that are ignored."""
    random = np.random.default_rng(seed + 1000)
    truth = np.zeros(shape, np.uint8)
    for number in range(blobs):
        y, x = (int(random.integers(0, length)) for length in shape)
        truth[y : y + 7, x : x + 5] = 1 + number % len(classes)
    truth[random.random(shape) < ignored] = IGNORED
    return truth


def make_scene(
    name: str = "a",
    *,
    shape: tuple[int, int] = (90, 120),
    seed: int = 0,
    classes: tuple[str, ...] = ("slump",),
    blobs: int = 4,
    ignored: float = 0.05,
    **cube: object,
) -> TrainingScene:
    truth = make_truth(shape, seed=seed, classes=classes, blobs=blobs, ignored=ignored)
    return TrainingScene(
        name=name, cube=make_cube(shape, seed=seed, **cube), truth=StubLabelRaster(truth, classes=classes), group=name
    )


def trusted(cube: xr.Dataset) -> NDArray[np.bool_]:
    """What inference trusts of a cube with all three layers, written out."""
    red, nir, dem = (cube[name].values for name in ("red", "nir", "dem"))
    valid = (red != 0) & (nir != 0) & np.isfinite(dem)
    return valid & cube["valid"].values if "valid" in cube else valid


def truth_of(scene: TrainingScene) -> NDArray[np.uint8]:
    height, width = scene.truth.shape
    return scene.truth.read((slice(0, height), slice(0, width)))
