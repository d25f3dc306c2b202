"""What a notebook of the documentation shows is what comes out of it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import notebooks

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def test_the_five_are_there() -> None:
    assert len(notebooks.PATHS) == 5


# Of shapely, from within odc-geo.
@pytest.mark.filterwarnings("ignore:The 'shapely.ops:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_comes_out(path: Path, tmp_path: Path) -> None:
    kept = json.loads(path.read_text())
    for number, (was, now) in enumerate(zip(kept["cells"], notebooks.run(kept, tmp_path)["cells"], strict=True)):
        shown, come = was.get("outputs", []), now.get("outputs", [])
        place = f"cell {number} of {path.name}; `make notebooks` runs it again"
        assert [one["output_type"] for one in shown] == [one["output_type"] for one in come], place
        for one, other in zip(shown, come, strict=True):
            assert_alike(one, other, place=place)


def assert_alike(shown: dict[str, Any], come: dict[str, Any], *, place: str) -> None:
    """Words are the same, numbers as near as processors differ, pictures as near as fonts do."""
    data, other = shown.get("data", {}), come.get("data", {})
    assert data.keys() == other.keys(), place
    if "image/png" in data:
        small, again = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(one["image/png"]))).convert("L").resize((24, 24)), float)
            for one in (data, other)
        )
        assert np.abs(small - again).mean() < 8, place
        return
    if "xarray." in "".join(data.get("text/plain", [])):  # whose next version shows it otherwise
        return
    texts = [
        "".join(one.get("text", one.get("data", {}).get("text/html") or one.get("data", {}).get("text/plain")))
        for one in (shown, come)
    ]
    words, same = (re.sub(r"\s+", " ", _NUMBER.sub("#", text)) for text in texts)
    assert words == same, place
    numbers, near = ([float(found) for found in _NUMBER.findall(text)] for text in texts)
    np.testing.assert_allclose(near, numbers, rtol=0.05, atol=0.02, err_msg=place)


def test_a_cell_shows_what_jupyter_would_show(tmp_path: Path) -> None:
    sources = ["a = 1\nprint('one')\na + 1", "a;", "import pathlib\npathlib.Path('here').touch()"]
    cells = [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in sources]
    first, *others = notebooks.run({"cells": cells}, tmp_path)["cells"]
    assert [one.get("text", one.get("data")) for one in first["outputs"]] == [["one\n"], {"text/plain": ["2"]}]
    assert [one["outputs"] for one in others] == [[], []]
    assert (tmp_path / "here").exists()


def test_pages_are_small_and_fetch_nothing() -> None:
    for path in notebooks.PATHS:
        page = notebooks.page(json.loads(path.read_text()), name=path.name)
        assert page.startswith("# ")
        assert page.count("<img ") == page.count('src="data:image/png;base64,')
        for picture in re.findall(r"base64,([^\"]*)", page):
            assert len(base64.b64decode(picture)) < 100_000, path.name
