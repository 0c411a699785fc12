"""Predict, correct, retrain: a model labels new scenes, a person corrects what it is unsure of, and it learns again.

>>> from geosam import relabel
>>> relabel.predict(["a.tif", "b.tif"], "queue.gpkg")      # confident ones accepted, the rest queued, worst first
>>> relabel.export("queue.gpkg", "tiles/")                 # after the correction in QGIS: a data set for finetune
>>> relabel.audit("queue.gpkg", 50)                        # how good the predictions are, by a seeded sample

The loop is the data engine of Segment Anything (Kirillov et al. 2023, arXiv:2304.02643, section 4).
"""

from geosam.relabel.auditing import Audit, audit
from geosam.relabel.exporting import Exported, export
from geosam.relabel.predicting import Predicted, predict

__all__ = ["Audit", "Exported", "Predicted", "audit", "export", "predict"]
