"""`rtsx campaign plan`, `run`, `work`, `submit` and `update`: what makes a campaign's cells.

What runs is imported within the commands, because it loads libraries that `rtsx --help` should not wait for.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, campaign_progress, counting, print_info, show, show_line
from rtsx.errors import CampaignError, ClusterError, RtsxError
from rtsx.parsing import memory_bytes
from rtsx.storage import absolute
from rtsx.storage.object_store import open_object_store

if TYPE_CHECKING:
    from rtsx.campaign import Campaign
    from rtsx.campaign.recipe import ClusterSpec
    from rtsx.campaign.records import RunSummary
    from rtsx.config.campaign import CampaignConfig


def created(
    config: "CampaignConfig", *, is_stored: bool = False, fetched: str | None = None, with_bundles: bool = True
) -> "Campaign":
    """Return the campaign of a config, planned if it is not yet; the resolved config is stored beside the plan, unless it comes from there.

    Images are read from the store `fetched`, where one is given. Without bundles it has to be planned, and can only fetch.

    Raises
    ------
    ConfigError, BundleError, CampaignError, OutputNotWritableError
        See `rtsx.load_campaign` and `rtsx.Campaign.create`.
    """
    from rtsx.campaign import Campaign

    text = "" if is_stored else config.resolved().without_secrets().to_yaml()
    return Campaign.create(replace(config.recipe(with_bundles=with_bundles), fetched=fetched), config=text)


def loaded(config: Path, *, year: int | None) -> "CampaignConfig":
    """Read a config, whose models have to be there.

    Raises
    ------
    ConfigError, BundleError, InputNotFoundError
        It cannot be read, or names what is not there.
    """
    options.require_there([str(config)])
    options.require_known_keys(str(config), "campaign")
    from rtsx.config import load_campaign_config

    said = load_campaign_config(config, year=year)
    options.require_models(said.model)
    return said


def cluster_of(config: "CampaignConfig", *, local: bool, memory: str | None = None, **given: Any) -> "ClusterSpec":
    """Return the machines that options name, or the config where they leave something open.

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


app = Commands(no_args_is_help=True)

_ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN.yaml", help="What is mapped, how, and where to.", show_default=False)
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
_UntilOption = Annotated[
    datetime | None,
    _machines(
        metavar="TIME",
        formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"],
        help="When to end, with cells left or not; the end of a Slurm job if left out.",
    ),
]
_FromOption = Annotated[
    str | None,
    _machines(
        "--from", metavar="STORE", help="Read images from what rtsx campaign fetch has stored, without a network."
    ),
]


@app.command()
def plan(
    config: _ConfigArgument,
    *,
    year: options.CampaignYearOption = None,
    measure: Annotated[bool, typer.Option(help="Run the model for some seconds to estimate hours.")] = True,
    seconds_per_tile: Annotated[
        float | None, typer.Option(metavar="S", help="What a tile takes on the device in question, instead.", min=0)
    ] = None,
) -> None:
    """Tell what a campaign will take, before anything is spent: cells, pixels, tiles, memory, bytes, hours and money.

    Writes the plan and an empty map into the output, where runs are held to them; no pixel of an image is read.

    Examples
    --------
    rtsx campaign plan campaign.yaml

    rtsx campaign plan campaign.yaml --seconds-per-tile 0.02
    """
    measure = measure and seconds_per_tile is None
    if measure:
        from rtsx.model.allocator import configure_malloc

        configure_malloc()  # as workers do, because the hours are theirs
    said = loaded(config, year=year)
    campaign = created(said)
    recipe, hardware = campaign.recipe, ""
    if measure and recipe is not None:
        from rtsx.campaign.estimate import seconds_per_tile as measured  # here, because it loads torch
        from rtsx.campaign.records import hardware_name

        print_info("measuring the model on this machine ...")
        spec = recipe.prediction
        seconds_per_tile = measured(recipe.bundles, campaign.plan, device=spec.device, batch_size=spec.batch_size)
        hardware = hardware_name(spec.device, spec.backend)
        print_info(f"measured on {hardware}")
    show_line(str(campaign.estimate(seconds_per_tile=seconds_per_tile, hardware=hardware)))
    show("Planned", ("output", campaign.output), ("plan", campaign.plan.digest))


