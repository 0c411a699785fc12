"""What loading labelled tiles can be told."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Ids = Annotated[tuple[int, ...], Field(strict=False)]
"""A TOML file has lists, no tuples."""
Words = Annotated[tuple[str, ...], Field(strict=False)]
Shares = Annotated[tuple[float, float], Field(strict=False)]
Bands = Annotated[tuple[int, int, int], Field(strict=False)]


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
    bands: Bands | None = None
    """Bands of the images that stand for red, green and blue, from 1; one may be named twice. None: the first three."""
    columns: Shares = (0.0, 1.0)
    """Share of every image's width that is used, from 0 (left) to 1 (right); of an ortho, not of its chips."""
    names: str = "*"
    """Only tiles whose name fits this pattern (``fnmatch``), such as ``t[1-6]_*``."""
    groups: Words = ()
    """Only tiles of these groups; none: of all."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many tiles, evenly spread over the list."""
    group_by: str | None = None
    """Column whose tiles stay in one split: a place or a date; ``name:REGEX``: what is found in their names, as in
    ``name:_(\\d{8})_``. None: ``group`` if there is one, and splits that the data have stay as they are; ``name``: no
    groups."""
    resplit: bool = False
    """Pay no heed to the splits that the data have: make train, validation and test anew, in whole groups, the last two
    with a share of ``validation`` each. For data whose own splits have every place or date in all of them."""
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
    gsd: Literal["native", "auto"] | float = "auto"
    """Metres a pixel at which orthoimages are read; ``auto``: as ``geosam segment`` works on them."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if isinstance(self.gsd, float) and self.gsd <= 0:
            raise ValueError(f"gsd must be above 0 m, got {self.gsd}")
        if not 0 <= self.columns[0] < self.columns[1] <= 1:
            raise ValueError(f"columns must be a part of the width from 0 to 1, such as (0.5, 1), got {self.columns}")
        if self.resplit and self.validation >= 0.5:
            raise ValueError(f"resplit takes validation twice, so it must be below 0.5, got {self.validation}")
        if self.bands is not None and min(self.bands) < 1:
            raise ValueError(f"bands are counted from 1, got {self.bands}")
        return self
