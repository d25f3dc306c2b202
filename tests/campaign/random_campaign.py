"""Campaigns over random pixels, some of them invalid, whose tiles, cells and classes a test can choose."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import xarray as xr
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

import rtsx
from rtsx import ModelBundle
from rtsx.campaign.cell_task import CellJob, cell_job
from rtsx.campaign.cells import Address, CellTable
from rtsx.campaign.map import create_map
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec, PredictionSpec
from rtsx.cube import BandRequest, CubeRecipe, FileImages, LayerRecipe, SourceRecipe
from rtsx.grid import Grid
from rtsx.inference.runner import prediction_plan
from rtsx.tiling import TilePlan

LAYERS = ("red", "nir")
SIDE = (192, 192)
"""Height and width of the map, px."""
TOP, LEFT = 192 * 100, -192 * 70
"""Its place on the lattice, px."""
PIXEL = 10.0
STRIDE = 4


class Strided(torch.nn.Module):
    """Pools by four, looks around, comes back up and looks around again: a reach of 8 px."""

    def __init__(self, classes: int = 1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.coarse = torch.nn.Conv2d(2, 3, 3, padding=1)
        self.fine = torch.nn.Conv2d(5, classes, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        low = torch.tanh(self.coarse(torch.nn.functional.avg_pool2d(batch, STRIDE)))
        high = torch.nn.functional.interpolate(low, scale_factor=STRIDE)
        return 4 * self.fine(torch.cat([high, batch], dim=1))


def make_bundle(classes: int = 1, **changes: Any) -> ModelBundle:
    """A network of a stride of 4 px and a reach of 8; several classes exclude each other."""
    names = ("target", "water", "ground")[:classes]
    values = {
        "layers": LAYERS,
        "classes": names,
        "tile": 32,
        "overlap": 16,
        "stride": STRIDE,
        "id": f"random-{classes}",
    }
    several = {"activation": "softmax"} if classes > 1 else {}
    scaled = {"mean": (0.3, 0.3), "std": (0.2, 0.2)}
    return ModelBundle.from_module(Strided(classes), **(values | several | scaled | changes))


def write_files(folder: Path, *, seed: int, reach: int = 40) -> tuple[Path, ...]:
    """Three files that overlap, off the lattice by a third of a pixel, with holes, and no data beside and between them."""
    random = np.random.default_rng(seed)
    places = [(-reach, -reach, 150, 140), (60, 80, 120, 192 + reach - 80), (-reach, 150, 90, 30)]
    return tuple(_write(folder / f"scene{number}.tif", random, place=place) for number, place in enumerate(places))


def _write(path: Path, random: np.random.Generator, *, place: tuple[int, int, int, int]) -> Path:
    row, column, height, width = place
    pixels = random.integers(1, 9000, (2, height, width)).astype(np.uint16)
    pixels[:, gaussian_filter(random.normal(size=(height, width)), 5) > 0.06] = 0
    corner = (LEFT + column + 0.3) * PIXEL, -(TOP + row + 0.3) * PIXEL
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 2,
        "height": height,
        "width": width,
        "nodata": 0,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile, crs="EPSG:3413", transform=from_origin(*corner, PIXEL, PIXEL)) as file:
        file.write(pixels)
        file.descriptions = LAYERS
    return path


def make_recipe(files: tuple[Path, ...], output: Path | str, *, cell: int = 64, **changes: Any) -> CampaignRecipe:
    """A recipe whose region nobody asks for."""
    layers = tuple(LayerRecipe(wanted=BandRequest(name=name, scale_factor=1e-4)) for name in LAYERS)
    source = SourceRecipe(name="scenes", images=FileImages(assets={"image": tuple(map(str, files))}), layers=layers)
    grid = Grid("EPSG:3413", PIXEL, cell_size=cell)
    values: dict[str, Any] = {
        "name": "random",
        "year": 2024,
        "region": grid[0, 0].lonlat,
        "cube": CubeRecipe(grid=grid, sources=(source,), chunk=50),
        "bundles": (make_bundle(),),
        "output": str(output),
        "prediction": PredictionSpec(device="cpu"),
        "outlines": OutlineSpec(min_area_m2=300.0, edge_distance=3),
        "shard": 32,
        "chunk": 16,
    }
    return CampaignRecipe(**(values | changes))


def make_plan(recipe: CampaignRecipe, *, cells: list[Address] | None = None, **tiles: Any) -> CampaignPlan:
    """The plan of a recipe with these tiles over all cells, or some."""
    grid = recipe.cube.grid
    cell = grid.cell_size
    rows = (TOP // cell, (TOP + SIDE[0]) // cell)
    columns = (LEFT // cell, (LEFT + SIDE[1]) // cell)
    chosen = cells or [(y, x) for y in range(*rows) for x in range(*columns)]
    values = {
        "shape": SIDE,
        "offset": (TOP, LEFT),
        "tile": 48,
        "overlap": 16,
        "trim": 8,
        "stride": STRIDE,
        "blend": "crop",
    }
    prediction = prediction_plan(
        recipe.bundles,
        layers=LAYERS,
        tiling=TilePlan(**(values | tiles)),
        augment=(),
        scales=(1.0,),
        merge="mean",
        keep_members=False,
        dtype="uint8",
    )
    return CampaignPlan(
        name=recipe.name,
        year=recipe.year,
        grid=grid,
        rows=rows,
        columns=columns,
        cells=CellTable(np.array(chosen, np.int32)),
        prediction=prediction,
        layers={},
        outlines=recipe.outlines,
        cogs=recipe.cogs,
        shard=recipe.shard,
        chunk=recipe.chunk,
        runtime={"backend": "eager", "precision": "auto"},
    )


def make_job(recipe: CampaignRecipe, plan: CampaignPlan) -> CellJob:
    """The job of a plan whose map is there."""
    create_map(recipe.output, plan, bundle_id="demo", storage_options=recipe.storage_options)
    return cell_job(recipe, plan)


def whole(recipe: CampaignRecipe, plan: CampaignPlan) -> xr.Dataset:
    """The reference: the whole window of the map, predicted at once."""
    cube = rtsx.open_cube(recipe.cube, plan.geobox).assign_attrs(lattice_origin=list(plan.lattice_origin)).load()
    tiling = plan.prediction.tiling
    pred = rtsx.predict_cube(
        cube,
        recipe.bundles,
        tile=tiling.tile,
        overlap=tiling.overlap,
        trim=None if tiling.blend == "crop" else tiling.trim,
        blend=tiling.blend,
        device="cpu",
        backend="eager",
    )
    assert replace(plan.prediction).to_json() == pred.attrs["plan"], "the reference is of the same plan"
    return pred
