"""How good a map is: scores by pixel, border and object, by region and pooled, and what a model is worth elsewhere."""

from rtsx.evaluation.evaluation import Evaluation
from rtsx.evaluation.judging import evaluate
from rtsx.evaluation.rule import JudgingRule
from rtsx.evaluation.scene import JudgedScene

__all__ = ["Evaluation", "JudgedScene", "JudgingRule", "evaluate"]
