from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import rtsx
from rtsx.model import build_network

Command = Callable[..., Any]


def write_state_dict(path: Path) -> Path:
    """A bare state dict, as training loops leave them."""
    torch.manual_seed(0)
    network = build_network("Unet", {"encoder_name": "resnet18", "in_channels": 4, "classes": 1})
    torch.save(network.state_dict(), path)
    return path


NAMED = ("--architecture", "Unet", "--encoder", "resnet18", "--layers", "blue,green,red,nir", "--classes", "slump")
SCALED = ("--mean", "0.1,0.1,0.1,0.2", "--std", "0.05,0.05,0.05,0.1", "--tile", "256", "--overlap", "64")


def test_info_tells_what_a_model_is_and_wants(rtsx_command: Command, bundle: Path) -> None:
    outcome = rtsx_command("model", "info", bundle)
    assert outcome.status == 0
    for words in (
        "small",
        rtsx.ModelBundle.open(bundle).digest,
        "blue, green, red, nir",
        "slump (sigmoid",
        "x 20 + -2",
    ):
        assert words in outcome.out


def test_import_makes_a_bundle_of_a_file(rtsx_command: Command, tmp_path: Path) -> None:
    file = write_state_dict(tmp_path / "30.pt")
    line = ("model", "import", file, *NAMED, *SCALED, "--threshold", "0.4", "--id", "mine", "--trim", "8")
    outcome = rtsx_command(*line, "--out", tmp_path / "made")
    assert outcome.status == 0, outcome.err
    made = rtsx.ModelBundle.open(tmp_path / "made")
    expected = rtsx.ModelBundle.open(
        file,
        architecture="Unet",
        encoder="resnet18",
        layers=("blue", "green", "red", "nir"),
        classes=("slump",),
        mean=(0.1, 0.1, 0.1, 0.2),
        std=(0.05, 0.05, 0.05, 0.1),
        tile=256,
        overlap=64,
        trim=8,
        threshold=0.4,
    )
    assert made.digest == expected.digest
    assert made.id == "mine"


def test_import_names_everything_that_is_missing(rtsx_command: Command, tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 64, 64])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 4, 64, 64])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["answer"])], "net", [image], [answer])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    outcome = rtsx_command("model", "import", tmp_path / "net.onnx", "--out", tmp_path / "made")
    assert outcome.status == 2
    assert all(word in outcome.err for word in ("layers", "mean", "std", "classes", "overlap"))
    assert not (tmp_path / "made").exists()


def test_import_refuses_a_folder_that_exists(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    outcome = rtsx_command("model", "import", "absent.pt", "--out", tmp_path)
    assert outcome.status == 2
    assert "exists already" in outcome.err


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 torn"])
def test_refuses_files_that_are_no_models(rtsx_command: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pt").write_bytes(content)
    outcome = rtsx_command("model", "info", tmp_path / "broken.pt")
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err


def test_probe_measures_and_keeps(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    rtsx.ModelBundle.open(bundle).save(copy)
    outcome = rtsx_command("model", "probe", copy, "--save")
    assert outcome.status == 0, outcome.err
    reach = rtsx.ModelBundle.open(copy).reach
    assert reach is not None
    assert reach.stride == 8
    assert f"{reach.radius} px" in outcome.out
    assert rtsx.ModelBundle.open(copy).digest == rtsx.ModelBundle.open(bundle).digest


def test_probe_saves_into_folders_only(rtsx_command: Command, tmp_path: Path) -> None:
    file = write_state_dict(tmp_path / "30.pt")
    outcome = rtsx_command("model", "probe", file, "--save")
    assert outcome.status == 2


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_an_exported_network_opens_again_and_answers_alike(
    rtsx_command: Command, bundle: Path, tmp_path: Path, ending: str
) -> None:
    out = tmp_path / "new" / f"net.{ending}"
    outcome = rtsx_command("model", "export", bundle, "--out", out)
    assert outcome.status == 0, outcome.err
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    own = rtsx.ModelBundle.open(bundle)
    again = rtsx.ModelBundle.open(
        out, inputs=own.inputs, classes=own.classes, tile=128, overlap=32, stride=8, activation="sigmoid", trust=True
    )
    batch = torch.rand(2, 4, 64, 64)
    answers = [
        each.network(device="cpu", precision="float32", backend=backend)(batch)
        for each, backend in ((own, "eager"), (again, "onnx" if ending == "onnx" else "eager"))
    ]
    torch.testing.assert_close(*answers, atol=1e-5, rtol=0)


def test_export_to_a_folder_is_a_bundle(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    assert rtsx_command("model", "export", bundle, "--out", tmp_path / "copy").status == 0
    assert rtsx.ModelBundle.open(tmp_path / "copy") == rtsx.ModelBundle.open(bundle)


def test_export_refuses_a_file_that_exists(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("mine")
    outcome = rtsx_command("model", "export", bundle, "--out", tmp_path / "net.onnx")
    assert outcome.status == 2
    assert (tmp_path / "net.onnx").read_text() == "mine"


def test_export_refuses_batch_statistics(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    rtsx.ModelBundle.open(bundle, bn_mode="batch").save(tmp_path / "batch")
    outcome = rtsx_command("model", "export", tmp_path / "batch", "--out", tmp_path / "net.onnx")
    assert outcome.status == 2
    assert "--bn-mode eval" in outcome.err
