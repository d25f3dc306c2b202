"""What other libraries make of a file has the answers of `open_cube`, to the last uint8, or is refused with a cure."""

import datetime as dt
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rioxarray
import stackstac
import torch
import xarray as xr
from rasterio.transform import from_origin

import rtsx
from rtsx.cube import apply_mask, as_cube, mask_rule
from rtsx.errors import CubeError
from rtsx.evaluation import EvaluationScene
from rtsx.labels import StubLabelRaster

NAMES = ("red", "green", "blue")
SHAPE = (48, 70)
OPTIONS: dict[str, Any] = {"tile": 32, "overlap": 8, "backend": "eager"}
PACKINGS: list[tuple[str, float | None, tuple[float, ...], tuple[float, ...]]] = [
    ("uint8", 0, (0.004,) * 3, (0.0,) * 3),
    ("uint8", None, (0.004,) * 3, (0.0,) * 3),
    ("uint16", 65535, (1e-4, 2e-4, 1e-4), (-0.1, 0.0, 0.0)),
    ("int16", -9999, (1e-4,) * 3, (0.05,) * 3),
    ("float32", -9999, (1.0,) * 3, (0.0,) * 3),
    ("float32", float("nan"), (0.5, 0.5, 0.25), (0.0,) * 3),
]


@cache
def bundle() -> rtsx.ModelBundle:
    with torch.random.fork_rng():
        # Decoded values may differ from packed ones in the last bit of float32, and a probability that lies where uint8 rounds
        # may fall to the other side. With these weights none lies there.
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 1, 3, padding=1)
    return rtsx.ModelBundle.from_module(
        network, layers=NAMES, mean=[0.2] * 3, std=[0.1] * 3, tile=32, overlap=8, stride=1
    )


def pixels(dtype: str, nodata: float | None) -> np.ndarray:
    random = np.random.default_rng(3)
    drawn = random.uniform(0, 1, (3, *SHAPE)) if dtype == "float32" else random.integers(1, 240, (3, *SHAPE))
    stored = (drawn * 16 if dtype.endswith("int16") else drawn).astype(dtype)
    if nodata is not None:
        stored[:, :9, :20] = nodata
        stored[1, 30:33, 40:] = nodata
    return stored


def write(path: Path, stored: np.ndarray, **words: Any) -> Path:
    profile = {"crs": "EPSG:32608", "transform": from_origin(500000, 7700000, 3, 3), "nodata": words["nodata"]}
    with rasterio.open(
        path, "w", driver="GTiff", count=len(stored), height=SHAPE[0], width=SHAPE[1], dtype=stored.dtype, **profile
    ) as file:
        file.write(stored)
        file.descriptions, file.scales, file.offsets = words["names"], words["scales"], words["offsets"]
    return path


@dataclass(frozen=True)
class Scene:
    """One file with three bands, an item of the same bands as a file each, and the answers of `open_cube`."""

    whole: Path
    item: pystac.Item
    expected: xr.Dataset


@pytest.fixture(scope="module", params=PACKINGS, ids=lambda each: f"{each[0]}-{each[1]}")
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    tmp_path = tmp_path_factory.mktemp("scene")
    dtype, nodata, scales, offsets = request.param
    stored = pixels(dtype, nodata)
    whole = write(tmp_path / "scene.tif", stored, names=NAMES, nodata=nodata, scales=scales, offsets=offsets)
    item = pystac.Item(
        "a",
        {"type": "Point", "coordinates": [-135, 69.4]},
        [-135, 69.3, -134.9, 69.4],
        dt.datetime(2024, 7, 1, tzinfo=dt.UTC),
        {
            "proj:epsg": 32608,
            "proj:code": "EPSG:32608",
            "proj:shape": list(SHAPE),
            "proj:transform": [3, 0, 500000, 0, -3, 7700000],
        },
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        collection="scenes",
    )
    for number, name in enumerate(NAMES):
        words = {"names": (name,), "nodata": nodata, "scales": scales[number : number + 1]}
        path = write(
            tmp_path / f"{name}.tif", stored[number : number + 1], offsets=offsets[number : number + 1], **words
        )
        band = {"data_type": dtype, "scale": scales[number], "offset": offsets[number]}
        band |= {} if nodata is None else {"nodata": "nan" if np.isnan(nodata) else nodata}
        item.add_asset(name, pystac.Asset(str(path), media_type="image/tiff", extra_fields={"raster:bands": [band]}))
    return Scene(whole, item, rtsx.predict_cube(rtsx.open_cube(whole), bundle(), **OPTIONS).compute())


