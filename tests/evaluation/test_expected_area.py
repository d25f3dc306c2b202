"""Expected area is the sum over every pixel, whatever the chunks, the cells and the CRS."""

import numpy as np
import pytest
import rioxarray
import xarray as xr
from pyproj import Transformer

import rtsx
from rtsx.cube import geobox_of
from rtsx.errors import EvaluationError
from rtsx.evaluation import expected_area
from rtsx.geometry.pixels import PixelMesh


def make_map(dtype="uint8", crs="EPSG:3413", *, step=300.0, size=(90, 120), corner=(-2_000_000.0, 1_000_000.0)):
    rng = np.random.default_rng(0)
    level = rng.integers(0, 101, size).astype(np.uint8)
    valid = rng.random(size) < 0.8
    attrs = {"scale_factor": 0.01, "_FillValue": 255} if dtype == "uint8" else {}
    stored = np.where(valid, level, 255).astype(np.uint8)
    values = stored if dtype == "uint8" else np.where(valid, level / 100, np.nan).astype(np.float32)
    pred = xr.Dataset(
        {"probability": (("y", "x"), values, attrs)},
        coords={
            "y": corner[1] - step * (np.arange(size[0]) + 0.5),
            "x": corner[0] + step * (np.arange(size[1]) + 0.5),
        },
    ).rio.write_crs(crs)
    return pred, level / 100, valid


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("chunks", [None, (37, 53)])
def test_cells_hold_the_sums_of_their_pixels(dtype, chunks):
    pred, probability, valid = make_map(dtype)
    if chunks:
        pred = pred.chunk(y=chunks[0], x=chunks[1])
    area = expected_area(pred, cell_m=7000)
    ground = PixelMesh(geobox_of(pred)).areas_m2((slice(0, 90), slice(0, 120))) * valid
    rows, columns = (np.floor(pred[name].values / 7000).astype(int) for name in ("y", "x"))
    for y, row in zip(area["y"].values, area["expected_area_m2"].values, strict=True):
        for x, found in zip(area["x"].values, row, strict=True):
            inside = np.ix_(rows == np.floor(y / 7000), columns == np.floor(x / 7000))
            assert found == pytest.approx((ground * probability)[inside].sum(), rel=1e-6)
    assert area["valid_area_m2"].sum() == pytest.approx(ground.sum())
    assert area.rio.crs.to_epsg() == 3413
    assert (np.diff(area["y"]) == -7000).all()
    assert (np.diff(area["x"]) == 7000).all()


@pytest.mark.parametrize(
    ("crs", "step", "corner"),
    [
        ("EPSG:3413", 300.0, (-2_000_000.0, 1_000_000.0)),
        ("EPSG:3413", 3.0, (-500.0, 150.0)),
        ("EPSG:4326", 0.01, (179.2, 71.0)),
    ],
)
def test_cells_of_degrees_hold_the_pixels_whose_middles_they_hold(crs, step, corner):
    """Also around the pole, and across the antimeridian."""
    pred, probability, valid = make_map(crs=crs, step=step, corner=corner)
    area = expected_area(pred, cell_degrees=0.25)
    x, y = np.meshgrid(pred["x"].values, pred["y"].values)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    lon = (lon + 180) % 360 - 180
    ground = PixelMesh(geobox_of(pred)).areas_m2((slice(0, 90), slice(0, 120))) * valid
    assert area["expected_area_m2"].sum() == pytest.approx((ground * probability).sum(), rel=1e-9)
    some = area["expected_area_m2"].stack(cell=("y", "x"))
    for cell in some[some > 0][:: max(1, some.size // 7)]:
        inside = (np.floor(lat / 0.25) == np.floor(cell.y.item() / 0.25)) & (
            np.floor(lon / 0.25) == np.floor(cell.x.item() / 0.25)
        )
        assert cell.item() == pytest.approx((ground * probability)[inside].sum(), rel=1e-3)


@pytest.mark.parametrize("size", [(20, 20), (20, 90)])
def test_one_cell_and_one_row_of_cells_have_a_place(tmp_path, size):
    area = expected_area(make_map(size=size, corner=(-2_000_000.0, 1_010_000.0))[0], cell_m=10_000)
    assert area.sizes["y"] == 1
    assert tuple(geobox_of(area).boundingbox)[0::3] == (-2_000_000.0, 1_010_000.0)
    rtsx.write_cube(area, tmp_path / "area.zarr")
    (path,) = rtsx.export_cog(area, tmp_path, variables=["expected_area_m2"])
    assert rioxarray.open_rasterio(path).rio.resolution() == (10_000, -10_000)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_no_probability_is_refused(dtype):
    pred, *_ = make_map(dtype)
    with pytest.raises(EvaluationError, match="probability runs from 0 to"):
        expected_area(
            pred.assign(probability=(pred["probability"] * 2).astype(dtype).assign_attrs(pred["probability"].attrs))
        )


def test_it_is_stored_like_any_raster(tmp_path):
    area = expected_area(make_map()[0])
    rtsx.write_cube(area, tmp_path / "area.zarr")
    stored = rtsx.open_cube(tmp_path / "area.zarr")
    np.testing.assert_array_equal(stored["expected_area_m2"], area["expected_area_m2"])
    assert stored.rio.crs.to_epsg() == 3413


def test_what_cannot_be_summed_is_refused():
    pred, *_ = make_map()
    with pytest.raises(EvaluationError, match="not both"):
        expected_area(pred, cell_m=1000, cell_degrees=1)
    with pytest.raises(EvaluationError, match="above 0; got 0"):
        expected_area(pred, cell_m=0)
    with pytest.raises(EvaluationError, match="of different classes or times"):
        expected_area(pred.expand_dims(time=[0, 1]))
    with pytest.raises(EvaluationError, match="no valid pixel"):
        expected_area(pred.assign(valid=pred["probability"] < 0))