_AcceptOption = Annotated[
    str | None,
    typer.Option("--accept-drift", metavar="NAME: REASON", help="Run although the drift check has tripped; recorded."),
]


@app.command()
def check(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    cells: Annotated[int, typer.Option(help="Cells that are looked at.", min=1)] = 64,
    against: Annotated[
        int | None, typer.Option(metavar="YEAR", help="Other year to compare with; the nearest checked if left out.")
    ] = None,
    from_: _FromOption = None,
    trust: options.TrustOption = False,
) -> None:
    """Compare a sample of the year's images with another year's, and with what the model learnt, before anything is spent.

    Exit status 1 where they differ; run and work then refuse the year until --accept-drift. Writes drift.html into the year's folder.

    Examples
    --------
    rtsx campaign check campaign.yaml --year 2025

    rtsx campaign check s3://maps/arctic --against 2023 --cells 200
    """
    said = stored_config(campaign, year=year, trust=trust)
    made = created(said, is_stored=not options.is_yaml(campaign), fetched=from_)
    with counting("checking", unit="cells") as progress:
        found = made.check(cells=cells, against=against, progress=progress)
    show_line(str(found))
    show("Checked", ("page", f"{made.output.rstrip('/')}/{made.ledger.layout.drift_page}"))
    if not found.may_run:
        raise typer.Exit(options.FAULTY)


@contextmanager
def _accepting(campaign: "Campaign", given: str | None) -> Iterator[None]:
    """Record what --accept-drift says, and take it back where the block is refused before anything runs.

    Raises
    ------
    CampaignError
        It is no name with a reason, or there is nothing to accept.
    """
    if given is None:
        yield
        return
    from rtsx.campaign.drift import read_check, write_check

    objects, plan = campaign.objects, campaign.plan
    before, runs = read_check(objects, plan), campaign.ledger.runs(damaged=[])
    campaign.accept_drift(**_who_and_why(given))
    try:
        yield
    except RtsxError:
        if before is not None and len(campaign.ledger.runs(damaged=[])) == len(runs):
            write_check(objects, plan, before)
        raise


def _require_accepted(campaign: "Campaign", given: str | None) -> None:
    """Refuse a year that drifts, or an acceptance of it that could not be recorded, before anything is changed or started.

    Raises
    ------
    CampaignError
        The check has tripped and nobody accepts it, or as `_accepting`.
    """
    from rtsx.campaign.drift import accepted_check, require_accepted

    if given is None:
        require_accepted(campaign.objects, campaign.plan)
    else:
        accepted_check(campaign.objects, campaign.plan, **_who_and_why(given))


def _who_and_why(given: str) -> dict[str, str]:
    name, _, reason = given.partition(":")
    return {"name": name, "reason": reason}


