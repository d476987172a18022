// Work in progress: a bar, a number of steps, a button that stops it.

import { announce, el, note } from "./dom.js";

/** Run `work(onStep, signal)` under a bar in `place`; gives what it gives, or null if it was stopped or failed. */
export async function underBar(place, label, work) {
  const control = new AbortController();
  const bar = el("progress", { max: 1, value: 0, "aria-label": label });
  const text = el("span", { class: "clock" }, "waiting for its turn");
  const stop = el("button", { type: "button", class: "plain", onclick: () => control.abort() }, "Cancel");
  place.replaceChildren(el("div", { class: "panel" }, el("div", { class: "row" }, el("b", { class: "grow" }, label), text, stop), bar));
  announce(`${label}: started`);
  try {
    const made = await work((done, total, words = "") => {
      bar.max = total;
      bar.value = done;
      text.textContent = `${words}step ${done} of ${total}`;
    }, control.signal);
    place.replaceChildren();
    announce(`${label}: done`);
    return made;
  } catch (error) {
    const stopped = error.name === "AbortError";
    place.replaceChildren(note(stopped ? "Cancelled. Nothing was kept." : error.message, !stopped));
    announce(stopped ? "Cancelled" : "");
    return null;
  }
}
