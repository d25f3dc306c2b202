"""How good a map is: scores by pixel, border and object, by region and pooled, and what a model is worth elsewhere."""

from typing import TYPE_CHECKING

from rtsx.lazy import lazy

if TYPE_CHECKING:
    from rtsx.evaluation.agreement import Agreement
    from rtsx.evaluation.annotators import annotator_agreement
    from rtsx.evaluation.cross_validation import CrossValidation, FoldResult
    from rtsx.evaluation.evaluation import Evaluation
    from rtsx.evaluation.folds import Fold, FoldPlan
    from rtsx.evaluation.judging import evaluate
    from rtsx.evaluation.rule import JudgingRule
    from rtsx.evaluation.scene import JudgedScene
    from rtsx.evaluation.validating import cross_validate, transfer_matrix

__all__ = [
    "Agreement",
    "CrossValidation",
    "Evaluation",
    "Fold",
    "FoldPlan",
    "FoldResult",
    "JudgedScene",
    "JudgingRule",
    "annotator_agreement",
    "cross_validate",
    "evaluate",
    "transfer_matrix",
]

__getattr__ = lazy(__name__)
