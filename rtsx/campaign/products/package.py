"""The files of a delivery: written anew only where they have changed, with checksums last."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from rtsx.campaign.ledger import map_in_threads
from rtsx.campaign.products.coarse import CoarseMap, ExpectedArea, thumbnail
from rtsx.campaign.products.rasters import MapReader, RasterFile, Tiling, encoded_raster
from rtsx.campaign.products.tables import WORKERS, CellStates, Record, Records, digest_of, partition_sources, sha256_of
from rtsx.errors import OutputExistsError
from rtsx.grid.grid import cell_id
from rtsx.storage import is_url, local_path
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.object_store import ObjectStore
from rtsx.storage.stac import COG

CHECKSUMS = "SHA256SUMS"
"""Written last, as `sha256sum --check` reads it: a package without it is not whole."""
PROVENANCE = "provenance.json"
"""Written first, so that a later call knows whose package this is."""
RECORDS = "records"
OVERVIEW = "overview"
"""Folder of what shows the whole map at once."""
_PICTURE = "thumbnail.png"


def require_own(package: "Package", identity: Record) -> None:
    """Refuse a folder that holds something else."""
    content = package.objects.get(PROVENANCE)
    if content is None and is_url(package.to):
        # Not the empty object that consoles make a folder of.
        other = next((one.key for one in package.objects.list("") if one.key), None)
        if other is not None:
            raise OutputExistsError(
                f"{package.to} holds something else than a delivery, such as {other}. Choose an empty folder."
            )
        return
    if content is None:
        folder = local_path(package.to)
        if folder.is_dir() and any(not one.name.startswith(".") for one in folder.iterdir()):
            raise OutputExistsError(f"{package.to} holds something else than a delivery. Choose an empty folder.")
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{package.to} is a file. Choose a folder.")
        return
    try:
        found = json.loads(content)["package"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise OutputExistsError(f"{package.to}/{PROVENANCE} is not that of a delivery. Choose an empty folder.")
    differing = [name for name in identity if found.get(name) != identity[name]]
    if differing:
        differences = "; ".join(f"{name}: there {found.get(name)}, here {identity[name]}" for name in differing)
        raise OutputExistsError(f"{package.to} holds another delivery ({differences}). Choose an empty folder.")


@dataclass
class Package:
    """The objects of a package; nothing is written that is there already, and no checksums are there while something is."""

    objects: ObjectStore
    to: str
    sums: dict[str, str] = field(default_factory=dict)
    """SHA-256 by key, of everything that belongs to it."""
    written: list[str] = field(default_factory=list)
    """Keys that were written."""
    removed: list[str] = field(default_factory=list)
    """Keys that were removed."""
    listed: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Media type and title of files for people, by key."""

    @cached_property
    def records(self) -> dict[str, Record]:
        """What its files were made of, by the name of the record, as an earlier call has left it."""
        return Records(self.objects, RECORDS).read()

    def begin(self, identity: Record, *, choices: Record) -> None:
        """State whose package it is and what was chosen, so that a call after one that was stopped chooses the same."""
        content = self.objects.get(PROVENANCE)
        stated = {} if content is None else json.loads(content)
        begun = json_bytes({**stated, "package": identity, "choices": choices})
        if begun != content:
            self._change(lambda: self.objects.put(PROVENANCE, begun))
            self.written.append(PROVENANCE)

    def put(self, key: str, content: bytes) -> None:
        """Write a file where it differs."""
        self.sums[key] = sha256_of(content)
        if self.objects.get(key) != content:
            self._change(lambda: self.objects.put(key, content))
            self.written.append(key)

    def add(self, key: str, content: bytes, title: str, *, media_type: str) -> None:
        """Write a file where it differs, and list it for people."""
        self.put(key, content)
        self.listed[key] = media_type, title

    def delete(self, key: str) -> None:
        """Remove a file."""
        self.forget(key)
        self.removed.append(key)

    def forget(self, key: str) -> None:
        """Take back a record of what is going to be written."""
        self._change(lambda: self.objects.delete(key))

    def remove_others(self, folder: str) -> None:
        """Remove what lies in a folder and does not belong to the package any more."""
        for key in sorted({found.key for found in self.objects.list(folder)} - set(self.sums)):
            self.delete(key)

    def close(self) -> None:
        """Write the checksums, if something has changed."""
        content = "".join(f"{digest}  {key}\n" for key, digest in sorted(self.sums.items())).encode()
        if self.objects.get(CHECKSUMS) != content:
            with write_failures(self.to):
                self.objects.put(CHECKSUMS, content)
            self.written.append(CHECKSUMS)

    def _change(self, change: Callable[[], None]) -> None:
        with write_failures(self.to):
            self.objects.delete(CHECKSUMS)
            change()


