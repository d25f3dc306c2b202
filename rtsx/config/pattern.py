"""Paths with placeholders, such as ``data/{region}/{scene}_SR.tif``: one entry of a config for many files."""

import re
from collections.abc import Mapping
from glob import escape, iglob

from rtsx.errors import ConfigError

__all__ = ["PLACEHOLDER", "filled", "matches", "placeholders"]

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
"""A name in braces: what stands there is a part of one path component."""


def placeholders(pattern: str) -> tuple[str, ...]:
    """Names in a pattern, in order, each once.

    Examples
    --------
    >>> placeholders("{region}/{scene}/{scene}_SR.tif")
    ('region', 'scene')
    """
    return tuple(dict.fromkeys(PLACEHOLDER.findall(pattern)))


def matches(pattern: str) -> tuple[Mapping[str, str], ...]:
    """What the names stand for in each path that is there, sorted by path.

    Raises
    ------
    ConfigError
        The pattern is a URL, or nothing matches.
    """
    if "://" in pattern:
        raise ConfigError(f"Patterns match local paths; got {pattern}. Name the scenes behind a URL one by one")
    parts = PLACEHOLDER.split(pattern)  # text, name, text, name, ..., text
    wildcard = "*".join(escape(text) for text in parts[::2])
    seen: set[str] = set()
    regex = ""
    for place, part in enumerate(parts):
        if place % 2 == 0:
            regex += re.escape(part)
        else:
            regex += f"(?P={part})" if part in seen else f"(?P<{part}>[^/]+?)"
            seen.add(part)
    found = (re.fullmatch(regex, path) for path in sorted(iglob(wildcard)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    values = tuple(match.groupdict() for match in found if match is not None)
    if not values:
        raise ConfigError(f"No path matches {pattern}. Check the folder and the pattern")
    return values


def filled(text: str, values: Mapping[str, str]) -> str:
    """Text with its placeholders replaced.

    Raises
    ------
    ConfigError
        A name stands for nothing.

    Examples
    --------
    >>> filled("{scene}_udm2.tif", {"scene": "20240721_200707"})
    '20240721_200707_udm2.tif'
    """
    unknown = [name for name in placeholders(text) if name not in values]
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in values) or "none"
        raise ConfigError(
            f"{text}: {{{unknown[0]}}} stands for nothing. Placeholders get their values from the first path, which has "
            f"{known}"
        )
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)
