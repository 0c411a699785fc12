"""Polygons of a queue back on the pixels of their scene."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from geosam.errors import DatasetError
from geosam.options import SceneOptions
from geosam.pipeline import at_working_gsd
from geosam.relabel.queue import Queue, polygons_of
from geosam.scene import Scene


def open_scene(queue: Queue, row: Any) -> Scene:
    """The scene of a row at the resolution that it was predicted at.

    Raises:
        SceneError: It cannot be read.
        DatasetError: It has another size than it had.
    """
    options = SceneOptions.model_validate_json(row.options)
    scene = at_working_gsd(Scene.open(queue.where(row), options), options)
    if tuple(scene.shape) != (row.height, row.width):
        raise DatasetError(
            f"{queue.path} is out of date: {row.scene} is {scene.shape[1]} x {scene.shape[0]} px and was "
            f"{row.width} x {row.height} px. Predict again."
        )
    return scene


def water_of(queue: Queue, layer: str, row: Any, scene: Scene) -> NDArray[np.bool_]:
    """Pixels whose centre lies in a polygon of a scene, bool (h, w).

    Args:
        queue: Where the polygons are.
        layer: ``water`` (as a person left them) or ``predicted``.
        row: Of ``queue.scenes``.
        scene: Its scene.
    """
    assert scene.geobox.crs is not None
    shapes = polygons_of(queue.of_scene(layer, row, scene.geobox.crs.proj))
    if not shapes:
        return np.zeros(scene.shape, bool)
    return np.asarray(rasterize(shapes, scene.shape, transform=scene.geobox.affine, dtype="uint8") > 0)
