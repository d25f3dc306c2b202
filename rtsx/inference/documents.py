"""From JSON back to the fields of a frozen value: the same names, the same types, nothing else."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Any, get_args, get_origin, get_type_hints

from rtsx.errors import PlanError

__all__ = ["checked_fields"]


def checked_fields(document: object, kind: type, *, what: str) -> dict[str, Any]:
    """Arguments for a dataclass from what JSON gave, lists turned into tuples; a nested dataclass stays a mapping.

    Parameters
    ----------
    document
        What `json.loads` returned.
    kind
        The dataclass, whose fields are numbers, texts, flags, tuples of these, or other dataclasses.
    what
        What it is called in errors.

    Raises
    ------
    PlanError
        It is no object, a name is unknown or missing, or a value is of another type.
    """
    if not isinstance(document, Mapping):
        raise PlanError(f"{what} is a JSON object of names and values; got {document!r:.60}.")
    hints = get_type_hints(kind)
    names = sorted(field.name for field in fields(kind))
    unknown, missing = sorted(set(document) - set(names)), sorted(set(names) - set(document))
    if unknown or missing:
        raise PlanError(
            f"{what} needs the names {', '.join(names)}; unknown: {', '.join(unknown) or 'none'}, missing: "
            f"{', '.join(missing) or 'none'}. It may have been written by another version of rtsx."
        )
    return {name: _checked(document[name], hints[name], what=f"{what}'s {name}") for name in names}


def _checked(value: object, hint: Any, *, what: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        many = len(inner) == 2 and inner[1] is Ellipsis
        if not isinstance(value, list) or not (many or len(value) == len(inner)):
            raise PlanError(f"{what} has to be a list{'' if many else f' of {len(inner)}'}; got {value!r:.60}.")
        hints = (inner[0],) * len(value) if many else inner
        return tuple(_checked(each, one, what=what) for each, one in zip(value, hints, strict=True))
    expected, is_right = {
        bool: ("true or false", isinstance(value, bool)),
        int: ("a whole number", isinstance(value, int) and not isinstance(value, bool)),
        float: ("a finite number", isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)),
        str: ("a text", isinstance(value, str)),
    }.get(hint, ("a JSON object", isinstance(value, Mapping)))
    if get_args(hint):  # a Literal, whose values the dataclass checks with a better message
        expected, is_right = "a text", isinstance(value, str)
    if not is_right:
        raise PlanError(f"{what} has to be {expected}; got {value!r:.60}.")
    return float(value) if hint is float else value  # type: ignore[arg-type]  # checked above
