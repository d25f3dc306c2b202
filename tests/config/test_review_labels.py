"""Labels of a training that come from a review."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from rtsx.config.scenes import LabelReader, LabelsConfig
from rtsx.config.training import TrainConfig
from rtsx.errors import ConfigError, LabelDateWarning
from rtsx.labels import IGNORED
from rtsx.review import AddedOutline, Answer, BatchVerdicts, create_review
from rtsx.training.recipe import SamplingSpec, TrainingScene
from rtsx.training.sampler import sample_epoch
from rtsx.training.tile_index import index_tiles
from tests.review.reviewers import CRS, image

PLACES = {"yes": (200, 200), "no": (1000, 200), "maybe": (1800, 200), "open": (200, 2000), "alone": (2500, 2500)}
ADDED = shapely.box(501_000, 7_698_900, 501_100, 7_699_000)


@pytest.fixture
def review(tmp_path: Path) -> str:
    boxes = [
        shapely.box(500_000 + x, 7_700_000 - y - 100, 500_000 + x + 100, 7_700_000 - y) for x, y in PLACES.values()
    ]
    table = gpd.GeoDataFrame(
        {"footprint_id": list(PLACES), "class_name": "rts", "prob_max": 0.9, "year": 2018}, geometry=boxes, crs=CRS
    )
    place = str(tmp_path / "review")
    made = create_review(
        table, place, cubes={"a": "b"}, opener=lambda _: image(), batch_size=1, repeats=0.0, order="probability"
    )
    verdicts = {"yes": "target", "no": "other", "maybe": "unsure", "alone": "target"}
    for _ in verdicts:
        (claim,) = made.claim("ada")
        (name,) = made.rounds()[0].batches[claim.batch].outlines
        if name == "open":  # somebody else has it, and has not answered
            made = replace(made)
            (claim,) = made.claim("bob")
            (name,) = made.rounds()[0].batches[claim.batch].outlines
        answer = Answer(outline=name, verdict=verdicts[name])  # type: ignore[arg-type]
        added = (AddedOutline(geometry=ADDED.wkt),) if name == "yes" else ()
        made.submit(
            BatchVerdicts(
                round=1,
                batch=claim.batch,
                reviewer=claim.reviewer,
                answers=(answer,),
                added=added,
                finished=made.clock(),
            )
        )
    return place


def truth_of(
    review: str, *, classes: dict[str, tuple[str, ...]] | None = None, scenes: tuple[str, ...] = ("one",)
) -> Any:
    reader = LabelReader(classes=classes or {"slump": ("rts",)}, ignore=0)
    return reader, [reader.truth(LabelsConfig(review=review), image(), scene=name) for name in scenes]


def test_confirmed_and_added_are_the_class_and_unsure_or_open_ones_count_neither_way(review: str) -> None:
    _, (truth,) = truth_of(review)
    values = truth.read((slice(0, 300), slice(0, 300)))
    at = {name: values[y // 10 + 5, x // 10 + 5] for name, (x, y) in PLACES.items()}
    assert at == {"yes": 1, "no": 0, "maybe": IGNORED, "open": IGNORED, "alone": 1}
    assert values[105, 105] == 1  # added
    assert {np.count_nonzero(values == value) for value in (1, IGNORED)} == {300, 200}


def test_refused_ones_are_shown_more_often_and_stay_in_sight(review: str) -> None:
    _, (truth,) = truth_of(review)
    scene = TrainingScene(name="one", cube=image(), truth=truth)
    index = index_tiles([scene], inputs=None, tile=32, min_valid=0.05)

    def shown(part: float) -> float:
        """Part of the tiles without a label that show what was refused."""
        sampling = SamplingSpec(negatives=3.0, hard_negatives=part)
        tiles = sample_epoch(index, sampling=sampling, epoch=0, epochs=1, seed=0, count=200)
        windows = shapely.box(
            *np.array([(tile.start[1], tile.start[0], tile.start[1] + 32, tile.start[0] + 32) for tile in tiles]).T
        )
        refused = shapely.intersects(windows, shapely.box(100.5, 20.5, 109.5, 29.5))
        labelled = np.array(
            [(truth.read((slice(y, y + 32), slice(x, x + 32))) == 1).any() for y, x in (tile.start for tile in tiles)]
        )
        return float((refused & ~labelled).sum() / (~labelled).sum())

    assert shown(0.5) == pytest.approx(0.5, abs=0.03)
    assert shown(0.0) < 0.1


@pytest.mark.parametrize("other", ["validation", "test"])
def test_an_outline_is_never_on_both_sides_of_a_split(review: str, tmp_path: Path, other: str) -> None:
    image().to_zarr(tmp_path / "cube.zarr", consolidated=False)
    one, two = ({"cube": str(tmp_path / "cube.zarr"), "name": name} for name in ("one", "two"))
    given: Any = {"id": "slumps", "classes": {"slump": ["rts"]}, "labels": {"review": review}}
    assert TrainConfig(**given, scenes={"training": [one, two]}).recipe().training
    with pytest.raises(ConfigError, match=f"Scene one of training and scene two of {other} show one outline"):
        TrainConfig(**given, scenes={"training": [one], other: [two]}).recipe()


def test_a_review_of_another_year_than_the_images_is_said(review: str) -> None:
    reader, (truth,) = truth_of(review)
    labels = LabelsConfig(review=review)
    reader.compare_years(labels, truth, scene="near", years=[2019, 2024])
    reader.warn_of_other_years()  # of nothing: a warning is an error here
    reader.compare_years(labels, truth, scene="one", years=[2024])
    with pytest.warns(LabelDateWarning, match=r"^3 of 6 labels .*, on 1 of 2 scenes, .* of 2018 on one of 2024:"):
        reader.warn_of_other_years()


def test_a_review_of_something_else_or_none_is_refused(review: str, tmp_path: Path) -> None:
    points = gpd.GeoDataFrame({"sample_id": ["a"]}, geometry=[shapely.Point(501_000, 7_698_000)], crs=CRS)
    place = str(tmp_path / "points")
    create_review(points, place, cubes={"a": "b"}, opener=lambda _: image(), class_name="rts")
    with pytest.raises(ConfigError, match="review of points, which have no outline to learn"):
        truth_of(place)
    with pytest.raises(ConfigError, match=r"review of 'rts', which is none of the classes lake"):
        truth_of(review, classes={"lake": (), "river": ()})
    with pytest.raises(ConfigError, match=r"has no review\.json"):
        truth_of(str(tmp_path))
    with pytest.raises(ValueError, match="by one of them"):
        LabelsConfig(review=review, files=("a.gpkg",))
    with pytest.raises(ValueError, match="only files or a raster can have where"):
        LabelsConfig(review=review, where={"a": ("b",)})
