from pathlib import Path

import fsspec
import pytest

from rtsx.cli.outputs import require_absent, require_suffix
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
    require_suffix("slumps.gpkg", (".parquet", ".gpkg"), option="--out")
    with pytest.raises(OutputNotWritableError, match=r"--out takes its format .* \.parquet, \.gpkg; got slumps\.kml"):
        require_suffix("slumps.kml", (".parquet", ".gpkg"), option="--out")
