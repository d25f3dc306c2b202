"""A finished training."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rtsx.errors import TrainingError
from rtsx.model import ModelBundle
from rtsx.parsing import json_value, parsed_json, wrap_damage
from rtsx.scores import PixelScores
from rtsx.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A bundle, how it came about, and how good it is."""

    folder: Path
    """Where everything lies: `bundle/`, `log.csv`, `report.html`, `checkpoints/`."""
    bundle: ModelBundle
    """What was trained, calibrated and with its threshold."""
    epochs: int
    """Epochs that were run."""
    best_epoch: int
    """The one that the bundle is of, from 1."""
    validation: PixelScores | None
    """Of the validation scenes at the bundle's threshold, which they have chosen; the pixels of several classes added up.
    None without any."""
    test: Mapping[str, PixelScores]
    """Of each test scene by its name, likewise."""


def read_run(folder: str | Path) -> TrainedRun:
    """Read what `train` left.

    Raises
    ------
    TrainingError
        No training is there, or it is not finished.
    """
    run = RunFolder.at(folder)
    if not run.recipe.is_file():
        raise TrainingError(f"{folder} holds no training. Name the folder that train() wrote to.")
    if not run.result.is_file():
        raise TrainingError(
            f"The training in {folder} is not finished. Call train() again with the same recipe to go on."
        )
    result = json_value(run.result.read_bytes(), what=str(run.result), error=TrainingError)
    with wrap_damage(str(run.result), TrainingError):
        test, validation = json.dumps(result["test"]), json.dumps(result["validation"])
        return TrainedRun(
            folder=run.path,
            bundle=ModelBundle.open(run.bundle),
            epochs=result["epochs"],
            best_epoch=result["best_epoch"],
            validation=None
            if result["validation"] is None
            else parsed_json(validation, PixelScores, what=str(run.result), error=TrainingError),
            test=parsed_json(test, dict[str, PixelScores], what=str(run.result), error=TrainingError),
        )


def result_of(run: TrainedRun) -> dict[str, object]:
    """What `read_run` reads, as JSON values."""
    return {
        "epochs": run.epochs,
        "best_epoch": run.best_epoch,
        "bundle_digest": run.bundle.digest,
        "threshold": run.bundle.threshold,
        "temperature": run.bundle.temperature,
        "validation": None if run.validation is None else asdict(run.validation),
        "test": {name: asdict(scores) for name, scores in run.test.items()},
    }
