"""The layers of a page: what was given when it was opened, and the coarse mask when somebody wants to see it."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geosam.errors import GeosamError
from geosam.options import SegmentOptions
from geosam.pipeline import first_guess
from geosam.scene import Scene
from geosam.viewer.place import Place
from geosam.viewer.probability import ProbabilityLayer
from geosam.viewer.rasters import FileLayer, OrthoLayer, RasterLayer

if TYPE_CHECKING:
    import geopandas as gpd

    from geosam.models import PromptableModel


@dataclass
class Layers:
    """Everything that can be shown under the edits."""

    scene: Scene
    place: Place
    model: PromptableModel
    options: SegmentOptions
    probability: ProbabilityLayer
    compare: gpd.GeoDataFrame | None = None
    """A second result, in pixels."""
    _coarse: FileLayer | None = None
    _coarse_said: dict[str, Any] = field(default_factory=lambda: {"status": "none", "text": ""})
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.ortho = OrthoLayer(self.scene, self.place)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def raster(self, name: str) -> RasterLayer | None:
        """The layer of a name, if there is one by now."""
        found: dict[str, RasterLayer | None] = {
            "ortho": self.ortho, "coarse": self._coarse, "probability": self.probability
        }  # fmt: skip
        return found.get(name)

    def facts(self) -> dict[str, Any]:
        """What the page has to know once."""
        scene = self.scene
        height, width = scene.shape
        return {
            "name": scene.name,
            "about": repr(scene).removeprefix("Scene(").removesuffix(")"),
            "size_px": [width, height],
            "gsd_m": scene.gsd_m if scene.has_crs else None,
            "bounds": self.place.bounds(),
            "on_earth": self.place.is_real,
            "bands": list(scene.bands),
            "model": self.model.name,
            "compare": self.compare is not None,
            "warnings": list(scene.warnings),
        }

    def coarse_state(self) -> dict[str, Any]:
        """``status`` (none, running, ready, failed) and what to say of it."""
        return dict(self._coarse_said)

    def begin_coarse(self) -> dict[str, Any]:
        """Make the coarse mask in the background, once; it may take long for a large scene."""
        with self._lock:
            if self._coarse_said["status"] in ("none", "failed"):
                self._coarse_said = {"status": "running", "text": "looking for water ..."}
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="geosam-view-")
                work = (Path(self._folder.name),)
                threading.Thread(target=self._make_coarse, args=work, name="geosam-coarse", daemon=True).start()
        return self.coarse_state()

    def close(self) -> None:
        """Remove what was made for the page alone."""
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()

    def _make_coarse(self, folder: Path) -> None:
        def tell(done: int, total: int) -> None:
            self._coarse_said = {"status": "running", "text": f"{done / max(total, 1):.0%}"}

        try:
            guess = first_guess(self.scene, self.model, self.options, folder, tell)
            self._coarse = FileLayer(guess.path, self.scene, self.place, option="--coarse", is_mask=True)
            self._coarse_said = {"status": "ready", "text": f"{guess.method}, {guess.water_fraction:.1%} water"}
        except (GeosamError, OSError) as error:
            self._coarse_said = {"status": "failed", "text": " ".join(str(error).split())}
