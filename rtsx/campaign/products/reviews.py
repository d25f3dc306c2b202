"""What reviewers say of the outlines of a delivery: verdicts beside them, corrected ones in their place, and what the map has missed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.tables import CellStates, empty_outlines
from rtsx.errors import CampaignError
from rtsx.footprints.schema import known_dtypes
from rtsx.grid.grid import cell_id
from rtsx.labels.schema import conform
from rtsx.scores.agreement import VERDICTS

REVIEWED = {
    "verdict": "object",
    "agreement": "float64",
    "review_date": "datetime64[ms]",
    "is_corrected": "bool",
    "is_added": "bool",
}
"""Columns that outlines have of a review, and their pandas dtypes."""

_MEASURED = ("area_m2", "perimeter_m", "centroid_lat", "centroid_lon")
SAME = ("n_pixels", "prob_max")
"""What no reviewer changes, so that an outline of another map on the same pixels is known by it."""


def are_same(outlines: pd.DataFrame, others: pd.DataFrame) -> NDArray[np.bool_]:
    """Test, row by row, whether outlines of equal names are of one map."""
    one, other = (table[list(SAME)].to_numpy(np.float64) for table in (outlines, others))
    return np.asarray(np.isclose(one, other).all(axis=1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """A review of the outlines of a year, of all or of a sample; or of a sample of its ground."""

    rows: geopandas.GeoDataFrame
    """Reviewed outlines of the map by `footprint_id`, in the map's CRS, with the columns of `REVIEWED`; none of a sample of the ground."""
    added: geopandas.GeoDataFrame
    """What reviewers have drawn, likewise."""
    is_ground: bool
    """Whether its units are points of the ground instead of outlines."""
    is_sample: bool
    """Whether units were drawn at random, so that the others are known by them."""
    units: int
    """Outlines or points that reviewers are asked for."""
    reviewed: int
    """Those with a verdict."""

    @classmethod
    def of(cls, table: geopandas.GeoDataFrame, plan: CampaignPlan, states: CellStates) -> "Verdicts":
        """Check a table of verdicts, as a review is merged into, against the plan; the outlines come later, see `matched`.

        Raises
        ------
        CampaignError
            It is no review, nothing of it is reviewed, or its points lie outside of the map.
        """
        is_ground = "design" in table.columns and bool((table["design"] == "ground").any())
        needed = ("verdict", "sample_id") if is_ground else ("verdict", "footprint_id", *SAME)
        missing = [name for name in needed if name not in table.columns]
        if missing or table.crs is None:
            raise CampaignError(
                f"A review has a CRS and the columns {', '.join(needed)}, and this lacks {', '.join(missing) or 'the CRS'}. "
                "Give what rtsx review create made, or the folder or file that rtsx review merge wrote."
            )
        verdict = table["verdict"].where(table["verdict"].notna(), None)
        strange = sorted({str(one) for one in verdict.dropna()} - set(VERDICTS))
        if strange:
            raise CampaignError(f"A verdict is {', '.join(VERDICTS)} or missing; got {', '.join(strange)}.")
        if verdict.isna().all():
            raise CampaignError(
                "Nothing of this review has a verdict yet. Review some first, or leave it out (--review)."
            )
        placed = table.to_crs(plan.grid.crs).assign(verdict=verdict)
        is_added = _flag(placed, "is_added")
        if is_ground:  # of which nothing is drawn
            _require_on_map(placed, plan, states)
        own = placed[:0].assign(footprint_id="") if is_ground else placed[~is_added]
        names = own["footprint_id"].astype(str)
        if names.duplicated().any():
            raise CampaignError(
                f"A review has each outline once, but {names[names.duplicated()].iloc[0]} is in it twice: are these several reviews?"
            )
        is_sample = "sample_id" in table.columns
        # In an order that no file changes.
        added = _with_review(placed[is_added].sort_values("sample_id" if is_sample else "footprint_id"))
        return cls(
            rows=_with_review(own).set_index(pd.Index(names, name="outline")),
            # Not by their own names, which hold those of reviewers.
            added=added.assign(footprint_id=[f"added-{number}" for number in range(1, len(added) + 1)]),
            is_ground=is_ground,
            is_sample=is_sample,
            units=int((~is_added).sum()),
            reviewed=int(verdict[~is_added].notna().sum()),
        )

    def matched(self, parts: Iterable[geopandas.GeoDataFrame]) -> None:
        """Refuse a review of which an outline is not among those of the map.

        Raises
        ------
        CampaignError
            Names one.
        """
        left = self.rows
        for part in parts:
            here = part.set_index("footprint_id")
            both = left.index[left.index.isin(here.index)]
            left = left.drop(both[are_same(left.loc[both], here.loc[both])])
        if len(left):
            raise CampaignError(
                f"{len(left):,} of {len(self.rows):,} outlines of the review are not those of this map and year, such as "
                f"{left.index[0]}: it is a review of another map, or the map was made anew since. Give the review of this one."
            )

    def applied(self, part: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        """Return outlines of the map with what reviewers say; what they have corrected is as they have drawn it."""
        found = self.rows.reindex(part["footprint_id"])
        said = {name: found[name].to_numpy() for name in ("verdict", "agreement", "review_date")}
        corrected = _flag(found, "is_corrected").to_numpy()
        made = part.assign(**said, is_corrected=corrected, is_added=False)
        if corrected.any():
            for name in _MEASURED:
                made.loc[corrected, name] = found[name].to_numpy()[corrected]
            shapes = np.asarray(part.geometry.array, np.object_)
            shapes[corrected] = np.asarray(found.geometry.array, np.object_)[corrected]
            made = made.set_geometry(geopandas.GeoSeries(shapes, index=part.index, crs=part.crs))
        return _in_order(made)

    def drawn(self, plan: CampaignPlan, further: Iterable[str]) -> geopandas.GeoDataFrame:
        """Return what reviewers have drawn, as outlines with the columns of the others."""
        dtypes = {
            name: str(dtype)
            for name, dtype in empty_outlines(plan.grid.crs, *further).dtypes.items()
            if name != "geometry"
        }
        table = {name: self.added[name] for name in (*dtypes, *REVIEWED) if name in self.added.columns}
        none = {name: 0 for name, dtype in dtypes.items() if dtype in ("bool", "int64")}
        return _in_order(conform(table | none | {"year": plan.year}, self.added.geometry, dtypes=dtypes | REVIEWED))


def reviewed_empty(crs: str, *further: str) -> geopandas.GeoDataFrame:
    """Return outlines without a row, with the columns of a review."""
    empty = empty_outlines(crs, *further)
    return _in_order(_with_review(empty.assign(verdict=None)))


def _in_order(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    known = [name for name in known_dtypes(table.columns) if name in table.columns]
    return table[[*known, *REVIEWED, table.geometry.name]]


def _with_review(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return a table with all columns of `REVIEWED`; a sample that was filled in by hand has verdicts alone."""
    nothing = {"agreement": np.nan, "review_date": pd.NaT}
    made = table.assign(**{name: table.get(name, value) for name, value in nothing.items()})
    made = made.assign(**{name: _flag(table, name) for name in ("is_corrected", "is_added")})
    return made.astype(REVIEWED)


def _flag(table: geopandas.GeoDataFrame, name: str) -> "pd.Series[bool]":
    if name not in table.columns:
        return pd.Series(False, index=table.index)
    flags: pd.Series[bool] = table[name].astype("boolean").fillna(value=False).astype(bool)
    return flags


def _require_on_map(points: geopandas.GeoDataFrame, plan: CampaignPlan, states: CellStates) -> None:
    side, (x, y) = plan.grid.cell_size * plan.grid.resolution, plan.grid.origin
    middles = points.geometry.centroid
    rows, columns = np.floor((y - middles.y) / side).astype(int), np.floor((middles.x - x) / side).astype(int)
    for cell in dict.fromkeys(zip(rows.tolist(), columns.tolist(), strict=True)):
        if cell not in states or states[cell].is_empty:
            raise CampaignError(
                f"A point of the sample lies in cell {cell_id(*cell)}, of which there is no map of {plan.name} {plan.year}: it was "
                "drawn of another map. Give the review of this one."
            )


def verdict_counts(outlines: pd.DataFrame) -> Iterator[tuple[str, "pd.Series[bool]"]]:
    """Return what may be said of outlines, for people, and which rows it is said of."""
    drawn = outlines["is_added"].to_numpy(bool)
    said = outlines["verdict"]
    yield "confirmed", (said == "target") & ~drawn
    yield "drawn by reviewers", pd.Series(drawn, index=outlines.index)
    yield "refused", said == "other"
    yield "unsure", said == "unsure"
    yield "without a verdict", said.isna()
