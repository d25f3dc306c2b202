"""`rtsx view`: what it refuses before anything is opened, and what it prints."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtsx.cli.app import app
from rtsx.viewer.mapview import MapView
from tests.viewer.maps import small_map, small_outlines


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_map(tmp_path_factory.mktemp("map") / "map.zarr")


def test_a_map_is_served_and_its_address_printed(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def serve(self: MapView, *, port: int, on_start: Any) -> None:
        seen.update(view=self, port=port)
        on_start("http://127.0.0.1:5006/?ticket=t")

    monkeypatch.setattr(MapView, "serve", serve)
    monkeypatch.setattr("webbrowser.open", lambda address: seen.setdefault("opened", address) is None)
    run = CliRunner().invoke(app, ["view", str(stored), "--port", "5006"])
    assert run.exit_code == 0, run.output
    assert "http://127.0.0.1:5006/?ticket=t" in run.output
    assert "No browser could be started" in run.output
    assert (seen.pop("opened"), seen["port"], list(seen["view"].images)) == (
        "http://127.0.0.1:5006/?ticket=t", 5006, ["map.zarr"],
    )  # fmt: skip
    CliRunner().invoke(app, ["view", str(stored), "--no-browser"])
    assert "opened" not in seen
    monkeypatch.setattr(MapView, "serve", lambda self, *, port, on_start: on_start("/user/ann/proxy/5006/?ticket=t"))
    run = CliRunner().invoke(app, ["view", str(stored)])
    assert "below the address of your JupyterHub" in run.output
    assert "opened" not in seen


def test_a_picture_and_a_page_are_written(stored: Path, tmp_path: Path) -> None:
    small_outlines().iloc[:, :2].join(small_outlines().geometry).set_geometry("geometry").to_parquet(
        tmp_path / "slumps.parquet"
    )
    png, page = tmp_path / "map.png", tmp_path / "map.html"
    line = [
        "view",
        str(stored),
        "--footprints",
        str(tmp_path / "slumps.parquet"),
        "--png",
        str(png),
        "--html",
        str(page),
    ]
    run = CliRunner().invoke(app, line)
    assert run.exit_code == 0, run.output
    assert png.stat().st_size > 1000
    assert page.stat().st_size > 100_000
    again = CliRunner().invoke(app, line)
    assert "map.png" in str(again.exception)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ([], "give a map, another image, --cube or --campaign"),
        (["absent.zarr"], "absent.zarr"),
        (["--cube", "absent.yaml"], "absent.yaml"),
        (["map.zarr", "--png", "map.jpg"], "--png takes its format from the ending"),
        (["{map}", "--style", "binary"], "expected IMAGE=STYLE"),
        (["{map}", "--style", "map.zarr=blue"], "cannot be shown as 'blue'"),
        (["{map}", "--footprints", "absent.parquet"], "absent.parquet"),
        (["{map}", "--port", "99999"], "65535"),
        (
            ["{map}", "--png", "m.png", "--model", "m", "--no-browser"],
            "no page is served; leave out --model and --browser",
        ),
        (["{map}", "--html", "m.html", "--port", "0"], "no page is served; leave out --port"),
        (["{map}", "--bbox", "1,2,3"], "bbox"),
    ],
)
def test_what_is_wrong_is_told(stored: Path, line: list[str], told: str) -> None:
    run = CliRunner().invoke(app, ["view", *(part.format(map=stored) for part in line)])
    assert run.exit_code != 0
    assert told in " ".join((run.output + str(run.exception)).replace("│", " ").split())
