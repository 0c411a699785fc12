"""How QGIS shows a result: a style file beside it, which QGIS (3.22 or newer) loads by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
_GEOMETRY = {"line": "1", "fill": "2"}


@dataclass(frozen=True)
class Symbol:
    """How the features of a layer are drawn."""

    kind: Literal["fill", "line"]
    colour: tuple[int, int, int, int]
    """Red, green, blue and opacity, each 0 to 255: of the area, or of the line."""
    outline: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Of an area's outline."""
    width_mm: float = 0.26
    """Of the line, or of the outline."""


WATER = Symbol("fill", (31, 155, 255, 90), (0, 94, 168, 255))


def style_path(result: Path) -> Path:
    """Where QGIS looks for the style of a file: ``rivers.qml`` beside ``rivers.geojson``."""
    return result.with_suffix(".qml")


def write_style(result: Path, symbol: Symbol = WATER) -> Path | None:
    """Write the style of a result beside it, unless one is there: a style that a person made is not replaced.

    Args:
        result: The file of the layer.
        symbol: How its features are drawn.

    Returns:
        The style's path; None where there was one already, or the folder takes no more: a result is whole without.
    """
    path = style_path(result)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(qml(symbol))
    except OSError:
        return None
    return path


def qml(symbol: Symbol = WATER) -> str:
    """A layer style as QGIS reads it, with one symbol for every feature."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0", forceraster="0",
    )  # fmt: skip
    symbols = ElementTree.SubElement(renderer, "symbols")
    one = ElementTree.SubElement(
        symbols, "symbol", name="0", type=symbol.kind, alpha="1", force_rhr="0", clip_to_extent="1"
    )
    kind = {"fill": "SimpleFill", "line": "SimpleLine"}[symbol.kind]
    layer = ElementTree.SubElement(one, "layer", {"class": kind, "pass": "0", "locked": "0", "enabled": "1"})
    options = ElementTree.SubElement(layer, "Option", type="Map")
    for key, value in _options(symbol).items():
        ElementTree.SubElement(options, "Option", name=key, value=value, type="QString")
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.SubElement(root, "featureBlendMode").text = "0"
    ElementTree.SubElement(root, "layerOpacity").text = "1"
    ElementTree.SubElement(root, "customproperties")
    ElementTree.SubElement(root, "layerGeometryType").text = _GEOMETRY[symbol.kind]
    ElementTree.indent(root, " ")
    return f"{DOCTYPE}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _options(symbol: Symbol) -> dict[str, str]:
    """What QGIS calls the colours and widths of a simple symbol."""
    width = f"{symbol.width_mm:g}"
    if symbol.kind == "line":
        return {
            "line_color": _text(symbol.colour), "line_width": width, "line_width_unit": "MM", "line_style": "solid",
            "capstyle": "round", "joinstyle": "round",
        }  # fmt: skip
    return {
        "color": _text(symbol.colour), "style": "solid", "outline_color": _text(symbol.outline),
        "outline_style": "solid", "outline_width": width, "outline_width_unit": "MM", "joinstyle": "bevel",
    }  # fmt: skip


def _text(colour: tuple[int, int, int, int]) -> str:
    return ",".join(map(str, colour))
