"""What has been ordered: a small file beside the order, so that nothing is ordered twice and any machine can ask."""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rtsx.errors import OrderError
from rtsx.ordering.provider import State
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.storage import staged

_VERSION = 1
_OVER = ("failed", "cancelled")
"""States after which nothing arrives any more."""


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
        if self.state in _OVER:
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
        """The ledger with one more order, or with another state of one of that name."""
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
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OrderError(f"Another process works on {path}. Wait until it has ended, then run again.") from error
        yield
