// What a click, a shift-click and a drag on the map mean.

import { setData } from "./map.js";

const HINTS = {
  point: "Click on water. Shift-click on what is not.",
  box: "Drag a box around a water body.",
  delete: "Click on a polygon to delete it.",
};

export class Tools {
  constructor(map, edit) {
    Object.assign(this, { map, edit, tool: "point", start: null });
    for (const button of document.querySelectorAll("[data-tool]"))
      button.addEventListener("click", () => this.choose(button.dataset.tool));
    map.on("click", (event) => this.click(event));
    map.on("mousedown", (event) => this.press(event));
    map.on("mousemove", (event) => this.move(event));
    map.on("mouseup", (event) => this.release(event));
    map.getCanvas().addEventListener("mouseleave", () => setData(map, "hover", null));
  }

  choose(tool) {
    this.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]"))
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    document.getElementById("hint").textContent = HINTS[tool];
    document.getElementById("map").classList.toggle("deleting", tool === "delete");
    setData(this.map, "hover", null);
    tool === "box" ? this.map.dragPan.disable() : this.map.dragPan.enable();
  }

  click(event) {
    const { lng: lon, lat } = event.lngLat;
    if (this.tool === "point") this.edit("api/point", { lon, lat, label: event.originalEvent.shiftKey ? "dry" : "water" });
    if (this.tool === "delete") {
      const polygon = this.polygonAt(event.point);
      if (polygon) this.edit("api/delete", { id: polygon.properties.id });
      setData(this.map, "hover", null);
    }
  }

  polygonAt(point) {
    return this.map.queryRenderedFeatures(point, { layers: ["rivers-fill"] })[0];
  }

  press(event) {
    if (this.tool !== "box" || event.originalEvent.button !== 0) return;
    event.preventDefault();
    this.start = event.lngLat;
  }

  move(event) {
    if (this.tool === "box" && this.start) setData(this.map, "box", ring(this.start, event.lngLat));
    if (this.tool === "delete") setData(this.map, "hover", this.polygonAt(event.point)?.geometry);
  }

  release(event) {
    if (this.tool !== "box" || !this.start) return;
    const start = this.start, end = event.lngLat;
    this.start = null;
    setData(this.map, "box", null);
    const [a, b] = [this.map.project(start), event.point];
    if (Math.hypot(a.x - b.x, a.y - b.y) < 4) return; // A click, not a box.
    this.edit("api/box", { lon0: start.lng, lat0: start.lat, lon1: end.lng, lat1: end.lat });
  }

  /** Forget a box that is being drawn; false where there is none. */
  cancel() {
    const drawing = this.start !== null;
    this.start = null;
    setData(this.map, "box", null);
    return drawing;
  }
}

function ring(a, b) {
  return { type: "LineString", coordinates: [[a.lng, a.lat], [b.lng, a.lat], [b.lng, b.lat], [a.lng, b.lat], [a.lng, a.lat]] };
}
