"""`rtsx footprints`, `rtsx merge` and `rtsx track`: outlines of a prediction, united, and followed over years."""

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import Commands, progress, show, warn
from rtsx.errors import CubeError, FootprintError
from rtsx.storage import local_path, write_whole

if TYPE_CHECKING:
    import geopandas
    import xarray as xr

Flag = Literal["small", "edge", "water", "weak"]
"""Flags that `--drop` takes: those of `rtsx.footprints.clean_footprints`."""

MAX_WATER = 0.2
"""Part of an outline that may be water unless something else is said."""


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

    def apply(self, outlines: "geopandas.GeoDataFrame", *, min_area_m2: float) -> "geopandas.GeoDataFrame":
        """Return the outlines with flags, without those to be dropped, simplified."""
        from rtsx.footprints import clean_footprints, simplify_footprints

        if self.flags or self.drop or self.water is not None or self.min_prob_mean > 0:
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

    if without_layer(path)[0].lower().endswith((*options.VECTORS, ".json")):
        return read_table(path, what="polygons of water")
    layers = rtsx.open_cube(path).data_vars
    if len(layers) != 1 and "water" not in layers:
        raise FootprintError(
            f"--water takes a raster of one layer, or of one that is called water; {path} has "
            f"{', '.join(map(str, layers))}. Write the one that is 1 on water to a file of its own."
        )
    return layers["water" if "water" in layers else next(iter(layers))]


_LARGEST_LOOK = 2**28
"""Pixels of a map of water that are read to tell whether it has a 1."""


def warn_of_dry(water: "xr.DataArray | geopandas.GeoDataFrame", *, path: str) -> None:
    """Warn where no outline is on water, and water may be another number than 1, such as 80 of WorldCover or 255 of a mask."""
    if not hasattr(water, "dtype") or water.dtype.kind == "b" or water.size > _LARGEST_LOOK:
        return
    other = (water != 0) & (water != water.attrs.get("_FillValue", 0))
    if bool(other.any()) and not bool((water == 1).any()):
        warn(
            f"No outline is on water: {path} is 1 nowhere, and has other numbers up to {int(water.where(other).max())}. Water is 1; where it is one of "
            "these, recode it, for example with gdal_calc."
        )


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
            pred, min_area_m2=0.0 if cleanup is not None and cleanup.flags else min_area_m2, water=water, **extraction
        )
        if water is not None and "water_fraction" in outlines and not outlines["water_fraction"].any():
            warn_of_dry(water, path="" if cleanup is None else str(cleanup.water))
        if cleanup is not None:
            least = default_min_area_m2(pred) if min_area_m2 is None else min_area_m2
            outlines = cleanup.apply(outlines, min_area_m2=least)
        if geographic:
            outlines = to_geographic(outlines)
    rtsx.write_footprints(outlines, options.in_folder(path), overwrite=overwrite)
    return len(outlines)


app = Commands()

_clean_up = partial(typer.Option, rich_help_panel="Clean-up")
_tracks = partial(typer.Option, rich_help_panel="Tracks")


