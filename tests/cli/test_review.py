import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import requests
import shapely
import yaml
from rasterio.transform import from_origin

import rtsx
from rtsx.cli.review import _image
from rtsx.evaluation import sample_outlines
from rtsx.footprints.schema import coerce
from rtsx.review import open_review
from rtsx.review.pictures import ReviewPictures
from tests.campaign.small_campaign import write_years
from tests.review.reviewers import CRS, image, outlines_of, work_through

Command = Callable[..., Any]


@pytest.fixture
def slumps(tmp_path: Path) -> Path:
    outlines_of(12).to_parquet(tmp_path / "slumps.parquet")
    rtsx.write_cube(image(), tmp_path / "cube.zarr")
    return tmp_path / "slumps.parquet"


def test_from_outlines_to_a_verified_map(rtsx_command: Command, slumps: Path, tmp_path: Path) -> None:
    review, cube = tmp_path / "review", tmp_path / "cube.zarr"
    made = rtsx_command(
        "review",
        "create",
        "--footprints",
        slumps,
        "--cube",
        f"2024={cube}",
        "--out",
        review,
        "--batch-size",
        5,
        "--repeats",
        0.5,
    )
    assert made.status == 0, made.err
    assert "12 in 3 batches" in made.out
    work_through(open_review(str(review)), "ada", "bob", errors=0.2)
    told = rtsx_command("review", "status", review, "--json")
    assert json.loads(told.out)["reviewed"] == 12
    merged = rtsx_command("review", "merge", review, "--out", tmp_path / "verified")
    assert merged.status == 0, merged.err
    assert sorted(path.name for path in (tmp_path / "verified").iterdir()) == [
        "added.parquet", "confirmed.parquet", "outlines.parquet", "refused.parquet", "status.json",
    ]  # fmt: skip
    table = gpd.read_parquet(tmp_path / "verified" / "outlines.parquet")
    assert table["verdict"].notna().all()
    again = rtsx_command("review", "create", "--again", "--out", review)
    disputed = int(table["disputed"].sum())
    assert again.status == (0 if disputed else 2)
    for ending in ("gpkg", "fgb"):
        whole = rtsx_command("review", "merge", review, "--out", tmp_path / f"whole.{ending}")
        assert whole.status == 0, whole.err
        assert gpd.read_file(tmp_path / f"whole.{ending}")["verdict"].notna().sum() >= 12 - disputed


def test_a_sample_is_reviewed_and_stated(rtsx_command: Command, slumps: Path, tmp_path: Path) -> None:
    sample, review = tmp_path / "sample.parquet", tmp_path / "review"
    table = outlines_of(60)
    numbers = dict.fromkeys(("perimeter_m", "centroid_lat", "centroid_lon", "prob_min", "prob_median", "prob_std"), 0.5)
    texts = dict.fromkeys(("date", "scene_id", "bundle_id", "bundle_digest"))
    columns = {**table.drop(columns="geometry"), **numbers, **texts, "year": 2024, "n_pixels": 4, "touches_edge": False}
    footprints = coerce(columns, table.geometry).assign(is_slump=table["is_slump"])
    sample_outlines(footprints, size=12, area_edges_m2=[2000]).to_parquet(sample)
    made = rtsx_command("review", "create", "--sample", sample, "--cube", tmp_path / "cube.zarr", "--out", review)
    assert made.status == 0, made.err
    work_through(open_review(str(review)), "ada")
    stated = rtsx_command("evaluate", "--sample", review)
    assert stated.status == 0, stated.err
    assert "precision" in stated.out


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = write_years(tmp_path_factory.mktemp("campaign"), 2024, 2025)
    for year in (2024, 2025):
        rtsx.Campaign.open(written.parent / "out", year=year).collect(tracks=False, overviews=False, stac=False)
    return written


def test_outlines_of_a_campaigns_map_know_the_model_of_the_year(
    rtsx_command: Command, campaign: Path, tmp_path: Path
) -> None:
    out = tmp_path / "slumps.parquet"
    made = rtsx_command("footprints", campaign.parent / "out" / "map.zarr", "--year", "2024", "--out", out)
    assert made.status == 0, made.err
    assert gpd.read_parquet(out)["bundle_digest"].notna().all()
    assert set(gpd.read_parquet(out)["bundle_id"]) == {"tiny"}


def test_outlines_in_pieces_are_not_reviewed(rtsx_command: Command, tmp_path: Path) -> None:
    campaign = write_years(tmp_path, 2024)
    made = rtsx_command("review", "create", "--campaign", campaign, "--out", tmp_path / "review")
    assert (made.status, "are not collected" in made.err, (tmp_path / "review").exists()) == (2, True, False)
    table = next((tmp_path / "out" / "years" / "2024" / "outlines").glob("*.parquet"))
    made = rtsx_command(
        "review", "create", "--footprints", table, "--cube", tmp_path / "out/map.zarr", "--out", tmp_path / "review"
    )
    assert (made.status, "pieces of what goes on in other cells" in made.err) == (2, True)


