"""What the page can ask of the server. No request names a file: what is shown was given when the server started."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from odc.geo.geobox import GeoBox
from pydantic import BaseModel, ConfigDict, Field
from rio_tiler.constants import WEB_MERCATOR_TMS
from rio_tiler.models import ImageData
from titiler.core.factory import BaseFactory
from titiler.core.resources.enums import ImageType
from titiler.core.utils import render_image

from geosam.errors import GeosamError
from geosam.prompts import DRY, WATER
from geosam.viewer.layers import Layers
from geosam.viewer.place import MERCATOR
from geosam.viewer.rasters import TILE_PX, Picture, RasterLayer, View
from geosam.viewer.session import EditError, Session, State

STATIC = Path(__file__).parent / "static"
DECIMALS = 8
"""Of degrees on the page: a millimetre."""
Degrees = float


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PointIn(_Body):
    """A click."""

    lon: Degrees = Field(ge=-180, le=180)
    lat: Degrees = Field(ge=-90, le=90)
    label: Literal["water", "dry"] = "water"


class BoxIn(_Body):
    """A box between two opposite corners."""

    lon0: Degrees = Field(ge=-180, le=180)
    lat0: Degrees = Field(ge=-90, le=90)
    lon1: Degrees = Field(ge=-180, le=180)
    lat1: Degrees = Field(ge=-90, le=90)


class LookIn(BoxIn):
    """What the page shows, and where its middle or the pointer is."""

    lon: Degrees = Field(ge=-180, le=180)
    lat: Degrees = Field(ge=-90, le=90)


class DeleteIn(_Body):
    """A polygon."""

    id: int


@dataclass
class Page:
    """Everything that one page is served from."""

    session: Session
    layers: Layers
    background: str | None = None
    version: int = 0
    """Rises with every step, so that another tab knows that something has changed."""

    def close(self) -> Path | None:
        """End the session; see :meth:`Session.close`."""
        kept = self.session.close()
        self.layers.close()
        return kept

    def features(self, table: gpd.GeoDataFrame) -> str:
        """Polygons in pixels as GeoJSON in degrees, for the page alone."""
        shapes = shapely.to_geojson(_rounded(self.session.place.on_page(table.geometry.to_numpy())))
        names = ["id", "area_m2", "perimeter_m", "probability", "model"]
        rows = zip(*(table[name].tolist() for name in names), strict=True)
        told = [_json(dict(zip(names, row, strict=True))) for row in rows]
        features = [
            f'{{"type":"Feature","properties":{properties},"geometry":{shape}}}'
            for shape, properties in zip(shapes, told, strict=True)
        ]
        return f'{{"type":"FeatureCollection","features":[{",".join(features)}]}}'


class LayerTiles(BaseFactory):
    """titiler's factory with a single route: a tile of one layer. Its own factories take a URL from the client.

    Args:
        layer: Gives the layer, or None as long as there is none.
    """

    def __init__(self, layer: Callable[[], RasterLayer | None]) -> None:
        self.layer = layer
        super().__init__()

    def register_routes(self) -> None:
        """Add the route."""
        tms: Any = WEB_MERCATOR_TMS

        @self.router.get("/{z}/{x}/{y}.png", response_class=Response)
        def tile(
            z: int, x: int, y: int,
            bands: str = Query("", max_length=100), percent: float = Query(1.0, ge=0, le=20),
        ) -> Response:  # fmt: skip
            """A tile of web mercator as PNG; 204 where there is nothing."""
            if not (0 <= z <= 28 and 0 <= x < 2**z and 0 <= y < 2**z):
                raise HTTPException(404, "no such tile")
            layer = self.layer()
            if layer is None:
                raise HTTPException(404, "no such layer")
            left, bottom, right, top = tms.xy_bounds(x, y, z)
            affine = Affine((right - left) / TILE_PX, 0, left, 0, (bottom - top) / TILE_PX, top)
            grid = GeoBox((TILE_PX, TILE_PX), affine, MERCATOR)
            picture = layer.picture(grid, View(tuple(filter(None, bands.split(","))), percent))
            if not picture.valid.any():
                return Response(status_code=204)
            return Response(_png(picture), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


def make_app(page: Page) -> FastAPI:
    """The whole server, but for its guard."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(_looking(page))
    app.include_router(_editing(page))
    for name in ("ortho", "coarse", "probability"):
        tiles = LayerTiles(functools.partial(page.layers.raster, name))
        app.include_router(tiles.router, prefix=f"/tiles/{name}")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(GeosamError, _told)
    return app


