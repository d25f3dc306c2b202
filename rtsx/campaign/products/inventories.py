"""Outlines with the fields of inventories that the field keeps: ARTS, and DARTS of an image (level 1) and of a year (level 2)."""

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import geopandas
import numpy as np
import pandas as pd
from pyproj import CRS

from rtsx.campaign.cells import Address
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.vector_files import FORMATS, VectorFormat
from rtsx.errors import CampaignError
from rtsx.footprints import to_geographic
from rtsx.labels.schema import conform
from rtsx.names import suggest

ARTS = {
    "CentroidLat": "float64",
    "CentroidLon": "float64",
    "RegionName": "object",
    "CreatorLab": "object",
    "BaseMapDate": "object",
    "BaseMapSource": "object",
    "BaseMapResolution": "float64",
    "TrainClass": "object",
    "LabelType": "object",
    "MergedRTS": "object",
    "SplitRTS": "object",
    "NewRTS": "object",
    "StabilizedRTS": "object",
    "UnknownRelationship": "object",
    "ContributionDate": "object",
    "UID": "object",
    "BaseMapID": "object",
    "Area": "float64",
    "Notes": "object",
}
"""Fields of ARTS in its order, as its table of metadata (doi:10.1038/s41597-025-04372-7, table 2; `Metadata_Format_Summary.csv` of
github.com/whrc/ARTS) has them; the first nine are required. What relates slumps, and the day of the contribution, its curators
fill in."""

_PVALUES = {f"pval_{name}": "float64" for name in ("min", "max", "mean", "median", "std")}
DARTS_LEVEL1 = {
    "id": "int64",
    "image_id": "object",
    "take_id": "object",
    "tile_id": "object",
    "date": "object",
    "year": "int32",
    "satellite": "object",
    "area_m2": "float64",
    **_PVALUES,
    "model": "object",
}
"""Fields of an outline that one image shows; the first seven as the authors of DARTS make them of the id of a PlanetScope image
(`postprocessing.py` of github.com/initze/thaw-slump-segmentation)."""
DARTS_LEVEL2 = {
    "id": "int64",
    "year": "int32",
    "image_ids": "object",
    "first_date": "object",
    "last_date": "object",
    "area_m2": "float64",
    **_PVALUES,
    "model": "object",
}
"""Fields of an outline of a year; `id`, `year` and `pval_` as in DARTS v1.2 (doi:10.18739/A22B8VD7C)."""

_REQUIRED = tuple(ARTS)[:9]
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
_MONTH = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_](0[1-9]|1[0-2])(?!\d)")
_QUARTER = re.compile(r"(?<!\d)((?:19|20)\d\d)q([1-4])(?!\d)")


def days_of(image: str) -> tuple[date, date] | None:
    """Return first and last day that the id of an image or mosaic states; None where it states none.

    Examples
    --------
    >>> for image in ("S2B_MSIL2A_20230715T215529_N0509", "4572_3358_2023-07-15_2421", "global_quarterly_2025q3_mosaic", "39_12_2m"):
    ...     print(*(days_of(image) or ["none"]))
    2023-07-15 2023-07-15
    2023-07-15 2023-07-15
    2025-07-01 2025-09-30
    none
    """
    if found := _DAY.search(image):
        text = f"{found[1]}-{found[3]}-{found[4]}"
    elif found := _QUARTER.search(image):
        text = f"{found[1]}Q{found[2]}"
    elif found := _MONTH.search(image):
        text = f"{found[1]}-{found[2]}"
    else:
        return None
    try:
        span = pd.Period(text)
    except ValueError:  # such as 31 June
        return None
    return span.start_time.date(), span.end_time.date()


