// The page: a map, a panel, tools, and the state that the server keeps.

import { get, post } from "./api.js";
import { makeMap, setData } from "./map.js";
import { Panel } from "./panel.js";
import { Swipe } from "./swipe.js";
import { Tools } from "./tools.js";

const ASKING = ["api/point", "api/box", "api/follow"];
const POLL_MS = 2000, REST_MS = 250, TOAST_MS = 4500;
const at = (id) => document.getElementById(id);
const page = { state: null, rivers: null, waiting: Promise.resolve(), steps: 0, refresh: async () => show(await get("api/state")) };
window.geosam = page;

start().catch((error) => tell(error.message, true, 0));

async function start() {
  const scene = await get("api/scene");
  Object.assign(scene, zooms(scene));
  at("name").textContent = scene.name;
  at("about").textContent = `${scene.about.replace(`${scene.name}: `, "")} · ${scene.model}`;
  document.title = `${scene.name} – geosam`;
  page.map = makeMap("map", scene, "rivers");
  page.map.on("error", ({ error }) => console.warn(error?.message));
  await new Promise((done) => page.map.once("load", done));
  page.panel = new Panel(page.map, scene, tell);
  page.tools = new Tools(page.map, step);
  page.swipe = new Swipe(page.map, scene, page.panel);
  at("compare-section").hidden = !scene.compare;
  wire(scene);
  await page.refresh();
  if (scene.warnings.length) tell(scene.warnings[0], false, 9000);
  look();
  setInterval(poll, POLL_MS);
  document.body.dataset.ready = "yes";
}

/** Zooms between which tiles exist: to pixels of the scene's own size, and out until it is small. */
function zooms({ bounds: [west, south, east, north], size_px: [width] }) {
  const degrees = (east - west) / width;
  const native = Math.ceil(Math.log2(360 / 256 / degrees));
  return { maxzoom: Math.min(24, Math.max(1, native + 1)), minzoom: Math.max(0, native - Math.ceil(Math.log2(Math.max(width, 256) / 256)) - 2) };
}

function wire(scene) {
  const { map, swipe } = page;
  map.on("moveend", () => look());
  map.on("mousemove", (event) => {
    at("where").textContent = scene.on_earth ? `${event.lngLat.lat.toFixed(6)}, ${event.lngLat.lng.toFixed(6)}` : "";
    clearTimeout(page.rest);
    page.rest = setTimeout(() => look(event.lngLat), REST_MS);
  });
  for (const name of ["undo", "redo", "accept", "discard", "follow"]) at(name).addEventListener("click", () => step(`api/${name}`));
  at("save").addEventListener("click", save);
  at("help-button").addEventListener("click", () => at("help").showModal());
  at("swipe-on").addEventListener("change", (event) => swipe.toggle(event.target.checked));
  addEventListener("keydown", (event) => key(event, scene));
  addEventListener("keyup", (event) => event.key.toLowerCase() === "h" && page.panel.apply(false));
  addEventListener("beforeunload", (event) => page.state && !page.state.saved && event.preventDefault());
}

function key(event, scene) {
  if (at("help").open || event.target.matches("select, input:not([type=range], [type=checkbox])")) return;
  const name = event.key.toLowerCase();
  const act = event.ctrlKey || event.metaKey
    ? { z: () => step(event.shiftKey ? "api/redo" : "api/undo"), y: () => step("api/redo"), s: save }[name]
    : {
        enter: () => page.state.pending && step("api/accept"),
        escape: () => page.tools.cancel() || (page.state.pending && step("api/discard")),
        p: () => page.tools.choose("point"), b: () => page.tools.choose("box"), d: () => page.tools.choose("delete"),
        f: () => page.state.pending?.polygons && step("api/follow"),
        h: () => page.panel.apply(true),
        w: () => page.swipe.toggle(!page.swipe.on, true),
        0: () => page.map.fitBounds(scene.bounds, { padding: 28, duration: 300 }),
        "?": () => at("help").showModal(),
      }[name];
  if (!act || (name === "enter" && event.target.matches("button"))) return;
  event.preventDefault();
  act();
}

