"""`rtsx campaign`: a region of any size, planned, run, stopped, run again, watched and collected.

What runs is imported within the commands, because it loads libraries that `rtsx --help` should not wait for.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rtsx.cli import options
from rtsx.cli.campaign_opening import cells_named, cluster_of, created, loaded, opened_campaign
from rtsx.cli.console import notice, show, show_line
from rtsx.cli.progress import campaign_progress
from rtsx.errors import CampaignError

if TYPE_CHECKING:
    from rtsx.campaign.flight_summary import FlightSummary

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Maps a region of any size, cell by cell, on machines that may fail.")

FAULTY = 1
"""Exit status of a look that has found something wrong or not done."""

_ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN.yaml", help="What is mapped, how, and where to.", show_default=False)
]
_CampaignArgument = Annotated[
    str, typer.Argument(metavar="CAMPAIGN", help="The YAML file, or the output's folder or URL.", show_default=False)
]
_YearOption = Annotated[
    int | None, typer.Option(help="Another year than the file's; of an output, the newest if left out.")
]
_CellOption = Annotated[
    list[str] | None,
    typer.Option("--cell", metavar="rNNNcNNN", help="One cell; give it again for more. All if left out."),
]
_MACHINES = "Machines"
_LocalOption = Annotated[
    bool, typer.Option("--local", help="This machine, whatever the file says.", rich_help_panel=_MACHINES)
]
_WorkersOption = Annotated[
    int | None, typer.Option(help="Worker processes, here or at the gateway.", min=1, rich_help_panel=_MACHINES)
]
_ThreadsOption = Annotated[
    int | None, typer.Option(help="Cells that a worker here runs at a time.", min=1, rich_help_panel=_MACHINES)
]
_MemoryOption = Annotated[
    str | None, typer.Option(metavar="8GB", help="Memory of a worker here.", rich_help_panel=_MACHINES)
]
_SchedulerOption = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="A scheduler that runs already.", rich_help_panel=_MACHINES),
]
_GatewayOption = Annotated[str | None, typer.Option(metavar="URL", help="A dask-gateway.", rich_help_panel=_MACHINES)]
_ProfileOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Kind of workers at the gateway, such as gpu.", rich_help_panel=_MACHINES),
]
_AuthOption = Annotated[
    Literal["basic", "kerberos", "jupyterhub"] | None,
    typer.Option(help="Who one is to the gateway; secrets come from the environment.", rich_help_panel=_MACHINES),
]
_AdaptOption = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="MIN MAX", help="Workers between which the cluster follows the work.", rich_help_panel=_MACHINES
    ),
]

_PLAN = """Examples:

rtsx campaign plan campaign.yaml

rtsx campaign plan campaign.yaml --seconds-per-tile 0.02
"""


@app.command(epilog=_PLAN)
def plan(
    config: _ConfigArgument,
    *,
    year: _YearOption = None,
    measure: Annotated[bool, typer.Option(help="Run the model for some seconds to reckon hours.")] = True,
    seconds_per_tile: Annotated[
        float | None, typer.Option(metavar="S", help="What a tile takes on the device in question, instead.", min=0)
    ] = None,
) -> None:
    """Tell what a campaign will take, before anything is spent: cells, pixels, tiles, memory, bytes, hours and money.

    Writes the plan and an empty map into the output, where runs are held to them; no pixel of an image is read.
    """
    measure = measure and seconds_per_tile is None
    if measure:
        from rtsx.model.allocator import keep_freed_memory

        keep_freed_memory()  # as workers do, because the hours are theirs
    said = loaded(config, year=year)
    campaign = created(said)
    recipe = campaign.recipe
    if measure and recipe is not None:
        from rtsx.campaign.measuring import seconds_per_tile as measured  # here, because it loads torch

        notice("measuring the model on this machine ...")
        spec = recipe.prediction
        seconds_per_tile = measured(recipe.bundles, campaign.plan, device=spec.device, batch_size=spec.batch_size)
    show_line(str(campaign.estimate(seconds_per_tile=seconds_per_tile)))
    show("Planned", [("output", campaign.output), ("plan", campaign.plan.digest)])


_RUN = """Examples:

