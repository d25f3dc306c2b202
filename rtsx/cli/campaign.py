"""`rtsx campaign`: a region of any size, planned, run, stopped, run again, watched and collected.

What runs is imported within the commands, because it loads libraries that `rtsx --help` should not wait for.
"""

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtsx.cli import options
from rtsx.cli.campaign_run import app
from rtsx.cli.console import print_info, show, show_line, warn
from rtsx.errors import CampaignError, GridError, RtsxError

if TYPE_CHECKING:
    import geopandas

    from rtsx.campaign import Campaign
    from rtsx.campaign.cells import Address

_CellOption = Annotated[
    list[str] | None,
    typer.Option("--cell", metavar="rNNNcNNN", help="One cell; give it again for more. All if left out."),
]


def cells_named(names: Sequence[str] | None) -> "list[Address] | None":
    """Return addresses of cells by name; None for none, which means all.

    Raises
    ------
    typer.BadParameter
        One is no name of a cell.
    """
    from rtsx.grid.grid import parse_cell_id

    if not names:
        return None
    try:
        return [parse_cell_id(name) for name in names]
    except GridError as error:
        raise typer.BadParameter(str(error), param_hint="--cell") from error


@app.command()
def status(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit status 1 unless every cell of the table is done.")
    ] = False,
) -> None:
    """Tell how far a campaign is, from any machine: cells of each year by stage; of one year who runs, failed and why, rate, hours, cost.

    Without --year, the table has all years, and the rest is of the newest whose plan can be read.

    Examples
    --------
    rtsx campaign status campaign.yaml

    rtsx campaign status s3://maps/arctic --check
    """
    opened = options.open_campaign(campaign, year=year, takes_another=year is None)
    from rtsx.campaign.ledger import planned_years
    from rtsx.campaign.stages import stage_table

    found = opened.status()
    years, is_complete = [found.stages] if found.stages else [], found.is_complete
    for other in (one for one in planned_years(opened.objects) if one != found.year and year is None):
        try:
            years += opened.stages([other])
        except RtsxError as error:
            warn(f"{other} is left out of the table: {error}")
            is_complete = False
    years.sort(key=lambda one: one.year)
    rows = stage_table(years, reviewed=_reviewed(opened, [one.year for one in years]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        show_line("  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)), asked=True)
    show_line(str(found), asked=True)
    if check and not (is_complete and all(one.done == one.planned for one in years)):
        raise typer.Exit(options.FAULTY)


def _reviewed(campaign: "Campaign", years: Sequence[int]) -> dict[int, str]:
    """Return outlines that were reviewed of all, by year, of the reviews that lie in the output."""
    from rtsx.campaign.layout import YearLayout

    folders = {year: YearLayout(year).review for year in years}
    there = {year: one for year, one in folders.items() if campaign.objects.get(f"{one}/review.json") is not None}
    if not there:
        return {}
    from rtsx.review import open_review  # here, because it is heavy

    counts = {}
    for year, one in there.items():
        try:
            review = open_review(f"{campaign.output.rstrip('/')}/{one}", storage_options=campaign.storage_options)
            counts[year] = "{:,} of {:,}".format(*review.progress())
        except RtsxError as error:
            warn(f"The review of {year} cannot be counted: {error}")
            counts[year] = "?"
    return counts


@app.command()
def watch(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND|URL",
            help="Command that gets each message on its standard input, or address that gets it as JSON; printed if left out.",
        ),
    ] = None,
    quiet: Annotated[
        float, typer.Option(metavar="MINUTES", help="Without any sign of life, after which that is said.", min=1)
    ] = 30,
    every: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Look again so often until it has ended; once if left out.", min=1),
    ] = None,
) -> None:
    """Send an alert once each: a tripped drift check, cells set aside, runs that stopped, silence, and the end with what it has cost.

    What was sent is kept in the output, so a restart, or another look of cron, repeats nothing.

    Examples
    --------
    rtsx campaign watch campaign.yaml --notify "mail -s rtsx me@example.org"

    rtsx campaign watch s3://maps/arctic --notify https://hooks.example.org/rtsx --every 60
    """
    opened = options.open_campaign(campaign, year=year)
    from rtsx.campaign.status import notifier

    send = partial(show_line, asked=True) if notify is None else notifier(notify)
    while True:
        try:
            if opened.watch(send, quiet=timedelta(minutes=quiet)).is_over or every is None:
                return
        except (RtsxError, OSError) as error:
            if every is None:
                raise
            warn(f"{error} Looking again in {every:g} s.")
        time.sleep(every)


