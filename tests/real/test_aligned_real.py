"""Cubes from real STAC items: Landsat over Greenland with its own files, Sentinel-2 across the antimeridian."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer

import rtsx
from rtsx.cube import BandRequest, CubeRecipe, LayerRecipe, Period, QualityRecipe, SourceRecipe, mask_rule
from rtsx.cube.stac import StacCatalog, StacItems

OUTLINES = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157.json"


def test_landsat_of_greenland_comes_onto_the_polar_grid(real_data: Path) -> None:
    folder = real_data / "stac_json" / "landsat_greenland"
    bands = {"blue": "SR_B2.TIF", "red": "SR_B4.TIF", "nir": "SR_B5.TIF"}
    source = SourceRecipe(
        name="landsat",
        images=StacCatalog(str(next(folder.glob("*_stac.json"))), prefer_local=True),
        layers=tuple(
            LayerRecipe(wanted=BandRequest(name=name, asset=asset, nodata=0)) for name, asset in bands.items()
        ),
        quality=QualityRecipe(
            wanted=BandRequest(name="qa_pixel", asset="QA_PIXEL.TIF", bands=(1,)),
            rule=mask_rule("landsat-qa-pixel", data=None),
            keep_low=True,
        ),
        period=Period(date(2015, 7, 1), date(2015, 7, 31)),
    )
    with rasterio.open(folder / f"{next(folder.glob('*SR_B4.TIF')).name}") as file:
        stored, crs, affine = file.read(1), file.crs, file.transform
        middle = file.xy(file.height // 2, file.width // 2)
        pixel = affine.a
    grid = rtsx.Grid.arctic(resolution=300)
    x, y = Transformer.from_crs(crs, grid.crs, always_xy=True).transform(*middle)
    row, column = round(-y / 300), round(x / 300)
    cube = rtsx.open_cube(
        CubeRecipe(grid=grid, sources=(source,), chunk=64),
        grid.window((row - 100, row + 100), (column - 100, column + 100)),
    ).compute()
    assert pixel > 300  # the files are decimated, so neighbours of the grid share a source pixel
    assert cube["valid"].mean() > 0.5
    # Wherever a pixel's middle lies close to a source pixel's, bilinear is close to what is stored there.
    columns, rows = np.meshgrid(cube["x"].values, cube["y"].values)
    u, v = ~affine * Transformer.from_crs(grid.crs, crs, always_xy=True).transform(columns, rows)
    i, j = np.floor(v).astype(int), np.floor(u).astype(int)
    near = (np.abs(v - i - 0.5) < 0.03) & (np.abs(u - j - 0.5) < 0.03)
    inside = near & (i >= 0) & (j >= 0) & (i < stored.shape[0]) & (j < stored.shape[1]) & cube["valid"].values
    assert inside.sum() > 20
    wanted = stored[i[inside], j[inside]].astype(float)
    assert np.median(np.abs(cube["red"].values[inside] - wanted) / wanted) < 0.01


def test_sentinel2_across_the_antimeridian_is_one_contiguous_cube(real_data: Path, tmp_path: Path) -> None:
    item: dict[str, Any] = json.loads((real_data / "stac_json" / "sentinel2_arctic" / OUTLINES).read_text())
    asset = item["assets"]["red_60m"]
    assert min(item["bbox"][0], item["bbox"][2]) < -178 < 178 < max(item["bbox"][0], item["bbox"][2])
    to_degrees = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True)
    left, top = asset["proj:transform"][2], asset["proj:transform"][5]
    height, width = asset["proj:shape"]
    # The item is real, its pixels cannot be shipped: a surface that is smooth on the globe stands in for them.
    affine = Affine(60, 0, left, 0, -60, top)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    stored = surface(*to_degrees.transform(*(affine * (columns, rows))))
    neighbour = json.loads(
        json.dumps(item)
    )  # its neighbour beyond the border of the zones, made from the same document
    neighbour["id"] = "S2A_T60WWV"
    to_sixty = Transformer.from_crs("EPSG:32601", "EPSG:32660", always_xy=True)
    x60, y60 = to_sixty.transform(left, top - 30 * height)
    west = Affine(60, 0, round(x60 / 60) * 60 - 40_000, 0, -60, round(y60 / 60) * 60 + 55_000)
    from_sixty = Transformer.from_crs("EPSG:32660", "EPSG:4326", always_xy=True)
    other = surface(*from_sixty.transform(*(west * (columns, rows))))
    for document, pixels, crs, transform in (
        (item, stored, "EPSG:32601", affine),
        (neighbour, other, "EPSG:32660", west),
    ):
        path = tmp_path / f"{document['id']}.tif"
        profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint16", "nodata": 0}
        with rasterio.open(path, "w", **profile, crs=crs, transform=transform, tiled=True, compress="deflate") as file:
            file.write(np.round(pixels).astype(np.uint16), 1)
        document["properties"].pop("proj:epsg", None)
        document["properties"]["proj:code"] = crs
        document["assets"] = {"red_60m": {**asset, "href": str(path), "type": "image/tiff"}}
        document["assets"]["red_60m"]["proj:transform"] = list(transform)[:6]
        document["assets"]["red_60m"].pop("proj:bbox", None)
    neighbour["geometry"] = neighbour["bbox"] = None
    source = SourceRecipe(
        name="sentinel2",
        images=StacItems([item, neighbour]),
        layers=(LayerRecipe(wanted=BandRequest(name="red", asset="red_60m", scale_factor=1e-4, add_offset=0.0)),),
        group="day",
    )
    grid = rtsx.Grid.arctic(resolution=60)
    x, y = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform(180.0, 66.3)
    row, column = round(-y / 60), round(x / 60)
    box = grid.window((row - 250, row + 250), (column - 250, column + 250))
    cube = rtsx.open_cube(CubeRecipe(grid=grid, sources=(source,), chunk=128), box).compute()
    assert cube.sizes["time"] == 1  # one pass is one day, on whichever side of the date line
    columns, rows = np.meshgrid(cube["x"].values, cube["y"].values)
    lon, lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform(columns, rows)
    assert (lon < -179.5).any()
    assert (lon > 179.5).any()
    valid = cube["valid"].values[0]
    assert valid.all()
    np.testing.assert_allclose(cube["red"].values[0], surface(lon, lat), atol=1.1)  # rounded twice


def surface(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """DN that bend with longitude and latitude, and know nothing of the antimeridian."""
    return 3000 + 800 * np.sin(np.radians(lon) * 60) + 500 * np.cos(np.radians(lat) * 90)
