"""The ground that one cell looks at: its own pixels, what its tiles see, and the halo of its outlines. Pure integers."""

from dataclasses import dataclass

from odc.geo.geobox import GeoBox

from rtsx.campaign.cell_table import Address
from rtsx.campaign.plan import CampaignPlan, Region
from rtsx.inference.region import reading_region

__all__ = ["CellGround", "cell_geobox"]


def cell_geobox(plan: CampaignPlan, cell: Address) -> GeoBox:
    """Raster of all that a cell looks at: images that meet it are the cell's inputs."""
    return CellGround.of(plan, cell).geobox


@dataclass(frozen=True, kw_only=True)
class CellGround:
    """Pixels of the map around one cell."""

    plan: CampaignPlan
    """Whose map."""
    cell: Address
    """Row and column of the cell."""
    region: Region
    """Pixels of the cell."""
    read: Region
    """Pixels that its tiles see."""
    haloed: Region
    """The cell and the halo that its outlines look at, as far as the map goes."""

    @classmethod
    def of(cls, plan: CampaignPlan, cell: Address) -> "CellGround":
        """The ground of a cell of a plan.

        Raises
        ------
        CampaignError
            The map has no room for it.
        """
        region = plan.region(cell)
        halo = 0 if plan.outlines is None else plan.outlines.halo
        y, x = (
            slice(max(part.start - halo, 0), min(part.stop + halo, length))
            for part, length in zip(region, plan.shape, strict=True)
        )
        read = reading_region(plan.prediction.tiling, region)
        return cls(plan=plan, cell=cell, region=region, read=read, haloed=(y, x))

    @property
    def halo(self) -> int:
        """Pixels around the cell that its outlines look at, on all sides, beyond the map's end too."""
        return 0 if self.plan.outlines is None else self.plan.outlines.halo

    @property
    def geobox(self) -> GeoBox:
        """Raster of everything that is looked at."""
        y, x = (
            slice(min(one.start, other.start), max(one.stop, other.stop))
            for one, other in zip(self.read, self.haloed, strict=True)
        )
        return self.window((y, x))

    def window(self, region: Region) -> GeoBox:
        """Raster of some pixels of the map, which may lie beyond its ends."""
        side = self.plan.grid.cell_size
        top, left = self.plan.rows[0] * side, self.plan.columns[0] * side
        y, x = region
        return self.plan.grid.window((top + y.start, top + y.stop), (left + x.start, left + x.stop))

    @property
    def unread(self) -> tuple[Region, ...]:
        """The parts of the halo that no tile of the cell sees, each pixel once."""
        (top, bottom), (left, right) = ((part.start, part.stop) for part in self.haloed)
        seen_y, seen_x = self.read
        first, last = max(top, min(seen_y.start, bottom)), min(bottom, max(seen_y.stop, top))
        parts = (
            (slice(top, first), slice(left, right)),
            (slice(last, bottom), slice(left, right)),
            (slice(first, last), slice(left, seen_x.start)),
            (slice(first, last), slice(seen_x.stop, right)),
        )
        return tuple((y, x) for y, x in parts if y.start < y.stop and x.start < x.stop)

    @property
    def neighbours(self) -> tuple[tuple[Address, Region], ...]:
        """Other cells that the halo lies in, and the part of the halo in each."""
        side = self.plan.grid.cell_size
        y, x = self.haloed
        found = []
        for j in range(y.start // side, (y.stop - 1) // side + 1):
            for i in range(x.start // side, (x.stop - 1) // side + 1):
                address = (self.plan.rows[0] + j, self.plan.columns[0] + i)
                if address != self.cell:
                    rows = slice(max(y.start, j * side), min(y.stop, (j + 1) * side))
                    columns = slice(max(x.start, i * side), min(x.stop, (i + 1) * side))
                    found.append((address, (rows, columns)))
        return tuple(found)
