"""The manifests: valid for Kubernetes, right about each other, and about the campaign and the gateway they name."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from yamllint import linter
from yamllint.config import YamlLintConfig

import rtsx
from rtsx.config.campaign import CampaignConfig
from tests.deploy.conftest import DEPLOY
from tests.deploy.gateways import application, cluster_config, configuration_of

Manifest = dict[str, Any]
VERSIONS = ("1.31", "1.34", "1.37")
OPERATOR = "kubernetes.dask.org/v1"
YAML_FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob(".yamllint")])


def all_of(manifests: dict[str, list[Manifest]], *kinds: str) -> list[Manifest]:
    return [document for documents in manifests.values() for document in documents if document["kind"] in kinds]


def pods(manifests: dict[str, list[Manifest]]) -> Iterator[Manifest]:
    """Specs of all pods."""
    for document in all_of(manifests, "Job"):
        yield document["spec"]["template"]["spec"]
    for document in all_of(manifests, "CronJob"):
        yield document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for document in all_of(manifests, "DaskCluster"):
        yield document["spec"]["worker"]["spec"]
        yield document["spec"]["scheduler"]["spec"]


def found_in(value: Any, key: str) -> Iterator[Any]:
    """What stands under a key, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from found_in(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from found_in(inner, key)


@pytest.fixture(scope="module")
def campaign(manifests: dict[str, list[Manifest]]) -> CampaignConfig:
    (config,) = all_of(manifests, "ConfigMap")
    return CampaignConfig.model_validate(yaml.safe_load(config["data"]["campaign.yaml"]))


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_yaml_is_in_order(file: Path) -> None:
    rules = YamlLintConfig((DEPLOY / ".yamllint").read_text())
    problems = list(linter.run(io.StringIO(file.read_text()), rules, str(file)))
    assert not problems, [str(problem) for problem in problems]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(manifests: dict[str, list[Manifest]], version: str) -> None:
    own = [document for documents in manifests.values() for document in documents if document["apiVersion"] != OPERATOR]
    assert len(own) >= 6
    for document in own:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_pods_of_the_operator(manifests: dict[str, list[Manifest]], version: str) -> None:
    (cluster,) = all_of(manifests, "DaskCluster")
    for part in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": cluster["spec"][part]["spec"]}
        kubernetes_validate.validate(pod, version, strict=True)
    service = {"apiVersion": "v1", "kind": "Service", "spec": cluster["spec"]["scheduler"]["service"]}
    kubernetes_validate.validate(service, version, strict=True)


def test_a_wrong_field_would_be_found(manifests: dict[str, list[Manifest]]) -> None:
    (job, *_) = all_of(manifests, "Job")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(job | {"spec": job["spec"] | {"backofLimit": 1}}, VERSIONS[-1], strict=True)


def test_the_operator_takes_its_kinds(manifests: dict[str, list[Manifest]]) -> None:
    """With RTSX_DASK_KUBERNETES, the folder that the wheel of dask-kubernetes was unpacked into."""
    folder = os.environ.get("RTSX_DASK_KUBERNETES")
    if folder is None:
        pytest.skip("RTSX_DASK_KUBERNETES names no unpacked wheel of dask-kubernetes")
    schemas = {
        definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for file in Path(folder).rglob("crds/*.yaml")
        for definition in yaml.safe_load_all(file.read_text())
    }
    for document in all_of(manifests, "DaskCluster", "DaskAutoscaler"):
        errors = list(Draft202012Validator(schemas[document["kind"]]).iter_errors(document))
        assert not errors, [error.message for error in errors]


def test_no_container_is_root_or_may_become_it(manifests: dict[str, list[Manifest]]) -> None:
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_images_are_those_that_the_recipes_build(manifests: dict[str, list[Manifest]]) -> None:
    images = {container["image"] for pod in pods(manifests) for container in pod["containers"]}
    assert images <= {f"rtsx:{rtsx.__version__}-{kind}" for kind in ("cpu", "cuda")}


def test_what_is_referred_to_is_there(manifests: dict[str, list[Manifest]], values: dict[str, Any]) -> None:
    secrets = {secret["metadata"]["name"]: set(secret["stringData"]) for secret in all_of(manifests, "Secret")}
    everything = [manifests, values]
    for reference in found_in(everything, "secretRef"):
        assert reference["name"] in secrets
    for reference in found_in(everything, "secretKeyRef"):
        assert reference["key"] in secrets[reference["name"]]
    maps = {config["metadata"]["name"] for config in all_of(manifests, "ConfigMap")}
    claims = {claim["metadata"]["name"] for claim in all_of(manifests, "PersistentVolumeClaim")}
    for pod in pods(manifests):
        for reference in found_in(pod, "configMap"):
            assert reference["name"] in maps
        for reference in found_in(pod, "persistentVolumeClaim"):
            assert reference["claimName"] in claims
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        assert {mount["name"] for mounts in found_in(pod, "volumeMounts") for mount in mounts} <= volumes


def test_no_secret_is_real(manifests: dict[str, list[Manifest]]) -> None:
    told = {"gateway-user", "AWS_ENDPOINT_URL"}
    for secret in all_of(manifests, "Secret"):
        assert {value for name, value in secret["stringData"].items() if name not in told} == {"REPLACE-ME"}


def test_the_campaign_is_one(campaign: CampaignConfig) -> None:
    assert campaign.output.startswith("s3://")
    assert campaign.cluster.auth == "basic"


def test_the_gateway_knows_the_campaigns_profile(
    campaign: CampaignConfig, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", "of the test")
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values))
    asked = campaign.cluster
    config = cluster_config(application(file), profile=asked.profile, **asked.options)
    assert asked.adapt is not None
    assert asked.adapt[1] <= config.cluster_max_workers


def test_a_client_runs_what_its_workers_run(
    campaign: CampaignConfig,
    manifests: dict[str, list[Manifest]],
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", "of the test")
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values))
    image = cluster_config(application(file), profile=campaign.cluster.profile).image
    clients = [pod for pod in pods(manifests) if "DASK_GATEWAY_PASSWORD" in list(found_in(pod["containers"], "name"))]
    assert len(clients) == 2
    assert {container["image"] for pod in clients for container in pod["containers"]} == {image}


def test_commands_are_understood(manifests: dict[str, list[Manifest]]) -> None:
    from typer.main import get_command

    from rtsx.cli.app import app
    from rtsx.cli.lazy import LazyGroup

    lines = [args for args in found_in(list(pods(manifests)), "args") if args[0] == "rtsx"]
    assert len(lines) == 3
    for _, *words in lines:
        command: Any = get_command(app)
        context = command.make_context("rtsx", list(words), resilient_parsing=True)
        while hasattr(command, "commands"):
            name, *words = words
            command = command.load(name) if isinstance(command, LazyGroup) else command.commands[name]
            context = command.make_context(name, list(words), parent=context)
        assert context.params


def test_files_name_no_registry(deploy: Path) -> None:
    # An image by name alone: whose registry it is, the one who deploys it says.
    for file in sorted(deploy.rglob("*")):
        if file.is_file() and file.suffix in (".yaml", ".Dockerfile", ".md"):
            assert not re.search(r"\b(docker\.io|ghcr\.io|quay\.io|gcr\.io|nvcr\.io)\b", file.read_text()), file
