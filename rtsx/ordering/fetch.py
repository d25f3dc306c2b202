"""Fetching what was ordered, and registering it as STAC items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError, OrderNotFoundError
from rtsx.ordering.catalog import (
    COLLECTION,
    claim_collection,
    register_collection,
    register_item,
    registered_items,
    require_collection,
)
from rtsx.ordering.download import Advance, fetch_files
from rtsx.ordering.order import Ledger, answered, batch_of, locked
from rtsx.ordering.provider import BRINGS_NOTHING, OF_ONE_ITEM, OrderStatus, Provider, RemoteFile

_LONGEST_NAME_BYTES = 220
"""Bytes of a name at most: file systems take 255, and what is not yet complete has a longer one."""


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """What a fetch has done."""

    scenes: tuple[str, ...]
    """Scenes that are in the folder now and were not before."""
    failures: dict[str, OrderError]
    """What could not be fetched or registered, by ``<scene id>/<name>``, scene, or name of an order that the provider does not know."""
    waiting: int
    """Orders that the provider still works on."""
    lost: tuple[str, ...]
    """Scenes that were ordered and will not come."""


def fetch_order(
    provider: Provider,
    ledger_path: Path,
    folder: Path,
    *,
    collection: str,
    clip: BaseGeometry | None = None,
    parallel: int = 4,
    advance: Advance = lambda file, count: None,
    starting: Callable[[Sequence[RemoteFile]], None] = lambda files: None,
    pause: Callable[[float], None] | None = None,
) -> FetchResult:
    """Fetch what is ready and register it as STAC items; what is in the folder already is left as it is.

    Parameters
    ----------
    provider
        Who delivers.
    ledger_path
        The ledger.
    folder
        Of the catalog; made if it is not there.
    collection
        Id of the collection that the items belong to.
    clip
        Ground that the scenes were clipped to, in longitude and latitude; None for whole scenes.
    parallel
        Files at once.
    advance
        Told of every piece that arrives.
    starting
        Told of the files of an order before the first of them is fetched.
    pause
        Waits between attempts.

    Raises
    ------
    OrderError
        The provider cannot be asked, or the folder holds another collection, or receives one.
    """
    require_collection(folder, collection)
    failures: dict[str, OrderError] = {}
    arrived: list[str] = []
    with locked(ledger_path):
        ledger = Ledger.load(ledger_path)
        for entry in ledger.entries:
            if entry.fetched or not entry.order_id or entry.state in BRINGS_NOTHING:
                continue
            try:
                status = provider.status(batch_of(entry, clip), entry.order_id)
            except OrderNotFoundError as error:
                failures[entry.name] = OrderError(f"Order {entry.name}: {error}")
                continue
            entry = answered(entry, status)
            if not entry.waiting:
                files, wrong = _missing(status, folder)
                if files:
                    claim_collection(folder, collection)
                starting(files)
                if fetch_files(files, folder, parallel=parallel, advance=advance, pause=pause):
                    # once more with fresh links, because those of a long fetch run out
                    answer = provider.status(batch_of(entry, clip), entry.order_id)
                    files, wrong = _missing(answer, folder)
                    wrong |= fetch_files(files, folder, parallel=parallel, advance=advance, pause=pause)
                new, unregistered = _registered(provider, files, folder, failed=wrong, collection=collection, clip=clip)
                wrong |= unregistered
                failures |= wrong
                arrived += new
                complete = set(registered_items(folder)) & set(entry.scenes)
                entry = replace(entry, delivered=tuple(sorted(complete)), fetched=not wrong)
            ledger = ledger.with_entry(entry)
            ledger.save(ledger_path)
        if registered_items(folder):
            register_collection(folder, collection, description=f"Scenes ordered with rtsx: {collection}")
    return FetchResult(
        scenes=tuple(arrived),
        failures=failures,
        waiting=sum(entry.waiting for entry in ledger.entries),
        lost=tuple(sorted(ledger.lost)),
    )


def _missing(answer: OrderStatus, folder: Path) -> tuple[list[RemoteFile], dict[str, OrderError]]:
    """Return files of scenes that are not registered yet, and what keeps other scenes from being fetched."""
    known = registered_items(folder)
    files, faults = [], dict(answer.faults)
    for file in answer.files:
        wrong = _no_name(file.scene_id) or _no_name(file.name)
        if file.scene_id == COLLECTION:
            wrong = "is what the catalog's own document is called"
        if wrong:
            faults[file.scene_id] = OrderError(
                f"The provider names a file {file.name!r} of scene {file.scene_id!r}; one of these names {wrong}. Report it there."
            )
        elif file.scene_id not in known:
            # A file that is called like the item would be taken for it, and hidden ones are those that are not yet complete.
            is_ours = file.name == f"{file.scene_id}.json" or file.name.startswith(".")
            files.append(replace(file, name=f"asset_{file.name}") if is_ours else file)
    return [file for file in files if file.scene_id not in faults], faults


def _no_name(part: str) -> str:
    """Return why a text cannot be the name of a file or folder; empty where it can."""
    if not part or part in (".", "..") or "/" in part or "\\" in part:
        return "would leave the folder"
    if not part.isprintable():
        return "has characters that names of files cannot have"
    return f"is longer than {_LONGEST_NAME_BYTES} bytes" if len(part.encode()) > _LONGEST_NAME_BYTES else ""


def _registered(
    provider: Provider,
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    failed: Mapping[str, OrderError],
    collection: str,
    clip: BaseGeometry | None,
) -> tuple[list[str], dict[str, OrderError]]:
    """Write the items of scenes whose files are all there; and what kept others from that, by scene."""
    done, faults = [], {}
    ordered = sorted(files, key=lambda file: (file.scene_id, file.asset))
    for scene, group in groupby(ordered, key=lambda file: file.scene_id):
        own = list(group)
        if any(f"{scene}/{file.name}" in failed for file in own):
            continue
        try:
            described = provider.describe(scene, [folder / scene / file.name for file in own])
            register_item(folder, described, own, collection=collection, clip=clip)
        except OF_ONE_ITEM as error:
            faults[scene] = OrderError(
                f"Scene {scene!r} is there, but its item cannot be written: {error}. Report it to the provider; the others are "
                "not concerned."
            )
            faults[scene].__cause__ = error
        else:
            done.append(scene)
    return done, faults
