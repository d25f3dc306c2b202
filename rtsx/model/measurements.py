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


def remember(kind: str, conditions: Mapping[str, object], *, found: Mapping[str, object]) -> dict[str, object]:
    """Keep a measurement, whole or not at all, and return the one to go by: this, or what somebody else kept first.

    The first wins, instead of the last, because whoever read it already works with it: of several processes that
    measure at once, all have to come to the same tiles and the same backend.
    """
    path = _path(kind, conditions)
    text = json.dumps({"conditions": dict(conditions), "found": dict(found)}, indent=1, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as partial:
            partial.write(text)
        _put(Path(partial.name), path, may_replace=recall(kind, conditions) is None)
    except OSError:
        return dict(found)  # measured again next time
    return recall(kind, conditions) or dict(found)


def _put(partial: Path, path: Path, *, may_replace: bool) -> None:
    """Move a file to a place that is free, or, where it `may_replace` what is there because that is damaged, to a taken one."""
    try:
        if path.exists() and may_replace:
            partial.replace(path)
        else:
            path.hardlink_to(partial)  # fails where somebody was first, which a rename would not notice
    except FileExistsError:
        pass
    except OSError:
        partial.replace(path)  # a file system without links: the last wins
    finally:
        partial.unlink(missing_ok=True)


def _path(kind: str, conditions: Mapping[str, object]) -> Path:
    base = os.environ.get("RTSX_CACHE_DIR")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtsx"
    name = hashlib.sha256(json.dumps(dict(conditions), sort_keys=True).encode()).hexdigest()[:32]
    return folder / f"{kind}-{name}.json"
