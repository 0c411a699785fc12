"""Tuning a promptable model on labelled tiles, and training a small one from scratch."""

from geosam.finetune.options import TuneOptions
from geosam.finetune.run import finetune
from geosam.finetune.tune import Tuned

__all__ = ["TuneOptions", "Tuned", "finetune"]
