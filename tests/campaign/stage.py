"""The stage of the fault run: a small country in flaky files, a bundle, and a campaign over 16 cells as a YAML file."""

import json
import warnings
from pathlib import Path
from typing import Any

import fsspec
import geopandas
import numpy as np
import rasterio
import torch
import yaml
from numpy.typing import NDArray
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter
from shapely import box, union_all
from shapely.geometry import mapping

import rtsx
from rtsx.campaign.cells import Address
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.grid import Grid

CELL = 64
"""Side of a cell, px."""
GRID = Grid("EPSG:3413", 10.0, cell_size=CELL)
FIRST: Address = (310, -210)
"""The cell at the upper left."""
ACROSS = 4
"""Cells along each side."""
POISONED: Address = (FIRST[0] + 3, FIRST[1] + 1)
"""The cell in whose middle a file is damaged."""
_MARGIN = 32
"""Pixels of data around the cells."""
LAYERS = ("red", "nir")


def cells(across: int = ACROSS) -> list[Address]:
    """All cells, row by row."""
    return [(FIRST[0] + j, FIRST[1] + i) for j in range(across) for i in range(across)]


def write_country(folder: Path, *, across: int = ACROSS) -> list[Path]:
    """A fifth file over the middle of one cell, of which the pixels are damaged, and four overlapping ones with holes."""
    random = np.random.default_rng(5)
    half = across * CELL // 2 + _MARGIN
    side = 2 * half
    smooth = gaussian_filter(random.normal(size=(len(LAYERS), side, side)), (0, 4, 4))
    pixels = np.clip(1500 + 9000 * smooth, 1, 9000).astype(np.uint16)
    pixels[:, gaussian_filter(random.normal(size=(side, side)), 6) > 0.1] = 0
    files = []
    for name, rows, columns in (
        ("north-west", slice(0, half + 20), slice(0, half + 20)),
        ("north-east", slice(0, half + 20), slice(half - 20, side)),
        ("south-west", slice(half - 20, side), slice(0, half + 20)),
        ("south-east", slice(half - 20, side), slice(half - 20, side)),
    ):
        files.append(_write(folder / f"{name}.tif", pixels[:, rows, columns], row=rows.start, column=columns.start))
    inside = CELL // 4  # further from the cell's border than its neighbours look
    row, column = (_MARGIN + (POISONED[axis] - FIRST[axis]) * CELL + inside for axis in (0, 1))
    middle = (slice(None), slice(row, row + CELL // 2), slice(column, column + CELL // 2))
    damaged = _write(folder / "damaged.tif", np.maximum(pixels[middle], 1), row=row, column=column)
    with rasterio.open(damaged) as file:
        first = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(damaged.read_bytes())
    content[first : first + 200] = b"\xff" * 200
    damaged.write_bytes(content)
    return [damaged, *files]  # the damaged one first, so that its pixels are wanted wherever it lies


def _write(path: Path, pixels: NDArray[np.uint16], *, row: int, column: int) -> Path:
    side = CELL * GRID.resolution
    left = FIRST[1] * side + (column - _MARGIN) * GRID.resolution
    top = -FIRST[0] * side - (row - _MARGIN) * GRID.resolution
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(pixels),
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "crs": GRID.crs,
        "transform": from_origin(left, top, GRID.resolution, GRID.resolution),
        "nodata": 0,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions = LAYERS
    return path


def write_bundle(folder: Path) -> Path:
    """A strided network of short reach."""
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 1, 3, padding=1),
        torch.nn.Upsample(scale_factor=2, mode="nearest"),
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4.0)
    script = folder.with_suffix(".torchscript")
    with warnings.catch_warnings():
        # torch would rather have torch.export, which takes each new process seconds to load.
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.zeros(1, len(LAYERS), 48, 48)).save(str(script))
    described = {"layers": LAYERS, "mean": (1500.0,) * 2, "std": (600.0,) * 2, "classes": ("slump",), "id": "tiny"}
    rtsx.ModelBundle.open(script, tile=48, overlap=16, stride=2, activation="sigmoid", **described, trust=True).save(
        folder
    )
    return folder


def write_region(path: Path, *, across: int) -> Path:
    """The middles of all cells, in longitude and latitude."""
    side = CELL * GRID.resolution
    middles = [
        box(ix * side + side / 4, -(iy + 1) * side + side / 4, (ix + 1) * side - side / 4, -iy * side - side / 4)
        for iy, ix in cells(across)
    ]
    lonlat = geopandas.GeoSeries([union_all(middles)], crs=GRID.crs).to_crs(4326)
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(lonlat.iloc[0])}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def write_campaign(
    path: Path, *, files: list[str], output: str, options: dict[str, Any], bundle: Path, across: int = ACROSS
) -> Path:
    """The YAML file of the campaign."""
    document = {
        "name": "faults",
        "year": 2024,
        "region": {"file": str(write_region(path.with_suffix(".geojson"), across=across))},
        "cube": {
            "grid": {"crs": GRID.crs, "resolution": GRID.resolution, "cell_size": CELL},
            "sources": {"images": {"files": files, "layers": list(LAYERS)}},
        },
        "model": str(bundle),
        "trust": True,
        "output": output,
        "storage_options": options,
        "shard": 32,
        "chunk": 32,
        "outlines": {"min_area_m2": 300, "edge_distance": 3},
        "prediction": {"tile": 48, "overlap": 16},
        "retry": {"attempts": 6, "backoff_s": 0.1, "longest_backoff_s": 0.5, "lease_s": 4.0},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def objects_of(root: str, options: dict[str, Any]) -> dict[str, bytes]:
    """Bytes of every shard and every table of outlines."""
    system, path = fsspec.url_to_fs(root, **options)
    system.invalidate_cache()
    found = {}
    for folder in (f"{MAP}/{name}/c" for name in ("probability", "binary", "valid")):
        found |= {key: system.cat_file(key) for key in system.find(f"{path}/{folder}")}
    found |= {key: system.cat_file(key) for key in system.find(f"{path}/{YearLayout(2024).outlines}")}
    return {key.removeprefix(path): content for key, content in found.items()}
