"""The config of a training: what it means, what it refuses, and that it comes back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import jsonschema
import pytest
import shapely
import yaml

from rtsx.config import load_train_config, load_training_recipe, train_bundle, training_schema
from rtsx.errors import ConfigError, OutputExistsError, TrainingError, TruthWarning
from rtsx.evaluation import EvaluationScene, choose_objects
from rtsx.inference import predict_cube
from rtsx.model import InputLayer, ModelBundle, preset_named
from rtsx.synthetic import SceneSpec
from rtsx.training import (
    AugmentationSpec,
    LossTerm,
    NetworkSpec,
    OptimisationSpec,
    SamplingSpec,
    TrainingRecipe,
    read_run,
)

# All scenes of the archive lie in one place.
pytestmark = pytest.mark.filterwarnings("ignore:.*show the same ground:rtsx.errors.TruthWarning")
BANDS = ["blue", "green", "red", "nir"]
SMALL = {
    "architecture": "Unet",
    "encoder": "tu-test_resnet",
    "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
}


@pytest.fixture
def values(archive: Path) -> dict[str, Any]:
    """A whole config of a small training on all four scenes."""
    return {
        "id": "small",
        "classes": "slump",
        "model": SMALL,
        "inputs": {"layers": {name: {"range": [0, 0.5], "units": "reflectance"} for name in BANDS}},
        "tile": 32,
        "overlap": 8,
        "scenes": {
            "training": {
                "files": f"{archive}/{{scene}}_3B_AnalyticMS_SR.tif",
                "mask": [f"{archive}/{{scene}}_3B_udm2.tif", "tss-v1"],
                "labels": f"{archive}/{{scene}}_slumps.parquet",
            },
            "split": {"validation": 0.25},
        },
        "epochs": 1,
        "steps_per_epoch": 1,
        "batch_size": 2,
    }


@pytest.fixture
def two_scenes(values: dict[str, Any], scene_specs: tuple[SceneSpec, ...]) -> dict[str, Any]:
    """The same with two of the scenes, for what is trained."""
    training = {**values["scenes"]["training"], "names": [spec.image_id for spec in scene_specs[:2]]}
    return {**values, "scenes": {"training": training, "split": {"validation": 0.5}}}


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.slow
def test_a_file_becomes_the_recipe_that_it_means(
    tmp_path: Path, values: dict[str, Any], scene_specs: tuple[SceneSpec, ...]
) -> None:
    said = {
        "sampling": {"negatives": 1, "final_negatives": 20, "jitter": False, "min_valid": 0.5, "ignore": 2},
        "augment": ["HorizontalFlip", {"Blur": {"probability": 0.1}}, {"VerticalFlip": 0.25}],
        "loss": {"FocalLoss": {"gamma": 3, "weight": 2}, "DiceLoss": 0.5},
        "optimiser": {"AdamW": {"weight_decay": 0.02}},
        "learning_rate": 0.003,
        "schedule": {"StepLR": {"step_size": 4, "gamma": 0.5}},
        "warmup": 0.1,
        "gradient_clip": 1,
        "ema": 0.999,
        "precision": "bfloat16",
        "patience": 5,
        "seeds": [7],
        "fill": 0.5,
    }
    recipe = load_training_recipe(write(tmp_path, {**values, **said}))
    names = [spec.image_id for spec in scene_specs]
    learnt, chosen = ([scene.name for scene in scenes] for scenes in (recipe.training, recipe.validation))
    assert sorted(learnt + chosen) == names
    assert len(chosen) == 1
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    wanted = TrainingRecipe(
        id="small",
        training=recipe.training,
        validation=recipe.validation,
        classes=("slump",),
        inputs=tuple(InputLayer.from_range(name, 0, 0.5, clip=False, units="reflectance") for name in BANDS),
        fill=0.5,
        tile=32,
        overlap=8,
        network=NetworkSpec(architecture="Unet", encoder="tu-test_resnet", options=options),
        sampling=SamplingSpec(negatives=1, final_negatives=20, jitter=False, min_valid=0.5),
        augmentations=(
            AugmentationSpec(name="HorizontalFlip"),
            AugmentationSpec(name="Blur", probability=0.1),
            AugmentationSpec(name="VerticalFlip", probability=0.25),
        ),
        losses=(LossTerm(name="FocalLoss", weight=2, options={"gamma": 3}), LossTerm(name="DiceLoss", weight=0.5)),
        optimisation=OptimisationSpec(
            optimiser_options={"weight_decay": 0.02}, learning_rate=0.003, schedule="StepLR",
            schedule_options={"step_size": 4, "gamma": 0.5}, warmup=0.1, gradient_clip=1, ema=0.999, precision="bfloat16",
        ),
        epochs=1, steps_per_epoch=1, batch_size=2, patience=5, seed=7,
    )  # fmt: skip
    assert replace(recipe, provenance={}) == wanted
    assert recipe.training[0].truth.ignore == 2  # type: ignore[attr-defined]


def test_what_is_not_said_is_what_a_recipe_says(tmp_path: Path, values: dict[str, Any]) -> None:
    bare = {key: values[key] for key in ("id", "classes", "scenes")}
    recipe = load_training_recipe(write(tmp_path, bare))
    usual = TrainingRecipe(id="small", training=recipe.training, validation=recipe.validation, classes=("slump",))
    assert replace(recipe, provenance={}) == usual


def test_a_config_comes_back_with_everything_said(tmp_path: Path, values: dict[str, Any]) -> None:
    path = write(tmp_path, {**values, "loss": ["DiceLoss", {"FocalLoss": 2}], "augment": "Blur", "seeds": 3})
    config = load_train_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(config.resolved().to_yaml())
    read = load_train_config(again)
    assert read == config.resolved() == read.resolved()
    assert [scene.name for scene in load_training_recipe(again).training] == [
        scene.name for scene in load_training_recipe(path).training
    ]


def test_what_is_remembered_holds_no_folder_of_the_maker(tmp_path: Path, values: dict[str, Any], archive: Path) -> None:
    (tmp_path / "data").symlink_to(archive)
    relative = json.loads(json.dumps(values).replace(str(archive), "data"))
    remembered = load_training_recipe(write(tmp_path, relative)).provenance["config"]
    assert isinstance(remembered, dict)
    assert str(tmp_path) not in json.dumps(remembered)
    assert remembered["scenes"]["training"][0]["files"][0].startswith("data/")
    assert remembered["seeds"] == [0]


def test_a_preset_scales_and_names_itself(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = load_training_recipe(
        write(tmp_path, {**values, "inputs": {"preset": "tss-v1", "layers": ["ndvi", *BANDS]}})
    )
    assert recipe.preset == "tss-v1"
    assert recipe.inputs == preset_named("tss-v1").inputs_for(["ndvi", *BANDS])
    ten = load_train_config(write(tmp_path, {**values, "inputs": {"preset": "tss-v1"}})).inputs
    assert ten is not None
    assert len(ten.names) == 10


def test_layers_alone_are_measured_in_their_order(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = load_training_recipe(write(tmp_path, {**values, "inputs": ["nir", "red"]}))
    assert recipe.inputs is None
    assert [str(name) for name in recipe.training[0].cube.data_vars if name != "valid"] == ["nir", "red"]
    with pytest.raises(
        ConfigError, match=r"Scene .* has no layers \['slope'\]; it has \['blue', 'green', 'red', 'nir'\]"
    ):
        load_training_recipe(write(tmp_path, {**values, "inputs": ["nir", "slope"]}))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path, values: dict[str, Any]) -> None:
    wrong = {
        **values,
        "lerning_rate": 0.1,
        "tile": 33,
        "loss": {"DiceLos": 1},
        "augment": ["HorizontalFlipp"],
        "optimiser": {"AdamW": {"weight_decy": 1}},
        "seeds": [],
        "epochs": 0,
    }
    wrong["sampling"] = {"negative": 3}
    with pytest.raises(ConfigError) as caught:
        load_train_config(write(tmp_path, wrong))
    text = str(caught.value)
    for message in (
        "train.yaml has 8 errors",
        "lerning_rate: unknown key; did you mean 'learning_rate'?",
        "tile: a tile is a multiple of the network's stride, 8 px; got 33. Take 32",
        "loss: There is no loss 'DiceLos'. Did you mean 'DiceLoss'?",
        "augment: There is no augmentation 'HorizontalFlipp'. Did you mean 'HorizontalFlip'?",
        "optimiser: AdamW has no option 'weight_decy'",
        "Did you mean 'weight_decay'?",
        "seeds: seeds are at least one number, each once; got []",
        "epochs: input should be greater than 0; got '0'",
        "sampling.negative: unknown key; did you mean 'negatives'?",
    ):
        assert message in text
    assert text.count("line ") == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {**SMALL, "architecture": "Unett"}}, r"model: The network cannot be built.*Did you mean 'Unet'"),
        ({"model": {**SMALL, "encoder": "resnet19"}}, r"model: The network cannot be built"),
        ({"overlap": 32}, "overlap: an overlap is less than the tile, 32 px; got 32"),
        ({"classes": []}, "classes: A truth has 1 to 254 classes"),
        ({"classes": ["background", "slump"]}, "classes: background is what no class is"),
        ({"seeds": [1, 1]}, "seeds: seeds are at least one number, each once"),
        ({"schedule": {"StepLR": {}}}, r"schedule: Schedule 'StepLR' needs the options \['step_size'\]"),
        ({"schedule": ["cosine", "StepLR"]}, "schedule: expected one name; got cosine, StepLR"),
        ({"loss": {"DiceLoss": [1]}}, "loss: DiceLoss takes options such as"),
        ({"loss": ["DiceLoss", "DiceLoss"]}, "loss: DiceLoss is named twice"),
        ({"sampling": {"negatives": 0, "final_negatives": 3}}, "sampling: negatives have to be above 0"),
        ({"inputs": {"layers": {"red": {"range": [1, 0]}}}}, r"inputs.layers.red: range is \[low, high\] with low < high"),
        ({"inputs": {"layers": {"red": {"range": [0, 1]}, "nir": None}}}, "inputs: either all layers are scaled here or none"),
        ({"inputs": {"preset": "tss-v1", "layers": {"red": {"range": [0, 1]}}}}, "inputs: the preset scales all layers"),
        ({"inputs": {"preset": "tss-v1", "layers": ["rad"]}}, "inputs: Unknown layer 'rad'.*Did you mean 'red'"),
        ({"inputs": {"preset": "darts-v2"}}, "inputs: inputs need layers"),
        ({"inputs": {"layers": {"red": {"mean": 1}}}}, "inputs.layers.red: a layer has a range, or mean and std"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_key(
    tmp_path: Path, values: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)train\.yaml.*line \d+, {message}"):
        load_train_config(write(tmp_path, {**values, **fields}))


def test_scenes_of_one_group_stay_in_one_set(
    tmp_path: Path, values: dict[str, Any], scene_specs: tuple[SceneSpec, ...]
) -> None:
    entry = values["scenes"]["training"]
    names = [spec.image_id for spec in scene_specs]
    sets = {
        "training": {**entry, "names": names[:2], "group": "Peel"},
        "validation": {**entry, "names": names[2:], "group": "Peel"},
    }
    with pytest.raises(ConfigError, match=r"scenes: Peel stands in training and in validation.*give them other groups"):
        load_training_recipe(write(tmp_path, {**values, "scenes": sets}))
    sets["validation"] = {**entry, "names": names[:1]}
    with pytest.raises(ConfigError, match=r"scenes: two scenes are called|stands in"):
        load_training_recipe(write(tmp_path, {**values, "scenes": sets}))
    with pytest.raises(ConfigError, match="scenes are split, or validation and test are listed"):
        load_train_config(write(tmp_path, {**values, "scenes": {**sets, "split": {}}}))


def test_labels_are_said_once_or_by_each_scene(tmp_path: Path, values: dict[str, Any], archive: Path) -> None:
    entry = {key: value for key, value in values["scenes"]["training"].items() if key != "labels"}
    bare = {**values, "scenes": {**values["scenes"], "training": entry}}
    with pytest.raises(ConfigError, match=r"scenes\.training: scene .* has no labels; say labels there, or once"):
        load_training_recipe(write(tmp_path, bare))
    whole = {**bare, "labels": f"{archive}/{{scene}}_slumps.parquet"}
    assert len(load_training_recipe(write(tmp_path, whole)).training) == 3


def test_the_schema_knows_every_spelling(tmp_path: Path, values: dict[str, Any]) -> None:
    schema = training_schema()
    for fields in ({}, {"loss": "DiceLoss"}, {"loss": {"DiceLoss": 0.5, "FocalLoss": {"gamma": 2}}}, {"inputs": BANDS},
                   {"augment": ["Blur", {"Rotate": 0.5}]}, {"seeds": 3}, {"classes": {"slump": [1, "RTS"]}}):  # fmt: skip
        jsonschema.validate({**values, **fields}, schema)
        load_train_config(write(tmp_path, {**values, **fields}))
    with pytest.raises(jsonschema.ValidationError, match="lerning_rate"):
        jsonschema.validate({**values, "lerning_rate": 1}, schema)


@pytest.mark.slow
def test_a_config_is_trained(tmp_path: Path, values: dict[str, Any], scene_specs: tuple[SceneSpec, ...]) -> None:
    values = values | {"choose": "objects"}
    path = write(tmp_path, values)
    out = tmp_path / "run"
    (run,) = train_bundle(path, out, device="cpu")
    assert run.bundle == ModelBundle.open(out / "bundle")
    assert run.bundle.outlines is not None
    scenes = [
        EvaluationScene(
            name=one.name,
            truth=one.truth,
            prediction=predict_cube(one.cube, run.bundle, tile="bundle", overlap="bundle"),
        )
        for one in load_training_recipe(path).validation
    ]
    assert choose_objects(scenes).outlines == run.bundle.outlines
    assert run.bundle.layers == tuple(BANDS)
    assert (out / "report.html").is_file()
    assert load_train_config(out / "config.yaml") == load_train_config(path).resolved()
    assert run.bundle.provenance["config"]["id"] == "small"  # type: ignore[index]
    kept = (out / "config.yaml").read_text()
    with pytest.raises(OutputExistsError, match="holds a finished training"):
        train_bundle(write(tmp_path, {**values, "learning_rate": 0.5}), out, device="cpu")
    assert (out / "config.yaml").read_text() == kept
    write(tmp_path, values)
    (again,) = train_bundle(path, out, device="cpu", overwrite=True)
    assert again.bundle.digest == run.bundle.digest


@pytest.mark.slow
def test_seeds_are_trained_one_by_one_and_not_again(tmp_path: Path, two_scenes: dict[str, Any]) -> None:
    out = tmp_path / "runs"
    values = {**two_scenes, "seeds": [4, 5]}
    first = train_bundle(write(tmp_path, values), out, device="cpu")
    assert [run.folder for run in first] == [out / "seed-4", out / "seed-5"]
    assert [run.bundle.id for run in first] == ["small-seed-4", "small-seed-5"]
    assert load_train_config(out / "config.yaml").seeds == (4, 5)
    with pytest.raises(OutputExistsError, match=r"all 2 seeds are trained|finished training"):
        train_bundle(write(tmp_path, values), out, device="cpu")
    (out / "seed-5" / "result.json").unlink()
    before = (out / "seed-4" / "bundle").stat().st_mtime_ns
    again = train_bundle(write(tmp_path, values), out, device="cpu")
    assert [run.bundle.digest for run in again] == [run.bundle.digest for run in first]
    assert (out / "seed-4" / "bundle").stat().st_mtime_ns == before
    # A seed that is finished follows `choose` without being trained again, and back.
    checkpoint, log = (out / "seed-4" / name for name in ("checkpoints/last.pt", "log.csv"))
    kept = (checkpoint.stat().st_mtime_ns, log.read_bytes())
    (out / "seed-5" / "result.json").unlink()
    for run in train_bundle(write(tmp_path, {**values, "choose": "objects"}), out, device="cpu"):
        assert run.bundle.outlines is not None
        assert run.bundle.provenance["config"]["choose"] == "objects"  # type: ignore[index]
        assert run.bundle.digest in (run.folder / "report.html").read_text()
        assert run.bundle == read_run(run.folder).bundle
    assert (checkpoint.stat().st_mtime_ns, log.read_bytes()) == kept
    (out / "seed-5" / "result.json").unlink()
    checkpoint.rename(checkpoint.with_suffix(".away"))
    with pytest.raises(TrainingError, match=r"choose: objects, and pixels is asked.*last\.pt is gone"):
        train_bundle(write(tmp_path, values), out, device="cpu")
    checkpoint.with_suffix(".away").rename(checkpoint)
    again = train_bundle(write(tmp_path, values), out, device="cpu")
    assert [run.bundle.digest for run in again] == [run.bundle.digest for run in first]
    (out / "seed-5" / "result.json").unlink()
    with pytest.raises(TrainingError, match="of another recipe"):
        train_bundle(write(tmp_path, {**values, "learning_rate": 0.5}), out, device="cpu")


def test_a_recipe_may_be_trained_too(tmp_path: Path, values: dict[str, Any]) -> None:
    recipe = load_training_recipe(write(tmp_path, values))
    with pytest.raises(ConfigError, match=r"is described by a YAML file; got train\.json"):
        train_bundle("train.json", tmp_path / "run")
    with pytest.raises(TrainingError, match="at least one training scene"):
        train_bundle(replace(recipe, training=()), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_training_without_a_label_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "none.parquet"
    gpd.GeoDataFrame({"class_name": []}, geometry=[], crs="EPSG:4326").to_parquet(path)
    entry = {**values["scenes"]["training"], "labels": str(path)}
    with pytest.raises(TrainingError, match=r"positive|label"):
        train_bundle(write(tmp_path, {**values, "scenes": {"training": entry}}), tmp_path / "run", device="cpu")


def test_a_class_that_nobody_knows_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    path = tmp_path / "labels.gpkg"
    table = {"class_name": ["lake"], "geometry": [shapely.box(-134.53, 67.44, -134.52, 67.45)]}
    gpd.GeoDataFrame(table, crs="EPSG:4326").to_file(path)
    entry = {**values["scenes"]["training"], "labels": str(path)}
    with pytest.raises(ConfigError, match=r"has labels of the class 'lake', which is none of the classes slump"):
        load_training_recipe(write(tmp_path, {**values, "scenes": {"training": entry}}))


def test_augmentations_beside_ndvi_wait_for_the_cube(tmp_path: Path, values: dict[str, Any]) -> None:
    inputs = {"layers": {"ndvi": {"range": [-1, 1]}}}
    config = load_train_config(write(tmp_path, {**values, "inputs": inputs, "augment": {"Blur": {"layers": ["red"]}}}))
    assert config.augment == {"Blur": {"layers": ["red"]}}


def test_a_split_that_divides_the_same_ground_is_warned_of(values, archive, tmp_path):
    # Both names stand for one image.
    for name in ("one", "two"):
        (source,) = sorted(archive.glob("*_SR.tif"))[:1]
        (tmp_path / f"{name}.tif").symlink_to(source)
        (tmp_path / f"{name}.parquet").symlink_to(str(source).replace("_3B_AnalyticMS_SR.tif", "_slumps.parquet"))
    training = {"files": "{scene}.tif", "labels": "{scene}.parquet"}
    scenes = {"training": training, "split": {"validation": 0.5}}
    with pytest.warns(TruthWarning, match="1 pairs of scenes of different sets show the same ground"):
        load_training_recipe(write(tmp_path, {**values, "scenes": scenes}))
    load_training_recipe(write(tmp_path, {**values, "scenes": {"training": {**training, "group": "a"}}}))
