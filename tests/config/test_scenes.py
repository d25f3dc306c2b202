"""Scenes of a config: patterns, partners, cubes and labels."""

import re
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr

from rtsx.config import CubeConfig, open_cube
from rtsx.config.evaluate import EvaluateConfig
from rtsx.config.scenes import LabelReader, SceneConfig, expand_scenes, open_scene
from rtsx.config.training import TrainConfig
from rtsx.cube import write_cube
from rtsx.errors import ConfigError, CubeError, LabelDateWarning, LabelError, RtsxError
from rtsx.labels import IGNORED, standardise_labels, write_labels
from rtsx.synthetic import SceneFiles, SceneSpec

FILES = {
    "files": "{scene}_3B_AnalyticMS_SR.tif",
    "mask": ["{scene}_3B_udm2.tif", "tss-v1"],
    "labels": "{scene}_slumps.parquet",
}


def config(folder: Path, **fields: Any) -> SceneConfig:
    return SceneConfig.model_validate({**FILES, **fields}, context={"folder": folder})


def scenes(*entries: SceneConfig) -> tuple[SceneConfig, ...]:
    return expand_scenes(entries, labels=None, place="scenes.training")


def values(scene: SceneConfig, *, classes: dict[str, tuple[int | str, ...]] | None = None, ignore: int = 0) -> Any:
    reader = LabelReader(classes=classes or {"slump": ("slump",)}, ignore=ignore)
    cube, truth = open_scene(scene, reader)
    reader.refuse_labels_elsewhere()
    height, width = truth.shape
    return cube, truth.read((slice(0, height), slice(0, width)))


@pytest.mark.slow
def test_a_pattern_is_every_scene_that_is_there(archive: Path, scene_specs: tuple[SceneSpec, ...]) -> None:
    found = scenes(config(archive, group="Peel"))
    assert [scene.name for scene in found] == [spec.image_id for spec in scene_specs]
    assert {scene.group for scene in found} == {"Peel"}
    assert found[0].mask == (str(archive / f"{found[0].name}_3B_udm2.tif"), "tss-v1")
    assert found[0].labels is not None
    assert found[0].labels.files == (str(archive / f"{found[0].name}_slumps.parquet"),)


def test_names_choose_and_groups_follow(archive: Path, scene_specs: tuple[SceneSpec, ...]) -> None:
    names = [scene_specs[2].image_id, scene_specs[0].image_id]
    found = scenes(config(archive, names=names))
    assert [(scene.name, scene.group) for scene in found] == [(name, name) for name in names]
    (one,) = scenes(config(archive, names=names[:1], group="of {scene}"))
    assert one.group == f"of {names[0]}"


def test_a_region_may_be_a_part_of_the_path(tmp_path: Path) -> None:
    for name in ("peel/a", "horton/a"):
        for ending in ("tif", "gpkg"):
            (tmp_path / f"{name}.{ending}").parent.mkdir(exist_ok=True)
            (tmp_path / f"{name}.{ending}").touch()
    entry = {
        "cube": "{region}/{scene}.tif",
        "labels": "{region}/{scene}.gpkg",
        "group": "{region}",
        "name": "{region}-{scene}",
    }
    found = scenes(SceneConfig.model_validate(entry, context={"folder": tmp_path}))
    assert [(scene.name, scene.group) for scene in found] == [("horton-a", "horton"), ("peel-a", "peel")]


def test_missing_partners_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}_3B_AnalyticMS_SR.tif").touch()
    (tmp_path / "a_3B_udm2.tif").touch()
    with pytest.raises(
        ConfigError, match=r"scenes\.training: 3 files are missing: .*a_slumps\.parquet of a; .*b_3B_udm2\.tif of b"
    ):
        scenes(config(tmp_path))


