"""A campaign over six cells that runs within seconds: two files side by side, and a network of a few weights."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
import torch
import yaml
from distributed import Client, LocalCluster
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely import box
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.campaign import Campaign
from rtsx.campaign.cell_task import cell_job
from rtsx.campaign.cells import Address
from rtsx.campaign.recipe import CampaignRecipe, OutlineSpec, PredictionSpec, RetrySpec
from rtsx.config.campaign import load_campaign
from rtsx.cube import BandRequest, CubeRecipe, FileImages, LayerRecipe, SourceRecipe
from rtsx.grid import Grid
from rtsx.model import ModelBundle

CELL = 64
GRID = Grid("EPSG:3413", 10.0, cell_size=CELL)
TOP, LEFT = 310, -210
ROWS, COLUMNS = 2, 3
CELLS: list[Address] = [(TOP + j, LEFT + i) for j in range(ROWS) for i in range(COLUMNS)]
LAYERS = ("red", "nir")
_MARGIN = 24
_SPLIT = 2 * CELL
"""Column of the map at which the eastern file begins: the last column of cells lies in it alone."""


def write_country(folder: Path) -> tuple[Path, Path]:
    """Files of the west (two columns of cells) and of the east (one), without overlap."""
    west, east = folder / "west.tif", folder / "east.tif"
    write_part(west, columns=(-_MARGIN, _SPLIT), seed=1)
    write_part(east, columns=(_SPLIT, COLUMNS * CELL + _MARGIN), seed=2)
    return west, east


def write_part(path: Path, *, columns: tuple[int, int], seed: int) -> None:
    """Smooth noise with holes in it, over all rows of the map."""
    random = np.random.default_rng(seed)
    shape = (ROWS * CELL + 2 * _MARGIN, columns[1] - columns[0])
    smooth = gaussian_filter(random.normal(size=(len(LAYERS), *shape)), (0, 4, 4))
    pixels = np.clip(1500 + 9000 * smooth, 1, 9000).astype(np.uint16)
    pixels[:, gaussian_filter(random.normal(size=shape), 6) > 0.03] = 0
    side = CELL * GRID.resolution
    corner = LEFT * side + columns[0] * GRID.resolution, -TOP * side + _MARGIN * GRID.resolution
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(LAYERS),
        "height": shape[0],
        "width": shape[1],
        "crs": GRID.crs,
        "transform": from_origin(*corner, GRID.resolution, GRID.resolution),
        "nodata": 0,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": 32,
        "blockysize": 32,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions = LAYERS


def rewrite_east(path: Path) -> None:
    """Other pixels in the eastern file."""
    write_part(path, columns=(_SPLIT, COLUMNS * CELL + _MARGIN), seed=3)


def scale_pixels(path: Path, factor: int) -> None:
    """The same file with all values multiplied."""
    with rasterio.open(path, "r+") as file:
        file.write(file.read() * np.uint16(factor))


def damage(path: Path) -> None:
    """Make the first block of a file unreadable; what the file says of itself stays."""
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 100] = b"\xff" * 100
    path.write_bytes(content)


@cache
def make_bundle(seed: int = 3) -> ModelBundle:
    """A strided network of short reach, as TorchScript, because an archive of torch.export takes each new process seconds to load.

    It is kept, because a second trace has other names in it, and thus another digest.
    """
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 1, 3, padding=1),
        torch.nn.Upsample(scale_factor=2, mode="nearest"),
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, which would rather have torch.export
        traced = torch.jit.trace(network.eval(), torch.zeros(1, len(LAYERS), 48, 48))
    return ModelBundle.from_module(
        traced, layers=LAYERS, mean=(1500.0,) * 2, std=(600.0,) * 2, tile=48, overlap=16, stride=2, id="tiny"
    )


def region_of(cells: list[Address]) -> BaseGeometry:
    """The middles of cells, in longitude and latitude."""
    side = CELL * GRID.resolution
    middles = [
        box(ix * side + side / 4, -(iy + 1) * side + side / 4, (ix + 1) * side - side / 4, -iy * side - side / 4)
        for iy, ix in cells
    ]
    return geopandas.GeoSeries(middles, crs=GRID.crs).to_crs(4326).union_all()


def make_recipe(files: tuple[Path, ...], output: str, **changes: Any) -> CampaignRecipe:
    """The campaign; changes are fields of its recipe."""
    source = SourceRecipe(
        name="images",
        images=FileImages(assets={"image": tuple(map(str, files))}),
        layers=tuple(LayerRecipe(wanted=BandRequest(name=name)) for name in LAYERS),
    )
    recipe = CampaignRecipe(
        name="small",
        year=2024,
        region=region_of(CELLS),
        cube=CubeRecipe(grid=GRID, sources=(source,)),
        bundles=(make_bundle(),),
        output=output,
        prediction=PredictionSpec(tile=48, overlap=16, device="cpu"),
        outlines=OutlineSpec(min_area_m2=300.0, edge_distance=3),
        shard=64,
        chunk=32,
        retry=RetrySpec(attempts=2, backoff_s=0.0, lease_s=20.0),
    )
    return replace(recipe, **changes)


def write_years(folder: Path, *years: int) -> Path:
    """The YAML of a campaign of two cells, mapped in some years from images that differ."""
    make_bundle().save(folder / "tiny")
    values = {
        "name": "small",
        "year": years[0],
        "region": {"wkt": shapely.to_wkt(region_of(CELLS[:2]), rounding_precision=-1)},
        "cube": {
            "grid": {"crs": GRID.crs, "resolution": GRID.resolution, "cell_size": GRID.cell_size},
            "sources": {"images": {"files": "west-{year}.tif", "layers": list(LAYERS)}},
        },
        "model": "tiny",
        "trust": True,
        "prediction": {"tile": 48, "overlap": 16, "device": "cpu"},
        "outlines": {"min_area_m2": 300, "edge_distance": 3},
        "shard": 64,
        "chunk": 32,
        "output": "out",
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(values))
    for year in years:
        write_part(folder / f"west-{year}.tif", columns=(-_MARGIN, _SPLIT), seed=year)
        recipe = load_campaign(path, year=year)
        campaign = Campaign.create(recipe)
        job = cell_job(recipe, campaign.plan)
        assert all(job(cell, 1, "run").state == "done" for cell in campaign.plan.cells)
    return path


def objects_below(folder: Path) -> dict[str, bytes]:
    """Every file of an output by its path, but for what tells times."""
    timed = ("runs", "marks", "leases", "retired")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(path.relative_to(folder).parts) & set(timed)
    }


@contextmanager
def thread_client(threads: int = 2) -> Iterator[Client]:
    """A client of a cluster in this process; tasks are real, and start at once."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=threads, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