def test_outlines_that_no_delivery_would_take_are_not_reviewed_with_the_campaign(
    rtsx_command: Command, campaign: Path, tmp_path: Path
) -> None:
    uncollected = write_years(tmp_path, 2024)
    for name, options in (("same", ("--min-area-m2", 300)), ("other", ("--min-area-m2", 300, "--threshold", 0.45))):
        out = tmp_path / f"{name}.parquet"
        made = rtsx_command("footprints", campaign.parent / "out/map.zarr", "--year", 2024, "--out", out, *options)
        assert made.status == 0, made.err
        for of in (campaign, uncollected):
            review = tmp_path / f"{name} {of.parent.name}"
            made = rtsx_command("review", "create", "--campaign", of, "--footprints", out, "--out", review)
            assert made.status == (0 if name == "same" else 2), made.err
            assert name == "same" or "another threshold or least area" in made.err
    # What the campaign has made itself, and the same pixels by another model.
    own = rtsx.Campaign.open(campaign.parent / "out", year=2024).outlines()
    own["footprint_id"] = own["footprint_id"].astype("string")
    for name, table in (("own", own), ("model", own.assign(prob_max=own["prob_max"] - 0.01))):
        table.to_parquet(tmp_path / f"{name}.parquet")
        review = tmp_path / name
        made = rtsx_command(
            "review", "create", "--campaign", campaign, "--footprints", tmp_path / f"{name}.parquet", "--out", review
        )
        assert (made.status, "another map" in made.err) == ((0, False) if name == "own" else (2, True)), made.err


@pytest.mark.parametrize(("words", "year"), [((), 2024), (("--year", 2025), 2025)])
def test_a_campaign_is_reviewed_on_its_own_images_of_the_year(
    rtsx_command: Command, campaign: Path, tmp_path: Path, words: tuple[Any, ...], year: int
) -> None:
    review = campaign.parent / "out" / "years" / str(year) / "review"
    made = rtsx_command("review", "create", "--campaign", campaign, *words, "--out", review)
    assert made.status == 0, made.err
    reviewed = open_review(str(review))
    assert set(reviewed.outlines["year"]) == {year}
    assert len(reviewed.outlines) == len(rtsx.Campaign.open(campaign.parent / "out", year=year).outlines())
    pictures = ReviewPictures.open(reviewed, opener=_image)
    assert [name for name, _ in pictures.images] == [str(year)]
    box = pictures.box(0, "close")
    read = pictures.images[0][1].read(["red"], box, size=(512, 512))
    pictures.close()
    with rasterio.open(campaign.parent / f"west-{year}.tif") as file:
        there = file.read(1, window=file.window(*read.box))
    assert np.array_equal(read.cube["red"], there)
    assert len(np.unique(there)) > 10
    status = rtsx_command("campaign", "status", campaign, "--year", year)
    assert f"0 of {len(reviewed.outlines)}" in status.out


