"""The machines of a campaign, as its config names them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rtsx.campaign.cluster_spec import ClusterSpec
from rtsx.config.memory import Memory, memory_bytes
from rtsx.config.strict import Strict
from rtsx.errors import ClusterError

__all__ = ["ClusterConfig"]


class ClusterConfig(Strict):
    """Workers on this machine, a scheduler that runs already, or a dask-gateway.

    Examples
    --------
    >>> ClusterConfig(workers=2, memory="4GB").spec().memory_bytes
    4000000000
    """

    workers: int | None = Field(default=None, ge=1)
    """Worker processes, here or of the gateway's cluster."""
    threads: int | None = Field(default=None, ge=1)
    """Cells that a worker on this machine runs at a time; one if left out."""
    memory: Memory | None = None
    """Memory of a worker on this machine, such as 8GB; an equal share of it if left out."""
    scheduler: str | None = None
    """Address of a running scheduler, such as ``tcp://10.0.0.1:8786``; its workers are used as they are."""
    gateway: str | None = None
    """URL of a dask-gateway."""
    profile: str | None = None
    """Kind of workers at the gateway, such as gpu."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the gateway's cluster."""
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = None
    """How to say who one is to the gateway; secrets are taken from the environment."""
    adapt: tuple[int, int] | None = None
    """Least and most workers, between which the cluster follows the work."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        elsewhere = "scheduler" if self.scheduler is not None else "gateway" if self.gateway is not None else None
        if elsewhere is not None and (self.threads is not None or self.memory is not None):
            raise ValueError(
                f"threads and memory are those of workers on this machine; with a {elsewhere}, say them where its workers "
                "are started"
            )
        try:
            self.spec()
        except ClusterError as error:
            raise ValueError(str(error)) from error
        return self

    def spec(self) -> ClusterSpec:
        """The cluster."""
        return ClusterSpec(
            workers=self.workers,
            threads=ClusterSpec.threads if self.threads is None else self.threads,
            memory_bytes=None if self.memory is None else memory_bytes(self.memory),
            scheduler=self.scheduler,
            gateway=self.gateway,
            profile=self.profile,
            options=self.options,
            auth=self.auth,
            adapt=self.adapt,
        )
