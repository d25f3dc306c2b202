"""What messages advise can be typed: no Python stands in any that a command prints."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rtsx
from rtsx.cli.advice import in_command_words

Command = Any

PYTHON = re.compile(
    r"(?<![\w/-])[a-z][a-z_]*=(?![=>])|\brtsx\.\w|\w\.\w+\(|\b[a-z_]+\(\)|\bxr\.|rioxarray|ModelBundle|read_run|\bSensor of|as keywords"
)
ROOT = Path(rtsx.__file__).parent

# Lines on which messages of a part of rtsx are printed.
LINES = {
    "campaign": ["campaign run c.yaml", "campaign status maps"],
    "config": ["cube build c.yaml --out c.zarr", "train t.yaml --out run"],
    "cube": [
        "predict a.tif -m demo --out m.zarr",
        "predict c.yaml -m demo --out m.zarr",
        "cube build c.yaml --out c.zarr",
    ],
    "evaluation": ["evaluate m.zarr --truth a.gpkg", "evaluate e.yaml -m demo", "cross-validate t.yaml --out folds"],
    "footprints": ["footprints m.zarr --out a.gpkg", "merge a.gpkg --out b.gpkg", "track 2023=a.gpkg --out t.gpkg"],
    "grid": ["cube build c.yaml --out c.zarr"],
    "inference": ["predict a.tif -m demo --out m.zarr", "campaign run c.yaml"],
    "labels": ["labels standardise a.shp --out b.gpkg", "evaluate m.zarr --truth a.gpkg", "train t.yaml --out run"],
    "model": ["predict a.tif -m demo --out m.zarr", "model import net.onnx --out b", "campaign plan c.yaml"],
    "ordering": ["order plan o.yaml"],
    "storage": ["predict a.tif -m demo --out m.zarr", "cube build c.yaml --out c.zarr"],
    "synthetic": ["synthetic scenes --seeds 1 --out a"],
    "tiling": ["predict a.tif -m demo --out m.zarr"],
    "training": ["train t.yaml --out run"],
}
# Said to whoever calls functions, of arguments that no command hands on.
ONLY_PYTHON = re.compile(
    r"Grid\(|This array of|rioxarray left|which GDAL reads|state_dict\(\)|geopandas\.GeoDataFrame|column_?s? .*(GeoDataFrame|dtype)|takes a ModelBundle or|no attribute|active geometry|"
    r"grid\.cells|replace\(tzinfo|label_truth\(labels|Campaign\.create|class=\"|profile=|signal\.|\{'id'|proj=|application="
)


def messages() -> Iterator[tuple[str, str, int, str]]:
    """Part, file, line and text of every sentence in the source; what is filled in is X1."""
    for path in sorted(ROOT.rglob("*.py")):
        part = path.relative_to(ROOT).parts[0]
        if part not in LINES:
            continue
        tree = ast.parse(path.read_text())
        raised = [
            call for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc for call in ast.walk(node.exc)
        ]
        inside = {id(value) for node in raised if isinstance(node, ast.JoinedStr) for value in ast.walk(node)}
        for node in raised:
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "X1" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            if PYTHON.search(text) and not ONLY_PYTHON.search(text):
                yield part, str(path.relative_to(ROOT)), node.lineno, text


def test_no_message_of_a_command_advises_in_python() -> None:
    found = list(messages())
    assert len(found) > 80, "the sentences are found"
    bad = [
        f"{file}:{number} under {line!r}: {said}"
        for part, file, number, text in found
        for line in LINES[part]
        if PYTHON.search(said := in_command_words(text, line.split()))
    ]
    assert not bad, "\n".join(bad)
