"""Train the small bundle of the demo on synthetic scenes: ``python -m rtsx.cli.train_demo --out FOLDER``.

Three sets of seeds that never meet: training, validation (chooses the state and the threshold) and test (measures, once,
at the end); the demo's own seed is in none of them. With ``--threads 1`` it took 27 minutes on a busy machine.
"""

import importlib.metadata
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

import rtsx
from rtsx.cli.console import notice, show
from rtsx.cli.demo_examples import INPUTS, make_examples, varied_spec
from rtsx.cli.demo_training import Trained, TrainingPlan, count_pixels, train
from rtsx.cli.outputs import require_free
from rtsx.model import ModelBundle
from rtsx.model.probing import reach_of
from rtsx.synthetic import demo_spec

__all__ = ["make_bundle", "train_demo"]

LIBRARIES = ("numpy", "scipy", "segmentation-models-pytorch", "timm", "torch")
"""Libraries whose versions the weights may depend on."""


def make_bundle(trained: Trained, *, plan: TrainingPlan, provenance: dict[str, object]) -> ModelBundle:
    """Bundle of a trained network, with the plan and its scores as provenance."""
    return ModelBundle.from_module(
        trained.network.to(memory_format=torch.contiguous_format),
        inputs=INPUTS,
        classes=("slump",),
        activation="sigmoid",
        tile=512,
        overlap=128,
        threshold=trained.threshold,
        id="rtsx-demo",
        provenance={
            "plan": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()},
            "validation_iou": round(trained.iou, 4),
            "versions": {"rtsx": rtsx.__version__} | {name: importlib.metadata.version(name) for name in LIBRARIES},
            **provenance,
        },
    )


def unseen_scores(trained: Trained, plan: TrainingPlan) -> NDArray[np.float64]:
    """IoU, precision and recall (scene, 3) on scenes like the demo's, made one by one because they are large."""
    scores = []
    for seed in plan.test_seeds:
        example = make_examples([demo_spec(seed=seed)], label=f"test scene {seed}", processes=1)
        hit, found, true = count_pixels(trained.network, example, thresholds=[trained.threshold])[0, 0]
        scores.append([hit / (found + true - hit), hit / max(found, 1), hit / max(true, 1)])
    return np.array(scores)


def train_demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the bundle that is made.")] = Path("demo-bundle"),
    steps: Annotated[int, typer.Option(help="Batches of eight crops.", min=100)] = TrainingPlan.steps,
    threads: Annotated[int, typer.Option(help="Threads of torch, and processes that make scenes.", min=1)] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Make scenes, train on them, choose on others, measure on a third set, and save a bundle."""
    require_free([str(out)], overwrite=overwrite)
    torch.set_num_threads(threads)
    plan = TrainingPlan(steps=steps)
    dense = [varied_spec(seed, slumps_per_km2=2.0) for seed in plan.training_seeds]
    plain = [varied_spec(seed, slumps_per_km2=1.0) for seed in plan.validation_seeds]
    training = make_examples(dense, label="training scenes", processes=threads)
    validation = make_examples(plain, label="validation scenes", processes=threads)
    trained = train(plan, training=training, validation=validation)
    scores = unseen_scores(trained, plan)
    provenance = {
        "command": f"python -m rtsx.cli.train_demo {shlex.join(sys.argv[1:])}".strip(),
        "threads": threads,
        "test_iou": {str(seed): round(float(iou), 4) for seed, iou in zip(plan.test_seeds, scores[:, 0], strict=True)},
    }
    bundle = make_bundle(trained, plan=plan, provenance=provenance)
    bundle = bundle.with_reach(reach_of(bundle))
    bundle.save(out, overwrite=overwrite)
    rows: list[tuple[str, object]] = [("validation IoU", f"{trained.iou:.3f} at threshold {trained.threshold}")]
    for seed, (iou, precision, recall) in zip(plan.test_seeds, scores, strict=True):
        rows.append((f"test scene {seed}", f"IoU {iou:.3f}, precision {precision:.3f}, recall {recall:.3f}"))
    show("The demo's bundle", [*rows, ("parameters", f"{bundle.n_parameters:,}"), ("written", out)])
    notice("Neither training nor validation has seen the test scenes or the demo's.")


if __name__ == "__main__":
    typer.run(train_demo)
