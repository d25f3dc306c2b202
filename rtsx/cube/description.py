"""A recipe as plain values: to store beside what was made of it, and to tell two recipes apart."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from math import isfinite
from typing import Any

from shapely.geometry.base import BaseGeometry

from rtsx.cube.recipe import CubeRecipe
from rtsx.redaction import redacted

__all__ = ["describe_recipe", "difference"]

_LEFT_OUT = frozenset({"access", "stamp"})
"""Fields that change no pixel, or only tell that pixels changed; `access` also holds the keys of servers."""


def describe_recipe(recipe: CubeRecipe) -> dict[str, Any]:
    """A recipe as mappings, lists, text and finite numbers, as JSON has them; functions by their names, addresses without secrets."""
    described = _plain(recipe)
    assert isinstance(described, dict)
    return described


def difference(one: Any, other: Any, *, name: str = "") -> str | None:
    """Where two descriptions differ first, and how; None where they are equal.

    Examples
    --------
    >>> difference({"grid": {"resolution": 3.0}}, {"grid": {"resolution": 10.0}})
    'grid.resolution is 3.0 there and 10.0 here'
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [*one, *(key for key in other if key not in one)]
        found = (difference(one.get(key), other.get(key), name=f"{name}.{key}".lstrip(".")) for key in keys)
        return next((text for text in found if text is not None), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = (
            difference(left, right, name=f"{name}[{place}]")
            for place, (left, right) in enumerate(zip(one, other, strict=True))
        )
        return next((text for text in found if text is not None), None)
    return None if one == other else f"{name} is {str(one)[:200]} there and {str(other)[:200]} here"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = {} if type(value).__name__.endswith("Recipe") else {"kind": type(value).__name__}
        parts = {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.name not in _LEFT_OUT}
        return kind | parts
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, BaseGeometry):
        return value.wkt
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', repr(value))}"
    return repr(value)
