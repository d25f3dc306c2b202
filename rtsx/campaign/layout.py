"""Where everything of a campaign lies below its output: names only, the same on a disk and in an object store."""

from dataclasses import dataclass

from rtsx.campaign.cells import Address
from rtsx.grid.grid import cell_id, parse_cell_id

CAMPAIGN = "campaign.json"
"""What all years share: name, grid, extent, layers of the map."""
MAP = "map.zarr"
"""The sparse map of all years, a Zarr group."""


class _Key:
    """A key below the root of a layout."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layout: "YearLayout", kind: type) -> str:
        return f"{layout.root}/{self._name}"


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
        """Return keys of the cells of a plan in a store of fetched pixels."""
        return cls(year, f"plans/{digest[:16]}")

    @property
    def root(self) -> str:
        """Folder of all below."""
        return self.folder or f"years/{self.year}"

    plan = _Key("plan.json")
    """The frozen plan; written last of all that planning writes."""
    cells = _Key("cells.npy")
    """Addresses of the cells, an array in NumPy's format, which the plan names by its digest."""
    config = _Key("config.yaml")
    """The config that the plan comes from, resolved."""
    searches = _Key("searches.json")
    """What the searches of STAC APIs were, and which tables answer them."""
    searches_begun = _Key("searches.begun.json")
    """Which searches are answered already, while others are not."""
    items = _Key("items")
    """Folder of the tables of items."""
    marks = _Key("marks")
    """Folder of the commit marks."""
    retired = _Key("retired")
    """Folder of the marks of cells that were run again."""
    leases = _Key("leases")
    """Folder of the leases."""
    failures = _Key("failures")
    """Folder of what was set aside."""
    outlines = _Key("outlines")
    """Folder of the outlines of single cells, not merged yet."""
    cogs = _Key("cogs")
    """Folder of the GeoTIFFs of single cells."""
    runs = _Key("runs")
    """Folder of the records of runs."""
    notified = _Key("notified.json")
    """Keys of the alerts that were sent."""
    drift = _Key("drift.json")
    """The drift check: statistics of a sample of the year's images, what they were compared with, and who accepted what."""
    drift_page = _Key("drift.html")
    """The same as a page."""
    stages = _Key("stages")
    """Folder of the records of stages."""
    review = _Key("review")
    """Folder of the review of the year's outlines, where somebody made one here."""
    products = _Key("products")
    """Folder of what is collected from all cells."""

    def mark(self, cell: Address) -> str:
        """Commit mark of a cell."""
        return f"{self.marks}/{cell_id(*cell)}.json"

    def retirement(self, cell: Address, digest: str) -> str:
        """Return the mark of a cell that was run again; the first letters of a digest of its text keep several apart."""
        return f"{self.retired}/{cell_id(*cell)}.{digest[:12]}.json"

    def failure(self, cell: Address) -> str:
        """Return why a cell was set aside."""
        return f"{self.failures}/{cell_id(*cell)}.json"

    def lease(self, cell: Address, generation: int) -> str:
        """Return the key of one lease of a cell; whoever takes over creates the next generation."""
        return f"{self.leases}/{cell_id(*cell)}.{generation:06d}.json"

    def run_record(self, run: str) -> str:
        """Return the key of the record of a run."""
        return f"{self.runs}/{run}.json"

    def stage(self, name: str) -> str:
        """Return a record of a stage that reads or packs all cells."""
        return f"{self.stages}/{name}.json"

    def item_table(self, source: str, digest: str) -> str:
        """Return items that one search of a source has found; the first letters of a digest of the table keep several apart."""
        return f"{self.items}/{source}.{digest[:12]}.parquet"

    def outline(self, cell: Address) -> str:
        """Return outlines of a cell."""
        return f"{self.outlines}/{cell_id(*cell)}.parquet"

    def cog(self, cell: Address, variable: str) -> str:
        """Return GeoTIFF of one variable of a cell."""
        return f"{self.cogs}/{cell_id(*cell)}_{variable}.tif"

    @staticmethod
    def address_of(key: str) -> Address:
        """Return the cell that a key of the above belongs to."""
        return parse_cell_id(key.rsplit("/", 1)[-1].split(".")[0].split("_")[0])
