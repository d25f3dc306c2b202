"""What a review of its map teaches a model: a first model, a simulated review of its map, a second model, scores on unseen scenes.

The first model learns from few labelled scenes and maps a scene that nobody has labelled. A simulated reviewer goes through the
outlines of that map, and the second model learns from the same scenes and the review, with as many steps. Validation scenes choose
epoch and threshold of both; test scenes only measure.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

import rtsx
from rtsx.config.training import TrainConfig
from rtsx.evaluation import EvaluationScene
from rtsx.labels import read_labels
from rtsx.review import AddedOutline, Answer, BatchVerdicts, MergedReview, Review, create_review, merge_review
from rtsx.review.pictures import ReviewPictures
from rtsx.scores.agreement import Verdict
from rtsx.synthetic import SceneFiles, varied_spec, write_scenes

LABELLED, MAPPED, CHOOSING, TEST = (1000, 1001), (1010,), (2000, 2001), (3000, 3001, 3002, 3003)
"""Seeds of scenes with labels, of the one that is mapped and reviewed, of those that choose, and of those that only measure."""
SIZE = 1024
"""Side of a scene, px of 3 m; of the one that is mapped twice as much."""
EPOCHS, STEPS, TILE = 8, 40, 128
"""Epochs, batches of 8 tiles in each, and side of a tile in px; the same for both models."""
ERRORS = 0.05
"""Part of the outlines of which the reviewer says the opposite, and of which he cannot tell."""
CLEAR = 0.5
"""Least part of an outline that is slump, for a reviewer to see one; least IoU of one that is left as it is."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """One model and its scores on the test scenes."""

    bundle: rtsx.ModelBundle
    scores: dict[str, float]


def run(*, seeds: Sequence[int]) -> None:
    """Print the scores of both models, for several seeds of training and reviewer."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            compare(Path(folder), seed=seed)


def compare(folder: Path, *, seed: int) -> None:
    """Train, map, review, train again, and print the scores of both models."""
    scenes = {
        name: make(folder / name, seeds, size=SIZE * (2 if name == "mapped" else 1))
        for name, seeds in (("labelled", LABELLED), ("mapped", MAPPED), ("choosing", CHOOSING), ("test", TEST))
    }
    common = {"validation": [scene_of(files) for files in scenes["choosing"]]}
    how = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "tile": TILE, "overlap": TILE // 4, "seeds": seed}
    labelled = [scene_of(files) for files in scenes["labelled"]]
    first = learn(folder / f"first-{seed}", {"training": labelled, **common}, test=scenes["test"], how=how)
    (mapped,) = scenes["mapped"]
    cube = cube_of(mapped)
    outlines = rtsx.extract_footprints(predicted(cube, first.bundle))
    review = create_review(
        outlines, str(folder / f"review-{seed}"), cubes={"map": str(mapped.image)}, opener=lambda _: cube, class_name="rts",
        batch_size=20, repeats=0.0,
    )  # fmt: skip
    truth = read_labels(gpd.read_parquet(mapped.truth)).to_crs(outlines.crs)
    pictures = ReviewPictures.open(review, opener=lambda _: cube)
    merged = work_through(review, pictures, truth=truth, seed=seed)
    reviewed = scene_of(mapped) | {"labels": {"review": str(folder / f"review-{seed}"), "classes": {"rts": ["rts"]}}}
    second = learn(
        folder / f"second-{seed}", {"training": [*labelled, reviewed], **common}, test=scenes["test"], how=how
    )
    said = merged.status.verdicts
    print(
        f"seed {seed}: reviewed {merged.status.reviewed} outlines: {said['target']} confirmed, {int(merged.outlines['is_corrected'].sum())} of them "
        f"corrected, {said['other']} refused, {said['unsure']} unsure; {merged.status.added} added; {len(truth)} slumps are there"
    )
    for name, model in (("first", first), ("second", second)):
        print(f"{name:7}" + "  ".join(f"{score} {value:.3f}" for score, value in model.scores.items()), flush=True)


def make(folder: Path, seeds: Sequence[int], *, size: int) -> list[SceneFiles]:
    """Scenes of their own ground, day and haze."""
    specs = [varied_spec(seed, size=size, slumps_per_km2=2.0) for seed in seeds]
    return [written.files for written in write_scenes(specs, folder, processes=1)]


def scene_of(files: SceneFiles) -> dict[str, Any]:
    """A scene of a training."""
    return {
        "files": str(files.image),
        "mask": [str(files.udm2), "tss-v1"],
        "labels": str(files.truth),
        "name": files.image.stem,
    }


