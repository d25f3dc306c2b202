"""`rtsx merge`: outlines of cells and scenes to those of one map, or of each year."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtsx.cli import options
from rtsx.cli.console import show
from rtsx.cli.outputs import require_free, require_suffix
from rtsx.cli.products import FOOTPRINT_SUFFIXES
from rtsx.cli.progress import progress

if TYPE_CHECKING:
    import geopandas

__all__ = ["app"]

app = typer.Typer()

_EXAMPLES = """Examples:

rtsx merge cell-1.parquet cell-2.parquet --out slumps.parquet

rtsx merge scenes/*.parquet --out 'slumps-{year}.parquet' --images coverage.gpkg
"""
_YEAR = "{year}"


@app.command(epilog=_EXAMPLES)
def merge(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Footprints, as rtsx writes them, in one CRS.", show_default=False),
    ],
    *,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help=f"Where to: .parquet, .gpkg or .fgb. With {_YEAR} in it: one set per year, instead of one per day.",
            rich_help_panel="Output",
        ),
    ],
    min_area_m2: Annotated[
        float | None,
        typer.Option(
            "--min-area-m2", metavar="M2", help="Leave out smaller outlines of a day.", rich_help_panel="Output"
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help=f"With {_YEAR}: ground of every image, with its date or year, to count those that could have seen each.",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Unite outlines that meet: of cells and overlapping scenes of one day, or of all images of a year."""
    require_suffix(out, FOOTPRINT_SUFFIXES, option="--out")
    is_yearly = _YEAR in out
    if is_yearly and min_area_m2 is not None:
        raise typer.BadParameter(
            f"it is for outlines of a day; merge without {_YEAR} first.", param_hint="--min-area-m2"
        )
    if not is_yearly and images is not None:
        raise typer.BadParameter(f"images are counted by year: put {_YEAR} into --out.", param_hint="--images")
    if not is_yearly:
        require_free([out], overwrite=overwrite)
    # Here, because they load rasterio, which `--help` should not wait for.
    from rtsx.footprints import level2_footprints, merge_footprints, read_footprints, write_footprints

    tables = [read_footprints(file) for file in files]
    with progress("merging"):
        sets = (
            {
                out.replace(_YEAR, str(year)): table
                for year, table in level2_footprints(tables, images=_ground(images)).items()
            }
            if is_yearly
            else {out: merge_footprints(tables, min_area_m2=min_area_m2 or 0.0)}
        )
    require_free(sets, overwrite=overwrite)
    for path, table in sets.items():
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
        write_footprints(table, path, overwrite=overwrite)
    show(
        "Merged",
        [
            ("outlines", sum(map(len, tables))),
            ("united", sum(map(len, sets.values()))),
            ("written", ", ".join(sets)),
        ],
    )


def _ground(images: str | None) -> "geopandas.GeoDataFrame | None":
    from rtsx.labels.reading import read_table

    return None if images is None else read_table(images)
