"""How QGIS (3.22 or newer) shows a result: by a style file beside it, or by styles inside a GeoPackage."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pandas as pd

from geosam.vector.shades import Colour, Palette, Shades, pipe

DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
STYLES_LAYER = "layer_styles"
"""Table of a GeoPackage in which QGIS looks for the styles of its layers."""
_GEOMETRY = {"marker": "0", "line": "1", "fill": "2"}
_CLASS = {"marker": "SimpleMarker", "line": "SimpleLine", "fill": "SimpleFill"}


@dataclass(frozen=True)
class Symbol:
    """How features are drawn."""

    kind: Literal["fill", "line", "marker"]
    colour: Colour
    """Of the area, the line or the disc."""
    outline: Colour = (0, 0, 0, 0)
    """Of an area's or a disc's outline."""
    width_mm: float = 0.26
    """Of the line, or of the outline."""
    size_mm: float = 2.4
    """Of a disc, from side to side."""


@dataclass(frozen=True)
class Categories:
    """A symbol for each value of a column; features with another value are not drawn."""

    column: str
    symbols: Mapping[str, Symbol]
    """By value; all of one kind."""


@dataclass(frozen=True)
class Ranges:
    """A symbol for each range of a column of numbers; features without a number are not drawn."""

    column: str
    symbols: Mapping[tuple[float, float], Symbol]
    """By the least and the most value, both in the range; all of one kind."""


Style = Symbol | Categories | Ranges | Shades | Palette
"""The first three are of features, the others of a raster."""

WATER = Symbol("fill", (31, 155, 255, 90), (0, 94, 168, 255))
POINTS = Categories(
    "label",
    {
        "water": Symbol("marker", (31, 155, 255, 255), (255, 255, 255, 255)),
        "dry": Symbol("marker", (230, 159, 0, 255), (255, 255, 255, 255)),
    },
)
"""Control points, in the colours of their picture."""


def style_path(result: Path) -> Path:
    """Where QGIS looks for the style of a file: ``rivers.qml`` beside ``rivers.geojson`` and ``rivers.tif``."""
    return result.with_suffix(".qml")


def write_style(result: Path, *styles: Style) -> Path | None:
    """Write the style of a result beside it, unless one is there: a style that a person made is not replaced.

    Args:
        result: The file of the layer.
        *styles: How it is drawn; of features and of a raster together where two files share the style's name. None:
            as water polygons.

    Returns:
        The style's path; None where there was one already, or the folder takes no more: a result is whole without.
    """
    path = style_path(result)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(qml(*(styles or (WATER,))))
    except OSError:
        return None
    return path


def styles_table(styles: Mapping[str, Style]) -> pd.DataFrame:
    """What :data:`STYLES_LAYER` holds in a GeoPackage whose layers QGIS is to show in some way.

    Args:
        styles: By the name of the layer; its column of geometries is called ``geom``, as GDAL calls it.
    """
    # With milliseconds, which a GeoPackage wants in its times, and GDAL leaves out where there are none.
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=1000)
    return pd.DataFrame(
        {
            "f_table_catalog": "", "f_table_schema": "", "f_table_name": list(styles), "f_geometry_column": "geom",
            "styleName": "geosam", "styleQML": [qml(style) for style in styles.values()], "styleSLD": "",
            "useAsDefault": True, "description": "", "owner": "", "ui": "", "update_time": pd.Timestamp(now),
        }
    )  # fmt: skip


def qml(*styles: Style) -> str:
    """A layer style as QGIS reads it: a vector layer takes what is of features, a raster what is of a raster."""
    root = ElementTree.Element("qgis", version="3.22.0", styleCategories="Symbology")
    for style in styles:
        if isinstance(style, Shades | Palette):
            root.append(pipe(style))
        else:
            _add_features(root, style)
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.SubElement(root, "customproperties")
    ElementTree.indent(root, " ")
    return f"{DOCTYPE}\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _add_features(root: ElementTree.Element, style: Symbol | Categories | Ranges) -> None:
    renderer = ElementTree.SubElement(root, "renderer-v2", symbollevels="0", enableorderby="0", forceraster="0")
    symbols = [style] if isinstance(style, Symbol) else list(style.symbols.values())
    if isinstance(style, Symbol):
        renderer.set("type", "singleSymbol")
    elif isinstance(style, Categories):
        renderer.set("type", "categorizedSymbol")
        renderer.set("attr", style.column)
        _add_categories(renderer, style)
    else:
        renderer.set("type", "graduatedSymbol")
        renderer.set("attr", style.column)
        renderer.set("graduatedMethod", "GraduatedColor")
        _add_ranges(renderer, style)
    drawn = ElementTree.SubElement(renderer, "symbols")
    for number, symbol in enumerate(symbols):
        _add_symbol(drawn, str(number), symbol)
    ElementTree.SubElement(root, "featureBlendMode").text = "0"
    ElementTree.SubElement(root, "layerOpacity").text = "1"
    ElementTree.SubElement(root, "layerGeometryType").text = _GEOMETRY[symbols[0].kind]


def _add_categories(renderer: ElementTree.Element, style: Categories) -> None:
    categories = ElementTree.SubElement(renderer, "categories")
    for number, value in enumerate(style.symbols):
        ElementTree.SubElement(
            categories, "category", value=value, label=value, symbol=str(number), render="true", type="string"
        )


def _add_ranges(renderer: ElementTree.Element, style: Ranges) -> None:
    ranges = ElementTree.SubElement(renderer, "ranges")
    for number, (least, most) in enumerate(style.symbols):
        # The label is rounded, the ends are not: the least and the most value of the layer have to lie inside.
        ElementTree.SubElement(
            ranges, "range", lower=repr(float(least)), upper=repr(float(most)), label=f"{least:.4g} to {most:.4g}",
            symbol=str(number), render="true",
        )  # fmt: skip


def _add_symbol(drawn: ElementTree.Element, name: str, symbol: Symbol) -> None:
    one = ElementTree.SubElement(
        drawn, "symbol", name=name, type=symbol.kind, alpha="1", force_rhr="0", clip_to_extent="1"
    )
    layer = ElementTree.SubElement(
        one, "layer", {"class": _CLASS[symbol.kind], "pass": "0", "locked": "0", "enabled": "1"}
    )
    options = ElementTree.SubElement(layer, "Option", type="Map")
    for key, value in _options(symbol).items():
        ElementTree.SubElement(options, "Option", name=key, value=value, type="QString")


def _options(symbol: Symbol) -> dict[str, str]:
    """What QGIS calls the colours and widths of a simple symbol."""
    width = f"{symbol.width_mm:g}"
    if symbol.kind == "line":
        return {
            "line_color": _text(symbol.colour), "line_width": width, "line_width_unit": "MM", "line_style": "solid",
            "capstyle": "round", "joinstyle": "round",
        }  # fmt: skip
    options = {
        "color": _text(symbol.colour), "outline_color": _text(symbol.outline), "outline_style": "solid",
        "outline_width": width, "outline_width_unit": "MM", "joinstyle": "bevel",
    }  # fmt: skip
    if symbol.kind == "marker":
        return {**options, "name": "circle", "size": f"{symbol.size_mm:g}", "size_unit": "MM"}
    return {**options, "style": "solid"}


def _text(colour: Colour) -> str:
    return ",".join(map(str, colour))
