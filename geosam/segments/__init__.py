"""Every thing in a scene as a segment, and the selection of some of them as rivers.

``everything`` asks the model about a grid of points, tile by tile, and writes all it finds with scores and colours.
``select`` takes some of those, by points, boxes, words, an index or what they touch, without running that model again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geosam.segments.making import Everything, everything
    from geosam.segments.selecting import Selected, select
    from geosam.segments.words import segment_by_text

__all__ = ["Everything", "Selected", "everything", "segment_by_text", "select"]

_HOME = {
    "Everything": "making",
    "everything": "making",
    "Selected": "selecting",
    "select": "selecting",
    "segment_by_text": "words",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
