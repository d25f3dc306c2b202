"""Trained models that others made, for tests on real scenes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_models(real_data: Path, request: pytest.FixtureRequest) -> Path:
    """Folder of trained weights: `RTSX_REAL_MODELS`, else fetched once into pytest's cache, else a skip."""
    if given := os.environ.get("RTSX_REAL_MODELS"):
        return Path(given)
    if getattr(request.config, "cache", None) is None:
        pytest.skip("trained weights are kept in pytest's cache, which is switched off")
    folder = request.config.cache.mkdir("rtsx-models")
    weights = folder / "weights"
    if not (weights / "model_4b_l1c.onnx").exists() or not list(weights.glob("*kelp*.pt")):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the environment's own pip
        script = ["sh", str(real_data / "models" / "fetch_models.sh")]
        fetched = subprocess.run(script, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        for wheel in weights.glob("*.whl"):
            wheel.unlink()
        if fetched.returncode:
            pytest.skip(f"trained models could not be fetched, set RTSX_REAL_MODELS: {fetched.stderr[-300:]}")
    return weights