def test_a_pattern_without_a_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scenes\.training: No path matches .*\{scene\}_3B_AnalyticMS_SR\.tif"):
        scenes(config(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cube": "a.zarr"}, "a scene has a cube or files, one of them"),
        ({"files": [], "cube": None}, "a scene has a cube or files, one of them"),
        ({"files": "a*_SR.tif"}, r"is written \{scene\}, not \*"),
        ({"files": "a.tif", "names": ["a"]}, "names say what {scene} stands for, and .*a.tif has no placeholder but that"),
        ({"labels": {"where": {"a": 1}}}, "labels are given by files, by a raster or by a review"),
        ({"labels": {"raster": "a.tif", "crs": "EPSG:4326"}}, "only files can have crs"),
        ({"labels": {"files": "a.gpkg", "ignored": [3]}}, "only a raster can have ignored"),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{scene}", r"\{scene\}")):
        config(tmp_path, **fields)


def test_a_scene_opens_with_mask_and_truth(archive: Path, scene_files: tuple[SceneFiles, ...]) -> None:
    cube, truth = values(scenes(config(archive))[0])
    assert set(cube.data_vars) >= {"blue", "green", "red", "nir", "valid"}
    with rasterio.open(scene_files[0].image) as raster:
        outlines = gpd.read_parquet(scene_files[0].truth).to_crs(raster.crs)
        wanted = rasterio.features.rasterize(outlines.geometry, out_shape=raster.shape, transform=raster.transform)
    assert wanted.any()
    assert (truth == wanted).mean() > 0.999


def test_borders_may_be_ignored(archive: Path) -> None:
    scene = scenes(config(archive))[0]
    _, plain = values(scene)
    _, banded = values(scene, ignore=2)
    assert (banded == IGNORED).any()
    assert (banded[banded != IGNORED] == plain[banded != IGNORED]).all()


def written(tmp_path: Path, files: SceneFiles, **columns: Any) -> Path:
    """The truth of a scene under other columns."""
    table = gpd.read_parquet(files.truth)
    path = tmp_path / "labels.gpkg"
    gpd.GeoDataFrame({**columns, "geometry": table.geometry.to_numpy()}, crs=table.crs).to_file(path)
    return path


def test_columns_say_what_counts_and_what_it_is(
    archive: Path, tmp_path: Path, scene_files: tuple[SceneFiles, ...]
) -> None:
    count = len(gpd.read_parquet(scene_files[0].truth))
    assert count >= 2
    kinds = ["RTS"] * (count - 1) + ["lake"]
    path = written(tmp_path, scene_files[0], kind=kinds, year=[2023] * (count - 1) + [2024])
    name = scenes(config(archive))[0].name
    two = {"slump": ("RTS",), "lake": ("lake",)}

    def truth(**labels: Any) -> Any:
        entry = config(archive, names=[name], labels={"files": str(path), **labels})
        return values(*scenes(entry), classes=two)[1]

    both = truth(class_column="kind")
    assert set(np.unique(both)) == {0, 1, 2}
    one = truth(class_column="kind", where={"year": 2023})
    assert set(np.unique(one)) == {0, 1}
    assert ((one == 1) >= (both == 1)).all()
    with pytest.raises(ConfigError, match=r"labels\.gpkg lie outside the cube of .*, or where leaves none"):
        truth(class_column="kind", where={"year": 1999})
    with pytest.raises(ConfigError, match=r"Scene .*: .*no column 'yaer'.*year"):
        truth(class_column="kind", where={"yaer": 2023})
    with pytest.raises(ConfigError, match=r"Scene .*'RTS'.*is none of the classes"):
        truth(class_column="kind", classes={"slump": ["slump"], "lake": ["lake"]})


def test_labels_without_a_class_belong_to_the_only_one(
    archive: Path, tmp_path: Path, scene_files: tuple[SceneFiles, ...]
) -> None:
    path = written(tmp_path, scene_files[0])
    name = scenes(config(archive))[0].name
    (scene,) = scenes(config(archive, names=[name], labels=str(path)))
    assert set(np.unique(values(scene)[1])) == {0, 1}
    with pytest.raises(
        ConfigError, match=r"says nothing of the class of some labels, and there are several: slump, lake"
    ):
        values(scene, classes={"slump": ("slump",), "lake": ("lake",)})


def test_labels_without_a_crs_are_refused_with_the_scenes_name(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.parquet"
    square = gpd.GeoDataFrame(geometry=[shapely.box(520_300, 7_482_400, 520_400, 7_482_500)])
    square.to_parquet(path)
    entry = config(archive, labels=str(path))
    with pytest.raises(LabelError, match=r"Scene \d{8}_\d{6}_.*CRS"):
        values(scenes(entry)[0])
    said = config(archive, labels={"files": str(path), "crs": "EPSG:32608"})
    assert (values(scenes(said)[0])[1] == 1).sum() > 1000


def test_labels_that_lie_elsewhere_are_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(10, 50, 10.1, 50.1)], crs="EPSG:4326").to_file(path)
    with pytest.raises(ConfigError, match=r"elsewhere\.gpkg lie outside the cube of \d{8}_"):
        values(scenes(config(archive, labels=str(path)))[0])


def test_mixed_geometry_is_refused_with_the_scenes_name(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.parquet"
    mixed = [shapely.box(-134.5, 67.4, -134.4, 67.5), shapely.Point(-134.5, 67.4)]
    gpd.GeoDataFrame(geometry=mixed, crs="EPSG:4326").to_parquet(path)
    with pytest.raises((ConfigError, LabelError), match=r"Scene \d{8}_.*1 of 2 rows of .*mixed\.parquet .*Point"):
        values(scenes(config(archive, labels=str(path)))[0])


@pytest.fixture
def cover(tmp_path: Path, scene_files: tuple[SceneFiles, ...]) -> Path:
    """A raster of codes on the pixels of the first scene."""
    with rasterio.open(scene_files[0].image) as image:
        profile = {"driver": "GTiff", "count": 2, "dtype": "uint8", "crs": image.crs, "transform": image.transform}
        height, width = image.shape
    codes = np.zeros((2, height, width), np.uint8)
    codes[1, :10], codes[1, 10:20], codes[1, 20:30] = 3, 4, 9
    path = tmp_path / "cover.tif"
    with rasterio.open(path, "w", height=height, width=width, **profile) as raster:
        raster.write(codes)
    return path


def test_a_raster_of_codes_is_a_truth(archive: Path, cover: Path, scene_files: tuple[SceneFiles, ...]) -> None:
    name = scenes(config(archive))[0].name
    labels = {"raster": str(cover), "band": 2, "classes": {"slump": [3, 4]}, "ignored": [9]}
    (scene,) = scenes(config(archive, names=[name], labels=labels))
    _, truth = values(scene)
    assert (truth[:20] == 1).all()
    assert (truth[20:30] == IGNORED).all()
    assert (truth[30:] == 0).all()
    other = scenes(config(archive))[1].name
    size = {"labels": labels, "files": str(scene_files[1].image), "mask": None, "name": other}
    assert open_scene(
        *scenes(config(archive, **size)), LabelReader(classes={"slump": (3,)}, ignore=0)
    )  # one grid, another day


def test_rasters_that_do_not_fit_are_refused(archive: Path, cover: Path, tmp_path: Path) -> None:
    name = scenes(config(archive))[0].name

    def truth(**labels: Any) -> Any:
        return values(*scenes(config(archive, names=[name], labels={"raster": str(cover), **labels})))

    with pytest.raises(ConfigError, match=r"classes are integers, but 'slump' is \['slump'\]"):
        truth()
    with pytest.raises(LabelError, match=r"has 2 bands, and band 3 is none of them"):
        truth(band=3, classes={"slump": [3]})
    moved = tmp_path / "moved.tif"
    with (
        rasterio.open(cover) as raster,
        rasterio.open(
            moved, "w", **{**raster.profile, "transform": raster.transform @ raster.transform.translation(0.5, 0)}
        ) as other,
    ):
        other.write(raster.read())
    with pytest.raises(LabelError, match=r"lies on the pixels of the image or map.*gdalwarp -r near"):
        truth(raster=str(moved), classes={"slump": [3]})


def timed(tmp_path: Path) -> Path:
    """A store with two days."""
    days = np.array(["2023-07-10", "2024-07-21"], "datetime64[ns]")
    y, x = np.arange(8)[::-1] * 3.0 + 1.5, np.arange(8) * 3.0 + 1.5
    red = xr.DataArray(
        np.ones((2, 8, 8), np.uint16) * np.array([1, 2], np.uint16)[:, None, None], dims=("time", "y", "x")
    )
    cube = xr.Dataset({"red": red}, coords={"time": days, "y": y, "x": x}).rio.write_crs("EPSG:3413")
    write_cube(cube, tmp_path / "timed.zarr")
    return tmp_path / "timed.zarr"


def test_one_time_of_a_cube_is_a_scene(tmp_path: Path) -> None:
    store = timed(tmp_path)
    scene = SceneConfig(cube=str(store), time="2024-07-21").scenes()[0]
    assert (scene.open()["red"].values.max(), scene.years(scene.open())) == (2, [2024])
    for time, message in (
        (None, r"2 times, and a scene has one\. Say time: 2023-07-10"),
        ("2022", r"time: 2022 picks 0 of the cube's times, which are 2023-07-10T00:00:00, 2024"),
        ("202", r"picks 2"),
    ):
        with pytest.raises(CubeError, match=message):
            SceneConfig(cube=str(store), time=time).open()


def said_of_years(labels: dict[str, list[Any]], *entries: dict[str, Any], folder: Path) -> str:
    """What is said of labels with such columns, side by side on scenes without a mask; nothing where nothing is."""
    squares = [shapely.box(10 + 30 * n, 10, 30 + 30 * n, 30) for n in range(len(next(iter(labels.values()))))]
    gpd.GeoDataFrame(labels, geometry=squares, crs="EPSG:32608").to_file(folder / "labels.gpkg")
    reader = LabelReader(classes={"slump": ()}, ignore=0)
    for one in scenes(
        *(SceneConfig.model_validate({**entry, "labels": str(folder / "labels.gpkg")}) for entry in entries)
    ):
        open_scene(one, reader)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        reader.warn_of_other_years()
    assert {one.category for one in warned} <= {LabelDateWarning}
    assert len(warned) <= 1
    return "".join(str(one.message) for one in warned)


def image(folder: Path, name: str) -> dict[str, Any]:
    profile = {"driver": "GTiff", "width": 40, "height": 20, "count": 1, "dtype": "uint8", "crs": "EPSG:32608"}
    with rasterio.open(
        folder / f"{name}.tif", "w", **profile, transform=rasterio.transform.from_origin(0, 60, 3, 3)
    ) as raster:
        raster.write(np.ones((1, 20, 40), "uint8"))
    return {"files": str(folder / f"{name}.tif"), "layers": ["red"]}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"year": [2018, 2024, 2023]}, r"^1 of 3 labels .* on 1 of 1 scenes, .*labels.gpkg of 2018 on 2024.* of 2024:"),
        ({"image_year": [2018, 2019, 2025]}, "^2 of 3 labels .* of 2018 to 2019 on "),
        (
            {"date": ["2021-02-03", "2024-07-01", None]},
            "^1 of 2 labels .* of 2021 on .* leave such labels out, of files with where",
        ),
        ({"BaseMapDate": ["2016-07-01,2023-08-31"] * 2}, "^$"),
        ({"image_date": ["2018-07-01", "2024-07-01"], "image_date_end": [None, None]}, "^1 of 2 labels .* of 2018 on "),
        ({"note": ["2018", "b"]}, "^$"),
    ],
)
def test_labels_of_other_years_than_the_images_are_said(
    tmp_path: Path, labels: dict[str, list[Any]], said: str
) -> None:
    assert re.search(said, said_of_years(labels, image(tmp_path, "20240721_200707"), folder=tmp_path))


