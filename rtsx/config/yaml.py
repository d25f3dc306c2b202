"""YAML files as checked models: text as values that remember their lines, unknown keys, patterns of paths, and errors by line and key."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import reduce
from glob import escape, iglob
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from rtsx.errors import ConfigError, RtsxError
from rtsx.parsing import STRICT, LimitedLoader, Several, error_place
from rtsx.redaction import is_secret_name, redacted, withhold
from rtsx.storage import absolute, file_problem, local_path

KeyPath = tuple[str | int, ...]
"""Keys and list places from the root of a document."""


@dataclass(frozen=True)
class ConfigIssue:
    """One thing that is wrong."""

    path: KeyPath
    """Where."""
    text: str
    """What was expected, what came, what to do."""


def raise_issues(
    name: str, complaints: Iterable[ConfigIssue], *, lines: Mapping[KeyPath, int], cause: BaseException | None = None
) -> NoReturn:
    """Raise one error that lists all complaints by line.

    Parameters
    ----------
    name
        The file.
    complaints
        At least one.
    lines
        Line of every key.
    cause
        What has found them.

    Raises
    ------
    ConfigError
        Always.
    """
    # One complaint per place: of a variable that is not set, nobody needs to hear that its empty value is no number.
    first = {complaint.path: complaint for complaint in reversed(list(complaints))}
    listed = sorted(first.values(), key=lambda one: (line_of(one.path, lines) or 0, str(one.path)))
    entries = [f"{_place(one.path, lines)}{one.text}" for one in listed]
    if len(entries) == 1:
        raise ConfigError(f"{name}: {entries[0]}.") from cause
    raise ConfigError(f"{name} has {len(entries)} errors:\n" + "\n".join(f"  {entry}" for entry in entries)) from cause


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Line of a key, or of the nearest one above it.

    Examples
    --------
    >>> line_of(("grid", "crs", "str"), {("grid",): 3})
    3
    """
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _place(path: KeyPath, lines: Mapping[KeyPath, int]) -> str:
    if not path:
        return ""
    line = line_of(path, lines)
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return f"line {line}, {dotted}: " if line is not None else f"{dotted}: "


_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
"""``${NAME}``, ``${NAME:-default}``, or ``$$`` for a dollar sign."""


@dataclass(frozen=True)
class Document:
    """One file, parsed."""

    name: str
    """Path, for messages."""
    values: Any
    """Plain mappings, lists, strings, numbers and dates."""
    lines: Mapping[KeyPath, int]
    """Line (from 1) of every key and list entry."""
    complaints: tuple[ConfigIssue, ...]
    """What is wrong already: variables that are not set, keys that stand twice."""


def read_yaml(path: str | PathLike[str]) -> Document:
    """Read one YAML file.

    Parameters
    ----------
    path
        The file; ``${NAME}`` and ``${NAME:-default}`` in it are variables of the environment.

    Raises
    ------
    ConfigError
        There is no file, or it is no YAML; the line is named.
    """
    path = local_path(path)
    problem = file_problem(path)
    if problem is not None:
        raise ConfigError(f"{path} cannot be opened: {problem}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. A config is a YAML file in UTF-8.") from error
    return parse_yaml(text, name=str(path))


