"""The container recipes: linted, never root, built from this source with the same steps for both kinds of machines."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_a_base_is_an_image_by_name_with_a_whole_version(deploy: Path, kind: str) -> None:
    bases = re.findall(r"^FROM (\S+)", recipe(deploy, kind), re.MULTILINE)
    assert len(bases) == 2
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", base) for base in bases), bases
    assert len(set(bases)) == 1, "an environment runs only where its Python lies"


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
    for source in sources:
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


def test_constraints_name_whole_versions(deploy: Path) -> None:
    lines = (deploy / "container" / "constraints.txt").read_text().splitlines()
    assert all(line.startswith("#") or re.fullmatch(r"[\w.\[\]-]+==\S+", line) for line in lines if line)
