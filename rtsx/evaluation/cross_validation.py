"""The result of a cross-validation: what every fold found, and the tables that follow."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import pandas as pd

from rtsx.errors import EvaluationError
from rtsx.evaluation.counts import SCORES
from rtsx.evaluation.evaluation import Evaluation
from rtsx.evaluation.folds import ALL_REGIONS, Fold, FoldPlan
from rtsx.parsing import damage_told, json_value

__all__ = ["CrossValidation", "FoldResult"]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """One trained and judged fold."""

    fold: Fold
    """What was learnt from and tested on."""
    seed: int
    """Of the training."""
    bundle: str
    """Folder of the bundle, relative to the cross-validation's."""
    evaluation: Evaluation = field(repr=False)
    """Scores of the test scenes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CrossValidation:
    """What models are worth on ground that they have not learnt from."""

    plan: FoldPlan
    """All folds."""
    results: tuple[FoldResult, ...] = field(repr=False)
    """One for each fold and seed."""

    def evaluation(self, trained_on: str, *, seed: int) -> Evaluation:
        """All folds of one row of the matrix together: each of their test scenes judged by a model that never saw it.

        Raises
        ------
        EvaluationError
            There is no such row or seed.
        """
        found = [r.evaluation for r in self.results if (r.fold.trained_on, r.seed) == (trained_on, seed)]
        if not found:
            rows = sorted({(r.fold.trained_on, r.seed) for r in self.results})
            raise EvaluationError(f"Nothing was trained on {trained_on!r} with seed {seed}; there are {rows}.")
        return Evaluation.pooled_of(found)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Scores by what was learnt from, by region tested (and ``all``), and by class.

        Each is the mean over seeds, as are the bounds of its interval, ``_low`` and ``_high``; ``_std`` is the standard
        deviation among seeds (divided by n - 1), NaN for one seed.
        """
        seeds = list(dict.fromkeys(result.seed for result in self.results))
        rows = list(dict.fromkeys(fold.trained_on for fold in self.plan.folds))
        return pd.concat([self._rows(row, seeds) for row in rows], ignore_index=True)

    def _rows(self, trained_on: str, seeds: Sequence[int]) -> pd.DataFrame:
        tables = []
        for seed in seeds:
            evaluation = self.evaluation(trained_on, seed=seed)
            whole = evaluation.pooled.copy()
            whole.insert(0, "region", ALL_REGIONS)
            tables.append(pd.concat([evaluation.regions, whole], ignore_index=True))
        several = pd.concat(tables, ignore_index=True)
        by = several.groupby(["region", "class"], sort=False)
        numbers = [name for name in several.columns if name not in ("region", "class")]
        table = by[numbers].mean().reset_index()
        spread = by[list(SCORES)].std().reset_index()
        for score in SCORES:
            table.insert(list(table.columns).index(f"{score}_high") + 1, f"{score}_std", spread[score])
        table.insert(0, "trained_on", trained_on)
        table.insert(3, "seeds", len(seeds))
        return table

    def matrix(self, score: str = "iou", *, class_name: str | None = None) -> pd.DataFrame:
        """One score by what was learnt from (rows) and by region tested (columns); NaN where nothing was tested.

        Parameters
        ----------
        score
            One of the scores of `Evaluation`.
        class_name
            Which class; None: the only one, or the mean over several.

        Raises
        ------
        EvaluationError
            There is no such score or class.
        """
        if score not in SCORES:
            raise EvaluationError(f"There are the scores {', '.join(SCORES)}, not {score!r}.")
        names = list(dict.fromkeys(self.table["class"]))
        wanted = names[-1] if class_name is None else class_name
        if wanted not in names:
            raise EvaluationError(f"The classes {', '.join(names)} were judged, not {wanted!r}.")
        chosen = self.table[(self.table["class"] == wanted) & (self.table["region"] != ALL_REGIONS)]
        regions = list(dict.fromkeys(chosen["region"]))
        order = [name for name in dict.fromkeys(chosen["trained_on"]) if name in regions]
        wide = chosen.pivot(index="trained_on", columns="region", values=score)
        rows = list(dict.fromkeys(chosen["trained_on"]))
        columns = order + [name for name in regions if name not in order]
        return wide.loc[rows, columns]

    def __str__(self) -> str:
        """IoU, F1 and object F1 by region, as a short table."""
        shown = self.table[["trained_on", "region", "class", "scenes", "iou", "f1", "average_precision", "object_f1"]]
        if shown["class"].nunique() == 1:
            shown = shown.drop(columns="class")
        text: str = shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-")
        return text

    def to_json(self) -> str:
        """Everything as JSON; `from_json` reads it."""
        results = [
            {"fold": r.fold.name, "seed": r.seed, "bundle": r.bundle, "evaluation": json.loads(r.evaluation.to_json())}
            for r in self.results
        ]
        return json.dumps({"folds": [asdict(fold) for fold in self.plan.folds], "results": results})

    @classmethod
    def from_json(cls, document: str) -> "CrossValidation":
        """A result from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        read = json_value(document, what="The cross-validation", error=EvaluationError)
        with damage_told("The cross-validation", EvaluationError):
            plan = FoldPlan.from_json(json.dumps({"folds": read["folds"]}))
            by_name = {fold.name: fold for fold in plan.folds}
            results = tuple(
                FoldResult(
                    fold=by_name[each["fold"]],
                    seed=each["seed"],
                    bundle=each["bundle"],
                    evaluation=Evaluation.from_json(json.dumps(each["evaluation"])),
                )
                for each in read["results"]
            )
            return cls(plan=plan, results=results)
