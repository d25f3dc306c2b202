"""A client of a cluster that a dask-gateway starts for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientError, ClientResponseError
from distributed import Client

from rtsx.campaign.cluster_spec import ClusterSpec
from rtsx.errors import ClusterError, MissingExtraError

try:
    from dask_gateway import BasicAuth, Gateway, GatewayCluster, JupyterHubAuth
    from dask_gateway.auth import GatewayAuth, KerberosAuth
except ImportError as error:
    raise MissingExtraError("A gateway needs dask-gateway: pip install 'rtsx[gateway]'.") from error

__all__ = ["gateway_client"]


@contextmanager
def gateway_client(spec: ClusterSpec) -> Iterator[Client]:
    """A client of a new cluster of a gateway; the cluster ends with it.

    Raises
    ------
    ClusterError
        The gateway does not answer, does not let us in, has no such profile or option, or starts no cluster.
    """
    with _told(spec, "reached"):
        gateway = Gateway(spec.gateway, auth=_auth_of(spec))
    with _closing(gateway):
        with _told(spec, "asked for its options"):
            options = gateway.cluster_options()
            _choose(spec, options)
        with _told(spec, "asked for a cluster"):
            cluster = _new_cluster(gateway, options)
        with _closing(cluster.gateway), cluster:
            with _told(spec, "asked for workers"):
                if spec.adapt is None:
                    cluster.scale(spec.workers)
                else:
                    cluster.adapt(minimum=spec.adapt[0], maximum=spec.adapt[1])
                client = cluster.get_client()
            with client:
                yield client


def _new_cluster(gateway: Gateway, options: Any) -> GatewayCluster:
    """A cluster that has started. In two steps, so that Ctrl-C on the way leaves none behind that nobody knows of."""
    name = gateway.submit(options)
    try:
        return gateway.connect(name, shutdown_on_close=True)
    except BaseException:
        gateway.stop_cluster(name)
        raise


@contextmanager
def _closing(gateway: Gateway) -> Iterator[None]:
    """Close the connections of a gateway at the end, for good."""
    try:
        yield
    finally:
        gateway.close()
        # Or it closes itself once more when it is collected, and fails, because its loop is gone by then.
        gateway._asynchronous = True


def _choose(spec: ClusterSpec, options: Any) -> None:
    """Set the options that are asked for."""
    asked = dict(spec.options) if spec.profile is None else {**spec.options, "profile": spec.profile}
    for name, value in asked.items():
        if name not in options:
            raise ClusterError(
                f"The gateway at {spec.gateway} has no option {name!r}; it has {', '.join(options) or 'none'}."
            )
        try:
            options[name] = value
        except (TypeError, ValueError) as error:
            raise ClusterError(f"The gateway at {spec.gateway} does not take {name}={value!r}: {error}") from error


def _auth_of(spec: ClusterSpec) -> "GatewayAuth | None":
    """Who we are; None leaves it to dask's configuration."""
    kind = spec.auth or ("basic" if "DASK_GATEWAY_PASSWORD" in os.environ else None)
    if kind == "basic":
        return BasicAuth(os.environ.get("DASK_GATEWAY_USER"), os.environ.get("DASK_GATEWAY_PASSWORD"))
    if kind == "jupyterhub":
        if "JUPYTERHUB_API_TOKEN" not in os.environ:
            raise ClusterError("auth jupyterhub takes its token from JUPYTERHUB_API_TOKEN, which is not set.")
        return JupyterHubAuth()
    return KerberosAuth() if kind == "kerberos" else None


@contextmanager
def _told(spec: ClusterSpec, what: str) -> Iterator[None]:
    """Tell what a gateway answers in words that say what to do."""
    try:
        yield
    except ClusterError:
        raise
    except ClientResponseError as error:
        if error.status in (401, 403):
            raise ClusterError(
                f"The gateway at {spec.gateway} does not let us in (HTTP {error.status}). Set DASK_GATEWAY_USER and "
                "DASK_GATEWAY_PASSWORD, or JUPYTERHUB_API_TOKEN with auth jupyterhub."
            ) from error
        raise ClusterError(f"The gateway at {spec.gateway} was {what} and answered HTTP {error.status}.") from error
    except (ClientError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"The gateway at {spec.gateway} cannot be reached ({type(error).__name__}: {error}). Look at the URL, and whether "
            "it answers from this machine."
        ) from error
    except Exception as error:  # the gateway's own errors have no common base but this
        raise ClusterError(f"The gateway at {spec.gateway} was {what} and refused: {error}") from error
