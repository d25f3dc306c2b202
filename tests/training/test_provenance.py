import subprocess
from pathlib import Path

import pytest
import torch

import rtsx
from rtsx.training.train import git_revision, library_versions, machine


def test_versions_are_those_that_run() -> None:
    found = library_versions()
    assert found["rtsx"] == rtsx.__version__
    assert found["torch"] == str(torch.__version__).split("+")[0] or found["torch"] == str(torch.__version__)
    assert {"python", "numpy", "segmentation-models-pytorch"} <= set(found)


def test_a_revision_says_whether_files_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision(tmp_path) is None
    person = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("one")
    for command in (["init", "-q"], ["add", "file"], [*person, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = git_revision(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{clean}+changes"


def test_the_machine_is_described() -> None:
    said = machine(torch.device("cpu"), devices=2)
    assert (said["device"], said["devices"], said["threads"]) == ("cpu", 2, torch.get_num_threads())
