"""What the documentation shows runs: its Python where it is complete, its commands up to the work itself."""

import ast
import errno
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

import rtsx
from rtsx.cli.app import LazyGroup, app
from rtsx.cli.demo import demo_config
from rtsx.config.yaml import dump_yaml
from rtsx.model import ModelBundle, build_network
from rtsx.model.network import _OUT_OF_MEMORY
from rtsx.storage.retry import LOST_GPU
from rtsx.synthetic import demo_spec, write_demo_scene

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [
        line.strip()
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return sorted({line for line in lines if line.startswith("rtsx ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_is_understood(line: str) -> None:
    command: Any = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    context = command.make_context("rtsx", words, resilient_parsing=True)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.load(name) if isinstance(command, LazyGroup) else command.commands[name]
        context = command.make_context(name, list(words), parent=context)
    assert context.params


def test_pages_use_no_file_that_only_a_checkout_has() -> None:
    shown = [block for page in PAGES for language in ("sh", "python") for block in blocks(page, language)]
    assert [block for block in shown if "configs/" in block] == []


def test_examples_that_pages_name_are_there() -> None:
    named = {name for page in PAGES for name in re.findall(r"rtsx config example ([\w-]+)", page.read_text())}
    assert named - {"NAME"} <= {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert len(named) > 5


def test_every_command_has_a_row_on_the_page_of_commands() -> None:
    table = (ROOT / "docs" / "cli.md").read_text().split("\n## ")[0]
    named = set()
    for row in re.findall(r"^\| \[?(`rtsx [^|\]]+)", table, re.MULTILINE):
        first, *others = re.findall("`(?:rtsx )?([^`]+)`", row)
        group = first.rpartition(" ")[0]
        named |= {first, *(f"{group} {other}" for other in others)}
    root: Any = get_command(app)
    there = set()
    for name in root.list_commands(None):
        inner = getattr(root.load(name), "commands", None)
        there |= {name} if inner is None else {f"{name} {leaf}" for leaf in inner}
    assert named == there


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 10


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_demo_scene(demo_spec(size=256), "scene")
    (tmp_path / "cube.yaml").write_text(dump_yaml(demo_config(made)))
    torch.manual_seed(0)
    options = {"encoder_name": "resnet18", "encoder_depth": 3, "decoder_channels": (16, 8, 8), "in_channels": 4}
    bundle = ModelBundle.from_module(
        build_network("Unet", options), layers=("blue", "green", "red", "nir"), preset="tss-v1", tile=128, overlap=32
    )
    bundle.save("rts-bundle")
    (example,) = blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    assert {path.name for path in tmp_path.iterdir()} >= {"map.zarr", "slumps.parquet", "map"}


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / "tutorial.md", "python"):
        exec(compile(block, "tutorial.md", "exec"), names)
    assert names["slumps"].crs == rtsx.open_cube("map.zarr").rio.crs
    assert (tmp_path / "map" / "binary.tif").is_file()
    assert "probability" in capsys.readouterr().out


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def said_in_sources() -> str:
    """Every text of the package, a line each, with … for what is filled in."""
    texts = []
    for path in sorted((ROOT / "rtsx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(map(str, parts)))
    return "\n".join(texts)


def test_messages_of_the_troubleshooting_are_those_that_are_raised(tmp_path: Path) -> None:
    ours, theirs = (ROOT / "docs" / "troubleshooting.md").read_text().split("## Of other libraries")
    quoted = re.findall(r"^\| `([^`]+)` \|", ours, re.MULTILINE)
    assert len(quoted) > 30
    said = said_in_sources()
    assert [message for message in quoted if message not in said] == []
    (tmp_path / "login.tif").write_text("<html>")
    with pytest.raises(rtsx.errors.CubeError) as refused:
        rtsx.open_cube(tmp_path / "login.tif")
    heard = [
        refused.value.__cause__,
        *map(os.strerror, (errno.ENOENT, errno.ENOSPC, errno.EMFILE)),
        signal.strsignal(9),
    ]
    for message in re.findall(r"^\| `([^`]+)` \|", theirs, re.MULTILINE):
        known = any(message in str(one) for one in heard) or _OUT_OF_MEMORY.search(message) or LOST_GPU.search(message)
        assert known, message
