"""Small campaigns for tests of planning: one file, a network of short reach, and plans made without either."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from shapely import box, union_all
from shapely.geometry.base import BaseGeometry

from rtsx import ModelBundle
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec
from rtsx.cube import BandRequest, CubeRecipe, FileImages, LayerRecipe, SourceRecipe
from rtsx.grid import Grid
from rtsx.inference.plan import PredictionPlan
from rtsx.model.metadata import Reach
from rtsx.tiling import TilePlan

GRID = Grid("EPSG:3413", 10.0, cell_size=64)
FIRST: Address = (310, -210)
"""The cell at the upper left of the file."""
LAYERS = ("red", "nir")


def ground(*cells: Address, grid: Grid = GRID) -> BaseGeometry:
    """The middles of some cells, in longitude and latitude."""
    quarter = grid.cell_size * grid.resolution / 4
    middles = [grid[cell].polygon.buffer(-quarter, join_style="mitre") for cell in cells]
    lonlat: BaseGeometry = geopandas.GeoSeries([union_all(middles)], crs=grid.crs).to_crs(4326).iloc[0]
    return lonlat


def beside(iy: int, ix: int) -> Address:
    """A cell by its place from the first."""
    return FIRST[0] + iy, FIRST[1] + ix


def write_file(path: Path, *, cells: int = 2) -> Path:
    """One file of two bands over `cells` by `cells` cells."""
    side = cells * GRID.cell_size
    left, _, _, top = GRID[FIRST].bounds
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(LAYERS),
        "height": side,
        "width": side,
        "crs": GRID.crs,
        "transform": from_origin(left, top, GRID.resolution, GRID.resolution),
        "nodata": 0,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.random.default_rng(0).integers(1, 9000, (len(LAYERS), side, side)).astype(np.uint16))
    return path


def make_bundle(reach: int | None = 8, *, layers: Sequence[str] = LAYERS, **changes: Any) -> ModelBundle:
    """A network that pools by four; with `reach=None` it says that it looks at its whole tile."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.AvgPool2d(4), torch.nn.Conv2d(len(layers), 1, 3, padding=1), torch.nn.Upsample(scale_factor=4)
    )
    values = {"layers": layers, "classes": ("target",), "tile": 32, "overlap": 16, "stride": 4}
    bundle = ModelBundle.from_module(network, **(values | changes))
    return replace(bundle, reach=Reach(stride=4, radius=reach or 16, depends_on_tile=reach is None))


def make_source(*paths: Path, **changes: Any) -> SourceRecipe:
    """A source of some files."""
    layers = tuple(
        LayerRecipe(wanted=BandRequest(name=name, bands=(number + 1,), scale_factor=1e-4))
        for number, name in enumerate(LAYERS)
    )
    images = FileImages(assets={"image": tuple(map(str, paths))})
    return SourceRecipe(**({"name": "scenes", "images": images, "layers": layers} | changes))


def make_recipe(folder: Path, *, cells: Sequence[Address] = (FIRST,), **changes: Any) -> CampaignRecipe:
    """A campaign over some cells of one file in a folder."""
    file = folder / "scene.tif"
    if not file.exists():
        write_file(file)
    values = {
        "name": "small",
        "year": 2024,
        "region": ground(*cells),
        "cube": CubeRecipe(grid=GRID, sources=(make_source(file),)),
        "bundles": (make_bundle(),),
        "output": str(folder / "out"),
        "shard": 32,
        "chunk": 16,
    }
    return CampaignRecipe(**(values | changes))


def make_plan(**changes: Any) -> CampaignPlan:
    """A plan that nobody has planned: three cells of two by two."""
    values: dict[str, Any] = {
        "name": "small",
        "year": 2024,
        "grid": GRID,
        "rows": (310, 312),
        "columns": (-210, -208),
        "cells": CellTable(np.array([[310, -210], [310, -209], [311, -209]], np.int32)),
        "prediction": PredictionPlan(
            tiling=TilePlan(
                shape=(128, 128), offset=(310 * 64, -210 * 64), tile=48, overlap=16, trim=8, stride=4, blend="crop"
            ),
            layers=LAYERS,
            classes=("target",),
            threshold=0.5,
            exclusive=False,
            members=("0123456789abcdef",),
            augment=("identity",),
            scales=(1.0,),
            merge="mean",
            keep_members=False,
            dtype="uint8",
        ),
        "layers": {"sources": [{"name": "scenes", "layers": ["red", "nir"]}], "derived": []},
        "outlines": OutlineSpec(min_area_m2=288.0),
        "cogs": False,
        "shard": 32,
        "chunk": 16,
        "runtime": {"backend": "eager", "precision": "auto"},
    }
    return CampaignPlan(**(values | changes))


def lonlat_box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    """A box in degrees."""
    area: BaseGeometry = box(west, south, east, north)
    return area
