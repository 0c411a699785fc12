"""The picture under every map: the ortho with a scale bar, a north arrow and a legend.

Figures are plain :class:`matplotlib.figure.Figure` objects drawn by Agg: no pyplot, no display, no state that is
shared with the caller's own plots.
"""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyproj
from affine import Affine
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from rasterio.windows import Window

from geosam.errors import OutputError
from geosam.plot.sheet import Ground, Sheet
from geosam.scene import Scene
from geosam.scene.grid import pixel_size_m

MAX_SIDE_PX = 1400
"""Longest side that is read for a picture: fills a screen, and costs the same for a scene of any size."""

_HALO = [patheffects.withStroke(linewidth=3, foreground="black", alpha=0.6)]
_LETTER_IN = 0.1
"""Width of a letter of a title, in inches, on average."""
_AROUND_IN = 0.9
"""Height of title and legend together, in inches."""
_BAR_IN = 1.0
"""Width of a scale of colours with its numbers and label, in inches."""
_UNKNOWN_GREY = 235
_PAPER = 247


class Picture(Figure):
    """A figure that also shows itself in a notebook, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        return stream.getvalue()


@dataclass(frozen=True)
class Canvas:
    """A figure, one of its axes, and the decimated scene or blank sheet whose pixels are the axes' coordinates."""

    figure: Picture
    axes: Axes
    ground: Ground

    def legend(self, handles: list[Artist], *, columns: int | None = None) -> None:
        """Put a legend under the picture, where it hides no river; in as many columns as fit, if none are given."""
        height, width = seen(self.ground)
        columns = columns or max(1, round(3 * min(width / height, 1.0)))
        self.axes.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=columns, frameon=False, borderaxespad=0
        )

    def show(self, image: NDArray[Any], **more: Any) -> ScalarMappable:
        """Draw an image over the whole map, in its proportions on the ground; what else imshow takes is handed on."""
        height, width = self.ground.shape
        return self.axes.imshow(image, extent=(0, width, height, 0), aspect=stretch(self.ground), **more)

    def bar(self, coloured: ScalarMappable, label: str, *, extend: Literal["neither", "max"] = "neither") -> None:
        """Put a scale of colours to the right of the map, for which ``canvases(..., bar=True)`` leaves room."""
        height, width = seen(self.ground)
        across, high = self.figure.get_figwidth() - _BAR_IN, self.figure.get_figheight() - _AROUND_IN
        inch = 1 / min(across, high * width / height)  # in parts of the map's own width
        place = self.axes.inset_axes((1 + 0.15 * inch, 0.1, 0.18 * inch, 0.8))
        self.figure.colorbar(coloured, cax=place, extend=extend, label=label)

    def title(self, text: str) -> None:
        """Put a title over the map, in as many lines as it needs."""
        self.axes.set_title(fitted(text, self.figure.get_figwidth() / len(self.figure.axes)))


def fitted(text: str, inches: float) -> str:
    """A title in lines that are no longer than a picture is wide; the name of a file may be broken anywhere."""
    return "\n".join(textwrap.wrap(text, max(10, int(inches / _LETTER_IN)), break_on_hyphens=False))


def look(scene: Scene | str | Path, max_side_px: int = MAX_SIDE_PX) -> Scene:
    """The scene at the coarser grid of a picture; reading it costs the same for a scene of any size."""
    scene = scene if isinstance(scene, Scene) else Scene.open(scene)
    return scene.decimated(max_side_px) if max(scene.shape) > max_side_px else scene


def stretch(ground: Ground) -> float:
    """Height of a pixel on the ground over its width: 2 in degrees at 60 north; 1 without CRS."""
    if not ground.has_crs:
        return 1.0
    across, down = pixel_size_m(ground.geobox)
    return down / across if across > 0 and math.isfinite(down / across) else 1.0


def seen(ground: Ground) -> tuple[float, float]:
    """Height and width of a map in widths of a pixel, in its proportions on the ground."""
    height, width = ground.shape
    return height * stretch(ground), float(width)


def canvases(small: Scene | Sheet, titles: list[str], *, grey: bool = False, bar: bool = False) -> list[Canvas]:
    """One picture of the ortho a title, side by side in one figure.

    Args:
        small: A scene small enough to be read whole, from :func:`look`, or a blank sheet.
        titles: Title of each picture.
        grey: Draw the ortho pale and without colour, so that colours on it can be told apart.
        bar: Leave room for a scale of colours beside it.
    """
    height, width = seen(small)
    side = 9.0 if len(titles) == 1 else 6.5
    scale = side / max(height, width)
    size = (max(width * scale, 4.5) * len(titles) + bar * _BAR_IN, max(height * scale, 1.5) + _AROUND_IN)
    figure = Picture(figsize=size, layout="constrained")
    image = background(small, grey=grey)
    columns = np.atleast_1d(figure.subplots(1, len(titles)))
    return [canvas_on(figure, axes, small, image, title) for axes, title in zip(columns, titles, strict=True)]


