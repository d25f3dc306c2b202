"""Which reader a description gets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.images import AssetBands
from rtsx.cube.resample.readers import FileReader, ZarrReader, open_reader
from rtsx.errors import CubeError

BANDS = AssetBands(
    href="/nowhere/scene.tif",
    bands=(2, 1),
    geobox=GeoBox((40, 50), Affine(3.0, 0.0, 711576.0, 0.0, -3.0, 94749.0), "EPSG:32649"),
    dtype="uint16",
    nodata=0,
    asset="ortho",
)


def test_files_and_groups() -> None:
    reader = open_reader(BANDS)
    assert isinstance(reader, FileReader)
    assert (reader.bands, reader.asset, reader.nodata) == ((2, 1), "ortho", 0)
    group = open_reader(replace(BANDS, opener="zarr", bands=("red",)))
    assert isinstance(group, ZarrReader)
    assert group.arrays == ("red",)


def test_what_is_described_is_what_is_read(write_tif: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(1).integers(0, 900, (2, 40, 50)).astype(np.uint16)
    bands = replace(BANDS, href=str(write_tif("scene.tif", pixels)))
    np.testing.assert_array_equal(open_reader(bands).read(slice(0, 40), slice(0, 50)), pixels[::-1])
    with pytest.raises(CubeError, match=r"scene.tif \(asset 'ortho'\) is not what its catalog says it is: dtype"):
        open_reader(replace(bands, dtype="uint8")).read(slice(0, 4), slice(0, 4))


def test_every_value_of_quality_data_counts(write_tif: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(1).integers(0, 3, (2, 40, 50)).astype(np.uint16)
    bands = replace(BANDS, href=str(write_tif("scl.tif", pixels, nodata=0)))
    for described in (bands, replace(bands, nodata=None)):
        reader = open_reader(described, any_value=True)
        assert reader.nodata is None
        np.testing.assert_array_equal(reader.read(slice(0, 40), slice(0, 50)), pixels[::-1])
    assert open_reader(replace(bands, opener="zarr", bands=("scl",)), any_value=True).nodata is None
    with pytest.raises(CubeError, match=r"scl.tif \(asset 'ortho'\) declares nodata 0"):
        open_reader(replace(bands, nodata=None)).read(slice(0, 4), slice(0, 4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bands": ()}, "numbers from 1, at least one"),
        ({"bands": ("red",)}, r"numbers from 1, at least one; got \('red',\)"),
        ({"bands": (1,), "opener": "zarr"}, r"names of arrays, at least one; got \(1,\)"),
    ],
)
def test_bands_are_named_as_their_file_names_them(change: dict[str, Any], told: str) -> None:
    with pytest.raises(CubeError, match=told):
        open_reader(replace(BANDS, **change))
