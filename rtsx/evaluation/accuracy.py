"""State how good a map is from a reviewed sample: precision, recall and area with intervals."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from rtsx.arguments import typed
from rtsx.errors import EvaluationError, TruthWarning
from rtsx.evaluation.result import check_drawable, draw_estimates
from rtsx.evaluation.sampling import SAMPLE_COLUMNS, stratum_bands
from rtsx.footprints import ConfidenceRule, ConfidenceStratum
from rtsx.footprints.confidence import confidence_class
from rtsx.footprints.io import NO, YES
from rtsx.scores.agreement import VERDICTS, Verdict
from rtsx.scores.estimates import StratumCounts, estimate_area, estimate_precision, estimate_recall, required_sample

ALL = "all"
"""Name of the rows that hold all regions together."""

_MEASURES = {"precision": estimate_precision, "recall": estimate_recall, "area_m2": estimate_area}


@dataclass(frozen=True, kw_only=True)
class ReviewedStratum:
    """One stratum of a sample, and what reviewers have said of its units."""

    region: str
    """Empty where the sample has none."""
    stratum: str
    """Its name."""
    drawn: int
    """Units in the sample."""
    unsure: int
    """Units of which nobody can say what they hold."""
    counts: StratumCounts
    """Size and decided units."""

    def counting(self, unsure: Verdict, *, flipped: bool = False) -> StratumCounts:
        """Return the counts with unsure units taken for `"target"` or `"other"`, left out for `"unsure"`.

        `flipped` turns that round where the map shows nothing: what speaks for its recall there is that nothing is.
        """
        extra = 0 if unsure == "unsure" else self.unsure
        is_target = (unsure == "target") != (flipped and not self.counts.mapped)
        return replace(
            self.counts, reviewed=self.counts.reviewed + extra, target=self.counts.target + extra * is_target
        )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How good a map is, by a sample of it that people have reviewed; see `assess_accuracy`."""

    design: str
    """`"outlines"` or `"ground"`."""
    confidence: float
    """Of the intervals, such as 0.95."""
    reviewed: tuple[ReviewedStratum, ...] = field(repr=False)
    """Every stratum, by region and name."""

    @cached_property
    def strata(self) -> pd.DataFrame:
        """One row per stratum: `region`, `stratum`, `mapped`, `size` (outlines or m²), `drawn`, `reviewed` (without unsure ones), `target`, `unsure`.

        And the part that holds the target: `part`, with Wilson's interval `low` to `high`, and `lowest` and `highest`, its
        ends where every unsure unit is counted as other, and as target.
        """
        rows = []
        for each in self.reviewed:
            best, against, speaking = (
                each.counting(unsure).interval(self.confidence) for unsure in ("unsure", "other", "target")
            )
            rows.append(
                {
                    "region": each.region,
                    "stratum": each.stratum,
                    "mapped": each.counts.mapped,
                    "size": each.counts.size,
                    "drawn": each.drawn,
                    "reviewed": each.counts.reviewed,
                    "target": each.counts.target,
                    "unsure": each.unsure,
                    "part": each.counts.part,
                    "low": best[0],
                    "high": best[1],
                    "lowest": min(best[0], against[0]),
                    "highest": max(best[1], speaking[1]),
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """One row per region and measure, `"all"` last: `value`, `standard_error`, `low`, `high`, `lowest`, `highest`.

        `precision` of outlines is by number. Of the ground it is by area, and there are `recall` and `area_m2`, too; see
        `rtsx.scores.estimates`. Values are those without the unsure units; `lowest` and `highest` are the ends of the
        intervals where all of these speak against the map, and for it. For area, where none and all of them are target.
        NaN where a stratum was not reviewed at all.
        """
        measures = {"precision": estimate_precision} if self.design == "outlines" else _MEASURES
        rows = []
        for region, strata in self._regions():
            for name, estimate in measures.items():
                best, against, speaking = (
                    estimate(
                        [each.counting(unsure, flipped=name == "recall") for each in strata], confidence=self.confidence
                    )
                    for unsure in ("unsure", "other", "target")
                )
                bounds = {"lowest": np.fmin(best.low, against.low), "highest": np.fmax(best.high, speaking.high)}
                rows.append({"region": region, "measure": name} | asdict(best) | bounds)
        return pd.DataFrame(rows)

    def _regions(self) -> Iterator[tuple[str, list[ReviewedStratum]]]:
        names = sorted({each.region for each in self.reviewed})
        if len(names) > 1:
            yield from ((name, [each for each in self.reviewed if each.region == name]) for name in names)
        yield ALL, list(self.reviewed)

    def __str__(self) -> str:
        """Estimates as a short table, and what is missing from them."""
        rows = self.estimates.copy()
        area = rows["measure"] == "area_m2"
        rows.loc[area, ["value", "low", "high", "lowest", "highest"]] /= 1e6
        rows.loc[area, "measure"] = "area, km2"
        shown = rows[["region", "measure"]].assign(value=rows["value"].map("{:.3g}".format))
        shown[f"{self.confidence:.0%}"] = _span(rows["low"], rows["high"])
        if any(each.unsure for each in self.reviewed):
            shown["with unsure"] = _span(rows["lowest"], rows["highest"])
        lines = [(shown if shown["region"].nunique() > 1 else shown.drop(columns="region")).to_string(index=False)]
        drawn = sum(each.drawn for each in self.reviewed)
        missing = drawn - sum(each.counts.reviewed + each.unsure for each in self.reviewed)
        if missing:
            lines.append(f"{missing} of {drawn} units are not reviewed yet; the rest stands for them.")
        for each in self.reviewed:
            if not each.counts.reviewed:
                place = f" of region {each.region!r}" if each.region else ""
                lines.append(f"Nothing is known of stratum {each.stratum!r}{place} yet: what depends on it is nan.")
        return "\n".join(lines)

    def required(self, half_width: float) -> pd.DataFrame:
        """Units to review in each stratum for intervals of its part that are about `half_width` wide on each side.

        Returns
        -------
        pandas.DataFrame
            `region`, `stratum`, `reviewed` and `required`, by the parts found so far and `required_sample`; where nothing
            was reviewed yet, by a part of one half, which needs most.
        """
        if not 0 < half_width < 0.5:
            raise EvaluationError(f"half_width is a part above 0 and under 0.5; got {half_width}.")
        wanted = [
            required_sample(
                # One more of each, because a part of 0 or 1 would need nothing.
                (counts.target + 1) / (counts.reviewed + 2),
                half_width=half_width,
                size=counts.size if counts.finite else math.inf,
                confidence=self.confidence,
            )
            for counts in (each.counts for each in self.reviewed)
        ]
        return self.strata[["region", "stratum", "reviewed"]].assign(required=wanted)

    def to_json(self) -> str:
        """Everything as JSON: design, confidence, strata and estimates; null for what is not known."""
        tables = {
            name: json.loads(table.to_json(orient="records", double_precision=15))
            for name, table in (("strata", self.strata), ("estimates", self.estimates))
        }
        return json.dumps({"design": self.design, "confidence": self.confidence} | tables, indent=1)

    def plot(self, path: str | Path) -> Path:
        """Draw the parts of all strata with their intervals, into a PNG file; needs the extra `view`."""
        check_drawable()
        draw_estimates(self.strata, Path(path), confidence=self.confidence)
        return Path(path)


@typed(EvaluationError, but=("sample",))
def assess_accuracy(sample: gpd.GeoDataFrame, *, confidence: float = 0.95) -> Accuracy:
    """Estimate precision of outlines, or precision, recall and area of a map, from a reviewed sample.

    Parameters
    ----------
    sample
        What `sample_outlines` or `sample_ground` has drawn, with `verdict` filled in: `"target"`, `"other"` or `"unsure"`;
        missing where nobody has looked yet. Rows are in random order, so a sample may be assessed when its first rows are
        reviewed; what is not yet is left out.
    confidence
        Of the intervals, above 0 and under 1.

    Returns
    -------
    Accuracy
        Tables `strata` and `estimates`.

    Raises
    ------
    EvaluationError
        Columns are missing, a verdict is unknown, two samples are mixed, or nothing is reviewed.

    Examples
    --------
    >>> sample = gpd.GeoDataFrame(
    ...     {
    ...         "sample_id": [f"s{n}" for n in range(20)],
    ...         "design": "outlines",
    ...         "stratum": "all",
    ...         "region": "",
    ...         "mapped": True,
    ...         "stratum_size": 400.0,
    ...         "inclusion_probability": 0.05,
    ...         "verdict": ["target"] * 15 + ["other"] * 5,
    ...     },
    ...     geometry=gpd.points_from_xy(range(20), range(20)),
    ... )
    >>> accuracy = assess_accuracy(sample)
    >>> accuracy.estimates[["measure", "value", "low", "high"]].round(3).to_dict("records")
    [{'measure': 'precision', 'value': 0.75, 'low': 0.537, 'high': 0.886}]
    """
    if not 0 < confidence < 1:
        raise EvaluationError(f"confidence is above 0 and under 1; got {confidence}.")
    sample = as_drawn(sample)
    if not len(sample):
        raise EvaluationError("The sample has no rows.")
    if sample["design"].nunique() > 1 or sample["sample_id"].duplicated().any():
        raise EvaluationError("These are several samples in one table, which do not add up: assess one at a time.")
    _warn_of_missing(sample["sample_id"])
    verdict = sample["verdict"]
    strange = sorted({str(value) for value in verdict.dropna()} - set(VERDICTS))
    if strange:
        raise EvaluationError(f"A verdict is one of {', '.join(VERDICTS)}, or missing; got {', '.join(strange)}.")
    if not verdict.isin(("target", "other")).any():
        raise EvaluationError("No unit of the sample has a verdict of 'target' or 'other' yet: review some.")
    design = str(sample["design"].iloc[0])
    strata = []
    for (region, stratum), units in sample.assign(verdict=verdict).groupby(["region", "stratum"], sort=True):
        if units["stratum_size"].nunique() > 1 or units["mapped"].nunique() > 1:
            raise EvaluationError(
                f"Stratum {stratum!r} has units of several sizes or of both kinds: is this one sample?"
            )
        if design == "outlines" and len(units) > units["stratum_size"].iloc[0]:
            raise EvaluationError(
                f"Stratum {stratum!r} has {units['stratum_size'].iloc[0]:g} outlines, and {len(units)} are in the sample: is this one "
                "sample, as it was drawn?"
            )
        n_target, n_other, n_unsure = (int((units["verdict"] == name).sum()) for name in VERDICTS)
        counts = StratumCounts(
            mapped=bool(units["mapped"].iloc[0]),
            size=float(units["stratum_size"].iloc[0]),
            reviewed=n_target + n_other,
            target=n_target,
            finite=design == "outlines",
        )
        strata.append(
            ReviewedStratum(region=str(region), stratum=str(stratum), drawn=len(units), unsure=n_unsure, counts=counts)
        )
    return Accuracy(design=design, confidence=confidence, reviewed=tuple(strata))


def read_sample_csv(path: Path) -> pd.DataFrame:
    """Read a sample from a CSV, with or without outlines and whatever stands between its columns, as text; `as_drawn` knows the rest."""
    return pd.read_csv(path, sep=None, engine="python", dtype=str, encoding="utf-8-sig")


def as_drawn(sample: pd.DataFrame) -> pd.DataFrame:
    """Return a sample with the columns and dtypes that it was drawn with, whatever a shapefile, a CSV or a spreadsheet made of them.

    Verdicts lose their capitals and blanks.

    Raises
    ------
    EvaluationError
        Columns are missing, a size is no number, or `mapped` is neither true nor false.
    """
    cut = {name[:_DBASE]: name for name in SAMPLE_COLUMNS if name not in sample.columns}
    table = sample.rename(columns=cut)
    missing = [name for name in SAMPLE_COLUMNS if name not in table.columns]
    if missing:
        raise EvaluationError(
            f"A sample has the columns {', '.join(SAMPLE_COLUMNS)}, and this lacks {', '.join(missing)}: give what was "
            "drawn to be reviewed, with all of its columns."
        )
    columns: dict[str, pd.Series] = {}
    for name in ("stratum_size", "inclusion_probability"):
        text = table[name].astype(str).str.replace(",", ".", regex=False)
        columns[name] = table[name] if table[name].dtype.kind in "iuf" else pd.to_numeric(text, errors="coerce")
        if columns[name].isna().any():
            raise EvaluationError(
                f"{name} of a sample is a number in every row, as it was drawn; got {table[name][columns[name].isna()].iloc[0]!r}."
            )
    mapped = table["mapped"].astype(str).str.strip().str.lower().str.removesuffix(".0")
    if (strange := ~mapped.isin((*YES, *NO))).any():
        raise EvaluationError(
            f"mapped of a sample is true or false in every row, as it was drawn; got {table['mapped'][strange].iloc[0]!r}."
        )
    columns["mapped"] = mapped.isin(YES)
    columns |= {name: table[name].fillna("") for name in ("region", "stratum")}
    said = table["verdict"].astype(object).map(lambda one: str(one).strip().lower(), na_action="ignore")
    columns["verdict"] = said.where(said.notna() & (said != ""), None)
    return table.assign(**columns)


_DBASE = 10
"""Length that names of columns are cut to in shapefiles."""


def _warn_of_missing(names: "pd.Series[str]") -> None:
    """Warn where units that were drawn, `s1` to `sN`, are not in the table any more."""
    numbers = {int(str(name)[1:]) for name in names if re.fullmatch(r"s\d+", str(name))}
    gone = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
    if gone:
        warnings.warn(
            f"{len(gone)} units that were drawn are not in this table, such as s{gone[0]}, and a stratum of which all are gone counts for nothing. Keep "
            "rows of which nobody has decided, with an empty verdict.",
            TruthWarning,
            stacklevel=4,
        )


@typed(EvaluationError, but=("sample",))
def derive_confidence_rule(
    sample: gpd.GeoDataFrame, *, precision_floor: float = 0.5, confidence: float = 0.95
) -> ConfidenceRule:
    """Derive a class for every outline of a map from the precision of a reviewed sample, by probability and size.

    Precision does not simply rise with probability, and hangs on size as much; so what is accepted is read off the measured
    grid: strata whose precision reaches a floor.

    Parameters
    ----------
    sample
        What `sample_outlines` has drawn, reviewed; see `assess_accuracy`. Of several regions, the strata of one name are put
        together by their sizes.
    precision_floor
        Least precision of outlines that are accepted, above 0 and up to 1.
    confidence
        Of the intervals, above 0 and under 1.

    Returns
    -------
    ConfidenceRule
        `high_confidence` where the lower end of a stratum's interval reaches the floor, `candidate` where its value does,
        `marginal` where neither. Strata of which nothing is decided yet are left out, and outlines in them have no class. For
        ``extract_footprints(pred, confidence_rule=rule)``, `Campaign.collect`, and `ConfidenceRule.apply`.

    Raises
    ------
    EvaluationError
        The sample is one of the ground, is not reviewed, or its outlines are of several bundles or classes, or of an unnamed one.

    Examples
    --------
    >>> sample = gpd.GeoDataFrame(
    ...     {
    ...         "sample_id": [f"s{n}" for n in range(60)],
    ...         "design": "outlines",
    ...         "stratum": ["prob under 0.65"] * 30 + ["prob from 0.65"] * 30,
    ...         "region": "",
    ...         "mapped": True,
    ...         "stratum_size": 400.0,
    ...         "inclusion_probability": 0.075,
    ...         "verdict": ["target"] * 10 + ["other"] * 20 + ["target"] * 25 + ["other"] * 5,
    ...         "bundle_digest": "d1",
    ...         "class_name": "slump",
    ...     },
    ...     geometry=gpd.points_from_xy(range(60), range(60)),
    ... )
    >>> print(derive_confidence_rule(sample))
    precision at least 0.5
      prob_max area_m2  reviewed        precision           class
     from 0.65     any        30 0.83 (0.67-0.92) high_confidence
    under 0.65     any        30 0.33 (0.20-0.51)        marginal
    """
    if not 0 < precision_floor <= 1:
        raise EvaluationError(f"precision_floor is above 0 and up to 1; got {precision_floor}.")
    accuracy = assess_accuracy(sample, confidence=confidence)
    sample = as_drawn(sample)
    if accuracy.design != "outlines":
        raise EvaluationError("Classes of outlines follow from a sample of outlines; this is one of the ground.")
    digest, class_name = _only(sample, "bundle_digest"), _only(sample, "class_name")
    if digest is None:
        raise EvaluationError(
            "The sample does not say which bundle its outlines are of: draw it from outlines with their column bundle_digest."
        )
    strata = []
    for name in sorted({each.stratum for each in accuracy.reviewed if each.counts.reviewed}):
        counts = [each.counts for each in accuracy.reviewed if each.stratum == name and each.counts.reviewed]
        found = estimate_precision(counts, confidence=confidence)
        prob_max, area_m2 = stratum_bands(name)
        low, high = min(max(found.low, 0.0), found.value), max(min(found.high, 1.0), found.value)
        strata.append(
            ConfidenceStratum(
                prob_max=prob_max,
                area_m2=area_m2,
                reviewed=sum(each.reviewed for each in counts),
                precision=found.value,
                low=low,
                high=high,
                confidence_class=confidence_class(precision=found.value, low=low, floor=precision_floor),
            )
        )
    return ConfidenceRule(
        bundle_digest=digest,
        class_name=class_name,
        precision_floor=precision_floor,
        interval=confidence,
        strata=tuple(strata),
        provenance={
            "drawn": len(sample),
            "verdicts": {name: int((sample["verdict"] == name).sum()) for name in VERDICTS},
            "derived": datetime.now(UTC).isoformat(timespec="seconds"),
            "rtsx_version": version("rtsx"),
        },
    )


def _only(sample: gpd.GeoDataFrame, name: str) -> str | None:
    """Return the one value that a column has; None where it is missing."""
    if name not in sample.columns:
        return None
    values = [None if pd.isna(value) else str(value) for value in sample[name].unique()]
    if len(values) > 1:
        raise EvaluationError(
            f"Classes are derived for outlines of one {name}, but the sample has {', '.join(map(str, values))}: derive one rule "
            "for each."
        )
    return values[0]


def _span(low: "pd.Series[float]", high: "pd.Series[float]") -> list[str]:
    return [f"{one:.3g}-{other:.3g}" for one, other in zip(low, high, strict=True)]
