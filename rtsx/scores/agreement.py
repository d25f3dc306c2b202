"""Agreement of several masks of one area and of two readers, and bootstrap intervals. Pure arrays; counts of parts add up."""

from dataclasses import dataclass, fields, replace
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from rtsx.scores.counts import Counts

Verdict = Literal["target", "other", "unsure"]
"""What a reviewer says of an outline, or of a point: it is of the class, it is not, or that cannot be seen."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def majority(votes: NDArray[np.integer], *, voters: int) -> NDArray[np.bool_]:
    """Return True where at least half of the voters see the target.

    At least half, instead of more than half, because that is the rule of the published majority of ten experts; for an odd
    number of voters the two are the same.

    Examples
    --------
    >>> majority(np.array([0, 4, 5, 6]), voters=10).tolist()
    [False, False, True, True]
    """
    return np.asarray((2 * votes >= voters) & (votes > 0))


@dataclass(frozen=True, kw_only=True, eq=False)
class AgreementCounts:
    """Pixels that masks share with each other and with the majority of the annotators among them.

    The first `annotators` masks vote; the others, such as models, are compared with them.
    """

    annotators: int
    """How many of the masks vote."""
    shared: Counts
    """(mask, mask) pixels that both see."""
    sizes: Counts
    """(mask,) pixels that each sees."""
    all_shared: Counts
    """(mask,) pixels that each shares with the majority of all annotators."""
    all_size: int
    """Pixels of that majority."""
    others_shared: Counts
    """(mask,) pixels that each shares with the majority of the annotators besides itself."""
    others_size: Counts
    """(mask,) pixels of that majority."""
    counted: int
    """Pixels that count."""

    @classmethod
    def of(cls, masks: NDArray[np.bool_], counted: NDArray[np.bool_], *, annotators: int) -> Self:
        """Count masks (mask, y, x) where `counted` (y, x)."""
        flat = masks[:, counted]
        votes = flat[:annotators].sum(axis=0, dtype=np.int64)
        by_all = majority(votes, voters=annotators)
        others_shared, others_size = np.zeros((2, len(flat)), np.int64)
        for number, mask in enumerate(flat):
            votes_too = number < annotators
            by_others = majority(votes - mask, voters=annotators - 1) if votes_too else by_all
            others_shared[number], others_size[number] = np.count_nonzero(by_others & mask), np.count_nonzero(by_others)
        shared = [[np.count_nonzero(one & other) for other in flat] for one in flat]
        return cls(
            annotators=annotators,
            shared=np.array(shared, np.int64),
            sizes=flat.sum(axis=1, dtype=np.int64),
            all_shared=np.array([np.count_nonzero(by_all & mask) for mask in flat], np.int64),
            all_size=int(np.count_nonzero(by_all)),
            others_shared=others_shared,
            others_size=others_size,
            counted=flat.shape[1],
        )

    def __add__(self, more: Self) -> Self:
        if self.annotators != more.annotators or self.sizes.shape != more.sizes.shape:
            raise ValueError("Counts of one ground are of the same masks.")
        names = [each.name for each in fields(self) if each.name != "annotators"]
        return replace(self, **{name: getattr(self, name) + getattr(more, name) for name in names})

    def iou(self) -> NDArray[np.float64]:
        """Return the intersection over union (mask, mask); 1 where neither sees anything."""
        union = self.sizes[:, None] + self.sizes[None, :] - self.shared
        return np.asarray(np.divide(self.shared, union, out=np.ones(union.shape), where=union > 0), np.float64)


@dataclass(frozen=True, kw_only=True)
class Kappa:
    """Cohen's kappa of two readings: agreement beyond what chance alone would give."""

    value: float
    """1 for full agreement, 0 for that of chance; NaN without a pair, or where both always say the same one thing."""
    standard_error: float
    """Of `value`, for large samples; NaN where `value` is."""
    agreement: float
    """Part of the pairs that agree; NaN without one."""
    pairs: int
    """What both have read."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, within -1 and 1."""
        return max(self.value - 1.96 * self.standard_error, -1.0), min(self.value + 1.96 * self.standard_error, 1.0)


def cohens_kappa(counts: NDArray[np.integer]) -> Kappa:
    """Return Cohen's kappa with its standard error of Fleiss, Cohen and Everitt (1969, Psychological Bulletin 72).

    Parameters
    ----------
    counts
        Pairs (class, class) by what the first and what the second reading says.

    Examples
    --------
    The example of that paper:

    >>> kappa = cohens_kappa(np.array([[106, 10, 4], [22, 28, 10], [2, 12, 6]]))
    >>> round(kappa.value, 3), round(kappa.standard_error, 3), kappa.pairs
    (0.429, 0.054, 200)
    """
    pairs = int(counts.sum())
    nan = float("nan")
    if not pairs:
        return Kappa(value=nan, standard_error=nan, agreement=nan, pairs=0)
    parts = counts / pairs
    rows, columns = parts.sum(axis=1), parts.sum(axis=0)
    agreed, chance = float(np.trace(parts)), float(rows @ columns)
    if 1 - chance < 1e-12:
        return Kappa(value=nan, standard_error=nan, agreement=agreed, pairs=pairs)
    diagonal = np.diag(parts) @ ((1 - chance) - (rows + columns) * (1 - agreed)) ** 2
    weights = (columns[:, None] + rows[None, :]) ** 2
    others = (1 - agreed) ** 2 * float((parts * weights).sum() - np.diag(parts) @ np.diag(weights))
    variance = (diagonal + others - (agreed * chance - 2 * chance + agreed) ** 2) / (pairs * (1 - chance) ** 4)
    return Kappa(
        value=(agreed - chance) / (1 - chance),
        standard_error=float(np.sqrt(max(variance, 0.0))),
        agreement=agreed,
        pairs=pairs,
    )


def bootstrap_indices(count: int, *, draws: int, seed: int) -> NDArray[np.int64]:
    """Return how often each of `count` things is drawn, (draws, count), when as many are drawn with replacement.

    Examples
    --------
    >>> drawn = bootstrap_indices(3, draws=4, seed=0)
    >>> drawn.shape, drawn.sum(axis=1).tolist()
    ((4, 3), [3, 3, 3, 3])
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def percentile_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of the percentile method (Efron 1979): what a `level` of the resampled values lie in.

    Resamples without a value (NaN) are left out; NaN where none has one.

    Examples
    --------
    >>> percentile_interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