def _told(request: Request, error: Exception) -> Response:
    """Every error for people is a line that the page shows."""
    status = 409 if isinstance(error, EditError) else 500
    return JSONResponse({"detail": " ".join(str(error).split())}, status)


def _looking(page: Page) -> APIRouter:
    """What is shown; nothing here changes the result."""
    router, session, layers = APIRouter(), page.session, page.layers

    @router.get("/")
    def index() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-store"})

    @router.get("/api/scene")
    def scene() -> dict[str, Any]:
        return {**layers.facts(), "background": page.background, "out": session.out.name}

    @router.get("/api/state")
    def state() -> dict[str, Any]:
        return _state(page)

    @router.get("/api/rivers")
    def rivers() -> Response:
        return Response(page.features(session.state.rivers), media_type="application/geo+json")

    @router.get("/api/compare")
    def compare() -> Response:
        if layers.compare is None:
            raise HTTPException(404, "nothing to compare with was given")
        return Response(page.features(layers.compare), media_type="application/geo+json")

    @router.get("/api/stretch")
    def stretch(bands: str = Query("", max_length=100), percent: float = Query(1.0, ge=0, le=20)) -> dict[str, Any]:
        view = View(tuple(filter(None, bands.split(","))), percent)
        found = layers.ortho.stretch(view)
        return {"low": found.low, "high": found.high}

    @router.post("/api/coarse")
    def coarse() -> dict[str, Any]:
        return layers.begin_coarse()

    @router.post("/api/look")
    def look(view: LookIn) -> dict[str, int]:
        corners = np.array([(x, y) for x in (view.lon0, view.lon1) for y in (view.lat0, view.lat1)])
        xy = session.place.pixels(corners)
        centre = session.place.pixels(np.array([[view.lon, view.lat]]))[0]
        tiles = session.asker.tiles
        if np.isfinite(xy).all() and np.isfinite(centre).all():
            bounds = (*xy.min(axis=0), *xy.max(axis=0))
            tiles.look_at(tiles.near(bounds, (float(centre[0]), float(centre[1]))))
        ready, wanted = tiles.progress()
        return {"ready": ready, "wanted": wanted}

    return router


def _editing(page: Page) -> APIRouter:
    """Steps of the session; each answers with the new state."""
    router, session = APIRouter(prefix="/api"), page.session

    def done(step: Callable[[], State]) -> dict[str, Any]:
        began, worked = time.perf_counter(), time.thread_time()
        step()
        page.version += 1
        spent = {"wall_ms": _ms(time.perf_counter() - began), "cpu_ms": _ms(time.thread_time() - worked)}
        return {**_state(page), "spent": spent}

    @router.post("/point")
    def point(at: PointIn) -> dict[str, Any]:
        return done(lambda: session.point(at.lon, at.lat, WATER if at.label == "water" else DRY))

    @router.post("/box")
    def box(at: BoxIn) -> dict[str, Any]:
        return done(lambda: session.box(((at.lon0, at.lat0), (at.lon1, at.lat1))))

    @router.post("/delete")
    def delete(polygon: DeleteIn) -> dict[str, Any]:
        return done(lambda: session.delete(polygon.id))

    @router.post("/follow")
    def follow() -> dict[str, Any]:
        return done(session.follow)

    @router.post("/accept")
    def accept() -> dict[str, Any]:
        return done(session.accept)

    @router.post("/discard")
    def discard() -> dict[str, Any]:
        return done(session.discard)

    @router.post("/undo")
    def undo() -> dict[str, Any]:
        return done(session.undo)

    @router.post("/redo")
    def redo() -> dict[str, Any]:
        return done(session.redo)

    @router.post("/save")
    def save() -> dict[str, Any]:
        # In a thread of its own, to its end, whether or not the browser still listens.
        count = session.save()
        return {**_state(page), "written": count}

    return router


