"""What a campaign costs: worker-hours by what they computed with, and their price; for a cell, for an area, and ahead on machines by name."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, fsum, log10, sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.recipe import Machine, Prices
from rtsx.campaign.records import RunRecord
from rtsx.pages import figure

_LEAST_S = 1e-3
"""Seconds that count as none, because sums are not exact."""
_ROUNDING = 1e-9
"""Part of a mean up to which its error is one of floats alone."""
_SPREAD = (0.05, 0.95)
"""Quantiles between which nine in ten cells lie."""


@dataclass(frozen=True, kw_only=True)
class Expense:
    """Worker-hours on one kind of hardware."""

    hardware: str
    """What they computed with; empty where no record says."""
    hours: float
    """Hours of all workers together."""
    machine: str
    """Name of the machine whose price it is; empty where it is that of any worker, or none."""
    cost: float | None
    """What they cost; None without a price."""

    @property
    def name(self) -> str:
        """Hardware, and the machine where one has it."""
        return (self.hardware or "hardware not known") + (f" ({self.machine})" if self.machine else "")


def only_hardware(names: Iterable[str]) -> str:
    """Return the one kind of hardware that all who know theirs name; empty where they name none, or several.

    Examples
    --------
    >>> only_hardware(["CPU", "", "CPU"]), only_hardware(["CPU", "NVIDIA T4"])
    ('CPU', '')
    """
    known = {*names} - {""}
    return known.pop() if len(known) == 1 else ""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What machines were paid for, whatever came of it.

    Examples
    --------
    >>> node = Machine(name="node", hour=8.0, hardware="NVIDIA A100-SXM4-40GB", workers=4)
    >>> prices = Prices(machines=(node,), currency="EUR")
    >>> print(Costs.of({"NVIDIA A100-SXM4-40GB": 5.0, "CPU": 0.5}, prices))
    10.00 EUR, and 0.50 hours of CPU without a price
    """

    expenses: tuple[Expense, ...]
    """One for each kind of hardware, by name."""
    currency: str

    @classmethod
    def of(cls, hours: Mapping[str, float], prices: Prices) -> Self:
        """Price worker-hours by hardware; where all others have one, those of which no record says have it, too."""

        def expense(hardware: str, spent: float) -> Expense:
            priced = hardware or only_hardware(hours)
            price, machine = prices.worker_hour(priced), prices.machine(priced)
            return Expense(
                hardware=hardware,
                hours=spent,
                machine="" if machine is None else machine.name,
                cost=None if price is None else spent * price,
            )

        return cls(expenses=tuple(expense(*each) for each in sorted(hours.items())), currency=prices.currency)

    @classmethod
    def paid(cls, runs: Iterable[RunRecord], prices: Prices) -> Self:
        """Add up all runs: workers that waited, attempts that failed and runs that were killed are paid like the rest."""
        seconds = defaultdict[str, list[float]](list)
        for run in runs:
            for hardware, spent in {"": run.worker_seconds - fsum(run.hardware.values()), **run.hardware}.items():
                if spent > _LEAST_S:
                    seconds[hardware].append(spent)
        return cls.of({hardware: fsum(each) / 3600 for hardware, each in seconds.items()}, prices)

    @property
    def hours(self) -> float:
        """Hours of all workers together."""
        return fsum(one.hours for one in self.expenses)

    @property
    def total(self) -> float | None:
        """Sum of what has a price; None where nothing has."""
        known = [one.cost for one in self.expenses if one.cost is not None]
        return fsum(known) if known else None

    @property
    def unpriced(self) -> tuple[Expense, ...]:
        """What has no price, so that the sum is too low."""
        return tuple(one for one in self.expenses if one.cost is None)

    def each(self, amount: float) -> float | None:
        """Return the sum for one of so many; None where there is none, or nothing has a price."""
        return None if self.total is None or not amount else self.total / amount

    def __str__(self) -> str:
        missing = " and ".join(f"{one.hours:,.2f} hours of {one.name}" for one in self.unpriced)
        prices = [] if self.total is None else [f"{self.total:,.2f} {self.currency}"]
        return ", and ".join([*prices, f"{missing} without a price"] if missing else prices)


