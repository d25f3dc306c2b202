"""Grouping of images into time steps."""

import itertools
from datetime import UTC, datetime

import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.images import BandSource, Image, group_images
from rtsx.errors import CubeError

BANDS = {
    "red": BandSource(
        href="x.tif",
        bands=(1,),
        geobox=GeoBox((4, 4), Affine(3, 0, 0, 0, -3, 0), "EPSG:32608"),
        dtype="uint16",
        nodata=0,
    )
}


def image(name: str, time: str | None, *, cloud: float | None = None, lon: float = 0.0) -> Image:
    when = None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC)
    return Image(id=name, bands=BANDS, time=when, cloud_cover=cloud, footprint=shapely.box(lon - 1, 60, lon + 1, 61))


def test_least_cloudy_first_then_newest_then_id_whatever_the_order() -> None:
    images = [
        image("d", "2024-07-01", cloud=5),
        image("a", "2024-07-03", cloud=5),
        image("b", "2024-07-03", cloud=5),
        image("c", "2024-06-01", cloud=0),
        image("e", "2024-08-01"),
    ]
    for shuffled in itertools.permutations(images):
        (step,) = group_images(shuffled, group="all", order="cloud", longitude=-150, source="s")
        assert [one.id for one in step.images] == ["c", "a", "b", "d", "e"]
        (step,) = group_images(shuffled, group="all", order="newest", longitude=-150, source="s")
        assert [one.id for one in step.images] == ["e", "a", "b", "d", "c"]
    assert step.time is None
    assert step.item_ids == "a,b,c,d,e"


def test_a_solar_day_is_not_cut_at_midnight_in_greenwich() -> None:
    # In Alaska noon is 22:00 UTC: a strip of 23:59 and 00:01 is one afternoon, and 21:00 two days later another.
    images = [
        image("a", "2024-07-01T23:59:00", lon=-150),
        image("b", "2024-07-02T00:01:00", lon=-150),
        image("c", "2024-07-03T21:00:00", lon=-150),
    ]
    steps = group_images(images, group="day", order="cloud", longitude=-150, source="s")
    assert [step.item_ids for step in steps] == ["a,b", "c"]
    assert [step.time for step in steps] == [datetime(2024, 7, 1, tzinfo=UTC), datetime(2024, 7, 3, tzinfo=UTC)]


@pytest.mark.parametrize("longitude", [-150.0, 150.0])
def test_a_date_without_an_hour_is_a_day_of_the_place_already(longitude: float) -> None:
    images = [image(day, f"{day}T00:00:00", lon=longitude) for day in ("2024-01-01", "2024-07-02")]
    steps = group_images(images, group="day", order="cloud", longitude=longitude, source="s")
    assert [step.time for step in steps] == [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 7, 2, tzinfo=UTC)]
    (year,) = group_images(images, group="year", order="cloud", longitude=longitude, source="s")
    assert year.time == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("longitude", "day"), [(179.0, 26), (-179.0, 25)])
def test_scenes_on_both_sides_of_the_antimeridian_share_their_day(longitude: float, day: int) -> None:
    images = [image("a", "2023-06-25T23:46:00", lon=-178), image("b", "2023-06-25T23:46:10", lon=178)]
    steps = group_images(images, group="day", order="cloud", longitude=longitude, source="s")
    assert [step.item_ids for step in steps] == ["a,b"]
    assert steps[0].time == datetime(2023, 6, day, tzinfo=UTC)


def test_years_items_and_images_without_a_time() -> None:
    images = [image("b", "2023-07-01"), image("a", "2024-07-01"), image("c", "2023-08-01")]
    years = group_images(images, group="year", order="cloud", longitude=-150, source="s")
    assert [(step.time, step.item_ids) for step in years] == [
        (datetime(2023, 1, 1, tzinfo=UTC), "b,c"),
        (datetime(2024, 1, 1, tzinfo=UTC), "a"),
    ]
    items = group_images(images, group="item", order="cloud", longitude=-150, source="s")
    assert [step.item_ids for step in items] == ["b", "c", "a"]
    with pytest.raises(CubeError, match=r"Source 'ps' is grouped by year, but image 'x' has no time"):
        group_images([image("x", None)], group="year", order="cloud", longitude=0, source="ps")
    assert group_images([], group="all", order="cloud", longitude=-150, source="s") == ()
