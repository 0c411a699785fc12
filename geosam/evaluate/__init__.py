"""Honest scores: a model on labelled images, or a result against a reference.

Water is one class and the only one that counts; what the truth does not know is not counted.
"""

from geosam.evaluate.compare import Comparison, compare
from geosam.evaluate.dataset import Evaluation, evaluate_model
from geosam.evaluate.rows import ROWS, Row, check_rows
from geosam.evaluate.samples import DataSet, Sample, load_list
from geosam.evaluate.tally import Tally, column_weighted_f1
from geosam.evaluate.truth import Ruler, Truth

__all__ = [
    "ROWS",
    "Comparison",
    "DataSet",
    "Evaluation",
    "Row",
    "Ruler",
    "Sample",
    "Tally",
    "Truth",
    "check_rows",
    "column_weighted_f1",
    "compare",
    "evaluate_model",
    "load_list",
]
