"""The work that is measured: a ten-layer cube on disk and a network with lively answers."""

from pathlib import Path

import dask.array as da
import numpy as np
import torch
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import rtsx
from rtsx.model import build_network

LAYERS = (
    "ndvi",
    "blue",
    "green",
    "red",
    "nir",
    "relative_elevation",
    "slope",
    "tc_brightness",
    "tc_greenness",
    "tc_wetness",
)
STRIDE = 32


def make_cube(size: int, *, layers: tuple[str, ...] = LAYERS, chunk: int = 1024, wide: int | None = None) -> xr.Dataset:
    """A lazy cube of `size` x `size` smooth random pixels: uint16 for `wide` of the layers, half of them by default, uint8 for the others."""
    wide = (len(layers) + 1) // 2 if wide is None else wide
    geobox = GeoBox((size, size), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413")
    cube = xr.Dataset(attrs={"lattice_origin": [0.0, 0.0]}).assign_coords(xr_coords(geobox, always_yx=True))
    for number, name in enumerate(layers):
        dtype, top = (np.uint16, 3000) if number < wide else (np.uint8, 255)
        pixels = da.map_blocks(
            _smooth,
            dtype=dtype,
            chunks=da.core.normalize_chunks(chunk, (size, size)),
            top=top,
            seed=number,
            meta=np.empty((0, 0), dtype),
        )
        cube[name] = (("y", "x"), pixels, {"scale_factor": 1 / top, "_FillValue": dtype(0)})
    return cube


def write_scene(folder: Path, size: int, *, layers: tuple[str, ...] = LAYERS) -> Path:
    """The cube as Zarr, in shards of 1024 px."""
    path = folder / f"cube-{size}-{len(layers)}.zarr"
    if not path.exists():
        rtsx.write_cube(make_cube(size, layers=layers), path, overviews=False)
    return path


def make_unet(layers: int = len(LAYERS)) -> torch.nn.Module:
    """Unet/resnet18 with seeded random weights whose answers are not all one half.

    Normalisation is settled on noise, and the head is turned up, so that the answer depends on the neighbourhood as a
    trained network's does: with the weights as they are initialised its measured reach would be next to nothing.
    """
    torch.manual_seed(0)
    unet = build_network("Unet", {"encoder_name": "resnet18", "in_channels": layers, "classes": 1}).train()
    with torch.no_grad():
        for _ in range(8):
            unet(torch.rand(2, layers, 128, 128))
        unet.eval()
        answer = unet(torch.rand(2, layers, 256, 256))
        head = unet.segmentation_head[0]
        head.bias -= answer.mean()
        head.weight *= 2 / answer.std()
        head.bias *= 2 / answer.std()
    return unet


def make_bundle(module: torch.nn.Module, *, layers: tuple[str, ...] = LAYERS, stride: int = STRIDE) -> rtsx.ModelBundle:
    """The network as a bundle that was trained with tiles of 256 px."""
    return rtsx.ModelBundle.from_module(
        module, layers=layers, classes=("target",), tile=256, overlap=64, stride=stride, id="bench"
    )


def _smooth(block_info: dict, *, top: int, seed: int) -> np.ndarray:
    location = block_info[None]["chunk-location"]
    shape = block_info[None]["chunk-shape"]
    random = np.random.default_rng((seed, *location))
    coarse = random.random((shape[0] // 16 + 2, shape[1] // 16 + 2))
    smooth = np.kron(coarse, np.ones((16, 16)))[: shape[0], : shape[1]]
    noisy = 0.8 * smooth + 0.2 * random.random(shape)
    return (1 + noisy * (top - 1)).astype(block_info[None]["dtype"])
