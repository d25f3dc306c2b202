"""The benchmark of the start of commands runs small."""

import pytest

from benchmarks import start


def test_start_prints_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    found = start.run(rounds=1, commands=("predict missing.tif --model demo --out map.zarr",))
    assert list(found) == ["import typer", "rtsx predict missing.tif --model demo --out map.zarr"]
    assert all(seconds > 0 for seconds in found.values())
    assert len(capsys.readouterr().out.splitlines()) == 3
