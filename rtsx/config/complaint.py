"""What is wrong with a config: everything at once, each with its line and its key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from rtsx.errors import ConfigError

__all__ = ["Complaint", "KeyPath", "refuse"]

KeyPath = tuple[str | int, ...]
"""Keys and list places from the root of a document."""


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong."""

    path: KeyPath
    """Where."""
    text: str
    """What was expected, what came, what to do."""


def refuse(
    name: str, complaints: Iterable[Complaint], *, lines: Mapping[KeyPath, int], cause: BaseException | None = None
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
