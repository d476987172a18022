// Which screen is on, by the address after #.

import { ApiError, key } from "./api.js";
import { compare } from "./compare.js";
import { el, empty, field, loading } from "./dom.js";
import { generate } from "./generate.js";
import { grid } from "./grid.js";
import { library } from "./library.js";
import { silence } from "./player.js";
import { runs } from "./runs.js";
import { tests } from "./tests.js";

const SCREENS = { generate: ["Generate", generate], compare: ["Compare", compare], grid: ["Grid", grid], library: ["Library", library], runs: ["Runs", runs], tests: ["Listening tests", tests] };
const place = document.getElementById("screen");
let turn = 0;
let leave = null;

async function show() {
  const [, name = "generate", detail = ""] = location.hash.split("/");
  const [title, draw] = SCREENS[name] ?? SCREENS.generate;
  const mine = (turn += 1);
  silence();
  leave?.();
  leave = null;
  document.title = `${title} · Resonate Studio`;
  markTab(SCREENS[name] ? name : "generate");
  place.replaceChildren(loading(`Loading ${title}`));
  const fresh = el("div");
  let left = null;
  try {
    left = await draw(fresh, decodeURIComponent(detail));
  } catch (error) {
    fresh.replaceChildren(problem(error));
  }
  if (mine !== turn) return left?.();
  leave = left;
  place.replaceChildren(fresh);
  scrollTo(0, 0);
  return undefined;
}

function markTab(name) {
  const links = Object.entries(SCREENS).map(([id, [title]]) => el("a", { href: `#/${id}`, "aria-current": id === name ? "page" : null }, title));
  const tabs = document.getElementById("tabs");
  tabs.replaceChildren(...links);
  const current = tabs.querySelector("[aria-current]");
  tabs.scrollLeft = current.offsetLeft - (tabs.clientWidth - current.offsetWidth) / 2;
}

function problem(error) {
  if (error instanceof ApiError && error.status === 401) return askForKey();
  const again = el("button", { type: "button", class: "main", onclick: show }, "Try again");
  const shown = empty("That did not work", error.message, again);
  shown.setAttribute("role", "alert");
  return shown;
}

function askForKey() {
  const secret = el("input", { type: "password", required: true, autocomplete: "off" });
  const form = el("form", { class: "panel narrow-panel" }, el("h2", {}, "This server asks for a key"), field("Key", secret, "Kept until this tab is closed."), el("button", { class: "main" }, "Go on"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(secret.value);
    show();
  });
  return form;
}

addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#/")) return;
  show().then(() => place.focus({ preventScroll: true }));
});
show();
