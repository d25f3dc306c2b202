"""What follows from verdicts: outlines with what people say of them, agreement of reviewers, and how far a review is."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from rtsx.errors import ReviewError
from rtsx.footprints.geometry import measured_columns
from rtsx.labels.io import read_table, require_format, write_table
from rtsx.review.plan import Answer, BatchVerdicts, ReviewClaim, as_outline
from rtsx.review.store import Review
from rtsx.scores import Kappa, cohens_kappa
from rtsx.scores.agreement import VERDICTS, Verdict
from rtsx.storage import local_path, staged

_SAME = 0.5
"""Part of the smaller of two drawn outlines that they share where they are of one object."""


@dataclass(frozen=True, kw_only=True)
class ReviewStatus:
    """How far a review is, and how far reviewers agree."""

    outlines: int
    """Outlines to review."""
    reviewed: int
    """Those with a verdict."""
    verdicts: Mapping[Verdict, int]
    """How many outlines have each verdict."""
    added: int
    """Objects that reviewers have drawn, because the map has missed them."""
    disputed: int
    """Outlines of which reviewers differ, and no later round has decided."""
    batches: int
    """Batches of the last round, without repeats."""
    batches_done: int
    round: int
    """The last round, from 1."""
    claims: tuple[ReviewClaim, ...]
    """Batches that somebody holds now."""
    reviewers: Mapping[str, int]
    """Verdicts by reviewer."""
    repeats: int
    """Outlines that a second reviewer is to see."""
    kappa: Kappa
    """Agreement of pairs of reviewers of one round on one outline, over the three verdicts."""
    reviewed_down_to: float | None
    """Every outline of at least this `prob_max` has a verdict; None where the most probable one has none, or nothing has a
    `prob_max`."""

    @property
    def is_complete(self) -> bool:
        """Whether every outline has a verdict."""
        return self.reviewed == self.outlines

    def rows(self) -> list[tuple[str, object]]:
        """Return names and values, for a summary."""
        low, high = self.kappa.interval
        kappa = f"{self.kappa.value:.2f} ({low:.2f} to {high:.2f}, standard error {self.kappa.standard_error:.3f})"
        no_kappa = "not known: no two reviewers have reviewed the same outline" if not self.kappa.pairs else (
            f"not defined: both always say the same, in {self.kappa.pairs} pairs"
        )  # fmt: skip
        held = [f"batch {one.batch} by {one.reviewer} until {one.expires:%Y-%m-%d %H:%M} UTC" for one in self.claims]
        left = self.outlines - self.reviewed
        return [
            ("state", f"incomplete: {left:,} have no verdict" if left else "complete"),
            ("outlines", f"{self.reviewed:,} of {self.outlines:,} reviewed"),
            *((name, f"{self.verdicts[name]:,}") for name in VERDICTS),
            ("added", f"{self.added:,}"),
            ("disputed", f"{self.disputed:,}"),
            ("reviewed down to", None if self.reviewed_down_to is None else f"probability {self.reviewed_down_to:.3f}"),
            ("round", f"{self.round}: {self.batches_done} of {self.batches} batches"),
            ("held", ", ".join(held)),
            ("reviewers", ", ".join(f"{name} ({count:,})" for name, count in sorted(self.reviewers.items()))),
            ("agreement", f"{self.kappa.agreement:.0%} of {self.kappa.pairs:,} pairs" if self.kappa.pairs else None),
            ("kappa", no_kappa if np.isnan(self.kappa.value) else kappa),
        ]

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values."""
        counted = ("outlines", "reviewed", "verdicts", "added", "disputed", "round", "batches", "batches_done")
        stated = {name: getattr(self, name) for name in (*counted, "reviewers", "reviewed_down_to")}
        of_kappa = ("kappa", "kappa_standard_error", "kappa_interval")
        kappa = (self.kappa.value, self.kappa.standard_error, list(self.kappa.interval))
        known = dict.fromkeys(of_kappa) if np.isnan(self.kappa.value) else dict(zip(of_kappa, kappa, strict=True))
        return {"complete": self.is_complete, **stated, **known, "pairs": self.kappa.pairs}


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedReview:
    """Outlines with what reviewers say; of half a review, too."""

    class_name: str
    """What reviewers were asked for."""
    outlines: gpd.GeoDataFrame
    """Every outline as it was given or corrected, with the columns `verdict` (target, other, unsure or None), `n_reviews`,
    `reviewers`, `agreement` (part of the reviews that say the verdict), `disputed`, `review_date`, `review_reason`,
    `review_comment`, `is_corrected` and `is_added`."""
    added: gpd.GeoDataFrame
    """What the map has missed, as reviewers have drawn it; the same columns, verdict target."""
    status: ReviewStatus
    """How far the review is."""

    @property
    def table(self) -> gpd.GeoDataFrame:
        """Outlines and added ones together."""
        return _together(self.outlines, self.added)

    @property
    def confirmed(self) -> gpd.GeoDataFrame:
        """What is of the class: confirmed, corrected and added."""
        return _together(self.outlines[self.outlines["verdict"] == "target"], self.added)

    @property
    def refused(self) -> gpd.GeoDataFrame:
        """What looks like the class and is not: hard negatives for training."""
        return self.outlines[self.outlines["verdict"] == "other"]

    def write(self, out: str, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Write everything, and return the files.

        Parameters
        ----------
        out
            A vector file for `table`; else a folder, which gets `outlines.parquet` (as they were given, with verdicts),
            `added.parquet`, `confirmed.parquet`, `refused.parquet` and `status.json`.
        overwrite
            Replace files that are there.

        Raises
        ------
        ReviewError
            The ending is that of a file of another kind; a folder may be called so with a ``/`` at its end.
        """
        suffix = Path(out).suffix
        if suffix and not suffix[1:].isdecimal() and not out.endswith("/"):
            require_format(Path(out), what="outlines", error=ReviewError)
            return (write_table(self.table, local_path(out), overwrite=overwrite, what="outlines"),)
        folder = local_path(out)
        if (folder / "review.json").exists() and (folder / "rounds").exists():
            raise ReviewError(f"{out} is a review itself, which needs its own outlines. Give another folder.")
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"outlines": self.outlines, "added": self.added, "confirmed": self.confirmed, "refused": self.refused}
        paths = [
            write_table(table, folder / f"{name}.parquet", overwrite=overwrite, what=name)
            for name, table in tables.items()
        ]
        # Not review.json, by which a review is known.
        with staged(folder / "status.json", overwrite=overwrite) as draft:
            draft.write_text(json.dumps(self.status.to_dict(), indent=2) + "\n")
        return (*paths, folder / "status.json")

    @property
    def open(self) -> tuple[str, ...]:
        """Ids of what is unsure or disputed, for a further round."""
        asked_again = (self.outlines["verdict"] == "unsure") | self.outlines["disputed"]
        return tuple(map(str, self.outlines.index[asked_again]))


def read_merged(folder: Path) -> gpd.GeoDataFrame | None:
    """Read `MergedReview.table` from a folder that `MergedReview.write` wrote; None where it is no such folder.

    Raises
    ------
    LabelError
        A table in it is damaged.
    """
    tables = [folder / f"{name}.parquet" for name in ("outlines", "added")]
    if not all(table.is_file() for table in tables):
        return None
    return _together(*(read_table(table, what="a review") for table in tables))


def merge_review(review: Review) -> MergedReview:
    """Put together what reviewers say of every outline.

    The last round that has asked for an outline decides. Within it most reviewers decide; where as many say one thing as another,
    it is unsure.

    Raises
    ------
    ReviewError
        Verdicts are damaged, or about outlines that the review has not.
    """
    sent = review.verdicts()
    given: dict[str, dict[int, list[tuple[BatchVerdicts, Answer]]]] = defaultdict(lambda: defaultdict(list))
    for one in sent:
        for answer in one.answers:
            given[answer.outline][one.round].append((one, answer))
    outlines = review.outlines.copy()
    outlines[review.settings.key] = outlines.index.astype(object)  # text, as of those that were drawn
    rows = [_row(given.get(str(name), {})) for name in outlines.index]
    columns = pd.DataFrame(rows, index=outlines.index)
    corrected = columns.pop("corrected")
    for name in columns:
        outlines[name] = columns[name]
    outlines["n_reviews"] = outlines["n_reviews"].astype("Int32")
    outlines["is_corrected"] = corrected.notna()
    outlines["is_added"] = False
    changed = np.flatnonzero(corrected.notna())
    if len(changed):
        geometry = np.asarray(outlines.geometry.array, np.object_)
        geometry[changed] = [as_outline(text) for text in corrected.iloc[changed]]
        outlines = outlines.set_geometry(gpd.GeoSeries(geometry, index=outlines.index, crs=outlines.crs))
        _measure(outlines, changed)
    added = _added(review, sent, like=outlines)
    status = _status(review, sent, outlines, n_added=len(added))
    return MergedReview(class_name=review.settings.class_name, outlines=outlines, added=added, status=status)


def review_status(review: Review) -> ReviewStatus:
    """Tell how far a review is; see `merge_review`."""
    return merge_review(review).status


def _row(given: Mapping[int, Sequence[tuple[BatchVerdicts, Answer]]]) -> dict[str, object]:
    """Return the columns of one outline, of what was said of it in each round."""
    if not given:
        return {
            "verdict": None, "n_reviews": 0, "reviewers": "", "agreement": np.nan, "disputed": False, "review_date": pd.NaT,
            "review_reason": "", "review_comment": "", "corrected": None,
        }  # fmt: skip
    last = given[max(given)]
    verdict, agreement, disputed = _decided([answer.verdict for _, answer in last])
    said = [answer for _, answer in last if answer.verdict == verdict] or [answer for _, answer in last]
    everybody = [one for of_round in given.values() for one, _ in of_round]
    drawn = [answer.corrected for answer in said if answer.corrected is not None and verdict == "target"]
    return {
        "verdict": verdict,
        "n_reviews": len(everybody),
        "reviewers": ",".join(sorted({one.reviewer for one in everybody})),
        "agreement": agreement,
        "disputed": disputed,
        "review_date": _moment(max(one.finished for one, _ in last)),
        "review_reason": "; ".join(dict.fromkeys(answer.reason for answer in said if answer.reason)),
        "review_comment": "; ".join(dict.fromkeys(answer.comment for _, answer in last if answer.comment)),
        "corrected": drawn[-1] if drawn else None,
    }


def _moment(when: datetime) -> pd.Timestamp:
    """Return a time in UTC, as tables have it."""
    return pd.Timestamp(when).tz_convert("UTC").tz_localize(None).as_unit("ms")


def _decided(said: Sequence[Verdict]) -> tuple[Verdict, float, bool]:
    """Return verdict, part of the reviews that say it, and whether they differ."""
    counts = Counter(said)
    most = max(counts.values())
    leading = [verdict for verdict in VERDICTS if counts[verdict] == most]
    verdict: Verdict = leading[0] if len(leading) == 1 else "unsure"
    return verdict, counts[verdict] / len(said), len(counts) > 1


def _added(review: Review, sent: Sequence[BatchVerdicts], *, like: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return what was drawn, each object once."""
    rows: list[dict[str, object]] = []
    drawn: list[shapely.Geometry] = []
    by: list[set[str]] = []
    for one in sent:
        for number, added in enumerate(one.added):
            outline = as_outline(added.geometry)
            known = next((place for place, other in enumerate(drawn) if _are_same(outline, other)), None)
            if known is not None:
                by[known].add(one.reviewer)
                continue
            drawn.append(outline)
            by.append({one.reviewer})
            rows.append(
                {
                    review.settings.key: f"added-{one.round}-{one.batch}-{number}-{one.reviewer}",
                    "class_name": review.settings.class_name,
                    "verdict": "target",
                    "agreement": 1.0,
                    "disputed": False,
                    "review_date": _moment(one.finished),
                    "review_reason": "",
                    "review_comment": added.comment,
                    "is_corrected": False,
                    "is_added": True,
                }
            )
    ids = [str(row[review.settings.key]) for row in rows]
    table = pd.DataFrame(rows, index=pd.Index(ids, name="outline", dtype=object))
    table["n_reviews"] = pd.array([len(names) for names in by], dtype="Int32")
    table["reviewers"] = [",".join(sorted(names)) for names in by]
    name = like.geometry.name
    filled = table.reindex(columns=like.columns).assign(**{name: gpd.GeoSeries(drawn, index=table.index, crs=like.crs)})
    made = gpd.GeoDataFrame(filled, geometry=name, crs=like.crs)
    made = made.astype({name: kind for name, kind in like.dtypes.items() if kind.kind in "fM"})
    _measure(made, np.arange(len(made)))
    return made


def _are_same(one: shapely.Geometry, other: shapely.Geometry) -> bool:
    return bool(one.intersection(other).area > _SAME * min(one.area, other.area))


def _measure(table: gpd.GeoDataFrame, changed: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Measure outlines anew, in place, in the columns that footprints have."""
    if not len(changed) or "area_m2" not in table.columns:
        return
    outlines = np.asarray(table.geometry.array, np.object_)[changed]
    for name, values in measured_columns(outlines, CRS.from_user_input(table.crs)).items():
        if name in table.columns:
            table.iloc[changed, table.columns.get_loc(name)] = values


def _together(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    if not len(other) or not len(one):
        return one if not len(other) else other
    # Without columns of nothing, whose dtype says nothing: of outlines that were drawn those that a network fills.
    nothing = [name for name in other.columns if other[name].isna().all()]
    unsaid = [name for name in one.columns if one[name].isna().all() and name not in nothing]
    joined = pd.concat([one.drop(columns=unsaid), other.drop(columns=nothing)])
    return joined[list(one.columns)]


def _status(review: Review, sent: Sequence[BatchVerdicts], outlines: gpd.GeoDataFrame, *, n_added: int) -> ReviewStatus:
    rounds = review.rounds()
    last = rounds[-1]
    first = {number for number, batch in enumerate(last.batches) if batch.repeats is None}
    done = {one.batch for one in sent if one.round == last.number}
    counts = outlines["verdict"].value_counts()
    verdicts: dict[Verdict, int] = {name: int(counts.get(name, 0)) for name in VERDICTS}
    reviewers = Counter(one.reviewer for one in sent for _ in one.answers)
    return ReviewStatus(
        outlines=len(outlines),
        reviewed=sum(verdicts.values()),
        verdicts=verdicts,
        added=n_added,
        disputed=int(outlines["disputed"].sum()),
        batches=len(first),
        batches_done=len(first & done),
        round=last.number,
        claims=review.active_claims(),
        reviewers=dict(reviewers),
        repeats=sum(one.n_repeats for one in rounds),
        kappa=_kappa(sent),
        reviewed_down_to=_down_to(outlines),
    )


def _kappa(sent: Sequence[BatchVerdicts]) -> Kappa:
    said: dict[tuple[int, str], list[tuple[datetime, str, Verdict]]] = defaultdict(list)
    for one in sent:
        for answer in one.answers:
            said[one.round, answer.outline].append((one.finished, one.reviewer, answer.verdict))
    counts = np.zeros((len(VERDICTS), len(VERDICTS)), np.int64)
    for readings in said.values():
        for (_, first, verdict), (_, second, another) in combinations(sorted(readings), 2):
            if first != second:
                counts[VERDICTS.index(verdict), VERDICTS.index(another)] += 1
    return cohens_kappa(counts)


def _down_to(outlines: gpd.GeoDataFrame) -> float | None:
    if "prob_max" not in outlines.columns:
        return None
    known = outlines["prob_max"].fillna(np.inf)
    is_open = outlines["verdict"].isna()
    above = known[~is_open & (known > known[is_open].max())] if is_open.any() else known
    return float(above.min()) if len(above) and np.isfinite(above.min()) else None