def cube_of(files: SceneFiles) -> Any:
    """The cube of a scene."""
    return rtsx.open_cube([files.image], mask=(files.udm2, "tss-v1"))


def learn(folder: Path, scenes: dict[str, Any], *, test: Sequence[SceneFiles], how: dict[str, Any]) -> Learnt:
    """Train a small U-Net, the network of the demo, and score it."""
    config = TrainConfig.model_validate(
        {
            "id": folder.name,
            "classes": {"rts": ["rts"]},
            "model": {
                "architecture": "Unet", "encoder": "tu-mobilenetv2_050",
                "options": {"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]},
            },
            "inputs": {
                "layers": {
                    "blue": {"range": [0, 0.25], "clip": True}, "green": {"range": [0, 0.25], "clip": True},
                    "red": {"range": [0, 0.3], "clip": True}, "nir": {"range": [0, 0.5], "clip": True},
                }
            },
            "scenes": scenes,
            "sampling": {"negatives": 1.0},
            "augment": {"HorizontalFlip": 0.5, "RandomRotate90": 0.75, "RandomBrightnessContrast": {"probability": 1, "brightness": 0.12, "contrast": 0.05}},
            "loss": ["SoftBCEWithLogitsLoss", "JaccardLoss"],
            "optimiser": {"AdamW": {"weight_decay": 0.02}},
            "learning_rate": 0.003,
            "schedule": "cosine",
            "warmup": 0.1,
            "gradient_clip": 1,
            "batch_size": 8,
            **how,
        }
    )  # fmt: skip
    started = time.perf_counter()
    (run,) = rtsx.train_bundle(config, folder)
    judged = [
        EvaluationScene(
            name=files.image.stem, prediction=predicted(cube_of(files), run.bundle), truth=gpd.read_parquet(files.truth)
        )
        for files in test
    ]
    row = rtsx.evaluate(judged, bootstrap=0, min_object_area_m2=288).pooled.iloc[0]
    names = {
        "IoU": "iou",
        "precision": "precision",
        "recall": "recall",
        "average precision": "average_precision",
        "object F1": "object_f1",
    }
    scores = {name: float(row[column]) for name, column in names.items()}
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s", flush=True)
    return Learnt(bundle=run.bundle, scores=scores)


def predicted(cube: Any, bundle: rtsx.ModelBundle) -> Any:
    """The map, with the tiles of the bundle."""
    return rtsx.predict_cube(cube, bundle, tile="bundle", overlap="bundle", backend="eager")


def work_through(review: Review, pictures: ReviewPictures, *, truth: gpd.GeoDataFrame, seed: int) -> MergedReview:
    """A reviewer who knows the truth and errs at random; he draws a better outline of a slump that is poorly outlined, and what he
    sees in the wide picture that the map has missed."""
    random = np.random.default_rng(seed)
    slumps = np.asarray(truth.geometry.array)
    drawn = {int(number) for number in slumps_under(review.outlines.geometry, slumps)}
    while claims := review.claim("simulated"):
        for claim in claims:
            answers, added = [], []
            for name in review.rounds()[claim.round - 1].batches[claim.batch].outlines:
                outline = review.outlines.geometry[name]
                shared = shapely.area(shapely.intersection(slumps, outline))
                is_slump = shared.sum() > CLEAR * outline.area
                errs = random.random() < ERRORS
                verdict: Verdict = "unsure" if random.random() < ERRORS else "target" if is_slump != errs else "other"
                best = slumps[int(shared.argmax())]
                is_poor = is_slump and shared.max() < CLEAR * outline.union(best).area
                answers.append(Answer(outline=name, verdict=verdict, corrected=best.wkt if is_poor else None))
                wide = shapely.box(*pictures.box(int(review.outlines.index.get_loc(name)), "wide"))
                seen = {int(number) for number in np.flatnonzero(shapely.within(slumps, wide))} - drawn
                added += [AddedOutline(geometry=slumps[number].wkt) for number in sorted(seen)]
                drawn |= seen
            review.submit(
                BatchVerdicts(
                    round=claim.round, batch=claim.batch, reviewer="simulated", answers=tuple(answers), added=tuple(added),
                    finished=review.clock(),
                )
            )  # fmt: skip
    return merge_review(review)


def slumps_under(outlines: gpd.GeoSeries, slumps: Any) -> Any:
    """Numbers of the slumps that an outline meets."""
    return np.unique(outlines.sindex.query(slumps, predicate="intersects")[0])
