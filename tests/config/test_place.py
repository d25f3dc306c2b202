"""Ground of a campaign: spellings, the Arctic, tiles of ArcticDEM, and files at awkward places."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely
from pydantic import TypeAdapter, ValidationError
from pyproj import Transformer

from rtsx.config.place import Area, AreaConfig, GridConfig, RegionConfig, arcticdem_ground, arcticdem_tile
from rtsx.errors import ConfigError
from rtsx.grid import Grid

GROUND: TypeAdapter[AreaConfig] = TypeAdapter(Area)
TO_POLAR = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("arctic", AreaConfig(north_of=60)),
        ("land.gpkg", AreaConfig(file="land.gpkg")),
        ("polygons.gpkg", AreaConfig(file="polygons.gpkg")),
        ("Polygon_AOI/a.shp", AreaConfig(file="Polygon_AOI/a.shp")),
        ([-139.0, 69.5, -138.5, 69.7], AreaConfig(bbox=(-139.0, 69.5, -138.5, 69.7))),
        (["42_18", "18_23_2_1"], AreaConfig(arcticdem=("42_18", "18_23_2_1"))),
        ({"arcticdem": "42_18"}, AreaConfig(arcticdem=("42_18",))),
        ({"north_of": 66.5}, AreaConfig(north_of=66.5)),
    ],
)
def test_ground_is_spelt_in_many_ways(given: Any, meant: AreaConfig) -> None:
    assert GROUND.validate_python(given) == meant


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (5, "expected arctic, a vector file"),
        ([], "at least one tile"),
        ({}, "got none"),
        ({"north_of": 60, "file": "a.gpkg"}, "got file and north_of"),
        ([1.0, 2.0, 3.0], "bbox"),
        (["42_18", "4218"], "named by row and column, such as 42_18.*got '4218'"),
        (["42_18_3_1"], "named by row and column"),
        (["42_18_2m"], "named by row and column"),
        (["7_18"], "named by row and column"),
        (["06_18"], "rows 07 to 81 and columns 01 to 74; got '06_18'"),
        (["42_75"], "rows 07 to 81 and columns 01 to 74; got '42_75'"),
        ({"wkt": "POLYGON"}, "well-known text"),
    ],
)
def test_what_is_no_ground_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        GROUND.validate_python(given)


def test_the_arctic_is_the_circle_of_a_parallel() -> None:
    grid = Grid.arctic(cell_size=65536)
    cells = {(cell.iy, cell.ix) for cell in grid.cells(AreaConfig(north_of=60).geometry())}
    radius = -TO_POLAR.transform(-45, 60)[1] / (grid.cell_size * grid.resolution)
    # A cell counts when its corner next to the pole lies within.
    nearest = [(max(0, i, -i - 1), max(0, j, -j - 1), (i, j)) for i in range(-20, 20) for j in range(-20, 20)]
    assert cells == {cell for y, x, cell in nearest if (x * x + y * y) ** 0.5 < radius}


# West and south edges as the index of version 4.1 has them (m, without the overlap of 100 m), copied from it.
PUBLISHED = {
    "18_23": (-1_800_000, -2_300_000, 100_000),
    "29_14": (-2_700_000, -1_200_000, 100_000),
    "65_23": (-1_800_000, 2_400_000, 100_000),
    "18_23_2_1": (-1_800_000, -2_250_000, 50_000),
    "18_23_1_2": (-1_750_000, -2_300_000, 50_000),
    "18_23_1_1": (-1_800_000, -2_300_000, 50_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tile_lies_where_the_published_index_has_it(name: str) -> None:
    west, south, side = PUBLISHED[name]
    assert arcticdem_tile(name) == (west, south, west + side, south + side)


def test_four_quarters_are_a_tile() -> None:
    quarters = [arcticdem_tile(f"42_18_{row}_{column}") for row in (1, 2) for column in (1, 2)]
    assert shapely.union_all([shapely.box(*one) for one in quarters]).equals(shapely.box(*arcticdem_tile("42_18")))


@pytest.mark.parametrize(
    "names", [("42_18",), ("41_41",), ("41_41", "40_40"), ("60_20", "60_21", "61_20"), ("58_58_1_2",)]
)
@pytest.mark.parametrize("side_m", [50_000, 100_000])
def test_cells_on_the_borders_of_tiles_are_those_of_the_tiles_alone(names: tuple[str, ...], side_m: int) -> None:
    grid = Grid.arctic(resolution=100, cell_size=side_m // 100)
    cells = {(cell.iy, cell.ix) for cell in grid.cells(arcticdem_ground(names))}
    boxes = shapely.union_all([shapely.box(*arcticdem_tile(name)) for name in names])
    assert cells == {(cell.iy, cell.ix) for cell in grid.cells(boxes, crs="EPSG:3413")}


@pytest.mark.parametrize("corner", [(-1_850_000, 1_700_000), (-50_000, -50_000), (900_000, -1_200_000)])
def test_a_projected_file_is_the_same_ground_at_the_antimeridian_and_the_pole(
    tmp_path: Path, corner: tuple[float, float]
) -> None:
    x, y = corner
    ring = shapely.box(x, y, x + 150_000, y + 150_000) - shapely.box(x + 40_000, y + 40_000, x + 90_000, y + 90_000)
    gpd.GeoDataFrame(geometry=[ring], crs="EPSG:3413").to_file(tmp_path / "ring.gpkg")
    ground = RegionConfig(file=str(tmp_path / "ring.gpkg")).geometry()
    assert ground is not None
    again = Grid.arctic().projected(ground)
    assert again.symmetric_difference(ring).area < 1e-4 * ring.area


def test_points_and_lines_in_degrees_are_ground_too(tmp_path: Path) -> None:
    line = shapely.LineString([(-139, 69), (-138, 69.5)])
    gpd.GeoDataFrame(geometry=[line], crs="EPSG:4326").to_file(tmp_path / "line.gpkg")
    assert AreaConfig(file=str(tmp_path / "line.gpkg")).geometry().equals(line)


HERE = shapely.box(-139, 69, -138.5, 69.2)
ACROSS = shapely.MultiPolygon([shapely.box(179.5, 69, 180, 69.5), shapely.box(-180, 69, -179.5, 69.5)])
BOW = shapely.Polygon([(-139, 69), (-138, 69.5), (-138, 69), (-139, 69.5)])


@pytest.mark.parametrize("kind", [RegionConfig, AreaConfig])
@pytest.mark.parametrize(
    ("drawn", "meant"),
    [
        ([shapely.box(221, 69, 221.5, 69.2)], HERE),
        ([shapely.box(179.5, 69, 180.5, 69.5)], ACROSS),
        ([shapely.box(-180.5, 69, -179.5, 69.5)], ACROSS),
        ([ACROSS], ACROSS),
        ([HERE, None, HERE], HERE),
        ([shapely.force_3d(HERE, 4)], HERE),
        ([BOW], shapely.make_valid(BOW)),
        ([shapely.box(-180, 60, 180, 90)], shapely.box(-180, 60, 180, 90)),
    ],
)
def test_ground_in_degrees_lies_from_180_to_180(tmp_path: Path, kind: Any, drawn: list[Any], meant: Any) -> None:
    gpd.GeoDataFrame(geometry=drawn, crs="EPSG:4326").to_parquet(tmp_path / "land.parquet")
    ground = kind(file=str(tmp_path / "land.parquet")).geometry()
    assert ground.symmetric_difference(meant).area < 1e-9
    assert ground.area == pytest.approx(meant.area)


@pytest.mark.parametrize(
    ("drawn", "crs", "message"),
    [
        (shapely.box(69, -139, 69.2, -138.5), 4326, "no longitudes and latitudes .*latitude first"),
        (shapely.box(5e5, 7e6, 6e5, 7.1e6), 4326, "no longitudes and latitudes .*as GeoJSON"),
        (HERE, None, "does not say in which CRS"),
    ],
)
def test_ground_that_has_no_place_is_refused(tmp_path: Path, drawn: Any, crs: int | None, message: str) -> None:
    gpd.GeoDataFrame(geometry=[drawn], crs=crs).to_parquet(tmp_path / "land.parquet")
    with pytest.raises(ConfigError, match=message):
        RegionConfig(file=str(tmp_path / "land.parquet")).geometry()


def test_an_edge_around_the_world_is_doubted(tmp_path: Path) -> None:
    jumping = shapely.Polygon([(179.5, 69), (-179.5, 69), (-179.5, 69.5), (179.5, 69.5)])
    gpd.GeoDataFrame(geometry=[jumping], crs="EPSG:4326").to_parquet(tmp_path / "land.parquet")
    with pytest.warns(RuntimeWarning, match=r"an edge of 359 degrees .*cut it there"):
        assert AreaConfig(file=str(tmp_path / "land.parquet")).geometry().equals(jumping)


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        AreaConfig(file=str(tmp_path / "absent.gpkg")).geometry()


@pytest.mark.parametrize(
    ("crs", "resolution", "message"),
    [
        (
            "EPSG:4326",
            3,
            r"pixels in EPSG:4326 are 3 degrees, 334 km. If they are metres, .* EPSG:3413, or 2.7e-05 degrees",
        ),
        (
            "EPSG:3413",
            3e-5,
            r"pixels in EPSG:3413 are 3e-05 m, finer than any image. If they are degrees, say .* EPSG:4326",
        ),
    ],
)
def test_a_resolution_in_the_unit_of_another_crs_is_refused(crs: str, resolution: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GridConfig(crs=crs, resolution=resolution)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([227.0, 67, 228.0, 68], (-133.0, 67, -132.0, 68)),
        ([170.0, 67, 190.0, 68], (170.0, 67, -170.0, 68)),
        ([-190.0, 67, -170.0, 68], (170.0, 67, -170.0, 68)),
        ([180.0, 67, 200.0, 68], (-180.0, 67, -160.0, 68)),
        ([-200.0, 67, -180.0, 68], (160.0, 67, 180.0, 68)),
        ([0.0, 60, 360.0, 90], (-180.0, 60, 180.0, 90)),
    ],
)
def test_longitudes_from_0_to_360(given: Any, meant: Any) -> None:
    assert GROUND.validate_python(given).bbox == meant


def test_a_box_and_well_known_text_in_quotes() -> None:
    with pytest.raises(ValidationError, match=r"a box is a list, \[-132.05, 67, -131, 68\], without quotes"):
        GROUND.validate_python("-132.05, 67, -131 68")
    for spelt in ("POLYGON ((1 60, 2 60, 2 61, 1 60))", "multipolygon z(((1 60 0, 2 60 0, 2 61 0, 1 60 0)))"):
        assert GROUND.validate_python(spelt).geometry().area == 0.5


def test_a_code_alone_is_one_of_epsg() -> None:
    assert GridConfig(crs=32608).crs == "EPSG:32608"
