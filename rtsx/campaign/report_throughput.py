"""The diagram of a report: how many cells were finished in each stretch of time, as SVG without a library."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

__all__ = ["Throughput", "throughput", "throughput_chart"]

_WIDTH, _HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 14, 34
_BARS = 60
_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Lengths of a bar, s; days beyond."""


@dataclass(frozen=True)
class Throughput:
    """Cells finished by stretches of equal length."""

    start: datetime
    """Begin of the first stretch, UTC."""
    step: timedelta
    """Length of each."""
    counts: tuple[int, ...]
    """Cells finished in each."""

    @property
    def per_hour(self) -> list[float]:
        """Cells an hour in each."""
        return [count * 3600 / self.step.total_seconds() for count in self.counts]


def throughput(finished: Sequence[datetime]) -> Throughput | None:
    """Cells by the time they were finished, in at most some dozens of stretches; None without cells.

    Examples
    --------
    >>> day = datetime(2024, 7, 1, tzinfo=UTC)
    >>> found = throughput([day, day + timedelta(seconds=30), day + timedelta(seconds=119)])
    >>> found.step.total_seconds(), sum(found.counts), found.counts[0], found.per_hour[0]
    (2.0, 3, 1, 1800.0)
    """
    if not finished:
        return None
    seconds = np.sort(np.array([moment.timestamp() for moment in finished]))
    spread = float(seconds[-1] - seconds[0])
    step = next((step for step in _STEPS_S if spread / step < _BARS), 86400)
    while spread / step >= _BARS:
        step *= 2
    first = seconds[0] // step * step
    counts = np.bincount(((seconds - first) // step).astype(np.int64))
    return Throughput(datetime.fromtimestamp(float(first), UTC), timedelta(seconds=step), tuple(counts.tolist()))


def throughput_chart(found: Throughput) -> str:
    """The diagram as an ``<svg>`` element: bars over time, cells an hour upwards."""
    rates = found.per_hour
    top = max(rates)
    width = (_WIDTH - _LEFT - _RIGHT) / len(rates)
    parts = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_level(share):.1f}" y2="{_level(share):.1f}" class="grid"/>'
        f'<text x="{_LEFT - 6}" y="{_level(share) + 4:.1f}" class="y">{top * share:,.4g}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    for place, (rate, count) in enumerate(zip(rates, found.counts, strict=True)):
        y = _level(rate / top)
        begin = found.start + place * found.step
        title = html.escape(f"{begin:%Y-%m-%d %H:%M:%S} UTC, {found.step}: {count:,} cells")
        parts.append(
            f'<rect x="{_LEFT + place * width:.2f}" y="{y:.1f}" width="{width * 0.9:.2f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}" class="bar"><title>{title}</title></rect>'
        )
    end = found.start + len(rates) * found.step
    for x, moment, anchor in ((_LEFT, found.start, "start"), (_WIDTH - _RIGHT, end, "end")):
        parts.append(
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="{anchor}">{moment:%Y-%m-%d %H:%M:%S}</text>'
        )
    return (
        f'<p>Cells an hour over time (UTC); a bar is {html.escape(str(found.step))}.</p><svg class="chart" role="img" '
        f'aria-label="cells an hour over time" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'
    )


def _level(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
