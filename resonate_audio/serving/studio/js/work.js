// Work in progress: a bar, a number of steps, a button that stops it. It stays in view at the foot of
// the window, whatever is scrolled and whichever screen is on, until it is done or put away.

import { announce, el } from "./dom.js";

const dock = el("section", { class: "dock", "aria-label": "Work in progress" });
document.body.append(dock);
new ResizeObserver(() => document.body.style.setProperty("--dock", `${dock.offsetHeight}px`)).observe(dock);

/**
 * Run `work(onStep, signal)` under a bar; gives what it gives, or null if it was stopped or failed for good.
 * `kept()` is how many sounds are done and stay if it is stopped.
 */
export async function underBar(label, work, kept = () => 0) {
  const row = el("div", { class: "panel work-row" });
  dock.append(row);
  for (;;) {
    const outcome = await attempt(row, label, work, kept);
    if (outcome !== AGAIN) return outcome;
  }
}

const AGAIN = Symbol("again");

async function attempt(row, label, work, kept) {
  const control = new AbortController();
  const bar = el("progress", { max: 1, value: 0, "aria-label": label });
  const text = el("span", { class: "clock" }, "waiting for its turn");
  const stop = el("button", { type: "button", class: "plain", onclick: () => control.abort() }, "Cancel");
  row.replaceChildren(el("div", { class: "row" }, el("b", { class: "grow" }, label), text, stop), bar);
  announce(`${label}: started`);
  try {
    const made = await work((done, total, words = "") => {
      bar.max = total;
      bar.value = done;
      text.textContent = `${words}step ${done} of ${total}`;
    }, control.signal);
    row.remove();
    announce(`${label}: done`);
    return made;
  } catch (error) {
    if (error.name !== "AbortError") return failed(row, label, error);
    const done = kept();
    const words = done === 1 ? "The sound that was done is kept." : `The ${done} sounds that were done are kept.`;
    tell(row, `Cancelled. ${done ? words : "Nothing was kept."}`, false);
    announce("Cancelled");
    setTimeout(() => row.remove(), 6000);
    return null;
  }
}

/** What went wrong, with a way on where trying again may help: the server is away, or full. */
function failed(row, label, error) {
  announce("");
  return new Promise((resolve) => {
    const again = el("button", { type: "button", class: "plain", onclick: () => resolve(AGAIN) }, "Try again");
    const close = () => {
      row.remove();
      resolve(null);
    };
    tell(row, `${label}: ${error.message}`, true, [0, 408, 429, 503].includes(error.status) ? again : null, close);
    if (![0, 408, 429, 503].includes(error.status)) resolve(null);
  });
}

function tell(row, words, isBad, action = null, close = () => row.remove()) {
  const said = el("p", { class: isBad ? "grow bad" : "grow", role: isBad ? "alert" : "note" }, words);
  row.replaceChildren(el("div", { class: "row" }, said, action, el("button", { type: "button", class: "plain", onclick: close }, "Close")));
}
