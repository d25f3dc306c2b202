"""The manifests: valid for Kubernetes, right about each other, and about the campaign and the gateway they name."""

import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import dask
import kubernetes_validate
import pytest
import requests
import yaml
from distributed import Client, LocalCluster
from distributed.security import Security
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from yamllint import linter
from yamllint.config import YamlLintConfig

import rtsx
from rtsx.campaign.clusters import scheduler_client
from rtsx.campaign.recipe import ClusterSpec
from rtsx.config.campaign import CampaignConfig
from tests.deploy.conftest import DEPLOY
from tests.deploy.gateways import application, cluster_config, configuration_of, pod_of

Manifest = dict[str, Any]
VERSIONS = ("1.31", "1.34", "1.37")
OPERATOR = "kubernetes.dask.org/v1"
YAML_FILES = sorted([*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob(".yamllint")])


def all_of(manifests: dict[str, list[Manifest]], *kinds: str) -> list[Manifest]:
    return [document for documents in manifests.values() for document in documents if document["kind"] in kinds]


def pods(manifests: dict[str, list[Manifest]]) -> list[Manifest]:
    """Specs of all pods, whatever kind has them."""
    return list(pods_in(list(manifests.values())))


def pods_in(value: Any) -> Iterator[Manifest]:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        else:
            yield from pods_in(list(value.values()))
    elif isinstance(value, list):
        for inner in value:
            yield from pods_in(inner)


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
    (config,) = [each for each in all_of(manifests, "ConfigMap") if each["metadata"]["name"] == "rtsx-campaign"]
    return CampaignConfig.model_validate(yaml.safe_load(config["data"]["campaign.yaml"]))


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(DEPLOY)))
def test_yaml_is_in_order(file: Path) -> None:
    rules = YamlLintConfig((DEPLOY / ".yamllint").read_text())
    problems = list(linter.run(io.StringIO(file.read_text()), rules, str(file)))
    assert not problems, [str(problem) for problem in problems]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(manifests: dict[str, list[Manifest]], version: str) -> None:
    foreign = (OPERATOR, "traefik.io/v1alpha1")
    own = [
        document for documents in manifests.values() for document in documents if document["apiVersion"] not in foreign
    ]
    assert len(own) >= 16
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


