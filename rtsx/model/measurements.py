"""What was measured about a bundle on this machine, kept so that it is measured once.

Small JSON files in a cache folder: `RTSX_CACHE_DIR`, else `rtsx` under `XDG_CACHE_HOME` or `~/.cache`. A folder that
cannot be written costs time, never an answer.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

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


def remember(kind: str, conditions: Mapping[str, object], *, found: Mapping[str, object]) -> None:
    """Keep a measurement; written whole or not at all."""
    path = _path(kind, conditions)
    text = json.dumps({"conditions": dict(conditions), "found": dict(found)}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as partial:
            partial.write(text)
        Path(partial.name).replace(path)
    except OSError:
        return  # measured again next time


def _path(kind: str, conditions: Mapping[str, object]) -> Path:
    base = os.environ.get("RTSX_CACHE_DIR")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtsx"
    name = hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:32]
    return folder / f"{kind}-{name}.json"
