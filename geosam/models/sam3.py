"""SAM 3 (Carion et al. 2025) asked by points and boxes, as its tracker asks itself."""

from __future__ import annotations

from geosam.models.sam2 import Sam2Adapter


class Sam3Adapter(Sam2Adapter):
    """The tracker of SAM 3 on transformers' ``Sam3TrackerModel``: SAM 2's decoder on a plain vision transformer.

    Tiles have 1008 px, 14 a patch, and are scaled to -1 to 1. The concepts in words that SAM 3 also understands need
    its detector, which is not loaded.
    """

    mean = (127.5, 127.5, 127.5)
    std = (127.5, 127.5, 127.5)
