"""A small image, a stored map of it and outlines, with names as nobody should give them."""

from pathlib import Path

import geopandas
import numpy as np
import rioxarray  # noqa: F401
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import rtsx

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
SIDE = 1200
LEFT, TOP = 0.0, 3600.0


def small_image(side: int = 300, *, pixel: float = 12.0) -> xr.Dataset:
    """Four bands and a hill on the polar grid; reflectance rises to the east."""
    coords = xr_coords(GeoBox((side, side), Affine(pixel, 0, LEFT, 0, -pixel, TOP), "EPSG:3413"))
    y, x = np.mgrid[0:side, 0:side]
    bands = {
        name: (("y", "x"), (100 + step * x).astype(np.uint16))
        for step, name in enumerate(("blue", "green", "red", "nir"))
    }
    hill = (("y", "x"), np.hypot(y - side / 2, x - side / 2).astype(np.float32))
    image = xr.Dataset({**bands, "dem": hill}, coords=coords)
    for name in bands:
        image[name].attrs = {"scale_factor": 1e-4, "_FillValue": np.uint16(0)}
    image["dem"].attrs["units"] = "m"
    return image


def small_map(path: Path) -> Path:
    """Store a map with overviews: a square of 80 % in the middle, nothing known in the north-west quarter."""
    coords = xr_coords(GeoBox((SIDE, SIDE), Affine(3, 0, LEFT, 0, -3, TOP), "EPSG:3413"))
    probability = np.zeros((SIDE, SIDE), np.uint8)
    probability[500:700, 500:700] = 80
    probability[: SIDE // 3, : SIDE // 3] = 255
    made = xr.Dataset(
        {
            "probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": np.uint8(255)}),
            "binary": (("y", "x"), np.where(probability == 255, 255, probability > 50).astype(np.uint8), {"_FillValue": np.uint8(255)}),
            "valid": (("y", "x"), probability != 255),
        },
        coords=coords,
    ).chunk({"y": 300, "x": 300})  # fmt: skip
    rtsx.write_cube(made, path)
    return path


def several_classes() -> xr.Dataset:
    """A map of two classes beside the background: a slump in the west, a lake in the east."""
    coords = xr_coords(GeoBox((4, 8), Affine(3, 0, LEFT, 0, -3, TOP), "EPSG:3413"))
    west = np.broadcast_to(np.arange(8) < 4, (4, 8))
    probability = np.stack([np.full((4, 8), 5), np.where(west, 90, 0), np.where(west, 0, 80)]).astype(np.uint8)
    attrs = {"scale_factor": 0.01, "_FillValue": np.uint8(255)}
    made = {"probability": (("class", "y", "x"), probability, attrs), "valid": (("y", "x"), np.ones((4, 8), bool))}
    return xr.Dataset(made, coords=coords).assign_coords({"class": ["background", "slump", "lake"]})


def small_outlines() -> geopandas.GeoDataFrame:
    """Two outlines, one of them with a name that is HTML, in longitude and latitude."""
    squares = [shapely.box(1500, 1500, 2100, 2100), shapely.box(2700, 600, 2760, 660)]
    columns = {"name": ["middle", HOSTILE], "prob_mean": [0.8, 0.3], HOSTILE: ["a", "b"]}
    return geopandas.GeoDataFrame(columns, geometry=squares, crs="EPSG:3413").to_crs("EPSG:4326")


def tiny_bundle() -> rtsx.ModelBundle:
    """A network of one layer, with weights of a fixed seed."""
    import torch

    torch.manual_seed(0)
    return rtsx.ModelBundle.from_module(
        torch.nn.Sequential(torch.nn.Conv2d(2, 1, 5, padding=2)), layers=["red", "nir"], mean=[0.05, 0.05], std=[0.02, 0.02],
        classes=["slump"], activation="sigmoid", tile=64, overlap=16, stride=1, threshold=0.5, id="tiny",
    )  # fmt: skip
