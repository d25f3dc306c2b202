"""How good a map is: scores by pixel, border and object, by region and pooled, and what a model is worth elsewhere."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.evaluation.accuracy import Accuracy, assess_accuracy, derive_confidence_rule
    from rtsx.evaluation.annotators import Agreement, annotator_agreement
    from rtsx.evaluation.area import expected_area
    from rtsx.evaluation.cases import EvaluationScene, EvaluationSettings
    from rtsx.evaluation.cross_validation import cross_validate, transfer_matrix
    from rtsx.evaluation.folds import Fold, FoldPlan
    from rtsx.evaluation.result import CrossValidation, Evaluation, FoldResult
    from rtsx.evaluation.sampling import sample_ground, sample_outlines
    from rtsx.evaluation.scoring import ObjectChoice, choose_objects, evaluate

__getattr__ = lazy(__name__, renamed={"JudgedScene": "EvaluationScene"})
