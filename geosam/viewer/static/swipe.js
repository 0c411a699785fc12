// A second map over the first, cut off at the left of a line that can be dragged.

import { get } from "./api.js";
import { makeMap, setData } from "./map.js";

export class Swipe {
  constructor(map, scene, panel) {
    Object.assign(this, { map, scene, panel, share: 0.5, on: false, other: null });
    this.box = document.getElementById("other");
    this.line = document.getElementById("divider");
    this.line.addEventListener("pointerdown", (event) => this.drag(event));
    this.line.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (step) this.place(this.share + step);
    });
    new ResizeObserver(() => this.place(this.share)).observe(this.box.parentElement);
  }

  async toggle(on = !this.on) {
    this.on = on && this.scene.compare;
    document.getElementById("swipe-on").checked = this.on;
    this.box.hidden = this.line.hidden = !this.on;
    if (!this.on) return;
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
    this.share = Math.min(0.98, Math.max(0.02, share));
    const x = this.share * this.box.parentElement.clientWidth;
    this.line.style.left = `${x}px`;
    this.box.style.clipPath = `inset(0 0 0 ${x}px)`;
  }

  drag(event) {
    this.line.setPointerCapture(event.pointerId);
    const left = this.box.parentElement.getBoundingClientRect().left;
    const move = (at) => this.place((at.clientX - left) / this.box.parentElement.clientWidth);
    this.line.addEventListener("pointermove", move);
    this.line.addEventListener("pointerup", () => this.line.removeEventListener("pointermove", move), { once: true });
  }
}
