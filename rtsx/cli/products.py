"""Outlines and GeoTIFFs from a stored prediction, with flags, simplification and progress."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import rtsx
from rtsx.cli.console import progress
from rtsx.cli.outputs import require_local, require_suffix
from rtsx.errors import FootprintError
from rtsx.storage import refuse_other_format

if TYPE_CHECKING:
    import geopandas
    import xarray as xr

Flag = Literal["small", "edge", "water", "weak"]
"""Flags that `--drop` takes: those of `rtsx.footprints.clean_footprints`."""

MAX_WATER = 0.2
"""Part of an outline that may be water unless something else is said."""
_VECTORS = (".parquet", ".gpkg", ".fgb", ".geojson", ".json", ".shp")


@dataclass(frozen=True, kw_only=True)
class CleanUp:
    """Rules for outlines, as the options give them."""

    flags: bool
    """Whether outlines are flagged instead of left out."""
    drop: tuple[str, ...]
    """Flags with which an outline is left out."""
    water: str | None
    """File that says where there is water; None for none."""
    max_water: float | None
    """Part of an outline (0-1) that may be water; None for the usual part, and where nothing says where water is."""
    min_prob_mean: float
    """Least mean probability (0-1)."""
    simplify_m: float | None
    """Length in m whose square is the smallest triangle at a corner; None leaves the corners."""

    def __post_init__(self) -> None:
        """Refuse flags that there are none of, and files that are not there."""
        unknown = [flag for flag in self.drop if flag not in get_args(Flag)]
        if unknown:
            raise FootprintError(f"--drop takes some of {', '.join(get_args(Flag))}; got {', '.join(unknown)}.")
        if self.simplify_m is not None and not 0 < self.simplify_m < float("inf"):
            raise FootprintError(f"--simplify-m takes a length above 0 m; got {self.simplify_m}.")
        if self.water is None and (self.max_water is not None or "water" in self.drop):
            option = "--drop water" if self.max_water is None else "--max-water"
            raise FootprintError(f"{option} has no meaning without water: say where it is with --water FILE.")
        for option, value in {"--max-water": self.max_water, "--min-prob-mean": self.min_prob_mean}.items():
            if value is not None and not 0 <= value <= 1:
                raise FootprintError(f"{option} takes a part from 0 to 1; got {value}. For 20 per cent give 0.2.")

    @property
    def is_flagging(self) -> bool:
        """Whether outlines get flags."""
        return self.flags or bool(self.drop) or self.water is not None or self.min_prob_mean > 0

    def apply(self, outlines: "geopandas.GeoDataFrame", *, min_area_m2: float) -> "geopandas.GeoDataFrame":
        """Return the outlines with flags, without those to be dropped, simplified."""
        from rtsx.footprints import clean_footprints, simplify_footprints

        if self.is_flagging:
            outlines = clean_footprints(
                outlines,
                min_area_m2=min_area_m2,
                max_water=MAX_WATER if self.max_water is None else self.max_water,
                min_prob_mean=self.min_prob_mean,
                keep=[flag for flag in get_args(Flag) if flag not in self.drop],
            )
        if self.simplify_m is not None:
            outlines = simplify_footprints(outlines, tolerance_m=self.simplify_m)
        return outlines


def open_water(path: str) -> "xr.DataArray | geopandas.GeoDataFrame":
    """Open a raster of one layer, lazily, or polygons.

    Raises
    ------
    FootprintError
        The raster has several layers.
    LabelError, InputNotFoundError
        The polygons cannot be read.
    """
    from rtsx.labels.io import read_table, without_layer  # here, for the same reason

    if Path(without_layer(path)[0]).suffix.lower() in _VECTORS:
        return read_table(path, what="polygons of water")
    layers = rtsx.open_cube(path).data_vars
    if len(layers) != 1 and "water" not in layers:
        raise FootprintError(
            f"--water takes a raster of one layer, or of one that is called water; {path} has "
            f"{', '.join(map(str, layers))}. Write the one that is 1 on water to a file of its own."
        )
    return layers["water" if "water" in layers else next(iter(layers))]


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
    min_area_m2: float | None
    """Least area of an outline, m²; None for the model's own."""

    def __post_init__(self) -> None:
        """Refuse places and formats that we do not write, and areas that are none."""
        if self.min_area_m2 is not None and not (math.isfinite(self.min_area_m2) and self.min_area_m2 >= 0):
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
    min_area_m2: float | None,
    geographic: bool = False,
    cleanup: CleanUp | None = None,
    **extraction: Any,
) -> int:
    """Outline the objects of a prediction, clean and write them, and return how many there are.

    What is not named here is for `extract_footprints`.
    """
    water = None if cleanup is None or cleanup.water is None else open_water(cleanup.water)
    from rtsx.footprints import to_geographic  # here, because it loads rasterio
    from rtsx.footprints.extract import default_min_area_m2

    with progress("outlining"):
        outlines = rtsx.extract_footprints(
            pred,
            min_area_m2=0.0 if cleanup is not None and cleanup.flags else min_area_m2,
            water=water,
            **extraction,
        )
        if cleanup is not None:
            least = default_min_area_m2(pred) if min_area_m2 is None else min_area_m2
            outlines = cleanup.apply(outlines, min_area_m2=least)
        if geographic:
            outlines = to_geographic(outlines)
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    rtsx.write_footprints(outlines, path, overwrite=overwrite)
    return len(outlines)


def write_cogs(pred: "xr.Dataset", folder: str, *, overwrite: bool) -> tuple[Path, ...]:
    """Write `probability.tif` and `binary.tif` into a folder."""
    with progress("GeoTIFFs"):
        return rtsx.export_cog(pred, folder, overwrite=overwrite)
