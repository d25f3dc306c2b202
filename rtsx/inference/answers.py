"""From blended answers to what is stored: strips added up, quantised, marked where invalid. Pure NumPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.inference.blocks import Region, regions_meet
from rtsx.inference.kernel import ONE, Answer
from rtsx.inference.plan import PredictionPlan

__all__ = ["NODATA", "cut_out", "finished", "joined"]

NODATA = 255
"""Stored value of an invalid pixel in every uint8 answer."""

# Half a millionth: an answer of exactly the threshold must not fall below it by the rounding of its weights.
_SLACK = 8


def cut_out(answer: Answer, region: Region) -> Answer:
    """The strip of an answer that lies in a region, as its own memory, so that the rest can be freed."""
    both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(answer.region, region, strict=True))
    y, x = (slice(b.start - a.start, b.stop - a.start) for a, b in zip(answer.region, both, strict=True))
    values = None if answer.values is None else np.ascontiguousarray(answer.values[..., y, x])
    return Answer(region=(both[0], both[1]), values=values)


def joined(answers: Sequence[Answer], region: Region, *, plan: PredictionPlan) -> NDArray[np.int32]:
    """Total (member, class, y, x) of all answers over a region; `"max"` takes the greatest instead of the sum."""
    total = np.zeros((plan.kept, len(plan.classes), *(part.stop - part.start for part in region)), np.int32)
    add = np.maximum if plan.tiling.blend == "max" else np.add
    for answer in answers:
        if not regions_meet(answer.region, region):
            continue
        strip = cut_out(answer, region)
        if strip.values is None:
            continue
        y, x = (slice(s.start - r.start, s.stop - r.start) for s, r in zip(strip.region, region, strict=True))
        add(total[..., y, x], strip.values, out=total[..., y, x])
    return total


def finished(total: NDArray[np.int32], valid: NDArray[np.bool_], *, plan: PredictionPlan) -> dict[str, NDArray[Any]]:
    """Stored answers by name, from the total (member, class, y, x) and validity (y, x) of one region.

    Returns
    -------
    dict
        `probability` and `binary` (y, x), or (class, y, x) with several classes; with `plan.keep_members` also
        `probability_member` (member, ...) and `spread`, their standard deviation in float32.
    """
    merged = total[0] if len(total) == 1 else total.mean(0)
    answers = {"probability": _stored(merged, valid, plan), "binary": _binary(merged, valid, plan)}
    if plan.keep_members:
        answers["probability_member"] = _stored(total, valid, plan)
        spread = (total.std(0) / ONE).astype(np.float32)
        answers["spread"] = np.where(valid, spread, np.float32(np.nan))
    if len(plan.classes) == 1:
        return {name: np.squeeze(values, axis=-3) for name, values in answers.items()}
    return answers


def _stored(values: NDArray[Any], valid: NDArray[np.bool_], plan: PredictionPlan) -> NDArray[Any]:
    if plan.dtype == "float32":
        fraction = np.minimum(values / np.float32(ONE), 1).astype(np.float32)
        return np.where(valid, fraction, np.float32(np.nan))
    percent = np.minimum(np.rint(values * np.float32(100 / ONE)), 100).astype(np.uint8)
    return np.where(valid, percent, np.uint8(NODATA))


def _binary(values: NDArray[Any], valid: NDArray[np.bool_], plan: PredictionPlan) -> NDArray[np.uint8]:
    if plan.exclusive:
        positive = np.arange(len(values))[:, None, None] == values.argmax(0)
    else:
        positive = values + _SLACK >= round(plan.threshold * ONE)
    return np.where(valid, positive.astype(np.uint8), np.uint8(NODATA))
