"""The folder of a cross-validation: whose it is."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path

from rtsx.cube import geobox_of, layer_names
from rtsx.errors import OutputExistsError
from rtsx.evaluation.folds import FoldPlan
from rtsx.evaluation.rule import JudgingRule
from rtsx.training import TrainingRecipe, TrainingScene

__all__ = ["claim"]

PLAN = "plan.json"


def claim(
    out: Path, *, plan: FoldPlan, recipe: TrainingRecipe, rule: JudgingRule, scenes: Mapping[str, TrainingScene]
) -> None:
    """Make `out` the folder of these folds, or find that it is already.

    Raises
    ------
    OutputExistsError
        It holds other folds, another recipe's, or something else altogether.
    """
    document = {"plan": asdict(plan), "rule": asdict(rule), "recipe": _recipe_digest(recipe, scenes)}
    wanted = json.dumps(document, indent=1)
    there = out / PLAN
    if there.is_file():
        differing = [
            name for name, value in json.loads(there.read_text()).items() if _plain(document.get(name)) != value
        ]
        if differing:
            raise OutputExistsError(
                f"{out} holds another cross-validation, whose {' and '.join(differing)} differ: finish it by the call that "
                "began it, or give another folder."
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} is there and is no folder of a cross-validation: give another one.")
    out.mkdir(parents=True, exist_ok=True)
    there.write_text(wanted)


def _plain(value: object) -> object:
    return json.loads(json.dumps(value))


def _recipe_digest(recipe: TrainingRecipe, scenes: Mapping[str, TrainingScene]) -> str:
    """sha256 over everything but the pixels of the cubes, which would have to be read."""
    digest = sha256()
    for part in fields(recipe):
        if part.name not in ("training", "validation", "test", "provenance"):
            digest.update(f"{part.name}={getattr(recipe, part.name)!r};".encode())
    for name in sorted(scenes):
        scene = scenes[name]
        facts = (name, scene.group, scene.truth.digest, str(geobox_of(scene.cube)), layer_names(scene.cube))
        digest.update(repr(facts).encode())
    return digest.hexdigest()
