"""Deliver a year: the package that an archive takes, written anew only where the map has changed, with checksums last."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import geopandas
import pandas as pd

from rtsx.campaign.cells import Address
from rtsx.campaign.drift import read_check
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.coarse import CoarseMap, ExpectedArea, density_grids, equal_area_crs
from rtsx.campaign.products.collect import collect_year
from rtsx.campaign.products.delivery_plan import STAC_COLLECTION, DeliveryPlan, DeliveryRequest, YearHistory, last_part
from rtsx.campaign.products.fact_sheet import FACTS_OF_OUTLINES, Facts
from rtsx.campaign.products.footprints import FOOTPRINTS
from rtsx.campaign.products.inventories import INVENTORIES, inventory_files
from rtsx.campaign.products.package import (
    OVERVIEW,
    PROVENANCE,
    RECORDS,
    json_bytes,
    write_coarse,
    write_expected,
    write_rasters,
)
from rtsx.campaign.products.rasters import MapReader, RasterFile, delivered
from rtsx.campaign.products.reviews import Verdicts, reviewed_empty
from rtsx.campaign.products.stac import ITEMS, PARQUET, SPREAD, item_table, year_collection
from rtsx.campaign.products.styles import map_layers, mosaic, qgis_project
from rtsx.campaign.products.tables import (
    PartTable,
    empty_outlines,
    mapped_cells,
    parquet_of_parts,
    plainly_typed,
    sha256_of,
)
from rtsx.campaign.products.vector_files import FORMATS, one_file
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
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


def deliver_year(campaign: "Campaign", request: DeliveryRequest) -> Delivered:
    """Write the package of a year, or bring it up to date; see `Campaign.deliver`."""
    plan, verify = campaign.plan, request.verify
    delivery = DeliveryPlan.of(campaign, request)
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
        delivery=delivery,
        outlines=None if table is None else table.facts,
        n_rasters=len(rasters),
        picture=picture,
        drift=read_check(campaign.objects, plan),
        expected_m2={} if expected is None else write_expected(package, expected),
    )
    _write_tables(facts, table)
    content = item_table(plan, rasters, variables=delivered(plan))
    *most, last = (f"{name}/" for name in delivered(plan))
    title = f"STAC items of all files in {', '.join(most)} and {last}, as a table"
    package.add(ITEMS, content, title, media_type=PARQUET)
    _write_styles(facts, rasters, expected=expected)
    _write_documents(facts, crs=str(rasters[0].geobox.crs))
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
_MISSING = "missing_cells.csv"
_SOMETIMES = (_MISSING, *(name for files in INVENTORIES.values() for name in files))
"""Files that are there in some packages only, and go where they are not any more."""


def _write_tables(facts: Facts, outlines: _Outlines | None) -> None:
    """Write outlines in their formats, the images, the cells that are missing, and outlines as rows of inventories."""
    plan, delivery, package = facts.plan, facts.delivery, facts.delivery.package
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
    missing = sorted(cell for cell in plan.cells if cell not in delivery.history.states)
    if missing:
        content = _csv(pd.DataFrame([_placed(plan, cell) for cell in missing]))
        package.add(_MISSING, content, "Cells that are not in it", media_type=_CSV)
    if outlines is not None and delivery.inventory is not None:
        for name, file in inventory_files(delivery.choices.fields).items():
            content = one_file(
                file.walk(delivery.inventory, outlines.walk()), file.form, crs=file.crs, empty=file.empty
            )
            package.add(name, content, file.title, media_type=file.form.media_type)


def _images(history: YearHistory) -> pd.DataFrame:
    """Return a row for each image, with the name that ends its id, because what comes before may be a private path or address.

    Ids that are equal from there on differ in their digest.
    """
    rows = [
        (source, last_part(image), sha256_of(image.encode())[:16], cells, history.unread.get((source, image), 0))
        for (source, image), cells in history.images.items()
    ]
    return pd.DataFrame(sorted(rows), columns=["source", "image", "id_digest", "cells", "unread_cells"])


def _placed(plan: CampaignPlan, cell: Address) -> dict[str, object]:
    west, south, east, north = (round(float(edge), 6) for edge in plan.grid[cell].lonlat.bounds)
    return {"cell": cell_id(*cell), "west": west, "south": south, "east": east, "north": north}


def _csv(table: pd.DataFrame, *, header: bool = True) -> bytes:
    return table.to_csv(index=False, header=header, lineterminator="\n").encode()


def _write_styles(facts: Facts, rasters: Sequence[RasterFile], *, expected: ExpectedArea | None) -> None:
    """Write grids of density, mosaics of the tiles, styles of all layers, and the project that opens them."""
    plan, package = facts.plan, facts.delivery.package
    if facts.outlines is not None:
        titles = {
            "density_count": "Objects by cells of 10 km, equal-area",
            "density_area_km2": "Their area, km², likewise",
        }
        for name, content in density_grids(plan, facts.delivery.history.states, facts.objects):
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


def _write_documents(facts: Facts, *, crs: str) -> None:
    """Write what is read, by people and by machines."""
    plan, delivery = facts.plan, facts.delivery
    package, history, review = delivery.package, delivery.history, delivery.verdicts
    provenance = {
        "package": delivery.identity,
        "choices": asdict(delivery.choices),
        "model": {
            "bundles": list(plan.prediction.members),
            "layers": list(plan.prediction.layers),
            "classes": list(plan.prediction.classes),
            "prediction": json.loads(plan.prediction.to_json()),
        },
        "cells": {"planned": len(plan.cells), "finished": len(history.states), "missing": facts.missing},
        "inputs": dict(history.sources),
        "unread_inputs": len(history.unread),
        "versions": {name: sorted(found) for name, found in sorted(history.versions.items())},
    }
    if facts.drift is not None:
        provenance["drift"] = {
            "findings": [str(one) for one in facts.drift.findings],
            "acceptances": [asdict(one) for one in facts.drift.acceptances],
        }
    if review is not None:
        provenance["review"] = {
            "is_sample": review.is_sample,
            "units": review.units,
            "reviewed": review.reviewed,
            "added": len(review.added),
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
        licence=delivery.choices.license,
        providers=delivery.providers,
        summaries={
            **delivery.tiling.document,
            "rtsx:bundles": list(plan.prediction.members),
            "rtsx:rasters": facts.n_rasters,
        },
        crs=crs,
        variables=delivered(plan),
    )
    package.put(STAC_COLLECTION, json_bytes(collection))
    for folder in (*delivered(plan), OVERVIEW, RECORDS):
        package.remove_others(folder)
    for key in set(_SOMETIMES) - set(package.sums):
        if package.objects.get(key) is not None:
            package.delete(key)
