"""Tuning a promptable model on labelled tiles, and training a small one from scratch."""

from geosam.finetune.options import TuneOptions
from geosam.finetune.outcome import Tuned
from geosam.finetune.run import finetune

__all__ = ["TuneOptions", "Tuned", "finetune"]
