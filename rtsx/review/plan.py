"""The queue of a review and what is said of it: which outlines are reviewed in which batch and order, claims, verdicts and their checks; pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import shapely
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from rtsx.errors import ReviewError
from rtsx.parsing import AwareDatetime, StoredRecord
from rtsx.scores.agreement import VERDICTS, Verdict

QueueOrder = Literal["probability", "uncertainty", "random"]
"""Which outlines come first: of the highest `prob_max`; with a `prob_mean` nearest to one half; any."""


@dataclass(frozen=True, kw_only=True)
class ReviewBatch:
    """Outlines that one reviewer reviews in one go."""

    outlines: tuple[str, ...]
    """Their ids, in the order in which they are shown."""
    repeats: int | None = None
    """Number of the batch of which these outlines are shown again, to another reviewer; None where they are shown first."""


@dataclass(frozen=True, kw_only=True)
class ReviewRound(StoredRecord):
    """All batches of one round, counted from 0."""

    what = "This is no round of a review"
    raises = ReviewError

    number: int
    """From 1; later rounds ask again what was unsure or disputed."""
    batches: tuple[ReviewBatch, ...]
    """Those that are shown first, in the order of the queue, then the repeats."""

    @property
    def n_outlines(self) -> int:
        """Outlines that are reviewed in this round, without repeats."""
        return sum(len(batch.outlines) for batch in self.batches if batch.repeats is None)

    @property
    def n_repeats(self) -> int:
        """Outlines that are shown to a second reviewer."""
        return sum(len(batch.outlines) for batch in self.batches if batch.repeats is not None)


@dataclass(frozen=True, kw_only=True)
class ReviewSettings(StoredRecord):
    """What is reviewed, and how."""

    what = "This is no review"
    raises = ReviewError

    class_name: str
    """What reviewers say yes or no to."""
    key: Literal["footprint_id", "sample_id"]
    """Column that names an outline."""
    order: QueueOrder
    """Which outlines come first."""
    blind: bool
    """Whether reviewers do not see the model's probability."""
    cubes: tuple[tuple[str, str], ...]
    """Name and source of each image to look at, the newest first."""
    batch_size: Annotated[int, Ge(1)]
    """Outlines of a batch, at most."""
    repeats: Annotated[float, Ge(0)]
    """Part of all outlines that a second reviewer sees."""
    seed: Annotated[int, Ge(0)]
    """Of the order within batches, and of which outlines are repeated."""
    lease_s: Annotated[float, Gt(0)]
    """Seconds without a sign of life after which a batch is free for another reviewer."""
    created: AwareDatetime
    """When, UTC."""
    digest: str
    """sha256 of the table of outlines."""


def queue_outlines(table: pd.DataFrame, *, key: str, order: QueueOrder, seed: int) -> tuple[str, ...]:
    """Return ids of outlines in the order in which they are asked for; equal values by their id.

    Raises
    ------
    ReviewError
        The table lacks what the order goes by.

    Examples
    --------
    >>> table = pd.DataFrame({"footprint_id": ["a", "b", "c"], "prob_max": [0.5, 0.9, 0.5], "prob_mean": [0.5, 0.8, 0.4]})
    >>> queue_outlines(table, key="footprint_id", order="probability", seed=0)
    ('b', 'a', 'c')
    >>> queue_outlines(table, key="footprint_id", order="uncertainty", seed=0)
    ('a', 'c', 'b')
    """
    names = table[key].astype(str)
    if order == "random":
        shuffled = np.random.default_rng([seed, 0]).permutation(names.sort_values().to_numpy())
        return tuple(map(str, shuffled))
    column = {"probability": "prob_max", "uncertainty": "prob_mean"}[order]
    if column not in table.columns or table[column].isna().any():
        raise ReviewError(
            f"A queue by {order} needs {column} of every outline, which this table has not. Give footprints as "
            "rtsx footprints writes them, or take the order 'random'."
        )
    rank = -table[column] if order == "probability" else (table[column] - 0.5).abs()
    ordered = pd.DataFrame({"rank": rank.round(9), "name": names}).sort_values(["rank", "name"])
    return tuple(ordered["name"])


def plan_round(queue: Sequence[str], *, number: int, batch_size: int, repeats: float, seed: int) -> ReviewRound:
    """Cut a queue into batches, shuffled within, and choose what another reviewer sees again.

    Once the first n batches are done, all that stands before the end of batch n in the queue has been reviewed.

    Parameters
    ----------
    queue
        Ids of the outlines, in order.
    number
        Of the round, from 1.
    batch_size
        Outlines of a batch, at most.
    repeats
        Part of the queue that is repeated, 0 to 1; at least one outline where it is above 0.
    seed
        Of everything that is random.

    Examples
    --------
    >>> planned = plan_round("abcdefg", number=1, batch_size=3, repeats=0.2, seed=0)
    >>> [sorted(batch.outlines) for batch in planned.batches if batch.repeats is None]
    [['a', 'b', 'c'], ['d', 'e', 'f'], ['g']]
    >>> planned.n_repeats
    2
    """
    random = np.random.default_rng([seed, number])
    n_repeated = min(len(queue), int(np.ceil(repeats * len(queue))))
    is_repeated = np.zeros(len(queue), bool)
    is_repeated[random.choice(len(queue), n_repeated, replace=False)] = True
    starts = range(0, len(queue), batch_size)
    first = [_shuffled(range(start, min(start + batch_size, len(queue))), random) for start in starts]
    # In an order of their own, so that nobody can tell by it that others have seen them.
    again = [_shuffled([place for place in places if is_repeated[place]], random) for places in first]
    batches = [ReviewBatch(outlines=tuple(queue[place] for place in places)) for places in first]
    batches += [
        ReviewBatch(outlines=tuple(queue[place] for place in places), repeats=batch)
        for batch, places in enumerate(again)
        if len(places)
    ]
    return ReviewRound(number=number, batches=tuple(batches))


