"""`rtsx view`: what it refuses before anything is opened, and what it prints."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import rtsx
from rtsx import progress
from rtsx.cli.app import app
from rtsx.viewer import Pyramid, draw_window
from rtsx.viewer.mapview import MapView
from rtsx.viewer.page import MapPage
from tests.campaign.small_campaign import write_years
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_is_silent_and_its_end_is_no_error(
    rtsx_command: Callable[..., Any], stored: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    spoke: list[bool] = []

    def serve(self: MapView, *, port: int, on_start: Any) -> None:
        spoke.append(not progress._speaking[-1]._silent)  # type: ignore[attr-defined]
        signal.raise_signal(number)

    monkeypatch.setattr(MapView, "serve", serve)
    outcome = rtsx_command("view", stored, "--no-browser")
    assert (outcome.status, spoke, "Stopped" in outcome.err) == (0, [False], False)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_years(tmp_path_factory.mktemp("campaign"), 2024, 2025)


@pytest.mark.parametrize(("line", "year"), [([], 2024), (["--year", "2025"], 2025)])
def test_a_campaign_is_shown_in_its_year(
    campaign: Path, line: list[str], year: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    views: list[MapView] = []
    monkeypatch.setattr(MapView, "serve", lambda self, *, port, on_start: views.append(self))
    run = CliRunner().invoke(app, ["view", "--campaign", str(campaign), *line])
    assert run.exit_code == 0, run.output
    (view,) = views
    drawn = np.asarray(view.draw(view.start, size=(64, 128))[0][1].rgba)
    page = MapPage(view, size=(64, 128), run=lambda _: None)
    assert str(page.times[page.time.value])[:4] == str(year)
    mapped = Pyramid.of(rtsx.Campaign.open(campaign.parent / "out").map().sel(time=str(year)).isel(time=0))
    other = Pyramid.of(rtsx.Campaign.open(campaign.parent / "out").map().sel(time=str(4049 - year)).isel(time=0))
    expected, wrong = (
        draw_window(one, view.start, size=(64, 128), style=view.styles["map"]["probability"]) for one in (mapped, other)
    )
    assert np.array_equal(drawn, expected.rgba)
    assert not np.array_equal(drawn, wrong.rgba)
    page = MapPage(view, size=(64, 128))  # as --html draws it
    assert np.array_equal(page.layers[0].source.data["image"][0].view(np.uint8).reshape(drawn.shape)[::-1], drawn)
    outlines = next(one for one in view.outlines if one.title == "footprints")
    assert set(outlines.table["year"]) == {year}


def test_maps_of_several_years_are_shown_in_one_that_is_there(campaign: Path, tmp_path: Path) -> None:
    out = str(campaign.parent / "out")
    pictures = []
    for year in ("2024", "2025"):
        line = ["view", f"{out}/map.zarr", "--year", year, "--png", str(tmp_path / f"{year}.png")]
        run = CliRunner().invoke(app, line)
        assert run.exit_code == 0, run.output
        pictures.append((tmp_path / f"{year}.png").read_bytes())
    assert pictures[0] != pictures[1]
    run = CliRunner().invoke(app, ["view", f"{out}/map.zarr", "--year", "2023", "--no-browser"])
    assert "nothing of 2023 to show. Years of the images are: map.zarr: 2024, 2025" in str(run.exception)
    run = CliRunner().invoke(app, ["view", "--campaign", out, "--year", "2023", "--no-browser"])
    assert "planned years: 2024, 2025" in str(run.exception)


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
