// The waveform of a sound that is worked on: a stretch to select, ends to pull, a seam to see.

import { el } from "./dom.js";

const STEP_S = 0.05;
const ROOM = 0.35;
/** Share of the sound's length that is free beside it at least, to pull its ends into. */

/** One handle: it is pulled with a pointer, or moved with the arrow keys. */
function handle(label, { get, set, perPixel, sign = 1 }) {
  const knob = el("span", { class: "handle", role: "slider", tabindex: 0, "aria-label": label });
  let from = null;
  knob.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    event.stopPropagation();
    knob.setPointerCapture(event.pointerId);
    knob.focus();
    from = { x: event.clientX, value: get(), scale: perPixel() };
  });
  knob.addEventListener("pointermove", (event) => from && set(from.value + sign * (event.clientX - from.x) * from.scale, false));
  for (const name of ["pointerup", "pointercancel"]) {
    knob.addEventListener(name, () => {
      if (from) set(get(), true);
      from = null;
    });
  }
  knob.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!steps) return;
    event.preventDefault();
    event.stopPropagation();
    set(get() + steps * STEP_S, true);
  });
  return knob;
}

const round = (seconds) => Math.round(seconds * 1000) / 1000;

/**
 * Layers over a player's picture. `values` holds from, to, before, after and seam in seconds; it is
 * changed in place, and `onchange` is told.
 */
export class Timeline {
  constructor(player, duration, longest, values, onchange) {
    Object.assign(this, { player, duration, longest, values, onchange });
    const inside = () => duration / (this.picture.clientWidth || 1);
    this.picture = player.picture;
    this.picture.classList.add("tall");
    this.start = handle("Start of the stretch", { get: () => values.from, set: (s, end) => this.select(s, values.to, end), perPixel: inside });
    this.stop = handle("End of the stretch", { get: () => values.to, set: (s, end) => this.select(values.from, s, end), perPixel: inside });
    this.box = el("div", { class: "stretch" }, this.start, this.stop);
    this.layer = el("div", { class: "select-layer" }, this.box);
    this.left = handle("Seconds before", { get: () => values.before, set: (s, end) => this.extend(s, values.after, end), perPixel: inside, sign: -1 });
    this.right = handle("Seconds after", { get: () => values.after, set: (s, end) => this.extend(values.before, s, end), perPixel: inside });
    this.ghosts = [el("div", { class: "ghost" }, this.left), el("div", { class: "ghost" }, this.right)];
    this.rooms = this.ghosts.map((ghost, n) => el("div", { class: n ? "room after" : "room before" }, ghost));
    this.seams = [el("i", { class: "seam first" }), el("i", { class: "seam last" })];
    this.picture.append(this.layer, ...this.seams);
    this.whole = el("div", { class: "whole" });
    this.picture.replaceWith(this.whole);
    this.whole.append(this.rooms[0], this.picture, this.rooms[1]);
    this.listen(inside);
    this.show(true);
  }

  /** Pull over the picture to select; a click without a pull goes to that moment. */
  listen(perPixel) {
    let from = null;
    const at = (event) => (event.clientX - this.picture.getBoundingClientRect().left) * perPixel();
    this.layer.addEventListener("pointerdown", (event) => {
      this.layer.setPointerCapture(event.pointerId);
      from = { x: event.clientX, seconds: at(event), moved: false };
    });
    this.layer.addEventListener("pointermove", (event) => {
      if (!from || (!from.moved && Math.abs(event.clientX - from.x) < 4)) return;
      from.moved = true;
      this.select(Math.min(from.seconds, at(event)), Math.max(from.seconds, at(event)), false);
    });
    this.layer.addEventListener("pointerup", (event) => {
      if (from?.moved) this.select(this.values.from, this.values.to, true);
      else if (from) this.player.audio.currentTime = at(event);
      from = null;
    });
    this.layer.addEventListener("pointercancel", () => (from = null));
  }

  /** Which tool is on: vary, replace, extend, loop or finish. */
  use(tool) {
    this.whole.dataset.tool = tool;
    this.show(true);
  }

  select(from, to, end) {
    const inside = (seconds) => Math.min(this.duration, Math.max(0, seconds));
    this.values.from = round(Math.min(inside(from), this.duration - STEP_S));
    this.values.to = round(Math.max(inside(to), this.values.from + STEP_S));
    this.show(end);
    this.onchange();
  }

  extend(before, after, end) {
    const free = Math.max(0, this.longest - this.duration);
    this.values.before = round(Math.min(free, Math.max(0, before)));
    this.values.after = round(Math.min(free - this.values.before, Math.max(0, after)));
    this.show(end);
    this.onchange();
  }

  /** Draw the values; `fresh` also makes room for what is long, which a pull would run away from. */
  show(fresh) {
    const { values, duration } = this;
    const share = (seconds) => `${(100 * seconds) / duration}%`;
    this.box.style.setProperty("left", share(values.from));
    this.box.style.setProperty("width", share(values.to - values.from));
    if (fresh) this.free = [values.before, values.after].map((seconds) => Math.max(ROOM * duration, 1.25 * seconds));
    [values.before, values.after].forEach((seconds, n) => {
      this.rooms[n].style.setProperty("flex-grow", this.free[n] / duration);
      this.ghosts[n].style.setProperty("width", `${Math.min(100, (100 * seconds) / this.free[n])}%`);
    });
    this.seams.forEach((seam) => seam.style.setProperty("width", share(values.seam / 2)));
    const told = [[this.start, values.from, duration], [this.stop, values.to, duration], [this.left, values.before, this.longest], [this.right, values.after, this.longest]];
    for (const [knob, value, most] of told) {
      knob.setAttribute("aria-valuemin", 0);
      knob.setAttribute("aria-valuemax", most);
      knob.setAttribute("aria-valuenow", value);
      knob.setAttribute("aria-valuetext", `${value.toFixed(2)} seconds`);
    }
  }
}
