"""Collect the products of a year from what its cells have written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from os import PathLike
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import CampaignLedger, planned_years
from rtsx.campaign.map import map_path, map_year
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.footprints import (
    FOOTPRINTS,
    LEVEL2,
    TRACKS,
    YearFootprints,
    collect_level2,
    collect_tracks,
    collected_years,
    water_polygons,
)
from rtsx.campaign.products.overviews import collect_overviews
from rtsx.campaign.products.stac import PARQUET, ZARR, CollectedStac, asset, collect_stac, collection_key
from rtsx.campaign.products.tables import (
    CellStates,
    PartTable,
    Records,
    Refreshed,
    cell_states,
    digest_of,
    empty_outlines,
    sha256_of,
)
from rtsx.campaign.products.vector_files import FORMATS, VectorFormat, format_named, one_file
from rtsx.cube.write import overviews_of
from rtsx.errors import CampaignError
from rtsx.footprints import ConfidenceRule
from rtsx.storage import options_beside
from rtsx.storage.lock import turn
from rtsx.storage.object_store import ObjectStore, open_object_store
from rtsx.storage.zarr import open_group


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Products of one year. Keys are relative to the output; None where a product was not asked for or cannot be."""

    output: str
    """Folder or URL of the campaign."""
    year: int
    n_cells: int
    """Finished cells that the products are made of."""
    n_missing: int
    """Planned cells that are not finished; outlines beside them are flagged as cut."""
    footprints: str | None
    """Folder of the GeoParquet dataset of footprints, a file per partition with a column `bbox`."""
    n_footprints: int
    level2: str | None
    """Folder of level 2, likewise."""
    tracks: str | None
    """Folder of the tracks up to this year, likewise; None where no earlier year was collected."""
    n_tracked: int
    """Rows of the tracks: footprints of all years."""
    files: Mapping[str, str]
    """SHA-256 of the files that hold all footprints at once, by key."""
    overview_levels: int
    """Levels below the full resolution of the map that are up to date."""
    overview_shards: int
    """Shards of the overviews that were made again, of each variable."""
    stac: str | None
    """The STAC collection of the year."""
    n_items: int
    rewritten: tuple[str, ...]
    """Keys that were written because they were new or differed, sorted; without shards of overviews."""
    removed: tuple[str, ...]
    """Keys that were removed, sorted."""

    def __str__(self) -> str:
        cells = f"{self.n_cells} cells" + (f", {self.n_missing} not finished yet" if self.n_missing else "")
        made = [f"{self.n_footprints} footprints"] if self.footprints is not None else []
        made += [f"{self.n_tracked} rows of tracks"] if self.tracks is not None else []
        made += [f"{self.overview_levels} levels of overviews"] if self.overview_levels else []
        made += [f"{self.n_items} STAC items"] if self.stac is not None else []
        written = f"{len(self.rewritten)} files and {self.overview_shards} shards of overviews were written"
        return (
            f"{self.year}: {cells}; {', '.join(made) or 'nothing collected'}; {written}, {len(self.removed)} removed."
        )


def export_key(layout: YearLayout, form: VectorFormat) -> str:
    """Return the key of the file."""
    return f"{layout.products}/{FOOTPRINTS}{form.suffix}"


