"""Pages for people: HTML that needs no other file, from the templates of this package."""

from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("rtsx"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["count"] = "{:,}".format
    return made


def render_page(template: str, facts: Mapping[str, object]) -> str:
    """Render a page; every text is escaped but for what its template calls safe.

    Parameters
    ----------
    template
        Name of its file in `rtsx/templates`.
    facts
        What it states, by the names that the template has for it.
    """
    return _environment().get_template(template).render(facts)
