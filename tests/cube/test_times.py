"""Which date or year a time means, however it is written."""

import numpy as np
import pytest
import xarray as xr

import rtsx
from rtsx.cube.times import times_of, years_of
from rtsx.errors import CubeError
from tests.viewer.maps import small_image


@pytest.mark.parametrize(
    ("time", "date"),
    [
        (2024, "2024"),
        (2024.0, "2024"),
        ("2024", "2024"),
        ("2024-08", "2024-08"),
        ("2024-08-01", "2024-08-01"),
        ("20240801", "2024-08-01"),
        ("2024-08-01T20:07:00Z", "2024-08-01"),
        ("20240801_200712_05", "2024-08-01"),
        (np.datetime64("2024-08-01T20:07", "ns"), "2024-08-01T20:07:00.000000000"),
        (7, "NaT"),
        (2024.5, "NaT"),
        (20240801, "NaT"),
        (np.nan, "NaT"),
        ("20241301", "NaT"),
        ("summer", "NaT"),
        (np.datetime64("NaT", "ns"), "NaT"),
    ],
)
def test_a_time_means_one_date(time: object, date: str) -> None:
    cube = xr.Dataset(coords={"time": [time]})
    assert [str(one) for one in times_of(cube)] == [date]
    assert years_of(cube) == [None if date == "NaT" else 2024]
    assert years_of(cube.isel(time=0)) == years_of(cube)


def test_missing_times_are_refused_wherever_a_map_is_opened(tmp_path) -> None:
    image = small_image(20)
    times = np.array(["2024-07-01", "NaT"], "datetime64[ns]")
    undated = xr.concat([image, image], "time").assign_coords(time=times)
    with pytest.raises(CubeError, match="Some times of the cube are missing"):
        rtsx.view(undated)
    rtsx.write_cube(
        undated.assign_coords(time=np.array(["2024-07-01", "2025-07-01"], "datetime64[ns]")), tmp_path / "a.zarr"
    )
    stored = xr.open_zarr(tmp_path / "a.zarr", chunks={}).assign_coords(time=times)
    stored.drop_encoding().to_zarr(tmp_path / "b.zarr", consolidated=False)
    with pytest.raises(CubeError, match="Some times of the cube are missing"):
        rtsx.open_cube(tmp_path / "b.zarr")
