"""Whether the images of a year are like those of other years, and those that the models have learnt: the comparison, and its record.

A check that has tripped stops runs until somebody accepts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.errors import CampaignError
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import QUANTILES, LayerDistribution
from rtsx.pages import render_page, render_text
from rtsx.parsing import Moment, StoredRecord, parsed_json
from rtsx.storage.object_store import ObjectStore

MOST_DRIFT = 0.5
"""Most that mean, spread or a quantile of a layer may be away from its reference, in standard deviations of the reference."""
MOST_INVALID = 0.2
"""Most that the share of invalid pixels may be away from that of another year."""
_BESIDE = 2
"""A quantile is held against those of the reference so many places below to above: a tenth of the pixels may be other ones, because
more water or snow, or a class that grows, moves a quantile from one kind of ground to another."""
_ALIKE = 0.2
"""Standard deviations within which what explains a drift has to bring the values."""
_SCALED = (-10.0, 10.0)
"""Where what a model has scaled lies, by the middle of its values; a wrong scale is out by a thousand."""
_LEAST_FILLED = 0.01
"""Part of the range to which a channel is cut that values fill at least, but for a tenth of them."""
_NOTHING = "it holds no value at all"


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """One layer beside one reference; lengths are in standard deviations of the reference."""

    layer: str
    """Its name; ``valid`` stands for what all layers and masks leave."""
    against: str
    """A year, or the id of a model."""
    mean: float | None = None
    """How far the mean has moved; None where values are not compared."""
    spread: float | None = None
    """How much wider the standard deviation is: 0 as wide, 1 twice; None likewise."""
    quantile: float | None = None
    """How far the quantile that has moved most is from those of the reference for a tenth of the pixels less and more; None likewise."""
    invalid: float | None = None
    """By how much the share of invalid pixels has grown; None where the reference is a model, which learns from valid ones."""
    is_drifted: bool
    """Whether one of them is beyond its limit."""
    decides: bool
    """Whether that trips the check; where there is a year to compare with, the model does not."""
    hint: str = ""
    """What would explain it, for people; empty where nothing simple does."""

    def __str__(self) -> str:
        """In one sentence."""
        moved = {"mean": self.mean, "spread": self.spread, "quantiles up to": self.quantile}
        there = [f"{name} {signed(value)}" for name, value in moved.items() if value is not None]
        said = [f"{', '.join(there)} standard deviations"] if there else []
        said += [] if self.invalid is None else [f"invalid {100 * self.invalid:+.0f} %"]
        said += [self.hint] if self.hint else []
        return f"{self.layer} against {self.against}: {'; '.join(said) or 'within the range'}"


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """That somebody lets a campaign run although its check has tripped."""

    name: str
    """Who."""
    reason: str
    """Why."""
    when: Moment
    """UTC, ISO 8601."""


@dataclass(frozen=True, kw_only=True)
class DriftCheck(StoredRecord):
    """Statistics of a sample of a year's images, and how they compare."""

    what = "This is no drift check"
    raises = CampaignError

    plan_digest: str
    """Digest of the plan whose cells were sampled; the check counts for no other."""
    when: Moment
    """UTC, ISO 8601."""
    cells: tuple[str, ...]
    """Names of the cells that were sampled."""
    invalid: float
    """Share of pixels that cannot be trusted in all layers together, 0-1."""
    layers: Mapping[str, LayerDistribution]
    """What was measured, by layer: its values where the masks trust it, and the share of pixels that hold none."""
    comparisons: tuple[LayerComparison, ...]
    """Of each layer with each reference that knows it."""
    same_cells: float | None
    """Which part of the cells was sampled in the other year too, 0-1; None without another year."""
    notes: tuple[str, ...] = ()
    """What could not be compared, and why."""
    acceptances: tuple[Acceptance, ...] = ()
    """Who has accepted it, the latest last."""

    @property
    def findings(self) -> tuple[LayerComparison, ...]:
        """Comparisons for which the check trips."""
        return tuple(one for one in self.comparisons if one.is_drifted and one.decides)

    @property
    def is_tripped(self) -> bool:
        """Whether there are any."""
        return bool(self.findings)

    @property
    def state(self) -> Literal["alike", "tripped", "accepted"]:
        """Whether it has tripped, and whether somebody has accepted that."""
        return "alike" if not self.is_tripped else "accepted" if self.acceptances else "tripped"

    @property
    def may_run(self) -> bool:
        """Whether the year may be run: the check has not tripped, or was accepted."""
        return self.state != "tripped"

    def __str__(self) -> str:
        """Lines for people."""
        return render_text("drift.txt", {"of": self})