def test_years_of_images_are_those_of_their_cube_their_time_or_their_names(tmp_path: Path) -> None:
    dated, undated = image(tmp_path, "20240721_200707"), image(tmp_path, "lena")
    labels = {"year": [2018, 2018]}
    assert not said_of_years(labels, undated, folder=tmp_path)
    assert said_of_years(labels, undated, dated, folder=tmp_path).startswith(
        "2 of 2 labels with dates, on 1 of 1 scenes"
    )
    config = tmp_path / "cube.yaml"
    source = {"files": dated["files"], "layers": ["red"], "resampling": "nearest"}
    relief = {"files": undated["files"], "layers": {"height": {"dtype": "float32"}}}
    grid = {"crs": "EPSG:32608", "resolution": 3}
    region = {"file": str(tmp_path / "20240721_200707.tif")}
    said = {"grid": grid, "region": region, "sources": {"planet": source, "relief": relief}}
    config.write_text(CubeConfig.model_validate(said).to_yaml())
    assert "on cube of 2024:" in said_of_years(labels, {"cube": str(config)}, folder=tmp_path)
    stored = open_cube(config)
    assert stored.attrs["time_coverage_start"] == stored.attrs["time_coverage_end"] == "2024-07-21"
    write_cube(stored, tmp_path / "lena.zarr")
    assert "on lena of 2024:" in said_of_years(labels, {"cube": str(tmp_path / "lena.zarr")}, folder=tmp_path)
    earlier = stored.drop_attrs(deep=False).assign_attrs(images_planet="20240721_200707", images_relief="strip")
    for ids, years in (("20190721_200707_1056", [2019]), ("relief", [])):
        one = SceneConfig(cube="lena.zarr")
        assert one.years(earlier.assign_attrs(images_relief=ids)) == (years and [2019, 2024])