@app.command()
def run(
    config: _ConfigArgument,
    *,
    year: options.CampaignYearOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also run cells that were set aside.")] = False,
    from_: _FromOption = None,
    accept_drift: _AcceptOption = None,
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

    Examples
    --------
    rtsx campaign run campaign.yaml --workers 2

    rtsx campaign run campaign.yaml --gateway https://hub.example.org/services/dask-gateway --profile gpu --adapt 0 40
    """
    said = loaded(config, year=year)
    spec = cluster_of(
        said, local=local, workers=workers, threads=threads, memory=memory, scheduler=scheduler, gateway=gateway,
        profile=profile, auth=auth, adapt=adapt,
    )  # fmt: skip
    print_info("planning, or opening the plan that is there ...")
    campaign = created(said, fetched=from_)
    _require_accepted(campaign, accept_drift)
    if retry:
        campaign.retry()
    print_info("opening the cluster ...")
    from rtsx.campaign.clusters import connect_cluster  # here, because it is heavy

    accepting = _accepting(campaign, accept_drift)
    with connect_cluster(spec) as client, accepting, campaign_progress("mapping") as progress:
        summary = campaign.run(client, progress=progress)
    show_line(str(summary))
    _require_complete(summary, f"run {_again(config, year=year, fetched=from_)}")


@app.command()
def fetch(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    to: Annotated[
        str,
        typer.Option(metavar="STORE", help="Folder or URL; several campaigns may share one.", rich_help_panel="Output"),
    ],
    update: Annotated[
        bool, typer.Option("--update", help="Ask the sources again before, and fetch what came or changed since.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Read all blocks again before, and fetch again what is damaged or was a gap."),
    ] = False,
    until: _UntilOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also fetch cells that were set aside.")] = False,
    trust: options.TrustOption = False,
) -> None:
    """Copy the pixels that a campaign reads into a store, each once, for nodes without a network; plans the campaign if it is not yet.

    Stop it and start it again as often as you like, on as many machines as you like; then run with --from STORE. Exit status: 0 all
    is there; 2 some is not, and the message tells why; 75 the time was over.

    Examples
    --------
    rtsx campaign fetch campaign.yaml --to /scratch/pixels

    rtsx campaign fetch campaign.yaml --to /scratch/pixels --check
    """
    said, is_stored = stored_config(campaign, year=year, trust=trust), not options.is_yaml(campaign)
    from rtsx.campaign.batch import slurm_end
    from rtsx.campaign.ledger import planned_years

    is_planned = is_stored or said.year in planned_years(open_object_store(said.output, said.storage_options))
    made = created(said, is_stored=is_stored, with_bundles=not is_planned)  # which load torch

    with campaign_progress("fetching") as progress:
        ends = slurm_end() if until is None else until.astimezone()
        fetched = made.fetch(to, update=update, check=check, retry=retry, until=ends, progress=progress)
    show_line(str(fetched))
    _require_complete(fetched.run, f"fetch {_again(campaign, year=year)} --to {to}")


_GpuOption = Annotated[int | None, _machines("--gpu", help="GPUs of this machine, with a process for each.", min=1)]


@app.command()
def work(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    until: _UntilOption = None,
    workers: Annotated[int | None, _machines(help="Processes on this machine.", min=1)] = None,
    gpu: _GpuOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also run cells that were set aside.")] = False,
    from_: _FromOption = None,
    accept_drift: _AcceptOption = None,
    trust: options.TrustOption = False,
) -> None:
    """Run cells on this machine without a scheduler, until every cell is done; start it on as many machines as you like.

    An output alone is enough: sources and models are then found by the config that is stored in it. Exit status: 0 every cell is
    done; 2 some are not, and the message tells why; 75 the time was over.

    Examples
    --------
    rtsx campaign work campaign.yaml --workers 4

    rtsx campaign work s3://maps/arctic --until 2026-12-01T06:00
    """
    if workers is not None and gpu is not None:
        raise ClusterError("--workers and --gpu both say how many processes there are. Give one of them.")
    is_one = workers in (None, 1) and gpu is None
    if is_one:
        from rtsx.model.allocator import configure_malloc

        configure_malloc()
    said = stored_config(campaign, year=year, trust=trust)
    from rtsx.campaign.batch import TIME_IS_OVER, slurm_end
    from rtsx.campaign.work import run_in_processes  # here, because it is heavy

    ends = slurm_end() if until is None else until.astimezone()
    stored = not options.is_yaml(campaign)
    made = created(said, is_stored=stored, fetched=from_)
    _require_accepted(made, accept_drift)
    if retry:
        made.retry()
    again = f"work {_again(campaign, year=year, fetched=from_)}"
    if is_one:
        with _accepting(made, accept_drift), campaign_progress("mapping") as progress:
            summary = made.work(until=ends, progress=progress)
        show_line(str(summary))
        _require_complete(summary, again)
        return
    command = ["campaign", "work", campaign, "--year", str(made.plan.year), *(["--trust"] if trust else [])]
    command += [] if from_ is None else ["--from", from_]
    command += [] if ends is None else ["--until", ends.isoformat(timespec="seconds")]
    with _accepting(made, accept_drift):
        statuses = run_in_processes(made, command, workers=workers or gpu or 1, gpus=gpu is not None)
        found = made.status()
        show_line(str(found))
        if found.is_complete:
            return
        if TIME_IS_OVER in statuses:
            raise typer.Exit(TIME_IS_OVER)
        raise CampaignError(
            f"{found.cells - found.done} of {found.cells} cells are not done, {len(found.failed)} of them set aside. The messages above "
            f"tell why: cure it, and run rtsx campaign {again} --retry."
        )


def stored_config(given: str, *, year: int | None, trust: bool) -> "CampaignConfig":
    """Return the config of a YAML file, or the one that is stored in an output; its model files may run code only where one says so here.

    Raises
    ------
    ConfigError, BundleError, InputNotFoundError
        As `loaded`.
    CampaignError
        The output holds no campaign, or its campaign was made in Python, where no config is.
    """
    if options.is_yaml(given):
        said = loaded(Path(given), year=year)
        return said.changed(trust=said.trust or trust)
    opened = options.open_campaign(given, year=year)
    from rtsx.config import stored_campaign_config

    said = stored_campaign_config(opened).changed(trust=trust)
    options.require_models(said.model)
    return said


_batch = partial(typer.Option, rich_help_panel="Batch system")


@app.command()
def submit(
    campaign: options.CampaignArgument,
    *,
    year: options.CampaignYearOption = None,
    slurm: Annotated[bool, _batch("--slurm", help="Submit with sbatch.")] = False,
    pbs: Annotated[bool, _batch("--pbs", help="Submit with qsub.")] = False,
    workers: Annotated[int, _batch(help="Members of the array.", min=1)],
    time: Annotated[str, _batch(metavar="HH:MM", help="Wall time of a member; it ends two minutes before.")],
    gpus: Annotated[int, _batch(help="GPUs of a member, with a process for each.", min=0)] = 0,
    cpus: Annotated[int | None, _batch(help="Processors of a member.", min=1)] = None,
    memory: Annotated[str | None, _batch(metavar="32GB", help="Memory of a member.")] = None,
    partition: Annotated[str | None, _batch(help="Partition, or queue of PBS.")] = None,
    account: Annotated[str | None, _batch(help="Account.")] = None,
    container: Annotated[str | None, _batch(metavar="IMAGE", help="Apptainer image that holds rtsx.")] = None,
    setup: Annotated[
        list[str] | None, _batch(metavar="LINE", help="Line of shell before the work; again for more.")
    ] = None,
    option: Annotated[
        list[str] | None,
        _batch(metavar="--X=Y", help="Option of the system, such as --constraint=a100; again for more."),
    ] = None,
    accept_drift: _AcceptOption = None,
    logs: Annotated[Path | None, _batch(metavar="FOLDER", help="For what members print.")] = None,
    from_: Annotated[
        str | None, _batch("--from", metavar="STORE", help="Read images from what rtsx campaign fetch has stored.")
    ] = None,
    trust: options.TrustOption = False,
    dry_run: Annotated[bool, _batch("--dry-run", help="Print the script instead of submitting it.")] = False,
) -> None:
    """Start workers of a planned campaign as an array job, whose members run rtsx campaign work.

    A member of Slurm queues itself again when its time is over and cells are left.

    Examples
    --------
    rtsx campaign submit campaign.yaml --slurm --workers 40 --time 12:00 --gpus 1 --partition gpu --account mine

    rtsx campaign submit campaign.yaml --slurm --workers 40 --time 12:00 --setup "source ~/rtsx/bin/activate" --dry-run
    """
    if slurm == pbs:
        raise CampaignError("Give one of --slurm and --pbs.")
    from rtsx.campaign.batch import BatchJob

    # Which refuses what was not planned, because every member would do so.
    opened = options.open_campaign(campaign, year=year)
    _require_accepted(opened, accept_drift)  # likewise
    if from_ is not None:
        from rtsx.campaign.cell_input import FetchedImages

        FetchedImages(from_, opened.plan.year, opened.plan.digest).require_all(opened.plan)  # likewise
    try:
        job = BatchJob(
            system="slurm" if slurm else "pbs",
            campaign=absolute(campaign),
            year=opened.plan.year,
            workers=workers,
            time=wall_time(time),
            gpus=gpus,
            cpus=cpus,
            memory_bytes=None if memory is None else memory_bytes(memory),
            partition=partition,
            account=account,
            container=str(Path(container).absolute()) if container and Path(container).is_file() else container,
            fetched=None if from_ is None else absolute(from_),
            trust=trust,
            setup=tuple(setup or ()),
            options=tuple(option or ()),
            logs=None if logs is None else absolute(str(logs)),
        )
    except ValueError as error:
        raise CampaignError(str(error)) from error
    if dry_run:
        show_line(job.script, asked=True)
        return
    if logs is not None:
        logs.expanduser().mkdir(parents=True, exist_ok=True)
    with _accepting(opened, accept_drift):
        show_line(job.submit())


def wall_time(given: str) -> timedelta:
    """Return a wall time: minutes, HH:MM, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> [str(wall_time(text)) for text in ("90", "12:00", "12:30:00", "1-12", "2-00:30")]
    ['1:30:00', '12:00:00', '12:30:00', '1 day, 12:00:00', '2 days, 0:30:00']
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d\d))?(?::(\d\d))?", given)
    if found is None:
        raise ValueError(f"A wall time is HH:MM, HH:MM:SS, D-HH:MM:SS or minutes; got {given!r}.")
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is None and second is None:
        return timedelta(minutes=first or 0)
    return timedelta(days=days or 0, hours=first or 0, minutes=second or 0, seconds=third or 0)