def parse_yaml(text: str, *, name: str, environment: Mapping[str, str] | None = os.environ) -> Document:
    """Parse YAML text.

    Parameters
    ----------
    text
        The text.
    name
        Path, for messages.
    environment
        Where ``${NAME}`` and ``${NAME:-default}`` are looked up. None leaves them as they stand, as in a text of
        another author, to whom the environment of the reader is none of their business.

    Raises
    ------
    ConfigError
        It is no YAML; the line is named.

    Examples
    --------
    >>> parse_yaml("grid: {crs: '${CRS:-EPSG:3413}'}", name="example", environment={}).values
    {'grid': {'crs': 'EPSG:3413'}}
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {(): 1}
        complaints = list(_walk(node, (), lines)) if node is not None else []
        values = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        place = error_place(error, text)
        rows = text.split("\n")
        line = rows[place[0] - 1] if place is not None and place[0] <= len(rows) else ""
        hint = '. Within brackets and braces, a variable stands in quotes: "${NAME}"' if "${" in line else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        at = "" if place is None else f"line {place[0]}, column {place[1]}: "
        raise_issues(name, [ConfigIssue((), f"{at}{problem}{hint}")], lines={}, cause=error)
    finally:
        if loader is not None:
            loader.dispose()
    expand = _Expansion(environment, complaints)
    return Document(name, map_texts(values, expand), lines, tuple(complaints))


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Plain values, dates and tuples as YAML text that `read_yaml` reads back; keys keep their order.

    Secrets do not become part of it: a value that `read_yaml` has taken from a variable and that is one is written as that
    variable again, and one that stood in the text itself as ``***``.

    Examples
    --------
    >>> print(dump_yaml({"bbox": (1.0, 2.5), "url": "${HOME}"}), end="")
    bbox: [1.0, 2.5]
    url: $${HOME}
    """
    # Dollars are doubled, because what is written has its variables filled in already.
    plain = map_texts(values, lambda text, _: redacted(text.replace("$", "$$"), keeps_references=True))
    return str(yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))


class _Loader(LimitedLoader):
    """Reads numbers as YAML 1.2 does: ``1e-3`` is one, and ``20240721_200707``, which is the name of a scene, is text, as is ``0190``."""


_WHOLE, _REAL = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in (_WHOLE, _REAL)]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER_STARTS = list("-+0123456789.")
_POINT_OR_POWER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_Loader.add_implicit_resolver(_REAL, _POINT_OR_POWER, _NUMBER_STARTS)
_Loader.add_implicit_resolver(_WHOLE, re.compile(r"[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"), _NUMBER_STARTS)


class _Dumper(yaml.SafeDumper):
    """Writes lists of plain values in one line, all else in blocks, and a value that comes twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    is_short = all(isinstance(value, str | int | float | date | None) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_short)


_Dumper.add_representer(list, _represent_list)
# Beside the numbers of YAML 1.1, so that a text that either version takes for a number is quoted.
_Dumper.add_implicit_resolver(_REAL, _POINT_OR_POWER, _NUMBER_STARTS)


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Iterator[ConfigIssue]:
    """Note the line of every key, and complain of keys that stand twice, of which YAML silently takes the last."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            inner = (*path, str(key.value))
            if str(key.value) in seen:
                yield ConfigIssue(inner, f"the key stands twice, first in line {seen[str(key.value)]}; keep one")
            seen[str(key.value)] = line
            lines[inner] = line
            yield from _walk(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*path, index)] = value.start_mark.line + 1
            yield from _walk(value, (*path, index), lines)


class _Expansion:
    """Fills variables in, and complains of those that are not set."""

    def __init__(self, environment: Mapping[str, str] | None, complaints: list[ConfigIssue]) -> None:
        self.environment = environment
        self.complaints = complaints

    def __call__(self, text: str, path: KeyPath) -> str:
        found: dict[str, str] = {}

        def value(match: re.Match[str]) -> str:
            name = match["name"]
            if name is None:
                return "$"
            if self.environment is None:
                return match[0]
            if self.environment.get(name):
                found[match[0]] = self.environment[name]
                return self.environment[name]
            if match["default"] is None:
                problem = f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                self.complaints.append(ConfigIssue(path, problem))
            return match["default"] or ""

        filled = _VARIABLE.sub(value, text)
        for reference, secret in found.items():
            if any(is_secret_name(str(one)) for one in (reference, *path)) or secret not in redacted(filled):
                withhold(secret, reference)
        is_bare = "://" in filled and ("://***" in filled or "=***" in filled)
        if self.environment is not None and is_bare:
            problem = "a secret was left out here when this was stored; write it as ${NAME} of a variable"
            self.complaints.append(ConfigIssue(path, problem))
        return filled