def test_no_container_may_do_more_than_it_has_to(
    manifests: dict[str, list[Manifest]], values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One law for all pods: of the manifests, and those that the gateway makes."""
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", "of the test")
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values))
    configs = [cluster_config(application(file), profile=profile) for profile in ("cpu", "gpu")]
    made = [pod_of(config, is_worker=is_worker)["spec"] for config in configs for is_worker in (True, False)]
    every = [*pods(manifests), *made]
    assert len(every) == 6 + 4
    writable = {
        path
        for recipe in DEPLOY.rglob("*.Dockerfile")
        for path in re.findall(
            r"\b(?:HOME=|NUMBA_CACHE_DIR=|MPLCONFIGDIR=|WORKDIR |--home-dir )(/\S+)", recipe.read_text()
        )
    }
    assert writable == {"/tmp", "/tmp/numba", "/tmp/matplotlib"}
    for pod in every:
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
            assert mounts["/tmp"]["emptyDir"]["sizeLimit"]
            written = [path for path in writable if not any(PurePosixPath(path).is_relative_to(at) for at in mounts)]
            assert not written, f"{container['name']} cannot write to {written}"
            # All else is read, but for a campaign's own disk.
            assert {
                at for at, volume in mounts.items() if "emptyDir" in volume or "persistentVolumeClaim" in volume
            } <= {
                "/tmp",
                "/data",
            }


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) not in rule["values"] for rule in selector.get("matchExpressions", ())
    )


LABELS = {
    "job": {"app.kubernetes.io/name": "rtsx"},
    "proxy": {"app.kubernetes.io/name": "dask-gateway", "app.kubernetes.io/component": "traefik"},
    "gateway": {"app.kubernetes.io/name": "dask-gateway", "app.kubernetes.io/component": "gateway"},
    "gateway's worker": {"app.kubernetes.io/name": "dask-gateway", "app.kubernetes.io/component": "dask-worker"},
    "scheduler": {"dask.org/cluster-name": "rtsx", "dask.org/component": "scheduler"},
    "worker": {"dask.org/cluster-name": "rtsx", "dask.org/component": "worker"},
    "stranger": {"app": "somebody's"},
}


def test_only_those_talk_who_have_to(manifests: dict[str, list[Manifest]]) -> None:
    policies = [policy["spec"] for policy in all_of(manifests, "NetworkPolicy")]

    def may(one: str, other: str) -> bool:
        on = [
            policy
            for policy in policies
            if "Ingress" in policy["policyTypes"] and selects(policy["podSelector"], LABELS[other])
        ]
        assert on, f"no policy selects {other}: everyone may talk to it"
        peers = [peer for policy in on for rule in policy.get("ingress", ()) for peer in rule["from"]]
        return any("podSelector" in peer and selects(peer["podSelector"], LABELS[one]) for peer in peers)

    gateway, cluster = ("proxy", "gateway", "gateway's worker"), ("scheduler", "worker")
    talks = {("job", other) for other in ("proxy", *cluster)}
    talks |= {(one, other) for parts in (gateway, cluster) for one in parts for other in parts}
    assert {(one, other) for one in LABELS for other in LABELS if may(one, other)} == talks


def test_the_gateways_pods_have_the_labels_of_the_policy(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTSX_GATEWAY_PASSWORD", "of the test")
    file = tmp_path / "dask_gateway_config.py"
    file.write_text(configuration_of(values))
    labels = pod_of(cluster_config(application(file)), is_worker=True)["metadata"]["labels"]
    assert LABELS["gateway's worker"].items() <= labels.items()


def test_images_are_put_by_digest_and_others_refused(manifests: dict[str, list[Manifest]]) -> None:
    folder = DEPLOY / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (image,) = kustomization["images"]
    assert image["digest"].startswith("sha256:")
    policies = {policy["kind"]: policy["spec"] for policy in manifests["images-by-digest.yaml"]}
    rule = policies["ValidatingAdmissionPolicy"]["validations"][0]["expression"]
    (pattern,) = re.findall(r'matches\("(.*)"\)', rule)
    for name in kustomization["resources"]:
        for pod in pods({name: manifests[name]}):
            for container in pod["containers"]:
                assert container["image"].split(":")[0] == image["name"]
                assert not re.search(pattern, container["image"])
    assert not re.search(pattern, f"{image['newName']}@{image['digest']}"), (
        "a place to fill in, that runs nothing until then"
    )
    assert re.search(pattern, f"{image['newName']}@sha256:{'0' * 64}")
    selector = policies["ValidatingAdmissionPolicyBinding"]["matchResources"]["namespaceSelector"]
    assert selector["matchLabels"] == {"kubernetes.io/metadata.name": kustomization["namespace"]}


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[], Path]:
    """Makes folders of the files of the Secret, each of an authority of its own."""

    def made() -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        own = Security.temporary()
        for name, pem in (
            ("ca.crt", own.tls_ca_file),
            ("tls.crt", own.tls_scheduler_cert),
            ("tls.key", own.tls_scheduler_key),
        ):
            (folder / name).write_text(pem)
        return folder

    return made


def settings_of(pod: Manifest, manifests: dict[str, list[Manifest]], folder: Path) -> dict[str, Any]:
    """dask's configuration as the environment of a pod makes it, with the Secret in this folder."""
    (container,) = pod["containers"]
    (mount,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
    maps = {each["metadata"]["name"]: each["data"] for each in all_of(manifests, "ConfigMap")}
    environment = {entry["name"]: entry["value"] for entry in container.get("env", ())}
    for source in container["envFrom"]:
        environment |= maps.get(source.get("configMapRef", {}).get("name"), {})
    environment = {name: value.replace(mount, str(folder)) for name, value in environment.items()}
    read: dict[str, Any] = dask.config.merge(dask.config.global_config, dask.config.collect_env(environment))
    return read


def test_the_scheduler_refuses_whoever_has_no_certificate(
    manifests: dict[str, list[Manifest]], certificates: Callable[[], Path]
) -> None:
    (cluster,) = all_of(manifests, "DaskCluster")
    scheduler, worker = (cluster["spec"][part]["spec"] for part in ("scheduler", "worker"))
    (client,) = [pod for pod in pods({"": manifests["dask-cluster.yaml"]}) if pod["containers"][0]["args"][0] == "rtsx"]
    own, foreign = certificates(), certificates()
    args = scheduler["containers"][0]["args"]
    assert args[:2] == ["dask", "scheduler"]
    with ExitStack() as stack:
        with dask.config.set(settings_of(scheduler, manifests, own)):
            running = stack.enter_context(
                LocalCluster(
                    n_workers=0,
                    processes=False,
                    protocol=f"{args[args.index('--protocol') + 1]}://",
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    security=Security(),
                )
            )
        address = str(running.scheduler_address)
        assert address.startswith("tls://127.0.0.1:")
        with dask.config.set(settings_of(worker, manifests, own)):
            running.scale(1)
            with (
                dask.config.set(settings_of(client, manifests, own)),
                scheduler_client(ClusterSpec(scheduler=address)) as known,
            ):
                assert known.submit(sum, [1, 2]).result() == 3
        # The operator asks how many workers are wanted, by a route that runs nobody's code.
        dashboard = f"http://127.0.0.1:{running.scheduler.http_server.port}"
        assert requests.get(f"{dashboard}/api/v1/adaptive_target", timeout=30).json() == {"workers": 0}
        assert requests.get(f"{dashboard}/health", timeout=30).ok
        for settings, stranger in (
            (dask.config.global_config, address.replace("tls://", "tcp://")),
            (settings_of(client, manifests, foreign), address),
        ):
            with dask.config.set(settings), pytest.raises(OSError):  # noqa: PT011 - the words are the system's
                Client(stranger, timeout=0.5, set_as_default=False)


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
        for reference in (*found_in(pod, "configMap"), *found_in(pod, "configMapRef")):
            assert reference["name"] in maps
        for reference in found_in(pod, "secretName"):
            assert f"create secret generic {reference} " in (DEPLOY / "README.md").read_text()
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

    from rtsx.cli.app import LazyGroup, app

    lines = [args for args in found_in(list(pods(manifests)), "args") if args[0] == "rtsx"]
    assert len(lines) == 4
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


KINDS = ("cpu", "cuda")


def recipe(deploy: Path, kind: str) -> str:
    return (deploy / "container" / f"{kind}.Dockerfile").read_text()


def instructions(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def test_hadolint_has_nothing_to_say(deploy: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: its wheel is for Linux on x86-64")
    files = [str(deploy / "container" / f"{kind}.Dockerfile") for kind in KINDS]
    found = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_both_stages_have_one_base_that_can_be_given_by_digest(deploy: Path, kind: str) -> None:
    text = recipe(deploy, kind)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"], (
        "an environment runs where its Python lies"
    )
    (base,) = re.findall(r"^ARG BASE=(\S+)", text, re.MULTILINE)
    assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", base)
    assert f"imagetools inspect {base}" in (deploy / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_user_is_a_number_and_not_root(deploy: Path, kind: str) -> None:
    users = [line.split()[1] for line in instructions(recipe(deploy, kind)) if line.startswith("USER")]
    assert users == ["10001:10001"]


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_are_the_whole_command(deploy: Path, kind: str) -> None:
    # dask-gateway gives `dask worker ...` as arguments, which an ENTRYPOINT would swallow.
    assert not any(line.startswith("ENTRYPOINT") for line in instructions(recipe(deploy, kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_copied_is_there_and_reaches_the_builder(deploy: Path, kind: str) -> None:
    root = deploy.parent
    let_through = (deploy / "container" / f"{kind}.Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        source
        for line in instructions(recipe(deploy, kind))
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert "rtsx" in sources
    assert "pyproject.toml" in sources
    (constraints,) = re.findall(r"^ARG CONSTRAINTS=(\S+)", recipe(deploy, kind), re.MULTILINE)
    assert fnmatch(constraints, next(line[1:] for line in let_through if "constraints" in line))
    for source in {*sources} - {"${CONSTRAINTS}"}:
        assert (root / source).exists(), source
        assert f"!{source}" in let_through, source


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_says_the_version_that_is_built(deploy: Path, kind: str) -> None:
    assert f"-t rtsx:{rtsx.__version__}-{kind} ." in recipe(deploy, kind)


def test_both_kinds_are_built_by_the_same_steps(deploy: Path) -> None:
    def steps(kind: str) -> list[str]:
        # Triton calls a C compiler when it runs.
        lines = [re.sub(r"\s+", " ", line).replace("gcc libc6-dev ", "") for line in instructions(recipe(deploy, kind))]
        return [line.split(" && python -c")[0] for line in lines if not line.startswith("ENV")]

    assert steps("cpu") == steps("cuda")


def constraints(deploy: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """Requirements of the file by their names, and the hashes of each."""
    lines = (deploy / "container" / "constraints.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = [line.split() for line in lines if not line.startswith("#")]
    return {canonicalize_name(Requirement(words[0]).name): (Requirement(words[0]), words[1:]) for words in pinned}


def test_every_package_is_pinned_by_version_and_hash(deploy: Path) -> None:
    for name, (requirement, hashes) in constraints(deploy).items():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), name
        assert hashes, name
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name
    # Nor where they come from: that is the business of whoever builds.
    assert "://" not in (deploy / "container" / "constraints.txt").read_text()


def test_nothing_that_the_images_need_is_left_to_the_day(deploy: Path) -> None:
    """All that rtsx needs with its extras, and what that needs, is pinned, to a version that rtsx takes."""
    pinned = constraints(deploy)
    project = tomllib.loads((deploy.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *extras["fast"], *extras["gateway"], *extras["s3"]]
    wanted = [Requirement(each) for each in (*names, "hatchling")]
    seen = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt: make it anew, as deploy/README.md says"
        version = str(pinned[name][0].specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), (str(requirement), version)
        key = (name, *sorted(requirement.extras))
        here = {each.version for each in importlib.metadata.distributions(name=name)}
        if key in seen or version not in here:  # of another Python, other versions are here, which need other packages
            continue
        seen.add(key)
        for each in importlib.metadata.requires(name) or ():
            needed = Requirement(each)
            image = {"python_version": "3.12", "python_full_version": "3.12.11"}
            if needed.marker is None or any(
                needed.marker.evaluate({**image, "extra": extra}) for extra in requirement.extras or {""}
            ):
                wanted.append(needed)


def test_the_images_install_nothing_else(deploy: Path) -> None:
    for kind in KINDS:
        installs = [line for line in instructions(recipe(deploy, kind)) if "pip install" in line]
        assert len(installs) == 2
        assert "--require-hashes --no-deps --only-binary :all:" in installs[0]
        assert "--no-index --no-deps --no-build-isolation" in installs[1]
