"""Fields of items old and new."""

from datetime import UTC, datetime
from typing import Any

import pytest

from rtsx.cube.stac.item import cloud_cover_of, sun_of, time_of
from rtsx.errors import CubeError


def item(**properties: Any) -> dict[str, Any]:
    return {"id": "a", "properties": {name.replace("__", ":"): value for name, value in properties.items()}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-07-10", datetime(2015, 7, 10, tzinfo=UTC)),
        ("2017-08-31T19:54:26.5328Z", datetime(2017, 8, 31, 19, 54, 26, 532800, tzinfo=UTC)),
        ("2023-01-01T02:00:00+03:00", datetime(2022, 12, 31, 23, tzinfo=UTC)),
        ("2023-01-01T02:00:00", datetime(2023, 1, 1, 2, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_aware_and_in_utc(text: str | None, expected: datetime | None) -> None:
    found = time_of(item(datetime=text))
    assert found == expected
    assert found is None or found.tzinfo is UTC


def test_an_interval_is_its_middle() -> None:
    interval = item(datetime=None, start_datetime="2020-01-01T00:00:00Z", end_datetime="2020-01-03T00:00:00Z")
    assert time_of(interval) == datetime(2020, 1, 2, tzinfo=UTC)
    assert time_of(item(start_datetime="2020-01-01T00:00:00Z")) == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_date_that_is_none_names_the_item() -> None:
    with pytest.raises(CubeError, match=r"Item a has datetime 'yesterday', which is no date"):
        time_of(item(datetime="yesterday"))


@pytest.mark.parametrize(("stated", "expected"), [(0, 0.0), (54.65, 54.65), (-1, None), (None, None), (True, None)])
def test_cloud_cover_is_a_percentage_or_nothing(stated: object, expected: float | None) -> None:
    assert cloud_cover_of(item(eo__cloud_cover=stated)) == expected


def test_the_sun_in_three_dialects() -> None:
    assert sun_of(item(view__sun_azimuth=174.7, view__sun_elevation=47.1)) == (174.7, 47.1)
    assert sun_of(item(eo__sun_azimuth=177.9, eo__sun_elevation=40.0)) == (177.9, 40.0)
    assert sun_of(item(s2__mean_solar_azimuth=170.0, s2__mean_solar_zenith=38.0)) == (170.0, 52.0)
    assert sun_of({"id": "a", "properties": None}) == (None, None)