@app.command()
def retry(
    campaign: options.CampaignArgument, *, year: options.CampaignYearOption = None, cell: _CellOption = None
) -> None:
    """Let cells that were set aside be run again by the next run; a cell that is named is made anew even if it is done.

    Examples
    --------
    rtsx campaign retry campaign.yaml

    rtsx campaign retry campaign.yaml --cell r412c088
    """
    freed = options.open_campaign(campaign, year=year).retry(cells_named(cell))
    show_line(f"{freed} cell{'' if freed == 1 else 's'} will be run again by the next run")


@app.command()
def verify(
    campaign: options.CampaignArgument, *, year: options.CampaignYearOption = None, cell: _CellOption = None
) -> None:
    """Read all that was written again, and compare it with the digests that were noted then.

    Exit status 1 when something is not what was written.

    Examples
    --------
    rtsx campaign verify campaign.yaml
    """
    opened = options.open_campaign(campaign, year=year)
    found = opened.verify(cells_named(cell))
    if not found.n_cells:
        raise CampaignError(
            f"No cell of {opened.plan.year} has a mark, so there is nothing to verify. Choose the year with --year and the "
            f"cells with --cell; rtsx campaign status {quote(str(campaign))} says what is done."
        )
    show_line(str(found), asked=True)
    if found.coordinates:
        print_info(
            f"What is damaged in the map itself is written anew by rtsx campaign run with the YAML file and --year {opened.plan.year}."
        )
    if found.cells:
        from rtsx.grid.grid import cell_id

        print_info(
            f"Cells that are damaged are made anew by rtsx campaign retry {quote(str(campaign))} --year {opened.plan.year} --cell "
            f"{cell_id(*found.cells[0])} (--cell for each), and then rtsx campaign run with the YAML file and the same --year."
        )
    if not found.is_sound:
        raise typer.Exit(options.FAULTY)


@app.command()
def report(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    out: Annotated[str | None, options.Output(metavar="HTML", help="Local file; in the output if left out.")] = None,
    coast: Annotated[
        Path | None,
        options.Output(
            metavar="FILE",
            help="Vector file of coast lines or land; Natural Earth if left out, where cartopy or pyogrio has it.",
        ),
    ] = None,
) -> None:
    """Write a page of one file: map of cells, pictures of what was found, throughput, costs, failures.

    What a cell and 10⁶ km² have cost is printed, too: means, and their standard errors over finished cells.

    Examples
    --------
    rtsx campaign report campaign.yaml --out report.html

    rtsx campaign report campaign.yaml --coast ne_10m_coastline.shp
    """
    written = options.open_campaign(campaign, year=year).report(out, coast=coast)
    show("Written", ("report", written.path), ("a cell", written.cell), ("10⁶ km² of valid ground", written.area))


@app.command()
def collect(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    formats: Annotated[
        str | None, options.Output("--format", metavar="A,B", help="Also one file each: gpkg, flatgeobuf, pmtiles.")
    ] = None,
    confidence_rule: Annotated[
        str | None,
        options.Output(
            metavar="RULE.json",
            help="Also a class for each outline, by what `rtsx evaluate --sample --confidence-rule` derived; kept for the next time.",
        ),
    ] = None,
    levels: Annotated[bool, options.Output(help="Outlines of the year as one set.")] = True,
    tracks: Annotated[bool, options.Output(help="Objects over the years.")] = True,
    overviews: Annotated[bool, options.Output(help="Coarser levels of the map.")] = True,
    stac: Annotated[bool, options.Output(help="STAC collection and items.")] = True,
) -> None:
    """Make products of all cells that are done: outlines merged across cells, tracks, overviews, a STAC collection.

    Run it again after more cells are done, and only what they touch is written again.

    Examples
    --------
    rtsx campaign collect campaign.yaml

    rtsx campaign collect campaign.yaml --format gpkg,flatgeobuf
    """
    collected = options.open_campaign(campaign, year=year).collect(
        formats=tuple(options.words(formats) or ()),
        confidence_rule=confidence_rule,
        levels=levels,
        tracks=tracks,
        overviews=overviews,
        stac=stac,
    )
    show_line(str(collected))