def _shuffled(places: Sequence[int], random: np.random.Generator) -> NDArray[Any]:
    return random.permutation(np.asarray(places, np.int64))


@dataclass(frozen=True, kw_only=True)
class ReviewClaim(StoredRecord):
    """Who has a batch, and until when."""

    what = "This is no claim of a batch"
    raises = ReviewError

    round: int
    batch: int
    generation: int
    """How many claims of this batch there were, with this one."""
    reviewer: str
    taken: AwareDatetime
    """When, UTC."""
    expires: AwareDatetime
    """When another reviewer may take the batch, UTC, unless there is a sign of life before."""

    def is_over(self, now: datetime) -> bool:
        """Test whether another reviewer may take the batch."""
        return self.expires <= now


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one reviewer says of one outline."""

    outline: str
    """Its id."""
    verdict: Verdict
    reason: str = ""
    """What else it is, in a word, such as ``lake``."""
    comment: str = ""
    corrected: str | None = None
    """A better outline, as WKT in the CRS of the table; None where the outline is left as it is."""
    seconds: Annotated[float, Ge(0)] | None = None
    """How long it was looked at."""


@dataclass(frozen=True, kw_only=True)
class AddedOutline:
    """An object that the map has missed, drawn by a reviewer."""

    geometry: str
    """Its outline, as WKT in the CRS of the table."""
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class BatchVerdicts(StoredRecord):
    """All that one reviewer says of one batch; written once, and never changed."""

    what = "These are no verdicts"
    raises = ReviewError

    round: int
    batch: int
    reviewer: str
    answers: tuple[Answer, ...]
    """One for each outline of the batch."""
    added: tuple[AddedOutline, ...] = ()
    finished: AwareDatetime
    """When they were sent, UTC."""


_LONGEST_TEXT = 2000
"""Characters of a comment or reason."""
_REVIEWER = re.compile(r"[\w][\w.@ -]{0,63}")


def check_reviewer(name: str) -> None:
    """Refuse a name that could be something else than one.

    Raises
    ------
    ReviewError
        It has other characters than letters, digits and ``. _ - @``, or is empty or long.
    """
    if not _REVIEWER.fullmatch(name):
        raise ReviewError(
            f"A reviewer is named by up to 64 letters, digits, blanks and . _ - @, beginning with a letter or digit; got {name[:80]!r}."
        )


def as_outline(text: str) -> shapely.Geometry:
    """Return the polygon that a reviewer has drawn.

    Raises
    ------
    ReviewError
        It is none, or crosses itself.
    """
    try:
        drawn = shapely.from_wkt(text)
    except shapely.GEOSException as error:
        raise ReviewError(f"An outline is a polygon in WKT; got {text[:60]!r}. Draw it again.") from error
    if drawn is None or drawn.geom_type not in ("Polygon", "MultiPolygon") or drawn.is_empty or not drawn.is_valid:
        reason = "nothing" if drawn is None else shapely.is_valid_reason(drawn)
        raise ReviewError(
            f"An outline is a polygon that does not cross itself; got {text[:60]!r} ({reason}). Draw it again."
        )
    return drawn


def check_verdicts(verdicts: BatchVerdicts, rounds: Mapping[int, ReviewRound]) -> None:
    """Refuse verdicts that are not those of one batch: one for each of its outlines."""
    there = rounds.get(verdicts.round)
    if there is None or not 0 <= verdicts.batch < len(there.batches):
        raise ReviewError(
            f"Verdicts name batch {verdicts.batch} of round {verdicts.round}, which this review has not. They are of another one."
        )
    asked = set(there.batches[verdicts.batch].outlines)
    answered = [answer.outline for answer in verdicts.answers]
    unknown = [name for name in answered if name not in asked]
    if unknown:
        raise ReviewError(
            f"A verdict is about outline {unknown[0]!r}, which batch {verdicts.batch} of round {verdicts.round} does not have. It "
            "belongs to another batch or review; send it there."
        )
    if len(answered) != len(asked) or len(set(answered)) != len(asked):
        missing = sorted(asked.difference(answered))
        raise ReviewError(
            f"Each of the {len(asked)} outlines of a batch gets one verdict; got {len(answered)}"
            + (f", and {len(missing)} lack one, such as {missing[0]!r}." if missing else ".")
            + " What cannot be told is unsure."
        )


def check_texts(verdicts: BatchVerdicts) -> None:
    """Refuse texts that are too long, and what was drawn and is no outline."""
    texts = [text for answer in verdicts.answers for text in (answer.reason, answer.comment)]
    longest = max(map(len, [*texts, *(one.comment for one in verdicts.added)]), default=0)
    if longest > _LONGEST_TEXT:
        raise ReviewError(f"Reasons and comments have up to {_LONGEST_TEXT} characters; got {longest}. Shorten them.")
    for answer in verdicts.answers:
        assert answer.verdict in VERDICTS  # reading has looked
        if answer.corrected is not None:
            as_outline(answer.corrected)
    for added in verdicts.added:
        as_outline(added.geometry)
