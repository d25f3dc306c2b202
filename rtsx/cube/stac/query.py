"""Conditions of the STAC query extension, applied to items."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from rtsx.cube.stac.item import ItemDict
from rtsx.errors import CubeError

__all__ = ["OPERATORS", "check_query", "meets_query"]

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "eq": lambda value, wanted: value == wanted,
        "neq": lambda value, wanted: value != wanted,
        "lt": lambda value, wanted: value < wanted,
        "lte": lambda value, wanted: value <= wanted,
        "gt": lambda value, wanted: value > wanted,
        "gte": lambda value, wanted: value >= wanted,
        "startsWith": lambda value, wanted: value.startswith(wanted),
        "endsWith": lambda value, wanted: value.endswith(wanted),
        "contains": lambda value, wanted: wanted in value,
        "in": lambda value, wanted: value in wanted,
    }
)
"""The operators of the extension; each asks a property's value."""


def check_query(query: Mapping[str, Any]) -> None:
    """Refuse a query with an unknown operator.

    Raises
    ------
    CubeError
        It has one, or is not ``{property: {operator: value}}``.
    """
    for name, conditions in query.items():
        if not isinstance(conditions, Mapping) or not set(conditions) <= set(OPERATORS):
            raise CubeError(
                f"A query is {{property: {{operator: value}}}} with the operators {sorted(OPERATORS)}; got "
                f"{name!r}: {conditions!r}."
            )


def meets_query(item: ItemDict, query: Mapping[str, Any]) -> bool:
    """Whether an item's properties meet all conditions; a property that it does not state, or of another type, meets none.

    Examples
    --------
    >>> meets_query({"properties": {"gsd": 3.0}}, {"gsd": {"lte": 3}, "platform": {"eq": "2442"}})
    False
    """
    properties = item.get("properties") or {}
    for name, conditions in query.items():
        value = item.get("id") if name == "id" else properties.get(name.removeprefix("properties."))
        try:
            if value is None or not all(OPERATORS[operator](value, wanted) for operator, wanted in conditions.items()):
                return False
        except (TypeError, AttributeError):
            return False
    return True
