"""The folder of a cross-validation: whose it is."""

import json
from dataclasses import asdict
from pathlib import Path

from rtsx.errors import EvaluationError, OutputExistsError
from rtsx.evaluation.folds import FoldPlan
from rtsx.evaluation.rule import JudgingRule
from rtsx.parsing import json_value
from rtsx.storage import write_whole
from rtsx.training import TrainingRecipe
from rtsx.training.record import differences, recipe_record

__all__ = ["claim"]

PLAN = "plan.json"


def claim(out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: JudgingRule) -> None:
    """Make `out` the folder of these folds, or find that it is already; reads one tile of each scene.

    Raises
    ------
    OutputExistsError
        It holds other folds, another recipe's, or something else altogether.
    """
    document = {"plan": asdict(plan), "rule": asdict(rule), "recipe": recipe_record(recipe)}
    text = json.dumps(document, indent=1)
    there = out / PLAN
    if there.is_file():
        lines = list(
            differences(json_value(there.read_bytes(), what=str(there), error=EvaluationError), json.loads(text))
        )
        if lines:
            more = f", and {len(lines) - 5} more" if len(lines) > 5 else ""
            raise OutputExistsError(
                f"{out} holds another cross-validation: {'; '.join(lines[:5])}{more}. Make the call that began it, or give "
                "another folder."
            )
        return
    # A plan that was not finished is no one else's, because a call that was killed while it wrote it leaves nothing else.
    if out.exists() and (not out.is_dir() or any(path.suffix != ".partial" for path in out.iterdir())):
        raise OutputExistsError(f"{out} is there and is no folder of a cross-validation: give another one.")
    write_whole(there, text.encode())
