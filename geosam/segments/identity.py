"""Which scene segments are of, so that they are not taken for those of another one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from affine import Affine
from odc.geo.geobox import GeoBox

if TYPE_CHECKING:
    from geosam.scene import Scene
    from geosam.scene.header import Header


@dataclass(frozen=True)
class Identity:
    """What a segments file says of its scene."""

    source: str
    """Path, URL or GDAL name as it was given."""
    name: str
    height: int
    """Rows of the working grid, of which the segments follow the pixels."""
    width: int
    affine: tuple[float, ...]
    """From (col, row) of a pixel's corner to (x, y): a, b, c, d, e, f."""
    crs: str | None
    """WKT; None: coordinates are pixels."""
    bands: str
    """Which band was which, as ``--bands`` says it."""
    header: str
    """SHA-256 of the file's header: size, bands, type, place, nodata."""

    @classmethod
    def of(cls, scene: Scene) -> Identity:
        """Of a scene at its working resolution."""
        crs = scene.geobox.crs.to_wkt() if scene.has_crs and scene.geobox.crs is not None else None
        affine = tuple(float(value) for value in list(scene.geobox.affine)[:6])
        bands = ",".join(f"{role}={band}" for role, band in scene.bands.items())
        return cls(scene.source, scene.name, *scene.shape, affine, crs, bands, header_digest(scene.decoder.header))

    @property
    def geobox(self) -> GeoBox:
        """The working grid."""
        return GeoBox((self.height, self.width), Affine(*self.affine), self.crs)

    @property
    def has_crs(self) -> bool:
        """Whether the scene has a CRS."""
        return self.crs is not None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the working grid."""
        return self.height, self.width

    def to_json(self) -> str:
        """As a string, for the file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """From what :meth:`to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ValueError("it does not describe a scene")
        return cls(**{**values, "affine": tuple(values["affine"])})


def header_digest(header: Header) -> str:
    """SHA-256 of what a raster's header says, in hex; no path, no time, so that a copy is the same scene."""
    said: dict[str, Any] = {
        name: getattr(header, name) for name in ("shape", "count", "dtype", "nodata", "scales", "offsets", "names")
    }
    said["transform"] = [float(value) for value in list(header.transform)[:6]]
    said["crs"] = None if header.crs is None else str(header.crs)
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()
