"""The plan of a campaign: which cells are run, by which tiles, into which shards. Frozen, comparable, saved beside the output.

Whatever changes a byte of the output is in here, so its digest is what marks are held against.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_type_hints

import numpy as np
from odc.geo.geobox import GeoBox

from rtsx.campaign.cell_table import Address, CellTable
from rtsx.campaign.outline_spec import OutlineSpec
from rtsx.campaign.tiling import CellWork, cell_work
from rtsx.errors import CampaignError
from rtsx.grid import Grid
from rtsx.inference.plan import PredictionPlan
from rtsx.parsing import damage_told, parsed_json

__all__ = ["CampaignPlan", "Region"]

Region = tuple[slice, slice]
"""Pixels (y, x) of the map."""


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
    """Backend and precision of the network, which move the last bits of its answers."""

    def __post_init__(self) -> None:
        """Refuse cells outside the map."""
        inside = (self.cells.addresses >= (self.rows[0], self.columns[0])) & (
            self.cells.addresses < (self.rows[1], self.columns[1])
        )
        if not inside.all():
            raise CampaignError(f"Cells lie outside the rows {self.rows} and columns {self.columns} of the map.")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the map, px."""
        side = self.grid.cell_size
        return (self.rows[1] - self.rows[0]) * side, (self.columns[1] - self.columns[0]) * side

    @cached_property
    def geobox(self) -> GeoBox:
        """Raster of the map."""
        side = self.grid.cell_size
        return self.grid.window(
            (self.rows[0] * side, self.rows[1] * side), (self.columns[0] * side, self.columns[1] * side)
        )

    @property
    def lattice_origin(self) -> tuple[float, float]:
        """Corner (x, y) in CRS units that tiles are anchored to.

        Whole strides off the grid's origin where tiles are cropped, so that they meet where cells do.
        """
        offset_y, offset_x = self.prediction.tiling.offset
        x, y = self.geobox.affine * (0, 0)
        return x - offset_x * self.grid.resolution, y + offset_y * self.grid.resolution

    def region(self, cell: Address) -> Region:
        """Pixels of the map that a cell covers.

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

    @cached_property
    def work(self) -> CellWork:
        """What the cells compute and read, tiles that several of them compute counted for each."""
        return cell_work(
            self.prediction.tiling, self.cells, rows=self.rows, columns=self.columns, side=self.grid.cell_size
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that changes bytes: everything but the name and the order of the cells.

        Which cells there are is in it, because outlines at the end of the mapped ground are flagged as cut.
        """
        document = self.to_document()
        del document["name"]
        addresses = self.cells.addresses
        in_order = addresses[np.lexsort((addresses[:, 1], addresses[:, 0]))]
        document["cells"] = hashlib.sha256(in_order.tobytes()).hexdigest()
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def to_document(self) -> dict[str, Any]:
        """All but the cells as JSON values; `cells` is the digest of their array."""
        return {
            "name": self.name,
            "year": self.year,
            "grid": asdict(self.grid),
            "rows": list(self.rows),
            "columns": list(self.columns),
            "cells": hashlib.sha256(self.cells.addresses.tobytes()).hexdigest(),
            "prediction": json.loads(self.prediction.to_json()),
            "layers": dict(self.layers),
            "outlines": None if self.outlines is None else asdict(self.outlines),
            "cogs": self.cogs,
            "shard": self.shard,
            "chunk": self.chunk,
            "runtime": dict(self.runtime),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], cells: CellTable) -> "CampaignPlan":
        """The plan that `to_document` wrote, equal to it.

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
        with damage_told("This is no plan of a campaign, which", CampaignError):
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
