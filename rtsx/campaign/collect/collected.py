"""What collecting has made of the cells of a year."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Collected"]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Products of one year. Keys are relative to the output; None where a product was not asked for or cannot be."""

    output: str
    """Folder or URL of the campaign."""
    year: int
    """The year."""
    n_cells: int
    """Finished cells that the products are made of."""
    n_missing: int
    """Planned cells that are not finished; outlines beside them are flagged as cut."""
    footprints: str | None
    """Folder of the GeoParquet dataset of footprints, a file per partition with a column `bbox`."""
    n_footprints: int
    """Its rows."""
    level2: str | None
    """Folder of level 2, likewise."""
    tracks: str | None
    """Folder of the tracks up to this year, likewise; None where no earlier year was collected."""
    n_tracked: int
    """Rows of the tracks: footprints of all years."""
    files: Mapping[str, str]
    """SHA-256 of the files that hold all footprints at once, by key."""
    overview_levels: int
    """Levels below the full resolution of the map that are up to date."""
    overview_shards: int
    """Shards of the overviews that were made again, of each variable."""
    stac: str | None
    """The STAC collection of the year."""
    n_items: int
    """Its items."""
    rewritten: tuple[str, ...]
    """Keys that were written because they were new or differed, sorted; without shards of overviews."""
    removed: tuple[str, ...]
    """Keys that were removed, sorted."""

    def __str__(self) -> str:
        cells = f"{self.n_cells} cells" + (f", {self.n_missing} not finished yet" if self.n_missing else "")
        made = [f"{self.n_footprints} footprints"] if self.footprints is not None else []
        made += [f"{self.n_tracked} rows of tracks"] if self.tracks is not None else []
        made += [f"{self.overview_levels} levels of overviews"] if self.overview_levels else []
        made += [f"{self.n_items} STAC items"] if self.stac is not None else []
        written = f"{len(self.rewritten)} files and {self.overview_shards} shards of overviews were written"
        return (
            f"{self.year}: {cells}; {', '.join(made) or 'nothing collected'}; {written}, {len(self.removed)} removed."
        )
