"""YAML text as plain values that remember their lines, with variables of the environment, and errors by line and key."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from os import PathLike
from typing import Any, NoReturn

import yaml

from rtsx.errors import ConfigError
from rtsx.parsing import LimitedLoader, error_place
from rtsx.redaction import is_secret_name, redacted, withhold
from rtsx.storage import file_problem, local_path

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
        told = text.split("\n")
        line = told[place[0] - 1] if place is not None and place[0] <= len(told) else ""
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
                self.complaints.append(
                    ConfigIssue(
                        path, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
                    )
                )
            return match["default"] or ""

        filled = _VARIABLE.sub(value, text)
        for reference, secret in found.items():
            if any(is_secret_name(str(one)) for one in (reference, *path)) or secret not in redacted(filled):
                withhold(secret, reference)
        is_bare = "://" in filled and ("://***" in filled or "=***" in filled)
        if self.environment is not None and is_bare:
            self.complaints.append(
                ConfigIssue(path, "a secret was left out here when this was stored; write it as ${NAME} of a variable")
            )
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