def map_texts(values: Any, change: Callable[[str, KeyPath], str], *, path: KeyPath = ()) -> Any:
    """Plain values with every text changed, which is given with its place, and tuples as lists.

    Examples
    --------
    >>> map_texts({"files": ("a", 1)}, lambda text, path: f"{text} at {path}")
    {'files': ["a at ('files', 0)", 1]}
    """
    if isinstance(values, str):
        return change(values, path)
    if isinstance(values, Mapping):
        return {key: map_texts(value, change, path=(*path, str(key))) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [map_texts(value, change, path=(*path, index)) for index, value in enumerate(values)]
    return values


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


def alone(key: str, *kinds: type) -> Callable[[object], object]:
    """What reads a value that stands alone for a mapping with one key."""
    return lambda given: {key: given} if isinstance(given, kinds) else given


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
        context = {"folder": Path(document.name).absolute().parent, "glance": glance}
        config = model.model_validate(document.values, context=context)
    except ValidationError as error:
        cause = error
        complaints += _issues_of(error, model)
    if any(_truths(document.values)):
        known = {issue.path for issue in complaints}
        truths = _truths_for_numbers(document.values, _Allowed.by(model.json_schema()))
        complaints += [issue for issue in truths if issue.path not in known]
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
    if unknown := list(_unknown_keys(document.values, _Allowed.by(schema))):
        raise_issues(document.name, [*document.complaints, *unknown], lines=document.lines)


def _unknown_keys(values: object, allowed: "_Allowed", *, path: KeyPath = ()) -> Iterator[ConfigIssue]:
    """Keys of mappings anywhere in some values that their schema does not have."""
    if not isinstance(values, Mapping | list):
        return
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if isinstance(values, Mapping) and allowed.is_closed and key not in allowed.keys:
            yield ConfigIssue((*path, str(key)), _unknown(str(key), allowed.keys))
        yield from _unknown_keys(value, allowed.below(key), path=(*path, key))


def _truths(values: object) -> Iterator[bool]:
    """Yield true for every true and false in some values."""
    if isinstance(values, bool):
        yield True
    elif isinstance(values, Mapping | list):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _truths(value)


def _truths_for_numbers(values: object, allowed: "_Allowed", *, path: KeyPath = ()) -> Iterator[ConfigIssue]:
    """Refuse true and false where numbers are: pydantic takes them for 1 and 0."""
    types = [kind.get("type") for kind in allowed.kinds]
    if isinstance(values, bool) and {"number", "integer"} & set(types) and not {"boolean", None} & set(types):
        yield ConfigIssue(
            path, f"expected a number; got {str(values).lower()}, which is also what YAML makes of yes, no, on and off"
        )
    elif isinstance(values, Mapping | list):
        for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            yield from _truths_for_numbers(value, allowed.below(key), path=(*path, key))


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
                allowed = reduce(_Allowed.below, path[:-1], _Allowed.by(model.json_schema()))
                yield ConfigIssue(path, _unknown(str(path[-1]), allowed.keys))
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
    hint = f"did you mean {near[0]!r}? Known keys" if near else "known"
    return f"unknown key; {hint} are {', '.join(known)}"


def _with_place(given: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(given)
    except RtsxError as error:
        raise ValueError(str(error)) from error


Names = Several[str]
_T = TypeVar("_T")
Checked = Annotated[_T, WrapValidator(_with_place)]
"""A value of another room, whose refusals come with line and key."""


_SHELL_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)(?:/|$)")
"""A variable as shells write it, which would be the name of a folder here."""


def from_folder(path: str, info: ValidationInfo) -> str:
    """A path that does not depend on the working directory: relative ones count from the folder of the config."""
    if not path.strip():
        raise ValueError("a path is expected, and this is empty; leave the key out, or say where")
    if match := _SHELL_VARIABLE.match(path):
        raise ValueError(f"a variable of the environment is written ${{{match[1]}}}; got {path!r}")
    folder = (info.context or {}).get("folder") if isinstance(info.context, Mapping) else None
    return absolute(path, folder=folder)


FilePath = Annotated[str, AfterValidator(from_folder)]
"""Path or URL; a relative path counts from the folder of the config, ``~`` is the home folder."""


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
    if unknown := [name for name in placeholders(text) if name not in values]:
        known = ", ".join(f"{{{name}}}" for name in values) or "none"
        raise ConfigError(
            f"{text}: {{{unknown[0]}}} stands for nothing. Placeholders get their values from the first path, which has "
            f"{known}"
        )
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)
