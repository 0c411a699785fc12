"""What a synthetic scene can be told."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Water = Literal["brown", "grey", "green", "clear", "black", "milky", "blue", "mixed"]


class SynthOptions(BaseModel):
    """A river scene: its raster, its place on earth, and what is in it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=0, ge=0)
    """The same options give the same bytes."""
    height: int = Field(default=2048, ge=16, le=200_000)
    """Rows."""
    width: int = Field(default=2048, ge=16, le=200_000)
    """Columns."""
    gsd_m: float = Field(default=0.5, ge=0.01, le=100)
    """Metres a pixel."""
    water: Water = "mixed"
    """Colour of the water; ``mixed``: river, tributary, lake and oxbow differ."""
    bands: Literal["rgb", "rgbn"] = "rgb"
    """Red, green, blue, and near infrared with ``rgbn``."""
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """``uint8``: as displayed; ``uint16``: reflectance times 10,000; ``float32``: reflectance."""
    crs: Literal["utm", "lonlat", "none"] = "utm"
    """``utm``: EPSG:32632; ``lonlat``: EPSG:4326; ``none``: no CRS, a geotransform in metres."""
    rotation_deg: float = Field(default=0.0, ge=-180, le=180)
    """Turns the grid against north, counter-clockwise."""
    collar_px: int = Field(default=0, ge=0)
    """Border without data."""
    detail: Literal["full", "plain"] = "full"
    """``plain``: water, woods and grass with repeated textures only, many times faster, for benchmarks."""
    river: bool = True
    """The meandering main river."""
    braided: bool = True
    """A reach of it with bars and islands."""
    tributary: bool = True
    """A stream narrower than 10 px that joins it."""
    lake: bool = True
    oxbow: bool = True
    forest: bool = True
    """Trees and their shadows."""
    gravel: bool = True
    """Bare gravel along the banks."""
    roads: bool = True
    """Roads; where they cross water they are bridges, and the truth is cut there."""
    roofs: bool = True
    """Houses, among them dark and blue roofs."""
    glint: bool = True
    """Patches of sun glint, and some whitewater."""

    @model_validator(mode="after")
    def _collar_leaves_data(self) -> Self:
        if 2 * self.collar_px >= min(self.height, self.width):
            raise ValueError(f"collar_px {self.collar_px} leaves no pixel of {self.height} x {self.width}")
        return self
