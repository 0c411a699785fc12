"""One editing session: what is shown, what is pending, what was done; every step can be undone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from geosam import __version__
from geosam.errors import GeosamError, OptionsError
from geosam.pipeline.outputs import write_json
from geosam.prompts import DRY, WATER
from geosam.prompts.opening import SNAP
from geosam.vector import write_rivers
from geosam.vector.style import write_style
from geosam.viewer import table
from geosam.viewer.asking import Answer, Asked, Asker, meant
from geosam.viewer.place import Place
from geosam.viewer.probability import Seen
from geosam.viewer.watch import Watch

MOST_STEPS = 500
"""Steps that can be undone; tables share their polygons, so a step costs little."""
MOST_FOLLOWED = 24
"""Tiles by which one call of :meth:`Session.follow` lengthens a pending edit."""


class EditError(GeosamError, ValueError):
    """A step that makes no sense just now; nothing has changed."""


@dataclass(frozen=True, eq=False)
class Pending:
    """An edit that is not accepted yet."""

    asked: Asked = field(default_factory=Asked)
    add: gpd.GeoDataFrame | None = None
    """Polygons to be joined to the result, in pixels."""
    cut: shapely.Geometry = field(default_factory=shapely.MultiPolygon)
    """Area to be taken off the result, in pixels."""
    answer: Answer | None = None
    note: str = ""
    """What a person should know of it."""

    @cached_property
    def seen(self) -> tuple[Seen, ...]:
        """The probability that the model answered with; none or one."""
        return () if self.answer is None or self.answer.probability.size == 0 else (Seen.of(self.answer),)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been asked."""
        return not self.asked.points and not self.asked.boxes

    @property
    def changes(self) -> bool:
        """Whether accepting it would change the result."""
        return (self.add is not None and len(self.add) > 0) or not self.cut.is_empty


@dataclass(frozen=True, eq=False)
class State:
    """Everything that undo brings back."""

    rivers: gpd.GeoDataFrame
    """The result, in pixels of the working grid."""
    pending: Pending
    log: tuple[dict[str, Any], ...] = ()
    """What was accepted and deleted, in order."""
    seen: tuple[Seen, ...] = ()
    """Probabilities that the accepted edits came from, in order."""


