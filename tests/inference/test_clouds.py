"""Cloud masks by a model: the classes of a small network decide which pixels of an image count, wherever it is read."""

import pickle
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
import yaml
from affine import Affine
from odc.geo.geobox import GeoBox

import rtsx
from rtsx.campaign.planning import TaskMemory
from rtsx.campaign.recipe import CampaignRecipe, PredictionSpec
from rtsx.config import CubeConfig, build_cube, load_cube_config, open_cube
from rtsx.cube.build_state import describe_recipe
from rtsx.errors import BundleError, ConfigError
from rtsx.grid import lonlat_polygon
from rtsx.inference import predict
from rtsx.inference.device import CPU, Hardware
from rtsx.inference.memory import mask_bytes
from rtsx.inference.runner import forward_bytes_per_pixel
from rtsx.model import ModelBundle
from rtsx.tiling import TilePlan

SIZE = 60
BOX = GeoBox((SIZE, SIZE), Affine(10, 0, 558_000, 0, -10, 7_720_000), "EPSG:32607")
GRID = {"crs": "EPSG:32607", "resolution": 10.0, "cell_size": 64}


def save(path: Path, classes: tuple[str, ...]) -> Path:
    """Cloud where red is bright, shadow where nir is dark, each in the mean of nine pixels: one convolution."""
    weights = np.zeros((3, 2, 3, 3), np.float32)
    weights[1, 0], weights[2, 1] = 100 / 9, -100 / 9
    tensors = [
        onnx.numpy_helper.from_array(weights, "w"),
        onnx.numpy_helper.from_array(np.array([0, -50, 30], np.float32), "b"),
    ]
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", bands, "h", "v"])
        for name, bands in (("x", 2), ("y", 3))
    ]
    graph = onnx.helper.make_graph([node], "clouds", ends[:1], ends[1:], tensors)
    file = path.with_suffix(".onnx")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), file)
    found = ModelBundle.open(
        file,
        layers=("red", "nir"),
        classes=classes,
        activation="softmax",
        tile=32,
        overlap=8,
        trim=2,
        stride=1,
        mean=[0.0, 0.0],
        std=[1.0, 1.0],
    )
    found.save(path)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bundle") / "clouds", ("clear", "cloud", "cloud_shadow"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images whose bright and dark spots lie elsewhere."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(2)
    for day in (1, 2, 3):
        spots = np.kron(rng.random((2, 6, 6)), np.ones((10, 10)))
        pixels = np.where(spots > 0.8, [[[8000]], [[500]]], [[[2000]], [[4000]]]).astype(np.uint16)
        pixels[:, :5, :5] = 0
        profile = {"driver": "GTiff", "count": 2, "height": SIZE, "width": SIZE, "dtype": "uint16", "nodata": 0}
        with rasterio.open(
            folder / f"2024070{day}_a.tif", "w", **profile, crs="EPSG:32607", transform=BOX.affine
        ) as file:
            file.write(pixels)
            file.descriptions = ("red", "nir")
    return folder


def config(folder: Path, bundle: Path, *, days: str = "*", chunk: int = 64, **source: Any) -> dict[str, Any]:
    layers = {name: {"scale_factor": 0.0001, "units": "reflectance"} for name in ("red", "nir")}
    quality = {"model": str(bundle), **source.pop("quality", {})}
    own = {"files": str(folder / f"2024070{days}_a.tif"), "layers": layers, "quality": quality, **source}
    return {"grid": GRID, "sources": {"scene": own}, "chunk": chunk}


def opened(values: dict[str, Any]) -> Any:
    return open_cube(CubeConfig.model_validate(values).recipe(), BOX).compute()


def test_a_mask_is_what_the_model_says_of_the_image(scenes: Path, bundle: Path) -> None:
    cube = opened(config(scenes, bundle, days="1"))
    plain = rtsx.open_cube(str(scenes / "20240701_a.tif"))
    plain = plain.assign({name: plain[name].assign_attrs(scale_factor=0.0001) for name in ("red", "nir")})
    said = rtsx.predict_cube(plain, ModelBundle.open(bundle), tile="bundle", overlap="bundle").compute()
    expected = np.where(said["valid"], np.where(said["probability"].values.argmax(0) == 0, 2, 1), 0)
    np.testing.assert_array_equal(cube["quality_scene"].values, expected)
    assert set(np.unique(expected)) == {0, 1, 2}
    other = opened(config(scenes, bundle, days="1", chunk=33))
    np.testing.assert_array_equal(other["quality_scene"].values, expected)
    stated = opened(config(scenes, bundle, days="1", quality={"rule": {"invalid": "no_data or cloud"}}))
    invalid = (said["probability"].values.argmax(0) == 1) | ~said["valid"].values
    np.testing.assert_array_equal(stated["quality_scene"].values == 0, invalid)


