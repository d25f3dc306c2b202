"""What is made of a stored prediction: outlines and GeoTIFFs, with progress."""

from pathlib import Path

import xarray as xr

import rtsx
from rtsx.cli.progress import progress

__all__ = ["COG_NAMES", "FOOTPRINT_SUFFIXES", "write_cogs", "write_outlines"]

FOOTPRINT_SUFFIXES = (".parquet", ".gpkg", ".fgb")
"""Endings of the formats of outlines."""
COG_NAMES = ("probability.tif", "binary.tif")
"""Files that `write_cogs` makes."""


def write_outlines(
    pred: xr.Dataset,
    path: str,
    *,
    overwrite: bool,
    min_area_m2: float,
    threshold: float | None = None,
    class_name: str | None = None,
    edge_distance: int = 10,
    drop_edge: bool = False,
    geographic: bool = False,
) -> int:
    """Outline the objects of a prediction, write them, and return how many there are."""
    with progress("outlining"):
        outlines = rtsx.extract_footprints(
            pred,
            min_area_m2=min_area_m2,
            threshold=threshold,
            class_name=class_name,
            edge_distance=edge_distance,
            drop_edge=drop_edge,
            geographic=geographic,
        )
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    rtsx.write_footprints(outlines, path, overwrite=overwrite)
    return len(outlines)


def write_cogs(pred: xr.Dataset, folder: str, *, overwrite: bool) -> tuple[Path, ...]:
    """Write `probability.tif` and `binary.tif` into a folder."""
    with progress("GeoTIFFs"):
        return rtsx.export_cog(pred, folder, overwrite=overwrite)
