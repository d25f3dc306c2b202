"""The result of comparing annotators: who agrees with whom, and where models stand among them."""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from rtsx.errors import EvaluationError
from rtsx.parsing import damage_told, json_value
from rtsx.scores import AgreementCounts, PixelScores

__all__ = ["Agreement"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """How far annotators agree, with each other and with their majority, and models with them."""

    annotators: tuple[str, ...]
    """Their names, in order."""
    models: tuple[str, ...]
    """Names of what is compared with them."""
    counts: AgreementCounts = field(repr=False)
    """Pixels that they share, annotators first."""

    @property
    def mean_pairwise_iou(self) -> float:
        """Mean IoU over all pairs of annotators; NaN for one alone."""
        iou = self.counts.iou()
        pairs = iou[np.triu_indices(len(self.annotators), 1)]
        return float(pairs.mean()) if len(pairs) else float("nan")

    @property
    def majority_px(self) -> int:
        """Pixels that at least half of the annotators see as the target."""
        return self.counts.all_size

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """IoU of each with each, annotators and models, by name."""
        names = [*self.annotators, *self.models]
        return pd.DataFrame(self.counts.iou(), index=names, columns=names)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each annotator and model.

        `kind`; `target_px`, what it sees; `mean_iou`, over the annotators besides itself; `majority_iou` and
        `majority_f1`, against the majority of all, to which an annotator has added its own vote; `others_iou`,
        against the majority of the annotators besides itself, which is fair between annotators and models; `rank`,
        by that, from 1.
        """
        counts, rows = self.counts, []
        iou = counts.iou()
        for number, name in enumerate([*self.annotators, *self.models]):
            others = [other for other in range(len(self.annotators)) if other != number]
            with_all = self._scores(number, int(counts.all_shared[number]), counts.all_size)
            with_others = self._scores(number, int(counts.others_shared[number]), int(counts.others_size[number]))
            rows.append(
                {
                    "name": name,
                    "kind": "annotator" if number < len(self.annotators) else "model",
                    "target_px": int(counts.sizes[number]),
                    "mean_iou": float(iou[number, others].mean()) if others else float("nan"),
                    "majority_iou": with_all.iou,
                    "majority_f1": with_all.f1,
                    "others_iou": with_others.iou,
                }
            )
        table = pd.DataFrame(rows)
        table["rank"] = table["others_iou"].rank(ascending=False, method="min").astype(int)
        return table

    def _scores(self, number: int, shared: int, size: int) -> PixelScores:
        own = int(self.counts.sizes[number])
        rest = self.counts.judged - own - size + shared
        return PixelScores(hits=shared, false_alarms=own - shared, misses=size - shared, rejections=rest)

    def __str__(self) -> str:
        """The table, best first, and what the annotators have in common."""
        text: str = self.table.sort_values("rank", kind="stable").to_string(index=False, float_format="{:.3f}".format)
        return (
            f"{text}\nmean IoU of two annotators {self.mean_pairwise_iou:.3f}, "
            f"majority {self.majority_px} of {self.counts.judged} px"
        )

    def to_json(self) -> str:
        """Everything as JSON; `from_json` reads it."""
        counts = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in asdict(self.counts).items()
        }
        return json.dumps({"annotators": self.annotators, "models": self.models, "counts": counts})

    @classmethod
    def from_json(cls, document: str) -> "Agreement":
        """An agreement from its JSON.

        Raises
        ------
        EvaluationError
            It is none.
        """
        read = json_value(document, what="The agreement", error=EvaluationError)
        with damage_told("The agreement", EvaluationError):
            counts: dict[str, Any] = {
                name: np.array(value, np.int64) if isinstance(value, list) else value
                for name, value in read["counts"].items()
            }
            return cls(
                annotators=tuple(read["annotators"]), models=tuple(read["models"]), counts=AgreementCounts(**counts)
            )
