"""The values for dask-gateway's chart: a real gateway takes them, and its controller makes valid pods of them."""

import ast
import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dask_gateway_server.app import DaskGateway
from dask_gateway_server.backends.base import PublicException
from dask_gateway_server.models import User

import rtsx
from tests.deploy.gateways import application, cluster_config, configuration_of, pod_of, unknown_names

PASSWORD = "of the test"


@pytest.fixture
def gateway(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DaskGateway:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", PASSWORD)
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values))
    return application(file)


def worker_of(gateway: DaskGateway, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pod and container of a worker."""
    pod = pod_of(cluster_config(gateway, **options), is_worker=True)
    return pod, pod["spec"]["containers"][0]


def test_the_gateway_knows_every_name(gateway: DaskGateway) -> None:
    assert unknown_names(gateway) == []


def test_a_misspelt_name_would_be_found(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", PASSWORD)
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values) + "\nc.KubeClusterConfig.idle_time = 5\n")
    assert unknown_names(application(file)) == ["KubeClusterConfig.idle_time"]


def test_the_password_comes_from_a_secret_alone(gateway: DaskGateway, values: dict[str, Any]) -> None:
    assert gateway.authenticator.config.SimpleAuthenticator.password == PASSWORD
    assert "password" not in values["gateway"]["auth"].get("simple", {})
    (variable,) = values["gateway"]["env"]
    assert "value" not in variable


def test_a_cluster_without_wishes_is_the_cpu_profile(gateway: DaskGateway) -> None:
    pod, container = worker_of(gateway)
    assert container["args"][:2] == ["dask", "worker"]
    assert "--resources" not in container["args"]
    assert container["image"] == f"rtsx:{rtsx.__version__}-cpu"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert container["resources"]["limits"]["cpu"] == "4.000"
    assert "nodeSelector" not in pod["spec"]


def test_a_gpu_worker_has_one_gpu_and_says_so(gateway: DaskGateway) -> None:
    pod, container = worker_of(gateway, profile="gpu")
    assert container["args"][:4] == ["dask", "worker", "--resources", "GPU=1"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == f"rtsx:{rtsx.__version__}-cuda"
    assert [toleration["key"] for toleration in pod["spec"]["tolerations"]] == ["nvidia.com/gpu"]


def test_what_holds_for_all_profiles_holds_for_gpus_too(gateway: DaskGateway) -> None:
    pod, container = worker_of(gateway, profile="gpu")
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["envFrom"] == [{"secretRef": {"name": "rtsx-object-store"}}]
    assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]


def test_wishes_reach_the_worker(gateway: DaskGateway) -> None:
    _, container = worker_of(gateway, worker_cores=6, worker_memory=24.5, environment={"GDAL_NUM_THREADS": "2"})
    assert container["resources"]["limits"] == {"cpu": "6.000", "memory": str(int(24.5 * 2**30))}
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert environment["OMP_NUM_THREADS"] == "6"
    assert environment["GDAL_NUM_THREADS"] == "2"
    arguments = container["args"]
    assert arguments[arguments.index("--nthreads") + 1] == "1"
    assert arguments[arguments.index("--memory-limit") + 1] == str(int(24.5 * 2**30))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"worker_cores": 17, "profile": "gpu"}, "worker_cores is 16 at most in this profile; 17"),
        ({"worker_memory": 129}, "worker_memory is 128 at most in this profile; 129"),
        ({"profile": "tpu"}, "tpu"),
        ({"image": "another"}, "Unknown fields"),
        ({"worker_cores": -1}, "worker_cores must be >= 0"),
    ],
)
def test_wishes_beyond_a_limit_are_refused(gateway: DaskGateway, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PublicException, match=words):
        cluster_config(gateway, **options)


def test_no_cluster_is_without_bounds(gateway: DaskGateway) -> None:
    for profile, most in (("cpu", 64), ("gpu", 16)):
        config = cluster_config(gateway, profile=profile)
        assert config.cluster_max_workers == most
        assert config.idle_timeout == 600
        assert config.adaptive_period == 10


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("is_worker", [True, False])
def test_kubernetes_takes_the_pods(gateway: DaskGateway, profile: str, is_worker: bool) -> None:
    pod = pod_of(cluster_config(gateway, profile=profile), is_worker=is_worker)
    for version in ("1.31", "1.37"):
        kubernetes_validate.validate(pod, version, strict=True)
    mounted = {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_schedulers_are_started_with_the_command_there_is(gateway: DaskGateway) -> None:
    pod = pod_of(cluster_config(gateway, profile="gpu"), is_worker=False)
    environment = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    assert environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"
    assert pod["spec"]["containers"][0]["args"][:2] == ["dask", "scheduler"]


def leaves(values: Mapping[str, Any], chart: Mapping[str, Any], path: str = "") -> list[str]:
    """Values that a chart does not know, or that are of another kind there."""
    wrong = []
    for name, value in values.items():
        known = chart.get(name)
        if known is None:
            wrong.append(f"{path}{name}: unknown")
        elif isinstance(known, Mapping) and isinstance(value, Mapping):
            wrong += leaves(value, known, f"{path}{name}.")
        elif not isinstance(known, Mapping) and not known(value):
            wrong.append(f"{path}{name}: {value!r}")
    return wrong


def of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


RANGE = {"request": of(str, int, float, type(None)), "limit": of(str, int, float, type(None))}
IMAGE = {
    "name": of(str),
    "tag": of(str),
    "pullPolicy": lambda value: value in (None, "", "IfNotPresent", "Always", "Never"),
}
POD = {"cores": RANGE, "memory": RANGE, "extraPodConfig": of(dict), "extraContainerConfig": of(dict)}
# What the chart knows of the values that are set here, as its own description of them says. Its description is no part of this
# repository; with a copy of the chart, the tests of test_chart.py hold the values to the whole of it.
CHART = {
    "gateway": {
        "auth": {"type": lambda value: value in ("simple", "kerberos", "jupyterhub", "custom")},
        "env": of(list),
        "backend": {
            "image": IMAGE,
            "environment": of(dict),
            "scheduler": POD,
            "worker": POD | {"threads": of(int, type(None))},
        },
        "extraConfig": of(dict, str),
    },
    "controller": {"completedClusterMaxAge": of(int, float)},
    "traefik": {"service": {"type": of(str), "ports": {"web": {"port": of(int)}}}, "additionalArguments": of(list)},
}


def test_the_chart_knows_every_value(values: dict[str, Any], deploy: Path) -> None:
    assert leaves(values, CHART) == []
    assert leaves(yaml.safe_load((deploy / "helm" / "tls.yaml").read_text()), CHART) == []
    assert leaves({"gateway": {"extraconfig": {}}}, CHART) == ["gateway.extraconfig: unknown"]


def test_extra_configuration_is_python_by_name(values: dict[str, Any]) -> None:
    for name, code in values["gateway"]["extraConfig"].items():
        compile(code, name, "exec")


def test_both_gateways_have_the_same_options(gateway: DaskGateway, deploy: Path) -> None:
    # A campaign that runs at the gateway of one machine is then one that runs on Kubernetes.
    on_one_machine = ast.parse((deploy / "gateway" / "dask_gateway_config.py").read_text())
    fields = {
        call.args[0].value
        for call in ast.walk(on_one_machine)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("Select", "Integer", "Float", "Mapping", "String", "Bool")
        and isinstance(call.args[0], ast.Constant)
    }
    options = asyncio.run(gateway.backend.get_cluster_options(User("someone")))
    assert {field["field"] for field in options.get_specification()} == fields


def started(deploy: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> DaskGateway:
    """The gateway of one machine."""
    for name, value in {"PASSWORD": PASSWORD, **environment}.items():
        monkeypatch.setenv(f"RTSX_GATEWAY_{name}", value)
    return application(deploy / "gateway" / "dask_gateway_config.py")


@pytest.mark.parametrize("address", ["0.0.0.0:8000", ":8000", "10.0.0.1:8000", "[::]:8000", "gateway.example.org:8000"])
def test_no_password_crosses_a_network_unencrypted(deploy: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(SystemExit, match="RTSX_GATEWAY_TLS_CERT"):
        started(deploy, monkeypatch, ADDRESS=address)
    config = started(deploy, monkeypatch, ADDRESS=address, TLS_CERT="/a.crt", TLS_KEY="/a.key").config.Proxy
    assert (config.address, config.tls_cert, config.tls_key) == (address, "/a.crt", "/a.key")


def test_one_machine_needs_no_certificate(deploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(deploy, monkeypatch).config.Proxy.address == "127.0.0.1:8000"


def test_an_image_can_be_a_digest(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", PASSWORD)
    digits = "0123456789abcdef" * 4
    backend = {**values["gateway"]["backend"], "image": {"name": "registry/rtsx@sha256", "tag": digits}}
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of({"gateway": {**values["gateway"], "backend": backend}}))
    assert cluster_config(application(file)).image == f"registry/rtsx@sha256:{digits}"
