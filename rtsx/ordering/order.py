"""Orders of scenes: a ledger beside the config, so that nothing is ordered twice and any machine can ask; placing them and asking for them."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from shapely import to_wkb
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError, OrderNotFoundError, OutputExistsError
from rtsx.ordering.provider import BRINGS_NOTHING, Batch, OrderStatus, Provider, State
from rtsx.ordering.select import OrderPlan
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.storage import staged
from rtsx.storage.lock import exclusive_lock

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class OrderEntry:
    """One order."""

    name: str
    """Name that the provider was given."""
    scenes: Mapping[str, float]
    """Cost of each scene that was ordered, in km²."""
    submitted: str
    """When, in UTC, as ISO has it."""
    state: State = "submitting"
    """Where it stood when it was last looked at."""
    order_id: str = ""
    """Id that the provider gave; empty while it is *submitting*."""
    message: str = ""
    """What the provider said last."""
    delivered: tuple[str, ...] = ()
    """Scenes that lie in the folder, complete and registered."""
    fetched: bool = False
    """Whether all that the provider will ever deliver of it is there."""

    @property
    def waiting(self) -> bool:
        """Whether the provider may still change its mind about it."""
        return self.state in ("submitting", "queued", "running")

    @property
    def lost(self) -> tuple[str, ...]:
        """Scenes that were ordered and will not come."""
        if self.state in BRINGS_NOTHING:
            return tuple(self.scenes)
        return tuple(sorted(set(self.scenes) - set(self.delivered))) if self.fetched else ()


@dataclass(frozen=True)
class Ledger:
    """All orders of one purpose, oldest first. A value: changing it gives another one.

    Examples
    --------
    >>> ledger = Ledger().with_entry(OrderEntry(name="a", scenes={"s1": 10.0}, submitted="2024-07-01T00:00:00+00:00"))
    >>> ledger.ordered, ledger.cost_km2
    ({'s1'}, 10.0)
    """

    entries: tuple[OrderEntry, ...] = field(default=())

    @property
    def ordered(self) -> set[str]:
        """Scenes that were ordered, whether they have come or not, and that are not lost."""
        return {scene for entry in self.entries for scene in entry.scenes} - self.lost

    @property
    def lost(self) -> set[str]:
        """Scenes of failed, cancelled and partial orders that no other order brings."""
        kept = {scene for entry in self.entries for scene in set(entry.scenes) - set(entry.lost)}
        return {scene for entry in self.entries for scene in entry.lost} - kept

    @property
    def cost_km2(self) -> float:
        """What has been ordered and is not lost, in km²."""
        return sum(cost for entry in self.entries for scene, cost in entry.scenes.items() if scene not in entry.lost)

    def with_entry(self, entry: OrderEntry) -> "Ledger":
        """Return the ledger with one more order, or with another state of one of that name."""
        if any(one.name == entry.name for one in self.entries):
            return replace(self, entries=tuple(entry if one.name == entry.name else one for one in self.entries))
        return replace(self, entries=(*self.entries, entry))

    def save(self, path: Path) -> None:
        """Write it: all of it or nothing."""
        orders = [{name: getattr(entry, name) for name in OrderEntry.__dataclass_fields__} for entry in self.entries]
        with staged(path, overwrite=True) as stage:
            stage.write_text(json.dumps({"version": _VERSION, "orders": orders}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """Read it; a file that is not there yet is an empty ledger.

        Raises
        ------
        OrderError
            The file is no ledger. It is never taken for an empty one, because then everything would be ordered again.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return cls()
        what = f"{path} (do not delete it, because it keeps scenes from being ordered twice)"
        content = json_value(text, what=what, error=OrderError)
        with wrap_damage(what, OrderError):
            if content["version"] != _VERSION:
                raise OrderError(
                    f"{path} is a ledger of version {content['version']}; this rtsx reads {_VERSION}. Update it."
                )
            orders = content["orders"]
            # Without halves of surrogates, which ids of scenes may have, and which no strict reader of JSON takes.
            plain = re.sub(r"\\ud[89a-f]..", "?", json.dumps(orders))
            parsed_json(plain, tuple[OrderEntry, ...], what=what, error=OrderError)
            return cls(
                tuple(OrderEntry(**{**order, "delivered": tuple(order.get("delivered", ()))}) for order in orders)
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes of this machine from changing a ledger during the block; the lock ends with the process.

    Raises
    ------
    OrderError
        Another process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(str(path), {}))
        except OutputExistsError as error:
            raise OrderError(f"Another process works on {path}. Wait until it has ended, then run again.") from error
        yield


def planned_batches(
    plan: OrderPlan, ledger: Ledger, provider: Provider, *, name: str, retry: bool = False
) -> tuple[tuple[Batch, dict[str, float]], ...]:
    """Return what is still to be ordered of a plan, with the cost of each scene in km²; pure.

    Orders that may not have reached the provider come first, under their old names. Scenes that were ordered before and
    will not come are ordered again only with `retry`.
    """
    clip = plan.region if plan.clip else None
    batches = [(batch_of(entry, clip), dict(entry.scenes)) for entry in ledger.entries if entry.state == "submitting"]
    known = ledger.ordered | (set() if retry else ledger.lost)
    costs = {one.scene.id: one.cost_km2 for one in plan.chosen if one.scene.id not in known}
    new = sorted(costs)
    for start in range(0, len(new), provider.batch_size):
        ids = tuple(new[start : start + provider.batch_size])
        attempt = sum(set(ids) <= set(entry.scenes) for entry in ledger.entries)
        batch = Batch(name=batch_name(name, ids, clip=clip, attempt=attempt), scene_ids=ids, clip=clip)
        batches.append((batch, {i: costs[i] for i in ids}))
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
                    status = provider.status(batch_of(entry, None), entry.order_id)
                except OrderNotFoundError as error:
                    unknown.append(f"Order {entry.name}: {error}")
                    continue
                ledger = ledger.with_entry(answered(entry, status))
                ledger.save(ledger_path)
    if unknown:
        raise OrderError("\n".join(unknown))
    return ledger


def answered(entry: OrderEntry, status: OrderStatus) -> OrderEntry:
    """Return the entry of an order, with what the provider says of it."""
    return replace(entry, order_id=status.order_id, state=status.state, message=status.message)


def batch_of(entry: OrderEntry, clip: BaseGeometry | None) -> Batch:
    """Return what an order has asked for, clipped to some ground or whole."""
    return Batch(name=entry.name, scene_ids=tuple(sorted(entry.scenes)), clip=clip)


def batch_name(name: str, ids: tuple[str, ...], *, clip: BaseGeometry | None, attempt: int) -> str:
    """Return a name that only the same scenes, clipped the same way, ordered the same time again have."""
    content = json.dumps([ids, "" if clip is None else to_wkb(clip, hex=True), attempt])
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