@app.command()
def deliver(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    to: Annotated[str, options.Output(metavar="DIR|URL", help="Where the package goes.")],
    tiles: Annotated[
        str | None,
        options.Output(
            metavar="NAME",
            help="Tile matrix set that files are tiles of, such as WebMercatorQuad; the map's own pixels if left out.",
        ),
    ] = None,
    zoom: Annotated[
        int | None, options.Output(help="Zoom of the pixels; the nearest to the map's if left out.")
    ] = None,
    tile_zoom: Annotated[int | None, options.Output(help="Zoom of the files; four less if left out.")] = None,
    outlines: Annotated[bool, options.Output(help="Outlines of all objects.")] = True,
    allow_missing: Annotated[
        bool, options.Output("--allow-missing", help="Though cells are not done; they are named.")
    ] = False,
    verify: Annotated[
        bool,
        options.Output(
            "--verify",
            help="Read every GeoTIFF that is there, and mend what is damaged; sizes are compared if left out.",
        ),
    ] = False,
    license_: Annotated[
        str | None,
        options.Output("--license", metavar="SPDX", help="Such as CC-BY-4.0; the package's, or other, if left out."),
    ] = None,
    provider: Annotated[
        list[str] | None, options.Output(metavar="NAME[=URL]", help="Who made it; again for more.")
    ] = None,
    fields: Annotated[
        list[str] | None,
        options.Output(metavar="arts|darts", help="Outlines with the fields of an inventory, too; again for more."),
    ] = None,
    arts: Annotated[
        list[str] | None,
        options.Output(
            metavar="FIELD=VALUE",
            help="Field of ARTS that is the same in every row, such as RegionName; again for more.",
        ),
    ] = None,
    names: Annotated[
        str | None,
        options.Output(metavar="{z}/{x}/{y}|{col}_{row}", help="How tiles are called; the first if left out."),
    ] = None,
    accuracy: Annotated[
        str | None, options.Output(metavar="FILE", help="accuracy.json of a reviewed sample, for the fact sheet.")
    ] = None,
    review: Annotated[
        str | None,
        options.Output(
            metavar="REVIEW|FOLDER|FILE",
            help="Verdicts of reviewers beside outlines: a review of this year, or what rtsx review merge made of it.",
        ),
    ] = None,
    expected_area: Annotated[
        bool | None,
        options.Output(help="Area that the map expects, too: probability x ground by cells, as of rtsx area."),
    ] = None,
) -> None:
    """Write the package that an archive takes: GeoTIFFs, outlines, fact sheet, provenance, STAC, checksums; no pixel of an image.

    Run it again after it was stopped or the map has changed, and only what is missing or differs is written. Licence, providers,
    fields and expected area are then those of the package unless they are given.

    Examples
    --------
    rtsx campaign deliver campaign.yaml --to package --license CC-BY-4.0 --provider "Our institute=https://example.org"

    rtsx campaign deliver campaign.yaml --year 2024 --to s3://archive/rts-2024 --tiles UPSArcticWGS84Quad
    """
    opened = options.open_campaign(campaign, year=year)
    reviewed, estimates = (None, None) if review is None else _with_estimates(review)
    if accuracy is not None and estimates is not None:
        raise typer.BadParameter(
            "the review is of a sample, and says how accurate the map is.", param_hint="--accuracy"
        )
    delivered = opened.deliver(
        to,
        tiles=tiles,
        zoom=zoom,
        tile_zoom=tile_zoom,
        outlines=outlines,
        allow_missing=allow_missing,
        verify=verify,
        license=license_,
        providers=provider,
        fields=fields,
        arts=None if arts is None else dict(one.partition("=")[::2] for one in arts),
        names=names,
        accuracy=accuracy or estimates,
        review=reviewed,
        expected_area=expected_area,
    )
    show_line(str(delivered))


def _with_estimates(path: str) -> "tuple[geopandas.GeoDataFrame, dict[str, Any] | None]":
    """Return outlines with verdicts, and the accuracy that follows where they are a sample."""
    reviewed = options.open_reviewed(path)
    if "sample_id" not in reviewed.columns:
        return reviewed, None
    from rtsx.evaluation import assess_accuracy  # here, because it is heavy

    return reviewed, json.loads(assess_accuracy(options.drawn_units(reviewed)).to_json())


@app.command(name="copy")
def copy_(
    campaign: options.CampaignArgument,
    other: Annotated[
        str, typer.Argument(metavar="OTHER", help="Where to: a folder or URL, empty or with an earlier copy.")
    ],
    *,
    year: Annotated[
        list[int] | None, typer.Option("--year", help="Only this year; again for more. All if left out.")
    ] = None,
) -> None:
    """Copy a campaign to another store, while it goes on running or not; each cell is verified, its mark written last.

    Run it again, and only what is new is copied. Exit status 1 when cells were left out because they are damaged, or a plan is.

    Examples
    --------
    rtsx campaign copy campaign.yaml gs://maps/arctic

    rtsx campaign copy s3://maps/arctic /archive/arctic --year 2023 --year 2024
    """
    opened = options.open_campaign(campaign, year=year[0] if year else None, is_of_one=False, takes_another=True)
    copied = opened.copy(other, years=year)
    show_line(str(copied))
    if copied.damaged or copied.plans:
        raise typer.Exit(options.FAULTY)