def arts_uid(row: Mapping[str, Any]) -> str:
    """Return the UID of ARTS: UUID 5, in the namespace of DNS, of its required fields one after the other.

    As `seed_gen` of github.com/whrc/ARTS joins them: coordinates with five decimals at most, a whole resolution without any.

    Examples
    --------
    An entry of ARTS, as its README shows it:

    >>> arts_uid(
    ...     {
    ...         "CentroidLat": 71.89659414,
    ...         "CentroidLon": -120.66907384,
    ...         "RegionName": "Banks Island, Inuvik Region, Canada",
    ...         "CreatorLab": "TLantz, University of Victoria",
    ...         "BaseMapDate": "2020-07-05,2020-08-20",
    ...         "BaseMapSource": "PlanetScope",
    ...         "BaseMapResolution": 3.0,
    ...         "TrainClass": "Positive",
    ...         "LabelType": "Polygon",
    ...     }
    ... )
    '6aff1955-71f5-5fa5-97d1-d9e006e4ec5c'
    """
    stated = dict(row)
    for name in ("CentroidLat", "CentroidLon"):
        stated[name] = round(float(row[name]), 5)
    resolution = float(row["BaseMapResolution"])
    stated["BaseMapResolution"] = int(resolution) if resolution.is_integer() else resolution
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "".join(str(stated[name]) for name in _REQUIRED)))


@dataclass(frozen=True, kw_only=True)
class DatedImage:
    """An image of the year that a cell was made of."""

    source: str
    """Name of its source."""
    name: str
    """Last part of its id."""
    days: tuple[date, date]
    """First and last day; equal where it is of one day."""