@app.command()
def footprints(
    prediction: options.PredictionArgument,
    *,
    out: options.OutlinesOption,
    year: options.YearOption = None,
    min_area_m2: options.MinAreaOption = None,
    threshold: options.ThresholdOption = None,
    class_name: Annotated[str | None, options.Output("--class", help="Outline this class only.")] = None,
    edge_distance: Annotated[
        int, options.Output(metavar="PX", help="Objects this near to missing data are marked touches_edge.")
    ] = 10,
    drop_edge: Annotated[bool, options.Output("--drop-edge", help="Leave out what touches missing data.")] = False,
    area_thresholds: Annotated[
        str | None,
        options.Output(
            metavar="P,P,...|none",
            help="Also the area that is at least so probable, as columns such as area_m2_t45; 0.45,0.65,0.8 if left out.",
        ),
    ] = None,
    nodata_fraction: Annotated[
        bool,
        options.Output(
            "--nodata-fraction",
            help="Also which part of the box around an object, widened by --edge-distance, is missing.",
        ),
    ] = False,
    confidence_rule: Annotated[
        str | None,
        options.Input(
            metavar="RULE.json",
            help="Also a class for each object, by what `rtsx evaluate --sample --confidence-rule` derived for the same model.",
        ),
    ] = None,
    geographic: Annotated[
        bool, options.Output("--geographic", help="Write EPSG:4326 instead of the grid's CRS.")
    ] = False,
    flags: Annotated[
        bool,
        _clean_up(
            "--flags", help="Keep small objects too, and write what speaks against each: small, edge, water, weak."
        ),
    ] = False,
    drop: Annotated[str | None, _clean_up(metavar="A,B,...", help="Leave out outlines with these flags.")] = None,
    water: Annotated[
        str | None,
        _clean_up(
            metavar="FILE",
            help="Water: a raster in the CRS of the map, 1 on water, or polygons. Outlines on it are flagged.",
        ),
    ] = None,
    max_water: Annotated[
        float | None, _clean_up(help=f"Part of an outline (0-1) that may be water; {MAX_WATER} if left out.")
    ] = None,
    min_prob_mean: Annotated[float, _clean_up(help="Flag outlines of a lower mean probability (0-1) as weak.")] = 0.0,
    simplify_m: Annotated[
        float | None,
        _clean_up("--simplify-m", metavar="M", help="Take corners out; a pixel's width smooths the steps of pixels."),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Outline the objects of a map, with area, perimeter, place and probability of each.

    Objects that cross chunks are one outline, however the map is stored. A file is of one year, as other commands take it; it may
    have several dates.

    Examples
    --------
    rtsx footprints map.zarr --out slumps.parquet

    rtsx footprints map.zarr --out slumps.gpkg --threshold 0.7 --min-area-m2 1000 --geographic

    rtsx footprints map.zarr --out slumps.gpkg --flags --water lakes.gpkg --simplify-m 3
    """
    cleanup = CleanUp(
        flags=flags,
        drop=tuple(options.words(drop) or ()),
        water=water,
        max_water=max_water,
        min_prob_mean=min_prob_mean,
        simplify_m=simplify_m,
    )
    areas = {}
    if area_thresholds is not None:
        given = "" if area_thresholds == "none" else area_thresholds
        areas["area_thresholds"] = options.numbers(given, option="--area-thresholds")
    options.require_suffix(out, options.FOOTPRINT_SUFFIXES, option="--out", overwrite=overwrite)
    pred = options.open_year(prediction, year, several_dates=True)
    if "valid" in pred and not options.has_valid_pixel(pred):
        raise CubeError(
            f"No pixel of {prediction}{'' if year is None else f' in {year}'} is valid: nothing has been mapped. Of a campaign, rtsx campaign "
            "status says what has run."
        )
    count = write_outlines(
        pred,
        out,
        min_area_m2=min_area_m2,
        threshold=threshold,
        class_name=class_name,
        edge_distance=edge_distance,
        drop_edge=drop_edge,
        nodata_fraction=nodata_fraction,
        confidence_rule=confidence_rule,
        geographic=geographic,
        **areas,
        cleanup=cleanup,
        overwrite=overwrite,
    )
    show("Outlined", ("objects", count), ("outlines", out))


merge_app = Commands()

_YEAR = "{year}"


@merge_app.command()
def merge(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Footprints, as rtsx writes them, in one CRS.", show_default=False),
    ],
    *,
    out: Annotated[
        str,
        options.Output(
            metavar="FILE",
            help=f"Where to: .parquet, .gpkg or .fgb. With {_YEAR} in it: one set per year, instead of one per day.",
        ),
    ],
    min_area_m2: Annotated[
        float | None, options.Output("--min-area-m2", metavar="M2", help="Leave out smaller outlines of a day.")
    ] = None,
    images: Annotated[
        str | None,
        options.Output(
            metavar="FILE",
            help=f"With {_YEAR}: ground of every image, with its date or year, to count those that could have seen each.",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Unite outlines that meet: of cells and overlapping scenes of one day, or of all images of a year.

    Examples
    --------
    rtsx merge cell-1.parquet cell-2.parquet --out slumps.parquet

    rtsx merge scenes/*.parquet --out 'slumps-{year}.parquet' --images coverage.gpkg
    """
    is_yearly = _YEAR in out
    # Of years, the names are known when the files are read.
    options.require_suffix(out, options.FOOTPRINT_SUFFIXES, option="--out", overwrite=overwrite or is_yearly)
    if is_yearly and min_area_m2 is not None:
        raise options.misused("--min-area-m2", f"it is for outlines of a day; merge without {_YEAR} first.")
    if not is_yearly and images is not None:
        raise options.misused("--images", f"images are counted by year: put {_YEAR} into --out.")
    # Here, because they load rasterio, which `--help` should not wait for.
    from rtsx.footprints import level2_footprints, merge_footprints, read_footprints, write_footprints
    from rtsx.labels.io import read_table

    tables = [read_footprints(file) for file in files]
    with progress("merging"):
        if is_yearly:
            ground = None if images is None else read_table(images)
            yearly = level2_footprints(tables, images=ground)
            sets = {out.replace(_YEAR, str(year)): table for year, table in yearly.items()}
        else:
            sets = {out: merge_footprints(tables, min_area_m2=min_area_m2 or 0.0)}
    options.require_absent(sets, overwrite=overwrite)
    for path, table in sets.items():
        write_footprints(table, options.in_folder(path), overwrite=overwrite)
    show(
        "Merged",
        ("outlines", sum(map(len, tables))),
        ("united", sum(map(len, sets.values()))),
        ("written", ", ".join(sets)),
    )


track_app = Commands()


@track_app.command()
def track(
    years: Annotated[
        list[str],
        typer.Argument(
            metavar="YEAR=FILE...",
            help="The outlines of each year: footprints, or any vector file of polygons.",
            show_default=False,
        ),
    ],
    *,
    out: options.OutlinesOption,
    summary: Annotated[
        str | None, options.Output(metavar="FILE", help="Also one row per track: .csv or .parquet.")
    ] = None,
    min_overlap: Annotated[float, _tracks(help="Part of the smaller outline (0-1) that two must share.")] = 0.2,
    max_gap: Annotated[int, _tracks(help="Years in a row in which an object may be missed.")] = 1,
    stable_within: Annotated[
        float, _tracks(help="Change of area, as a part of the first, that is called stable.")
    ] = 0.1,
    last_map: Annotated[
        str | None,
        _tracks(metavar="MAP", help="Map of the last year: what is gone there, and what lies where it saw no ground."),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Follow objects over years: growth, first and last sighting, what became of each.

    Examples
    --------
    rtsx track 2023=before.parquet 2024=now.parquet --out tracks.parquet

    rtsx track 2010=drawn.shp 2024=slumps.parquet --out tracks.gpkg

    rtsx track 2022=a.gpkg 2023=b.gpkg 2024=c.gpkg --out tracks.gpkg --summary tracks.csv --max-gap 0 --last-map map.zarr
    """
    files = _files(years)
    options.require_suffix(out, options.FOOTPRINT_SUFFIXES, option="--out", overwrite=overwrite)
    options.require_suffix(summary, (".csv", ".parquet"), option="--summary", overwrite=overwrite)
    # Here, because they load rasterio, which `--help` should not wait for.
    from rtsx.footprints import read_years, track_summary, write_tracks

    newest = None if last_map is None else _map_of(last_map, max(files))
    yearly = read_years(files)
    classes = {year: set(table["class_name"].dropna()) for year, table in yearly.items() if len(table)}
    if len(classes) > 1 and len(set.union(*classes.values())) == sum(map(len, classes.values())) > 1:
        warn(
            "no class occurs in two years, and only outlines of one class are linked: "
            + "; ".join(f"{year} {', '.join(sorted(map(str, names)))}" for year, names in classes.items())
            + ". Name it alike, for example with rtsx labels standardise --class."
        )
    with progress("tracking"):
        tracks = rtsx.track_footprints(yearly, min_overlap=min_overlap, max_gap=max_gap)
        table = track_summary(tracks, stable_within=stable_within, last_map=newest)
    write_tracks(tracks, options.in_folder(out), overwrite=overwrite)
    if summary is not None:
        data = BytesIO()
        table.to_csv(data, index=False) if summary.endswith(".csv") else table.to_parquet(data, index=False)
        write_whole(Path(summary), data.getvalue())
    counts = table["status"].value_counts()
    show(
        "Tracked",
        ("years", ", ".join(map(str, files))),
        ("outlines", len(tracks)),
        ("tracks", len(table)),
        *((str(status), int(number)) for status, number in counts.items()),
        ("written", out if summary is None else f"{out}, {summary}"),
    )


def _files(given: list[str]) -> dict[int, str]:
    files: dict[int, str] = {}
    for word in given:
        year, found, file = word.partition("=")
        if not (found and year.isdecimal() and file):
            raise options.misused("YEAR=FILE", f"expected YEAR=FILE, such as 2024=slumps.parquet; got {word!r}.")
        if int(year) in files:
            raise options.misused("YEAR=FILE", f"{year} is given twice; unite its outlines with rtsx merge first.")
        if not local_path(file.partition("|layername=")[0]).exists():
            raise options.misused("YEAR=FILE", f"{file} is no file; check the path.")
        files[int(year)] = file
    return files


def _map_of(path: str, year: int) -> "xr.Dataset":
    """Open a map as it is in a year, which it may leave unsaid."""
    from rtsx.cube.times import years_of  # loads xarray, which `--help` does not wait for

    several = len({*years_of(options.open_prediction(path))}) > 1
    return options.open_year(path, year if several else None)
