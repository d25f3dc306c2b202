"""Documents as people and damaged disks leave them: seeded, one change after the other."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 3, 64.0, 1e308, float("nan"), float("inf"), 10**30, "", "1", "x", "\0", "2024-13-45", "../../etc/passwd",
    [], [1], [[]], ["a", None], {}, {"a": 1}, {"x": [1, {"y": None}]},
)  # fmt: skip
"""Values of every type, and of every kind that libraries stumble over."""


def json_mutations(document: Any, *, count: int, seed: int) -> Iterator[bytes]:
    """The text of a document with one thing changed: a value, a name, a list's length, or bytes of the text itself."""
    draw = random.Random(seed)
    for _ in range(count):
        if draw.random() < 0.1:
            yield _garbled(json.dumps(document), draw)
            continue
        changed = copy.deepcopy(document)
        places = list(_places(changed))
        holder, key = draw.choice(places)
        match draw.randrange(4):
            case 0 if isinstance(holder, dict):
                holder[f"{key}x"] = holder.pop(key)
            case 1:
                del holder[key]
            case _:
                holder[key] = draw.choice(ODD)
        yield json.dumps(changed).encode()


def yaml_mutations(text: str, *, count: int, seed: int) -> Iterator[bytes]:
    """A YAML text with one thing changed: a line, a value, an indent, or bytes."""
    draw = random.Random(seed)
    lines = text.splitlines()
    for _ in range(count):
        changed = list(lines)
        at = draw.randrange(len(changed))
        head, colon, _ = changed[at].partition(":")
        match draw.randrange(6):
            case 0:
                del changed[at]
            case 1:
                changed.insert(at, changed[draw.randrange(len(changed))])
            case 2:
                changed[at] = " " * draw.randrange(9) + changed[at].strip()
            case 3:
                yield _garbled(text, draw)
                continue
            case _:
                changed[at] = f"{head}{colon} {draw.choice(YAML_VALUES)}"
        yield "\n".join(changed).encode()


YAML_VALUES = (
    *(
        "2024-13-45",
        "!!int abc",
        "!!bool maybe",
        "!!timestamp x",
        "!!python/object:os.system x",
        "&a [*a]",
        "*b",
        "<<: 3",
        "? x",
    ),
    *(
        "[" * 3000,
        "{" * 3000,
        "[" * 90 + "]" * 90,
        "1" * 5000,
        "0x" + "f" * 999,
        "1e999",
        ".nan",
        "-.inf",
        "~",
        "",
        "''",
        "[]",
        "{}",
    ),
    *(
        "'\\0'",
        '"\\0"',
        "\0",
        "\x07",
        "- 1",
        "[1, {a: 2}]",
        "{a: [1]}",
        "-1",
        "0",
        "1.5",
        "true",
        "10000000000000000000000",
    ),
    *(
        "|\n  x",
        ">\n x",
        "'unclosed",
        '"unclosed',
        "@x",
        "`x",
        "%x",
        "${NOT_SET_ANYWHERE}",
        "!!binary x",
        "!!set {a: 1}",
        "0o17",
        "1:30",
    ),
    *(
        "2024-07-01",
        "2024-07-01T25:00:00Z",
        "9999-12-31",
        "0000-00-00",
        "!!omap [a]",
        "!!pairs [1]",
        "!!merge x",
        "=",
        "<<",
    ),
)


def _garbled(text: str, draw: random.Random) -> bytes:
    raw = bytearray(text.encode())
    start = draw.randrange(len(raw))
    match draw.randrange(3):
        case 0:
            return bytes(raw[:start])
        case 1:
            raw[start] = draw.randrange(256)
            return bytes(raw)
        case _:
            return bytes(raw[:start]) + b"[" * 5_000


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping or list with every key in it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield value, key
        yield from _places(inner)
