"""A client of the cluster that a campaign asks for, and its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rtsx.campaign.cluster_spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["opened"]


@contextmanager
def opened(spec: ClusterSpec) -> "Iterator[Client]":
    """A client of the cluster; what was started for it is shut down at the end, after an error and Ctrl-C as well.

    Raises
    ------
    ClusterError
        The cluster cannot be reached or started, or does not know what is asked for.
    MissingExtraError
        dask-gateway is asked for and not installed.
    """
    if spec.kind == "gateway":
        from rtsx.campaign.dask_gateway import gateway_client as client_of
    elif spec.kind == "scheduler":
        from rtsx.campaign.local_cluster import scheduler_client as client_of
    else:
        from rtsx.campaign.local_cluster import local_client as client_of
    with client_of(spec) as client:
        yield client
