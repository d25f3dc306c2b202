"""Values of a config checked: unknown keys, things by name with options, amounts of memory, years and patterns of paths."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from glob import escape, iglob
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from rtsx.config.yaml import ConfigIssue, Document, KeyPath, dump_yaml, raise_issues, read_yaml
from rtsx.errors import ConfigError, RtsxError
from rtsx.parsing import STRICT, Several
from rtsx.redaction import is_secret_name
from rtsx.storage import absolute

_Model = TypeVar("_Model", bound="ConfigModel")


class ConfigModel(BaseModel):
    """A frozen part of a config; unknown keys are errors."""

    model_config = STRICT | ConfigDict(frozen=True)

    def to_yaml(self) -> str:
        """YAML text that comes back equal; keys without a value are left out."""
        return dump_yaml(self.model_dump(exclude_none=True))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON schema, as plain JSON values."""
        schema = json.loads(json.dumps(cls.model_json_schema()))
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    def changed(self, **fields: object) -> Self:
        """A copy with other values; they are checked."""
        return type(self).model_validate({**{name: getattr(self, name) for name in self.model_fields_set}, **fields})

    def shared(self, kind: Any) -> dict[str, Any]:
        """Fields that a dataclass has under the same name."""
        return {name: value for name, value in self if name in kind.__dataclass_fields__}

    @classmethod
    def taken(cls, value: object) -> dict[str, Any]:
        """Fields of a value that this config has under the same name."""
        return {name: getattr(value, name) for name in cls.model_fields if hasattr(value, name)}


def is_glance(info: ValidationInfo) -> bool:
    """Whether a check that loads torch is left out for now; see `validate_config`."""
    return isinstance(info.context, Mapping) and bool(info.context.get("glance"))


def validate_config(model: type[_Model], document: Document, *, glance: bool = False) -> _Model:
    """The config of a document.

    Parameters
    ----------
    model
        What the document is to be.
    document
        The document.
    glance
        Leave out the checks for which a network has to be built: what is wrong in spelling is then said in less than a second.

    Raises
    ------
    ConfigError
        Something is wrong; all of it is listed, by line and key.
    """
    complaints = list(document.complaints)
    cause: ValidationError | None = None
    try:
        config = model.model_validate(
            document.values, context={"folder": Path(document.name).absolute().parent, "glance": glance}
        )
    except ValidationError as error:
        cause = error
        complaints += _issues_of(error, model)
    if complaints:
        raise_issues(document.name, complaints, lines=document.lines, cause=cause)
    return config


def refuse_unknown_keys(path: str, kind: Literal["cube", "campaign"]) -> None:
    """Refuse keys of a YAML file that its schema does not have, before the libraries are loaded that check all the rest.

    Raises
    ------
    ConfigError
        There are some; each is named with its line and the nearest known one.
    """
    document = read_yaml(path)
    schema = json.loads((Path(__file__).parent / "examples" / f"{kind}.schema.json").read_text())
    unknown = list(_unknown_keys(document.values, _Allowed.by(schema)))
    if unknown:
        raise_issues(document.name, [*document.complaints, *unknown], lines=document.lines)


def _unknown_keys(values: object, allowed: "_Allowed", *, path: KeyPath = ()) -> Iterator[ConfigIssue]:
    """Keys of mappings anywhere in some values that their schema does not have."""
    if not isinstance(values, Mapping | list):
        return
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if isinstance(values, Mapping) and allowed.is_closed and key not in allowed.keys:
            yield ConfigIssue((*path, str(key)), _unknown(str(key), allowed.keys))
        yield from _unknown_keys(value, allowed.below(key), path=(*path, key))


@dataclass(frozen=True)
class _Allowed:
    """What a JSON schema allows at one place of a document."""

    kinds: tuple[Mapping[str, Any], ...]
    """Schemas of which any may hold, none of them a reference."""
    definitions: Mapping[str, Any]
    """What references of the schema mean."""

    @classmethod
    def by(cls, schema: Mapping[str, Any]) -> Self:
        """What it allows as a whole."""
        return cls(tuple(_kinds(schema, schema.get("$defs", {}))), schema.get("$defs", {}))

    @property
    def keys(self) -> list[str]:
        """Keys that are known by name."""
        return sorted({name for kind in self.kinds for name in kind.get("properties", {})})

    @property
    def is_closed(self) -> bool:
        """Whether a mapping may have no others."""
        mappings = [kind for kind in self.kinds if kind.get("type") == "object"]
        return bool(mappings) and all(kind.get("additionalProperties") is False for kind in mappings)

    def below(self, part: str | int) -> "_Allowed":
        """What is allowed below a key, or in a place of a list."""
        named = [kind["properties"][part] for kind in self.kinds if part in kind.get("properties", {})]
        others = [kind.get("items" if isinstance(part, int) else "additionalProperties") for kind in self.kinds]
        kinds = (one for schema in named or others for one in _kinds(schema, self.definitions))
        return _Allowed(tuple(kinds), self.definitions)


