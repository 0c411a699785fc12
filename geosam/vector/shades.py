"""How QGIS shows a raster: a probability in shades, a mask in the colours of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

Colour = tuple[int, int, int, int]
"""Red, green, blue and opacity, each 0 to 255."""


@dataclass(frozen=True)
class Shades:
    """Colours of the first band of a raster of measures; between two values colours go over into each other."""

    stops: Sequence[tuple[float, Colour]]
    """Values with their colours, from the least to the most."""


@dataclass(frozen=True)
class Palette:
    """Colours of the first band of a raster of classes; what has no colour is not drawn."""

    colours: Mapping[int, tuple[str, Colour]]
    """What the legend says of each value, and its colour."""


PROBABILITY = Shades(
    (
        (0.0, (255, 255, 217, 64)),
        (0.25, (199, 233, 180, 105)),
        (0.5, (65, 182, 196, 147)),
        (0.75, (34, 94, 168, 188)),
        (1.0, (8, 29, 88, 230)),
    )
)
"""As in the picture of it: pale where the model says dry, so that the ortho is seen."""

MASK = Palette({1: ("water", (31, 155, 255, 140))})
"""Dry ground is not drawn, so that the ortho is seen."""


def pipe(style: Shades | Palette) -> ElementTree.Element:
    """The part of a style file that is read for a raster."""
    root = ElementTree.Element("pipe")
    renderer = ElementTree.SubElement(root, "rasterrenderer", band="1", opacity="1", alphaBand="-1", nodataColor="")
    ElementTree.SubElement(renderer, "rasterTransparency")
    if isinstance(style, Palette):
        _add_palette(renderer, style)
    else:
        _add_shades(renderer, style)
    return root


def _add_palette(renderer: ElementTree.Element, style: Palette) -> None:
    renderer.set("type", "paletted")
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (label, colour) in style.colours.items():
        ElementTree.SubElement(entries, "paletteEntry", {"value": str(value), "label": label, **_colour(colour)})


def _add_shades(renderer: ElementTree.Element, style: Shades) -> None:
    least, most = f"{style.stops[0][0]:g}", f"{style.stops[-1][0]:g}"
    renderer.set("type", "singlebandpseudocolor")
    renderer.set("classificationMin", least)
    renderer.set("classificationMax", most)
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue=least, maximumValue=most,
    )  # fmt: skip
    for value, colour in style.stops:
        ElementTree.SubElement(shader, "item", {"value": f"{value:g}", "label": f"{value:g}", **_colour(colour)})


def _colour(colour: Colour) -> dict[str, str]:
    red, green, blue, opacity = colour
    return {"color": f"#{red:02x}{green:02x}{blue:02x}", "alpha": str(opacity)}
