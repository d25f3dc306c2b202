"""Deliver a year: the package that an archive takes, written anew only where the map has changed, with checksums last."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import geopandas
import pandas as pd

from rtsx.campaign.cells import Address
from rtsx.campaign.drift import read_check
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.preflight import require_space
from rtsx.campaign.products.coarse import EXPECTED, CoarseMap, ExpectedArea, density_grids, equal_area_crs
from rtsx.campaign.products.collect import collect_year
from rtsx.campaign.products.fact_sheet import FACTS_OF_OUTLINES, Facts
from rtsx.campaign.products.footprints import FOOTPRINTS
from rtsx.campaign.products.inventories import INVENTORIES, InventoryRows, inventory_files
from rtsx.campaign.products.package import (
    CHECKSUMS,
    OVERVIEW,
    PROVENANCE,
    RECORDS,
    Package,
    json_bytes,
    require_own,
    write_coarse,
    write_expected,
    write_rasters,
)
from rtsx.campaign.products.rasters import NAMES, CellTiling, MapReader, MatrixTiling, RasterFile, Tiling, delivered
from rtsx.campaign.products.reviews import Verdicts, reviewed_empty
from rtsx.campaign.products.stac import ITEMS, PARQUET, SPREAD, checked_licence, item_table, year_collection
from rtsx.campaign.products.styles import map_layers, mosaic, qgis_project
from rtsx.campaign.products.tables import (
    CellStates,
    PartTable,
    Record,
    cell_states,
    empty_outlines,
    mapped_cells,
    parquet_of_parts,
    plainly_typed,
    sha256_of,
)
from rtsx.campaign.products.vector_files import FORMATS, one_file
from rtsx.campaign.records import CommitRecord
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.parsing import parsed_json
from rtsx.storage import local_path, refuse_other_format, without_query
from rtsx.storage.object_store import open_object_store
from rtsx.storage.stac import COG

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """A package that is whole."""

    to: str
    """Its folder or URL."""
    year: int
    n_missing: int
    """Planned cells that are not finished; `missing_cells.csv` names them."""
    n_rasters: int
    """GeoTIFFs of each variable."""
    n_footprints: int | None
    """Outlines; None where they were left out."""
    rewritten: tuple[str, ...]
    """Keys that were written because they were new or differed, sorted."""
    removed: tuple[str, ...]
    """Keys that were removed, sorted."""

    def __str__(self) -> str:
        outlines = "" if self.n_footprints is None else f", {self.n_footprints:,} outlines"
        missing = f"; {self.n_missing:,} cells are missing, see missing_cells.csv" if self.n_missing else ""
        return (
            f"{self.to}: {self.n_rasters:,} GeoTIFFs of each variable{outlines}{missing}. {len(self.rewritten):,} files were "
            f"written, {len(self.removed):,} removed."
        )


@dataclass(frozen=True, kw_only=True)
class DeliveryRequest:
    """What is asked for in one call; see `Campaign.deliver`, whose parameters these are."""

    to: str
    to_options: Mapping[str, Any]
    tiles: str | None
    zoom: int | None
    tile_zoom: int | None
    outlines: bool
    allow_missing: bool
    verify: bool
    licence: str | None
    providers: Sequence[str] | None
    fields: Sequence[str] | None
    arts: Mapping[str, str] | None
    names: str | None
    accuracy: str | Mapping[str, Any] | None
    review: geopandas.GeoDataFrame | None
    expected_area: bool | None

    def tiling(self, plan: CampaignPlan) -> Tiling:
        """Return how rasters are cut: into tiles of a set, or by cells, which have neither zooms nor names."""
        if self.tiles is not None:
            return MatrixTiling.of(
                plan, self.tiles, zoom=self.zoom, tile_zoom=self.tile_zoom, names=self.names or NAMES[0]
            )
        if self.zoom is not None or self.tile_zoom is not None:
            raise CampaignError(
                "A zoom is one of a tile matrix set: name the set, such as WebMercatorQuad, or leave the zoom out."
            )
        if self.names is not None:
            raise CampaignError(
                "Names are those of tiles: name a tile matrix set, such as WebMercatorQuad, or leave them out."
            )
        return CellTiling(plan)


def deliver_year(campaign: "Campaign", request: DeliveryRequest) -> Delivered:
    """Write the package of a year, or bring it up to date; see `Campaign.deliver`."""
    plan, verify = campaign.plan, request.verify
    delivery = _Delivery.of(campaign, request)
    package, tiling, history = delivery.package, delivery.tiling, delivery.history
    table = _Outlines.of(campaign, verdicts=delivery.verdicts) if request.outlines else None
    opened = partial(
        MapReader.of, campaign.output, plan, options=campaign.storage_options, finished=mapped_cells(history.states)
    )
    readers = {name: opened(name) for name in delivered(plan)}
    package.begin(delivery.identity, choices=asdict(delivery.choices))
    rasters = write_rasters(package, readers, delivery.files, tiling=tiling, states=history.states, verify=verify)
    if not rasters:  # a border of the set runs through a cell, between what is valid there and its tiles
        raise CampaignError(
            f"No valid pixel of the map lies in a tile of {request.tiles}. Choose another tile matrix set."
        )
    coarse = CoarseMap(reader=readers["probability"], states=history.states)
    picture = write_coarse(package, coarse, verify=verify)
    expected = (
        ExpectedArea(reader=readers["probability"], states=history.states) if delivery.choices.expected_area else None
    )
    facts = Facts(
        plan=plan,
        states=history.states,
        outlines=None if table is None else table.facts,
        tiling=tiling,
        n_rasters=len(rasters),
        picture=picture,
        sources=dict(Counter(source for source, _ in history.images)),
        unread=len(history.unread),
        versions={name: sorted(found) for name, found in history.versions.items()},
        licence=delivery.choices.license,
        providers=delivery.providers,
        drift=read_check(campaign.objects, plan),
        accuracy=delivery.estimates,
        review=delivery.verdicts,
        expected_m2={} if expected is None else write_expected(package, expected),
    )
    _write_tables(package, facts, delivery=delivery, outlines=table)
    content = item_table(plan, rasters, variables=delivered(plan))
    *most, last = (f"{name}/" for name in delivered(plan))
    title = f"STAC items of all files in {', '.join(most)} and {last}, as a table"
    package.add(ITEMS, content, title, media_type=PARQUET)
    _write_styles(package, facts, rasters, expected=expected)
    _write_documents(package, facts, delivery=delivery, crs=str(rasters[0].geobox.crs))
    package.close()
    return Delivered(
        to=request.to,
        year=plan.year,
        n_missing=facts.missing,
        n_rasters=facts.n_rasters,
        n_footprints=None if table is None else len(table.facts),
        rewritten=tuple(sorted({*package.written})),
        removed=tuple(sorted(package.removed)),
    )


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """What a package is going to be, checked before a byte of it is written."""

    package: Package
    identity: Record
    """What stays as it is in a package, however often it is brought up to date."""
    choices: "_Choices"
    tiling: Tiling
    files: Sequence[RasterFile]
    """Rasters that meet a cell with a map."""
    providers: Mapping[str, str]
    """Address by name; empty where there is none."""
    estimates: Sequence[Record]
    """Of accuracy, by a reviewed sample."""
    inventory: InventoryRows | None
    """Makes outlines into rows of inventories; None where nobody wants those."""
    history: "_History"
    verdicts: Verdicts | None

    @classmethod
    def of(cls, campaign: "Campaign", request: DeliveryRequest) -> "_Delivery":
        """Settle it from what is asked for, and from what an earlier delivery has chosen.

        Raises
        ------
        CampaignError
            Cells are not done, or what is asked for does not fit together, or not with the package.
        """
        plan, review = campaign.plan, request.review
        refuse_other_format(request.to, what="a folder of products")
        if request.outlines and plan.outlines is None:
            raise CampaignError(
                f"{plan.name} was planned without outlines, so there are none to be delivered. Leave them out (--no-outlines), or plan "
                "a campaign with outlines."
            )
        tiling = request.tiling(plan)
        package = Package(open_object_store(request.to, request.to_options), request.to)
        identity: Record = {
            "campaign": plan.name,
            "year": plan.year,
            "plan": plan.digest,
            "outlines": request.outlines,
            "rasters": tiling.document,
        }
        require_own(package, identity)
        choices = _Choices.of(package).updated(request)
        estimates = [] if request.accuracy is None else _estimates(request.accuracy)
        providers = dict(_provider(one) for one in choices.providers)
        inventories = inventory_files(choices.fields)
        if inventories and not request.outlines:
            raise CampaignError("Fields are those of outlines. Leave either --fields or --no-outlines out.")
        history = _History.of(campaign.ledger, plan, by_cell=bool(inventories))
        inventory = None
        if inventories:
            inventory = InventoryRows(
                plan=plan,
                images=history.by_cell,
                providers=list(providers),
                given=choices.arts or {},
                is_reviewed=review is not None,
            )
        if inventory is not None and "arts" in choices.fields:
            inventory.require_creator()
        elif choices.arts:
            raise CampaignError("Values of fields of ARTS (--arts) go with its fields: give --fields arts, too.")
        _require_finished(plan, history.states, allow_missing=request.allow_missing)
        files = tiling.files(mapped_cells(history.states))
        verdicts = None if review is None else Verdicts.of(review, plan, history.states)
        if verdicts is not None and not verdicts.is_ground and not request.outlines:
            raise CampaignError("Verdicts are those of outlines. Leave either --review or --no-outlines out.")
        if verdicts is not None and verdicts.is_sample and request.accuracy is None:
            raise CampaignError(
                "This review is of a sample, from which totals follow: give its estimates of accuracy, too."
            )
        if package.objects.get(CHECKSUMS) is None:
            pixels = sum(state.n_valid for state in history.states.values())
            require_space(request.to, pixels // 20)  # rarely less, compressed
        return cls(
            package=package,
            identity=identity,
            choices=choices,
            tiling=tiling,
            files=files,
            providers=providers,
            estimates=estimates,
            inventory=inventory,
            history=history,
            verdicts=verdicts,
        )


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """What a package is like besides its map, kept in its provenance, so that a plainer call changes none of it."""

    license: str = "other"
    providers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    arts: Mapping[str, str] | None = field(default_factory=dict)
    """None where the package does not say."""
    expected_area: bool = False
    accuracy: bool = False
    review: bool = False

    @classmethod
    def of(cls, package: Package) -> "_Choices":
        """Read those of a package; the defaults where there is none."""
        content = package.objects.get(PROVENANCE)
        document = {"choices": {}} if content is None else json.loads(content)
        if "choices" not in document:
            return cls._of_files(package, is_reviewed="review" in document)
        return parsed_json(json.dumps(document["choices"]), cls, what=PROVENANCE, error=CampaignError)

    @classmethod
    def _of_files(cls, package: Package, *, is_reviewed: bool) -> "_Choices":
        """Take those of a package of an earlier version, which did not keep them, from its files."""
        get = package.objects.get
        content, caveats = get(_COLLECTION) or b"{}", get("CAVEATS.md") or b""
        stated = parsed_json(content, dict[str, Any], what=_COLLECTION, error=CampaignError)
        fields = tuple(name for name, files in INVENTORIES.items() if any(get(key) is not None for key in files))
        return cls(
            license=stated.get("license", cls.license),
            providers=tuple(
                "=".join(filter(None, (one["name"], one.get("url")))) for one in stated.get("providers", ())
            ),
            fields=fields,
            arts=None if "arts" in fields else {},
            expected_area=get(f"{OVERVIEW}/{EXPECTED[0]}.tif") is not None,
            accuracy=b"estimated from a reviewed sample" in caveats,
            review=is_reviewed,
        )

    def updated(self, request: DeliveryRequest) -> "_Choices":
        """Return these with what a call gives instead.

        Raises
        ------
        CampaignError
            It drops what the package cannot tell again.
        """
        to, is_accurate, is_reviewed = request.to, request.accuracy is not None, request.review is not None
        dropped = [
            name
            for name, was, now in (
                ("--review", self.review, is_reviewed),
                ("--accuracy", self.accuracy, is_accurate),
            )
            if was and not now
        ]
        if dropped:
            raise CampaignError(
                f"{to} was delivered with {' and '.join(dropped)}, and this call has none: give it again, or choose an empty folder."
            )
        fields, arts = self.fields if request.fields is None else tuple(request.fields), request.arts
        if arts is None and "arts" in fields and self.arts is None:
            raise CampaignError(
                f"{to}/arts.geojson is of an earlier version, which did not keep the values that were given for its fields. Give them again, "
                "such as --arts RegionName=NAME, or choose an empty folder."
            )
        if arts is None:
            arts = self.arts if "arts" in fields else {}
        return _Choices(
            license=checked_licence(self.license if request.licence is None else request.licence),
            providers=self.providers if request.providers is None else tuple(request.providers),
            fields=fields,
            arts=arts,
            expected_area=self.expected_area if request.expected_area is None else request.expected_area,
            accuracy=is_accurate,
            review=is_reviewed,
        )


@dataclass(frozen=True, kw_only=True)
class _History:
    """What the marks of a year say."""

    states: CellStates
    images: Mapping[tuple[str, str], int]
    """Cells by source and id of what they were made of."""
    unread: Mapping[tuple[str, str], int]
    """Cells that were made without an image, because it could not be read, likewise."""
    versions: Mapping[str, set[str]]
    by_cell: Mapping[Address, frozenset[tuple[str, str]]]
    """Source and last part of the id of what each cell was made of; empty where nobody needs it."""

    @classmethod
    def of(cls, ledger: CampaignLedger, plan: CampaignPlan, *, by_cell: bool) -> "_History":
        images: Counter[tuple[str, str]] = Counter()
        of_cells: dict[Address, frozenset[tuple[str, str]]] = {}
        unread: Counter[tuple[str, str]] = Counter()
        versions: defaultdict[str, set[str]] = defaultdict(set)

        def noted() -> Iterator[CommitRecord]:
            for mark in ledger.marks():
                gaps = {
                    (source, without_query(image)) for source, _, image in (gap.partition("/") for gap in mark.gaps)
                }
                used = {(one.source, without_query(one.image)) for one in mark.inputs}
                images.update(used | gaps)
                if by_cell:
                    of_cells[mark.cell] = frozenset((source, _last_part(image)) for source, image in used - gaps)
                unread.update(gaps)
                for name, version in mark.versions.items():
                    versions[name].add(version)
                yield mark

        states = {cell: state for cell, state in cell_states(noted(), ledger.layout).items() if cell in plan.cells}
        return cls(states=states, images=images, unread=unread, versions=versions, by_cell=of_cells)


def _require_finished(plan: CampaignPlan, states: CellStates, *, allow_missing: bool) -> None:
    """Refuse a year without a map, and one that is half done unless that is meant."""
    missing = [cell for cell in plan.cells if cell not in states]
    if missing and not allow_missing:
        raise CampaignError(
            f"{len(missing):,} of {len(plan.cells):,} cells of {plan.name} {plan.year} are not done, such as "
            f"{cell_id(*missing[0])}. Run the campaign first (rtsx campaign status tells what failed), or deliver what there is, with "
            "the missing cells named in the package: --allow-missing"
        )
    if all(state.is_empty for state in states.values()):
        done = (
            f"{len(states):,} cells of {plan.name} {plan.year} are done, and none of them has an image or valid pixel"
        )
        raise CampaignError(
            f"{done}, so there is nothing to deliver. If that is not so, the sources or their masks are to be looked at."
            if states
            else f"No cell of {plan.name} {plan.year} is done, so there is nothing to deliver. Run the campaign first."
        )


_KEPT_ROWS = 100_000
"""Outlines that are kept in memory, a few hundred megabytes."""


@dataclass(frozen=True, kw_only=True)
class _Outlines:
    """Footprints of a year, of which a part is in memory at a time."""

    plan: CampaignPlan
    table: PartTable
    names: tuple[str, ...]
    """Parts."""
    further: tuple[str, ...]
    """Columns beside the outline."""
    facts: pd.DataFrame
    """The columns of all rows that the fact sheet needs."""
    kept: Sequence[geopandas.GeoDataFrame] | None = field(repr=False)
    """All of them, where they are few: each file of the package would read them again."""

    verdicts: Verdicts | None
    """What reviewers say of them; None where nobody was asked."""

    @classmethod
    def of(cls, campaign: "Campaign", *, verdicts: Verdicts | None) -> "_Outlines":
        """Collect them anew where that is needed."""
        collect = partial(collect_year, levels=False, tracks=False, overviews=False, stac=False)
        collect(campaign.output, campaign.plan, storage_options=campaign.storage_options)
        table = PartTable.of(campaign.objects, campaign.ledger.layout, FOOTPRINTS)
        names = tuple(sorted(table.records.read()))
        verdicts = None if verdicts is None or verdicts.is_ground else verdicts
        if verdicts is not None:
            verdicts.matched(table.walk(names))
        columns: dict[str, None] = {}
        for part in table.walk(names):
            columns |= dict.fromkeys(name for name in part.columns if name != part.geometry.name)
        found = cls(
            plan=campaign.plan,
            table=table,
            names=names,
            further=tuple(columns),
            verdicts=verdicts,
            kept=None,
            facts=pd.DataFrame(),
        )
        facts, kept, n_rows = [], list[geopandas.GeoDataFrame](), 0
        for part in found.walk():
            n_rows += len(part)
            kept = [*kept, part] if n_rows <= _KEPT_ROWS else []
            facts.append(pd.DataFrame(part[[name for name in FACTS_OF_OUTLINES if name in part.columns]]))
        some = [one for one in facts if len(one)] or facts[:1]
        return replace(found, facts=pd.concat(some, ignore_index=True), kept=kept if n_rows <= _KEPT_ROWS else None)

    def walk(self) -> Iterator[geopandas.GeoDataFrame]:
        """Return the parts, one after the other, and last what reviewers have drawn."""
        if self.kept is not None:
            yield from self.kept
            return
        for part in self.table.walk(self.names):
            yield part if self.verdicts is None else self.verdicts.applied(part)
        if self.verdicts is not None:
            yield self.verdicts.drawn(self.plan, self.further)

    @property
    def empty(self) -> geopandas.GeoDataFrame:
        """Their table without a row."""
        made = empty_outlines if self.verdicts is None else reviewed_empty
        return made(self.plan.grid.crs, *self.further)


_GPKG = FORMATS["gpkg"]
_CSV, _MARKDOWN = "text/csv", "text/markdown"
_MISSING, _COLLECTION = "missing_cells.csv", "collection.json"
_SOMETIMES = (_MISSING, *(name for files in INVENTORIES.values() for name in files))
"""Files that are there in some packages only, and go where they are not any more."""


def _write_tables(package: Package, facts: Facts, *, delivery: _Delivery, outlines: _Outlines | None) -> None:
    """Write outlines in their formats, the images, the cells that are missing, and outlines as rows of inventories."""
    plan = facts.plan
    if outlines is not None:
        crs, empty = plan.grid.crs, outlines.empty
        content = one_file(outlines.walk(), _GPKG, crs=crs, empty=empty)
        said = ", with the verdicts of reviewers" if facts.is_reviewed else ""
        title = f"Outlines of all objects{said}, as GeoPackage"
        package.add("footprints.gpkg", content, title, media_type=_GPKG.media_type)
        content = parquet_of_parts(outlines.walk(), empty=empty)
        package.add("footprints.parquet", content, "The same as GeoParquet", media_type=PARQUET)
        points = (part.set_geometry(part.geometry.centroid) for part in outlines.walk())
        content = one_file(points, _GPKG, crs=crs, empty=empty, geometry="Point")
        title = "A point for each object, with the columns of its outline"
        package.add("footprints_centroids.gpkg", content, title, media_type=_GPKG.media_type)
        rows = (plainly_typed(part).drop(columns=part.geometry.name) for part in outlines.walk())
        content = b"".join(_csv(part, header=not number) for number, part in enumerate(rows))
        package.add("footprints.csv", content, "The columns without geometry", media_type=_CSV)
    title = "Images that the map was made of, the cells that each was for, and those in which it could not be read"
    package.add("inputs.csv", _csv(_images(delivery.history)), title, media_type=_CSV)
    missing = sorted(cell for cell in plan.cells if cell not in facts.states)
    if missing:
        content = _csv(pd.DataFrame([_placed(plan, cell) for cell in missing]))
        package.add(_MISSING, content, "Cells that are not in it", media_type=_CSV)
    if outlines is not None and delivery.inventory is not None:
        for name, file in inventory_files(delivery.choices.fields).items():
            content = one_file(
                file.walk(delivery.inventory, outlines.walk()), file.form, crs=file.crs, empty=file.empty
            )
            package.add(name, content, file.title, media_type=file.form.media_type)


def _images(history: _History) -> pd.DataFrame:
    """Return a row for each image, with the name that ends its id, because what comes before may be a private path or address.

    Ids that are equal from there on differ in their digest.
    """
    rows = [
        (source, _last_part(image), sha256_of(image.encode())[:16], cells, history.unread.get((source, image), 0))
        for (source, image), cells in history.images.items()
    ]
    return pd.DataFrame(sorted(rows), columns=["source", "image", "id_digest", "cells", "unread_cells"])


def _last_part(image: str) -> str:
    return image.rstrip("/").rsplit("/", 1)[-1]


def _placed(plan: CampaignPlan, cell: Address) -> dict[str, object]:
    west, south, east, north = (round(float(edge), 6) for edge in plan.grid[cell].lonlat.bounds)
    return {"cell": cell_id(*cell), "west": west, "south": south, "east": east, "north": north}


def _csv(table: pd.DataFrame, *, header: bool = True) -> bytes:
    return table.to_csv(index=False, header=header, lineterminator="\n").encode()


def _write_styles(
    package: Package, facts: Facts, rasters: Sequence[RasterFile], *, expected: ExpectedArea | None
) -> None:
    """Write grids of density, mosaics of the tiles, styles of all layers, and the project that opens them."""
    plan = facts.plan
    if facts.outlines is not None:
        titles = {
            "density_count": "Objects by cells of 10 km, equal-area",
            "density_area_km2": "Their area, km², likewise",
        }
        for name, content in density_grids(plan, facts.states, facts.objects):
            package.add(f"{OVERVIEW}/{name}.tif", content, titles[name], media_type=COG)
    classes = plan.prediction.classes
    for name in delivered(plan):
        bands = [f"{name} {one}" for one in classes] if len(classes) > 1 else [name]
        content = mosaic(name, rasters, bands=bands, scale=1.0 if name == "binary" else 0.01)
        package.add(
            f"{name}.vrt", content, f"Mosaic of all files in {name}/, for GDAL", media_type="application/x-gdal-vrt"
        )
    layers = map_layers(
        plan,
        tiles_crs=str(rasters[0].geobox.crs),
        equal_area=str(equal_area_crs(plan)),
        outlines=facts.outlines is not None,
        expected=None if expected is None else expected.crs,
        reviewed=facts.is_reviewed,
    )
    for layer in layers:
        package.put(f"{layer.name}.qml", layer.qml())
        package.put(f"{layer.name}.sld", layer.sld())
    project = qgis_project(facts.title, layers, geobox=plan.geobox)
    package.add("map.qgz", project, "QGIS project of all layers, with styles", media_type="application/x-qgis-project")


def _write_documents(package: Package, facts: Facts, *, delivery: _Delivery, crs: str) -> None:
    """Write what is read, by people and by machines."""
    plan = facts.plan
    provenance = {
        "package": delivery.identity,
        "choices": asdict(delivery.choices),
        "model": {
            "bundles": list(plan.prediction.members),
            "layers": list(plan.prediction.layers),
            "classes": list(plan.prediction.classes),
            "prediction": json.loads(plan.prediction.to_json()),
        },
        "cells": {"planned": len(plan.cells), "finished": len(facts.states), "missing": facts.missing},
        "inputs": dict(facts.sources),
        "unread_inputs": facts.unread,
        "versions": {name: list(found) for name, found in sorted(facts.versions.items())},
    }
    if facts.drift is not None:
        provenance["drift"] = {
            "findings": [str(one) for one in facts.drift.findings],
            "acceptances": [asdict(one) for one in facts.drift.acceptances],
        }
    if facts.review is not None:
        provenance["review"] = {
            "is_sample": facts.review.is_sample,
            "units": facts.review.units,
            "reviewed": facts.review.reviewed,
            "added": len(facts.review.added),
        }
    title = "Totals, sizes, latitudes, model, inputs and versions"
    package.add("fact_sheet.html", facts.html().encode(), title, media_type="text/html")
    package.add("fact_sheet.md", facts.markdown().encode(), "The same as Markdown", media_type=_MARKDOWN)
    package.add("CAVEATS.md", facts.caveats_page().encode(), "What it is not good for", media_type=_MARKDOWN)
    title = "Model, plan, inputs and versions, for machines"
    package.add(PROVENANCE, json_bytes(provenance), title, media_type="application/json")
    readme = [
        ("`probability/`", "Probability of the target as cloud-optimised GeoTIFFs"),
        ("`binary/`", "Where that of the map reaches the threshold, likewise"),
        *([("`spread/`", SPREAD)] if "spread" in delivered(plan) else []),
        *((f"`{key}`", title) for key, (_, title) in package.listed.items()),
        ("`*.qml`, `*.sld`", "Styles of the layer that is called alike, for QGIS and for map servers"),
        ("`collection.json`", "STAC collection"),
        ("`records/`", "What each GeoTIFF was made of"),
    ]
    package.put("README.md", facts.readme(readme).encode())
    collection = year_collection(
        plan,
        facts.box,
        files=package.listed,
        licence=facts.licence,
        providers=facts.providers,
        summaries={
            **facts.tiling.document,
            "rtsx:bundles": list(plan.prediction.members),
            "rtsx:rasters": facts.n_rasters,
        },
        crs=crs,
        variables=delivered(plan),
    )
    package.put(_COLLECTION, json_bytes(collection))
    for folder in (*delivered(plan), OVERVIEW, RECORDS):
        package.remove_others(folder)
    for key in set(_SOMETIMES) - set(package.sums):
        if package.objects.get(key) is not None:
            package.delete(key)


def _estimates(given: str | Mapping[str, Any]) -> list[Record]:
    """Take the estimates of a review, as `rtsx evaluate --sample` writes them; those that are not known are left out."""
    try:
        document = json.loads(local_path(given).read_bytes()) if isinstance(given, str) else given
        found = [{"region": "all"} | one for one in document["estimates"] if one["value"] is not None]
        for one in found:
            if any(not isinstance(one[name], int | float) for name in ("value", "low", "high")) or not one["measure"]:
                raise ValueError(f"{one} is no estimate")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CampaignError(
            f"{given} holds no estimates of accuracy ({error}). Give the accuracy.json of a reviewed sample: rtsx evaluate --sample REVIEW --out DIR"
        ) from error
    return found


def _provider(given: str) -> tuple[str, str]:
    """Return name and address of ``NAME`` or ``NAME=URL``."""
    name, _, address = given.partition("=")
    if not name.strip() or (address and not address.startswith(("https://", "http://"))):
        raise CampaignError(f"A provider is NAME or NAME=https://ADDRESS; got {given!r}.")
    return name.strip(), address
