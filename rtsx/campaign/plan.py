"""The plan of a campaign: which cells, by which tiles, into which shards. Frozen, comparable, saved beside the output.

Whatever changes a byte of the output is in here, so its digest is what marks are held against.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.cells import Address, CellTable, CellWork, cell_work
from rtsx.campaign.layout import CAMPAIGN, YearLayout
from rtsx.campaign.recipe import OutlineSpec
from rtsx.errors import CampaignError
from rtsx.geometry.pixels import PixelMesh
from rtsx.grid import Grid
from rtsx.grid.grid import cell_id
from rtsx.inference.plan import PredictionPlan, Region
from rtsx.pages import html_table
from rtsx.parsing import first_difference, parsed_json, without_retired, wrap_damage
from rtsx.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, kw_only=True)
class CampaignPlan:
    """What a campaign does in one year."""

    name: str
    """Name of the campaign."""
    year: int
    """Year of the map."""
    grid: Grid
    """Whose cells they are."""
    rows: tuple[int, int]
    """Rows of cells that the map has room for, half-open."""
    columns: tuple[int, int]
    """Columns of cells that the map has room for, half-open."""
    cells: CellTable
    """Cells in the order in which they are run; all within `rows` and `columns`."""
    prediction: PredictionPlan
    """How the map is predicted; its tiling is that of the whole map, whatever part of it is run."""
    layers: Mapping[str, Any]
    """Description of the recipe of the layers, as `describe_recipe` gives it."""
    outlines: OutlineSpec | None
    """How objects are outlined; None: not at all."""
    cogs: bool
    """Whether cells are written as GeoTIFFs too."""
    shard: int
    """Side of a shard of the map, px."""
    chunk: int
    """Side of a chunk, px."""
    runtime: Mapping[str, str]
    """Backend and precision of the network, which change the last bits of its outputs."""

    def __post_init__(self) -> None:
        """Refuse cells outside the map."""
        inside = (self.cells.addresses >= (self.rows[0], self.columns[0])) & (
            self.cells.addresses < (self.rows[1], self.columns[1])
        )
        if not inside.all():
            raise CampaignError(f"Cells lie outside the rows {self.rows} and columns {self.columns} of the map.")

    def _repr_html_(self) -> str:
        return html_table(f"Plan of campaign {self.name} {self.year}", self.summary)

    @property
    def summary(self) -> list[tuple[str, object]]:
        """What it says in a few words, by name."""
        height, width = self.shape
        return [
            ("cells", f"{len(self.cells):,} of {self.grid.cell_size} px"),
            ("map", f"{height:,} x {width:,} px of {self.grid.resolution:g} in {self.grid.crs}"),
            *self.prediction.summary,
        ]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the map, px."""
        side = self.grid.cell_size
        return (self.rows[1] - self.rows[0]) * side, (self.columns[1] - self.columns[0]) * side

    @property
    def halo(self) -> int:
        """Pixels around a cell that its outlines look at, on all sides, beyond the map's end too."""
        return 0 if self.outlines is None else self.outlines.halo

    @cached_property
    def geobox(self) -> "GeoBox":
        """Raster of the map."""
        side = self.grid.cell_size
        return self.grid.window(
            (self.rows[0] * side, self.rows[1] * side), (self.columns[0] * side, self.columns[1] * side)
        )

    def areas_m2(self, cells: Iterable[Address]) -> NDArray[np.float64]:
        """Return the ground that cells cover, m² on the WGS84 ellipsoid."""
        of_cells = PixelMesh(self.geobox.zoom_out(self.grid.cell_size))
        places = np.array([*cells], np.float64).reshape(-1, 2) - (self.rows[0], self.columns[0])
        return of_cells.areas_at(*places.T)

    @property
    def lattice_origin(self) -> tuple[float, float]:
        """Corner (x, y) in CRS units that tiles are anchored to.

        Whole strides off the grid's origin where tiles are cropped, so that they meet where cells do.
        """
        offset_y, offset_x = self.prediction.tiling.offset
        x, y = self.geobox.affine * (0, 0)
        return x - offset_x * self.grid.resolution, y + offset_y * self.grid.resolution

    def region(self, cell: Address) -> Region:
        """Return pixels of the map that a cell covers.

        Raises
        ------
        CampaignError
            The map has no room for it.
        """
        iy, ix = cell
        if not (self.rows[0] <= iy < self.rows[1] and self.columns[0] <= ix < self.columns[1]):
            raise CampaignError(f"Cell {cell} lies outside the rows {self.rows} and columns {self.columns} of the map.")
        side = self.grid.cell_size
        top, left = (iy - self.rows[0]) * side, (ix - self.columns[0]) * side
        return slice(top, top + side), slice(left, left + side)

    def cells_under(self, rows: slice, columns: slice) -> Iterator[tuple[Address, Region]]:
        """Yield the cells under a window of the map, planned or not, and the pixels of the map that each has in it."""
        side = self.grid.cell_size
        for iy in range(rows.start // side, -(-rows.stop // side)):
            for ix in range(columns.start // side, -(-columns.stop // side)):
                y, x = (
                    slice(max(place * side, part.start), min((place + 1) * side, part.stop))
                    for place, part in ((iy, rows), (ix, columns))
                )
                yield (self.rows[0] + iy, self.columns[0] + ix), (y, x)

    @cached_property
    def work(self) -> CellWork:
        """What the cells compute and read, tiles that several of them compute counted for each."""
        return cell_work(
            self.prediction.tiling, self.cells, rows=self.rows, columns=self.columns, side=self.grid.cell_size
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that changes bytes of cells: everything but the name, the order of the cells, and water.

        Which cells there are is in it, because outlines at the end of the mapped area are flagged as cut.
        """
        document = self.to_document()
        del document["name"]
        for name in ("water", "max_water"):
            (document["outlines"] or {}).pop(name, None)
        addresses = self.cells.addresses
        in_order = addresses[np.lexsort((addresses[:, 1], addresses[:, 0]))]
        document["cells"] = hashlib.sha256(in_order.tobytes()).hexdigest()
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def to_document(self) -> dict[str, Any]:
        """Convert all but the cells to JSON values; `cells` is the digest of their array."""
        return {
            "name": self.name,
            "year": self.year,
            "grid": asdict(self.grid),
            "rows": list(self.rows),
            "columns": list(self.columns),
            "cells": hashlib.sha256(self.cells.addresses.tobytes()).hexdigest(),
            "prediction": json.loads(self.prediction.to_json()),
            "layers": dict(self.layers),
            "outlines": None if self.outlines is None else self.outlines.to_document(),
            "cogs": self.cogs,
            "shard": self.shard,
            "chunk": self.chunk,
            "runtime": dict(self.runtime),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], cells: CellTable) -> "CampaignPlan":
        """Read the plan that `to_document` wrote, equal to it.

        Raises
        ------
        CampaignError
            It is no such document, or the cells are others than it was written with.
        """
        hints = {name: hint for name, hint in get_type_hints(cls).items() if name != "cells"}
        unknown = sorted(set(document) - set(hints) - {"cells"})
        if unknown:
            raise CampaignError(
                f"This is no plan of a campaign, which has no {', '.join(unknown)}. Plan the campaign again."
            )
        with wrap_damage("This is no plan of a campaign, which", CampaignError):
            values = {
                name: parsed_json(
                    json.dumps(document[name]), hint, what=f"This is no plan of a campaign, {name}", error=CampaignError
                )
                for name, hint in hints.items()
            }
            plan = cls(cells=cells, **values)
            expected = document["cells"]
        if plan.to_document()["cells"] != expected:
            raise CampaignError(
                "The list of cells beside the plan is another than it was planned with. Plan the campaign again."
            )
        return plan


def write_plan(objects: ObjectStore, plan: CampaignPlan, *, config: str = "") -> None:
    """Write a plan for its year, the document itself last; nothing happens where an equal one is there.

    Parameters
    ----------
    objects
        Below the output.
    plan
        What will be run.
    config
        Text that is stored beside it, such as the resolved YAML that it comes from.

    Raises
    ------
    CampaignError
        Another plan is there for this year, or the map of the other years has another grid, extent or classes.
    """
    layout = YearLayout(plan.year)
    stored = read_plan(objects, plan.year)
    if stored is not None:
        require_same(stored, plan)
        return
    require_same_map(objects, plan)
    cells = io.BytesIO()
    np.save(cells, plan.cells.addresses, allow_pickle=False)
    objects.put(layout.cells, cells.getvalue())
    objects.put(layout.config, config.encode())
    if not objects.create(layout.plan, _content(plan)):
        stored = read_plan(objects, plan.year)  # somebody else was faster
        assert stored is not None
        require_same(stored, plan)


def put_plan(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Replace the stored plan by one of the same cells and digest."""
    objects.put(YearLayout(plan.year).plan, _content(plan))


def _content(plan: CampaignPlan) -> bytes:
    return json.dumps(plan.to_document(), sort_keys=True, indent=1).encode()


def read_plan(objects: ObjectStore, year: int) -> CampaignPlan | None:
    """Read the plan of a year, equal to the one that was written; None where there is none.

    Raises
    ------
    CampaignError
        What is there is no plan, or its cells are gone or others.
    """
    layout = YearLayout(year)
    document = objects.get(layout.plan)
    if document is None:
        return None
    content = objects.get(layout.cells)
    if content is None:
        raise CampaignError(
            f"{layout.plan} is there, but not the cells beside it, {layout.cells}. Remove {layout.plan} and plan the year again."
        )
    try:
        addresses = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CampaignError(
            f"{layout.cells} holds no cells of a campaign: {error}. Remove {layout.plan} and plan the year again."
        ) from error
    described = parsed_json(document, dict[str, Any], what=layout.plan, error=CampaignError)
    try:
        return CampaignPlan.from_document(described, CellTable(addresses))
    except CampaignError as error:
        raise CampaignError(f"{layout.plan} cannot be read: {error}") from error


def require_same_map(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Note what all years of an output share, or refuse a plan that does not share it.

    Raises
    ------
    CampaignError
        Grid, extent, classes, shards or chunks are others than those of the years before.
    """
    document = json.loads(json.dumps(plan.to_document() | {"classes": plan.prediction.classes}))
    mine = {name: document[name] for name in ("grid", "rows", "columns", "shard", "chunk", "classes")}
    content = json.dumps({"name": plan.name, **mine}, sort_keys=True).encode()
    if objects.create(CAMPAIGN, content):
        return
    theirs = parsed_json(objects.get(CAMPAIGN) or b"", dict[str, Any], what=CAMPAIGN, error=CampaignError)
    if missing := sorted(set(mine) - set(theirs)):
        raise CampaignError(
            f"{CAMPAIGN} in this output is no campaign's: it lacks {', '.join(missing)}. Take another output."
        )
    found = first_difference({name: theirs[name] for name in mine}, mine)
    if found is not None:
        raise CampaignError(
            f"The years of one output share one array, and {plan.year} does not fit those before it: {found}. Take the same "
            "grid, extent, classes, shard and chunk, or another output. An extent of all years' ground lets regions differ."
        )


def require_same(stored: CampaignPlan, plan: CampaignPlan) -> None:
    """Refuse a plan that would write other bytes than the one that is stored; name and order of cells may differ.

    Raises
    ------
    CampaignError
        They differ; the message says in what.
    """
    if stored.digest == plan.digest:
        return
    stored = replace(stored, layers=without_retired(stored.layers))  # of a version between
    if stored.digest == plan.digest:
        return
    raise CampaignError(
        f"The output holds a plan of {stored.year}, and this one would write other bytes: "
        + "; ".join(_differences(stored, plan))
        + ". Restore what was, or take another output."
    )


def _differences(stored: CampaignPlan, plan: CampaignPlan) -> Iterator[str]:
    before, after = stored.prediction, plan.prediction
    if stored.year != plan.year:
        yield f"the year is {stored.year} there and {plan.year} here"
    if stored.grid != plan.grid:
        yield f"the grid is {stored.grid} there and {plan.grid} here"
    elif (stored.rows, stored.columns) != (plan.rows, plan.columns):
        yield (
            f"the extent is rows {stored.rows} and columns {stored.columns} of cells there, rows {plan.rows} and columns "
            f"{plan.columns} here"
        )
    if before.members != after.members:
        there, here = ([digest[:12] for digest in one.members] for one in (before, after))
        yield f"the bundles changed: their digests are {there} there and {here} here"
    layers = first_difference(dict(stored.layers), dict(plan.layers), name="layers")
    if layers is not None:
        yield f"the layers changed: {layers}"
    cells, others = set(stored.cells), set(plan.cells)
    for those, what in ((cells - others, "are missing"), (others - cells, "are new")):
        if those:
            yield f"{len(those)} cells {what}, such as {cell_id(*min(those))}"
    rest, other = (_rest(one.to_document()) for one in (stored, plan))
    for name in rest:
        found = first_difference(rest[name], other[name], name=name)
        if found is not None:
            yield found


def _rest(document: dict[str, Any]) -> dict[str, Any]:
    """Return what has no words of its own, by the keys of a recipe: tiles, threshold, outlines, shards, runtime."""
    named = ("name", "year", "grid", "rows", "columns", "cells", "layers")
    rest = {name: value for name, value in document.items() if name not in named}
    # The tiling's place and size follow from grid and extent, which have been named.
    unnamed = ("members", "tiling", "keep_members", "shape", "offset")
    every = rest["prediction"] | rest["prediction"]["tiling"] | {"spread": rest["prediction"]["keep_members"]}
    return rest | {"prediction": {name: value for name, value in every.items() if name not in unnamed}}