def background(small: Scene | Sheet, *, grey: bool = False) -> NDArray[np.uint8]:
    """The stretched ortho, uint8 (h, w, 3); pixels without data are light grey, and so is a sheet."""
    height, width = small.shape
    if isinstance(small, Sheet):
        return np.full((1, 1, 3), _PAPER, np.uint8)
    rgb, valid = small.read_rgb(Window(0, 0, width, height))
    if grey:
        rgb = np.repeat(150 + rgb.mean(axis=-1, keepdims=True) * 0.35, 3, axis=-1).astype(np.uint8)
    return np.where(valid[..., None], rgb, np.uint8(_UNKNOWN_GREY)).astype(np.uint8)


def save(figure: Figure, path: str | Path, *, overwrite: bool = False, dpi: int = 150) -> Path:
    """Write a figure as PNG, JPEG, PDF or SVG by the suffix; it appears whole or not at all.

    Raises:
        OutputError: The folder is missing, the file exists, or the suffix is unknown.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists. Say --overwrite to replace it, or give another --out.")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder. Make it first, or give another --out.")
    kind = path.suffix.lower().lstrip(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise OutputError(
            f"{path} does not end like a picture. Give --out a name that ends in .png, .jpg, .pdf or .svg."
        )
    partial = path.with_name(f".{path.name}.partial")
    try:
        figure.savefig(partial, format=kind, dpi=dpi)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def canvas_on(figure: Picture, axes: Axes, small: Scene | Sheet, image: NDArray[np.uint8], title: str) -> Canvas:
    """A map on axes of a figure: the picture, a scale bar and, where there is a CRS, a north arrow."""
    height, width = small.shape
    canvas = Canvas(figure, axes, small)
    canvas.show(image, interpolation="antialiased")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _scale_bar(axes, small)
    if small.has_crs:
        _north_arrow(axes, small)
    canvas.title(title)
    return canvas


def _scale_bar(axes: Axes, small: Ground) -> None:
    height, width = small.shape
    # Along the row, as the bar lies: in degrees a pixel is higher than wide.
    unit_per_px = pixel_size_m(small.geobox)[0] if small.has_crs else 1.0
    length = round_length(width * unit_per_px / 4)
    x, y, thick = width * 0.03, height * 0.96, max(height, width) * 0.006
    ink = _ink(small)
    axes.add_patch(
        Rectangle((x, y - thick), length / unit_per_px, thick, facecolor=ink["color"], edgecolor="black", linewidth=0.6)
    )
    text = _length_text(length) if small.has_crs else f"{length:g} px"
    axes.text(x, y - 1.8 * thick, text, va="bottom", fontsize=9, **ink)


def _ink(small: Ground) -> dict[str, Any]:
    """White with a dark rim is read on any ortho; on paper black is."""
    return {"color": "#111111"} if isinstance(small, Sheet) else {"color": "white", "path_effects": _HALO}


def round_length(longest: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... (and their fractions) that is not above ``longest``."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest)


def _length_text(metres: float) -> str:
    if metres >= 1000:
        return f"{metres / 1000:g} km"
    return f"{metres:g} m" if metres >= 1 else f"{metres * 100:g} cm"


def mapped(affine: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., 2) through an affine; its own operator changes name between versions of the affine package."""
    matrix = np.array([[affine.a, affine.b], [affine.d, affine.e]])
    return np.asarray(xy @ matrix.T + (affine.c, affine.f))


def _north_arrow(axes: Axes, small: Ground) -> None:
    height, width = small.shape
    direction = north(small)
    length = 0.07 * max(height, width)
    centre = np.array([width - 0.9 * length, 0.9 * length])
    tail, head = centre - direction * length / 2, centre + direction * length / 2
    style = {"arrowstyle": "-|>", "linewidth": 2, **_ink(small)}
    axes.annotate("", xy=tuple(head), xytext=tuple(tail), arrowprops=style)
    x, y = centre - direction * length * 0.8
    axes.text(x, y, "N", ha="center", va="center", fontsize=9, **_ink(small))


def north(small: Ground) -> NDArray[np.float64]:
    """Unit vector of true north at the scene's centre, as (x, y) in pixels, y down.

    From the grid itself, since rotated and south-up grids exist, and in UTM grid north is not true north.
    """
    height, width = small.shape
    affine = small.geobox.affine
    to_lonlat = pyproj.Transformer.from_crs(str(small.geobox.crs), "EPSG:4326", always_xy=True)
    lon, lat = to_lonlat.transform(*mapped(affine, np.array([width / 2, height / 2])))
    step = 1e-4 if lat < 89.9 else -1e-4
    moved = to_lonlat.transform(lon, lat + step, direction="INVERSE")
    x, y = mapped(~affine, np.array(moved))
    vector = np.array([x - width / 2, y - height / 2]) * np.sign(step)
    return np.asarray(vector / max(float(np.hypot(*vector)), 1e-12))
