"""Settle what a delivery is going to be, from what is asked for, the marks of the year and an earlier delivery; before a byte is written."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import geopandas

from rtsx.campaign.cells import Address
from rtsx.campaign.ledger import CampaignLedger
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.preflight import require_space
from rtsx.campaign.products.coarse import EXPECTED
from rtsx.campaign.products.inventories import INVENTORIES, InventoryRows, inventory_files
from rtsx.campaign.products.package import CHECKSUMS, OVERVIEW, PROVENANCE, Package, require_own
from rtsx.campaign.products.rasters import NAMES, CellTiling, MatrixTiling, RasterFile, Tiling
from rtsx.campaign.products.reviews import Verdicts
from rtsx.campaign.products.stac import checked_licence
from rtsx.campaign.products.tables import CellStates, Record, cell_states, mapped_cells
from rtsx.campaign.records import CommitRecord
from rtsx.errors import CampaignError
from rtsx.grid.grid import cell_id
from rtsx.parsing import parsed_json
from rtsx.storage import local_path, refuse_other_format, without_query
from rtsx.storage.object_store import open_object_store

if TYPE_CHECKING:
    from rtsx.campaign.campaign import Campaign

STAC_COLLECTION = "collection.json"
"""The STAC collection of a package."""


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


@dataclass(frozen=True, kw_only=True)
class DeliveryPlan:
    """What a package is going to be, checked before a byte of it is written."""

    plan: CampaignPlan
    """Of the year."""
    package: Package
    identity: Record
    """What stays as it is in a package, however often it is brought up to date."""
    choices: "DeliveryChoices"
    tiling: Tiling
    files: Sequence[RasterFile]
    """Rasters that meet a cell with a map."""
    providers: Mapping[str, str]
    """Address by name; empty where there is none."""
    estimates: Sequence[Record]
    """Of accuracy, by a reviewed sample."""
    inventory: InventoryRows | None
    """Makes outlines into rows of inventories; None where nobody wants those."""
    history: "YearHistory"
    verdicts: Verdicts | None

    @classmethod
    def of(cls, campaign: "Campaign", request: DeliveryRequest) -> "DeliveryPlan":
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
        choices = DeliveryChoices.of(package).updated(request)
        estimates = [] if request.accuracy is None else _estimates(request.accuracy)
        providers = dict(_provider(one) for one in choices.providers)
        inventories = inventory_files(choices.fields)
        if inventories and not request.outlines:
            raise CampaignError("Fields are those of outlines. Leave either --fields or --no-outlines out.")
        history = YearHistory.of(campaign.ledger, plan, by_cell=bool(inventories))
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
            plan=plan,
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
class DeliveryChoices:
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
    def of(cls, package: Package) -> "DeliveryChoices":
        """Read those of a package; the defaults where there is none."""
        content = package.objects.get(PROVENANCE)
        document = {"choices": {}} if content is None else json.loads(content)
        if "choices" not in document:
            return cls._of_files(package, is_reviewed="review" in document)
        return parsed_json(json.dumps(document["choices"]), cls, what=PROVENANCE, error=CampaignError)

    @classmethod
    def _of_files(cls, package: Package, *, is_reviewed: bool) -> "DeliveryChoices":
        """Take those of a package of an earlier version, which did not keep them, from its files."""
        get = package.objects.get
        content, caveats = get(STAC_COLLECTION) or b"{}", get("CAVEATS.md") or b""
        stated = parsed_json(content, dict[str, Any], what=STAC_COLLECTION, error=CampaignError)
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

    def updated(self, request: DeliveryRequest) -> "DeliveryChoices":
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
        return DeliveryChoices(
            license=checked_licence(self.license if request.licence is None else request.licence),
            providers=self.providers if request.providers is None else tuple(request.providers),
            fields=fields,
            arts=arts,
            expected_area=self.expected_area if request.expected_area is None else request.expected_area,
            accuracy=is_accurate,
            review=is_reviewed,
        )


@dataclass(frozen=True, kw_only=True)
class YearHistory:
    """What the marks of a year say."""

    states: CellStates
    images: Mapping[tuple[str, str], int]
    """Cells by source and id of what they were made of."""
    unread: Mapping[tuple[str, str], int]
    """Cells that were made without an image, because it could not be read, likewise."""
    versions: Mapping[str, set[str]]
    """Versions of the libraries that cells were made with."""
    by_cell: Mapping[Address, frozenset[tuple[str, str]]]
    """Source and last part of the id of what each cell was made of; empty where nobody needs it."""

    @property
    def sources(self) -> Counter[str]:
        """Images by source."""
        return Counter(source for source, _ in self.images)

    @classmethod
    def of(cls, ledger: CampaignLedger, plan: CampaignPlan, *, by_cell: bool) -> "YearHistory":
        """Walk the marks once; `by_cell` where images of single cells are needed."""
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
                    of_cells[mark.cell] = frozenset((source, last_part(image)) for source, image in used - gaps)
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


def last_part(image: str) -> str:
    """Return the name that ends the id of an image."""
    return image.rstrip("/").rsplit("/", 1)[-1]


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
