// The panel at the left: layers with their opacity, and how the picture is shown.

import { post } from "./api.js";
import { addCoarse, setGroup, showSeen, tilesOf, WATER, DRY } from "./map.js";

const NAMED = {
  "model's view": [],
  "natural colour": ["red", "green", "blue"],
  "infrared": ["nir", "red", "green"],
  "short-wave infrared": ["swir1", "nir", "red"],
};

export class Panel {
  constructor(map, scene, tell) {
    this.map = map;
    this.scene = scene;
    this.tell = tell;
    this.shown = {};
    this.mirrors = []; // Further maps that show the same layers.
    this.seen = "0"; // Which answers the probability shows.
    this.makeLayers();
    this.makeBands();
  }

  get maps() { return [this.map, ...this.mirrors]; }

  makeLayers() {
    const rows = [
      ["rivers", "Polygons", WATER, true, 0.7],
      ["prompts", "Prompts", DRY, true, 1],
      ["probability", "Probability", "linear-gradient(90deg, #fff, #1f9bff)", false, 0.8],
      ["coarse", "Coarse mask", "#7fb8e8", false, 0.6],
      ["ortho", "Ortho", "linear-gradient(135deg, #7a8a5a, #b59a72)", true, 1],
      ...(this.scene.background ? [["background", "Background map", "#cfd8d0", true, 1]] : []),
    ];
    const box = document.getElementById("layers");
    for (const [name, title, swatch, on, opacity] of rows) {
      const row = document.createElement("div");
      row.className = "layer";
      row.dataset.layer = name;
      row.innerHTML = `<input type="checkbox" id="layer-${name}"><span class="swatch"></span><label for="layer-${name}"></label>
        <input type="range" min="0" max="1" step="0.05" aria-label="Opacity"><span class="said" hidden></span>`;
      row.querySelector(".swatch").style.background = swatch;
      row.querySelector("label").textContent = title;
      const [check, range] = [row.querySelector("[type=checkbox]"), row.querySelector("[type=range]")];
      check.checked = on;
      range.value = opacity;
      range.title = `Opacity of ${title.toLowerCase()}`;
      const change = () => this.change(name, check.checked, Number(range.value));
      check.addEventListener("change", change);
      range.addEventListener("input", change);
      box.append(row);
      this.shown[name] = { on, opacity };
    }
    this.apply();
  }

  change(name, on, opacity) {
    this.shown[name] = { on, opacity };
    if (name === "coarse" && on) this.wantCoarse();
    for (const map of this.maps) setGroup(map, name, on, opacity);
  }

  /** Bring all maps to what the panel says, or hide all but the picture for a moment. */
  apply(hidden = false) {
    for (const map of this.maps)
      for (const [name, { on, opacity }] of Object.entries(this.shown))
        setGroup(map, name, on && !(hidden && name !== "ortho" && name !== "background"), opacity);
  }

  async wantCoarse() {
    try {
      this.showCoarse(await post("api/coarse"));
    } catch (error) {
      this.tell(error.message, true);
    }
  }

  showCoarse({ status, text }) {
    const said = document.querySelector('[data-layer="coarse"] .said');
    said.hidden = status === "none";
    said.textContent = text;
    if (status === "ready") {
      for (const map of this.maps) addCoarse(map, this.scene);
      const { on, opacity } = this.shown.coarse;
      for (const map of this.maps) setGroup(map, "coarse", on, opacity);
    }
  }

  /** Show the probability of other answers. */
  showAnswers(seen) {
    if (seen === this.seen) return;
    this.seen = seen;
    for (const map of this.maps) showSeen(map, seen);
  }

  makeBands() {
    const choice = document.getElementById("bands"), bands = this.scene.bands;
    const add = (title, value) => choice.append(new Option(title, value));
    for (const [title, roles] of Object.entries(NAMED))
      if (roles.every((role) => bands.includes(role))) add(title, roles.join(","));
    for (const role of bands) add(`${role.replaceAll("_", " ")} alone`, role);
    if (bands.length > 1) add("own choice", "own");
    const own = [...document.querySelectorAll("#own-bands select")];
    own.forEach((select, place) => {
      bands.forEach((role) => select.append(new Option(role, role)));
      select.selectedIndex = Math.min(place, bands.length - 1);
      select.addEventListener("change", () => this.showBands());
    });
    choice.addEventListener("change", () => this.showBands());
    document.getElementById("percent").addEventListener("change", () => this.showBands());
    for (const id of ["brightness", "contrast"]) document.getElementById(id).addEventListener("input", () => this.showLight());
    this.showBands();
  }

  showBands() {
    const value = document.getElementById("bands").value;
    const own = value === "own";
    document.getElementById("own-bands").hidden = !own;
    document.getElementById("percent-row").hidden = value === "";
    const picked = [...document.querySelectorAll("#own-bands select")].map((select) => select.value);
    const bands = own ? picked : value.split(",").filter(Boolean);
    this.view = { bands, percent: Number(document.getElementById("percent").value) };
    for (const map of this.maps) map.getSource("ortho").setTiles([tilesOf("ortho", this.view)]);
  }

  showLight() {
    const [light, contrast] = ["brightness", "contrast"].map((id) => Number(document.getElementById(id).value));
    for (const map of this.maps) {
      map.setPaintProperty("ortho", "raster-brightness-min", Math.max(0, light));
      map.setPaintProperty("ortho", "raster-brightness-max", 1 + Math.min(0, light));
      map.setPaintProperty("ortho", "raster-contrast", contrast);
    }
  }

  /** Let a further map show what this one shows. */
  mirror(map) {
    this.mirrors.push(map);
    showSeen(map, this.seen);
    this.apply();
    this.showBands();
    this.showLight();
  }
}

