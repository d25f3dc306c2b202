"""What reviewers say in a delivery: verdicts beside outlines, ARTS rows of both classes, totals of a sample, and reviews of other maps."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.campaign.plan import write_plan
from rtsx.cli import main
from rtsx.cli.options import open_reviewed
from rtsx.errors import CampaignError, ReviewError
from rtsx.evaluation import assess_accuracy, sample_ground, sample_outlines
from rtsx.labels import standardise_labels
from rtsx.review import AddedOutline, Answer, BatchVerdicts, Review, create_review, merge_review, open_review
from tests.campaign.collect.finished import plan_of
from tests.campaign.products.in_qgis import open_in_qgis
from tests.campaign.products.test_deliver import Finished, changed, files

SAID = ("target", "other", "unsure")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    finished = Finished(tmp_path_factory.mktemp("reviewed"), plan_of(2, 3, cell=64))
    # Reviews are of collected outlines; without, those that borders of cells cut would be drawn in pieces.
    finished.campaign.collect(levels=False, tracks=False, overviews=False, stac=False)
    return finished


def reviewed(made: Finished, folder: Path, table: geopandas.GeoDataFrame, *, batches: int = 99) -> Review:
    """A review in which verdicts follow each other, an outline is corrected and one is drawn."""
    cube = made.campaign.map()
    review = create_review(
        table, str(folder / "review"), cubes={"2024": "cube.zarr"}, opener=lambda _: cube, batch_size=8, repeats=0.0
    )
    for number in range(batches):
        for claim in review.claim("zuse"):
            names = review.rounds()[0].batches[claim.batch].outlines
            answers = [Answer(outline=name, verdict=SAID[place % 3]) for place, name in enumerate(names)]
            added: tuple[AddedOutline, ...] = ()
            if number == 0 and not review.has_points:
                shape = review.outlines.geometry[names[0]]
                answers[0] = Answer(outline=names[0], verdict="target", corrected=shape.buffer(100).envelope.wkt)
                added = (AddedOutline(geometry=shapely.affinity.translate(shape, 0, -20_000).wkt),)
            review.submit(
                BatchVerdicts(
                    round=1,
                    batch=claim.batch,
                    reviewer="zuse",
                    answers=tuple(answers),
                    added=added,
                    finished=review.clock(),
                )
            )
    return review


@pytest.fixture(scope="module")
def whole(made: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, geopandas.GeoDataFrame]:
    """A reviewed map, delivered."""
    folder = tmp_path_factory.mktemp("whole")
    made.campaign.collect(tracks=False, overviews=False, stac=False)
    outlines = made.campaign.outlines().to_crs("EPSG:4326").to_crs("EPSG:3995")
    merged = merge_review(reviewed(made, folder, outlines)).table
    made.campaign.deliver(folder / "to", review=merged, fields=["arts", "darts"], providers=["We"])
    return folder, merged


def test_outlines_carry_verdicts(made: Finished, whole: tuple[Path, geopandas.GeoDataFrame]) -> None:
    folder, merged = whole
    plain = made.campaign.outlines().set_index("footprint_id")
    table = geopandas.read_file(folder / "to" / "footprints.gpkg").set_index("footprint_id")
    own, added = table[~table["is_added"]], table[table["is_added"]]
    assert sorted(own.index) == sorted(plain.index)
    said = merged.set_index("footprint_id").loc[own.index]
    assert list(own["verdict"]) == list(said["verdict"])
    assert (own["agreement"] == 1).all()
    assert own["review_date"].dt.strftime("%Y-%m").nunique() == 1
    (corrected,) = own.index[own["is_corrected"]]
    assert own.loc[corrected, "area_m2"] == said.loc[corrected, "area_m2"] != plain.loc[corrected, "area_m2"]
    assert own.loc[corrected].geometry.area > plain.loc[corrected].geometry.area
    kept = own.index.drop(corrected)
    assert all(one.equals(other) for one, other in zip(own.loc[kept].geometry, plain.loc[kept].geometry, strict=True))
    assert (list(added.index), list(added["verdict"]), list(added["year"])) == (["added-1"], ["target"], [2024])
    frame = geopandas.read_parquet(folder / "to" / "footprints.parquet")
    assert len(frame) == len(pd.read_csv(folder / "to" / "footprints.csv")) == len(table)
    assert list(pd.read_csv(folder / "to" / "footprints.csv")["is_added"])[-1]
    assert not any(b"zuse" in content for name, content in files(folder / "to").items() if not name.endswith(".tif"))


def test_outlines_are_coloured_by_verdict(whole: tuple[Path, geopandas.GeoDataFrame]) -> None:
    folder, _ = whole
    for name in ("footprints", "footprints_centroids"):
        drawn = ET.parse(folder / "to" / f"{name}.qml").find("renderer-v2")
        assert drawn is not None
        assert drawn.get("attr") == "verdict"
        categories = {one.get("symbol"): one.get("value") for one in drawn.iter("category")}
        assert list(categories.values()) == ["target", "other", "unsure", ""]
        assert [one.get("name") for one in drawn.iterfind("symbols/symbol")] == list(categories)
        rules = ET.parse(folder / "to" / f"{name}.sld").getroot().iter("{http://www.opengis.net/ogc}Filter")
        filters = [(one[0].tag.rpartition("}")[2], [part.text for part in one[0]]) for one in rules]
        assert filters[0] == ("PropertyIsEqualTo", ["verdict", "target"])
        assert filters[-1] == ("PropertyIsNull", ["verdict"])


def test_qgis_colours_outlines_by_verdict(whole: tuple[Path, geopandas.GeoDataFrame], tmp_path: Path) -> None:
    package = tmp_path / "to"
    shutil.copytree(whole[0] / "to", package)
    with closing(sqlite3.connect(package / "footprints.gpkg")) as table, table:
        for name in ("IsEmpty", "MinX", "MaxX", "MinY", "MaxY"):  # of its triggers, which do not fire
            table.create_function(f"ST_{name}", 1, lambda shape: shape)
        table.execute("UPDATE footprints SET verdict = NULL WHERE fid = 1")
        counts = dict(table.execute("SELECT verdict, count(*) FROM footprints GROUP BY verdict"))
    layers = open_in_qgis(package, tmp_path / "map.png")
    assert all(one["valid"] == [True] * 3 for one in layers.values()), layers
    colours = {"target": "#1a9641", "other": "#636363", "unsure": "#fdae61", None: "#1f78b4"}
    outlines = layers["Outlines by verdict"]
    assert outlines["colours"] == {colour: counts[said] for said, colour in colours.items()}
    assert outlines["renderers"] == layers["Centroids"]["renderers"] == ["categorizedSymbol"] * 2


def test_refused_outlines_are_in_no_total_and_negative_rows_of_arts(whole: tuple[Path, geopandas.GeoDataFrame]) -> None:
    folder, merged = whole
    counts = merged["verdict"].value_counts()
    left = merged[merged["verdict"] != "other"]
    sheet = (folder / "to" / "fact_sheet.md").read_text()
    for name, value in (("confirmed", counts["target"] - 1), ("drawn by reviewers", 1), ("refused", counts["other"])):
        assert f"| {name} | {value} |" in sheet
    assert f"| Objects, without those that reviewers have refused | {len(left)} |" in sheet
    assert (
        f"| Area of all objects, without those that reviewers have refused, km² | {left['area_m2'].sum() / 1e6:,.3f} |"
        in sheet
    )
    arts = geopandas.read_file(folder / "to" / "arts.geojson")
    assert dict(arts["TrainClass"].value_counts()) == {"Positive": counts["target"], "Negative": counts["other"]}
    assert arts["UID"].is_unique
    assert (
        arts.loc[arts["TrainClass"] == "Negative", "Notes"]
        .str.contains("refused by reviewers on .*agreement 1.00")
        .all()
    )
    assert arts["Notes"].str.startswith("Drawn by reviewers").sum() == 1
    labels = standardise_labels(folder / "to" / "arts.geojson").labels
    assert dict(labels["class_name"].value_counts()) == {"rts": counts["target"], "negative": counts["other"]}
    assert len(geopandas.read_file(folder / "to" / "darts_level2.gpkg")) == len(left) - 1  # without what was drawn
    caveats = (folder / "to" / "CAVEATS.md").read_text()
    assert "were refused by reviewers" in caveats
    assert "not complete" not in caveats
    assert "with the verdicts of reviewers" in (folder / "to" / "README.md").read_text()
    assert json.loads((folder / "to" / "provenance.json").read_text())["review"]["reviewed"] == len(merged) - 1


def test_a_second_call_writes_nothing_and_one_without_the_review_is_refused(
    made: Finished, whole: tuple[Path, geopandas.GeoDataFrame], tmp_path: Path
) -> None:
    folder, merged = whole
    before = changed(folder / "to")
    options: dict[str, Any] = {"fields": ["arts", "darts"], "providers": ["We"]}
    assert made.campaign.deliver(folder / "to", review=merged, **options).rewritten == ()
    assert changed(folder / "to") == before
    made.campaign.deliver(tmp_path / "to", **options)
    made.campaign.deliver(tmp_path / "to", review=merged)
    assert files(tmp_path / "to") == files(folder / "to")
    with pytest.raises(CampaignError, match="delivered with --review, and this call has none"):
        made.campaign.deliver(tmp_path / "to", **options)
    assert files(tmp_path / "to") == files(folder / "to")


@pytest.mark.parametrize("name", ["merged", "merged.gpkg", "merged.parquet", "merged.fgb"])
def test_what_a_review_is_merged_into_is_the_same(
    made: Finished, whole: tuple[Path, geopandas.GeoDataFrame], tmp_path: Path, name: str
) -> None:
    folder, _ = whole
    file = tmp_path / name
    merge_review(open_review(str(folder / "review"))).write(str(file))
    made.campaign.deliver(tmp_path / "to", review=open_reviewed(str(file)))
    for written in ("footprints.csv", "footprints.gpkg"):
        assert files(tmp_path / "to")[written] == files(folder / "to")[written]


def test_half_a_review_says_so(made: Finished, tmp_path: Path) -> None:
    merged = merge_review(reviewed(made, tmp_path, made.campaign.outlines(), batches=1)).table
    made.campaign.deliver(tmp_path / "to", review=merged, fields=["arts"], providers=["We"])
    n_open = int(merged["verdict"].isna().sum())
    assert n_open
    assert (
        f"The review is not complete: {n_open} of {len(merged)} outlines"
        in (tmp_path / "to" / "CAVEATS.md").read_text()
    )
    assert f"| without a verdict | {n_open} |" in (tmp_path / "to" / "fact_sheet.md").read_text()
    assert (
        len(geopandas.read_file(tmp_path / "to" / "arts.geojson")) == merged["verdict"].isin(["target", "other"]).sum()
    )


def test_a_part_that_was_reviewed_and_all_confirmed_is_half_a_review(
    made: Finished, whole: tuple[Path, geopandas.GeoDataFrame], tmp_path: Path
) -> None:
    folder, merged = whole
    own = merged[~merged["is_added"].astype(bool)]
    confirmed = own[own["verdict"] == "target"]
    made.campaign.deliver(tmp_path / "to", review=confirmed)
    n_open = len(own) - len(confirmed)
    assert f"{n_open} of {len(own)} outlines have no verdict" in (tmp_path / "to" / "CAVEATS.md").read_text()
    # Of what a merge has sorted, nobody takes a part for the whole.
    merge_review(open_review(str(folder / "review"))).write(str(tmp_path / "merged"))
    for name in ("confirmed", "refused"):
        with pytest.raises(ReviewError, match=f"has the {name} outlines of a review alone.* Give its folder, .*merged"):
            open_reviewed(str(tmp_path / "merged" / f"{name}.parquet"))


def test_a_reviewed_sample_gives_totals_with_intervals(
    made: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outlines = made.campaign.outlines()
    sample = sample_outlines(outlines, size=12)
    review = reviewed(made, tmp_path, sample)
    write_plan(made.output.objects, made.plan)
    given = [
        "campaign",
        "deliver",
        made.campaign.output,
        "--to",
        str(tmp_path / "to"),
        "--review",
        str(tmp_path / "review"),
    ]
    with pytest.raises(SystemExit) as leaving:
        main(given)
    assert not leaving.value.code, capsys.readouterr().err
    merged = merge_review(review)
    one = assess_accuracy(merged.outlines).estimates.iloc[0]
    value, low, high = (f"{one[name] * len(outlines):,.0f}" for name in ("value", "low", "high"))
    sheet = (tmp_path / "to" / "fact_sheet.md").read_text()
    # What was drawn beside the sample is no outline of the map, and no part of the estimate.
    assert f"| Objects that are right, estimated from the reviewed sample | {value} ({low} to {high}) |" in sheet
    table = geopandas.read_parquet(tmp_path / "to" / "footprints.parquet")
    assert table["verdict"].notna().sum() == len(merged.table)
    assert f"{len(sample)} of {len(sample)} outlines of a random sample" in (tmp_path / "to" / "CAVEATS.md").read_text()
    with pytest.raises(CampaignError, match="estimates of accuracy"):
        made.campaign.deliver(tmp_path / "new", review=merged.table)


def test_a_reviewed_sample_of_the_ground_gives_an_area(made: Finished, tmp_path: Path) -> None:
    pred = made.campaign.map().isel(time=0, drop=True)
    sample = sample_ground(pred, made.campaign.outlines(), size=30)
    merged = merge_review(reviewed(made, tmp_path, sample)).table
    accuracy = json.loads(assess_accuracy(merged).to_json())
    made.campaign.deliver(tmp_path / "to", review=merged, accuracy=accuracy)
    (area,) = (one for one in accuracy["estimates"] if one["measure"] == "area_m2")
    told = "{:,.3f} ({:,.3f} to {:,.3f})".format(*(area[name] / 1e6 for name in ("value", "low", "high")))
    sheet = (tmp_path / "to" / "fact_sheet.md").read_text()
    assert f"| Area of the target, km², estimated from the reviewed sample | {told} |" in sheet
    assert "verdict" not in geopandas.read_file(tmp_path / "to" / "footprints.gpkg").columns
    elsewhere = merged.assign(geometry=merged.geometry.translate(1e6, 0))
    with pytest.raises(CampaignError, match="drawn of another map"):
        made.campaign.deliver(tmp_path / "no", review=elsewhere, accuracy=accuracy)


def test_reviews_that_are_none_of_this_map_are_refused(
    made: Finished, whole: tuple[Path, geopandas.GeoDataFrame], tmp_path: Path
) -> None:
    _, merged = whole
    own = merged[~merged["is_added"].astype(bool)]
    changed_one = own.assign(n_pixels=own["n_pixels"].where(np.arange(len(own)) > 0, 1))
    for table, told, options in (
        (own.assign(footprint_id="x" + own["footprint_id"]), "are not those of this map", {}),
        (changed_one, r"1 of \d+ outlines of the review are not those of this map", {}),
        (own.assign(verdict=None), "has a verdict yet", {}),
        (own.assign(verdict="yes"), "got yes", {}),
        (own.drop(columns="verdict"), "lacks verdict", {}),
        (pd.concat([own, own.iloc[:1]]), "in it twice", {}),
        (own, "--no-outlines", {"outlines": False}),
        (
            own,
            "TrainClass is what reviewers say",
            {"fields": ["arts"], "providers": ["We"], "arts": {"TrainClass": "x"}},
        ),
    ):
        with pytest.raises(CampaignError, match=told):
            made.campaign.deliver(tmp_path / "to", review=table, **options)
        assert not (tmp_path / "to").exists()
