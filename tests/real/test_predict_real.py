"""Real scenes through networks that others trained, and outlines out of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import rtsx
from rtsx.config import CubeConfig
from rtsx.cube import geobox_of

BANDS = ("blue", "green", "red", "nir")
CLEAR, CLOUD, SHADOW = range(3)


def landsat(folder: Path, name: str) -> tuple[xr.Dataset, NDArray[np.intp]]:
    """A scene as a chunked cube of reflectance, and its classes in the network's order."""
    with np.load(folder / "csmask_scenes" / f"{name}.npz") as scene:
        image, mask = scene["img"], scene["msk"][..., 0]
    geobox = GeoBox(mask.shape, Affine(30, 0, 500_000, 0, -30, 7_000_000), "EPSG:32608")
    layers = {band: (("y", "x"), image[..., number]) for number, band in enumerate(BANDS)}
    cube = xr.Dataset(layers).assign_coords(xr_coords(geobox, always_yx=True)).chunk(y=200, x=200)
    return cube, np.select([mask == 4, mask == 0], [CLOUD, SHADOW], CLEAR)


def kappa(found: NDArray[np.intp], truth: NDArray[np.intp]) -> float:
    """Cohen's kappa: agreement beyond what chance gives (Cohen 1960)."""
    table = np.zeros((3, 3))
    np.add.at(table, (found.ravel(), truth.ravel()), 1)
    table /= table.sum()
    chance = (table.sum(0) * table.sum(1)).sum()
    return float((np.trace(table) - chance) / (1 - chance))


@pytest.fixture(scope="module")
def cloud_bundle(real_models: Path) -> rtsx.ModelBundle:
    statistics = json.loads((real_models / "model_4b_l1c.json").read_text())["data"]["dataset_statistics"]["img"]
    return rtsx.ModelBundle.open(
        real_models / "model_4b_l1c.onnx",
        layers=BANDS,
        mean=statistics[0],
        std=statistics[1],
        classes=("clear", "cloud", "shadow"),
        activation="softmax",
        tile=256,
        overlap=128,
        trim=0,
    )


# One pass per tile, like the reference, of which a hundredth may be missing: the network looks at its whole tile, so the
# answer moves with where tiles lie (Landsat 7, overlap 64: 0.823; 96: 0.828; 128: 0.829).
@pytest.mark.parametrize(("scene", "least"), [("landsat7", 0.826), ("landsat5", 0.708)])
def test_a_trained_cloud_mask_reaches_its_published_agreement(
    real_data: Path, cloud_bundle: rtsx.ModelBundle, scene: str, least: float
) -> None:
    cube, truth = landsat(real_data, scene)
    prediction = rtsx.predict_cube(cube, cloud_bundle).compute()
    assert prediction["probability"].dims == ("class", "y", "x")
    found = prediction["probability"].values.argmax(0)
    agreement = kappa(found, truth)
    print(f"{scene}: kappa {agreement:.3f}")
    assert agreement >= least
    exclusive = prediction["binary"].values
    assert (exclusive.sum(0) == 1).all(), "exclusive classes: one per pixel"


def test_a_trained_network_masks_the_clouds_of_a_source(
    real_data: Path, cloud_bundle: rtsx.ModelBundle, tmp_path: Path
) -> None:
    """As `quality: {model: BUNDLE}`: what counts as clear is what people have called clear."""
    scene, truth = landsat(real_data, "landsat7")
    path, bundle = tmp_path / "landsat7_20010720.tif", tmp_path / "clouds"
    cloud_bundle.save(bundle)
    box = geobox_of(scene)
    profile = {"driver": "GTiff", "count": 4, "dtype": "float32", "height": box.shape.y, "width": box.shape.x}
    with rasterio.open(path, "w", **profile, crs=str(box.crs), transform=box.affine, nodata=-1) as file:
        file.write(np.stack([scene[band].values for band in BANDS]))
        file.descriptions = BANDS
    source = {"files": str(path), "layers": ["red"], "quality": {"model": str(bundle)}}
    grid = {"crs": str(box.crs), "resolution": 30, "origin": [box.affine.c, box.affine.f]}
    recipe = CubeConfig.model_validate({"grid": grid, "sources": {"landsat": source}, "chunk": 512}).recipe()
    clear = rtsx.open_cube(recipe, box)["valid"].values
    found = np.where(clear, CLEAR, CLOUD)
    agreement = kappa(found, np.where(truth == CLEAR, CLEAR, CLOUD))
    print(f"clear or not: kappa {agreement:.3f}, {(clear == (truth == CLEAR)).mean():.1%} of the pixels")
    assert agreement > 0.8