def test_a_campaign_without_its_images_is_reviewed_on_its_map(
    rtsx_command: Command, campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rtsx_command(
        "review", "create", "--campaign", campaign.parent / "out", "--year", 2024, "--out", tmp_path / "a"
    )
    assert (made.status, "its output holds no config" in made.err) == (0, True)
    monkeypatch.setattr("rtsx.cli.review._LARGEST", 100)
    made = rtsx_command("review", "create", "--campaign", campaign, "--out", tmp_path / "b")
    assert (made.status, "64 x 128 pixels, too many" in made.err) == (0, True)
    mapped = rtsx.Campaign.open(campaign.parent / "out").map()
    for name in "ab":
        pictures = ReviewPictures.open(open_review(str(tmp_path / name)), opener=_image)
        ((title, shown),) = pictures.images
        pictures.close()
        read = shown.read(["probability"], shown.box, size=(64, 128)).cube["probability"]
        assert title == "map 2024"
        assert np.array_equal(read, mapped["probability"].isel(time=0))
        assert not np.array_equal(read, mapped["probability"].isel(time=1))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--footprints", "{out}/years/2024/outlines", "--cube", "x={out}/map.zarr"), "is a folder of several"),
        (("--footprints", "slumps.parquet", "--cube", "{campaign}"), "is the file of a campaign"),
        (("--campaign", "{campaign}", "--year", "2023"), "planned years: 2024, 2025"),
        (("--campaign", "{campaign}", "--again"), "one of --footprints"),
        (("--footprints", "slumps.parquet", "--year", "2024"), "no --campaign is given"),
        (("--campaign", "{campaign}", "--cube", "2023={out}/map.zarr"), "none of 2023"),
    ],
)
def test_what_a_campaign_has_not_is_refused(
    rtsx_command: Command,
    slumps: Path,
    campaign: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(slumps.parent)
    words = [word.format(out=campaign.parent / "out", campaign=campaign) for word in line]
    outcome = rtsx_command("review", "create", *words, "--out", "r")
    assert outcome.status == 2
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert not Path("r").exists()


class StopsAtOnce:
    """In place of the event that is waited for."""

    def wait(self) -> None:
        raise KeyboardInterrupt


def test_the_cell_of_a_config_is_served_at_the_address_of_a_proxy(
    rtsx_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = np.arange(4096, dtype="uint16").reshape(1, 64, 64)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16", crs="EPSG:3413",
        transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.write(bands)
    values = {
        "grid": {"resolution": 10, "cell_size": 64},
        "region": {"cell": "r000c000"},
        "sources": {"a": {"files": str(tmp_path / "a.tif"), "layers": {"red": 1}}},
    }
    (tmp_path / "cube.yaml").write_text(yaml.safe_dump(values))
    table = gpd.GeoDataFrame({"footprint_id": [7], "prob_max": [0.9]}, geometry=[shapely.box(200, -300, 300, -200)])
    table.set_crs("EPSG:3413").to_parquet(tmp_path / "slump.parquet")
    review, cube = tmp_path / "review", tmp_path / "cube.yaml"
    made = rtsx_command("review", "create", "--footprints", tmp_path / "slump.parquet", "--cube", cube, "--out", review)
    assert made.status == 0, made.err
    said: list[str] = []
    monkeypatch.setattr("rtsx.cli.review.Event", StopsAtOnce)
    monkeypatch.setattr("rtsx.cli.review.typer.echo", said.append)
    serve = ("review", "serve", review, "--port", 0, "--reviewer", "ada", "--address")
    outcome = rtsx_command(*serve, "https://maps.org/review")
    assert outcome.status == 0, outcome.err
    assert said[0].startswith("ada: https://maps.org/review/?token=")
    assert rtsx_command(*serve, "maps.org").status == 2


def test_the_page_is_served_until_it_is_stopped(
    rtsx_command: Command, slumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = tmp_path / "review"
    rtsx_command("review", "create", "--footprints", slumps, "--cube", tmp_path / "cube.zarr", "--out", review)
    answered: list[int] = []

    def asked(text: str) -> None:
        answered.append(requests.get(text.split(": ", 1)[1], timeout=30).status_code)

    monkeypatch.setattr("rtsx.cli.review.Event", StopsAtOnce)
    monkeypatch.setattr("rtsx.cli.review.typer.echo", asked)
    outcome = rtsx_command("review", "serve", review, "--reviewer", "ada", "--reviewer", "bob", "--port", 0)
    assert outcome.status == 0
    assert answered == [200, 200]
    assert outcome.err == "Ctrl-C stops the server; verdicts that were sent are kept.\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("create", "--out", "r"), "one of --footprints, --sample, --campaign and"),
        (("create", "--footprints", "slumps.parquet", "--out", "r"), "no cube was given"),
        (("create", "--footprints", "slumps.parquet", "--cube", "none.zarr", "--out", "r"), "none.zarr"),
        (("create", "--footprints", "far.parquet", "--cube", "cube.zarr", "--out", "r"), "outside of the cube"),
        (("create", "--sample", "slumps.parquet", "--cube", "cube.zarr", "--out", "r"), "no column sample_id"),
        (
            (
                "create",
                "--footprints",
                "slumps.parquet",
                "--cube",
                "a=cube.zarr",
                "--cube",
                "a=cube.zarr",
                "--out",
                "r",
            ),
            "one name",
        ),
        (("serve", "nothing"), "is no review"),
        (("serve", "nothing", "--reviewer", "../x"), "letters, digits"),
        (("serve", "nothing", "--key", "k.pem"), "go together"),
        (("status", "nothing"), "is no review"),
        (("merge", "nothing", "--out", "m"), "is no review"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    rtsx_command: Command, slumps: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(slumps.parent)
    far = gpd.GeoDataFrame({"footprint_id": ["a"], "prob_max": [0.9]}, geometry=[shapely.box(0, 0, 9, 9)], crs=CRS)
    far.to_parquet("far.parquet")
    outcome = rtsx_command("review", *line)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert not Path("r").exists()
    assert not Path("m").exists()
