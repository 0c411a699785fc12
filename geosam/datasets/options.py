"""What loading labelled tiles can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Ids = Annotated[tuple[int, ...], Field(strict=False)]
"""A TOML file has lists, no tuples."""


class DataOptions(BaseModel):
    """How a source of labelled tiles is understood; nothing is needed where it is laid out as usual."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    layout: Literal["auto", "cityscapes"] = "auto"
    """``auto``: by what is there; ``cityscapes``: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY."""
    images: str = "images"
    """Subfolder of the images."""
    masks: str | None = None
    """Subfolder of the labels; None: ``masks`` or ``labels``."""
    image_suffix: str | None = None
    """End of the names of images, such as ``_rgb.png``; what stands before it is the same as of the label."""
    label_suffix: str | None = None
    """End of the names of labels, such as ``_mask.png``."""
    image_column: str | None = None
    """Column of a table that holds the images; None: ``image``."""
    label_column: str | None = None
    """Column of a table that holds the labels; None: ``label`` or ``mask``."""
    name_column: str | None = None
    """Column that holds the names; None: ``name``, or else the image's file, or else the row's number."""
    subset: str | None = None
    """Configuration of a data set on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a data set on the hub."""
    water_ids: Ids = ()
    """Class ids of water in the labels; none: labels are 255 and 0, or 1 and 0."""
    ignore_value: int | None = None
    """Label value that says nothing of the pixel; 128 does so anyway where there are no class ids."""
    group_by: str | None = None
    """Column whose tiles stay in one split: a place or a date. None: ``group`` if there is one; ``name``: no groups."""
    validation: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tiles that is split off where the data have no validation split."""
    seed: int = Field(default=0, ge=0)
    """Of that split."""
    labels: str | None = None
    """Of orthoimages: one vector file for all, or a folder of files with the orthos' stems; None: beside them."""
    chip_px: int = Field(default=512, ge=32)
    """Side of the chips that orthoimages are cut into, pixels."""
    stride_px: int | None = Field(default=None, ge=16)
    """From one chip to the next, pixels; None: ``chip_px``. The last of a row lies flush with the border."""
    gsd_m: float | None = Field(default=None, gt=0)
    """Metres a pixel at which orthoimages are read; None: as they are."""
