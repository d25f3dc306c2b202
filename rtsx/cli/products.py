"""What is made of a stored prediction: outlines and GeoTIFFs, with progress."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rtsx
from rtsx.cli.cleanup import CleanUp, open_water
from rtsx.cli.outputs import require_local, require_suffix
from rtsx.cli.progress import progress
from rtsx.errors import FootprintError
from rtsx.storage import refuse_other_format

if TYPE_CHECKING:
    import xarray as xr  # which `--help` should not wait for

__all__ = ["COG_NAMES", "FOOTPRINT_SUFFIXES", "Products", "write_cogs", "write_outlines"]

FOOTPRINT_SUFFIXES = (".parquet", ".gpkg", ".fgb")
"""Endings of the formats of outlines."""
COG_NAMES = ("probability.tif", "binary.tif")
"""Files that `write_cogs` makes."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What `rtsx predict` makes beside the map."""

    footprints: str | None
    """Where the outlines go; None for no outlines."""
    cog: str | None
    """Folder of the GeoTIFFs; None for none."""
    min_area_m2: float
    """Least area of an outline, m²."""

    def __post_init__(self) -> None:
        """Refuse places and formats that we do not write, and areas that are none."""
        if not (math.isfinite(self.min_area_m2) and self.min_area_m2 >= 0):
            raise FootprintError(
                f"--min-area-m2 takes a finite area of at least 0 m²; got {self.min_area_m2}. 0 keeps everything."
            )
        if self.footprints is not None:
            require_suffix(self.footprints, FOOTPRINT_SUFFIXES, option="--footprints")
        if self.cog is not None:
            require_local(self.cog, option="--cog")
            refuse_other_format(self.cog, what="a folder of GeoTIFFs")

    def paths(self) -> list[str]:
        """Files that will be there."""
        cogs = [] if self.cog is None else [str(Path(self.cog) / name) for name in COG_NAMES]
        return cogs if self.footprints is None else [self.footprints, *cogs]

    def write(self, pred: "xr.Dataset", *, overwrite: bool) -> list[tuple[str, object]]:
        """Make them of a stored prediction, and return rows of the summary."""
        rows: list[tuple[str, object]] = []
        if self.footprints is not None:
            count = write_outlines(pred, self.footprints, min_area_m2=self.min_area_m2, overwrite=overwrite)
            rows.append(("outlines", f"{count} in {self.footprints}"))
        if self.cog is not None:
            rows.append(("GeoTIFFs", ", ".join(map(str, write_cogs(pred, self.cog, overwrite=overwrite)))))
        return rows


def write_outlines(
    pred: "xr.Dataset",
    path: str,
    *,
    overwrite: bool,
    min_area_m2: float,
    threshold: float | None = None,
    class_name: str | None = None,
    edge_distance: int = 10,
    drop_edge: bool = False,
    geographic: bool = False,
    cleanup: CleanUp | None = None,
) -> int:
    """Outline the objects of a prediction, clean and write them, and return how many there are."""
    water = None if cleanup is None or cleanup.water is None else open_water(cleanup.water)
    from rtsx.footprints import to_geographic  # here, because it loads rasterio

    with progress("outlining"):
        outlines = rtsx.extract_footprints(
            pred,
            min_area_m2=0.0 if cleanup is not None and cleanup.flags else min_area_m2,
            threshold=threshold,
            class_name=class_name,
            edge_distance=edge_distance,
            drop_edge=drop_edge,
            water=water,
        )
        if cleanup is not None:
            outlines = cleanup.apply(outlines, min_area_m2=min_area_m2)
        if geographic:
            outlines = to_geographic(outlines)
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    rtsx.write_footprints(outlines, path, overwrite=overwrite)
    return len(outlines)


def write_cogs(pred: "xr.Dataset", folder: str, *, overwrite: bool) -> tuple[Path, ...]:
    """Write `probability.tif` and `binary.tif` into a folder."""
    with progress("GeoTIFFs"):
        return rtsx.export_cog(pred, folder, overwrite=overwrite)