def _kinds(schema: Any, definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a schema refers to, each of several that it joins, or itself; nothing where it is none, or `true`."""
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        yield from _kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _kinds(one, definitions)
    else:
        yield schema


_EXPECTED = {
    "model_type": "expected keys with values, such as {key: value}",
    "model_attributes_type": "expected keys with values, such as {key: value}",
    "dataclass_type": "expected keys with values, such as {key: value}",
    "dict_type": "expected keys with values, such as {key: value}",
    "tuple_type": "expected a list, such as [first, second]",
    "list_type": "expected a list, such as [first, second]",
}
"""What pydantic says in words of Python, in those of YAML."""


def _issues_of(error: ValidationError, model: type[ConfigModel]) -> Iterator[ConfigIssue]:
    for one in error.errors():
        path: KeyPath = one["loc"]
        match one["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                yield ConfigIssue(
                    path,
                    _unknown(str(path[-1]), reduce(_Allowed.below, path[:-1], _Allowed.by(model.json_schema())).keys),
                )
            case "missing":
                yield ConfigIssue(path, "this key has to be given")
            case "value_error":
                yield ConfigIssue(path, str(one["ctx"]["error"]).rstrip("."))
            case _:
                text = _EXPECTED.get(one["type"]) or one["msg"][0].lower() + one["msg"][1:]
                got = "" if any(is_secret_name(str(part)) for part in path) else f"; got {str(one['input'])[:80]!r}"
                yield ConfigIssue(path, f"{text}{got}")


def _unknown(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"unknown key{hint} Known keys are {', '.join(known)}" if near else f"unknown key; known are {', '.join(known)}"
    )


def _with_place(given: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(given)
    except RtsxError as error:
        raise ValueError(str(error)) from error


Names = Several[str]
_T = TypeVar("_T")
Checked = Annotated[_T, WrapValidator(_with_place)]
"""A value of another room, whose refusals come with line and key."""


def from_folder(path: str, info: ValidationInfo) -> str:
    """A path that does not depend on the working directory: relative ones count from the folder of the config."""
    folder = (info.context or {}).get("folder") if isinstance(info.context, Mapping) else None
    return absolute(path, folder=folder)


FilePath = Annotated[str, AfterValidator(from_folder)]
"""Path or URL; a relative path counts from the folder of the config, ``~`` is the home folder."""


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


YEAR = "{year}"
"""Stands for the year of the map."""


def substitute_year(values: Any, year: int) -> Any:
    """Plain values with the year in place of ``{year}``; a text that is nothing else becomes a number.

    Raises
    ------
    ConfigError
        ``{year}`` stands without quotes, which YAML takes for a mapping.

    Examples
    --------
    >>> substitute_year({"period": {"years": "{year}"}, "files": ["a/{year}/b.tif"]}, 2024)
    {'period': {'years': 2024}, 'files': ['a/2024/b.tif']}
    """
    if isinstance(values, str):
        return year if values == YEAR else values.replace(YEAR, str(year))
    if isinstance(values, Mapping):
        if list(values.items()) == [("year", None)]:
            raise ConfigError('{year} stands in quotes, "{year}", because braces alone are a mapping in YAML')
        return {key: substitute_year(value, year) for key, value in values.items()}
    return [substitute_year(value, year) for value in values] if isinstance(values, list | tuple) else values


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


def glob_paths(pattern: str) -> tuple[Mapping[str, str], ...]:
    """What the names stand for in each path that is there, sorted by path.

    Raises
    ------
    ConfigError
        The pattern is a URL, two placeholders touch, or nothing matches.
    """
    if "://" in pattern:
        raise ConfigError(f"Patterns match local paths; got {pattern}. Name the scenes behind a URL one by one")
    touching = re.search(r"\{\w+\}\{\w+\}", pattern)
    if touching is not None:
        raise ConfigError(
            f"Nothing in {pattern} says where the first of {touching[0]} ends. Write text between them, such as - or /, or one "
            "placeholder for both"
        )
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


def format_path(text: str, values: Mapping[str, str]) -> str:
    """Text with its placeholders replaced.

    Raises
    ------
    ConfigError
        A name stands for nothing.

    Examples
    --------
    >>> format_path("{scene}_udm2.tif", {"scene": "20240721_200707"})
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
