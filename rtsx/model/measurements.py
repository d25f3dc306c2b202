"""What was measured about a bundle on this machine, kept so that it is measured once.

Small JSON files in a cache folder: `RTSX_CACHE_DIR`, else `rtsx` under `XDG_CACHE_HOME` or `~/.cache`. A folder that
cannot be written costs time, never an answer.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rtsx.storage import write_object

__all__ = ["recall", "remember"]


def recall(kind: str, conditions: Mapping[str, object]) -> dict[str, object] | None:
    """What was remembered under these conditions, or None.

    Parameters
    ----------
    kind
        What was measured, one word.
    conditions
        Everything that the measurement depends on, as JSON values.
    """
    try:
        kept = json.loads(_path(kind, conditions).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept["found"] if isinstance(kept, dict) and kept.get("conditions") == dict(conditions) else None


def remember(kind: str, conditions: Mapping[str, object], *, found: Mapping[str, object]) -> dict[str, object]:
    """Keep a measurement, whole or not at all, and return the one to go by: this, or what somebody else kept first.

    The first wins, instead of the last, because whoever read it already works with it: of several processes that
    measure at once, all have to come to the same tiles and the same backend.
    """
    path = _path(kind, conditions)
    content = json.dumps({"conditions": dict(conditions), "found": dict(found)}, indent=1, sort_keys=True).encode()
    try:
        is_damaged = path.exists() and recall(kind, conditions) is None
        write_object(path, content, replace=is_damaged)
    except OSError:
        with suppress(OSError):  # measured again next time
            write_object(path, content, replace=True)  # a file system without links: the last wins
    return recall(kind, conditions) or dict(found)


def _path(kind: str, conditions: Mapping[str, object]) -> Path:
    base = os.environ.get("RTSX_CACHE_DIR")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtsx"
    name = hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:32]
    return folder / f"{kind}-{name}.json"
