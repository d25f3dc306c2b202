import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.transform import from_origin

import rtsx
from rtsx.cli.options import numbers
from rtsx.cli.predict import AugmentationName, augmentations, predict
from rtsx.inference.plan import TEST_TIME_AUGMENTATIONS
from rtsx.synthetic import SceneFiles
from rtsx.tiling.plan import BLENDS

Command = Callable[..., Any]
FIXED = ("--tile", "128", "--overlap", "32")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "map.zarr"


def write_tif(
    path: Path, *, dtype: str = "uint16", crs: str = "EPSG:32608", value: float = 500, count: int = 4
) -> Path:
    profile = {"driver": "GTiff", "width": 160, "height": 160, "count": count, "dtype": dtype, "crs": crs}
    with rasterio.open(path, "w", **profile, transform=from_origin(500_000, 7_000_000, 3, 3)) as file:
        file.write(np.full((count, 160, 160), value, dtype))
        if count == 4:
            file.descriptions = ("blue", "green", "red", "nir")
    return path


def test_an_image_becomes_a_map_outlines_and_geotiffs(
    rtsx_command: Command, scene: SceneFiles, bundle: Path, out: Path
) -> None:
    slumps, cogs = out.with_name("slumps.gpkg"), out.with_name("cogs")
    outcome = rtsx_command(
        *("predict", scene.image, "--sensor", "planetscope", "--mask", scene.udm2, "--mask-rule", "tss-v1"),
        *("-m", bundle, "--out", out, *FIXED, "--chunks", "100", "--footprints", slumps, "--cog", cogs),
    )
    assert outcome.status == 0, outcome.err
    assert str(out) in outcome.out
    assert "128 px, overlap 32" in outcome.out
    stored = rtsx.open_cube(out)
    cube = rtsx.open_cube(scene.image, sensor="planetscope", mask=(scene.udm2, "tss-v1"))
    expected = rtsx.predict_cube(cube, rtsx.ModelBundle.open(bundle), tile=128, overlap=32)
    np.testing.assert_array_equal(stored["probability"].values, expected["probability"].values)
    assert len(gpd.read_file(slumps)) == len(rtsx.extract_footprints(expected))
    with rasterio.open(cogs / "binary.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected["binary"].values)


def test_every_option_reaches_the_prediction(rtsx_command: Command, scene: SceneFiles, bundle: Path, out: Path) -> None:
    outcome = rtsx_command(
        *("predict", scene.image, "--sensor", "planetscope", "-m", bundle, "-m", bundle, "--out", out, "--tile", "128"),
        *("--overlap", "64", "--trim", "8", "--blend", "hann", "--augment", "vflip,hflip", "--scales", "1,0.5"),
        *("--merge", "max", "--keep-members", "--float32", "--device", "cpu", "--precision", "float32"),
        *("--backend", "eager", "--batch-size", "2", "--layers", "blue,green,red,nir"),
    )
    assert outcome.status == 0, outcome.err
    stored = rtsx.open_cube(out)
    plan = json.loads(stored.attrs["plan"])
    assert stored["probability"].dtype == np.float32
    assert stored["probability_member"].sizes["member"] == 2
    assert {key: plan["tiling"][key] for key in ("tile", "overlap", "trim", "blend")} == {
        "tile": 128,
        "overlap": 64,
        "trim": 8,
        "blend": "hann",
    }
    assert set(plan["augment"]) == {"identity", "hflip", "vflip"}
    assert (plan["scales"], plan["merge"]) == ([1.0, 0.5], "max")


def test_freed_memory_is_kept_before_the_image_is_opened(
    rtsx_command: Command, bundle: Path, out: Path, kept_memory: list[str]
) -> None:
    (broken := out.parent.parent / "none.tif").write_bytes(b"no raster")
    refuse(rtsx_command("predict", broken, "-m", bundle, "--out", out), out, "none.tif")
    assert kept_memory == ["kept"]


def test_a_zarr_cube_is_read_too(rtsx_command: Command, scene: SceneFiles, bundle: Path, out: Path) -> None:
    cube = rtsx.open_cube(scene.image, sensor="planetscope").isel(x=slice(0, 160))
    rtsx.write_cube(cube, out.with_name("cube.zarr"))
    assert rtsx_command("predict", out.with_name("cube.zarr"), "-m", bundle, "--out", out, *FIXED).status == 0
    assert rtsx.open_cube(out).sizes["x"] == 160


def test_defaults_are_those_of_predict_cube() -> None:
    here = {name: each.default for name, each in inspect.signature(predict).parameters.items()}
    there = {name: each.default for name, each in inspect.signature(rtsx.predict_cube).parameters.items()}
    renamed = {"dtype": "float32", "cube": "images", "bundle": "model"}
    # A window is for whoever looks at a part; the command writes whole maps.
    assert {renamed.get(name, name) for name in there} - {"window"} <= set(here)
    same = ("tile", "overlap", "trim", "blend", "batch_size", "device", "precision", "backend", "merge", "keep_members")
    assert {name: here[name] for name in same} == {name: there[name] for name in same}
    assert tuple(numbers(here["scales"], option="--scales")) == there["scales"]
    assert tuple(augmentations(here["augment"])) == there["augment"]
    assert (here["float32"], there["dtype"]) == (False, "uint8")


def test_choices_are_those_of_the_library() -> None:
    assert get_args(get_args(inspect.signature(predict).parameters["blend"].annotation)[0]) == tuple(BLENDS)
    assert {*get_args(AugmentationName), "identity"} == set(TEST_TIME_AUGMENTATIONS)


def test_a_model_named_demo_is_the_shipped_one_unless_a_path_is_called_so(
    rtsx_command: Command, scene: SceneFiles, bundle: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.parent.mkdir()
    (out.parent / "demo").symlink_to(bundle)
    monkeypatch.chdir(out.parent)
    assert "small" in rtsx_command("model", "info", "demo").out


def refuse(outcome: Any, out: Path, *words: str) -> None:
    """The exit status is 2, the message says `words`, there is no traceback, and nothing is left on disk."""
    assert outcome.status == 2, outcome.out + outcome.err
    message = " ".join(outcome.err.replace("│", " ").split())  # typer puts its own messages in a box
    assert [word for word in words if word not in message] == []
    assert "Traceback" not in outcome.err
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_refuses_a_missing_layer(rtsx_command: Command, scene: SceneFiles, bundle: Path, out: Path) -> None:
    arguments = ("--sensor", "planetscope", "--layers", "blue,green,red")
    refuse(rtsx_command("predict", scene.image, *arguments, "-m", bundle, "--out", out), out, "missing ['nir']")


def test_refuses_layers_of_two_reference_systems(
    rtsx_command: Command, bundle: Path, tmp_path: Path, out: Path
) -> None:
    one = write_tif(tmp_path / "one.tif")
    other = write_tif(tmp_path / "other.tif", crs="EPSG:32609", count=1)
    refuse(rtsx_command("predict", one, other, "-m", bundle, "--out", out), out, "other.tif", "EPSG:32609")


def test_refuses_a_cube_of_nothing_but_nan(rtsx_command: Command, bundle: Path, tmp_path: Path, out: Path) -> None:
    image = write_tif(tmp_path / "nan.tif", dtype="float32", value=np.nan)
    refuse(rtsx_command("predict", image, "-m", bundle, "--out", out, *FIXED), out, "No pixel", "nan.tif")


def test_outlines_of_several_years_are_not_one_file(
    rtsx_command: Command, bundle: Path, tmp_path: Path, out: Path
) -> None:
    cube = rtsx.open_cube(write_tif(tmp_path / "image.tif")).drop_vars("time", errors="ignore")
    years = xr.concat([cube, cube], dim="time").assign_coords(time=np.array(["2023-07-01", "2024-07-01"], "M8[ns]"))
    line = ("predict", rtsx.write_cube(years, tmp_path / "cube.zarr"), "-m", bundle, "--out", out)
    outcome = rtsx_command(*line, "--scale", "0.0001", "--footprints", tmp_path / "slumps.gpkg")
    assert outcome.status == 2
    assert "holds 2023, 2024, and a file of outlines is of one year" in " ".join(outcome.err.replace("│", " ").split())
    assert not out.exists()


def test_refuses_a_wrong_dtype(rtsx_command: Command, bundle: Path, tmp_path: Path, out: Path) -> None:
    image = write_tif(tmp_path / "complex.tif", dtype="complex64")
    refuse(rtsx_command("predict", image, "-m", bundle, "--out", out), out, "complex64")


def test_refuses_integers_whose_scale_nobody_knows(
    rtsx_command: Command, tmp_path: Path, out: Path, bundle: Path
) -> None:
    imported = tmp_path / "reflectance"
    rtsx.ModelBundle.open(bundle, preset="darts-v2").save(imported)
    image = write_tif(tmp_path / "dn.tif")
    refuse(rtsx_command("predict", image, "-m", imported, "--out", out, *FIXED), out, "scale_factor")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--tile", "100", "--overlap", "32"),
            ("tile has to be a multiple of the network's stride of 8 px", "got 100"),
        ),
        (("--tile", "128", "--overlap", "128"), ("overlap has to be below the tile of 128 px", "got 128")),
        (("--tile", "128", "--overlap", "32", "--trim", "20"), ("trim has to be at most half the overlap",)),
        (("--tile", "big"), ("expected auto, bundle or a number of pixels", "'big'")),
        (("--chunks", "0"), ("Chunks are a number of pixels above 0",)),
        (("--augment", "hflip,spin"), ("expected some of hflip", "spin")),
        (("--scales", "1,half"), ("expected numbers separated by commas", "1,half")),
        (("--blend", "cubic"), ("cubic", "linear")),
        (("--mask-rule", "tss-v1"), ("--mask and --mask-rule go together",)),
        (("--sensor", "spot7"), ("spot7", "planetscope")),
        (("--device", "tpu"), ("tpu",)),
        (("--footprints", "slumps.shp"), (".parquet", "slumps.shp")),
        (("--footprints", "s3://maps/slumps.parquet"), ("--footprints takes a local path",)),
        (("--cog", "s3://maps"), ("--cog takes a local path",)),
        (("--footprints", "slumps.parquet", "--min-area-m2", "-1"), ("--min-area-m2 takes a finite area", "got -1.0")),
        (("--footprints", "slumps.parquet", "--min-area-m2", "nan"), ("--min-area-m2 takes a finite area", "got nan")),
        (("--colour",), ("No such option", "--colour")),
    ],
)
def test_refuses_options_that_cannot_be(
    rtsx_command: Command,
    scene: SceneFiles,
    bundle: Path,
    out: Path,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    given = () if "--sensor" in arguments else ("--sensor", "planetscope")
    refuse(rtsx_command("predict", scene.image, *given, "-m", bundle, "--out", out, *arguments), out, *words)


def test_refuses_a_file_that_is_no_image(rtsx_command: Command, bundle: Path, tmp_path: Path, out: Path) -> None:
    image = tmp_path / "scene.tif"
    image.write_text("not a picture")
    refuse(rtsx_command("predict", image, "-m", bundle, "--out", out), out, "scene.tif")


def test_a_truncated_file_leaves_nothing(
    rtsx_command: Command, scene: SceneFiles, bundle: Path, tmp_path: Path, out: Path
) -> None:
    image = write_tif(tmp_path / "whole.tif")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    refuse(rtsx_command("predict", broken, "-m", bundle, "--out", out, *FIXED), out, "broken.tif")


def test_refuses_a_model_that_is_not_there(rtsx_command: Command, scene: SceneFiles, out: Path) -> None:
    refuse(rtsx_command("predict", scene.image, "-m", "absent.pt", "--out", out), out, "no model at absent.pt")


def test_refuses_outputs_that_exist_before_reading_anything(
    rtsx_command: Command, bundle: Path, tmp_path: Path
) -> None:
    slumps = tmp_path / "slumps.parquet"
    slumps.write_text("mine")
    outcome = rtsx_command(
        "predict", "absent.tif", "-m", bundle, "--out", tmp_path / "map.zarr", "--footprints", slumps
    )
    assert outcome.status == 2
    assert "slumps.parquet exists already" in outcome.err
    assert "--overwrite" in outcome.err
    assert slumps.read_text() == "mine"
    assert not (tmp_path / "map.zarr").exists()


def test_overwrites_when_told_to(rtsx_command: Command, scene: SceneFiles, bundle: Path, tmp_path: Path) -> None:
    line = ("predict", scene.image, "--sensor", "planetscope", "-m", bundle, "--out", tmp_path / "map.zarr", *FIXED)
    assert rtsx_command(*line).status == 0
    assert rtsx_command(*line).status == 2
    assert rtsx_command(*line, "--overwrite", "--float32").status == 0
    assert xr.open_zarr(tmp_path / "map.zarr")["probability"].dtype == np.float32


@pytest.mark.parametrize("place", ["/proc/rtsx/map.zarr", "{tmp}/file/map.zarr"])
def test_refuses_a_place_that_cannot_be_written(
    rtsx_command: Command, bundle: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = rtsx_command("predict", "absent.tif", "-m", bundle, "--out", place.format(tmp=tmp_path))
    assert outcome.status == 2
    assert "not writable" in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_refuses_a_read_only_folder(rtsx_command: Command, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    outcome = rtsx_command("predict", "absent.tif", "-m", bundle, "--out", folder / "map.zarr")
    assert outcome.status == 2
    assert "not writable" in outcome.err
