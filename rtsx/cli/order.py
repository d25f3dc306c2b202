"""`rtsx order`: choose scenes for a region, order them once, fetch them as a STAC catalog; or download the quads of a basemap.

What orders is imported within the commands, because it loads libraries that `rtsx --help` should not wait for.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated

import typer

from rtsx.cli import options
from rtsx.cli.console import Commands, counting, print_info, show
from rtsx.errors import OrderError
from rtsx.parsing import json_value, wrap_damage
from rtsx.storage import write_whole

if TYPE_CHECKING:
    from rtsx.config.order import BasemapConfig, OrderConfig
    from rtsx.ordering import BasemapApi, Ledger, Mosaic, OrderPlan, QuadLedger

__all__ = ["app"]

app = Commands(no_args_is_help=True)

_LISTED = 40
"""Scenes that a summary lists; the files have them all."""

OrderArgument = Annotated[
    Path, typer.Argument(metavar="ORDER.yaml", help="Config of the order.", show_default=False, dir_okay=False)
]


@app.command()
def plan(order: OrderArgument) -> None:
    """Search for scenes and choose those that cover the region; nothing is ordered.

    Writes ORDER.plan.json, which `submit` takes, and ORDER.plan.geojson, for a map. Of a basemap the quads of the region are listed,
    in ORDER.quads.sqlite; it goes on where it was stopped.

    Examples
    --------
    rtsx order plan order.yaml
    """
    config = _loaded(order)
    if config.basemap is not None:
        with _listed_quads(order, config, config.basemap):
            return
    from rtsx.ordering import select_scenes

    provider = config.provider()
    region = config.geometry()
    assert config.period is not None  # only a basemap has none
    found = provider.search(region, config.period.period())
    chosen = select_scenes(found, region, wishes=config.wishes, limits=config.limits, clip=provider.can_clip)
    content = {"order": config.name, "digest": config.digest(), "plan": chosen.to_json()}
    write_whole(_beside(order, "plan.json"), (json.dumps(content, indent=1) + "\n").encode())
    chosen.write_geojson(_beside(order, "plan.geojson"))
    _show_plan(chosen, config)
    show("Written", ("plan", _beside(order, "plan.json")), ("map", _beside(order, "plan.geojson")))
    if not chosen.chosen:
        raise OrderError(
            f"No scene covers ground of the region: {chosen.candidates} were found, {chosen.refused} of them too cloudy. "
            "Widen the period, or the limits."
        )


@app.command()
def submit(
    order: OrderArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before ordering.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Also order again what failed, was cancelled or not delivered.")
    ] = False,
) -> None:
    """Order what was planned and has not been ordered yet; run it as often as you like.

    What was ordered is kept in ORDER.ledger.json, which belongs with the config: copy both to go on on another machine. Of a basemap
    whose `delivery` names a bucket, quads are ordered, and kept in ORDER.quads.sqlite.

    Examples
    --------
    rtsx order submit order.yaml --yes
    """
    config = _loaded(order)
    if config.basemap is not None:
        _submit_quads(order, config, config.basemap, yes=yes, retry=retry)
        return
    from rtsx.ordering import Ledger, planned_batches, submit_order

    chosen = _planned(order, config)
    provider = config.provider()
    path = _beside(order, "ledger.json")
    ledger = Ledger.load(path)
    batches = planned_batches(chosen, ledger, provider, name=config.name, retry=retry)
    cost = sum(sum(costs.values()) for _, costs in batches)
    scenes = sum(len(costs) for _, costs in batches)
    if not batches:
        lost = f"; {len(ledger.lost)} scenes are lost, --retry orders them again" if ledger.lost else ""
        print_info(f"Everything planned has been ordered{lost}.")
        return
    show(
        f"To order: {config.name}",
        ("scenes", scenes),
        ("orders", len(batches)),
        ("cost", _km2(cost)),
        ("ordered before", _km2(ledger.cost_km2) if ledger.entries else None),
        ("budget", None if config.limits.budget_km2 is None else _km2(config.limits.budget_km2)),
    )
    if config.limits.budget_km2 is None or ledger.cost_km2 + cost <= config.limits.budget_km2:
        _confirm(yes, f"Order {scenes} scenes for {_km2(cost)}?")
    ledger = submit_order(chosen, provider, path, name=config.name, budget_km2=config.limits.budget_km2, retry=retry)
    _show_orders(ledger, path)


@app.command("status")
def status_command(order: OrderArgument) -> None:
    """Ask the provider where the orders stand; of a basemap, show which quads are there.

    Examples
    --------
    rtsx order status order.yaml
    """
    config = _loaded(order)
    if config.basemap is not None:
        from rtsx.ordering import QuadLedger, quad_ledger

        path = _made(order, "quads.sqlite", what="No quads have been listed", by="plan")
        if config.basemap.delivery is None:
            with suppress(OrderError), quad_ledger(path) as ledger:  # unless another process fetches
                ledger.recheck(config.folder)
        with closing(QuadLedger(path)) as ledger:
            _show_quads(ledger, order, config, basemap=config.basemap)
        return
    from rtsx.ordering import Ledger, order_status

    path = _ledger_of(order)
    try:
        order_status(config.provider(), path)
    finally:  # also where one of them is not known
        _show_orders(Ledger.load(path), path, asked=True)


@app.command()
def fetch(order: OrderArgument) -> None:
    """Fetch what is ready into the folder `out`, a STAC catalog that cubes read; run it as often as you like.

    The exit status is 0 when every scene that was ordered is there, or every quad that the mosaic has.

    Examples
    --------
    rtsx order fetch order.yaml
    """
    config = _loaded(order)
    if config.basemap is not None:
        _fetch_quads(order, config, config.basemap)
        return
    path = _ledger_of(order)
    provider = config.provider()
    from rtsx.ordering import fetch_order

    sizes, lock = [0, 0], Lock()  # bytes that came, and that will come

    with counting("fetching", unit="MB") as show_fetched:

        def came(*, more: int = 0, due: int = 0) -> None:
            with lock:
                sizes[0], sizes[1] = sizes[0] + more, sizes[1] + due
                show_fetched(sizes[0] // 10**6, max(sizes) // 10**6)

        done = fetch_order(
            provider,
            path,
            config.folder,
            collection=config.collection_id,
            clip=config.geometry() if provider.can_clip else None,
            parallel=config.parallel,
            starting=lambda files: came(due=sum(file.size or 0 for file in files)),
            advance=lambda _, count: came(more=count),
        )
    show(
        f"Fetched: {config.name}",
        ("scenes", len(done.scenes)),
        ("orders not ready", done.waiting or None),
        ("scenes lost", ", ".join(done.lost[:_LISTED])),
        ("catalog", config.folder / "collection.json" if (config.folder / "collection.json").exists() else None),
    )
    reasons = [str(error) for error in list(done.failures.values())[:5]]
    if len(done.failures) > 5:
        reasons.append(f"And {len(done.failures) - 5} files more.")
    if done.waiting:
        reasons.append(f"{done.waiting} orders are not ready. Run fetch again later.")
    if done.lost:
        reasons.append(f"{len(done.lost)} scenes will not come. Run submit --retry to order them again.")
    if reasons:
        raise OrderError("\n".join(reasons))


@contextmanager
def _listed_quads(
    order: Path, config: "OrderConfig", basemap: "BasemapConfig"
) -> Iterator[tuple["QuadLedger", "BasemapApi", "Mosaic"]]:
    """Yield the ledger with all quads of the region, for the block; in the end it is shown where they stand."""
    from rtsx.ordering import list_quads, quad_ledger

    api = basemap.api()
    with quad_ledger(_beside(order, "quads.sqlite")) as ledger:
        with counting("listing", unit="ranges") as shown:
            mosaic = list_quads(
                api,
                ledger,
                config.folder,
                mosaic=basemap.mosaic,
                region=config.geometry(),
                digest=config.digest(),
                delivery=basemap.delivery,
                advance=shown,
            )
        if basemap.delivery is None:
            ledger.recheck(config.folder)
        try:
            yield ledger, api, mosaic
        finally:
            _show_quads(ledger, order, config, basemap=basemap)


def _submit_quads(order: Path, config: "OrderConfig", basemap: "BasemapConfig", *, yes: bool, retry: bool) -> None:
    """Order the quads of a basemap for a delivery."""
    from rtsx.ordering import order_quads

    delivery = basemap.delivery
    if delivery is None:
        raise OrderError(
            f"Quads of a basemap are downloaded without an order, unless basemap.delivery names a bucket. Run rtsx order fetch {order}."
        )
    with _listed_quads(order, config, basemap) as (ledger, _, mosaic):
        order_quads(
            basemap.provider(),
            ledger,
            name=config.name,
            mosaic=mosaic,
            delivery=delivery,
            retry=retry,
            confirm=lambda count: _confirm(yes, f"Order {count} quads of {basemap.mosaic} to {delivery.destination}?"),
        )
        missing = ledger.counts().missing
    if missing:
        print_info(f"{missing} quads were ordered and are missing; --retry orders them again.")


def _fetch_quads(order: Path, config: "OrderConfig", basemap: "BasemapConfig") -> None:
    """Download the quads of a basemap or look for them in their bucket, and say which are missing."""
    from rtsx.ordering import collect_quads, fetch_quads

    with _listed_quads(order, config, basemap) as (ledger, api, mosaic):
        if basemap.delivery is not None:
            collect_quads(basemap.provider(), ledger, mosaic=mosaic, delivery=basemap.delivery, table=_items(config))
        else:
            with counting("fetching", unit="quads") as shown:
                fetch_quads(
                    api,
                    ledger,
                    config.folder,
                    mosaic=mosaic,
                    table=_items(config),
                    parallel=config.parallel,
                    advance=shown,
                )
        counts = ledger.counts()
        missing = ledger.named("missing", _LISTED)
    if counts.missing or counts.waiting:
        reasons = [f"{name}: {message}" for name, message in missing.items()]
        if counts.missing > len(missing):
            reasons.append(f"And {counts.missing - len(missing)} more, see {_beside(order, 'quads.csv')}.")
        first = f"{counts.missing} of {counts.asked} quads are missing, and {counts.waiting} "
        first += (
            f"could not be tried to the end. Run rtsx order fetch {order} again; what is there is not downloaded again."
            if basemap.delivery is None
            else f"are not delivered yet, or not as files that can be read. Run rtsx order submit {order} for those that are not ordered, with --retry for missing "
            "ones too, and fetch again later."
        )
        raise OrderError("\n".join([first, *reasons]))


def _show_quads(ledger: "QuadLedger", order: Path, config: "OrderConfig", *, basemap: "BasemapConfig") -> None:
    """Write and print where the quads stand."""
    counts, table = ledger.counts(), _beside(order, "quads.csv")
    ledger.write_table(table)
    absent = ledger.named("absent", _LISTED)
    more = f" and {counts.absent - len(absent)} more" if counts.absent > len(absent) else ""
    items = _items(config)
    show(
        f"Quads: {basemap.mosaic}",
        ("show ground of the region", counts.grid),
        ("not in the mosaic", f"{counts.absent}: {', '.join(absent)}{more}" if absent else 0),
        ("asked for", counts.asked),
        ("there", counts.there),
        ("missing", counts.missing),
        ("waiting", counts.waiting),
        ("listed twice", counts.twice),
        ("orders", ", ".join(f"{count} {state}" for state, count in ledger.orders().items()) or None),
        ("each of them", table),
        ("table of items", items if items.exists() else None),
        asked=True,
    )


def _items(config: "OrderConfig") -> Path:
    """Return the table of the quads of an order; several orders may share the folder."""
    return config.folder / f"{config.name}.parquet"


def _loaded(order: Path) -> "OrderConfig":
    options.require_there([str(order)])
    from rtsx.config.order import load_order_config

    return load_order_config(order)


def _beside(order: Path, ending: str) -> Path:
    return order.with_name(f"{order.stem}.{ending}")


def _made(order: Path, ending: str, *, what: str, by: str) -> Path:
    """Return the file that another command has made of an order."""
    path = _beside(order, ending)
    if not path.exists():
        raise OrderError(f"{what} yet: there is no {path}. Run rtsx order {by} {order} first.")
    return path


def _ledger_of(order: Path) -> Path:
    return _made(order, "ledger.json", what="Nothing has been ordered", by="submit")


def _planned(order: Path, config: "OrderConfig") -> "OrderPlan":
    """Return the plan that was made of this very config."""
    from rtsx.ordering import OrderPlan

    path = _made(order, "plan.json", what="Nothing has been planned", by="plan")
    what = f"{path}, which rtsx order plan {order} writes"
    content = json_value(path.read_bytes(), what=what, error=OrderError)
    with wrap_damage(what, OrderError):
        digest, plan_ = content["digest"], content["plan"]
    if digest != config.digest():
        raise OrderError(
            f"{order} has changed since it was planned. Run rtsx order plan {order} again, and look at it."
        )
    return OrderPlan.from_json(plan_)


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise OrderError(f"{question} There is no terminal to ask on, so nothing was ordered. Pass --yes.")
    if not typer.confirm(question, err=True):
        raise OrderError("Not confirmed, so nothing was ordered.")


def _show_plan(chosen: "OrderPlan", config: "OrderConfig") -> None:
    scenes = []
    for one in chosen.chosen[:_LISTED]:
        cloud = "unknown" if one.scene.cloud_cover is None else f"{one.scene.cloud_cover:.0f} %"
        ground = f"shows {_km2(one.covers_km2)}, {_km2(one.alone_km2)} of it alone"
        scenes.append((one.scene.id, f"{one.scene.day}, cloud {cloud}, cost {_km2(one.cost_km2)}, {ground}"))
    if len(chosen.chosen) > _LISTED:
        scenes.append(("...", f"and {len(chosen.chosen) - _LISTED} more"))
    show("Scenes", *scenes)
    most = max(chosen.days.values(), default=1)
    show("Days", *[(day, f"{'#' * max(1, round(30 * n / most))} {n}") for day, n in chosen.days.items()])
    stopped = {
        "complete": "no candidate covers more",
        "coverage": "the coverage asked for is reached",
        "scenes": "max_scenes is reached",
        "budget": "budget_km2 is reached",
    }
    show(
        f"Plan: {config.name}",
        ("candidates", f"{chosen.candidates}, {chosen.refused} of them outside the limits"),
        ("chosen", f"{len(chosen.chosen)} scenes, days: {len(chosen.days)}; {stopped[chosen.stop]}"),
        ("covered", f"{chosen.coverage:.2%} of {_km2(chosen.region_km2)}"),
        ("not covered", _km2(chosen.region_km2 - chosen.covered_km2)),
        ("candidates cover", f"{chosen.coverable_km2 / chosen.region_km2:.2%}"),
        ("overlap", _km2(chosen.overlap_km2)),
        ("cost", f"{_km2(chosen.cost_km2)}, {'clipped to the region' if chosen.clip else 'whole scenes'}"),
    )


def _show_orders(ledger: "Ledger", path: Path, *, asked: bool = False) -> None:
    show(
        "Orders",
        *[
            (entry.name, f"{entry.state}, {len(entry.scenes)} scenes, {len(entry.delivered)} fetched. {entry.message}")
            for entry in ledger.entries
        ],
    )
    show(
        "Total",
        ("scenes", len(ledger.ordered)),
        ("lost", len(ledger.lost) or None),
        ("cost", _km2(ledger.cost_km2)),
        ("ledger", path),
        asked=asked,
    )


def _km2(area: float) -> str:
    return f"{area:,.1f} km²"
