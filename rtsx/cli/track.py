"""`rtsx track`: outlines of several years to tracks."""

from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer

import rtsx
from rtsx.cli import options
from rtsx.cli.console import show, warn
from rtsx.cli.outputs import require_free, require_suffix
from rtsx.cli.products import FOOTPRINT_SUFFIXES
from rtsx.cli.progress import progress
from rtsx.storage import local_path, write_whole

__all__ = ["app"]

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx track 2023=before.parquet 2024=now.parquet --out tracks.parquet

rtsx track 2010=drawn.shp 2024=slumps.parquet --out tracks.gpkg

rtsx track 2022=a.gpkg 2023=b.gpkg 2024=c.gpkg --out tracks.gpkg --summary tracks.csv --max-gap 0
"""


@app.command(epilog=_EXAMPLES)
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
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Where to: .parquet, .gpkg or .fgb.", rich_help_panel="Output")
    ],
    summary: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also one row per track: .csv or .parquet.", rich_help_panel="Output"),
    ] = None,
    min_overlap: Annotated[
        float,
        typer.Option(help="Part of the smaller outline (0-1) that two must share.", rich_help_panel="Tracks"),
    ] = 0.2,
    max_gap: Annotated[
        int, typer.Option(help="Years in a row in which an object may be missed.", rich_help_panel="Tracks")
    ] = 1,
    stable_within: Annotated[
        float,
        typer.Option(help="Change of area, as a part of the first, that is called stable.", rich_help_panel="Tracks"),
    ] = 0.1,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Follow objects over years: growth, first and last sighting, what became of each."""
    files = _files(years)
    require_suffix(out, FOOTPRINT_SUFFIXES, option="--out")
    if summary is not None:
        require_suffix(summary, (".csv", ".parquet"), option="--summary")
    require_free([out] if summary is None else [out, summary], overwrite=overwrite)
    # Here, because they load rasterio, which `--help` should not wait for.
    from rtsx.footprints import read_years, track_summary, write_tracks

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
        table = track_summary(tracks, stable_within=stable_within)
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    write_tracks(tracks, out, overwrite=overwrite)
    if summary is not None:
        data = BytesIO()
        table.to_csv(data, index=False) if summary.endswith(".csv") else table.to_parquet(data, index=False)
        write_whole(Path(summary), data.getvalue())
    counts = table["status"].value_counts()
    show(
        "Tracked",
        [
            ("years", ", ".join(map(str, files))),
            ("outlines", len(tracks)),
            ("tracks", len(table)),
            *((str(status), int(number)) for status, number in counts.items()),
            ("written", out if summary is None else f"{out}, {summary}"),
        ],
    )


def _files(given: list[str]) -> dict[int, str]:
    files: dict[int, str] = {}
    for word in given:
        year, found, file = word.partition("=")
        if not (found and year.isdecimal() and file):
            raise typer.BadParameter(
                f"expected YEAR=FILE, such as 2024=slumps.parquet; got {word!r}.", param_hint="YEAR=FILE"
            )
        if int(year) in files:
            raise typer.BadParameter(
                f"{year} is given twice; unite its outlines with rtsx merge first.",
                param_hint="YEAR=FILE",
            )
        if not local_path(file.partition("|layername=")[0]).exists():
            raise typer.BadParameter(f"{file} is no file; check the path.", param_hint="YEAR=FILE")
        files[int(year)] = file
    return files
