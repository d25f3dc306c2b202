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
    """Documents of the manifests, by file."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return {file.name: list(yaml.safe_load_all(file.read_text())) for file in files}


@pytest.fixture(scope="session")
def values() -> dict[str, Any]:
    """The values for the gateway's chart."""
    read = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text())
    assert isinstance(read, dict)
    return read