def write_rasters(
    package: Package,
    readers: Mapping[str, MapReader],
    files: Sequence[RasterFile],
    *,
    tiling: Tiling,
    states: CellStates,
    verify: bool,
) -> list[RasterFile]:
    """Bring the GeoTIFFs up to date; those that there are of each variable."""
    groups: defaultdict[str, list[RasterFile]] = defaultdict(list)
    for file in files:
        groups[file.group].append(file)
    there = {found.key: found.n_bytes for name in readers for found in package.objects.list(name)}
    threshold = readers["binary"].plan.prediction.attrs
    attrs = {name: str(threshold[name]) for name in ("bundle_digest", "threshold")}

    def current(file: RasterFile, record: Record) -> bool:
        known = record.get(file.name)
        if not isinstance(known, dict) or known.get("from") != _sources(file, states):
            return False
        return all(is_whole(_key(name, file), known.get(name, {})) for name in readers)

    def is_whole(key: str, written: Record | None) -> bool:
        if written is None:  # no pixel, and no file
            return True
        if key not in there or there[key] != written.get("bytes"):
            return False
        return not verify or sha256_of(package.objects.get(key) or b"") == written.get("sha256")

    def write(file: RasterFile) -> Record:
        made: Record = {"from": _sources(file, states)}
        for name in readers:
            content = encoded_raster(readers[name], name, file, tiling=tiling, attrs=attrs)
            made[name] = None if content is None else {"sha256": sha256_of(content), "bytes": len(content)}
            if content is not None:
                package.put(_key(name, file), content)
        return made

    rasters = []
    for group, members in sorted(groups.items()):
        record, key = package.records.get(group, {}), f"{RECORDS}/{group}.json"
        same = map_in_threads(partial(current, record=record), members, threads=WORKERS)
        kept: Record = {file.name: record[file.name] for file, is_same in zip(members, same, strict=True) if is_same}
        changed = [file for file in members if file.name not in kept]
        if changed and record:
            package.forget(key)  # so that a call that is stopped leaves work to be done again
        made = map_in_threads(write, changed, threads=WORKERS)
        kept |= {file.name: one for file, one in zip(changed, made, strict=True)}
        for file in members:
            known = kept[file.name]
            package.sums.update(
                {_key(name, file): known[name]["sha256"] for name in readers if known[name] is not None}
            )
            if known["probability"] is not None:
                rasters.append(file)
        package.put(key, json_bytes(kept))
    return rasters


def write_coarse(package: Package, coarse: CoarseMap, *, verify: bool) -> bytes:
    """Bring the coarse map and its picture up to date; returns the picture."""
    name = "greatest_probability"
    key, of = f"{OVERVIEW}/{name}.tif", f"{RECORDS}/{name}.json"
    record = package.records.get(name, {})
    sizes = {found.key: found.n_bytes for found in package.objects.list(OVERVIEW)}
    is_whole = key in sizes and sizes[key] == record.get("bytes")
    is_current = is_whole and record.get("from") == coarse.sources
    content = None
    if is_whole and (verify or not is_current):
        content = package.objects.get(key)
        if content is None or sha256_of(content) != record.get("sha256"):
            content, is_current = None, False
    if not is_current:
        content = coarse.encode(content, record.get("from", {}))
        if record:
            package.forget(of)
        package.put(key, content)
        record = {"from": coarse.sources, "sha256": sha256_of(content), "bytes": len(content)}
    package.listed[key] = COG, "Greatest probability of coarse pixels, with a colour table"
    package.sums[key] = record["sha256"]
    picture = package.objects.get(_PICTURE) if is_current else None
    if picture is None or sha256_of(picture) != record.get("picture"):
        picture = thumbnail(content or package.objects.get(key) or b"")
    package.add(_PICTURE, picture, "The same as a picture", media_type="image/png")
    package.put(of, json_bytes(record | {"picture": sha256_of(picture)}))
    return picture


def write_expected(package: Package, expected: ExpectedArea) -> dict[str, float]:
    """Bring the rasters of expected area up to date; the sum of each class, m²."""
    wanted = partition_sources(expected.states)

    def summed(partition: str) -> Record:
        name = f"expected_area-{partition}"
        record = package.records.get(name, {})
        sums = {key: record.get(key) for key in ("cells", "m2")}
        if record.get("from") != wanted[partition] or record.get("digest") != digest_of(sums):
            sums = expected.sums(partition)
            record = {"from": wanted[partition], "digest": digest_of(sums), **sums}
        package.put(f"{RECORDS}/{name}.json", json_bytes(record))
        return record

    records = dict(zip(wanted, map_in_threads(summed, wanted, threads=WORKERS), strict=True))
    cells, areas = expected.totals(records)
    titles = (
        f"Expected area of the target, m², by cells of {expected.side}",
        "Ground with a valid probability, likewise",
    )
    for (name, content), title in zip(expected.rasters(cells, areas), titles, strict=True):
        package.add(f"{OVERVIEW}/{name}.tif", content, title, media_type=COG)
    return dict(zip(expected.targets, areas[:, :-1].sum(axis=0).tolist(), strict=True))


def _sources(file: RasterFile, states: CellStates) -> str:
    return digest_of([(cell_id(*cell), states[cell].map) for cell in file.cells])


def _key(variable: str, file: RasterFile) -> str:
    return f"{variable}/{file.name}.tif"


def json_bytes(document: object) -> bytes:
    """Encode a document for people, with a final newline."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