rtsx campaign run campaign.yaml --workers 2

rtsx campaign run campaign.yaml --gateway https://hub.example.org/services/dask-gateway --profile gpu --adapt 0 40
"""


@app.command(epilog=_RUN)
def run(
    config: _ConfigArgument,
    *,
    year: _YearOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also run cells that were set aside.")] = False,
    local: _LocalOption = False,
    workers: _WorkersOption = None,
    threads: _ThreadsOption = None,
    memory: _MemoryOption = None,
    scheduler: _SchedulerOption = None,
    gateway: _GatewayOption = None,
    profile: _ProfileOption = None,
    auth: _AuthOption = None,
    adapt: _AdaptOption = None,
) -> None:
    """Run every cell that is not done; stop it and run it again as often as you like, and nothing is done twice.

    The exit status is 0 when every cell is done.
    """
    said = loaded(config, year=year)
    spec = cluster_of(
        said, local=local, workers=workers, threads=threads, memory=memory, scheduler=scheduler, gateway=gateway,
        profile=profile, auth=auth, adapt=adapt,
    )  # fmt: skip
    notice("planning, or opening the plan that is there ...")
    from rtsx.campaign.clusters import opened  # here, because it is heavy

    campaign = created(said)
    if retry:
        campaign.retry()
    notice("opening the cluster ...")
    with ExitStack() as stack:
        client = stack.enter_context(opened(spec))
        progress = stack.enter_context(campaign_progress("mapping"))
        summary = campaign.run(client, progress=progress)
    show_line(str(summary))
    _require_complete(summary, _again(config, year))


@app.command(epilog="Example:\n\nrtsx campaign update campaign.yaml --workers 2")
def update(
    config: _ConfigArgument,
    *,
    year: _YearOption = None,
    local: _LocalOption = False,
    workers: _WorkersOption = None,
    threads: _ThreadsOption = None,
    memory: _MemoryOption = None,
    scheduler: _SchedulerOption = None,
    gateway: _GatewayOption = None,
    profile: _ProfileOption = None,
    auth: _AuthOption = None,
    adapt: _AdaptOption = None,
) -> None:
    """Run the cells again whose images changed, came or went since they were made, and those that are not done.

    The exit status is 0 when every cell was looked at and is done.
    """
    said = loaded(config, year=year)
    spec = cluster_of(
        said, local=local, workers=workers, threads=threads, memory=memory, scheduler=scheduler, gateway=gateway,
        profile=profile, auth=auth, adapt=adapt,
    )  # fmt: skip

    from rtsx.campaign.clusters import opened  # likewise

    campaign = created(said)
    with ExitStack() as stack:
        client = stack.enter_context(opened(spec))
        progress = stack.enter_context(campaign_progress("checking and updating"))
        updated = campaign.update(client, progress=progress)
    show_line(str(updated))
    if updated.flight is not None:
        _require_complete(updated.flight, _again(config, year))
    if not updated.complete:
        raise CampaignError(
            f"{len(updated.unchecked)} cells could not be looked at{_because(updated.stopped)}. They keep what they have; run "
            f"rtsx campaign update {_again(config, year)} again."
        )


@app.command(epilog="Examples:\n\nrtsx campaign status campaign.yaml\n\nrtsx campaign status s3://maps/arctic --check")
def status(
    campaign: _CampaignArgument,
    *,
    year: _YearOption = None,
    check: Annotated[bool, typer.Option("--check", help="Exit status 1 unless every cell is done.")] = False,
) -> None:
    """Tell how far a campaign is, from any machine: done, running, failed and why, left, rate, time to go, hours, cost."""
    opened = opened_campaign(campaign, year=year)
    from rtsx.campaign.settings import planned_years

    found = opened.status()
    show_line(str(found), asked=True)
    others = [str(one) for one in planned_years(opened.objects) if one != opened.plan.year]
    if others and year is None:
        notice(f"other years, with --year: {', '.join(others)}")
    if check and not found.is_complete:
        raise typer.Exit(FAULTY)


@app.command(
    epilog="Examples:\n\nrtsx campaign retry campaign.yaml\n\nrtsx campaign retry campaign.yaml --cell r412c088"
)
def retry(campaign: _CampaignArgument, *, year: _YearOption = None, cell: _CellOption = None) -> None:
    """Let cells that were set aside be run again by the next run; a cell that is named is made anew even if it is done."""
    freed = opened_campaign(campaign, year=year).retry(cells_named(cell))
    show_line(f"{freed} cell{'' if freed == 1 else 's'} will be run again by the next run")


@app.command(epilog="Example:\n\nrtsx campaign verify campaign.yaml")
def verify(campaign: _CampaignArgument, *, year: _YearOption = None, cell: _CellOption = None) -> None:
    """Read all that was written again, and compare it with the digests that were noted then.

    Exit status 1 when something is not what was written.
    """
    opened = opened_campaign(campaign, year=year)
    found = opened.verify(cells_named(cell))
    if not found.n_cells:
        raise CampaignError(
            f"No cell of {opened.plan.year} has a mark, so there is nothing to verify. Choose the year with --year and the "
            f"cells with --cell; rtsx campaign status {campaign} says what is done."
        )
    show_line(str(found), asked=True)
    if not found.is_sound:
        from rtsx.grid.cell import cell_id

        notice(
            f"Cells that are damaged are made anew by rtsx campaign retry {campaign} --year {opened.plan.year} --cell "
            f"{cell_id(*found.cells[0])} (--cell for each), and then rtsx campaign run with the YAML file and the same --year."
        )
        raise typer.Exit(FAULTY)


@app.command(epilog="Example:\n\nrtsx campaign report campaign.yaml --out report.html")
def report(
    campaign: _CampaignArgument,
    *,
    year: _YearOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="HTML", help="Local file; in the output if left out.", rich_help_panel="Output"),
    ] = None,
) -> None:
    """Write a page of one file: map of cells, throughput over time, costs, failures."""
    show("Written", [("report", opened_campaign(campaign, year=year).report(out))])


_COLLECT = """Examples:

