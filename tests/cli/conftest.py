"""A small scene, a small network, and the command line run in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from rtsx.cli import main
from rtsx.model import ModelBundle, allocator, build_network
from rtsx.synthetic import SceneFiles, demo_spec, write_scene
from tests.cli.trainable import write_training_scenes

BANDS = ("blue", "green", "red", "nir")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def rtsx_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `rtsx WORD...` and return its exit status and what it printed, which does not depend on how long it took."""
    monkeypatch.setattr("rtsx.progress.FIRST_S", 3600.0)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return Outcome(int(leaving.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(autouse=True)
def kept_memory(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for every time that a command asked to keep freed memory, which would hold for all later tests."""
    asked: list[str] = []
    monkeypatch.setattr(allocator, "configure_malloc", lambda: asked.append("kept"))
    return asked


@pytest.fixture(scope="session")
def scene(once: Callable[..., SceneFiles]) -> SceneFiles:
    """A scene of 256 px in all its files."""
    return once("scene", partial(write_scene, demo_spec(size=256)))


@pytest.fixture(scope="session")
def training_scenes(once: Callable[..., Path]) -> Path:
    """Folder of four scenes to train on."""
    return once("training-scenes", write_training_scenes)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle with four layers, stride 8 and random weights."""
    torch.manual_seed(3)
    network = build_network(
        "Unet",
        {
            "encoder_name": "tu-test_resnet",
            "encoder_depth": 3,
            "decoder_channels": (16, 8, 8),
            "in_channels": 4,
            "classes": 1,
        },
    )
    made = ModelBundle.from_module(
        network.eval(),
        layers=BANDS,
        mean=[0.1] * 4,
        std=[0.05] * 4,
        classes=("slump",),
        tile=128,
        overlap=32,
        id="small",
    )
    folder = tmp_path_factory.mktemp("bundle") / "small"
    made.save(folder)
    return folder
