"""A real gateway application, configured by the values for its chart as the chart does it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dask_gateway_server.app import DaskGateway
from dask_gateway_server.backends.kubernetes.backend import KubeClusterConfig
from dask_gateway_server.backends.kubernetes.controller import KubeController
from dask_gateway_server.models import User

# Traits that the chart sets from values below `gateway.backend`, and those values.
FORWARDED = {
    "scheduler_cores": "scheduler.cores.request",
    "scheduler_cores_limit": "scheduler.cores.limit",
    "scheduler_memory": "scheduler.memory.request",
    "scheduler_memory_limit": "scheduler.memory.limit",
    "scheduler_extra_container_config": "scheduler.extraContainerConfig",
    "scheduler_extra_pod_config": "scheduler.extraPodConfig",
    "worker_cores": "worker.cores.request",
    "worker_cores_limit": "worker.cores.limit",
    "worker_memory": "worker.memory.request",
    "worker_memory_limit": "worker.memory.limit",
    "worker_threads": "worker.threads",
    "worker_extra_container_config": "worker.extraContainerConfig",
    "worker_extra_pod_config": "worker.extraPodConfig",
    "image_pull_policy": "image.pullPolicy",
    "environment": "environment",
}
AUTHENTICATORS = {"simple": "SimpleAuthenticator", "jupyterhub": "JupyterHubAuthenticator"}


def value_of(values: Mapping[str, Any], path: str) -> Any:
    """A value by its dotted path; None where it is left out."""
    found: Any = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def configuration_of(values: Mapping[str, Any]) -> str:
    """The file that the gateway reads: what the chart makes of values, then the extra configuration in order of its names."""
    gateway = values["gateway"]
    backend = gateway["backend"]
    authenticator = AUTHENTICATORS[gateway["auth"]["type"]]
    lines = [
        'c.DaskGateway.address = "127.0.0.1:0"',
        'c.DaskGateway.backend_class = "dask_gateway_server.backends.kubernetes.KubeBackend"',
        f'c.DaskGateway.authenticator_class = "dask_gateway_server.auth.{authenticator}"',
        'c.KubeBackend.api_url = "http://gateway/api"',
        'c.KubeBackend.gateway_instance = "dask-gateway"',
        f'c.KubeClusterConfig.image = "{backend["image"]["name"]}:{backend["image"]["tag"]}"',
    ]
    for trait, path in FORWARDED.items():
        value = value_of(backend, path)
        if value is not None:
            lines.append(f"c.KubeClusterConfig.{trait} = {value!r}")
    return "\n".join([*lines, *(gateway["extraConfig"][name] for name in sorted(gateway["extraConfig"]))])


def application(file: Path) -> DaskGateway:
    """The gateway's application with this configuration, ready to be started."""
    app = DaskGateway()
    app.initialize(["--config", str(file), "--log-level", "ERROR"])
    return app


def cluster_config(app: DaskGateway, **options: Any) -> KubeClusterConfig:
    """Configuration of a cluster that a user of this gateway asked for."""
    _, config = asyncio.run(app.backend.process_cluster_options(User("someone"), options))
    assert isinstance(config, KubeClusterConfig)
    return config


def pod_of(config: KubeClusterConfig, *, is_worker: bool) -> dict[str, Any]:
    """The pod that the gateway's controller makes of it."""
    controller = KubeController(gateway_instance="dask-gateway", api_url="http://gateway/api")
    pod: dict[str, Any] = controller.make_pod("maps", "0123456789abcdef", config, is_worker=is_worker)
    return pod


def unknown_names(app: DaskGateway) -> list[str]:
    """Names that a configuration sets and no class of the gateway has."""
    classes = {
        cls.__name__: cls
        for found in (type(app), type(app.backend), type(app.authenticator), KubeClusterConfig)
        for cls in found.__mro__
        if hasattr(cls, "class_trait_names")
    }
    return [
        f"{section}.{name}"
        for section, settings in app.config.items()
        for name in settings
        if section not in classes or name not in classes[section].class_trait_names(config=True)
    ]
