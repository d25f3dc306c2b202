"""One layer of a file that has several, wherever vector files are read."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

import rtsx
from rtsx.cli.footprints import open_water
from rtsx.config.place import AreaConfig, RegionConfig
from rtsx.config.scenes import LabelReader, LabelsConfig
from rtsx.errors import RtsxError
from rtsx.footprints import read_footprints, read_years
from rtsx.labels.io import read_table, write_table
from tests.footprints.conftest import make_prediction

NORTH, SOUTH = shapely.box(-139, 69.5, -138.9, 69.6), shapely.box(-139, 69, -138.9, 69.1)


@pytest.fixture
def two(tmp_path: Path) -> str:
    """A GeoPackage with a layer of the north and one of the south."""
    path = tmp_path / "two.gpkg"
    for name, box in {"north": NORTH, "south": SOUTH}.items():
        gpd.GeoDataFrame(geometry=[box], crs="EPSG:4326").to_file(path, layer=name)
    return str(path)


def bounds_of_config(file: str, **layer: str) -> Any:
    cube = make_prediction(np.full((8, 8), 10))
    reader = LabelReader(classes={"rts": ()}, ignore=0)
    reader.truth(LabelsConfig(files=(file,), **layer), cube, scene="a")
    return next(iter(reader._tables.values())).total_bounds


DOORS: dict[str, Callable[..., Any]] = {
    "read_labels": lambda file, **layer: rtsx.read_labels(file, **layer).total_bounds,
    "standardise_labels": lambda file, **layer: rtsx.standardise_labels(file, **layer).labels.total_bounds,
    "labels": bounds_of_config,
    "region": lambda file, **layer: RegionConfig(file=file, **layer).geometry().bounds,
    "ground": lambda file, **layer: AreaConfig(file=file, **layer).geometry().bounds,
    "read_years": lambda file: read_years({2024: file})[2024].total_bounds,
    "water": lambda file: open_water(file).total_bounds,
}


@pytest.mark.parametrize("door", DOORS)
def test_the_path_names_a_layer_at_every_door(two: str, door: str) -> None:
    with pytest.raises((RtsxError, ValueError), match="several layers: north, south") as refused:
        DOORS[door](two)
    assert ".shx" not in str(refused.value)
    cure = f"{two}|layername=south"
    assert cure in str(refused.value)
    assert DOORS[door](cure) == pytest.approx(SOUTH.bounds)


@pytest.mark.parametrize("door", ["read_labels", "standardise_labels", "labels", "region", "ground"])
def test_a_layer_is_named_beside_the_path(two: str, door: str) -> None:
    assert DOORS[door](two, layer="north") == pytest.approx(NORTH.bounds)
    with pytest.raises((RtsxError, ValueError), match="no layer 'nrth'; there are north, south"):
        DOORS[door](two, layer="nrth")


def test_footprints_of_one_layer(tmp_path: Path) -> None:
    level = np.full((40, 40), 10)
    level[10:20, 10:20] = 90
    path = rtsx.write_footprints(rtsx.extract_footprints(make_prediction(level)), tmp_path / "two.gpkg")
    gpd.GeoDataFrame(geometry=[NORTH], crs="EPSG:4326").to_file(path, layer="aoi")
    with pytest.raises(RtsxError, match=r"several layers: two, aoi"):
        read_footprints(path)
    assert len(read_footprints(f"{path}|layername=two")) == 1


def test_a_layer_where_no_file_is(two: str) -> None:
    for config in (RegionConfig, AreaConfig):
        with pytest.raises(ValueError, match="layer is one of a file"):
            config(bbox=(0, 70, 1, 71), layer="north")
    with pytest.raises(ValueError, match="only files can have layer"):
        LabelsConfig(raster="labels.tif", layer="north")


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_points_and_polygons_of_one_table_stay_what_they_are(tmp_path: Path, ending: str) -> None:
    table = gpd.GeoDataFrame({"a": [1, 2]}, geometry=[NORTH.centroid, SOUTH], crs="EPSG:4326")
    path = write_table(table, tmp_path / f"both.{ending}", overwrite=False, what="places")
    assert {one.geom_type for one in read_table(str(path)).geometry} == {"Point", "Polygon"}


@pytest.mark.parametrize("name", ["two.gpkg.gz", "two.tgz", "two.pq", "two"])
def test_packed_files_and_parquet_of_any_name(tmp_path: Path, name: str) -> None:
    table = gpd.GeoDataFrame({"year": [2019, 2020]}, geometry=[NORTH, SOUTH], crs="EPSG:4326")
    if name in ("two.pq", "two"):
        table.to_parquet(tmp_path / name)
    else:
        table.to_file(tmp_path / "two.gpkg")
    if name == "two.gpkg.gz":
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "two.gpkg").read_bytes()))
    if name == "two.tgz":
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(tmp_path / "two.gpkg", "data/two.gpkg")
    found = rtsx.read_labels(tmp_path / name)
    assert found.total_bounds == pytest.approx(table.total_bounds)
    assert found["image_date_end"].dt.year.tolist() == [2019, 2020]


def test_parquet_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(RtsxError, match="Protocol not known: nowhere"):
        rtsx.read_labels("nowhere://bucket/slumps.parquet")
