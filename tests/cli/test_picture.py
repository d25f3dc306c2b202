from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import rtsx
from rtsx.cli.picture import PictureLayers, busiest_window, draw, draw_cube, stretch, true_colour
from rtsx.cube import geobox_of
from rtsx.errors import CubeError
from rtsx.synthetic import SceneFiles


def squares(cube: xr.Dataset, *corners: tuple[int, int, int]) -> gpd.GeoDataFrame:
    """Squares of (row, column, side) in pixels."""
    affine = geobox_of(cube).affine
    boxes = [
        shapely.box(
            affine.c + 3 * column, affine.f - 3 * (row + side), affine.c + 3 * (column + side), affine.f - 3 * row
        )
        for row, column, side in corners
    ]
    return gpd.GeoDataFrame(geometry=boxes, crs=geobox_of(cube).crs)


def read_picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_busiest_window_holds_the_most_outlines(scene: SceneFiles) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope")
    truth = squares(cube, (10, 10, 4), (180, 200, 12), (200, 180, 12))
    y, x = busiest_window(truth, cube, side=64)
    assert y.start <= 180 < 212 <= y.stop
    assert x.start <= 180 < 212 <= x.stop
    assert (y.stop - y.start, x.stop - x.start) == (64, 64)


def test_the_busiest_window_stays_inside(scene: SceneFiles) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope")
    assert busiest_window(squares(cube, (0, 250, 5)), cube, side=100) == (slice(0, 100), slice(156, 256))


def test_without_outlines_the_middle_is_shown(scene: SceneFiles) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope")
    assert busiest_window(squares(cube).set_crs(32608), cube, side=100) == (slice(78, 178), slice(78, 178))


def test_missing_pixels_are_transparent() -> None:
    stored = np.array([[0, 500, 900]], np.uint16)
    band = xr.DataArray(stored, dims=("y", "x"), attrs={"_FillValue": 0})
    cube = xr.Dataset({"red": band, "green": band, "blue": band})
    image = true_colour(cube, stretch(cube, stored > 0))
    np.testing.assert_array_equal(image[0, :, 3], [0, 255, 255])
    assert image[0, 1, 0] < image[0, 2, 0]


def test_nodata_looks_like_no_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *to, **how: drawn.append(figure) or save(figure, *to, **how))
    stored = {
        "probability": np.array([[255, 100, 0]], np.uint8),
        **dict.fromkeys(("red", "green", "blue"), np.array([[0, 9000, 1]], np.uint16)),
    }
    words = {"probability": {"_FillValue": 255, "scale_factor": 0.01}}
    cube = xr.Dataset({name: (("y", "x"), one, words.get(name, {"_FillValue": 0})) for name, one in stored.items()})
    draw_cube(cube, tmp_path / "a.png", title="a", layers=None)
    colour, probability = drawn[0].axes[:2]
    np.testing.assert_array_equal(colour.images[0].get_array()[0, :, 3], [0, 255, 255])
    np.testing.assert_array_equal(np.ma.getmaskarray(probability.images[0].get_array())[0], [True, False, False])
    assert {axis.patch.get_hatch() for axis in (colour, probability)} == {"////"}


def test_clouds_do_not_darken_the_ground() -> None:
    stored = np.array([[500, 510, 520, 9000]], np.uint16)
    band = xr.DataArray(stored, dims=("y", "x"))
    cube = xr.Dataset({"red": band, "green": band, "blue": band})
    image = true_colour(cube, stretch(cube, stored < 9000))
    assert image[0, 1, 0] > 100
    assert image[0, 3, 0] == 255


def test_draws_all_panels(scene: SceneFiles, tmp_path: Path) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope")
    probability = np.zeros((256, 256), np.uint8)
    probability[40:60, 40:60] = 90
    pred = xr.Dataset({"probability": (("y", "x"), probability), "valid": (("y", "x"), np.ones((256, 256), bool))})
    truth = squares(cube, (45, 45, 20))
    draw(
        PictureLayers(cube=cube, pred=pred, outlines=squares(cube, (40, 40, 20)), truth=truth),
        tmp_path / "a.png",
        title="A",
    )
    draw(
        PictureLayers(cube=cube, pred=pred, outlines=squares(cube, (80, 40, 20)), truth=truth),
        tmp_path / "b.png",
        title="A",
    )
    drawn, moved = read_picture(tmp_path / "a.png"), read_picture(tmp_path / "b.png")
    assert drawn.shape[0] > 800
    assert drawn.std() > 20
    assert (drawn != moved).any(axis=-1).sum() > 100  # the outline is in the picture, and where it should be


def test_of_several_times_the_latest_is_drawn_and_named(tmp_path: Path) -> None:
    flat = xr.DataArray(np.arange(64.0).reshape(8, 8), dims=("y", "x"), name="blue").to_dataset()
    times = np.array(["2025-07-01", "2024-07-01"], "datetime64[ns]")
    several = xr.concat([flat, -flat], "time").assign_coords(time=times)
    draw_cube(several, tmp_path / "several.png", title="a", layers=["blue"])
    draw_cube(flat, tmp_path / "one.png", title="a, 2025-07-01", layers=["blue"])
    np.testing.assert_array_equal(read_picture(tmp_path / "several.png"), read_picture(tmp_path / "one.png"))
    undated = several.assign_coords(time=np.array(["NaT", "2024-07-01"], "datetime64[ns]"))
    with pytest.raises(CubeError, match=r"times of the cube are missing \(NaT\)"):
        draw_cube(undated, tmp_path / "undated.png", title="a", layers=["blue"])
