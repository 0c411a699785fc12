"""The bands of an item as one source of pixels."""

from __future__ import annotations

import os
from dataclasses import replace

from geosam.catalogue.assets import bands_by_role
from geosam.catalogue.walk import Item
from geosam.scene.files import is_local
from geosam.scene.stack import stack_text


def stacked(item: Item, base: str) -> str:
    """Red, green, blue and near infrared of an item as one source, on the grid of its finest band.

    Args:
        item: The item; its assets say by common names which band is which.
        base: Address of the document it stands in.

    Returns:
        Text that :meth:`geosam.Scene.open` takes like a path; files are opened then, and pixels read when asked for.

    Raises:
        SceneError: A colour is in no asset.
    """
    bands = bands_by_role(item, base)
    placed = [replace(band, href=_absolute(band.href)) for band in bands]
    return stack_text(f"STAC item {item.get('id', '?')}", placed)


def _absolute(href: str) -> str:
    return os.path.abspath(os.path.expanduser(href)) if is_local(href) else href
