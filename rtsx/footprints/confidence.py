"""A class for each outline, by the precision that reviewers have measured for outlines as probable and as large as it."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from os import PathLike
from typing import Any, Literal, Self, get_args

import geopandas
import numpy as np
import pandas as pd

from rtsx.errors import FootprintError, InputNotFoundError, RtsxError
from rtsx.footprints.schema import reorder, validate_footprints
from rtsx.parsing import StoredRecord
from rtsx.storage import file_system, is_url, local_path, write_whole
from rtsx.storage.zarr import store_failure

ConfidenceClass = Literal["high_confidence", "candidate", "marginal"]
"""`high_confidence`: the whole interval of the measured precision reaches the floor. `candidate`: its value does, and its lower end does
not. `marginal`: less."""

Band = tuple[float | None, float | None]
"""Least value, and the value that it stays below; None where there is no end."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceStratum:
    """Outlines of one band of probability and one of area, and what reviewers said of a sample of them."""

    prob_max: Band
    """Of the greatest probability, 0-1."""
    area_m2: Band
    """Of the area, m²."""
    reviewed: int
    """Outlines that reviewers have decided on, at least one."""
    precision: float
    """Part of them that is right, 0-1."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    confidence_class: ConfidenceClass
    """What outlines like these are."""

    def __post_init__(self) -> None:
        """Refuse bands and parts that are none."""
        for name in ("prob_max", "area_m2"):
            low, high = _ends(getattr(self, name))
            if not low < high:
                raise FootprintError(f"{name} of a stratum ascends; got {getattr(self, name)}")
        if not (0 <= self.low <= self.precision <= self.high <= 1 and self.reviewed >= 1):
            raise FootprintError(
                f"a stratum has a precision from 0 to 1 within its interval, of at least one outline; got {self.precision} within "
                f"{self.low} to {self.high}, of {self.reviewed}"
            )

    def overlaps(self, other: "ConfidenceStratum") -> bool:
        """Test whether an outline can be in both."""
        pairs = ((self.prob_max, other.prob_max), (self.area_m2, other.area_m2))
        return all(max(_ends(a)[0], _ends(b)[0]) < min(_ends(a)[1], _ends(b)[1]) for a, b in pairs)


def _ends(band: Band) -> tuple[float, float]:
    low, high = band
    return -math.inf if low is None else low, math.inf if high is None else high


def confidence_class(*, precision: float, low: float, floor: float) -> ConfidenceClass:
    """Return the class that follows from a measured precision and the lower end of its interval.

    Examples
    --------
    >>> confidence_class(precision=0.8, low=0.6, floor=0.5), confidence_class(precision=0.6, low=0.4, floor=0.5)
    ('high_confidence', 'candidate')
    """
    return "high_confidence" if low >= floor else "candidate" if precision >= floor else "marginal"


@dataclass(frozen=True, kw_only=True)
class ConfidenceRule(StoredRecord):
    """Which class an outline of one model is of, by its greatest probability and its area; `derive_confidence_rule` makes it.

    Raises
    ------
    FootprintError
        Strata overlap, or a class does not follow from the numbers beside it.

    Examples
    --------
    >>> numbers = {"reviewed": 40, "precision": 0.8, "low": 0.65, "high": 0.9}
    >>> sure = ConfidenceStratum(prob_max=(0.65, None), area_m2=(None, None), confidence_class="high_confidence", **numbers)
    >>> rule = ConfidenceRule(bundle_digest="d1", class_name="slump", precision_floor=0.5, interval=0.95, strata=(sure,))
    >>> ConfidenceRule.from_json(rule.to_json()) == rule
    True
    """

    what = "This is no rule of confidence"
    raises = FootprintError

    bundle_digest: str
    """Model whose outlines were reviewed; of several that are averaged, their digests joined by `+`."""
    class_name: str | None
    """Class that they are of; None where the map did not say."""
    precision_floor: float
    """Least precision of outlines that are accepted, above 0 and up to 1."""
    interval: float
    """Confidence of the intervals, such as 0.95."""
    strata: tuple[ConfidenceStratum, ...]
    """What was measured; outlines in none of them have no class."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from, as JSON values."""

    def __post_init__(self) -> None:
        """Refuse rules that were edited into something else."""
        if not (0 < self.precision_floor <= 1 and 0 < self.interval < 1 and self.strata):
            raise FootprintError(
                f"a rule has a precision_floor above 0 and up to 1, intervals above 0 and under 1, and strata; got "
                f"{self.precision_floor}, {self.interval} and {len(self.strata)} strata"
            )
        for one, other in combinations(self.strata, 2):
            if one.overlaps(other):
                raise FootprintError(
                    f"strata of a rule do not overlap; got prob_max {one.prob_max}, area_m2 {one.area_m2} and prob_max "
                    f"{other.prob_max}, area_m2 {other.area_m2}"
                )
        for one in self.strata:
            follows = confidence_class(precision=one.precision, low=one.low, floor=self.precision_floor)
            if follows != one.confidence_class:
                raise FootprintError(
                    f"of a precision of {one.precision:.3f} from {one.low:.3f}, and a floor of {self.precision_floor:g}, follows "
                    f"{follows!r}; the rule says {one.confidence_class!r}"
                )

    @classmethod
    def open(
        cls, rule: "str | PathLike[str] | Self", *, storage_options: Mapping[str, Any] | None = None
    ) -> "ConfidenceRule":
        """Return a rule, or read it from the file that `write` wrote.

        Parameters
        ----------
        rule
            The rule, its path, or a URL of fsspec.
        storage_options
            Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

        Raises
        ------
        FootprintError
            It is no rule, or cannot be read.
        InputNotFoundError
            There is no such file.
        """
        if isinstance(rule, ConfidenceRule):
            return rule
        if not isinstance(rule, str | PathLike):
            raise FootprintError(
                f"a rule of confidence is a ConfidenceRule or the path of one, not {type(rule).__name__}: make one with "
                "derive_confidence_rule"
            )
        name = os.fspath(rule)
        place = name if is_url(name) else str(local_path(name))
        content = _content(place, storage_options or {})
        try:
            return cls.from_json(content)
        except FootprintError as error:
            raise FootprintError(f"{place}: {error}") from error

    def write(self, path: str | PathLike[str]) -> None:
        """Write the rule as a local JSON file; what is there is replaced.

        Raises
        ------
        FootprintError
            It is a URL.
        OutputNotWritableError
            It cannot be written.
        """
        if is_url(os.fspath(path)):
            raise FootprintError(f"a rule is written to a local path, not {path}: write it here, then copy it there")
        write_whole(local_path(path), json.dumps(asdict(self), indent=1).encode())

    def require_bundle(self, digest: object) -> None:
        """Raise `FootprintError` where outlines are of another bundle, or do not say of which."""
        if digest == self.bundle_digest:
            return
        theirs = f"{digest[:12]}" if isinstance(digest, str) and digest else "one that they do not name"
        raise FootprintError(
            f"the rule was measured on outlines of the bundle {self.bundle_digest[:12]}, and these are of {theirs}: what is right "
            "of the one says nothing of the other. Review a sample of these, and derive a rule from it"
        )

    def apply(self, footprints: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
        """Add the column `confidence_class`; missing where no sample has measured, and for other classes.

        Parameters
        ----------
        footprints
            Of the same bundle, made by the same threshold; merged, because a part of an outline is smaller than it. What is
            `cut` has no class yet.

        Raises
        ------
        FootprintError
            They are no footprints, or of another bundle.
        """
        validate_footprints(footprints)
        for digest in footprints["bundle_digest"].where(footprints["bundle_digest"].notna(), None).unique():
            self.require_bundle(digest)
        known = np.ones(len(footprints), bool)
        if self.class_name is not None:
            known &= (footprints["class_name"] == self.class_name).to_numpy(bool)
        if "cut" in footprints.columns:
            known &= ~footprints["cut"].to_numpy(bool)
        classes = np.full(len(footprints), None, object)
        for stratum in self.strata:
            inside = known.copy()
            for name in ("prob_max", "area_m2"):
                low, high = _ends(getattr(stratum, name))
                values = footprints[name].to_numpy(np.float64)
                inside &= (values >= low) & (values < high)
            classes[inside] = stratum.confidence_class
        column = pd.Series(classes, index=footprints.index, dtype=object)
        return reorder(footprints.assign(confidence_class=column))

    def __str__(self) -> str:
        """Each stratum with its precision and class, as a table."""
        rows = [
            {
                "prob_max": _band_words(one.prob_max),
                "area_m2": _band_words(one.area_m2),
                "reviewed": one.reviewed,
                "precision": f"{one.precision:.2f} ({one.low:.2f}-{one.high:.2f})",
                "class": one.confidence_class,
            }
            for one in sorted(self.strata, key=lambda one: get_args(ConfidenceClass).index(one.confidence_class))
        ]
        return f"precision at least {self.precision_floor:g}\n{pd.DataFrame(rows).to_string(index=False)}"


def _band_words(band: Band) -> str:
    low, high = band
    if low is None:
        return "any" if high is None else f"under {high:g}"
    return f"from {low:g}" if high is None else f"{low:g}-{high:g}"


def _content(place: str, options: Mapping[str, Any]) -> bytes:
    """Read the file of a rule."""
    try:
        if not is_url(place):
            return local_path(place).read_bytes()
        system, path = file_system(place, options, error=FootprintError)
        content: bytes = system.cat_file(path)
        return content
    except FileNotFoundError as error:
        raise InputNotFoundError(f"There is no rule of confidence at {place}.") from error
    except IsADirectoryError as error:
        raise FootprintError(
            f"{place} is a folder: name the file of the rule, which `rtsx evaluate --sample --confidence-rule` wrote"
        ) from error
    except RtsxError:
        raise
    except Exception as error:  # of fsspec's file systems, whose libraries have their own
        raise FootprintError(str(store_failure(place, error, what="the rule of confidence cannot be read"))) from error
