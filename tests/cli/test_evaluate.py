"""`rtsx evaluate` and `rtsx cross-validate`: maps, outlines and models against the truth."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml

import rtsx
from rtsx.evaluation import Evaluation
from rtsx.model import ModelBundle, build_network
from rtsx.synthetic import SceneFiles
from tests.cli.trainable import trainable
from tests.footprints.conftest import make_prediction
from tests.review.reviewers import image, outlines_of, work_through

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def predicted(scene: SceneFiles, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of the small scene."""
    path = tmp_path_factory.mktemp("map") / "map.zarr"
    cube = rtsx.open_cube(str(scene.image), mask=(str(scene.udm2), "tss-v1"))
    rtsx.write_cube(rtsx.predict_cube(cube, rtsx.ModelBundle.open(bundle), device="cpu", backend="eager"), path)
    return path


def test_a_map_is_scored(rtsx_command: Command, predicted: Path, scene: SceneFiles, tmp_path: Path) -> None:
    out = tmp_path / "report"
    told = rtsx_command("evaluate", predicted, "--truth", scene.truth, "--out", out)
    assert told.status == 0, told.err
    assert "iou" in told.out
    pooled = pd.read_csv(out / "pooled.csv")
    assert {"iou", "boundary_iou", "object_f1", "average_precision"} <= set(pooled.columns)
    assert Evaluation.from_json((out / "evaluation.json").read_text()).rule.object_iou == 0.5
    lower = rtsx_command("evaluate", predicted, "--truth", scene.truth, "--threshold", "0.01", "--object-iou", "0.3")
    assert lower.status == 0, lower.err
    refused = rtsx_command("evaluate", predicted, "--truth", scene.truth, "--out", out)
    assert refused.status == 2
    assert "exists already" in refused.err


