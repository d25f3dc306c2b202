"""Things by name with options: ``Dice``, ``[Dice, Focal]``, or ``{Focal: {gamma: 2}, Dice: 0.5}``, all of one meaning."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

__all__ = ["Augmentations", "Losses", "Named", "NamedOne"]

Options = dict[str, Any]


def _named(number: str | None) -> Callable[[object], object]:
    """Reads every spelling; a bare number is the option called `number`."""

    def read(given: object) -> object:
        entries = given if isinstance(given, list | tuple) else [given]
        found: dict[object, object] = {}
        for entry in entries:
            if not isinstance(entry, str | Mapping):
                raise ValueError(f"expected a name, or a name with options such as {{Name: {{...}}}}; got {entry!r}")
            for name, options in {entry: None}.items() if isinstance(entry, str) else entry.items():
                if name in found:
                    raise ValueError(f"{name} is named twice; name it once")
                found[name] = _options(name, options, number)
        return found

    return read


def _options(name: object, given: object, number: str | None) -> object:
    if given is None:
        return {}
    if isinstance(given, int | float) and not isinstance(given, bool) and number is not None:
        return {number: given}
    if not isinstance(given, Mapping):
        usual = "" if number is None else f", or a number, its {number}"
        raise ValueError(f"{name} takes options such as {{option: value}}{usual}; got {given!r}")
    return dict(given)


def _one(given: dict[str, Options]) -> dict[str, Options]:
    if len(given) != 1:
        raise ValueError(f"expected one name; got {', '.join(given) or 'none'}")
    return given


_Spelled = dict[str, Options | None] | list[str | dict[str, Options | None]] | str
_Weighed = dict[str, Options | float | None] | list[str | dict[str, Options | float | None]] | str

Named = Annotated[dict[str, Options], BeforeValidator(_named(None), json_schema_input_type=_Spelled)]
"""Options by name, in order."""
NamedOne = Annotated[Named, AfterValidator(_one)]
"""One name with its options."""
Losses = Annotated[dict[str, Options], BeforeValidator(_named("weight"), json_schema_input_type=_Weighed)]
"""Options by name; a number is the weight."""
Augmentations = Annotated[dict[str, Options], BeforeValidator(_named("probability"), json_schema_input_type=_Weighed)]
"""Options by name, in order; a number is the probability."""