rtsx campaign collect campaign.yaml

rtsx campaign collect campaign.yaml --format gpkg,flatgeobuf
"""


@app.command(epilog=_COLLECT)
def collect(
    campaign: _CampaignArgument,
    *,
    year: _YearOption = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="A,B", help="Also one file each: gpkg, flatgeobuf, pmtiles.", rich_help_panel="Output"
        ),
    ] = None,
    levels: Annotated[bool, typer.Option(help="Outlines of the year as one set.", rich_help_panel="Output")] = True,
    tracks: Annotated[bool, typer.Option(help="Objects over the years.", rich_help_panel="Output")] = True,
    overviews: Annotated[bool, typer.Option(help="Coarser levels of the map.", rich_help_panel="Output")] = True,
    stac: Annotated[bool, typer.Option(help="STAC collection and items.", rich_help_panel="Output")] = True,
) -> None:
    """Make products of all cells that are done: outlines merged across cells, tracks, overviews, a STAC collection.

    Run it again after more cells are done, and only what they touch is written again.
    """
    collected = opened_campaign(campaign, year=year).collect(
        formats=tuple(options.words(formats) or ()), levels=levels, tracks=tracks, overviews=overviews, stac=stac
    )
    show_line(str(collected))


def _again(config: Path, year: int | None) -> str:
    """What a command was given, to be given again."""
    return str(config) if year is None else f"{config} --year {year}"


def _require_complete(summary: "FlightSummary", config: str) -> None:
    if summary.complete:
        return
    told = f"{summary.cells - summary.done - summary.skipped} of {summary.cells} cells are not done"
    cures = []
    if summary.left or summary.stopped is not None:
        cures.append(f"Run rtsx campaign run {config} again.")
    if summary.set_aside:
        cures.append(
            f"{len(summary.set_aside)} were set aside: cure the cause, and run rtsx campaign run {config} --retry."
        )
    raise CampaignError(f"{told}{_because(summary.stopped)}. {' '.join(cures)}")


def _because(reason: str | None) -> str:
    return "" if reason is None else f", because {reason.rstrip('.')}"