def test_a_sample_is_drawn_reviewed_and_assessed(
    rtsx_command: Command, predicted: Path, scene: SceneFiles, tmp_path: Path
) -> None:
    outlines, sample = tmp_path / "slumps.parquet", tmp_path / "sample.gpkg"
    assert rtsx_command("footprints", predicted, "--out", outlines, "--threshold", "0.3").status == 0
    draw = ("sample", "--footprints", outlines, "--map", predicted, "--near-m", "20", "--size", "60", "--out", sample)
    drawn = rtsx_command(*draw)
    assert drawn.status == 0, drawn.err
    assert "found" in drawn.err + drawn.out
    assert "exists already" in rtsx_command(*draw).err
    assert "has a verdict of" in rtsx_command("evaluate", "--sample", sample).err
    table = gpd.read_file(sample)
    truth = gpd.read_parquet(scene.truth).to_crs(table.crs).union_all()
    table["verdict"] = ["target" if point.within(truth) else "other" for point in table.geometry]
    table.to_parquet(tmp_path / "reviewed.parquet")
    out = tmp_path / "report"
    told = rtsx_command("evaluate", "--sample", tmp_path / "reviewed.parquet", "--out", out)
    assert told.status == 0, told.err
    assert "60 decided of 60" in told.err + told.out
    assert pd.read_csv(out / "estimates.csv")["measure"].tolist() == ["precision", "recall", "area_m2"]
    assert (out / "strata.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "accuracy.json").read_text())["design"] == "ground"
    of_outlines = rtsx_command("sample", "--footprints", outlines, "--size", "9", "--out", tmp_path / "few.parquet")
    assert of_outlines.status == 0, of_outlines.err
    # Reviewed, it gives each outline of the map a class.
    few = gpd.read_parquet(tmp_path / "few.parquet")
    few.assign(verdict="target").to_parquet(tmp_path / "few.parquet")
    rule, classed = tmp_path / "rule.json", tmp_path / "classed.parquet"
    words = ("evaluate", "--sample", tmp_path / "few.parquet", "--confidence-rule", rule)
    derived = rtsx_command(*words, "--precision-floor", "0.3")
    assert derived.status == 0, derived.err
    assert "precision at least 0.3" in derived.out
    assert "exists already" in rtsx_command(*words).err
    outlined = rtsx_command("footprints", predicted, "--out", classed, "--confidence-rule", rule)
    assert outlined.status == 0, outlined.err
    assert set(gpd.read_parquet(classed)["confidence_class"].dropna()) <= {"high_confidence", "candidate"}
    assert gpd.read_parquet(classed)["confidence_class"].notna().any()


@pytest.mark.parametrize("name", ["area.zarr", "area.tif", "area.csv", "area.parquet"])
def test_expected_area_is_summed_by_cells(rtsx_command: Command, predicted: Path, tmp_path: Path, name: str) -> None:
    from rtsx.evaluation import expected_area

    out = tmp_path / name
    told = rtsx_command("area", predicted, "--cell-m", "200", "--out", out)
    assert told.status == 0, told.err
    expected = expected_area(rtsx.open_cube(predicted), cell_m=200)["expected_area_m2"]
    if out.suffix == ".zarr":
        total = rtsx.open_cube(out)["expected_area_m2"].sum().values
    elif out.suffix == ".tif":
        with rasterio.open(out) as raster:
            assert raster.res == (200, 200)
            total = raster.read(1).sum()
    else:
        table = pd.read_csv(out) if out.suffix == ".csv" else pd.read_parquet(out)
        assert table[["lon", "lat"]].notna().all(axis=None)
        total = table["expected_area_m2"].sum()
    assert total == pytest.approx(expected.sum().item())
    assert "exists already" in rtsx_command("area", predicted, "--out", out).err


def test_commands_take_one_year_of_a_map_of_several(rtsx_command: Command, tmp_path: Path) -> None:
    level = np.full((2, 60, 80), 10)
    level[0, 20:40, 30:50] = level[1, 5:25, 30:60] = level[1, 40:55, 10:25] = 80
    pred = make_prediction(level)
    years = pred.assign_coords(time=np.array(["2023-08-01", "2024-08-01"], "datetime64[ns]"))
    several = rtsx.write_cube(years, tmp_path / "years.zarr")
    alone = rtsx.write_cube(years.isel(time=1), tmp_path / "alone.zarr")
    outlines = tmp_path / "slumps.parquet"
    lines: dict[str, tuple[object, ...]] = {
        "slumps.parquet": ("footprints", "MAP"),
        "scores": ("evaluate", "MAP", "--truth", outlines, "--bootstrap", "0"),
        "choice": ("evaluate", "MAP", "--truth", outlines, "--choose"),
        "area.csv": ("area", "MAP"),
        "sample.parquet": ("sample", "--map", "MAP", "--footprints", outlines, "--size", "60", "--near-m", "20"),
    }
    for name, words in lines.items():
        out = tmp_path / name
        line = (*(several if word == "MAP" else word for word in words), "--out", out)
        refused = rtsx_command(*line)
        assert refused.status == 2, name
        assert "holds 2023, 2024: say which, such as --year 2023" in said(refused.err)
        assert "holds 2023, 2024." in said(rtsx_command(*line, "--year", "2022").err)
        told = rtsx_command(*line, "--year", "2024")
        assert told.status == 0, told.err
        found = [file.read_bytes() for file in (sorted(out.iterdir()) if out.is_dir() else [out])]
        same = rtsx_command(*(alone if word == "MAP" else word for word in words), "--out", out, "--overwrite")
        assert same.status == 0, same.err
        assert found == [file.read_bytes() for file in (sorted(out.iterdir()) if out.is_dir() else [out])], name
    assert "no year" in said(
        rtsx_command(
            "area", rtsx.write_cube(pred.isel(time=0), tmp_path / "no.zarr"), "--year", "2024", "--out", "a.csv"
        ).err
    )
    dates = pred.assign_coords(time=np.array(["2024-07-01", "2024-08-01"], "datetime64[ns]"))
    summer = rtsx.write_cube(dates, tmp_path / "dates.zarr")
    refused = rtsx_command("area", summer, "--out", tmp_path / "no.csv")
    assert "2 dates of 2024, and this takes one map: 2024-07-01, 2024-08-01" in said(refused.err)
    assert rtsx_command("footprints", summer, "--year", "2024", "--out", outlines, "--overwrite").status == 0
    assert gpd.read_parquet(outlines)["date"].nunique() == 2


@pytest.mark.parametrize("times", [[2023, 2024], ["2023", "2024-08-01"]])
def test_a_year_is_found_however_it_is_written(rtsx_command: Command, tmp_path: Path, times: list[int | str]) -> None:
    level = np.full((2, 60, 80), 10)
    level[1, 20:40, 30:50] = 80
    several = rtsx.write_cube(make_prediction(level).assign_coords(time=times), tmp_path / "years.zarr")
    out = tmp_path / "slumps.parquet"
    assert "holds 2023, 2024: say which" in said(rtsx_command("footprints", several, "--out", out).err)
    made = rtsx_command("footprints", several, "--year", "2024", "--out", out)
    assert made.status == 0, made.err
    scored = rtsx_command("evaluate", out, "--truth", out, "--bootstrap", "0")
    assert (scored.status, "Warning" in scored.err) == (0, False)
    gpd.read_parquet(out).assign(date=pd.Timestamp("2019-07-01"), year=2019).to_parquet(tmp_path / "older.parquet")
    for evaluated in ((out,), (several, "--year", "2024")):
        warned = rtsx_command("evaluate", *evaluated, "--truth", tmp_path / "older.parquet", "--bootstrap", "0")
        assert (
            warned.err.count("The truth is of 2019, and the prediction of 2024: what has changed between counts") == 1
        )
    line = ("sample", "--map", several, "--year", "2024", "--footprints", out, "--size", "9")
    assert rtsx_command(*line, "--out", tmp_path / "sample.parquet").status == 0
    assert set(gpd.read_parquet(out)["year"]) == {2024}


def said(printed: str) -> str:
    """What a message says, without its frame."""
    return " ".join(printed.replace("│", " ").split())


def test_threshold_and_least_area_are_chosen_by_objects(
    rtsx_command: Command, predicted: Path, bundle: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "slumps.parquet"  # what it finds itself, because the small scene has none
    assert (
        rtsx_command("footprints", predicted, "--out", truth, "--threshold", "0.5", "--min-area-m2", "1000").status == 0
    )
    told = rtsx_command("evaluate", predicted, "--truth", truth, "--choose", "--out", tmp_path / "report")
    assert told.status == 0, told.err
    assert "best: threshold" in told.out
    table = pd.read_csv(tmp_path / "report" / "choice.csv")
    assert table["object_f1"].max() == 1
    again = rtsx_command(
        "evaluate", predicted, "--truth", truth, "--choose", "--model", bundle, "--save-model", tmp_path / "chosen"
    )
    assert again.status == 0, again.err
    chosen = ModelBundle.open(tmp_path / "chosen")
    assert chosen.outlines is not None
    assert f"threshold {chosen.outlines.threshold:g}, least area {chosen.outlines.min_area_m2:g} m" in told.out
    assert chosen.threshold == ModelBundle.open(bundle).threshold
    words = ("evaluate", predicted, "--truth", truth, "--choose", "--save-model", tmp_path / "more")
    assert "and one --model" in " ".join(rtsx_command(*words).err.replace("│", " ").split())
    other = rtsx_command(*words, "--model", tmp_path / "chosen")
    assert "Name the model" in " ".join(other.err.replace("│", " ").split())
    assert not (tmp_path / "more").exists()
    refused = rtsx_command("evaluate", predicted, "--truth", truth, "--choose", "--threshold", "0.5")
    assert refused.status == 2
    assert "--threshold has no meaning here" in " ".join(refused.err.split())


@pytest.mark.parametrize("design", ["ground", "outlines"])
def test_a_review_of_a_sample_is_assessed(rtsx_command: Command, tmp_path: Path, design: str) -> None:
    from rtsx.review import create_review, merge_review

    drawn = outlines_of(40)
    if design == "ground":
        drawn = drawn.set_geometry(drawn.centroid)
    sample = drawn.assign(
        sample_id=[f"s{n}" for n in range(40)],
        design=design,
        region="",
        stratum="all",
        mapped=True,
        stratum_size=500.0,
        inclusion_probability=0.08,
        verdict=None,
    )
    made = create_review(sample, str(tmp_path / "review"), cubes={"2024": "c"}, opener=lambda _: image(), repeats=0.0)
    work_through(made, "ada")
    told = rtsx_command("evaluate", "--sample", tmp_path / "review")
    assert told.status == 0, told.err
    expected = (merge_review(made).outlines["verdict"] == "target").mean()
    assert f"{expected:.3g}" in told.out
    assert rtsx_command("evaluate", "--sample", tmp_path / "nothing").status == 2


def test_options_of_the_other_design_are_refused(rtsx_command: Command, tmp_path: Path) -> None:
    rest = ("--footprints", "slumps.parquet", "--size", "60", "--out", tmp_path / "sample.parquet")
    for words, message in (
        (("--design", "ground"), "say --map map.zarr"),
        (("--design", "outlines", "--map", "map.zarr"), "no meaning for --design outlines"),
        (("--map", "map.zarr", "--region", "place"), "no meaning for --design ground"),
        (("--near-m", "5"), "no meaning for --design outlines"),
        (("--confidence-edges", "high"), "expected numbers separated by commas"),
    ):
        told = rtsx_command("sample", *rest, *words)
        assert told.status == 2
        assert message in " ".join(told.err.replace("│", " ").split())
    for words, message in (
        ((), "name a map, outlines or a YAML file"),
        (("map.zarr", "--sample", "s.gpkg"), "has no meaning here"),
        (("--sample", "s.gpkg", "--truth", "t.gpkg"), "--truth has no meaning here"),
        (("--sample", "s.gpkg", "--choose"), "--choose has no meaning here"),
        (("--sample", "s.gpkg", "--device", "cuda:7"), "--device has no meaning here"),
    ):
        told = rtsx_command("evaluate", *words)
        assert told.status == 2
        assert message in " ".join(told.err.replace("│", " ").split())


def test_options_that_mean_nothing_are_refused(rtsx_command: Command, predicted: Path, scene: SceneFiles) -> None:
    for words, message in (
        ((predicted,), "say --truth labels.gpkg"),
        ((predicted, "--truth", scene.truth, "--model", "demo"), "--model has no meaning here"),
        ((predicted, "--truth", scene.truth, "--device", "cpu"), "--device has no meaning here"),
        ((scene.truth, "--truth", scene.truth, "--threshold", "0"), "--threshold has no meaning here"),
        ((scene.truth, "--truth", scene.truth, "--boundary", "5"), "--boundary has no meaning here"),
        (("scenes.yaml", "--truth", scene.truth), "--truth has no meaning here"),
        (("scenes.yaml", "--year", "2021"), "each scene of the YAML file says its own, as time: 2021"),
        (("scenes.yaml",), "say --model BUNDLE"),
    ):
        told = rtsx_command("evaluate", *words)
        assert told.status == 2
        assert message in " ".join(told.err.replace("│", " ").split())


@pytest.mark.filterwarnings("default::rtsx.errors.TruthWarning")
def test_a_truth_is_a_raster_or_one_class_of_several(rtsx_command: Command, tmp_path: Path) -> None:
    level = np.full((60, 80), 10)
    level[20:40, 30:50] = 80
    pred = make_prediction(level)
    map_, raster, table = rtsx.write_cube(pred, tmp_path / "map.zarr"), tmp_path / "truth.tif", tmp_path / "labels.gpkg"
    codes = np.zeros((2, 60, 80), np.uint8)
    codes[0, 20:40, 30:50], codes[1, :20], codes[1, 20:40, 30:40], codes[1, 20:40, 40:50] = 1, 9, 7, 2
    place = {"crs": "EPSG:3413", "transform": pred.rio.transform(), "dtype": "uint8"}
    with rasterio.open(raster, "w", driver="GTiff", height=60, width=80, count=2, **place) as file:
        file.write(codes)

    def scored(*words: object) -> tuple[float, float, str]:
        told = rtsx_command("evaluate", *words, "--out", tmp_path / "report", "--overwrite", "--bootstrap", "0")
        assert told.status == 0, told.err
        row = pd.read_csv(tmp_path / "report" / "pooled.csv").iloc[0]
        return row["iou"], row["evaluated_px" if "evaluated_px" in row else "evaluated_m2"], told.err

    assert scored(map_, "--truth", raster)[:2] == (1, 4800)
    assert rtsx.evaluate(rtsx.open_cube(map_), raster).pooled["iou"][0] == 1
    assert scored(map_, "--truth", raster, "--band", "2", "--class-value", "2,7")[:2] == (1, 4800)
    assert scored(map_, "--truth", raster, "--band", "2", "--class-value", "7", "--ignored", "9")[:2] == (0.5, 3200)
    assert "nothing can be missed" in scored(map_, "--truth", raster, "--band", "2", "--class-value", "3")[2]
    chosen = rtsx_command("evaluate", map_, "--truth", raster, "--choose")
    assert (chosen.status, "best: threshold" in chosen.out) == (0, True), chosen.err

    outlines = rtsx.extract_footprints(pred)
    labels = pd.concat([outlines, outlines.assign(geometry=outlines.translate(0, 60))])[["geometry"]]
    labels.assign(kind=["slump", "pond"], other="x").to_file(table)
    for evaluated in (map_, rtsx.footprints.write_footprints(outlines, tmp_path / "slumps.parquet")):
        told = rtsx_command("evaluate", evaluated, "--truth", table, "--class-column", "kind", "--class-value", "mud")
        assert "there are pond (1), slump (1)" in said(told.err)
        assert "it has kind, other" in said(
            rtsx_command("evaluate", evaluated, "--truth", table, "--class-column", "c").err
        )
        line = (evaluated, "--truth", table, "--class-column", "kind")
        assert scored(*line)[0] == pytest.approx(1)  # because one has the name of the map's class
        assert scored(*line, "--class-value", "slump")[0] == pytest.approx(1)
    labels.assign(class_name=["rts", "pond"]).to_file(table)
    refused = said(rtsx_command("evaluate", evaluated, "--truth", table).err)
    assert "several classes, pond (1), rts (1), and 'slump' is evaluated" in refused
    assert scored(evaluated, "--truth", table, "--class-value", "rts")[0] == pytest.approx(1)
    for words, message in (
        ((map_, "--truth", table, "--band", "2"), "--band has no meaning here, because"),
        ((map_, "--truth", raster, "--crs", "EPSG:4326"), "--crs has no meaning here, because"),
        ((map_, "--truth", raster, "--class-value", "rts"), "values of a raster are integers"),
        ((map_, "--truth", raster, "--band", "3"), "has 2 bands, and band 3 is none of them"),
        ((map_, "--truth", raster, "--class", "rts"), "is of slump"),
        ((evaluated, "--truth", raster), "evaluate the map that they are of"),
        ((map_, "--truth", raster, "--map", map_), "--map has no meaning here"),
    ):
        told = rtsx_command("evaluate", *words)
        assert (told.status, message in said(told.err)) == (2, True), told.err
    smaller = rtsx.write_cube(pred.isel(y=slice(10, 60)), tmp_path / "smaller.zarr")
    told = said(rtsx_command("evaluate", smaller, "--truth", raster).err)
    assert "gdalwarp -r near -t_srs EPSG:3413 -te -1999998 2820 -1999758 2970 -ts 80 50 OLD NEW" in told
    assert "'scene'" not in told


@pytest.mark.filterwarnings("default::rtsx.errors.TruthWarning")
def test_truth_where_nothing_was_mapped_is_left_out(rtsx_command: Command, tmp_path: Path) -> None:
    level = np.full((60, 80), 10)
    level[20:40, 30:50] = 80
    pred = make_prediction(level, valid=np.arange(80)[None, :] + np.zeros((60, 1)) < 60)
    found = rtsx.extract_footprints(pred)
    map_, outlines = rtsx.write_cube(pred, tmp_path / "map.zarr"), tmp_path / "slumps.parquet"
    rtsx.footprints.write_footprints(found, outlines)
    # One that was found; one beyond the map; one on its pixels that are not valid; one half on them, which was missed.
    shifts = [(0, 0), (3000, 0), (90, 30), (51, 30)]
    truth = pd.concat([found.assign(geometry=found.translate(*shift)) for shift in shifts])[["geometry"]]
    truth.to_crs(4326).to_file(tmp_path / "truth.gpkg")
    gpd.GeoDataFrame(geometry=[found.union_all().envelope.buffer(9)], crs=found.crs).to_file(tmp_path / "ground.gpkg")

    def objects(*words: object) -> tuple[list[int], str]:
        line = ("evaluate", outlines, "--truth", tmp_path / "truth.gpkg", *words, "--bootstrap", "0")
        told = rtsx_command(*line, "--out", tmp_path / "report", "--overwrite")
        assert told.status == 0, told.err
        row = pd.read_csv(tmp_path / "report" / "pooled.csv").iloc[0]
        return [int(row[f"objects_{name}"]) for name in ("true", "found", "matched")], said(told.err)

    counted, warned = objects()
    assert counted == [4, 1, 1]
    assert (
        "2 of 4 outlines of the truth lie outside the rectangle around all that was found, and count as missed"
        in warned
    )
    assert "say with --map what was" in warned
    assert objects("--map", map_) == ([2, 1, 1], "")
    assert objects("--map", tmp_path / "ground.gpkg")[0] == [2, 1, 1]
    with pytest.raises(rtsx.errors.EvaluationError, match="which says itself which ground is valid"):
        rtsx.evaluate(pred, truth.set_crs(found.crs), mapped=pred)
    elsewhere = pred.assign_coords(x=pred["x"] + 9000)
    with pytest.raises(rtsx.errors.EvaluationError, match=r"^No outline, found or true, lies on the ground"):
        rtsx.evaluate(found, truth.set_crs(found.crs), mapped=elsewhere)


@pytest.fixture(scope="module")
def config(training_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable(tmp_path_factory.mktemp("training"), training_scenes, epochs=1)


def test_outlines_are_scored(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    truth = next((config.parent / "data" / "region0").glob("*_slumps.parquet"))
    gpd.read_parquet(truth)[["geometry"]].to_file(tmp_path / "found.gpkg")
    told = rtsx_command("evaluate", tmp_path / "found.gpkg", "--truth", truth, "--out", tmp_path / "report")
    assert told.status == 0, told.err
    assert pd.read_csv(tmp_path / "report" / "pooled.csv")["iou"][0] == pytest.approx(1, abs=1e-6)


def test_scenes_of_a_file_are_predicted_and_scored(
    rtsx_command: Command, config: Path, bundle: Path, tmp_path: Path
) -> None:
    scenes = yaml.safe_load(config.read_text())["scenes"]["training"]
    path = config.parent / "evaluate.yaml"
    path.write_text(yaml.safe_dump({"classes": "slump", "scenes": scenes, "object_iou": 0.4, "bootstrap": 20}))
    out = tmp_path / "report"
    words = ("evaluate", path, "--model", bundle, "--out", out, "--boundary", "2", "--device", "cpu")
    told = rtsx_command(*words)
    assert told.status == 0, told.err
    assert set(pd.read_csv(out / "regions.csv")["region"]) == {"region0", "region1"}
    assert len(pd.read_csv(out / "scenes.csv")) == 4
    rule = json.loads((out / "evaluation.json").read_text())["rule"]
    assert (rule["object_iou"], rule["boundary"], rule["bootstrap"]) == (0.4, 2, 20)


def test_a_model_of_more_classes_is_scored_for_those_of_the_file(
    rtsx_command: Command, config: Path, tmp_path: Path
) -> None:
    scenes = yaml.safe_load(config.read_text())["scenes"]["training"]
    path = config.parent / "evaluate.yaml"
    options = {"encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": (16, 8, 8), "in_channels": 4}
    network = build_network("Unet", {**options, "classes": 3})
    made = ModelBundle.from_module(
        network, layers=("blue", "green", "red", "nir"), tile=64, overlap=32, classes=("background", "slump", "lake")
    )
    made.save(tmp_path / "three")
    words = ("evaluate", path, "--model", tmp_path / "three", "--device", "cpu")
    path.write_text(yaml.safe_dump({"classes": "slump", "scenes": scenes}))
    for more in ((), ("--choose",)):
        told = rtsx_command(*words, *more, "--out", tmp_path / "report", "--overwrite")
        assert told.status == 0, told.err
    path.write_text(yaml.safe_dump({"classes": ["slump", "lake"], "scenes": scenes}))
    refused = " ".join(rtsx_command(*words).err.split())
    assert "Name the column that does with class_column, or leave them out with where" in refused


@pytest.mark.slow
def test_regions_are_left_out_one_by_one(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "folds"
    line = ("--device", "cpu", "--no-plot", "--validation", "0", "--object-iou", "0.4", "--min-area-m2", "288")
    told = rtsx_command("cross-validate", config, "--out", out, *line)
    assert told.status == 0, told.err
    table = pd.read_csv(out / "table.csv")
    assert set(table["region"]) == {"region0", "region1", "all"}
    assert set(table["trained_on"]) == {"all others"}
    assert set(pd.read_csv(out / "matrix.csv").columns[1:]) == {"region0", "region1"}
    rule = json.loads((out / "plan.json").read_text())["rule"]
    assert (rule["object_iou"], rule["min_object_area_m2"]) == (0.4, 288.0)
    alone = rtsx_command("cross-validate", config, "--out", out, "--held-out", "0.5")
    assert alone.status == 2
    assert "whole groups are tested without --transfer" in " ".join(alone.err.replace("│", " ").split())
    refused = rtsx_command("cross-validate", config, "--out", out, "--folds", "2", "--transfer")
    assert refused.status == 2
    assert "the matrix has a row for each group" in " ".join(refused.err.replace("│", " ").split())
