"""The container recipes: linted, never root, built from this source with the same steps for both kinds of machines."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rtsx

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
        lines = [re.sub(r"\s+", " ", line) for line in instructions(recipe(deploy, kind))]
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
    names = [*project["dependencies"], *extras["gateway"], *extras["s3"]]
    wanted = [Requirement(each) for each in (*names, "hatchling")]
    seen = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt: make it anew, as deploy/README.md says"
        version = str(pinned[name][0].specifier).removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), (str(requirement), version)
        # As installed here, which is what the file was made of.
        key = (name, *sorted(requirement.extras))
        if key in seen or not any(importlib.metadata.distributions(name=name)):
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
