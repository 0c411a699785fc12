// The map: one style for the result and for what it is compared with.

import * as maplibre from "./maplibre/maplibre-gl.mjs";
import { base } from "./api.js";

maplibre.setWorkerUrl(new URL("./maplibre/maplibre-gl-worker.mjs", import.meta.url).href);

export const WATER = "#1f9bff", DRY = "#e69f00", ADD = "#ffd23f", CUT = "#e0453a", OTHER = "#d6278f";
const EMPTY = { type: "FeatureCollection", features: [] };

/** Address of a raster layer's tiles; `version` changes where what they show changes. */
export function tilesOf(layer, { bands = [], percent = 1, version = 0 } = {}) {
  const query = new URLSearchParams({ bands: bands.join(","), percent, v: version });
  // The braces must stay as they are, so they are put in after the address is made.
  return `${new URL(`tiles/${layer}/`, base).href}{z}/{x}/{y}.png?${query}`;
}

/** Layers by their name in the panel: which of the map's layers belong to it, and which property is its opacity. */
export const GROUPS = {
  background: [["background", "raster-opacity", 1]],
  ortho: [["ortho", "raster-opacity", 1]],
  probability: [["probability", "raster-opacity", 1]],
  coarse: [["coarse", "raster-opacity", 1]],
  rivers: [["rivers-fill", "fill-opacity", 0.5], ["rivers-case", "line-opacity", 0.6], ["rivers-line", "line-opacity", 1]],
  prompts: [["prompts-old", "circle-opacity", 0.75], ["boxes-old", "line-opacity", 0.75]],
};

/** A map of the scene, without controls. */
export function makeMap(container, scene, rivers) {
  const raster = (layer, on = true) => ({ type: "raster", tiles: [tilesOf(layer)], tileSize: 256, bounds: scene.bounds, maxzoom: scene.maxzoom, minzoom: scene.minzoom });
  const sources = { ortho: raster("ortho") };
  const layers = [{ id: "paper", type: "background", paint: { "background-color": "#e8ecf0" } }];
  if (scene.background) {
    sources.background = { type: "raster", tiles: [scene.background], tileSize: 256 };
    layers.push({ id: "background", type: "raster", source: "background" });
  }
  layers.push({ id: "ortho", type: "raster", source: "ortho", paint: { "raster-fade-duration": 0, "raster-resampling": "nearest" } });
  sources.probability = raster("probability");
  layers.push({ id: "probability", type: "raster", source: "probability", layout: { visibility: "none" }, paint: { "raster-fade-duration": 0, "raster-resampling": "nearest" } });
  const colour = rivers === "compare" ? OTHER : WATER;
  for (const name of ["rivers", "add", "cut", "prompts", "hover", "box"]) sources[name] = { type: "geojson", data: EMPTY, tolerance: 0.1, maxzoom: 24 };
  layers.push(
    { id: "rivers-fill", type: "fill", source: "rivers", paint: { "fill-color": colour, "fill-opacity": 0.35, "fill-antialias": false } },
    { id: "rivers-case", type: "line", source: "rivers", paint: { "line-color": "#08243f", "line-width": 3.2, "line-opacity": 0.35 } },
    { id: "rivers-line", type: "line", source: "rivers", paint: { "line-color": "#ffffff", "line-width": 1.6 } },
    { id: "hover", type: "line", source: "hover", paint: { "line-color": CUT, "line-width": 3 } },
    { id: "add-fill", type: "fill", source: "add", paint: { "fill-color": ADD, "fill-opacity": 0.42 } },
    { id: "add-case", type: "line", source: "add", paint: { "line-color": "#4d3b00", "line-width": 3.6, "line-opacity": 0.6 } },
    { id: "add-line", type: "line", source: "add", paint: { "line-color": ADD, "line-width": 2 } },
    { id: "cut-fill", type: "fill", source: "cut", paint: { "fill-color": CUT, "fill-opacity": 0.5 } },
    { id: "cut-line", type: "line", source: "cut", paint: { "line-color": CUT, "line-width": 2 } },
    { id: "boxes-old", type: "line", source: "prompts", filter: ["all", ["==", ["get", "label"], "box"], ["!", ["get", "pending"]]], paint: { "line-color": WATER, "line-width": 1.2, "line-dasharray": [3, 2] } },
    { id: "boxes-new", type: "line", source: "prompts", filter: ["all", ["==", ["get", "label"], "box"], ["get", "pending"]], paint: { "line-color": ADD, "line-width": 2, "line-dasharray": [3, 2] } },
    { id: "box", type: "line", source: "box", paint: { "line-color": ADD, "line-width": 2, "line-dasharray": [3, 2] } },
    circles("prompts-old", false, 4),
    circles("prompts-new", true, 6),
  );
  const map = new maplibre.Map({
    container,
    style: { version: 8, sources, layers },
    bounds: scene.bounds, fitBoundsOptions: { padding: 28 },
    attributionControl: false, dragRotate: false, pitchWithRotate: false, touchPitch: false, boxZoom: false,
    doubleClickZoom: false, maxPitch: 0, maxZoom: scene.maxzoom + 3, minZoom: 0, fadeDuration: 0, renderWorldCopies: false,
  });
  map.touchZoomRotate.disableRotation();
  map.keyboard.disableRotation();
  if (container === "map" && scene.on_earth) map.addControl(new maplibre.ScaleControl({ maxWidth: 120 }), "bottom-right");
  return map;
}

function circles(id, pending, radius) {
  const water = ["==", ["get", "label"], "water"];
  return {
    id, type: "circle", source: "prompts",
    filter: ["all", ["==", ["geometry-type"], "Point"], ["==", ["get", "pending"], pending]],
    paint: { "circle-radius": radius, "circle-color": ["case", water, WATER, DRY], "circle-stroke-color": "#ffffff", "circle-stroke-width": pending ? 2 : 1.2 },
  };
}

/** Show or hide a group of layers, with an opacity from 0 to 1. */
export function setGroup(map, name, shown, opacity) {
  for (const [id, property, full] of GROUPS[name]) {
    if (!map.getLayer(id)) continue;
    map.setLayoutProperty(id, "visibility", shown ? "visible" : "none");
    map.setPaintProperty(id, property, Math.min(1, opacity * full));
    if (property === "circle-opacity") map.setPaintProperty(id, "circle-stroke-opacity", opacity);
  }
}

/** Add the coarse mask, which is made only when it is wanted. */
export function addCoarse(map, scene) {
  if (map.getSource("coarse")) return;
  map.addSource("coarse", { type: "raster", tiles: [tilesOf("coarse")], tileSize: 256, bounds: scene.bounds, maxzoom: scene.maxzoom, minzoom: scene.minzoom });
  map.addLayer({ id: "coarse", type: "raster", source: "coarse", paint: { "raster-fade-duration": 0, "raster-resampling": "nearest" } }, "rivers-fill");
}

/** Show the probability as it is now; `version` says which answers it holds. */
export const showSeen = (map, version) => map.getSource("probability").setTiles([tilesOf("probability", { version })]);

export const setData = (map, source, data) => map.getSource(source)?.setData(data ?? EMPTY);