LEAST_CELLS = 10
"""Cells below which a standard error would say nothing."""


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """What one of something has cost, such as a cell: the mean over finished cells, and its standard error.

    Each cell bears its own time at the price of its hardware and, in proportion to it, a share of all else that was paid. The mean is
    the sum of costs over the sum of amounts, and its standard error that of such a ratio over independent cells, to first order: where
    each counts as one, their standard deviation over the root of their number.

    Examples
    --------
    >>> print(UnitCost.of(np.array([1.0, 3.0] * 8), np.ones(16), total=64.0, currency="EUR"))
    4.00 ± 0.52 EUR, from 16 cells
    """

    mean: float | None
    """None where nothing has a price, or nothing is done."""
    error: float | None
    """Standard error of the mean; None for fewer than `LEAST_CELLS` cells, or where hours or the hardware of a cell have no price."""
    cells: int
    """Finished cells that it comes from."""
    currency: str
    is_least: bool
    """Whether hours without a price make the mean too low."""
    unknown: str = ""
    """Why there is no mean; empty where there is one."""

    @classmethod
    def of(
        cls,
        spent: NDArray[np.float64],
        amounts: NDArray[np.float64],
        *,
        total: float | None,
        currency: str,
        is_least: bool = False,
    ) -> Self:
        """Divide what was paid.

        Parameters
        ----------
        spent
            What each cell's own time has cost; NaN where its hardware has no price.
        amounts
            What each cell counts, such as its area.
        total
            All that was paid; None where nothing has a price.
        currency
            Of the prices.
        is_least
            Whether there are hours without a price.
        """
        n, whole, own = len(spent), float(amounts.sum()), float(spent.sum())
        if total is None or not whole:
            reason = (
                "no hours have a price" if n and total is None else "no ground is valid" if n else "nothing is done"
            )
            return cls(mean=None, error=None, cells=n, currency=currency, is_least=is_least, unknown=reason)
        mean, error = total / whole, None
        if n >= LEAST_CELLS and own > 0 and not is_least:
            residuals = spent * (total / own) - mean * amounts
            error = sqrt(fsum(residuals**2) * n / (n - 1)) / whole
            error = error if error > _ROUNDING * mean else 0.0
        return cls(mean=mean, error=error, cells=n, currency=currency, is_least=is_least)

    def __str__(self) -> str:
        if self.mean is None:
            return f"not known: {self.unknown}"
        least = "at least " if self.is_least else ""
        scale = self.error or self.mean
        # Two digits of the error, or of the mean alone, and cents at least.
        digits = max(2, 1 - floor(log10(scale))) if scale else 2
        error = "" if self.error is None else f" ± {self.error:,.{digits}f}"
        return (
            f"{least}{self.mean:,.{digits}f}{error} {self.currency}, from {self.cells:,} cell{'s' * (self.cells != 1)}"
        )


@dataclass(frozen=True, kw_only=True)
class CellHours:
    """Worker-hours that were paid for a finished cell on one kind of hardware.

    Its own time, and in proportion to it a share of all that was paid there and finished no cell.
    """

    cells: int
    """Cells that it comes from."""
    mean: float
    """Hours of a cell."""
    low: float
    """One cell in twenty takes less."""
    high: float
    """One in twenty takes more."""

    @classmethod
    def of(cls, seconds: Sequence[float], *, paid_hours: float, share: float = 1.0) -> Self:
        """Summarise the times of cells.

        Parameters
        ----------
        seconds
            Time of each, s.
        paid_hours
            Worker-hours of all cells of that hardware; 0 where no record of a run says.
        share
            Which part of all cells these are.
        """
        hours = np.asarray(seconds, np.float64) / 3600
        scale = paid_hours * share / hours.sum() if paid_hours and hours.any() else 1.0
        low, high = np.quantile(hours, _SPREAD) * scale
        return cls(cells=len(hours), mean=float(hours.mean() * scale), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class MachineEstimate:
    """What a whole campaign takes on one kind of machine."""

    machine: Machine
    hours: float | None
    """Worker-hours; None where nobody has measured it."""
    basis: str
    """What they come from, or what to do where nothing is known."""

    @property
    def cost(self) -> float | None:
        """What the machines cost for them."""
        return None if self.hours is None else self.hours / self.machine.workers * self.machine.hour

    def __str__(self) -> str:
        known = (
            "" if self.hours is None else f" {self.cost:,.2f} for {figure(self.hours / self.machine.workers, 3)} hours,"
        )
        return f"{self.machine.name} ({self.machine.hardware}):{known} {self.basis}"

    @classmethod
    def of(
        cls, machine: Machine, *, cells: int, tiles: int, measured: Mapping[str, float], done: Mapping[str, CellHours]
    ) -> Self:
        """Estimate from what is best known: finished cells, which waited and failed as cells do, else the network's time alone.

        Parameters
        ----------
        machine
            Which.
        cells, tiles
            Of the campaign.
        measured
            Seconds of a tile by hardware, as measured now.
        done
            Finished cells by hardware, of this campaign or an earlier year.
        """
        found, said, here = done.get(machine.hardware), machine.seconds_per_tile, measured.get(machine.hardware)
        tile = here if said is None else said
        hours = None if tile is None else tiles * tile / 3600
        if found is not None:
            hours = cells * found.mean
            low, high = (hours * machine.hour / machine.workers for hours in (found.low, found.high))
            basis = f"from {found.cells:,} finished cells, of which nine in ten cost {figure(low, 3)} to {figure(high, 3)} each"
        elif tile is not None:
            source = "measured here" if said is None else "the prices say"
            basis = f"network alone, {tile:.3g} s a tile as {source}"
        else:
            basis = f"not measured: run rtsx campaign plan on {machine.hardware}, or say seconds_per_tile"
        return cls(machine=machine, hours=hours, basis=basis)
