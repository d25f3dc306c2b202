"""Where everything of a campaign lies below its output: names only, the same on a disk and in an object store."""

from dataclasses import dataclass

from rtsx.campaign.cells import Address
from rtsx.grid.grid import cell_id, parse_cell_id

CAMPAIGN = "campaign.json"
"""What all years share: name, grid, extent, layers of the map."""
MAP = "map.zarr"
"""The sparse map of all years, a Zarr group."""


@dataclass(frozen=True)
class YearLayout:
    """Keys of one year, relative to the output, with slashes.

    Examples
    --------
    >>> year = YearLayout(2024)
    >>> year.plan, year.mark((-5, -61)), year.address_of(year.mark((-5, -61)))
    ('years/2024/plan.json', 'years/2024/marks/r-005c-061.json', (-5, -61))
    >>> YearLayout.of_fetched(2024, "0123456789abcdef0123").mark((-5, -61))
    'plans/0123456789abcdef/marks/r-005c-061.json'
    """

    year: int
    folder: str = ""
    """Of a plan or an image in a store of fetched pixels, by cell or by row and column of blocks; empty for the output of a campaign."""

    @classmethod
    def of_fetched(cls, year: int, digest: str) -> "YearLayout":
        """Keys of the cells of a plan in a store of fetched pixels."""
        return cls(year, f"plans/{digest[:16]}")

    @property
    def root(self) -> str:
        """Folder of all below."""
        return self.folder or f"years/{self.year}"

    @property
    def plan(self) -> str:
        """The frozen plan; written last of all that planning writes."""
        return f"{self.root}/plan.json"

    @property
    def cells(self) -> str:
        """Addresses of the cells, an array in NumPy's format, which the plan names by its digest."""
        return f"{self.root}/cells.npy"

    @property
    def config(self) -> str:
        """The config that the plan comes from, resolved."""
        return f"{self.root}/config.yaml"

    @property
    def searches(self) -> str:
        """What the searches of STAC APIs were, and which tables answer them."""
        return f"{self.root}/searches.json"

    @property
    def searches_begun(self) -> str:
        """Which searches are answered already, while others are not."""
        return f"{self.root}/searches.begun.json"

    @property
    def items(self) -> str:
        """Folder of the tables of items."""
        return f"{self.root}/items"

    @property
    def marks(self) -> str:
        """Folder of the commit marks."""
        return f"{self.root}/marks"

    @property
    def retired(self) -> str:
        """Folder of the marks of cells that were run again."""
        return f"{self.root}/retired"

    @property
    def leases(self) -> str:
        """Folder of the leases."""
        return f"{self.root}/leases"

    @property
    def failures(self) -> str:
        """Folder of what was set aside."""
        return f"{self.root}/failures"

    @property
    def outlines(self) -> str:
        """Folder of the outlines of single cells, not merged yet."""
        return f"{self.root}/outlines"

    @property
    def cogs(self) -> str:
        """Folder of the GeoTIFFs of single cells."""
        return f"{self.root}/cogs"

    @property
    def runs(self) -> str:
        """Folder of the records of runs."""
        return f"{self.root}/runs"

    @property
    def notified(self) -> str:
        """Keys of the alerts that were sent."""
        return f"{self.root}/notified.json"

    @property
    def drift(self) -> str:
        """The drift check: statistics of a sample of the year's images, what they were compared with, and who accepted what."""
        return f"{self.root}/drift.json"

    @property
    def drift_page(self) -> str:
        """The same as a page."""
        return f"{self.root}/drift.html"

    @property
    def stages(self) -> str:
        """Folder of the records of stages."""
        return f"{self.root}/stages"

    def stage(self, name: str) -> str:
        """Record of a stage that reads or packs all cells."""
        return f"{self.stages}/{name}.json"

    @property
    def review(self) -> str:
        """Folder of the review of the year's outlines, where somebody made one here."""
        return f"{self.root}/review"

    @property
    def products(self) -> str:
        """Folder of what is collected from all cells."""
        return f"{self.root}/products"

    def mark(self, cell: Address) -> str:
        """Commit mark of a cell."""
        return f"{self.marks}/{cell_id(*cell)}.json"

    def retirement(self, cell: Address, digest: str) -> str:
        """Mark of a cell that was run again; the first letters of a digest of its text keep several apart."""
        return f"{self.retired}/{cell_id(*cell)}.{digest[:12]}.json"

    def failure(self, cell: Address) -> str:
        """Why a cell was set aside."""
        return f"{self.failures}/{cell_id(*cell)}.json"

    def lease(self, cell: Address, generation: int) -> str:
        """Return the key of one lease of a cell; whoever takes over creates the next generation."""
        return f"{self.leases}/{cell_id(*cell)}.{generation:06d}.json"

    def run_record(self, run: str) -> str:
        """Return the key of the record of a run."""
        return f"{self.runs}/{run}.json"

    def item_table(self, source: str, digest: str) -> str:
        """Items that one search of a source has found; the first letters of a digest of the table keep several apart."""
        return f"{self.items}/{source}.{digest[:12]}.parquet"

    def outline(self, cell: Address) -> str:
        """Outlines of a cell."""
        return f"{self.outlines}/{cell_id(*cell)}.parquet"

    def cog(self, cell: Address, variable: str) -> str:
        """GeoTIFF of one variable of a cell."""
        return f"{self.cogs}/{cell_id(*cell)}_{variable}.tif"

    @staticmethod
    def address_of(key: str) -> Address:
        """Cell that a key of the above belongs to."""
        return parse_cell_id(key.rsplit("/", 1)[-1].split(".")[0].split("_")[0])