/** One step of editing; steps go to the server one after the other, in the order of the clicks. */
function step(path, body = {}) {
  page.steps += 1;
  document.body.classList.add("busy");
  page.waiting = page.waiting.then(async () => {
    const began = performance.now();
    try {
      const state = await post(path, body);
      await show(state);
      if (ASKING.includes(path)) at("spent").textContent = `answer ${Math.round(state.spent.wall_ms)} ms, page ${Math.round(performance.now() - began)} ms`;
    } catch (error) {
      tell(error.message, true);
    } finally {
      page.steps -= 1;
      document.body.classList.toggle("busy", page.steps > 0);
    }
  });
  return page.waiting;
}

async function save() {
  await page.waiting;
  at("save").disabled = true;
  at("save").textContent = "Saving ...";
  try {
    const state = await post("api/save");
    await show(state);
    tell(`Saved ${state.written} ${state.written === 1 ? "polygon" : "polygons"}.`);
  } catch (error) {
    tell(error.message, true);
    at("save").disabled = false;
  }
  at("save").textContent = "Save";
}

async function show(state) {
  page.state = state;
  const { map } = page, pending = state.pending;
  setData(map, "add", pending?.add);
  setData(map, "cut", pending?.cut);
  setData(map, "prompts", state.prompts);
  at("pending").hidden = !pending;
  if (pending) at("pending-text").textContent = said(pending);
  at("accept").disabled = !pending?.changes;
  at("follow").disabled = !pending?.polygons;
  at("undo").disabled = !state.can_undo;
  at("redo").disabled = !state.can_redo;
  at("save").disabled = state.saved;
  at("save").title = state.saved ? "Everything is saved" : "Save (Ctrl+S)";
  at("total").textContent = `${state.polygons} ${state.polygons === 1 ? "polygon" : "polygons"} · ${area(state.area_m2)}`;
  at("notice").hidden = !state.notice;
  at("notice").textContent = state.notice;
  page.panel.showAnswers(state.seen);
  progress(state);
  if (state.result !== page.rivers) {
    page.rivers = state.result;
    setData(map, "rivers", await get("api/rivers"));
  }
}

function progress({ tiles, coarse }) {
  at("tiles").textContent = tiles.ready < tiles.wanted ? `preparing tiles ${tiles.ready} / ${tiles.wanted}` : "";
  page.panel.showCoarse(coarse);
}

function said({ polygons, area_m2, cut, note, changes }) {
  if (note) return note;
  const cutting = cut.coordinates.length > 0 ? "takes off the red part" : "";
  const adding = polygons > 0 ? `adds ${area(area_m2)}` : "";
  return [adding, cutting].filter(Boolean).join(", ") || (changes ? "" : "No change.");
}

/** Tell the server what is looked at, so that its tiles are ready before they are clicked on. */
async function look(centre = page.map.getCenter()) {
  const box = page.map.getBounds();
  const clamp = (value, most) => Math.max(-most, Math.min(most, value));
  const [lon0, lon1] = [box.getWest(), box.getEast()].map((value) => clamp(value, 180));
  const [lat0, lat1] = [box.getSouth(), box.getNorth()].map((value) => clamp(value, 90));
  await post("api/look", { lon0, lat0, lon1, lat1, lon: clamp(centre.lng, 180), lat: clamp(centre.lat, 90) }).catch(() => {});
}

async function poll() {
  if (page.steps > 0 || document.hidden) return;
  try {
    const state = await get("api/state");
    if (page.steps > 0) return;
    if (page.state.version !== state.version || page.state.notice !== state.notice || page.lost) await show(state);
    else progress(state);
    if (page.lost) at("toast").hidden = true;
    page.lost = false;
  } catch (error) {
    if (!page.lost) tell(error.message, true, 0);
    page.lost = true;
  }
}

function tell(message, bad = false, ms = TOAST_MS) {
  const toast = at("toast");
  toast.textContent = message;
  toast.classList.toggle("bad", bad);
  toast.hidden = false;
  clearTimeout(page.toast);
  if (ms) page.toast = setTimeout(() => (toast.hidden = true), ms);
}

function area(m2) {
  if (m2 >= 1e6) return `${(m2 / 1e6).toPrecision(3)} km²`;
  return m2 >= 1e4 ? `${(m2 / 1e4).toPrecision(3)} ha` : `${Math.round(m2)} m²`;
}
