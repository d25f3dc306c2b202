"""A campaign in another store: copied cell by cell, its marks last, while it goes on running or not."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import chain
from typing import Any, Literal
from urllib.parse import urlsplit

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import CAMPAIGN, MAP, YearLayout
from rtsx.campaign.ledger import CampaignLedger, LeaseTaken, held, map_in_threads, planned_years, settings_key
from rtsx.campaign.map import VARIABLES, map_claims
from rtsx.campaign.plan import CampaignPlan, read_plan
from rtsx.campaign.preflight import PROBES, check_object_store, require_space
from rtsx.campaign.products.stac import CATALOG
from rtsx.campaign.records import CommitRecord
from rtsx.campaign.stages import copy_stages, stage_records
from rtsx.errors import CampaignError, OutputExistsError, OutputNotWritableError
from rtsx.grid.grid import cell_id
from rtsx.storage import cloud_of, is_url, local_path
from rtsx.storage.lock import is_lock
from rtsx.storage.object_store import ObjectStore, StoredObject, open_object_store

_THREADS = 8
"""Cells and documents that are copied at a time; each holds one object."""
_LOOKS = 3
"""How often a cell is looked at whose bytes are not those of its mark: it may be made anew at this moment."""
_LEASE_S = 600.0
"""By which the clock of the other store is checked; the campaign may be run there."""
_CLOCKS = timedelta(minutes=15)
"""How far the clocks of two stores may be apart, and how long a document is on its way; what was written within this is read and compared."""
_SHOWN = 5
"""Cells that a message names."""
_SHARDS = tuple(f"{MAP}/{name}/c/" for name in VARIABLES)
"""How the keys of the map's shards begin."""