def test_a_composite_takes_what_the_model_calls_clear(scenes: Path, bundle: Path, tmp_path: Path) -> None:
    values = config(scenes, bundle, composite="median")
    median = opened(values)
    seen = median["valid"].values
    assert seen.mean() > 0.8
    assert (median["red"].values[seen] == 2000).mean() > 0.9  # but for corners of spots, which look clear to it
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump(values | {"region": {"cell": "r000c000"}}))
    resolved = load_cube_config(path).resolved()
    again = tmp_path / "again.yaml"
    again.write_text(resolved.to_yaml())
    assert load_cube_config(again) == resolved
    stored = CubeConfig.from_recipe(CubeConfig.model_validate(values).recipe())
    assert stored.recipe() == CubeConfig.model_validate(values).recipe()
    assert opened(values).identical(median)


def test_a_store_of_the_images_holds_their_masks(scenes: Path, bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    copytree(bundle, own)
    values = config(scenes, own, days="1", quality={"rule": {"invalid": "no_data or cloud"}})
    values["region"] = {"wkt": lonlat_polygon(BOX.extent.geom, "EPSG:32607").wkt}
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump(values))
    expected = open_cube(path).compute()
    build_cube(path, tmp_path / "native.zarr", layout="native")
    rmtree(own)  # which a store does without
    assert open_cube(tmp_path / "native.zarr").compute().equals(expected)


def test_another_bundle_at_the_same_path_is_another_recipe(scenes: Path, tmp_path: Path) -> None:
    mask = save(tmp_path / "mask", ("clear", "cloud", "shadow"))
    recipe = CubeConfig.model_validate(config(scenes, mask)).recipe()
    described = describe_recipe(recipe)
    assert describe_recipe(CubeConfig.model_validate(config(scenes, mask)).recipe()) == described
    rmtree(mask)
    save(mask, ("cloud", "clear", "shadow"))
    assert describe_recipe(CubeConfig.model_validate(config(scenes, mask)).recipe()) != described
    with pytest.raises(BundleError, match="not the one that this work was begun with"):
        open_cube(pickle.loads(pickle.dumps(recipe)), BOX)


def test_the_network_of_a_mask_is_in_the_memory_plan(
    scenes: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, own = config(scenes, bundle, composite="median"), ModelBundle.open(bundle)
    one_pass = forward_bytes_per_pixel(own, CPU, precision="auto") * 32**2
    cube = open_cube(CubeConfig.model_validate(values).recipe(), BOX)
    assert mask_bytes(cube, ("red", "nir")) == one_pass
    assert mask_bytes(cube.compute(), ("red", "nir")) == 0
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump(values | {"region": {"wkt": lonlat_polygon(BOX.extent.geom, "EPSG:32607").wkt}}))
    build_cube(path, tmp_path / "native.zarr", layout="native")
    assert mask_bytes(open_cube(tmp_path / "native.zarr"), ("red", "nir")) == 0

    plans, real = [], predict.require_memory
    monkeypatch.setattr(predict, "require_memory", lambda *given, **more: plans.append(real(*given, **more)))
    for tile, expected in ((8, one_pass), (64, 4 * one_pass)):  # the larger of two that never run at once
        rtsx.predict_cube(cube, own, tile=tile, overlap=4, trim=0)
        assert plans.pop().network_bytes == expected

    recipe = CampaignRecipe(
        name="c", year=2024, region=lonlat_polygon(BOX.extent.geom, "EPSG:32607"), cube=CubeConfig.model_validate(values).recipe(),
        bundles=(own,), output=str(tmp_path / "out"), prediction=PredictionSpec(device="cpu"), shard=64, chunk=64,
    )  # fmt: skip
    memory = TaskMemory.of(recipe, cube, layers=("red", "nir"))
    for hardware, expected in ((CPU, one_pass), (Hardware("GPU"), one_pass)):
        tiling = TilePlan(shape=(64, 64), offset=(0, 0), tile=8, overlap=4, trim=0, blend="linear", stride=1)
        assert replace(memory, hardware=hardware).estimate(tiling).network_bytes == expected


def test_what_is_no_mask_of_clouds(scenes: Path, bundle: Path, tmp_path: Path) -> None:
    lakes = save(tmp_path / "lakes", ("land", "lake", "river"))
    with pytest.raises(BundleError, match=r"tells clear from cloud, .* has the classes land, lake, river"):
        opened(config(scenes, lakes))
    with pytest.raises(BundleError):
        opened(config(scenes, tmp_path / "nowhere"))
    for wrong, text in (({"asset": "scl"}, "an asset of the image, or computed by a model"),):
        values = config(scenes, bundle, quality=wrong)
        path = tmp_path / "cube.yaml"
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(ConfigError, match=text):
            load_cube_config(path)
