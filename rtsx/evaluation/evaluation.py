"""The result of a judgement: counts, and the tables that follow from them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rtsx.errors import EvaluationError
from rtsx.evaluation.counts import ClassCounts, SceneCounts
from rtsx.evaluation.rule import JudgingRule
from rtsx.evaluation.tables import pooled_table, region_table, scene_table
from rtsx.parsing import damage_told, json_value, parsed_json
from rtsx.scores import PixelTally

__all__ = ["Evaluation"]

_SHOWN = ("iou", "precision", "recall", "f1", "average_precision", "boundary_iou", "object_f1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """How good predictions are: counts per scene, from which every table follows.

    Counts add up, so evaluations of different scenes can be pooled afterwards as if they had been judged together.

    Raises
    ------
    EvaluationError
        Scenes were counted in different units or for different classes, two share a name, or there is none.
    """

    counts: tuple[SceneCounts, ...] = field(repr=False)
    """One for each scene."""
    rule: JudgingRule
    """By what they were judged."""

    def __post_init__(self) -> None:
        """Refuse what does not add up."""
        if not self.counts:
            raise EvaluationError("An evaluation needs at least one scene; got none.")
        first = self.counts[0]
        for scene in self.counts:
            if scene.unit != first.unit:
                raise EvaluationError(
                    f"Scene {first.name!r} was judged in {first.unit} and {scene.name!r} in {scene.unit}: pixels and outlines "
                    "do not add up. Judge them apart."
                )
            if scene.classes != first.classes:
                raise EvaluationError(
                    f"Scene {first.name!r} was judged for the classes {', '.join(first.classes)}, and {scene.name!r} for "
                    f"{', '.join(scene.classes)}: name those to judge with classes=..."
                )
        names = [scene.name for scene in self.counts]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise EvaluationError(f"A scene is judged once, but {', '.join(repeated)} came more than once.")

    @classmethod
    def pooled_of(cls, evaluations: Iterable["Evaluation"]) -> "Evaluation":
        """Scenes of several evaluations as one; they must have been judged by one rule.

        Raises
        ------
        EvaluationError
            They do not add up.
        """
        several = list(evaluations)
        if not several:
            raise EvaluationError("An evaluation needs at least one scene; got none.")
        rules = {each.rule for each in several}
        if len(rules) > 1:
            raise EvaluationError(f"Evaluations by different rules do not add up: {', '.join(map(repr, rules))}.")
        return cls(counts=tuple(scene for each in several for scene in each.counts), rule=several[0].rule)

    @property
    def classes(self) -> tuple[str, ...]:
        """What was judged."""
        return self.counts[0].classes

    @cached_property
    def scenes(self) -> pd.DataFrame:
        """Scores by scene and class: `scene`, `region`, `class`, what was counted, and a column for each score."""
        return scene_table(self.counts)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """Scores by region and class, of all its scenes together, each with a ``_low`` and a ``_high``."""
        return region_table(self.counts, self.rule)

    @cached_property
    def pooled(self) -> pd.DataFrame:
        """Scores by class of all scenes together, each with a ``_low`` and a ``_high``."""
        return pooled_table(self.counts, self.rule)

    def __str__(self) -> str:
        """Scores of regions and of the whole, as a short table."""
        regions = self.regions if self.regions["region"].nunique() > 1 else self.regions.iloc[:0]
        whole = self.pooled.copy()
        whole.insert(0, "region", "all")
        rows = pd.concat([regions, whole], ignore_index=True) if len(regions) else whole
        interval = rows["iou_low"].notna()
        shown = rows[["region", "class", "scenes", *_SHOWN]].copy()
        if interval.any():
            bounds = [f"{low:.3f}-{high:.3f}" for low, high in zip(rows["iou_low"], rows["iou_high"], strict=True)]
            shown.insert(4, "95 %", np.where(interval, bounds, "-"))
        if len(self.classes) == 1:
            shown = shown.drop(columns="class")
        table: str = shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        return table

    def to_json(self) -> str:
        """Everything as JSON; `from_json` reads it."""
        scenes = [
            {
                "name": scene.name,
                "region": scene.region,
                "unit": scene.unit,
                "classes": scene.classes,
                "counts": [_counts_document(each) for each in scene.counts],
            }
            for scene in self.counts
        ]
        return json.dumps({"rule": asdict(self.rule), "scenes": scenes})

    @classmethod
    def from_json(cls, document: str) -> "Evaluation":
        """An evaluation from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        read = json_value(document, what="The evaluation", error=EvaluationError)
        with damage_told("The evaluation", EvaluationError):
            counts = tuple(
                SceneCounts(
                    name=scene["name"],
                    region=scene["region"],
                    unit=scene["unit"],
                    classes=tuple(scene["classes"]),
                    counts=tuple(_counts_of(each) for each in scene["counts"]),
                )
                for scene in read["scenes"]
            )
            rule = parsed_json(json.dumps(read["rule"]), JudgingRule, what="The rule", error=EvaluationError)
            return cls(counts=counts, rule=rule)


def _counts_document(counts: ClassCounts) -> dict[str, Any]:
    document: dict[str, Any] = {name: getattr(counts, name).tolist() for name in ("extent", "boundary", "objects")}
    if counts.tally is not None:
        document["tally"] = {"target": counts.tally.target.tolist(), "other": counts.tally.other.tolist()}
    return document


def _counts_of(document: dict[str, Any]) -> ClassCounts:
    tally = document.get("tally")
    return ClassCounts(
        extent=np.array(document["extent"], np.float64),
        boundary=np.array(document["boundary"], np.int64),
        objects=np.array(document["objects"], np.int64),
        tally=None if tally is None else PixelTally(**{k: np.array(v, np.int64) for k, v in tally.items()}),
    )
