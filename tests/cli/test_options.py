import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from rtsx.cli.options import require_absent, require_suffix
from rtsx.errors import OutputExistsError, OutputNotWritableError


def test_a_free_path_passes_and_nothing_is_made(tmp_path: Path) -> None:
    require_absent([str(tmp_path / "new" / "map.zarr")], overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_all_outputs_are_checked(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with pytest.raises(OutputExistsError, match=r"second exists already\. .* pass --overwrite"):
        require_absent([str(tmp_path / "first"), str(tmp_path / "second")], overwrite=False)
    require_absent([str(tmp_path / "first"), str(tmp_path / "second")], overwrite=True)


def test_urls_are_checked_too() -> None:
    with fsspec.open("memory://outputs/there", "w") as file:
        file.write("something")
    with pytest.raises(OutputExistsError, match="memory://outputs/there exists already"):
        require_absent(["memory://outputs/there"], overwrite=False)
    require_absent(["memory://outputs/absent"], overwrite=False)


def test_an_unknown_protocol_is_a_message() -> None:
    with pytest.raises(OutputNotWritableError, match=r"nowhere://map\.zarr cannot be reached"):
        require_absent(["nowhere://map.zarr"], overwrite=False)


def test_a_suffix_chooses_the_format() -> None:
    require_suffix("slumps.gpkg", (".parquet", ".gpkg"), option="--out", overwrite=False)
    with pytest.raises(OutputNotWritableError, match=r"--out takes its format .* \.parquet, \.gpkg; got slumps\.kml"):
        require_suffix("slumps.kml", (".parquet", ".gpkg"), option="--out", overwrite=False)


DOORS = {
    "predict a.tif -m demo --out m.tif": "m.zarr",
    "predict a.tif -m demo --out m.zarr --cog c.tif": "c",
    "predict a.tif -m demo --out m.zarr --footprints f.shp": ".parquet, .gpkg, .fgb",
    "cog m.zarr --out c.tif": "c",
    "cube build cube.yaml --out c.nc": "c.zarr",
    "cube plot c.zarr --out p.jpg": ".png",
    "demo --out d.zarr": "d",
    "config schema cube --out s.yaml": "s.json",
    "config import cube.yaml --out n.json": "n.yaml",
    "model export demo --out b.txt": "b.onnx",
    "model import x.pt --out b.zarr": "b",
    "evaluate m.zarr --truth t.gpkg --out e.csv": "e",
    "cross-validate cube.yaml --out f.zip": "f",
    "train cube.yaml --out run.pt": "run",
    "synthetic scenes --seeds 1 --out s.tif": "s",
    "synthetic region --seed 1 --out r.zarr": "r",
    "footprints m.zarr --out f.zarr": ".parquet, .gpkg, .fgb",
    "merge cube.yaml --out b.shp": ".parquet, .gpkg, .fgb",
    "track 2023=cube.yaml --out t.csv": ".parquet, .gpkg, .fgb",
    "labels standardise cube.yaml --out b.zarr": ".parquet, .gpkg, .fgb",
}
"""Lines whose output has the ending of another format, and the name or endings that are advised."""


@pytest.mark.parametrize("line", DOORS)
def test_no_command_writes_under_the_ending_of_another_format(
    line: str, rtsx_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cube.yaml").write_text(
        "grid: {resolution: 3}\nregion: {bbox: [10, 70, 11, 71]}\nsources: {a: {files: a.tif, layers: {red: 1}}}\n"
    )
    outcome = rtsx_command(*line.split())
    assert outcome.status == 2
    said = " ".join(outcome.err.replace("│", " ").split())
    advised = DOORS[line]
    assert re.search(rf"(Name it|one of|ends in) {re.escape(advised)}[.;]", said), said
    assert [path.name for path in tmp_path.iterdir()] == ["cube.yaml"]
