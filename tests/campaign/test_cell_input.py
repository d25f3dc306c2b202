"""Stamps: the same as long as nothing changed, another one as soon as something that makes pixels did."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx.campaign.cell_input import cell_geobox, input_stamps
from rtsx.campaign.records import InputVersion
from rtsx.cube import (
    BandRequest,
    BandSource,
    CubeRecipe,
    GivenImages,
    Image,
    LayerRecipe,
    SourceRecipe,
    StoreImages,
    write_cube,
)
from rtsx.cube.build_state import describe_recipe
from rtsx.grid import Grid
from tests.campaign.random_campaign import LEFT, TOP, make_plan, make_recipe, write_files

GRID = Grid("EPSG:3413", 10.0, cell_size=64)
BOX = GRID.window((0, 64), (0, 64))


def bands(href: str = "scenes/a.tif", **changes: object) -> BandSource:
    values = {"bands": (1,), "geobox": BOX, "dtype": "uint16", "nodata": 0.0, "scale_factor": 1e-4}
    return BandSource(href=href, **(values | changes))  # type: ignore[arg-type]


def image(**changes: object) -> Image:
    values: dict[str, object] = {"id": "a", "bands": {"red": bands()}, "time": datetime(2024, 7, 1, tzinfo=UTC)}
    return Image(**(values | changes))  # type: ignore[arg-type]


def recipe_of(*images: Image) -> CubeRecipe:
    layer = LayerRecipe(wanted=BandRequest(name="red"))
    return CubeRecipe(grid=GRID, sources=(SourceRecipe(name="scenes", images=GivenImages(images), layers=(layer,)),))


def stamp_of(one: Image) -> InputVersion:
    (stamp,) = input_stamps(recipe_of(one), BOX)
    return stamp


def test_files_are_stamped_by_cell_and_sorted(tmp_path: Path) -> None:
    recipe = make_recipe(write_files(tmp_path, seed=1), tmp_path / "out")
    plan = make_plan(recipe)
    found = {
        cell: input_stamps(recipe.cube, cell_geobox(plan, cell))
        for cell in [(TOP // 64, LEFT // 64), (TOP // 64 + 1, LEFT // 64 + 1)]
    }
    assert [[stamp.image for stamp in stamps] for stamps in found.values()] == [["scene0"], ["scene0", "scene1"]]
    assert all(list(stamps) == sorted(stamps) for stamps in found.values())
    assert all(stamp.source == "scenes" for stamps in found.values() for stamp in stamps)


def test_a_file_that_was_written_again_has_another_stamp_and_the_others_keep_theirs(tmp_path: Path) -> None:
    files = write_files(tmp_path, seed=1)
    recipe = make_recipe(files, tmp_path / "out")
    geobox = cell_geobox(make_plan(recipe), (TOP // 64 + 1, LEFT // 64 + 1))
    before = input_stamps(recipe.cube, geobox)
    assert input_stamps(recipe.cube, geobox) == before
    state = files[0].stat()
    os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    after = input_stamps(recipe.cube, geobox)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_images_that_come_and_go_are_told(tmp_path: Path) -> None:
    files = write_files(tmp_path, seed=1)
    geobox = GRID.window((TOP, TOP + 192), (LEFT, LEFT + 192))
    counts = [len(input_stamps(make_recipe(files[:n], tmp_path / "out").cube, geobox)) for n in (1, 2, 3)]
    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    "changed",
    [
        lambda: image(bands={"red": bands(nodata=1.0)}),
        lambda: image(bands={"red": bands(add_offset=-0.1)}),
        lambda: image(bands={"red": bands(bands=(2,))}),
        lambda: image(bands={"red": bands("scenes/b.tif")}),
        lambda: image(bands={"red": bands(geobox=GRID.window((1, 65), (0, 64)))}),
        lambda: image(bands={"red": bands(stamp="file:checksum=1220")}),
        lambda: image(cloud_cover=3.0),
        lambda: image(footprint=GRID[0, 0].lonlat),
        lambda: image(time=datetime(2024, 7, 2, tzinfo=UTC)),
    ],
)
def test_all_that_makes_pixels_counts(changed: Callable[[], Image]) -> None:
    assert stamp_of(changed()) != stamp_of(image())


def test_a_checksum_says_more_than_the_file(tmp_path: Path) -> None:
    """So that a copy on another machine is the same image; a time of update does not, because items outlive files."""
    file = tmp_path / "a.tif"
    for stamp, is_same in (("file:checksum=1220", True), ("e-tag=9f", True), ("updated=2024", False), ("", False)):
        one = image(bands={"red": bands(str(file), stamp=stamp)})
        file.write_bytes(b"one")
        before = stamp_of(one)
        file.write_bytes(b"another")
        assert (stamp_of(one) == before) is is_same


def test_the_token_of_a_signed_address_is_no_change() -> None:
    one, other = (image(bands={"red": bands(f"https://server/a.tif?token={token}")}) for token in "ab")
    assert stamp_of(one) == stamp_of(other)


def test_stamps_are_no_part_of_a_recipe_so_that_plans_stay_equal() -> None:
    one, other = (image(bands={"red": bands(stamp=stamp)}) for stamp in ("", "updated=2024"))
    assert describe_recipe(recipe_of(one)) == describe_recipe(recipe_of(other))
    assert "stamp" not in json.dumps(describe_recipe(recipe_of(one)))


def test_a_zarr_store_is_stamped_by_the_metadata_of_its_root(tmp_path: Path) -> None:
    geobox = GeoBox((64, 64), Affine(10, 0, 0, 0, -10, 0), "EPSG:3413")
    red = (("y", "x"), np.ones((64, 64), np.uint16), {"_FillValue": 0})
    cube = xr.Dataset({"red": red}).assign_coords(xr_coords(geobox, always_yx=True))
    path = write_cube(cube, tmp_path / "cube.zarr", overviews=False)
    layer = LayerRecipe(wanted=BandRequest(name="red"))
    source = SourceRecipe(name="store", images=StoreImages(path=path), layers=(layer,))
    recipe = CubeRecipe(grid=GRID, sources=(source,))
    before = input_stamps(recipe, BOX)
    assert input_stamps(recipe, BOX) == before
    zarr.open_group(path, mode="r+").attrs["revision"] = 2
    assert input_stamps(recipe, BOX) != before
    assert input_stamps(replace(recipe, sources=(replace(source, name="other"),)), BOX) != before
