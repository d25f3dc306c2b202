"""Documents of unknown origin: whatever is wrong with YAML or JSON is one kind of error, and no text is larger than it looks.

Also what fields of dataclasses that are read from documents may hold: one value or several, amounts of memory.
"""

import json
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast, get_args, get_type_hints

import yaml
from pydantic import AfterValidator as AfterValidator  # for fields of rooms that need no more of it
from pydantic import AwareDatetime as AwareDatetime
from pydantic import BeforeValidator, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic import ConfigDict as ConfigDict
from pydantic_core import CoreSchema, core_schema
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from rtsx.errors import RtsxError

_T = TypeVar("_T")

_DEEPEST = 100
"""Collections within each other, at most; Python's own stack ends at about a thousand calls."""
_TOO_DEEP = f"lists and mappings lie more than {_DEEPEST} deep in each other"
_MOST_VALUES = 1_000_000
"""Values of a document with its aliases written out, at most. Nine anchors in 300 bytes can stand for billions."""
_DEFECTS = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
"""What PyYAML raises beside its own errors, of texts such as ``2024-13-45``, ``!!int abc`` and ``!!bool maybe``."""


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with limits; all that it raises is a `yaml.YAMLError` that knows its place."""

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def get_single_node(self) -> yaml.Node | None:
        """The document, composed within the limits."""
        with self._placed(None):
            node: yaml.Node | None = super().get_single_node()
        return node

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Scan a bracket or brace; here already, because PyYAML looks at all that are open for each character."""
        if self.flow_level == _DEEPEST:
            raise ScannerError(None, None, _TOO_DEEP, self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose one node, and count what it stands for."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth == _DEEPEST:
            raise ComposerError(None, None, _TOO_DEEP, mark)
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None or (is_alias and id(node) in self._sizes):
            return node
        if is_alias:
            raise ComposerError(None, None, "a value refers to itself; write it out", mark)
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        inner = [one for pair in parts for one in pair] if isinstance(node, yaml.MappingNode) else parts
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(one)] for one in inner)
        if size > _MOST_VALUES:
            raise ComposerError(None, None, f"with its aliases this is more than {_MOST_VALUES:,} values", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        with self._placed(node):
            value = super().construct_object(node, deep=deep)
            if isinstance(value, int) and value.bit_length() > 64:
                raise ValueError
            return value

    def construct_document(self, node: yaml.Node) -> Any:
        """The values of a document."""
        with self._placed(node):
            return super().construct_document(node)

    @contextmanager
    def _placed(self, node: yaml.Node | None) -> Iterator[None]:
        """Turn what PyYAML did not foresee into its own error, with the place."""
        try:
            yield
        except _DEFECTS as error:
            if node is None:
                raise ComposerError(None, None, f"cannot be read: {error}", self.get_mark()) from error
            problem = f"{str(node.value)[:60]!r} is no {node.tag.rpartition(':')[2]}; put text in quotes"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def error_place(error: yaml.YAMLError, text: str) -> tuple[int, int] | None:
    """Line and column, from 1, of what is wrong in a text; None where PyYAML does not say."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        return before.count("\n") + 1, len(before) - before.rfind("\n")
    mark = getattr(error, "problem_mark", None)
    return None if mark is None else (mark.line + 1, mark.column + 1)


def _moment(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not 1 < moment.year < 9999:  # at the ends, there is no UTC
        raise ValueError("a moment needs its offset to UTC, such as 2024-07-01T12:00:00+00:00")
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A moment in ISO 8601 with its offset to UTC, as text."""


STRICT = ConfigDict(extra="forbid", serialize_by_alias=True, use_attribute_docstrings=True)
"""As ``__pydantic_config__`` of a dataclass: unknown names are errors, and the text below a field describes it in a schema."""


def _as_tuple(given: object) -> object:
    if isinstance(given, str | int | float):
        return (given,)
    return tuple(given) if isinstance(given, list) else given  # JSON has lists alone, which a strict tuple is not


class _OneOrSeveral:
    """Lets a text or number alone stand for a tuple of it."""

    def __get_pydantic_core_schema__(self, several: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            _as_tuple, handler(several), json_schema_input_schema=handler(several | get_args(several)[0])
        )


Several = Annotated[tuple[_T, ...], _OneOrSeveral()]
"""One value or several; a tuple once it is read."""


class Written:
    """What a document has for a field that takes more in Python.

    Parameters
    ----------
    kind
        Type of the value in a document.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self._kind)


def memory_bytes(given: int | str) -> int:
    """Bytes of a number with a unit.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> memory_bytes("8GB"), memory_bytes("2 GiB"), memory_bytes(1000)
    (8000000000, 2147483648, 1000)
    """
    from dask.utils import parse_bytes  # here, because it loads dask

    try:
        counted = int(parse_bytes(given))
    except (ValueError, TypeError) as error:
        raise ValueError(f"memory is a number with a unit, such as 8GB or 8GiB; got {given!r}") from error
    if counted < _LEAST_MEMORY:
        raise ValueError(
            f"memory is a number with a unit, such as 8GB or 8GiB; got {given!r}, which is {counted} bytes"
        )
    return counted


_LEAST_MEMORY = 1000
"""Bytes; a smaller number lacks its unit."""

Memory = Annotated[int, BeforeValidator(memory_bytes, json_schema_input_type=int | str)]
"""Bytes; a document may have them with a unit, such as 8GB."""


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (found := int(text)) < 2**64:  # int64 and uint64
        raise ValueError(f"{text[:20]}... is no number of 64 bits")
    return found


def json_value(text: str | bytes, *, what: str, error: type[RtsxError]) -> Any:
    """The value of a JSON text; whole numbers have 64 bits at most.

    Parameters
    ----------
    text
        The text; bytes are UTF-8.
    what
        What it is, for messages, such as its path.
    error
        What is raised where it is none.
    """
    try:
        return json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError) as cause:
        raise error(f"{what} is no JSON: {cause}. It is damaged or something else; restore it from a copy.") from cause


def parsed_json(text: str | bytes, kind: type[_T], *, what: str, error: type[RtsxError]) -> _T:
    """The frozen value that a JSON document is of: the same names, the same types, finite numbers, and nothing else.

    Parameters
    ----------
    text
        The text; bytes are UTF-8.
    kind
        A dataclass, whose fields may be others.
    what
        What it is, for messages, such as its path.
    error
        What is raised where it is something else.

    Examples
    --------
    >>> from rtsx.errors import CampaignError
    >>> from rtsx.campaign.recipe import Prices
    >>> parsed_json('{"device_hour": 2}', Prices, what="prices.json", error=CampaignError).device_hour
    2.0
    >>> parsed_json('{"device_hour": "2"}', Prices, what="prices.json", error=CampaignError)
    Traceback (most recent call last):
    ...
    rtsx.errors.CampaignError: prices.json, device_hour: input should be a valid number; got '2'. It was edited or damaged, ...
    """
    try:
        value = json_value(text, what=what, error=error)
        parsed: _T = _adapter(cast("Hashable", kind)).validate_json(json.dumps(value), strict=True)
        return parsed
    except ValidationError as cause:
        first = cause.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        problem = first["msg"].removeprefix("Value error, ").replace("Unexpected keyword argument", "Unknown name")
        raise error(
            f"{what}{', ' if place else ''}{place}: {problem[:1].lower()}{problem[1:].rstrip('.')}; got {first['input']!r:.60}. "
            "It was edited or damaged, or written by another version of rtsx; restore it from a copy."
        ) from cause
    except error:
        raise
    except (RtsxError, ValueError, RecursionError) as cause:
        raise error(
            f"{what}: {str(cause).rstrip('.')}. It was edited or damaged, or written by another version of rtsx; restore it from a copy."
        ) from cause


class StoredRecord:
    """A frozen dataclass that is kept as one line of JSON."""

    what = "This is no record"
    """Begin of the message about a text that is none."""
    raises: ClassVar[type[RtsxError]] = RtsxError
    """The error about it."""

    def to_json(self) -> str:
        """Write one line of JSON."""
        # A dataclass, as all that inherit from this are.
        return json.dumps(asdict(self), sort_keys=True, default=datetime.isoformat)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record from such a line; an error of `raises` where it is none: written by somebody else, or cut."""
        return parsed_json(text, cls, what=cls.what, error=cls.raises)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    waiting, seen, configs = [kind], set[Any](), dict[Any, Any]()
    while waiting:
        one: Any = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        waiting += get_args(one)
        if isinstance(one, type) and is_dataclass(one):
            configs[one] = getattr(one, "__pydantic_config__", None)
            one.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
            waiting += get_type_hints(one).values()
    adapter = TypeAdapter[Any](kind)
    for one, config in configs.items():
        one.__pydantic_config__ = config  # a document that people write may say .inf
    return adapter


@contextmanager
def wrap_damage(what: str, error: type[RtsxError]) -> Iterator[None]:
    """Turn what goes wrong while a document is taken apart by hand into one error.

    Parameters
    ----------
    what
        What it is, for messages, such as its path.
    error
        What is raised.
    """
    try:
        yield
    except RtsxError:
        raise
    except _DEFECTS as cause:
        raise error(
            f"{what} lacks or garbles {cause!r:.200}. It was edited or damaged, or written by another version of rtsx; restore it from a copy."
        ) from cause


def differences(one: Any, other: Any, *, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Places where two descriptions differ, and what each of them has there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key), other.get(key), name=f"{name}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            named = left.get("name", place) if isinstance(left, Mapping) else place
            yield from differences(left, right, name=f"{name}[{named}]")
    elif one != other:
        yield name, one, other


_RETIRED = frozenset({"names", "heeds_nodata", "uses_nodata"})
"""Fields of descriptions that were stored between versions, and say nothing where they are empty or of a rule that is known by name."""


def without_retired(described: Any) -> Any:
    """Return a stored description of a recipe without fields that `describe_recipe` does not write any more, unless they change pixels."""
    if isinstance(described, Mapping):
        return {
            name: without_retired(one)
            for name, one in described.items()
            if not (name in _RETIRED and (name == "names" or not one))
        }
    return [without_retired(one) for one in described] if isinstance(described, list) else described


def first_difference(one: Any, other: Any, *, name: str = "") -> str | None:
    """Return where two descriptions differ first, and how, in words of YAML; None where they are equal.

    Examples
    --------
    >>> first_difference({"grid": {"resolution": 3.0}}, {"grid": {"resolution": 10.0}})
    'grid.resolution is 3.0 there and 10.0 here'
    """
    found = next(differences(one, other, name=name), None)
    if found is None:
        return None
    there, here = (json.dumps(value) if value is None or isinstance(value, bool) else value for value in found[1:])
    return f"{found[0]} is {there!s:.200} there and {here!s:.200} here"
