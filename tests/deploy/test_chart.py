"""The values in the chart itself, by helm. Opt-in, because neither chart nor helm comes from the registry of this package:

RTSX_DASK_GATEWAY_CHART names the chart (a folder or a packed one), RTSX_HELM the program helm unless it is on the path.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.gateways import application, cluster_config, pod_of, unknown_names

VERSION = "1.34"


@pytest.fixture(scope="module")
def helm() -> str:
    found = os.environ.get("RTSX_HELM") or shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on the path, and RTSX_HELM names none")
    return found


@pytest.fixture(scope="module")
def chart() -> str:
    named = os.environ.get("RTSX_DASK_GATEWAY_CHART")
    if named is None:
        pytest.skip("RTSX_DASK_GATEWAY_CHART names no copy of the chart dask-gateway")
    return named


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rendered(helm: str, chart: str, deploy: Path) -> list[dict[str, Any]]:
    """Documents that helm makes of chart and values; the chart's own schema has then taken the values."""
    text = run(
        helm, "template", "dask-gateway", chart, "--namespace", "maps", "--values", str(deploy / "helm/values.yaml")
    )
    return [document for document in yaml.safe_load_all(text) if document]


def test_helm_has_nothing_to_say(helm: str, chart: str, deploy: Path) -> None:
    run(helm, "lint", "--strict", chart, "--values", str(deploy / "helm" / "values.yaml"))


def test_kubernetes_takes_what_is_rendered(rendered: list[dict[str, Any]]) -> None:
    for document in rendered:
        if "traefik" not in document["apiVersion"]:
            kubernetes_validate.validate(document, VERSION, strict=False)


def test_the_password_is_in_no_document(rendered: list[dict[str, Any]]) -> None:
    (variable,) = [
        variable
        for document in rendered
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
        for variable in container.get("env", ())
        if variable["name"] == "RTSX_GATEWAY_PASSWORD"
    ]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "rtsx-credentials", "key": "gateway-password"}


def test_the_gateway_takes_the_configuration_of_the_chart(
    rendered: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", "of the test")
    (configuration,) = [
        document["data"]["dask_gateway_config.py"]
        for document in rendered
        if document["kind"] == "ConfigMap" and "c.DaskGateway" in document["data"].get("dask_gateway_config.py", "")
    ]
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration)
    gateway = application(file)
    assert unknown_names(gateway) == []
    for profile in ("cpu", "gpu"):
        config = cluster_config(gateway, profile=profile)
        assert config.worker_threads == 1
        assert config.worker_cmd[:2] == ["dask", "worker"]
        for is_worker in (True, False):
            kubernetes_validate.validate(pod_of(config, is_worker=is_worker), VERSION, strict=True)
