"""``{year}`` in the texts of a cube: one file for the maps of all years."""

from collections.abc import Mapping
from typing import Any

from rtsx.errors import ConfigError

__all__ = ["YEAR", "with_year"]

YEAR = "{year}"
"""Stands for the year of the map."""


def with_year(values: Any, year: int) -> Any:
    """Plain values with the year in place of ``{year}``; a text that is nothing else becomes a number.

    Raises
    ------
    ConfigError
        ``{year}`` stands without quotes, which YAML takes for a mapping.

    Examples
    --------
    >>> with_year({"period": {"years": "{year}"}, "files": ["a/{year}/b.tif"]}, 2024)
    {'period': {'years': 2024}, 'files': ['a/2024/b.tif']}
    """
    if isinstance(values, str):
        return year if values == YEAR else values.replace(YEAR, str(year))
    if isinstance(values, Mapping):
        if list(values.items()) == [("year", None)]:
            raise ConfigError('{year} stands in quotes, "{year}", because braces alone are a mapping in YAML')
        return {key: with_year(value, year) for key, value in values.items()}
    return [with_year(value, year) for value in values] if isinstance(values, list | tuple) else values
