"""On which machines a campaign runs, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rtsx.errors import ClusterError

__all__ = ["ClusterSpec"]


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A local cluster; or the address of a scheduler; or a dask-gateway.

    Raises
    ------
    ClusterError
        The choices contradict each other.

    Examples
    --------
    >>> ClusterSpec(workers=2).kind, ClusterSpec(gateway="http://gateway", profile="gpu", adapt=(0, 8)).kind
    ('local', 'gateway')
    """

    workers: int | None = None
    """Worker processes, on this machine or of the gateway's cluster. None: one on this machine; at a gateway, `adapt` says."""
    threads: int = 1
    """Cells that a worker on this machine runs at a time."""
    memory_bytes: int | None = None
    """Memory of each worker on this machine, bytes; None for an equal share of what the machine has."""
    scheduler: str | None = None
    """Address of a scheduler that runs already, such as ``tcp://10.0.0.1:8786``; its workers are used as they are."""
    gateway: str | None = None
    """URL of a dask-gateway."""
    profile: str | None = None
    """Name of the kind of workers, an option of the gateway such as ``gpu``; None for its default."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further cluster options of the gateway."""
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    """How to say who one is to the gateway. User and password of ``basic`` come from DASK_GATEWAY_USER and
    DASK_GATEWAY_PASSWORD, the token of ``jupyterhub`` from JUPYTERHUB_API_TOKEN. None: ``basic`` where DASK_GATEWAY_PASSWORD
    is set, else as dask's own configuration says."""
    adapt: tuple[int, int] | None = None
    """Least and most workers, between which the cluster follows the work."""

    def __post_init__(self) -> None:
        """Refuse choices of two kinds of cluster."""
        if self.scheduler is not None and self.gateway is not None:
            raise ClusterError("A campaign runs at a scheduler or at a gateway; both were given. Leave one out.")
        if self.gateway is None and (self.profile is not None or self.options or self.auth is not None):
            raise ClusterError("profile, options and auth are those of a gateway, and no gateway was given.")
        if self.scheduler is not None and (self.workers is not None or self.adapt is not None):
            raise ClusterError("The workers of a running scheduler are used as they are; leave out workers and adapt.")
        if self.workers is not None and self.adapt is not None:
            raise ClusterError(f"Either a number of workers ({self.workers}) or bounds for it {self.adapt}; not both.")
        if self.gateway is not None and self.workers is None and self.adapt is None:
            raise ClusterError(
                "A gateway starts as many workers as it is asked for: say how many (workers), or between which numbers they follow "
                "the work (adapt)."
            )
        if min(self.threads, 1 if self.workers is None else self.workers) < 1:
            raise ClusterError(f"workers and threads are at least 1; got {self.workers} and {self.threads}.")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ClusterError(f"memory_bytes is above 0; got {self.memory_bytes}.")
        if self.adapt is not None and not (0 <= self.adapt[0] <= self.adapt[1] and self.adapt[1] >= 1):
            raise ClusterError(f"adapt is least and most workers, with the most at least 1; got {self.adapt}.")

    @property
    def kind(self) -> Literal["local", "scheduler", "gateway"]:
        """Which of the three it is."""
        if self.gateway is not None:
            return "gateway"
        return "local" if self.scheduler is None else "scheduler"
