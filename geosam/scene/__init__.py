"""A scene: an orthoimage as a small header that reads windows.

>>> scene = Scene.open("ortho.tif")
>>> rgb, valid = scene.read_rgb(Window(0, 0, 512, 512))

Everything that is odd about a raster stays in this room: dtype, band order, nodata, alpha and
mask bands, palettes, scale and offset, block layout, resampling, the area of interest. Outside
it a scene is named bands, float32 or stretched uint8, and ``valid`` (True = data).
"""

from geosam.scene.bands import PRESETS, ROLES
from geosam.scene.ortho import Block, Scene
from geosam.scene.stretch import Stretch

__all__ = ["PRESETS", "ROLES", "Block", "Scene", "Stretch"]