def test_a_trained_torchscript_network_runs_over_naip(real_data: Path, real_models: Path) -> None:
    weights = next(real_models.glob("*kelp*.pt"))
    bands = ("red", "green", "blue", "nir")
    tif = real_data / "chesapeake_mini" / "tile" / "m_3907833_nw_17_1_naip-new.tif"
    # Its fourth band holds near infrared, and its header calls it alpha.
    with pytest.warns(UserWarning, match="layer 'nir', is marked as alpha"):
        cube = rtsx.open_cube(tif, layers=bands, chunks=100)
    bundle = rtsx.ModelBundle.open(
        weights,
        layers=bands,
        mean=[127.5] * 4,
        std=[127.5] * 4,
        classes=("land", "kelp"),
        activation="softmax",
        tile=288,
        overlap=32,
        trim=0,
        stride=32,
        trust=True,
    )
    prediction = rtsx.predict_cube(cube, bundle).compute()
    probability = prediction["probability"]
    assert probability.shape == (2, 260, 260)
    assert prediction.odc.geobox == cube.odc.geobox
    valid = prediction["valid"].values
    total = probability.values.astype(int).sum(0)[valid]
    assert np.abs(total - 100).max() <= 1, "softmax: the classes share one hundred per cent"
    assert probability.sel({"class": "land"}).values[valid].mean() > 50, "there is no kelp in Virginia's hills"


# --- formats i-iv on the PlanetScope scene -------------------------------------------------------------------------

SEVEN = ("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope")


@pytest.fixture(scope="module")
def unetplusplus() -> torch.nn.Module:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network = smp.UnetPlusPlus("resnet18", encoder_weights=None, in_channels=7, classes=1).eval()
    head = network.segmentation_head[0]
    with torch.no_grad():
        answer = network(torch.rand(1, 7, 256, 256))
        head.bias.sub_(answer.mean()).mul_(2 / answer.std())  # so that the answer varies about one half
        head.weight.mul_(2 / answer.std())
    return network


def planetscope_with_terrain(folder: Path) -> xr.Dataset:
    """The slanted scene, with terrain made up as a function of place, because there is none for it."""
    tif = folder / "planetscope_samples" / "tmask_apache" / "633841_1932520_2017-07-19_1004_subarea.tif"
    if rasterio.open(tif).count != 4:
        tif = tif.with_name("20170915_020728_103d_3B_AnalyticMS.tif")
    cube = rtsx.open_cube(tif, sensor="planetscope", chunks=200)
    y, x = np.meshgrid(np.arange(cube.sizes["y"]), np.arange(cube.sizes["x"]), indexing="ij")
    cube["relative_elevation"] = (("y", "x"), (10 * np.sin(y / 40) * np.cos(x / 60)).astype(np.float32))
    cube["slope"] = (("y", "x"), (15 + 10 * np.sin(x / 50)).astype(np.float32))
    return cube


def write_formats(folder: Path, network: torch.nn.Module, layers: Sequence[str]) -> dict[str, Path]:
    """The same weights as each of the field's four kinds of checkpoint."""
    state = network.state_dict()
    model = {
        "arch": "UnetPlusPlus",
        "encoder_name": "resnet18",
        "encoder_weights": None,
        "in_channels": len(layers),
        "classes": 1,
    }
    run = folder / "run" / "checkpoints"
    run.mkdir(parents=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, run / "07.pt")
    (run.parent / "config.yml").write_text(
        "model: {architecture: UnetPlusPlus, encoder: resnet18, encoder_weights: null, input_channels: 7}\n"
        "data_sources: [ndvi, planet, relative_elevation, slope]\n"
    )
    config = {"model": model, "norm_factors": {}, "patch_size": 1024, "model_framework": "smp"}
    torch.save({"config": config | {"input_combination": list(layers)}, "statedict": state}, folder / "legacy.pt")
    torch.save({"config": config | {"bands": list(layers)}, "statedict": state}, folder / "converted.ckpt")
    lightning = {f"model.{key}": value for key, value in state.items()}
    hyper = {"config": {"model": model, "bands": list(layers)}, "datetime": "2024-01-01"}
    torch.save({"state_dict": lightning, "hyper_parameters": hyper}, folder / "lightning.ckpt")
    return {
        "i": run / "07.pt",
        "ii": folder / "legacy.pt",
        "iii": folder / "converted.ckpt",
        "iv": folder / "lightning.ckpt",
    }