_State = Literal["copied", "there", "left", "damaged"]


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy holds now.

    Examples
    --------
    >>> print(Copied(to="s3://maps/b", years=(2024,), n_cells=12, n_there=8, n_objects=31, n_bytes=52_000_000))
    s3://maps/b: 12 cells of 2024, 4 of them new; 31 objects, 0.05 GB written.
    """

    to: str
    """Folder or URL of the copy."""
    years: tuple[int, ...]
    """Years that were copied, sorted."""
    n_cells: int
    """Cells of these years that are done in the copy."""
    n_there: int
    """Those of them that were there before."""
    n_objects: int
    """Objects that were written, marks among them."""
    n_bytes: int
    """Their bytes."""
    damaged: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    """Cells by year that were left out, because in the campaign itself they are not what their marks say."""
    plans: Mapping[int, str] = field(default_factory=dict)
    """What is wrong with plans of the campaign that cannot be read, by year; a sound one of an earlier copy stays."""

    def __str__(self) -> str:
        written = f"{self.n_objects:,} objects, {self.n_bytes / 1e9:.2f} GB written"
        years = ", ".join(map(str, self.years))
        text = f"{self.to}: {self.n_cells:,} cells of {years}, {self.n_cells - self.n_there:,} of them new; {written}."
        for year, cells in self.damaged.items():
            names = ", ".join(cell_id(*cell) for cell in cells[:_SHOWN])
            text += (
                f"\n{len(cells):,} cells of {year} are not what their marks say and were left out, such as {names}. Verify the "
                "campaign, have these cells made anew, and copy again."
            )
        for year, damage in self.plans.items():
            text += f"\nThe plan of {year} is damaged, so its stages were not copied; a sound plan of an earlier copy stays: {damage}"
        return text


def copy_campaign(
    output: str,
    to: str,
    *,
    storage_options: Mapping[str, Any],
    to_options: Mapping[str, Any],
    years: Sequence[int] | None,
) -> Copied:
    """Copy plans, records, products and map, and each cell with its mark last, once its bytes are there and read back.

    Called again, it goes on, and copies what is new. Leases stay behind. A cell that was finished later in the copy stays.

    Parameters
    ----------
    output, to
        Folders or URLs of the campaign and of the copy.
    storage_options, to_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
    years
        Which; None for all that are planned.

    Raises
    ------
    CampaignError
        There is no such campaign or year, one place lies in the other, or the copy holds another campaign.
    OutputExistsError
        Something else is there.
    OutputNotWritableError
        It cannot be written, or has no room.
    """
    _refuse_nested(output, to, same_service=_service(output, storage_options) == _service(to, to_options))
    source, target = open_object_store(output, storage_options), open_object_store(to, to_options)
    planned = planned_years(source)
    wanted = planned if years is None else sorted(set(years))
    if not wanted or not set(wanted) <= set(planned):
        known = ", ".join(map(str, planned)) or "none"
        raise CampaignError(
            f"{output} holds no plan of {', '.join(map(str, wanted)) or 'any year'}; planned years: {known}."
        )
    plans, broken = _read_plans(source, planned)
    kept = _refuse_another(source, target, planned=planned, broken=broken, to=to)
    copier = _Copier(source, target, to=to)
    marked = {year: sorted(CampaignLedger(source, YearLayout(year)).done()) for year in wanted}
    stages = {year: stage_records(source, plan) for year, plan in plans.items() if year in wanted}
    documents, n_bytes = _documents(source, wanted)
    documents = [one for one in documents if one.key not in kept]
    require_space(to, n_bytes - _documents(target, wanted)[1])
    check_object_store(target, lease_s=_LEASE_S)
    copier.document(CAMPAIGN, source.get(CAMPAIGN))  # first, by which a later copy knows whose place this is
    nodes = sorted((one.key for one in documents if _is_node(one.key)), key=lambda key: key.count("/"))
    plan_keys = [key for key in (YearLayout(year).plan for year in wanted) if key not in kept]
    last = [*map(settings_key, wanted), *plan_keys, *nodes, CATALOG]
    # Read before what they tell of, and written after it, in reverse order with the root of the map after its arrays, so that they
    # never tell of a year that was begun meanwhile, or of an array, that is not there.
    contents = dict(zip(last, map_in_threads(source.get, last, threads=_THREADS), strict=True))
    there = {found.key: found for found in _listed(target, wanted)}
    stale = [one.key for one in documents if one.key not in contents and not _is_newer(there.get(one.key), one)]
    for _ in map_in_threads(lambda key: copier.document(key, source.get(key)), stale, threads=_THREADS):
        pass
    here = {one.key for one in documents}
    for year in wanted:
        products = f"{YearLayout(year).products}/"
        if any(key.startswith(products) for key in here):  # those of a copy that alone was collected stay
            for key in there.keys() - here:
                if key.startswith(products):
                    target.delete(key)
        mine, theirs = (CampaignLedger(objects, YearLayout(year)) for objects in (source, target))
        theirs.reset(theirs.set_aside_cells() - mine.set_aside_cells())
    for key in reversed(last):
        copier.document(key, contents[key])
    found, damaged = Counter[_State](), dict[int, tuple[Address, ...]]()
    for year, cells in marked.items():
        states = [*map_in_threads(partial(copier.cell, YearLayout(year)), cells, threads=_THREADS)]
        found.update(states)
        bad = tuple(cell for cell, state in zip(cells, states, strict=True) if state == "damaged")
        damaged |= {year: bad} if bad else {}
    for year, records in stages.items():
        copy_stages(plans[year], records, source=source, target=target, without=copier.later[year])
    return Copied(
        to=to,
        years=tuple(wanted),
        n_cells=found["copied"] + found["there"],
        n_there=found["there"],
        n_objects=len(copier.written),
        n_bytes=sum(copier.written),
        damaged=damaged,
        plans={year: broken[year] for year in wanted if year in broken},
    )


class _Copier:
    """Objects from one store to another, each read back."""

    def __init__(self, source: ObjectStore, target: ObjectStore, *, to: str) -> None:
        self.source, self.target, self.to = source, target, to
        self.written: list[int] = []
        """Bytes of each object that was written."""
        self._retired: dict[str, dict[Address, list[str]]] = {}
        """Keys of the marks of older states of each cell, by their folder in the copy."""
        self.later = defaultdict[int, set[Address]](set)
        """Cells that were finished later in the copy, by year."""

    def document(self, key: str, content: bytes | None) -> None:
        """Copy what no mark names; what is gone meanwhile is left."""
        if content is not None and self.target.get(key) != content:
            self._put(key, content)

    def cell(self, layout: YearLayout, cell: Address) -> _State:
        """Copy what a mark names, and then the mark."""
        key = layout.mark(cell)
        for _ in range(_LOOKS):
            content, older = self.source.get(key), self.target.get(key)
            if content is None:
                return "left"  # to be made anew since
            mark, there = _mark_or_none(content, cell), _mark_or_none(older, cell)
            if mark is None:
                return "damaged"
            if there is not None and there.finished >= mark.finished:
                if there.finished > mark.finished:
                    self.later[layout.year].add(cell)
                return "there"
            try:
                # Held, because the copy may be run at the same time; of one run with other copies, which write the same bytes, so that
                # the next one need not wait for a lease of one that was killed.
                with held(self.target, layout, cell, run="copy", lease_s=_LEASE_S):
                    if self.target.get(key) != older:
                        continue
                    if self._replaced(layout, mark, content, older=older):
                        return "copied"
            except LeaseTaken:
                return "left"
            if self.source.get(key) == content:
                return "damaged"
        return "left"

    def _replaced(self, layout: YearLayout, mark: CommitRecord, content: bytes, *, older: bytes | None) -> bool:
        """Test whether the copy has the cell now, in place of older states of it; False where the campaign has not the bytes of its mark."""
        key, keys = layout.mark(mark.cell), self._retired_in(layout).get(mark.cell, [])
        if older is not None:
            if not all(_digest(self.source.get(name)) == digest for name, digest in mark.objects.items()):
                return False  # before anything of the older state is lost
            if _mark_or_none(older, mark.cell) is not None:
                keys = [*keys, layout.retirement(mark.cell, _digest(older))]
                self.target.put(keys[-1], older)  # so that its objects are known, should this be stopped
            self.target.delete(key)
        retired = [_mark_or_none(self.target.get(one), mark.cell) for one in keys]
        before = {name for one in retired if one is not None for name in one.objects}
        for name in filter(_is_valid, before):
            self.target.delete(name)  # because who reads the map trusts it
        for name in sorted(mark.objects, key=_is_valid):  # which comes last
            if not self._object(name, mark.objects[name]):
                return False
        for name in before - mark.objects.keys():
            self.target.delete(name)
        if not self.target.create(key, content):
            return False
        self.written.append(len(content))
        return True

    def _retired_in(self, layout: YearLayout) -> dict[Address, list[str]]:
        if layout.retired not in self._retired:
            found: dict[Address, list[str]] = {}
            for one in self.target.list(layout.retired):
                found.setdefault(layout.address_of(one.key), []).append(one.key)
            self._retired[layout.retired] = found
        return self._retired[layout.retired]

    def _object(self, key: str, digest: str) -> bool:
        """Test whether the copy has these bytes now; False where the campaign has not."""
        if _digest(self.target.get(key)) == digest:
            return True
        content = self.source.get(key)
        if content is None or _digest(content) != digest:
            return False
        self._put(key, content)
        return True

    def _put(self, key: str, content: bytes) -> None:
        self.target.put(key, content)
        if self.target.get(key) != content:
            raise OutputNotWritableError(
                f"{self.to} gives back other bytes of {key} than were just written. Check the disk or the service, and copy again."
            )
        self.written.append(len(content))


def _read_plans(objects: ObjectStore, years: Iterable[int]) -> tuple[dict[int, CampaignPlan], dict[int, str]]:
    """Return the plans that can be read, and what is wrong with the others, by year."""
    plans: dict[int, CampaignPlan] = {}
    broken: dict[int, str] = {}
    for year in years:
        try:
            plan = read_plan(objects, year)
        except CampaignError as error:
            broken[year] = str(error)
        else:
            if plan is None:
                broken[year] = f"{YearLayout(year).plan} is gone. Restore it from a copy."
            else:
                plans[year] = plan
    return plans, broken


def _plan_digests(ledger: CampaignLedger) -> set[str]:
    """Return the digest of the plan by the first mark of a year that can be read; nothing where there is none."""
    for cell in sorted(ledger.done()):
        with suppress(CampaignError):
            if (mark := ledger.mark(cell)) is not None:
                return {mark.plan_digest}
    return set()


def _mark_or_none(content: bytes | None, cell: Address) -> CommitRecord | None:
    """Return the mark of a cell; None where there is none, or what is none."""
    try:
        mark = None if content is None else CommitRecord.from_json(content)
    except CampaignError:
        return None
    return mark if mark is not None and mark.cell == cell else None


def _digest(content: bytes | None) -> str:
    return "" if content is None else sha256(content).hexdigest()


def _is_valid(key: str) -> bool:
    """Test whether an object says which pixels of the map count."""
    return key.startswith(f"{MAP}/valid/")


def _is_newer(there: StoredObject | None, one: StoredObject) -> bool:
    """Test whether an object of the copy surely was written after that of the campaign."""
    return there is not None and there.n_bytes == one.n_bytes and there.changed - one.changed > _CLOCKS


def _is_node(key: str) -> bool:
    """Whether an object is the metadata of the map, of an overview, or of an array of the map."""
    return key.startswith(f"{MAP}/") and key.endswith("/zarr.json") and key.count("/") <= 2


def _listed(objects: ObjectStore, years: Iterable[int]) -> Iterator[StoredObject]:
    """Yield what years have, but cells, marks, leases, locks, and stages, which follow from the times of marks (`copy_stages`); and the map, but cells."""
    for year in years:
        layout = YearLayout(year)
        folders = (layout.marks, layout.leases, layout.outlines, layout.cogs, layout.stages)
        yield from (
            found
            for found in objects.list(layout.root)
            if not (found.key.startswith(tuple(f"{one}/" for one in folders)) or is_lock(found.key))
        )
    yield from (found for found in objects.list(MAP) if not found.key.startswith(_SHARDS))


def _documents(objects: ObjectStore, years: Sequence[int]) -> tuple[list[StoredObject], int]:
    """Return the same, and how many bytes they and the cells of these years are."""
    places = [place for place, claim in map_claims(objects).items() if claim["year"] in years]
    documents = list(_listed(objects, years))
    folders = [f"{MAP}/{name}/c/{place}" for name in VARIABLES for place in places]
    folders += [folder for year in years for folder in (YearLayout(year).outlines, YearLayout(year).cogs)]
    cells = chain.from_iterable(map(objects.list, folders))
    return documents, sum(found.n_bytes for found in chain(documents, cells))


def _refuse_nested(output: str, to: str, *, same_service: bool) -> None:
    here, there = _place(output), _place(to)
    if f"{there}/".startswith(f"{here}/") or f"{here}/".startswith(f"{there}/"):
        if is_url(to) and not same_service:
            return  # another service, which has a bucket of the same name
        raise CampaignError(f"{to} and {output} are one place, or one lies in the other. Copy to a place of its own.")


def _place(address: str) -> str:
    """Return an address, the same however it is written."""
    if not is_url(address):
        return os.path.realpath(local_path(address))
    scheme, _, rest = address.partition("://")
    cloud = cloud_of(address)
    bucket, _, path = rest.partition("/")
    return f"{scheme if cloud is None else cloud.name}://{bucket.partition('@')[0]}/{path}".rstrip("/")


def _service(address: str, options: Mapping[str, Any]) -> object:
    """Return whose bucket an address is in, the same however the endpoint is written and whoever asks."""
    cloud = cloud_of(address)
    if cloud is None or cloud.name == "az":
        return dict(options)
    stated = options.get("endpoint_url") or (options.get("client_kwargs") or {}).get("endpoint_url")
    if not stated and cloud.name == "s3":
        stated = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    parts = urlsplit(str(stated or ""))
    host = re.sub(r":(80|443)?$", "", parts.netloc.lower())
    return cloud.name if not host or host.endswith(".amazonaws.com") else (host, parts.path.strip("/"))


def _refuse_another(
    source: ObjectStore, target: ObjectStore, *, planned: Sequence[int], broken: Iterable[int], to: str
) -> set[str]:
    """Refuse a place where something else is, or years that the campaign does not have.

    Returns
    -------
    set
        Keys of sound plans of the copy that are damaged in the campaign.
    """
    shared = target.get(CAMPAIGN)
    if shared is None:
        keys = (found.key for found in target.list(""))
        other = next((key for key in keys if not (key.startswith(f"{PROBES}/") or is_lock(key))), None)
        if other is not None:
            raise OutputExistsError(
                f"{to} is not empty, and holds no campaign: there is {other}. Copy to a place of its own."
            )
        return set()
    others = [] if shared == source.get(CAMPAIGN) else [CAMPAIGN]
    kept: set[str] = set()
    for year, there in _read_plans(target, planned)[0].items():
        layout = YearLayout(year)
        if year in broken:
            is_same = _plan_digests(CampaignLedger(source, layout)) <= {there.digest}
            kept |= {layout.plan, layout.cells}
        else:
            is_same = target.get(layout.plan) == source.get(layout.plan)
        others += [] if is_same else [layout.plan]
    if others:
        raise CampaignError(f"{to} holds another campaign: its {others[0]} is another. Copy to a place of its own.")
    mine = map_claims(source)
    for place, claim in map_claims(target).items():
        if mine.get(place, {}).get("year") != claim["year"]:
            raise CampaignError(
                f"{to} has a year {claim['year']} that this campaign has not, or at another place of the map, so that it has been "
                "gone on with there. Copy to a place of its own."
            )
    return kept
