"""Labelled tiles for training and scoring: pictures and where in them there is water.

>>> data = open_labelled("tiles/")
>>> image, label = data.splits["train"][0].read()

Whatever lies there, folders, tables, the hub or orthoimages with polygons, it becomes a list of :class:`Tile`,
which hold no pixels until they are read. Labels are 255 water, 0 dry, 128 ignore.
"""

from geosam.datasets.folder import Pair, load_folder
from geosam.datasets.labels import DRY, IGNORE, WATER, UnreadableError
from geosam.datasets.opening import LabelledData, open_labelled
from geosam.datasets.options import DataOptions
from geosam.datasets.tile import Tile, readable

__all__ = [
    "DRY",
    "IGNORE",
    "WATER",
    "DataOptions",
    "LabelledData",
    "Pair",
    "Tile",
    "UnreadableError",
    "load_folder",
    "open_labelled",
    "readable",
]