def _state(page: Page) -> dict[str, Any]:
    """What changes, without the polygons of the result."""
    session, layers = page.session, page.layers
    state = session.state
    pending = state.pending
    ready, wanted = session.asker.tiles.progress()
    return {
        "version": page.version,
        "result": id(state.rivers),
        "polygons": len(state.rivers),
        "area_m2": float(state.rivers["area_m2"].sum()),
        "can_undo": session.can_undo,
        "can_redo": session.can_redo,
        "saved": session.is_saved,
        "pending": None if pending.is_empty else _pending(page),
        "prompts": _points(page),
        "tiles": {"ready": ready, "wanted": wanted},
        "coarse": layers.coarse_state(),
        "seen": _seen(session),
        "notice": session.watch.notice if session.watch.changed else "",
    }


def _seen(session: Session) -> str:
    """Another text whenever the probability layer shows something else: part of its tiles' address."""
    seen = session.seen
    return f"{len(seen)}.{seen[-1].number}" if seen else "0"


def _pending(page: Page) -> dict[str, Any]:
    place, pending = page.session.place, page.session.state.pending
    shapes = [] if pending.add is None else list(pending.add.geometry)
    add = place.on_page(np.array([shapely.GeometryCollection(shapes)], dtype=object))
    cut = place.on_page(np.array([pending.cut], dtype=object))
    return {
        "add": json.loads(shapely.to_geojson(_rounded(add)[0])),
        "cut": json.loads(shapely.to_geojson(_rounded(cut)[0])),
        "polygons": len(shapes),
        "area_m2": 0.0 if pending.add is None else float(pending.add["area_m2"].sum()),
        "changes": pending.changes,
        "note": pending.note,
    }


def _points(page: Page) -> dict[str, Any]:
    """Prompts of the pending edit and of those accepted before, as GeoJSON in degrees."""
    place, state = page.session.place, page.session.state
    features = []

    def add(shape: shapely.Geometry, **properties: Any) -> None:
        on_page = _rounded(place.on_page(np.array([shape], dtype=object)))[0]
        features.append(
            {"type": "Feature", "properties": properties, "geometry": json.loads(shapely.to_geojson(on_page))}
        )

    asked = state.pending.asked
    for xy, label in zip(asked.points, asked.labels, strict=True):
        add(shapely.Point(xy), label="water" if label == WATER else "dry", pending=True)
    for bounds in asked.boxes:
        add(shapely.box(*bounds), label="box", pending=True)
    for entry in state.log:
        for given in entry.get("points", ()):
            add(shapely.Point(given["xy_px"]), label=given["label"], pending=False)
        for given in entry.get("boxes", ()):
            add(shapely.box(*given["xyxy_px"]), label="box", pending=False)
    return {"type": "FeatureCollection", "features": features}


def _rounded(shapes: Any) -> Any:
    return shapely.transform(shapes, lambda xy: xy.round(DECIMALS))


def _json(values: dict[str, Any]) -> str:
    lacking = [name for name, value in values.items() if isinstance(value, float) and not np.isfinite(value)]
    return json.dumps(values | dict.fromkeys(lacking))


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _png(picture: Picture) -> bytes:
    hidden = np.broadcast_to(~picture.valid, picture.values.shape)
    image = ImageData(np.ma.MaskedArray(picture.values, hidden))
    # Level 1: a tile goes no farther than the next process.
    content, _ = render_image(image, colormap=picture.colours, output_format=ImageType.png, zlevel=1)
    return bytes(content)
