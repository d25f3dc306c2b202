"""Records: from what each collected file was made, so that the next time only those are made again whose cells changed.

A record is taken back before its file is written and put down after, so that a run which is stopped leaves work to be
done again rather than a file that is taken for another.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rtsx.campaign.objects import ObjectStore

__all__ = ["Record", "Records"]

Record = dict[str, Any]
"""JSON values by name."""

_THREADS = 16
"""Records that are read at a time, because what counts is how long a store takes to answer."""


@dataclass(frozen=True)
class Records:
    """Records of one kind of product, by the name of what they are about."""

    objects: ObjectStore
    """The objects of the output."""
    folder: str
    """Key of their folder."""

    def read(self) -> dict[str, Record]:
        """All records by name, sorted; what is damaged counts as not there, because it can be made again."""
        keys = sorted(found.key for found in self.objects.list(self.folder) if found.key.endswith(".json"))
        with ThreadPoolExecutor(_THREADS, "rtsx-records") as threads:
            contents = list(threads.map(self.objects.get, keys))
        records = {}
        for key, content in zip(keys, contents, strict=True):
            record = _parsed(content)
            if record is not None:
                records[key.rsplit("/", 1)[1].removesuffix(".json")] = record
        return records

    def put(self, name: str, record: Record) -> None:
        """Write a record."""
        self.objects.put(self._key(name), json.dumps(record, sort_keys=True).encode())

    def take_back(self, name: str) -> None:
        """Remove a record."""
        self.objects.delete(self._key(name))

    def _key(self, name: str) -> str:
        return f"{self.folder}/{name}.json"


def _parsed(content: bytes | None) -> Record | None:
    try:
        found = None if content is None else json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