@dataclass(frozen=True, kw_only=True)
class InventoryRows:
    """How outlines become rows of an inventory."""

    plan: CampaignPlan
    """Of the year."""
    images: Mapping[Address, frozenset[tuple[str, str]]]
    """Source and name of what each cell was made of."""
    providers: Sequence[str]
    """Who made the map."""
    given: Mapping[str, str]
    """Fields of ARTS that are the same in every row, by name."""
    is_reviewed: bool
    """Whether outlines have verdicts."""
    _dated: dict[tuple[str, str], DatedImage | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse fields that are none, and a map that says not which of its objects are slumps."""
        classes = [name for name in self.plan.prediction.classes if name != "background"]
        if len(classes) > 1:
            raise CampaignError(
                f"Inventories hold slumps alone, but {self.plan.name} maps {', '.join(classes)}. Leave their fields out (--fields)."
            )
        settable = [*_REQUIRED[2:], "ContributionDate", "Notes"]
        for name, value in self.given.items():
            if name not in settable:
                raise CampaignError(
                    f"A field of ARTS that is the same in every row is one of {', '.join(settable)}; got {name!r}."
                    + suggest(name, settable)
                )
            if name == "TrainClass" and self.is_reviewed:
                raise CampaignError(
                    "TrainClass is what reviewers say. Leave either it (--arts) or the review out (--review)."
                )
            if not value.strip():
                raise CampaignError(f"A field of ARTS is given as NAME=VALUE; got no value of {name}.")
            if name == "BaseMapResolution" and not _is_number(value):
                raise CampaignError(f"BaseMapResolution is a number of metres, above 0; got {value!r}.")

    def require_creator(self) -> None:
        """Refuse rows of ARTS without who made them."""
        if not self.providers and "CreatorLab" not in self.given:
            raise CampaignError(
                "ARTS names who made an outline. Say it with --provider NAME, or with --arts CreatorLab=NAME."
            )

    def arts(self, table: geopandas.GeoDataFrame, start: int) -> geopandas.GeoDataFrame:
        """Return rows of ARTS, in EPSG:3413."""
        rows: dict[str, Any] = dict.fromkeys(ARTS)
        table = _decided(table)
        noted = pd.DataFrame(table).reindex(columns=_NOTED)
        dated = self._images(table)
        whole_year = f"{self.plan.year}-01-01,{self.plan.year}-12-31"
        every = ",".join(sorted({source for images in self.images.values() for source, _ in images})) or self.plan.name
        rows |= {
            "CentroidLat": table["centroid_lat"].round(5),
            "CentroidLon": table["centroid_lon"].round(5),
            "RegionName": self.plan.name,
            "CreatorLab": ", ".join(self.providers),
            "BaseMapDate": [",".join(dict.fromkeys(map(str, _span(one)))) if one else whole_year for one in dated],
            "BaseMapSource": [",".join(sorted({each.source for each in one})) or every for one in dated],
            "BaseMapResolution": self._resolution,
            "TrainClass": np.where(noted["verdict"] == "other", "Negative", "Positive"),
            "LabelType": "Polygon",
            "BaseMapID": [one[0].name if len(one) == 1 else None for one in dated],
            "Area": table["area_m2"],
            "Notes": [_note(row) for row in noted.to_dict("records")],
        }
        rows |= {name: float(text) if name == "BaseMapResolution" else text for name, text in self.given.items()}
        made = conform(rows, table.geometry.to_crs("EPSG:3413"), dtypes=ARTS)
        made["UID"] = [arts_uid(row) for row in made[list(_REQUIRED)].to_dict("records")]
        return made

    def darts_level1(self, table: geopandas.GeoDataFrame, start: int) -> geopandas.GeoDataFrame:
        """Return rows of DARTS for outlines whose cells were made of one image of one day, in EPSG:4326: what several images show together is in no one of them."""
        table = _of_network(table)
        images = self._images(table)
        # Of one day, because a mosaic shows many.
        single = np.array([len(one) == 1 and len(set(one[0].days)) == 1 for one in images], bool)
        found = [one[0] for one, is_single in zip(images, single, strict=True) if is_single]
        parts = [_planet_parts(image.name) for image in found]
        rows = self._darts(table[single], start)
        rows |= {
            "image_id": [image.name for image in found],
            "date": [str(image.days[0]) for image in found],
            **{name: [part[place] for part in parts] for place, name in enumerate(("take_id", "tile_id", "satellite"))},
        }
        return conform(rows, to_geographic(table[single]).geometry, dtypes=DARTS_LEVEL1)

    def darts_level2(self, table: geopandas.GeoDataFrame, start: int) -> geopandas.GeoDataFrame:
        """Return rows of DARTS of the year, in EPSG:4326."""
        table = _of_network(table)
        images = self._images(table)
        spans = [_span(one) if one else (None, None) for one in images]
        rows = self._darts(table, start) | {
            "image_ids": [",".join(sorted({each.name for each in one})) or None for one in images],
            "first_date": [first and str(first) for first, _ in spans],
            "last_date": [last and str(last) for _, last in spans],
        }
        return conform(rows, to_geographic(table).geometry, dtypes=DARTS_LEVEL2)

    def _darts(self, table: geopandas.GeoDataFrame, start: int) -> dict[str, Any]:
        return {
            "id": np.arange(start + 1, start + len(table) + 1),
            "year": self.plan.year,
            "area_m2": table["area_m2"],
            **{name: table[name.replace("pval", "prob")] for name in _PVALUES},
            "model": table["bundle_digest"],
        }

    @property
    def _resolution(self) -> float:
        """Side of a pixel, m; of degrees, along a meridian."""
        axis = CRS(self.plan.grid.crs).axis_info[0]
        metres = np.radians(1) * 6_371_000 if axis.unit_name == "degree" else axis.unit_conversion_factor
        return round(float(self.plan.grid.resolution * metres), 3)

    def _images(self, table: geopandas.GeoDataFrame) -> list[list[DatedImage]]:
        """Return images of the year that the cells under each outline were made of, the earliest first."""
        grid, (x, y) = self.plan.grid, self.plan.grid.origin
        side = grid.cell_size * grid.resolution
        found = []
        for left, bottom, right, top in table.geometry.bounds.to_numpy():
            rows = range(int((y - top) // side), int(np.ceil((y - bottom) / side)))
            columns = range(int((left - x) // side), int(np.ceil((right - x) / side)))
            names = {one for iy in rows for ix in columns for one in self.images.get((iy, ix), ())}
            dated = [image for image in map(self._image, names) if image is not None]
            found.append(sorted(dated, key=lambda image: (image.days, image.source, image.name)))
        return found

    def _image(self, named: tuple[str, str]) -> DatedImage | None:
        if named not in self._dated:
            days = days_of(named[1])
            # Elevation and trends are of other years.
            is_of_year = days is not None and days[0].year == self.plan.year
            self._dated[named] = DatedImage(source=named[0], name=named[1], days=days) if days and is_of_year else None
        return self._dated[named]


_NOTED = ("footprint_id", "bundle_digest", "prob_max", "verdict", "is_added", "agreement", "review_date")
"""Columns that a note is made of; those of a review are missing where there was none."""


def _decided(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return outlines that reviewers have confirmed or refused; all where nobody was asked."""
    return table[table["verdict"].isin(["target", "other"])] if "verdict" in table.columns else table


def _of_network(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return outlines that the network has found and nobody has refused."""
    is_known = "verdict" in table.columns
    return table[(table["verdict"] != "other") & ~table["is_added"]] if is_known else table


def _note(row: Mapping[Any, Any]) -> str:
    """Return how an outline came to be, and how it was reviewed."""
    name, day = row["footprint_id"], "" if pd.isna(row["review_date"]) else f" on {row['review_date']:%Y-%m-%d}"
    if row["is_added"] is True:
        return f"Drawn by reviewers{day}, not found by the network: {name}"
    agreed = "" if pd.isna(row["agreement"]) else f", agreement {row['agreement']:.2f}"
    said = {"target": f"confirmed by reviewers{day}{agreed}", "other": f"refused by reviewers{day}{agreed}"}
    return (
        f"Found by a neural network, {said.get(row['verdict'], 'not reviewed')}: footprint {name}, model {row['bundle_digest']}, "
        f"greatest probability {row['prob_max']:.2f}"
    )


def _is_number(text: str) -> bool:
    try:
        return 0 < float(text) < np.inf
    except ValueError:
        return False


def _span(images: Sequence[DatedImage]) -> tuple[date, date]:
    return min(image.days[0] for image in images), max(image.days[1] for image in images)


def _planet_parts(image: str) -> tuple[str | None, str | None, str | None]:
    """Return take, tile and satellite, as the ids of PlanetScope's scenes and ortho tiles state them."""
    parts = image.split("_")
    if len(parts) >= 3 and re.fullmatch(r"\d{8}", parts[0]):
        return parts[1], None, parts[-1]
    if len(parts) == 4 and _DAY.fullmatch(parts[2]):
        return parts[0], parts[1], parts[3]
    return None, None, None


@dataclass(frozen=True, kw_only=True)
class InventoryFile:
    """A file of an inventory."""

    title: str
    """What it is."""
    form: VectorFormat
    """Its format."""
    crs: str
    """In which its outlines are."""
    dtypes: Mapping[str, str]
    """Its columns."""
    rows: Callable[[InventoryRows, geopandas.GeoDataFrame, int], geopandas.GeoDataFrame]
    """Makes rows of outlines; takes the number of those before."""

    @property
    def empty(self) -> geopandas.GeoDataFrame:
        """Its table without a row."""
        return conform({}, geopandas.GeoSeries([], crs=self.crs), dtypes=self.dtypes)

    def walk(
        self, inventory: InventoryRows, parts: Iterable[geopandas.GeoDataFrame]
    ) -> Iterator[geopandas.GeoDataFrame]:
        """Yield rows of parts of the outlines, one after the other."""
        start = 0
        for part in parts:
            made = self.rows(inventory, part, start)
            start += len(made)
            yield made


_GEOJSON = VectorFormat(
    suffix=".geojson", driver="GeoJSON", media_type="application/geo+json", is_geographic=False, options={}
)
INVENTORIES: Mapping[str, Mapping[str, InventoryFile]] = {
    "arts": {
        "arts.geojson": InventoryFile(
            title="Outlines with the fields of ARTS, as it takes contributions",
            form=_GEOJSON,
            crs="EPSG:3413",
            dtypes=ARTS,
            rows=InventoryRows.arts,
        )
    },
    "darts": {
        "darts_level1.gpkg": InventoryFile(
            title="Outlines on ground that one image shows, with fields of DARTS level 1",
            form=FORMATS["gpkg"],
            crs="EPSG:4326",
            dtypes=DARTS_LEVEL1,
            rows=InventoryRows.darts_level1,
        ),
        "darts_level2.gpkg": InventoryFile(
            title="All outlines of the year with fields of DARTS level 2",
            form=FORMATS["gpkg"],
            crs="EPSG:4326",
            dtypes=DARTS_LEVEL2,
            rows=InventoryRows.darts_level2,
        ),
    },
}
"""Files by name, by the name of the inventory."""


def inventory_files(names: Iterable[str]) -> dict[str, InventoryFile]:
    """Return the files of inventories.

    Raises
    ------
    CampaignError
        There is no such inventory.
    """
    files: dict[str, InventoryFile] = {}
    for name in names:
        if name not in INVENTORIES:
            raise CampaignError(
                f"Fields are those of {' or '.join(INVENTORIES)}; got {name!r}.{suggest(name, list(INVENTORIES))}"
            )
        files |= INVENTORIES[name]
    return files
