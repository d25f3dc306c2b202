"""Estimate accuracy and area from a stratified random sample, with intervals, and the area that a map expects; pure numbers.

A stratum is either mapped, when the map shows the target in all of it, or not. Each of its drawn units was found right by
a reviewer (it holds the target) or not. With `N` the size of a stratum, in units or in m², `n` its reviewed units and `p`
their part that holds the target, the estimators are those of stratified random sampling of Olofsson et al. 2014, Remote
Sensing of Environment 148, 42-57, equations 2-10:

- precision, or user's accuracy: sum of `N p` over mapped strata / sum of `N` over mapped strata;
- area of the target: sum of `N p` over all strata;
- recall, or producer's accuracy: the part of that area in mapped strata.

Standard errors are theirs, too. Intervals are not `estimate ± z SE`, as those leave 0 to 1, and have no width where all
units of a stratum agree, which is the rule among strata where nothing was found. They put together Wilson's score
intervals of the strata by the method of variance estimates recovery: Zou and Donner 2008, Statistics in Medicine 27,
1693-1702 for sums; Newcombe 2016, Statistical Methods in Medical Research 25, 1774-1778 for ratios.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rtsx.geometry.crs import apply_affine
from rtsx.geometry.pixels import PixelMesh, Window

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StratumCounts:
    """What is known of one stratum."""

    mapped: bool
    """Whether the map shows the target here."""
    size: float
    """Units, or m²; above 0."""
    reviewed: int
    """Units drawn and decided, at least 0."""
    target: int
    """Of these, those that hold the target."""
    finite: bool
    """True: units were drawn without replacement of `size` units; False: points of an area."""

    @property
    def part(self) -> float:
        """Part of the reviewed units that holds the target; NaN where none was reviewed."""
        return self.target / self.reviewed if self.reviewed else math.nan

    @property
    def variance(self) -> float:
        """Variance of `part`, `p (1 - p) / (n - 1)` less what was seen of a finite stratum; NaN under two reviewed units."""
        if self.finite and self.reviewed == self.size:
            return 0.0
        if self.reviewed < 2:
            return math.nan
        unseen = 1 - self.reviewed / self.size if self.finite else 1.0
        return self.part * (1 - self.part) / (self.reviewed - 1) * unseen

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return Wilson's interval of `part`."""
        reviewed = float(self.reviewed)
        if self.finite and reviewed:
            unseen = self.size - reviewed
            # As many units of an endless stratum as tell as much, because Var = p (1 - p) / n (N - n) / (N - 1).
            reviewed = math.inf if unseen <= 0 else reviewed * max(self.size - 1, 1) / unseen
        return wilson_interval(self.part, reviewed, confidence=confidence)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number estimated from a sample; NaN where the sample says nothing of it."""

    value: float
    """The estimate."""
    standard_error: float
    """Its standard error; NaN where a stratum has fewer than two reviewed units."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def wilson_interval(part: float, reviewed: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; 0 to 1 where nothing was reviewed.

    Wilson 1927, Journal of the American Statistical Association 22, 209-212. Written out, because scipy's and statsmodels'
    take whole numbers, and the number of units that a finite stratum is worth is none.

    Examples
    --------
    >>> [round(end, 4) for end in wilson_interval(0.9, 10)]
    [0.5958, 0.9821]
    """
    if reviewed == 0:
        return 0.0, 1.0
    if math.isinf(reviewed):
        return part, part
    z = float(ndtri(0.5 + confidence / 2))
    middle = part + z**2 / (2 * reviewed)
    half = z * math.sqrt(part * (1 - part) / reviewed + z**2 / (4 * reviewed**2))
    scale = 1 + z**2 / reviewed
    return max(0.0, (middle - half) / scale) if part else 0.0, min(1.0, (middle + half) / scale) if part < 1 else 1.0


def estimate_area(strata: Sequence[StratumCounts], *, confidence: float = 0.95) -> Estimate:
    """Estimate how much of the strata holds the target, in the unit of their sizes.

    Examples
    --------
    >>> found = StratumCounts(mapped=True, size=100.0, reviewed=50, target=40, finite=False)
    >>> elsewhere = StratumCounts(mapped=False, size=900.0, reviewed=100, target=2, finite=False)
    >>> area = estimate_area([found, elsewhere])
    >>> round(area.value, 1), round(area.standard_error, 1)
    (98.0, 13.9)
    """
    if not strata:
        return Estimate(value=0.0, standard_error=0.0, low=0.0, high=0.0)
    sizes = np.array([stratum.size for stratum in strata])
    parts = np.array([stratum.part for stratum in strata])
    low, high = np.array([stratum.interval(confidence) for stratum in strata]).T
    value = float(sizes @ parts)
    return Estimate(
        value=value,
        standard_error=math.sqrt(sum(stratum.size**2 * stratum.variance for stratum in strata)),
        low=value - math.hypot(*(sizes * (parts - low))),
        high=value + math.hypot(*(sizes * (high - parts))),
    )


def estimate_precision(strata: Sequence[StratumCounts], *, confidence: float = 0.95) -> Estimate:
    """Estimate the part of what the map shows that is right; by number or area, as sizes are."""
    mapped = [stratum for stratum in strata if stratum.mapped]
    size = sum(stratum.size for stratum in mapped)
    if size == 0:
        return _UNKNOWN
    area = estimate_area(mapped, confidence=confidence)
    return Estimate(**{name: number / size for name, number in asdict(area).items()})


def estimate_recall(strata: Sequence[StratumCounts], *, confidence: float = 0.95) -> Estimate:
    """Estimate the part of the target that the map shows; NaN where no stratum is unmapped, as nothing is known of it then."""
    unmapped = [stratum for stratum in strata if not stratum.mapped]
    if not unmapped:
        return _UNKNOWN
    hits = estimate_area([stratum for stratum in strata if stratum.mapped], confidence=confidence)
    misses = estimate_area(unmapped, confidence=confidence)
    total = hits.value + misses.value
    if not total > 0:
        return _UNKNOWN
    recall = hits.value / total
    error = math.hypot((1 - recall) * hits.standard_error, recall * misses.standard_error) / total
    # Recall rises with hits / misses alone, so that its interval is that of the ratio.
    low = _recall_end(hits, misses, ends=(hits.low, misses.high), upper=False)
    high = _recall_end(hits, misses, ends=(hits.high, misses.low), upper=True)
    return Estimate(value=recall, standard_error=error, low=low, high=high)


def _recall_end(hits: Estimate, misses: Estimate, *, ends: tuple[float, float], upper: bool) -> float:
    """Return one end of the interval of hits / (hits + misses), from that of the ratio r = hits / misses.

    Newcombe's equation c r^2 - 2 b r + a = 0; its root is kept as two numbers, because without misses r has no value.
    """
    a = hits.value**2 - (ends[0] - hits.value) ** 2
    b = hits.value * misses.value
    c = misses.value**2 - (ends[1] - misses.value) ** 2
    root = math.sqrt(max(b * b - a * c, 0.0))
    numerator, denominator = (b + root, c) if upper else (max(a, 0.0), b + root)
    if denominator <= 0:
        return 1.0 if upper else 0.0
    return numerator / (numerator + denominator)


def required_sample(part: float, *, half_width: float, size: float = math.inf, confidence: float = 0.95) -> int:
    """Return how many units to review, for an interval of an expected proportion that is `half_width` wide on each side.

    Cochran 1977, Sampling Techniques, 4.4: `n = z² p (1 - p) / d²`, less where they are many of all.

    Parameters
    ----------
    part
        The proportion that is expected, 0 to 1; 0.5 needs most.
    half_width
        What is wanted of the interval, above 0.
    size
        Units that there are.
    confidence
        Of the interval.

    Examples
    --------
    >>> required_sample(0.7, half_width=0.05)
    323
    >>> required_sample(0.7, half_width=0.05, size=1000)
    245
    """
    wanted = (float(ndtri(0.5 + confidence / 2)) / half_width) ** 2 * part * (1 - part)
    return int(min(size, max(2, math.ceil(wanted / (1 + max(wanted - 1, 0) / size)))))


_UNKNOWN = Estimate(value=math.nan, standard_error=math.nan, low=math.nan, high=math.nan)


_MISSING = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSums:
    """Sums of some cells; blocks add up."""

    cells: NDArray[np.int64]
    """`(cell, 2)` numbers along y (upwards) and x; each cell once, in order."""
    area_m2: NDArray[np.float64]
    """`(cell, 2)` expected and valid."""

    def __add__(self, more: "CellSums") -> "CellSums":
        cells, place = np.unique(np.concatenate([self.cells, more.cells]), axis=0, return_inverse=True)
        area = np.zeros((len(cells), 2))
        np.add.at(area, place.ravel(), np.concatenate([self.area_m2, more.area_m2]))
        return CellSums(cells=cells, area_m2=area)

    @classmethod
    def nothing(cls) -> "CellSums":
        """Return none."""
        return cls(cells=np.empty((0, 2), np.int64), area_m2=np.empty((0, 2)))


@dataclass(frozen=True, kw_only=True)
class SumCells:
    """Expected and valid area of parts of a raster by cell."""

    mesh: PixelMesh
    """Of the whole raster."""
    side: float
    """Of a cell, in the unit of the raster's CRS or in degrees; cells begin at multiples of it."""
    degrees: bool
    """Whether cells are those of longitude and latitude."""
    levels: int
    """Steps between probability 0 and 1, of floats 1."""

    def __call__(self, stored: NDArray[np.float32] | NDArray[np.uint8], window: Window) -> CellSums:
        """Sum a window of stored probabilities `(y, x)`; missing ones are 255, or NaN of floats."""
        valid = np.isfinite(stored) if stored.dtype.kind == "f" else stored != _MISSING
        if not valid.any():  # most of an Arctic is sea
            return CellSums.nothing()
        row, column = (np.arange(part.start, part.stop, dtype=np.float64) + 0.5 for part in window)
        placed = apply_affine(self.mesh.geobox.affine, column, row[:, None])
        along_x, along_y = self.mesh.lonlat(window) if self.degrees else placed
        cell_y, cell_x = (np.floor(along / self.side).astype(np.int64) for along in (along_y, along_x))
        first_y, first_x = cell_y.min(), cell_x.min()
        shape = (int(cell_y.max() - first_y) + 1, int(cell_x.max() - first_x) + 1)
        place = ((cell_y - first_y) * shape[1] + (cell_x - first_x))[valid]
        ground = self.mesh.areas_m2(window)[valid]
        sums = [
            np.bincount(place, weights=weights, minlength=shape[0] * shape[1])
            for weights in (ground * stored[valid] / self.levels, ground)
        ]
        met = np.flatnonzero(sums[1])
        y, x = np.divmod(met, shape[1])
        return CellSums(
            cells=np.column_stack([y + first_y, x + first_x]), area_m2=np.column_stack([each[met] for each in sums])
        )
