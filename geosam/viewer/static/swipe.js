// A second map over the first, cut off at the left of a line that can be dragged, or moved by keys.

import { get } from "./api.js";
import { makeMap, setData } from "./map.js";

const LEAST = 0.02, MOST = 0.98;
const STEPS = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1 };

export class Swipe {
  constructor(map, scene, panel) {
    Object.assign(this, { map, scene, panel, share: 0.5, on: false, other: null });
    this.box = document.getElementById("other");
    this.line = document.getElementById("divider");
    this.line.addEventListener("pointerdown", (event) => this.drag(event));
    this.line.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.place(this.share)).observe(this.box.parentElement);
  }

  /** Show or hide the other result; `byKey`: the arrow keys are to move the line at once, and the map again afterwards. */
  async toggle(on = !this.on, byKey = false) {
    this.on = on && this.scene.compare;
    document.getElementById("swipe-on").checked = this.on;
    if (!this.on && document.activeElement === this.line) this.map.getCanvas().focus();
    this.box.hidden = this.line.hidden = !this.on;
    if (!this.on) return;
    if (byKey) this.line.focus();
    if (!this.other) await this.make();
    this.other.resize();
    this.follow();
    this.place(this.share);
  }

  async make() {
    this.other = makeMap("other", this.scene, "compare");
    await new Promise((done) => this.other.once("load", done));
    setData(this.other, "rivers", await get("api/compare"));
    this.panel.mirror(this.other);
    this.map.on("move", () => this.follow());
  }

  follow() {
    if (this.on) this.other.jumpTo({ center: this.map.getCenter(), zoom: this.map.getZoom() });
  }

  place(share) {
    this.share = Math.min(MOST, Math.max(LEAST, share));
    this.line.setAttribute("aria-valuenow", Math.round(100 * this.share));
    const x = this.share * this.box.parentElement.clientWidth;
    this.line.style.left = `${x}px`;
    this.box.style.clipPath = `inset(0 0 0 ${x}px)`;
  }

  press(event) {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // Nor scroll what is around it.
    this.place(this.share + step);
  }

  drag(event) {
    this.line.setPointerCapture(event.pointerId);
    const left = this.box.parentElement.getBoundingClientRect().left;
    const move = (at) => this.place((at.clientX - left) / this.box.parentElement.clientWidth);
    this.line.addEventListener("pointermove", move);
    this.line.addEventListener("pointerup", () => this.line.removeEventListener("pointermove", move), { once: true });
  }
}