def read_check(objects: ObjectStore, plan: CampaignPlan) -> DriftCheck | None:
    """Read the check of a plan; None where it was never checked, or only another plan of that year was.

    Raises
    ------
    CampaignError
        What is there is no check.
    """
    key = YearLayout(plan.year).drift
    content = objects.get(key)
    if content is None:
        return None
    check = parsed_json(content, DriftCheck, what=key, error=CampaignError)
    return check if check.plan_digest == plan.digest else None


def require_accepted(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Refuse to run a year whose check has tripped and was not accepted.

    Raises
    ------
    CampaignError
        It has; the message says what was found, and what to do.
    """
    check = read_check(objects, plan)
    if check is None or check.may_run:
        return
    found = "; ".join(str(one) for one in check.findings[:3])
    more = f"; and {len(check.findings) - 3} more" if len(check.findings) > 3 else ""
    raise CampaignError(
        f"The drift check of {plan.year} has tripped: {found}{more}. Look at {YearLayout(plan.year).drift_page} in the output. Cure "
        "the source and run rtsx campaign check again; or, where the images are right, give this command "
        '--accept-drift "NAME: reason", which is recorded.'
    )


def accept_drift(objects: ObjectStore, plan: CampaignPlan, *, name: str, reason: str) -> DriftCheck:
    """Record that somebody lets a year run whose check has tripped; see `Campaign.accept_drift`."""
    check = accepted_check(objects, plan, name=name, reason=reason)
    write_check(objects, plan, check)
    return check


def accepted_check(objects: ObjectStore, plan: CampaignPlan, *, name: str, reason: str) -> DriftCheck:
    """Return the check of a year as it is once somebody has accepted it; writes nothing.

    Raises
    ------
    CampaignError
        Name or reason is empty, or the check was not made or has not tripped.
    """
    name, reason = name.strip(), reason.strip()
    if not name or not reason:
        raise CampaignError(
            f'Who accepts a drift says a name and a reason, such as "Ada: the summer was dry"; got {name!r} and {reason!r}.'
        )
    check = read_check(objects, plan)
    if check is None or not check.is_tripped:
        state = "was not made" if check is None else "has not tripped"
        raise CampaignError(
            f"There is no drift to accept: the check of {plan.year} {state}. Run it without --accept-drift."
        )
    if any((one.name, one.reason) == (name, reason) for one in check.acceptances):
        return check  # as whoever runs the same line again says it again
    accepted = Acceptance(name=name, reason=reason, when=datetime.now(UTC).isoformat())
    return replace(check, acceptances=(*check.acceptances, accepted))


def write_check(objects: ObjectStore, plan: CampaignPlan, check: DriftCheck) -> None:
    """Keep a check and its page, in place of those that were there."""
    layout = YearLayout(plan.year)
    objects.put(layout.drift_page, drift_page(plan, check).encode())
    objects.put(layout.drift, check.to_json().encode())


def compare(
    now: Mapping[str, LayerDistribution],
    reference: Mapping[str, LayerDistribution],
    *,
    against: str,
    with_invalid: bool,
    decides: bool,
) -> list[LayerComparison]:
    """Compare the layers that a reference knows.

    Parameters
    ----------
    now
        What was measured.
    reference
        What it should be like.
    against
        Name of the reference.
    with_invalid
        Whether shares of invalid pixels are compared.
    decides
        Whether a drift trips the check.

    Examples
    --------
    >>> import numpy as np
    >>> then = {"red": LayerDistribution.of(np.arange(100.0), pixels=100)}
    >>> now = {"red": LayerDistribution.of(np.arange(100.0) * 10, pixels=100)}
    >>> (found,) = compare(now, then, against="2024", with_invalid=True, decides=True)
    >>> found.is_drifted, found.hint
    (True, 'its values are about 10 times those there: is the scale wrong?')
    """
    found = []
    for layer in (name for name in now if name in reference):
        mine, theirs = now[layer], reference[layer]
        invalid = mine.invalid - theirs.invalid if with_invalid else None
        moved = _moved(mine, theirs) if mine.quantiles and theirs.quantiles else (None, None, None)
        is_moved = max(abs(one or 0.0) for one in moved) > MOST_DRIFT
        is_gone, hint = bool(theirs.count and not mine.count), ""
        if is_moved:
            hint = _explained(layer, now, reference)
        elif is_gone:
            hint = _NOTHING
        elif moved[0] is None and mine.count:
            hint = "it holds too few values to compare them"
        found.append(
            LayerComparison(
                layer=layer,
                against=against,
                mean=moved[0],
                spread=moved[1],
                quantile=moved[2],
                invalid=invalid,
                is_drifted=is_moved or is_gone or abs(invalid or 0.0) > MOST_INVALID,
                decides=decides,
                hint=hint,
            )
        )
    return found


def compare_valid(invalid: float, then: float, *, against: str) -> LayerComparison:
    """Compare the shares of pixels that layers and masks together leave out with that of another year."""
    grown = invalid - then
    return LayerComparison(
        layer="valid", against=against, invalid=grown, is_drifted=abs(grown) > MOST_INVALID, decides=True
    )


def compare_nothing(invalid: float) -> list[LayerComparison]:
    """Compare a year of which no pixel can be trusted, which no reference need tell."""
    hint = "no pixel of the sample can be trusted: is the mask rule that of these images, and is there ground in these days?"
    found = LayerComparison(layer="valid", against="any use", invalid=invalid, is_drifted=True, decides=True, hint=hint)
    return [found] if invalid == 1 else []


def _moved(now: LayerDistribution, then: LayerDistribution) -> tuple[float, float, float]:
    """Return how far mean, deviation and the farthest quantile are away, in standard deviations of the reference."""
    # Of a layer with one value, those of what it is now; of one that still has one value, every change counts.
    least = 1e-6 * abs(then.mean)
    unit = then.std if then.std > least else max(now.std, least, 1e-30)
    quantiles = [0.0]
    if len(now.quantiles) == len(then.quantiles):  # another version may have kept others
        above = [mine - most for mine, most in zip(now.quantiles, then.quantiles[_BESIDE:], strict=False)]
        below = [mine - fewest for mine, fewest in zip(now.quantiles[_BESIDE:], then.quantiles, strict=False)]
        quantiles += [max(one, 0.0) for one in above] + [min(one, 0.0) for one in below]
    spread = now.std - then.std if then.std > least else 0.0
    return (now.mean - then.mean) / unit, spread / unit, max(quantiles, key=abs) / unit


def _explained(
    layer: str, measured: Mapping[str, LayerDistribution], reference: Mapping[str, LayerDistribution]
) -> str:
    """Return what the values look like: those of another layer, a multiple, a sum, or the same but for few."""

    def is_like(one: LayerDistribution, mine: LayerDistribution) -> bool:
        return bool(mine.quantiles and one.quantiles) and max(map(abs, _moved(mine, one))) <= _ALIKE

    now, then = measured[layer], reference[layer]
    factor = now.std / then.std if then.std else 0.0
    is_scaled = bool(factor) and is_like(_scaled(then, factor=factor), now)
    factors = [
        one.std / reference[name].std for name, one in measured.items() if name in reference and reference[name].std
    ]
    # Brighter by one factor, red may look like nir; swapped, the factors of layers differ.
    is_alike = is_scaled and len(factors) > 1 and max(factors) <= 1.1 * min(factors)
    for name, other in reference.items():
        if not is_alike and name != layer and is_like(other, now) and not is_like(other, measured.get(name, now)):
            return f"its values are like those of {name} there: are bands swapped?"
    if is_scaled:
        return f"its values are about {factor:.2g} times those there: is the scale wrong?"
    if is_like(_scaled(then, offset=now.mean - then.mean), now):
        return f"its values are about {now.mean - then.mean:+.4g} beside those there: is the offset wrong?"
    if abs(_moved(now, then)[2]) <= _ALIKE:
        return "few of its pixels have other values: snow, ice, water, clouds?"
    return ""


def _scaled(one: LayerDistribution, *, factor: float = 1.0, offset: float = 0.0) -> LayerDistribution:
    quantiles = tuple(value * factor + offset for value in one.quantiles)
    return replace(one, mean=one.mean * factor + offset, std=one.std * factor, quantiles=quantiles)


def compare_ranges(
    now: Mapping[str, LayerDistribution], inputs: Sequence[InputLayer], *, against: str, decides: bool
) -> list[LayerComparison]:
    """Compare layers with the scaling of a model: the middle of what is scaled lies near 0, or within the range that is cut out and filled.

    Parameters
    ----------
    now
        What was measured.
    inputs
        The model's layers; of those that are neither scaled nor cut nothing can be said.
    against, decides
        As for `compare`.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.model import InputLayer
    >>> shown = InputLayer.from_range("red", 0, 0.3, clip=True)
    >>> stored = {"red": LayerDistribution.of(np.linspace(200.0, 1500, 50), pixels=50)}
    >>> compare_ranges(stored, [shown], against="tiny", decides=True)[0].hint
    'half of its values are beyond 0 to 0.3, where the model expects them: is the scale wrong?'
    """
    found = []
    for layer in inputs:
        mine = now.get(layer.name)
        if mine is None or (layer.clip is None and (layer.scale, layer.offset) == (1.0, 0.0)):
            continue
        low, high = sorted((bound - layer.offset) / layer.scale for bound in layer.clip or _SCALED)
        hint = "" if mine.count else _NOTHING
        if mine.quantiles:
            if not low <= mine.quantiles[len(QUANTILES) // 2] <= high:
                hint = f"half of its values are beyond {low:.4g} to {high:.4g}, where the model expects them: is the scale wrong?"
            elif layer.clip and mine.quantiles[-1] - mine.quantiles[0] < _LEAST_FILLED * (high - low):
                hint = f"its values fill less than a hundredth of {low:.4g} to {high:.4g}, which the model takes: is the scale wrong?"
        found.append(
            LayerComparison(layer=layer.name, against=against, is_drifted=bool(hint), decides=decides, hint=hint)
        )
    return found


def drift_page(plan: CampaignPlan, check: DriftCheck) -> str:
    """Return the page of a check, which needs no other file."""
    head = ("Layer", "Valid", "Mean", "Standard deviation", *(f"{100 * QUANTILES[place]:g} %" for place in _SHOWN))
    measured = []
    for name, one in check.layers.items():
        values = (one.mean, one.std, *(one.quantiles[place] for place in _SHOWN)) if one.quantiles else ()
        shown = [f"{value:.6g}" for value in values] or [""] * (2 + len(_SHOWN))
        measured.append((name, f"{100 * (1 - one.invalid):.1f} %", *shown))
    compared = [
        (
            one.layer,
            one.against,
            *map(signed, (one.mean, one.spread, one.quantile)),
            "" if one.invalid is None else f"{100 * one.invalid:+.1f} %",
            ("drift" if one.decides else "differs") if one.is_drifted else "alike",
            one.hint,
        )
        for one in check.comparisons
    ]
    facts = {
        "title": f"Drift check of {plan.name} {plan.year}",
        "check": check,
        "n_cells": len(check.cells),
        "limit": MOST_DRIFT,
        "limit_invalid": 100 * MOST_INVALID,
        "head": head,
        "measured": measured,
        "compared": compared,
        "acceptances": [(one.name, one.when[:19], one.reason) for one in check.acceptances],
        "facts": [("When", check.when[:19]), ("Plan", check.plan_digest), ("Cells", ", ".join(check.cells))],
    }
    return render_page("drift.html", facts)


_SHOWN = (0, 4, 9, 14, 18)
"""Places of the quantiles that the page shows."""


def signed(value: float | None) -> str:
    """Return a length in standard deviations for people; empty for None."""
    return "" if value is None else f"{value:+.2f}" if abs(value) < 1000 else f"{value:+.2g}"