def collect_files(
    footprints: PartTable,
    refreshed: Refreshed,
    forms: Sequence[VectorFormat],
    *,
    layout: YearLayout,
    crs: str,
    further: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
    """Bring these files up to date; their SHA-256 by key, and the keys of those that were written.

    Files that were asked for earlier are brought up to date as well, because they would tell of another state otherwise.
    """
    records = Records(footprints.objects, f"{layout.products}/collected/files")
    before = records.read()
    there = {found.key for found in footprints.objects.list(layout.products)} if forms or before else set()
    source = digest_of(refreshed.digest)
    digests, written = {}, []
    for form in (one for one in FORMATS.values() if one in forms or one.suffix[1:] in before):
        name, key = form.suffix[1:], export_key(layout, form)
        record = before.get(name)
        if record is None or record["from"] != source or key not in there:
            content = one_file(footprints.walk(refreshed.records), form, crs=crs, empty=empty_outlines(crs, *further))
            record = {"from": source, "sha256": sha256_of(content)}
            # Not taken back, because the format would be forgotten if this call were stopped, and the file not follow any more.
            records.put(name, {"from": "?", "sha256": ""})
            footprints.objects.put(key, content)
            records.put(name, record)
            written.append(key)
        digests[key] = record["sha256"]
    return digests, written


def collect_year(
    output: str,
    plan: CampaignPlan,
    *,
    storage_options: Mapping[str, Any] | None = None,
    formats: Sequence[str] = (),
    confidence_rule: ConfidenceRule | str | PathLike[str] | None = None,
    levels: bool = True,
    tracks: bool = True,
    overviews: bool = True,
    stac: bool = True,
) -> Collected:
    """Make one product of each kind of the cells that are finished, and write only what changed since the last time.

    One that is called meanwhile waits for it. Cells may be running, and may be missing: outlines beside planned cells that are not finished get
    `touches_edge`. What is written is the same, byte for byte, whether all is collected at once or cell by cell; a call that
    was stopped is made good by the next one. Files are replaced whole, one by one, so that a reader meanwhile may see some
    partitions of before and some of after.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    plan
        Of the year.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.
    formats
        Files that hold all footprints at once, beside the GeoParquet dataset: ``"gpkg"``, ``"flatgeobuf"``, ``"pmtiles"``.
        Those that were asked for earlier are brought up to date, too. They are made in the folder for temporary files.
        PMTiles are in the projection of web maps, which ends at 85 degrees north.
    confidence_rule
        A class for each outline, by a rule of the campaign's bundles, its file or URL. It is kept with the products, and applied
        from then on, until another is given.
    levels
        Level 2, the footprints of the year as one set. Level 1, a set per image, are the footprints themselves, because the
        one image that a campaign outlines is the map of its year.
    tracks
        Tracks over this year and all earlier ones that were collected.
    overviews
        Levels of the map at half the resolution each, as `write_cube` makes them; by dask tasks, on the scheduler in force.
    stac
        A collection of the year with an item for each cell that has a map, and the catalog of all years.

    Returns
    -------
    Collected
        What there is, and what was written.

    Raises
    ------
    CampaignError
        A format is unknown, the campaign has no outlines that could be put into one, or what a cell has written is missing
        or damaged, or the file of water has no polygons or no CRS.
    LabelError, InputNotFoundError
        The file of water cannot be read, or is not there.
    MissingExtraError
        GDAL cannot write a format here.
    OutputNotWritableError
        The store, or the folder for temporary files, cannot be written to.
    """
    forms = [format_named(name) for name in formats]
    if forms and plan.outlines is None:
        raise CampaignError(
            f"There are no footprints to be written as {', '.join(formats)}: {plan.name} was planned without outlines. Leave "
            "the formats out, or plan a campaign with outlines."
        )
    if confidence_rule is not None and plan.outlines is None:
        raise CampaignError(
            f"There are no footprints that a rule could be applied to: {plan.name} was planned without outlines. Leave it out, or plan "
            "a campaign with outlines."
        )
    options = storage_options or {}
    objects = open_object_store(output, options)
    layout = YearLayout(plan.year)
    # One after the other, because records, overviews, tracks and catalog follow from what was there when the other began; years share some.
    with turn(f"{output.rstrip('/')}/collect", options, what=f"collects products of {output}"):
        rule = _kept_rule(objects, plan, confidence_rule, options=options_beside(confidence_rule, output, options))
        states = cell_states(CampaignLedger(objects, layout).marks(), layout)
        opening = Lock()

        @cache  # because a box that crosses cells reads each of them, and on S3 to open takes far longer than to read
        def opened() -> tuple[Any, int]:
            group = open_group(map_path(output), options)
            return group["valid"], map_year(group, plan.year)

        def valid(y: slice, x: slice) -> NDArray[np.bool_]:
            with opening:  # partitions are made in several threads
                array, year = opened()
            return np.asarray(array[year, y, x], bool)

        vectors = _Vectors({}, {}, ())
        if plan.outlines is not None:
            water = None if plan.outlines.water is None else water_polygons(plan.outlines.water)
            footprints = YearFootprints(objects=objects, plan=plan, states=states, rule=rule, water=water, valid=valid)
            vectors = _collect_vectors(footprints, forms=forms, levels=levels, tracks=tracks)
        tables = vectors.tables
        shards = collect_overviews(output, plan, states, objects=objects, options=options) if overviews else 0
        documents = CollectedStac(n_items=0, rewritten=(), removed=())
        if stac:
            years = sorted({*planned_years(objects), plan.year})
            documents = collect_stac(objects, plan, states, assets=_assets(vectors, layout, rule=rule), years=years)
    folders = {name: f"{layout.products}/{name}" for name in tables}
    every: list[Refreshed | CollectedStac] = [*tables.values(), documents]
    return Collected(
        output=output,
        year=plan.year,
        n_cells=len(states),
        n_missing=sum(cell not in states for cell in plan.cells),
        footprints=folders.get(FOOTPRINTS),
        n_footprints=tables[FOOTPRINTS].rows if FOOTPRINTS in tables else 0,
        level2=folders.get(LEVEL2),
        tracks=folders.get(TRACKS),
        n_tracked=tables[TRACKS].rows if TRACKS in tables else 0,
        files=vectors.files,
        overview_levels=len(overviews_of(plan.geobox, overviews=overviews)) - 1,
        overview_shards=shards,
        stac=collection_key(layout) if stac else None,
        n_items=documents.n_items,
        rewritten=tuple(sorted([*vectors.written, *chain.from_iterable(one.rewritten for one in every)])),
        removed=tuple(sorted(chain.from_iterable(one.removed for one in every))),
    )


@dataclass(frozen=True)
class _Vectors:
    """Everything that is made of outlines."""

    tables: Mapping[str, Refreshed]
    """What became of each table, by its folder below the products."""
    files: Mapping[str, str]
    """SHA-256 of files that hold all footprints, by key."""
    written: Sequence[str]
    """Keys of those that were written."""


def _collect_vectors(
    footprints: YearFootprints, *, forms: Sequence[VectorFormat], levels: bool, tracks: bool
) -> _Vectors:
    """Bring everything up to date that is made of outlines."""
    objects, plan, table = footprints.objects, footprints.plan, footprints.table
    layout, refreshed = YearLayout(plan.year), footprints.collect()
    tables = {FOOTPRINTS: refreshed}
    if levels:
        tables[LEVEL2] = collect_level2(table, refreshed, layout=layout, spec=footprints.spec)
    earlier = [year for year in planned_years(objects) if year < plan.year] if tracks else []
    if years := collected_years(objects, earlier):
        tables[TRACKS] = collect_tracks(objects, {**years, plan.year: refreshed.records}, layout=layout)
    further = [*footprints.spec.columns]
    further += [] if footprints.spec.water is None else ["water_fraction", "flags"]
    further += [] if footprints.rule is None else ["confidence_class"]
    files = collect_files(table, refreshed, forms, layout=layout, crs=plan.grid.crs, further=further)
    return _Vectors(tables, *files)


def rule_key(layout: YearLayout) -> str:
    """Return the key of the rule of confidence of a year."""
    return f"{layout.products}/confidence_rule.json"


def footprint_keys(objects: ObjectStore, plan: CampaignPlan, states: CellStates) -> list[str]:
    """List the files with the outlines of these finished cells: the collected ones where they are made of just these, else those of the cells."""
    layout = YearLayout(plan.year)
    rule = _kept_rule(objects, plan, None, options={})
    footprints = YearFootprints(objects=objects, plan=plan, states=states, rule=rule)
    if plan.outlines is not None and footprints.are_collected:
        found = objects.list(f"{layout.products}/{FOOTPRINTS}")
        return sorted(one.key for one in found if one.key.endswith(".parquet"))
    return [layout.outline(cell) for cell, state in sorted(states.items()) if state.n_outlines]


def _kept_rule(
    objects: ObjectStore,
    plan: CampaignPlan,
    given: ConfidenceRule | str | PathLike[str] | None,
    *,
    options: Mapping[str, Any],
) -> ConfidenceRule | None:
    """Keep a rule, and return it or the one that was kept before."""
    key = rule_key(YearLayout(plan.year))
    content = objects.get(key)
    if given is not None:
        rule = ConfidenceRule.open(given, storage_options=options)
    elif content is not None:
        rule = ConfidenceRule.from_json(content)
    else:
        return None
    rule.require_bundle("+".join(plan.prediction.members))
    if given is not None and (document := rule.to_json().encode()) != content:
        objects.put(key, document)
    return rule


def _assets(vectors: _Vectors, layout: YearLayout, *, rule: ConfidenceRule | None) -> dict[str, Any]:
    """Assets of the collection of a year."""
    beside = collection_key(layout)
    assets = {"map": asset(MAP, beside=beside, media_type=ZARR, title="Map of all cells and years")}
    for name, title in _TABLES.items():
        if name in vectors.tables:
            key = f"{layout.products}/{name}"
            assets[name] = asset(key, beside=beside, media_type=PARQUET, title=title)
    for form in FORMATS.values():
        key = export_key(layout, form)
        if key in vectors.files:
            title = f"All footprints as {form.driver}"
            assets[form.suffix[1:]] = asset(key, beside=beside, media_type=form.media_type, title=title)
    if rule is not None:
        title = "Which class outlines are of, by their measured precision"
        assets["confidence_rule"] = asset(
            rule_key(layout), beside=beside, media_type="application/json", title=title, roles=("metadata",)
        )
    return assets


_TABLES = {
    FOOTPRINTS: "Footprints of all cells, a file per partition",
    LEVEL2: "Footprints of the year as one set",
    TRACKS: "Tracks of this and earlier years",
}
