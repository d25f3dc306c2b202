"""Curves as SVG, drawn by hand: a page that holds them needs no library, neither when it is made nor when it is read."""

import html
import math
from collections.abc import Mapping, Sequence

__all__ = ["curve"]

_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 34
_COLOURS = ("#1b6ca8", "#d95f02", "#2a8c55", "#7a4fa3", "#a6761d")
_TICKS = 5

Points = Sequence[tuple[float, float]]


def curve(title: str, series: Mapping[str, Points], *, marked: float | None) -> str:
    """One diagram as an ``<svg>`` element.

    Parameters
    ----------
    title
        What stands above it.
    series
        Points (x, y) of each line, by its name; those that are not finite are left out.
    marked
        An x at which a line stands upright; None for none.

    Examples
    --------
    >>> curve("loss", {"training": [(1, 0.5), (2, 0.25)]}, marked=None).count("<polyline")
    1
    """
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)] for name, points in series.items()
    }
    every = [point for points in finite.values() for point in points]
    parts = [f'<text x="{_LEFT}" y="16" class="title">{html.escape(title)}</text>']
    if every:
        spans = [_span([point[axis] for point in every]) for axis in (0, 1)]
        parts += [_frame(*spans), *_lines(finite, *spans)]
        if marked is not None:
            x, _ = _place((marked, spans[1][0]), *spans)
            parts.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="mark"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _place(point: tuple[float, float], xs: tuple[float, float], ys: tuple[float, float]) -> tuple[float, float]:
    across = (point[0] - xs[0]) / (xs[1] - xs[0])
    up = (point[1] - ys[0]) / (ys[1] - ys[0])
    x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
    y = _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)
    return round(x, 1), round(y, 1)


def _frame(xs: tuple[float, float], ys: tuple[float, float]) -> str:
    parts = [
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" height="{_HEIGHT - _TOP - _BOTTOM}" class="frame"/>'
    ]
    for tick in _ticks(xs, whole=True):
        x, _ = _place((tick, ys[0]), xs, ys)
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" class="x">{tick:g}</text>')
    for tick in _ticks(ys, whole=False):
        _, y = _place((xs[0], tick), xs, ys)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="y">{tick:.4g}</text>')
    return "".join(parts)


def _ticks(span: tuple[float, float], *, whole: bool) -> list[float]:
    """Round numbers within a span, about `_TICKS` of them."""
    rough = (span[1] - span[0]) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    step = max(step, 1.0) if whole else step
    first = math.ceil(span[0] / step)
    return [round(n * step, 12) for n in range(first, math.floor(span[1] / step) + 1)]


def _lines(series: Mapping[str, Points], xs: tuple[float, float], ys: tuple[float, float]) -> list[str]:
    parts = []
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [_place(point, xs, ys) for point in points]
        line = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{line}" stroke="{colour}" fill="none" stroke-width="1.6"/>')
        # Dots too, because a single epoch has no line.
        parts += [f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>' for x, y in places]
        parts.append(
            f'<text x="{_WIDTH - _RIGHT - 6}" y="{_TOP + 14 + 13 * number}" class="name" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    return parts
