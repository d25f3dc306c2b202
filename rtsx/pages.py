"""Pages and documents from templates, and tables of notebooks; a page is HTML that needs no other file."""

import html
import re
from collections.abc import Iterable, Mapping
from functools import cache, partial
from math import floor, log10
from pathlib import Path
from shlex import quote
from xml.sax.saxutils import escape

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from jinja2.ext import Extension


class _Drawing(Extension):
    """What a template of a drawing makes is one line, though it has many itself."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Join its lines."""
        return re.sub(r"\n\s*", "", source) if name is not None and name.endswith(".svg") else source


def _amount(n_bytes: int) -> str:
    value, units = float(n_bytes), ["PB", "TB", "GB", "MB", "kB", "B"]
    while value >= 1000 and len(units) > 1:
        value, _ = value / 1000, units.pop()
    return f"{value:,.0f} B" if units[-1] == "B" else f"{value:,.1f} {units[-1]}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("rtsx"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Drawing],
    )
    made.filters["count"] = "{:,}".format
    made.filters["amount"] = _amount
    made.filters["shell"] = quote
    made.filters["escaped"] = html.escape
    # Of XML, whose quotes outside of attributes stay as they are.
    made.filters["text"] = escape
    made.filters["quoted"] = partial(escape, entities={'"': "&quot;", "\t": "&#09;", "\n": "&#10;", "\r": "&#13;"})
    return made


def render_page(template: str, facts: Mapping[str, object]) -> str:
    """Render a page or document; in HTML every text is escaped but for what its template calls safe.

    Parameters
    ----------
    template
        Name of its file in `rtsx/templates`.
    facts
        What it states, by the names that the template has for it.
    """
    return _environment().get_template(template).render(facts)


def render_text(template: str, facts: Mapping[str, object]) -> str:
    """Render a text of some lines, without a line break at its end."""
    return render_page(template, facts).removesuffix("\n")


def is_page(path: Path) -> bool:
    """Test whether a file is a page that `render_page` made, or empty, so that it may be made anew."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(1000)
    # By its style, too, as pages of earlier versions do not state what made them.
    return not head or b'content="rtsx"' in head or b"font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto" in head


def figure(value: float, digits: int = 4) -> str:
    """Write a number to so many digits, whole ones in full: never as a power of ten.

    Examples
    --------
    >>> figure(6103400.4), figure(0.0123456), figure(60.0), figure(0)
    ('6,103,400', '0.01235', '60', '0')
    """
    places = max(0, digits - 1 - floor(log10(abs(value)))) if value else 0
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def html_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a small table for notebooks, of names and values; every text is escaped.

    Examples
    --------
    >>> html_table("tiny", [("layers", "<red>")])
    '<b>tiny</b><table><tr><th style="text-align:left">layers</th><td style="text-align:left">&lt;red&gt;</td></tr></table>'
    """
    left = 'style="text-align:left"'
    lines = "".join(
        f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(str(value))}</td></tr>" for name, value in rows
    )
    return f"<b>{html.escape(title)}</b><table>{lines}</table>"
