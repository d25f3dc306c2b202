"""An object store whose calls are tried again."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from rtsx.campaign.kinds import kind_of
from rtsx.campaign.objects import ObjectStore, StoredObject
from rtsx.campaign.pauses import PAUSES_S, spread

__all__ = ["RetryingObjects"]

T = TypeVar("T")


@dataclass(frozen=True)
class RetryingObjects:
    """The same objects; a call that fails by what can pass is repeated, and its last error raised as it is.

    A `create` whose answer was lost may be refused when it is sent again. Then it has won if its own content is there.
    """

    store: ObjectStore
    """Where objects are."""
    pauses_s: tuple[float, ...] = field(default=PAUSES_S, repr=False)
    """Seconds before each further attempt."""

    def __str__(self) -> str:
        return str(self.store)

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        return self._tried(lambda: self.store.get(key))

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._tried(lambda: self.store.put(key, content))

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none."""
        attempts = 0

        def created() -> bool:
            nonlocal attempts
            attempts += 1
            return self.store.create(key, content)

        return self._tried(created) or (attempts > 1 and self.get(key) == content)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._tried(lambda: self.store.delete(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix."""
        given: set[str] = set()
        pauses = spread(self.pauses_s)
        while True:
            try:
                for found in self.store.list(prefix):
                    if found.key not in given:  # those before the error have been given
                        given.add(found.key)
                        yield found
            except Exception as error:
                pause = next(pauses, None) if kind_of(error) == "passing" else None
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _tried(self, call: Callable[[], T]) -> T:
        for pause in spread(self.pauses_s):
            try:
                return call()
            except Exception as error:
                if kind_of(error) != "passing":
                    raise
            time.sleep(pause)
        return call()


_conforms: type[ObjectStore] = RetryingObjects
