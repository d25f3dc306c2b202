"""`rtsx campaign`: a region of any size, planned, run, stopped, run again, watched and collected.

What runs is imported within the commands, because it loads libraries that `rtsx --help` should not wait for.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import campaign_progress, print_info, show, show_line
from rtsx.cli.options import require_known_keys, require_models, require_there
from rtsx.errors import CampaignError, ClusterError, GridError
from rtsx.parsing import memory_bytes

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.campaign.cells import Address
    from rtsx.campaign.recipe import ClusterSpec
    from rtsx.campaign.run_log import RunSummary
    from rtsx.config.campaign import CampaignConfig

__all__ = ["app", "cells_named", "cluster_of", "created", "loaded", "opened_campaign"]


def created(config: "CampaignConfig") -> "Campaign":
    """The campaign of a config, planned if it is not yet; the resolved config is stored beside the plan.

    Raises
    ------
    ConfigError, BundleError, CampaignError, OutputNotWritableError
        See `rtsx.load_campaign` and `rtsx.Campaign.create`.
    """
    from rtsx.campaign import Campaign

    return Campaign.create(config.recipe(), config=config.resolved().without_secrets().to_yaml())


def loaded(config: Path, *, year: int | None) -> "CampaignConfig":
    """Read a config, whose models have to be there.

    Raises
    ------
    ConfigError, BundleError, InputNotFoundError
        It cannot be read, or names what is not there.
    """
    require_there([str(config)])
    require_known_keys(str(config), "campaign")
    from rtsx.config import load_campaign_config

    said = load_campaign_config(config, year=year)
    require_models(said.model)
    return said


def opened_campaign(given: str, *, year: int | None) -> "Campaign":
    """The campaign that a config or an output names, to look at it; neither bundles nor sources are needed.

    Raises
    ------
    ConfigError
        The config cannot be read.
    CampaignError
        There is no plan of that year.
    """
    if Path(given).suffix.lower() not in (".yaml", ".yml"):
        if "://" not in given and not Path(given).expanduser().is_dir():
            raise CampaignError(f"{given} holds no campaign. Check the path, or plan the campaign first.")
        from rtsx.campaign import Campaign  # here, because it is heavy

        opened = Campaign.open(given, year=year)
    else:
        require_there([given])
        require_known_keys(given, "campaign")
        from rtsx.campaign import Campaign
        from rtsx.config.place import CampaignOutput
        from rtsx.config.validate import validate_config
        from rtsx.config.yaml import read_yaml

        config = validate_config(CampaignOutput, read_yaml(given))

        opened = Campaign.open(config.output, year=year or config.year, storage_options=config.storage_options)
    if year is None:
        print_info(f"Year {opened.plan.year}, as no --year was given")
    return opened


def cluster_of(config: "CampaignConfig", *, local: bool, memory: str | None = None, **given: Any) -> "ClusterSpec":
    """The machines that options name, or the config where they leave something open.

    Parameters
    ----------
    config
        The config.
    local
        Whether to leave out what the config says of machines.
    memory
        Memory of a worker, such as 8GB; None where the option was not given, as in `given`.
    given
        Further fields of `ClusterSpec`.

    Raises
    ------
    ClusterError
        Options contradict each other, or the config.

    Examples
    --------
    >>> from rtsx.config import CampaignConfig
    >>> files = {"files": "scene.tif", "layers": ["red"]}
    >>> said = {"name": "a", "year": 2024, "region": "arctic", "cube": {"sources": {"scene": files}}, "model": "demo"}
    >>> config = CampaignConfig.model_validate({**said, "output": "out", "cluster": {"gateway": "http://a", "adapt": [0, 9]}})
    >>> cluster_of(config, local=False, adapt=(2, 4)).adapt, cluster_of(config, local=True, workers=2).kind
    ((2, 4), 'local')
    """
    from rtsx.campaign.recipe import ClusterSpec

    chosen = {name: value for name, value in given.items() if value is not None}
    # Another scheduler or gateway is another cluster; anything else changes the one that the file names.
    is_another = local or bool({"scheduler", "gateway"} & set(chosen))
    said = {} if is_another else {name: value for name, value in vars(config.cluster).items() if value is not None}
    for one, other in (("workers", "adapt"), ("adapt", "workers")):
        if one in chosen and other not in chosen:
            said.pop(other, None)
    if memory is not None:
        try:
            chosen["memory_bytes"] = memory_bytes(memory)
        except ValueError as error:
            raise ClusterError(str(error)) from error
    return ClusterSpec(**{**said, **chosen})


def cells_named(names: Sequence[str] | None) -> "list[Address] | None":
    """Addresses of cells by name; None for none, which means all.

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
_machines = partial(typer.Option, rich_help_panel="Machines")
_LocalOption = Annotated[bool, _machines("--local", help="This machine, whatever the file says.")]
_WorkersOption = Annotated[int | None, _machines(help="Worker processes, here or at the gateway.", min=1)]
_ThreadsOption = Annotated[int | None, _machines(help="Cells that a worker here runs at a time.", min=1)]
_MemoryOption = Annotated[str | None, _machines(metavar="8GB", help="Memory of a worker here.")]
_SchedulerOption = Annotated[str | None, _machines(metavar="tcp://HOST:PORT", help="A scheduler that runs already.")]
_GatewayOption = Annotated[str | None, _machines(metavar="URL", help="A dask-gateway.")]
_ProfileOption = Annotated[str | None, _machines(metavar="NAME", help="Kind of workers at the gateway, such as gpu.")]
_AuthOption = Annotated[
    Literal["basic", "kerberos", "jupyterhub"] | None,
    _machines(help="Who one is to the gateway; secrets come from the environment."),
]
_AdaptOption = Annotated[
    tuple[int, int] | None, _machines(metavar="MIN MAX", help="Workers between which the cluster follows the work.")
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
        from rtsx.model.allocator import configure_malloc

        configure_malloc()  # as workers do, because the hours are theirs
    said = loaded(config, year=year)
    campaign = created(said)
    recipe = campaign.recipe
    if measure and recipe is not None:
        from rtsx.campaign.estimate import seconds_per_tile as measured  # here, because it loads torch

        print_info("measuring the model on this machine ...")
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
    print_info("planning, or opening the plan that is there ...")
    from rtsx.campaign.clusters import connect_cluster  # here, because it is heavy

    campaign = created(said)
    if retry:
        campaign.retry()
    print_info("opening the cluster ...")
    with ExitStack() as stack:
        client = stack.enter_context(connect_cluster(spec))
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

    from rtsx.campaign.clusters import connect_cluster  # likewise

    campaign = created(said)
    with ExitStack() as stack:
        client = stack.enter_context(connect_cluster(spec))
        progress = stack.enter_context(campaign_progress("checking and updating"))
        updated = campaign.update(client, progress=progress)
    show_line(str(updated))
    if updated.run is not None:
        _require_complete(updated.run, _again(config, year))
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
    from rtsx.campaign.ledger import planned_years

    found = opened.status()
    show_line(str(found), asked=True)
    others = [str(one) for one in planned_years(opened.objects) if one != opened.plan.year]
    if others and year is None:
        print_info(f"other years, with --year: {', '.join(others)}")
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
        from rtsx.grid.grid import cell_id

        print_info(
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
    confidence_rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE.json",
            help="Also a class for each outline, by what `rtsx evaluate --sample --confidence-rule` derived; kept for the next time.",
            rich_help_panel="Output",
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
        formats=tuple(options.words(formats) or ()),
        confidence_rule=confidence_rule,
        levels=levels,
        tracks=tracks,
        overviews=overviews,
        stac=stac,
    )
    show_line(str(collected))


def _again(config: Path, year: int | None) -> str:
    """What a command was given, to be given again."""
    return str(config) if year is None else f"{config} --year {year}"


def _require_complete(summary: "RunSummary", config: str) -> None:
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