class Session:
    """The state of one page; every method is one step, and they come one after the other.

    Args:
        asker: Answers prompts.
        place: From the page to pixels.
        rivers: The result to begin with, in pixels; see :func:`geosam.viewer.table.read_table`.
        out: Where :meth:`save` writes the polygons; the prompts go beside it.
        watch: Tells whether the scene's file is still the one that was opened.
    """

    def __init__(self, asker: Asker, place: Place, rivers: gpd.GeoDataFrame, out: Path, watch: Watch) -> None:
        self.asker, self.place, self.out, self.watch = asker, place, out, watch
        self.scene = asker.scene
        self._states = [State(rivers, Pending())]
        self._at = 0
        self._saved = self._states[0]
        self._step, self._saving = threading.RLock(), threading.Lock()

    @property
    def state(self) -> State:
        """The state now."""
        return self._states[self._at]

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Probabilities that the model answered with, of the pending edit last."""
        state = self.state
        return (*state.seen, *state.pending.seen)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back."""
        return self._at + 1 < len(self._states)

    @property
    def is_saved(self) -> bool:
        """Whether the result on disk, or the one that was opened, is the one shown."""
        return self.state.rivers is self._saved.rivers

    @property
    def history(self) -> Path:
        """Where the prompts go: ``edited.geojson`` has ``edited.prompts.json`` beside it."""
        return self.out.with_name(f"{self.out.stem}.prompts.json")

    def point(self, lon: float, lat: float, label: int) -> State:
        """Add a point and ask again.

        Raises:
            EditError: It lies outside the scene, or the scene has changed.
        """
        x, y = self._snapped(lon, lat)
        return self._ask(lambda asked: asked.with_point(x, y, label))

    def box(self, corners: tuple[tuple[float, float], tuple[float, float]]) -> State:
        """Add a box between two opposite corners in degrees, and ask again; it follows the pixel grid.

        Raises:
            EditError: It lies outside the scene or is no more than a line.
        """
        (west, south), (east, north) = corners
        around = np.array([(west, south), (east, south), (east, north), (west, north)], np.float64)
        height, width = self.scene.shape
        xy = np.round(self.place.pixels(around) * SNAP) / SNAP
        x0, y0 = xy.min(axis=0).clip(0, (width, height))
        x1, y1 = xy.max(axis=0).clip(0, (width, height))
        if x1 - x0 < 1 or y1 - y0 < 1:
            raise EditError("That box holds no pixel of the scene. Draw a larger one, inside the picture.")
        return self._ask(lambda asked: asked.with_box((float(x0), float(y0), float(x1), float(y1))))

    def follow(self) -> State:
        """Lengthen the pending edit into the tiles into which its water goes on.

        Raises:
            EditError: Nothing is pending, or the water goes on nowhere.
        """
        with self._step:
            pending = self.state.pending
            if pending.answer is None or not pending.asked.means_water:
                raise EditError("Nothing to follow yet. Click on water first.")
            asked, answer = pending.asked, pending.answer
            before = len(asked.points)
            while len(asked.points) - before < MOST_FOLLOWED:
                onward = self.asker.onward(_only(answer, meant(answer, asked)))
                if not onward:
                    break
                for x, y in onward[: MOST_FOLLOWED - (len(asked.points) - before)]:
                    asked = asked.with_point(x, y, WATER)
                answer = self.asker.ask(asked)
            if len(asked.points) == before:
                raise EditError("The water goes on into no further tile.")
            return self._push(replace(self.state, pending=self._proposed(asked)))

    def accept(self) -> State:
        """Join the pending polygons to the result and take its cuts off.

        Raises:
            EditError: There is nothing to accept.
        """
        with self._step:
            rivers, pending = self.state.rivers, self.state.pending
            if not pending.changes:
                raise EditError("There is nothing to accept. Click on water, or shift-click what is not.")
            if pending.add is not None and len(pending.add):
                rivers = table.joined(rivers, pending.add, self.scene)
            rivers = table.without(rivers, pending.cut, self._least_px, self.scene)
            entry = {"action": "add" if pending.asked.means_water else "cut", **self._told(pending.asked)}
            seen = (*self.state.seen, *pending.seen)
            return self._push(State(rivers, Pending(), (*self.state.log, entry), seen))

    def discard(self) -> State:
        """Forget the pending edit."""
        with self._step:
            if self.state.pending.is_empty:
                raise EditError("There is no pending edit.")
            return self._push(replace(self.state, pending=Pending()))

    def delete(self, number: int) -> State:
        """Take the polygon of this id off the result.

        Raises:
            EditError: There is none.
        """
        with self._step:
            rivers = table.dropped(self.state.rivers, number)
            if len(rivers) == len(self.state.rivers):
                raise EditError(f"There is no polygon {number}.")
            entry = {"action": "delete", "id": number, "time": _now()}
            return self._push(replace(self.state, rivers=rivers, log=(*self.state.log, entry)))

    def undo(self) -> State:
        """The state before the last step."""
        with self._step:
            if not self.can_undo:
                raise EditError("There is nothing to undo.")
            self._at -= 1
            return self.state

    def redo(self) -> State:
        """The step that was undone last, again."""
        with self._step:
            if not self.can_redo:
                raise EditError("There is nothing to redo.")
            self._at += 1
            return self.state

    def save(self) -> int:
        """Write the result and the prompts, each whole or not at all.

        Returns:
            Polygons written.

        Raises:
            OutputError: They cannot be written; what was there is untouched.
        """
        with self._saving:
            state = self.state
            self._write(state, self.out, self.history)
            self._saved = state
            return len(state.rivers)

    def close(self) -> Path | None:
        """End the session; wait for a save that is under way.

        Returns:
            Where the result was put if it had edits that were not saved: beside ``out``; None: all were saved.
        """
        with self._saving:
            self.asker.tiles.close()
            if self.is_saved:
                return None
            kept = self.out.with_name(f"{self.out.stem}.unsaved{self.out.suffix}")
            self._write(self.state, kept, kept.with_name(f"{kept.stem}.prompts.json"))
            self._saved = self.state
            return kept

    def _write(self, state: State, out: Path, history: Path) -> None:
        write_rivers(table.in_scene(state.rivers, self.scene), out, overwrite=True)
        model = {"name": self.asker.model.name, "sha256": self.asker.model.sha256}
        crs = str(self.scene.geobox.crs) if self.scene.has_crs else None
        facts = {"geosam": __version__, "scene": self.scene.source, "crs": crs, "model": model, "edits": [*state.log]}
        write_json(history, facts)
        write_style(out)

    @property
    def _least_px(self) -> float:
        from geosam.pipeline import without_specks

        least_m2 = without_specks(self.asker.options.vector, self.scene).min_area_m2 or 0.0
        return least_m2 / self.scene.pixel_area_m2

    def _snapped(self, lon: float, lat: float) -> tuple[float, float]:
        height, width = self.scene.shape
        x, y = np.round(self.place.pixels(np.array([[lon, lat]]))[0] * SNAP) / SNAP
        if not (0 <= x < width and 0 <= y < height):
            raise EditError("That point lies outside the scene.")
        return float(x), float(y)

    def _ask(self, change: Callable[[Asked], Asked]) -> State:
        with self._step:
            if self.watch.changed:
                raise EditError(self.watch.notice)
            return self._push(replace(self.state, pending=self._proposed(change(self.state.pending.asked))))

    def _proposed(self, asked: Asked) -> Pending:
        """What accepting the prompts would change."""
        if not asked.means_water:
            return self._proposed_cut(asked)
        answer = self.asker.ask(asked)
        add = meant(answer, asked)
        whole = shapely.union_all(add.geometry.to_numpy())
        beside = shapely.difference(answer.outline, whole)
        cut = self._denied(beside, asked)
        note = "" if len(add) or not cut.is_empty else "The model sees no water there. Try another point, or a box."
        return Pending(asked, add, cut, answer, note)

    def _proposed_cut(self, asked: Asked) -> Pending:
        """Dry points alone take off the result the ground around them that the model takes for dry.

        Where it takes all of it for water, they take off what it sees when pointed at them.
        """
        shapes = self.state.rivers.geometry.to_numpy()
        on_water = [shapely.intersects_xy(shapes, x, y).any() for x, y in asked.points]
        if not any(on_water):
            return Pending(asked, note="Dry points change nothing here: they lie on no polygon. Click on water too.")
        inverted = asked.inverted()
        answer = self.asker.ask(inverted)
        water = shapely.union_all(answer.bodies.geometry.to_numpy())
        cut = self._denied(shapely.difference(answer.outline, water), asked)
        if cut.is_empty:
            cut = self._denied(shapely.union_all(meant(answer, inverted).geometry.to_numpy()), asked)
        note = "The model cannot tell what to cut there. Add a water point beside it, or delete the polygon."
        return Pending(asked, None, cut, answer, note if cut.is_empty else "")

    def _denied(self, ground: shapely.Geometry, asked: Asked) -> shapely.Geometry:
        """The parts of the result on this ground that a dry point lies in."""
        shapes = self.state.rivers.geometry.to_numpy()
        near = shapes[shapely.intersects(shapes, ground)] if len(shapes) else shapes
        parts = shapely.get_parts(shapely.get_parts(shapely.intersection(near, ground, grid_size=table.GRID_PX)))
        parts = parts[shapely.get_dimensions(parts) == 2]
        hit = np.zeros(len(parts), bool)
        for x, y in asked.labelled(DRY):
            hit |= shapely.intersects_xy(parts, x, y)
        return shapely.union_all(parts[hit]) if hit.any() else shapely.MultiPolygon()

    def _told(self, asked: Asked) -> dict[str, Any]:
        """Prompts as the history keeps them: in pixels, in degrees, or without CRS in pixels alone."""
        points = []
        for (x, y), label in zip(asked.points, asked.labels, strict=True):
            points.append({"label": "water" if label == WATER else "dry", "xy_px": [x, y], **self._degrees(x, y)})
        boxes = [{"xyxy_px": list(box)} for box in asked.boxes]
        return {"points": points, "boxes": boxes, "time": _now()}

    def _degrees(self, x: float, y: float) -> dict[str, list[float]]:
        if not self.place.is_real:
            return {}
        return {"lonlat": self.place.lonlat(np.array([[x, y]]))[0].round(7).tolist()}

    def _push(self, state: State) -> State:
        self._states = [*self._states[: self._at + 1], state][-MOST_STEPS:]
        self._at = len(self._states) - 1
        return state


def check_out(out: Path, has_crs: bool, overwrite: bool) -> None:
    """Refuse outputs that could not be written, before anything is edited.

    Raises:
        OptionsError: Unknown suffix, or GeoJSON without CRS.
        OutputError: The folder is missing, or the file exists.
    """
    from geosam.vector import check_output, check_path

    check_output(out, overwrite, has_crs=has_crs)
    check_path(out.with_name(f"{out.stem}.prompts.json"), overwrite)
    if out.stem.endswith(".unsaved"):
        raise OptionsError(f"--out {out}: that name is kept for edits that were not saved. Choose another.")


def _only(answer: Answer, bodies: gpd.GeoDataFrame) -> Answer:
    """The answer with no other water than these bodies'."""
    from affine import Affine
    from rasterio.features import geometry_mask

    shapes = list(bodies.geometry)
    if not shapes:
        return replace(answer, water=np.zeros_like(answer.water))
    inside = geometry_mask(shapes, answer.water.shape, Affine.translation(answer.left, answer.top), invert=True)
    return replace(answer, water=answer.water & inside)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
