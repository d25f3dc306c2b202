"""`rtsx labels`: inventories of any kind to one table, and what is wrong with them."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, print_error, show, show_line
from rtsx.errors import ConfigError

if TYPE_CHECKING:
    from rtsx.labels import Inventory

__all__ = ["app"]

app = Commands(no_args_is_help=True)

_FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Vector files of any format and CRS that GDAL reads.", show_default=False),
]
_ColumnOption = Annotated[
    list[str] | None,
    options.Input(
        "--column",
        metavar="OURS=THEIRS",
        help="Column of the files for one of ours, where its name is not known; OURS= for none. Repeatable.",
    ),
]
_ClassOption = Annotated[
    str | None, options.Input("--class", metavar="NAME", help="Class of rows that do not say; rts if left out.")
]
_CrsOption = Annotated[str | None, options.Input(metavar="EPSG:CODE", help="CRS of files that do not say.")]
_HemisphereOption = Annotated[
    Literal["north", "south"] | None, options.Input(help="Where outlines in geocentric coordinates without Z lie.")
]
_LayerOption = Annotated[str | None, options.Input(metavar="NAME", help="Layer of files that have several.")]
_ReportOption = Annotated[str | None, options.Output(metavar="FILE", help="What was found, row by row: .csv or .json.")]


@app.command()
def validate(
    files: _FilesArgument,
    *,
    column: _ColumnOption = None,
    class_name: _ClassOption = None,
    crs: _CrsOption = None,
    hemisphere: _HemisphereOption = None,
    layer: _LayerOption = None,
    report: _ReportOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Tell which rows are invalid, repeated, of an impossible date, off their place or no outlines; writes no labels.

    Exit status 1 when something is wrong.

    Examples
    --------
    rtsx labels validate slumps.shp

    rtsx labels validate slumps.gpkg other.geojson --report wrong.csv
    """
    from rtsx.labels import standardise_labels  # loads geopandas, which `--help` does not wait for

    options.require_suffix(report, (".csv", ".json"), option="--report", overwrite=overwrite)
    inventory = standardise_labels(
        files, columns=_columns(column), class_name=class_name, crs=crs, hemisphere=hemisphere, layer=layer
    )
    _summarise(inventory, report, overwrite=overwrite)
    if report is not None:
        show("Written", ("report", report))
    if not inventory.report.is_clean:
        print_error(
            f"{len(inventory.report.findings)} findings in {sum(inventory.report.rows.values())} rows; "
            "rtsx labels standardise repairs what can be repaired."
        )
        raise typer.Exit(options.FAULTY)


@app.command()
def standardise(
    files: _FilesArgument,
    *,
    out: options.OutlinesOption,
    column: _ColumnOption = None,
    class_name: _ClassOption = None,
    creator: Annotated[str | None, options.Input(help="Who outlined rows that do not say.")] = None,
    region: Annotated[str | None, options.Input(help="Region of rows that do not say.")] = None,
    site: Annotated[str | None, options.Input(help="Site of rows that do not say.")] = None,
    image_date: Annotated[
        str | None,
        options.Input(metavar="DAY[,DAY]", help="First and last day of the imagery of rows that do not say."),
    ] = None,
    image_ids: Annotated[str | None, options.Input(metavar="ID,...", help="Images of rows that do not say.")] = None,
    crs: _CrsOption = None,
    hemisphere: _HemisphereOption = None,
    layer: _LayerOption = None,
    report: _ReportOption = None,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Make one table in one schema of inventories; repair what can be, and tell all of it.

    Every row is in the table or in the report.

    Examples
    --------
    rtsx labels standardise slumps.shp --out labels.parquet --creator 'A. Name'

    rtsx labels standardise a.shp b.gpkg --out labels.parquet --column region=place --report report.csv
    """
    from rtsx.labels import standardise_labels, write_labels

    options.require_suffix(out, options.FOOTPRINT_SUFFIXES, option="--out", overwrite=overwrite)
    options.require_suffix(report, (".csv", ".json"), option="--report", overwrite=overwrite)
    inventory = standardise_labels(
        files,
        columns=_columns(column),
        class_name=class_name,
        creator=creator,
        region=region,
        site=site,
        image_date=image_date,
        image_ids=image_ids,
        crs=crs,
        hemisphere=hemisphere,
        layer=layer,
    )
    write_labels(inventory.labels, options.in_folder(out), overwrite=overwrite)
    _summarise(inventory, report, overwrite=overwrite)
    show("Written", ("labels", len(inventory.labels)), ("table", out), ("report", report))


def _columns(pairs: list[str] | None) -> dict[str, str | None]:
    columns: dict[str, str | None] = {}
    for pair in pairs or []:
        ours, equals, theirs = pair.partition("=")
        if not equals:
            raise ConfigError(f"--column takes OURS=THEIRS, such as region=RegionName; got {pair!r}.")
        columns[ours.strip()] = theirs.strip() or None
    return columns


def _summarise(inventory: "Inventory", report: str | None, *, overwrite: bool) -> None:
    for line in str(inventory.report).splitlines():
        show_line(line, asked=report is None)
    if report is not None:
        inventory.report.write(options.in_folder(report), overwrite=overwrite)
