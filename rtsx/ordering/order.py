"""Placing an order and asking for it: the plan's drivers."""

import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from shapely import to_wkb
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError, OrderNotFoundError
from rtsx.ordering.ledger import Ledger, OrderEntry, locked
from rtsx.ordering.provider import Batch, OrderStatus, Provider
from rtsx.ordering.select import OrderPlan


def planned_batches(
    plan: OrderPlan, ledger: Ledger, provider: Provider, *, name: str, retry: bool = False
) -> tuple[tuple[Batch, dict[str, float]], ...]:
    """What is still to be ordered of a plan, with the cost of each scene in km²; pure.

    Orders that may not have reached the provider come first, under their old names. Scenes that were ordered before and
    will not come are ordered again only with `retry`.
    """
    clip = plan.region if plan.clip else None
    batches = [
        (Batch(name=entry.name, scene_ids=tuple(sorted(entry.scenes)), clip=clip), dict(entry.scenes))
        for entry in ledger.entries
        if entry.state == "submitting"
    ]
    known = ledger.ordered | (set() if retry else ledger.lost)
    costs = {one.scene.id: one.cost_km2 for one in plan.chosen if one.scene.id not in known}
    new = sorted(costs)
    for start in range(0, len(new), provider.batch_size):
        ids = tuple(new[start : start + provider.batch_size])
        attempt = sum(set(ids) <= set(entry.scenes) for entry in ledger.entries)
        batches.append(
            (
                Batch(name=batch_name(name, ids, clip=clip, attempt=attempt), scene_ids=ids, clip=clip),
                {i: costs[i] for i in ids},
            )
        )
    return tuple(batches)


def submit_order(
    plan: OrderPlan,
    provider: Provider,
    ledger_path: Path,
    *,
    name: str,
    budget_km2: float | None = None,
    retry: bool = False,
) -> Ledger:
    """Order what a plan wants and the ledger does not have; call it as often as you like.

    The ledger is written before and after every call of the provider, so that what a crash leaves open is asked for by its
    name the next time instead of being ordered again.

    Raises
    ------
    OrderError
        It would cost more than the budget, with what was ordered before; or the provider refuses.
    """
    with locked(ledger_path):
        ledger = Ledger.load(ledger_path)
        batches = planned_batches(plan, ledger, provider, name=name, retry=retry)
        known = {entry.name for entry in ledger.entries}
        fresh = sum(sum(costs.values()) for batch, costs in batches if batch.name not in known)
        if budget_km2 is not None and ledger.cost_km2 + fresh > budget_km2 + 1e-6:
            raise OrderError(
                f"The budget is {budget_km2:,.1f} km²; {ledger.cost_km2:,.1f} km² have been ordered and {fresh:,.1f} km² "
                "would come on. Nothing was ordered. Raise budget_km2, or plan a smaller order."
            )
        for batch, costs in batches:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            entry = next((e for e in ledger.entries if e.name == batch.name), None)
            entry = entry or OrderEntry(name=batch.name, scenes=costs, submitted=now)
            ledger = ledger.with_entry(entry)
            ledger.save(ledger_path)
            ledger = ledger.with_entry(answered(entry, provider.submit(batch)))
            ledger.save(ledger_path)
    return ledger


def order_status(provider: Provider, ledger_path: Path) -> Ledger:
    """Ask the provider for every order that is not over, and remember the answers.

    Raises
    ------
    OrderError
        The provider cannot be asked; or, after all the others, it does not know an order.
    """
    unknown = []
    with locked(ledger_path):
        ledger = Ledger.load(ledger_path)
        for entry in ledger.entries:
            if entry.waiting and entry.order_id:
                try:
                    answer = provider.status(batch_of(entry, None), entry.order_id)
                except OrderNotFoundError as error:
                    unknown.append(f"Order {entry.name}: {error}")
                    continue
                ledger = ledger.with_entry(answered(entry, answer))
                ledger.save(ledger_path)
    if unknown:
        raise OrderError("\n".join(unknown))
    return ledger


def answered(entry: OrderEntry, answer: OrderStatus) -> OrderEntry:
    """The entry of an order, with what the provider says of it."""
    return replace(entry, order_id=answer.order_id, state=answer.state, message=answer.message)


def batch_of(entry: OrderEntry, clip: BaseGeometry | None) -> Batch:
    """What an order has asked for, clipped to some ground or whole."""
    return Batch(name=entry.name, scene_ids=tuple(sorted(entry.scenes)), clip=clip)


def batch_name(name: str, ids: tuple[str, ...], *, clip: BaseGeometry | None, attempt: int) -> str:
    """A name that only the same scenes, clipped the same way, ordered the same time again have."""
    content = json.dumps([ids, "" if clip is None else to_wkb(clip, hex=True), attempt])
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