def _stacked(item: pystac.Item, **options: Any) -> xr.DataArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its use of NumPy and pandas
        return stackstac.stack([item.to_dict()], epsg=32608, resolution=3, snap_bounds=False, **options)


def _loaded(item: pystac.Item) -> xr.Dataset:
    """By odc-stac, which says nodata and not the scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cube = odc.stac.load([item], bands=list(NAMES), chunks={})
    for name in NAMES:
        band = item.assets[name].extra_fields["raster:bands"][0]
        cube[name].attrs |= {"scale_factor": band["scale"], "add_offset": band["offset"]}
    return cube


def _stored(given: xr.DataArray | xr.Dataset, folder: Path) -> xr.Dataset:
    """As a plain Zarr that xarray writes and reads, decoding it; without what cannot be stored."""
    cube = given if isinstance(given, xr.Dataset) else given.to_dataset(name="image")
    cube = cube.drop_vars([name for name, coord in cube.coords.items() if coord.dtype.kind == "O"])
    for variable in cube.variables.values():
        variable.attrs = {key: value for key, value in variable.attrs.items() if key not in ("spec", "transform")}
        variable.encoding = {
            key: value for key, value in variable.encoding.items()
            if key in ("_FillValue", "scale_factor", "add_offset", "dtype", "grid_mapping", "units", "calendar")
        }  # fmt: skip
    path = folder / f"{uuid4().hex}.zarr"
    cube.to_zarr(path, consolidated=False)
    return xr.open_zarr(path, consolidated=False, decode_coords="all")


def _decoded(path: Path) -> xr.Dataset:
    """As `open_cube` opens it, written by rtsx, read and decoded by xarray."""
    rtsx.write_cube(rtsx.open_cube(path), path.with_suffix(".zarr"), overviews=False, overwrite=True)
    return xr.open_zarr(path.with_suffix(".zarr"))


DOORS: dict[str, Callable[[Path, pystac.Item], xr.Dataset | xr.DataArray]] = {
    "rioxarray": lambda path, item: rioxarray.open_rasterio(path),
    "rioxarray masked": lambda path, item: rioxarray.open_rasterio(path, masked=True),
    "rioxarray scaled": lambda path, item: rioxarray.open_rasterio(path, mask_and_scale=True, chunks=32),
    "rioxarray variables": lambda path, item: rioxarray.open_rasterio(path, band_as_variable=True),
    "rioxarray to_dataset": lambda path, item: rioxarray.open_rasterio(path).to_dataset("band"),
    "rioxarray scaled to_dataset": lambda path, item: rioxarray.open_rasterio(path, mask_and_scale=True).to_dataset(
        "band"
    ),
    "rioxarray turned bands": lambda path, item: rioxarray.open_rasterio(path).isel(band=[2, 0, 1]),
    "rioxarray bands last": lambda path, item: rioxarray.open_rasterio(path).transpose("y", "x", "band"),
    "rioxarray, Zarr": lambda path, item: _stored(rioxarray.open_rasterio(path), path.parent),
    "odc-stac, Zarr": lambda path, item: _stored(_loaded(item), path.parent),
    "stackstac, Zarr": lambda path, item: _stored(_stacked(item, xy_coords="center"), path.parent),
    "open_cube, Zarr, xarray": lambda path, item: _decoded(path),
    "odc-stac": lambda path, item: _loaded(item),
    "stackstac": lambda path, item: _stacked(item),
    "stackstac to_dataset": lambda path, item: _stacked(item).to_dataset("band"),
    "stackstac float32": lambda path, item: _stacked(
        item, dtype="float32", rescale=False, fill_value=np.float32("nan")
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore::xarray.coding.variables.SerializationWarning")
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # of text, which stackstac has much of
@pytest.mark.filterwarnings(
    "ignore:(Scales|Offsets) differ across bands:UserWarning"
)  # of rioxarray, which takes none then
def test_every_library_gives_the_answers_of_the_file(door: str, scene: Scene) -> None:
    found = rtsx.predict_cube(DOORS[door](scene.whole, scene.item), bundle(), **OPTIONS).squeeze(drop=True)
    for name in ("valid", "probability", "binary"):
        np.testing.assert_array_equal(found[name], scene.expected[name])
    for axis in ("y", "x"):
        np.testing.assert_allclose(found[axis], scene.expected[axis])
    assert found.rio.crs == scene.expected.rio.crs


MASKS: dict[str, tuple[Callable[[xr.DataArray], xr.DataArray], str | None]] = {
    "0 and 1": (lambda yes: yes.astype(np.uint8), None),
    "0, 1 and NaN": (lambda yes: yes.where(yes), None),
    "0, 1 and a missing value": (lambda yes: yes.astype(np.int16).where(yes, -7).assign_attrs(_FillValue=-7), None),
    "0 and 255": (
        lambda yes: yes.astype(np.uint8) * np.uint8(255),
        r"it has 255( in rows \d+-\d+, columns \d+-\d+)?\..*cube\['valid'\] == 255",
    ),
    "1 missing": (lambda yes: yes.astype(np.uint8).assign_attrs(_FillValue=np.uint8(1)), "1 is declared missing"),
}


def _masked_map() -> xr.Dataset:
    """Probabilities, what is found, a layer and a mask in chunks."""
    random = np.random.default_rng(1)
    level = random.integers(0, 101, (60, 60)).astype(np.uint8)
    arrays = {"probability": level, "binary": (level > 60).astype(np.uint8), "valid": random.random((60, 60)) < 0.9}
    cube = xr.Dataset(
        {name: (("y", "x"), array) for name, array in (arrays | {"red": level * np.float32(0.01)}).items()},
        coords={"y": 900.0 - 3 * np.arange(60), "x": 3.0 * np.arange(60)},
    )
    return cube.chunk(y=40, x=40).rio.write_crs("EPSG:3413")


def _predicted(cube: xr.Dataset) -> np.ndarray:
    one = rtsx.ModelBundle.from_module(
        torch.nn.Conv2d(1, 1, 1), layers=["red"], mean=[0.5], std=[0.2], tile=32, overlap=8, stride=1
    )
    return np.asarray(rtsx.predict_cube(cube[["red", "valid"]], one, **OPTIONS)["valid"])


def _opened(cube: xr.Dataset, path: Path) -> np.ndarray:
    cube.drop_encoding().to_zarr(path, consolidated=False)
    return np.asarray(rtsx.open_cube(path)["valid"])


def _written(cube: xr.Dataset, path: Path) -> np.ndarray:
    rtsx.write_cube(cube, path)
    return np.asarray(rtsx.open_cube(path)["valid"])


def _scored(cube: xr.Dataset) -> Any:
    truth = StubLabelRaster((cube["red"].values > 0.5).astype(np.uint8))
    return rtsx.evaluate([EvaluationScene(name="a", prediction=cube, truth=truth)]).to_json()


MASKED_DOORS: dict[str, Callable[[xr.Dataset, Path], Any]] = {
    "as_cube": lambda cube, _: as_cube(cube)["valid"].values,
    "in memory": lambda cube, _: as_cube(cube.compute())["valid"].values,
    "a store": _opened,
    "write_cube": _written,
    "apply_mask": lambda cube, _: (
        apply_mask(cube, xr.zeros_like(cube["red"]), rule=mask_rule({"invalid": "q > 0"}, data=["q"]))["valid"].values
    ),
    "predict_cube": lambda cube, _: _predicted(cube),
    "extract_footprints": lambda cube, _: rtsx.extract_footprints(cube, min_area_m2=0)["n_pixels"].tolist(),
    "evaluate": lambda cube, _: _scored(cube),
}


@pytest.mark.parametrize("door", MASKED_DOORS)
@pytest.mark.parametrize("numbers", MASKS)
def test_a_mask_of_numbers_is_what_a_boolean_one_is_or_is_refused(numbers: str, door: str, tmp_path: Path) -> None:
    (change, refusal), cube = MASKS[numbers], _masked_map()
    given = cube.assign(valid=change(cube["valid"]))
    if refusal is None:
        np.testing.assert_equal(
            MASKED_DOORS[door](given, tmp_path / "numbers"), MASKED_DOORS[door](cube, tmp_path / "boolean")
        )
    else:
        with pytest.raises(CubeError, match=refusal):
            MASKED_DOORS[door](given, tmp_path / "numbers")