def test_four_formats_give_the_same_bits_on_a_slanted_planetscope_scene(
    real_data: Path, tmp_path: Path, unetplusplus: torch.nn.Module
) -> None:
    cube = planetscope_with_terrain(real_data).isel(y=slice(0, 160), x=slice(0, 160))
    predictions = {
        kind: rtsx.predict_cube(
            cube, rtsx.ModelBundle.open(path, preset="tss-v1"), tile=128, overlap=32, dtype="float32", backend="eager"
        ).compute()
        for kind, path in write_formats(tmp_path, unetplusplus, SEVEN).items()
    }
    first = predictions["i"]
    answered = np.isfinite(first["probability"].values)
    shares = {kind: float(np.isfinite(p["probability"].values).mean()) for kind, p in predictions.items()}
    assert 0 < shares["i"] < 1, "the cut-out has to hold the slanted edge"
    for prediction in predictions.values():
        xr.testing.assert_equal(prediction, first)
    valid = (cube["blue"] != 0) & (cube["green"] != 0) & (cube["red"] != 0) & (cube["nir"] != 0)
    np.testing.assert_array_equal(answered, valid.values)
    assert (first["binary"].values[~answered] == 255).all()
    assert first["probability"].values[answered].std() > 0.01


class BareGround(torch.nn.Module):
    """Steep logits of bright red and little green: a stand-in for a network of one's own."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        red, nir = batch[:, :1], batch[:, 1:]
        ndvi = (nir - red) / (nir + red + 1e-6)
        smooth = torch.nn.functional.avg_pool2d(torch.cat([red, ndvi], 1), 3, stride=1, padding=1)
        return 60 * torch.minimum(smooth[:, :1] - 0.06, 0.35 - smooth[:, 1:])


def test_bykovsky_ends_in_outlines(real_data: Path, tmp_path: Path) -> None:
    tif = next((real_data / "rts_expert_s2l8" / "Bykovsky").glob("S2_*.tif"))
    names = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
    cube = rtsx.open_cube(tif, layers=names, sensor=None, chunks=100)
    for name in names:
        cube[name].attrs["scale_factor"] = 1e-4
    bundle = rtsx.ModelBundle.from_module(
        BareGround(), layers=("red", "nir"), mean=(0, 0), std=(1, 1), classes=("bare",), tile=128, overlap=32, stride=1
    )
    store = rtsx.write_cube(rtsx.predict_cube(cube, bundle), tmp_path / "bykovsky.zarr")
    prediction = rtsx.open_cube(store)
    outlines = rtsx.extract_footprints(prediction, min_area_m2=500)
    assert outlines.crs.to_epsg() == 32652
    assert len(outlines) > 3
    assert outlines.geometry.is_valid.all()
    west, south, east, north = cube.odc.geobox.extent.boundingbox
    assert (outlines.total_bounds >= [west, south, west, south]).all()
    assert (outlines.total_bounds <= [east, north, east, north]).all()
    geographic = rtsx.extract_footprints(prediction, min_area_m2=500, geographic=True)
    assert geographic.crs.to_epsg() == 4326
    assert len(geographic) == len(outlines)
    assert geographic["centroid_lat"].between(71, 73).all()
    assert geographic["centroid_lon"].between(128, 131).all()
    # UTM keeps areas to a thousandth within its zone; the field is geodesic whatever the CRS.
    np.testing.assert_allclose(outlines["area_m2"], outlines.area, rtol=2e-3)
    np.testing.assert_allclose(geographic["area_m2"], outlines["area_m2"])