def test_a_yaml_says_its_masks_itself(tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    path.write_text(CubeConfig.model_validate({"sources": {"a": {"files": "a.tif", "layers": ["red"]}}}).to_yaml())
    with pytest.raises(ConfigError, match="leave mask and sensor out here"):
        SceneConfig(cube=str(path), sensor="planetscope").open()


def test_labels_are_told_apart_by_file_and_row(
    archive: Path, tmp_path: Path, scene_files: tuple[SceneFiles, ...]
) -> None:
    def ids(scene: SceneConfig) -> frozenset[str]:
        found: frozenset[str] = open_scene(scene, LabelReader(classes={"slump": ("slump",)}, ignore=0))[1].label_ids  # type: ignore[attr-defined]
        return found

    first, second = scenes(config(archive))[:2]
    assert ids(first)
    assert ids(second)
    # All scenes lie in one place, so that labels of one file would be on both.
    assert not ids(first) & ids(second)
    shared = config(archive, labels=str(scene_files[0].truth))
    one, other = scenes(shared)[:2]
    assert ids(one) == ids(other) == ids(first)
    standard = tmp_path / "standard.parquet"
    write_labels(standardise_labels(scene_files[0].truth, class_name="slump").labels, standard)
    kept = set(gpd.read_parquet(standard)["label_id"])
    assert ids(scenes(config(archive, labels=str(standard)))[0]) <= kept


def test_a_day_is_found_among_moments_and_what_has_no_class_is_told(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.gpkg"
    squares = [shapely.box(520_300 + left, 7_482_400, 520_350 + left, 7_482_500) for left in (0, 100)]
    table = {"seen": pd.to_datetime(["2020-07-01 10:00", "2020-07-02 10:00"]), "kind": [1, 2]}
    gpd.GeoDataFrame(table, geometry=squares, crs="EPSG:32608").to_file(path)
    labels = {"files": str(path), "where": {"seen": "2020-07-02"}, "class_column": "kind", "classes": {"slump": [1, 2]}}
    (scene,) = scenes(config(archive, labels=labels))[:1]
    assert LabelReader(classes={"slump": ()}, ignore=0).truth(scene.labels, scene.open(), scene="a").count == 1
    (scene,) = scenes(config(archive, labels={"files": str(path), "class_column": "kind", "classes": {"slump": [1]}}))[
        :1
    ]
    with pytest.raises(
        LabelError,
        match=r"has the class '2', which no class means; classes mean '1'\. Add it, or leave such labels out with where",
    ):
        LabelReader(classes={"slump": ()}, ignore=0).truth(scene.labels, scene.open(), scene="a")


@pytest.mark.parametrize("kind", [TrainConfig, EvaluateConfig])
def test_trainings_and_evaluations_warn_of_labels_of_other_years(tmp_path: Path, kind: Any) -> None:
    scene = {**image(tmp_path, "20240721_200707"), "labels": str(tmp_path / "labels.gpkg")}
    squares = [shapely.box(10, 10, 30, 30)]
    gpd.GeoDataFrame({"year": [2018]}, geometry=squares, crs="EPSG:32608").to_file(tmp_path / "labels.gpkg")
    if kind is TrainConfig:
        said = TrainConfig.model_validate(
            {"id": "a", "classes": "slump", "tile": 32, "overlap": 0, "scenes": {"training": scene}}
        )
        with pytest.warns(LabelDateWarning, match="1 of 1 labels with dates"):
            said.recipe()
    else:
        predicted = EvaluateConfig(classes="slump", scenes=scene).predicted_scenes([], device="cpu")
        with pytest.warns(LabelDateWarning, match="1 of 1 labels with dates"), pytest.raises(RtsxError):
            next(predicted)
