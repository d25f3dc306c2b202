import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "labels.md"


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, PAGE.name, "exec"), names)
    assert "3 rows read from 1 source, 2 labels" in capsys.readouterr().out
    assert names["truth"].count == 2
    assert names["truth"].read((slice(0, 2000), slice(0, 2000))).max() == 255


def test_the_page_names_every_column():
    from rtsx.labels import LABEL_COLUMNS

    assert [name for name in LABEL_COLUMNS if f"`{name}`" not in PAGE.read_text()] == []
