"""The networks that are open in this process: one for each bundle, device and way of running."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from rtsx.model.network import Network

__all__ = ["OpenedNetworks"]


class OpenedNetworks:
    """Keeps the networks used last, so that every block of a campaign finds its network loaded.

    Threads: any number may ask; two that ask for the same network get the same one, opened once.

    Parameters
    ----------
    limit
        Networks kept at most; the one unused for longest is dropped.

    Examples
    --------
    >>> from rtsx.model.network import StubNetwork
    >>> networks = OpenedNetworks(limit=1)
    >>> first = networks.get("a", lambda: StubNetwork(lambda batch: batch))
    >>> networks.get("a", lambda: StubNetwork(lambda batch: batch)) is first
    True
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._networks: OrderedDict[Hashable, Network] = OrderedDict()
        # One lock around opening, because two threads opening the same network would hold it in memory twice.
        self._lock = threading.RLock()

    def get(self, key: Hashable, opener: Callable[[], Network]) -> Network:
        """The network under `key`, opened by `opener` where it is not open yet."""
        with self._lock:
            if key not in self._networks:
                self._networks[key] = opener()
                while len(self._networks) > self._limit:
                    self._networks.popitem(last=False)
            self._networks.move_to_end(key)
            return self._networks[key]

    def clear(self) -> None:
        """Drop every network, and with it its memory on the device once nobody uses it."""
        with self._lock:
            self._networks.clear()
