"""`collect_year`: one product of each kind out of what the cells of a year have written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtsx.campaign.collect.collected import Collected
from rtsx.campaign.collect.exports import collect_files, export_key, formats_named
from rtsx.campaign.collect.footprints import FOOTPRINTS, collect_footprints
from rtsx.campaign.collect.levels import LEVEL2, collect_level2
from rtsx.campaign.collect.overviews import collect_overviews
from rtsx.campaign.collect.pyogrio import FORMATS, VectorFormat
from rtsx.campaign.collect.stac import collect_stac, collection_key
from rtsx.campaign.collect.stac_documents import PARQUET, ZARR, asset
from rtsx.campaign.collect.states import CellStates, cell_states
from rtsx.campaign.collect.tables import Refreshed
from rtsx.campaign.collect.tracks import TRACKS, collect_tracks, collected_years
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import Ledger
from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.opening import objects_of
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.settings import planned_years
from rtsx.cube.levels import levels_of
from rtsx.errors import CampaignError

__all__ = ["collect_year"]


def collect_year(
    output: str,
    plan: CampaignPlan,
    *,
    storage_options: Mapping[str, Any] | None = None,
    formats: Sequence[str] = (),
    levels: bool = True,
    tracks: bool = True,
    overviews: bool = True,
    stac: bool = True,
) -> Collected:
    """Make one product of each kind of the cells that are finished, and write only what changed since the last time.

    Cells may be running meanwhile, and may be missing: outlines beside planned cells that are not finished get
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
        For fsspec, where `output` is a URL.
    formats
        Files that hold all footprints at once, beside the GeoParquet dataset: ``"gpkg"``, ``"flatgeobuf"``, ``"pmtiles"``.
        Those that were asked for earlier are brought up to date, too. They are made in the folder for temporary files.
        PMTiles are in the projection of web maps, which ends at 85 degrees north.
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
        or damaged.
    MissingExtraError
        GDAL cannot write a format here.
    OutputNotWritableError
        The store, or the folder for temporary files, cannot be written to.
    """
    forms = formats_named(formats)
    if forms and plan.outlines is None:
        raise CampaignError(
            f"There are no footprints to be written as {', '.join(formats)}: {plan.name} was planned without outlines. Leave "
            "the formats out, or plan a campaign with outlines."
        )
    objects = objects_of(output, storage_options or {})
    layout = YearLayout(plan.year)
    states = cell_states(Ledger(objects, layout).marks(), layout)
    vectors = _Vectors.of(objects, plan, states, forms=forms, levels=levels, tracks=tracks)
    shards = collect_overviews(output, plan, states, objects=objects, options=storage_options or {}) if overviews else 0
    documents = None
    if stac:
        years = sorted({*planned_years(objects), plan.year})
        assets = _assets(vectors, layout)
        documents = collect_stac(objects, plan, states, assets=assets, years=years)
    return Collected(
        output=output,
        year=plan.year,
        n_cells=len(states),
        n_missing=sum(cell not in states for cell in plan.cells),
        footprints=vectors.key(FOOTPRINTS, layout),
        n_footprints=vectors.rows(FOOTPRINTS),
        level2=vectors.key(LEVEL2, layout),
        tracks=vectors.key(TRACKS, layout),
        n_tracked=vectors.rows(TRACKS),
        files=vectors.files,
        overview_levels=len(levels_of(plan.geobox, overviews=overviews)) - 1,
        overview_shards=shards,
        stac=None if documents is None else collection_key(layout),
        n_items=0 if documents is None else documents.n_items,
        rewritten=tuple(sorted([*vectors.rewritten, *(documents.rewritten if documents else ())])),
        removed=tuple(sorted([*vectors.removed, *(documents.removed if documents else ())])),
    )


@dataclass(frozen=True, kw_only=True)
class _Vectors:
    """Everything that is made of outlines."""

    tables: Mapping[str, Refreshed]
    """What became of each table, by its folder below the products."""
    files: Mapping[str, str]
    """SHA-256 of files that hold all footprints, by key."""
    written: Sequence[str]
    """Keys of those that were written."""

    @classmethod
    def of(
        cls,
        objects: ObjectStore,
        plan: CampaignPlan,
        states: CellStates,
        *,
        forms: Sequence[VectorFormat],
        levels: bool,
        tracks: bool,
    ) -> "_Vectors":
        """Bring them up to date."""
        if plan.outlines is None:
            return cls(tables={}, files={}, written=())
        layout = YearLayout(plan.year)
        table, refreshed = collect_footprints(objects, plan, states, spec=plan.outlines)
        tables = {FOOTPRINTS: refreshed}
        if levels:
            tables[LEVEL2] = collect_level2(table, refreshed, layout=layout)
        earlier = [year for year in planned_years(objects) if year < plan.year] if tracks else []
        years = collected_years(objects, earlier)
        if years:
            tables[TRACKS] = collect_tracks(objects, {**years, plan.year: refreshed.records}, layout=layout)
        files, written = collect_files(table, refreshed, forms, layout=layout, crs=plan.grid.crs)
        return cls(tables=tables, files=files, written=written)

    @property
    def rewritten(self) -> list[str]:
        """Keys of all files that were written."""
        return [*(key for one in self.tables.values() for key in one.rewritten), *self.written]

    @property
    def removed(self) -> list[str]:
        """Keys of all files that were removed."""
        return [key for one in self.tables.values() for key in one.removed]

    def key(self, name: str, layout: YearLayout) -> str | None:
        """Folder of a table, where there is one."""
        return f"{layout.products}/{name}" if name in self.tables else None

    def rows(self, name: str) -> int:
        """Rows of a table."""
        return self.tables[name].rows if name in self.tables else 0


def _assets(vectors: _Vectors, layout: YearLayout) -> dict[str, Any]:
    """Assets of the collection of a year."""
    beside = collection_key(layout)
    assets = {"map": asset(MAP, beside=beside, media_type=ZARR, title="Map of all cells and years")}
    for name, title in _TABLES.items():
        key = vectors.key(name, layout)
        if key is not None:
            assets[name] = asset(key, beside=beside, media_type=PARQUET, title=title)
    for form in FORMATS.values():
        key = export_key(layout, form)
        if key in vectors.files:
            title = f"All footprints as {form.driver}"
            assets[form.suffix[1:]] = asset(key, beside=beside, media_type=form.media_type, title=title)
    return assets


_TABLES = {
    FOOTPRINTS: "Footprints of all cells, a file per partition",
    LEVEL2: "Footprints of the year as one set",
    TRACKS: "Tracks of this and earlier years",
}
