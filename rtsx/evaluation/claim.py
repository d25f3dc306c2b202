"""The folder of a cross-validation: whose it is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from rtsx.errors import EvaluationError, OutputExistsError
from rtsx.evaluation.folds import FoldPlan
from rtsx.evaluation.rule import JudgingRule
from rtsx.parsing import json_value
from rtsx.storage import write_whole
from rtsx.training import TrainingRecipe
from rtsx.training.record import differences, recipe_record

__all__ = ["FOLDS", "claimed"]

PLAN = "plan.json"
FOLDS = "folds"
"""Folder of the folds."""


@contextmanager
def claimed(out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: JudgingRule) -> Iterator[None]:
    """Make `out` the folder of these folds for the block, or find that it is already; reads one tile of each scene.

    Where the block fails before an epoch of any fold is done, the folder is free again.

    Raises
    ------
    OutputExistsError
        It holds other folds, another recipe's, or something else altogether.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    _claim(out, plan=plan, recipe=recipe, rule=rule)
    try:
        yield
    except BaseException:
        if not any(_kept(out / FOLDS)):  # a training that took no step has left nothing
            (out / PLAN).unlink(missing_ok=True)
            below = sorted((path for path in (out / FOLDS).rglob("*") if path.is_dir()), reverse=True)
            for folder in (*below, out / FOLDS, *made):
                with suppress(OSError):  # not empty
                    folder.rmdir()
        raise


def _kept(folder: Path) -> Iterator[Path]:
    """Files that are no leavings: all but drafts of a killed process, and the batch of a first loss that was no number."""
    files = (path for path in folder.rglob("*") if not path.is_dir() and path.name != "failed-batch.npz")
    return (path for path in files if not any(part.endswith(".partial") for part in path.relative_to(folder).parts))


def _claim(out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: JudgingRule) -> None:
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
    if out.is_file() or any(_kept(out)):
        raise OutputExistsError(f"{out} is there and is no folder of a cross-validation: give another one.")
    write_whole(there, text.encode())
