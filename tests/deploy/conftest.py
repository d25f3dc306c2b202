"""What tests of `deploy/` share: its files, read strictly."""

from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder of recipes, values and manifests."""
    return DEPLOY


@pytest.fixture(scope="session")
def manifests() -> dict[str, list[dict[str, Any]]]:
    """Documents of the manifests, by file; all but kustomize's own."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return {f.name: list(yaml.safe_load_all(f.read_text())) for f in files if f.name != "kustomization.yaml"}


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    """The values for the gateway's chart."""
    read = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text())
    assert isinstance(read, dict)
    return read