@app.command()
def update(
    config: _ConfigArgument,
    *,
    year: options.CampaignYearOption = None,
    accept_drift: _AcceptOption = None,
    from_: _FromOption = None,
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

    Examples
    --------
    rtsx campaign update campaign.yaml --workers 2
    """
    said = loaded(config, year=year)
    spec = cluster_of(
        said, local=local, workers=workers, threads=threads, memory=memory, scheduler=scheduler, gateway=gateway,
        profile=profile, auth=auth, adapt=adapt,
    )  # fmt: skip
    campaign = created(said, fetched=from_)
    _require_accepted(campaign, accept_drift)
    from rtsx.campaign.clusters import connect_cluster  # likewise

    accepting = _accepting(campaign, accept_drift)
    with connect_cluster(spec) as client, accepting, campaign_progress("checking and updating") as progress:
        updated = campaign.update(client, progress=progress)
    show_line(str(updated))
    again = _again(config, year=year, fetched=from_)
    if updated.run is not None:
        _require_complete(updated.run, f"run {again}")
    if not updated.complete:
        raise CampaignError(
            f"{len(updated.unchecked)} cells could not be looked at{_because(updated.stopped)}. They keep what they have; run "
            f"rtsx campaign update {again} again."
        )


def _again(campaign: str | Path, *, year: int | None, fetched: str | None = None) -> str:
    """Return what a command was given, to be given again."""
    return f"{quote(str(campaign))}{'' if year is None else f' --year {year}'}{'' if fetched is None else f' --from {quote(fetched)}'}"


def _require_complete(summary: "RunSummary", command: str) -> None:
    """Leave with the status of what is not done, or is left because the time was over."""
    if summary.complete:
        return
    from rtsx.campaign.batch import TIME_IS_OVER
    from rtsx.campaign.records import TIME_OVER

    if summary.stopped == TIME_OVER and summary.left:
        raise typer.Exit(TIME_IS_OVER)
    left = f"{summary.cells - summary.done - summary.skipped} of {summary.cells} cells are not done"
    cures = []
    if summary.left or summary.stopped is not None:
        cures.append(f"Run rtsx campaign {command} again.")
    if summary.set_aside:
        cures.append(
            f"{len(summary.set_aside)} were set aside: cure the cause, and run rtsx campaign {command} --retry."
        )
    raise CampaignError(f"{left}{_because(summary.stopped)}. {' '.join(cures)}")


def _because(reason: str | None) -> str:
    return "" if reason is None else f", because {reason.rstrip('.')}"
