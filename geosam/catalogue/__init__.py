"""STAC: the scenes of a catalogue or a search as rasters to open, and an item that describes a result.

Documents are read and written as plain JSON, so that nothing has to be installed for them; a search goes through
pystac-client (``pip install 'geosam-rivers[stac]'``).
"""

from geosam.catalogue.assets import picture
from geosam.catalogue.result import check_item, item_path, result_item, write_item
from geosam.catalogue.stack import stacked
from geosam.catalogue.walk import items, searched

__all__ = [
    "check_item",
    "item_path",
    "items",
    "picture",
    "result_item",
    "searched",
    "stacked",
    "write_item",
]
